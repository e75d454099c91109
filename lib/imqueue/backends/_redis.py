"""What every backend on Redis shares: one plain connection, and durability as the live server reports it.

It is a raw `redis.Connection`, not the client `redis.Redis`: nothing retries or reconnects behind our back, and
one by one it moves 19,000 messages/s instead of 14,700 (no lock, no retry loop, no telemetry per command).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, ClassVar

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from imqueue.backend import Backend, BackendError, Durability, Guarantees, Rejected, Survives, Within
from imqueue.backends._kernel import writeback

REPLY_MAX_S = 20.0  # a server that says nothing for so long is taken for dead
BLOCK_MAX_S = 5.0  # well below REPLY_MAX_S, so that an empty queue is never taken for a dead server
CONNECT_MAX_S = 5.0
BODY_MAX_BYTES = 512 * 1024 * 1024  # proto-max-bulk-len, the default

EVERYSEC_S = 2.0  # everysec: an fsync each second, and while one is under way a write is held back up to 2 s

SETTINGS = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "maxmemory", "maxmemory-policy")
"""What decides whether an accepted message stays."""


class RedisBackend(Backend):
    """A handle whose queue is one key. A lost connection stays lost until `open` is called again."""

    key_type: ClassVar[str]
    """What `TYPE` calls the queue's key."""

    _link: Any = None  # a redis.Connection, whose methods carry no types
    _version = ""

    def open(self) -> None:
        self.close()
        try:
            self._link = _connect(self.url)
        except (RedisError, OSError, ValueError) as error:
            raise BackendError(f"no connection to Redis: {error}") from error
        try:
            self._version = self._server_version()
            self._refuse_unless(self._settings())
            self._refuse_another_type(self.queue, self.key_type)
            self._create()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._link is not None:
            self._link.disconnect()
            self._link = None

    def _create(self) -> None:
        """Make the queue, where that takes more than a first message."""

    @property
    def guarantees(self) -> Guarantees:
        """Redis does not tell a dead holder from a slow one: what comes back does so by its lease."""
        settings = self._settings()
        survives_kill, survives_power_loss = survives(settings, self.url)
        returns_s = self.lease_s if self.declares.at_least_once else None
        return Guarantees(
            survives_kill=survives_kill,
            survives_power_loss=survives_power_loss,
            fifo=self.declares.fifo,
            puts_confirmed=True,
            redelivers_after_s=returns_s,
            lease_s=returns_s,
            source=self._source(),
            settings=settings,
        )

    def destroy(self) -> None:
        self._call("destroy", "UNLINK", self.queue)

    def _call(self, doing: str, *command: Any) -> Any:
        """One command and its reply. An error reply is `Rejected`: Redis did nothing of what was asked."""
        (reply,) = self._call_all(doing, command)
        return reply

    def _call_all(self, doing: str, *commands: Sequence[Any]) -> list[Any]:
        """Several commands in one write, and their replies. One error reply of several is a plain `BackendError`."""
        link = self._link
        if link is None:
            raise Rejected(f"{doing} was not tried: the handle is closed, or its connection was lost")
        try:
            if len(commands) == 1:
                link.send_command(*commands[0])
            else:
                link.send_packed_command(link.pack_commands(commands))
            replies = [_reply(link) for _ in commands]
        except (RedisError, OSError) as error:
            self.close()
            size_bytes = max(len(each) for each in chain(*commands) if isinstance(each, str | bytes))
            if size_bytes > BODY_MAX_BYTES:  # Redis hangs up on these before it looks at the command
                raise Rejected(f"{doing} was refused: {size_bytes} bytes exceed {BODY_MAX_BYTES}") from error
            raise BackendError(f"{doing} is uncertain: {error}") from error
        except BaseException:  # interrupted: redis-py would reconnect by itself, to a server that nobody has checked
            self.close()
            raise
        for reply in replies:
            if isinstance(reply, ResponseError):
                kind = Rejected if len(commands) == 1 else BackendError
                raise kind(f"{doing} was refused by Redis: {reply}") from reply
        return replies

    def _refuse_another_type(self, key: str, key_type: str) -> None:
        found = self._call("open", "TYPE", key).decode()
        if found not in (key_type, "none"):
            raise BackendError(f"key {key!r} holds a {found}, not a {key_type}; left untouched")

    def _server_version(self) -> str:
        info = self._call("open", "INFO", "server").decode()
        version = next(line[14:] for line in info.splitlines() if line.startswith("redis_version:"))
        if int(version.split(".")[0]) < 7:
            raise BackendError(f"Redis {version} is too old; allowed: 7.0 and later")
        return str(version)

    def _settings(self) -> dict[str, str]:
        try:
            reply = self._call("reading the durability", "CONFIG", "GET", *SETTINGS)
        except Rejected as error:
            raise BackendError(f"this server hides its settings, nothing can be promised: {error}") from error
        texts = [each.decode() for each in reply]
        return dict(sorted(zip(texts[::2], texts[1::2], strict=True)))

    def _refuse_unless(self, settings: dict[str, str]) -> None:
        offered = _durability(settings)
        if offered is not self.durability:
            is_like = f"has {offered!s}" if offered else "fits no class"
            shown = ", ".join(f"{name} {settings[name]}" for name in SETTINGS[:3])
            raise BackendError(f"durability {self.durability!s} was asked for; this Redis {is_like} ({shown})")
        if settings["maxmemory"] != "0" and settings["maxmemory-policy"] != "noeviction":
            raise BackendError(
                f"this Redis may throw messages away: maxmemory-policy is {settings['maxmemory-policy']}; "
                "allowed: noeviction"
            )

    def _source(self) -> str:
        return f"CONFIG GET appendonly appendfsync (Redis {self._version})"


def survives(settings: dict[str, str], url: str) -> tuple[Survives, Survives]:
    """What an accepted write outlives: SIGKILL of the server, loss of power."""
    if settings["appendonly"] != "yes":
        return False, False
    durability = _durability(settings)
    if durability is Durability.FLUSHED:
        return True, True
    if durability is Durability.DELAYED:
        return Within(EVERYSEC_S), Within(EVERYSEC_S)
    return True, writeback(url).survives  # appendfsync no


def _durability(settings: dict[str, str]) -> Durability | None:
    """The class that these settings amount to; None: neither is kept (the kernel decides when to write)."""
    if settings["appendonly"] != "yes":
        return Durability.MEMORY
    if settings["no-appendfsync-on-rewrite"] != "no":
        return None
    return {"everysec": Durability.DELAYED, "always": Durability.FLUSHED}.get(settings["appendfsync"])


def _connect(url: str) -> Any:
    pool = ConnectionPool.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=REPLY_MAX_S,
        socket_connect_timeout=CONNECT_MAX_S,
        protocol=2,
        driver_info=None,
    )
    link: Any = pool.make_connection()
    link.connect()
    return link


def _reply(link: Any) -> Any:
    """An error reply is returned: those of the commands behind it must be read too."""
    try:
        return link.read_response()
    except ResponseError as error:
        return error
