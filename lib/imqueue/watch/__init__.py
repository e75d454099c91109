"""Why is it as it is? With `why=True` a trial shows what its server and machine say of themselves, on the same clock.

Each file here whose name is a kind of server holds the one `Reader` of that kind; ``host.py`` reads the machine. A
reader lives in a thread of its own, with a connection of its own, and reads once for each scrape, so its figures are
samples of the same moments as the trial's counters, as ``queue_server_*`` and ``queue_host_*`` in the trial's series.
What was not answered in time is missing from that scrape and counted: a server that hangs shows as a gap.

Measured on 2 cores, medians of 3 pairs of flows of 2,000/s, with and without: the driver, its readers and all that
they start took 4.5 % of a core instead of 4.3 with Redis, 4.8 instead of 4.0 with PostgreSQL, 6.0 instead of 5.0 with
RabbitMQ; in the servers' own CPU no difference could be told from chance.

The usual exporters are not used: Debian's answer in 15 to 30 ms of half a second, and take 0.9 % (Redis), 1.8 %
(PostgreSQL) and 2.5 % (machine) of a core at two scrapes a second, for 330 to 510 series each where ten are looked at.
Prometheus had their first sample 3.2 s after they were named to it, and reads each at a moment of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from imqueue.servers import External, Server
from imqueue.servers.guard import Guard

OPEN_MAX_S = 5.0
ANSWER_MAX_S = 0.15  # a scrape has half a second in all
RETRY_S = 0.5
ASK_MAX_S = 2.0  # what one question to a server may take before its connection is given up


class WatchError(Exception):
    """The server's view cannot be had. The text says why."""


class Reading(NamedTuple):
    """One figure: its name after ``queue_server_``, its value, and of which kind, where there are several."""

    name: str
    value: float
    kind: str = ""
    counts: bool = False  # it only grows, and its growth is what is looked at


class Reader(ABC):
    """What one kind of server says of itself. Made, used and closed by one thread; every method may raise anything."""

    place = "server"
    glance_s: float | None = None
    """How often `glance` is called between two calls of `read`, for what changes faster than Prometheus scrapes."""

    @abstractmethod
    def __init__(self, server: Server, guard: Guard) -> None: ...

    @abstractmethod
    def read(self) -> list[Reading]: ...

    def glance(self) -> None:  # noqa: B027 - most have no use for it
        """Look, and remember for the next `read`."""

    @property
    def pid(self) -> int | None:
        """The process that it had to start, if any: the observer's, and counted as such."""
        return None

    @abstractmethod
    def close(self) -> None: ...


class Watch:
    """One reader in its thread. Made and ended by the trial; asked by the scrape."""

    def __init__(self, name: str, make: Callable[[], Reader]) -> None:
        self.name = name
        self.pid: int | None = None
        self.place = "server"
        self._make = make
        self._changed = threading.Condition()
        self._asked = self._answered = self._missed = 0
        self._readings: list[Reading] = []
        self._error: str | None = None
        self._ended = False
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)
        self._thread.start()

    def wait_until_open(self, timeout_s: float) -> None:
        self._opened.wait(timeout_s)

    def ask(self) -> None:
        """Have it read now."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Reading]:
        """What it read since it was asked last; nothing where that takes longer, or fails."""
        with self._changed:
            if self._changed.wait_for(lambda: self._answered == self._asked, timeout_s) and self._readings:
                return self._readings
            self._missed += 1
            return []

    def end(self) -> dict[str, Any]:
        """Close it; how often it was asked, how often it had no answer, and the last reason for that."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(ASK_MAX_S + 1.0)
        return {"asked": self._asked, "missed": self._missed, "error": self._error}

    def _run(self) -> None:
        while not self._ended:
            try:
                reader = self._make()
            except Exception as error:
                self._fail(error)
                continue
            try:
                self.pid, self.place = reader.pid, reader.place
                self._opened.set()
                self._serve(reader)
            except Exception as error:
                self._fail(error)
            finally:
                with contextlib.suppress(Exception):
                    reader.close()

    def _serve(self, reader: Reader) -> None:
        while True:
            with self._changed:
                due = self._changed.wait_for(lambda: self._ended or self._asked > self._answered, reader.glance_s)
                asked = self._asked
            if self._ended:
                return
            if not due:
                reader.glance()
                continue
            readings = reader.read()
            with self._changed:
                self._readings, self._answered = readings, asked
                self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        """Nothing to show until it can be opened again."""
        with self._changed:
            self._error = " ".join(str(error).split()) or type(error).__name__
            self._readings, self._answered = [], self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended, RETRY_S)
        self._opened.set()


def start(server: Server | None, guard: Guard) -> list[Watch]:
    """Watch the machine, and the server where there is one; returns when all are open or have failed."""
    from imqueue.watch.host import Host

    watches = [Watch("host", lambda: Host(server, guard))]
    if server is not None and (loaded := _load(server.kind)) is not None:
        watches.append(Watch(server.kind, lambda: loaded(server, guard)))
    deadline = time.monotonic() + OPEN_MAX_S
    for each in watches:
        each.wait_until_open(deadline - time.monotonic())
    return watches


def metrics(watches: Sequence[Watch], backend: str, trial: str) -> Iterator[Metric]:
    """What they read since they were asked, for a scrape that waits no longer than it can."""
    deadline = time.monotonic() + ANSWER_MAX_S
    for watch in watches:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, value, kind, counts in watch.take(max(0.0, deadline - time.monotonic())):
            if name not in families:
                make = CounterMetricFamily if counts else GaugeMetricFamily
                text = f"As the {watch.place} itself says ({watch.name})."
                families[name] = make(f"queue_{watch.place}_{name}", text, labels=["backend", "trial", "kind"])
            families[name].add_metric([backend, trial, kind], value)
        yield from families.values()


def needs_private(server: Server) -> None:
    """Raises `WatchError` for a server that somebody else runs."""
    if isinstance(server, External):
        raise WatchError(f"of a {server.kind} server that somebody else runs, this cannot be read")


def _load(kind: str) -> Callable[[Server, Guard], Reader] | None:
    """The reader of this kind of server; None where nobody has written one."""
    if importlib.util.find_spec(f"imqueue.watch.{kind}") is None:
        return None
    module = importlib.import_module(f"imqueue.watch.{kind}")
    (reader,) = [
        each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
    ]
    assert issubclass(reader, Reader)
    return reader
