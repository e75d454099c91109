"""psycopg: INSERT of one, or of a batch as an array; DELETE ... SKIP LOCKED ... RETURNING; COMMIT settles it."""

from __future__ import annotations

import time
from typing import Any

import psycopg

WAIT_S = 0.1
POLL_MIN_S, POLL_MAX_S = 0.0005, 0.005
TABLE = """
CREATE TABLE {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL) WITH (
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0)"""
TAKE = """
DELETE FROM {0} WHERE id = ANY(ARRAY(SELECT id FROM {0} ORDER BY id LIMIT {1} FOR UPDATE SKIP LOCKED))
RETURNING body, id"""


def connect(url: str, durability: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("SET synchronous_commit = on" if durability == "flushed" else "SET synchronous_commit = off")
    connection.execute("SET enable_seqscan = off")
    return connection


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def create(url: str, queue: str, durability: str) -> None:
    execute(url, TABLE.format(queue))


def destroy(url: str, queue: str) -> None:
    execute(url, f"DROP TABLE {queue}")


class Producer:
    def __init__(self, url: str, queue: str, durability: str) -> None:
        self.cursor = connect(url, durability).cursor(binary=True)
        self.insert = f"INSERT INTO {queue} (body) VALUES (%b)".encode()
        self.insert_all = f"INSERT INTO {queue} (body) SELECT unnest(%b::bytea[])".encode()

    def put(self, bodies: list[bytes]) -> None:
        if len(bodies) == 1:
            self.cursor.execute(self.insert, bodies, prepare=True)
        else:
            self.cursor.execute(self.insert_all, (bodies,), prepare=True)


class Consumer:
    def __init__(self, url: str, queue: str, durability: str, batch: int) -> None:
        self.connection = connect(url, durability)
        self.cursor = self.connection.cursor(binary=True)
        self.statement = TAKE.format(queue, batch).encode()
        self.begun = False

    def take(self) -> list[Any]:
        deadline, pause_s = time.monotonic() + WAIT_S, POLL_MIN_S
        while not (rows := self.attempt()) and time.monotonic() <= deadline:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_MAX_S)
        return rows

    def attempt(self) -> list[Any]:
        if not self.begun:
            self.connection.execute("BEGIN")
        rows = self.cursor.execute(self.statement, prepare=True).fetchall()
        if not rows:
            self.connection.execute("COMMIT")
            self.begun = False
        return sorted(rows, key=lambda row: row[1])

    def settle(self, taken: list[Any]) -> None:
        self.connection.execute("COMMIT AND CHAIN")
        self.begun = True
