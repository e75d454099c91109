"""Running totals of a trial, read from its ledgers as they grow. A call costs what has come since the last one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imqueue.histogram import Coarse
from imqueue.ledger import Outcome, Reader

CHUNK = 1 << 18


class Tally:
    """Counts for one trial; `update` brings them up to what the ledgers hold. Not thread-safe.

    A batch counts once its outcome is known, so at rest the totals are exact, and in mid-run a batch behind.
    """

    def __init__(self, folder: Path, trial: int) -> None:
        self._folder = folder
        self._trial = trial
        self._readers: dict[str, tuple[Reader, int]] = {}
        self._seen = np.zeros(1 << 16, dtype=bool)
        self.pushed = self.popped = self.received = self.redelivered = self.rejected = self.uncertain = 0
        self.attempted = self.late = 0
        self.latency, self.service, self.put = Coarse(), Coarse(), Coarse()
        self.last_settled_ns = self.last_received_ns = 0

    def add(self, name: str) -> None:
        """One more ledger to read; its files exist."""
        self._readers[name] = (Reader(self._folder / "ledger", name), 0)

    def update(self) -> None:
        for name, (reader, at) in self._readers.items():
            while True:
                records = reader.batches(at, CHUNK)
                finished = _leading_finished(records)
                if finished:
                    done = records[:finished]
                    self._producer(done) if name.startswith("producer") else self._worker(reader, done)
                    at += finished
                if finished < CHUNK:
                    break
            self._readers[name] = (reader, at)

    def ledger_depth(self) -> int:
        """Messages accepted and not yet received, as the ledgers know it."""
        return max(0, self.pushed - self.received)

    def close(self) -> None:
        """The totals stay as they are."""
        for reader, _ in self._readers.values():
            reader.close()
        self._readers = {}

    def _producer(self, records: NDArray[np.void]) -> None:
        n, outcome = records["n"].astype(np.int64), records["outcome"]
        self.attempted += int(n.sum())
        self.pushed += int(n[outcome == Outcome.DONE].sum())
        self.rejected += int(n[outcome == Outcome.REJECTED].sum())
        self.uncertain += int(n[outcome == Outcome.UNCERTAIN].sum())
        self.late += int(records["late_n"].sum())
        self.put.add(records["end_ns"] - records["start_ns"])

    def _worker(self, reader: Reader, records: NDArray[np.void]) -> None:
        n, outcome = records["n"].astype(np.int64), records["outcome"]
        settled = outcome == Outcome.DONE
        self.popped += int(n[settled].sum())
        self.received += int(n.sum())
        self.last_received_ns = max(self.last_received_ns, int(records["start_ns"].max()))
        if settled.any():
            self.last_settled_ns = max(self.last_settled_ns, int(records["end_ns"][settled].max()))
        first, count = int(records["first"][0]), int(n.sum())
        for start in range(first, first + count, CHUNK):
            rows = reader.rows(start, min(CHUNK, first + count - start))
            ours = rows["trial"] == self._trial
            self._rows(rows if ours.all() else rows[ours])

    def _rows(self, rows: NDArray[np.void]) -> None:
        if not len(rows):
            return
        self.latency.add(rows["handled_ns"] - rows["due_ns"])
        self.service.add(rows["handled_ns"] - rows["sent_ns"])
        self.redelivered += self._repeated(rows["number"].astype(np.int64))

    def _repeated(self, numbers: NDArray[np.int64]) -> int:
        """How many of these were seen before, or earlier among these."""
        least, most = int(numbers.min()), int(numbers.max())
        if most >= len(self._seen):
            grown = np.zeros(max(2 * len(self._seen), most + 1), dtype=bool)
            grown[: len(self._seen)] = self._seen
            self._seen = grown
        before = self._seen[least : most + 1]
        counts = np.bincount(numbers - least, minlength=most - least + 1)
        fresh = int(((counts > 0) & ~before).sum())
        before |= counts > 0
        return len(numbers) - fresh


def _leading_finished(records: NDArray[np.void]) -> int:
    """How many records, from the first, have their outcome. The writer is at most at the last one."""
    pending = np.flatnonzero(records["outcome"] <= Outcome.PENDING)
    return int(pending[0]) if len(pending) else len(records)
