"""A thread-safe queue between the threads of one process: what queueing costs when nothing leaves memory.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, two busy cores): `SimpleQueue`, which is C (this),
375k / 3.7M / 3.3M; a deque under a Condition 199k / 3.2M / 4.1M; `queue.Queue` 170k / 337k / 425k. At most once because
that is what a queue in memory is: a crash of the process takes the messages and their holder alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from queue import Empty, SimpleQueue

from imqueue.backend import (
    Backend,
    Declares,
    Durability,
    Guarantees,
    Message,
    Rejected,
    messages,
)

_queues: dict[str, SimpleQueue[bytes]] = {}
"""Every queue of this process by name: handles that name the same queue meet here."""


class Memory(Backend):
    """The queue is one `SimpleQueue`; it lives until `destroy`, or until the process ends."""

    declares = Declares(
        built_on="queue.SimpleQueue of the standard library",
        durabilities=(Durability.MEMORY,),
        delivery="at most once",
        settles="none",
        fifo=True,
        wakes_by="a lock of the operating system: at once",
        unacked_returns="never",
        size_max_bytes=None,
        in_process=True,
    )

    _met: SimpleQueue[bytes] | None = None

    def open(self) -> None:
        self._met = _queues.setdefault(self.queue, SimpleQueue())

    def close(self) -> None:
        self._met = None

    @property
    def guarantees(self) -> Guarantees:
        self._here("guarantees")
        return Guarantees(
            survives_kill=False,
            survives_power_loss=False,
            fifo=True,
            puts_confirmed=True,
            redelivers_after_s=None,
            lease_s=None,
            source="no server: the queue is part of this process and ends with it",
        )

    def put(self, bodies: Sequence[bytes]) -> None:
        put = self._here("put").put
        for body in bodies:
            put(body)

    def get(self, timeout_s: float) -> list[Message]:
        queue = self._here("get")
        bodies: list[bytes] = []
        try:
            bodies.append(queue.get(timeout=max(0.0, timeout_s)))
            take = queue.get_nowait
            while len(bodies) < self.batch:
                bodies.append(take())
        except Empty:
            pass
        return messages(bodies, repeat(None))

    def ack(self, messages: Sequence[Message]) -> None:
        """Nothing to do: `get` has removed them."""

    def depth(self) -> int:
        return self._here("depth").qsize()

    def destroy(self) -> None:
        self._here("destroy")
        _queues.pop(self.queue, None)

    def _here(self, doing: str) -> SimpleQueue[bytes]:
        if self._met is None:
            raise Rejected(f"{doing} was not tried: the handle is closed")
        return self._met
