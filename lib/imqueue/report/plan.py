"""What a report runs: which notebooks, on which backends, in which durability class, how often."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from imqueue import costs, registry
from imqueue.workload import BadInput, choose

RATE_HZ = 2_000.0
"""Offered in every flow. The slowest backends settle about this many a second one by one and many times that in
batches, so all keep up and latency is compared, not saturation."""

CONTROLS = (costs.BETWEEN_PROCESSES, costs.IN_ONE_PROCESS)
"""Their sums are in every report, chosen or not: what the harness reaches by itself is the ceiling of all others."""

_AROUND_TRIAL_S = 6.0  # kernel, server's warm-up, scrapes, audit, page
_GUESSED_SUM_HZ = 30_000.0  # of a slow backend, for the estimate of the time


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The size of a report. `every_class`: each durability class that a backend has, not just its default.

    `price`: parameters of a page of 30_durability; None: the report has none. `why`: one more flow of each queue, with
    its server's own view beside it, which is not ranked.
    """

    name: str
    messages: int
    duration_s: float
    rate_hz: float = RATE_HZ
    repeats: int = 1
    every_class: bool = False
    sum_max_s: float = 60.0
    price: Mapping[str, Any] | None = None
    why: bool = False

    def what(self, seed: int) -> str:
        """In words, for the top of the report."""
        classes = "every durability class" if self.every_class else "class delayed where a backend has it, else its own"
        flows = f"flows of {self.rate_hz:,.0f} messages/s for {self.duration_s:g} s"
        words = f"sums of {self.messages:,} messages and {flows}, {CREW}, in {classes}, and beside them sums of the "
        words += "controls, the harness alone"
        if self.repeats == 1:
            return f"{words}, each once: figures without a ranking."
        return f"{words}, {self.repeats} repeats, interleaved in random order (seed {seed})."


CREW = "one producer and one worker, batches of up to 100, 32 bytes a message"
"""The defaults of the notebooks' parameters, which the profiles leave alone."""

PROFILES = {
    "quick": Profile(name="quick", messages=100_000, duration_s=8.0),
    "full": Profile(name="full", messages=1_000_000, duration_s=30.0, repeats=8, every_class=True, price={}, why=True),
}


@dataclass(frozen=True)
class Step:
    """One run of one notebook."""

    notebook: str
    shape: str
    backend: str
    durability: str
    repeat: int
    parameters: Mapping[str, Any]
    guess_s: float
    name: str  # of its page and its executed notebook


def profile_named(name: str) -> Profile:
    return PROFILES[choose("profile", name, PROFILES)]


def backends_named(text: str) -> list[str]:
    """`a,b` as a list; all of them for an empty text or `all`. Raises `BadInput` for an unknown one."""
    known = registry.names()
    if text.strip() in ("", "all"):
        return known
    wanted = [choose("backend", name.strip(), known) for name in text.split(",") if name.strip()]
    if not wanted:
        raise BadInput(f"BACKENDS is {text!r}; allowed: names with commas between them, or all")
    return list(dict.fromkeys(wanted))


def planned(profile: Profile, backends: Sequence[str], seed: int, controls: Sequence[str] = CONTROLS) -> list[Step]:
    """Sum and flow for every backend and class, and the sums of the controls; then the flows that are watched.

    Repeats come in blocks, each of them in an order of its own.
    """
    cells = [
        (shape, backend, durability)
        for backend in backends
        for durability in _classes(backend, profile)
        for shape in ("sum", "flow")
    ]
    beside = [name for name in controls if name not in backends]
    cells += [("sum", name, durability) for name in beside for durability in _classes(name, profile)]
    chance = random.Random(seed)
    steps = []
    for repeat in range(1, profile.repeats + 1):
        if profile.repeats > 1:
            chance.shuffle(cells)
        steps += [_step(profile, *cell, repeat) for cell in cells]
    queues = [name for name in backends if not registry.load(name).declares.control]
    return steps + [_watched(profile, name) for name in queues if profile.why]


def _watched(profile: Profile, backend: str) -> Step:
    step = _step(profile, "flow", backend, str(registry.load(backend).declares.default_durability), 1)
    return replace(step, parameters={**step.parameters, "why": True}, name=f"{step.notebook}-{backend}-why")


def _classes(backend: str, profile: Profile) -> list[str]:
    declares = registry.load(backend).declares
    offered = declares.durabilities if profile.every_class else (declares.default_durability,)
    return [str(each) for each in offered]


def _step(profile: Profile, shape: str, backend: str, durability: str, repeat: int) -> Step:
    parameters: dict[str, Any] = {"backend": backend, "durability": durability}
    if shape == "sum":
        notebook = "10_sum"
        parameters |= {"messages": profile.messages, "time_max_s": profile.sum_max_s}
        guess_s = min(profile.messages / _GUESSED_SUM_HZ, profile.sum_max_s)
    else:
        notebook = "20_flow"
        parameters |= {"rate_hz": profile.rate_hz, "duration_s": profile.duration_s}
        guess_s = profile.duration_s
    name = f"{notebook}-{backend}"
    if profile.every_class:
        name += f"-{durability}"
    if profile.repeats > 1:
        name += f"-{repeat}"
    return Step(notebook, shape, backend, durability, repeat, parameters, guess_s + _AROUND_TRIAL_S, name)
