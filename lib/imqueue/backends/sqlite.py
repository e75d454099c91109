"""A SQLite file in WAL mode: the queue that needs no server, shared by several processes of one host.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, synchronous NORMAL, two busy cores): a claim as a
range of ids (this) 6.4k / 167k / 275k; a lease column set by UPDATE ... RETURNING 5.5k / 115k / 136k; moving rows to a
table of what is held 5.9k / 138k / 223k; DELETE ... RETURNING on get, which would be at most once, 3.7k / 157k / 194k.
AUTOINCREMENT instead of ids of our own costs a quarter.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, repeat
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from imqueue.backend import (
    Backend,
    BackendError,
    Declares,
    Durability,
    Guarantees,
    Message,
    Rejected,
    Survives,
    Within,
    messages,
)
from imqueue.backends._kernel import writeback
from imqueue.backends._sql import poll

T = TypeVar("T")

POLL_MIN_S = 0.0002
POLL_MAX_S = 0.002  # a file cannot wake a reader: the floor of the latency when messages are rare
POLL_INTERVAL = f"{POLL_MIN_S * 1e3:g} to {POLL_MAX_S * 1e3:g} ms"
LOCK_MAX_S = 10.0  # how long a call waits for the one writer that SQLite allows
LOCK_YIELDS = 20  # a transaction is short: ask again at once so many times,
LOCK_POLL_S = 0.0001  # then at this interval (SQLite's own handler goes to 100 ms, which would be our p99)
JOURNAL_S = 5.0  # what ext4's journal adds to the kernel's writeback

SYNCHRONOUS = {Durability.DELAYED: "NORMAL", Durability.FLUSHED: "FULL"}

# A claim is a range of ids, one row for each `get`, however large. What lies above all claims is ready: a claim
# goes only when none of its messages is left, so nothing below the highest one can be waiting unclaimed.
SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS claims
    (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, until_s REAL NOT NULL, token INTEGER NOT NULL);
"""
CLAIMED = "(SELECT coalesce(max(last), 0) FROM claims)"
HIGHEST = f"SELECT max((SELECT coalesce(max(id), 0) FROM messages), {CLAIMED})"
ANYTHING = f"""
SELECT EXISTS (SELECT 1 FROM messages WHERE id > {CLAIMED}) OR EXISTS (SELECT 1 FROM claims WHERE until_s <= ?)
"""
READY = f"SELECT id, body FROM messages WHERE id > {CLAIMED} ORDER BY id LIMIT ?"
EXPIRED = "SELECT first, last FROM claims WHERE until_s <= ? ORDER BY last LIMIT 1"
OF_A_CLAIM = "SELECT id, body FROM messages WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
# Ready ids have no gaps: they are given out one after another, and none is deleted before it is claimed.
DEPTH = f"""
SELECT coalesce((SELECT max(id) FROM messages) + 1 - (SELECT min(id) FROM messages WHERE id > {CLAIMED}), 0)
    + (SELECT count(*) FROM claims JOIN messages ON id BETWEEN first AND last WHERE until_s <= ?)
"""
DELETE = """
DELETE FROM messages WHERE id BETWEEN ? AND ? AND EXISTS (SELECT 1 FROM claims WHERE last = ? AND token = ?)
"""
DELETE_EMPTY = """
DELETE FROM claims WHERE last = ? AND NOT EXISTS (SELECT 1 FROM messages WHERE id BETWEEN first AND last)
"""


class Sqlite(Backend):
    """The queue is one file ``<url>/<queue>.sqlite3``. A claim that is not acked returns when its lease is over."""

    declares = Declares(
        built_on="SQLite in WAL mode: claimed by ranges of ids, deleted on ack",
        durabilities=(Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by=f"polling every {POLL_INTERVAL}",
        unacked_returns="when its lease ends",
        size_max_bytes=1_000_000_000 - 7,  # SQLITE_MAX_LENGTH is of a row, whose header takes 7
    )

    _link: sqlite3.Connection | None = None

    def open(self) -> None:
        self.close()
        self._file = Path(self.url) / f"{quote(self.queue, safe='')}.sqlite3"
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._link = sqlite3.connect(self._file, isolation_level=None, timeout=0, check_same_thread=False)
            _patiently(self._set_up)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise BackendError(f"cannot open {self._file}: {error}") from error
        if (mode := self._pragma("journal_mode")) != "wal":
            self.close()
            raise BackendError(f"{self._file} stays in journal mode {mode}; allowed: a local disk, where WAL works")

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def guarantees(self) -> Guarantees:
        settings = {name: self._pragma(name) for name in ("journal_mode", "synchronous", "fullfsync")}
        kernel = writeback("")
        late = Within(kernel.survives.seconds_s + JOURNAL_S) if isinstance(kernel.survives, Within) else False
        by_synchronous: dict[str, Survives] = {"0": False, "1": late, "2": True, "3": True}
        return Guarantees(
            survives_kill=True,  # there is no server: what is written is the kernel's
            survives_power_loss=by_synchronous[settings["synchronous"]],
            fifo=True,
            puts_confirmed=True,
            redelivers_after_s=self.lease_s,
            lease_s=self.lease_s,
            source=f"PRAGMA synchronous (SQLite {sqlite3.sqlite_version}); {kernel.source}",
            settings=settings | {"poll_interval": POLL_INTERVAL},
        )

    def put(self, bodies: Sequence[bytes]) -> None:
        with self._writing(f"put of {len(bodies)} messages") as link:
            (highest,) = link.execute(HIGHEST).fetchone()
            ids = range(highest + 1, highest + 1 + len(bodies))
            link.executemany("INSERT INTO messages VALUES (?, ?)", zip(ids, bodies, strict=True))

    def get(self, timeout_s: float) -> list[Message]:
        return poll(self._take_some, timeout_s, POLL_MIN_S, POLL_MAX_S)

    def ack(self, messages: Sequence[Message]) -> None:
        """What was lost to another holder meanwhile is his to settle, and is left alone."""
        claims: dict[tuple[int, int], list[int]] = {}
        for _, (number, last, token) in messages:
            claims.setdefault((last, token), []).append(number)
        with self._writing(f"ack of {len(messages)} messages") as link:
            for (last, token), numbers in claims.items():
                _settle(link, last, token, numbers)

    def depth(self) -> int:
        return int(self._ask(DEPTH, time.time()))

    def destroy(self) -> None:
        with self._writing("destroy") as link:
            link.execute("DROP TABLE messages")
            link.execute("DROP TABLE claims")
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._file}{suffix}").unlink(missing_ok=True)

    def _set_up(self) -> None:
        link = self._opened("open")
        link.execute("PRAGMA journal_mode = WAL")
        link.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self.durability]}")
        link.execute("PRAGMA fullfsync = ON")  # macOS: a plain fsync stops at the drive's cache
        link.executescript(SCHEMA)

    def _opened(self, doing: str) -> sqlite3.Connection:
        if self._link is None:
            raise Rejected(f"{doing} was not tried: the handle is closed")
        return self._link

    def _pragma(self, name: str) -> str:
        return str(self._ask(f"PRAGMA {name}"))

    def _ask(self, question: str, *values: float) -> int | str:
        """The one value that a query gives."""
        link = self._opened("reading")
        try:
            answer: int | str = _patiently(lambda: link.execute(question, values).fetchone())[0]
        except sqlite3.Error as error:
            raise BackendError(f"{self._file} cannot be read: {error}") from error
        return answer

    @contextmanager
    def _writing(self, doing: str) -> Iterator[sqlite3.Connection]:
        """A transaction: what fails before its commit is `Rejected`, a commit that fails is uncertain."""
        link = self._opened(doing)
        try:
            _patiently(lambda: link.execute("BEGIN IMMEDIATE"))
            yield link
        except (sqlite3.Error, OverflowError) as error:
            _roll_back(link)
            raise Rejected(f"{doing} was refused and left nothing behind: {error}") from error
        except BaseException:
            _roll_back(link)
            raise
        try:
            link.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(link)
            raise BackendError(f"{doing} is uncertain: {error}") from error

    def _take_some(self) -> list[Message]:
        """Looking first takes no lock, so that an idle worker never stands in a producer's way."""
        return self._claim() if self._ask(ANYTHING, time.time()) else []

    def _claim(self) -> list[Message]:
        token = random.getrandbits(62)
        with self._writing("get") as link:
            now_s = time.time()
            if expired := link.execute(EXPIRED, (now_s,)).fetchone():
                rows = link.execute(OF_A_CLAIM, (*expired, self.batch)).fetchall()
                _cut(link, rows, expired)
            else:
                rows = link.execute(READY, (self.batch,)).fetchall()
            if not rows:
                return []
            first, last = rows[0][0], rows[-1][0]
            link.execute("INSERT INTO claims VALUES (?, ?, ?, ?)", (last, first, now_s + self.lease_s, token))
        numbers, bodies = zip(*rows, strict=True)
        return messages(bodies, zip(numbers, repeat(last), repeat(token), strict=False))


def _cut(link: sqlite3.Connection, rows: Sequence[tuple[int, bytes]], expired: tuple[int, int]) -> None:
    """Leave to an expired claim what the new holder of `rows` does not take of it."""
    first, last = (rows[-1][0] + 1 if rows else expired[1] + 1), expired[1]
    link.execute("UPDATE claims SET first = ? WHERE last = ?", (first, last))
    link.execute(DELETE_EMPTY, (last,))


def _settle(link: sqlite3.Connection, last: int, token: int, numbers: Sequence[int]) -> None:
    low, high = min(numbers), max(numbers)
    whole = high - low + 1 == len(numbers)
    ranges = [(low, high)] if whole else [(number, number) for number in numbers]
    link.executemany(DELETE, [(*each, last, token) for each in ranges])
    link.execute(DELETE_EMPTY, (last,))


def _roll_back(link: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        link.execute("ROLLBACK")


def _patiently(act: Callable[[], T]) -> T:
    """What `act` returns, once no other connection is in its way."""
    deadline = time.monotonic() + LOCK_MAX_S
    for tries in count():
        try:
            return act()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(0 if tries < LOCK_YIELDS else LOCK_POLL_S)
    raise AssertionError("unreachable")
