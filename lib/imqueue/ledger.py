"""The ledger: what every producer attempted and every worker received, written as it happens.

Two kinds of append-only files in a trial's ``ledger/``, each with one writer:

    <role>-<k>.batches   a page of words, then a `BATCH` record for each put or get
    worker-<k>.rows      a `ROW` for each message received

A put is recorded as *attempted* before it and gets its outcome after it; a get is recorded as *received* before its
ack and as *settled* after it. All counters, totals and latencies are derived from these records, so they cannot
disagree, and a SIGKILL loses none that was written.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from imqueue.mapped import Mapped
from imqueue.message import Rows

BATCH = np.dtype(
    [
        ("first", "<u8"),  # producer: the first integer; worker: the first row
        ("n", "<u4"),
        ("step", "<u4"),  # producer: from one integer to the next
        ("start_ns", "<i8"),  # producer: before put; worker: after get
        ("end_ns", "<i8"),  # producer: after put; worker: after ack
        ("late_n", "<u4"),  # producer: messages whose put began more than LATE_NS after it could have
        ("outcome", "<u4"),
    ]
)
ROW = np.dtype([("trial", "<u4"), ("number", "<u4"), ("due_ns", "<i8"), ("sent_ns", "<i8"), ("handled_ns", "<i8")])
PAGE_BYTES = 4096
LATE_NS = 10_000_000
BATCHES_MIN = 1 << 14
ROWS_MIN = 1 << 16

_RECORD = struct.Struct("<QIIqqII")
_ENDING = struct.Struct("<qII")
_ENDING_AT = 24
_ROW = struct.Struct("<Qqqq")


class Outcome(IntEnum):
    PENDING = 1  # attempted, or received: the writer was still at it
    DONE = 2  # acknowledged, or settled
    REJECTED = 3
    UNCERTAIN = 4


class State(IntEnum):
    """How far the writer of a ledger has come."""

    STARTING = 0
    OPEN = 1
    WARM = 2
    ENDED = 3
    FAILED = 4


# The words of a page. Each has one writer; everybody may read.
STATE, PID, THREAD, BATCHES_N, MESSAGES_N, WARM_N, DEPTH, DEPTH_AT_NS, CPU_NS = range(9)


def create(folder: Path, name: str) -> None:
    """Makes the empty files of one writer; the driver does, so that it can read them from the start."""
    sizes = {"batches": PAGE_BYTES + BATCHES_MIN * BATCH.itemsize}
    if name.startswith("worker"):
        sizes["rows"] = ROWS_MIN * ROW.itemsize
    for suffix, size_bytes in sizes.items():
        made = Mapped(folder / f"{name}.{suffix}", create_bytes=size_bytes)
        made.make_ready(size_bytes)
        made.close()


class Page:
    """The words of one writer's page, for others to read while it writes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._mapped = Mapped(folder / f"{name}.batches", map_bytes=PAGE_BYTES)
        self._mapped.close()  # the descriptor; the mapping stays
        self.words = self._mapped.words

    def __getitem__(self, word: int) -> int:
        return self.words[word]


class Writer:
    """The page and the records of one producer or worker. It belongs to one thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self._batches = Mapped(folder / f"{name}.batches")
        self.words = self._batches.words
        self._at = PAGE_BYTES
        self._late_n = 0
        self._rows: Mapped | None = None
        self._view: Rows = np.zeros((0, 4), dtype=np.uint64)
        self._rows_n = self._ready_n = 0
        if name.startswith("worker"):
            self._rows = Mapped(folder / f"{name}.rows")
            self._view = _rows_of(self._rows)
            self._ready_n = len(self._view)

    def attempted(self, first: int, n: int, step: int, start_ns: int, late_n: int = 0) -> None:
        """A put of `n` integers begins: `first`, `first` + `step` …"""
        self._begin(first, n, step, start_ns, late_n)

    def received(self, rows: Rows, start_ns: int, handled_ns: int) -> Rows:
        """Writes decoded rows, handled at `handled_ns` (0: not yet); returns them as they lie in the file."""
        first, n = self._rows_n, len(rows)
        if first + n > self._ready_n:
            self._make_ready(first + n)
        kept = self._view[first : first + n]
        kept[:] = rows  # one stretch of memory: half the time of three columns of it
        kept[:, 3] = handled_ns
        self._rows_n += n
        self._begin(first, n, 1, start_ns, 0)
        return kept

    def received_one(self, word0: int, due_ns: int, sent_ns: int, start_ns: int, handled_ns: int) -> None:
        """The scalar path of `received`."""
        at = self._rows_n
        if at == self._ready_n:
            self._make_ready(at + 1)
        assert self._rows is not None
        _ROW.pack_into(self._rows.buffer, at * ROW.itemsize, word0, due_ns, sent_ns, handled_ns)
        self._rows_n = at + 1
        self._begin(at, 1, 1, start_ns, 0)

    def handled_last(self, index: int, handled_ns: int) -> None:
        """When message `index` of the batch received last was handled."""
        batch_first = _RECORD.unpack_from(self._batches.buffer, self._at - BATCH.itemsize)[0]
        self._view[batch_first + index, 3] = handled_ns

    def finished(self, outcome: Outcome, end_ns: int) -> None:
        """The outcome of the batch begun last."""
        at = self._at - BATCH.itemsize + _ENDING_AT
        _ENDING.pack_into(self._batches.buffer, at, end_ns, self._late_n, outcome)

    def close(self) -> None:
        self._batches.close()
        if self._rows is not None:
            self._rows.close()

    def _begin(self, first: int, n: int, step: int, start_ns: int, late_n: int) -> None:
        if self._at + BATCH.itemsize > self._batches.ready_bytes:
            self._batches.make_ready(self._at + BATCH.itemsize)
        _RECORD.pack_into(self._batches.buffer, self._at, first, n, step, start_ns, 0, late_n, Outcome.PENDING)
        self._at += BATCH.itemsize
        self._late_n = late_n
        words = self.words
        words[MESSAGES_N] += n
        words[BATCHES_N] += 1

    def _make_ready(self, rows_n: int) -> None:
        assert self._rows is not None
        self._rows.make_ready(rows_n * ROW.itemsize)
        self._view = _rows_of(self._rows)
        self._ready_n = self._rows.ready_bytes // ROW.itemsize


def _rows_of(mapped: Mapped) -> Rows:
    return np.frombuffer(mapped.buffer, dtype="<u8").reshape(-1, 4)


class Reader:
    """Reads one writer's records from the file, by `pread`: what it reads does not stay in this process' memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.page = Page(folder, name)
        self._batches = open(folder / f"{name}.batches", "rb", buffering=0)  # noqa: SIM115 - held open, see close
        rows = folder / f"{name}.rows"
        self._rows = open(rows, "rb", buffering=0) if rows.exists() else None  # noqa: SIM115

    def batches(self, start: int = 0, most: int = 1 << 20) -> NDArray[np.void]:
        """Records from `start` on, `most` at the most, PENDING ones included."""
        n = min(self.page[BATCHES_N] - start, most)
        data = os.pread(self._batches.fileno(), max(n, 0) * BATCH.itemsize, PAGE_BYTES + start * BATCH.itemsize)
        return np.frombuffer(data, dtype=BATCH)

    def all_batches(self, chunk: int = 1 << 18) -> Iterator[NDArray[np.void]]:
        at = 0
        while len(records := self.batches(at, chunk)):
            yield records
            at += len(records)

    def rows(self, start: int, n: int) -> NDArray[np.void]:
        """`n` rows from `start` on, of those received."""
        if self._rows is None:
            return np.zeros(0, dtype=ROW)
        data = os.pread(self._rows.fileno(), n * ROW.itemsize, start * ROW.itemsize)
        return np.frombuffer(data, dtype=ROW)

    def all_rows(self, chunk: int = 1 << 19) -> Iterator[NDArray[np.void]]:
        received = self.page[MESSAGES_N]
        for start in range(0, received if self._rows else 0, chunk):
            yield self.rows(start, min(chunk, received - start))

    def close(self) -> None:
        """Safe twice."""
        self._batches.close()
        if self._rows is not None:
            self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
