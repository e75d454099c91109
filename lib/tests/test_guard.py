"""Nothing that an owner started outlives it, even when the owner is killed without a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from serving import existing, is_taken, place, wait_until

from imqueue import servers, settings
from imqueue.servers._machine import slay
from imqueue.servers.guard import Guard, Watched, alive

VANISH_S = 3.0
"""The promise. A machine that is busy with other tests is not given more."""

OWNER = """
import contextlib, json, os, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import psutil
from imqueue import servers
from imqueue.servers.guard import Guard

guard = Guard()
guard.start()
made = [servers.load(kind)(Path(sys.argv[1]) / kind) for kind in sys.argv[2:]]
for each in made:
    each.guard = guard
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda each: each.start(60), made))
family = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
guard.watch(family.pid)
pids = [guard.pid, family.pid, int(family.stdout.readline())]
for each in made:
    for pid in each.pids():
        pids += [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
spared = subprocess.Popen(["sleep", "1000"], start_new_session=True)
guard.watch(spared.pid)
guard.forget(spared.pid)
ports, names = [], []
for pid in pids:
    with contextlib.suppress(psutil.NoSuchProcess):  # a server's own children come and go
        names.append(psutil.Process(pid).name())
        ports += [c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN"]
print(json.dumps({"pids": pids, "ports": ports, "names": names, "spared": spared.pid}), flush=True)
EXTRA
time.sleep(1000)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as made:
        yield made


@pytest.fixture
def own(folder: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]]:
    """Start an owner of these kinds of servers; what it tells about itself."""
    started: list[subprocess.Popen[str]] = []
    family: list[psutil.Process] = []

    def start(*kinds: str, extra: str = "") -> tuple[subprocess.Popen[str], dict[str, Any]]:
        code = OWNER.replace("EXTRA", extra)
        owner = subprocess.Popen([sys.executable, "-c", code, str(folder), *kinds], stdout=subprocess.PIPE, text=True)
        started.append(owner)
        assert owner.stdout is not None
        told = json.loads(owner.stdout.readline())
        family.extend(existing([*told["pids"], told["spared"]]))
        return owner, told

    yield start
    for each in started:
        each.kill()
    slay(family)  # those that were spared, and all of them where the guard has failed
    for each in started:
        each.communicate()


def test_all_servers_and_grandchildren_vanish_with_a_killed_owner(
    own: Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]],
) -> None:
    reasons = {kind: servers.load(kind).missing() for kind in servers.kinds()}
    if settings.servers_required():
        assert not any(reasons.values()), reasons
    here = [kind for kind, reason in reasons.items() if reason is None]
    owner, told = own(*here)
    family = existing(told["pids"])
    assert len(told["ports"]) >= len(here)
    if "rabbitmq" in here:
        assert {"beam.smp", "epmd"} <= set(told["names"])

    owner.kill()

    deadline = time.monotonic() + VANISH_S
    assert left_after(VANISH_S, family) == []
    # A process of many threads can be seen dead a moment before its last thread lets go of its ports.
    assert wait_until(lambda: not any(is_taken(port) for port in told["ports"]), deadline - time.monotonic())


def test_what_was_forgotten_lives_on(
    own: Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]],
) -> None:
    owner, told = own()
    owner.kill()
    assert left_after(VANISH_S, existing(told["pids"])) == []
    assert alive(psutil.Process(told["spared"]))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_owner_that_ends_in_any_other_way_takes_all_with_it_too(
    how: signal.Signals, own: Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]
) -> None:
    owner, told = own(extra="sys.stderr.close()")
    owner.send_signal(how)
    assert left_after(VANISH_S, existing(told["pids"])) == []


def test_a_forked_child_that_holds_the_pipe_does_not_delay_the_end(
    own: Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]],
) -> None:
    forked = "if (child := os.fork()) == 0: time.sleep(20); os._exit(0)\nprint(child, flush=True)"
    owner, told = own(extra=forked)
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    try:
        assert left_after(VANISH_S, existing(told["pids"])) == []
        assert alive(child)
    finally:
        child.kill()


def test_members_of_a_group_end_although_their_leader_has_gone() -> None:
    guard = Guard()
    guard.start()
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 1000 > /dev/null & echo $!; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert leader.stdout is not None
    member = psutil.Process(int(leader.stdout.readline()))
    guard.watch(leader.pid)
    leader.communicate("\n")
    assert alive(member)
    guard.close()
    assert not alive(member)


def test_close_ends_what_is_still_watched_and_the_guard_itself() -> None:
    guard = Guard()
    guard.start()
    assert guard.pid is not None
    itself = psutil.Process(guard.pid)
    with subprocess.Popen(["sleep", "1000"]) as watched:
        guard.watch(watched.pid)
        guard.close()
        assert watched.wait(VANISH_S) == -signal.SIGKILL
    assert not alive(itself)
    guard.close()


def test_a_pid_that_now_belongs_to_a_stranger_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        with monkeypatch.context() as before:  # as it was seen when another process had that pid
            before.setattr(psutil.Process, "_get_ident", lambda self: (self.pid, 1.0))
            watched = Watched()
            watched.obey(f"+ {stranger.pid}")
        watched.end_all(1.0)
        assert stranger.poll() is None
        stranger.kill()


def test_the_owners_own_group_is_spared() -> None:
    """A watched process that leads no group of its own shares ours, which is not to be ended."""
    guard = Guard()
    guard.start()
    with subprocess.Popen(["sleep", "1000"]) as bystander, subprocess.Popen(["sleep", "1000"]) as watched:
        guard.watch(watched.pid)
        guard.close()
        assert watched.wait(VANISH_S) == -signal.SIGKILL
        assert bystander.poll() is None
        bystander.kill()


def test_watching_without_a_guard_is_an_error_and_not_a_silence() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        Guard().watch(os.getpid())


def test_forgetting_is_safe_when_the_guard_has_gone() -> None:
    guard = Guard()
    guard.start()
    assert guard.pid is not None
    os.kill(guard.pid, signal.SIGKILL)
    left_after(VANISH_S, [psutil.Process(guard.pid)])
    guard.forget(os.getpid())
    guard.close()
    guard.forget(os.getpid())


def left_after(seconds: float, family: list[psutil.Process]) -> list[str]:
    """Who is still alive when time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(alive(each) for each in family):
        time.sleep(0.02)
    return [str(each) for each in family if alive(each)]
