"""MariaDB or MySQL, one InnoDB table per queue: SELECT … SKIP LOCKED and DELETE in a transaction that `ack` commits.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, MariaDB 10.11, two busy cores), class
delayed and class flushed: this 2.5k / 53k / 71k and 0.9k / 37k / 67k; a lease in an indexed column, which would settle
each message, 1.1k / 15k / 26k and 0.5k / 14k / 30k; DELETE … LIMIT … RETURNING 3.2k / 49k / 68k and 1.3k / 40k /
82k, but there a second worker waits for the first. Drivers, delayed: PyMySQL (this) 2.4k / 48k / 85k; the C extension
of mysql-connector-python 2.3k / 52k / 98k, which on Debian 12 loads only if it is imported before ssl.

A deleted row stays until purge removes it, and every `get` steps over the dead ones before it: it starts at the lowest
row that a plain read sees, which passes many dead rows faster than a locking read does (at 50,000 in 0.4 of its time).
A transaction left open anywhere on the server holds purge back. *Unverified*: MySQL 8.4 and 9, to whose syntax and
settings this keeps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import itemgetter

from imqueue.backend import (
    Backend,
    BackendError,
    Declares,
    Durability,
    Guarantees,
    Message,
    Rejected,
    messages,
)
from imqueue.backends._mysql import (
    FAILURES,
    Session,
    guarantees,
    make_table,
    quoted,
    read_settings,
    refuse_unless,
    words,
)

RECEIPT = itemgetter(1)  # of a message: its row's id

POLL_MIN_S = 0.0005
POLL_MAX_S = 0.005  # an idle worker asks this often, which is the most that polling adds to a latency
POLLS = f"{POLL_MIN_S * 1e3:g} to {POLL_MAX_S * 1e3:g} ms"
SIZE_MAX_BYTES = 4 * 1024 * 1024  # twice that in hex, which any server takes whose max_allowed_packet is the default
INSERT_MAX_BYTES = 7 * 1024 * 1024  # of bodies in one statement, for the same reason

# The subquery locks nothing: a row that no plain read sees yet is one that SKIP LOCKED would skip.
TAKE = """
SELECT body, id FROM {queue} FORCE INDEX (PRIMARY) WHERE id >= (SELECT MIN(id) FROM {queue})
ORDER BY id LIMIT {batch} FOR UPDATE SKIP LOCKED"""
DELETE_ONE = "DELETE FROM {queue} WHERE id = {ids}"
# A short table would be scanned for an IN list, whatever index is forced, and whoever scans waits for what the others
# hold: a deadlock. This looks each row up by its key.
DELETE = """
DELETE {queue} FROM JSON_TABLE('[{ids}]', '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) AS taken
STRAIGHT_JOIN {queue} FORCE INDEX (PRIMARY) ON {queue}.id = taken.id"""


class MySQL(Backend):
    """A handle is one connection, and one more for each further batch that it holds at the same time."""

    declares = Declares(
        built_on="one InnoDB table (MariaDB, MySQL): INSERT, SELECT … SKIP LOCKED, DELETE, COMMIT",
        durabilities=(Durability.DELAYED, Durability.FLUSHED),  # a MEMORY table locks as a whole, and has no commit
        delivery="at least once",
        settles="batch",
        fifo=False,  # SKIP LOCKED reads what is newest: of a batch that is just being committed it may skip a row
        wakes_by=f"polling every {POLLS}",
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="mysql",
    )

    _lost: str | None = "the handle is not open"

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        self._idle: list[Session] = []
        self._holding: list[Session] = []

    def open(self) -> None:
        self.close()
        self._table = quoted(self.queue)
        self._take = TAKE.format(queue=self._table, batch=self.batch)
        try:
            session = Session(self.url)
            self._idle.append(session)
            refuse_unless(read_settings(session), self.durability)
            make_table(session, self.queue)
        except FAILURES as error:
            self.close()
            raise BackendError(f"cannot open queue {self.queue!r}: {words(error)}") from error
        except BaseException:
            self.close()
            raise
        self._lost = None

    def close(self) -> None:
        for session in self._idle + self._holding:
            session.end()
        self._idle, self._holding, self._lost = [], [], MySQL._lost

    @property
    def guarantees(self) -> Guarantees:
        session = self._session("reading the settings")
        try:
            settings = read_settings(session)
        except FAILURES as error:
            raise self._failure("reading the settings", session, error) from error
        self._idle.append(session)
        return guarantees(settings, url=self.url, polls=POLLS)

    def put(self, bodies: Sequence[bytes]) -> None:
        doing = f"put of {len(bodies)} messages"
        largest = max(map(len, bodies), default=0)
        if largest > SIZE_MAX_BYTES:
            raise Rejected(f"{doing} was not tried: one has {largest} bytes; allowed: up to {SIZE_MAX_BYTES}")
        session = self._session(doing)
        try:
            if sum(map(len, bodies)) > INSERT_MAX_BYTES:
                session.do("BEGIN")
                for body in bodies:
                    session.do(self._insert([body]))
                session.do("COMMIT")
            elif bodies:
                session.do(self._insert(bodies))
        except FAILURES as error:
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
                session.do("COMMIT")
            except FAILURES as error:
                raise self._failure(f"ack of {len(receipts)} messages", session, error) from error
            session.held = set()
            self._idle.append(session)

    def depth(self) -> int:
        """Counts rows that nobody has deleted, committed or not: 1 ms for each 10,000 that wait."""
        session = self._session("depth")
        try:
            ((count,),) = session.do(
                "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", f"SELECT COUNT(*) FROM {self._table}"
            )
        except FAILURES as error:
            raise self._failure("depth", session, error) from error
        self._idle.append(session)
        return int(count)

    def destroy(self) -> None:
        while self._holding:  # their locks would keep the table from being dropped
            self._holding.pop().end()
        session = self._session("destroy")
        try:
            session.do(f"DROP TABLE {self._table}")
        except FAILURES as error:
            raise self._failure("destroy", session, error) from error
        self._idle.append(session)

    def _insert(self, bodies: Sequence[bytes]) -> str:
        rows = "'),(x'".join(map(bytes.hex, bodies))
        return f"INSERT INTO {self._table} (body) VALUES (x'{rows}')"

    def _take_some(self) -> list[Message]:
        """One attempt. What it takes stays deleted in an open transaction; if that is nothing, none stays open."""
        session = self._session("get")
        try:
            found = session.do("BEGIN", self._take)
            ids = [each[1] for each in found]
            if found:
                delete = DELETE_ONE if len(ids) == 1 else DELETE
                session.do(delete.format(queue=self._table, ids=",".join(ids)))
            else:
                session.do("COMMIT")
        except FAILURES as error:
            raise self._failure("get", session, error) from error
        if not found:
            self._idle.append(session)
            return []
        session.held = set(ids)
        self._holding.append(session)
        return messages([each[0] for each in found], ids)

    def _session(self, doing: str) -> Session:
        """One that holds nothing. Whoever takes it puts it back among the idle, unless it failed."""
        if self._lost:
            raise Rejected(f"{doing} was not tried: {self._lost}")
        try:
            return self._idle.pop() if self._idle else Session(self.url)
        except FAILURES as error:
            raise Rejected(f"{doing} was not tried: no further connection: {words(error)}") from error

    def _failure(self, doing: str, session: Session, error: Exception) -> BackendError:
        """What to raise. The server's no undid the statement; a link that broke leaves it open, and stays broken."""
        if not session.lost_by(error):
            try:
                session.roll_back()
            except FAILURES:
                pass  # it is lost then
            else:
                self._idle.append(session)
                return Rejected(f"{doing} was refused by the server: {words(error)}")
        session.end()
        self._lost = f"the connection was lost: {words(error)}"
        return BackendError(f"{doing} is uncertain: {words(error)}")
