"""Changing a trial while it runs: its rate, its producers, its workers, its end. Called from any thread."""

from __future__ import annotations

import threading
import time

from imqueue.control import SEGMENTS_MAX, Control
from imqueue.crew import Crew
from imqueue.exporter import Source
from imqueue.facts import Facts
from imqueue.schedule import DueCounter, Segment
from imqueue.workload import BadInput, Workload

LEAD_NS = 60_000_000  # a new segment starts this far ahead, so that every producer sees it in time
OPEN_MAX_S = 10.0


class Steering:
    """What may be changed depends on the shape: a sum's producers have shared the integers from the start."""

    def __init__(self, workload: Workload, control: Control, source: Source, facts: Facts) -> None:
        self.workload = workload
        self.fixed: str | None = None  # why producers and workers cannot be changed, if they can't
        self.crew: Crew | None = None
        self._control, self._source, self._facts = control, source, facts
        self._segments: list[Segment] = []
        self._counter = DueCounter()  # of our own: it may run ahead to a segment's start
        self._ended = False
        self._lock = threading.Lock()

    def go(self, go_ns: int, end_ns: int) -> None:
        """Start the measured load: the first segment of a flow, or a sum. Empty when it was ended before it began."""
        with self._lock:
            end_ns = go_ns if self._ended else end_ns
            if self.workload.rate_hz is not None:
                self._source.due_until_ns = end_ns
                self._add(self.workload, go_ns, 1)
            self._control.go(go_ns, end_ns)

    def end(self, text: str) -> None:
        """No message is due from now on. A second call changes nothing."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            now_ns = min(time.monotonic_ns(), self._control.end_ns)
            if self._source.due_until_ns is not None:
                self._source.due_until_ns = now_ns
            self._control.end(now_ns)
            self._facts.event("stop", text)

    def change(self, rate_hz: float | None, producers: int | None, workers: int | None) -> None:
        """Raises `BadInput`, and leaves the trial as it was."""
        asked_ns = time.monotonic_ns()
        with self._lock:
            changes = {"rate_hz": rate_hz, "producers": producers, "workers": workers}
            given = {name: value for name, value in changes.items() if value is not None}
            wanted = self.workload.changed(**given)
            self._refuse(given)
            if wanted.workers != self.workload.workers:
                self._set_workers(wanted.workers)
                self.workload = self.workload.changed(workers=wanted.workers)
            if (wanted.rate_hz, wanted.producers) != (self.workload.rate_hz, self.workload.producers):
                self._set_flow(wanted)
            self.workload = wanted
            self._facts.changes.append({"asked_ns": asked_ns, **given})

    def _refuse(self, given: dict[str, float]) -> None:
        shape = self.workload.shape
        if shape == "sum" and ("rate_hz" in given or "producers" in given):
            raise BadInput("a sum has no rate, and its producers are fixed; allowed here: workers")
        if self.fixed is not None and ("producers" in given or "workers" in given):
            raise BadInput(self.fixed)
        if self.crew is None or not self._control.go_ns:
            raise BadInput("the trial has not started to measure yet; try again in a moment")
        if self._ended or time.monotonic_ns() + LEAD_NS >= self._control.end_ns:
            raise BadInput("the trial is at its end: nothing can be changed any more")
        if len(self._segments) >= SEGMENTS_MAX:
            raise BadInput(f"a trial can change its rate {SEGMENTS_MAX - 1} times at the most")

    def _set_workers(self, n: int) -> None:
        assert self.crew is not None
        before = self.workload.workers
        if n > before:
            # One that was asked to leave may still be at its last batch; raising the number now would call it back.
            self.crew.wait_until_left("worker", before, OPEN_MAX_S)
        self._control.workers = n
        self.crew.start([self.crew.post("worker", rank) for rank in range(before, n)], OPEN_MAX_S)
        self._source.workers = n
        self._facts.event("workers", f"workers {before} → {n}")

    def _set_flow(self, wanted: Workload) -> None:
        assert self.crew is not None
        old = self.workload
        index = len(self._segments)
        joining = [self.crew.post("producer", rank, index) for rank in range(old.producers, wanted.producers)]
        self.crew.start(joining, OPEN_MAX_S)
        self._counter.count(time.monotonic_ns())  # what takes long, before the time is fixed
        with self._source.lock:  # held by a scrape for a while; everybody must know the start before it comes
            start_ns = time.monotonic_ns() + LEAD_NS
            first = 1 + self._counter.count(start_ns)
            self._add(wanted, start_ns, first)
        if wanted.rate_hz != old.rate_hz:
            self._facts.event("rate", f"rate {old.rate_hz:g}/s → {wanted.rate_hz:g}/s", start_ns)
        if wanted.producers != old.producers:
            self._facts.event("producers", f"producers {old.producers} → {wanted.producers}", start_ns)

    def _add(self, workload: Workload, start_ns: int, first: int) -> None:
        """In a running flow the source's lock must be held."""
        assert workload.rate_hz is not None
        rate_hz, producers = workload.rate_hz, workload.producers
        poisson = workload.arrivals == "poisson"
        segment = Segment(start_ns, first, rate_hz, producers, poisson, workload.seed)
        self._control.add(segment)
        self._counter.add(segment)
        self._source.due.add(segment)
        self._segments.append(segment)
        self._source.producers = producers
        self._facts.segments.append({"start_ns": start_ns, "rate_hz": rate_hz, "producers": producers})
