"""The ledger holds what was written, whoever dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from imqueue import ledger
from imqueue.ledger import BATCHES_N, MESSAGES_N, Outcome, Reader, Writer
from imqueue.message import Codec

CODEC = Codec(77, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("producer-0", "worker-0"):
        ledger.create(tmp_path, name)
    return tmp_path


Opened = Callable[[str], Reader]


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(Reader(folder, name))


def decoded(first: int, n: int) -> np.ndarray:
    return CODEC.decode(CODEC.encode(np.arange(first, first + n, dtype=np.uint64), 5, 6))


def test_a_put_is_attempted_before_it_and_has_its_outcome_after_it(folder: Path, opened: Opened) -> None:
    writer, reader = Writer(folder, "producer-0"), opened("producer-0")
    writer.attempted(first=7, n=3, step=2, start_ns=100, late_n=1)
    (before,) = reader.batches()
    writer.finished(Outcome.UNCERTAIN, end_ns=200)
    (after,) = reader.batches()

    assert before.tolist() == (7, 3, 2, 100, 0, 1, Outcome.PENDING)
    assert after.tolist() == (7, 3, 2, 100, 200, 1, Outcome.UNCERTAIN)


def test_rows_and_records_survive_many_growths(folder: Path, opened: Opened) -> None:
    writer, reader = Writer(folder, "worker-0"), opened("worker-0")
    batches, n = ledger.BATCHES_MIN * 2 + 10, 9
    for index in range(batches):
        writer.received(decoded(1 + index * n, n), start_ns=index, handled_ns=index + 1)
        writer.finished(Outcome.DONE, end_ns=index + 2)
    numbers = np.concatenate([rows["number"] for rows in reader.all_rows()])

    assert reader.page[BATCHES_N] == batches
    assert (numbers == np.arange(1, batches * n + 1)).all()
    assert (reader.batches()["start_ns"] == np.arange(batches)).all()


def test_the_scalar_path_writes_the_same_row(folder: Path, opened: Opened) -> None:
    writer, reader = Writer(folder, "worker-0"), opened("worker-0")
    writer.received_one(*CODEC.decode_one(CODEC.encode_one(9, 5, 6)), start_ns=10, handled_ns=11)
    writer.received(decoded(9, 1), start_ns=10, handled_ns=11)
    first, second = reader.rows(0, 2)

    assert first.tolist() == second.tolist() == (77, 9, 5, 6, 11)


def test_each_message_can_be_handled_at_its_own_time(folder: Path, opened: Opened) -> None:
    writer, reader = Writer(folder, "worker-0"), opened("worker-0")
    writer.received(decoded(1, 2), start_ns=10, handled_ns=11)
    writer.received(decoded(3, 3), start_ns=20, handled_ns=0)
    writer.handled_last(1, 25)

    assert reader.rows(0, 5)["handled_ns"].tolist() == [11, 11, 0, 25, 0]


def _write_until_killed(folder: Path, told: multiprocessing.connection.Connection) -> None:
    writer = Writer(folder, "worker-0")
    index = 0
    while True:
        writer.received(decoded(1 + index * 10, 10), start_ns=1, handled_ns=1)
        writer.finished(Outcome.DONE, end_ns=2)
        index += 1
        if index % 100 == 0:
            told.send(index)


def test_a_sigkill_loses_no_record_that_was_written(folder: Path, opened: Opened) -> None:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_write_until_killed, args=(folder, theirs))
    child.start()
    assert child.pid is not None
    assert ours.poll(20), "the child wrote nothing"
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    told = 0
    while ours.poll():
        told = ours.recv()
    reader = opened("worker-0")
    records = reader.batches()

    assert (records["outcome"][: max(told, 100)] == Outcome.DONE).all()
    assert reader.page[MESSAGES_N] == records["n"].sum()
    numbers = np.concatenate([rows["number"] for rows in reader.all_rows()])
    assert (numbers == np.arange(1, len(numbers) + 1)).all()
