"""What a backend on PostgreSQL needs around its statements: a bounded connection, its settings, and the table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.sql import SQL, Composed, Identifier, Literal

from imqueue.backend import BackendError, Durability, Guarantees, Message, Within

ANSWER_MAX_S = 30.0  # the end of every wait for the server; one that is stopped would never answer
CONNECT_MAX_S = 10
NAME_MAX_BYTES = 63  # PostgreSQL cuts longer names silently, and two queues would be one
VERSION_MIN = 13  # for pg_current_snapshot; SKIP LOCKED came with 9.5, COMMIT AND CHAIN with 12
WAL_CYCLES = 3  # an asynchronous commit is written and flushed within so many wal_writer_delay

SHAPE = """
SELECT attname::text, format_type(atttypid, atttypmod) || CASE attidentity WHEN 'a' THEN ' identity' ELSE '' END ||
    CASE WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'p' AND conkey = ARRAY[attnum])
        THEN ' primary key' ELSE '' END
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE attrelid = to_regclass({name}) AND relkind = 'r' AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
CREATE = """
CREATE TABLE {queue} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL{columns}) WITH (
    fillfactor = {fillfactor},
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0,  -- by count: its size means nothing
    autovacuum_vacuum_cost_delay = 0,  -- without pauses
    vacuum_truncate = off  -- giving pages back locks out everybody
)"""
EXTERNAL = "ALTER TABLE {queue} ALTER body SET STORAGE EXTERNAL"  # the rate must not hang on how bodies compress
SETTINGS = """
SELECT name, setting, unit FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes',
    'wal_writer_delay', 'idle_in_transaction_session_timeout', 'server_version') ORDER BY name"""

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """What a queue's table has besides an id and a body: (name, type, what else its definition says) of each column."""

    columns: tuple[tuple[str, str, str], ...] = ()
    fillfactor: int = 100

    @property
    def shape(self) -> list[tuple[str, str]]:
        return [("id", "bigint identity primary key"), ("body", "bytea"), *(each[:2] for each in self.columns)]

    def create(self, name: Identifier) -> Composed:
        columns = SQL("".join(f", {' '.join(each)}" for each in self.columns))
        return SQL(CREATE).format(queue=name, columns=columns, fillfactor=Literal(self.fillfactor))


class Connection(psycopg.Connection[Any]):
    """A psycopg connection whose every wait ends: beyond `ANSWER_MAX_S` it raises, and is of no more use."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        return super().wait(gen, interval, ANSWER_MAX_S if timeout is None else timeout)


class Session:
    """One connection: in a transaction while it holds messages (`held`: their ids), else mostly not."""

    def __init__(self, url: str, durability: Durability) -> None:
        self.connection = Connection.connect(url, autocommit=True, connect_timeout=CONNECT_MAX_S)
        self.cursor = self.connection.cursor(binary=True, row_factory=_messages)
        self.in_transaction = False
        self.held: set[int] = set()
        # Once an analyze has seen the queue empty, the planner would scan and sort the whole backlog for each get.
        for name, value in (
            ("synchronous_commit", "on" if durability is Durability.FLUSHED else "off"),
            ("enable_seqscan", "off"),
        ):
            self.connection.execute("SELECT set_config(%s, %s, false)", (name, value))

    def begin(self) -> None:
        self.connection.execute("BEGIN")
        self.in_transaction = True

    def commit(self, *, chain: bool) -> None:
        """`chain` saves the next BEGIN its round trip; until a statement follows it holds no lock and no snapshot."""
        told = self.connection.execute("COMMIT AND CHAIN" if chain else "COMMIT").statusmessage
        self.in_transaction, self.held = chain, set()
        if told != "COMMIT":
            raise psycopg.OperationalError(f"the transaction was not committed, the server says {told}")

    def lost_by(self, error: psycopg.Error) -> bool:
        """Whether `error` was the end of the connection, and not just the server's no to a statement."""
        # 57P: the server shuts down or ends this session, which the socket may show only later.
        return not error.sqlstate or self.connection.closed or error.sqlstate.startswith(("08", "57P"))

    def roll_back(self) -> None:
        """Give back what is held."""
        self.held = set()
        if self.in_transaction:
            self.in_transaction = False
            self.connection.execute("ROLLBACK")

    def end(self) -> None:
        """Safe twice and on a dead link. What was held is back when it returns."""
        with contextlib.suppress(psycopg.Error):
            self.roll_back()
        self.connection.close()


def make_table(session: Session, queue: str, table: Table) -> None:
    """Create the queue's table if absent; `BackendError` if something of another shape has its name."""
    name = Identifier(queue)
    shape = SQL(SHAPE).format(name=Literal(name.as_string()))
    with session.connection.transaction():
        # Two that create the same table at once would collide in the catalogue.
        session.connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (queue,))
        exists = session.connection.execute("SELECT to_regclass(%s)", (name.as_string(),)).fetchone()
        if exists == (None,):
            session.connection.execute(table.create(name))
            session.connection.execute(SQL(EXTERNAL).format(queue=name))
        found = session.connection.execute(shape).fetchall()
    if found != table.shape:
        columns = ", ".join(map(" ".join, found)) or "not a plain table"
        raise BackendError(f"{queue!r} is here already and is no queue of this kind ({columns}); left untouched")


def read_settings(session: Session) -> dict[str, str]:
    """What decides about durability and leases, as this session sees it; numbers with their unit."""
    return {name: f"{value}{unit or ''}" for name, value, unit in session.connection.execute(SETTINGS)}


def writes_safely(settings: dict[str, str]) -> bool:
    """Whether what was flushed survives a loss of power."""
    return settings["fsync"] == settings["full_page_writes"] == "on"


def guarantees(settings: dict[str, str]) -> Guarantees:
    late = Within(round(WAL_CYCLES * _seconds(settings["wal_writer_delay"]), 3))
    waits = settings["synchronous_commit"] != "off"
    return Guarantees(
        survives_kill=waits or late,
        survives_power_loss=writes_safely(settings) and (waits or late),
        fifo=True,
        puts_confirmed=True,
        redelivers_after_s=0.0,
        lease_s=_seconds(settings["idle_in_transaction_session_timeout"]) or None,
        source="pg_settings, as this session sees them",
        settings=settings,
    )


def _messages(_: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Message]:
    """Rows of a body and an id as messages, made by psycopg itself while it reads them."""
    return partial(tuple.__new__, Message)


def _seconds(setting: str) -> float:
    return float(setting.removesuffix("ms")) / 1e3
