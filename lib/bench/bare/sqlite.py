"""sqlite3, WAL: INSERT of a batch; a claim is a range of ids in a table of its own; DELETE of it to settle."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

WAIT_S = 0.1
POLL_S = 0.0002
LEASE_S = 30.0
SYNCHRONOUS = {"delayed": "NORMAL", "flushed": "FULL"}
CLAIMED = "(SELECT coalesce(max(last), 0) FROM claims)"
HIGHEST = f"SELECT max((SELECT coalesce(max(id), 0) FROM messages), {CLAIMED})"
ANYTHING = f"SELECT EXISTS (SELECT 1 FROM messages WHERE id > {CLAIMED})"
READY = f"SELECT id, body FROM messages WHERE id > {CLAIMED} ORDER BY id LIMIT ?"


def connect(url: str, queue: str, durability: str) -> sqlite3.Connection:
    link = sqlite3.connect(Path(url) / f"{queue}.sqlite3", isolation_level=None, timeout=0)
    patiently(link, "PRAGMA journal_mode = WAL")
    link.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
    return link


def create(url: str, queue: str, durability: str) -> None:
    with contextlib.closing(connect(url, queue, durability)) as link:
        link.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        link.execute("CREATE TABLE claims (last INTEGER PRIMARY KEY, first INTEGER, until_s REAL)")


def destroy(url: str, queue: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        (Path(url) / f"{queue}.sqlite3{suffix}").unlink(missing_ok=True)


def patiently(link: sqlite3.Connection, statement: str) -> None:
    """SQLite allows one writer: ask again at once, and after a while a little later."""
    for tries in range(100_000):
        with contextlib.suppress(sqlite3.OperationalError):
            link.execute(statement)
            return
        time.sleep(0 if tries < 20 else 0.0001)
    raise sqlite3.OperationalError("the file stayed locked")


@contextlib.contextmanager
def transaction(link: sqlite3.Connection) -> Iterator[None]:
    patiently(link, "BEGIN IMMEDIATE")
    yield
    link.execute("COMMIT")


class Producer:
    def __init__(self, url: str, queue: str, durability: str) -> None:
        self.link = connect(url, queue, durability)

    def put(self, bodies: list[bytes]) -> None:
        with transaction(self.link):
            (highest,) = self.link.execute(HIGHEST).fetchone()
            ids = range(highest + 1, highest + 1 + len(bodies))
            self.link.executemany("INSERT INTO messages VALUES (?, ?)", zip(ids, bodies, strict=True))


class Consumer:
    def __init__(self, url: str, queue: str, durability: str, batch: int) -> None:
        self.link, self.batch = connect(url, queue, durability), batch

    def take(self) -> list[tuple[int, bytes]]:
        deadline = time.monotonic() + WAIT_S
        while not self.link.execute(ANYTHING).fetchone()[0]:
            if time.monotonic() > deadline:
                return []
            time.sleep(POLL_S)
        with transaction(self.link):
            rows = self.link.execute(READY, (self.batch,)).fetchall()
            if rows:
                claim = (rows[-1][0], rows[0][0], time.time() + LEASE_S)
                self.link.execute("INSERT INTO claims VALUES (?, ?, ?)", claim)
        return rows

    def settle(self, taken: list[tuple[int, bytes]]) -> None:
        first, last = taken[0][0], taken[-1][0]
        with transaction(self.link):
            self.link.execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", (first, last))
            self.link.execute("DELETE FROM claims WHERE last = ?", (last,))
