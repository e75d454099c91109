"""Under which load and conditions trials ran: what must be alike before anybody pools or compares their figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from imqueue.results import Result
from imqueue.words import pairs

UNKNOWN = "not recorded"
DIGITS = 12  # of the digest of the source
_NO_LOAD = {"backend", "durability", "seed"}
_OF_SHAPE = {"sum": {"messages", "backlog_max", "time_max_s"}, "flow": {"rate_hz", "duration_s", "arrivals"}}
_STEERED = {"rate", "producers", "workers", "stop", "fault"}
_NO_SETTINGS = {"binlog-current-index"}  # a count of files: beanstalkd's grows from trial to trial
_ALWAYS_TOLD = ("server", "run by")


def load(result: Result) -> dict[str, Any]:
    """All that must be alike in two trials of one shape, of whichever backends, beyond what these promise."""
    others = set().union(*(names for shape, names in _OF_SHAPE.items() if shape != result.shape))
    found = {name: value for name, value in result.workload.as_dict().items() if name not in _NO_LOAD | others}
    machine, code = result.info.get("machine") or {}, result.info.get("code") or {}
    found["machine"] = f"{machine.get('cpu')} with {machine.get('cores')} cores"
    found["imqueue"] = str(code["source"])[:DIGITS] if code.get("source") else UNKNOWN
    cores = {role: _text(ids) for role, ids in (result.info.get("cores") or {}).items() if role != "server"}
    found["on cores"] = pairs(cores) if cores else UNKNOWN
    steered = sorted({str(each["kind"]) for each in result.events} & _STEERED)
    return found | {"steered": " and ".join(steered) or "no"}


def unlike(results: Iterable[Result]) -> list[str]:
    """What of the load differs between trials, by the names in `load`: parameters, `machine`, `imqueue`, `on cores`."""
    values: dict[str, set[object]] = {}
    for result in results:
        for name, value in load(result).items():
            values.setdefault(name, set()).add(value)
    return [name for name, different in values.items() if len(different) > 1]


def apart(results: Sequence[Result]) -> list[str]:
    """Of each of one backend's trials, in words, what its server had unlike that of the others; "" where all are alike.

    A condition that a trial could not tell, as it failed first, sets it apart only where the others had several.
    """
    found = [_conditions(result) for result in results]
    names = list(dict.fromkeys(name for each in found for name in each))
    told = [name for name in names if len({each[name] for each in found if each.get(name) is not None}) > 1]
    chosen: list[str] = []
    for name in told:
        if name in _ALWAYS_TOLD or _parts_n(found, [*chosen, name]) > _parts_n(found, chosen):
            chosen.append(name)
    return [pairs({name: each.get(name) or UNKNOWN for name in chosen}) if chosen else "" for each in found]


def _conditions(result: Result) -> dict[str, str | None]:
    """What a trial tells of its own server. None: not known."""
    info = result.info
    private, guarantees = info.get("server_private"), info.get("guarantees") or {}
    settings = {name: str(value) for name, value in (guarantees.get("settings") or {}).items()}
    cores = _text((info.get("cores") or {}).get("server") or []) or "unbound"
    return {
        "server": (info.get("versions") or {}).get("server"),
        "run by": None if private is None else "us" if private else "others",
        **{name: value for name, value in settings.items() if name not in _NO_SETTINGS},
        "server on cores": cores if guarantees else None,
    }


def _parts_n(found: Sequence[dict[str, str | None]], names: Sequence[str]) -> int:
    """Into how many parts these conditions divide the trials."""
    return len({tuple(each.get(name) for name in names) for each in found})


def _text(ids: object) -> str:
    return "+".join(map(str, ids)) if isinstance(ids, list) else str(ids)
