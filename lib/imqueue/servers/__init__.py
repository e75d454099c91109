"""Which servers there are: the files in this folder. Nothing is registered anywhere else.

A backend's server is the one that `IMQUEUE_<KIND>_URL` names, else a private one: started from the binary on
this machine, on loopback, with its own port and data folder. Whoever makes a private server owns it: gives it
a `guard`, starts it and stops it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from imqueue import settings
from imqueue.backend import Durability
from imqueue.workload import choose

if TYPE_CHECKING:
    from imqueue.servers._private import Private
    from imqueue.servers.guard import Guard

ASK_S = 5.0
"""How long a server that somebody else runs may take to answer."""


class ServerMissing(Exception):
    """A server cannot be had here. The text says why, and names what would bring it."""


class ServerError(Exception):
    """A server did not start, did not answer, or died. The text has the end of its log where there is one."""


class Server(ABC):
    """One server, private or somebody else's. Safe to use from several threads.

    `kind`: its file's name. `per_durability`: durability is a setting of the whole server, so each class
    needs its own. `note`: what people should know about where it lives, or None.
    """

    kind: str
    per_durability: bool = False
    note: str | None = None
    guard: Guard | None = None

    @abstractmethod
    def start(self, timeout_s: float = 30.0) -> None:
        """Return when it answers by its own protocol. Nothing happens when it is running already.

        `ServerMissing`: it cannot be started here. `ServerError`: it was, and failed.
        """

    @abstractmethod
    def stop(self, timeout_s: float = 10.0) -> None:
        """End it cleanly, after `timeout_s` by force; nothing of it is left. Safe twice."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL all of it at once: a fault. `start` brings it back on its data, under the same `url`."""

    @property
    @abstractmethod
    def url(self) -> str:
        """What a backend gets. It holds the password; show `masked(url)` to people."""

    @abstractmethod
    def running(self) -> bool: ...

    @abstractmethod
    def pids(self) -> list[int]:
        """The root of each process tree it consists of; [] for a server that is not ours."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """What decides its durability, as we gave it; {} for a server that is not ours."""


class External(Server):
    """A server that somebody else runs: asked whether it answers, never started or stopped."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self._url = url
        self._loaded = load(kind)

    def start(self, timeout_s: float = 30.0) -> None:
        try:
            version = self._ask(timeout_s)
        except ServerError as error:
            raise ServerError(f"{self._named()}, which does not answer: {error}") from error
        if reason := self._loaded.too_old(version):
            raise ServerMissing(f"{self._named()}: {reason}")

    def stop(self, timeout_s: float = 10.0) -> None:
        pass

    def kill(self) -> None:
        pass

    @property
    def url(self) -> str:
        return self._url

    def running(self) -> bool:
        try:
            self._ask(ASK_S)
        except ServerError:
            return False
        return True

    def pids(self) -> list[int]:
        return []

    def version(self) -> str:
        return self._ask(ASK_S)

    def settings(self) -> dict[str, str]:
        return {}

    def _named(self) -> str:
        return f"IMQUEUE_{self.kind.upper()}_URL names {masked(self._url)}"

    def _ask(self, timeout_s: float) -> str:
        return self._loaded.ask(self._url, min(timeout_s, ASK_S))


def kinds() -> list[str]:
    """All kinds of server, whether or not this machine has them."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if _is_kind(path))


def load(kind: str) -> type[Private]:
    """The one private server that ``servers/<kind>.py`` defines. `BadInput` for an unknown kind."""
    from imqueue.servers._private import Private

    choose("server", kind, kinds())
    module = importlib.import_module(f"imqueue.servers.{kind}")
    found: list[type[Private]] = [
        each
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, Private) and each.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ServerError(f"servers/{kind}.py must define one server, it defines {len(found)}")
    return found[0]


def obtain(kind: str, folder: Path, durability: Durability | None = None) -> Server:
    """The server of this kind, not started: the one that the environment names, else a private one.

    `folder` holds all servers' folders; a private one gets ``<folder>/<kind>[-<durability>]``.
    `ServerMissing`: it cannot be had here.
    """
    loaded = load(kind)
    if url := settings.server_url(kind):
        return External(kind, url)
    if reason := loaded.missing():
        raise ServerMissing(reason)
    name = f"{kind}-{durability}" if loaded.per_durability and durability else kind
    return loaded(folder / name, durability if loaded.per_durability else None)


def masked(url: str) -> str:
    """`url` without its password."""
    return re.sub(r"(?<=://)([^/@]*?):[^/]*@", r"\1:***@", url)


def _is_kind(path: Path) -> bool:
    return not path.stem.startswith("_") and path.stem != "guard"
