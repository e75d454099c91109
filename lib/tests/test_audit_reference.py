"""On random histories the audit agrees with a slow and obvious one, made of dicts and loops."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from histories import DONE, PENDING, REJECTED, TRIAL, UNCERTAIN, Get, Row, Worker, puts, received
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imqueue import audit
from imqueue.histogram import Histogram, bucket_bounds_ns
from imqueue.ledger import Outcome
from imqueue.message import CORRUPTED, FOREIGN


@dataclass(frozen=True)
class History:
    """What each producer put, batch by batch, and what each worker got."""

    put: list[list[tuple[list[int], Outcome]]]
    got: list[list[Get]]
    fifo: bool = True
    drained: bool = True
    chunk: int = 3


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Producers that share the integers as a sum's do, some of which stop early; anything may come out of the queue."""
    producers = draw(st.integers(1, 3))
    n = draw(st.integers(1, 12))  # few, so that many come twice
    put = []
    for rank in range(producers):
        integers = list(range(rank + 1, draw(st.integers(1, n)) + 1, producers))
        batches = []
        while integers:
            size = draw(st.integers(1, 5))
            batches.append((integers[:size], draw(st.sampled_from([DONE, DONE, DONE, REJECTED, UNCERTAIN, PENDING]))))
            integers = integers[size:]
        put.append(batches)
    trial = st.sampled_from([TRIAL] * 8 + [TRIAL + 1, CORRUPTED, FOREIGN])
    time_ns = st.integers(0, 3)
    row = st.builds(Row, trial, st.integers(0, n + 3), time_ns, time_ns, time_ns)
    get = st.builds(Get, st.integers(1, 20), st.lists(row, min_size=1, max_size=5), st.sampled_from([DONE, PENDING]))
    got = []
    for _ in range(draw(st.integers(1, 3))):
        # A worker's gets follow one another; those of two workers may bear the same time.
        got.append(sorted(draw(st.lists(get, max_size=8)), key=lambda each: each.start_ns))
    return History(put, got, draw(st.booleans()), draw(st.booleans()), draw(st.integers(1, 6)))


AT_ONCE = Get(1, [Row(TRIAL, 2, 0, 0, 1)], DONE)
"""When two workers get one message at the same time, the first of them by name got it first."""


@given(histories())
@settings(max_examples=200, deadline=None)
@example(History([[([1, 2], DONE)]], [[AT_ONCE], [AT_ONCE]]))
def test_the_audit_agrees_with_a_slow_and_obvious_one(history: History) -> None:
    producers = {f"producer-{k}": puts(*each) for k, each in enumerate(history.put)}
    workers: dict[str, Worker] = {f"worker-{k}": received(each, history.chunk) for k, each in enumerate(history.got)}
    told, latencies = audit.audit(producers, workers, trial=TRIAL, fifo=history.fifo, drained=history.drained)

    assert audit.as_dict(told) == slow_audit(history)
    handled = [row for row, _ in good_rows(history) if row.handled_ns]
    check(latencies.due, [row.handled_ns - row.due_ns for row in handled])
    check(latencies.sent, [row.handled_ns - row.sent_ns for row in handled])


def outcomes(history: History) -> dict[int, Outcome]:
    return {k: outcome for batches in history.put for integers, outcome in batches for k in integers}


def good_rows(history: History) -> list[tuple[Row, tuple[int, int, int]]]:
    """Deliveries of ours that were asked for, and when each came: (time, worker, place among that worker's)."""
    outcome, found = outcomes(history), []
    for worker, gets in enumerate(history.got):
        place = 0
        for get in gets:
            for row in get.rows:
                if row.trial == TRIAL and outcome.get(row.number) in (DONE, UNCERTAIN, PENDING):
                    found.append((row, (get.start_ns, worker, place)))
                place += 1
    return found


def slow_audit(history: History) -> dict[str, Any]:
    """Straight from the definitions of the words in DESIGN."""
    outcome, good = outcomes(history), good_rows(history)
    rows = [row for gets in history.got for get in gets for row in get.rows]
    times = Counter(row.number for row, _ in good)
    unsure = [k for k in outcome if outcome[k] in (UNCERTAIN, PENDING)]
    acknowledged = [k for k in outcome if outcome[k] == DONE]
    missing = sorted(k for k in acknowledged if not times[k])
    named = {
        "recovered": sorted(k for k in unsure if times[k]),
        "lost": missing if history.drained else [],
        "undelivered": [] if history.drained else missing,
        "duplicated": sorted(k for k in times if times[k] > 1),
        "corrupted": [row.number for row in rows if row.trial == CORRUPTED],
        "unexpected": [
            row.number
            for row in rows
            if row.trial != CORRUPTED and (row.trial != TRIAL or outcome.get(row.number) in (None, REJECTED))
        ],
        "reordered": slow_reordered(history) if history.fifo else [],
    }
    return {
        **{name: len(integers) for name, integers in named.items()},
        "duplicated": sum(times.values()) - len(times),
        "reordered": len(named["reordered"]) if history.fifo else None,
        "examples": {name: integers for name, integers in named.items() if integers},
        "attempted": len(outcome),
        "acknowledged": len(acknowledged),
        "rejected": sum(each == REJECTED for each in outcome.values()),
        "uncertain": len(unsure),
        "received": len(times),
        "settled": sum(len(get.rows) for gets in history.got for get in gets if get.outcome == DONE),
        "sum_expected": sum(acknowledged),
        "sum_received": sum(row.number for row, _ in good),
        "sum_fits": sum(acknowledged) == sum(row.number for row, _ in good),
        "passed": not (named["lost"] or named["corrupted"] or named["unexpected"]),
    }


def slow_reordered(history: History) -> list[int]:
    """First deliveries that come after one of a later integer of the same producer, at the same worker."""
    owner = {k: producer for producer, batches in enumerate(history.put) for integers, _ in batches for k in integers}
    first: dict[int, tuple[int, int, int]] = {}
    for row, came in sorted(good_rows(history), key=lambda each: each[1]):
        first.setdefault(row.number, came)
    found = []
    for worker in range(len(history.got)):
        before: list[int] = []
        for row, came in good_rows(history):
            if came[1] != worker or first[row.number] != came:
                continue
            if any(k > row.number and owner[k] == owner[row.number] for k in before):
                found.append(row.number)
            before.append(row.number)
    return found


def check(histogram: Histogram, values_ns: list[int]) -> None:
    """Every value is in its bucket, and zero and negative ones are counted."""
    assert histogram.n == len(values_ns)
    assert histogram.zero_n == values_ns.count(0)
    assert histogram.negative_n == sum(value < 0 for value in values_ns)
    assert histogram.max_ns == max([0, *values_ns])
    for index in np.flatnonzero(histogram.counts):
        lower, upper = bucket_bounds_ns(np.array([index]))
        assert histogram.counts[index] == sum(lower[0] <= value < upper[0] for value in values_ns)
