"""One NATS connection over a plain socket. nats-py has the words of JetStream's API; the frames are ours.

nats-py itself is asyncio: a future and several turns of its loop for each message. Here a batch leaves in one write,
and the loop waits in `recv`. Nothing reconnects: a lost link stays lost.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from imqueue.backend import BackendError, Message, Rejected

CONNECT_MAX_S = 5.0
ANSWER_MAX_S = 20.0  # a server that says nothing for so long is taken for dead
RECV_BYTES = 1 << 18
PORT = 4222
ANSWERS, PULLED = b"1", b"2"  # our two subscriptions
STATUS = re.compile(rb"NATS/1\.0 (\d{3})\b[ ]?([^\r\n]*)")
NOBODY = b'{"error": {"code": 503, "description": "nobody answers there"}}'


class Refused(BackendError):
    """JetStream said no, in its own words; `code` is its number for the reason."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("description", error)))
        self.code = int(error.get("err_code", error.get("code", 0)))


class Link:
    """`server`: what it says of itself. `answers`: what came back to `inbox`. `pulled`: messages, in order, each with a
    receipt of where to ack it and when it was pulled; `pull_end`: the code with which the server ended a pull that it
    did not fill. A failure leaves the link closed.
    """

    def __init__(self, url: str, connect_max_s: float = CONNECT_MAX_S, answer_max_s: float | None = None) -> None:
        self._answer_max_s = ANSWER_MAX_S if answer_max_s is None else answer_max_s
        self.answers: list[bytes] = []
        self.pulled: list[Message] = []
        self.pull_end = b""
        self._pulls = 0
        self.inbox = f"_INBOX.{uuid.uuid4().hex}"
        self._rest = b""
        self._is_alive = False
        self._is_open = True
        at = urlsplit(url)
        try:
            self._socket = socket.create_connection((at.hostname or "127.0.0.1", at.port or PORT), connect_max_s)
        except (OSError, ValueError) as error:
            raise BackendError(f"no connection to NATS: {error}") from error
        with self.exchange():
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.server: dict[str, Any] = {}
            self._until(lambda: bool(self.server), connect_max_s)
            if self.server.get("tls_required"):
                raise BackendError("this NATS wants TLS, which is not spoken here")
            self.send(_connect(at.username, at.password) + self._subscribe())
            self.prove_alive(connect_max_s)

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Around a question and all its answers: cut short, nobody could tell what the next answer answers."""
        try:
            yield
        except (ValueError, LookupError) as error:  # of int, json and indices, where the server speaks otherwise
            self.close()
            raise BackendError(f"NATS said what its protocol does not know: {error!r}") from error
        except BaseException:
            self.close()
            raise

    def ask(self, subject: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's API. `Refused`: it said no, and did nothing."""
        with self.exchange():
            payload = json.dumps(question).encode() if question else b""
            self.send(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), self.inbox.encode(), len(payload), payload))
            answer: dict[str, Any] = json.loads(self.take_answers(1)[0])
            if not isinstance(answer, dict):
                raise ValueError(answer)
        if error := answer.get("error"):
            raise Refused(error)
        return answer

    def send(self, frames: bytes) -> None:
        if not self._is_open:
            raise Rejected("nothing was sent: the handle is closed, or its connection was lost")
        try:
            self._socket.settimeout(self._answer_max_s)
            self._socket.sendall(frames)
        except OSError as error:
            raise BackendError(f"the link to NATS failed: {error}") from error

    def take_answers(self, count: int) -> list[bytes]:
        """Wait until there are `count` of them, and take them all."""
        self._until(lambda: len(self.answers) >= count)
        answers, self.answers = self.answers, []
        return answers

    def new_pull(self) -> bytes:
        """Where the answers of the next pull shall go; what an older one still says of its end is not heard."""
        self._pulls += 1
        self._pulled_s = time.monotonic()  # before the server can deliver, so no lease is thought to last too long
        self.pull_end, self._pull_inbox = b"", f"{self.inbox}.{self._pulls}".encode()
        return self._pull_inbox

    def take_pulled(self, count: int) -> list[Message]:
        """Up to `count` of the messages that have arrived, also those of a pull that nobody waits for any more."""
        messages, self.pulled = self.pulled[:count], self.pulled[count:]
        return messages

    def prove_alive(self, timeout_s: float | None = None) -> None:
        """Ask the server whether it lives. All that it sent before has then arrived."""
        self._is_alive = False
        self.send(b"PING\r\n")
        self._until(lambda: self._is_alive, timeout_s)

    def step(self, timeout_s: float) -> bool:
        """Wait for the server to say something and take in all that has arrived. False: it said nothing."""
        try:
            self._socket.settimeout(max(0.0, timeout_s))
            data = self._socket.recv(RECV_BYTES)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as error:
            raise BackendError(f"the link to NATS failed: {error}") from error
        if not data:
            raise BackendError("NATS closed the link")
        self._take_in(self._rest + data)
        return True

    def catch_up(self) -> None:
        """Answer what the server asked while nobody called, and find out whether it hung up meanwhile."""
        if not self._is_open:
            raise Rejected("nothing was sent: the handle is closed, or its connection was lost")
        try:
            with self.exchange():
                while self.step(0.0):
                    pass
        except BackendError as error:
            raise Rejected(f"nothing was sent: {error}") from error

    def close(self) -> None:
        """Safe twice."""
        self._is_open = False
        self._socket.close()

    def _until(self, true: Callable[[], bool], timeout_s: float | None = None) -> None:
        timeout_s = self._answer_max_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        while not true():
            if not self.step(deadline - time.monotonic()) and time.monotonic() >= deadline:
                raise BackendError(f"NATS did not answer within {timeout_s:g} s")

    def _subscribe(self) -> bytes:
        inbox = self.inbox.encode()
        return b"SUB %b %b\r\nSUB %b.* %b\r\n" % (inbox, ANSWERS, inbox, PULLED)

    def _take_in(self, data: bytes) -> None:
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            verb = data[at : at + 4]
            if verb in (b"MSG ", b"HMSG"):
                words = data[at:end].split(b" ")
                start, size = end + 2, int(words[-1])
                if len(data) < start + size + 2:
                    break
                self._on_message(words, data[start : start + size])
                end = start + size
            else:
                self._on_word(verb, data[at:end])
            at = end + 2
        self._rest = data[at:]

    def _on_message(self, words: list[bytes], payload: bytes) -> None:
        sid, code = words[2], None
        if words[0] == b"HMSG":
            header, payload = payload[: int(words[-2])], payload[int(words[-2]) :]
            code = STATUS.match(header)
        if sid == ANSWERS:
            self.answers.append(NOBODY if code else payload)
        elif code:
            if words[1] == self._pull_inbox:
                self.pull_end = code[1]
        else:
            self.pulled.append(Message(payload, (words[3], self._pulled_s)))

    def _on_word(self, verb: bytes, line: bytes) -> None:
        match verb:
            case b"PING":
                self.send(b"PONG\r\n")
            case b"PONG":
                self._is_alive = True
            case b"INFO":
                self.server = json.loads(line[5:])
            case b"-ERR":
                raise BackendError(f"NATS says {line[5:].decode()}")


def why(answer: bytes) -> str:
    """JetStream's own words in an answer that is an error."""
    try:
        return str(json.loads(answer)["error"]["description"])
    except (ValueError, LookupError, TypeError):
        return repr(answer[:80])


def _connect(user: str | None, password: str | None) -> bytes:
    """A name alone is a token, as in every NATS address."""
    about: dict[str, Any] = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
    about |= {"lang": "python", "name": "imqueue", "version": "1", "protocol": 1}
    if user and password is not None:
        about |= {"user": unquote(user), "pass": unquote(password)}
    elif user:
        about["auth_token"] = unquote(user)
    return b"CONNECT %b\r\n" % json.dumps(about).encode()
