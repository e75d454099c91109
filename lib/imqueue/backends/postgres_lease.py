"""PostgreSQL, one table per queue with a lease on each row: UPDATE … SKIP LOCKED … RETURNING, DELETE to settle.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, PostgreSQL 15, two busy cores), class
delayed: pages half full, so that a claim needs no new index entry, and = ANY(ARRAY(…)) (this) 2.6k / 97k / 232k; full
pages 2.3k / 80k / 140k; UPDATE … FROM (…) 3.1k / 90k / 209k; a partial index on what is free 3.0k / 25k / 91k, since it
turns each claim into an insert there; DELETE of = ANY(ids) instead of a range 2.0k / 93k / 211k. Class flushed 1.5k /
49k / 93k, and 1.4k / 33k / 94k where a claim waits for the disk too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import repeat

from psycopg.sql import Literal

from imqueue.backend import Declares, Durability, Guarantees, Message, messages
from imqueue.backends._postgres import Session, Table, guarantees
from imqueue.backends._postgres_queue import SIZE_MAX_BYTES, PostgresQueue
from imqueue.backends._sql import POLL_INTERVAL, RECEIPT

# A claim that a crash undoes is no more than a lease that ended early, so nobody waits for the disk with it.
TAKE = """
UPDATE {queue} SET leased_until = now() + {lease}, holder = %b::bigint WHERE id = ANY(ARRAY(
    SELECT id FROM {queue} WHERE leased_until <= now() ORDER BY id LIMIT {batch} FOR UPDATE SKIP LOCKED
)) AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off' RETURNING body, id"""
SETTLE_ALL = "DELETE FROM {queue} WHERE id BETWEEN %b::bigint AND %b::bigint AND holder = %b::bigint"
SETTLE = "DELETE FROM {queue} WHERE id = ANY(%b::bigint[]) AND holder = %b::bigint"


class PostgresLease(PostgresQueue):
    """A handle is one connection, in a transaction only while a statement runs. The server's clock keeps the leases.

    `holder` is a number that each `get` draws anew: the late ack of a holder that lost a message finds another's.
    """

    table = Table(
        columns=(
            ("leased_until", "timestamp with time zone", "NOT NULL DEFAULT '-infinity'"),
            ("holder", "bigint", "NOT NULL DEFAULT 0"),
        ),
        fillfactor=50,
    )
    depth_query = "SELECT count(*) FROM {queue} WHERE leased_until <= now()"
    declares = Declares(
        built_on="one PostgreSQL table: INSERT … unnest, UPDATE … SKIP LOCKED of a lease, DELETE",
        durabilities=(Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,  # within one producer; the commits of several may overtake one another
        wakes_by=f"polling every {POLL_INTERVAL}",
        unacked_returns="when its lease ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="postgres",
    )

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        lease = Literal(f"{lease_s:f} seconds")
        self._take = self._with_values(TAKE, batch=Literal(batch), lease=lease)
        self._settle, self._settle_all = self._with_values(SETTLE), self._with_values(SETTLE_ALL)

    def ack(self, messages: Sequence[Message]) -> None:
        """What was lost to another holder meanwhile is his to settle, and is left alone."""
        held = _by_holder(messages)
        with self._asking(f"ack of {len(messages)} messages") as session, _once(session, len(held)):
            for holder, numbers in held.items():
                low, high = min(numbers), max(numbers)
                if high - low + 1 == len(numbers):
                    session.cursor.execute(self._settle_all, (low, high, holder), prepare=True)
                else:
                    session.cursor.execute(self._settle, (list(numbers), holder), prepare=True)

    def _promises(self, settings: dict[str, str]) -> Guarantees:
        """PostgreSQL does not tell a dead holder from a slow one: what comes back does so by its lease."""
        return replace(
            guarantees(settings | {"poll_interval": POLL_INTERVAL}),
            redelivers_after_s=self.lease_s,
            lease_s=self.lease_s,
        )

    def _take_some(self) -> list[Message]:
        holder = random.getrandbits(63)
        with self._asking("get") as session:
            cursor = session.connection.cursor(binary=True)  # whose rows are plain: a receipt is more than the id
            found = cursor.execute(self._take, (holder,), prepare=True).fetchall()
        if not found:
            return []
        found.sort(key=RECEIPT)  # RETURNING promises no order
        bodies, numbers = zip(*found, strict=True)
        return messages(bodies, zip(numbers, repeat(holder)))


def _by_holder(messages: Sequence[Message]) -> dict[int, Sequence[int]]:
    """Their ids, by the `get` that returned them: mostly one."""
    if not messages:
        return {}
    numbers, holders = zip(*map(RECEIPT, messages), strict=True)
    if len(set(holders)) == 1:
        return {holders[0]: numbers}
    held: dict[int, Sequence[int]] = {}
    for holder in set(holders):
        held[holder] = [number for number, its in zip(numbers, holders, strict=True) if its == holder]
    return held


def _once(session: Session, count: int) -> AbstractContextManager[object]:
    """A transaction where `count` statements need one."""
    return session.connection.transaction() if count > 1 else nullcontext()
