"""A sweep's folder: each point's own file, and from them one table and one page.

``data/sweeps/<name>/``: ``sweep.json`` (what was asked for, and its points in their order), ``points/<key>.json``,
``notebooks/<key>.ipynb``, ``pages/<key>.html``, ``points.parquet`` and ``index.html``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imqueue import settings
from imqueue.locks import read_json
from imqueue.results import VERDICTS, Result
from imqueue.store import write_json
from imqueue.workload import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from imqueue.sweep.plan import Point

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,119}")
_LATENCIES = {"p50": "p50_s", "p99": "p99_s", "p999": "p999_s"}
WAITING = "waiting"
"""The state of a point that has not run; `done` and `failed` are those of one that has."""


def folder_of(name: str, data: Path | None = None) -> Path:
    """Of a sweep in the data folder, made or not. Raises `BadInput` for a name that would lead out of it."""
    sweeps = ((data or settings.data_dir()) / "sweeps").resolve()
    folder = sweeps / name
    if not _NAME.fullmatch(name) or folder.resolve().parent != sweeps:
        raise BadInput(f"the sweep's name is {name!r}; allowed: letters, digits and . _ + - for a folder in {sweeps}")
    return folder


def load(name: str) -> pd.DataFrame:
    """One row a point that has run, in the order of the plan: parameters, figures, stamps, state and paths.

    Of a sweep that still runs, the points so far. `settled_hz`: messages settled per second. `due_p99_s`, `sent_p99_s`:
    the latency that 99 % of the messages stay within, from due and from sent; NaN where it is unresolved. Counts of
    the audit are missing where no trial, or more than one, came of the point. `notebook` and `page` are paths of files.
    A `points.parquet` that is corrupt or behind is made anew from the points' own files.

    Raises `BadInput` where there is no such sweep.
    """
    import pandas as pd

    folder = folder_of(name)
    if not (folder / "points").is_dir():
        there = sorted(each.parent.name for each in folder.parent.glob("*/points"))
        raise BadInput(f"no sweep {name!r} in {folder.parent}; there: {', '.join(there) or 'none'}")
    kept = folder / "points.parquet"
    try:
        if kept.stat().st_mtime_ns < (folder / "points").stat().st_mtime_ns:
            raise FileNotFoundError(kept)
        frame = pd.read_parquet(kept)
    except (OSError, ValueError):  # pyarrow's errors are among these
        frame = write_table(folder, rows_of(folder))
    for column in ("notebook", "page"):
        if column in frame:
            frame[column] = [str(folder / each) if isinstance(each, str) else None for each in frame[column]]
    return frame


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """What the points' own files say, in the order of the plan; all of them where the plan is lost."""
    plan = read_json(folder / "sweep.json")
    files = (folder / "points").glob("*.json")
    keys = [each["key"] for each in plan["points"]] if plan else sorted(path.stem for path in files)
    rows = (read_json(folder / "points" / f"{key}.json") for key in keys)
    return [row for row in rows if row is not None]


def write_table(folder: Path, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """``points.parquet``, whole or not at all."""
    import pandas as pd

    frame = pd.DataFrame([{**row["parameters"], **{k: v for k, v in row.items() if k != "parameters"}} for row in rows])
    for column in (*_NUMBERS, *VERDICTS):
        if column in frame:  # else a sweep whose points all failed has columns of another type
            frame[column] = pd.to_numeric(frame[column]).astype("Int64" if column in VERDICTS else "float64")
    half = folder / ".points.parquet.part"
    frame.to_parquet(half)
    os.replace(half, folder / "points.parquet")
    return frame


_NUMBERS = ("settled_hz", "load_s", *(f"{kind}_{each}_s" for kind in ("due", "sent") for each in _LATENCIES))
COLUMNS = frozenset(
    (*_NUMBERS, *VERDICTS, "key", "repeat", "place", "state", "error", "tries", "trial", "trials", "passed", "stamps")
) | {"notebook", "page", "lib", "made_at", "wall_s", "trial_s", "render_s"}
"""What a row has beside its parameters; none of them may bear such a name."""


def figures(trials: Iterable[Path]) -> dict[str, Any]:
    """Of the one trial that a point made; where it made several, only which ones."""
    results = [Result(each) for each in trials if (each / "trial.json").is_file()]
    told: dict[str, Any] = {"trial": results[0].id if len(results) == 1 else None}
    told["trials"] = ",".join(each.id for each in results)
    told["trial_s"] = round(sum(sum((each.info.get("times") or {}).values()) for each in results), 3)
    told["passed"] = bool(results) and all(each.passed for each in results)
    told["stamps"] = ",".join(sorted({each["stamp"] for result in results for each in result.stamps}))
    info = results[0].info if len(results) == 1 else {}
    told |= {"settled_hz": info.get("rate_hz"), "load_s": info.get("load_s")}
    for kind in ("due", "sent"):
        latency = (info.get("latency") or {}).get(kind) or {}
        told |= {f"{kind}_{name}_s": latency.get(field) for name, field in _LATENCIES.items()}
    audit = info.get("audit") or {}
    return told | {name: audit.get(name) for name in VERDICTS}


class Store:
    """The writer of one sweep's folder; holds the rows of the points that have run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, dict[str, Any]] = {}

    def begin(self, about: dict[str, Any], points: Sequence[Point]) -> None:
        """Make the folder, note the plan and read what ran already."""
        try:
            for part in ("points", "notebooks", "pages"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"the sweep's folder {self.folder} cannot be written: {error.strerror}") from error
        self.points = list(points)
        self.about = about
        listed = [{"key": each.key, "parameters": dict(each.parameters), "repeat": each.repeat} for each in points]
        write_json(self.folder / "sweep.json", {**about, "points": listed})
        self.rows = {row["key"]: row for row in rows_of(self.folder)}
        self._show()

    def keep(self, row: dict[str, Any]) -> None:
        """A point that has run: its own file first, then table and page."""
        write_json(self.folder / "points" / f"{row['key']}.json", row)
        self.rows[row["key"]] = row
        self._show()

    def _show(self) -> None:
        from imqueue.sweep.page import index

        rows = [self.rows[each.key] for each in self.points if each.key in self.rows]
        write_table(self.folder, rows)
        half = self.folder / ".index.html.part"
        half.write_text(index(self.about, self.points, self.rows))
        os.replace(half, self.folder / "index.html")


def seed_of(folder: Path) -> int | None:
    """Of the sweep's last run, so that it goes on in the same order."""
    plan = read_json(folder / "sweep.json")
    return int(plan["seed"]) if plan and isinstance(plan.get("seed"), int) else None
