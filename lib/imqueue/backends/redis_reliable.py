"""The reliable list: RPUSH, LMOVE into a processing list, LREM to ack; what a dead worker held goes back to the head.

Tried, µs to get and to ack a batch of 100 / 1000 (Redis 7.0.15 that writes nothing, least of 80 and of 30): LMOVE in a
script, LREM in a script (this) 149 + 162 / 1097 + 1276; by EVALSHA 161 + 175 / 1271 + 1434; a pipeline of LMOVEs, one
of LREMs 386 + 381 / 3815 + 3701 (bound by packing commands in Python). LREM searches from the head of its list: in
the list's order it finds each body at once, backwards it takes 9004 for 1000, hence `ack` sorts. To drop a list that
is acked as a whole takes 75 / 344, but is no longer the reliable list that people write.

Through the harness, messages/s at batch 1 / 100 / 1000, class delayed, two busy cores: 4.1k / 110k / 216k; a bare
loop of the same scripts 5.6k / 154k / 267k beside it. Its keys are named by scripts: no Redis Cluster.
"""

from __future__ import annotations

import time
import uuid
from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter

from imqueue.backend import BackendError, Declares, Durability, Guarantees, Message, messages
from imqueue.backends._redis import BLOCK_MAX_S, BODY_MAX_BYTES, RedisBackend

BLOCK_MIN_S = 0.001  # Redis reads a timeout of 0 as "for ever"
NUMBER_BITS = 32  # of a receipt, for the place in its list
BODY, RECEIPT = itemgetter(0), itemgetter(1)  # of a message
LOOKS_PER_LEASE = 10  # an idle worker looks for what others lost this often

# KEYS: the queue, the leases (a sorted set: processing list -> when its lease ends, in ms of Redis' own clock), the
# processing list of this get. A full Redis would refuse LMOVE, and nobody could make room: hence allow-oom.
CLOCK = """#!lua flags=allow-oom
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
# ARGV: the batch, the lease in ms. The youngest of the lost lists goes back first, so that the oldest ends up ahead.
TAKE = (
    CLOCK
    + """
local lost = redis.call('ZRANGE', KEYS[2], now, '-inf', 'BYSCORE', 'REV')
for i = 1, #lost do
    while redis.call('LMOVE', lost[i], KEYS[1], 'RIGHT', 'LEFT') do end
    redis.call('ZREM', KEYS[2], lost[i])
end
for i = redis.call('LLEN', KEYS[3]) + 1, tonumber(ARGV[1]) do
    if not redis.call('LMOVE', KEYS[1], KEYS[3], 'LEFT', 'RIGHT') then break end
end
local bodies = redis.call('LRANGE', KEYS[3], 0, -1)
if #bodies > 0 then redis.call('ZADD', KEYS[2], now + ARGV[2], KEYS[3]) end
return bodies
"""
)
# ARGV: after how many ms what BLMOVE is about to move goes back, unless TAKE follows it.
EXPECT = CLOCK + "redis.call('ZADD', KEYS[2], now + ARGV[1], KEYS[3])"
# ARGV: bodies. A list that was given back is gone, its name is never used again, and so LREM finds nothing.
ACK = """#!lua flags=allow-oom
for i = 1, #ARGV do redis.call('LREM', KEYS[2], 1, ARGV[i]) end
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], KEYS[2]) end
"""
DESTROY = """
local lists = redis.call('ZRANGE', KEYS[2], 0, -1)
for i = 1, #lists do redis.call('UNLINK', lists[i]) end
redis.call('UNLINK', KEYS[1], KEYS[2])
"""


class RedisReliable(RedisBackend):
    """The queue is one list under its own name; `<queue>:processing` has the leases, one for each `get`.

    Each `get` fills a processing list of its own, `<queue>:processing:<handle>:<number>`, in one script with the lease
    that it starts: never extended, kept by Redis' clock. Whoever gets next after its end gives the list back.
    """

    key_type = "list"
    declares = Declares(
        built_on="Redis lists: RPUSH, LMOVE to a processing list, LREM",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by=f"BLMOVE: the server answers when one comes; looks for lost ones {LOOKS_PER_LEASE} times a lease",
        unacked_returns="when its lease ends",
        size_max_bytes=BODY_MAX_BYTES,
        server="redis",
    )

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        self._handle = uuid.uuid4().hex
        self._number = 0  # of the next get, over all openings: no list's name is ever used again

    @property
    def guarantees(self) -> Guarantees:
        """An idle worker finds a lost message at the latest `look_s` after its lease ended."""
        now = super().guarantees
        now.settings["look_s"] = f"{self._look_s:g}"
        return now

    def put(self, bodies: Sequence[bytes]) -> None:
        if bodies:
            self._call(f"put of {len(bodies)} messages", "RPUSH", self.queue, *bodies)

    def get(self, timeout_s: float) -> list[Message]:
        deadline = time.monotonic() + timeout_s
        bodies = self._call("get", *self._take)
        while not bodies and (left_s := deadline - time.monotonic()) > 0:
            bodies = self._wait(max(BLOCK_MIN_S, min(left_s, self._look_s)))
        if not bodies:
            return []
        first = self._number << NUMBER_BITS
        receipts = range(first, first + len(bodies))
        self._held.update(receipts)
        self._aim_at(self._number + 1)
        return messages(bodies, receipts)

    def ack(self, messages: Sequence[Message]) -> None:
        """LREM goes by value, so a receipt is good for one ack: a second would settle another message of that body.

        It searches from the head, so the bodies are named in the order of their list.
        """
        receipts = set(map(RECEIPT, messages))
        if strange_n := len(messages) - len(receipts & self._held):
            raise BackendError(f"{strange_n} of {len(messages)} messages are not held by this handle")
        in_order = sorted(messages, key=RECEIPT)
        commands, at = [], 0
        while at < len(in_order):
            number = in_order[at].receipt >> NUMBER_BITS
            end = bisect_left(in_order, (number + 1) << NUMBER_BITS, lo=at, key=RECEIPT)
            commands.append(("EVAL", ACK, 2, self._leases, self._list(number), *map(BODY, in_order[at:end])))
            at = end
        if commands:
            self._held -= receipts
            self._call_all(f"ack of {len(messages)} messages", *commands)

    def depth(self) -> int:
        """The list's length. What a dead worker held counts as soon as somebody's `get` has given it back."""
        return int(self._call("depth", "LLEN", self.queue))

    def destroy(self) -> None:
        self._call("destroy", "EVAL", DESTROY, 2, self.queue, self._leases)

    def _create(self) -> None:
        self._leases = f"{self.queue}:processing"
        self._refuse_another_type(self._leases, "zset")
        self._held: set[int] = set()  # receipts: the number of the get, and in it that of the message
        self._look_s = min(self.lease_s / LOOKS_PER_LEASE, BLOCK_MAX_S)
        self._aim_at(self._number)

    def _list(self, number: int) -> str:
        return f"{self._leases}:{self._handle}:{number}"

    def _aim_at(self, number: int) -> None:
        """The next get fills the processing list of that number."""
        self._number = number
        self._keys = 3, self.queue, self._leases, self._list(number)
        self._take = ("EVAL", TAKE, *self._keys, self.batch, round(1000 * self.lease_s))

    def _wait(self, block_s: float) -> list[bytes]:
        """One round trip: BLMOVE waits for the first, and at once TAKE starts its lease and adds what else came.

        TAKE's answer is the whole of it: what BLMOVE moved may have been given back, if the two were torn apart.
        """
        expect = ("EVAL", EXPECT, *self._keys, round(1000 * (block_s + self.lease_s)))
        wait = ("BLMOVE", self.queue, self._list(self._number), "LEFT", "RIGHT", block_s)
        bodies: list[bytes] = self._call_all("get", expect, wait, self._take)[2]
        return bodies
