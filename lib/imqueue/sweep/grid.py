"""What a sweep varies: parsed from one line or one small file, and checked before anything runs.

One line, words with spaces between them:

    backend=redis_list,postgres     each of these
    rate_hz=100..10000*5            five values from 100 to 10,000, each the same multiple of the one before
    rate_hz=100..1000/4             four values from 100 to 1,000, evenly apart
    workers=1..4                    1, 2, 3, 4
    rate_hz:workers=500:1,2000:4    zipped: 500 with 1, and 2000 with 4; not 500 with 4
    -backend:workers=postgres:4     left out: the points in which all of these hold
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imqueue.workload import BadInput, choose

VALUES_MAX = 100_000
"""A bound on one parameter's values: a slip in a range would fill the memory before it is refused."""

_NUMBER = r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?:([*/])(\d+))?", re.IGNORECASE)
_ALLOWED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_DIGITS = 4  # of a value inside a log range: 316.2 reads better than 316.22776601683796


@dataclass(frozen=True)
class Axis:
    """One parameter with its values, or several that are zipped: each of `values` has one for each of `names`."""

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]

    def holds_in(self, parameters: Mapping[str, Any]) -> bool:
        """Whether `parameters` have one of these values; for what is left out."""
        return tuple(parameters[name] for name in self.names) in self.values


@dataclass(frozen=True)
class Grid:
    """All combinations of `axes`, but for those in which one of `excluded` holds."""

    axes: tuple[Axis, ...]
    excluded: tuple[Axis, ...] = ()

    @property
    def n(self) -> int:
        """How many points, those that are left out included."""
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def names(self) -> list[str]:
        return [name for axis in self.axes for name in axis.names]

    @property
    def varied(self) -> list[str]:
        """Those that tell one point from another; all where there is only one."""
        return [name for axis in self.axes if len(axis.values) > 1 for name in axis.names] or self.names

    def points(self, defaults: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Each one's parameters, those that are not varied included."""
        for chosen in itertools.product(*(axis.values for axis in self.axes)):
            pairs = zip(self.axes, chosen, strict=True)
            varied = {name: value for axis, row in pairs for name, value in zip(axis.names, row, strict=True)}
            parameters = {**defaults, **varied}
            if not any(each.holds_in(parameters) for each in self.excluded):
                yield parameters


def defaults_of(notebook: Path) -> dict[str, Any]:
    """The parameters that a notebook declares, with their defaults, whose types are those of the parameters."""
    from imqueue.report.notebooks import check, parameters_of

    check(notebook, {})
    declared = {name: each["default"] for name, each in parameters_of(notebook).items()}
    if not declared:
        raise BadInput(f"{notebook.name} has no cell tagged parameters; there is nothing to sweep")
    return {name: ast.literal_eval(text) for name, text in declared.items()}


def parsed(text: str, defaults: Mapping[str, Any]) -> Grid:
    """From one line; see above. Raises `BadInput` for an unknown parameter and for a value of another type."""
    axes: list[Axis] = []
    excluded: list[Axis] = []
    for word in text.split():
        names, equals, values = word.removeprefix("-").partition("=")
        if not equals or not values:
            raise BadInput(f"{word!r} is no parameter with values; write name=value,value, e.g. rate_hz=500,2000")
        axis = _axis(names.split(":"), values.split(","), defaults)
        (excluded if word.startswith("-") else axes).append(axis)
    return combined(axes, excluded)


def combined(axes: Sequence[Axis], excluded: Sequence[Axis]) -> Grid:
    """Raises `BadInput` where a parameter is varied twice, or none is."""
    grid = Grid(tuple(axes), tuple(excluded))
    names = grid.names
    if not names:
        raise BadInput("the grid is empty; write name=value,value, e.g. rate_hz=500,2000")
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{name} is in the grid twice; write all its values in one word")
    return grid


def axis_of(name: str, values: Any, defaults: Mapping[str, Any]) -> Axis:
    """Of one parameter from a file: a value, a list of values, or text as on the one line."""
    if isinstance(values, str):
        return _axis([name], values.split(","), defaults)
    listed = values if isinstance(values, list) else [values]
    wanted = _type_of(name, defaults)
    return Axis((name,), _unique((value,) for each in listed for value in _expanded(name, each, wanted)))


def zipped(columns: Mapping[str, Any], defaults: Mapping[str, Any]) -> Axis:
    """Of parameters that go together, from a file: lists of one length."""
    axes = {name: axis_of(name, values, defaults).values for name, values in columns.items()}
    lengths = {name: len(values) for name, values in axes.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items()) or "none is there"
        raise BadInput(f"zipped parameters have as many different values each; {told}")
    return Axis(tuple(axes), tuple(tuple(value for (value,) in row) for row in zip(*axes.values(), strict=True)))


def _axis(names: list[str], items: list[str], defaults: Mapping[str, Any]) -> Axis:
    wanted = [_type_of(name, defaults) for name in names]
    rows: list[tuple[Any, ...]] = []
    for item in items:
        parts = item.split(":") if len(names) > 1 else [item]
        if len(parts) != len(names):
            raise BadInput(f"{item!r} does not have one value for each of {':'.join(names)}")
        columns = [_expanded(*each) for each in zip(names, parts, wanted, strict=True)]
        if len({len(column) for column in columns}) > 1:
            raise BadInput(f"the ranges zipped in {item!r} have different numbers of values")
        rows += zip(*columns, strict=True)
    return Axis(tuple(names), _unique(rows))


def _unique(rows: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(dict.fromkeys(rows))


def _type_of(name: str, defaults: Mapping[str, Any]) -> type:
    return type(defaults[choose("parameter", name, defaults)])


def _expanded(name: str, value: Any, wanted: type) -> list[Any]:
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return [typed(name, value, wanted)]
    if wanted not in (int, float):
        raise BadInput(f"{name} is {value!r}; allowed: {_ALLOWED.get(wanted, wanted.__name__)}, which has no ranges")
    first, last = (typed(name, each, wanted) for each in found.groups()[:2])
    values = _between(name, value, first, last, found[3], int(found[4] or 0))
    return [round(each) for each in values] if wanted is int else [float(each) for each in values]


def _between(name: str, text: str, first: float, last: float, how: str | None, n: int) -> list[float]:
    if how is None:
        n = math.floor(last - first) + 1
    least = first > 0 if how == "*" else True
    if first >= last or n < 2 or not least:
        rule = "from above 0 to a larger one" if how == "*" else "from a number to a larger one"
        raise BadInput(f"{name} is {text!r}; allowed: a range {rule}, with at least 2 values")
    if n > VALUES_MAX:
        raise BadInput(f"{name} is {text!r}, which is {n:,} values; allowed: up to {VALUES_MAX:,}")
    if how is None:
        return [first + step for step in range(n)]
    if how == "/":
        return [first, *(first + (last - first) * step / (n - 1) for step in range(1, n - 1)), last]
    inner = (first * (last / first) ** (step / (n - 1)) for step in range(1, n - 1))
    return [first, *(float(f"{each:.{_DIGITS}g}") for each in inner), last]


def typed(name: str, value: Any, wanted: type) -> Any:
    """`value` as the type of the parameter's default. Raises `BadInput` where it is of another."""
    try:
        if wanted is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if wanted is int and isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
        if wanted is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
        if wanted is str and isinstance(value, str):
            return value
    except (KeyError, ValueError):
        pass
    raise BadInput(f"{name} is {value!r}; allowed: {_ALLOWED.get(wanted, wanted.__name__)}")
