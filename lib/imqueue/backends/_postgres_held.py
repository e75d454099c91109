"""A batch is held by an open transaction that has deleted its rows: `ack` commits it, the end of the link undoes it."""

from __future__ import annotations

import psycopg
from psycopg.sql import Literal

from imqueue.backend import Durability, Guarantees, Message
from imqueue.backends._postgres import Session, Table, guarantees
from imqueue.backends._postgres_queue import PostgresQueue
from imqueue.backends._sql import RECEIPT, HeldBatches

TAKE = """
DELETE FROM {queue} WHERE id = ANY(ARRAY(
    SELECT id FROM {queue} ORDER BY id LIMIT {batch} FOR UPDATE SKIP LOCKED
)) RETURNING body, id"""
# A row that an unfinished transaction has deleted or locked is held by somebody. Its xmax names that transaction:
# either one that the snapshot lists, or one that is younger than the snapshot's end.
READY = """
WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot)
SELECT {what} FROM {{queue}}
WHERE NOT xmax = ANY(ARRAY(SELECT pg_snapshot_xip(snapshot)::xid FROM now))
    AND age(xmax) > (SELECT age(pg_snapshot_xmax(snapshot)::xid) FROM now)"""
DEPTH = READY.format(what="count(*)")
ANYTHING = READY.format(what="true") + " LIMIT 1"


class HeldQueue(HeldBatches[Session], PostgresQueue):
    """A deleted row stays until vacuum removes it, and every `get` steps over the dead ones before it: the table asks
    autovacuum to come early and to hurry. A transaction left open anywhere in the database holds vacuum back.
    """

    table = Table()
    depth_query = DEPTH

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        self._take = self._query(TAKE, batch=Literal(batch))

    def destroy(self) -> None:
        self._give_back()  # its locks would keep the table from being dropped
        super().destroy()

    def _promises(self, settings: dict[str, str]) -> Guarantees:
        return guarantees(settings)

    def _commit(self, session: Session) -> None:
        session.commit(chain=self._chain)

    def _set_up(self, session: Session) -> dict[str, str]:
        settings = super()._set_up(session)
        # A server that ends idle transactions would end a worker that rests between an ack and its next get.
        self._chain = guarantees(settings).lease_s is None
        return settings

    def _take_some(self) -> list[Message]:
        """What it takes stays deleted in an open transaction; if that is nothing, none stays open."""
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
