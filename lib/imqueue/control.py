"""The page by which the driver steers producers and workers while they run: one writer, read by all.

Only what changes during a trial stands here; everything else is fixed in the `Workload` that each child is given.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from pathlib import Path

from imqueue.mapped import Mapped
from imqueue.schedule import Segment

SEGMENTS_MAX = 10_000
_SEGMENT = struct.Struct("<qqdqqq")
_TABLE_AT = 64
_PHASE, _GO_NS, _END_NS, _SEGMENTS_N, _WORKERS, _PRODUCER_SEATS, _WORKER_SEATS = range(7)

_SEATS = {"producer": _PRODUCER_SEATS, "worker": _WORKER_SEATS}


class Phase(IntEnum):
    WARMUP = 0  # open, put and drain the warm-up's messages
    READY = 1  # all wait; the trial's zeros are scraped
    MEASURE = 2  # producers put until their end
    STOP = 3  # everybody ends


class Control:
    """`Control(folder, create=True)` is the driver's; the children map the same file."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        size_bytes = _TABLE_AT + SEGMENTS_MAX * _SEGMENT.size if create else 0
        self._mapped = Mapped(folder / "control", create_bytes=size_bytes)
        self._mapped.close()
        self._words = self._mapped.words

    @property
    def phase(self) -> int:
        return self._words[_PHASE]

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._words[_PHASE] = phase

    @property
    def go_ns(self) -> int:
        """When the measured load starts."""
        return self._words[_GO_NS]

    @property
    def end_ns(self) -> int:
        """No message is due from here on; a sum's producers stop here too."""
        return self._words[_END_NS]

    def go(self, go_ns: int, end_ns: int) -> None:
        self._words[_GO_NS] = go_ns
        self._words[_END_NS] = end_ns
        self.phase = Phase.MEASURE

    def end(self, end_ns: int) -> None:
        """An earlier end than the one that was set."""
        self._words[_END_NS] = end_ns

    @property
    def workers(self) -> int:
        """Workers of this rank and above have been asked to leave."""
        return self._words[_WORKERS]

    @workers.setter
    def workers(self, n: int) -> None:
        self._words[_WORKERS] = n

    def seats(self, role: str) -> int:
        """How many producers or workers there have been; their ledgers are there before they are counted."""
        return self._words[_SEATS[role]]

    def seat(self, role: str) -> None:
        """One more."""
        self._words[_SEATS[role]] += 1

    @property
    def segments_n(self) -> int:
        return self._words[_SEGMENTS_N]

    def segment(self, index: int) -> Segment:
        at = _TABLE_AT + index * _SEGMENT.size
        start_ns, first, rate_hz, producers, poisson, seed = _SEGMENT.unpack_from(self._mapped.buffer, at)
        return Segment(start_ns, first, rate_hz, producers, bool(poisson), seed)

    def add(self, segment: Segment) -> None:
        """Raises `IndexError` when the table is full."""
        index = self.segments_n
        if index == SEGMENTS_MAX:
            raise IndexError(f"a trial can change its rate {SEGMENTS_MAX - 1} times")
        values = (segment.start_ns, segment.first_number, segment.rate_hz, segment.producers)
        at = _TABLE_AT + index * _SEGMENT.size
        _SEGMENT.pack_into(self._mapped.buffer, at, *values, segment.poisson, segment.seed)
        self._words[_SEGMENTS_N] = index + 1
