"""PostgreSQL, one table per queue: DELETE … SKIP LOCKED … RETURNING in a transaction that `ack` commits.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, PostgreSQL 15, two busy cores), class
delayed and class flushed: COMMIT AND CHAIN, which spares the next BEGIN (this), 4.2k / 123k / 254k and 2.2k / 102k /
249k; BEGIN and COMMIT 3.1k / 125k / 304k and 1.9k / 90k / 240k; BEGIN and DELETE in one pipeline 3.2k / 127k / 251k
and 1.9k / 92k / 258k. To put a batch, an array is as fast as COPY at 1000, a fifth faster at 100: 112k beside 90k.

A deleted row stays until vacuum removes it, and every `get` steps over the dead ones before it: the table asks
autovacuum to come early and to hurry. A transaction left open anywhere in the database holds vacuum back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import itemgetter

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from imqueue.backend import (
    Backend,
    BackendError,
    Declares,
    Durability,
    Guarantees,
    Message,
    Rejected,
)
from imqueue.backends._postgres import (
    NAME_MAX_BYTES,
    VERSION_MIN,
    Session,
    guarantees,
    make_table,
    read_settings,
    words,
    writes_safely,
)

RECEIPT = itemgetter(1)  # of a message: its row's id

POLL_MIN_S = 0.0005
POLL_MAX_S = 0.005  # an idle worker asks this often, which is the most that polling adds to a latency
ARRAY_MAX_BYTES = 64 * 1024 * 1024  # an array ends at 1 GB; long before that a round trip for each body is nothing
SIZE_MAX_BYTES = 256 * 1024 * 1024  # a field ends at 1 GB, but that takes longer than a wait here may last

INSERT = "INSERT INTO {queue} (body) VALUES (%b)"
INSERT_ALL = "INSERT INTO {queue} (body) SELECT unnest(%b::bytea[])"  # in the order of the array
TAKE = """
DELETE FROM {queue} WHERE id = ANY(ARRAY(
    SELECT id FROM {queue} ORDER BY id LIMIT {batch} FOR UPDATE SKIP LOCKED
)) RETURNING body, id"""
# A row that an unfinished transaction has deleted or locked is held by somebody. Its xmax names that transaction:
# either one that the snapshot lists, or one that is younger than the snapshot's end.
DEPTH = """
WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot)
SELECT count(*) FROM {queue}
WHERE NOT xmax = ANY(ARRAY(SELECT pg_snapshot_xip(snapshot)::xid FROM now))
    AND age(xmax) > (SELECT age(pg_snapshot_xmax(snapshot)::xid) FROM now)"""


class Postgres(Backend):
    """A handle is one connection, and one more for each further batch that it holds at the same time."""

    declares = Declares(
        built_on="one PostgreSQL table: INSERT … unnest, DELETE … SKIP LOCKED, COMMIT",
        durabilities=(Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="batch",
        fifo=True,  # within one producer; the commits of several may overtake one another
        wakes_by=f"polling every {POLL_MIN_S * 1e3:g} to {POLL_MAX_S * 1e3:g} ms",
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="postgres",
    )

    _lost: str | None = "the handle is not open"

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        self._idle: list[Session] = []
        self._holding: list[Session] = []
        table = Identifier(queue)
        # In a statement with parameters a % of the name would be taken for one.
        named = SQL(table.as_string().replace("%", "%%"))
        self._insert, self._insert_all = (SQL(each).format(queue=named) for each in (INSERT, INSERT_ALL))
        self._take = SQL(TAKE).format(queue=table, batch=Literal(batch))
        self._depth = SQL(DEPTH).format(queue=table)

    def open(self) -> None:
        self.close()
        if not 0 < len(self.queue.encode()) <= NAME_MAX_BYTES or "\0" in self.queue:
            raise BackendError(f"queue {self.queue!r} cannot be a table; allowed: 1 to {NAME_MAX_BYTES} bytes")
        try:
            self._idle.append(Session(self.url, self.durability))
            self._open(self._idle[0])
        except psycopg.Error as error:
            self.close()
            raise BackendError(f"cannot open queue {self.queue!r}: {words(error)}") from error
        except BaseException:
            self.close()
            raise
        self._lost = None

    def close(self) -> None:
        for session in self._idle + self._holding:
            session.end()
        self._idle, self._holding, self._lost = [], [], Postgres._lost

    @property
    def guarantees(self) -> Guarantees:
        session = self._session("reading the settings")
        try:
            settings = read_settings(session)
        except psycopg.Error as error:
            raise self._failure("reading the settings", session, error) from error
        self._idle.append(session)
        return guarantees(settings)

    def put(self, bodies: Sequence[bytes]) -> None:
        doing = f"put of {len(bodies)} messages"
        largest = max(map(len, bodies), default=0)
        if largest > SIZE_MAX_BYTES:
            raise Rejected(f"{doing} was not tried: one has {largest} bytes; allowed: up to {SIZE_MAX_BYTES}")
        session = self._session(doing)
        try:
            if len(bodies) == 1:
                session.cursor.execute(self._insert, bodies, prepare=True)
            elif sum(map(len, bodies)) <= ARRAY_MAX_BYTES:
                session.cursor.execute(self._insert_all, (list(bodies),), prepare=True)
            else:
                with session.connection.transaction():
                    session.cursor.executemany(self._insert, [(body,) for body in bodies])
        except psycopg.Error as error:
            raise self._failure(doing, session, error) from error
        self._idle.append(session)

    def get(self, timeout_s: float) -> list[Message]:
        deadline = time.monotonic() + timeout_s
        pause_s = POLL_MIN_S
        while not (found := self._take_some()):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return []
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, POLL_MAX_S)
        return found

    def ack(self, messages: Sequence[Message]) -> None:
        receipts = set(map(RECEIPT, messages))
        whole = [session for session in self._holding if session.held <= receipts]
        if sum(len(session.held) for session in whole) != len(receipts):
            raise BackendError(
                f"ack of {len(receipts)} messages was refused: a transaction is committed as a whole; allowed: "
                "all that one get returned, once"
            )
        for session in whole:
            self._holding.remove(session)
            try:
                session.commit(chain=self._chain)
            except psycopg.Error as error:
                raise self._failure(f"ack of {len(receipts)} messages", session, error) from error
            self._idle.append(session)

    def depth(self) -> int:
        """Counts rows: 3 ms for each 10,000 that wait."""
        session = self._session("depth")
        try:
            found = session.connection.execute(self._depth, prepare=True).fetchone()
        except psycopg.Error as error:
            raise self._failure("depth", session, error) from error
        self._idle.append(session)
        return int(found[0]) if found else 0

    def destroy(self) -> None:
        while self._holding:  # their locks would keep the table from being dropped
            self._holding.pop().end()
        session = self._session("destroy")
        try:
            session.connection.execute(SQL("DROP TABLE {}").format(Identifier(self.queue)))
        except psycopg.Error as error:
            raise self._failure("destroy", session, error) from error
        self._idle.append(session)

    def _open(self, session: Session) -> None:
        version = session.connection.info.server_version // 10_000
        if version < VERSION_MIN:
            raise BackendError(f"PostgreSQL {version} is too old; allowed: {VERSION_MIN} and later")
        settings = read_settings(session)
        if self.durability is Durability.FLUSHED and not writes_safely(settings):
            raise BackendError(
                f"this server runs with fsync={settings['fsync']} and full_page_writes="
                f"{settings['full_page_writes']}, so it gives no `flushed`; allowed: delayed"
            )
        make_table(session, self.queue)
        # A server that ends idle transactions would end a worker that rests between an ack and its next get.
        self._chain = guarantees(settings).lease_s is None

    def _take_some(self) -> list[Message]:
        """One attempt. What it takes stays deleted in an open transaction; if that is nothing, none stays open."""
        session = self._session("get", in_transaction=True)
        try:
            found: list[Message] = session.cursor.execute(self._take, prepare=True).fetchall()
            if not found:
                session.commit(chain=False)
        except psycopg.Error as error:
            raise self._failure("get", session, error) from error
        if not found:
            self._idle.append(session)
            return []
        found.sort(key=RECEIPT)  # RETURNING promises no order
        session.held = set(map(RECEIPT, found))
        self._holding.append(session)
        return found

    def _session(self, doing: str, *, in_transaction: bool = False) -> Session:
        """One that holds nothing. Whoever takes it puts it back among the idle, unless it failed."""
        if self._lost:
            raise Rejected(f"{doing} was not tried: {self._lost}")
        try:
            session = self._idle.pop() if self._idle else Session(self.url, self.durability)
        except psycopg.Error as error:
            raise Rejected(f"{doing} was not tried: no further connection: {words(error)}") from error
        try:
            if in_transaction and not session.in_transaction:
                session.begin()
            elif session.in_transaction and not in_transaction:
                session.commit(chain=False)
        except psycopg.Error as error:
            raise self._failure(doing, session, error) from error
        return session

    def _failure(self, doing: str, session: Session, error: psycopg.Error) -> BackendError:
        """What to raise. The server's no undid the statement; a link that broke leaves it open, and stays broken."""
        if session.lost_by(error):
            session.end()
            self._lost = f"the connection was lost: {words(error)}"
            return BackendError(f"{doing} is uncertain: {words(error)}")
        session.roll_back()
        self._idle.append(session)
        return Rejected(f"{doing} was refused by PostgreSQL: {words(error)}")
