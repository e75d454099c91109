"""One trial's life: fresh queue, open, warm up, measure, drain, audit, write, destroy."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imqueue import admission, fsyncs, pinning, record, registry
from imqueue.backend import BackendError, Inline
from imqueue.control import Control, Phase
from imqueue.crew import Crew, CrewError
from imqueue.exporter import Exporter, Source
from imqueue.facts import Facts, Window
from imqueue.fleet import Fleet, has_ended
from imqueue.ledger import MESSAGES_N, WARM_N, State
from imqueue.load import Post
from imqueue.message import new_trial_number
from imqueue.pace import GRACE_NS
from imqueue.servers import Server, ServerError, ServerMissing
from imqueue.servers.guard import Guard
from imqueue.steering import Steering
from imqueue.tally import Tally
from imqueue.workload import BadInput, Workload

OPEN_MAX_S = 30.0
WARM_MAX_S = 10.0
SCRAPE_MAX_S = 15.0  # Prometheus' first scrape may come 5 s after its start
QUIET_S = 2.0  # a queue from which nothing comes for so long is taken for empty
DRAIN_MAX_S = 60.0
END_MAX_S = 5.0
LOOK_S = 0.02


class TrialError(Exception):
    """The trial cannot go on; the text becomes its error."""


class Trial:
    """`run` does all of it, in a thread of the caller's; the other methods may be called from any thread."""

    def __init__(self, workload: Workload, data: Path, fleet: Fleet, exporter: Exporter, guard: Guard) -> None:
        declares, durability = admission.check(workload)
        made = datetime.now(UTC)
        number = new_trial_number()
        self.id = f"{made:%Y%m%d-%H%M%S}-{workload.backend}-{workload.shape}-{number & 0xFFFF:04x}"
        self.folder = data / "trials" / self.id
        self.queue = f"imq_{number:08x}"
        self.state = "starting"
        self.finished = threading.Event()
        self._live = self.folder / "live"
        self._fleet, self._exporter, self._guard = fleet, exporter, guard
        self._stopping = threading.Event()
        self._server: Server | None = None
        self._inline = issubclass(registry.load(workload.backend), Inline)
        self._bound = pinning.Bound("none", [])
        self._facts = Facts(self.id, number, workload, made, declares, durability)
        admission.make_folder(workload, self._live / "ledger")
        self._control = Control(self._live, create=True)
        self._control.workers = workload.workers
        self._source = Source.of(self.id, workload, Tally(self._live, number))
        self._steering = Steering(workload, self._control, self._source, self._facts)
        if self._inline or declares.in_process:
            self._steering.fixed = f"{workload.backend} lives in one process: its threads are fixed at the start"

    @property
    def error(self) -> str | None:
        return self._facts.error

    def run(self) -> None:
        """From start to end; never raises. How it went stands in `state`, `error` and the trial's folder.

        `finished` is for the caller to set, once the next trial may start.
        """
        try:
            with self._timed("setup_s", "setting up"):
                self._set_up()
            with self._timed("warmup_s", "warming up"):
                self._warm_up()
            with self._timed("wait_scrape_s", "waiting for Prometheus"):
                self._wait_for_zeros()
            with fsyncs.counting(self._facts, self._source, self._crew, self._server, self._guard, self._live):
                self._measure()
        except CrewError as error:
            self._source.errors[error.kind] = self._source.errors.get(error.kind, 0) + 1
            self._fail(str(error))
        except (TrialError, BackendError, ServerError, ServerMissing) as error:
            self._fail(str(error))
        except Exception as error:
            traceback.print_exc()  # into the driver's log
            self._fail(f"the harness failed: {error!r}")
        finally:
            self._end()

    @contextlib.contextmanager
    def _timed(self, name: str, state: str) -> Iterator[None]:
        self.state = state
        start_s = time.monotonic()
        try:
            yield
        finally:
            self._facts.times[name] = round(time.monotonic() - start_s, 3)

    def _fail(self, error: str) -> None:
        if self._server is not None and has_ended(self._server):
            error = f"the server ({self._server.kind}) ended during the trial; {error}"
        self._facts.error = error
        self._facts.event("error", error)

    def _set_up(self) -> None:
        facts, workload = self._facts, self._steering.workload
        url = self._fleet.url(workload.backend, facts.durability)
        usage = self._source.usage
        usage.add("driver", os.getpid())
        prometheus = self._fleet.server("prometheus")
        facts.prometheus_version = prometheus.version()
        usage.add_tree("prometheus", prometheus.pids())
        if facts.declares.server is not None:
            self._server = self._fleet.server(facts.declares.server, facts.durability)
            usage.add_tree("server", self._server.pids())
            facts.describe_server(self._server)
            self._bound = pinning.Bound(workload.pin, self._server.pids())
            facts.server_cores = self._bound.cores
        if workload.why:
            self._source.watch(self._server, self._guard)
        template = Post("", "", 0, self._live, facts.number, workload, url, self.queue, facts.durability)
        self._crew = crew = Crew(template, self._control, self._source, self._guard)
        self._steering.crew = crew
        if self._inline:
            crew.start([crew.post("inline")], OPEN_MAX_S)
            facts.guarantees = asdict(Inline.guarantees)
            return
        keeper = [crew.post("keeper")]
        rest = [crew.post("worker", rank) for rank in range(workload.workers)]
        rest += [crew.post("producer", rank) for rank in range(workload.producers)]
        if facts.declares.in_process:
            crew.start(keeper + rest, OPEN_MAX_S, together=True)
        else:
            crew.start(keeper, OPEN_MAX_S)  # it makes the queue
            crew.start(rest, OPEN_MAX_S)
        self._source.keeper = crew.of("keeper")[0].page
        facts.read_guarantees(self._live)

    def _warm_up(self) -> None:
        """Until all that the producers put for it has come back."""
        producers, workers = self._crew.of("producer"), self._crew.of("worker")
        deadline = time.monotonic() + WARM_MAX_S
        while time.monotonic() < deadline:
            self._crew.raise_errors()
            ready = all(member.state >= State.WARM for member in producers)
            put = sum(member.page[WARM_N] for member in producers)
            got = sum(member.page[WARM_N] for member in workers)
            if ready and got >= put:
                self._control.phase = Phase.READY
                return
            time.sleep(0.005)
        raise TrialError(f"of the warm-up's {put:,} messages only {got:,} came back within {WARM_MAX_S:g} s")

    def _wait_for_zeros(self) -> None:
        self._exporter.source = self._source
        if not self._exporter.wait_for_scrape(time.monotonic_ns(), SCRAPE_MAX_S):
            raise TrialError(f"Prometheus did not scrape the driver within {SCRAPE_MAX_S:g} s")

    def _measure(self) -> None:
        start = self._crew.window()
        try:
            self._load(start)
            with self._timed("drain_s", "draining"):
                self._drain()
        finally:
            start.spent(self._crew.window(), self._facts)
        with self._timed("settle_s", "settling"):
            self._dismiss_workers()
            self._source.settle_rate(self._facts.go_ns)
            self._exporter.wait_for_scrape(time.monotonic_ns(), 2.0)  # Prometheus reads the final counts

    def _load(self, start: Window) -> None:
        workload, facts = self._steering.workload, self._facts
        go_ns = time.monotonic_ns() + 20_000_000
        length_s = workload.time_max_s if workload.rate_hz is None else workload.duration_s
        facts.go(go_ns)
        self._steering.go(go_ns, go_ns + int(length_s * 1e9))
        try:
            with self._timed("load_s", "running"):
                self._until_producers_end()
        finally:
            facts.end_ns = min(self._control.end_ns, time.monotonic_ns())
            start.loaded(self._crew.window(), facts)
            facts.event("end", "the producers ended", facts.end_ns)

    def _until_producers_end(self) -> None:
        producing = "inline" if self._inline else "producer"
        while True:
            self._crew.raise_errors()
            # In mid-flow a producer whose rank is no longer wanted ends; the flow lasts until its own end.
            now_ns = time.monotonic_ns()
            over = not self._source.is_flow or now_ns >= self._control.end_ns
            if over and all(member.state >= State.ENDED for member in self._crew.of(producing)):
                return
            if now_ns > self._control.end_ns + 4 * GRACE_NS:
                raise TrialError(f"a put had not returned {4 * GRACE_NS // 10**9} s after the end of the load")
            time.sleep(LOOK_S)

    def _drain(self) -> None:
        """Until every acknowledged message was received, or nothing comes any more."""
        tally, facts = self._source.tally, self._facts
        started_ns = time.monotonic_ns()
        deadline = time.monotonic() + DRAIN_MAX_S
        while time.monotonic() < deadline:
            self._crew.raise_errors()
            with self._source.lock:
                tally.update()
                held = tally.received - tally.popped
                missing = tally.pushed - (tally.received - tally.redelivered)
                unsure = tally.uncertain
            # A batch that is being worked on is in nobody's totals yet.
            in_hand = sum(member.page[MESSAGES_N] for member in self._crew.of("worker")) > tally.received
            started_ns = time.monotonic_ns() if in_hand else started_ns
            quiet_s = (time.monotonic_ns() - max(tally.last_received_ns, started_ns)) / 1e9
            patience_s = facts.workload.lease_s if held and facts.declares.at_least_once else 0.0
            if (missing <= 0 and held == 0 and unsure == 0) or quiet_s > QUIET_S + patience_s:
                facts.drained = True
                facts.event("drained", "nothing comes any more")
                return
            time.sleep(LOOK_S)
        facts.event("drained", f"the drain ended after {DRAIN_MAX_S:g} s with messages left")

    def _dismiss_workers(self) -> None:
        """So that nothing is settled after Prometheus has read the final counts."""
        self._control.workers = 0
        workload = self._steering.workload
        patience_s = END_MAX_S + workload.work_s * workload.batch
        with contextlib.suppress(BadInput):  # one that is still at work then is killed in the end, and that is told
            self._crew.wait_until_left("worker", 0, patience_s)

    def _end(self) -> None:
        self.state = "writing"
        self._control.phase = Phase.STOP
        facts = self._facts
        try:
            facts.readers = self._source.end_watches()
            with self._source.lock:
                self._source.usage.freeze()
            self._bound.release()
            if self._steering.crew:
                killed = self._crew.end(END_MAX_S)
                facts.harness_errors += [f"{name} did not end by itself and was killed" for name in killed]
                self._crew.drop_queue(facts, self._server, OPEN_MAX_S)
            facts.state = "failed" if facts.error else "stopped" if self._stopping.is_set() else "done"
            with self._source.lock:
                record.write(facts, self.folder, self._live, self._source, self._fleet.server("prometheus").url)
            shutil.rmtree(self._live, ignore_errors=True)
        except Exception as error:
            traceback.print_exc()
            facts.error = facts.error or f"the trial's record could not be written: {error!r}"
        with self._source.lock:
            self._source.tally.close()
        self.state = "failed" if facts.error else facts.state

    def stop(self) -> None:
        """End the load now; the queue is drained and audited as at a planned end."""
        self._stopping.set()
        self._steering.end("stopped by hand")

    def change(self, rate_hz: float | None, producers: int | None, workers: int | None) -> None:
        """New values while it runs. Raises `BadInput`, and leaves the trial as it was."""
        self._steering.change(rate_hz, producers, workers)

    def status(self) -> dict[str, Any]:
        """What a progress bar and a panel need."""
        facts, tally, workload = self._facts, self._source.tally, self._steering.workload
        total = workload.messages if workload.rate_hz is None else workload.duration_s
        done = tally.popped if workload.rate_hz is None else max(0.0, facts.since_go_s(time.monotonic_ns()))
        return {
            "id": self.id,
            "state": self.state,
            "finished": self.finished.is_set(),
            "error": self.error,
            "workload": workload.as_dict(),
            "durability": str(facts.durability),
            "folder": str(self.folder),
            "queue": self.queue,
            "since_go_s": facts.since_go_s(time.monotonic_ns()),
            "done": min(done, total),
            "total": total,
            "pushed": tally.pushed,
            "popped": tally.popped,
            "events": facts.events_dict()[-5:],
        }
