"""redis-py, one plain connection: RPUSH of a batch, LPOP with a count, BLMPOP when the list is empty."""

from __future__ import annotations

from typing import Any

import redis

WAIT_S = 0.1


def connect(url: str) -> Any:
    connection: Any = redis.ConnectionPool.from_url(url, protocol=2).make_connection()
    connection.connect()
    return connection


def create(url: str, queue: str, durability: str) -> None:
    """A list is made by its first message; the server decides about durability."""


def destroy(url: str, queue: str) -> None:
    redis.Redis.from_url(url).delete(queue)


class Producer:
    def __init__(self, url: str, queue: str, _durability: str) -> None:
        self.connection, self.queue = connect(url), queue

    def put(self, bodies: list[bytes]) -> None:
        self.connection.send_command("RPUSH", self.queue, *bodies)
        self.connection.read_response()


class Consumer:
    def __init__(self, url: str, queue: str, _durability: str, batch: int) -> None:
        self.connection, self.queue, self.batch = connect(url), queue, batch

    def take(self) -> list[bytes]:
        self.connection.send_command("LPOP", self.queue, self.batch)
        bodies = self.connection.read_response()
        if not bodies:
            self.connection.send_command("BLMPOP", WAIT_S, 1, self.queue, "LEFT", "COUNT", self.batch)
            reply = self.connection.read_response()
            bodies = reply[1] if reply else []
        return list(bodies)

    def settle(self, taken: list[bytes]) -> None:
        """What was popped is gone."""
