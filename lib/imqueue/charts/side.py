"""Charts of trials side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imqueue.charts.canvas import GREY, INK, PALE, WIDTH_IN, Chart, axes, colour, dress, marker, plain_logarithmic
from imqueue.charts.trial import DUE, POP
from imqueue.charts.windows import View, rates
from imqueue.compare import Comparison
from imqueue.grouping import Row, Spread
from imqueue.results import Result
from imqueue.words import enumeration, rounded

_ROW_IN, _GROUP_IN, _MARGIN_IN = 0.32, 0.42, 1.25
_PANELS = 3  # small multiples in a row


def sum_rates(comparison: Comparison, ax: Axes | None = None) -> Chart:
    """Messages per second of the sums: a dot a backend (the median, with the range of repeats), group by group."""

    def draw(row: Row, y: float, axis: Axes) -> None:
        note = (
            _stamped(f"{rounded(row.sum_hz.median)}/s", row, "sum") if row.sum_hz else _stamped("no figure", row, "sum")
        )
        _dot(axis, y, row, row.sum_hz, note=note)

    ax = _rows(comparison, ax, draw)
    ax.set_xlabel("messages per second (log scale)")
    known = [row.sum_hz.median for row in comparison.rows if row.sum_hz]
    title = f"Sums ran at {rounded(min(known))} to {rounded(max(known))} messages/s" if known else "No sum passed"
    caption = "Groups promise different things: compare within a group only. " + _repeats(comparison)
    return _closed(ax, title, _told(comparison, lambda row: row.sum_hz, "messages/s", 1.0), caption)


def flow_latencies(comparison: Comparison, ax: Axes | None = None) -> Chart:
    """Median and p99 from due, and p99 from sent, of the flows that kept up, group by group."""

    def draw(row: Row, y: float, axis: Axes) -> None:
        half, most = row.latency_s("p50_s"), row.latency_s("p99_s")
        if half and most:
            axis.plot([half.median * 1e3, most.median * 1e3], [y, y], color=colour(row.backend), linewidth=2, alpha=0.5)
        _dot(axis, y, row, half, filled=False, scale=1e3)
        note = f"{rounded(most.median * 1e3)} ms" if most else row.latency_text("p99_s")
        note = _stamped(note, row, "flow")
        _dot(axis, y, row, most, note=note, scale=1e3)
        if sent := row.latency_s("p99_s", "sent"):
            axis.plot([sent.median * 1e3], [y], marker="|", markersize=17, markeredgewidth=2, color=GREY)

    ax = _rows(comparison, ax, draw)
    ax.set_xlabel("latency, ms (log scale): from due, hollow is p50 and filled p99; the grey line is p99 from sent")
    known = [spread.median for row in comparison.rows if (spread := row.latency_s("p99_s"))]
    title = "No flow kept up for long enough to tell a p99"
    if known:
        title = f"p99 from due was {rounded(min(known) * 1e3)} to {rounded(max(known) * 1e3)} ms"
    missing = [row.name for row in comparison.rows if row.latency_s("p50_s") is None]
    caption = "Groups promise different things: compare within a group only. " + _repeats(comparison)
    caption += " The further p99 from due lies right of the grey line, the more would have been hidden from a load "
    caption += "that waits for its backend."
    if missing:
        caption += f" Not shown, having no flow that passed and kept up: {enumeration(missing)}."
    return _closed(ax, title, _told(comparison, lambda row: row.latency_s("p99_s"), "ms p99", 1e3), caption)


def throughputs(comparison: Comparison) -> Chart:
    """Popped messages per second over time, a panel for each backend's first flow, all on one scale."""
    flows: dict[tuple[str, str], Result] = {}
    for result in comparison.results:
        if result.shape == "flow" and len(result.series):
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


def _rows(comparison: Comparison, ax: Axes | None, draw: Callable[[Row, float, Axes], None]) -> Axes:
    """A line for each backend under a heading for each group, on a logarithmic scale from left to right."""
    lines = sum(len(rows) for rows in comparison.groups.values())
    ax = axes(ax, _MARGIN_IN + _ROW_IN * lines + _GROUP_IN * len(comparison.groups))
    ax.set_xscale("log")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=PALE, linewidth=0.7)
    places: list[tuple[float, str]] = []
    y = 0.0
    for group, rows in comparison.groups.items():
        words: dict[str, Any] = {"fontsize": 9.5, "color": GREY, "va": "center", "style": "italic"}
        ax.text(0.0, y, str(group), transform=ax.get_yaxis_transform(), **words)
        y += _GROUP_IN / _ROW_IN * 0.75
        for row in rows:
            draw(row, y, ax)
            places.append((y, row.name))
            y += 1
        y += _GROUP_IN / _ROW_IN * 0.25
    ax.set_yticks([at for at, _ in places], [name for _, name in places])
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
    if comparison.repeated:
        return "Dots are medians, bars go from the least to the greatest of the repeats."
    return "One trial each: figures without a ranking."


def _told(comparison: Comparison, figure: Callable[[Row], Spread | None], unit: str, scale: float) -> str:
    return "; ".join(
        f"{row.name} ({row.group}): {spread.text(scale) + ' ' + unit if (spread := figure(row)) else 'no figure'}"
        for row in comparison.rows
    )


def _closed(ax: Axes, title: str, alt: str, caption: str) -> Chart:
    ax.set_title(title, loc="left", fontsize=12, color=INK)
    return Chart(ax.figure, f"{title}. {alt}.", caption)
