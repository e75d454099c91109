"""What producers put, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imqueue import ledger, pace
from imqueue.control import Control, Phase
from imqueue.ledger import MESSAGES_N, Writer
from imqueue.pace import Batch, clock_ns
from imqueue.schedule import Segment
from imqueue.workload import Workload

HOUR_NS = 3600 * 10**9


@pytest.fixture
def control(tmp_path: Path) -> Control:
    (tmp_path / "ledger").mkdir()
    return Control(tmp_path, create=True)


def integers(batches: Iterator[Batch]) -> list[int]:
    return [k for batch in batches for k in pace.numbers(batch.first, batch.n, batch.step).tolist()]


def flow(control: Control, rate_hz: float, duration_s: float, producers: int = 1) -> int:
    go_ns = clock_ns() + 1_000_000
    control.add(Segment(go_ns, 1, rate_hz, producers))
    control.go(go_ns, go_ns + int(duration_s * 1e9))
    return go_ns


@pytest.mark.parametrize("producers", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_producers_of_a_sum_put_each_integer_once(control: Control, producers: int, batch: int) -> None:
    workload = Workload(backend="memory", messages=500, producers=producers, batch=batch, backlog_max=10**6)
    control.go(clock_ns(), clock_ns() + HOUR_NS)
    shares = [pace.of_sum(workload, control, rank, lambda: 0) for rank in range(producers)]  # type: ignore[arg-type]

    assert sorted(k for share in shares for k in integers(share)) == list(range(1, 501))


def test_a_sum_waits_while_the_backlog_is_full_and_goes_on_when_it_is_not(control: Control, tmp_path: Path) -> None:
    for name in ("producer-0", "worker-0"):
        ledger.create(tmp_path / "ledger", name)
        control.seat(name.partition("-")[0])
    producer, worker = (Writer(tmp_path / "ledger", name) for name in ("producer-0", "worker-0"))
    workload = Workload(backend="memory", messages=100, batch=10, backlog_max=20)
    control.go(clock_ns(), clock_ns() + HOUR_NS)
    batches = pace.of_sum(workload, control, 0, pace.Backlog(tmp_path / "ledger", control))
    for _ in range(2):
        batch = next(batches)
        producer.attempted(batch.first, batch.n, batch.step, 1)
    waiting = threading.Thread(target=next, args=(batches,))
    waiting.start()
    waiting.join(0.05)
    held = waiting.is_alive()
    worker.words[MESSAGES_N] += 10
    waiting.join(5)

    assert held
    assert not waiting.is_alive()


def test_a_sum_ends_at_its_time_cap_also_while_it_waits(control: Control) -> None:
    workload = Workload(backend="memory", messages=100, batch=10, backlog_max=20)
    control.go(clock_ns(), clock_ns() + 50_000_000)
    assert integers(pace.of_sum(workload, control, 0, lambda: 50)) == []  # type: ignore[arg-type]


def test_a_flow_puts_all_that_is_due_and_nothing_before_it_is(control: Control) -> None:
    workload = Workload(backend="memory", rate_hz=1000, batch=5)
    go_ns = flow(control, 1000, 0.2)
    seen: list[int] = []
    for batch in pace.of_flow(workload, control, 0, 0):
        assert batch.due_ns is not None
        assert batch.due_ns[-1] <= clock_ns()
        assert batch.n <= 5
        seen += pace.numbers(batch.first, batch.n, batch.step).tolist()

    assert seen == list(range(1, 201))
    assert clock_ns() >= go_ns + 199_000_000


def test_after_a_stall_what_was_due_meanwhile_is_put_in_full_batches(control: Control) -> None:
    workload = Workload(backend="memory", rate_hz=1000, batch=50)
    flow(control, 1000, 0.3)
    batches = pace.of_flow(workload, control, 0, 0)
    next(batches)
    time.sleep(0.15)
    after = [next(batches).n for _ in range(2)]

    assert after == [50, 50]


def test_a_change_of_rate_takes_effect_at_its_time_and_skips_no_integer(control: Control) -> None:
    workload = Workload(backend="memory", rate_hz=1000)
    go_ns = flow(control, 1000, 0.4)
    control.add(Segment(go_ns + 200_000_000, 201, 5000, 2))
    shares = {rank: integers(pace.of_flow(workload, control, rank, min(rank, 1))) for rank in (0,)}
    joined = integers(pace.of_flow(workload, control, 1, 1))

    assert shares[0][:200] == list(range(1, 201))
    assert sorted(shares[0] + joined) == list(range(1, 1201))


def test_a_producer_that_is_ready_before_its_segment_waits_for_it(control: Control) -> None:
    workload = Workload(backend="memory", rate_hz=1000, producers=2)
    go_ns = flow(control, 1000, 0.3)
    threading.Timer(0.05, lambda: control.add(Segment(go_ns + 100_000_000, 101, 1000, 2))).start()

    assert integers(pace.of_flow(workload, control, 1, 1)) == list(range(102, 301, 2))


def test_a_flow_ends_when_it_is_told_to_stop(control: Control) -> None:
    flow(control, 10, 3600)
    threading.Timer(0.1, lambda: setattr(control, "phase", Phase.STOP)).start()
    started_s = time.monotonic()
    list(pace.of_flow(Workload(backend="memory", rate_hz=10), control, 0, 0))

    assert time.monotonic() - started_s < 5
