"""The contract: opening, closing, durability, and what is left when a link or a server dies."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import psutil
import pytest
from conftest import Handles
from contract import SLACK_S, bodies, numbered, take

from imqueue.backend import Backend, BackendError, Durability, Rejected, Within
from imqueue.servers import External, Server

Obtain = Callable[[str, Durability], Server]


def test_close_is_safe_twice_and_before_open(handles: Handles) -> None:
    handle = handles.make()
    handle.close()
    handle.open()
    handle.close()
    handle.close()


def test_a_closed_handle_refuses_with_a_backend_error(backend: Backend) -> None:
    backend.close()

    with pytest.raises(Rejected):  # nothing was sent, so nothing is uncertain
        backend.put([b"x"])
    for use in (lambda: backend.get(0.1), backend.depth, lambda: backend.guarantees):
        with pytest.raises(BackendError):
            use()


def test_a_class_of_durability_that_is_not_offered_is_refused_by_a_sentence(handles: Handles) -> None:
    for durability in set(Durability) - set(handles.loaded.declares.durabilities):
        with pytest.raises(BackendError, match=f"{durability}.*allowed: {handles.loaded.declares.durabilities[0]}"):
            handles.loaded("", handles.queue, durability=durability, batch=1)


PIDFD_GETFD = 438  # the number of the system call, on every architecture
RETURNS = {None: "never", 0.0: "when its holder's connection ends"}


def test_what_is_guaranteed_now_agrees_with_what_is_declared(handles: Handles) -> None:
    declares = handles.loaded.declares
    for durability in declares.durabilities:
        now = handles(durability=durability, queue=f"{handles.queue}-{durability}").guarantees

        assert now.source
        assert now.fifo == declares.fifo
        assert (now.redelivers_after_s is not None) == declares.at_least_once
        assert now.lease_s is None or declares.at_least_once
        assert declares.unacked_returns == RETURNS.get(now.redelivers_after_s, "when its lease ends")
        assert declares.server is None or now.settings
        if durability is Durability.MEMORY:
            assert now.survives_power_loss is False
        elif durability is Durability.DELAYED:
            assert now.survives_power_loss
        else:
            assert (now.survives_kill, now.survives_power_loss) == (True, True)


def test_messages_go_through_in_every_class_of_durability(handles: Handles) -> None:
    for durability in handles.loaded.declares.durabilities:
        handle = handles(durability=durability, queue=f"{handles.queue}-{durability}")
        handle.put(numbered(50))
        assert bodies(take(handle, 50)) == numbered(50)


def test_nothing_is_left_behind(handles: Handles) -> None:
    process = psutil.Process()
    for _ in range(2):  # the first may load a module, and that a file
        before = process.num_fds(), threading.active_count()
        for _ in range(3):
            with handles() as handle:
                handle.put(numbered(3))
                handle.get(1.0)
        after = process.num_fds(), threading.active_count()

    assert after == before
    began = time.monotonic()
    handle.open()
    handle.destroy()  # no lock of a closed handle is in its way
    assert time.monotonic() - began < SLACK_S


def test_a_server_that_is_not_there_is_a_backend_error(handles: Handles) -> None:
    if handles.loaded.declares.server is None:
        pytest.skip("it has no server")
    durability = handles.loaded.declares.default_durability
    with socket.socket() as taken:  # bound but not listening: nobody answers here
        taken.bind(("127.0.0.1", 0))
        url = handles.url(durability)
        url = url.replace(f":{urlsplit(url).port}", f":{taken.getsockname()[1]}")
        handle = handles.loaded(url, handles.queue, durability=durability, batch=1)

        with pytest.raises(BackendError):
            handle.open()

    handle.close()


def test_a_dead_link_is_a_backend_error_and_open_mends_it(backend: Backend) -> None:
    if backend.declares.server is None:
        pytest.skip("it has no server")
    backend.put(numbered(2))
    port = urlsplit(backend.url).port
    for use in (lambda: backend.put([b"x"]), lambda: backend.get(5.0), backend.depth):
        _cut_connections(port)
        with pytest.raises(BackendError):
            use()
        backend.close()
        backend.open()

    assert backend.depth() >= 2


def test_acknowledged_messages_outlive_sigkill_of_the_server_as_guaranteed(handles: Handles, obtain: Obtain) -> None:
    declares = handles.loaded.declares
    if declares.server is None:
        pytest.skip("it has no server")
    started = [obtain(declares.server, each) for each in declares.durabilities]
    if isinstance(started[0], External):
        pytest.skip("the server is not ours to kill")
    opened = [handles(durability=each, queue=f"{handles.queue}-{each}") for each in declares.durabilities]
    for handle in opened:
        handle.put(numbered(20))
    promised = [handle.guarantees.survives_kill for handle in opened]
    time.sleep(max((each.seconds_s for each in promised if isinstance(each, Within)), default=0.0))

    for server in dict.fromkeys(started):
        server.kill()

    for handle in opened:
        with pytest.raises(BackendError):
            handle.put([b"after"])
        handle.close()
    for server in dict.fromkeys(started):
        server.start()
    for handle, survives in zip(opened, promised, strict=True):
        handle.open()
        found = bodies(take(handle, 20, SLACK_S if survives else 0.5))
        assert found == numbered(20) if survives else set(found) <= set(numbered(20))


def _cut_connections(port: int | None) -> None:
    """End every connection to `port` of this process and its children, under the feet of the client library."""
    ours = psutil.Process()
    for process in (ours, *ours.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # a server's own children come and go
            for each in process.net_connections("tcp"):
                if each.raddr and each.raddr.port == port and each.fd >= 0:
                    with socket.socket(fileno=_fd_of(process.pid, each.fd)) as theirs:
                        theirs.shutdown(socket.SHUT_RDWR)


def _fd_of(pid: int, fd: int) -> int:
    """A copy of another process's file descriptor."""
    if pid == os.getpid():
        return os.dup(fd)
    process = os.pidfd_open(pid)
    try:
        copied = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if copied < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return int(copied)
