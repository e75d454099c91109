"""Kue 0.11 in a Node child: job.save, and a processor whose `done` our ack calls.

At most once: a job that its worker does not finish stays "active" for ever. Kue pops a job's id first and books the job
as active afterwards; what a worker that dies in between had popped is in no list at all. (A job may be given a `ttl`:
it then fails after that time, and is tried again if it has attempts left. That does not close the gap: it is not used.)
Where a handle is closed, what it took and no `get` returned goes back. Jobs are removed when completed.

Tried, messages/s through the harness at batch 1 / 100 / 1000 (its own plain script): 0.9k (1.2k) / 3.7k (4.0k) / 3.5k
(3.4k). At batch 1 a `get` and an `ack` through the child's socket add 0.2 ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from imqueue.backend import Declares, Durability
from imqueue.backends._node_redis import SIZE_MAX_BYTES, NodeRedis


class Kue(NodeRedis):
    """The queue is Kue's jobs of type `message` under a prefix of its own: Kue has no other bounds."""

    key_type = "none"
    package = "kue"
    declares = Declares(
        built_on="npm kue on Redis: save, process with a batch's concurrency",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at most once",
        settles="none",
        fifo=False,
        wakes_by="BLPOP: the server answers when a job comes",
        unacked_returns="never",
        size_max_bytes=SIZE_MAX_BYTES,
        server="redis",
    )

    @property
    def prefix(self) -> str:
        """Letters and digits only: Kue puts it into a Lua pattern as it is."""
        return "kue" + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}_", self.queue)

    def _keys(self) -> Mapping[str, str]:
        types = {"ids": "string", "jobs": "zset", "jobs:inactive": "zset", "message:jobs": "list"}
        return {f"{self.prefix}:{name}": key_type for name, key_type in types.items()}

    def _config(self) -> dict[str, Any]:
        return {"prefix": self.prefix}

    def _returns(self) -> tuple[float | None, float | None]:
        return None, None
