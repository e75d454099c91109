"""The private servers of one driver: started when first needed, reused by every trial, ended with the driver."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imqueue import registry, servers, settings
from imqueue.backend import Backend, BackendError, Durability
from imqueue.servers import Server, ServerError, ServerMissing
from imqueue.servers.guard import Guard

ASK_MAX_S = 2.0


class Fleet:
    """Thread-safe. Everything that it starts is watched by `guard`."""

    def __init__(self, folder: Path, guard: Guard) -> None:
        self._folder = folder
        self._guard = guard
        self._servers: dict[tuple[str, Durability | None], Server] = {}
        self._lock = threading.Lock()

    def server(self, kind: str, durability: Durability | None = None) -> Server:
        """The running server of this kind (and class, where the class is a setting of the whole server).

        Raises `ServerMissing` or `ServerError`.
        """
        key = (kind, durability if servers.load(kind).per_durability else None)
        with self._lock:
            if key not in self._servers:
                server = servers.obtain(kind, self._folder, durability)
                server.guard = self._guard
                self._servers[key] = server
            server = self._servers[key]
        server.start()
        return server

    def adopt(self, server: Server) -> None:
        """Take in one that somebody else set up: Prometheus, which has to know the driver's address. Not started."""
        server.guard = self._guard
        with self._lock:
            self._servers[server.kind, None] = server

    def url(self, backend: str, durability: Durability) -> str:
        """Where this backend's handles go: its server's address, or a folder of its own where it has no server."""
        kind = registry.load(backend).declares.server
        if kind is None:
            folder = self._folder / backend
            folder.mkdir(parents=True, exist_ok=True)
            return str(folder)
        return self.server(kind, durability).url

    def start_all(self) -> dict[str, str | None]:
        """Start every server that any backend's default class needs, side by side. Kind -> why it is missing."""
        wanted: dict[str, Durability] = {}
        for name in registry.names():
            try:
                loaded = registry.load(name)
            except BackendError:
                continue
            declares = loaded.declares
            if declares.server is not None and not (issubclass(loaded, Backend) and loaded.missing()):
                wanted.setdefault(declares.server, declares.default_durability)
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            return dict(zip(wanted, pool.map(self._try, wanted, wanted.values()), strict=True))

    def _try(self, kind: str, durability: Durability) -> str | None:
        try:
            self.server(kind, durability)
        except (ServerMissing, ServerError) as error:
            return str(error)
        return None

    def running(self) -> list[Server]:
        with self._lock:
            known = list(self._servers.values())
        return [server for server in known if server.running()]

    def stop(self) -> None:
        """End all of them, side by side."""
        with self._lock:
            known = list(self._servers.values())
            self._servers = {}
        with ThreadPoolExecutor(max(1, len(known))) as pool:
            list(pool.map(lambda server: server.stop(), known))


def missing() -> dict[str, str | None]:
    """Backend -> why it cannot run here, None: it can. Each kind of server is looked for once."""
    of_kind = functools.cache(server_missing)
    return {name: why_missing(name, of_kind) for name in registry.names()}


def why_missing(backend: str, of_kind: Callable[[str], str | None] | None = None) -> str | None:
    """Why this backend cannot run here, with the command that would help; None: nothing is known against it.

    `of_kind`: what is to be asked about a kind of server, `server_missing` by itself.
    """
    of_kind = of_kind or server_missing
    try:
        loaded = registry.load(backend)
    except BackendError as error:
        return str(error)
    if issubclass(loaded, Backend) and (lacking := loaded.missing()):
        return lacking
    kind = loaded.declares.server
    reason = of_kind(kind) if kind is not None else None
    return reason or of_kind("prometheus")


def server_missing(kind: str) -> str | None:
    """Why there is no server of this kind; None: it can be started, or the environment names one that will do."""
    if url := settings.server_url(kind):
        return _too_old(kind, url)
    return servers.load(kind).missing()


def _too_old(kind: str, url: str) -> str | None:
    """Why somebody else's server will not do. One that does not answer is no matter of its version."""
    try:
        servers.External(kind, url).start(ASK_MAX_S)
    except ServerMissing as missing:
        return str(missing)
    except ServerError:
        return None
    return None


def has_ended(server: Server) -> bool:
    """Whether a private server is gone; its connections break a moment before its process is."""
    deadline = time.monotonic() + 0.5
    while server.running():
        if not server.pids() or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
