"""A trial's processes run on the cores that its workload names, and a machine that cannot do that says so."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from imqueue import admission, client, notebook, pinning
from imqueue.backend import BackendError
from imqueue.fleet import why_missing
from imqueue.ledger import PID, THREAD, Page
from imqueue.settings import servers_required
from imqueue.workload import BadInput, Workload

pytestmark = pytest.mark.usefixtures("one_driver")

HERE = pinning.allowed()
several_cores = pytest.mark.skipif(len(HERE) < 2, reason="there is only one core to share")


def running(backend: str, **workload: Any) -> notebook.Trial:
    if reason := why_missing(backend):
        assert not servers_required(), reason
        pytest.skip(reason)
    trial = notebook.start(backend, rate_hz=500, duration_s=20, warmup_messages=100, **workload)
    while trial.state in notebook.BEFORE_LOAD:
        time.sleep(0.02)
    return trial


def of(trial: notebook.Trial, name: str) -> set[int]:
    """The cores that a live child's loop may run on, as the kernel says."""
    page = Page(Path(trial.status()["folder"]) / "live" / "ledger", name)
    return os.sched_getaffinity(page[THREAD])


def of_server(kind: str) -> set[tuple[int, ...]]:
    servers = client.connect().ask("GET", "/status")["servers"]
    pids = [pid for server in servers if server["kind"] == kind for pid in server["pids"]]
    threads = [thread.id for pid in pids for thread in psutil.Process(pid).threads()]
    return {tuple(sorted(os.sched_getaffinity(thread))) for thread in threads}


@several_cores
@pytest.mark.parametrize("backend", ["redis_list", "memory"])
def test_separate_keeps_producers_and_workers_on_halves_of_their_own(backend: str) -> None:
    trial = running(backend, pin="separate")
    producing, working, keeping = of(trial, "producer-0"), of(trial, "worker-0"), of(trial, "keeper")
    trial.stop()
    result = trial.wait(progress=False)

    assert producing | working == set(HERE)
    assert producing & working == set()
    assert keeping == set(HERE)
    assert result.workload.pin == "separate"
    assert result.info["cores"] == {"allowed": HERE, "producer": sorted(producing), "worker": sorted(working)}


def test_together_shares_one_core_with_the_server_until_the_trial_ends() -> None:
    trial = running("redis_list", pin="together")
    trial.workers = 2
    shared = [of(trial, name) for name in ("producer-0", "worker-0", "worker-1")]
    serving = of_server("redis")
    trial.stop()
    result = trial.wait(progress=False)

    assert shared == [{HERE[-1]}] * 3
    assert serving == {(HERE[-1],)}
    assert result.info["cores"]["server"] == [HERE[-1]]
    assert of_server("redis") == {tuple(HERE)}


def test_a_child_of_a_worker_inherits_its_cores() -> None:
    trial = running("bullmq", pin="together")
    page = Page(Path(trial.status()["folder"]) / "live" / "ledger", "worker-0")
    (child,) = psutil.Process(page[PID]).children()
    inherited = {tuple(os.sched_getaffinity(thread.id)) for thread in child.threads()}
    trial.stop()
    trial.wait(progress=False)

    assert inherited == {(HERE[-1],)}


def test_halves_of_many_cores_are_whole_and_apart() -> None:
    assert pinning.cores("separate", "producer", [0, 1, 2, 3, 4]) == [0, 1]
    assert pinning.cores("separate", "worker", [0, 1, 2, 3, 4]) == [2, 3, 4]
    assert pinning.cores("separate", "server", [0, 1]) == []
    assert pinning.cores("none", "worker", [0, 1]) == []


def test_one_core_cannot_be_kept_separate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "allowed", lambda: [3])
    with pytest.raises(BadInput, match="pin is 'separate'; allowed here: none or together"):
        admission.check(Workload(backend="memory", pin="separate"))
    admission.check(Workload(backend="memory", pin="together"))


def test_a_system_without_affinity_is_told_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    with pytest.raises(BadInput, match="pin is 'together'; allowed here: none"):
        admission.check(Workload(backend="memory", pin="together"))
    admission.check(Workload(backend="memory"))


def test_a_server_that_is_not_ours_is_left_where_it_is_and_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMQUEUE_REDIS_URL", "redis://127.0.0.1:1")
    with pytest.raises(BadInput, match="none or separate, for the server of IMQUEUE_REDIS_URL is not ours to bind"):
        admission.check(Workload(backend="redis_list", pin="together"))
    admission.check(Workload(backend="redis_list"))
    admission.check(Workload(backend="memory", pin="together"))


@several_cores
def test_a_server_that_may_not_be_bound_stays_as_it_is_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, list[int]]] = []

    def forbid(thread: int, cores: list[int]) -> None:
        asked.append((thread, cores))
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbid)
    with pytest.raises(BackendError, match="could not be bound to a core"):
        pinning.Bound("together", [os.getpid()])
    assert asked[0] == (os.getpid(), HERE[-1:])
    assert pinning.allowed() == HERE


def test_what_produces_and_works_in_one_thread_cannot_be_separated() -> None:
    with pytest.raises(BadInput, match="simple produces and works in one thread"):
        admission.check(Workload(backend="simple", pin="separate"))


def test_an_unknown_pin_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown pin 'seperate'; did you mean 'separate'"):
        Workload(backend="memory", pin="seperate")  # type: ignore[arg-type]
