"""A sweep's index page: every point with its status, its figures and links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from imqueue.words import Html, milliseconds, rounded, table

if TYPE_CHECKING:
    from imqueue.sweep.plan import Point

_STYLE = """
body { margin: 0 auto; max-width: 1400px; padding: 24px; background: #fff; color: #222;
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.8em; line-height: 1.2; } p { max-width: 44em; } a { color: #00508c; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93em; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 4px 10px; border-bottom: 1px solid #e2e2e2; }
th { font-weight: 600; } td.number, th.number { text-align: right; white-space: nowrap; }
.failed { color: #b00020; font-weight: 600; } .waiting { color: #666; }
"""
_NUMBERS = ("settled/s", "p50 from due", "p99 from due", "p99 from sent", "lost", "took, s")


def index(about: Mapping[str, Any], points: Sequence[Point], rows: Mapping[str, dict[str, Any]]) -> str:
    """The whole page, which asks the network for nothing."""
    varied = list(points[0].varied)
    columns = ["#", *varied, "repeat", "status", "links", *_NUMBERS, "stamps", "error"]
    lines = [_line(place, point, rows.get(point.key)) for place, point in enumerate(points, 1)]
    states = Counter(rows[each.key]["state"] if each.key in rows else "waiting" for each in points)
    told = ", ".join(f"{n:,} {state}" for state, n in states.items())
    explained = f"{len(points):,} points of {about['notebook']}: {told}. In random order (seed {about['seed']})."
    numbers = {"#", "repeat", *_NUMBERS, *(each for each in varied if _is_number(points[0].parameters[each]))}
    title = escape(f"Sweep {about['name']}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><main><h1>{title}</h1><p>{escape(explained)}</p>"
        f'<div class="wide">{table(columns, lines, numbers)}</div></main></body></html>\n'
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _line(place: int, point: Point, row: Mapping[str, Any] | None) -> list[object]:
    head = [place, *(_shown(point.parameters[name]) for name in point.varied), point.repeat]
    if row is None:
        return [*head, Html('<span class="waiting">waiting</span>'), *[""] * (len(_NUMBERS) + 3)]
    state = Html(f'<span class="failed">{row["state"]}</span>') if row["state"] == "failed" else row["state"]
    figures: list[object] = [""] * (len(_NUMBERS) - 1)
    if row.get("settled_hz") is not None:
        latencies = (row.get(f"{each}_s") for each in ("due_p50", "due_p99", "sent_p99"))
        figures = [rounded(row["settled_hz"]), *(milliseconds(each) for each in latencies), row.get("lost")]
    links = [f'<a href="{escape(row[each])}">{words}</a>' for each, words in _LINKS.items() if row.get(each)]
    took = f"{row['wall_s']:.1f}"
    return [*head, state, Html("<br>".join(links)), *figures, took, row.get("stamps"), row.get("error")]


_LINKS = {"page": "page", "notebook": "notebook"}


def _shown(value: object) -> str:
    return f"{value:,g}" if isinstance(value, float) else f"{value:,}" if _is_number(value) else str(value)
