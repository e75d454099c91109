"""PostgreSQL, one table per queue: DELETE … SKIP LOCKED … RETURNING to claim, NOTIFY to wake a worker that waits.

A NOTIFY holds a lock of the whole database until its commit is over, so commits that notify go one by one. Tried,
puts/s of four producers at batch 1, class delayed and flushed (PostgreSQL 15, two busy cores): no NOTIFY 23k and 6.2k;
NOTIFY when a worker waits, asked by advisory locks (this) 18k and 6.8k; pg_notify in every INSERT 17k and 2.7k; by a
statement trigger 16k and 2.9k; NOTIFY as a transaction of its own in one pipeline 9k and 2.0k. One producer, one
worker, 32 bytes at batch 1 / 100 / 1000: as fast as `postgres`, 3.6k / 130k / 350k and 1.9k / 69k / 115k. From put to
get of a lone message, median: 1.5 ms where polling takes 3.0, 2.6 where it takes 4.3.
"""

from __future__ import annotations

import time
from hashlib import blake2b

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from imqueue.backend import BackendError, Declares, Durability, Guarantees, Message
from imqueue.backends._postgres_held import ANYTHING, HeldQueue
from imqueue.backends._postgres_queue import SIZE_MAX_BYTES
from imqueue.backends._sql import POLL_MAX_S, POLL_MIN_S, words

LOOK_S = 1.0  # what nobody tells of is found so late: the batch of a holder that died, a row that others inserted

# A worker that waits holds the lock `waiting` (shared); who can take it for a moment has nobody to wake. The lock
# `putting` keeps the two in order: each put holds it (shared) from before it asks until its commit is over. A worker
# that says it waits, and can then take `putting` alone, knows that later puts see it, and that it sees earlier ones.
PUT = """
{insert} WHERE CASE
    WHEN pg_advisory_xact_lock_shared({putting}) IS NULL THEN false
    WHEN pg_try_advisory_lock({waiting}) THEN pg_advisory_unlock({waiting})
    ELSE pg_notify({channel}, '') IS NOT NULL END"""
LISTEN = """
BEGIN; LISTEN {channel}; SELECT pg_advisory_lock_shared({waiting}); SELECT pg_try_advisory_xact_lock({putting}); COMMIT;
{anything}"""
ALONE, ANYTHING_THERE = 3, 5  # the results of these statements
# In the same round trip as the next transaction's BEGIN. A listener that holds a batch would neither hear anything
# nor let the server forget what was said, and that ends at 8 GB.
UNLISTEN = "BEGIN; UNLISTEN *; SELECT pg_advisory_unlock_shared({waiting}); COMMIT AND CHAIN"


class PostgresNotify(HeldQueue):
    """A handle listens only while its `get` waits: one that is busy, or stalls, is told nothing."""

    declares = Declares(
        built_on="one PostgreSQL table: INSERT … unnest with pg_notify, DELETE … SKIP LOCKED, COMMIT",
        durabilities=(Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="batch",
        fifo=True,  # within one producer; the commits of several may overtake one another
        wakes_by=f"NOTIFY, sent when a worker waits; it also looks by itself every {LOOK_S:g} s",
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="postgres",
    )

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        # A channel's name ends at 63 bytes, and an advisory lock is a number.
        self.channel = f"imqueue_{blake2b(queue.encode(), digest_size=16).hexdigest()}"
        self._locks = {name: Literal(_lock(queue, name)) for name in ("waiting", "putting")}
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        anything = self._query(ANYTHING)
        self._listen = self._query(LISTEN, channel=Identifier(self.channel), anything=anything, **self._locks)
        self._unlisten = self._query(UNLISTEN, **self._locks)

    def get(self, timeout_s: float) -> list[Message]:
        deadline = time.monotonic() + timeout_s
        pause_s = POLL_MIN_S
        while not (found := self._take_some()):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return []
            self._wait(left_s, pause_s)
            pause_s = min(2 * pause_s, POLL_MAX_S)
        return found

    def _promises(self, settings: dict[str, str]) -> Guarantees:
        return super()._promises(settings | {"poll_interval": f"{LOOK_S:g} s, besides NOTIFY"})

    def _put_query(self, insert: Composed) -> Composed:
        return SQL(PUT).format(insert=insert, channel=Literal(self.channel), **self._locks)

    def _wait(self, left_s: float, pause_s: float) -> None:
        """Until there may be something to take. Listens only meanwhile.

        Waits no longer than `pause_s` beside a put under way, which may have asked too early and then tells nobody.
        """
        session = self._session("get")
        try:
            told = session.connection.execute(self._listen)
            (alone,) = told.set_result(ALONE).fetchone() or (False,)
            if told.set_result(ANYTHING_THERE).fetchone() is None:
                most_s = min(left_s, LOOK_S if alone else pause_s)
                list(session.connection.notifies(timeout=most_s, stop_after=1))
            session.connection.execute(self._unlisten)
            session.in_transaction = True
        except psycopg.Error as error:
            if session.lost_by(error):
                raise self._failure("get", session, error) from error
            session.end()  # it may still listen, hold the lock `waiting`, and be in a transaction that failed
            raise BackendError(f"get was refused by PostgreSQL: {words(error)}") from error
        self._idle.append(session)


def _lock(queue: str, name: str) -> int:
    """The number of an advisory lock, as a bigint."""
    return int.from_bytes(blake2b(f"{name} {queue}".encode(), digest_size=8).digest(), signed=True)
