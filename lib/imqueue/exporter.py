"""What the driver shows to Prometheus: the trial that runs, or the last one, read from its ledgers at scrape time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from imqueue import watch
from imqueue.histogram import Coarse
from imqueue.ledger import DEPTH, DEPTH_AT_NS, Page
from imqueue.schedule import DueCounter
from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.tally import Tally
from imqueue.usage import Usage
from imqueue.watch.reader import Watch
from imqueue.workload import Workload

ROLES = ("producer", "worker", "driver", "server", "prometheus")
ERROR_KINDS = ("rejected", "uncertain", "backend", "harness")


@dataclass
class Source:
    """A trial as the exporter sees it. `lock` guards all that is read step by step."""

    id: str
    backend: str
    tally: Tally
    is_flow: bool
    usage: Usage = field(default_factory=Usage)
    due: DueCounter = field(default_factory=DueCounter)
    keeper: Page | None = None
    producers: int = 0
    workers: int = 0
    due_until_ns: int | None = None  # nothing is due from here on
    batch_rate_hz: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    watches: list[Watch] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _reader_pids: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, trial: str, workload: Workload, tally: Tally) -> Source:
        """Before its children are there."""
        is_flow, n = workload.shape == "flow", (workload.producers, workload.workers)
        return cls(trial, workload.backend, tally, is_flow, producers=n[0], workers=n[1])

    def watch(self, server: Server | None, guard: Guard) -> None:
        """From now on show what the server and the machine say of themselves, too."""
        self.watches = watch.start(server, guard)
        with self.lock:
            self.own_readers()

    def own_readers(self) -> None:
        """What the processes of readers take is the driver's; one that had to be opened anew has another process."""
        for each in self.watches:
            if each.pid is not None and each.pid not in self._reader_pids:
                self._reader_pids.add(each.pid)
                self.usage.add("driver", each.pid)

    def end_watches(self) -> dict[str, Any]:
        """How each of them did."""
        ended, self.watches = self.watches, []
        return {each.name: each.end() for each in ended}

    def due_total(self, now_ns: int) -> int:
        """Messages offered so far; a sum offers what it attempts."""
        if not self.is_flow:
            return self.tally.attempted
        return self.due.count(now_ns if self.due_until_ns is None else min(now_ns, self.due_until_ns))

    def settle_rate(self, go_ns: int) -> None:
        """Of a sum that is over: messages per second over all of it."""
        elapsed_s = (self.tally.last_settled_ns - go_ns) / 1e9
        if not self.is_flow and elapsed_s > 0:
            self.batch_rate_hz = self.tally.popped / elapsed_s

    def depth(self) -> int:
        """What the server said last; what the ledgers know where no server can be asked."""
        if self.keeper is not None and self.keeper[DEPTH_AT_NS]:
            return self.keeper[DEPTH]
        return self.tally.ledger_depth()


class Exporter:
    """A `prometheus_client` collector over the current `Source`, and a clock of the scrapes it served."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self._scraped = threading.Condition()
        self._last_ns = -1

    def describe(self) -> Iterable[Metric]:
        """Nothing, or registering would collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        source = self.source
        if source is None:
            return
        watches = source.watches
        for each in watches:
            each.ask()
        with source.lock:
            source.tally.update()
            source.own_readers()
            usage = source.usage.read()
            due_total = source.due_total(time.monotonic_ns())
        yield from _totals(source, due_total)
        yield from _gauges(source)
        yield from _histograms(source)
        yield from _usage(source, usage)
        yield from watch.metrics(watches, source.backend, source.id)

    def scraped(self, started_ns: int) -> None:
        """Prometheus has been served a scrape that was begun at `started_ns`."""
        with self._scraped:
            self._last_ns = max(self._last_ns, started_ns)
            self._scraped.notify_all()

    def wait_for_scrape(self, after_ns: int, timeout_s: float) -> bool:
        """Wait until a scrape that was begun after `after_ns` has been served; False when none came."""
        with self._scraped:
            return self._scraped.wait_for(lambda: self._last_ns > after_ns, timeout_s)


Sample = tuple[dict[str, str], float]


def _counter(name: str, text: str, source: Source, *samples: Sample) -> Metric:
    return _filled(CounterMetricFamily(f"queue_trial_{name}", text, labels=_names(samples)), source, samples)


def _gauge(name: str, text: str, source: Source, *samples: Sample) -> Metric:
    return _filled(GaugeMetricFamily(f"queue_trial_{name}", text, labels=_names(samples)), source, samples)


def _names(samples: Sequence[Sample]) -> list[str]:
    return ["backend", "trial", *samples[0][0]]


def _filled(family: CounterMetricFamily | GaugeMetricFamily, source: Source, samples: Sequence[Sample]) -> Metric:
    for labels, value in samples:
        family.add_metric([source.backend, source.id, *labels.values()], value)
    return family


def _totals(source: Source, due_total: int) -> Iterator[Metric]:
    tally = source.tally
    yield _counter("due", "Messages offered by the schedule.", source, ({}, due_total))
    yield _counter("push", "Messages acknowledged by the backend.", source, ({}, tally.pushed))
    yield _counter("pop", "Messages handled and settled.", source, ({}, tally.popped))
    yield _counter("redelivered", "Deliveries of a message beyond its first.", source, ({}, tally.redelivered))
    booked = {"rejected": tally.rejected, "uncertain": tally.uncertain}
    counts = {**dict.fromkeys(ERROR_KINDS, 0), **source.errors, **booked}
    text = "Messages rejected or uncertain, and errors of children, by kind."
    yield _counter("errors", text, source, *(({"kind": kind}, n) for kind, n in counts.items()))


def _gauges(source: Source) -> Iterator[Metric]:
    yield _gauge("queue_depth", "Messages that the server calls ready.", source, ({}, source.depth()))
    yield _gauge("batch_rate", "Messages per second over a whole sum.", source, ({}, source.batch_rate_hz))
    yield _gauge("producers", "Producers asked for.", source, ({}, source.producers))
    yield _gauge("workers", "Workers asked for.", source, ({}, source.workers))


def _histograms(source: Source) -> Iterator[Metric]:
    tally = source.tally
    for name, text, coarse in (
        ("latency_seconds", "From due to handled.", tally.latency),
        ("service_seconds", "From sent to handled.", tally.service),
        ("put_seconds", "One put.", tally.put),
    ):
        yield _histogram(name, text, source, coarse)


def _histogram(name: str, text: str, source: Source, coarse: Coarse) -> Metric:
    family = HistogramMetricFamily(f"queue_trial_{name}", text, labels=["backend", "trial"])
    family.add_metric([source.backend, source.id], buckets=coarse.buckets(), sum_value=coarse.sum_s)
    return family


def _usage(source: Source, usage: dict[str, tuple[float, int]]) -> Iterator[Metric]:
    cpu = [({"role": role}, usage.get(role, (0.0, 0))[0]) for role in ROLES]
    memory = [({"role": role}, float(usage.get(role, (0.0, 0))[1])) for role in ROLES]
    yield _counter("cpu_seconds", "CPU time used, by role.", source, *cpu)
    yield _gauge("memory_bytes", "Resident memory, by role.", source, *memory)
