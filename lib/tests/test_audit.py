"""The audit names what became of every message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from histories import DONE, PENDING, REJECTED, TRIAL, UNCERTAIN, Worker, gets, puts

from imqueue.audit import Audit, audit
from imqueue.message import CORRUPTED, FOREIGN


def verdict(producers: list[np.ndarray], workers: list[Worker], **options: Any) -> Audit:
    named = {f"producer-{k}": each for k, each in enumerate(producers)}
    received = {f"worker-{k}": each for k, each in enumerate(workers)}
    return audit(named, received, trial=TRIAL, **{"fifo": True, **options})[0]


def test_all_is_well_when_each_comes_once_and_in_order() -> None:
    told = verdict([puts(([1, 2, 3], DONE), ([4, 5], DONE))], [gets([1, 2], [3, 4, 5])])
    assert (told.attempted, told.acknowledged, told.received, told.settled) == (5, 5, 5, 5)
    assert (told.lost, told.duplicated, told.unexpected, told.corrupted, told.reordered) == (0, 0, 0, 0, 0)
    assert told.passed
    assert told.sum_fits
    assert told.examples == {}


def test_what_was_acknowledged_and_never_came_is_lost() -> None:
    told = verdict([puts(([1, 2, 3, 4], DONE))], [gets([1, 4])])
    assert (told.lost, told.examples["lost"]) == (2, [2, 3])
    assert not told.passed


def test_a_sum_that_fits_hides_nothing() -> None:
    told = verdict([puts(([1, 2, 3, 4, 5], DONE))], [gets([1, 2, 3, 4, 2, 3])])
    assert told.sum_fits
    assert (told.lost, told.examples["lost"], told.examples["duplicated"]) == (1, [5], [2, 3])


def test_duplicates_are_told_and_allowed() -> None:
    told = verdict([puts(([1, 2], DONE))], [gets([1, 2]), gets([2], [2], start_ns=5000)])
    assert (told.duplicated, told.examples["duplicated"]) == (2, [2])
    assert told.passed
    assert not told.sum_fits


def test_no_number_of_deliveries_is_too_many_to_count() -> None:
    told = verdict([puts(([1], DONE))], [gets([1] * 65_536, [1], chunk=40_000)])
    assert (told.received, told.lost, told.duplicated) == (1, 0, 65_536)


def test_uncertain_puts_are_neither_lost_nor_unexpected() -> None:
    told = verdict([puts(([1, 2], DONE), ([3, 4], UNCERTAIN), ([5], PENDING))], [gets([1, 2, 4, 5])])
    assert (told.uncertain, told.recovered, told.examples["recovered"]) == (3, 2, [4, 5])
    assert told.passed


def test_a_refused_message_that_comes_is_unexpected() -> None:
    told = verdict([puts(([1], DONE), ([2], REJECTED))], [gets([1, 2])])
    assert (told.rejected, told.unexpected, told.examples["unexpected"]) == (1, 1, [2])
    assert not told.passed


def test_an_integer_that_nobody_put_is_unexpected() -> None:
    told = verdict([puts(([1], DONE))], [gets([1, 900])])
    assert (told.unexpected, told.examples["unexpected"]) == (1, [900])


@pytest.mark.parametrize("stranger", [FOREIGN, TRIAL + 1])
def test_a_message_of_another_trial_is_unexpected(stranger: int) -> None:
    told = verdict([puts(([1], DONE))], [gets([1]), gets([1], trial=stranger)])
    assert (told.unexpected, told.duplicated) == (1, 0)
    assert not told.passed


def test_a_corrupted_message_is_named_by_its_header_and_its_integer_is_lost() -> None:
    told = verdict([puts(([1, 2], DONE))], [gets([1]), gets([2], trial=CORRUPTED)])
    assert (told.corrupted, told.lost, told.unexpected) == (1, 1, 0)
    assert told.examples == {"corrupted": [2], "lost": [2]}


def test_what_is_missing_after_an_unfinished_drain_is_undelivered_not_lost() -> None:
    told = verdict([puts(([1, 2, 3], DONE))], [gets([1])], drained=False)
    assert (told.lost, told.undelivered, told.examples["undelivered"]) == (0, 2, [2, 3])


def test_a_later_integer_of_the_same_producer_first_is_reordering() -> None:
    told = verdict([puts(([1, 2, 3, 4], DONE))], [gets([1, 3], [2], [4])])
    assert (told.reordered, told.examples["reordered"]) == (1, [2])


def test_another_producers_integer_first_is_not() -> None:
    told = verdict([puts(([1, 3, 5], DONE)), puts(([2, 4, 6], DONE))], [gets([2, 4, 1, 6, 3, 5])])
    assert told.reordered == 0


def test_nor_is_another_workers() -> None:
    assert verdict([puts(([1, 2, 3, 4], DONE))], [gets([2, 4]), gets([1, 3])]).reordered == 0


def test_nor_is_a_redelivery() -> None:
    told = verdict([puts(([1, 2, 3], DONE))], [gets([1, 2, 3], [1])])
    assert (told.reordered, told.duplicated) == (0, 1)


def test_the_earlier_of_two_deliveries_is_the_first_whoever_got_it() -> None:
    late, early = gets([2, 1], start_ns=9000), gets([1], start_ns=100)
    told = verdict([puts(([1, 2], DONE))], [late, early])
    assert told.reordered == 0


def test_where_no_order_is_promised_none_is_judged() -> None:
    assert verdict([puts(([1, 2], DONE))], [gets([2, 1])], fifo=False).reordered is None


def test_latencies_count_from_due_and_from_sent() -> None:
    _, latencies = audit({"p": puts(([1, 2], DONE))}, {"w": gets([1, 2])}, trial=TRIAL, fifo=True)
    assert (latencies.due.n, latencies.due.max_ns) == (2, 400)
    assert (latencies.sent.n, latencies.sent.max_ns) == (2, 100)
