"""What a trial was made with and on, beside what another one was: the same workload again, under which conditions?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imqueue import machine
from imqueue.results import Result
from imqueue.words import enumeration, pairs, rounded
from imqueue.workload import BadInput, Workload

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "(not recorded)"
NAMED_MAX = 6
_GUARANTEES = ("survives_kill", "survives_power_loss", "fifo", "puts_confirmed", "redelivers_after_s", "lease_s")


class Rerun(Result):
    """A trial that repeated another one, `original`. `not_made`: why changes made by hand then were refused now."""

    def __init__(self, folder: str | Path, original: Result, not_made: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self.original = original
        self.not_made = list(not_made)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Each condition that was not the same: `what`, `then`, `now`. Empty: all that is recorded is the same."""
        return differences(self.original.info, self.info)

    def sentence(self) -> str:
        """What was repeated, what came out both times, what differs here, and what could not be repeated."""
        figure = f"{_outcome(self.original)} then, {_outcome(self)} now"
        names = list(self.differences["what"])
        if len(names) > NAMED_MAX:
            names = [*names[:NAMED_MAX], f"{len(names) - NAMED_MAX} more"]
        differ = f"these conditions differ: {enumeration(names)}" if names else "no recorded condition differs"
        sentences = [f"{self.id} repeats {self.original.id}: {figure}; {differ}."]
        if changes := self.original.info.get("changes"):
            told = "; ".join(f"{pairs(_values(each))} at {each['asked_s']:.3g} s" for each in changes)
            sentences.append(f"It was changed by hand: {told}; {_again(changes, self.info.get('changes') or [])}.")
        sentences += [f"A change could not be made again: {reason}." for reason in self.not_made]
        if self.original.info["state"] == "stopped":
            sentences.append("It was stopped by hand; this one had its planned length.")
        return " ".join(sentences)


def workload_of(result: Result) -> dict[str, Any]:
    """The parameters that repeat it: its durability is named, also where it came from the backend's default.

    Raises `BadInput` where this imqueue has no such parameters.
    """
    info = result.info
    parameters = {**info["workload"], "durability": info["durability"]}
    try:
        Workload.of(parameters)
    except BadInput as error:
        made_by = (info["versions"].get("packages") or {}).get("imqueue", "?")
        ours = machine.packages().get("imqueue", "?")
        raise BadInput(
            f"{result.id}, made by imqueue {made_by}, cannot be repeated by imqueue {ours}: {error}"
        ) from None
    if info.get("changes") is None and len(info.get("segments") or ()) > 1:
        raise BadInput(f"{result.id} was changed while it ran, and its trial.json is too old to say how")
    return parameters


def differences(then: dict[str, Any], now: dict[str, Any]) -> pd.DataFrame:
    """Two ``trial.json`` beside each other: `what`, `then` and `now` of each condition that is not the same."""
    import pandas as pd

    before, after = conditions(then), conditions(now)
    names = [*before, *(name for name in after if name not in before)]
    rows = [(name, before.get(name, UNKNOWN), after.get(name, UNKNOWN)) for name in names]
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=["what", "then", "now"])


def conditions(info: dict[str, Any]) -> dict[str, str]:
    """All that ``trial.json`` says of what a trial was made with and on, one word for each."""
    versions, host, code = (info.get(name) or {} for name in ("versions", "machine", "code"))
    promised = info.get("guarantees") or {}
    workload = {name: value for name, value in info["workload"].items() if name != "durability"}
    found: dict[str, object] = {
        **{f"workload: {name}": value for name, value in workload.items()},
        "workload: durability": info["durability"],
        **{f"imqueue: {name}": value for name, value in code.items()},
        "Python": versions.get("python"),
        **{f"package: {name}": value for name, value in (versions.get("packages") or {}).items()},
        "Prometheus": versions.get("prometheus", UNKNOWN),
        "server": versions.get("server"),
        "server: private": info.get("server_private", UNKNOWN),
        **{f"server: {name}": value for name, value in (info.get("server_settings") or {}).items()},
        **{f"guarantee: {name}": promised.get(name) for name in _GUARANTEES},
        **{f"read from the server: {name}": value for name, value in (promised.get("settings") or {}).items()},
        "machine: CPU": host.get("cpu"),
        "machine: cores": host.get("cores"),
        "machine: memory": f"{host.get('memory_bytes', 0) / 2**30:.1f} GiB",  # a kernel keeps some kilobytes
        "machine: system": host.get("system"),
        "machine: governor": host.get("governor", UNKNOWN),
    }
    return {name: _text(value) for name, value in found.items()}


def _values(change: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in change.items() if name != "asked_s"}


def _again(then: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> str:
    """How far from their times the changes were made again."""
    left, apart_s = list(now), []
    for before in then:
        if after := next((each for each in left if _values(each) == _values(before)), None):
            left.remove(after)
            apart_s.append(abs(before["asked_s"] - after["asked_s"]))
    if len(apart_s) < len(then):
        return f"{len(apart_s)} of these {len(then)} changes were made again"
    return f"so again, within {rounded(max(apart_s))} s of these times"


def _outcome(result: Result) -> str:
    return "nothing" if result.rate_hz is None else f"{rounded(result.rate_hz)} messages/s"


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"all but the last {value['seconds_s']:g} s" if isinstance(value, dict) else str(value)
