"""The points of a sweep, in the order in which they run, each with a key that says whether it ran already."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imqueue import registry, version
from imqueue.sweep.grid import Axis, Grid, axis_of, combined, defaults_of, parsed, zipped
from imqueue.workload import BadInput, Workload, choose

POINTS_MAX = 10_000
"""More of them ask for `force`: at a few seconds each they take longer than a day."""

AROUND_TRIAL_S = 6.0  # kernel, server's warm-up, scrapes, audit, page
_GUESSED_SUM_HZ = 30_000.0  # of a slow backend, for the estimate of the time
_UNKNOWN_S = 60.0  # of a notebook whose parameters do not tell how long it takes
_KEYS = ("notebook", "name", "grid", "zip", "exclude", "repeats", "seed", "point_max_s")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sweep as it was asked for. `seed` None: that of the sweep's last run, else a random one.

    `point_max_s`: after so long a point is ended; None: what its trial may take, and two minutes.
    """

    notebook: Path
    defaults: Mapping[str, Any]
    grid: Grid
    name: str
    repeats: int = 1
    seed: int | None = None
    point_max_s: float | None = None


@dataclass(frozen=True)
class Point:
    """One run of the notebook. `parameters`: all that it declares; `varied`: the names of those that differ."""

    key: str
    parameters: Mapping[str, Any]
    repeat: int
    varied: tuple[str, ...]

    @property
    def what(self) -> str:
        """What tells it from the others."""
        told = " ".join(f"{name}={_short(self.parameters[name])}" for name in self.varied)
        return f"{told} (repeat {self.repeat})" if self.repeat > 1 else told

    @property
    def trial_max_s(self) -> float:
        """How long its load lasts at most, by its parameters."""
        if "duration_s" in self.parameters:
            return float(self.parameters["duration_s"])
        return float(self.parameters.get("time_max_s", _UNKNOWN_S))

    @property
    def guess_s(self) -> float:
        if "messages" in self.parameters:
            return AROUND_TRIAL_S + min(self.trial_max_s, float(self.parameters["messages"]) / _GUESSED_SUM_HZ)
        return self.trial_max_s + AROUND_TRIAL_S


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def asked(
    notebooks: Path,
    *,
    notebook: str = "",
    grid: str = "",
    file: Path | None = None,
    name: str = "",
    repeats: int | None = None,
    seed: int | None = None,
    point_max_s: float | None = None,
) -> Asked:
    """From a line and a file; what the line says goes before what the file says. Raises `BadInput`."""
    told = _read(file) if file else {}
    path = _notebook(notebooks, notebook or told.get("notebook", ""))
    defaults = defaults_of(path)
    chosen = parsed(grid, defaults) if grid or not told else _grid(told, defaults)
    stem = file.stem if file else "-".join([path.stem, *chosen.varied])
    repeats = told.get("repeats", 1) if repeats is None else repeats
    seed = told.get("seed") if seed is None else seed
    point_max_s = told.get("point_max_s") if point_max_s is None else point_max_s
    _check("repeats", repeats, int, 1)
    if seed is not None:
        _check("seed", seed, int, 0)
    if point_max_s is not None:
        _check("point_max_s", point_max_s, (int, float), 1)
    name = str(name or told.get("name", stem))
    return Asked(
        notebook=path,
        defaults=defaults,
        grid=chosen,
        name=name,
        repeats=repeats,
        seed=seed,
        point_max_s=point_max_s,
    )


def _check(name: str, value: Any, kind: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
        raise BadInput(f"{name} is {value!r}; allowed: a {'whole ' if kind is int else ''}number from {least}")


def _notebook(notebooks: Path, name: object) -> Path:
    if not name:
        raise BadInput("no notebook to sweep; say which, e.g. NOTEBOOK=20_flow")
    stem = str(name).removesuffix(".ipynb")
    return notebooks / f"{choose('notebook', stem, sorted(each.stem for each in notebooks.glob('*.ipynb')))}.ipynb"


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        told = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the sweep {str(file)!r} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(told, dict):
        raise BadInput(f"{file} does not say what to sweep; it has names and values, e.g. notebook: 20_flow")
    for key in told:
        choose(f"word in {file.name}", key, _KEYS)
    return told


def _grid(told: Mapping[str, Any], defaults: Mapping[str, Any]) -> Grid:
    axes = [axis_of(name, values, defaults) for name, values in _mapping("grid", told.get("grid") or {}).items()]
    axes += [zipped(_mapping("zip", each), defaults) for each in _list("zip", told.get("zip") or [])]
    excluded = [_excluded(_mapping("exclude", each), defaults) for each in _list("exclude", told.get("exclude") or [])]
    return combined(axes, excluded)


def _excluded(told: Mapping[str, Any], defaults: Mapping[str, Any]) -> Axis:
    """Every combination of the values named."""
    axes = [axis_of(name, values, defaults) for name, values in told.items()]
    points = list(Grid(tuple(axes)).points({}))
    names = tuple(told)
    return Axis(names, tuple(tuple(point[name] for name in names) for point in points))


def _mapping(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise BadInput(f"{what} is {value!r}; allowed: parameters with their values, e.g. workers: [1, 2]")
    return value


def _list(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"{what} is {value!r}; allowed: a list")
    return value


def planned(sweep: Asked, seed: int, *, force: bool = False) -> list[Point]:
    """All points. Repeats come in blocks, each of them in an order of its own, which the seed decides.

    Raises `BadInput` for a value that no trial may have, and for more than `POINTS_MAX` points without `force`.
    """
    n = sweep.grid.n * sweep.repeats
    if n > POINTS_MAX and not force:
        raise BadInput(f"the grid has {n:,} points; allowed: up to {POINTS_MAX:,}, or more with FORCE=1 (--force)")
    points = list(sweep.grid.points(sweep.defaults))
    if not points:
        raise BadInput("every point of the grid is left out")
    for parameters in points:
        _check_workload(parameters)
    runs = _digest(sweep.notebook)
    chance = random.Random(seed)
    order = []
    varied = tuple(sweep.grid.varied)
    for repeat in range(1, sweep.repeats + 1):
        chance.shuffle(points)
        order += [Point(_key(runs, each, repeat), each, repeat, varied) for each in points]
    return order


def _check_workload(parameters: Mapping[str, Any]) -> None:
    """As a trial would, for those notebooks whose parameters are a workload's."""
    known = {field.name for field in dataclasses.fields(Workload)}
    if "backend" not in parameters:
        return
    choose("backend", parameters["backend"], registry.names())
    Workload.of({name: value for name, value in parameters.items() if name in known and value != ""})


def _digest(notebook: Path) -> str:
    """Of the notebook's cells and of imqueue itself: outputs and metadata change nothing that is measured."""
    cells = json.loads(notebook.read_text())["cells"]
    text = json.dumps([[each["cell_type"], "".join(each["source"])] for each in cells])
    return hashlib.sha256(f"{notebook.stem} {text} {version.code()['source']}".encode()).hexdigest()


def _key(runs: str, parameters: Mapping[str, Any], repeat: int) -> str:
    text = json.dumps([runs, dict(sorted(parameters.items())), repeat])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
