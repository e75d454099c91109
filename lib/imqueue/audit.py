"""The verdict on a trial's messages, recomputed from its ledgers alone.

After Jepsen's total-queue, with each integer's identity: a sum that fits can hide a lost 5 behind a doubled 2 and 3.
Memory is a few bytes per message; the rows are read in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imqueue.histogram import Histogram
from imqueue.ledger import Outcome
from imqueue.message import CORRUPTED

EXAMPLES = 1000  # integers of each verdict that are kept by value
CHUNK = 1 << 20
_OFTEN = np.iinfo(np.uint16).max

RowChunks = Callable[[], Iterable[NDArray[np.void]]]
"""Yields a worker's rows from the first on, each time it is called."""
Batches = NDArray[np.void] | Callable[[], Iterable[NDArray[np.void]]]
"""Records of puts or gets: at once, or what yields them in parts, from the first on, each time it is called."""


@dataclass
class Audit:
    """Counts of messages; `examples` has the integers concerned, by verdict, the first 1,000 of each.

    Those of corrupted and unexpected messages are the ones that stand in their headers. Where a header's integer itself
    was corrupted that is another one than was put, which is among the lost.
    """

    attempted: int = 0
    acknowledged: int = 0
    rejected: int = 0
    uncertain: int = 0
    received: int = 0  # distinct integers of ours
    settled: int = 0  # deliveries, so a redelivered message that is acked twice counts twice
    lost: int = 0  # acknowledged, never received
    duplicated: int = 0  # deliveries beyond the first
    unexpected: int = 0  # never attempted, refused by the backend, or of another trial
    corrupted: int = 0
    recovered: int = 0  # uncertain, yet received
    reordered: int | None = 0  # None: the backend does not promise an order
    undelivered: int = 0  # still in the queue when the drain ran out of time: neither received nor counted as lost
    sum_expected: int = 0  # of the acknowledged integers
    sum_received: int = 0  # of all deliveries of ours
    examples: dict[str, list[int]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not (self.lost or self.unexpected or self.corrupted)

    @property
    def sum_fits(self) -> bool:
        return self.sum_expected == self.sum_received


@dataclass
class Latencies:
    """`due` counts from when a message was due, `sent` from when its put began, both until it was handled."""

    due: Histogram = field(default_factory=Histogram)
    sent: Histogram = field(default_factory=Histogram)


def audit(
    producers: Mapping[str, Batches],
    workers: Mapping[str, tuple[Batches, RowChunks]],
    *,
    trial: int,
    fifo: bool,
    drained: bool = True,
) -> tuple[Audit, Latencies]:
    """Audit the ledgers of all producers (`BATCH` records) and workers (records, and their rows).

    `drained`: False where the trial ended before its queue was empty; what is missing is then undelivered, not lost.
    """
    state, producer_of = _attempts(list(producers.values()))
    result = Audit()
    result.acknowledged = int((state == Outcome.DONE).sum())
    result.rejected = int((state == Outcome.REJECTED).sum())
    result.uncertain = int(((state == Outcome.UNCERTAIN) | (state == Outcome.PENDING)).sum())
    result.attempted = result.acknowledged + result.rejected + result.uncertain
    for start in range(0, len(state), CHUNK):
        accepted = np.flatnonzero(state[start : start + CHUNK] == Outcome.DONE)
        result.sum_expected += int(accepted.sum()) + start * len(accepted)

    counts, delivered, latencies = _deliveries(workers.values(), state, trial, result)
    for records, _ in workers.values():
        result.settled += sum(int(part["n"][part["outcome"] == Outcome.DONE].sum()) for part in _parts(records))
    got = counts > 0
    uncertain = (state == Outcome.UNCERTAIN) | (state == Outcome.PENDING)
    _note(result, "recovered", np.flatnonzero(got & uncertain))
    _note(result, "lost" if drained else "undelivered", np.flatnonzero((state == Outcome.DONE) & ~got))
    result.received = int(got.sum())
    _note(result, "duplicated", np.flatnonzero(counts > 1), delivered - result.received)
    result.reordered = _reordered(workers, state, counts, producer_of, trial, result) if fifo else None
    return result, latencies


def _parts(batches: Batches) -> Iterable[NDArray[np.void]]:
    """None of them empty."""
    return filter(len, batches() if callable(batches) else (batches,))


def _attempts(producers: Sequence[Batches]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """For every integer from 0 to the greatest attempted: the outcome of its put (0: none), and its producer."""
    parts = (part for batches in producers for part in _parts(batches))
    size = max((int(_last(part).max()) for part in parts), default=0) + 1
    state = np.zeros(size, dtype=np.uint8)
    producer_of = np.zeros(size, dtype=np.uint16)
    for index, batches in enumerate(producers):
        for records in _parts(batches):
            at_once = CHUNK // int(records["n"].max()) + 1
            for start in range(0, len(records), at_once):
                part = records[start : start + at_once]
                integers = _expand(part)
                state[integers] = np.repeat(part["outcome"].astype(np.uint8), part["n"])
                producer_of[integers] = index
    return state, producer_of


def _last(records: NDArray[np.void]) -> NDArray[np.uint64]:
    """The last integer of each put."""
    last: NDArray[np.uint64] = records["first"] + (records["n"] - np.uint64(1)) * records["step"]
    return last


def _expand(records: NDArray[np.void]) -> NDArray[np.int64]:
    """The integers of some producer's records, in the order in which they were put."""
    n = records["n"].astype(np.int64)
    within = np.arange(int(n.sum()), dtype=np.int64) - np.repeat(np.cumsum(n) - n, n)
    return np.repeat(records["first"].astype(np.int64), n) + within * np.repeat(records["step"].astype(np.int64), n)


def _deliveries(
    workers: Iterable[tuple[Batches, RowChunks]],
    state: NDArray[np.uint8],
    trial: int,
    result: Audit,
) -> tuple[NDArray[np.uint16], int, Latencies]:
    """How often each integer was received (at most 65,535), how often all were; latencies of what was handled."""
    counts = np.zeros(len(state), dtype=np.uint16)
    delivered = 0
    latencies = Latencies()
    named: dict[str, list[int]] = {"unexpected": [], "corrupted": []}
    for _, chunks in workers:
        for rows in chunks():
            corrupted = rows["trial"] == CORRUPTED
            ours = rows["trial"] == trial
            number = rows["number"].astype(np.int64)
            known = ours & (number < len(state))
            attempted = np.zeros(len(rows), dtype=bool)
            attempted[known] = np.isin(state[number[known]], (Outcome.DONE, Outcome.UNCERTAIN, Outcome.PENDING))
            for verdict, those in (("unexpected", ~attempted & ~corrupted), ("corrupted", corrupted)):
                setattr(result, verdict, getattr(result, verdict) + int(those.sum()))
                named[verdict].extend(number[those][:EXAMPLES].tolist())
            good = number[attempted]
            delivered += len(good)
            if len(good):
                _count(counts, good)
            result.sum_received += int(good.sum())
            handled = rows[attempted & (rows["handled_ns"] != 0)]
            latencies.due.add(handled["handled_ns"] - handled["due_ns"])
            latencies.sent.add(handled["handled_ns"] - handled["sent_ns"])
    result.examples |= {verdict: integers[:EXAMPLES] for verdict, integers in named.items() if integers}
    return counts, delivered, latencies


def _count(counts: NDArray[np.uint16], numbers: NDArray[np.int64]) -> None:
    least = int(numbers.min())
    if int(numbers.max()) - least < 4 * len(numbers):  # else what lies between them would take the memory
        local = np.bincount(numbers - least)
        window = counts[least : least + len(local)]
        window[:] = np.minimum(window + local, _OFTEN)
    else:
        distinct, n = np.unique(numbers, return_counts=True)
        counts[distinct] = np.minimum(counts[distinct] + n, _OFTEN)


def _note(result: Audit, verdict: str, integers: NDArray[np.int64], n: int | None = None) -> None:
    setattr(result, verdict, len(integers) if n is None else n)
    if len(integers):
        result.examples[verdict] = integers[:EXAMPLES].tolist()


def _reordered(
    workers: Mapping[str, tuple[Batches, RowChunks]],
    state: NDArray[np.uint8],
    counts: NDArray[np.uint16],
    producer_of: NDArray[np.uint16],
    trial: int,
    result: Audit,
) -> int:
    """First deliveries, within one worker, of a producer's integer after a later one of its own."""
    first = _first_of_several(workers, counts, trial)
    producers_n = int(producer_of.max()) + 1
    examples: list[int] = []
    found_n = base = 0
    for _, (_, chunks) in sorted(workers.items()):
        highest = np.full(producers_n, -1, dtype=np.int64)
        for rows in chunks():
            number = _first_deliveries(rows, counts, first, trial, base)
            base += len(rows)
            owner = producer_of[number]
            for producer in range(producers_n):
                own = number[owner == producer] if producers_n > 1 else number
                if not len(own):
                    continue
                before = np.maximum.accumulate(np.concatenate((highest[producer : producer + 1], own)))[:-1]
                behind = own[own < before]
                found_n += len(behind)
                examples += behind[: EXAMPLES - len(examples)].tolist()
                highest[producer] = max(int(before[-1]), int(own[-1]))
    if examples:
        result.examples["reordered"] = examples
    return found_n


class _First(NamedTuple):
    """Of each integer delivered several times, in order: its first delivery, as a row counted over all workers."""

    numbers: NDArray[np.int64]
    row: NDArray[np.int64]


def _several(
    rows: NDArray[np.void], counts: NDArray[np.uint16], trial: int, least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows have one of our integers that was delivered at least so often, and these integers."""
    number = rows["number"].astype(np.int64)
    keep = (rows["trial"] == trial) & (number < len(counts))
    keep[keep] &= counts[number[keep]] >= least
    return np.flatnonzero(keep), number[keep]


def _first_deliveries(
    rows: NDArray[np.void], counts: NDArray[np.uint16], first: _First, trial: int, base: int
) -> NDArray[np.int64]:
    """The integers of a worker's rows in order of receipt, without those delivered before, to it or to another."""
    index, number = _several(rows, counts, trial, 1)
    if not len(first.numbers):
        return number
    keep = counts[number] == 1
    again = np.flatnonzero(~keep)
    keep[again] = first.row[np.searchsorted(first.numbers, number[again])] == base + index[again]
    found: NDArray[np.int64] = number[keep]
    return found


def _first_of_several(
    workers: Mapping[str, tuple[Batches, RowChunks]], counts: NDArray[np.uint16], trial: int
) -> _First:
    numbers = np.flatnonzero(counts > 1)
    earliest_ns = np.full(len(numbers), np.iinfo(np.int64).max)
    first = _First(numbers, np.full(len(numbers), -1, dtype=np.int64))
    base = 0
    for _, (batches, chunks) in sorted(workers.items()) if len(numbers) else ():
        for rows, start_ns in _with_starts(batches, chunks):
            index, number = _several(rows, counts, trial, 2)
            slot = np.searchsorted(numbers, number)
            order = np.lexsort((start_ns[index], slot))
            order = order[np.diff(slot[order], prepend=-1) > 0]  # the earliest of each integer, of equals the first row
            order = order[start_ns[index[order]] < earliest_ns[slot[order]]]
            earliest_ns[slot[order]] = start_ns[index[order]]
            first.row[slot[order]] = base + index[order]
            base += len(rows)
    return first


def _with_starts(batches: Batches, chunks: RowChunks) -> Iterator[tuple[NDArray[np.void], NDArray[np.int64]]]:
    """A worker's rows, and when each was received."""
    parts = (
        part[start : start + at_once]
        for part in _parts(batches)
        for at_once in [CHUNK // int(part["n"].max()) + 1]
        for start in range(0, len(part), at_once)
    )
    known = np.zeros(0, dtype=np.int64)
    for rows in chunks():
        while len(known) < len(rows) and (part := next(parts, None)) is not None:
            known = np.concatenate((known, np.repeat(part["start_ns"], part["n"])))
        # Rows whose writer was killed before it had written their record came last.
        missing = np.full(max(0, len(rows) - len(known)), np.iinfo(np.int64).max - 1)
        yield rows, np.concatenate((known[: len(rows)], missing))
        known = known[len(rows) :]


def as_dict(result: Audit) -> dict[str, Any]:
    """For ``trial.json``: the counts, the verdicts derived from them, and the examples."""
    return {**vars(result), "passed": result.passed, "sum_fits": result.sum_fits}
