"""What every queue in a PostgreSQL table shares: opening it, putting, counting, and what an error means."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from imqueue.backend import BackendError, Durability, Guarantees, Rejected
from imqueue.backends._postgres import (
    NAME_MAX_BYTES,
    VERSION_MIN,
    Session,
    Table,
    make_table,
    read_settings,
    writes_safely,
)
from imqueue.backends._sql import SqlQueue

ARRAY_MAX_BYTES = 64 * 1024 * 1024  # an array ends at 1 GB; long before that a round trip for each body is nothing
SIZE_MAX_BYTES = 256 * 1024 * 1024  # a field ends at 1 GB, but that takes longer than a wait here may last

INSERT = "INSERT INTO {queue} (body) SELECT %b::bytea"
INSERT_ALL = "INSERT INTO {queue} (body) SELECT unnest(%b::bytea[])"  # in the order of the array


class PostgresQueue(SqlQueue[Session]):
    """A queue in one table of PostgreSQL."""

    failures = (psycopg.Error,)
    server_name = "PostgreSQL"

    table: ClassVar[Table]
    depth_query: ClassVar[str]
    """Counts what is ready in {queue}."""

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        self.insert = self._put_query(self._with_values(INSERT))
        self.insert_all = self._put_query(self._with_values(INSERT_ALL))
        self._depth = self._query(self.depth_query)

    def open(self) -> None:
        if not 0 < len(self.queue.encode()) <= NAME_MAX_BYTES or "\0" in self.queue:
            raise BackendError(f"queue {self.queue!r} cannot be a table; allowed: 1 to {NAME_MAX_BYTES} bytes")
        super().open()

    @property
    def guarantees(self) -> Guarantees:
        with self._asking("reading the settings") as session:
            settings = read_settings(session)
        return self._promises(settings)

    def put(self, bodies: Sequence[bytes]) -> None:
        doing = f"put of {len(bodies)} messages"
        largest = max(map(len, bodies), default=0)
        if largest > SIZE_MAX_BYTES:
            raise Rejected(f"{doing} was not tried: one has {largest} bytes; allowed: up to {SIZE_MAX_BYTES}")
        with self._asking(doing) as session:
            if len(bodies) == 1:
                session.cursor.execute(self.insert, bodies, prepare=True)
            elif sum(map(len, bodies)) <= ARRAY_MAX_BYTES:
                session.cursor.execute(self.insert_all, (list(bodies),), prepare=True)
            else:
                with session.connection.transaction():
                    session.cursor.executemany(self.insert, [(body,) for body in bodies])

    def depth(self) -> int:
        """Counts rows: 3 ms for each 10,000 that wait."""
        with self._asking("depth") as session:
            found = session.connection.execute(self._depth, prepare=True).fetchone()
        return int(found[0]) if found else 0

    def destroy(self) -> None:
        with self._asking("destroy") as session:
            session.connection.execute(self._query("DROP TABLE {queue}"))

    @abstractmethod
    def _promises(self, settings: dict[str, str]) -> Guarantees:
        """What holds under these settings of the server."""

    def _put_query(self, insert: Composed) -> Composed:
        """What a put executes in place of the bare `insert`, which is an INSERT … SELECT of values alone."""
        return insert

    def _query(self, text: str, **values: Composable) -> Composed:
        """A statement that takes no parameters."""
        return SQL(text).format(queue=Identifier(self.queue), **values)

    def _with_values(self, text: str, **values: Composable) -> Composed:
        """A statement with parameters, in which a % of the queue's name would be taken for one."""
        return SQL(text).format(queue=SQL(Identifier(self.queue).as_string().replace("%", "%%")), **values)

    def _connect(self) -> Session:
        return Session(self.url, self.durability)

    def _set_up(self, session: Session) -> dict[str, str]:
        version = session.connection.info.server_version // 10_000
        if version < VERSION_MIN:
            raise BackendError(f"PostgreSQL {version} is too old; allowed: {VERSION_MIN} and later")
        settings = read_settings(session)
        if self.durability is Durability.FLUSHED and not writes_safely(settings):
            raise BackendError(
                f"this server runs with fsync={settings['fsync']} and full_page_writes="
                f"{settings['full_page_writes']}, so it gives no `flushed`; allowed: delayed"
            )
        make_table(session, self.queue, self.table)
        return settings

    def _session(self, doing: str, *, in_transaction: bool = False) -> Session:
        session = super()._session(doing)
        try:
            if in_transaction and not session.in_transaction:
                session.begin()
            elif session.in_transaction and not in_transaction:
                session.commit(chain=False)
        except psycopg.Error as error:
            raise self._failure(doing, session, error) from error
        return session
