"""When messages are due: fixed before a segment starts, whatever the backend does (an open loop).

A flow is a row of segments; a change of rate starts a new one. All who share a segment compute the same arrivals from
it, so producers need no messages from one another: producer `rank` of P takes every P-th.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 4096


@dataclass(frozen=True)
class Segment:
    """A stretch of one rate. Its i-th message has the number `first_number` + i."""

    start_ns: int
    first_number: int
    rate_hz: float
    producers: int
    poisson: bool = False
    seed: int = 0

    def arrivals(self) -> Iterator[NDArray[np.int64]]:
        """Due times in ns, ascending, in chunks, without end."""
        gap_ns = 1e9 / self.rate_hz
        random = np.random.default_rng((self.seed, self.first_number))
        last_ns = float(0)
        index = np.arange(CHUNK, dtype=np.float64)
        while True:
            if self.poisson:
                offsets = last_ns + np.cumsum(random.exponential(gap_ns, CHUNK))
                last_ns = float(offsets[-1])
            else:
                offsets = index * gap_ns
                index += CHUNK
            yield self.start_ns + offsets.astype(np.int64)

    def share(self, rank: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(first number, due times in ns) of what producer `rank` puts, in chunks; numbers step by `producers`."""
        base = 0
        for due_ns in self.arrivals():
            offset = (rank - base) % self.producers
            if len(mine := due_ns[offset :: self.producers]):
                yield self.first_number + base + offset, mine
            base += len(due_ns)


class DueCounter:
    """Counts the messages that a row of segments has made due; reads on where it stopped, so a call costs little."""

    def __init__(self) -> None:
        self._done = 0
        self._segments: list[Segment] = []
        self._arrivals: Iterator[NDArray[np.int64]] | None = None
        self._chunk = np.zeros(0, dtype=np.int64)
        self._at = 0
        self._in_segment = 0

    def add(self, segment: Segment) -> None:
        """The next segment; the one before it ends where this one starts."""
        self._segments.append(segment)

    def count(self, now_ns: int) -> int:
        """How many were due before `now_ns`, which must not be less than in an earlier call."""
        while self._segments:
            until_ns = min(now_ns, self._segments[1].start_ns) if len(self._segments) > 1 else now_ns
            self._advance(until_ns)
            if len(self._segments) == 1 or now_ns < self._segments[1].start_ns:
                break
            self._done += self._in_segment
            self._segments.pop(0)
            self._arrivals, self._in_segment, self._at = None, 0, 0
            self._chunk = self._chunk[:0]
        return self._done + self._in_segment

    def _advance(self, until_ns: int) -> None:
        if self._arrivals is None:
            self._arrivals = self._segments[0].arrivals()
        while True:
            if self._at == len(self._chunk):
                self._chunk, self._at = next(self._arrivals), 0
            at = int(np.searchsorted(self._chunk, until_ns, side="left"))
            at = max(at, self._at)
            self._in_segment += at - self._at
            self._at = at
            if at < len(self._chunk):
                return
