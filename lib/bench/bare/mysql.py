"""PyMySQL: INSERT of one, or of a batch; SELECT ... SKIP LOCKED and DELETE in a transaction; COMMIT settles it."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.constants import CLIENT
from pymysql.converters import encoders

WAIT_S = 0.1
POLL_MIN_S, POLL_MAX_S = 0.0005, 0.005
TABLE = """
CREATE TABLE {} (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, body LONGBLOB NOT NULL) ENGINE = InnoDB"""
TAKE = """
BEGIN; SELECT body, id FROM {0} FORCE INDEX (PRIMARY) WHERE id >= (SELECT MIN(id) FROM {0}) ORDER BY id LIMIT {1}
FOR UPDATE SKIP LOCKED"""
DELETE = """
DELETE {0} FROM JSON_TABLE('[{1}]', '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) AS taken
STRAIGHT_JOIN {0} FORCE INDEX (PRIMARY) ON {0}.id = taken.id"""


def connect(url: str) -> pymysql.Connection[Any]:
    where = urlsplit(url)
    return pymysql.connect(
        host=where.hostname,
        port=where.port or 3306,
        user=unquote(where.username or ""),
        password=unquote(where.password or ""),
        database=where.path[1:],
        autocommit=True,
        ssl_disabled=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
        conv=encoders,
        init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )


def execute(url: str, statement: str) -> None:
    with connect(url) as connection:
        connection.query(statement)


def create(url: str, queue: str, durability: str) -> None:
    execute(url, TABLE.format(queue))


def destroy(url: str, queue: str) -> None:
    execute(url, f"DROP TABLE {queue}")


class Producer:
    def __init__(self, url: str, queue: str, durability: str) -> None:
        self.connection = connect(url)
        self.insert = f"INSERT INTO {queue} (body) VALUES (x'"

    def put(self, bodies: list[bytes]) -> None:
        self.connection.query(self.insert + "'),(x'".join(map(bytes.hex, bodies)) + "')")


class Consumer:
    def __init__(self, url: str, queue: str, durability: str, batch: int) -> None:
        self.connection = connect(url)
        self.cursor = self.connection.cursor()
        self.queue = queue
        self.statement = TAKE.format(queue, batch)

    def take(self) -> Any:
        deadline, pause_s = time.monotonic() + WAIT_S, POLL_MIN_S
        while True:
            self.cursor.execute(self.statement)
            self.cursor.nextset()
            rows = self.cursor.fetchall()
            if len(rows) == 1:
                self.connection.query(f"DELETE FROM {self.queue} WHERE id = {rows[0][1]}")
            elif rows:
                self.connection.query(DELETE.format(self.queue, ",".join([row[1] for row in rows])))
            else:
                self.connection.query("COMMIT")
            if rows or time.monotonic() > deadline:
                return rows
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_MAX_S)

    def settle(self, taken: Any) -> None:
        self.connection.query("COMMIT")
