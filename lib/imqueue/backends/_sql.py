"""What queues in a table of an SQL server share: sessions that come and go, polling, batches held by transactions."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from imqueue.backend import Backend, BackendError, Durability, Message, Rejected

POLL_MIN_S = 0.0005
POLL_MAX_S = 0.005  # an idle worker that polls asks this often, which is the most that polling adds to a latency
POLL_INTERVAL = f"{POLL_MIN_S * 1e3:g} to {POLL_MAX_S * 1e3:g} ms"

RECEIPT = itemgetter(1)  # of a message, or of a row of a body and an id


class Session(Protocol):
    """One connection. `held`: the ids of the messages that its open transaction holds."""

    held: set[Any]

    def lost_by(self, error: Any) -> bool:
        """Whether `error` was the end of the connection, and not just the server's no to a statement."""

    def roll_back(self) -> None: ...

    def end(self) -> None:
        """Safe twice and on a dead link. What was held is back when it returns."""


S = TypeVar("S", bound=Session)


class SqlQueue(Backend, Generic[S]):
    """A handle whose queue is one table. A lost connection stays lost until `open` is called again.

    `failures`: all that the client library may raise. `server_name`: in the sentence about a refusal.
    """

    failures: ClassVar[tuple[type[Exception], ...]]
    server_name: ClassVar[str]

    _lost: str | None = "the handle is not open"

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        self._idle: list[S] = []

    @abstractmethod
    def _connect(self) -> S: ...

    @abstractmethod
    def _set_up(self, session: S) -> dict[str, str]:
        """Refuse a server that will not do, make the table; the server's settings."""

    @abstractmethod
    def _take_some(self) -> list[Message]:
        """One attempt to get, without waiting."""

    def open(self) -> None:
        self.close()
        try:
            self._idle.append(self._connect())
            self._set_up(self._idle[0])
        except self.failures as error:
            self.close()
            raise BackendError(f"cannot open queue {self.queue!r}: {words(error)}") from error
        except BaseException:
            self.close()
            raise
        self._lost = None

    def close(self) -> None:
        for session in self._idle:
            session.end()
        self._idle, self._lost = [], SqlQueue._lost

    def get(self, timeout_s: float) -> list[Message]:
        return poll(self._take_some, timeout_s, POLL_MIN_S, POLL_MAX_S)

    @contextmanager
    def _asking(self, doing: str) -> Iterator[S]:
        """A session outside of any transaction, for statements that are one by themselves."""
        session = self._session(doing)
        try:
            yield session
        except self.failures as error:
            raise self._failure(doing, session, error) from error
        self._idle.append(session)

    def _session(self, doing: str) -> S:
        """One that holds nothing. Whoever takes it puts it back among the idle, unless it failed."""
        if self._lost:
            raise Rejected(f"{doing} was not tried: {self._lost}")
        try:
            return self._idle.pop() if self._idle else self._connect()
        except self.failures as error:
            raise Rejected(f"{doing} was not tried: no further connection: {words(error)}") from error

    def _failure(self, doing: str, session: S, error: Exception) -> BackendError:
        """What to raise. The server's no undid the statement; a link that broke leaves it open, and stays broken."""
        if not session.lost_by(error):
            try:
                session.roll_back()
            except self.failures:
                pass  # it is lost then
            else:
                self._idle.append(session)
                return Rejected(f"{doing} was refused by {self.server_name}: {words(error)}")
        session.end()
        self._lost = f"the connection was lost: {words(error)}"
        return BackendError(f"{doing} is uncertain: {words(error)}")


class HeldBatches(SqlQueue[S]):
    """An open transaction holds a batch, whose rows it has deleted: `ack` commits it, the end of the link undoes it.

    A handle is one connection, and one more for each further batch that it holds at the same time.
    """

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        super().__init__(url, queue, durability=durability, batch=batch, lease_s=lease_s)
        self._holding: list[S] = []

    @abstractmethod
    def _commit(self, session: S) -> None:
        """Settle what it holds; it holds nothing then."""

    def close(self) -> None:
        self._give_back()
        super().close()

    def ack(self, messages: Sequence[Message]) -> None:
        receipts = set(map(RECEIPT, messages))
        whole = [session for session in self._holding if session.held <= receipts]
        if sum(len(session.held) for session in whole) != len(receipts):
            raise BackendError(
                f"ack of {len(receipts)} messages was refused: a transaction is committed as a whole; allowed: "
                "all that one get returned, once"
            )
        for session in whole:
            self._holding.remove(session)
            try:
                self._commit(session)
            except self.failures as error:
                raise self._failure(f"ack of {len(receipts)} messages", session, error) from error
            self._idle.append(session)

    def _give_back(self) -> None:
        while self._holding:
            self._holding.pop().end()


def poll(take: Callable[[], list[Message]], timeout_s: float, least_s: float, most_s: float) -> list[Message]:
    """Try until something is there, less and less often, down to once in `most_s`; [] when nothing came in time."""
    deadline = time.monotonic() + timeout_s
    pause_s = least_s
    while not (found := take()):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return []
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, most_s)
    return found


def words(error: BaseException) -> str:
    """What the server or the library says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
