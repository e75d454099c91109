"""What messages cost, by who paid for it, and how near a backend comes to what the harness reaches alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from made import make_trial

from imqueue import costs
from imqueue.compare import Comparison
from imqueue.results import Result

SPENT = {"producer": 1.0, "worker": 2.0, "server": 1.0, "driver": 0.3, "prometheus": 0.1}


def trial(folder: Path, backend: str = "redis_list", shape: str = "sum", **changes: Any) -> Result:
    declares = {"server": "redis", "in_process": False, "control": False, **changes.pop("declares", {})}
    counts = {"popped": 500_000, "settled_in_window": 400_000}
    made = {"cpu_s": SPENT, "counts": counts, "declares": declares, **changes}
    return Result(make_trial(folder, backend, shape, **made))


def cells(html: str) -> dict[str, list[str]]:
    """The table's rows by their heading."""
    rows = [row.find_all(["th", "td"]) for row in BeautifulSoup(html, "html.parser").select("tr")]
    return {first.get_text(): [each.get_text() for each in rest] for first, *rest in rows}


def control(folder: Path, backend: str, rate_hz: float, **changes: Any) -> Result:
    declares = {"server": None, "in_process": backend == "simple", "control": True}
    return trial(folder, backend, rate_hz=rate_hz, declares=declares, durability="memory", **changes)


def test_cpu_time_is_told_per_million_messages_settled_in_the_window(tmp_path: Path) -> None:
    assert costs.per_million_s(trial(tmp_path)) == {role: pytest.approx(s * 2.5) for role, s in SPENT.items()}


def test_the_table_of_a_trial_shows_what_looking_on_took(tmp_path: Path) -> None:
    html = trial(tmp_path, load_s=4.0).costs
    assert cells(html)["Prometheus"] == ["0.1", "0.25", "2.5%"]
    assert cells(html)["workers"] == ["2", "5", "50%"]
    assert "Looking on (driver and Prometheus) took 9.1% of the CPU time" in html


def test_the_time_of_a_server_that_is_not_ours_is_unknown_not_zero(tmp_path: Path) -> None:
    result = trial(tmp_path, cpu_s={**SPENT, "server": 0.0})
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
