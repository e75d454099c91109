"""What the harness takes for itself: recording, looking on, auditing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import imqueue as imq
from bench import auditing, recording
from imqueue.locks import Taken, machine_lock

FASTEST = ("redis_list", 100)  # of the networked backends, and the batch that the bound is for
PAIRS, SECONDS_S = 12, 1.0
FLOW_HZ, FLOW_S = 2_000.0, 10.0
PROMETHEUS_MAX = 0.03  # of a core
BUSY_MAX_S = 120.0


def lines() -> Iterator[str]:
    """A sentence for each, as soon as it is known; one that could not be measured says why."""
    yield _told(_recording)
    yield _told(_observer)
    for batch in (100, 1):
        yield _told(partial(auditing.measure, auditing.MESSAGES, batch))


def _told(measure: Callable[[], object]) -> str:
    try:
        return str(measure())
    except (recording.Failed, imq.DriverError, imq.Busy, Taken) as error:
        return f"not measured: {error}"


def _recording() -> recording.Cost:
    """Under the lock of trials, for it is one in all but name."""
    lock = machine_lock()
    deadline = time.monotonic() + BUSY_MAX_S
    while True:
        try:
            lock.take("a bench of recording")
            break
        except Taken:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    try:
        return recording.measure(*FASTEST, PAIRS, SECONDS_S)
    finally:
        lock.release()


def _observer() -> str:
    """CPU time of Prometheus and the driver while a flow ran."""
    result = imq.run(FASTEST[0], rate_hz=FLOW_HZ, duration_s=FLOW_S, progress=False)
    spent, load_s = result.info["cpu_s"], result.info["load_s"]
    share = spent["prometheus"] / load_s
    kept = "kept" if share <= PROMETHEUS_MAX else "missed"
    return (
        f"looking on a flow of {FLOW_HZ:,.0f}/s: Prometheus {share:.1%} of a core "
        f"(at most {PROMETHEUS_MAX:.0%}: {kept}), driver {spent['driver'] / load_s:.1%}"
    )
