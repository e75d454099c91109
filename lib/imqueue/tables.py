"""A comparison in words and tables."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from imqueue import costs
from imqueue.grouping import FIGURES, Row, Spread
from imqueue.words import SETTLES, Html, enumeration, grouped_table, promise, rounded, table

if TYPE_CHECKING:
    from imqueue.compare import Comparison
    from imqueue.inference import Verdict
    from imqueue.verdicts import Compared, Verdicts


def headline(comparison: Comparison) -> Html:
    numbers = ["sum, messages/s", "of the ceiling", "flow, messages/s", "p50 from due, ms", "p99 from due, ms"]
    groups = {
        _title(str(group)): [_cells(comparison, row) for row in rows] for group, rows in comparison.groups.items()
    }
    return Html(grouped_table(["backend", *numbers, "messages", "stamps"], groups, numbers))


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


def _linked(comparison: Comparison, row: Row, shape: str, text: str) -> str:
    address = comparison.page(row, shape)
    return Html(f'<a href="{escape(address)}">{escape(text)}</a>') if address else text


def _cells(comparison: Comparison, row: Row) -> list[str]:
    return [
        row.name,
        _linked(comparison, row, "sum", _text(row.sum_hz)),
        costs.ceiling_text(costs.of_the_ceiling(row.results, comparison.results)),
        _linked(comparison, row, "flow", _text(row.flow_hz)),
        row.latency_text("p50_s"),
        row.latency_text("p99_s"),
        row.audit,
        row.all_stamps,
    ]


def cost(comparison: Comparison) -> Html:
    rows = comparison.groups.items()
    groups = [(_title(str(group)), [(row.name, row.results) for row in same]) for group, same in rows]
    return costs.of_rows(groups, "sum")


def promises(comparison: Comparison) -> Html:
    lives = ["outlives a kill", "outlives power loss"]
    columns = ["backend", "durability", "delivery", "settles", *lives, "read from"]
    rows = []
    for row in sorted(comparison.rows, key=lambda row: row.name):
        told = (each.info["guarantees"] for each in row.results if each.info.get("guarantees"))
        held: dict[str, Any] = next(told, {})
        promised = [promise(held.get(name)) for name in ("survives_kill", "survives_power_loss")]
        declared = (row.group.durability, row.group.delivery, SETTLES[row.group.settles])
        rows.append((row.name, *declared, *promised, held.get("source")))
    return Html(table(columns, rows))


def troubles(comparison: Comparison) -> Html:
    if not comparison.troubled:
        return paragraph("None: every trial ran to its end, passed its audit and bears no stamp.")
    return Html(table(["backend", "trial", "what", "why"], comparison.troubled))


def summary(comparison: Comparison) -> Html:
    return Html("".join(paragraph(sentence) for sentence in _sentences(comparison)) + _left_out(comparison))


def conclusion(comparison: Comparison) -> Html:
    results = comparison.results
    passed = sum(result.passed for result in results)
    lost = sum((result.info.get("audit") or {}).get("lost", 0) for result in results)
    sentences = [f"{passed} of {len(results)} trials passed; {lost:,} messages were lost."]
    if not comparison.repeated:
        sentences.append("Each ran once, so these are figures, not a ranking (make report PROFILE=full repeats).")
    else:
        able = {group: tiers for group, tiers in comparison.tiers.items() if sum(map(len, tiers)) > 1}
        sentences += [_order(str(group), tiers) for group, tiers in able.items()]
        if len(sentences) == 1:
            sentences.append("No group has two backends with repeats enough to rank them.")
    return paragraph(" ".join(sentences))


def _order(group: str, tiers: list[list[Row]]) -> str:
    """The order of the sums in one group, as far as intervals separate them."""
    named = [[f"{row.name} {_own(row, 'sum_hz')}" for row in tier] for tier in tiers]
    if len(named) == 1:
        return f"{_title(group)}: the intervals of {enumeration(named[0])} do not separate, so none is ranked."
    places = [f"{place}. {enumeration(tier)}" for place, tier in zip(_places(tiers), named, strict=True)]
    return f"{_title(group)}, by the sum, ranked where intervals separate: {'; '.join(places)}."


def _places(tiers: list[list[Row]]) -> list[int]:
    return [1 + sum(len(before) for before in tiers[:index]) for index in range(len(tiers))]


def verdicts(found: Verdicts) -> Html:
    """The table of verdicts, a row a backend, and how its words came about."""
    columns = ["backend", *(f"{figure.words} ÷ reference" for figure in FIGURES.values())]
    groups = {_title(str(group)): [_compared(each) for each in rows] for group, rows in found.groups.items()}
    parts = [grouped_table(columns, groups), paragraph(found.method), paragraph(found.references)]
    return Html("".join(parts))


def _compared(each: Compared) -> list[str]:
    if each.is_reference:
        return [f"{each.row.name} (reference)", *(_own(each.row, name) for name in FIGURES)]
    cells = []
    for name, figure in FIGURES.items():
        left_out = each.row.invalid(figure) + each.reference.invalid(figure)
        words = ratio(each.verdicts[name]) if name in each.verdicts else "not tried"
        cells.append(words + (f"; {left_out} invalid left out" if left_out else ""))
    return [each.row.name, *cells]


def _own(row: Row, figure: str) -> str:
    if figure == "sum_hz":
        return f"{rounded(row.sum_hz.median)}/s" if row.sum_hz else "no figure"
    spread = row.latency_s(figure)
    return f"{rounded(spread.median * 1e3)} ms" if spread else "no figure"


def ratio(found: Verdict) -> str:
    """A verdict in words: faster: 1.23 (1.1 to 1.35), p = 0.004, n = 8."""
    told = f": {found.why}" if found.why else ""
    if found.ratio is None:
        return found.word + told
    parts = [f"{found.ratio:.3g}"]
    if found.low is not None and found.high is not None:
        parts[0] += f" ({found.low:.3g} to {found.high:.3g})"
    if found.p is not None and not told:
        parts.append("p < 0.0001" if found.p < 1e-4 else f"p = {found.p:.2g}")
    parts.append(f"n = {found.n}" if found.n == found.reference_n else f"n = {found.n} against {found.reference_n}")
    whole = [part.replace(" = ", "\u00a0=\u00a0").replace(" < ", "\u00a0<\u00a0") for part in parts]  # one line each
    return f"{found.word}{told}; {', '.join(whole)}" if told else f"{found.word}: {', '.join(whole)}"


def paragraph(text: str) -> Html:
    return Html(f"<p>{escape(text)}</p>")


def _text(spread: Spread | None) -> str:
    return "no figure" if spread is None else spread.text()


def _sentences(comparison: Comparison) -> list[str]:
    about, results = comparison.about, comparison.results
    names = sorted({result.backend for result in results})
    sentences = []
    if about:
        sentences.append(f"Profile {about['profile']}, made {about['made_at']}: {about['what']}")
    sentences.append(f"Compared: {enumeration(names) or 'nothing'}.")
    if results:
        info = results[-1].info
        machine, versions = info.get("machine") or {}, info.get("versions") or {}
        python = f"Python {versions.get('python')}"
        memory_gib = machine.get("memory_bytes", 0) / 2**30
        servers = sorted({(each.info.get("versions") or {}).get("server") or "" for each in results} - {""})
        sentences.append(
            f"Machine: {machine.get('cpu')}, {machine.get('cores')} cores, {memory_gib:.0f} GiB memory, "
            f"{machine.get('system')}; {', '.join([python, *servers])}. "
            "Producers, workers, servers and Prometheus share it."
        )
    return sentences


def _left_out(comparison: Comparison) -> str:
    left_out = comparison.about.get("left_out", [])
    if not left_out:
        return "<p>Nothing was left out.</p>" if comparison.about else ""
    rows = [(each["backend"], each["reason"]) for each in left_out]
    return "<p>Left out:</p>" + table(["backend", "why, and what would bring it"], rows)
