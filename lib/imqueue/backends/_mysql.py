"""What a backend on MariaDB or MySQL needs around its statements: a bounded connection, its settings, and the table."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.constants import CLIENT, ER
from pymysql.converters import encoders

from imqueue.backend import BackendError, Durability, Guarantees, Within
from imqueue.backends._kernel import is_here, writeback

ANSWER_MAX_S = 30  # the end of every wait for the server; one that is stopped would never answer
LOCK_MAX_S = 20  # by default a DROP TABLE waits a day for a transaction, and longer than ANSWER_MAX_S nobody listens
CONNECT_MAX_S = 10
NAME_MAX = 64  # characters
PACKET_MIN_BYTES = 16 * 1024 * 1024  # MariaDB's default for max_allowed_packet; MySQL's is 64 MiB
PORT = 3306

# Not only the library's own: a link that breaks in the middle of a packet shows as one of the others.
FAILURES = (pymysql.MySQLError, OSError, ValueError, IndexError, RuntimeError, struct.error)
LOST = {0, 1053, 1077, 1079, 1158, 1159, 1160, 1161, 1180, 1927, 4031}
"""The server's own words for an end of the connection, or for a COMMIT whose outcome it does not know."""

VERSION_MIN = {"MariaDB": (10, 6, 0), "MySQL": (8, 0, 4)}
"""The first with SKIP LOCKED and JSON_TABLE, which MySQL had in 8.0.1 and 8.0.4, both before it was released."""

COLUMNS = [("id", "bigint unsigned", "PRI", "auto_increment"), ("body", "longblob", "", "")]
CREATE = """
CREATE TABLE {queue} (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, body LONGBLOB NOT NULL)
ENGINE = InnoDB"""
SESSION = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    f"SET SESSION lock_wait_timeout = {LOCK_MAX_S}, innodb_lock_wait_timeout = {LOCK_MAX_S}",
)
SETTINGS = (
    "innodb_flush_log_at_trx_commit",
    "innodb_flush_log_at_timeout",
    "innodb_flush_method",
    "innodb_doublewrite",
    "log_bin",
    "sync_binlog",
    "max_allowed_packet",
    "wait_timeout",
    "idle_transaction_timeout",
    "idle_write_transaction_timeout",
    "version",
)
"""What decides whether an accepted message stays, and how long a worker may hold one; not every server has all."""

Row = tuple[Any, ...]


class Session:
    """One connection, in a transaction only while it holds messages (`held`: their ids, as the server spells them)."""

    def __init__(self, url: str) -> None:
        self.connection = pymysql.connect(
            **address(url),
            autocommit=True,
            connect_timeout=CONNECT_MAX_S,
            read_timeout=ANSWER_MAX_S,
            write_timeout=ANSWER_MAX_S,
            client_flag=CLIENT.MULTI_STATEMENTS,
            conv=encoders,  # no decoders: an id comes as the digits that the next statement needs
        )
        self.held: set[str] = set()
        try:
            self.do(*SESSION)
        except BaseException:
            self.end()
            raise

    def do(self, *statements: str) -> tuple[Row, ...]:
        """All of them in one round trip; the rows of the last."""
        with self.connection.cursor() as cursor:
            cursor.execute(";".join(statements))
            for _ in statements[1:]:
                cursor.nextset()
            return tuple(cursor.fetchall())

    def lost_by(self, error: Exception) -> bool:
        """Whether `error` was the end of the connection, and not just the server's no to a statement."""
        if not isinstance(error, pymysql.MySQLError) or not self.connection.open:
            return True
        code = error.args[0] if error.args else 0
        return code in LOST or 2000 <= code < 3000  # which are the client's own

    def roll_back(self) -> None:
        """Give back what is held."""
        self.held = set()
        self.do("ROLLBACK")

    def end(self) -> None:
        """Safe twice and on a dead link. What was held is back when it returns."""
        with contextlib.suppress(*FAILURES):
            if self.connection.open:
                self.roll_back()
        with contextlib.suppress(*FAILURES):
            self.connection.close()


def address(url: str) -> dict[str, Any]:
    """What `pymysql.connect` is told of a server. `ValueError`: that is no address."""
    where = urlsplit(url)
    return {
        "host": where.hostname,
        "port": where.port or PORT,
        "user": unquote(where.username or ""),
        "password": unquote(where.password or ""),
        "database": unquote(where.path[1:]) or None,
        "ssl_disabled": is_here(url),  # elsewhere TLS is used where the server offers it
    }


def quoted(name: str) -> str:
    """As an identifier. `BackendError` where the server would change or refuse it."""
    if not 0 < len(name) <= NAME_MAX or name.endswith(" ") or any(c == "\0" or ord(c) > 0xFFFF for c in name):
        raise BackendError(
            f"queue {name!r} cannot be a table; allowed: 1 to {NAME_MAX} characters of Unicode's first plane, "
            "no space at the end"
        )
    return f"`{name.replace('`', '``')}`"


def make_table(session: Session, queue: str) -> None:
    """Create the queue's table if absent; `BackendError` if something of another shape has its name."""
    name = quoted(queue)
    lock = f"SHA1(CONCAT(DATABASE(), '.', '{queue.encode().hex()}'))"
    # One after another, because CREATE TABLE waits for all who hold messages, even where the table is there already,
    # and a worker that then asks for more of its table is ended as a deadlock.
    if session.do(f"SELECT GET_LOCK({lock}, {LOCK_MAX_S})") != (("1",),):
        raise BackendError(f"cannot open queue {queue!r}: somebody has been creating it for {LOCK_MAX_S} s")
    try:
        found, is_ours = _shape(session, name)
        if not found:
            session.do(CREATE.format(queue=name))
            found, is_ours = _shape(session, name)
    finally:
        session.do(f"SELECT RELEASE_LOCK({lock})")
    if not is_ours:
        raise BackendError(f"{queue!r} is here already and is no queue ({found}); left untouched")


def _shape(session: Session, name: str) -> tuple[str, bool]:
    """What the table consists of, "" where there is none; whether it is one of ours."""
    try:
        rows = session.do(f"SHOW COLUMNS FROM {name}")
    except pymysql.MySQLError as error:
        if error.args[0] == ER.NO_SUCH_TABLE:
            return "", False
        raise
    # MySQL says "bigint unsigned", MariaDB "bigint(20) unsigned".
    found = [(field, re.sub(r"\(\d+\)", "", kind), key, extra) for field, kind, _, key, _, extra in rows]
    made_by = str(session.do(f"SHOW CREATE TABLE {name}")[0][1])
    columns = ", ".join(" ".join(filter(None, each)) for each in found)
    return columns, found == COLUMNS and ") ENGINE=InnoDB" in made_by


def read_settings(session: Session) -> dict[str, str]:
    names = ", ".join(f"'{name}'" for name in SETTINGS)
    rows: Iterable[Row] = session.do(f"SHOW VARIABLES WHERE Variable_name IN ({names})")
    return {str(name): str(value) for name, value in sorted(rows)}


def refuse_unless(settings: dict[str, str], asked: Durability) -> None:
    """`BackendError` where this server is too old, takes too little at once, or has another durability than `asked`."""
    version = settings["version"].removeprefix("5.5.5-")  # which MariaDB adds for old clients
    brand = "MariaDB" if "MariaDB" in version else "MySQL"
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if numbers < VERSION_MIN[brand]:
        least = ".".join(map(str, VERSION_MIN[brand]))
        raise BackendError(f"{brand} {version} is too old for SKIP LOCKED and JSON_TABLE; allowed: {least} and later")
    if int(settings["max_allowed_packet"]) < PACKET_MIN_BYTES:
        raise BackendError(
            f"this server runs with max_allowed_packet={settings['max_allowed_packet']}; "
            f"allowed: {PACKET_MIN_BYTES} and more"
        )
    waits = _waits(settings)
    if (asked is Durability.FLUSHED) != waits or (waits and not _writes_safely(settings)):
        shown = ", ".join(f"{name}={settings[name]}" for name in (*SETTINGS[:6],) if name in settings)
        has = "flushed" if waits else "delayed"
        is_like = f"has {has}" if not waits or _writes_safely(settings) else "fits no class"
        raise BackendError(f"durability {asked!s} was asked for; this server {is_like} ({shown})")


def guarantees(settings: dict[str, str], *, url: str, polls: str) -> Guarantees:
    late = Within(max(1.0, float(settings["innodb_flush_log_at_timeout"])))
    waits, in_kernel = _waits(settings), settings["innodb_flush_log_at_trx_commit"] == "2"
    idle_s = [float(value) for name, value in settings.items() if name.endswith("_timeout") and "idle" in name]
    ends_s = [each for each in [*idle_s, float(settings["wait_timeout"])] if each > 0]
    if settings["log_bin"] == "ON" and settings["sync_binlog"] != "1":
        # What was committed but is not in the binary log is undone at the next start.
        flushed, kernel_source = writeback(url)
        if isinstance(flushed, Within):
            flushed = Within(max(flushed.seconds_s, late.seconds_s))
    else:
        flushed, kernel_source = waits or late, ""
    return Guarantees(
        survives_kill=waits or in_kernel or late,
        survives_power_loss=_pages_are_safe(settings) and flushed,
        fifo=False,
        puts_confirmed=True,
        redelivers_after_s=0.0,
        lease_s=min(ends_s, default=None),
        source="; ".join(filter(None, [f"SHOW VARIABLES ({settings['version']})", kernel_source])),
        settings=settings | {"poll_interval": polls},
    )


def _waits(settings: dict[str, str]) -> bool:
    """Whether a commit returns after its flush. 3 is MariaDB's, with one flush more."""
    return settings["innodb_flush_log_at_trx_commit"] in ("1", "3")


def _pages_are_safe(settings: dict[str, str]) -> bool:
    """Whether files are flushed at all, and torn pages are mended."""
    mends = settings["innodb_doublewrite"] in ("ON", "1", "fast", "DETECT_AND_RECOVER")
    return mends and settings.get("innodb_flush_method", "") != "nosync"


def _writes_safely(settings: dict[str, str]) -> bool:
    """Whether what was flushed survives a loss of power; a binary log must be flushed too."""
    return _pages_are_safe(settings) and (settings["log_bin"] != "ON" or settings["sync_binlog"] == "1")
