"""Frames over one socket: a batch of PUBs in one write, a pull of what is there, acks of which the last is answered."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from typing import Any
from urllib.parse import urlsplit

WAIT_S = 0.1
ANSWER_MAX_S = 30.0
STORAGE = {"memory": "memory", "delayed": "file"}


class Link:
    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self.socket = socket.create_connection((str(at.hostname), at.port or 4222), ANSWER_MAX_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox = b"_INBOX." + secrets.token_hex(8).encode()
        self.rest, self.ended = b"", False
        self.answers: list[bytes] = []
        self.arrived: list[tuple[bytes, bytes]] = []
        about = {"verbose": False, "user": at.username, "pass": at.password, "headers": True, "no_responders": True}
        subscribe = b"SUB %b 1\r\nSUB %b.pull 2\r\n" % (self.inbox, self.inbox)
        self.socket.sendall(b"CONNECT %b\r\n%b" % (json.dumps(about).encode(), subscribe))

    def ask(self, subject: str, question: dict[str, Any]) -> None:
        text = json.dumps(question).encode()
        self.socket.sendall(b"PUB $JS.API.%b %b %d\r\n%b\r\n" % (subject.encode(), self.inbox, len(text), text))
        self.wait(1)

    def wait(self, count: int) -> None:
        while len(self.answers) < count:
            self.step()
        assert not any(b'"error"' in answer for answer in self.answers), self.answers[0]
        self.answers.clear()

    def step(self) -> None:
        more = self.socket.recv(1 << 18)
        assert more, "NATS closed the link"
        data, at = self.rest + more, 0
        while (end := data.find(b"\r\n", at)) >= 0:
            line = data[at:end]
            assert not line.startswith(b"-ERR"), line
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split()
                start, size = end + 2, int(words[-1])
                if len(data) < start + size + 2:
                    break
                if words[2] == b"1":
                    self.answers.append(data[start : start + size])
                elif words[0] == b"MSG":
                    self.arrived.append((data[start : start + size], words[3]))
                else:  # a status: nothing more comes
                    self.ended = True
                end = start + size
            elif line == b"PING":
                self.socket.sendall(b"PONG\r\n")
            at = end + 2
        self.rest = data[at:]


def create(url: str, queue: str, durability: str) -> None:
    link = Link(url)
    stream = {"name": queue, "subjects": [queue], "retention": "workqueue", "storage": STORAGE[durability]}
    link.ask(f"STREAM.CREATE.{queue}", stream)
    consumer = {"durable_name": "w", "ack_policy": "explicit", "ack_wait": 30 * 10**9, "max_ack_pending": -1}
    link.ask(f"CONSUMER.DURABLE.CREATE.{queue}.w", {"stream_name": queue, "config": consumer})
    link.socket.close()


def destroy(url: str, queue: str) -> None:
    link = Link(url)
    link.ask(f"STREAM.DELETE.{queue}", {})
    link.socket.close()


class Producer:
    def __init__(self, url: str, queue: str, durability: str) -> None:
        self.link = Link(url)
        self.start = b"PUB %b %b " % (queue.encode(), self.link.inbox)

    def put(self, bodies: list[bytes]) -> None:
        start = self.start
        self.link.socket.sendall(b"".join([b"%b%d\r\n%b\r\n" % (start, len(body), body) for body in bodies]))
        self.link.wait(len(bodies))


class Consumer:
    def __init__(self, url: str, queue: str, durability: str, batch: int) -> None:
        self.link, self.batch = Link(url), batch
        self.where = b"PUB $JS.API.CONSUMER.MSG.NEXT.%b.w %b.pull " % (queue.encode(), self.link.inbox)

    def pull(self, count: int, **how: Any) -> None:
        """Until it is filled or its end is told, which 2.9 now and then forgets."""
        link, asked = self.link, json.dumps({"batch": count} | how).encode()
        link.ended = False
        link.socket.sendall(b"%b%d\r\n%b\r\n" % (self.where, len(asked), asked))
        with contextlib.suppress(TimeoutError):
            while len(link.arrived) < count and not link.ended:
                link.step()

    def take(self) -> list[tuple[bytes, bytes]]:
        link = self.link
        link.socket.settimeout(WAIT_S + 0.1)
        self.pull(self.batch, no_wait=True)
        if not link.arrived:
            self.pull(1, expires=round(WAIT_S * 1e9))
        link.socket.settimeout(ANSWER_MAX_S)
        taken, link.arrived = link.arrived, []
        return taken

    def settle(self, taken: list[tuple[bytes, bytes]]) -> None:
        acks = b" 0\r\n\r\n".join([b"PUB %b" % reply for _, reply in taken])
        self.link.socket.sendall(b"%b %b 0\r\n\r\n" % (acks, self.link.inbox))
        self.link.wait(1)
