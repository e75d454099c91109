"""Whole trials in trouble: strangers, thieves, and deaths are told, and the next trial runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from trialing import SMALL, here, queues_left, running, sound

from imqueue import client, notebook, registry
from imqueue.backend import Backend, Durability
from imqueue.ledger import PID, Page
from imqueue.message import HEADER

pytestmark = pytest.mark.usefixtures("one_driver")


@pytest.fixture
def server(one_driver: Path) -> Iterator[redis.Redis]:
    """The Redis that trials of redis_list use, by the client library's own means."""
    with redis.Redis.from_url(notebook.server_url(here("redis_list"))) as connected:
        yield connected


def test_foreign_messages_in_the_queue_are_counted_and_fail_the_trial(server: redis.Redis) -> None:
    trial = running(duration_s=3)
    server.rpush(trial.status()["queue"], b"hello", b"x" * 32)
    audit = trial.wait(progress=False).info["audit"]

    assert (audit["unexpected"], audit["corrupted"]) == (1, 1)
    assert not audit["passed"]


@pytest.mark.parametrize("backend", ["beanstalkd", "bullmq", "mysql", "nats", "postgres_lease", "rabbitmq", "rsmq"])
def test_foreign_messages_are_counted_whatever_carries_them(backend: str) -> None:
    trial = running(backend, duration_s=1.5)
    status = trial.status()
    stranger = handle_on(backend, status["queue"], Durability(status["durability"]))
    with stranger:
        stranger.put([b"hello", b"x" * 32])
    audit = trial.wait(progress=False).info["audit"]

    assert (audit["unexpected"], audit["corrupted"]) == (1, 1)
    assert audit["received"] == audit["attempted"]


def handle_on(backend: str, queue: str, durability: Durability) -> Backend:
    loaded = registry.load(backend)
    assert issubclass(loaded, Backend)
    return loaded(notebook.server_url(backend), queue, durability=durability, batch=10)


def test_a_message_that_somebody_takes_away_is_lost_by_name(server: redis.Redis) -> None:
    trial = running(duration_s=3, work_s=0.005, batch=1)
    time.sleep(1)
    taken = server.lpop(trial.status()["queue"], 2)
    assert isinstance(taken, list)
    audit = trial.wait(progress=False).info["audit"]

    assert audit["lost"] == 2
    assert audit["examples"]["lost"] == [HEADER.unpack(body)[1] for body in taken if isinstance(body, bytes)]


def test_a_server_that_dies_ends_the_trial_with_the_reason_and_the_next_one_runs() -> None:
    trial = running(duration_s=30, work_s=0.01)
    servers = client.connect().ask("GET", "/status")["servers"]
    for pid in [pid for server in servers if server["kind"] == "redis" for pid in server["pids"]]:
        os.kill(pid, signal.SIGKILL)
    result = trial.wait(progress=False)

    assert result.info["state"] == "failed"
    assert result.info["error"].startswith("the server (redis) ended during the trial")
    assert result.stamps[0]["stamp"] == "invalid"
    assert result.info["audit"]["lost"] == 0, "what a dead server still holds is undelivered, not lost"
    sound(notebook.run("redis_list", **SMALL))
    assert queues_left() == []


def test_a_queue_whose_keeper_was_killed_is_dropped_all_the_same() -> None:
    trial = running(duration_s=30, work_s=0.01)
    keeper = Page(Path(trial.status()["folder"]) / "live" / "ledger", "keeper")
    os.kill(keeper[PID], signal.SIGKILL)
    result = trial.wait(progress=False)

    assert result.info["counts"]["popped"] < result.info["counts"]["pushed"], "the queue held something"
    assert queues_left() == []


def test_a_worker_that_is_killed_makes_the_trial_invalid() -> None:
    trial = running(duration_s=30)
    page = Page(Path(trial.status()["folder"]) / "live" / "ledger", "worker-0")
    os.kill(page[PID], signal.SIGKILL)
    result = trial.wait(progress=False)

    assert result.info["state"] == "failed"
    assert "died unasked" in result.stamps[0]["reason"]
