"""What a report keeps of itself: each step's outcome, and where the time went."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imqueue.compare import REPORT
from imqueue.report.plan import Step
from imqueue.results import Result
from imqueue.words import Html, table


@dataclass
class Outcome:
    """A step that ran. `error`: why its page is not to be relied on; None where all is well."""

    step: Step
    trial: Result | None
    error: str | None
    wall_s: float
    render_s: float = 0.0

    @property
    def trial_s(self) -> float:
        """The trial's own time: set-up, warm-up, load, drain, audit."""
        return sum((self.trial.info.get("times") or {}).values()) if self.trial else 0.0

    def as_dict(self) -> dict[str, Any]:
        step = self.step
        return {
            "notebook": step.notebook,
            "shape": step.shape,
            "backend": step.backend,
            "durability": step.durability,
            "repeat": step.repeat,
            "trial": self.trial.id if self.trial else None,
            "page": f"{step.name}.html",
            "error": self.error,
            "trial_s": round(self.trial_s, 3),
            "notebook_s": round(self.wall_s - self.trial_s, 3),
            "render_s": round(self.render_s, 3),
        }


@dataclass
class Clock:
    """Seconds by what they were spent on."""

    spent_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[what] = self.spent_s.get(what, 0.0) + time.perf_counter() - started


def write(folder: Path, about: dict[str, Any], outcomes: list[Outcome]) -> None:
    """``report.json``, from which 90_compare reads what to compare.

    It has the order's seed, and the steps in the order in which they ran, each with its repeat and its trial's id: a
    ``trial.json`` knows of no report.
    """
    content = {**about, "steps": [outcome.as_dict() for outcome in outcomes]}
    (folder / REPORT).write_text(json.dumps(content, indent=1))


def set_up_times(data: Path) -> list[tuple[str, float]]:
    """What make's set-up took when it last did each step; nothing where it never had to."""
    path = data / "setup_times.tsv"
    if not path.is_file():
        return []
    with path.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return list({row["step"]: float(row["duration_s"]) for row in rows}.items())


def times(data: Path, clock: Clock, outcomes: list[Outcome]) -> list[tuple[str, str, str, str]]:
    """Rows of (what, trial, notebook, page), each in seconds, and a total without the set-up."""
    rows = [(f"set-up when last needed: {step}", "", f"{took_s:.1f}", "") for step, took_s in set_up_times(data)]
    rows += [(what, "", f"{took_s:.1f}", "") for what, took_s in clock.spent_s.items()]
    for each in outcomes:
        around_s = each.wall_s - each.trial_s
        rows.append((each.step.name, f"{each.trial_s:.1f}", f"{around_s:.1f}", f"{each.render_s:.2f}"))
    spent_s = sum(clock.spent_s.values()) + sum(each.wall_s + each.render_s for each in outcomes)
    return [*rows, ("all of it, without the set-up", "", f"{spent_s:.1f}", "")]


COLUMNS = ("what", "trial, s", "around it, s", "page, s")


def times_html(rows: list[tuple[str, str, str, str]]) -> str:
    explained = (
        "A trial's time is its set-up, warm-up, waiting for scrapes, load, drain and audit; around it are the kernel, "
        "its imports, papermill and the pictures; then the page is rendered."
    )
    shown = Html(table(COLUMNS, rows, COLUMNS[1:]))
    return f'<section class="jp-RenderedHTMLCommon"><h2>Where the time went</h2><p>{explained}</p>{shown}</section>'


def times_text(rows: list[tuple[str, str, str, str]]) -> str:
    width = max(len(row[0]) for row in rows)
    lines = [COLUMNS, *rows]
    return "\n".join(f"{what:<{width}}  {a:>8}  {b:>12}  {c:>7}".rstrip() for what, a, b, c in lines)
