"""The price of durability: each backend's rate in each class that it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from imqueue.charts.canvas import GREY, INK, PALE, Chart, axes, colour, finish, plain_logarithmic
from imqueue.price import CLASSES, Price, Prices, heading
from imqueue.words import rounded

MARKERS = dict(zip(CLASSES, ("o", "s", "D"), strict=True))
"""The shape says the class, and filled is what the disk has before put returns."""

_ROW_IN, _MARGIN_IN = 0.34, 1.55
_HEADING, _GAP = 0.9, 0.35  # in rows


def durability(prices: Prices, ax: Axes | None = None) -> Chart:
    """Messages per second: a line for each backend, a marker for each class, the price of the dearest beside it."""
    ax = axes(ax, _MARGIN_IN + _ROW_IN * sum(len(each) + _HEADING + _GAP for each in prices.groups.values()))
    ax.set_xscale("log")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=PALE, linewidth=0.7)
    places, bottom = _place(prices, ax)
    for y, row in places:
        _line(ax, y, row, prices)
    ax.set_yticks([y for y, _ in places], [row[0].backend for _, row in places])
    ax.set_ylim(bottom, -0.7)
    ax.tick_params(axis="y", length=0)
    plain_logarithmic(ax.xaxis)
    left, right = ax.get_xlim()
    ax.set_xlim(left / 1.1, right * 3)  # room for the last label
    ax.set_xlabel("messages per second (log scale)")
    _legend(ax)
    return finish(ax, _title(prices), "; ".join(_told(prices)) + ".", _caption(prices))


def _place(prices: Prices, ax: Axes) -> tuple[list[tuple[float, list[Price]]], float]:
    """The height of each backend's line, under a heading for what is promised; and of the end."""
    words: dict[str, Any] = {"fontsize": 9.5, "color": GREY, "va": "center", "style": "italic"}
    places, y = [], 0.0
    for promises, backends in prices.groups.items():
        ax.text(0.0, y, heading(promises), transform=ax.get_yaxis_transform(), **words)
        y += _HEADING
        for row in backends.values():
            places.append((y, row))
            y += 1
        y += _GAP
    return places, y - _GAP


def _line(ax: Axes, y: float, row: list[Price], prices: Prices) -> None:
    tint = colour(row[0].backend)
    known = [(price, price.rate_hz) for price in row if price.rate_hz]
    if not known:
        ax.text(0.01, y, "no figure", transform=ax.get_yaxis_transform(), fontsize=9.5, color=GREY, va="center")
        return
    ax.plot([rate.median for _, rate in known], [y] * len(known), color=tint, linewidth=1.5, alpha=0.5)
    for price, rate in known:
        if rate.n > 1:
            ax.plot([rate.least, rate.greatest], [y, y], color=tint, linewidth=5, alpha=0.3)
        face = tint if price.durability == CLASSES[-1] else "white"
        style: dict[str, Any] = {"markersize": 8, "markeredgecolor": tint, "markeredgewidth": 1.8}
        ax.plot([rate.median], [y], marker=MARKERS[price.durability], markerfacecolor=face, **style)
    right = max(rate.greatest for _, rate in known)
    note = _note(row, prices)
    ax.annotate(note, (right, y), xytext=(10, 0), textcoords="offset points", va="center", fontsize=9.5, color=INK)


def _note(row: list[Price], prices: Prices) -> str:
    """The price of its most durable class."""
    ratio, base = prices.ratio(row[-1]), row[0]
    if ratio is None:
        return f"{base.durability} only" if len(row) == 1 else ""
    return f"{row[-1].durability} {rounded(ratio.median)} of {base.durability}"


def _legend(ax: Axes) -> None:
    entries = [
        Line2D([], [], linestyle="", marker=each, markersize=8, color=GREY, markeredgewidth=1.8, label=name)
        for name, each in MARKERS.items()
    ]
    for entry in entries[:-1]:
        entry.set_markerfacecolor("white")
    ax.figure.legend(handles=entries, loc="outside lower left", ncols=3, frameon=False, fontsize=10)


def _told(prices: Prices) -> Iterator[str]:
    for backends in prices.groups.values():
        for name, row in backends.items():
            figures = [f"{price.durability} {price.rate_hz.text()}" for price in row if price.rate_hz]
            yield f"{name}: {', '.join(figures)} messages/s" if figures else f"{name}: no figure"


def _title(prices: Prices) -> str:
    kept = [
        ratio.median for price in prices.prices if price.durability == CLASSES[-1] and (ratio := prices.ratio(price))
    ]
    if not kept:
        return "No backend here has figures in two classes"
    span = rounded(kept[0]) if len(kept) == 1 else f"{rounded(min(kept))} to {rounded(max(kept))}"
    return f"Flushed ran at {span} of each backend's own least durable rate"


def _caption(prices: Prices) -> str:
    repeated = any(price.rate_hz and price.rate_hz.n > 1 for price in prices.prices)
    dots = "Markers are medians, bars go from the least to the greatest of the repeats. " if repeated else ""
    return (
        f"{dots}Read along a line: a backend against itself. Lines under different headings promise different things."
    )
