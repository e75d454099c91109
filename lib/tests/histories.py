"""Hand-made ledgers, as the audit reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from imqueue.ledger import BATCH, ROW, Outcome

TRIAL = 77
DONE, REJECTED, UNCERTAIN, PENDING = Outcome.DONE, Outcome.REJECTED, Outcome.UNCERTAIN, Outcome.PENDING

Worker = tuple[np.ndarray, Callable[[], Iterable[np.ndarray]]]


def puts(*batches: tuple[Sequence[int], Outcome]) -> np.ndarray:
    """A producer's records; each batch's integers are evenly spaced."""
    records = np.zeros(len(batches), dtype=BATCH)
    for record, (integers, outcome) in zip(records, batches, strict=True):
        step = integers[1] - integers[0] if len(integers) > 1 else 1
        record["first"], record["n"], record["step"], record["outcome"] = integers[0], len(integers), step, outcome
    return records


class Row(NamedTuple):
    """One delivery, as a row of a worker's ledger."""

    trial: int
    number: int
    due_ns: int
    sent_ns: int
    handled_ns: int


class Get(NamedTuple):
    """What one get returned, and when."""

    start_ns: int
    rows: list[Row]
    outcome: Outcome


def received(got: Sequence[Get], chunk: int) -> Worker:
    """A worker's records and rows, the rows read in small chunks."""
    records = np.zeros(len(got), dtype=BATCH)
    rows = np.array([tuple(row) for get in got for row in get.rows], dtype=ROW)
    at = 0
    for record, get in zip(records, got, strict=True):
        record["first"], record["n"], record["step"], record["outcome"] = at, len(get.rows), 1, get.outcome
        record["start_ns"], record["end_ns"] = get.start_ns, get.start_ns
        at += len(get.rows)
    return records, lambda: [rows[start : start + chunk] for start in range(0, len(rows), chunk)]


def gets(*batches: Sequence[int], start_ns: int = 1000, trial: int = TRIAL, chunk: int = 3) -> Worker:
    """A worker's records and rows, its batches settled and received 10 ns apart."""
    got = []
    for index, integers in enumerate(batches):
        got_ns = start_ns + 10 * index
        got.append(Get(got_ns, [Row(trial, k, got_ns - 400, got_ns - 100, got_ns) for k in integers], DONE))
    return received(got, chunk)
