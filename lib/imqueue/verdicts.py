"""Each backend against one reference of its own group: ratios with intervals, and one of four words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imqueue import tables
from imqueue.grouping import FIGURES, Figure, Group, Row
from imqueue.inference import (
    LEVEL,
    MARGIN,
    RESAMPLES,
    SEED,
    Pair,
    Verdict,
    judge,
    least_p,
    own_interval,
    repeats_needed,
)
from imqueue.loads import unlike
from imqueue.words import Html, enumeration
from imqueue.workload import BadInput, choose


class Compared(NamedTuple):
    """A backend beside the reference of its group, with a verdict for each figure."""

    row: Row
    reference: Row
    verdicts: Mapping[str, Verdict]  # by the name of the figure

    @property
    def is_reference(self) -> bool:
        return self.row is self.reference


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of a comparison: one family, over which Holm's correction runs."""

    groups: Mapping[Group, Sequence[Compared]]
    comparisons_n: int

    @property
    def rows(self) -> list[Compared]:
        return [each for compared in self.groups.values() for each in compared]

    @property
    def repeated(self) -> bool:
        """Whether any figure rests on more than one trial."""
        return any(min(found.n, found.reference_n) > 1 for each in self.rows for found in each.verdicts.values())

    @property
    def needed_n(self) -> int:
        """The fewest repeats of each backend with which any of the comparisons could be told different."""
        return repeats_needed(max(1, self.comparisons_n))

    @property
    def method(self) -> str:
        """How the words came about, in sentences."""
        if not self.comparisons_n:
            return "No two backends of one group have a figure in common that counts, so nothing is judged."
        if not self.repeated:
            return (
                "Each ran once, so of none can be told whether it differs (make report PROFILE=full repeats): "
                f"at least {self.needed_n} repeats of each are needed to judge {self.comparisons_n} of them."
            )
        return (
            "Ratio of the medians (median over trials of each trial's own figure; of two middle ones the lower, so "
            f"that nothing is averaged), in brackets its 95 % interval (percentile bootstrap, {RESAMPLES:,} resamples, "
            f"seed {SEED}). Tested first: indistinguishable, if the whole interval lies within {MARGIN:.0%} of 1. "
            f"Then faster or slower: the exact rank test stays at or below {LEVEL:g} after Holm's correction over all "
            f"{self.comparisons_n} comparisons shown (“p (Holm)” is the corrected one), and the interval leaves out 1. "
            f"Else: cannot tell. So many comparisons need at least {self.needed_n} repeats of each side. That is the "
            "floor of the test, under which it can call nothing different; to find a given difference may take many "
            "more. Invalid trials are left out, as the harness failed there; a backend with a failed trial, or an "
            "overloaded flow, gets no verdict, since the rest would flatter it. Other stamps are shown and count."
        )

    @property
    def references(self) -> str:
        """Which backend stands for 1 in which group, and by which rule."""
        return (
            "The reference of a group is the one that was asked for, else the first by name of those that miss the "
            "fewest figures. That rule looks at whether a backend has figures, and never at how good they are: the "
            "best would be a winner by luck in part, and flatter itself."
        )

    @property
    def conclusion(self) -> Html:
        """How often which verdict was given, group by group."""
        if not self.repeated:
            return tables.paragraph("Each ran once, so there are no verdicts to count.")
        return tables.counted(self.groups)

    def _repr_html_(self) -> Html:
        return tables.verdicts(self.groups, [self.method, self.references])


def verdicts(groups: Mapping[Group, Sequence[Row]], reference: str = "") -> Verdicts:
    """Of all groups of queues; what the harness reaches by itself is no queue to compare.

    `reference`: names with commas between them; a group takes the first of them that it has.

    Empty, or where a group has none of them: its first by name of those that miss the fewest figures. Raises
    `BadInput` for a name that no group has.
    """
    groups = _of_queues(groups)
    references = _references(groups, reference)
    asked = _asked(groups, references)
    pairs = [_pair(*each) for each in asked]
    found: dict[tuple[Group, str], dict[str, Verdict]] = {}  # by group and name of the row
    for (row, _, figure), verdict in zip(asked, judge(pairs), strict=True):
        found.setdefault((row.group, row.name), {})[figure.name] = verdict
    compared = {
        group: [Compared(row, references[group], found.get((group, row.name), {})) for row in rows]
        for group, rows in groups.items()
    }
    return Verdicts(compared, sum(pair.judged for pair in pairs))


def comparisons_n(groups: Mapping[Group, Sequence[Row]]) -> int:
    """How many comparisons `verdicts` would judge, with the references of its own choice."""
    groups = _of_queues(groups)
    return sum(_pair(*each).judged for each in _asked(groups, _references(groups, "")))


def _of_queues(groups: Mapping[Group, Sequence[Row]]) -> Mapping[Group, Sequence[Row]]:
    return {group: rows for group, rows in groups.items() if not group.control}


def _asked(groups: Mapping[Group, Sequence[Row]], references: Mapping[Group, Row]) -> list[tuple[Row, Row, Figure]]:
    return [
        (row, references[group], figure)
        for group, rows in groups.items()
        for row in rows
        if row is not references[group]
        for figure in FIGURES.values()
        if row.tried(figure.shape) or references[group].tried(figure.shape)
    ]


def _references(groups: Mapping[Group, Sequence[Row]], names: str) -> dict[Group, Row]:
    known = sorted({row.backend for rows in groups.values() for row in rows})
    wanted = [choose("reference", name.strip(), known) for name in names.split(",") if name.strip()]
    return {group: _reference(rows, wanted) for group, rows in groups.items()}


def _reference(rows: Sequence[Row], wanted: Sequence[str]) -> Row:
    asked = next((same for name in wanted if (same := [row for row in rows if row.backend == name])), rows)
    return min(asked, key=lambda row: (sum(not row.values(figure) for figure in FIGURES.values()), row.name))


def _pair(row: Row, reference: Row, figure: Figure) -> Pair:
    spoilt, other = row.spoilt(figure), reference.spoilt(figure)
    spoilt = "; ".join(filter(None, [spoilt, other and f"of the reference {other}"]))
    return Pair(row.values(figure), reference.values(figure), figure.more_is_faster, spoilt)


@dataclass(frozen=True)
class Ratio:
    """Two rows that somebody set side by side. `label`: what they promise unlike each other; "" within one group."""

    row: Row
    reference: Row
    figure: Figure
    verdict: Verdict
    label: str

    def __str__(self) -> str:
        found = self.verdict
        words = f"{self.row.name} / {self.reference.name}, {self.figure.words}: {tables.ratio(found)}"
        return f"{words} [{self.label}]" if self.label else words

    def _repr_html_(self) -> Html:
        return tables.paragraph(str(self))


def ratio(row: Row, reference: Row, figure: str = "sum_hz", *, across_groups: bool = False) -> Ratio:
    """One comparison of two rows, a family of its own.

    Rows that promise different things need `across_groups=True`, and the answer is labelled with both promises. Rows
    whose loads differ are never compared; servers may differ, also two of one backend, and then the rows' names tell.
    Raises `BadInput` for unlike loads and for an unknown figure.
    """
    chosen = FIGURES[choose("figure", figure, FIGURES)]
    shapes = [each for each in (*row.results, *reference.results) if each.shape == chosen.shape]
    if differing := unlike(shapes):
        raise BadInput(
            f"{row.name} and {reference.name} ran under unlike loads (they differ in {enumeration(differing)}); "
            "allowed: rows of the same load"
        )
    ours, theirs = (str(each.group._replace(load="")) for each in (row, reference))
    apart = ours != theirs
    if apart and not across_groups:
        raise BadInput(f"{ours!r} and {theirs!r} are promises of different worth; allowed: across_groups=True")
    label = f"across groups: {ours}, against {theirs}" if apart else ""
    (verdict,) = judge([_pair(row, reference, chosen)])
    return Ratio(row, reference, chosen, verdict, label)


def tiers(rows: Sequence[Row], figure: Figure, comparisons_n: int) -> list[list[Row]]:
    """The fastest first; a new tier begins only where all intervals before it lie clear of all that follow.

    Rows without a figure, with a spoilt one, or with too few repeats for a verdict have no place. Inside a tier the
    order is by name, as nothing else is known.
    """
    able = [row for row in rows if not row.spoilt(figure) and _enough(row, figure, comparisons_n)]
    spans = {row.name: own_interval(row.values(figure)) for row in able}
    if not figure.more_is_faster:
        spans = {name: (-high, -low) for name, (low, high) in spans.items()}
    found: list[list[Row]] = []
    least = float("inf")
    for row in sorted(able, key=lambda row: -spans[row.name][1]):
        low, high = spans[row.name]
        if high < least:
            found.append([])
        found[-1].append(row)
        least = min(least, low)
    return [sorted(tier, key=lambda row: row.name) for tier in found]


def _enough(row: Row, figure: Figure, comparisons_n: int) -> bool:
    n = len(row.values(figure))
    return n > 0 and least_p(n, n) * max(1, comparisons_n) <= LEVEL
