"""Hand-made ledgers, as the audit reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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


def gets(*batches: Sequence[int], start_ns: int = 1000, trial: int = TRIAL, chunk: int = 3) -> Worker:
    """A worker's records and rows, its batches settled and received 10 ns apart, the rows read in small chunks."""
    records = np.zeros(len(batches), dtype=BATCH)
    rows = np.zeros(sum(map(len, batches)), dtype=ROW)
    at = 0
    for index, (record, integers) in enumerate(zip(records, batches, strict=True)):
        got_ns = start_ns + 10 * index
        record["first"], record["n"], record["step"], record["outcome"] = at, len(integers), 1, DONE
        record["start_ns"], record["end_ns"] = got_ns, got_ns + 5
        part = rows[at : at + len(integers)]
        part["number"], part["trial"] = integers, trial
        part["due_ns"], part["sent_ns"], part["handled_ns"] = got_ns - 400, got_ns - 100, got_ns
        at += len(integers)
    return records, lambda: [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
