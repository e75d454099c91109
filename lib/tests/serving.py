"""What the tests of servers share: making one, and looking at what runs and listens."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from imqueue import servers, settings
from imqueue.backend import Durability
from imqueue.servers import _private
from imqueue.servers.guard import Guard, alive


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's own they may not."""
    made = Path(tempfile.mkdtemp(prefix="imqueue-test-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def make(kind: str, folder: Path, guard: Guard, durability: Durability | None = None) -> _private.Private:
    """A private server, or a skip where this machine has none (an error where servers are required)."""
    if reason := servers.load(kind).missing():
        (pytest.fail if settings.servers_required() else pytest.skip)(reason)
    server = servers.load(kind)(folder / kind, durability)
    server.guard = guard
    return server


def processes(server: _private.Private) -> list[psutil.Process]:
    roots = [psutil.Process(pid) for pid in server.pids()]
    return [*roots, *(child for root in roots for child in root.children(recursive=True))]


def existing(pids: list[int]) -> list[psutil.Process]:
    """Those of them that are still there."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def listening(family: list[psutil.Process]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # a server's own children come and go
            sockets = [each.laddr for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
            found += [(each.ip, each.port) for each in sockets]
    return found


def is_gone(pid: int) -> bool:
    try:
        return not alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False
