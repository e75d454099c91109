"""Percentiles to within one percent, or none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imqueue.histogram import (
    PROMETHEUS_BOUNDS_S,
    SIZE,
    Coarse,
    Histogram,
    bucket_bounds_ns,
    prometheus_quantile,
    too_few,
)


def filled(values_ns: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values_ns.astype(np.int64))
    return histogram


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99, 0.999])
def test_a_quantile_is_within_one_percent_of_the_exact_one(q: float) -> None:
    values = np.random.default_rng(1).lognormal(13, 2, 200_000).astype(np.int64) + 1
    exact_s = np.quantile(values, q, method="inverted_cdf") / 1e9
    assert filled(values).quantile_s(q) == pytest.approx(exact_s, rel=0.01)


def test_every_value_lies_within_its_bucket() -> None:
    for value in (1, 2, 3, 127, 128, 129, 999, 10**6 + 7, 10**9, 10**12 - 1):
        (index,) = np.flatnonzero(filled(np.array([value])).counts)
        lower, upper = bucket_bounds_ns(np.array([index]))
        assert lower[0] <= value < upper[0]
        assert (upper[0] - lower[0]) / lower[0] < 0.01


def test_a_percentile_that_rests_on_too_few_values_is_not_told() -> None:
    assert filled(np.full(999, 10**6)).quantile_s(0.99) is None
    assert filled(np.full(1000, 10**6)).quantile_s(0.99) == pytest.approx(1e-3, rel=0.01)
    assert Histogram().quantile_s(0.5) is None


def test_zero_and_negative_values_are_counted_not_dropped() -> None:
    histogram = filled(np.array([0] * 30 + [-5] * 20 + [10**6] * 50))
    assert (histogram.n, histogram.zero_n, histogram.negative_n) == (100, 30, 20)
    assert histogram.quantile(0.4) == (None, "it lies in the first bucket, at 1 ns or under")
    assert histogram.quantile_s(0.75) == pytest.approx(1e-3, rel=0.01)


def test_a_value_beyond_the_last_bucket_is_counted_and_leaves_its_percentile_unresolved() -> None:
    histogram = filled(np.array([10**6] * 50 + [2**41] * 50))
    assert (histogram.n, histogram.over_n) == (100, 50)
    assert histogram.quantile_s(0.8) is None
    assert len(histogram.counts) == SIZE


def test_merging_is_the_same_as_recording_all_in_one() -> None:
    random = np.random.default_rng(2)
    parts = [random.exponential(1e6, 1000).astype(np.int64) for _ in range(3)]
    merged = Histogram()
    for part in parts:
        merged.merge(filled(part))
    together = filled(np.concatenate(parts))
    assert (merged.counts == together.counts).all()
    assert (merged.n, merged.max_ns) == (together.n, together.max_ns)


def test_prometheus_buckets_count_each_value_at_and_below_its_bound() -> None:
    coarse = Coarse()
    bounds_ns = PROMETHEUS_BOUNDS_S * 1e9
    coarse.add(np.array([-1, 0, 5000, 10_000, 10_001, 2 * 10**11]))
    buckets = coarse.buckets()

    assert len(buckets) == len(bounds_ns) + 1
    assert buckets[0] == ("1e-05", 4.0)
    assert buckets[1][1] == 5.0
    assert buckets[-2][1] == 5.0
    assert buckets[-1] == ("+Inf", 6.0)


def test_prometheus_bounds_run_from_ten_microseconds_to_a_hundred_seconds() -> None:
    assert PROMETHEUS_BOUNDS_S[0] == pytest.approx(1e-5)
    assert PROMETHEUS_BOUNDS_S[-1] >= 95.0
    assert np.allclose(PROMETHEUS_BOUNDS_S[1:] / PROMETHEUS_BOUNDS_S[:-1], 2**0.25)


def test_a_percentile_in_the_first_or_last_bucket_is_unresolved_and_says_why() -> None:
    first = filled(np.full(100, 1)).quantile(0.5)
    last = filled(np.full(100, (1 << 40) - 1)).quantile(0.5)
    beyond = filled(np.full(100, 1 << 41)).quantile(0.5)

    assert (first.value_s, last.value_s, beyond.value_s) == (None, None, None)
    assert "first bucket" in first.reason
    assert "last bucket" in last.reason
    assert last == beyond
    assert filled(np.full(100, 2)).quantile(0.5).value_s == pytest.approx(2e-9, rel=0.01)


def test_the_reason_names_how_many_messages_are_missing() -> None:
    assert filled(np.full(999, 10**6)).quantile(0.99).reason == "999 messages, and it takes 1,000"
    assert Histogram().quantile(0.5).reason == "0 messages, and it takes 20"


def coarse(values_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds in seconds and cumulative counts, as Prometheus is told them."""
    told = Coarse()
    told.add(values_ns)
    bounds, counts = zip(*told.buckets(), strict=True)
    return np.array([float(bound) for bound in bounds]), np.array(counts)


latencies = st.one_of(
    st.lists(st.integers(0, 2 * 10**11), min_size=1, max_size=300),
    st.tuples(st.integers(0, 2**32), st.floats(9, 20), st.floats(0.01, 2), st.integers(20, 3000)).map(
        lambda made: np.random.default_rng(made[0]).lognormal(made[1], made[2], made[3]).astype(np.int64).tolist()
    ),
)


@given(latencies, st.sampled_from([0.1, 0.5, 0.9, 0.99]))
def test_the_exact_quantile_lies_in_the_band_of_prometheus_own(values: list[int], q: float) -> None:
    values_ns = np.array(values, dtype=np.int64)
    estimate = prometheus_quantile(*coarse(values_ns), q)
    exact_s = float(np.quantile(values_ns, q, method="inverted_cdf")) / 1e9

    if estimate is None:
        least, most = PROMETHEUS_BOUNDS_S[0], PROMETHEUS_BOUNDS_S[-1]
        assert too_few(len(values), q) or exact_s <= least or exact_s > most * (1 - 1e-5)
        return
    rounding = 1e-5  # bounds are told with six figures
    assert estimate.lower_s * (1 - rounding) <= exact_s <= estimate.upper_s * (1 + rounding)
    assert estimate.lower_s <= estimate.value_s <= estimate.upper_s
    assert estimate.upper_s / estimate.lower_s == pytest.approx(2**0.25, rel=1e-4)
    fine_s = filled(values_ns).quantile_s(q)
    assert fine_s == pytest.approx(exact_s, rel=0.004)


@given(st.lists(st.integers(-(10**6), 2**62), max_size=200), st.integers(0, len(PROMETHEUS_BOUNDS_S) - 1))
def test_every_value_is_in_the_prometheus_bucket_that_a_plain_search_finds(values: list[int], index: int) -> None:
    bound_ns = int(PROMETHEUS_BOUNDS_S[index] * 1e9)
    values_ns = np.array([*values, bound_ns - 1, bound_ns, bound_ns + 1], dtype=np.int64)
    told = Coarse()
    told.add(values_ns)
    searched = np.searchsorted(PROMETHEUS_BOUNDS_S * 1e9, values_ns, side="left")
    assert told.counts.tolist() == np.bincount(searched, minlength=len(PROMETHEUS_BOUNDS_S) + 1).tolist()
