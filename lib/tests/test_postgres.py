"""Three queues in PostgreSQL tables: what the server decides, who is woken by what, and whose table it is."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conftest import Handles
from contract import SLACK_S, bodies, hold, numbered, take
from psycopg.sql import SQL, Identifier
from serving import wait_until

from imqueue import registry
from imqueue.backend import Backend, BackendError, Durability, Message, Within
from imqueue.backends import _postgres_queue, postgres_notify
from imqueue.servers import External, Server
from imqueue.servers.postgres import SETTINGS

NAMES = ["postgres", "postgres_lease", "postgres_notify"]
OTHER_SHAPE = {"postgres": "postgres_lease", "postgres_lease": "postgres", "postgres_notify": "postgres_lease"}
LOOK_S = postgres_notify.LOOK_S

Make = Callable[[str], Handles]


@pytest.fixture(scope="module")
def server(obtain: Callable[[str, Durability], Server]) -> Server:
    return obtain("postgres", Durability.DELAYED)


@pytest.fixture
def admin(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def make(server: Server) -> Iterator[Make]:
    """Handles of a backend by name; all that it makes share one queue's name."""
    queue, made = f"postgres %s-{uuid.uuid4().hex[:12]}", []

    def of(name: str) -> Handles:
        loaded = registry.load(name)
        assert issubclass(loaded, Backend)
        made.append(Handles(loaded, lambda _: server.url, queue))
        return made[-1]

    yield of
    for handles in made:
        for handle in handles.opened:
            handle.close()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(queue)))


@pytest.fixture
def notify(make: Make) -> Handles:
    return make("postgres_notify")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_changed_behind_our_back_changes_the_guarantees(
    name: str, make: Make, server: Server, admin: psycopg.Connection[Any]
) -> None:
    if isinstance(server, External):
        pytest.skip("the server is not ours to change")
    handle = make(name)()
    assert handle.guarantees.survives_power_loss == Within(0.6)
    try:
        admin.execute("ALTER SYSTEM SET wal_writer_delay = '50ms'")
        admin.execute("SELECT pg_reload_conf()")
        assert wait_until(lambda: handle.guarantees.survives_power_loss == Within(0.15))
        assert handle.guarantees.survives_kill == Within(0.15)
    finally:
        admin.execute("ALTER SYSTEM RESET wal_writer_delay")
        admin.execute("SELECT pg_reload_conf()")


def test_a_server_that_does_not_flush_offers_no_flushed(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(server, External):
        pytest.skip("the server is not ours to change")
    server.stop()
    try:
        with monkeypatch.context() as changed:
            changed.setitem(SETTINGS, "fsync", "off")
            server.start()
        for name in NAMES:
            with pytest.raises(BackendError, match=r"fsync=off.*no `flushed`; allowed: delayed"):
                make(name)(durability=Durability.FLUSHED)
        now = make("postgres_lease")().guarantees
        assert (now.survives_kill, now.survives_power_loss) == (Within(0.6), False)
        assert now.settings["fsync"] == "off"
    finally:
        server.stop()
        server.start()


@pytest.mark.parametrize("name", NAMES)
def test_the_class_asked_for_is_applied_whatever_the_role_has(
    name: str, make: Make, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    try:
        now = make(name)(durability=Durability.FLUSHED).guarantees
    finally:
        admin.execute("ALTER ROLE CURRENT_USER RESET synchronous_commit")

    assert (now.survives_kill, now.survives_power_loss) == (True, True)
    assert now.settings["synchronous_commit"] == "on"
    assert now.settings["poll_interval"]


@pytest.mark.parametrize("name", NAMES)
def test_an_older_server_is_refused_and_left_untouched(
    name: str, make: Make, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_queue, "VERSION_MIN", 99)
    handles = make(name)

    with pytest.raises(BackendError, match=r"PostgreSQL \d+ is too old; allowed: 99 and later"):
        handles()

    assert admin.execute("SELECT to_regclass(%s)", (Identifier(handles.queue).as_string(),)).fetchone() == (None,)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_another_shape_is_refused_and_left_untouched(name: str, make: Make) -> None:
    theirs = make(OTHER_SHAPE[name])()
    theirs.put(numbered(3))

    with pytest.raises(
        BackendError, match=r"no queue of this kind \(id bigint identity primary key, .*\); left untouched"
    ):
        make(name)()

    assert bodies(take(theirs, 3)) == numbered(3)


@pytest.mark.parametrize("name", NAMES)
def test_somebody_elses_table_of_the_same_columns_is_refused_and_left_untouched(
    name: str, make: Make, admin: psycopg.Connection[Any]
) -> None:
    handles = make(name)
    columns = ", ".join(" ".join(each[:2]) for each in handles.loaded.table.columns)  # type: ignore[attr-defined]
    table = Identifier(handles.queue)
    admin.execute(SQL(f"CREATE TABLE {{}} (id bigint, body bytea{columns and ', '}{columns})").format(table))
    admin.execute(SQL("INSERT INTO {} (id, body) VALUES (1, 'theirs')").format(table))

    with pytest.raises(BackendError, match=r"no queue of this kind \(id bigint, body bytea.*\); left untouched"):
        handles()

    assert admin.execute(SQL("SELECT id, body FROM {}").format(table)).fetchall() == [(1, b"theirs")]


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


def test_a_lease_is_renewed_within_its_page(make: Make, admin: psycopg.Connection[Any]) -> None:
    handle = make("postgres_lease")(lease_s=60.0)
    handle.put(numbered(2000))
    assert len(take(handle, 2000)) == 2000
    name = handle.queue
    handle.close()  # the server's counters come with the end of a session

    def counted() -> tuple[int, int]:
        found = admin.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s", (name,)
        ).fetchone()
        return found or (0, 0)

    assert wait_until(lambda: counted()[0] == 2000)
    assert counted()[1] > 1800  # without a new entry in the index


def test_one_ack_settles_what_several_gets_returned(make: Make) -> None:
    handles = make("postgres_lease")
    handles().put(numbered(6))
    worker = handles(batch=2, lease_s=0.5)
    held = hold(worker, 6)

    worker.ack([held[index] for index in (0, 2, 3, 5)])

    assert bodies(take(worker, 2)) == bodies([held[1], held[4]])
    assert worker.depth() == 0


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


def test_a_waiting_worker_asks_the_server_nothing_between_its_looks(make: Make, admin: psycopg.Connection[Any]) -> None:
    """PostgreSQL notes when the last statement of each session began; the poller shows that this would be seen."""
    seen = {name: _statements(make(name), admin, 1.5 * LOOK_S) for name in ("postgres_notify", "postgres_lease")}

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
