"""What beanstalkd needs below the seam: a connection that can pipeline, and what its server can be seen to promise."""

from __future__ import annotations

import contextlib
import getopt
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import greenstalk
import psutil

from imqueue.backend import BackendError, Durability, Rejected

CONNECT_MAX_S = 5.0
REPLY_MAX_S = 20.0  # a server that says nothing for so long is taken for dead
PORT = 11300
RECV_BYTES = 1 << 18
OPTIONS = "b:f:Fl:p:u:z:s:vVhcn"  # of any version since 1.4
EVERY_PUT = "before every answer"


class Link:
    """A connection on one tube. Every failure but the server's no closes it, and it stays closed."""

    def __init__(self, url: str, tube: str) -> None:
        at = urlsplit(url)
        try:
            self._socket = socket.create_connection((at.hostname or "127.0.0.1", at.port or PORT), CONNECT_MAX_S)
        except (OSError, ValueError) as error:
            raise BackendError(f"no connection to beanstalkd: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(REPLY_MAX_S)
        self._client = greenstalk.Client(self._socket, encoding=None)
        self._is_open = True
        self._data, self._at = b"", 0
        with self.exchange():
            self.ask("use", tube)
            self.ask("watch", tube)
            if tube != greenstalk.DEFAULT_TUBE:
                self.ask("ignore", greenstalk.DEFAULT_TUBE)

    def ask(self, question: str, *arguments: Any) -> Any:
        """By one of greenstalk's own methods: what is not done per message."""
        if not self._is_open:
            raise BackendError(f"{question} was not tried: the handle is closed, or its connection was lost")
        with self.exchange():
            try:
                return getattr(self._client, question)(*arguments)
            except greenstalk.BeanstalkdError as error:
                no = error
            except (OSError, greenstalk.Error) as error:
                raise BackendError(f"{question} failed: {error!r}") from error
        raise BackendError(f"beanstalkd refused {question}: {no!r}") from no

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Around a `send` and all its answers: cut short, nobody could tell what the next answer answers."""
        try:
            yield
        except (ValueError, AssertionError) as error:  # of int and greenstalk, where the server speaks otherwise
            self.close()
            raise BackendError(f"beanstalkd said what its protocol does not know: {error!r}") from error
        except BaseException:
            self.close()
            raise

    def send(self, commands: bytes) -> None:
        if not self._is_open:
            raise Rejected("nothing was sent: the handle is closed, or its connection was lost")
        try:
            self._socket.sendall(commands)
        except OSError as error:
            raise BackendError(f"the link to beanstalkd failed: {error}") from error

    def line(self) -> bytes:
        """The next line that the server answers, without its end."""
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            self._receive()
        line, self._at = self._data[self._at : end], end + 2
        return line

    def block(self, size_bytes: int) -> bytes:
        """The `size_bytes` that follow a line."""
        while len(self._data) < (end := self._at + size_bytes) + 2:
            self._receive()
        block, self._at = self._data[self._at : end], end + 2
        return block

    def close(self) -> None:
        """Safe twice. The server takes back what this connection held."""
        self._is_open = False
        self._client.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECV_BYTES)
        except OSError as error:
            raise BackendError(f"the link to beanstalkd failed: {error}") from error
        if not data:
            raise BackendError("beanstalkd closed the link")
        self._data, self._at = self._data[self._at :] + data, 0


def durability_of(told: dict[str, Any], fsync: str | None) -> Durability:
    if not told["binlog-current-index"]:
        return Durability.MEMORY
    return Durability.FLUSHED if fsync == EVERY_PUT else Durability.DELAYED


def fsync_of(told: dict[str, Any], url: str) -> str | None:
    """When the server fsyncs, by the command line of its pid; None: it is not to be seen from here."""
    try:
        words = psutil.Process(told["pid"]).cmdline()
        options, _ = getopt.gnu_getopt(words[1:], OPTIONS)
    except (psutil.Error, getopt.GetoptError):
        return None
    is_it = Path(words[0]).name == "beanstalkd" if words else False
    port = dict(options).get("-p", str(PORT))
    if not is_it or str(told["hostname"]) != os.uname().nodename or port != str(urlsplit(url).port or PORT):
        return None
    last = next(((name, value) for name, value in reversed(options) if name in ("-f", "-F")), ("", ""))
    match last:
        case "-f", value:
            return EVERY_PUT if int(value) == 0 else f"at most every {value} ms"
        case "-F", _:
            return "never"
    return "by its version's default"
