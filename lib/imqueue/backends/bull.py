"""Bull 4 in a Node child: addBulk, and a processor whose promise our ack resolves.

A job is locked for `lease_s`, and the child renews its lock for as long as it runs, at half that time. A job whose lock
has run out is found by Bull's check for stalled jobs, every half `lease_s`, in two passes. Bull would fail a job that
stalls a second time (maxStalledCount 1): here it may stall for ever, else it would be lost. Jobs are started in order,
yet with a concurrency above 1 Bull promises none. Jobs are removed when completed, else they would fill Redis.

An ack after the lock was lost is no error and settles nothing. One case is Bull's own: a stopped worker with room for
more still waits in BRPOPLPUSH for up to 5 s. A job that Redis hands to it there comes back one round later; if the
worker goes on before that, it locks the job although somebody else may hold it by then, and both handle it. Where a
handle is closed, what it took and no `get` returned goes back at once, as a delayed job that is promoted: Bull's other
ways count a failed attempt. What was got and not acked waits for the end of its lock.

Tried, messages/s through the harness at batch 1 / 100 / 1000 (its own plain script): 2.0k (3.1k) / 12.2k (13.5k) / 7.6k
(7.3k). At batch 1 a `get` and an `ack` through the child's socket add 0.15 ms; above 100 Bull itself slows down.
"""

from __future__ import annotations

from collections.abc import Mapping

from imqueue.backend import Declares, Durability
from imqueue.backends._node_redis import SIZE_MAX_BYTES, NodeRedis


class Bull(NodeRedis):
    """The queue is Bull's of the same name, under its own prefix `bull`."""

    key_type = "none"
    package = "bull"
    declares = Declares(
        built_on="npm bull on Redis: addBulk, process with a batch's concurrency",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=False,
        wakes_by="BRPOPLPUSH: the server answers when a job comes",
        unacked_returns="when its lease ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="redis",
    )

    def _keys(self) -> Mapping[str, str]:
        types = {"wait": "list", "active": "list", "id": "string", "failed": "zset", "stalled": "set", "meta": "none"}
        return {f"bull:{self.queue}:{name}": key_type for name, key_type in types.items()}

    def _returns(self) -> tuple[float | None, float | None]:
        return 1.5 * self.lease_s, None
