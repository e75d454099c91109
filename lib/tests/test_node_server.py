"""The Node libraries and their server: what is promised, what is refused, what is left behind; and their own set-up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from conftest import Handles
from contract import hold, numbered
from noding import ON_REDIS, Obtain, make_handles, on

from imqueue import node_child
from imqueue.backend import BackendError, Durability, Rejected, Within
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
        node_child._node_missing.cache_clear()
        return str(node_child.missing("bull"))

    try:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert reason().startswith("Node is not on this machine; get Node 18 or newer")
        node = tmp_path / "node"
        node.write_text("#!/bin/sh\necho v16.20.1\n")
        node.chmod(0o755)
        assert "is v16.20.1, which is too old" in reason()
        node.write_text("#!/bin/sh\necho v18.19.0\n")
        monkeypatch.setattr(node_child, "INSTALLED", tmp_path)
        assert reason() == "the npm package bull 4.16.5 is not installed; run: make node"
    finally:
        node_child._node_missing.cache_clear()


def test_the_lock_pins_what_is_asked_for_and_holds_no_address() -> None:
    asked = json.loads((node_child.SOURCE / "package.json").read_text())["dependencies"]
    lock = json.loads((node_child.SOURCE / "package-lock.json").read_text())["packages"]

    assert {name: lock[f"node_modules/{name}"]["version"] for name in asked} == asked
    assert not any("resolved" in each for each in lock.values())
    assert all("integrity" in each for name, each in lock.items() if name)
