"""Percentiles to within one percent, or none."""

from __future__ import annotations

import numpy as np
import pytest

from imqueue.histogram import PROMETHEUS_BOUNDS_S, SIZE, Coarse, Histogram, bucket_bounds_ns


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
    assert histogram.quantile_s(0.4) == 0.0
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
