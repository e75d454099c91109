"""Why is it as it is? With `why=True` a trial shows what its server and machine say of themselves, on the same clock.

Each file here whose name is a kind of server holds the one `Reader` of that kind; ``host.py`` reads the machine, and
``reader.py`` says what a reader is. It lives in a thread of its own, with a connection of its own, and reads once for
each scrape, so its figures are samples of the same moments as the trial's counters, as ``queue_server_*`` and
``queue_host_*`` in the trial's series.
What was not answered in time is missing from that scrape and counted: a server that hangs shows as a gap.

Measured on 2 cores, medians of 3 pairs of flows of 2,000/s, with and without: the driver, its readers and all that
they start took 4.5 % of a core instead of 4.3 with Redis, 4.8 instead of 4.0 with PostgreSQL, 6.0 instead of 5.0 with
RabbitMQ; in the servers' own CPU no difference could be told from chance.

The usual exporters are not used: Debian's answer in 15 to 30 ms of half a second, and take 0.9 % (Redis), 1.8 %
(PostgreSQL) and 2.5 % (machine) of a core at two scrapes a second, for 330 to 510 series each where ten are looked at.
Prometheus had their first sample 3.2 s after they were named to it, and reads each at a moment of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.watch.host import Host
from imqueue.watch.reader import OPEN_MAX_S, Reader, Watch, WatchError

ANSWER_MAX_S = 0.15  # a scrape has half a second in all


def start(server: Server | None, guard: Guard) -> list[Watch]:
    """Watch the machine, and the server where there is one; returns when all are open or have failed."""
    watches = [Watch("host", lambda: Host(server, guard))]
    if server is not None:
        watches.append(Watch(server.kind, lambda: load(server.kind)(server, guard)))
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


def load(kind: str) -> type[Reader]:
    """The reader of this kind of server. Raises `WatchError` where nobody has written one."""
    if importlib.util.find_spec(f"imqueue.watch.{kind}") is None:
        raise WatchError(f"there is no reader for {kind}")
    module = importlib.import_module(f"imqueue.watch.{kind}")
    (reader,) = [
        each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
    ]
    assert issubclass(reader, Reader)
    return reader
