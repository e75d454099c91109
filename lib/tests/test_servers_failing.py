"""Servers that fail: said at once, in a sentence with the end of the log; and obstacles that are none."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import is_gone, make, place, processes

from imqueue.servers import ServerError, _private
from imqueue.servers.guard import Guard, alive


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as made:
        yield made


class Shell(_private.Private):
    """A server that is a shell command: what servers do when they fail."""

    kind = "shell"
    command = "true"

    @classmethod
    def missing(cls) -> str | None:
        return None

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        raise ServerError("nobody listens")

    @property
    def url(self) -> str:
        return f"shell://127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        return {}

    def prepare(self) -> list[str]:
        return ["/bin/sh", "-c", self.command]


def test_a_server_that_exits_at_once_is_reported_at_once_with_the_end_of_its_log(folder: Path) -> None:
    server = Shell(folder / "shell")
    server.command = "echo out of cheese >&2; exit 3"
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"(?s)shell did not start: .*exit code 3.*out of cheese"):
        server.start(timeout_s=60)
    assert time.monotonic() - began < 30


def test_a_server_that_exits_well_before_it_answers_has_failed_too(folder: Path) -> None:
    with pytest.raises(ServerError, match="exit code 0"):
        Shell(folder / "shell").start(timeout_s=60)


def test_a_server_that_never_answers_is_ended_and_the_reason_told(folder: Path) -> None:
    server = Shell(folder / "shell")
    server.command = "sleep 1000 & echo $! > child; wait"
    with pytest.raises(ServerError, match=r"did not answer within 0.5 s \(nobody listens\)"):
        server.start(timeout_s=0.5)
    assert is_gone(int((folder / "shell" / "child").read_text()))
    assert server.pids() == []


def test_a_folder_that_cannot_be_made_is_one_sentence(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(ServerError, match=r"shell cannot keep its data in .*/file/shell"):
        Shell(folder / "file" / "shell").start()


@pytest.mark.parametrize("kind", ["redis", "postgres", "mysql", "prometheus"])
def test_a_port_that_was_taken_meanwhile_is_exchanged(kind: str, guard: Guard, folder: Path) -> None:
    server = make(kind, folder, guard)
    with socket.create_server(("127.0.0.1", server.port)):
        taken = server.port
        server.start()
    assert server.running()
    assert server.port != taken
    server.stop()


def test_what_a_dead_owner_left_on_the_folder_is_ended_first(guard: Guard, folder: Path) -> None:
    left = make("redis", folder, guard)
    left.start()
    (orphan,) = processes(left)
    ours = make("redis", folder, guard)
    ours.start()
    assert not alive(orphan)
    assert ours.running()
    ours.stop()
    left.stop()


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(guard: Guard, folder: Path) -> None:
    server = make("postgres", folder, guard)
    server.start()
    server.kill()
    (stale,) = server.folder.glob("data-*/postmaster.pid")
    lines = stale.read_text().splitlines()
    with subprocess.Popen(["sleep", "1000"], **server.identity()) as stranger:
        try:
            stale.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            server.start()
            assert stranger.poll() is None
        finally:
            stranger.kill()
    server.stop()


def test_a_server_that_ignores_the_polite_signal_is_ended_all_the_same(folder: Path) -> None:
    server = Shell(folder / "shell")
    server.command = "trap '' TERM; while true; do sleep 0.1; done"
    server.ask = lambda *_: "1"  # type: ignore[method-assign]
    server.start()
    family = processes(server)
    server.stop(timeout_s=0.5)
    assert not any(alive(each) for each in family)
