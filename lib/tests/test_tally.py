"""The running totals agree with the audit, however the ledgers grew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imqueue import ledger
from imqueue.ledger import Outcome, Writer
from imqueue.message import Codec
from imqueue.tally import Tally

TRIAL = 77
CODEC = Codec(TRIAL, 32)


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    (tmp_path / "ledger").mkdir()
    for name in ("producer-0", "worker-0"):
        ledger.create(tmp_path / "ledger", name)
    counted = Tally(tmp_path, TRIAL)
    counted.add("producer-0")
    counted.add("worker-0")
    yield counted
    counted.close()


def writer(tally: Tally, tmp_path: Path, name: str) -> Writer:
    return Writer(tmp_path / "ledger", name)


def rows(numbers: list[int], codec: Codec = CODEC) -> np.ndarray:
    return codec.decode(codec.encode(np.array(numbers, dtype=np.uint64), 1_000_000, 2_000_000))


def test_a_batch_counts_once_its_outcome_is_known(tally: Tally, tmp_path: Path) -> None:
    producer = writer(tally, tmp_path, "producer-0")
    producer.attempted(1, 10, 1, start_ns=0)
    tally.update()
    before = (tally.attempted, tally.pushed)
    producer.finished(Outcome.DONE, end_ns=5)
    tally.update()
    tally.update()

    assert before == (0, 0)
    assert (tally.attempted, tally.pushed) == (10, 10)


def test_outcomes_are_kept_apart(tally: Tally, tmp_path: Path) -> None:
    producer = writer(tally, tmp_path, "producer-0")
    for n, outcome in ((1, Outcome.DONE), (2, Outcome.REJECTED), (4, Outcome.UNCERTAIN)):
        producer.attempted(1, n, 1, start_ns=0)
        producer.finished(outcome, end_ns=5)
    tally.update()

    assert (tally.pushed, tally.rejected, tally.uncertain) == (1, 2, 4)


def test_every_delivery_beyond_the_first_is_a_redelivery(tally: Tally, tmp_path: Path) -> None:
    worker = writer(tally, tmp_path, "worker-0")
    for numbers in ([1, 2, 2], [3, 1], [500_000, 3], [500_000]):
        worker.received(rows(numbers), start_ns=3_000_000, handled_ns=4_000_000)
        worker.finished(Outcome.DONE, end_ns=5_000_000)
        tally.update()

    assert (tally.received, tally.popped, tally.redelivered) == (8, 8, 4)


def test_strangers_count_as_received_but_have_no_latency(tally: Tally, tmp_path: Path) -> None:
    worker = writer(tally, tmp_path, "worker-0")
    worker.received(rows([1], Codec(TRIAL + 1, 32)), start_ns=3_000_000, handled_ns=4_000_000)
    worker.finished(Outcome.DONE, end_ns=5_000_000)
    worker.received(rows([1]), start_ns=3_000_000, handled_ns=4_000_000)
    worker.finished(Outcome.DONE, end_ns=5_000_000)
    tally.update()

    assert (tally.received, tally.redelivered) == (2, 0)
    assert tally.latency.counts.sum() == 1
    assert tally.latency.sum_s == pytest.approx(0.003)
    assert tally.service.sum_s == pytest.approx(0.002)


def test_what_was_not_settled_is_received_not_popped(tally: Tally, tmp_path: Path) -> None:
    worker = writer(tally, tmp_path, "worker-0")
    worker.received(rows([1, 2]), start_ns=3_000_000, handled_ns=4_000_000)
    worker.finished(Outcome.UNCERTAIN, end_ns=5_000_000)
    tally.update()

    assert (tally.received, tally.popped) == (2, 0)


def test_a_closed_tally_keeps_its_totals(tally: Tally, tmp_path: Path) -> None:
    producer = writer(tally, tmp_path, "producer-0")
    producer.attempted(1, 10, 1, start_ns=0)
    producer.finished(Outcome.DONE, end_ns=5)
    tally.update()
    tally.close()
    tally.update()

    assert tally.pushed == 10
