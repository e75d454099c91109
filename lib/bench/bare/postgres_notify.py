"""psycopg: as `postgres`, but an idle consumer waits for a NOTIFY, which a put sends when it finds somebody waiting."""

from __future__ import annotations

import time
from typing import Any

from bench.bare import postgres
from bench.bare.postgres import WAIT_S, create, destroy

__all__ = ["Consumer", "Producer", "create", "destroy"]

BLIND_S = 0.0005  # how long to wait beside a put under way, which may have asked too early
ASK = """
CASE WHEN pg_advisory_xact_lock_shared(hashtext('{0}'), 1) IS NULL THEN false
WHEN pg_try_advisory_lock(hashtext('{0}'), 2) THEN pg_advisory_unlock(hashtext('{0}'), 2)
ELSE pg_notify('{0}', '') IS NOT NULL END"""
LISTEN = """
BEGIN; LISTEN {0}; SELECT pg_advisory_lock_shared(hashtext('{0}'), 2);
SELECT pg_try_advisory_xact_lock(hashtext('{0}'), 1); COMMIT; SELECT FROM {0} LIMIT 1"""
UNLISTEN = "BEGIN; UNLISTEN *; SELECT pg_advisory_unlock_shared(hashtext('{0}'), 2); COMMIT AND CHAIN"


class Producer(postgres.Producer):
    def __init__(self, url: str, queue: str, durability: str) -> None:
        super().__init__(url, queue, durability)
        put = f"INSERT INTO {queue} (body) SELECT {{}} WHERE {ASK.format(queue)}"
        self.insert, self.insert_all = (put.format(each).encode() for each in ("%b::bytea", "unnest(%b::bytea[])"))


class Consumer(postgres.Consumer):
    def __init__(self, url: str, queue: str, durability: str, batch: int) -> None:
        super().__init__(url, queue, durability, batch)
        self.listen, self.unlisten = (each.format(queue).encode() for each in (LISTEN, UNLISTEN))

    def take(self) -> list[Any]:
        end_s = time.monotonic() + WAIT_S
        while True:
            if (rows := self.attempt()) or time.monotonic() > end_s:
                return rows
            told = self.connection.execute(self.listen)
            (alone,) = told.set_result(3).fetchone() or (False,)
            if told.set_result(5).fetchone() is None:
                list(self.connection.notifies(timeout=WAIT_S if alone else BLIND_S, stop_after=1))
            self.connection.execute(self.unlisten)
            self.begun = True
