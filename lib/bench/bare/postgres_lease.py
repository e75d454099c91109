"""psycopg: UPDATE ... SKIP LOCKED ... RETURNING of a lease column; DELETE of a range of ids to settle."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from bench.bare import postgres
from bench.bare.postgres import POLL_MAX_S, POLL_MIN_S, WAIT_S, connect, destroy, execute

__all__ = ["Consumer", "Producer", "create", "destroy"]

TABLE = """
CREATE TABLE {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL,
    leased_until timestamptz NOT NULL DEFAULT '-infinity', holder bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50,
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0)"""
TAKE = """
UPDATE {0} SET leased_until = now() + '30 s', holder = %b::bigint WHERE id = ANY(ARRAY(
    SELECT id FROM {0} WHERE leased_until <= now() ORDER BY id LIMIT {1} FOR UPDATE SKIP LOCKED
)) AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off' RETURNING body, id"""
SETTLE = "DELETE FROM {0} WHERE id BETWEEN %b::bigint AND %b::bigint AND holder = %b::bigint"

Producer = postgres.Producer


def create(url: str, queue: str, durability: str) -> None:
    execute(url, TABLE.format(queue))


class Consumer:
    def __init__(self, url: str, queue: str, durability: str, batch: int) -> None:
        self.cursor: psycopg.Cursor[Any] = connect(url, durability).cursor(binary=True)
        self.statement, self.delete = (TAKE.format(queue, batch).encode(), SETTLE.format(queue).encode())
        self.holder = 0

    def take(self) -> list[Any]:
        deadline, pause_s = time.monotonic() + WAIT_S, POLL_MIN_S
        self.holder += 1
        while True:
            rows = self.cursor.execute(self.statement, (self.holder,), prepare=True).fetchall()
            if rows or time.monotonic() > deadline:
                return sorted(rows, key=lambda row: row[1])
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_MAX_S)

    def settle(self, taken: list[Any]) -> None:
        self.cursor.execute(self.delete, (taken[0][1], taken[-1][1], self.holder), prepare=True)
