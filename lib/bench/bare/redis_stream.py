"""redis-py, one plain connection: XADD of a batch in a script, XREADGROUP, XACK and XDEL in a script."""

from __future__ import annotations

from typing import Any

import redis

WAIT_MS = 100
GROUP = "bare"
ADD = "for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'body', ARGV[i]) end"
SETTLE = """
for i = 1, #ARGV, 1000 do
    local last = math.min(i + 999, #ARGV)
    redis.call('XACK', KEYS[1], 'bare', unpack(ARGV, i, last))
    redis.call('XDEL', KEYS[1], unpack(ARGV, i, last))
end
"""


def connect(url: str) -> Any:
    connection: Any = redis.ConnectionPool.from_url(url, protocol=2).make_connection()
    connection.connect()
    return connection


def create(url: str, queue: str, durability: str) -> None:
    redis.Redis.from_url(url).xgroup_create(queue, GROUP, id="0", mkstream=True)


def destroy(url: str, queue: str) -> None:
    redis.Redis.from_url(url).delete(queue)


class Producer:
    def __init__(self, url: str, queue: str, _durability: str) -> None:
        self.connection, self.queue = connect(url), queue

    def put(self, bodies: list[bytes]) -> None:
        self.connection.send_command("EVAL", ADD, 1, self.queue, *bodies)
        self.connection.read_response()


class Consumer:
    def __init__(self, url: str, queue: str, _durability: str, batch: int) -> None:
        self.connection, self.queue = connect(url), queue
        self.read = ("XREADGROUP", "GROUP", GROUP, "one", "COUNT", batch, "BLOCK", WAIT_MS, "STREAMS", queue, ">")

    def take(self) -> list[Any]:
        self.connection.send_command(*self.read)
        reply = self.connection.read_response()
        return list(reply[0][1]) if reply else []

    def settle(self, taken: list[Any]) -> None:
        self.connection.send_command("EVAL", SETTLE, 1, self.queue, *[number for number, _ in taken])
        self.connection.read_response()
