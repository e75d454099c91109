"""Charts of trials side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imqueue.charts.canvas import (
    GREY,
    INK,
    PALE,
    WIDTH_IN,
    Chart,
    axes,
    colour,
    dress,
    marker,
    name_group,
    name_rows,
    plain_logarithmic,
)
from imqueue.charts.trial import DUE, POP
from imqueue.charts.windows import View, rates
from imqueue.compare import Comparison
from imqueue.grouping import Row, Spread
from imqueue.results import Result
from imqueue.words import enumeration, rounded

_ROW_IN, _GROUP_IN, _MARGIN_IN = 0.32, 0.42, 1.25
_PANELS = 3  # small multiples in a row
_SENT_SIZES = {"p50_s": 9.0, "p99_s": 18.0}  # of the lines from sent
_HIDDEN_NAMED = 4


def sum_rates(comparison: Comparison, ax: Axes | None = None) -> Chart:
    """Messages per second of the sums: a dot a backend (the median, with the range of repeats), group by group."""

    def draw(row: Row, y: float, axis: Axes) -> None:
        note = (
            _stamped(f"{rounded(row.sum_hz.median)}/s", row, "sum") if row.sum_hz else _stamped("no figure", row, "sum")
        )
        _dot(axis, y, row, row.sum_hz, note=note)

    ax = _rows(comparison, ax, draw, "sum")
    ax.set_xlabel("messages per second (log scale)")
    known = [row.sum_hz.median for row in comparison.rows if row.sum_hz]
    title = f"Sums ran at {rounded(min(known))} to {rounded(max(known))} messages/s" if known else "No sum passed"
    caption = "Groups promise different things: compare within a group only. " + _repeats(comparison)
    return _closed(ax, title, _rates_told(comparison), caption)


def flow_latencies(comparison: Comparison, ax: Axes | None = None) -> Chart:
    """Median and p99, from due and from sent, of the flows that kept up, group by group."""
    ax = _rows(comparison, ax, _latencies, "flow")
    ax.set_xlabel("latency, ms (log scale)")
    known = [spread.median for row in comparison.rows if (spread := row.latency_s("p99_s"))]
    title = "No flow kept up for long enough to tell a p99"
    if known:
        title = f"p99 from due was {rounded(min(known) * 1e3)} to {rounded(max(known) * 1e3)} ms"
    sentences = [
        "From due: hollow is p50, filled p99. From sent: the short grey line is p50, the long one p99.",
        _hidden(comparison),
        "Groups promise different things: compare within a group only.",
        _repeats(comparison),
        _kept_up(comparison),
    ]
    alt = "; ".join(_latencies_told(row) for row in comparison.rows if row.tried("flow"))
    return _closed(ax, title, alt, " ".join(filter(None, sentences)))


def _latencies(row: Row, y: float, axis: Axes) -> None:
    half, most = row.latency_s("p50_s"), row.latency_s("p99_s")
    if half and most:
        axis.plot([half.median * 1e3, most.median * 1e3], [y, y], color=colour(row.backend), linewidth=2, alpha=0.5)
    note = f"{rounded(most.median * 1e3)} ms" if most else row.latency_text("p99_s")
    note = _stamped(note, row, "flow")
    _dot(axis, y, row, half, filled=False, scale=1e3, note="" if most else note)
    if most or not half:
        _dot(axis, y, row, most, note=note, scale=1e3)
    for percentile, size in _SENT_SIZES.items():
        if sent := row.latency_s(percentile, "sent"):
            axis.plot([sent.median * 1e3], [y], marker="|", markersize=size, markeredgewidth=2, color=GREY)


def _latencies_told(row: Row) -> str:
    """One row in words."""
    kinds = [
        f"from {kind} p50 {row.latency_text('p50_s', kind)}, p99 {row.latency_text('p99_s', kind)}"
        for kind in ("due", "sent")
    ]
    hidden_s = row.hidden_s("p99_s")
    hidden = "" if hidden_s is None else f", at most {rounded(hidden_s * 1e3)} of p99 between them"
    return f"{row.name} ({row.group}), in ms: {', '.join(kinds)}{hidden}"


def _hidden(comparison: Comparison) -> str:
    """How much of p99 a closed loop would not have seen, those with the most first."""
    hidden_s: dict[str, float] = {}  # of each backend, in whichever group
    for row in comparison.rows:
        if (s := row.hidden_s("p99_s")) is not None:
            hidden_s[row.name] = max(s, hidden_s.get(row.name, 0.0))
    worst = sorted(hidden_s, key=lambda name: -hidden_s[name])
    if not worst:
        return ""
    if hidden_s[worst[0]] == 0:
        return "In no trial was p99 from sent shorter than from due: a load that waits would have hidden nothing of it."
    words = [f"{name} {rounded(hidden_s[name] * 1e3)} ms" for name in worst[:_HIDDEN_NAMED]]
    rest = f"; the others at most {rounded(hidden_s[worst[_HIDDEN_NAMED]] * 1e3)} ms" if worst[_HIDDEN_NAMED:] else ""
    told = f"{enumeration(words)}{rest}"
    return f"A load that waits for its backend would have hidden this much of a trial's p99, at most: {told}."


def _kept_up(comparison: Comparison) -> str:
    flows = [each for row in comparison.rows for each in row.results if each.shape == "flow"]
    told = f"{sum(each.kept_up for each in flows)} of {len(flows)} flows passed and kept up with what was offered."
    missing = [row.name for row in comparison.rows if row.tried("flow") and row.latency_s("p50_s") is None]
    return told + (f" Not shown, having none that did: {enumeration(missing)}." if missing else "")


def throughputs(comparison: Comparison) -> Chart:
    """Popped messages per second over time, a panel for each backend's first flow, all on one scale."""
    flows: dict[tuple[str, str], Result] = {}
    for result in comparison.results:
        if result.shape == "flow" and not result.watched and len(result.series):
            flows.setdefault((result.backend, result.info["durability"]), result)
    rows_n = max(1, math.ceil(len(flows) / _PANELS))
    figure = Figure(figsize=(WIDTH_IN, 0.6 + 1.75 * rows_n), dpi=100, layout="constrained")
    panels = figure.subplots(rows_n, _PANELS, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, result in zip(panels, flows.values(), strict=False):
        _panel(panel, View.of(result), f"{result.backend}, {result.info['durability']}")
    panels[0].set_ylim(bottom=0)  # of all, as they share it
    for panel in panels[len(flows) :]:
        panel.set_axis_off()
    for index in range(max(0, len(flows) - _PANELS), len(flows)):
        panels[index].xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel("seconds after go", fontsize=10)
    figure.supylabel("messages per second", fontsize=10)
    kept = [each for each in flows.values() if each.kept_up]
    title = f"{len(kept)} of {len(flows)} flows passed and kept up with what was offered"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    alt = f"{title}. A panel each for {enumeration([name for name, _ in flows])}: messages popped per second over time."
    return Chart(figure, alt, "Grey: offered. Line: popped, from Prometheus' raw samples. All panels share one scale.")


def _panel(panel: Axes, view: View, name: str) -> None:
    dress(panel)
    edges, offered = rates(view, DUE, view.load_s)
    panel.stairs(offered, edges, fill=True, color=PALE)
    edges, popped = rates(view, POP)
    panel.stairs(popped, edges, color=colour(view.backend), linewidth=2, baseline=None)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.set_title(name, loc="left", fontsize=10, color=INK)


def _rows(comparison: Comparison, ax: Axes | None, draw: Callable[[Row, float, Axes], None], shape: str) -> Axes:
    """A line for each backend that was tried, under a heading for each group, on a logarithmic scale to the right."""
    tried = {group: [row for row in rows if row.tried(shape)] for group, rows in comparison.groups.items()}
    groups = {group: rows for group, rows in tried.items() if rows}
    ax = axes(ax, _MARGIN_IN + sum(_GROUP_IN + _ROW_IN * len(rows) for rows in groups.values()))
    ax.set_xscale("log")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=PALE, linewidth=0.7)
    places: list[tuple[float, str]] = []
    y = 0.0
    for group, rows in groups.items():
        words: dict[str, Any] = {"fontsize": 9.5, "color": GREY, "va": "center", "style": "italic"}
        name_group(ax, y, str(group), **words)
        y += _GROUP_IN / _ROW_IN * 0.75
        for row in rows:
            draw(row, y, ax)
            places.append((y, row.label))
            y += 1
        y += _GROUP_IN / _ROW_IN * 0.25
    name_rows(ax, places)
    ax.set_ylim(y, -0.8)
    ax.tick_params(axis="y", length=0)
    plain_logarithmic(ax.xaxis)
    left, right = ax.get_xlim()
    ax.set_xlim(left / 1.15, right * 1.7)  # room for the last label
    return ax


def _dot(
    ax: Axes,
    y: float,
    row: Row,
    spread: Spread | None,
    *,
    note: str = "",
    filled: bool = True,
    scale: float = 1.0,
) -> None:
    if spread is None:
        ax.text(0.01, y, note, transform=ax.get_yaxis_transform(), fontsize=9.5, color=GREY, va="center")
        return
    tint = colour(row.backend)
    if spread.n > 1:
        ax.plot([spread.least * scale, spread.greatest * scale], [y, y], color=tint, linewidth=5, alpha=0.3)
    face = tint if filled else "white"
    style: dict[str, Any] = {
        "marker": marker(row.backend),
        "markersize": 8,
        "markeredgecolor": tint,
        "markerfacecolor": face,
    }
    ax.plot([spread.median * scale], [y], **style)
    beside = (spread.greatest * scale, y)
    ax.annotate(note, beside, xytext=(9, 0), textcoords="offset points", va="center", fontsize=9.5, color=INK)


def _stamped(text: str, row: Row, shape: str) -> str:
    stamps = row.stamps(shape)
    return f"{text}  ({stamps})" if stamps else text


def _repeats(comparison: Comparison) -> str:
    dots = (
        "Dots are medians over trials of each trial's own figure (of two middle ones the lower), bars go from the "
        "least to the greatest of the repeats."
    )
    if comparison.repeated:
        return dots
    if all(
        sum(each.shape == shape for each in row.results) < 2 for row in comparison.rows for shape in ("sum", "flow")
    ):
        return "One trial each: figures without a ranking."
    return f"Not every one ran more than once: figures without a ranking. {dots}"


def _rates_told(comparison: Comparison) -> str:
    told = [(row, row.sum_hz) for row in comparison.rows if row.tried("sum")]
    return "; ".join(
        f"{row.name} ({row.group}): {f'{spread.text()} messages/s' if spread else 'no figure'}" for row, spread in told
    )


def _closed(ax: Axes, title: str, alt: str, caption: str) -> Chart:
    ax.set_title(title, loc="left", fontsize=12, color=INK)
    return Chart(ax.figure, f"{title}. {alt}.", caption)
