"""What a trial's messages cost in CPU time, by whom, and how near a backend comes to what the harness reaches alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Protocol

from imqueue.words import Html, grouped_table, rounded, table
from imqueue.workload import Workload


class Result(Protocol):
    """What is asked here of a `results.Result`, which itself shows what its trial cost."""

    info: dict[str, Any]

    @property
    def backend(self) -> str: ...

    @property
    def shape(self) -> str: ...

    @property
    def passed(self) -> bool: ...

    @property
    def watched(self) -> bool: ...

    @property
    def rate_hz(self) -> float | None: ...

    @property
    def workload(self) -> Workload: ...


ROLES = {
    "producer": "producers",
    "worker": "workers",
    "server": "server",
    "driver": "driver",
    "prometheus": "Prometheus",
}
OBSERVER = ("driver", "prometheus")
ALIKE = ("batch", "size_bytes", "producers", "workers", "work_s", "backlog_max", "pin")
"""What sums must have in common, besides the machine, for a rate to be held against the harness' own."""
BETWEEN_PROCESSES, IN_ONE_PROCESS = "null", "simple"
"""The controls: a backend is held against the one whose producer and worker live as its own do.

Neither is a ceiling in CPU time: `simple` is one thread where a backend in one process has two, and the naps of
`null`'s waiting worker, 20 µs each, are in its CPU.
"""


def cpu_s(info: dict[str, Any]) -> dict[str, float | None]:
    """CPU seconds by role from go until the queue was drained, for what is pushed is popped a backlog later.

    None: a server that is not ours to look at; absent: there is none.

    Where one loop both produces and works, its time stands with the producers and the workers have none.
    """
    spent = dict(info.get("cpu_s") or {})
    if "inline" in (info.get("client_cores") or {}):
        spent.pop("worker", None)
    if info["declares"].get("server") is not None and not info.get("server_private"):
        return {**spent, "server": None}
    return spent


def per_million_s(result: Result) -> dict[str, float | None]:
    """The same for each million messages popped, which is all; {} where none was, or the window is not known."""
    popped = result.info.get("counts", {}).get("popped", 0)
    if not popped or not result.info.get("cpu_window_s"):
        return {}
    return {role: None if spent is None else spent * 1e6 / popped for role, spent in cpu_s(result.info).items()}


def of_trial(result: Result) -> Html:
    """CPU time by role: in all, for each million messages, and as a share of a core; and what looking on took."""
    spent, million, window_s = cpu_s(result.info), per_million_s(result), result.info.get("cpu_window_s")
    rows = []
    for role, name in ROLES.items():
        if role in spent:
            share = None if spent[role] is None or not window_s else spent[role] / window_s
            rows.append((name, _figure(spent[role]), _figure(million.get(role)), _percent(share)))
    numbers = ["CPU, s", "CPU, s per million messages", "of a core"]
    window = f" All this was used from go until the queue was drained, {window_s:.3g} s later." if window_s else ""
    return Html(table(["who", *numbers], rows, numbers) + f"<p>{_observer(spent)}{window}</p>")


def of_rows(groups: Iterable[tuple[str, Sequence[tuple[str, Sequence[Result]]]]], shape: str) -> Html:
    """CPU seconds per million messages, a row for each backend: medians over its trials of one shape that passed.

    `groups`: a heading, and under it names with their trials.
    """
    names = [*ROLES.values(), "all", "observer's share"]
    shown = {heading: [_row(name, results, shape) for name, results in rows] for heading, rows in groups}
    return Html(grouped_table(["backend", *names], shown, names))


def _row(name: str, results: Sequence[Result], shape: str) -> list[str]:
    found = [each for result in results if result.shape == shape and result.passed and (each := per_million_s(result))]
    if not found:
        return [name, *["no figure"] * (len(ROLES) + 2)]
    roles = {role: [each[role] for each in found if role in each] for role in ROLES}
    medians = {
        role: None if None in values else median(value for value in values if value is not None)
        for role, values in roles.items()
        if values
    }
    known = sum(value for value in medians.values() if value is not None)
    observer = sum(medians.get(role) or 0.0 for role in OBSERVER)
    cells = [_figure(medians[role]) if role in medians else "none" for role in ROLES]
    everything = "not seen" if None in medians.values() else _figure(known)
    return [name, *cells, everything, _percent(observer / known if known else None)]


def of_the_ceiling(results: Sequence[Result], everything: Iterable[Result]) -> float | None:
    """The median rate of a backend's sums over that of its control at the same workload on the same machine.

    None where either is not there, and for a control itself.
    """
    sums = _sums(results)
    if not sums or sums[0].info["declares"].get("control"):
        return None
    control = IN_ONE_PROCESS if sums[0].info["declares"].get("in_process") else BETWEEN_PROCESSES
    alone = [each for each in _sums(everything) if each.backend == control and _like(each) == _like(sums[0])]
    same = [each for each in sums if _like(each) == _like(sums[0])]
    return _rate_hz(same) / _rate_hz(alone) if alone else None


def ceiling_text(share: float | None) -> str:
    return "" if share is None else _percent(share)


def _sums(results: Iterable[Result]) -> list[Result]:
    return [each for each in results if each.shape == "sum" and each.passed and each.rate_hz and not each.watched]


def _like(result: Result) -> list[Any]:
    workload, machine = result.workload.as_dict(), result.info.get("machine") or {}
    return [*(workload[name] for name in ALIKE), machine.get("cpu"), machine.get("cores")]


def _rate_hz(results: Iterable[Result]) -> float:
    return median(each.rate_hz for each in results if each.rate_hz)


def _observer(spent: dict[str, float | None]) -> str:
    known = {role: s for role, s in spent.items() if s is not None}
    total = sum(known.values())
    if not total:
        return "No CPU time was read."
    share = sum(known.get(role, 0.0) for role in OBSERVER) / total
    words = f"Looking on (driver and Prometheus) took {share:.1%} of the CPU time that was seen."
    return words + (" The server is not ours, so its time is unknown." if None in spent.values() else "")


def _figure(value: float | None) -> str:
    return "not seen" if value is None else rounded(value)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
