"""redis-py, one plain connection: RPUSH, LMOVE into a processing list with a lease in a script, LREM in a script."""

from __future__ import annotations

import redis

from bench.bare.redis_list import WAIT_S, Producer, connect, create

__all__ = ["Consumer", "Producer", "create", "destroy"]

LEASE_MS = 30_000
TAKE = """
local clock = redis.call('TIME')
local n = tonumber(ARGV[1])
for i = 1, n do if not redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') then break end end
local bodies = redis.call('LRANGE', KEYS[2], 0, -1)
if #bodies > 0 then redis.call('ZADD', KEYS[3], clock[1] * 1000 + ARGV[2], KEYS[2]) end
return bodies
"""
SETTLE = """
for i = 1, #ARGV do redis.call('LREM', KEYS[1], 1, ARGV[i]) end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('ZREM', KEYS[2], KEYS[1]) end
"""


def destroy(url: str, queue: str) -> None:
    redis.Redis.from_url(url).delete(queue, f"{queue}:leases", f"{queue}:processing")


class Consumer:
    def __init__(self, url: str, queue: str, _durability: str, batch: int) -> None:
        self.connection, self.queue = connect(url), queue
        self.mine, self.leases = f"{queue}:processing", f"{queue}:leases"
        self.script = ("EVAL", TAKE, 3, queue, self.mine, self.leases, batch, LEASE_MS)

    def take(self) -> list[bytes]:
        self.connection.send_command(*self.script)
        bodies: list[bytes] = self.connection.read_response()
        if not bodies:
            self.connection.send_command("BLMOVE", self.queue, self.mine, "LEFT", "RIGHT", WAIT_S)
            if self.connection.read_response() is not None:
                self.connection.send_command(*self.script)
                bodies = self.connection.read_response()
        return bodies

    def settle(self, taken: list[bytes]) -> None:
        self.connection.send_command("EVAL", SETTLE, 2, self.mine, self.leases, *taken)
        self.connection.read_response()
