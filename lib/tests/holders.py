"""What the contract's child processes do. Apart from the tests, so that a child imports little."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from typing import NamedTuple

from imqueue import registry
from imqueue.backend import Backend, Durability


class Where(NamedTuple):
    """All that another process needs to open a handle on the same queue."""

    name: str
    url: str
    queue: str
    durability: Durability
    lease_s: float

    def handle(self, batch: int) -> Backend:
        loaded = registry.load(self.name)
        assert issubclass(loaded, Backend)
        return loaded(self.url, self.queue, durability=self.durability, batch=batch, lease_s=self.lease_s)


def drain(where: Where) -> list[bytes]:
    """Get and ack until nothing has come for a second."""
    taken: list[bytes] = []
    with where.handle(batch=20) as worker:
        while messages := worker.get(1.0):
            worker.ack(messages)
            taken += [message.body for message in messages]
    return taken


def hold_until_killed(where: Where, told: Connection, wait_s: float) -> None:
    """Get, tell how many came, ack none, and wait for the end."""
    handle = where.handle(batch=100)
    handle.open()
    told.send(len(handle.get(wait_s)))
    signal.pause()


def hold_as_a_group(where: Where, told: Connection, wait_s: float) -> None:
    """The same, as the leader of a process group of its own, like a worker of a trial."""
    os.setpgid(0, 0)
    hold_until_killed(where, told, wait_s)
