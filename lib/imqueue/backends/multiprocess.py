"""Queues across processes by the standard library: one process keeps them, everybody calls it over a socket.

Tried, messages/s at batch 1 / 100 / 1000 (no harness, a producer and a worker process): a deque behind
``multiprocessing.connection`` (this) 18k / 0.9M / 3.4M; a queue of ``multiprocessing.managers``, a whole batch for one
item, 17k / 1.1M / 8.3M, but a worker then gets what was put together and no more; `multiprocessing.Queue`, again a
batch for an item, 210k / 18M / 62M (a pipe and a lock). That one can be shared only by relatives of the process that
made it, and a worker killed while it reads leaves the lock taken for ever.

Through the harness it keeps 0.55 to 0.6 of that: two cores are full, and the harness' own work is as large as its.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from multiprocessing.connection import Connection
from typing import Any

from imqueue.backend import Backend, BackendError, Declares, Durability, Guarantees, Message, Rejected, messages
from imqueue.backends._manager import call, connect

ANSWER_MAX_S = 20.0  # a manager that says nothing for so long is taken for dead


class Multiprocess(Backend):
    """A handle is one connection to the manager, which serves it with a thread of its own."""

    declares = Declares(
        built_on="multiprocessing.connection: deques in a process of their own",
        durabilities=(Durability.MEMORY,),
        delivery="at most once",
        settles="none",
        fifo=True,
        wakes_by="a condition in the manager: it answers when a message comes",
        unacked_returns="never",
        size_max_bytes=(1 << 31) - 1024,  # a batch is one pickled call, and larger ones change the framing
        server="manager",
    )

    _link: Connection | None = None

    def open(self) -> None:
        self.close()
        self._link = connect(self.url, ANSWER_MAX_S)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def guarantees(self) -> Guarantees:
        self.depth()  # raises where nobody is there to promise anything
        return Guarantees(
            survives_kill=False,
            survives_power_loss=False,
            fifo=True,
            puts_confirmed=True,
            redelivers_after_s=None,
            lease_s=None,
            source="the manager keeps its queues in memory and writes nothing",
            settings={"kept in": "memory"},
        )

    def put(self, bodies: Sequence[bytes]) -> None:
        self._call("put", list(bodies))

    def get(self, timeout_s: float) -> list[Message]:
        return messages(self._call("get", self.batch, timeout_s, extra_s=timeout_s), repeat(None))

    def ack(self, messages: Sequence[Message]) -> None:
        """Nothing to do: `get` has removed them."""

    def depth(self) -> int:
        return int(self._call("depth"))

    def destroy(self) -> None:
        self._call("drop")

    def _call(self, method: str, *arguments: Any, extra_s: float = 0.0) -> Any:
        if self._link is None:
            raise Rejected(f"{method} was not tried: the handle is closed, or its connection was lost")
        try:
            return call(self._link, method, self.queue, *arguments, timeout_s=ANSWER_MAX_S + extra_s)
        except BackendError as error:
            self.close()
            raise BackendError(f"{method} is uncertain: {error}") from error
