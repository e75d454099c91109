"""Trials side by side. Only trials that promise the same (delivery, durability, unit of settling) share a group."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from imqueue import settings, tables, verdicts
from imqueue.grouping import FIGURES, Group, Row, Spread, audited, grouped
from imqueue.results import Result
from imqueue.verdicts import Ratio, Verdicts, ratio
from imqueue.words import Html
from imqueue.workload import BadInput, choose

__all__ = ["REPORT", "Comparison", "Group", "Ratio", "Row", "Spread", "Verdicts", "ratio", "read"]

REPORT = "report.json"


@dataclass(frozen=True)
class Comparison:
    """The trials of a report, and what the report says of itself (`about`: empty for a bare list of trials).

    A watched trial is named in `watched`, and its figures stand nowhere.
    """

    results: Sequence[Result]
    about: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def groups(self) -> dict[Group, list[Row]]:
        """Rows by group: by name, and where intervals separate the sums, the faster tier first."""
        groups = grouped([result for result in self.results if not result.watched])
        ranked = {group: [row for tier in tiers for row in tier] for group, tiers in self._tiers(groups).items()}
        return {
            group: ranked[group] + [row for row in rows if row not in ranked[group]] for group, rows in groups.items()
        }

    @property
    def tiers(self) -> dict[Group, list[list[Row]]]:
        """By group, the tiers of the sums' rates that intervals separate, the fastest first; see `verdicts.tiers`."""
        return self._tiers(self.groups)

    def _tiers(self, groups: dict[Group, list[Row]]) -> dict[Group, list[list[Row]]]:
        n = verdicts.comparisons_n(groups)
        return {
            group: [] if group.control else verdicts.tiers(rows, FIGURES["sum_hz"], n) for group, rows in groups.items()
        }

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.groups.values() for row in rows]

    def row(self, backend: str, durability: str = "", under: str = "") -> Row:
        """The row of a backend. Raises `BadInput` unless there is one.

        `durability`: where it ran in several classes. `under`: where its servers differed, part of what the row says.
        """
        choose("backend", backend, sorted({row.backend for row in self.rows}))
        same = [row for row in self.rows if row.backend == backend]
        found = [row for row in same if durability in ("", row.group.durability) and under in row.under]
        if len(found) == 1:
            return found[0]
        allowed = "; ".join(", ".join(filter(None, [str(row.group), row.under])) for row in same)
        raise BadInput(
            f"{backend!r} in class {durability!r} under {under!r} is {len(found)} rows; allowed: what tells one of "
            f"these from the others: {allowed}"
        )

    @property
    def repeated(self) -> bool:
        """Whether each backend has repeats; single trials give figures, not a ranking."""
        tried = [(row.group, row.name, each.shape) for row in self.rows for each in row.results]
        return bool(tried) and min(tried.count(each) for each in tried) > 1

    def verdicts(self, reference: str = "") -> Verdicts:
        """Each backend against the reference of its own group; see `verdicts.verdicts`."""
        return verdicts.verdicts(self.groups, reference)

    @property
    def troubled(self) -> list[tuple[str, str, str, str]]:
        """Backend, shape, what is wrong, and the reason, of each trial that failed or bears a stamp."""
        found = []
        for result in self.results:
            if result.info["state"] != "done":
                found.append((result.backend, result.shape, result.info["state"], result.info.get("error") or ""))
            elif not result.passed and result.info["audit"] and not result.info["audit"]["passed"]:
                found.append((result.backend, result.shape, "failed its audit", audited([result])))
            told = [each for each in result.stamps if each["stamp"] != "watched"]  # it was asked for
            found += [(result.backend, result.shape, each["stamp"], each["reason"]) for each in told]
        for step in self.about.get("steps", []):
            if step.get("error") and not step.get("trial"):
                found.append((step["backend"], step["notebook"], "no trial", step["error"]))
        return found

    def page(self, row: Row, shape: str) -> str | None:
        """The relative address of a trial's page; of the first repeat where there are several."""
        return self._page({result.id for result in row.results if result.shape == shape})

    def _page(self, trials: Collection[str]) -> str | None:
        return next((str(step["page"]) for step in self.about.get("steps", []) if step.get("trial") in trials), None)

    @property
    def watched(self) -> Html:
        """The trials in which somebody looked on who costs speed, with their pages; none of them is ranked."""
        found = [each for each in self.results if each.watched]
        return tables.watched([(each.backend, each.shape, each.id, self._page([each.id])) for each in found])

    @property
    def headline(self) -> Html:
        """The figures, under a heading for each group: what promises different things is never ranked together."""
        return tables.headline(self.groups, self.page)

    @property
    def cost(self) -> Html:
        """CPU seconds per million messages of the sums, by role, the observer's own included."""
        return tables.cost(self.groups)

    @property
    def promises(self) -> Html:
        """What each backend promised in these trials, as read from its live server."""
        return tables.promises(self.rows)

    @property
    def troubles(self) -> Html:
        """The trials that failed or are stamped, with reasons; a sentence where there is none."""
        return tables.troubles(self.troubled)

    @property
    def summary(self) -> Html:
        """What was compared, on which machine, what was left out, what failed."""
        return tables.summary(self.about, self.results)

    @property
    def conclusion(self) -> Html:
        """What these trials show, from computed values; an order only where intervals separate."""
        return tables.conclusion(self.results, self.tiers if self.repeated else None)


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
