"""Figures and promises in words, and tables as HTML: how a result speaks to people."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

SETTLES = {"each": "each", "batch": "a whole batch", "none": "removes on get"}
"""What one ack settles, by what a backend declares."""


class Html(str):
    """Markup that a notebook shows as such, and that stands in a table as it is; every other text is escaped."""

    def _repr_html_(self) -> str:
        return str(self)


def rounded(value: float | None) -> str:
    """Three figures that mean something, with thousands marked: 81,200."""
    if value is None:
        return "?"
    if abs(value) < 100:
        return f"{value:.3g}"
    digits = 3 - len(str(int(abs(value))))
    return f"{round(value, digits):,.0f}"


UNRESOLVED = "unresolved"
"""In place of a percentile that the messages behind it, or the buckets, cannot tell."""


def milliseconds(value_s: float | None) -> str:
    """Three figures in milliseconds; None is a percentile that is unresolved."""
    return UNRESOLVED if value_s is None else f"{rounded(value_s * 1e3)} ms"


def within(share: str, value_s: float | None, reason: str = "") -> str:
    """99 % within 3.2 ms, or 99 % unresolved (reason)."""
    if value_s is not None:
        return f"{share} within {milliseconds(value_s)}"
    return f"{share} {UNRESOLVED}" + (f" ({reason})" if reason else "")


def promise(value: bool | Mapping[str, float] | None) -> str:
    """A promise of `guarantees`, as ``trial.json`` keeps it."""
    if isinstance(value, Mapping):
        return f"all but the last {value['seconds_s']:g} s"
    return {True: "yes", False: "no", None: "nothing told"}[value]


def pairs(values: Mapping[str, object] | None) -> str:
    """Names and values on one line."""
    told = {name: "(empty)" if value == "" else value for name, value in (values or {}).items()}
    return ", ".join(f"{name} {value}" for name, value in told.items()) or "none"


def enumeration(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Collection[str] = ()) -> str:
    """An HTML table whose first column heads its rows; the columns in `numbers` are set flush right."""
    return grouped_table(columns, {"": rows}, numbers)


def grouped_table(
    columns: Sequence[str], groups: Mapping[str, Iterable[Sequence[object]]], numbers: Collection[str] = ()
) -> str:
    """The same with a heading over each group of rows ("": none)."""

    def cell(tag: str, column: str, value: object, scope: str = "") -> str:
        kind = ' class="number"' if column in numbers else ""
        text = value if isinstance(value, Html) else escape("" if value is None else str(value))
        return f"<{tag}{scope}{kind}>{text}</{tag}>"

    parts = []
    for title, rows in groups.items():
        heading = f'<tr><th class="group" scope="rowgroup" colspan="{len(columns)}">{escape(title)}</th></tr>'
        lines = [heading] if title else []
        for row in rows:
            first, *rest = zip(columns, row, strict=True)
            cells = cell("th", *first, ' scope="row"') + "".join(cell("td", *each) for each in rest)
            lines.append(f"<tr>{cells}</tr>")
        parts.append(f"<tbody>{''.join(lines)}</tbody>")
    head = "".join(cell("th", column, column, ' scope="col"') for column in columns)
    return f"<table><thead><tr>{head}</tr></thead>{''.join(parts)}</table>"
