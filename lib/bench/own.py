"""What the harness takes for itself: recording, looking on, auditing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import imqueue as imq
from bench import auditing, recording
from imqueue.locks import Taken, machine_lock

BATCH = 100  # that the bound on recording is for
PAIRS, SECONDS_S = 40, 1.0
FLOW_HZ, FLOW_S = 2_000.0, 10.0
PROMETHEUS_MAX = 0.03  # of a core
BUSY_MAX_S = 120.0


def lines(backend: str, durability: str) -> Iterator[str]:
    """What recording and looking on cost: a sentence for each, as soon as it is known.

    `backend`: the fastest one with a server. What could not be measured says why, here and in `audits`.
    """
    yield _told(partial(_recording, backend, durability))
    yield _told(partial(_observer, backend, durability))


def audits() -> Iterator[str]:
    """What the audit of many messages takes, of sound ones and of some that came twice."""
    for batch, again in ((100, 0.0), (1, 0.0), (100, auditing.AGAIN), (1, auditing.AGAIN)):
        yield _told(partial(auditing.measure, auditing.MESSAGES, batch, again))


def _told(measure: Callable[[], object]) -> str:
    try:
        return str(measure())
    except (recording.Failed, auditing.Failed, imq.DriverError, imq.Busy, Taken) as error:
        return f"not measured: {error}"


def _recording(backend: str, durability: str) -> recording.Cost:
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
        return recording.measure(backend, durability, BATCH, PAIRS, SECONDS_S)
    finally:
        lock.release()


def _observer(backend: str, durability: str) -> str:
    """CPU time of Prometheus and the driver while a flow ran."""
    result = imq.run(backend, durability=durability, rate_hz=FLOW_HZ, duration_s=FLOW_S, progress=False)
    spent, window_s = result.info["cpu_s"], result.info["cpu_window_s"]
    share = spent["prometheus"] / window_s
    kept = "kept" if share <= PROMETHEUS_MAX else "missed"
    return (
        f"looking on a flow of {FLOW_HZ:,.0f}/s, {backend} {durability}: Prometheus {share:.1%} of a core "
        f"(at most {PROMETHEUS_MAX:.0%}: {kept}), driver {spent['driver'] / window_s:.1%}"
    )
