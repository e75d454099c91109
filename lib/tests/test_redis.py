"""Redis decides what is durable: it is asked, not believed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
import redis
from conftest import Handles

from imqueue import registry
from imqueue.backend import Backend, BackendError, Durability, Rejected, Within
from imqueue.backends._kernel import writeback
from imqueue.servers import External, Server

Settings = dict[str, str]


@pytest.fixture(scope="module")
def server(obtain: Callable[[str, Durability], Server]) -> Server:
    found = obtain("redis", Durability.DELAYED)
    if isinstance(found, External):
        pytest.skip("the server is not ours to change")
    return found


@pytest.fixture
def admin(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        before = client.config_get("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
        yield client
        for name, value in before.items():
            client.config_set(name, value)


@pytest.fixture(params=["redis_list", "redis_reliable", "redis_stream"])
def handles(request: pytest.FixtureRequest, server: Server, admin: redis.Redis) -> Iterator[Handles]:
    loaded = registry.load(request.param)
    assert issubclass(loaded, Backend)
    made = Handles(loaded, lambda _: server.url, f"redis-{uuid.uuid4().hex[:12]}")
    yield made
    for handle in made.opened:
        handle.close()
    admin.unlink(made.queue)


def test_a_setting_changed_behind_our_back_changes_the_guarantees(handles: Handles, admin: redis.Redis) -> None:
    handle = handles()
    assert handle.guarantees.survives_power_loss == Within(2.0)

    admin.config_set("appendfsync", "always")
    now = handle.guarantees
    assert (now.survives_kill, now.survives_power_loss) == (True, True)

    admin.config_set("appendfsync", "no")
    assert handle.guarantees.survives_power_loss == writeback(handle.url).survives
    assert handle.guarantees.settings["appendfsync"] == "no"

    admin.config_set("appendonly", "no")
    assert handle.guarantees.survives_kill is False


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"appendfsync": "always"}, "durability delayed was asked for; this Redis has flushed"),
        ({"appendfsync": "no"}, "fits no class"),
        ({"appendonly": "no"}, "this Redis has memory"),
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "allkeys-lru; allowed: noeviction"),
    ],
)
def test_open_refuses_a_server_with_another_promise(
    handles: Handles, admin: redis.Redis, settings: Settings, told: str
) -> None:
    for name, value in settings.items():
        admin.config_set(name, value)

    with pytest.raises(BackendError, match=told):
        handles()


def test_a_server_that_hides_its_settings_is_refused(handles: Handles, admin: redis.Redis, server: Server) -> None:
    admin.acl_setuser("shy", enabled=True, passwords=["+word"], keys=["*"], commands=["+@all", "-config"])
    handle = handles.loaded(
        f"redis://shy:word@{server.url.rpartition('@')[2]}", handles.queue, durability=Durability.DELAYED, batch=1
    )

    with pytest.raises(BackendError, match="hides its settings"):
        handle.open()

    admin.acl_deluser("shy")


def test_a_key_of_another_type_is_refused_and_left_untouched(handles: Handles, admin: redis.Redis) -> None:
    admin.set(handles.queue, "somebody's")

    with pytest.raises(BackendError, match=r"holds a string, .*left untouched"):
        handles()

    assert admin.get(handles.queue) == b"somebody's"


def test_a_full_server_rejects_the_whole_batch(handles: Handles, admin: redis.Redis) -> None:
    handle = handles()
    admin.config_set("maxmemory", "1")

    with pytest.raises(Rejected, match=r"put of 3 messages was refused by Redis: .*maxmemory"):
        handle.put([b"1", b"2", b"3"])

    admin.config_set("maxmemory", "0")
    assert handle.depth() == 0


def test_acked_entries_do_not_stay_in_memory(handles: Handles, admin: redis.Redis) -> None:
    handle = handles()
    handle.put([b"x"] * 50)

    handle.ack(handle.get(1.0))

    assert admin.type(handles.queue) == b"none" or admin.xlen(handles.queue) == 0


def test_a_put_is_not_retried_when_the_reply_is_lost(handles: Handles, admin: redis.Redis) -> None:
    handle = handles()
    admin.client_kill_filter(_type="normal", skipme=True)

    with pytest.raises(BackendError, match="uncertain"):
        handle.put([b"x"])
    with pytest.raises(Rejected, match="was not tried"):
        handle.put([b"x"])
    handle.open()

    assert handle.depth() == 0


def test_an_empty_queue_is_not_taken_for_a_dead_server(handles: Handles, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_redis", handles.loaded.__module__.rpartition(".")[2]):
        monkeypatch.setattr(f"imqueue.backends.{module}.BLOCK_MAX_S", 0.2)
    monkeypatch.setattr("imqueue.backends._redis.REPLY_MAX_S", 0.6)
    handle = handles()

    assert handle.get(1.0) == []
