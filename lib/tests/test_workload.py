"""Bad input gets one sentence that names the value and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from imqueue.workload import BadInput, Workload, choose


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"rate_hz": -1.0}, "rate_hz is -1.0; allowed: a number from 0.01"),
        ({"rate_hz": float("nan")}, "rate_hz is nan"),
        ({"rate_hz": "fast"}, "rate_hz is 'fast'"),
        ({"workers": 0}, "workers is 0; allowed: a whole number from 1 to 64"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"workers": True}, "workers is True"),
        ({"producers": 65}, "producers is 65"),
        ({"size_bytes": 31}, "size_bytes is 31; allowed: a whole number from 32"),
        ({"batch": 0}, "batch is 0"),
        ({"messages": 0}, "messages is 0"),
        ({"duration_s": 0}, "duration_s is 0"),
        ({"durability": "flushd"}, "unknown durability 'flushd'; did you mean 'flushed'? (allowed: memory, delayed"),
        ({"arrivals": "random"}, "unknown arrivals 'random'"),
        ({"why": 1}, "why is 1; allowed: true or false"),
        ({"count_fsyncs": "False"}, "count_fsyncs is 'False'; allowed: true or false"),
        ({"count_fsyncs": "true"}, "count_fsyncs is 'true'; allowed: true or false"),
        ({"wrokers": 2}, "unknown parameter 'wrokers'; did you mean 'workers'?"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_in_one_line(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as refused:
        Workload.of({"backend": "memory", **parameters})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_workload_without_backend_is_refused() -> None:
    with pytest.raises(BadInput, match="names its backend"):
        Workload.of({"rate_hz": 5.0})


def test_a_rate_makes_it_a_flow() -> None:
    assert Workload(backend="memory").shape == "sum"
    assert Workload(backend="memory", rate_hz=5).shape == "flow"


def test_a_change_is_checked_like_a_beginning() -> None:
    with pytest.raises(BadInput, match="workers is 0"):
        Workload(backend="memory").changed(workers=0)


def test_what_resembles_nothing_gets_no_suggestion() -> None:
    with pytest.raises(BadInput) as refused:
        choose("backend", "zzzz", ["memory", "sqlite"])
    assert str(refused.value) == "unknown backend 'zzzz' (allowed: memory, sqlite)"
