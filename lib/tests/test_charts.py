"""Charts: what they draw is what was counted, and what they say is computed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import LATENCY_S, make_trial
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from imqueue import charts, registry
from imqueue.charts.windows import Quantiles, View, knots, quantiles, rates, spectrum
from imqueue.histogram import Histogram
from imqueue.record import _summary
from imqueue.results import Result

OF_ONE_TRIAL = [charts.throughput, charts.depth, charts.latency_over_time, charts.latency, charts.progress]
POP = "queue_trial_pop_total"


@pytest.fixture
def flow(tmp_path: Path) -> Result:
    return Result(make_trial(tmp_path))


def test_the_partial_intervals_at_both_edges_show_the_true_rate(flow: Result) -> None:
    edges, popped = rates(View.of(flow), POP)
    assert edges[0] == 0.0
    assert edges[-1] == pytest.approx(flow.info["elapsed_s"])
    assert popped == pytest.approx([1_000.0] * len(popped), rel=0.01)


def test_a_counter_ends_at_the_trials_total(flow: Result) -> None:
    assert knots(View.of(flow), POP)[1][-1] == flow.info["counts"]["popped"]


def test_a_trial_shorter_than_a_scrape_still_has_its_rate(tmp_path: Path) -> None:
    short = Result(make_trial(tmp_path, shape="sum", offered_hz=100_000.0, duration_s=0.2))
    _, popped = rates(View.of(short), POP)
    assert popped == pytest.approx([20_000 / short.info["elapsed_s"]])
    assert "saw it 0 times" in charts.throughput(short).caption


def test_the_band_of_a_quantile_holds_the_true_one(flow: Result) -> None:
    line = quantiles(flow.series, "queue_trial_latency_seconds", 0.5, 4.0)
    assert len(line.lower_s) > 5
    assert (line.lower_s <= LATENCY_S).all()
    assert (line.upper_s >= LATENCY_S).all()
    assert line.upper_s / line.lower_s == pytest.approx(2**0.25, rel=1e-4)


def test_windows_are_wide_enough_to_resolve_their_quantile(flow: Result) -> None:
    line = quantiles(flow.series, "queue_trial_latency_seconds", 0.99, 4.0)
    assert ((line.end_s - line.start_s) * 1_000 >= 10 / (1 - 0.99) * 0.79).all()  # the first starts before go
    assert line.end_s[-1] == pytest.approx(4.0, abs=0.01)


def test_a_pause_is_a_gap_in_the_line() -> None:
    bounds = (np.array([1.5, 1.5]), np.array([1.0, 1.0]), np.array([2.0, 2.0]))
    two = Quantiles(np.array([0.0, 3.0]), np.array([1.0, 4.0]), *bounds)
    edges, (value_s, _, _) = two.steps()
    assert list(edges) == [0.0, 1.0, 3.0, 4.0]
    assert np.isnan(value_s).tolist() == [False, True, False]


def test_too_few_messages_give_no_p99_and_the_title_says_so(tmp_path: Path) -> None:
    slow = Result(make_trial(tmp_path, offered_hz=50.0))
    assert not len(quantiles(slow.series, "queue_trial_latency_seconds", 0.99, 4.0).upper_s)
    assert "too few messages" in charts.latency_over_time(slow).alt


def test_the_spectrum_ends_where_ten_messages_are_left() -> None:
    import pandas as pd

    middle_ms = np.arange(1, 101)
    rows = {"kind": "due", "lower_s": (middle_ms - 0.5) / 1e3, "upper_s": (middle_ms + 0.5) / 1e3, "count": 10}
    x, value_s = spectrum(pd.DataFrame(rows), "due", 0)
    assert x[-1] == pytest.approx(100.0)  # 1,000 messages, 10 of them left
    assert value_s[x.searchsorted(2.0)] == pytest.approx(0.050)


def test_a_title_is_made_of_computed_values(flow: Result) -> None:
    assert "popped 1,000 messages/s over 4 s" in charts.throughput(flow).alt
    assert "p99 was 2 ms from due, 2 ms from sent" in charts.latency(flow).alt
    assert "at most 3 messages" in charts.depth(flow).alt


@pytest.mark.parametrize("chart", [charts.latency, charts.latency_over_time])
def test_latency_stands_from_due_and_from_sent_side_by_side(flow: Result, chart: object) -> None:
    ax = Figure().add_subplot()
    chart(flow, ax=ax)  # type: ignore[operator]
    labels = " ".join(ax.get_legend_handles_labels()[1])
    assert "from due" in labels
    assert "from sent" in labels


@pytest.mark.parametrize("chart", OF_ONE_TRIAL)
def test_a_chart_is_one_self_contained_figure_with_its_words(flow: Result, chart: object) -> None:
    html = chart(flow)._repr_html_()  # type: ignore[operator]
    assert len(re.search(r'<img alt="([^"]+)"', html)[1]) > 40  # type: ignore[index]
    assert 'src="data:image/png;base64,' in html
    assert "<figcaption>" in html
    assert "http" not in html


@pytest.mark.parametrize("chart", OF_ONE_TRIAL)
def test_a_chart_draws_on_the_axes_that_it_is_given(flow: Result, chart: object) -> None:
    ax = Figure().add_subplot()
    drawn = chart(flow, ax=ax)  # type: ignore[operator]
    assert drawn.figure is ax.figure
    assert ax.get_title(loc="left")
    assert ax.get_xlabel()
    assert ax.get_ylabel()


@pytest.mark.parametrize("chart", OF_ONE_TRIAL)
def test_a_trial_that_failed_before_any_sample_can_still_be_shown(tmp_path: Path, chart: object) -> None:
    nothing: dict[str, Any] = {"load_s": None, "elapsed_s": None, "rate_hz": None, "latency": None, "audit": None}
    failed = Result(make_trial(tmp_path, sampled=False, state="failed", error="redis died", **nothing))
    assert "no samples" in chart(failed).alt  # type: ignore[operator]


def test_a_picture_is_twice_as_sharp_as_it_is_shown(flow: Result) -> None:
    png = charts.depth(flow).png()
    assert int.from_bytes(png[16:20], "big") == 1600


def test_what_a_backend_is_called_cannot_become_markup(tmp_path: Path) -> None:
    html = charts.depth(Result(make_trial(tmp_path, backend="a<b>")))._repr_html_()
    assert "<b>" not in html


def test_changes_and_faults_are_marked_with_their_words(tmp_path: Path) -> None:
    told = [
        {"at_s": 0.0, "kind": "go", "text": "go"},
        {"at_s": 1.0, "kind": "rate", "text": "rate 1000/s -> 2000/s"},
        {"at_s": 2.0, "kind": "fault", "text": "worker killed"},
    ]
    ax = Figure().add_subplot()
    charts.throughput(Result(make_trial(tmp_path, events=told)), ax=ax)
    assert [text.get_text() for text in ax.texts] == ["rate 1000/s -> 2000/s", "worker killed"]


def test_the_drain_is_shaded(tmp_path: Path) -> None:
    ax = Figure().add_subplot()
    charts.throughput(Result(make_trial(tmp_path, load_s=3.0)), ax=ax)
    assert "draining" in ax.get_legend_handles_labels()[1]


def test_no_two_backends_look_alike() -> None:
    names = registry.names()
    assert len({(charts.colour(name), charts.marker(name)) for name in names}) == len(names)


def test_seven_first_backends_have_seven_colours() -> None:
    names = ["simple", "memory", "sqlite", "redis_list", "redis_stream", "rabbitmq", "postgres"]
    assert len({charts.colour(name) for name in names}) == 7


@pytest.mark.parametrize("colour", charts.COLOURS)
def test_a_line_can_be_seen_on_white(colour: str) -> None:
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(colour)]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    assert 1.05 / (luminance + 0.05) >= 3.0  # WCAG's least for graphics


def test_a_p99_beyond_the_last_bucket_is_not_said_to_have_stayed_under_anything(tmp_path: Path) -> None:
    trial = make_trial(tmp_path)
    assert re.search(r"p99 stayed under [\d.]+ ms from due", charts.latency_over_time(Result(trial)).alt)
    series = pd.read_parquet(trial / "series.parquet")
    finite = series["metric"].eq("queue_trial_latency_seconds_bucket") & (series["le"] != "+Inf")
    at_rest = series[finite & (series["time_s"] <= 2.0)].groupby("le")["value"].max()
    late = finite & (series["time_s"] > 2.0)  # from then on all took over 100 s
    series.loc[late, "value"] = series.loc[late, "le"].map(at_rest)
    series.to_parquet(trial / "series.parquet")
    told = charts.latency_over_time(Result(trial)).alt
    assert "stayed" not in told
    assert re.search(
        r"p99 from due is unresolved in 2 of 3 windows; where it can be told, it was under [\d.]+ ms", told
    )


def test_where_nothing_was_measured_there_is_no_slowest_message(tmp_path: Path) -> None:
    summary = _summary(Histogram())
    assert summary["max_s"] is None
    trial = Result(make_trial(tmp_path, latency={"due": summary, "sent": summary}))
    assert list(trial.latency.loc["max"]) == ["unresolved", "unresolved", "nothing was measured"]
    assert "nothing was measured" in charts.latency(trial).alt


def test_the_verdict_of_a_flow_says_what_a_closed_loop_would_have(tmp_path: Path) -> None:
    figures = {"n": 4_000, "p50_s": 0.001, "p99_s": 0.5, "max_s": 1.0}
    trial = Result(make_trial(tmp_path, latency={"due": figures, "sent": {**figures, "p99_s": 0.002}}))
    said = "half within 1 ms, 99 % within 500 ms; from sent, which leaves out the wait to be put, 99 % within 2 ms."
    assert said in trial.verdict()


def with_view_of_its_server(folder: Path, kind: str, *readings: tuple[str, str, float, float]) -> Result:
    """A flow with `why=True`, whose server told these: metric, kind, time and value."""
    told = {name: {"asked": 9, "missed": 0, "error": None} for name in ("host", kind)}
    trial = make_trial(folder, readers=told)
    rows = pd.DataFrame(readings, columns=["metric", "kind", "time_s", "value"])
    path = trial / "series.parquet"
    pd.concat([pd.read_parquet(path), rows]).to_parquet(path)
    return Result(trial)


def test_levels_piled_up_stand_at_their_own_times_though_a_kind_was_seldom_told(tmp_path: Path) -> None:
    sessions = [("queue_server_sessions", "IO", at_s, 1.0) for at_s in (0.5, 1.0, 1.5, 2.0)]
    sessions += [("queue_server_sessions", "BufferPin", at_s, 3.0) for at_s in (1.0, 1.5)]
    cores = [("queue_host_cpu_seconds_total", "user", at_s, 2 * at_s) for at_s in (0.5, 1.0, 1.5, 2.0)]
    cores += [("queue_host_cpu_seconds_total", "system", at_s, at_s) for at_s in (0.5, 1.0, 2.0)]
    rows = [("queue_server_rows", kind, at_s, 5.0) for kind in ("live", "dead") for at_s in (0.5, 1.0, 1.5)][:-1]
    chart = charts.why(with_view_of_its_server(tmp_path, "postgres", *sessions, *cores, *rows))
    assert isinstance(chart, charts.Chart)
    assert "sessions, by wait: BufferPin 0 to 3, IO 1 to 1." in chart.alt
    assert "cores busy, by mode: system 1 to 1, user 2 to 2." in chart.alt
    sessions_ax = _titled(chart, "PostgreSQL: sessions, by wait")
    cores_ax = _titled(chart, "machine: cores busy, by mode")
    (pinned, pinned_s, _), (io, io_s, _) = [each.get_data() for each in _steps(sessions_ax)]
    assert pinned_s.tolist() == io_s.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert pinned.tolist() == [0, 3, 3, 0]
    assert io.tolist() == [1, 4, 4, 1]
    assert _steps(cores_ax)[0].get_data()[1].tolist() == [0.5, 1.0, 2.0]


def _titled(chart: charts.Chart, title: str) -> Axes:
    (ax,) = [each for each in chart.figure.axes if each.get_title("left") == title]
    return ax


def _steps(ax: Axes) -> list[StepPatch]:
    return [each for each in ax.patches if isinstance(each, StepPatch)]
