"""All the parameters of a trial, and the one way in which bad input is refused."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from imqueue.backend import Durability

HEADER_BYTES = 32
"""The smallest message: what `message` writes in front of the padding."""

INTEGERS_MAX = 1_000_000_000
"""A message holds its integer in 32 bits, and the audit a few bytes for each."""

PROCESSES_MAX = 64
"""A bound on producers and on workers: beyond it a slip of the keyboard would fork the machine to a halt."""


PINS = ("none", "separate", "together")


class BadInput(ValueError):
    """One sentence that names the value and what is allowed. The command line exits with 2 on it."""


def choose(what: str, value: object, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`; else `BadInput`, with the nearest match where there is one."""
    names = list(allowed)
    if value in names:
        return str(value)
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise BadInput(f"unknown {what} {value!r}{hint} (allowed: {', '.join(names)})")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a trial puts on one backend. `rate_hz` makes it a flow; without it, it is a sum of 1..`messages`.

    Raises `BadInput` for a value that is not allowed. What only the backend knows (its durability classes, its
    largest message) is checked by `trial`, still before anything is started.
    """

    backend: str
    messages: int = 1_000_000  # sum: how many integers
    rate_hz: float | None = None  # flow: messages offered per second; None: a sum
    duration_s: float = 10.0  # flow: for how long
    arrivals: Literal["grid", "poisson"] = "grid"  # flow: evenly spaced, or random and independent
    producers: int = 1
    workers: int = 1
    batch: int = 100  # the most messages in one put or one get
    size_bytes: int = HEADER_BYTES  # each message, its header of 32 bytes included
    durability: str | None = None  # memory, delayed or flushed; None: the backend's default
    work_s: float = 0.0  # time a worker spends on each message
    lease_s: float = 30.0  # for backends that redeliver by a lease
    backlog_max: int = 20_000  # sum: producers pause while more than this many wait (depth changes speed)
    time_max_s: float = 60.0  # sum: a cap, so that a slow backend reports its rate instead of hanging
    warmup_messages: int = 2_000  # put and drained before anything is measured
    seed: int = 0  # for Poisson arrivals
    pin: Literal["none", "separate", "together"] = "none"  # cores: see `pinning`
    why: bool = False  # read what server and machine say of themselves too; such a trial is not ranked
    count_fsyncs: bool = False  # by strace, which slows what it watches: such a trial is never ranked

    def __post_init__(self) -> None:
        _whole("messages", self.messages, 1, INTEGERS_MAX)
        _whole("producers", self.producers, 1, PROCESSES_MAX)
        _whole("workers", self.workers, 1, PROCESSES_MAX)
        _whole("batch", self.batch, 1, 100_000)
        _whole("size_bytes", self.size_bytes, HEADER_BYTES, 1 << 30)
        _whole("backlog_max", self.backlog_max, 1, 1_000_000_000)
        _whole("warmup_messages", self.warmup_messages, 0, 10_000_000)
        _whole("seed", self.seed, 0, 2**63 - 1)
        if self.rate_hz is not None:
            _number("rate_hz", self.rate_hz, 0.01, 10_000_000)
        _number("duration_s", self.duration_s, 0.1, 7 * 86_400)
        if self.rate_hz is not None and self.rate_hz * self.duration_s > INTEGERS_MAX:
            n = f"{self.rate_hz * self.duration_s:,.0f} messages"
            raise BadInput(f"rate_hz × duration_s is {n}; allowed: up to {INTEGERS_MAX:,} in one trial")
        _number("time_max_s", self.time_max_s, 0.1, 86_400)
        _number("work_s", self.work_s, 0.0, 3_600)
        _number("lease_s", self.lease_s, 0.1, 86_400)
        choose("pin", self.pin, PINS)
        _flag("why", self.why)
        _flag("count_fsyncs", self.count_fsyncs)
        choose("arrivals", self.arrivals, ("grid", "poisson"))
        if self.durability is not None:
            choose("durability", self.durability, [str(each) for each in Durability])

    @property
    def shape(self) -> Literal["sum", "flow"]:
        return "sum" if self.rate_hz is None else "flow"

    def changed(self, **changes: Any) -> Workload:
        """A copy with other values, checked like any other."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Workload:
        """From names and values, as they come over HTTP or from a notebook; an unknown name is refused."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in parameters:
            choose("parameter", name, known)
        if "backend" not in parameters:
            raise BadInput("a workload names its backend, e.g. backend='redis_list'")
        return cls(**parameters)


def _whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadInput(f"{name} is {value!r}; allowed: a whole number from {least} to {most}")


def _number(name: str, value: object, least: float, most: float) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not least <= value <= most:  # type: ignore[operator]
        raise BadInput(f"{name} is {value!r}; allowed: a number from {least:g} to {most:g}")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise BadInput(f"{name} is {value!r}; allowed: true or false")
