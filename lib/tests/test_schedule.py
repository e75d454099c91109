"""The schedule is fixed before its segment starts, and everybody computes the same one."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from imqueue.schedule import CHUNK, DueCounter, Segment

START_NS = 1_000_000_000_000


def due_ns(segment: Segment, n: int) -> np.ndarray:
    chunks = islice(segment.arrivals(), -(-n // CHUNK))
    return np.concatenate(list(chunks))[:n]


def test_a_grid_is_even_and_does_not_drift() -> None:
    times = due_ns(Segment(START_NS, 1, 3000.0, 1), 30_001)
    assert times[0] == START_NS
    assert times[30_000] == START_NS + 10 * 10**9
    assert set(np.diff(times)) <= {333_333, 333_334}


def test_poisson_arrivals_are_those_of_their_seed_and_of_their_rate() -> None:
    segment = Segment(START_NS, 1, 1000.0, 1, poisson=True, seed=5)
    times = due_ns(segment, 20_000)
    gaps = np.diff(times)

    assert (times == due_ns(segment, 20_000)).all()
    assert (times != due_ns(Segment(START_NS, 1, 1000.0, 1, poisson=True, seed=6), 20_000)).any()
    assert (gaps >= 0).all()
    # The mean of 20,000 exponential gaps lies within 3 % of 1/rate in all but one of 20,000 seeds; so does the spread.
    assert gaps.mean() == pytest.approx(1e6, rel=0.03)
    assert gaps.std() == pytest.approx(1e6, rel=0.05)


@pytest.mark.parametrize("producers", [1, 2, 3, 7])
@pytest.mark.parametrize("poisson", [False, True])
def test_producers_share_a_segment_without_gap_or_overlap(producers: int, poisson: bool) -> None:
    segment = Segment(START_NS, 101, 5000.0, producers, poisson, seed=1)
    n = 3 * CHUNK
    all_due = due_ns(segment, n)
    seen: dict[int, int] = {}
    for rank in range(producers):
        for first, mine in islice(segment.share(rank), 3):
            seen.update({first + k * producers: int(at) for k, at in enumerate(mine)})

    assert sorted(seen) == list(range(101, 101 + n))
    assert [seen[101 + i] for i in range(n)] == all_due.tolist()


def test_the_counter_agrees_with_a_plain_count_over_several_segments() -> None:
    first = Segment(START_NS, 1, 777.0, 1)
    second_start_ns = START_NS + 1_234_567_890
    n_first = int((due_ns(first, 4000) < second_start_ns).sum())
    second = Segment(second_start_ns, 1 + n_first, 9000.0, 3, poisson=True, seed=2)
    third_start_ns = second_start_ns + 500_000_000
    n_second = int((due_ns(second, 20_000) < third_start_ns).sum())
    counter = DueCounter()
    for segment in (first, second, Segment(third_start_ns, 0, 10.0, 1)):
        counter.add(segment)

    assert counter.count(START_NS) == 0
    assert counter.count(START_NS + 500_000_000) == int((due_ns(first, 4000) < START_NS + 500_000_000).sum())
    assert counter.count(third_start_ns) == n_first + n_second
    assert counter.count(third_start_ns + 1_000_000_001) == n_first + n_second + 11


def test_a_counter_with_nothing_to_count_says_zero() -> None:
    assert DueCounter().count(START_NS) == 0
