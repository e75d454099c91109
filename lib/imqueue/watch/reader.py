"""What a reader of a server is, and the thread in which it lives."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from imqueue.servers import External, Server
from imqueue.servers.guard import Guard

RETRY_S = 0.5
OPEN_MAX_S = 5.0
ASK_MAX_S = 2.0
"""What one question to a server may take before its connection is given up; each reader keeps to it by itself."""


class WatchError(Exception):
    """The server's view cannot be had. The text says why."""


class Reading(NamedTuple):
    """One figure: its name after ``queue_server_``, its value, and of which kind, where there are several."""

    name: str
    value: float
    kind: str = ""
    counts: bool = False  # it only grows, and its growth is what is looked at


class Reader(ABC):
    """What one kind of server says of itself. Made, used and closed by one thread; every method may raise anything."""

    place = "server"
    glance_s: float | None = None
    """How often `glance` is called between two calls of `read`, for what changes faster than Prometheus scrapes."""

    @abstractmethod
    def __init__(self, server: Server, guard: Guard) -> None: ...

    @abstractmethod
    def read(self) -> list[Reading]: ...

    def glance(self) -> None:  # noqa: B027 - most have no use for it
        """Look, and remember for the next `read`."""

    @property
    def pid(self) -> int | None:
        """The process that it had to start, if any: the observer's, and counted as such."""
        return None

    @abstractmethod
    def close(self) -> None: ...


class Watch:
    """One reader in its thread. Made and ended by the trial; asked by the scrape."""

    def __init__(self, name: str, make: Callable[[], Reader]) -> None:
        self.name = name
        self.pid: int | None = None
        self.place = "server"
        self._make = make
        self._changed = threading.Condition()
        self._asked = self._answered = self._missed = 0
        self._readings: list[Reading] = []
        self._error: str | None = None
        self._ended = False
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)
        self._thread.start()

    def wait_until_open(self, timeout_s: float) -> None:
        self._opened.wait(timeout_s)

    def ask(self) -> None:
        """Have it read now."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Reading]:
        """What it read since it was asked last; nothing where that takes longer, or fails."""
        with self._changed:
            if self._changed.wait_for(lambda: self._answered == self._asked, timeout_s) and self._readings:
                return self._readings
            self._missed += 1
            return []

    def end(self) -> dict[str, Any]:
        """Close it; how often it was asked, how often it had no answer, and the last reason for that."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(OPEN_MAX_S + 1.0)  # it may just open a server that hangs
        return {"asked": self._asked, "missed": self._missed, "error": self._error}

    def _run(self) -> None:
        while not self._ended:
            try:
                reader = self._make()
            except Exception as error:
                self._fail(error)
                continue
            try:
                self.pid, self.place = reader.pid, reader.place
                self._opened.set()
                self._serve(reader)
            except Exception as error:
                self._fail(error)
            finally:
                with contextlib.suppress(Exception):
                    reader.close()

    def _serve(self, reader: Reader) -> None:
        while True:
            with self._changed:
                due = self._changed.wait_for(lambda: self._ended or self._asked > self._answered, reader.glance_s)
                asked = self._asked
            if self._ended:
                return
            if not due:
                reader.glance()
                continue
            readings = reader.read()
            with self._changed:
                self._readings, self._answered = readings, asked
                self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        """Nothing to show until it can be opened again."""
        with self._changed:
            self._error = " ".join(str(error).split()) or type(error).__name__
            self._readings, self._answered = [], self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended, RETRY_S)
        self._opened.set()


def needs_private(server: Server) -> None:
    """Raises `WatchError` for a server that somebody else runs."""
    if isinstance(server, External):
        raise WatchError(f"of a {server.kind} server that somebody else runs, this cannot be read")
