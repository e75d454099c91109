"""What repeats allow to say: exact rank test, Holm's correction, bootstrap intervals, and the word. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median_low
from typing import NamedTuple

import numpy as np

LEVEL = 0.05
"""How often chance alone may call any of the comparisons of one table different."""

MARGIN = 0.05
"""A ratio between 1/1.05 and 1.05 is of no practical interest."""

INTERVAL_N = 4
"""Fewer repeats of a side give no interval: it would hold the true ratio in 89 % of cases (3 repeats) or 67 % (2)."""

RESAMPLES = 9_999
SEED = 20_261_124

FASTER, SLOWER, SAME, UNSURE = "faster", "slower", "indistinguishable", "cannot tell"

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Pair:
    """One comparison: a figure's repeats of a backend, and of the reference.

    `more_is_faster`: True for a rate, False for a latency. `spoilt`: why no verdict may be given; "" where one may.
    """

    values: tuple[float, ...]
    reference: tuple[float, ...]
    more_is_faster: bool
    spoilt: str = ""

    @property
    def told(self) -> bool:
        return bool(self.values and self.reference)

    @property
    def judged(self) -> bool:
        return self.told and not self.spoilt


@dataclass(frozen=True)
class Verdict:
    """`ratio` of the medians, backend over reference, with its 95 % interval; None where there are too few values.

    Of two middle values the lower is the median, a figure that some trial had. `p`: of the exact rank test, after
    Holm's correction; None where no verdict may be given. `word`: faster, slower, indistinguishable or cannot tell.
    `why`: what stands against a verdict; "" where there is one.
    """

    n: int
    reference_n: int
    ratio: float | None
    low: float | None
    high: float | None
    p: float | None
    word: str
    why: str = ""


def judge(pairs: Sequence[Pair]) -> list[Verdict]:
    """A verdict for each pair. Holm's correction runs over all of them that are judged."""
    judged = [pair for pair in pairs if pair.judged]
    steps = iter(holm([rank_test(pair.values, pair.reference) for pair in judged]))
    return [_verdict(pair, next(steps) if pair.judged else None, len(judged)) for pair in pairs]


def _verdict(pair: Pair, step: Step | None, comparisons_n: int) -> Verdict:
    n, reference_n = len(pair.values), len(pair.reference)
    ratio = median_low(pair.values) / median_low(pair.reference) if pair.told else None
    low, high = interval(pair.values, pair.reference) if min(n, reference_n) >= INTERVAL_N else (None, None)
    if step is None:
        return Verdict(n, reference_n, ratio, low, high, None, UNSURE, pair.spoilt or "a figure is missing")
    word, why = _word(low, high, step.p, pair.more_is_faster), ""
    if word == UNSURE:
        too_few = low is None or (step.p > LEVEL and least_p(n, reference_n) * step.weight > LEVEL)
        needed = f"{_repeats(n, reference_n)}, at least {repeats_needed(comparisons_n)} of each side needed"
        why = needed if too_few else "too much spread"
    return Verdict(n, reference_n, ratio, low, high, step.p, word, why)


def _repeats(n: int, reference_n: int) -> str:
    """How often it was tried: "3 repeats", or "3 repeats against 2"."""
    words = "1 repeat" if n == 1 else f"{n} repeats"
    return words if n == reference_n else f"{words} against {reference_n}"


def _word(low: float | None, high: float | None, p: float, more_is_faster: bool) -> str:
    if low is None or high is None:
        return UNSURE
    if low >= 1 / (1 + MARGIN) and high <= 1 + MARGIN:
        return SAME
    if p <= LEVEL and (low > 1.0 or high < 1.0):
        return FASTER if (low > 1.0) == more_is_faster else SLOWER
    return UNSURE


def rank_test(a: Sequence[float], b: Sequence[float]) -> float:
    """The two-sided p of Wilcoxon, Mann and Whitney, exact for any size and with ties.

    It counts, over all ways of dealing the values to the two sides, those whose rank sum is as far from its middle.
    """
    ranks = _doubled_ranks(np.array([*a, *b], dtype=float))
    total = int(ranks.sum())
    ways = np.zeros((len(a) + 1, total + 1))  # by how many ranks were taken, and their sum
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : total + 1 - rank].copy()
    sums = ways[len(a)]
    middle = total * len(a) / len(ranks)
    distance = np.abs(np.arange(total + 1) - middle)
    observed = abs(int(ranks[: len(a)].sum()) - middle)
    return float(sums[distance >= observed - 1e-9].sum() / sums.sum())


def _doubled_ranks(values: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Twice the rank of each, so that the mean rank of ties is whole."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1


def least_p(n: int, reference_n: int) -> float:
    """The smallest p that the exact test can give: all of one side above all of the other."""
    return min(1.0, 2 / math.comb(n + reference_n, n))


def repeats_needed(comparisons_n: int) -> int:
    """The fewest repeats of each side with which the exact test can reach the level after correction, and an interval
    holds what it says.

    A floor: with fewer no difference passes, however large; to find a given one may need many more.
    """
    n = INTERVAL_N
    while least_p(n, n) * comparisons_n > LEVEL:
        n += 1
    return n


class Step(NamedTuple):
    """One p after Holm's correction, and by how much its own step multiplied it."""

    p: float
    weight: int


def holm(ps: Sequence[float]) -> list[Step]:
    """Holm's step-down correction: each p as it counts against the level of the whole family."""
    corrected = [Step(0.0, 0)] * len(ps)
    greatest = 0.0
    for step, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        weight = len(ps) - step
        greatest = max(greatest, min(1.0, ps[index] * weight))
        corrected[index] = Step(greatest, weight)
    return corrected


def interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of median(a) / median(b), from `RESAMPLES` resamples of a stated seed.

    Percentile, as the bias-corrected kinds degenerate with so few values. Medians are `statistics.median_low`.
    """
    ratios = _medians(a, 0) / _medians(b, 1)
    return _middle(ratios)


def own_interval(values: Sequence[float]) -> tuple[float, float]:
    """The same of one median."""
    return _middle(_medians(values, 0))


def _middle(resampled: Floats) -> tuple[float, float]:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def _medians(values: Sequence[float], side: int) -> Floats:
    picked: Floats = np.array(values, dtype=float)[_picks(len(values), side)]
    lower = (len(values) - 1) // 2
    middle: Floats = np.partition(picked, lower, axis=1)[:, lower]
    return middle


@lru_cache(maxsize=64)
def _picks(n: int, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.random.default_rng([SEED, side, n]).integers(n, size=(RESAMPLES, n))
