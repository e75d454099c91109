"""What messages cost, by who paid for it, and how near a backend comes to what the harness reaches alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from made import make_trial

from imqueue import costs
from imqueue.backend import Durability
from imqueue.backends.memory import Memory
from imqueue.compare import Comparison
from imqueue.facts import Facts, Window
from imqueue.results import Result
from imqueue.workload import Workload

SPENT = {"producer": 1.0, "worker": 2.0, "server": 1.0, "driver": 0.3, "prometheus": 0.1}


def trial(folder: Path, backend: str = "redis_list", shape: str = "sum", **changes: Any) -> Result:
    declares = {"server": "redis", "in_process": False, "control": False, **changes.pop("declares", {})}
    counts = {"popped": 400_000, "settled_in_window": 320_000}
    private = None if declares["server"] is None else True
    made: dict[str, Any] = {"cpu_s": SPENT, "cpu_window_s": 4.0, "counts": counts, "server_private": private}
    return Result(make_trial(folder, backend, shape, **{**made, "declares": declares, **changes}))


def cells(html: str) -> dict[str, list[str]]:
    """The table's rows by their heading."""
    rows = [row.find_all(["th", "td"]) for row in BeautifulSoup(html, "html.parser").select("tr")]
    return {first.get_text(): [each.get_text() for each in rest] for first, *rest in rows}


def control(folder: Path, backend: str, rate_hz: float, **changes: Any) -> Result:
    declares = {"server": None, "in_process": backend == "simple", "control": True}
    return trial(folder, backend, rate_hz=rate_hz, declares=declares, durability="memory", **changes)


def test_cpu_time_until_the_queue_was_drained_is_told_per_million_messages_popped_by_then(tmp_path: Path) -> None:
    assert costs.per_million_s(trial(tmp_path)) == {role: pytest.approx(s * 2.5) for role, s in SPENT.items()}


def test_cpu_time_of_an_unknown_window_is_held_against_no_messages(tmp_path: Path) -> None:
    assert costs.per_million_s(trial(tmp_path, cpu_window_s=None)) == {}


def test_the_cpu_window_lasts_longer_than_the_one_that_the_stamps_judge() -> None:
    facts = Facts("", 0, Workload(backend="memory"), datetime.now(UTC), Memory.declares, Durability.MEMORY)
    start = Window({"server": 1.0}, {"server": 5}, {"worker-0": 1.0}, [(1.0, 10.0)], at_s=10.0)
    start.loaded(Window({"server": 2.0}, {"server": 7}, {"worker-0": 1.5}, [(1.5, 11.0)], at_s=12.0), facts)
    start.spent(Window({"server": 2.5, "late": 0.5}, {"server": 6}, {"worker-0": 9.0}, [(2.0, 12.0)], at_s=13.0), facts)

    assert (facts.window_s, facts.client_cores, facts.machine_cores) == (2.0, {"worker-0": 0.25}, (0.5,))
    assert facts.memory_bytes == {"server": 7}
    assert (facts.cpu_window_s, facts.cpu_s) == (3.0, {"server": 1.5, "late": 0.5})


def test_the_table_of_a_trial_shows_what_looking_on_took(tmp_path: Path) -> None:
    html = trial(tmp_path, load_s=3.0).costs
    assert cells(html)["Prometheus"] == ["0.1", "0.25", "2.5%"]
    assert cells(html)["workers"] == ["2", "5", "50%"]
    assert "Looking on (driver and Prometheus) took 9.1% of the CPU time" in html
    assert "from go until the queue was drained, 4 s later." in html


def test_the_time_of_a_server_that_is_not_ours_is_unknown_not_zero(tmp_path: Path) -> None:
    result = trial(tmp_path, cpu_s={**SPENT, "server": 0.0}, server_private=False)
    ours = trial(tmp_path, cpu_s={**SPENT, "server": 0.0})
    assert cells(ours.costs)["server"] == ["0", "0", "0.0%"]
    assert cells(result.costs)["server"] == ["not seen", "not seen", ""]
    assert "its time is unknown" in result.costs
    assert cells(Comparison([result]).cost)["redis_list"][-2:] == ["not seen", "12%"]


def test_a_loop_that_produces_and_works_is_counted_once(tmp_path: Path) -> None:
    spent = {"producer": 2.0, "worker": 2.0, "driver": 0.2, "prometheus": 0.0}
    result = trial(tmp_path, "simple", declares={"server": None}, cpu_s=spent, client_cores={"inline": 0.9})
    assert costs.cpu_s(result.info) == {"producer": 2.0, "driver": 0.2, "prometheus": 0.0}


def test_the_report_has_a_row_of_medians_for_each_backend(tmp_path: Path) -> None:
    spent = [{**SPENT, "worker": worker_s} for worker_s in (2.0, 4.0, 80.0)]
    trials = [trial(tmp_path, cpu_s=each) for each in spent]
    failed = trial(tmp_path, "redis_stream", audit={"passed": False, "lost": 3})
    told = cells(Comparison([*trials, failed]).cost)

    assert told["backend"] == ["producers", "workers", "server", "driver", "Prometheus", "all", "observer's share"]
    assert told["redis_list"] == ["2.5", "10", "2.5", "0.75", "0.25", "16", "6.2%"]
    assert set(told["redis_stream"]) == {"no figure"}


def test_a_rate_is_held_against_the_harness_alone_at_the_same_workload(tmp_path: Path) -> None:
    queue = trial(tmp_path, rate_hz=100_000.0)
    alone = [control(tmp_path, "null", rate_hz) for rate_hz in (380_000.0, 400_000.0, 990_000.0)]
    other = control(tmp_path, "null", 50_000.0, workload={"backend": "null", "batch": 1})
    threads = trial(tmp_path, "memory", rate_hz=450_000.0, declares={"server": None, "in_process": True})
    one_process = control(tmp_path, "simple", 900_000.0)
    everything = [queue, *alone, other, threads, one_process]

    assert costs.of_the_ceiling([queue], everything) == pytest.approx(0.25)
    assert costs.of_the_ceiling([threads], everything) == pytest.approx(0.5)
    assert costs.of_the_ceiling(alone, everything) is None
    assert costs.of_the_ceiling([queue], [queue, other]) is None
    elsewhere = control(tmp_path, "null", 400_000.0, machine={"cpu": "a CPU", "cores": 64})
    looked_at = control(tmp_path, "null", 400_000.0, workload={"backend": "null", "why": True})
    assert costs.of_the_ceiling([queue], [queue, elsewhere, looked_at]) is None
    assert cells(Comparison(everything).headline)["redis_list"][1] == "25%"


def test_the_harness_alone_has_a_group_of_its_own_that_is_never_ranked(tmp_path: Path) -> None:
    rates = {"redis_list": 100.0, "redis_stream": 200.0}
    trials = [trial(tmp_path, name, rate_hz=hz + n) for name, hz in rates.items() for n in range(8)]
    trials += [control(tmp_path, name, 1e6 + n) for name in ("null", "simple") for n in range(8)]
    comparison = Comparison(trials)

    assert [[row.backend for row in rows] for rows in comparison.groups.values()] == [
        ["redis_stream", "redis_list"],
        ["null", "simple"],
    ]
    assert "1. redis_stream 203/s; 2. redis_list 103/s" in comparison.conclusion
    assert "null" not in comparison.conclusion
    assert {each.row.backend for each in comparison.verdicts().rows} == {"redis_list", "redis_stream"}
