"""The arithmetic of repeats: exact tests against scipy and against counting, and A/A trials that must not differ."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import false_discovery_control, mannwhitneyu

from imqueue import inference
from imqueue.inference import FASTER, SAME, SLOWER, UNSURE, Pair, judge

KEPT = json.loads((Path(__file__).parent / "data" / "again.json").read_text())["trials"]
CELLS = [
    (backend, shape, figure)
    for backend in ("redis_list", "postgres")
    for shape, figure in (("sum", "rate_hz"), ("flow", "p50_s"), ("flow", "p99_s"))
]
DIFFERENT_MAX = 0.05


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 9), (8, 8), (12, 7)])
def test_without_ties_the_rank_test_is_scipys_exact_one(n: int, m: int) -> None:
    chance = np.random.default_rng(n * m)
    for shift in (0.0, 0.5, 2.0):
        a, b = list(chance.normal(size=n) + shift), list(chance.normal(size=m))
        assert inference.rank_test(a, b) == pytest.approx(mannwhitneyu(a, b, method="exact").pvalue)


def test_with_ties_the_rank_test_counts_every_way_of_dealing() -> None:
    a, b = (1.0, 2.0, 2.0, 5.0), (2.0, 3.0, 3.0, 1.0, 7.0)
    ranks = [sum(other < each for other in a + b) + sum(other <= each for other in a + b) for each in a + b]
    middle = sum(ranks) * len(a) / len(ranks)
    sums = [sum(ranks[index] for index in chosen) for chosen in combinations(range(9), 4)]
    as_far = sum(abs(each - middle) >= abs(sum(ranks[:4]) - middle) for each in sums)
    assert inference.rank_test(a, b) == pytest.approx(as_far / len(sums))


def test_equal_values_do_not_differ() -> None:
    assert inference.rank_test([1.0] * 5, [1.0] * 5) == 1.0


def test_the_least_p_is_that_of_a_complete_separation() -> None:
    assert inference.rank_test([1, 2, 3], [4, 5, 6]) == pytest.approx(inference.least_p(3, 3)) == pytest.approx(0.1)


@pytest.mark.parametrize(("comparisons_n", "needed_n"), [(1, 4), (2, 5), (27, 7), (120, 8)])
def test_the_repeats_needed_grow_with_the_comparisons(comparisons_n: int, needed_n: int) -> None:
    assert inference.repeats_needed(comparisons_n) == needed_n
    assert inference.least_p(needed_n - 1, needed_n - 1) * comparisons_n > inference.LEVEL


def test_holm_steps_down_and_never_reorders() -> None:
    assert inference.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert inference.holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_is_stricter_than_a_false_discovery_rate() -> None:
    ps = [0.001, 0.02, 0.03, 0.2]
    assert all(ours >= theirs for ours, theirs in zip(inference.holm(ps), false_discovery_control(ps), strict=True))


def test_the_interval_of_a_ratio_holds_the_true_one_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        pair = noisy(1.3, 0.1, 8, chance)
        low, high = inference.interval(pair.values, pair.reference)
        held += low <= 1.3 <= high
    assert 0.90 <= held / 200 <= 1.0


def noisy(ratio: float, spread: float, n: int, chance: np.random.Generator) -> Pair:
    a, b = ratio * np.exp(chance.normal(size=n) * spread), np.exp(chance.normal(size=n) * spread)
    return Pair(tuple(a), tuple(b), True)


def share(word: str, ratio: float, spread: float, n: int = 8, tries_n: int = 200) -> float:
    chance = np.random.default_rng(9)
    return sum(judge([noisy(ratio, spread, n, chance)])[0].word == word for _ in range(tries_n)) / tries_n


def test_an_effect_of_20_percent_is_found_mostly_where_repeats_spread_by_5_percent() -> None:
    assert share(FASTER, 1.2, 0.05) >= 0.95
    assert share(SLOWER, 1 / 1.2, 0.05) >= 0.95


def test_with_a_spread_of_40_percent_it_cannot_tell() -> None:
    assert share(UNSURE, 1.2, 0.4) >= 0.7


def test_the_same_is_called_indistinguishable_and_a_real_difference_hardly_ever() -> None:
    assert share(SAME, 1.0, 0.01) >= 0.95
    assert share(SAME, 1.051, 0.02) <= DIFFERENT_MAX


def test_holm_counts_in_the_verdict() -> None:
    chance = np.random.default_rng(1)
    one = Pair((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0), True)
    assert judge([one])[0].word == SLOWER
    more = judge([one, *(noisy(1.0, 0.1, 8, chance) for _ in range(3))])
    assert (more[0].word, more[0].why) == (UNSURE, "4 repeats, 5 needed")


# A/A: real trials of a backend against itself.


def values(backend: str, shape: str, figure: str) -> list[float]:
    return [each[figure] for each in KEPT if each["passed"] and (each["backend"], each["shape"]) == (backend, shape)]


def splits(found: list[float], n: int) -> Iterator[tuple[tuple[float, ...], tuple[float, ...]]]:
    """All ways of dealing the first 2n values into two halves of n."""
    indexes = set(range(2 * n))
    for chosen in combinations(range(2 * n), n):
        rest = sorted(indexes - set(chosen))
        yield tuple(found[index] for index in chosen), tuple(found[index] for index in rest)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_in_all_splits_of_twelve_aa_trials_the_rank_test_keeps_its_level(cell: tuple[str, str, str]) -> None:
    ps = [inference.rank_test(a, b) for a, b in splits(values(*cell), 6)]
    assert len(ps) == 924
    assert np.mean(np.array(ps) <= inference.LEVEL) <= DIFFERENT_MAX


@pytest.mark.parametrize("n", [6, 8, 12])
def test_aa_trials_come_out_different_in_at_most_5_percent_of_splits(n: int) -> None:
    chance = random.Random(n)
    words = []
    for cell in CELLS:
        found = values(*cell)
        assert len(found) >= 24
        for _ in range(100):
            dealt = chance.sample(found, 2 * n)
            words.append(judge([Pair(tuple(dealt[:n]), tuple(dealt[n:]), True)])[0].word)
    assert sum(word in (FASTER, SLOWER) for word in words) / len(words) <= DIFFERENT_MAX
