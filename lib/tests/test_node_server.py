"""The Node libraries and their server: what is promised, what is refused, what is left behind; and their own set-up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from conftest import Handles
from contract import bodies, hold, numbered, take
from noding import ON_REDIS, Obtain, make_handles, on, states_of
from pika.spec import BasicProperties, Queue

from imqueue import node_child
from imqueue.backend import BackendError, Durability, Rejected, Within
from imqueue.backends._amqp import Link
from imqueue.servers import External


@pytest.fixture
def handles(request: pytest.FixtureRequest, obtain: Obtain) -> Iterator[Handles]:
    """On a fresh queue of the backend that the test is parametrized with."""
    made = make_handles(request.param, obtain)
    yield made
    made.end()


@pytest.fixture
def admin(obtain: Obtain) -> Iterator[redis.Redis]:
    server = obtain("redis", Durability.DELAYED)
    if isinstance(server, External):
        pytest.skip("the server is not ours to change")
    with redis.Redis.from_url(server.url) as client:
        before = client.config_get("appendonly", "appendfsync", "maxmemory")
        yield client
        for name, value in before.items():
            client.config_set(name, value)


@on(*ON_REDIS)
def test_a_setting_changed_behind_our_back_changes_the_guarantees(handles: Handles, admin: redis.Redis) -> None:
    handle = handles()
    promised: list[object] = [handle.guarantees.survives_power_loss]

    admin.config_set("appendfsync", "always")
    promised.append(handle.guarantees.survives_power_loss)
    assert promised == [Within(2.0), True]
    handle.close()
    with pytest.raises(BackendError, match="durability delayed was asked for; this Redis has flushed"):
        handle.open()
    admin.config_set("appendfsync", "everysec")


@on(*ON_REDIS)
def test_keys_of_somebody_else_are_refused_and_left_untouched(handles: Handles, admin: redis.Redis) -> None:
    handle = handles()
    handle.put([b"x"])
    keys = [key for key in admin.scan_iter(f"*{handle.queue[-12:]}*") if admin.type(key) in (b"list", b"zset")]
    handle.close()
    for key in keys:
        admin.delete(key)
        admin.set(key, "somebody's")

    with pytest.raises(BackendError, match=r"holds a string, not a .*; left untouched"):
        handle.open()

    assert [admin.get(key) for key in keys] == [b"somebody's"] * len(keys)
    admin.delete(*keys)


@on(*ON_REDIS)
def test_a_full_server_refuses_the_whole_batch(handles: Handles, admin: redis.Redis) -> None:
    uncertain = "bullmq" in handles.loaded.__module__  # it tells its first error only
    handle = handles()
    handle.put([b"before"])
    admin.config_set("maxmemory", "1")

    with pytest.raises(BackendError if uncertain else Rejected):
        handle.put([b"1", b"2", b"3"])

    admin.config_set("maxmemory", "0")
    assert handle.depth() == 1


@on("bull", "bullmq", "rsmq")
def test_a_server_that_lets_nothing_be_fetched_is_an_error_of_get(handles: Handles, admin: redis.Redis) -> None:
    producer, worker = handles(), handles()
    producer.put(numbered(2))
    admin.config_set("maxmemory", "1")

    with pytest.raises(BackendError, match=r"OOM|EXECABORT"):
        worker.get(3.0)

    admin.config_set("maxmemory", "0")
    worker.close()
    assert sorted(bodies(take(producer, 2))) == numbered(2)


@on("bull", "bullmq")
def test_an_ack_that_redis_refuses_is_an_error_at_once(handles: Handles, admin: redis.Redis) -> None:
    handle = handles()
    handle.put([b"only"])
    held = hold(handle, 1)
    active = f"bull:{handle.queue}:active"
    admin.rename(active, "kept")
    admin.set(active, "somebody's")
    began = time.monotonic()

    with pytest.raises(BackendError, match="WRONGTYPE"):
        handle.ack(held)

    assert time.monotonic() - began < 4.0
    admin.rename("kept", active)
    handle.close()
    assert bodies(take(handles(), 1)) == [b"only"]


@on("kue")
def test_an_ack_that_kue_could_not_book_is_an_error_and_the_job_stays_active(
    handles: Handles, admin: redis.Redis
) -> None:
    handle = handles()
    handle.put(numbered(2))
    held = hold(handle, 2)
    admin.config_set("maxmemory", "1")

    with pytest.raises(BackendError, match="EXECABORT"):
        handle.ack(held)

    admin.config_set("maxmemory", "0")
    assert states_of(handle) == (0, 2, 0, 0)
    handle.put([b"next"])
    assert bodies(take(handle, 1)) == [b"next"]
    assert states_of(handle) == (0, 2, 0, 0)


@on("amqplib", "rabbitjs")
def test_a_queue_of_another_kind_is_refused_and_left_untouched(handles: Handles) -> None:
    handle = handles.make()
    link = Link(handle.url)
    link.call(Queue.Declare(queue=handle.queue, durable=True, arguments={"x-max-length": 7}), Queue.DeclareOk)
    link.publish_to(handle.queue, BasicProperties())
    link.publish(numbered(3))

    with pytest.raises(BackendError, match=r"it is there and of another kind; left untouched .*x-"):
        handle.open()

    assert link.call(Queue.Delete(queue=handle.queue), Queue.DeleteOk).message_count == 3
    link.close()


@on(*ON_REDIS)
def test_destroy_leaves_no_key_of_the_queue(handles: Handles, admin: redis.Redis) -> None:
    handle = handles()
    handle.put(numbered(20))
    handle.ack(hold(handle, 20)[:10])

    handle.destroy()

    assert list(admin.scan_iter(f"*{handle.queue[-12:]}*")) == []


def test_a_machine_without_node_or_with_an_old_one_or_without_the_packages_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reason() -> str:
        node_child._told_version.cache_clear()
        return str(node_child.missing("bull"))

    monkeypatch.setattr(node_child, "VERSION_MAX_S", 0.3)
    try:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert reason().startswith("Node is not on this machine; get Node 18 or newer")
        node = tmp_path / "node"
        node.write_text("#!/bin/sh\necho v16.20.1\n")
        node.chmod(0o755)
        assert "is v16.20.1, which is too old" in reason()
        node.write_text("#!/bin/sh\nexec /bin/sleep 5\n")
        assert "node does not run here: Command" in reason()
        node.write_bytes(b"\x7fELF, cut off")
        assert "node does not run here: [Errno 8] Exec format error" in reason()
        node.write_text("#!/bin/sh\necho v18.19.0\n")
        monkeypatch.setattr(node_child, "INSTALLED", tmp_path)
        assert reason() == "the npm package bull 4.16.5 is not installed; run: make node"
    finally:
        node_child._told_version.cache_clear()


@on("bull", "amqplib")
def test_a_child_that_cannot_be_started_is_a_backend_error_and_leaves_no_file_open(
    handles: Handles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = handles.make()
    node = tmp_path / "node"
    node.write_bytes(b"\x7fELF, cut off")
    node.chmod(0o755)
    before = len(os.listdir("/proc/self/fd"))

    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(BackendError, match=r"no Node child for .*Exec format error"):
            handle.open()

    assert len(os.listdir("/proc/self/fd")) == before


def test_the_lock_pins_what_is_asked_for_and_holds_no_address() -> None:
    asked = json.loads((node_child.SOURCE / "package.json").read_text())["dependencies"]
    lock = json.loads((node_child.SOURCE / "package-lock.json").read_text())["packages"]

    assert {name: lock[f"node_modules/{name}"]["version"] for name in asked} == asked
    assert not any("resolved" in each for each in lock.values())
    assert all("integrity" in each for name, each in lock.items() if name)
