"""BullMQ 6 in a Node child: addBulk, and a Worker whose processor's promise our ack resolves.

A job is locked for `lease_s`, and the child renews its lock while it runs, at half that time. A job whose lock has run
out is found by the Worker's check for stalled jobs, every half `lease_s`, in two passes. BullMQ would fail a job that
stalls a second time (maxStalledCount 1): here it may stall for ever, else it would be lost. Jobs are started in order,
yet with a concurrency above 1 BullMQ promises none. Jobs are removed when completed, else they would fill Redis.

An ack after the lock was lost is no error and settles nothing. A stopped worker with room for more may be the one that
Redis wakes for a new job: the others then look for it up to 5 s later, as BullMQ does by itself. Where a handle is
closed, what it took and no `get` returned goes back at once (moveToWait). What was got and not acked waits for the end
of its lock.

Tried, messages/s through the harness at batch 1 / 100 / 1000 (its own plain script): 1.9k (2.4k) / 10.6k (10.6k) /
10.6k (11.0k). At batch 1 a `get` and an `ack` through the child's socket add 0.1 ms.
"""

from __future__ import annotations

from collections.abc import Mapping

from imqueue.backend import Declares, Durability
from imqueue.backends._node_redis import SIZE_MAX_BYTES, NodeRedis


class BullMQ(NodeRedis):
    """The queue is BullMQ's of the same name, under its own prefix `bull`."""

    key_type = "none"
    package = "bullmq"
    declares = Declares(
        built_on="npm bullmq on Redis: addBulk, a Worker with a batch's concurrency",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=False,
        wakes_by="BZPOPMIN on a marker: the server answers when a job comes",
        unacked_returns="when its lease ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="redis",
    )

    def _keys(self) -> Mapping[str, str]:
        types = {"wait": "list", "active": "list", "id": "string", "failed": "zset", "stalled": "set", "meta": "hash"}
        return {f"bull:{self.queue}:{name}": key_type for name, key_type in types.items()}

    def _returns(self) -> tuple[float | None, float | None]:
        return 1.5 * self.lease_s, None
