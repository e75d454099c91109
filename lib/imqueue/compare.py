"""Trials side by side. Only trials that promise the same (delivery, durability, unit of settling) share a group."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from imqueue import settings
from imqueue.results import Result
from imqueue.words import SETTLES, Html, enumeration, grouped_table, promise, rounded, table
from imqueue.workload import BadInput

REPORT = "report.json"
_FOUND = ("lost", "duplicated", "unexpected", "corrupted", "recovered", "reordered", "undelivered")


class Group(NamedTuple):
    """What trials must have in common before anybody compares their figures."""

    delivery: str
    durability: str
    settles: str

    def __str__(self) -> str:
        unit = SETTLES[self.settles] if self.settles == "none" else f"settles {SETTLES[self.settles]}"
        return f"{self.delivery}, {self.durability}, {unit}"


class Spread(NamedTuple):
    """One figure over the repeats of a trial."""

    median: float
    least: float
    greatest: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        known = [value for value in values if value is not None]
        return cls(median(known), min(known), max(known), len(known)) if known else None

    def text(self, scale: float = 1.0) -> str:
        words = rounded(self.median * scale)
        if self.n > 1:
            words += f" ({rounded(self.least * scale)} to {rounded(self.greatest * scale)})"
        return words


@dataclass(frozen=True)
class Row:
    """All trials of one backend in one group."""

    backend: str
    group: Group
    results: tuple[Result, ...]

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

    @property
    def audit(self) -> str:
        """What the audits found, over all trials of the row."""
        audits = [result.info["audit"] for result in self.results if result.info.get("audit")]
        failed = len(self.results) - len(audits)
        found = {name: sum(audit.get(name) or 0 for audit in audits) for name in _FOUND}
        words = [f"{n:,} {name}" for name, n in found.items() if n]
        words += [f"{failed} without an audit"] if failed else []
        return ", ".join(words) or "all there"

    def stamps(self, shape: str) -> str:
        """The stamps of its trials of one shape."""
        stamped = [result for result in self.results if result.shape == shape]
        return ", ".join(sorted({each["stamp"] for result in stamped for each in result.stamps}))

    @property
    def all_stamps(self) -> str:
        told = [f"{shape}: {stamps}" for shape in ("sum", "flow") if (stamps := self.stamps(shape))]
        return "; ".join(told)


@dataclass(frozen=True)
class Comparison:
    """The trials of a report, and what the report says of itself (`about`: empty for a bare list of trials)."""

    results: Sequence[Result]
    about: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def groups(self) -> dict[Group, list[Row]]:
        """Rows by group: in order of the median sum where there are repeats, else by name. Both orders are stable."""
        found: dict[tuple[Group, str], list[Result]] = {}
        for result in self.results:
            declares = result.info["declares"]
            group = Group(declares["delivery"], result.info["durability"], declares["settles"])
            found.setdefault((group, result.backend), []).append(result)
        grouped: dict[Group, list[Row]] = {}
        for (group, backend), results in sorted(found.items()):
            grouped.setdefault(group, []).append(Row(backend, group, tuple(results)))
        if self.ranked:
            for rows in grouped.values():
                rows.sort(key=lambda row: -(row.sum_hz.median if row.sum_hz else 0.0))
        return grouped

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.groups.values() for row in rows]

    @cached_property
    def ranked(self) -> bool:
        """Whether each backend has repeats; single trials give figures, not a ranking."""
        tried = [(each.backend, each.info["durability"], each.shape) for each in self.results]
        return bool(tried) and min(tried.count(each) for each in tried) > 1

    @property
    def troubled(self) -> list[tuple[str, str, str, str]]:
        """Backend, shape, what is wrong, and the reason, of each trial that failed or bears a stamp."""
        found = []
        for result in self.results:
            if result.info["state"] != "done":
                found.append((result.backend, result.shape, result.info["state"], result.info.get("error") or ""))
            elif not result.passed and result.info["audit"] and not result.info["audit"]["passed"]:
                found.append((result.backend, result.shape, "failed its audit", Row("", _NONE, (result,)).audit))
            found += [(result.backend, result.shape, each["stamp"], each["reason"]) for each in result.stamps]
        for step in self.about.get("steps", []):
            if step.get("error") and not step.get("trial"):
                found.append((step["backend"], step["notebook"], "no trial", step["error"]))
        return found

    def page(self, backend: str, durability: str, shape: str) -> str | None:
        """The relative address of a trial's page; of the first repeat where there are several."""
        for step in self.about.get("steps", []):
            if (step["backend"], step["durability"], step["shape"]) == (backend, durability, shape):
                return str(step["page"])
        return None

    def _linked(self, row: Row, shape: str, text: str) -> str:
        address = self.page(row.backend, row.group.durability, shape)
        return Html(f'<a href="{escape(address)}">{escape(text)}</a>') if address else text

    @property
    def headline(self) -> Html:
        """The figures, under a heading for each group: what promises different things is never ranked together."""
        numbers = ["sum, messages/s", "flow, messages/s", "p50 from due, ms", "p99 from due, ms"]
        groups = {str(group).capitalize(): [self._cells(row) for row in rows] for group, rows in self.groups.items()}
        return Html(grouped_table(["backend", *numbers, "messages", "stamps"], groups, numbers))

    def _cells(self, row: Row) -> list[str]:
        return [
            row.backend,
            self._linked(row, "sum", _text(row.sum_hz)),
            self._linked(row, "flow", _text(row.flow_hz)),
            _text(row.latency_s("p50_s"), 1e3),
            _text(row.latency_s("p99_s"), 1e3),
            row.audit,
            row.all_stamps,
        ]

    @property
    def promises(self) -> Html:
        """What each backend promised in these trials, as read from its live server."""
        lives = ["outlives a kill", "outlives power loss"]
        columns = ["backend", "durability", "delivery", "settles", *lives, "read from"]
        rows = []
        for row in sorted(self.rows, key=lambda row: row.backend):
            held: dict[str, Any] = next(
                (each.info["guarantees"] for each in row.results if each.info.get("guarantees")), {}
            )
            promised = [promise(held.get(name)) for name in ("survives_kill", "survives_power_loss")]
            declared = (row.group.durability, row.group.delivery, SETTLES[row.group.settles])
            rows.append((row.backend, *declared, *promised, held.get("source")))
        return Html(table(columns, rows))

    @property
    def troubles(self) -> Html:
        """The trials that failed or are stamped, with reasons; a sentence where there is none."""
        if not self.troubled:
            return Html("<p>None: every trial ran to its end, passed its audit and bears no stamp.</p>")
        return Html(table(["backend", "trial", "what", "why"], self.troubled))

    @property
    def summary(self) -> Html:
        """What was compared, on which machine, what was left out, what failed."""
        return Html("".join(f"<p>{escape(sentence)}</p>" for sentence in _sentences(self)) + _left_out(self))

    @property
    def conclusion(self) -> Html:
        """What these trials show, from computed values; an order only where there are repeats."""
        trials = f"{len(self.results)} trials"
        passed = sum(result.passed for result in self.results)
        lost = sum((result.info.get("audit") or {}).get("lost", 0) for result in self.results)
        sentences = [f"{passed} of {trials} passed; {lost:,} messages were lost."]
        if not self.ranked:
            sentences.append("Each ran once, so these are figures, not a ranking (make report PROFILE=full repeats).")
        for group, rows in self.groups.items() if self.ranked else ():
            order = [f"{row.backend} {row.sum_hz.text()}/s" for row in rows if row.sum_hz]
            if len(order) > 1:
                sentences.append(f"{str(group).capitalize()}, by the median sum: {', '.join(order)}.")
        return Html(f"<p>{escape(' '.join(sentences))}</p>")


_NONE = Group("", "", "none")


def _text(spread: Spread | None, scale: float = 1.0) -> str:
    return "no figure" if spread is None else spread.text(scale)


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


def read(trials: str | Path = "") -> Comparison:
    """The trials of a report's folder, or of a file that lists trials' folders, one a line.

    Empty: the newest report, else every trial in the data folder. Raises `BadInput` where there is nothing to read.
    """
    path = Path(trials) if str(trials) else settings.data_dir() / "report"
    if not str(trials) and not (path / REPORT).is_file():
        folders = sorted(each.parent for each in (settings.data_dir() / "trials").glob("*/trial.json"))
        if not folders:
            raise BadInput("no trial to compare yet; make report runs some")
        return Comparison([Result(folder) for folder in folders])
    if path.is_dir() and (path / REPORT).is_file():
        about = json.loads((path / REPORT).read_text())
        folders = [path / about["trials"] / step["trial"] for step in about["steps"] if step["trial"]]
        return Comparison([Result(folder) for folder in folders], about)
    if path.is_file():
        lines = [line.strip() for line in path.read_text().splitlines()]
        return Comparison([Result(path.parent / line) for line in lines if line])
    raise BadInput(f"no trials in {str(trials)!r}; allowed: a report's folder, or a file that lists trials' folders")
