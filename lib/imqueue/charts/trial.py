"""Charts of one trial."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from imqueue.charts.canvas import GREY, INK, PALE, Chart, axes, colour, finish, legend, log_milliseconds, mark
from imqueue.charts.windows import Quantiles, View, knots, quantiles, rates, samples, spectrum, whole
from imqueue.results import Result
from imqueue.words import milliseconds, rounded, within

Source = Result | View | pd.DataFrame
PUSH, POP, DUE = "queue_trial_push_total", "queue_trial_pop_total", "queue_trial_due_total"
PROMETHEUS_QUANTILES = (0.5, 0.9, 0.99, 0.999)
HISTOGRAMS = {"due": "queue_trial_latency_seconds", "sent": "queue_trial_service_seconds"}
_TICKS = {2: "50 %", 10: "90 %", 100: "99 %", 1e3: "99.9 %", 1e4: "99.99 %", 1e5: "99.999 %", 1e6: "99.9999 %"}


def throughput(source: Source, ax: Axes | None = None) -> Chart:
    """Messages per second offered, pushed and popped, between Prometheus' samples."""
    view, ax = View.of(source), axes(ax)
    edges, offered = rates(view, DUE, view.load_s)
    ax.stairs(offered, edges, fill=True, color=PALE, label="offered")
    edges, pushed = rates(view, PUSH)
    ax.stairs(pushed, edges, color=INK, linestyle=(0, (2, 2)), linewidth=1.3, label="pushed", baseline=None)
    edges, popped = rates(view, POP)
    ax.stairs(popped, edges, color=colour(view.backend), linewidth=2.2, label="popped", baseline=None)
    mark(ax, view)
    _over_time(ax, view, "messages per second")
    total = knots(view, POP)[1][-1]
    mean_hz = total / view.end_s if view.end_s else 0.0
    title = f"{view.backend} popped {rounded(mean_hz)} messages/s over {view.end_s:.3g} s"
    if len(popped) > 2:
        title += f", between {rounded(popped[1:-1].min())}/s and {rounded(popped[1:-1].max())}/s from sample to sample"
    alt = f"Steps of offered, pushed and popped messages per second; {total:,.0f} popped in all."
    return _finish(
        ax, view, title, alt, _sampled(edges, "Counters read every 0.5 s, differenced; nothing is extrapolated.")
    )


def depth(source: Source, ax: Axes | None = None) -> Chart:
    """Messages that the server calls ready, and those pushed but not yet popped."""
    view, ax = View.of(source), axes(ax)
    time_s, ready = samples(view.series, "queue_trial_queue_depth")
    inside = (time_s >= 0) & (time_s <= view.end_s + 0.6)
    time_s, ready = time_s[inside], ready[inside]
    pushed_s, pushed = samples(view.series, PUSH)
    flying = np.maximum(pushed - samples(view.series, POP)[1], 0)[(pushed_s >= 0) & (pushed_s <= view.end_s + 0.6)]
    ax.plot(time_s, flying, color=INK, linestyle=(0, (2, 2)), linewidth=1.3, label="pushed, not yet popped")
    ax.plot(time_s, ready, color=colour(view.backend), linewidth=2.2, marker=".", label="ready, says the server")
    mark(ax, view)
    _over_time(ax, view, "messages")
    most = float(ready.max()) if len(ready) else 0.0
    title = f"{view.backend}: at most {most:,.0f} messages stood ready at a sample"
    alt = f"Queue depth over time; the last sample says {ready[-1] if len(ready) else 0:,.0f}."
    return _finish(
        ax, view, title, alt, _sampled(time_s, "Sampled every 0.5 s: what comes and goes between is not seen.")
    )


def latency_over_time(source: Source, ax: Axes | None = None) -> Chart:
    """p50 and p99, from due and from sent, from Prometheus' buckets, in windows wide enough to resolve them."""
    view, ax = View.of(source), axes(ax)
    found = {}
    for kind, tint, width in (("due", colour(view.backend), 2.2), ("sent", GREY, 1.4)):
        for q, style in ((0.5, (0, (2, 2))), (0.99, "-")):
            found[kind, q] = line = quantiles(view.series, HISTOGRAMS[kind], q, view.end_s)
            if not len(line.start_s):
                continue
            edges, (value_s, lower_s, upper_s) = line.steps()
            label = f"p{q * 100:.0f} from {kind}"
            look: dict[str, Any] = {"color": tint, "linestyle": style, "linewidth": width, "label": label}
            ax.stairs(value_s * 1e3, edges, baseline=None, **look)
            ax.stairs(upper_s * 1e3, edges, baseline=lower_s * 1e3, fill=True, color=tint, alpha=0.15)
    log_milliseconds(ax)
    mark(ax, view)
    _over_time(ax, view, "latency, ms", zero=False)
    title = f"{view.backend}: {_p99_over_time(found['due', 0.99], found['sent', 0.99])}"
    alt = "Median and p99 latency over time, from due and from sent, on a log scale."
    widest = max((float((each.end_s - each.start_s).max()) for each in found.values() if len(each.end_s)), default=0)
    caption = "Lines are Prometheus' own figures, bands its buckets: the percentile lies somewhere in the band. "
    caption += f"Windows hold enough messages to resolve it (up to {widest:.2g} s). "
    return _finish(ax, view, title, alt, caption + _gaps(found.values()))


def _p99_over_time(due: Quantiles, sent: Quantiles) -> str:
    """Where it was in all windows, or in those that resolve it: one that does not may lie over 100 s."""
    if not len(due.value_s) or not len(sent.value_s):
        return "too few messages between samples to tell a p99 over time"
    missing, windows = int(np.isnan(due.value_s).sum()), len(due.value_s)
    if missing == windows or np.isnan(sent.value_s).all():
        return "p99 over time is unresolved, in the first or last of Prometheus' buckets"
    bounds = ", ".join(
        f"under {milliseconds(np.nanmax(line.upper_s))} from {kind}" for kind, line in (("due", due), ("sent", sent))
    )
    if missing or np.isnan(sent.value_s).any():
        return f"p99 from due is unresolved in {missing} of {windows} windows; where it can be told, it was {bounds}"
    return f"p99 stayed {bounds}"


def latency(source: Result, ax: Axes | None = None) -> Chart:
    """The whole distribution, exact from the ledger: how long the slowest share of messages took."""
    view, ax = View.of(source), axes(ax)
    figures = view.info.get("latency") or {}
    for kind, tint, width in (("due", colour(view.backend), 2.2), ("sent", GREY, 1.4)):
        known = figures.get(kind) or {}
        x, middle_s = spectrum(source.histogram, kind, known.get("zero_n", 0) + known.get("negative_n", 0))
        ax.plot(x, middle_s * 1e3, color=tint, linewidth=width, label=f"from {kind}")
        _prometheus(ax, view, kind, tint)
    ax.set_xscale("log")
    log_milliseconds(ax)
    right = max(2.0, ax.get_xlim()[1])
    ax.set_xlim(1, right)
    ticks = [x for x in _TICKS if x <= right]
    ax.set_xticks(ticks, [_TICKS[x] for x in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("share of messages handled within")
    legend(ax)
    due, sent = figures.get("due") or {}, figures.get("sent") or {}
    title = f"{view.backend}: p99 was {milliseconds(due.get('p99_s'))} from due, "
    title += f"{milliseconds(sent.get('p99_s'))} from sent"
    alt = f"Percentiles of latency on log scales; {within('half', due.get('p50_s'))} of being due, "
    alt += f"the slowest after {milliseconds(due['max_s'])}." if due.get("max_s") else "nothing was measured."
    caption = (
        "Lines: exact, from the ledger. From due counts a message's wait for its put too; from sent, which is what a "
    )
    caption += "closed-loop benchmark would have reported, leaves it out. Each line ends where fewer than ten "
    caption += "messages are left. Dots: what Prometheus makes of its buckets, with a bar "
    return _finish(ax, view, title, alt, caption + "as long as the bucket is wide: the exact percentile must cross it.")


def _prometheus(ax: Axes, view: View, kind: str, tint: str) -> None:
    """Prometheus' own percentiles of the whole trial, those that it resolves, each with its bucket."""
    told = {q: each for q in PROMETHEUS_QUANTILES if (each := whole(view.series, HISTOGRAMS[kind], q))}
    if not told:
        return
    value, lower, upper = np.array(list(told.values())).T * 1e3
    look: dict[str, Any] = {"fmt": "o", "color": tint, "markersize": 4.5, "capsize": 4, "elinewidth": 1.5}
    label = f"Prometheus, from {kind}"
    ax.errorbar([1 / (1 - q) for q in told], value, (value - lower, upper - value), label=label, **look)


def _gaps(lines: Iterable[Quantiles]) -> str:
    """How many windows are unresolved for where their percentile lies; nothing where none is."""
    lines = [each for each in lines if len(each.value_s)]
    missing, windows = (
        sum(int(np.isnan(each.value_s).sum()) for each in lines),
        sum(len(each.value_s) for each in lines),
    )
    if not missing:
        return ""
    return (
        f"{missing} of {windows} are unresolved, in the first or last bucket (under 10 µs, over 100 s), and not drawn."
    )


def progress(source: Source, ax: Axes | None = None) -> Chart:
    """How many messages had been pushed and popped by when."""
    view, ax = View.of(source), axes(ax)
    for metric, name, tint, style, width in (
        (PUSH, "pushed", INK, (0, (2, 2)), 1.3),
        (POP, "popped", colour(view.backend), "-", 2.2),
    ):
        time_s, value = knots(view, metric)
        ax.plot(time_s, value, color=tint, linestyle=style, linewidth=width, marker=".", label=name)
    mark(ax, view)
    _over_time(ax, view, "messages, in all")
    time_s, value = knots(view, POP)
    title = f"{view.backend} popped {value[-1]:,.0f} messages in {view.end_s:.3g} s"
    return _finish(ax, view, title, "Messages pushed and popped so far, over time.", _sampled(time_s, ""))


def _finish(ax: Axes, view: View, title: str, alt: str, caption: str) -> Chart:
    if view.series.empty:
        title = f"{view.backend}: no samples of this trial were kept"
    return finish(ax, title, alt, caption)


def _over_time(ax: Axes, view: View, ylabel: str, zero: bool = True) -> None:
    ax.set_xlim(0, max(view.end_s, 1e-3) * 1.02)
    if zero:
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set_xlabel("seconds after go")
    ax.set_ylabel(ylabel)
    legend(ax)


def _sampled(time_s: np.ndarray, words: str) -> str:
    """`words`, unless the trial ended before Prometheus could look twice."""
    if len(time_s) > 3:
        return words
    seen = max(len(time_s) - 2, 0)
    return f"So short a trial that Prometheus saw it {seen} times between its start and its end."
