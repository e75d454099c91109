"""Each stamp provoked on purpose in a real trial. Overload and the death of a child are in ``test_trial.py``."""

from __future__ import annotations

import contextlib
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

from imqueue import client, notebook
from imqueue.ledger import PID, Page

TRIES = 3  # for what somebody else's load on this machine can spoil
BUSY = """
import os, sys, time
os.sched_setaffinity(0, [int(sys.argv[1])])
while time.monotonic() < float(sys.argv[2]):
    pass
"""

pytestmark = pytest.mark.usefixtures("liars_data")


def flow(**workload: Any) -> notebook.Trial:
    """A flow in memory that has begun."""
    trial = notebook.start("memory", rate_hz=500, warmup_messages=100, **workload)
    while trial.state in notebook.BEFORE_LOAD:
        time.sleep(0.01)
    return trial


def page(trial: notebook.Trial, name: str) -> Page:
    return Page(Path(trial.status()["folder"]) / "live" / "ledger", name)


def stamped(result: Any) -> dict[str, str]:
    return {each["stamp"]: each["reason"] for each in result.stamps}


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        time.sleep(0.01)


def test_a_producer_that_is_late_by_its_own_fault_makes_the_trial_invalid() -> None:
    trial = flow(duration_s=1.5)
    producer = page(trial, "producer-0")
    for _ in range(3):  # one that hit it inside a put would be the backend's fault
        with paused(producer[PID]):
            time.sleep(0.15)
        time.sleep(0.1)
    result = trial.wait(progress=False)

    assert "the producers themselves put" in stamped(result)["invalid"]
    assert result.info["counts"]["late"] > 0.05 * result.info["counts"]["attempted"]
    assert result.info["audit"]["passed"]
    assert not result.passed


def test_counts_in_which_prometheus_and_the_ledger_differ_make_the_trial_invalid() -> None:
    trial = flow(duration_s=1.0)
    servers = client.connect().ask("GET", "/status")["servers"]
    (prometheus,) = next(server["pids"] for server in servers if server["kind"] == "prometheus")
    time.sleep(0.6)
    with paused(prometheus):  # it misses the trial's last scrapes
        wait_until(lambda: trial.state == "writing")
        time.sleep(0.3)  # by now the record is being made, and nobody is served a scrape before it is
    result = trial.wait(progress=False)

    assert "push: " in stamped(result)["invalid"] or "pop: " in stamped(result)["invalid"]
    told = result.info["crosscheck"]
    assert 0 < told["push_prometheus"] < told["push_ledger"] == 500
    assert not told["agrees"]
    assert not result.passed


def test_a_loop_that_needs_its_whole_core_is_client_bound() -> None:
    for _ in range(TRIES):
        result = notebook.run("simple", messages=100_000_000, time_max_s=1.0, progress=False)
        told = stamped(result)
        if "client-bound" in told:
            break
        assert "machine-bound" in told, (
            f"there was a core to have, and {result.info['client_cores']} was told of nothing"
        )
    else:
        pytest.skip("others had every core of this machine: no loop of ours could have one")
    assert told["client-bound"].startswith("inline used ")
    assert max(result.info["client_cores"].values()) > 0.85


def test_other_work_on_every_core_makes_the_trial_machine_bound() -> None:
    until = str(time.monotonic() + 15)
    busy = [subprocess.Popen([sys.executable, "-c", BUSY, str(core), until]) for core in os.sched_getaffinity(0)]
    try:
        result = notebook.run("memory", rate_hz=200, duration_s=1.5, warmup_messages=100, progress=False)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert len(busy) == psutil.cpu_count(), "the test may use every core that the stamp is about"
    assert f"all {len(busy)} cores were at least" in stamped(result)["machine-bound"]
    assert min(result.info["machine_cores"]) > 0.9
