"""multiprocessing.connection alone: a call is one pickled tuple, its answer another. At most once."""

from __future__ import annotations

import socket
from multiprocessing.connection import Client, Connection
from typing import Any
from urllib.parse import urlsplit

WAIT_S = 0.1


def connect(url: str) -> Connection:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    link = Client((parts.hostname, parts.port), authkey=(parts.password or "").encode())
    with socket.socket(fileno=link.fileno()) as raw:  # else a call beyond 16 KiB waits 40 ms for Nagle
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.detach()
    return link


def call(link: Connection, *what: Any) -> Any:
    link.send(what)
    return link.recv()


def create(url: str, queue: str, durability: str) -> None:
    """Its first put makes it."""


def destroy(url: str, queue: str) -> None:
    with connect(url) as link:
        call(link, "drop", queue)


class Producer:
    def __init__(self, url: str, queue: str, durability: str) -> None:
        self.link, self.queue = connect(url), queue

    def put(self, bodies: list[bytes]) -> None:
        call(self.link, "put", self.queue, bodies)


class Consumer:
    def __init__(self, url: str, queue: str, durability: str, batch: int) -> None:
        self.link, self.queue, self.batch = connect(url), queue, batch

    def take(self) -> Any:
        return call(self.link, "get", self.queue, self.batch, WAIT_S)

    def settle(self, taken: Any) -> None:
        """What was taken is gone already."""
