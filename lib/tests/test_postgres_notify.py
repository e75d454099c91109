"""postgres_notify: who is woken by what, and that nothing is stranded when nobody is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conftest import Handles
from contract import SLACK_S, bodies, hold, numbered, take
from psycopg.sql import SQL, Identifier

from imqueue.backend import Backend, BackendError, Message
from imqueue.backends import postgres_notify

LOOK_S = postgres_notify.LOOK_S

Tables = Callable[[str], Handles]


@pytest.fixture
def notify(tables: Tables) -> Handles:
    return tables("postgres_notify")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_a_wait_that_the_server_refuses_leaves_the_handle_of_use(
    notify: Handles, admin: psycopg.Connection[Any]
) -> None:
    handle = notify()
    assert isinstance(handle, postgres_notify.PostgresNotify)
    handle._idle[0].connection.execute("SET lock_timeout = '50ms'")
    waiting = handle._locks["waiting"]
    admin.execute(SQL("SELECT pg_advisory_lock({})").format(waiting))
    try:
        with pytest.raises(BackendError, match="lock timeout"):
            handle.get(1.0)
    finally:
        admin.execute(SQL("SELECT pg_advisory_unlock({})").format(waiting))

    handle.put(numbered(2))
    assert handle.depth() == 2
    assert bodies(take(handle, 2)) == numbered(2)


def test_a_put_wakes_a_waiting_worker_long_before_it_would_look(notify: Handles, threads: ThreadPoolExecutor) -> None:
    producer, worker = notify(), notify()
    for each in numbered(8):
        got = _waits(worker, threads)
        began = time.monotonic()
        producer.put([each])
        messages = got.result(SLACK_S)
        assert time.monotonic() - began < LOOK_S / 4
        assert bodies(messages) == [each]
        worker.ack(messages)


def test_a_put_that_began_before_the_worker_waits_and_ends_later_is_seen_soon(
    notify: Handles, threads: ThreadPoolExecutor, admin: psycopg.Connection[Any]
) -> None:
    producer, worker = notify(), notify()
    assert isinstance(producer, postgres_notify.PostgresNotify)
    with admin.transaction():
        admin.execute(producer.insert, (b"early",))  # a put, stopped before its commit: it saw nobody to wake
        got = _waits(worker, threads)
    committed = time.monotonic()

    assert bodies(got.result(SLACK_S)) == [b"early"]
    assert time.monotonic() - committed < LOOK_S / 4


def test_a_waiting_worker_asks_the_server_nothing_between_its_looks(
    tables: Tables, admin: psycopg.Connection[Any]
) -> None:
    """PostgreSQL notes when the last statement of each session began; the poller shows that this would be seen."""
    seen = {name: _statements(tables(name), admin, 1.5 * LOOK_S) for name in ("postgres_notify", "postgres_lease")}

    assert len(seen["postgres_notify"]) <= 8
    assert len(seen["postgres_lease"]) > 40


def test_what_nobody_tells_of_is_found_at_the_next_look(
    notify: Handles, threads: ThreadPoolExecutor, admin: psycopg.Connection[Any]
) -> None:
    producer, worker, holder = notify(), notify(), notify()
    got = _waits(worker, threads)
    admin.execute(SQL("INSERT INTO {} (body) VALUES ('silent')").format(Identifier(worker.queue)))
    messages = got.result(LOOK_S + SLACK_S)
    assert bodies(messages) == [b"silent"]
    worker.ack(messages)

    producer.put([b"held"])
    hold(holder, 1)
    got = _waits(worker, threads)
    holder.close()  # the server undoes what it did, and tells nobody

    assert bodies(got.result(LOOK_S + SLACK_S)) == [b"held"]


def test_only_a_worker_that_waits_is_told(
    notify: Handles, threads: ThreadPoolExecutor, admin: psycopg.Connection[Any]
) -> None:
    producer, worker = notify(), notify()
    assert isinstance(worker, postgres_notify.PostgresNotify)
    admin.execute(SQL("LISTEN {}").format(Identifier(worker.channel)))
    got = _waits(worker, threads)
    producer.put([b"1"])
    held = got.result(SLACK_S)
    assert len(list(admin.notifies(timeout=0.2))) == 1

    producer.put([b"2"])  # its holder is in a transaction: were it to listen, the server could forget nothing

    assert list(admin.notifies(timeout=0.2)) == []
    worker.ack(held)
    assert bodies(take(worker, 1)) == [b"2"]


def _waits(worker: Backend, threads: ThreadPoolExecutor) -> Future[list[Message]]:
    """A `get` under way, which has found nothing so far."""
    got = threads.submit(worker.get, 30.0)
    time.sleep(0.1)
    return got


def _statements(handles: Handles, admin: psycopg.Connection[Any], duration_s: float) -> set[Any]:
    """When each statement began that was seen from a `get` on an empty queue; sampled every few milliseconds."""
    with handles() as handle:
        before = {pid for (pid,) in admin.execute("SELECT pid FROM pg_stat_activity")}
        handle.open()
        seen: set[Any] = set()
        waiting = threading.Thread(target=handle.get, args=(duration_s,))
        waiting.start()
        while waiting.is_alive():
            rows = admin.execute(
                "SELECT pid, query_start, state FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
            seen.update((start, state) for pid, start, state in rows if pid not in before)
            time.sleep(0.002)
        waiting.join()
        handle.destroy()
    return seen
