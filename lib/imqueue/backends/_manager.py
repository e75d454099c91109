"""Queues kept by a process of their own: `multiprocessing.connection`, both sides of it.

Not `multiprocessing.managers`, which is built on it: its proxies share one connection for each address and thread, so
that one lost link would break every handle, and its queues move a message a call.
"""

from __future__ import annotations

import collections
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
)
from typing import Any

from imqueue.backend import BackendError

URL = re.compile(r"manager://:(?P<password>[^@/]+)@(?P<host>[^:/]+):(?P<port>\d+)")

SHAKE_MAX_S = 10.0  # whoever has not proved by then to know the password is left


class Queues:
    """All queues, by name. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._ready: dict[str, collections.deque[bytes]] = collections.defaultdict(collections.deque)
        self._changed = threading.Condition()

    def put(self, queue: str, bodies: Sequence[bytes]) -> None:
        with self._changed:
            self._ready[queue].extend(bodies)
            self._changed.notify_all()

    def get(self, queue: str, most: int, timeout_s: float) -> list[bytes]:
        """Up to `most`, removed; [] when none came in time."""
        with self._changed:
            ready = self._ready[queue]
            self._changed.wait_for(lambda: ready, timeout_s)
            return [ready.popleft() for _ in range(min(most, len(ready)))]

    def depth(self, queue: str) -> int:
        with self._changed:
            return len(self._ready[queue])

    def drop(self, queue: str) -> None:
        with self._changed:
            self._ready.pop(queue, None)


def serve(host: str, port: int, password: str) -> None:
    """Answer calls of `Queues`' methods until killed, each connection by a thread of its own."""
    queues = Queues()
    with Listener((host, port), backlog=128) as listener:
        while True:
            with contextlib.suppress(OSError):  # whoever left at once is no reason to stop serving the others
                connection = listener.accept()
                who = (queues, connection, password.encode())
                threading.Thread(target=_answer, args=who, daemon=True).start()


def _answer(queues: Queues, connection: Connection, password: bytes) -> None:
    with connection, contextlib.suppress(AuthenticationError, OSError, EOFError):
        _prepare(connection, SHAKE_MAX_S)
        deliver_challenge(connection, password)
        answer_challenge(connection, password)
        _prepare(connection, None)
        while True:
            method, *arguments = connection.recv()
            connection.send(getattr(queues, method)(*arguments))


def connect(url: str, wait_max_s: float) -> Connection:
    """A connection to the server at ``manager://:<password>@<host>:<port>``, on which no read or write takes longer.

    Raises `BackendError`.
    """
    match = URL.fullmatch(url)
    if match is None:
        raise BackendError("this is no address of a manager; allowed: manager://:<password>@<host>:<port>")
    password = match["password"].encode()
    connection: Connection | None = None
    try:
        connection = Connection(socket.create_connection((match["host"], int(match["port"])), wait_max_s).detach())
        _prepare(connection, wait_max_s)
        answer_challenge(connection, password)
        deliver_challenge(connection, password)
    except (OSError, EOFError, AuthenticationError) as error:
        if connection is not None:
            connection.close()
        raise BackendError(f"no manager answers: {error!r}") from error
    return connection


def call(connection: Connection, method: str, *arguments: Any, timeout_s: float) -> Any:
    """What a method of `Queues` returns. Raises `BackendError` when there is no answer in time."""
    try:
        connection.send((method, *arguments))
        if not connection.poll(timeout_s):
            raise BackendError(f"the manager did not answer within {timeout_s:g} s")
        return connection.recv()
    except (OSError, EOFError) as error:
        raise BackendError(f"the connection was lost: {error!r}") from error


def _prepare(connection: Connection, wait_max_s: float | None) -> None:
    """No read or write takes longer than that; None: for ever. And each leaves at once.

    A large message leaves in two writes, and the second must not wait for the first one's acknowledgement.
    """
    wait_us = round((wait_max_s or 0.0) * 1e6)
    with socket.socket(fileno=connection.fileno()) as link:
        link.setblocking(True)  # it came with a timeout of Python's, which is no use without Python's socket
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            link.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", *divmod(wait_us, 1_000_000)))
        link.detach()  # it stays the connection's
