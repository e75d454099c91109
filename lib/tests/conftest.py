"""Fixtures: the real servers, once for the whole run, and handles on fresh queues in them.

A server that this machine does not have is an error under CI or IMQUEUE_REQUIRE, else a counted skip.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from lying import LIARS
from psycopg.sql import SQL, Identifier
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from imqueue import client, registry, servers, settings
from imqueue.backend import Backend, Durability
from imqueue.servers import Server, ServerMissing
from imqueue.servers.guard import Guard

LEASE_S = 1.0  # short, so that a test can wait for its end


BESIDE = "test_contract", "test_inference", "test_node", "test_servers"


class OneTrialAtATime(LoadScopeScheduling):  # type: ignore[misc]
    """What starts no trial and mostly waits may run beside the rest; of the rest one test at a time has the machine."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if any(name in nodeid for name in BESIDE) else "the rest"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return OneTrialAtATime(config, log)


def backend_names() -> list[str]:
    """Every backend with a queue, those without a server first: they are fast, and fail fast."""
    loaded = {name: registry.load(name) for name in registry.names()}
    queues = {name: each for name, each in loaded.items() if issubclass(each, Backend)}
    return sorted(queues, key=lambda name: (queues[name].declares.server or "", name))


@dataclass
class Handles:
    """Opens handles on one backend; whoever made it calls `end`."""

    loaded: type[Backend]
    url: Callable[[Durability], str]
    queue: str
    opened: list[Backend] = field(default_factory=list)

    def make(
        self,
        *,
        queue: str | None = None,
        durability: Durability | None = None,
        batch: int = 100,
        lease_s: float = LEASE_S,
    ) -> Backend:
        """A handle that is not open yet."""
        durability = durability or self.loaded.declares.default_durability
        handle = self.loaded(
            self.url(durability), queue or self.queue, durability=durability, batch=batch, lease_s=lease_s
        )
        self.opened.append(handle)
        return handle

    def __call__(
        self,
        *,
        queue: str | None = None,
        durability: Durability | None = None,
        batch: int = 100,
        lease_s: float = LEASE_S,
    ) -> Backend:
        handle = self.make(queue=queue, durability=durability, batch=batch, lease_s=lease_s)
        handle.open()
        return handle

    def end(self) -> None:
        """Close all, and drop every queue that was used."""
        for handle in self.opened:
            handle.close()
        for handle in {(each.queue, each.durability): each for each in self.opened}.values():
            handle.open()
            handle.destroy()
            handle.close()


@pytest.fixture(scope="session")
def guard() -> Iterator[Guard]:
    """So that no server outlives the tests, however they end."""
    it = Guard()
    it.start()
    yield it
    it.close()


@pytest.fixture(scope="session")
def obtain(guard: Guard) -> Iterator[Callable[[str, Durability], Server]]:
    """The server of a kind for a class of durability, started once in the run; it stays up."""
    folder = Path(tempfile.mkdtemp(prefix="imqueue-test-"))
    folder.chmod(0o755)  # servers that drop root's privileges must get in
    started: dict[tuple[str, Durability | None], Server] = {}

    def get(kind: str, durability: Durability) -> Server:
        key = kind, durability if servers.load(kind).per_durability else None
        try:
            if key not in started:
                server = servers.obtain(kind, folder, durability)
                if isinstance(server, servers.load(kind)):
                    server.guard = guard
                server.start()
                started[key] = server
        except ServerMissing as missing:
            if settings.servers_required():
                raise
            pytest.skip(str(missing))
        started[key].start()  # a test may have killed it
        return started[key]

    yield get
    for server in started.values():
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=backend_names())
def loaded(request: pytest.FixtureRequest) -> type[Backend]:
    """Each backend in turn, all tests of one before the next."""
    found = registry.load(request.param)
    assert issubclass(found, Backend)
    if reason := found.missing():
        (pytest.fail if settings.servers_required() else pytest.skip)(reason)
    return found


@pytest.fixture
def handles(loaded: type[Backend], obtain: Callable[[str, Durability], Server], tmp_path: Path) -> Iterator[Handles]:
    """Makes handles on this test's own queue."""
    kind = loaded.declares.server

    def url(durability: Durability) -> str:
        return obtain(kind, durability).url if kind else str(tmp_path)

    made = Handles(loaded, url, f"contract-{uuid.uuid4().hex[:12]}")
    yield made
    made.end()


@pytest.fixture
def backend(handles: Handles) -> Backend:
    """An open handle on a fresh queue."""
    return handles()


@pytest.fixture
def another_handle(handles: Handles) -> Backend:
    """A second one on the same queue."""
    return handles()


@pytest.fixture(scope="module")
def postgres_server(obtain: Callable[[str, Durability], Server]) -> Server:
    return obtain("postgres", Durability.DELAYED)


@pytest.fixture
def admin(postgres_server: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def tables(postgres_server: Server) -> Iterator[Callable[[str], Handles]]:
    """Handles of a PostgreSQL backend by name; all that it makes share one queue's name."""
    queue, made = f"postgres %s-{uuid.uuid4().hex[:12]}", []

    def of(name: str) -> Handles:
        loaded = registry.load(name)
        assert issubclass(loaded, Backend)
        made.append(Handles(loaded, lambda _: postgres_server.url, queue))
        return made[-1]

    yield of
    for handles in made:
        for handle in handles.opened:
            handle.close()
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(queue)))


@pytest.fixture(scope="module")
def one_driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One driver for all trials of a module, ended after them; its data folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("IMQUEUE_DATA", str(folder))
        yield folder
        client.end(folder)


@pytest.fixture(scope="session")
def _liars_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("liars")
    yield folder
    client.end(folder)


@pytest.fixture
def liars_data(_liars_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a driver that knows the liars; one for all their trials."""
    monkeypatch.setenv("IMQUEUE_DATA", str(_liars_folder))
    monkeypatch.setenv("IMQUEUE_BACKENDS", str(LIARS))
    return _liars_folder
