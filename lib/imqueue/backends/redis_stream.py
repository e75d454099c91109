"""A Redis stream read by a consumer group. What is not acked within its lease goes to whoever asks next.

Tried, µs for a batch of 100 / 1000 on an idle server: a put as one EVAL that calls XADD for each body (this) 211 /
1220, as a pipeline of XADDs 458 / 3337 (bound by packing commands in Python); EVALSHA is no faster. An ack as one
EVAL of XACK and XDEL 313 / 2621, as a pipeline of the two 386 / 2598; XACK alone takes half of that, but then the
stream grows for ever. To settle only what this consumer still holds (this) takes a quarter more: 389 beside 305 / 3927
beside 3085, in one run; to ask for each id 488 / 5528. One producer and one worker, two busy cores, messages/s at
batch 1 / 100 / 1000, before acks looked at their holder: 6.3k / 96k / 147k.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from imqueue.backend import Declares, Durability, Message, Rejected, messages
from imqueue.backends._redis import BLOCK_MAX_S, BODY_MAX_BYTES, RedisBackend

GROUP = "workers"
CLAIMS_PER_LEASE = 10  # a message whose lease ran out is found within this part of the lease

PUT = "for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'body', ARGV[i]) end"
# ARGV: the group, the consumer, ids. XACK asks nobody whose message it is. What one get returned is found by one look
# at the range of its ids, the rest one by one. In slices, because Lua's unpack gives up at 8,000 values.
ACK = """
local held, mine = {}, {}
local found = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[#ARGV], #ARGV - 2, ARGV[2])
for i = 1, #found do held[found[i][1]] = true end
for i = 3, #ARGV do
    local id = ARGV[i]
    if held[id] or #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) > 0 then mine[#mine + 1] = id end
end
for i = 1, #mine, 1000 do
    local last = math.min(i + 999, #mine)
    redis.call('XACK', KEYS[1], ARGV[1], unpack(mine, i, last))
    redis.call('XDEL', KEYS[1], unpack(mine, i, last))
end
"""
DEPTH = "return redis.call('XLEN', KEYS[1]) - redis.call('XPENDING', KEYS[1], ARGV[1])[1]"


class RedisStream(RedisBackend):
    """The queue is one stream, under the queue's own name, with one group. Each handle is a consumer of its own.

    A lease starts when a message is delivered and is never extended; Redis keeps the time. `close` hands nothing
    back early, since a crash could not.
    """

    key_type = "stream"
    declares = Declares(
        built_on="a Redis stream: XADD, XREADGROUP, XACK with XDEL, XAUTOCLAIM",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by="XREADGROUP BLOCK: the server answers when a message comes",
        unacked_returns="when its lease ends",
        size_max_bytes=BODY_MAX_BYTES,
        server="redis",
    )

    def put(self, bodies: Sequence[bytes]) -> None:
        if bodies:
            self._call(f"put of {len(bodies)} messages", "EVAL", PUT, 1, self.queue, *bodies)

    def get(self, timeout_s: float) -> list[Message]:
        deadline = time.monotonic() + timeout_s
        while True:
            entries = self._claim() if time.monotonic() >= self._claim_at_s else []
            entries = entries or self._read(deadline - time.monotonic())
            if entries:
                numbers, fields = zip(*entries, strict=True)
                return messages([body for _, body in fields], numbers)
            if time.monotonic() >= deadline:
                return []

    def ack(self, messages: Sequence[Message]) -> None:
        """What was lost to another holder meanwhile is his to settle, and is left alone."""
        if messages:
            ids = [message.receipt for message in messages]
            self._call(f"ack of {len(messages)} messages", "EVAL", ACK, 1, self.queue, GROUP, self._consumer, *ids)

    def depth(self) -> int:
        return int(self._call("depth", "EVAL", DEPTH, 1, self.queue, GROUP))

    def _create(self) -> None:
        self._consumer = uuid.uuid4().hex
        self._claim_at_s = 0.0
        self._cursor: bytes | str = "0-0"
        try:
            self._call("open", "XGROUP", "CREATE", self.queue, GROUP, "0", "MKSTREAM")
        except Rejected as error:
            if "BUSYGROUP" not in str(error):  # it is there already
                raise

    def _read(self, left_s: float) -> list[Any]:
        """New messages; waits for them, yet not beyond the next look at leases."""
        block_s = min(left_s, BLOCK_MAX_S, self._claim_at_s - time.monotonic())
        block = ("BLOCK", max(1, round(1000 * block_s))) if left_s > 0 else ()
        reply = self._call(
            "get", "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", self.batch, *block, "STREAMS", self.queue, ">"
        )
        return list(reply[0][1]) if reply else []

    def _claim(self) -> list[Any]:
        """Messages whose lease ran out. Once there are no more, the next look is put off."""
        entries: list[Any] = []
        while not entries:
            self._cursor, entries, _ = self._call(
                "get",
                "XAUTOCLAIM",
                self.queue,
                GROUP,
                self._consumer,
                round(1000 * self.lease_s),
                self._cursor,
                "COUNT",
                self.batch,
            )
            if self._cursor == b"0-0":
                self._claim_at_s = time.monotonic() + self.lease_s / CLAIMS_PER_LEASE
                break
        return entries
