"""Trials side by side: unlike promises stay apart, one trial each is no ranking, and trouble is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import make_trial
from matplotlib.figure import Figure

from imqueue import charts, compare
from imqueue.compare import Comparison, Group, Spread
from imqueue.results import Result
from imqueue.workload import BadInput

KEPT = {"delivery": "at least once", "settles": "each"}
SIDE_BY_SIDE = [charts.sum_rates, charts.flow_latencies, charts.throughputs]


def trial(folder: Path, backend: str, shape: str = "sum", **changes: Any) -> Result:
    return Result(make_trial(folder, backend, shape, **changes))


def test_unlike_promises_never_share_a_group(tmp_path: Path) -> None:
    results = [
        trial(tmp_path, "redis_list"),
        trial(tmp_path, "redis_stream", declares=KEPT),
        trial(tmp_path, "postgres", declares={**KEPT, "settles": "batch"}),
        trial(tmp_path, "rabbitmq", declares=KEPT, durability="flushed"),
        trial(tmp_path, "mysql", declares=KEPT),
    ]
    groups = Comparison(results).groups
    assert {group: [row.backend for row in rows] for group, rows in groups.items()} == {
        Group("at least once", "delayed", "batch"): ["postgres"],
        Group("at least once", "delayed", "each"): ["mysql", "redis_stream"],
        Group("at least once", "flushed", "each"): ["rabbitmq"],
        Group("at most once", "delayed", "none"): ["redis_list"],
    }


def test_one_trial_each_is_no_ranking_and_says_so(tmp_path: Path) -> None:
    slow, fast = trial(tmp_path, "a_slow", rate_hz=1.0), trial(tmp_path, "b_fast", rate_hz=9.0)
    comparison = Comparison([fast, slow])
    assert [row.backend for row in comparison.rows] == ["a_slow", "b_fast"]
    assert "not a ranking" in comparison.conclusion
    assert "without a ranking" in charts.sum_rates(comparison).caption


def repeated(folder: Path, backend: str, *rates_hz: float, **changes: Any) -> list[Result]:
    return [trial(folder, backend, rate_hz=rate_hz, sampled=False, **changes) for rate_hz in rates_hz]


def test_repeats_give_the_median_and_the_range(tmp_path: Path) -> None:
    (row,) = (comparison := Comparison(repeated(tmp_path, "redis_list", 10.0, 30.0, 20.0))).rows
    assert row.sum_hz == Spread(20.0, 10.0, 30.0, 3)
    assert "20 (10 to 30)" in comparison.headline


def test_where_intervals_separate_the_faster_comes_first(tmp_path: Path) -> None:
    slow = repeated(tmp_path, "a_slow", 10.0, 12.0, 11.0, 13.0)
    fast = repeated(tmp_path, "b_fast", 50.0, 52.0, 51.0, 53.0)
    comparison = Comparison([*slow, *fast])
    assert [row.backend for row in comparison.rows] == ["b_fast", "a_slow"]
    assert "1. b_fast 51/s; 2. a_slow 11/s" in comparison.conclusion


def test_overlapping_intervals_share_a_place_in_order_of_names(tmp_path: Path) -> None:
    a = repeated(tmp_path, "a", 10.0, 50.0, 30.0, 40.0)
    b = repeated(tmp_path, "b", 20.0, 60.0, 35.0, 45.0)
    comparison = Comparison([*b, *a])
    assert [row.backend for row in comparison.rows] == ["a", "b"]
    assert "do not separate, so none is ranked" in comparison.conclusion


def test_three_repeats_rank_nothing_however_far_apart(tmp_path: Path) -> None:
    comparison = Comparison([*repeated(tmp_path, "a", 1.0, 2.0, 3.0), *repeated(tmp_path, "b", 91.0, 92.0, 93.0)])
    assert [row.backend for row in comparison.rows] == ["a", "b"]
    assert "repeats enough to rank" in comparison.conclusion


@pytest.mark.parametrize(
    ("change", "told"),
    [({"batch": 1}, "batch 1"), ({"messages": 5}, "messages 5"), ({"producers": 4}, "producers 4")],
)
def test_unlike_loads_never_share_a_group_and_the_group_says_what_differs(
    tmp_path: Path, change: dict[str, int], told: str
) -> None:
    ours = trial(tmp_path, "redis_list", sampled=False)
    other = trial(tmp_path, "redis_list", sampled=False, workload={**ours.info["workload"], **change})
    groups = Comparison([ours, other]).groups
    assert len(groups) == 2
    assert any(str(group).endswith(told) for group in groups)


def test_another_seed_or_class_left_to_the_default_is_no_other_load(tmp_path: Path) -> None:
    ours = trial(tmp_path, "redis_list", sampled=False)
    other = {**ours.info["workload"], "seed": 7, "durability": "delayed"}
    assert len(Comparison([ours, trial(tmp_path, "redis_list", sampled=False, workload=other)]).groups) == 1


def test_another_machine_or_a_change_while_it_ran_is_another_load(tmp_path: Path) -> None:
    machine = {"cpu": "another CPU", "cores": 64}
    told = [{"at_s": 1.0, "kind": "workers", "text": "workers 1 → 2"}]
    results = [
        trial(tmp_path, "redis_list", "flow", sampled=False),
        trial(tmp_path, "redis_list", "flow", sampled=False, machine=machine),
        trial(tmp_path, "redis_list", "flow", sampled=False, events=told),
    ]
    loads = {group.load for group in Comparison(results).groups}
    assert len(loads) == 3
    assert "machine a CPU with 2 cores, steered workers" in loads


def test_a_failed_audit_gives_no_figure_but_its_reason(tmp_path: Path) -> None:
    comparison = Comparison([trial(tmp_path, "redis_list", audit={"passed": False, "lost": 12, "sum_fits": False})])
    assert comparison.rows[0].sum_hz is None
    assert comparison.troubled == [("redis_list", "sum", "failed its audit", "12 lost")]
    assert "0 of 1 trials passed; 12 messages were lost" in comparison.conclusion


def test_a_trial_whose_server_died_is_shown_with_its_reason(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"audit": None, "rate_hz": None, "latency": None, "elapsed_s": None}
    failed = trial(tmp_path, "redis_list", state="failed", error="redis died with exit code -9", **nothing)
    comparison = Comparison([failed])
    assert comparison.troubled == [("redis_list", "sum", "failed", "redis died with exit code -9")]
    assert "redis died with exit code -9" in comparison.troubles


def test_a_step_that_left_no_trial_is_shown_with_its_error(tmp_path: Path) -> None:
    step = {"backend": "redis_list", "notebook": "10_sum", "trial": None, "error": "DriverError: gone"}
    comparison = Comparison([trial(tmp_path, "memory")], {"steps": [step]})
    assert ("redis_list", "10_sum", "no trial", "DriverError: gone") in comparison.troubled


def test_the_latency_of_an_overloaded_flow_is_compared_with_none(tmp_path: Path) -> None:
    stamp = {"stamp": "overload", "reason": "due minus settled grew by 9 %"}
    comparison = Comparison([trial(tmp_path, "redis_list", "flow", stamps=[stamp])])
    (row,) = comparison.rows
    assert row.flow_hz is not None
    assert row.latency_s("p99_s") is None
    assert "due minus settled grew by 9 %" in comparison.troubles
    assert "redis_list" in charts.flow_latencies(comparison).caption


def test_figures_of_an_invalid_trial_are_not_shown(tmp_path: Path) -> None:
    stamp = {"stamp": "invalid", "reason": "producers were late"}
    (row,) = Comparison([trial(tmp_path, "redis_list", stamps=[stamp])]).rows
    assert row.sum_hz is None


def report(folder: Path, *names: str) -> Path:
    """A report's folder beside `folder` of trials."""
    made = folder.parent / "report"
    made.mkdir()
    steps = [
        {
            "backend": "redis_list",
            "durability": "delayed",
            "shape": "sum",
            "trial": name,
            "page": "10_sum-redis_list.html",
        }
        for name in names
    ]
    about = {"profile": "quick", "made_at": "2026-11-24", "what": "sums", "trials": "../trials", "steps": steps}
    left_out = [{"backend": "rabbitmq", "reason": "rabbitmq-server is not here; apt-get install rabbitmq-server"}]
    (made / "report.json").write_text(json.dumps({**about, "left_out": left_out}))
    return made


def test_a_report_is_read_with_its_pages_and_what_it_left_out(tmp_path: Path) -> None:
    ours = make_trial(tmp_path / "trials", shape="sum")
    make_trial(tmp_path / "trials", "memory", "sum")
    comparison = compare.read(report(tmp_path / "trials", ours.name))
    assert [result.id for result in comparison.results] == [ours.name]
    assert 'href="10_sum-redis_list.html"' in comparison.headline
    assert "apt-get install rabbitmq-server" in comparison.summary
    assert "8 GiB" in comparison.summary


def test_a_list_of_trials_is_read(tmp_path: Path) -> None:
    ours = make_trial(tmp_path / "trials")
    (tmp_path / "list").write_text(f"{ours}\n\n")
    assert [result.id for result in compare.read(tmp_path / "list").results] == [ours.name]


def test_without_a_report_all_trials_on_disk_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))
    with pytest.raises(BadInput, match="no trial to compare yet"):
        compare.read()
    make_trial(tmp_path / "trials")
    assert len(compare.read().results) == 1


def test_what_is_no_report_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        compare.read(tmp_path / "nowhere")


def stalled(folder: Path, backend: str, hidden_s: float) -> Result:
    """A flow whose p99 from sent is `hidden_s` shorter than from due."""
    figures = {"n": 4_000, "p50_s": 0.002, "p90_s": 0.3, "p99_s": 0.4, "p999_s": None}
    latency = {"due": figures, "sent": {**figures, "p50_s": 0.001, "p99_s": 0.4 - hidden_s}}
    return Result(make_trial(folder, backend, latency=latency))


def test_percentiles_from_sent_stand_beside_those_from_due(tmp_path: Path) -> None:
    comparison = Comparison([stalled(tmp_path, "redis_list", 0.393)])
    ax = Figure().add_subplot()
    chart = charts.flow_latencies(comparison, ax=ax)
    drawn = [np.ravel(line.get_xdata()).tolist() for line in ax.lines]
    assert [ms for points in drawn if len(points) == 1 for ms in points] == pytest.approx([2.0, 400.0, 1.0, 7.0])
    assert "from due p50 2, p99 400, from sent p50 1, p99 7, at most 393 of p99 between them" in chart.alt
    assert "p99 from sent, ms" in comparison.headline
    assert '<td class="number">400</td><td class="number">7</td>' in comparison.headline


def test_how_much_a_waiting_load_would_have_hidden_is_said_with_the_worst_first(tmp_path: Path) -> None:
    hidden_s = {"a": 0.001, "b": 0.3, "c": 0.002, "d": 0.1, "e": 0.2, "f": 0.0}
    trials = [stalled(tmp_path, name, s) for name, s in hidden_s.items()]
    caption = charts.flow_latencies(Comparison([*trials, stalled(tmp_path, "b", 0.35)])).caption
    assert "b 350 ms, e 200 ms, d 100 ms and c 2 ms; the others at most 1 ms" in caption
    assert "7 of 7 flows passed and kept up" in caption
    assert "would have hidden nothing" in charts.flow_latencies(Comparison([stalled(tmp_path, "f", 0.0)])).caption


def test_a_chart_has_no_line_for_what_was_not_tried(tmp_path: Path) -> None:
    comparison = Comparison([trial(tmp_path, "a"), trial(tmp_path, "b", "flow"), trial(tmp_path, "b", "flow")])
    for chart, name in ((charts.sum_rates, "a"), (charts.flow_latencies, "b")):
        ax = Figure().add_subplot()
        drawn = chart(comparison, ax=ax)
        assert [label.get_text() for label in ax.get_yticklabels()] == [name]
        assert "Not every one ran more than once: figures without a ranking" in drawn.caption


def test_of_an_even_number_of_repeats_no_percentiles_are_averaged(tmp_path: Path) -> None:
    assert Spread.of([4.0, 1.0, None, 3.0, 2.0]) == Spread(2.0, 1.0, 4.0, 4)
    (row,) = (comparison := Comparison([stalled(tmp_path, "a", s) for s in (0.1, 0.2, 0.3, 0.35)])).rows
    assert (spread := row.latency_s("p99_s", "sent")) is not None
    assert spread.median == pytest.approx(0.1)
    assert "median over trials of each trial's own figure" in comparison.headline.replace("&#x27;", "'")


def test_a_watched_trial_is_no_ceiling(tmp_path: Path) -> None:
    null = {"control": True}
    plain = {"batch": 100}
    watched = {**trial(tmp_path, "null").info["workload"], **plain, "why": True}
    ours = [trial(tmp_path, "redis_list", rate_hz=50.0), trial(tmp_path, "null", rate_hz=100.0, declares=null)]
    slow = trial(tmp_path, "null", rate_hz=1.0, declares=null, workload=watched)
    assert '<td class="number">50%</td>' in Comparison([*ours, slow, slow]).headline


def test_the_legend_says_what_the_words_of_the_table_mean(tmp_path: Path) -> None:
    headline = Comparison([trial(tmp_path, "redis_list")]).headline
    for word in ("all there", "settles each", "removes on get", "invalid", "overload", "client-bound", "machine-bound"):
        assert f"“{word}”" in headline


@pytest.mark.parametrize("chart", SIDE_BY_SIDE)
def test_charts_side_by_side_name_every_backend_in_words(tmp_path: Path, chart: Any) -> None:
    results = [trial(tmp_path, name, shape) for name in ("redis_list", "redis_fast") for shape in ("sum", "flow")]
    drawn = chart(Comparison(results))
    assert "redis_list" in drawn.alt
    assert "redis_fast" in drawn.alt
    assert "data:image/png" in drawn._repr_html_()


@pytest.mark.parametrize("chart", SIDE_BY_SIDE)
def test_a_comparison_of_nothing_but_failures_can_be_drawn(tmp_path: Path, chart: Any) -> None:
    nothing: dict[str, Any] = {"audit": None, "rate_hz": None, "latency": None, "elapsed_s": None}
    failed = trial(tmp_path, "redis_list", "flow", state="failed", error="it died", sampled=False, **nothing)
    assert "data:image/png" in chart(Comparison([failed]))._repr_html_()


def test_the_conditions_of_a_trial_tell_what_was_found_and_what_was_given(tmp_path: Path) -> None:
    found = {"source": "pg_settings", "settings": {"poll_interval": "0.5 to 5 ms"}}
    told = Result(make_trial(tmp_path, guarantees=found, server_settings={"socket": ""})).conditions
    assert "<td>poll_interval 0.5 to 5 ms</td>" in told
    assert "<td>socket (empty)</td>" in told
    assert "<td>removes on get</td>" in told
