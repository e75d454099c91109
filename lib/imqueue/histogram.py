"""Histograms of latencies: a fine one for percentiles, a coarse one for Prometheus. Both merge by adding counts.

The fine buckets are log-linear, as in HdrHistogram: 128 to an octave, so a value is known to within 0.4 %.
Zero and negative values have counts of their own; nothing is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SUB_BITS = 7  # 2^7 buckets to an octave
OCTAVES = 40  # 1 ns up to 1,099 s
SIZE = OCTAVES << SUB_BITS
_EXPONENT_BIAS = 1023
_SHIFT = 52 - SUB_BITS

PROMETHEUS_BOUNDS_S: NDArray[np.float64] = 1e-5 * 2.0 ** (np.arange(94) / 4)
"""Upper bounds of the coarse buckets: ratio 2^(1/4) from 10 us to 100 s."""
_BOUNDS_NS = PROMETHEUS_BOUNDS_S * 1e9


def _indices(values_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    bits = values_ns.astype(np.float64).view(np.int64)
    return (bits >> _SHIFT) - (_EXPONENT_BIAS << SUB_BITS)


def bucket_bounds_ns(index: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower (closed) and upper (open) bounds of fine buckets."""
    octave, sub = index >> SUB_BITS, index & ((1 << SUB_BITS) - 1)
    width = np.exp2(octave - SUB_BITS)
    lower = np.exp2(octave) + sub * width
    return lower, lower + width


class Quantile(NamedTuple):
    """`value_s` to within 0.4 %, or None and the `reason` why it is unresolved."""

    value_s: float | None
    reason: str = ""


def too_few(n: int, q: float) -> str:
    """Why `n` values do not resolve the quantile `q`: it takes 10 beyond it. Empty: they do."""
    needed = int(np.ceil(10 / (1.0 - q) - 1e-6))
    return "" if n >= needed else f"{n:,} messages, and it takes {needed:,}"


_COARSE_OF: NDArray[np.int64] = np.searchsorted(_BOUNDS_NS, bucket_bounds_ns(np.arange(SIZE))[0], side="left")
"""For each fine bucket the coarse one of its least value. A fine one is narrow: its others are there or one above."""
_WHOLE_BOUNDS_NS = np.append(_BOUNDS_NS.astype(np.int64), np.iinfo(np.int64).max)  # none is above the last


@dataclass
class Histogram:
    """Counts by fine bucket; `zero_n` and `negative_n` beside them; values over 1,099 s count in `over_n`."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SIZE, dtype=np.int64))
    zero_n: int = 0
    negative_n: int = 0
    over_n: int = 0
    max_ns: int = 0

    def add(self, values_ns: NDArray[np.int64]) -> None:
        if not len(values_ns):
            return
        self.max_ns = max(self.max_ns, int(values_ns.max()))
        if int(values_ns.min()) <= 0:
            self.zero_n += int((values_ns == 0).sum())
            self.negative_n += int((values_ns < 0).sum())
            values_ns = values_ns[values_ns > 0]
        indices = _indices(values_ns)
        if self.max_ns >= 1 << OCTAVES:
            self.over_n += int((indices >= SIZE).sum())
            indices = indices[indices < SIZE]
        self.counts += np.bincount(indices, minlength=SIZE)

    def merge(self, other: Histogram) -> None:
        self.counts = self.counts + other.counts
        self.zero_n += other.zero_n
        self.negative_n += other.negative_n
        self.over_n += other.over_n
        self.max_ns = max(self.max_ns, other.max_ns)

    @property
    def n(self) -> int:
        return int(self.counts.sum()) + self.zero_n + self.negative_n + self.over_n

    def quantile(self, q: float) -> Quantile:
        """The value that a share `q` of all values does not exceed.

        Unresolved where fewer than 10/(1-q) values stand behind it, or where it lies in the first or last bucket, whose
        far side is not known to be one.
        """
        n = self.n
        if reason := too_few(n, q):
            return Quantile(None, reason)
        rank = max(1, int(np.ceil(q * n - 1e-9)))
        cumulative = self.zero_n + self.negative_n + np.cumsum(self.counts)
        index = int(np.searchsorted(cumulative, rank))
        if index == 0:
            return Quantile(None, "it lies in the first bucket, at 1 ns or under")
        if index >= SIZE - 1:
            return Quantile(None, f"it lies in the last bucket, at {(1 << OCTAVES) / 1e9:,.0f} s or over")
        lower, upper = bucket_bounds_ns(np.array([index]))
        return Quantile(float(lower[0] + upper[0]) / 2e9)

    def quantile_s(self, q: float) -> float | None:
        """`quantile(q).value_s`."""
        return self.quantile(q).value_s


class Estimate(NamedTuple):
    """What Prometheus tells of a quantile: it lies from `lower_s` to `upper_s`; `value_s` is its guess in between."""

    value_s: float
    lower_s: float
    upper_s: float


def prometheus_quantile(bounds_s: NDArray[np.float64], cumulative: NDArray[np.float64], q: float) -> Estimate | None:
    """What PromQL's `histogram_quantile` makes of cumulative counts by upper bounds (the last: +Inf), with its bucket.

    It takes the values of a bucket for evenly spread. None where fewer than 10/(1-q) values stand behind it, or where
    it lies in the first or last bucket.
    """
    total = float(cumulative[-1]) if len(cumulative) else 0.0
    if too_few(int(total), q):
        return None
    rank = q * total
    bucket = int(np.searchsorted(cumulative, rank))
    if bucket == 0 or bucket >= len(bounds_s) - 1:
        return None
    lower_s, upper_s = float(bounds_s[bucket - 1]), float(bounds_s[bucket])
    before, upto = float(cumulative[bucket - 1]), float(cumulative[bucket])
    return Estimate(lower_s + (upper_s - lower_s) * (rank - before) / (upto - before), lower_s, upper_s)


class Coarse:
    """Cumulative counts by Prometheus' bounds, and the sum, as its histograms want them."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(PROMETHEUS_BOUNDS_S) + 1, dtype=np.int64)
        self.sum_s = 0.0

    def add(self, values_ns: NDArray[np.int64]) -> None:
        """A value on a bound counts below it (`le`); zero and negative ones count in the first bucket."""
        fine = np.clip(_indices(np.maximum(values_ns, 1)), 0, SIZE - 1)  # a seventh of the time of a search for each
        places = _COARSE_OF[fine]
        places += values_ns > _WHOLE_BOUNDS_NS[places]
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.sum_s += float(values_ns.sum()) / 1e9

    def buckets(self) -> list[tuple[str, float]]:
        cumulative = np.cumsum(self.counts)
        names = [f"{bound:.6g}" for bound in PROMETHEUS_BOUNDS_S] + ["+Inf"]
        return list(zip(names, cumulative.astype(float).tolist(), strict=True))
