"""Whole trials, on real servers: what comes out is what went in, and trouble is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from imqueue import client, notebook, registry, store
from imqueue.backend import Backend, Durability, Inline
from imqueue.fleet import why_missing
from imqueue.ledger import PID, STATE, Page, State
from imqueue.message import HEADER
from imqueue.results import Result
from imqueue.settings import servers_required

SMALL: dict[str, Any] = {"messages": 3_000, "warmup_messages": 100, "progress": False}
BRIEF: dict[str, Any] = {"rate_hz": 500, "duration_s": 1.5, "warmup_messages": 100, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One driver for all trials here, started before and ended after them."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("IMQUEUE_DATA", str(folder))
        yield folder
        client.end(folder)


def here(backend: str) -> str:
    """Skips where the backend's server is missing; that is an error under CI."""
    if reason := why_missing(backend):
        assert not servers_required(), reason
        pytest.skip(reason)
    return backend


def sound(result: Result) -> None:
    info = result.info
    assert info["error"] is None
    assert info["audit"]["passed"], info["audit"]
    assert info["crosscheck"]["agrees"], info["crosscheck"]
    assert info["audit"]["sum_fits"] or info["audit"]["duplicated"], info["audit"]


def crowd(backend: str) -> dict[str, Any]:
    """Several of each, as far as the backend allows it."""
    return {} if issubclass(registry.load(backend), Inline) else {"producers": 2, "workers": 3, "batch": 10}


@pytest.mark.parametrize("backend", registry.names())
def test_a_sum_that_several_work_at_comes_out_right(backend: str) -> None:
    result = notebook.run(here(backend), **SMALL, **crowd(backend))
    sound(result)
    assert result.info["audit"]["sum_received"] == 3_000 * 3_001 // 2
    assert result.info["counts"]["popped"] == result.info["audit"]["received"] == 3_000
    assert result.rate_hz


@pytest.mark.parametrize("backend", registry.names())
def test_a_flow_delivers_what_was_due(backend: str) -> None:
    result = notebook.run(here(backend), **BRIEF)
    sound(result)
    counts = result.info["counts"]
    assert counts["due"] == counts["attempted"] == counts["pushed"] == counts["popped"] == 750
    latency = result.info["latency"]
    assert latency["due"]["n"] == latency["sent"]["n"] == 750
    assert latency["due"]["negative_n"] == latency["sent"]["negative_n"] == 0
    assert latency["due"]["p50_s"] >= latency["sent"]["p50_s"] > 0


@pytest.mark.parametrize("size_bytes", [33, 5_000])
def test_messages_of_any_size_come_back_whole(size_bytes: int) -> None:
    sound(notebook.run(here("redis_list"), **{**SMALL, "size_bytes": size_bytes}))


@pytest.mark.parametrize("durability", Durability)
def test_the_class_asked_for_is_the_class_that_was_used(durability: Durability) -> None:
    result = notebook.run(here("redis_list"), **{**SMALL, "durability": str(durability)})
    settings = result.info["guarantees"]["settings"]
    used = settings["appendfsync"] if settings["appendonly"] == "yes" else "none"
    assert used == {"memory": "none", "delayed": "everysec", "flushed": "always"}[durability]


def test_poisson_arrivals_are_counted_and_delivered_too() -> None:
    result = notebook.run(here("redis_list"), **{**BRIEF, "arrivals": "poisson", "producers": 2})
    sound(result)
    counts = result.info["counts"]
    assert counts["due"] == counts["popped"] > 500


def test_a_flow_changes_while_it_runs_and_loses_nothing() -> None:
    trial = notebook.start(here("redis_list"), rate_hz=200, duration_s=4, warmup_messages=100)
    trial.rate_hz = 2_000
    trial.workers = 3
    trial.change(producers=2, rate_hz=1_000)
    time.sleep(0.5)
    trial.workers = 1
    result = trial.wait(progress=False)

    sound(result)
    counts = result.info["counts"]
    assert counts["due"] == counts["popped"] > 1_000
    assert [each["rate_hz"] for each in result.info["segments"]] == [200, 2_000, 1_000]
    assert {"rate", "workers", "producers"} <= {each["kind"] for each in result.events}


def test_workers_that_are_sent_away_and_called_back_are_as_many_as_asked_for() -> None:
    trial = running(duration_s=6, workers=3, work_s=0.01, batch=20)
    time.sleep(0.5)
    trial.workers = 1
    trial.workers = 3
    time.sleep(1)
    folder = Path(trial.status()["folder"]) / "live" / "ledger"
    states = [Page(folder, path.stem)[STATE] for path in folder.glob("worker-*.batches")]
    trial.stop()
    result = trial.wait(progress=False)

    assert sum(state < State.ENDED for state in states) == 3
    sound(result)


def test_a_trial_that_is_stopped_before_it_measures_ends_at_once_and_is_told_so() -> None:
    trial = notebook.start(here("redis_list"), rate_hz=200, duration_s=60, warmup_messages=100)
    trial.stop()
    trial.stop()
    result = trial.wait(progress=False)

    assert result.info["state"] == "stopped"
    assert result.info["counts"]["due"] == result.info["counts"]["attempted"] == 0
    assert "stopped before anything was measured" in result.verdict()
    assert "stopped" in notebook.result(result.id).verdict()


def test_a_drain_waits_for_a_worker_at_its_last_batch() -> None:
    result = notebook.run(here("redis_list"), **{**BRIEF, "work_s": 0.06, "batch": 100, "rate_hz": 60})
    assert result.info["audit"]["lost"] == 0
    assert result.info["audit"]["received"] == result.info["counts"]["pushed"] == 90


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))  # a driver that has this environment too
    try:
        sound(notebook.run("memory", **SMALL))
    finally:
        client.end()


def test_work_keeps_a_worker_busy_and_shows_as_overload() -> None:
    result = notebook.run(here("redis_list"), **{**BRIEF, "work_s": 0.004})
    assert result.info["audit"]["passed"]
    assert "overload" in [each["stamp"] for each in result.stamps]
    assert result.info["latency"]["due"]["max_s"] > 0.5


def test_a_sum_that_reaches_its_time_cap_tells_its_rate() -> None:
    result = notebook.run(here("redis_list"), **{**SMALL, "messages": 10**8, "time_max_s": 1.0})
    sound(result)
    counts = result.info["counts"]
    assert 0 < counts["popped"] == counts["pushed"] < 10**8


@pytest.fixture
def server(data: Path) -> Iterator[redis.Redis]:
    """The Redis that trials of redis_list use, by the client library's own means."""
    with redis.Redis.from_url(notebook.server_url(here("redis_list"))) as connected:
        yield connected


def running(backend: str = "redis_list", **workload: Any) -> notebook.Trial:
    trial = notebook.start(here(backend), rate_hz=500, warmup_messages=100, **workload)
    while trial.state in notebook.BEFORE_LOAD:
        time.sleep(0.02)
    return trial


def test_foreign_messages_in_the_queue_are_counted_and_fail_the_trial(server: redis.Redis) -> None:
    trial = running(duration_s=3)
    server.rpush(trial.status()["queue"], b"hello", b"x" * 32)
    audit = trial.wait(progress=False).info["audit"]

    assert (audit["unexpected"], audit["corrupted"]) == (1, 1)
    assert not audit["passed"]


@pytest.mark.parametrize("backend", ["beanstalkd", "bullmq", "mysql", "nats", "postgres_lease", "rabbitmq", "rsmq"])
def test_foreign_messages_are_counted_whatever_carries_them(backend: str) -> None:
    trial = running(backend, duration_s=1.5)
    status = trial.status()
    stranger = handle_on(backend, status["queue"], Durability(status["durability"]))
    with stranger:
        stranger.put([b"hello", b"x" * 32])
    audit = trial.wait(progress=False).info["audit"]

    assert (audit["unexpected"], audit["corrupted"]) == (1, 1)
    assert audit["received"] == audit["attempted"]


def handle_on(backend: str, queue: str, durability: Durability) -> Backend:
    loaded = registry.load(backend)
    assert issubclass(loaded, Backend)
    return loaded(notebook.server_url(backend), queue, durability=durability, batch=10)


def test_a_message_that_somebody_takes_away_is_lost_by_name(server: redis.Redis) -> None:
    trial = running(duration_s=3, work_s=0.005, batch=1)
    time.sleep(1)
    taken = server.lpop(trial.status()["queue"], 2)
    assert isinstance(taken, list)
    audit = trial.wait(progress=False).info["audit"]

    assert audit["lost"] == 2
    assert audit["examples"]["lost"] == [HEADER.unpack(body)[1] for body in taken if isinstance(body, bytes)]


def test_a_server_that_dies_ends_the_trial_with_the_reason_and_the_next_one_runs() -> None:
    trial = running(duration_s=30)
    servers = client.connect().ask("GET", "/status")["servers"]
    for pid in [pid for server in servers if server["kind"] == "redis" for pid in server["pids"]]:
        os.kill(pid, signal.SIGKILL)
    result = trial.wait(progress=False)

    assert result.info["state"] == "failed"
    assert result.info["error"].startswith("the server (redis) ended during the trial")
    assert result.stamps[0]["stamp"] == "invalid"
    assert result.info["audit"]["lost"] == 0, "what a dead server still holds is undelivered, not lost"
    sound(notebook.run("redis_list", **SMALL))


def test_a_worker_that_is_killed_makes_the_trial_invalid() -> None:
    trial = running(duration_s=30)
    page = Page(Path(trial.status()["folder"]) / "live" / "ledger", "worker-0")
    os.kill(page[PID], signal.SIGKILL)
    result = trial.wait(progress=False)

    assert result.info["state"] == "failed"
    assert "died unasked" in result.stamps[0]["reason"]


def test_the_node_child_of_a_worker_is_counted_with_it_and_judged() -> None:
    trial = running("bullmq", duration_s=2)
    page = Page(Path(trial.status()["folder"]) / "live" / "ledger", "worker-0")
    (child,) = psutil.Process(page[PID]).children()
    result = trial.wait(progress=False)

    sound(result)
    assert not child.is_running()
    used = result.info["client_cores"]
    assert used["worker-0's node"] > 0
    assert result.info["cpu_s"]["worker"] > used["worker-0's node"]


def test_what_a_loop_used_is_known_after_its_end() -> None:
    result = notebook.run("simple", messages=10**8, time_max_s=1.0, progress=False)
    (cores,) = set(result.info["client_cores"].values())
    told = {each["stamp"] for each in result.stamps}
    assert cores > 0.85 or "machine-bound" in told, "a plain loop needs its whole core, where there is one to have"
    assert ("client-bound" in told) == (cores > 0.85)


def test_the_ledger_is_kept_and_tells_the_same(data: Path) -> None:
    result = notebook.run(here("redis_list"), **SMALL)
    ledger = Path(result.folder) / "ledger"
    rows = store.read_ledger(ledger / "worker-0.rows.parquet")
    batches = store.read_ledger(ledger / "producer-0.batches.parquet")

    assert sorted(rows["number"].tolist()) == list(range(1, 3_001))
    assert batches["n"].sum() == 3_000
    assert not (Path(result.folder) / "live").exists()


def test_each_queue_is_dropped_at_the_end(server: redis.Redis) -> None:
    notebook.run("redis_list", **SMALL)
    assert server.keys("imq_*") == []
