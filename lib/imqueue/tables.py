"""A comparison in words and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from imqueue import costs
from imqueue.grouping import FIGURES, Group, Row, Spread
from imqueue.inference import FASTER, SAME, SLOWER, UNSURE, Verdict
from imqueue.results import Result
from imqueue.words import SETTLES, Html, enumeration, grouped_table, promise, rounded, table

Groups = Mapping[Group, Sequence[Row]]
Page = Callable[[Row, str], str | None]
"""The relative address of the page of a row's trial of one shape."""
Judged = tuple[Row, Row, Mapping[str, Verdict]]
"""A row, the reference of its group, and a verdict by the name of the figure."""

LEGEND = (
    "With repeats: median over trials of each trial's own figure, of two middle ones the lower; in brackets the least "
    "and the greatest. Audit: “all there” is nothing lost, duplicated, corrupted or out of its promised order. "
    "Headings: “settles each”: a worker acks message by message; “removes on get”: what it takes is gone from the "
    "queue, also if it dies. Stamps: “invalid”: the harness failed, so there is no figure; “overload”: the backend "
    "fell behind, so latency has no figure; “client-bound”, “machine-bound”: a producer or worker, or the whole "
    "machine, was busy enough to be the limit."
)


def headline(groups: Groups, page: Page) -> Html:
    """`groups`: the trials that were measured; the controls among them are the ceiling."""
    rates = ["sum, messages/s", "of the ceiling", "flow, messages/s"]
    numbers = [*rates, "p50 from due, ms", "p99 from due, ms", "p99 from sent, ms"]
    measured = [result for rows in groups.values() for row in rows for result in row.results]
    cells = {_title(str(group)): [_cells(row, measured, page) for row in rows] for group, rows in groups.items()}
    return Html(grouped_table(["backend", *numbers, "audit", "stamps"], cells, numbers) + paragraph(LEGEND))


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


def _linked(address: str | None, text: str) -> str:
    return Html(f'<a href="{escape(address)}">{escape(text)}</a>') if address else text


def _cells(row: Row, measured: Sequence[Result], page: Page) -> list[str]:
    return [
        row.name,
        _linked(page(row, "sum"), _text(row.sum_hz)),
        costs.ceiling_text(costs.of_the_ceiling(row.results, measured)),
        _linked(page(row, "flow"), _text(row.flow_hz)),
        row.latency_text("p50_s"),
        row.latency_text("p99_s"),
        row.latency_text("p99_s", "sent"),
        row.audit,
        row.all_stamps,
    ]


def cost(groups: Groups) -> Html:
    rows = [(_title(str(group)), [(row.name, row.results) for row in same]) for group, same in groups.items()]
    return costs.of_rows(rows, "sum")


def promises(rows: Iterable[Row]) -> Html:
    lives = ["outlives a kill", "outlives power loss"]
    columns = ["backend", "durability", "delivery", "settles", *lives, "read from"]
    cells = []
    for row in sorted(rows, key=lambda row: row.name):
        told = (each.info["guarantees"] for each in row.results if each.info.get("guarantees"))
        held: dict[str, Any] = next(told, {})
        promised = [promise(held.get(name)) for name in ("survives_kill", "survives_power_loss")]
        declared = (row.group.durability, row.group.delivery, SETTLES[row.group.settles])
        cells.append((row.name, *declared, *promised, held.get("source")))
    return Html(table(columns, cells))


def troubles(troubled: Sequence[tuple[str, str, str, str]]) -> Html:
    """`troubled`: backend, shape, what is wrong, and the reason."""
    if not troubled:
        return paragraph("None: every trial ran to its end, passed its audit and bears no stamp.")
    return Html(table(["backend", "trial", "what", "why"], troubled))


def watched(trials: Sequence[tuple[str, str, str, str | None]]) -> Html:
    """`trials`: backend, shape, id, and the address of its page if it has one."""
    if not trials:
        return paragraph("No trial was watched. make report PROFILE=full has such a flow of each queue.")
    rows = [(backend, shape, _linked(page, id_)) for backend, shape, id_, page in trials]
    return Html(table(["backend", "trial", "its page"], rows))


def summary(about: Mapping[str, Any], results: Sequence[Result]) -> Html:
    """`about`: what ``report.json`` says of the report; {} where there is none."""
    return Html("".join(paragraph(sentence) for sentence in _sentences(about, results)) + _left_out(about))


def conclusion(results: Sequence[Result], tiers: Mapping[Group, list[list[Row]]] | None) -> Html:
    """`tiers`: by group, the fastest sums first; None where there are no repeats to rank by."""
    passed = sum(result.passed for result in results)
    lost = sum((result.info.get("audit") or {}).get("lost", 0) for result in results)
    sentences = [f"{passed} of {len(results)} trials passed; {lost:,} messages were lost."]
    if tiers is None:
        sentences.append(
            "Not every one ran more than once, so these are figures, not a ranking (make report PROFILE=full repeats)."
        )
    else:
        able = {group: places for group, places in tiers.items() if sum(map(len, places)) > 1}
        sentences += [_order(str(group), places) for group, places in able.items()]
        if not able:
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


def verdicts(groups: Mapping[Group, Sequence[Judged]], notes: Sequence[str]) -> Html:
    """A row a backend, and under the table how its words came about."""
    columns = ["backend", *(_column(name) for name in FIGURES)]
    cells = {_title(str(group)): [_compared(*each) for each in rows] for group, rows in groups.items()}
    return Html(grouped_table(columns, cells) + "".join(map(paragraph, notes)))


def _column(name: str) -> str:
    figure = FIGURES[name]
    return f"{figure.words} ÷ reference" + ("" if figure.more_is_faster else " (under 1 is faster)")


def _compared(row: Row, reference: Row, found: Mapping[str, Verdict]) -> list[str]:
    if row is reference:
        return [f"{row.name} (reference)", *(_own(row, name) for name in FIGURES)]
    cells = []
    for name, figure in FIGURES.items():
        left_out = row.invalid(figure) + reference.invalid(figure)
        words = _cell(found[name]) if name in found else "not tried"
        cells.append(words + (f"; {left_out} invalid left out" if left_out else ""))
    return [row.name, *cells]


def _cell(found: Verdict) -> str:
    """In a report without repeats the text below the table says once, and not each cell, how many are needed."""
    once = found.n == found.reference_n == 1 and found.ratio is not None
    return f"{found.word}: {found.ratio:.3g}, once each" if once else ratio(found)


def counted(groups: Mapping[Group, Sequence[Judged]]) -> Html:
    """How often each word fell, group by group, and on whom it says that they are faster or slower."""
    sentences = [_counted(str(group), rows) for group, rows in groups.items() if len(rows) > 1]
    return paragraph(" ".join(sentences) or "No group has two backends to compare.")


def _counted(group: str, rows: Sequence[Judged]) -> str:
    reference = rows[0][1]
    told = [(row.name, found.word) for row, _, verdicts in rows for found in verdicts.values()]
    parts = []
    for word in (FASTER, SLOWER):
        names = [name for name, each in told if each == word]
        whose = ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(names))
        parts += [f"{word} than {reference.name} in {len(names)} ({whose})"] if names else []
    for word in (SAME, UNSURE):
        n = sum(each == word for _, each in told)
        parts += [f"{word} in {n}"] if n else []
    return f"{_title(group)}, {len(told)} comparisons: {', '.join(parts) or 'nothing was tried'}."


def _own(row: Row, figure: str) -> str:
    if figure == "sum_hz":
        return f"{rounded(row.sum_hz.median)}/s" if row.sum_hz else "no figure"
    spread = row.latency_s(figure)
    return f"{rounded(spread.median * 1e3)} ms" if spread else "no figure"


def ratio(found: Verdict) -> str:
    """A verdict in words: faster: 1.23 (1.1 to 1.35), p (Holm) = 0.004, n = 8."""
    told = f": {found.why}" if found.why else ""
    if found.ratio is None:
        return found.word + told
    parts = [f"{found.ratio:.3g}"]
    if found.low is not None and found.high is not None:
        parts[0] += f" ({found.low:.3g} to {found.high:.3g})"
    if found.p is not None and not told:
        parts.append("p (Holm) < 0.0001" if found.p < 1e-4 else f"p (Holm) = {found.p:.2g}")
    parts.append(f"n = {found.n}" if found.n == found.reference_n else f"n = {found.n} against {found.reference_n}")
    unbroken = {" = ": "\u00a0=\u00a0", " < ": "\u00a0<\u00a0", "p (": "p\u00a0("}  # one line each
    for broken, kept in unbroken.items():
        parts = [part.replace(broken, kept) for part in parts]
    return f"{found.word}{told}; {', '.join(parts)}" if told else f"{found.word}: {', '.join(parts)}"


def paragraph(text: str) -> Html:
    return Html(f"<p>{escape(text)}</p>")


def _text(spread: Spread | None) -> str:
    return "no figure" if spread is None else spread.text()


def _sentences(about: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    names = sorted({result.backend for result in results if not result.info["declares"].get("control")})
    controls = sorted({result.backend for result in results if result.info["declares"].get("control")})
    sentences = []
    if about:
        sentences.append(f"Profile {about['profile']}, made {about['made_at']}: {about['what']}")
    beside = f"; as controls: {enumeration(controls)}" if controls else ""
    sentences.append(f"Compared: {enumeration(names) or 'nothing'}{beside}.")
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


def _left_out(about: Mapping[str, Any]) -> str:
    left_out = about.get("left_out", [])
    if not left_out:
        return "<p>Nothing was left out.</p>" if about else ""
    rows = [(each["backend"], each["reason"]) for each in left_out]
    return "<p>Left out:</p>" + table(["backend", "why, and what would bring it"], rows)
