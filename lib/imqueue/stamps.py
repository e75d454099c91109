"""The stamps of a trial: what a reader must know before believing its figures. Pure arithmetic on measured facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LATE_SHARE_MAX = 0.01
BACKLOG_SHARE_MAX = 0.02
CLIENT_CORE_MAX = 0.85
MACHINE_CORE_MAX = 0.90
TICK_S = 0.01  # the kernel counts CPU time in these, so in a short window a share is known only roughly


@dataclass(frozen=True)
class Stamp:
    """`stamp`: invalid, watched, overload, client-bound or machine-bound. `reason`: one sentence, with its number."""

    stamp: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the stamps are judged by. Shares are of the measured window, `window_s` long.

    A share is over its bound where it is so by more than it can be wrong.
    """

    is_flow: bool
    attempted: int
    late: int  # messages whose producer put them over 10 ms late by its own fault
    due: int
    settled_in_window: int
    window_s: float
    client_cores: Mapping[str, float]  # child -> share of one core it used
    machine_cores: tuple[float, ...]  # busy share of each core
    errors: tuple[str, ...]  # of the harness, or what ended the trial before its time
    disagreements: tuple[str, ...]  # of Prometheus and the ledger
    watched: tuple[str, ...] = ()  # by whom, and what that costs


def judge(facts: Facts) -> list[Stamp]:
    """All stamps that apply, the gravest first."""
    stamps = [Stamp("invalid", error) for error in facts.errors]
    stamps += [Stamp("invalid", f"Prometheus and the ledger disagree: {each}") for each in facts.disagreements]
    stamps += [Stamp("watched", reason) for reason in facts.watched]
    if facts.is_flow:
        stamps += _of_flow(facts)
    error = TICK_S / facts.window_s if facts.window_s > 0 else 1.0
    busiest = max(facts.client_cores, key=lambda name: facts.client_cores[name], default=None)
    if busiest is not None and facts.client_cores[busiest] - error > CLIENT_CORE_MAX:
        share = facts.client_cores[busiest]
        stamps.append(Stamp("client-bound", f"{busiest} used {share:.0%} of a core: the client was the limit"))
    if facts.machine_cores and min(facts.machine_cores) - error > MACHINE_CORE_MAX:
        least = min(facts.machine_cores)
        n = len(facts.machine_cores)
        stamps.append(Stamp("machine-bound", f"all {n} cores were at least {least:.0%} busy"))
    return stamps


def _of_flow(facts: Facts) -> list[Stamp]:
    stamps = []
    if facts.attempted and facts.late > LATE_SHARE_MAX * facts.attempted:
        share = facts.late / facts.attempted
        reason = f"the producers themselves put {share:.1%} of the messages more than 10 ms late"
        stamps.append(Stamp("invalid", reason))
    grown = facts.due - facts.settled_in_window
    if facts.due and grown > BACKLOG_SHARE_MAX * facts.due:
        reason = f"{grown:,} of {facts.due:,} messages due were not settled when the schedule ended"
        stamps.append(Stamp("overload", reason))
    return stamps
