"""Fsyncs are counted where they happen, or it is said why not; and a watched trial is never ranked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made import make_trial

from imqueue import client, notebook
from imqueue.compare import Comparison
from imqueue.fleet import why_missing
from imqueue.fsyncs import Strace, tracers
from imqueue.results import Result
from imqueue.servers.guard import Guard, alive
from imqueue.settings import servers_required

SMALL: dict[str, Any] = {"messages": 200, "batch": 1, "warmup_messages": 20, "time_max_s": 3.0, "progress": False}

SYNCING = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    os.fsync(file)
for _ in range(2):
    os.fdatasync(file)
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def syncing(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that fsyncs five times and fdatasyncs twice when it is sent a line, and ends at the next one."""
    command = [sys.executable, "-c", SYNCING, str(tmp_path / "file")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdout.readline()


def may_trace(strace: Strace) -> None:
    """Skips where this machine lets nobody trace: a container's matter, not ours."""
    if strace.reason is not None and "not permitted" in strace.reason:
        pytest.skip(strace.reason)
    assert strace.reason is None


def test_each_call_is_counted_in_its_time_and_the_process_lives_on(
    syncing: subprocess.Popen[str], tmp_path: Path, guard: Guard
) -> None:
    strace = Strace(tmp_path, guard)
    start_s = time.time()
    strace.attach([syncing.pid])
    may_trace(strace)
    go(syncing)
    end_s = time.time()
    strace.detach()
    strace.detach()
    assert strace.reason is None
    assert strace.calls(start_s, end_s) == {"fsync": 5, "fdatasync": 2}
    assert strace.calls(end_s, end_s + 1) == {}
    assert tracers(syncing.pid) == [0]
    assert syncing.poll() is None


def test_a_strace_that_is_killed_leaves_no_count_and_the_process_alive(
    syncing: subprocess.Popen[str], tmp_path: Path, guard: Guard
) -> None:
    strace = Strace(tmp_path, guard)
    strace.attach([syncing.pid])
    may_trace(strace)
    (tracer,) = tracers(syncing.pid)
    os.kill(tracer, 9)
    go(syncing)
    strace.detach()
    assert strace.reason is not None
    assert strace.reason.startswith("strace ended before the load did")


def test_the_guard_ends_strace_with_its_owner(syncing: subprocess.Popen[str], tmp_path: Path) -> None:
    import psutil

    guard = Guard()
    guard.start()
    strace = Strace(tmp_path, guard)
    strace.attach([syncing.pid])
    may_trace(strace)
    (tracer,) = [psutil.Process(pid) for pid in tracers(syncing.pid)]
    assert alive(tracer)
    guard.close()
    assert not alive(tracer)
    strace.detach()
    assert syncing.poll() is None


def test_one_that_may_not_trace_says_what_strace_said(
    syncing: subprocess.Popen[str], tmp_path: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "strace"
    refusing.write_text(
        "#!/bin/sh\necho 'strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted' >&2; exit 1\n"
    )
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    strace = Strace(tmp_path, guard)
    strace.attach([syncing.pid])
    strace.detach()
    assert strace.reason == "strace could not attach: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted"


def counted(backend: str, durability: str) -> dict[str, Any]:
    if reason := why_missing(backend):
        assert not servers_required(), reason
        pytest.skip(reason)
    result = notebook.run(backend, durability=durability, count_fsyncs=True, **SMALL)
    assert result.info["audit"]["passed"]
    assert result.stamps[0]["stamp"] == "watched"
    found: dict[str, Any] = result.info["fsyncs"]
    if "not permitted" in (found["reason"] or ""):
        pytest.skip(found["reason"])
    assert found["reason"] is None
    assert found["per_thousand"] == pytest.approx(1e3 * found["count"] / found["messages"])
    return found


@pytest.mark.usefixtures("one_driver")
def test_flushed_waits_for_the_disk_for_each_message_and_delayed_hardly_ever() -> None:
    flushed, delayed = counted("redis_list", "flushed"), counted("redis_list", "delayed")
    assert 300 <= flushed["per_thousand"] <= 2_500  # a put and a get each write; Redis may take both in one turn
    assert delayed["count"] <= 3 * (delayed["window_s"] + 1)  # once a second
    assert flushed["observed_on"] == "the server (redis)"


@pytest.mark.usefixtures("one_driver")
def test_without_a_server_those_of_producers_and_workers_count() -> None:
    found = counted("sqlite", "flushed")
    assert found["observed_on"] == "producers and workers"
    assert found["per_thousand"] >= 1_000  # a put at least is a transaction


def test_without_strace_the_trial_runs_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))
    try:
        result = notebook.run("memory", count_fsyncs=True, **SMALL)
    finally:
        client.end()
    assert result.info["audit"]["passed"]
    assert result.info["fsyncs"]["count"] is None
    assert "no strace on the PATH" in result.info["fsyncs"]["reason"]
    assert "not observed: there is no strace" in result.conditions


def test_a_watched_trial_is_in_no_row_of_a_comparison(tmp_path: Path) -> None:
    measured = Result(make_trial(tmp_path, shape="sum", rate_hz=5.0))
    watched = Result(make_trial(tmp_path, shape="sum", rate_hz=1.0, workload={"count_fsyncs": True}))
    (row,) = Comparison([measured, watched]).rows
    assert row.results == (measured,)
    assert not Comparison([measured, watched]).repeated
