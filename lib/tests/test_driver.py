"""The driver: one per data folder, one trial at a time, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from serving import listening

from imqueue import client, notebook, settings
from imqueue.client import Busy, Driver, DriverError
from imqueue.locks import FileLock, Taken
from imqueue.notebook import Trial
from imqueue.servers import guard
from imqueue.workload import BadInput

LONG = {"rate_hz": 200, "duration_s": 60, "warmup_messages": 10}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder whose driver serves all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("data")
    yield folder
    client.end(folder)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder of its own, whose driver ends with the test."""
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))
    yield tmp_path
    client.end()


@pytest.fixture
def driver(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setenv("IMQUEUE_DATA", str(shared))
    return client.connect()


@pytest.fixture
def running(driver: Driver) -> Iterator[Trial]:
    """A long flow in memory, in its measured window."""
    trial = started()
    yield trial
    trial.stop()
    trial.wait(progress=False)


def started() -> Trial:
    trial = notebook.start("memory", **LONG)
    wait_until(lambda: trial.state == "running" or trial.status()["error"])
    assert trial.status()["error"] is None
    return trial


def wait_until(condition: Any, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        time.sleep(0.02)


def family(pid: int) -> list[psutil.Process]:
    """The driver and all that it owns, the guard apart: it ends a moment later."""
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[str]:
    return [str(each) for each in processes if guard.alive(each)]


def test_a_second_connect_finds_the_first_driver(driver: Driver) -> None:
    assert client.connect().pid == driver.pid


def test_the_token_is_readable_by_its_owner_only(driver: Driver, shared: Path) -> None:
    token = shared / "driver" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("path", ["/status", "/metrics", "/backends", "/trials/x"])
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "é"}])
def test_without_the_token_nothing_is_told(driver: Driver, path: str, header: dict[str, str]) -> None:
    headers = {name: value.encode() for name, value in header.items()}
    answer = requests.get(driver.url + path, headers=headers, timeout=5)
    assert answer.status_code == 401
    assert "token" in answer.json()["detail"]


def test_it_listens_on_loopback_only(driver: Driver) -> None:
    wait_until(lambda: driver.ask("GET", "/status")["servers"])
    addresses = [ip for ip, _ in listening(family(driver.pid))]
    assert len(addresses) >= 2
    assert set(addresses) <= {"127.0.0.1", "::1"}


def test_a_second_trial_is_refused_with_the_first_ones_name(running: Trial) -> None:
    with pytest.raises(Busy, match=running.id):
        notebook.start("memory", messages=10)
    assert running.state == "running"


def test_a_second_driver_on_this_machine_refuses_too(running: Trial, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    try:
        with pytest.raises(Busy, match=r"a trial of memory .* is running on this machine"):
            client.connect(other).ask("POST", "/trials", {"backend": "memory", "messages": 10})
    finally:
        client.end(other)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"backend": "memroy"}, "did you mean 'memory'?"),
        ({"backend": "memory", "rate_hz": -1}, "rate_hz is -1; allowed"),
        ({"backend": "memory", "workers": 0}, "workers is 0; allowed"),
        ({"backend": "memory", "size_bytes": 5}, "size_bytes is 5; allowed"),
        ({"backend": "redis_list", "size_bytes": 600_000_000}, "redis_list takes at most 536870912"),
        ({"backend": "memory", "durability": "flushed"}, "unknown durability of memory 'flushed'"),
        ({"backend": "simple", "workers": 2}, "simple has no queue"),
        ({}, "names its backend"),
        ([], "Input should be a valid dictionary"),
    ],
)
def test_bad_input_is_refused_with_a_sentence_and_starts_nothing(
    driver: Driver, shared: Path, content: Any, says: str
) -> None:
    before = set((shared / "trials").glob("*"))
    with pytest.raises(BadInput) as refused:
        driver.ask("POST", "/trials", content)
    assert says in str(refused.value)
    assert driver.ask("GET", "/status")["trial"] is None
    assert set((shared / "trials").glob("*")) == before, "a refused trial left a folder"


@pytest.mark.parametrize("change", [{"rate_hz": -5}, {"rate_hz": "x"}, {"workers": 2}, {"colour": 1}, {"producers": 0}])
def test_a_bad_change_leaves_the_trial_as_it_was(running: Trial, change: dict[str, Any]) -> None:
    before = running.status()["workload"]
    with pytest.raises(BadInput):
        running.change(**change)
    assert running.status()["workload"] == before
    assert running.state == "running"


def test_an_unknown_trial_is_told_apart(driver: Driver) -> None:
    with pytest.raises(DriverError, match="has run no trial 'nosuch'"):
        driver.ask("GET", "/trials/nosuch")


def test_a_trial_can_be_found_again_and_stopped(running: Trial) -> None:
    found = notebook.attach()
    assert found is not None
    assert found.id == running.id
    found.stop()
    result = found.wait(progress=False)

    assert result.info["state"] == "stopped"
    assert result.info["audit"]["passed"]
    assert notebook.attach() is None


def test_after_down_nothing_of_ours_is_left(data: Path) -> None:
    driver = client.connect()
    notebook.server_url("redis_list")
    mine = family(driver.pid)
    names = {each.name() for each in mine}
    client.end()
    wait_until(lambda: not alive(mine), 10)

    assert {"prometheus", "redis-server"} <= names
    assert client.find() is None


def test_a_driver_that_is_terminated_ends_what_it_owns(data: Path) -> None:
    driver = client.connect()
    notebook.server_url("redis_list")
    started()
    mine = family(driver.pid)
    os.kill(driver.pid, signal.SIGTERM)
    wait_until(lambda: not alive(mine), 30)

    (record,) = (data / "trials").glob("*/trial.json")
    assert json.loads(record.read_text())["state"] == "stopped"
    assert not (data / "driver" / "driver.json").exists()


def test_when_the_driver_is_killed_nothing_of_ours_is_left_and_the_next_one_starts(data: Path) -> None:
    driver = client.connect()
    notebook.server_url("redis_list")
    started()
    mine = family(driver.pid)
    os.kill(driver.pid, signal.SIGKILL)
    wait_until(lambda: not alive(mine), 10)

    assert client.connect().pid != driver.pid
    assert notebook.run("redis_list", messages=1000, progress=False).passed


def test_a_driver_with_older_code_makes_way(data: Path) -> None:
    old = client.connect()
    about = data / "driver" / "driver.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "code": "older"}))
    new = client.connect()

    assert new.pid != old.pid
    assert not psutil.pid_exists(old.pid)


def test_a_driver_that_knows_other_servers_makes_way(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = client.connect()
    monkeypatch.setenv("IMQUEUE_REDIS_URL", "redis://127.0.0.1:9/0")
    assert client.connect().pid != old.pid
    with pytest.raises(DriverError, match=r"IMQUEUE_REDIS_URL names redis://127\.0\.0\.1:9/0, which does not answer"):
        notebook.server_url("redis_list")


def test_a_stale_address_is_no_obstacle(data: Path) -> None:
    folder = data / "driver"
    folder.mkdir()
    (folder / "driver.json").write_text(json.dumps({"pid": os.getpid(), "url": "http://127.0.0.1:9", "code": ""}))
    (folder / "token").write_text("old")
    assert client.connect().ask("GET", "/status")["trial"] is None


def test_two_that_connect_at_once_get_one_driver(data: Path) -> None:
    code = "from imqueue import client; print(client.connect().pid)"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=settings.environment_for(data))
        for _ in range(2)
    ]
    pids = {each.communicate(timeout=60)[0] for each in both}
    assert len(pids) == 1


def test_an_unwritable_data_folder_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DriverError, match="the data folder cannot be written"):
        client.connect(tmp_path / "file")


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.take("the first")
    with pytest.raises(Taken, match="the first"):
        second.take("the second")
    first.release()
    second.take("the second")
    second.release()
