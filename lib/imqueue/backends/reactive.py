"""A reactive sequence: a subject, its operators, and the handler as its observer.

Tried, messages/s, at any batch (no harness): a subject with `map` (this) 1.0M; with `buffer_with_count` 0.4M, as a
buffer is a window of its own for each group. A scheduler that moves each item to another thread reaches 5k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from reactivex import operators
from reactivex.subject import Subject

from imqueue.backend import Declares, Durability, Inline


class Reactive(Inline):
    """What a chain of operators adds to a plain loop. No scheduler: an observer runs where the subject emits."""

    declares = Declares(
        built_on="reactivex: a Subject, map, and the handler as observer",
        durabilities=(Durability.MEMORY,),
        delivery="at most once",
        settles="none",
        fifo=True,
        wakes_by="nobody waits: the subject calls its observer",
        unacked_returns="never",
        size_max_bytes=None,
        in_process=True,
    )

    def pump(self, batches: Iterable[Sequence[bytes]], handle: Callable[[Sequence[bytes]], None]) -> None:
        failed: list[Exception] = []
        subject: Subject[bytes] = Subject()
        alone = subject.pipe(operators.map(lambda body: [body]))
        with alone.subscribe(on_next=handle, on_error=failed.append):
            for batch in batches:
                for body in batch:
                    subject.on_next(body)
                if failed:
                    raise failed[0]
            subject.on_completed()
