"""A Node child that speaks for one handle: requests and answers over one socket pair, a batch in each.

A socket pair and not two pipes, so that every wait has an end. The child ends when our side of it closes, however that
comes about. It stays in our process group: whoever stops or kills a worker must signal the group, or the child would go
on renewing its locks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from imqueue.backend import BackendError, Message, Rejected, messages

OPEN_MAX_S = 30.0  # on a busy machine Node takes a second to load a library
ANSWER_MAX_S = 30.0
GET_GRACE_S = 10.0  # beyond the timeout that a get was given
VERSION_MAX_S = 10.0
CLOSE_MAX_S = 4.0  # longer than child.js gives itself

NODE_MIN = 18
RECV_BYTES = 1 << 18
HEAD = struct.Struct("<IB")  # length of the payload, code
GET = struct.Struct("<Id")
GOT = struct.Struct("<II")  # count, first receipt

SOURCE = Path(__file__).with_name("node")
INSTALLED = Path(sys.prefix) / "share" / "imqueue" / "node"
"""Where `make node` puts the packages: with the Python packages, so that they come and go together."""


class Request(IntEnum):
    OPEN, PUT, GET, ACK, DEPTH, COUNTS, DESTROY = range(1, 8)


class Answer(IntEnum):
    DONE, REJECTED, FAILED = range(3)


def missing(package: str) -> str | None:
    """Why this npm package cannot be used here, with what would help; None: it can."""
    if (why := _node_missing()) is not None:
        return why
    wanted, found = json.loads((SOURCE / "package.json").read_text())["dependencies"][package], version(package)
    if found is None:
        return f"the npm package {package} {wanted} is not installed; run: make node"
    return None if found == wanted else f"the npm package {package} is {found}, not {wanted}; run: make node"


def version(package: str) -> str | None:
    """Of the npm package as it is installed; None: it is not."""
    try:
        return str(json.loads((INSTALLED / "node_modules" / package / "package.json").read_text())["version"])
    except OSError:
        return None


def _node_missing() -> str | None:
    how = f"get Node {NODE_MIN} or newer with npm (Debian: apt-get install nodejs npm), then run: make node"
    program = shutil.which("node")
    if program is None:
        return f"Node is not on this machine; {how}"
    try:
        told = _told_version(program)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program} does not run here: {error}; {how}"
    version = re.match(r"v(\d+)\.", told)
    if version is None:
        return f"{program} does not run here: it says {told!r}; {how}"
    return f"{program} is {told.strip()}, which is too old; {how}" if int(version[1]) < NODE_MIN else None


@lru_cache
def _told_version(program: str) -> str:
    """An error is not kept: the machine may only be busy."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=VERSION_MAX_S, check=False)
    return told.stdout


class NodeChild:
    """Raises `BackendError` for all that goes wrong, `Rejected` where nothing was accepted, or even sent.

    A child that died, or did not answer in time, is ended and stays dead. It belongs to one thread.
    """

    def __init__(self, adapter: str, config: Mapping[str, Any]) -> None:
        """Start it and wait until it has connected. `config` is what the adapter reads, `facts` what it told."""
        self._name = adapter
        self._end: BackendError | None = None  # how it came to it
        self._socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        try:
            with theirs:
                self._process = self._started(theirs.fileno())
        except OSError as error:
            self._let_go()
            raise BackendError(f"no Node child for {adapter}: {error}") from error
        try:
            told = self._ask(Request.OPEN, json.dumps({"adapter": adapter, **config}).encode(), OPEN_MAX_S)
        except BaseException:
            self.close()
            raise
        self.facts = {name: str(value) for name, value in json.loads(told).items()}

    def _started(self, fd: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["node", "--no-deprecation", str(SOURCE / "child.js"), str(fd)],
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=[fd],
            env=os.environ | {"NODE_PATH": str(INSTALLED / "node_modules")},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def put(self, bodies: Sequence[bytes]) -> None:
        count = len(bodies)
        self._ask(Request.PUT, b"".join([struct.pack(f"<I{count}I", count, *map(len, bodies)), *bodies]))

    def get(self, most: int, timeout_s: float) -> list[Message]:
        told = self._ask(Request.GET, GET.pack(most, timeout_s), timeout_s + GET_GRACE_S)
        count, first = GOT.unpack_from(told)
        sizes = struct.unpack_from(f"<{count}I", told, GOT.size)
        ends = accumulate(sizes, initial=GOT.size + 4 * count)
        return messages([told[start:end] for start, end in pairwise(ends)], range(first, first + count))

    def ack(self, receipts: Sequence[int]) -> None:
        self._ask(Request.ACK, struct.pack(f"<{len(receipts)}I", *receipts))

    def depth(self) -> int:
        return int(json.loads(self._ask(Request.DEPTH)))

    def counts(self) -> dict[str, Any]:
        """Of the messages in each state, as the library's own API counts them and calls it."""
        return dict(json.loads(self._ask(Request.COUNTS)))

    def destroy(self) -> None:
        self._ask(Request.DESTROY)

    def close(self) -> None:
        """Have it leave; it is gone when this returns. Safe twice."""
        self._socket.close()
        try:
            self._process.wait(CLOSE_MAX_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        self._socket.close()
        self._errors.close()

    def _ask(self, request: Request, payload: bytes = b"", timeout_s: float = ANSWER_MAX_S) -> bytes:
        deadline = time.monotonic() + timeout_s
        if self._process.poll() is not None:
            raise Rejected(f"nothing was sent: {self._end or self._fail(f'is gone ({self._last_words()})')}")
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(HEAD.pack(len(payload), request) + payload)
            code, told = self._read(deadline)
        except TimeoutError:
            raise self._fail(f"did not answer within {timeout_s:g} s") from None
        except OSError as error:
            raise self._fail(f"is gone ({self._last_words() or error})") from error
        except BaseException:  # interrupted: its answer would be taken for the next one's
            self._fail("was given up")
            raise
        if code == Answer.DONE:
            return told
        raise (Rejected if code == Answer.REJECTED else BackendError)(f"{self._name}: {told.decode()}")

    def _read(self, deadline: float) -> tuple[int, bytes]:
        data = self._socket.recv(RECV_BYTES)
        while len(data) < HEAD.size:
            data += self._more(deadline, RECV_BYTES)
        length, code = HEAD.unpack_from(data)
        missing_bytes = HEAD.size + length - len(data)
        if not missing_bytes:
            return code, data[HEAD.size :]
        parts = [data[HEAD.size :]]
        while missing_bytes > 0:
            parts.append(self._more(deadline, min(missing_bytes, RECV_BYTES)))
            missing_bytes -= len(parts[-1])
        return code, b"".join(parts)

    def _more(self, deadline: float, most_bytes: int) -> bytes:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        data = self._socket.recv(most_bytes)
        if not data:
            raise ConnectionResetError("it closed its side")
        return data

    def _last_words(self) -> str:
        try:
            self._process.wait(CLOSE_MAX_S)
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return ""
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def _fail(self, reason: str) -> BackendError:
        self._process.kill()
        self.close()
        self._end = BackendError(f"the Node child of {self._name} {reason}")
        return self._end
