"""The forest plot: how each backend compares with the reference of its group."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from imqueue.charts.canvas import (
    GREY,
    INK,
    PALE,
    Chart,
    axes,
    colour,
    finish,
    marker,
    name_group,
    name_rows,
    plain_logarithmic,
)
from imqueue.grouping import FIGURES, Figure
from imqueue.inference import FASTER, MARGIN, SAME, SLOWER, UNSURE
from imqueue.tables import paragraph, ratio
from imqueue.verdicts import Compared, Verdicts
from imqueue.words import Html
from imqueue.workload import choose

_ROW_IN, _GROUP_IN, _MARGIN_IN = 0.32, 0.42, 1.45
_CLOSE = 40.0  # on a scale of less than this many times, more ticks fit
_WORDS = (FASTER, SLOWER, SAME, UNSURE)


def ratios(verdicts: Verdicts, figure: str = "sum_hz", ax: Axes | None = None) -> Chart | Html:
    """A dot and its interval for each backend, group by group, with the verdict beside it.

    A sentence where no group has two. `figure`: sum_hz, p50_s or p99_s. The band is the margin inside which a
    difference is of no practical interest.
    """
    chosen = FIGURES[choose("figure", figure, FIGURES)]
    groups = {group: [each for each in rows if _shown(each, chosen)] for group, rows in verdicts.groups.items()}
    groups = {group: rows for group, rows in groups.items() if len(rows) > 1}
    if not groups:
        return paragraph(
            f"No group has two backends with this figure ({chosen.words}), so there is nothing to compare."
        )
    ax = axes(ax, _MARGIN_IN + sum(_GROUP_IN + _ROW_IN * len(rows) for rows in groups.values()))
    ax.axvspan(1 / (1 + MARGIN), 1 + MARGIN, color=PALE, alpha=0.7, linewidth=0)
    ax.axvline(1.0, color=GREY, linewidth=1)
    places: list[tuple[float, str]] = []
    y = 0.0
    for group, rows in groups.items():
        heading: dict[str, Any] = {"fontsize": 9.5, "color": GREY, "style": "italic", "va": "center"}
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 2}  # of the band and the line behind it
        name_group(ax, y, str(group), bbox=clear, **heading)
        for each in rows:
            y += 1
            _row(ax, y, each, chosen)
            places.append((y, each.row.label))
        y += _GROUP_IN / _ROW_IN
    _scale(ax, y, places, chosen)
    told = [each.verdicts[figure] for rows in groups.values() for each in rows if not each.is_reference]
    counts = ", ".join(f"{n} {word}" for word in _WORDS if (n := sum(found.word == word for found in told)))
    title = f"Against each group's reference, {chosen.words}: {counts}"
    alt = "; ".join(
        f"{each.row.name} ({group}): {_told(each, chosen)}" for group, rows in groups.items() for each in rows
    )
    return finish(ax, title, f"{alt}.", _caption(verdicts))


def _shown(each: Compared, figure: Figure) -> bool:
    return each.is_reference or figure.name in each.verdicts


def _told(each: Compared, figure: Figure) -> str:
    return "the reference" if each.is_reference else ratio(each.verdicts[figure.name])


def _row(ax: Axes, y: float, each: Compared, figure: Figure) -> None:
    words: dict[str, Any] = {"fontsize": 9.5, "color": INK, "va": "center"}
    beside: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", **words}
    tint, shape = colour(each.row.backend), marker(each.row.backend)
    if each.is_reference:
        ax.plot([1.0], [y], marker=shape, markersize=8, markeredgecolor=tint, markerfacecolor="white")
        ax.annotate("reference", (1 + MARGIN, y), **beside)
        return
    found = each.verdicts[figure.name]
    if found.ratio is None:
        ax.text(0.01, y, f"{found.word}: {found.why}", transform=ax.get_yaxis_transform(), **words)
        return
    low, high = (found.ratio if edge is None else edge for edge in (found.low, found.high))
    ax.plot([low, high], [y, y], color=tint, linewidth=2.5, solid_capstyle="butt")
    ax.plot([found.ratio], [y], marker=shape, markersize=8, color=tint)
    ax.annotate(f"{found.ratio:.3g}, {found.word}", (max(high, found.ratio), y), **beside)


def _scale(ax: Axes, y: float, places: list[tuple[float, str]], figure: Figure) -> None:
    ax.set_xscale("log")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=PALE, linewidth=0.7)
    name_rows(ax, places)
    ax.set_ylim(max(y, 1.0) - 0.3, -0.9)
    ax.tick_params(axis="y", length=0)
    left, right = ax.get_xlim()
    left, right = min(left / 1.1, 0.8), max(right, 1.25)
    ax.set_xlim(left, right * (right / left) ** 0.3)  # room for the last words
    plain_logarithmic(ax.xaxis)
    if ax.get_xlim()[1] / left < _CLOSE:
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    sides = ("slower", "faster") if figure.more_is_faster else ("faster", "slower")
    ax.set_xlabel(f"← {sides[0]}    {figure.words} ÷ that of the reference (log scale)    {sides[1]} →")


def _caption(verdicts: Verdicts) -> str:
    if not verdicts.repeated:
        needed = f"at least {verdicts.needed_n} of each side are needed"
        return f"One trial each: ratios without intervals, so nothing can be told; {needed}."
    return (
        f"Dot: ratio of the medians over trials; line: its 95 % interval; band: within {MARGIN:.0%}. Each group has "
        "a reference of its own, so ratios compare within a group only."
    )
