"""MariaDB or MySQL, one InnoDB table per queue: SELECT … SKIP LOCKED and DELETE in a transaction that `ack` commits.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, MariaDB 10.11, two busy cores), class
delayed and class flushed: this 2.5k / 53k / 71k and 0.9k / 37k / 67k; a lease in an indexed column, which would settle
each message, 1.1k / 15k / 26k and 0.5k / 14k / 30k; DELETE … LIMIT … RETURNING 3.2k / 49k / 68k and 1.3k / 40k /
82k, but there a second worker waits for the first. Drivers, delayed: PyMySQL (this) 2.4k / 48k / 85k; the C extension
of mysql-connector-python 2.3k / 52k / 98k, which on Debian 12 loads only if it is imported before ssl;
mysqlclient and mariadb have no wheels for Linux and need a compiler.

A deleted row stays until purge removes it, and every `get` steps over the dead ones before it: it starts at the lowest
row that a plain read sees, which passes many dead rows faster than a locking read does (at 50,000 in 0.4 of its time).
A transaction left open anywhere on the server holds purge back. *Unverified*: MySQL 8.4 and 9, to whose syntax and
settings this keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from imqueue.backend import Declares, Durability, Guarantees, Message, Rejected, messages
from imqueue.backends._mysql import (
    FAILURES,
    Session,
    guarantees,
    make_table,
    quoted,
    read_settings,
    refuse_unless,
)
from imqueue.backends._sql import POLL_INTERVAL, HeldBatches

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


class MySQL(HeldBatches[Session]):
    """Workers poll: nothing in MySQL can wake them."""

    failures = FAILURES
    server_name = "the server"

    declares = Declares(
        built_on="one InnoDB table (MariaDB, MySQL): INSERT, SELECT … SKIP LOCKED, DELETE, COMMIT",
        durabilities=(Durability.DELAYED, Durability.FLUSHED),  # a MEMORY table locks as a whole, and has no commit
        delivery="at least once",
        settles="batch",
        fifo=False,  # SKIP LOCKED reads what is newest: of a batch that is just being committed it may skip a row
        wakes_by=f"polling every {POLL_INTERVAL}",
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="mysql",
    )

    def open(self) -> None:
        self._table = quoted(self.queue)
        self._take = TAKE.format(queue=self._table, batch=self.batch)
        super().open()

    @property
    def guarantees(self) -> Guarantees:
        with self._asking("reading the settings") as session:
            settings = read_settings(session)
        return guarantees(settings, url=self.url, polls=POLL_INTERVAL)

    def put(self, bodies: Sequence[bytes]) -> None:
        doing = f"put of {len(bodies)} messages"
        largest = max(map(len, bodies), default=0)
        if largest > SIZE_MAX_BYTES:
            raise Rejected(f"{doing} was not tried: one has {largest} bytes; allowed: up to {SIZE_MAX_BYTES}")
        with self._asking(doing) as session:
            if sum(map(len, bodies)) > INSERT_MAX_BYTES:
                session.do("BEGIN")
                for body in bodies:
                    session.do(self._insert([body]))
                session.do("COMMIT")
            elif bodies:
                session.do(self._insert(bodies))

    def depth(self) -> int:
        """Counts rows that nobody has deleted, committed or not: 1 ms for each 10,000 that wait."""
        with self._asking("depth") as session:
            ((count,),) = session.do(
                "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", f"SELECT COUNT(*) FROM {self._table}"
            )
        return int(count)

    def destroy(self) -> None:
        self._give_back()  # its locks would keep the table from being dropped
        with self._asking("destroy") as session:
            session.do(f"DROP TABLE {self._table}")

    def _connect(self) -> Session:
        return Session(self.url)

    def _set_up(self, session: Session) -> dict[str, str]:
        settings = read_settings(session)
        refuse_unless(settings, self.durability)
        make_table(session, self.queue)
        return settings

    def _commit(self, session: Session) -> None:
        session.do("COMMIT")
        session.held = set()

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
