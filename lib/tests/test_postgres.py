"""Three queues in PostgreSQL tables: what the server decides, who is woken by what, and whose table it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conftest import Handles
from contract import bodies, hold, numbered, take
from psycopg.sql import SQL, Identifier
from serving import wait_until

from imqueue.backend import BackendError, Durability, Within
from imqueue.backends import _postgres_queue, postgres_notify
from imqueue.servers import External, Server
from imqueue.servers.postgres import SETTINGS

NAMES = ["postgres", "postgres_lease", "postgres_notify"]
OTHER_SHAPE = {"postgres": "postgres_lease", "postgres_lease": "postgres", "postgres_notify": "postgres_lease"}
LOOK_S = postgres_notify.LOOK_S

Tables = Callable[[str], Handles]


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_changed_behind_our_back_changes_the_guarantees(
    name: str, tables: Tables, postgres_server: Server, admin: psycopg.Connection[Any]
) -> None:
    if isinstance(postgres_server, External):
        pytest.skip("the server is not ours to change")
    handle = tables(name)()
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
    tables: Tables, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(postgres_server, External):
        pytest.skip("the server is not ours to change")
    postgres_server.stop()
    try:
        with monkeypatch.context() as changed:
            changed.setitem(SETTINGS, "fsync", "off")
            postgres_server.start()
        for name in NAMES:
            with pytest.raises(BackendError, match=r"fsync=off.*no `flushed`; allowed: delayed"):
                tables(name)(durability=Durability.FLUSHED)
        now = tables("postgres_lease")().guarantees
        assert (now.survives_kill, now.survives_power_loss) == (Within(0.6), False)
        assert now.settings["fsync"] == "off"
    finally:
        postgres_server.stop()
        postgres_server.start()


@pytest.mark.parametrize("name", NAMES)
def test_the_class_asked_for_is_applied_whatever_the_role_has(
    name: str, tables: Tables, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    try:
        now = tables(name)(durability=Durability.FLUSHED).guarantees
    finally:
        admin.execute("ALTER ROLE CURRENT_USER RESET synchronous_commit")

    assert (now.survives_kill, now.survives_power_loss) == (True, True)
    assert now.settings["synchronous_commit"] == "on"
    assert now.settings["poll_interval"]


@pytest.mark.parametrize("name", NAMES)
def test_an_older_server_is_refused_and_left_untouched(
    name: str, tables: Tables, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_queue, "VERSION_MIN", 99)
    handles = tables(name)

    with pytest.raises(BackendError, match=r"PostgreSQL \d+ is too old; allowed: 99 and later"):
        handles()

    assert admin.execute("SELECT to_regclass(%s)", (Identifier(handles.queue).as_string(),)).fetchone() == (None,)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_another_shape_is_refused_and_left_untouched(name: str, tables: Tables) -> None:
    theirs = tables(OTHER_SHAPE[name])()
    theirs.put(numbered(3))

    with pytest.raises(
        BackendError, match=r"no queue of this kind \(id bigint identity primary key, .*\); left untouched"
    ):
        tables(name)()

    assert bodies(take(theirs, 3)) == numbered(3)


@pytest.mark.parametrize("name", NAMES)
def test_somebody_elses_table_of_the_same_columns_is_refused_and_left_untouched(
    name: str, tables: Tables, admin: psycopg.Connection[Any]
) -> None:
    handles = tables(name)
    columns = ", ".join(" ".join(each[:2]) for each in handles.loaded.table.columns)  # type: ignore[attr-defined]
    table = Identifier(handles.queue)
    admin.execute(SQL(f"CREATE TABLE {{}} (id bigint, body bytea{columns and ', '}{columns})").format(table))
    admin.execute(SQL("INSERT INTO {} (id, body) VALUES (1, 'theirs')").format(table))

    with pytest.raises(BackendError, match=r"no queue of this kind \(id bigint, body bytea.*\); left untouched"):
        handles()

    assert admin.execute(SQL("SELECT id, body FROM {}").format(table)).fetchall() == [(1, b"theirs")]


def test_a_lease_is_renewed_within_its_page(tables: Tables, admin: psycopg.Connection[Any]) -> None:
    handle = tables("postgres_lease")(lease_s=60.0)
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


def test_one_ack_settles_what_several_gets_returned(tables: Tables) -> None:
    handles = tables("postgres_lease")
    handles().put(numbered(6))
    worker = handles(batch=2, lease_s=0.5)
    held = hold(worker, 6)

    worker.ack([held[index] for index in (0, 2, 3, 5)])

    assert bodies(take(worker, 2)) == bodies([held[1], held[4]])
    assert worker.depth() == 0
