"""What a producer puts next, and when: as fast as the backlog allows (sum), or all that is due (flow)."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imqueue.control import Control, Phase
from imqueue.ledger import MESSAGES_N, Page
from imqueue.schedule import Segment
from imqueue.workload import Workload

clock_ns = time.monotonic_ns

NAP_S = 0.0002  # a sum's producer looks at the backlog this often while it is full
STEER_S = 0.02  # a waiting producer looks at the driver's page this often
GRACE_NS = 5_000_000_000  # a producer that is behind goes on this long past the end of a flow


class Batch(NamedTuple):
    """The integers `first`, `first` + `step` …, `n` of them; `due_ns` is None where they are due when they are sent."""

    first: int
    n: int
    step: int
    due_ns: NDArray[np.int64] | None


def numbers(first: int, n: int, step: int) -> NDArray[np.uint64]:
    """The integers of a batch."""
    return np.arange(first, first + n * step, step, dtype=np.uint64)


class Backlog:
    """How many messages were attempted and not received, by everybody in the trial."""

    def __init__(self, folder: Path, control: Control) -> None:
        self._folder = folder
        self._control = control
        self._pages: dict[str, list[Page]] = {"producer": [], "worker": []}

    def __call__(self) -> int:
        return self._sum("producer") - self._sum("worker")

    def _sum(self, role: str) -> int:
        pages = self._pages[role]
        while len(pages) < self._control.seats(role):
            pages.append(Page(self._folder, f"{role}-{len(pages)}"))
        return sum(page.words[MESSAGES_N] for page in pages)


def of_sum(workload: Workload, control: Control, rank: int, backlog: Backlog) -> Iterator[Batch]:
    """Every P-th integer of 1..messages, from `rank` + 1 on, until all are put or the end is reached."""
    step = workload.producers
    left = (workload.messages - rank + step - 1) // step
    first = rank + 1
    while left > 0:
        n = min(workload.batch, left)
        while backlog() + n > workload.backlog_max and backlog() > 0:
            if clock_ns() >= control.end_ns:
                return
            time.sleep(NAP_S)
        if clock_ns() >= control.end_ns or control.phase != Phase.MEASURE:
            return
        yield Batch(first, n, step, None)
        first += n * step
        left -= n


def of_flow(workload: Workload, control: Control, rank: int, from_segment: int) -> Iterator[Batch]:
    """All that is due for producer `rank`, from segment `from_segment` on, until the flow ends or it has to leave."""
    index = from_segment
    while control.segments_n <= index:  # one that joins in mid-flow is ready before its segment is decided
        if control.phase != Phase.MEASURE or clock_ns() > control.end_ns:
            return
        time.sleep(NAP_S)
    while True:
        segment = control.segment(index)
        if rank >= segment.producers:
            return
        yield from _of_segment(segment, workload.batch, control, rank, index)
        if control.segments_n == index + 1:
            return
        index += 1


def _of_segment(segment: Segment, batch: int, control: Control, rank: int, index: int) -> Iterator[Batch]:
    for number, due_ns in segment.share(rank):
        times_ns = due_ns.tolist()
        at = 0
        while at < len(times_ns):
            now_ns = clock_ns()  # before the limit: a segment is known well before it starts
            limit_ns = _limit_ns(control, index)
            if times_ns[at] >= limit_ns:
                return
            if control.phase != Phase.MEASURE or now_ns > control.end_ns + GRACE_NS:
                return
            until_ns = min(now_ns, limit_ns - 1)
            upto = bisect.bisect_right(times_ns, until_ns, at, min(at + batch, len(times_ns)))
            if upto == at:
                time.sleep(min((times_ns[at] - now_ns) / 1e9, STEER_S))
                continue
            yield Batch(number + at * segment.producers, upto - at, segment.producers, due_ns[at:upto])
            at = upto


def _limit_ns(control: Control, index: int) -> int:
    """Where segment `index` ends, as far as is known now."""
    end_ns = control.end_ns
    return min(control.segment(index + 1).start_ns, end_ns) if control.segments_n > index + 1 else end_ns
