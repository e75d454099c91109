"""Commands pipelined over one socket: puts, a reserve that waits with a count of what is ready, the rest, deletes."""

from __future__ import annotations

import re
import socket
from typing import Any
from urllib.parse import urlsplit

import greenstalk

WAIT_S = 1  # the shortest that the protocol has
ANSWER_MAX_S = 30.0
TTR_S = 3600


class Link:
    def __init__(self, url: str, queue: str) -> None:
        at = urlsplit(url)
        self.socket = socket.create_connection((str(at.hostname), at.port or 11300), ANSWER_MAX_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data, self.at = b"", 0
        self.client = greenstalk.Client(self.socket, encoding=None, use=queue, watch=queue)

    def line(self) -> bytes:
        while (end := self.data.find(b"\r\n", self.at)) < 0:
            self.receive()
        line, self.at = self.data[self.at : end], end + 2
        return line

    def block(self, size: int) -> bytes:
        while len(self.data) < self.at + size + 2:
            self.receive()
        block = self.data[self.at : self.at + size]
        self.at += size + 2
        return block

    def receive(self) -> None:
        more = self.socket.recv(1 << 18)
        assert more, "beanstalkd closed the link"
        self.data, self.at = self.data[self.at :] + more, 0


def create(url: str, queue: str, durability: str) -> None:
    Link(url, queue).client.close()


def destroy(url: str, queue: str) -> None:
    client = Link(url, queue).client
    while client.stats_tube(queue)["current-jobs-ready"]:
        client.delete(client.reserve(0))
    client.close()


class Producer:
    def __init__(self, url: str, queue: str, durability: str) -> None:
        self.link = Link(url, queue)

    def put(self, bodies: list[bytes]) -> None:
        link = self.link
        link.socket.sendall(b"".join([b"put 0 0 %d %d\r\n%b\r\n" % (TTR_S, len(body), body) for body in bodies]))
        for _ in bodies:
            assert link.line().startswith(b"INSERTED ")


class Consumer:
    def __init__(self, url: str, queue: str, durability: str, batch: int) -> None:
        self.link, self.batch = Link(url, queue), batch
        self.asked = b"reserve-with-timeout %d\r\n" % WAIT_S
        if batch > 1:
            self.asked += b"stats-tube %b\r\n" % queue.encode()

    def take(self) -> list[tuple[bytes, bytes]]:
        link = self.link
        link.socket.sendall(self.asked)
        taken = self.reserved()
        if self.batch > 1:
            told: Any = re.search(rb"current-jobs-ready: (\d+)", link.block(int(link.line()[3:])))
            more = min(int(told[1]), self.batch - 1) if taken else 0
            link.socket.sendall(b"reserve-with-timeout 0\r\n" * more)
            for _ in range(more):
                taken += self.reserved()
        return taken

    def settle(self, taken: list[tuple[bytes, bytes]]) -> None:
        link = self.link
        link.socket.sendall(b"".join([b"delete %b\r\n" % number for number, _ in taken]))
        for _ in taken:
            assert link.line() == b"DELETED"

    def reserved(self) -> list[tuple[bytes, bytes]]:
        word, *rest = self.link.line().split()
        return [(rest[0], self.link.block(int(rest[1])))] if word == b"RESERVED" else []
