"""Percentiles of a real trial: exact from its ledger, Prometheus' own, and what is printed where neither can tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from imqueue import charts, client, notebook, store
from imqueue.charts.trial import HISTOGRAMS
from imqueue.charts.windows import quantiles, whole
from imqueue.results import Result

RATE_HZ, DURATION_S = 2_000, 2.0


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("IMQUEUE_DATA", str(folder))
        yield notebook.run("sqlite", rate_hz=RATE_HZ, duration_s=DURATION_S, batch=10, progress=False)
        client.end(folder)


def rows(flow: Result) -> np.ndarray:
    return store.read_ledger(Path(flow.folder) / "ledger" / "worker-0.rows.parquet")


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["due", "sent"])
def test_the_exact_percentile_lies_within_prometheus_error_band(flow: Result, kind: str, q: float) -> None:
    took_ns = rows(flow)["handled_ns"] - rows(flow)[f"{kind}_ns"]
    exact_s = float(np.quantile(took_ns, q, method="inverted_cdf")) / 1e9
    told = whole(flow.series, HISTOGRAMS[kind], q)

    assert told is not None
    assert told.lower_s * (1 - 1e-5) <= exact_s <= told.upper_s * (1 + 1e-5)
    name = f"p{q * 100:.0f}_s"
    assert flow.info["latency"][kind][name] == pytest.approx(exact_s, rel=0.004)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_what_is_drawn_for_prometheus_is_what_it_says_itself(flow: Result, q: float) -> None:
    servers = client.connect().ask("GET", "/status")["servers"]
    (url,) = (each["url"] for each in servers if each["kind"] == "prometheus")
    query = f'histogram_quantile({q}, queue_trial_latency_seconds_bucket{{trial="{flow.id}"}})'
    answer = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=10).json()
    ((_, value),) = (each["value"] for each in answer["data"]["result"])
    told = whole(flow.series, HISTOGRAMS["due"], q)

    assert told is not None
    assert told.value_s == pytest.approx(float(value), rel=1e-9)


def test_a_percentile_of_too_few_messages_is_printed_as_unresolved_with_the_reason(flow: Result) -> None:
    table = flow.latency
    reason = "4,000 messages, and it takes 10,000"

    assert table.loc["p99.9", "from due, ms"] == "unresolved"
    assert table.loc["p99.9", "why unresolved"] == reason
    assert table.loc["p99", "why unresolved"] == ""
    assert table.loc["p50", "from due, ms"] == pytest.approx(flow.info["latency"]["due"]["p50_s"] * 1e3, abs=1e-3)
    assert flow.info["latency"]["due"]["unresolved"] == {"p999_s": reason}


def test_the_latency_chart_shows_prometheus_figures_beside_the_exact_ones(flow: Result) -> None:
    (ax,) = charts.latency(flow).figure.axes
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["from due", "from sent", "Prometheus, from due", "Prometheus, from sent"]


def test_a_percentile_beyond_the_buckets_is_a_gap_not_a_guess(flow: Result) -> None:
    instant = flow.series.copy()
    buckets = instant["metric"] == "queue_trial_latency_seconds_bucket"
    everything = instant[buckets & (instant["le"] == "+Inf")].set_index("time_s")["value"]
    instant.loc[buckets, "value"] = instant.loc[buckets, "time_s"].map(everything)  # all in the first bucket

    line = quantiles(instant, HISTOGRAMS["due"], 0.5, DURATION_S)

    assert len(line.value_s)
    assert np.isnan(line.value_s).all()
    assert whole(instant, HISTOGRAMS["due"], 0.5) is None
