"""Promises: a future for each message, resolved by the handler in a thread of its own.

Tried, messages/s at batch 1 / 100 / 1000 (no harness): submit, then each future's result (this) 20k / 150k / 110k;
`executor.map` 17k / 100k / 100k. At batch 1 it is the hand-over to the thread and back that is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from imqueue.backend import Declares, Durability, Inline


class Promise(Inline):
    """What a future and the hand-over to another thread add to a plain loop. One thread: the order stays."""

    declares = Declares(
        built_on="concurrent.futures: a future for each message, resolved by the handler",
        durabilities=(Durability.MEMORY,),
        delivery="at most once",
        settles="none",
        fifo=True,
        wakes_by="the executor's queue: at once",
        unacked_returns="never",
        size_max_bytes=None,
        in_process=True,
    )

    def pump(self, batches: Iterable[Sequence[bytes]], handle: Callable[[Sequence[bytes]], None]) -> None:
        with ThreadPoolExecutor(max_workers=1) as executor:
            for batch in batches:
                promised = [executor.submit(handle, [body]) for body in batch]
                for future in promised:
                    future.result()
