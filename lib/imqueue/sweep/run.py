"""Run a sweep: what is missing of its points, one after the other, whatever happens to one."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat

from imqueue import client, locks, settings, version
from imqueue.client import Busy
from imqueue.report.pages import Pages
from imqueue.sweep import child
from imqueue.sweep.plan import Asked, Point, planned
from imqueue.sweep.store import COLUMNS, Store, figures, folder_of, seed_of
from imqueue.words import milliseconds, rounded
from imqueue.workload import BadInput

_IDLE_MAX_S = 60.0  # a trial of somebody else may be ending
_BEYOND_TRIAL_S = 120.0  # a server's first start, warm-up, drain, audit, pictures


def run(asked: Asked, *, force: bool = False, retry: bool = False, dry_run: bool = False) -> int:
    """Run the points that are missing; 0, or 1 where one failed. `retry`: those that failed before are missing too.

    `dry_run`: only list them. Raises `BadInput` before anything is started or written, and `Busy` where another sweep
    of this name, or a trial, is running.
    """
    data = settings.data_dir()
    folder = folder_of(asked.name, data)
    for name in asked.defaults:
        if name in COLUMNS:
            raise BadInput(f"{asked.notebook.name} has a parameter {name!r}, which is a column of the results too")
    seed = asked.seed if asked.seed is not None else seed_of(folder)
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    points = planned(asked, seed, force=force)
    if dry_run:
        return _list(points, seed)
    run = _Run(asked, data, Store(folder), seed, points)
    lock = locks.FileLock(folder / "sweep.lock")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock.take(f"pid {os.getpid()}")
    except locks.Taken as taken:
        raise Busy(f"the sweep {asked.name} is running already ({taken})") from None
    try:
        with _terminated_as_interrupted():
            return run.all(retry)
    finally:
        lock.release()


def _list(points: Sequence[Point], seed: int) -> int:
    for place, point in enumerate(points, 1):
        print(f"{place:>5}  {point.what}")
    print(f"{len(points):,} points (order by seed {seed}), about {_duration(sum(each.guess_s for each in points))}")
    return 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Whoever ends us by SIGTERM gets what Ctrl-C does: nothing is left running."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class _Run:
    asked: Asked
    data: Path
    store: Store
    seed: int
    points: list[Point]
    ran: list[dict[str, Any]] = field(default_factory=list)  # the rows of this run

    @cached_property
    def pages(self) -> Pages:
        return Pages()

    def all(self, retry: bool) -> int:
        about = {"name": self.asked.name, "notebook": self.asked.notebook.stem, "seed": self.seed}
        self.store.begin({**about, "repeats": self.asked.repeats, "lib": version.code()}, self.points)
        missing = [each for each in self.points if self._is_missing(each, retry)]
        done = len(self.points) - len(missing)
        _say(
            f"sweep {self.asked.name}: {len(self.points):,} points, {done:,} of them there already, "
            f"order by seed {self.seed}; about {_duration(self._left_s(missing))}"
        )
        if missing:
            child.preload()
        for index, point in enumerate(missing):
            left = _duration(self._left_s(missing[index:]))
            _say(f"point {done + index + 1:,} of {len(self.points):,}: {point.what}; about {left} left")
            self._point(point)
        return self._close()

    def _is_missing(self, point: Point, retry: bool) -> bool:
        row = self.store.rows.get(point.key)
        return row is None or (retry and row["state"] == "failed")

    def _left_s(self, points: Sequence[Point]) -> float:
        """By the parameters; put right by how long this run's points took."""
        guess_s = sum(each.guess_s for each in points)
        if not self.ran:
            return guess_s
        guessed_s = {each.key: each.guess_s for each in self.points}
        return guess_s * float(sum(row["wall_s"] for row in self.ran) / sum(guessed_s[row["key"]] for row in self.ran))

    def _point(self, point: Point) -> None:
        client.connect(self.data)  # before the kernel does: what it starts would end with it
        if not child.idle(self.data, _IDLE_MAX_S):
            raise Busy("another trial is running; the same command goes on with the sweep later")
        started = time.perf_counter()
        before = self._trials()
        notebook = self.store.folder / "notebooks" / f"{point.key}.ipynb"
        ran, tries = self._execute(point, notebook)
        told = figures(self.data / "trials" / name for name in sorted(self._trials() - before))
        error = ran.error or (None if told["trials"] else "the notebook left no trial")
        rendering = time.perf_counter()
        page = self._render(point, notebook, error)
        ended = time.perf_counter()
        row = {
            "key": point.key,
            "repeat": point.repeat,
            "place": self.points.index(point) + 1,
            "parameters": dict(point.parameters),
            "state": "failed" if error else "done",
            "error": error,
            "tries": tries,
            **told,
            "notebook": f"notebooks/{notebook.name}" if notebook.is_file() else None,
            "page": page,
            "lib": version.code()["source"],
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_s": round(ended - started, 3),
            "render_s": round(ended - rendering, 3),
        }
        self.store.keep(row)
        self.ran.append(row)
        _say(f"  {_told(row)}")

    def _execute(self, point: Point, notebook: Path) -> tuple[child.Ran, int]:
        """How it ended, and after how many tries: a kernel that died gets a second one."""
        max_s = self.asked.point_max_s or point.trial_max_s + _BEYOND_TRIAL_S
        for tries in (1, 2):  # noqa: B007 - it is the answer
            notebook.unlink(missing_ok=True)  # of an earlier try: its page must not show that
            ran = child.run(self.asked.notebook, point.parameters, notebook, self.data, secrets.token_hex(8), max_s)
            if not ran.dead:
                break
        return ran, tries

    def _trials(self) -> set[str]:
        trials = self.data / "trials"
        return {each.name for each in trials.iterdir()} if trials.is_dir() else set()

    def _render(self, point: Point, notebook: Path, error: str | None) -> str | None:
        if not notebook.is_file():
            return None
        title = f"{self.asked.notebook.stem}: {point.what}"
        ran = nbformat.read(notebook, as_version=4)
        page = self.pages.render(ran, title=title, back="../index.html", notice=error)
        (self.store.folder / "pages" / f"{point.key}.html").write_text(page)
        return f"pages/{point.key}.html"

    def _close(self) -> int:
        if self.ran:
            print(_times(self.ran))
        print(f"sweep: {self.store.folder / 'index.html'}")
        rows = [self.store.rows[each.key] for each in self.points]
        wrong = [row for row in rows if row["state"] == "failed" or not row["passed"]]
        if not wrong:
            return 0
        _say(f"{len(wrong):,} of {len(rows):,} points failed, the first of them: {wrong[0]['error'] or 'its audit'}")
        return 1


def _told(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"failed after {row['wall_s']:.1f} s: {row['error']}"
    words = f"{row['wall_s']:.1f} s"
    if row["settled_hz"] is not None:
        words += f": {rounded(row['settled_hz'])} messages/s, 99 % within {milliseconds(row['due_p99_s'])} from due"
    return words + "".join(f", {each}" for each in (row["stamps"], "" if row["passed"] else "not passed") if each)


def _times(rows: Sequence[dict[str, Any]]) -> str:
    """Where the time went: the sum, and the mean of a point."""
    spent_s = {
        "trials": sum(row["trial_s"] for row in rows),
        "pages": sum(row["render_s"] for row in rows),
        "all": sum(row["wall_s"] for row in rows),
    }
    around_s = spent_s["all"] - spent_s["trials"] - spent_s["pages"]
    told = {
        "the trials themselves": spent_s["trials"],
        "kernel, imports, papermill, pictures": around_s,
        "page": spent_s["pages"],
        f"all of {len(rows):,} points": spent_s["all"],
    }
    lines = [f"{'where the time went':<38}{'sum, s':>10}{'a point, s':>12}"]
    return "\n".join(
        [*lines, *(f"{what:<38}{took_s:>10.1f}{took_s / len(rows):>12.2f}" for what, took_s in told.items())]
    )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _say(sentence: str) -> None:
    print(f"imqueue: {sentence}", file=sys.stderr, flush=True)
