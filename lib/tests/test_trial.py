"""Whole trials, on real servers: what comes out is what went in, and trouble is told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from trialing import BRIEF, SMALL, here, queues_left, running, sound

from imqueue import charts, client, notebook, registry, store
from imqueue.backend import Durability, Inline
from imqueue.ledger import PID, STATE, Page, State

pytestmark = pytest.mark.usefixtures("one_driver")


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
    times = result.info["times"]
    assert result.info["cpu_window_s"] >= times["load_s"] + times["drain_s"] - 0.002


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


def test_the_ledger_is_kept_and_tells_the_same(one_driver: Path) -> None:
    result = notebook.run(here("redis_list"), **SMALL)
    ledger = Path(result.folder) / "ledger"
    rows = store.read_ledger(ledger / "worker-0.rows.parquet")
    batches = store.read_ledger(ledger / "producer-0.batches.parquet")

    assert sorted(rows["number"].tolist()) == list(range(1, 3_001))
    assert batches["n"].sum() == 3_000
    assert not (Path(result.folder) / "live").exists()


def test_each_queue_is_dropped_at_the_end() -> None:
    notebook.run("redis_list", **SMALL)
    assert queues_left() == []


@pytest.mark.parametrize("why", [True, False])
def test_a_watched_flow_has_its_servers_own_view_at_the_same_samples_and_says_so(why: bool) -> None:
    result = notebook.run(here("redis_list"), **BRIEF, why=why)
    sound(result)
    series = result.series
    told = series[series["metric"].str.startswith(("queue_server_", "queue_host_"))]
    assert result.watched is why
    assert ("Watched: " in result.verdict()) is why
    if not why:
        assert told.empty
        assert "not watched" in str(charts.why(result))
        return
    pushes = series[series["metric"] == "queue_trial_push_total"]["time_s"]
    commands = told[told["metric"] == "queue_server_commands_total"]
    assert list(commands["time_s"]) == list(pushes)
    assert commands["value"].max() - commands["value"].min() >= 750 / 100, "at least a command a batch"
    assert result.info["readers"]["redis"] == {"asked": len(pushes), "missed": 0, "error": None}
    chart = charts.why(result)
    assert isinstance(chart, charts.Chart)
    assert "Redis: commands per second" in chart.alt
