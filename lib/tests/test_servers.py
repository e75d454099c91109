"""Real servers: what is started answers, is ours alone, survives a kill on its data, and leaves nothing behind."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from keeping import recalls, remember
from serving import is_taken, listening, make, place, processes, wait_until

from imqueue import registry, servers
from imqueue.backend import Durability
from imqueue.fleet import why_missing
from imqueue.servers import ServerError, ServerMissing, _private
from imqueue.servers.guard import Guard, alive
from imqueue.workload import BadInput

KINDS = servers.kinds()
# The class in which what was written must outlive a kill.
KEPT = {"redis": Durability.FLUSHED, "mysql": Durability.FLUSHED}
# Prometheus only shows what the driver shows it; beanstalkd's protocol knows no password.
LOCKED = [kind for kind in KINDS if kind not in ("prometheus", "beanstalkd")]
INSTALLED = [kind for kind in KINDS if kind != "manager"]  # which is Python's own, and never missing


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as made:
        yield made


@pytest.fixture(scope="module")
def shared(guard: Guard) -> Iterator[Callable[[str], _private.Private]]:
    """One server of each kind for the module, as RabbitMQ takes its time to start."""
    made: dict[str, _private.Private] = {}
    with place() as top:

        def get(kind: str) -> _private.Private:
            if kind not in made:
                made[kind] = make(kind, top, guard, KEPT.get(kind))
            made[kind].start()
            return made[kind]

        yield get
        for each in made.values():
            each.stop()


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, shared: Callable[[str], _private.Private]) -> _private.Private:
    return shared(request.param)


def test_kinds_are_the_files_of_the_folder_each_under_its_own_name() -> None:
    assert {"beanstalkd", "mysql", "nats", "postgres", "prometheus", "rabbitmq", "redis"} <= set(KINDS)
    assert [servers.load(kind).kind for kind in KINDS] == KINDS


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="unknown server 'redsi'; did you mean 'redis'"):
        servers.load("redsi")


@pytest.mark.parametrize("kind", INSTALLED)
def test_a_server_that_is_not_here_says_what_would_bring_it(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"IMQUEUE_{kind.upper()}_URL", raising=False)
    monkeypatch.setattr(f"imqueue.servers.{kind}.find", lambda *_: None)
    monkeypatch.setattr("imqueue.servers.postgres._programs", lambda: None)
    with pytest.raises(ServerMissing, match=r"not on this machine; `apt-get install .*brings it"):
        servers.obtain(kind, folder)
    assert list(folder.iterdir()) == []


def test_a_redis_that_is_too_old_is_missing_with_the_version_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imqueue.servers.redis.find", lambda *_: "/usr/bin/redis-server")
    monkeypatch.setattr("imqueue.servers.redis.output", lambda *_: "Redis server v=6.2.14 sha=0")
    assert "redis 6.2.14 is too old; 7.0 or newer is needed; `apt-get" in str(servers.load("redis").missing())


@pytest.mark.parametrize(("kind", "version"), [("redis", "6.2.14"), ("postgres", "12.22"), ("rabbitmq", "3.7.28")])
def test_a_server_of_the_readers_own_that_is_too_old_is_missing_and_the_rest_is_not(
    kind: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"IMQUEUE_{kind.upper()}_URL", "there")
    monkeypatch.setattr(servers.load(kind), "ask", lambda *_: version)
    reason = f"IMQUEUE_{kind.upper()}_URL names there: {kind} {version} is too old"
    ours = [name for name in registry.names() if registry.load(name).declares.server == kind]
    assert ours
    assert all((why_missing(name) or "").startswith(reason) for name in ours)
    assert why_missing("sqlite") is None


def test_versions_are_compared_as_numbers() -> None:
    redis_server = servers.load("redis")
    assert [redis_server.too_old(each) for each in ("7.0", "7.0.15", "10.1.2-rc1")] == [None] * 3


def test_each_class_of_durability_gets_a_redis_of_its_own_and_one_postgres_serves_all(folder: Path) -> None:
    if servers.load("redis").missing() or servers.load("postgres").missing():
        pytest.skip("needs redis and postgres")
    names = {
        kind: {folder_name(servers.obtain(kind, folder, each)) for each in Durability} for kind in ("redis", "postgres")
    }
    assert names == {"redis": {f"redis-{each}" for each in Durability}, "postgres": {"postgres"}}


def test_it_answers_by_its_own_protocol_once_started(server: _private.Private) -> None:
    assert server.running()
    assert server.version()[0].isdigit()
    assert all(psutil.pid_exists(pid) for pid in server.pids())


def test_it_listens_on_loopback_only(server: _private.Private) -> None:
    addresses = listening(processes(server))
    assert ("127.0.0.1", server.port) in addresses
    assert {ip for ip, _ in addresses} <= {"127.0.0.1", "::1"}


def test_start_of_a_running_server_changes_nothing(server: _private.Private) -> None:
    before = server.pids(), server.url
    server.start()
    assert (server.pids(), server.url) == before


@pytest.mark.parametrize("server", LOCKED, indirect=True)
def test_nobody_gets_in_without_the_password_and_nobody_else_can_read_it(server: _private.Private) -> None:
    stranger = servers.masked(server.url).replace("***", "guess")
    with pytest.raises(ServerError):
        server.ask(stranger, 5)
    word = server.url.split("@")[0].rsplit(":", 1)[1]
    holders = [path for path in server.folder.iterdir() if path.is_file() and word in path.read_text()]
    assert holders
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holders)


@pytest.mark.parametrize("server", LOCKED, indirect=True)
def test_no_command_line_shows_the_password(server: _private.Private) -> None:
    word = server.url.split("@")[0].rsplit(":", 1)[1]
    assert not any(word in part for process in processes(server) for part in process.cmdline())


def test_a_killed_server_comes_back_on_its_data_under_the_same_url(server: _private.Private) -> None:
    remember(server)
    url, family = server.url, processes(server)

    server.kill()

    assert not server.running()
    assert not any(alive(each) for each in family)
    server.start()
    assert server.url == url
    assert recalls(server)


def test_a_server_that_others_killed_is_seen_and_can_be_started_again(guard: Guard, folder: Path) -> None:
    server = make("redis", folder, guard)
    server.start()
    psutil.Process(server.pids()[0]).kill()
    assert wait_until(lambda: not server.running())
    assert server.pids() == []
    server.start()
    assert server.running()
    server.stop()


def test_an_external_server_is_asked_and_never_stopped(
    server: _private.Private, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv(f"IMQUEUE_{server.kind.upper()}_URL", server.url)
    external = servers.obtain(server.kind, folder, Durability.DELAYED)
    external.start()
    assert (external.url, external.pids(), external.running()) == (server.url, [], True)
    assert external.version() == server.version()
    external.kill()
    external.stop()
    assert server.running()


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("redis", "redis://:s3cret@127.0.0.1:1/0"),
        ("postgres", "postgresql://me:s3cret@127.0.0.1:1/db"),
        ("mysql", "mysql://me:s3cret@127.0.0.1:1/db"),
        ("rabbitmq", "amqp://me:s3cret@127.0.0.1:1/%2F"),
        ("nats", "nats://me:s3cret@127.0.0.1:1"),
        ("beanstalkd", "beanstalkd://127.0.0.1:1"),
        ("prometheus", "http://me:s3cret@127.0.0.1:1"),
    ],
)
def test_an_external_server_out_of_reach_is_one_sentence_without_its_password(
    kind: str, url: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv(f"IMQUEUE_{kind.upper()}_URL", url)
    with pytest.raises(ServerError) as caught:
        servers.obtain(kind, folder).start()
    said = str(caught.value)
    assert f"IMQUEUE_{kind.upper()}_URL names {url.replace('s3cret', '***')}, which does not answer" in said
    assert "s3cret" not in said
    assert "\n" not in said


def test_many_can_be_stopped_at_once(guard: Guard, folder: Path) -> None:
    made = [make("redis", folder / str(n), guard) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: each.start(), made))
        family = [process for each in made for process in processes(each)]
        list(pool.map(lambda each: each.stop(), made))
    assert len(family) == 4
    assert not any(alive(each) for each in family)


def test_a_stopped_server_leaves_no_process_and_no_open_port(server: _private.Private) -> None:
    family = processes(server)
    ports = [port for ip, port in listening(family) if ip == "127.0.0.1"]
    server.stop()
    server.stop()
    assert not server.running()
    assert server.pids() == []
    assert not any(alive(each) for each in family)
    assert not any(is_taken(port) for port in ports)


def test_importing_the_servers_is_cheap() -> None:
    heavy = "redis", "pika", "psycopg", "pymysql", "greenstalk", "nats", "requests", "mirakuru"
    code = f"import sys, imqueue.servers; print([each for each in {heavy} if each in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def folder_name(server: servers.Server) -> str:
    assert isinstance(server, _private.Private)
    return server.folder.name
