"""From raw counter samples to figures per interval. Nothing is extrapolated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imqueue.histogram import Estimate, prometheus_quantile
from imqueue.results import Result

INTERVAL_MIN_S = 0.25  # a shorter interval, at the trial's edges, is counted with its neighbour


@dataclass(frozen=True)
class View:
    """What a chart over time needs of a trial, finished or not. Times are seconds after go."""

    backend: str
    series: pd.DataFrame
    load_s: float  # when the load ended
    end_s: float  # when the last message was settled
    events: list[dict[str, Any]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Result | View | pd.DataFrame) -> View:
        """Of a result, or of the samples so far."""
        if isinstance(source, View):
            return source
        series = source.series if isinstance(source, Result) else source
        last_s = float(series["time_s"].max()) if len(series) else 0.0
        if not isinstance(source, Result):
            return cls("the backend", series, last_s, last_s)
        info = source.info
        load_s, elapsed_s = info.get("load_s"), info.get("elapsed_s")
        end_s = last_s if elapsed_s is None else float(elapsed_s)
        load_s = end_s if load_s is None else float(load_s)
        return cls(source.backend, series, load_s, max(end_s, load_s), source.events, info)


def samples(series: pd.DataFrame, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and values of one metric without further labels, in order of time."""
    rows = series[series["metric"] == metric].sort_values("time_s")
    return rows["time_s"].to_numpy(float), rows["value"].to_numpy(float)


def knots(view: View, metric: str, end_s: float | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A counter's exact values at go, at the samples between, and at the end; all in order of time.

    At go it stood at what the last sample before it says (zero); at `end_s` at what the first sample after it says,
    since it rests from there on. So the partial intervals at both edges are divided by the time that they lasted.
    """
    end_s = view.end_s if end_s is None else end_s
    time_s, value = samples(view.series, metric)
    if not len(time_s):
        return np.zeros(1), np.zeros(1)
    before, after = value[time_s <= 0], value[time_s >= end_s]
    inside = (time_s > INTERVAL_MIN_S) & (time_s < end_s - INTERVAL_MIN_S)
    last_s, last = (end_s, after[0]) if len(after) else (time_s[-1], value[-1])
    return (
        np.concatenate(([0.0], time_s[inside], [last_s])),
        np.concatenate(([before[-1] if len(before) else 0.0], value[inside], [last])),
    )


def rates(view: View, metric: str, end_s: float | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of the intervals (n + 1) and what was counted per second in each (n)."""
    time_s, value = knots(view, metric, end_s)
    took_s = np.diff(time_s)
    return time_s, np.diff(value) / np.where(took_s > 0, took_s, np.nan)


@dataclass(frozen=True)
class Quantiles:
    """One quantile over time: windows from `start_s` to `end_s`, Prometheus' own figure, and the bucket that has it.

    NaN where it lies in the first or last bucket, and so is unresolved.
    """

    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    value_s: NDArray[np.float64]
    lower_s: NDArray[np.float64]
    upper_s: NDArray[np.float64]

    def steps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of one window or more: edges (n + 1); value, lower and upper bound (3, n), NaN between those apart."""
        edges, steps = [self.start_s[0]], []
        for start_s, end_s, *step in zip(
            self.start_s, self.end_s, self.value_s, self.lower_s, self.upper_s, strict=True
        ):
            if start_s > edges[-1]:
                edges.append(start_s)
                steps.append([np.nan] * 3)
            edges.append(end_s)
            steps.append(step)
        return np.array(edges), np.array(steps).T


def quantiles(series: pd.DataFrame, histogram: str, q: float, end_s: float) -> Quantiles:
    """A quantile over time from the cumulative buckets of `histogram`, in windows wide enough to resolve it.

    Intervals between scrapes are joined until they hold 10 / (1 - q) values; a rest too small joins the last window.
    """
    rows = series[series["metric"] == f"{histogram}_bucket"]
    if rows.empty:
        return Quantiles(*(np.empty(0) for _ in range(5)))
    table = _buckets(rows)
    table = table[table.index <= end_s + 1.0]
    bounds_s, counts = table.columns.to_numpy(float), table.to_numpy(float)
    windows = _windows(counts[:, -1], 10 / (1 - q) - 1e-6)
    time_s = np.clip(table.index.to_numpy(float), 0.0, end_s)
    found = [prometheus_quantile(bounds_s, counts[last] - counts[first], q) for first, last in windows]
    value_s, lower_s, upper_s = np.array([each or [np.nan] * 3 for each in found]).reshape(-1, 3).T
    firsts, lasts = [w[0] for w in windows], [w[1] for w in windows]
    return Quantiles(time_s[firsts], time_s[lasts], value_s, lower_s, upper_s)


def whole(series: pd.DataFrame, histogram: str, q: float) -> Estimate | None:
    """What Prometheus tells of a quantile over the whole trial, from its last sample; None: unresolved."""
    rows = series[series["metric"] == f"{histogram}_bucket"]
    if rows.empty:
        return None
    table = _buckets(rows)  # the first sample is of zeros: no load starts before it was served
    return prometheus_quantile(table.columns.to_numpy(float), table.to_numpy(float)[-1], q)


def _buckets(rows: pd.DataFrame) -> pd.DataFrame:
    """Cumulative counts: a row for each sample's time, a column for each upper bound in seconds."""
    return rows.assign(bound_s=rows["le"].astype(float)).pivot_table("value", "time_s", "bound_s")


def _windows(totals: NDArray[np.float64], least: float) -> list[tuple[int, int]]:
    """Pairs of samples between which at least `least` values were counted."""
    found: list[tuple[int, int]] = []
    first = 0
    for index in range(1, len(totals)):
        if totals[index] == totals[first]:
            first = index  # nothing counted yet, so the window may start later
        elif totals[index] - totals[first] >= least:
            found.append((first, index))
            first = index
    if found and totals[-1] > totals[found[-1][1]]:
        found[-1] = (found[-1][0], len(totals) - 1)
    return found


def spectrum(histogram: pd.DataFrame, kind: str, below_n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each bucket of the exact histogram: 1 / (1 - share of values at or under it), and its middle in seconds.

    `below_n`: zero and negative values, which lie below all buckets. It ends where fewer than 10 values are left.
    """
    rows = histogram[histogram["kind"] == kind].sort_values("lower_s")
    counts = rows["count"].to_numpy(float)
    middle_s = ((rows["lower_s"] + rows["upper_s"]) / 2).to_numpy(float)
    left = counts.sum() - np.cumsum(counts)
    keep = left >= 10
    return (counts.sum() + below_n) / left[keep], middle_s[keep]
