"""A Redis list: RPUSH at the tail, LPOP from the head. What is popped is gone, so it is at most once.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, Redis 7.0.15 that writes nothing):
variadic RPUSH, LPOP with count, BLMPOP when that is empty (this): 19k / 788k / 2.1M; BLMPOP alone: 12k / 660k
/ 1.9M; a pipeline of single LPUSHes, RPOP with count: 10k / 133k / 192k (bound by packing commands in Python).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import repeat

from imqueue.backend import Declares, Durability, Message, messages
from imqueue.backends._redis import BLOCK_MAX_S, BODY_MAX_BYTES, RedisBackend

BLOCK_MIN_S = 0.001  # Redis reads a timeout of 0 as "for ever"


class RedisList(RedisBackend):
    """The queue is one list, under the queue's own name."""

    key_type = "list"
    declares = Declares(
        built_on="one Redis list: RPUSH, LPOP, BLMPOP",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at most once",
        settles="none",
        fifo=True,
        wakes_by="BLMPOP: the server answers when a message comes",
        unacked_returns="never",
        size_max_bytes=BODY_MAX_BYTES,
        server="redis",
    )

    def put(self, bodies: Sequence[bytes]) -> None:
        if bodies:
            self._call(f"put of {len(bodies)} messages", "RPUSH", self.queue, *bodies)

    def get(self, timeout_s: float) -> list[Message]:
        bodies = self._call("get", "LPOP", self.queue, self.batch)
        if not bodies and timeout_s > 0:
            bodies = self._wait(timeout_s)
        return messages(bodies or (), repeat(None))

    def ack(self, messages: Sequence[Message]) -> None:
        """Nothing to do: `get` has removed them."""

    def depth(self) -> int:
        return int(self._call("depth", "LLEN", self.queue))

    def _wait(self, timeout_s: float) -> list[bytes]:
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            block_s = max(BLOCK_MIN_S, min(left_s, BLOCK_MAX_S))
            reply = self._call("get", "BLMPOP", block_s, 1, self.queue, "LEFT", "COUNT", self.batch)
            if reply:
                return list(reply[1])
        return []
