"""The arithmetic of repeats: exact tests against scipy and against counting, and A/A trials that must not differ."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import again
import numpy as np
import pytest
from made import make_trial
from scipy.stats import binom, false_discovery_control, mannwhitneyu

from imqueue import inference
from imqueue.inference import FASTER, SAME, SLOWER, UNSURE, Pair, judge
from imqueue.results import Result

AGAIN = json.loads((Path(__file__).parent / "data" / "again.json").read_text())
BLOCKS_N = 24
SPLITS_N = 100
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
    steps = inference.holm([0.01, 0.04, 0.03, 0.005])
    assert [step.p for step in steps] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [step.weight for step in steps] == [3, 1, 2, 4]
    assert [step.p for step in inference.holm([0.9, 0.8])] == [1.0, 1.0]


def test_holm_is_stricter_than_a_false_discovery_rate() -> None:
    ps = [0.001, 0.02, 0.03, 0.2]
    assert all(ours.p >= theirs for ours, theirs in zip(inference.holm(ps), false_discovery_control(ps), strict=True))


@pytest.mark.parametrize("n", [inference.INTERVAL_N, 8])
def test_the_interval_of_a_ratio_holds_the_true_one_about_as_often_as_it_says(n: int) -> None:
    chance = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        pair = noisy(1.3, 0.1, n, chance)
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
    assert (more[0].word, more[0].why) == (UNSURE, "4 repeats, at least 5 of each side needed")


def even(n: int, ratio: float = 1.0) -> tuple[float, ...]:
    return tuple(ratio * (1 + each / 1_000) for each in range(n))


def same(comparisons_n: int) -> list[Pair]:
    return [
        Pair((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0), (8.5, 0.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5), True)
    ] * comparisons_n


def test_few_repeats_against_many_are_told_different_where_holm_lets_them() -> None:
    found = judge([Pair(even(4, 2.0), even(10), True), *same(9)])[0]
    assert found.p == pytest.approx(10 * inference.least_p(4, 10))
    assert (found.word, found.why) == (FASTER, "")


def test_a_later_step_of_holms_needs_fewer_repeats_than_the_first() -> None:
    strong = [Pair(even(8, 2.0), even(8), True)] * 3
    assert judge([Pair(even(4, 2.0), even(4), True), *strong])[0].word == FASTER


def test_few_repeats_can_be_indistinguishable_in_any_family() -> None:
    assert judge([Pair(even(4), even(4), True), *same(40)])[0].word == SAME


def test_enough_repeats_that_differ_too_little_are_not_told_to_be_too_few() -> None:
    assert {found.why for found in judge(same(3))} == {"too much spread"}


@pytest.mark.parametrize("n", [2, 3])
def test_fewer_than_four_repeats_have_no_interval_and_no_verdict(n: int) -> None:
    (found,) = judge([Pair(even(n), even(n), True)])
    assert (found.low, found.word, found.why) == (None, UNSURE, f"{n} repeats, at least 4 of each side needed")


def test_the_ratio_is_one_of_figures_that_trials_had() -> None:
    (found,) = judge([Pair((1.0, 2.0, 6.0, 9.0), (1.0, 4.0, 5.0, 8.0), False)])
    assert found.ratio == 0.5


# A/A: real trials of a backend against itself.


class Kept(NamedTuple):
    """The figures of one cell of the kept trials, in the order in which they ran: one from each block."""

    figures: tuple[float, ...]
    more_is_faster: bool

    def dealt(self, first: Collection[int]) -> Pair:
        """Against itself: the trials of the blocks in `first`, and all others."""
        ours = tuple(value for block, value in enumerate(self.figures) if block in first)
        theirs = tuple(value for block, value in enumerate(self.figures) if block not in first)
        return Pair(ours, theirs, self.more_is_faster)


@pytest.fixture(scope="module")
def kept() -> dict[str, Kept]:
    """Trials by backend, shape and figure, made by `again.py`."""
    ran = [(each["block"], each["order"]) for each in AGAIN["trials"]]
    assert ran == sorted(set(ran))
    found = {}
    for backend, shape, figure in CELLS:
        trials = [each for each in AGAIN["trials"] if (each["backend"], each["shape"]) == (backend, shape)]
        assert [each["block"] for each in trials] == list(range(len(trials)))
        assert all(each["passed"] for each in trials)
        found[f"{backend} {shape} {figure}"] = Kept(tuple(each[figure] for each in trials), figure == "rate_hz")
    return found


def different(pairs: Sequence[Pair]) -> int:
    return sum(found.word in (FASTER, SLOWER) for found in judge(pairs))


def windows(kept: dict[str, Kept], n: int) -> Iterator[list[Kept]]:
    """All cells in `2 * n` blocks that follow each other."""
    for start in range(BLOCKS_N - 2 * n + 1):
        yield [cell._replace(figures=cell.figures[start : start + 2 * n]) for cell in kept.values()]


def test_the_kept_trials_are_enough_and_say_where_they_come_from(kept: dict[str, Kept]) -> None:
    assert {len(cell.figures) for cell in kept.values()} == {BLOCKS_N}
    setting = AGAIN["setting"]
    assert set(setting) == {"workloads", "seed", "code", "machine", "backends"}
    assert set(setting["machine"]) == {"cpu", "cores", "memory_bytes", "distribution"}
    for backend in ("redis_list", "postgres"):
        assert set(setting["backends"][backend]) == {"server", "server_private", "durability", "guarantees"}


def test_what_makes_them_anew_keeps_what_was_read_and_no_name_of_a_kernel(tmp_path: Path) -> None:
    machine = {**AGAIN["setting"]["machine"], "system": "Debian GNU/Linux 12, Linux 6.1-ours, x86_64", "governor": "?"}
    made: dict[str, Any] = {"machine": machine, "server_private": True, "durability": "flushed"}
    ours, other = (
        Result(make_trial(tmp_path, sampled=False, code={"source": code}, **made)) for code in ("abc", "abd")
    )
    setting = again.setting({"redis_list": ours})
    assert set(setting) == set(AGAIN["setting"])
    assert set(setting["machine"]) == set(AGAIN["setting"]["machine"])
    assert set(setting["backends"]["redis_list"]) == set(AGAIN["setting"]["backends"]["redis_list"])
    assert setting["backends"]["redis_list"]["durability"] == "flushed"
    assert "6.1-ours" not in json.dumps(setting)
    assert set(again.figures(ours, 0, 0)) == set(AGAIN["trials"][0])
    with pytest.raises(SystemExit, match="was made unlike"):
        again.alike(ours, other)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_the_exact_test_is_exact_on_all_splits_of_twelve_real_trials(
    kept: dict[str, Kept], cell: tuple[str, str, str]
) -> None:
    """Of one pool, so it shows the arithmetic, ties and all, and nothing of how trials drift.

    No verdict says faster or slower where this test does not, so of verdicts too at most so many differ.
    """
    pool = kept[" ".join(cell)]._replace(figures=kept[" ".join(cell)].figures[:12])
    dealt = [pool.dealt(chosen) for chosen in combinations(range(12), 6)]
    ps = [inference.rank_test(pair.values, pair.reference) for pair in dealt]
    assert len(ps) == 924
    assert np.mean(np.array(ps) <= inference.LEVEL) <= DIFFERENT_MAX


@pytest.mark.parametrize("n", [6, 8, 12])
def test_two_that_take_turns_in_blocks_are_told_different_in_at_most_5_percent(kept: dict[str, Kept], n: int) -> None:
    """Families as a report has them: two backends, each once in a block, which here is two successive trials.

    In every window of trials the even against the odd ones, and splits whose blocks have each a random order.
    """
    chance = random.Random(n)
    starts = list(windows(kept, n))
    families = [[cell.dealt(range(0, 2 * n, 2)) for cell in cells] for cells in starts]
    for _ in range(SPLITS_N):
        first = {2 * block + chance.randrange(2) for block in range(n)}
        families.append([cell.dealt(first) for cell in chance.choice(starts)])
    assert sum(map(different, families)) / sum(map(len, families)) <= DIFFERENT_MAX


def test_a_whole_family_of_aa_comparisons_holds_a_false_word_in_at_most_5_percent(kept: dict[str, Kept]) -> None:
    """After Holm. It is true of all splits, if the code is right; of a sample chance may show more, but not this many.

    Every cell is dealt alike, as its trials share their blocks.
    """
    chance = random.Random(0)
    splits = [chance.sample(range(BLOCKS_N), BLOCKS_N // 2) for _ in range(SPLITS_N)]
    wrong = sum(different([cell.dealt(first) for cell in kept.values()]) > 0 for first in splits)
    once_in_a_thousand = int(binom.ppf(0.999, SPLITS_N, DIFFERENT_MAX))
    assert wrong <= once_in_a_thousand


@pytest.mark.parametrize("n", [6, 8, 12])
def test_a_copy_that_is_1_3_times_as_fast_is_told_different(n: int) -> None:
    """Made up, of a spread of 5 %, beside five comparisons of the same with the same."""
    chance = np.random.default_rng(n)
    found = [judge([noisy(1.3, 0.05, n, chance), *(noisy(1.0, 0.05, n, chance) for _ in range(5))]) for _ in range(100)]
    assert sum(family[0].word == FASTER for family in found) >= 95


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell[2] != "p99_s"], ids="-".join)
def test_a_real_cell_made_1_3_times_as_large_is_told_different(
    kept: dict[str, Kept], cell: tuple[str, str, str]
) -> None:
    """Of the kept trials, which ran on a quiet machine; eight repeats of their p99 cannot always tell so little."""
    chance = random.Random(0)
    told = 0
    for cells in [chance.choice(list(windows({"": kept[" ".join(cell)]}, 8))) for _ in range(SPLITS_N)]:
        pair = cells[0].dealt({2 * block + chance.randrange(2) for block in range(8)})
        told += different([dataclasses.replace(pair, values=tuple(1.3 * value for value in pair.values))])
    assert told >= 0.95 * SPLITS_N
