"""Like with like: which trials may be compared, and the figures of one backend's repeats."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import NamedTuple

from imqueue.loads import apart, load, unlike
from imqueue.results import Result
from imqueue.words import SETTLES, UNRESOLVED, pairs, rounded

LABEL_COLUMNS = 34
FOUND = ("lost", "duplicated", "unexpected", "corrupted", "recovered", "reordered", "undelivered")


class Group(NamedTuple):
    """What trials must have in common before anybody compares their figures.

    `load`: what its workload has unlike other trials of the comparison, in words; "" where all are alike. `control`:
    no queue to choose, it shows what the harness costs.
    """

    delivery: str
    durability: str
    settles: str
    load: str = ""
    control: bool = False

    def __str__(self) -> str:
        if self.control:
            parts = "the harness alone: no queue, and not ranked with queues", self.load
            return ", ".join(filter(None, parts))
        unit = SETTLES[self.settles] if self.settles == "none" else f"settles {SETTLES[self.settles]}"
        return ", ".join(part for part in (self.delivery, self.durability, unit, self.load) if part)


class Figure(NamedTuple):
    """What is compared. `percentile`: of the latency from due; "": the rate."""

    name: str
    words: str
    shape: str
    percentile: str = ""

    @property
    def more_is_faster(self) -> bool:
        return not self.percentile


FIGURES = {
    "sum_hz": Figure("sum_hz", "rate of the sum", "sum"),
    "p50_s": Figure("p50_s", "p50 from due", "flow", "p50_s"),
    "p99_s": Figure("p99_s", "p99 from due", "flow", "p99_s"),
}


class Spread(NamedTuple):
    """One figure over the repeats of a trial.

    `median`: the lower of the middle two where there are two, so that it is a figure that some trial had: percentiles
    are not averaged.
    """

    median: float
    least: float
    greatest: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        known = [value for value in values if value is not None]
        return cls(median_low(known), min(known), max(known), len(known)) if known else None

    def text(self, scale: float = 1.0) -> str:
        words = rounded(self.median * scale)
        if self.n > 1:
            words += f" ({rounded(self.least * scale)} to {rounded(self.greatest * scale)})"
        return words


@dataclass(frozen=True)
class Row:
    """All trials of one backend in one group. `under`: what its server had unlike that of its other rows; else ""."""

    backend: str
    group: Group
    results: tuple[Result, ...]
    under: str = ""

    @property
    def name(self) -> str:
        """Tells it from every other row of its group."""
        return f"{self.backend} ({self.under})" if self.under else self.backend

    @property
    def label(self) -> str:
        """The same beside a chart, where room is short."""
        return "\n".join(filter(None, [self.backend, *textwrap.wrap(self.under, LABEL_COLUMNS, max_lines=2)]))

    def tried(self, shape: str) -> bool:
        """Whether it has a trial of that shape, whatever came out."""
        return any(each.shape == shape for each in self.results)

    @property
    def sum_hz(self) -> Spread | None:
        """Messages per second of the sums that passed."""
        return self._rate_hz("sum")

    @property
    def flow_hz(self) -> Spread | None:
        return self._rate_hz("flow")

    def _rate_hz(self, shape: str) -> Spread | None:
        return Spread.of(each.rate_hz for each in self.results if each.shape == shape and each.passed)

    def latency_s(self, percentile: str, kind: str = "due") -> Spread | None:
        """From due or from sent, of the flows that passed and kept up; e.g. `p99_s`."""
        flows = [each for each in self.results if each.shape == "flow" and each.kept_up]
        return Spread.of(each.info["latency"][kind][percentile] for each in flows)

    def hidden_s(self, percentile: str) -> float | None:
        """What a load that waits for its backend hides: in one of those flows, the most that from sent fell short."""
        told = [each.info["latency"] for each in self.results if each.shape == "flow" and each.kept_up]
        known = [(kinds["due"][percentile], kinds["sent"][percentile]) for kinds in told]
        return max((due - sent for due, sent in known if due is not None and sent is not None), default=None)

    def latency_text(self, percentile: str, kind: str = "due") -> str:
        """The same in milliseconds; "unresolved" where flows kept up but their messages do not tell it."""
        if spread := self.latency_s(percentile, kind):
            return spread.text(1e3)
        return UNRESOLVED if any(each.shape == "flow" and each.kept_up for each in self.results) else "no figure"

    def values(self, figure: Figure) -> tuple[float, ...]:
        """One for each trial whose figure counts: it passed, and a flow kept up."""
        trials = [each for each in self.results if each.shape == figure.shape]
        if figure.percentile:
            found = [each.info["latency"]["due"][figure.percentile] for each in trials if each.kept_up]
        else:
            found = [each.rate_hz for each in trials if each.passed]
        return tuple(value for value in found if value)

    def spoilt(self, figure: Figure) -> str:
        """Why its repeats allow no verdict: without those that failed or fell behind the rest would flatter it.

        An invalid trial is merely left out, as there the harness failed and not the backend.
        """
        trials = [each for each in self.results if each.shape == figure.shape and "invalid" not in _stamps(each)]
        failed = sum(not each.passed for each in trials)
        behind = sum(each.passed and not each.kept_up for each in trials) if figure.percentile else 0
        words = [f"{failed} of {len(trials)} failed"] if failed else []
        words += [f"{behind} of {len(trials)} overloaded"] if behind else []
        return ", ".join(words)

    def invalid(self, figure: Figure) -> int:
        """How many of its trials are left out, as the harness failed."""
        return sum(each.shape == figure.shape and "invalid" in _stamps(each) for each in self.results)

    @property
    def audit(self) -> str:
        """What the audits found, over all trials of the row."""
        return audited(self.results)

    def stamps(self, shape: str) -> str:
        """The stamps of its trials of one shape."""
        return ", ".join(sorted(set().union(*(_stamps(each) for each in self.results if each.shape == shape))))

    @property
    def all_stamps(self) -> str:
        told = [f"{shape}: {stamps}" for shape in ("sum", "flow") if (stamps := self.stamps(shape))]
        return "; ".join(told)


def _stamps(result: Result) -> set[str]:
    return {each["stamp"] for each in result.stamps}


def audited(results: Iterable[Result]) -> str:
    """What the audits of `results` found, in words."""
    results = list(results)
    audits = [result.info["audit"] for result in results if result.info.get("audit")]
    found = {name: sum(audit.get(name) or 0 for audit in audits) for name in FOUND}
    words = [f"{n:,} {name}" for name, n in found.items() if n]
    failed = len(results) - len(audits)
    words += [f"{failed} without an audit"] if failed else []
    return ", ".join(words) or "all\u00a0there"


def grouped(results: Sequence[Result]) -> dict[Group, list[Row]]:
    """Rows by group, both in order of their names."""
    differing = unlike(results)
    found: dict[tuple[Group, str], list[Result]] = {}
    for result in results:
        declares, its_load = result.info["declares"], load(result)
        words = {name: its_load[name] for name in differing if name in its_load}
        promised = (declares["delivery"], result.info["durability"], declares["settles"])
        group = Group(*promised, pairs(words) if words else "", bool(declares.get("control")))
        found.setdefault((group, result.backend), []).append(result)
    groups: dict[Group, list[Row]] = {}
    for (group, backend), same in sorted(found.items(), key=lambda each: (each[0][0].control, each[0])):
        rows: dict[str, list[Result]] = {}
        for result, under in zip(same, apart(same), strict=True):
            rows.setdefault(under, []).append(result)
        groups.setdefault(group, []).extend(Row(backend, group, tuple(rows[under]), under) for under in sorted(rows))
    return groups
