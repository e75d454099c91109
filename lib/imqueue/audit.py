"""The verdict on a trial's messages, recomputed from its ledgers alone.

After Jepsen's total-queue, with each integer's identity: a sum that fits can hide a lost 5 behind a doubled 2 and 3.
Memory is a few bytes per message; the rows are read in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
                least = int(good.min())
                local = np.bincount(good - least)
                window = counts[least : least + len(local)]
                window[:] = np.minimum(window + local, _OFTEN)
            result.sum_received += int(good.sum())
            handled = rows[attempted & (rows["handled_ns"] != 0)]
            latencies.due.add(handled["handled_ns"] - handled["due_ns"])
            latencies.sent.add(handled["handled_ns"] - handled["sent_ns"])
    result.examples |= {verdict: integers[:EXAMPLES] for verdict, integers in named.items() if integers}
    return counts, delivered, latencies


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
    later = _redeliveries(workers, counts, trial)
    producers_n = int(producer_of.max()) + 1
    found: list[int] = []
    for name, (_, chunks) in workers.items():
        highest = np.full(producers_n, -1, dtype=np.int64)
        for number in _first_deliveries(name, chunks, counts, later, trial):
            owner = producer_of[number]
            for producer in range(producers_n):
                own = number[owner == producer] if producers_n > 1 else number
                if not len(own):
                    continue
                before = np.maximum.accumulate(np.concatenate((highest[producer : producer + 1], own)))[:-1]
                found.extend(own[own < before].tolist())
                highest[producer] = max(int(before[-1]), int(own[-1]))
    if found:
        result.examples["reordered"] = found[:EXAMPLES]
    return len(found)


def _first_deliveries(
    name: str, chunks: RowChunks, counts: NDArray[np.uint16], later: set[tuple[str, int]], trial: int
) -> Iterator[NDArray[np.int64]]:
    """A worker's integers in order of receipt, without those delivered before, to it or to another."""
    at = 0
    for rows in chunks():
        number = rows["number"].astype(np.int64)
        keep = (rows["trial"] == trial) & (number < len(counts))
        keep[keep] &= counts[number[keep]] > 0
        if later:
            redelivered = [index - at for worker, index in later if worker == name and at <= index < at + len(rows)]
            keep[redelivered] = False
        yield number[keep]
        at += len(rows)


def _redeliveries(
    workers: Mapping[str, tuple[Batches, RowChunks]], counts: NDArray[np.uint16], trial: int
) -> set[tuple[str, int]]:
    """(worker, row) of each delivery that was not its integer's first."""
    if not (counts > 1).any():
        return set()
    deliveries: list[tuple[int, int, str, int]] = []
    for name, (batches, chunks) in workers.items():
        first, start_ns = _starts(batches)
        at = 0
        for rows in chunks():
            number = rows["number"].astype(np.int64)
            several = (rows["trial"] == trial) & (number < len(counts))
            several[several] &= counts[number[several]] > 1
            for index in np.flatnonzero(several):
                got = int(np.searchsorted(first, at + index, side="right")) - 1
                deliveries.append((int(number[index]), int(start_ns[got]), name, at + int(index)))
            at += len(rows)
    deliveries.sort()
    return {
        (name, index)
        for (number, _, name, index), (earlier, *_) in zip(deliveries[1:], deliveries, strict=False)
        if number == earlier
    }


def _starts(batches: Batches) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Of all gets: the first row, and when it was received."""
    columns = [(part["first"].copy(), part["start_ns"].copy()) for part in _parts(batches)]
    first, start_ns = zip(*columns, strict=True) if columns else ([np.zeros(0, np.uint64)], [np.zeros(0, np.int64)])
    return np.concatenate(first), np.concatenate(start_ns)


def as_dict(result: Audit) -> dict[str, Any]:
    """For ``trial.json``: the counts, the verdicts derived from them, and the examples."""
    return {**vars(result), "passed": result.passed, "sum_fits": result.sum_fits}
