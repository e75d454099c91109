"""The manager of `multiprocess`: whoever stalls, on either side, keeps nobody waiting for ever."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psutil
import pytest
from contract import bodies, take
from serving import make, place, wait_until

from imqueue.backend import Backend, BackendError, Durability
from imqueue.backends import multiprocess
from imqueue.backends.multiprocess import Multiprocess
from imqueue.servers import ServerError, _private
from imqueue.servers.guard import Guard

LARGE = bytes(8 << 20)  # more than the socket's buffers take


@pytest.fixture
def server(guard: Guard) -> Iterator[_private.Private]:
    with place() as top:
        made = make("manager", top, guard)
        made.start()
        yield made
        made.stop()


def handle_on(server: _private.Private) -> Backend:
    return Multiprocess(server.url, "beans", durability=Durability.MEMORY, batch=10)


@pytest.mark.parametrize(
    "use",
    [
        lambda each: each.put([b"x"]),
        lambda each: each.put([LARGE]),
        lambda each: each.get(0.1),
        lambda each: each.depth(),
    ],
    ids=["put", "large put", "get", "depth"],
)
def test_a_stalled_manager_ends_every_wait(
    use: Callable[[Backend], object], server: _private.Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocess, "ANSWER_MAX_S", 0.4)
    with handle_on(server) as handle, stalled(server):
        began = time.monotonic()
        with pytest.raises(BackendError):
            use(handle)
        assert time.monotonic() - began < 10.0


def test_a_stalled_manager_is_no_server_and_lets_nobody_in(
    server: _private.Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocess, "ANSWER_MAX_S", 0.4)
    with stalled(server):
        began = time.monotonic()
        with pytest.raises(ServerError):
            server.ask(server.url, 0.4)
        with pytest.raises(BackendError, match="no manager answers"):
            handle_on(server).open()
        assert time.monotonic() - began < 10.0


def test_a_client_that_says_nothing_keeps_nobody_out(server: _private.Private) -> None:
    url = urlsplit(server.url)
    with socket.create_connection((url.hostname, url.port or 0)), handle_on(server) as handle:
        handle.put([b"x"])
        assert bodies(take(handle, 1)) == [b"x"]


@contextlib.contextmanager
def stalled(server: _private.Private) -> Iterator[None]:
    """SIGSTOP it for the while of a `with`."""
    process = psutil.Process(server.pids()[0])
    process.send_signal(signal.SIGSTOP)
    try:
        assert wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        yield
    finally:
        process.send_signal(signal.SIGCONT)
