"""Each stamp falls where its number passes its bound, and says the number."""

from __future__ import annotations

from typing import Any

import pytest

from imqueue.stamps import Facts, judge

FINE: dict[str, Any] = {
    "is_flow": True,
    "attempted": 10_000,
    "late": 100,
    "due": 10_000,
    "settled_in_window": 9_800,
    "window_s": 10.0,
    "client_cores": {"producer-0": 0.85, "worker-0": 0.2},
    "machine_cores": (0.9, 0.99),
    "errors": (),
    "disagreements": (),
}


def stamps(**changes: Any) -> list[tuple[str, str]]:
    return [(each.stamp, each.reason) for each in judge(Facts(**{**FINE, **changes}))]


def test_at_the_bounds_there_is_none() -> None:
    assert stamps() == []


@pytest.mark.parametrize(
    ("changes", "stamp", "says"),
    [
        ({"late": 101}, "invalid", "1.0% of the messages more than 10 ms late"),
        ({"errors": ("worker-0 died unasked",)}, "invalid", "worker-0 died unasked"),
        ({"disagreements": ("pop: 5 and 6",)}, "invalid", "disagree: pop: 5 and 6"),
        ({"settled_in_window": 9_799}, "overload", "201 of 10,000 messages due"),
        ({"client_cores": {"producer-0": 0.1, "worker-1": 0.86}}, "client-bound", "worker-1 used 86% of a core"),
        ({"machine_cores": (0.91, 0.95)}, "machine-bound", "all 2 cores were at least 91% busy"),
    ],
)
def test_beyond_a_bound_the_stamp_names_the_number(changes: dict[str, Any], stamp: str, says: str) -> None:
    ((fallen, reason),) = stamps(**changes)
    assert fallen == stamp
    assert says in reason


@pytest.mark.parametrize(("window_s", "n"), [(0.0, 0), (0.02, 0), (0.06, 0), (0.2, 2)])
def test_a_window_too_short_to_tell_a_share_bears_no_stamp_for_it(window_s: float, n: int) -> None:
    assert len(stamps(window_s=window_s, client_cores={"producer-0": 1.0}, machine_cores=(1.0, 1.0))) == n


def test_a_sum_is_neither_late_nor_overloaded() -> None:
    assert stamps(is_flow=False, late=9_999, settled_in_window=0) == []


def test_the_gravest_comes_first() -> None:
    fallen = [name for name, _ in stamps(machine_cores=(1.0,), settled_in_window=0, late=5_000)]
    assert fallen == ["invalid", "overload", "machine-bound"]
