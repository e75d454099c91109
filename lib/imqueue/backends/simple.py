"""No queue at all: a batch is handled where it was made. The control that all others are read against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from imqueue.backend import Declares, Durability, Inline


class Simple(Inline):
    """A plain loop. What it reaches is what the harness itself costs."""

    declares = Declares(
        built_on="a plain loop",
        durabilities=(Durability.MEMORY,),
        delivery="at most once",
        settles="none",
        fifo=True,
        wakes_by="nobody waits: the handler is called",
        unacked_returns="never",
        size_max_bytes=None,
        in_process=True,
    )

    def pump(self, batches: Iterable[Sequence[bytes]], handle: Callable[[Sequence[bytes]], None]) -> None:
        for batch in batches:
            handle(batch)
