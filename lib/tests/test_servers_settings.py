"""Each server runs with the settings that it tells."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import requests
from serving import make, place, wait_until

from imqueue import servers
from imqueue.backend import Durability
from imqueue.servers import _private
from imqueue.servers.guard import Guard


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as made:
        yield made


@pytest.mark.parametrize(
    ("durability", "expected"),
    [
        (Durability.MEMORY, {"appendonly": "no"}),
        (Durability.DELAYED, {"appendonly": "yes", "appendfsync": "everysec"}),
        (Durability.FLUSHED, {"appendonly": "yes", "appendfsync": "always"}),
    ],
)
def test_redis_runs_with_the_durability_asked_for(
    durability: Durability, expected: dict[str, str], guard: Guard, folder: Path
) -> None:
    server = make("redis", folder, guard, durability)
    server.start()
    with contextlib.closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
        live = {str(name): str(value) for name, value in client.config_get("*").items()}
    server.stop()
    assert expected.items() <= live.items()
    assert (live["save"], live["hz"]) == ("", "100")
    assert live["no-appendfsync-on-rewrite"] == "no"
    assert expected.items() <= server.settings().items()


@pytest.fixture(scope="module")
def postgres(guard: Guard) -> Iterator[_private.Private]:
    with place() as top:
        server = make("postgres", top, guard)
        server.start()
        yield server
        server.stop()


def test_postgres_runs_with_the_settings_it_tells(postgres: _private.Private) -> None:
    with psycopg.connect(postgres.url) as connection:
        rows = connection.execute("select name, reset_val || coalesce(unit, '') from pg_settings").fetchall()
        sizes = connection.execute("select current_setting('shared_buffers')").fetchone()
    live: dict[str, str] = dict(rows)
    assert {name: live[name] for name in ("fsync", "full_page_writes", "autovacuum", "synchronous_commit")} == {
        "fsync": "on",
        "full_page_writes": "on",
        "autovacuum": "on",
        "synchronous_commit": "on",
    }
    assert int(live["max_connections"]) >= 64 + 64
    assert sizes == (postgres.settings()["shared_buffers"],)


def test_postgres_speaks_utf8_and_sorts_by_bytes(postgres: _private.Private) -> None:
    with psycopg.connect(postgres.url) as connection:
        row = connection.execute(
            "select pg_encoding_to_char(encoding), datcollate from pg_database where datname = current_database()"
        ).fetchone()
    assert row == ("UTF8", "C")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to drop its privileges")
def test_postgres_finds_a_place_when_its_user_cannot_enter_the_folder(guard: Guard, folder: Path) -> None:
    folder.chmod(0o700)
    server = make("postgres", folder, guard)
    server.start()
    place = server.folder
    try:
        assert server.note is not None
        assert str(place) in server.note
        assert psutil.Process(server.pids()[0]).username() == "postgres"
        assert place.parent == Path("/var/tmp/imqueue-0")
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o755
        assert [stat.S_IMODE(each.stat().st_mode) for each in place.glob("data-*")] == [0o700]
        again = make("postgres", folder, guard)
        server.stop()
        again.start()
        again.stop()
        assert again.folder == place
    finally:
        server.stop()
        shutil.rmtree(place)


def test_prometheus_accepts_its_configuration_with_and_without_a_token(folder: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine")
    loaded = servers.load("prometheus")
    (folder / "token").write_text("word")
    for target, token in [(None, None), ("127.0.0.1:9", None), ("127.0.0.1:9", folder / "token")]:
        config = folder / "prometheus.yml"
        config.write_text(loaded(folder / "p", target=target, token_file=token).config())  # type: ignore[call-arg,attr-defined]
        check = subprocess.run([promtool, "check", "config", str(config)], capture_output=True, text=True)
        assert check.returncode == 0, check.stdout + check.stderr


def test_prometheus_scrapes_its_target_with_the_token(guard: Guard, folder: Path) -> None:
    seen = threading.Event()

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == "Bearer open sesame" and self.path == "/metrics"
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(b"beans_total 7\n")
            if allowed:
                seen.set()

        def log_message(self, *_: object) -> None:
            pass

    (folder / "token").write_text("open sesame")
    server = make("prometheus", folder, guard)
    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as target:
        threading.Thread(target=target.serve_forever, daemon=True).start()
        server.target = f"127.0.0.1:{target.server_address[1]}"  # type: ignore[attr-defined]
        server.token_file = folder / "token"  # type: ignore[attr-defined]
        server.start()
        assert seen.wait(30)
        ask = {"query": "beans_total"}
        assert wait_until(lambda: value_of(requests.get(f"{server.url}/api/v1/query", ask, timeout=5)) == "7", 30)
        server.stop()
        target.shutdown()


def value_of(answer: requests.Response) -> str | None:
    result = answer.json()["data"]["result"]
    return str(result[0]["value"][1]) if result else None
