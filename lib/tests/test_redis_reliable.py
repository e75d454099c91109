"""The reliable list: what nobody acked goes back once, in order, and an ack settles nobody else's message."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from conftest import Handles
from contract import SLACK_S, bodies, hold, numbered, settles_to, take

from imqueue.backend import BackendError, Durability
from imqueue.backends.redis_reliable import EXPECT, RedisReliable
from imqueue.servers import External, Server

LEASE_S = 0.3
OVER_S = LEASE_S + 0.1


@pytest.fixture(scope="module")
def server(obtain: Callable[[str, Durability], Server]) -> Server:
    return obtain("redis", Durability.DELAYED)


@pytest.fixture
def admin(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def handles(server: Server, admin: redis.Redis) -> Iterator[Handles]:
    made = Handles(RedisReliable, lambda _: server.url, f"reliable-{uuid.uuid4().hex[:12]}")
    yield made
    for handle in made.opened:
        handle.close()
    admin.unlink(*(admin.keys(f"{made.queue}*") or ["none"]))


def test_nothing_remains_after_destroy_whoever_holds_messages(handles: Handles, admin: redis.Redis) -> None:
    handle, other = handles(batch=2), handles(batch=2)
    handle.put(numbered(7))
    for each in (handle, other, handle):
        hold(each, 2)
    take(other, 1)
    assert other.get(0.05) == []  # has announced what it waits for

    handle.destroy()

    assert admin.keys(f"{handles.queue}*") == []


def test_nothing_but_the_queue_remains_when_all_is_acked(handles: Handles, admin: redis.Redis) -> None:
    handle = handles(batch=2, lease_s=LEASE_S)
    handle.put(numbered(6))
    take(handle, 6)
    assert handle.get(OVER_S) == []

    handle.get(0.0)
    time.sleep(2 * LEASE_S)
    handle.get(0.0)

    assert admin.keys(f"{handles.queue}*") == []


def test_lost_messages_come_back_once_however_many_look_at_once(handles: Handles) -> None:
    dead = handles(batch=20, lease_s=LEASE_S)
    dead.put(numbered(200))
    for _ in range(10):
        hold(dead, 20)
    workers = [handles(batch=7, lease_s=60.0) for _ in range(4)]
    time.sleep(OVER_S)

    with ThreadPoolExecutor(4) as pool:
        received = [body for part in pool.map(lambda each: bodies(take(each, 200, 1.0)), workers) for body in part]

    assert sorted(received) == numbered(200)


def test_lost_messages_come_back_in_order_ahead_of_newer_ones(handles: Handles) -> None:
    dead, worker = handles(batch=3, lease_s=LEASE_S), handles(lease_s=60.0)
    dead.put(numbered(12))
    for _ in range(3):
        hold(dead, 3)
    time.sleep(OVER_S)

    assert bodies(take(worker, 12)) == numbered(12)


def test_a_late_ack_leaves_an_equal_body_with_its_next_holder(handles: Handles) -> None:
    slow, next_one = handles(lease_s=LEASE_S), handles(lease_s=LEASE_S)
    slow.put([b"same"])
    late = hold(slow, 1)
    time.sleep(OVER_S)
    hold(next_one, 1)

    slow.ack(late)

    assert bodies(next_one.get(SLACK_S)) == [b"same"]  # it is not settled: its second lease ended too


def test_an_ack_among_equal_bodies_settles_one_and_only_once(handles: Handles) -> None:
    handle = handles(lease_s=LEASE_S)
    handle.put([b"same"] * 4)
    held = hold(handle, 4)
    handle.ack(held[1:2])

    for again in (held[1:2], [held[2], held[2]]):
        with pytest.raises(BackendError, match="not held by this handle"):
            handle.ack(again)

    assert bodies(take(handle, 4, OVER_S)) == [b"same"] * 3


def test_one_ack_may_settle_parts_of_several_gets_in_any_order(handles: Handles) -> None:
    handle = handles(batch=4, lease_s=LEASE_S)
    handle.put(numbered(12))
    held = hold(handle, 12)

    handle.ack([held[at] for at in (11, 0, 5, 9, 2, 4, 8)])

    assert bodies(take(handle, 5, OVER_S)) == [held[at].body for at in (1, 3, 6, 7, 10)]


def test_what_a_worker_died_with_right_after_its_wait_comes_back(handles: Handles, admin: redis.Redis) -> None:
    handle = handles(lease_s=LEASE_S)
    leases, mine = f"{handles.queue}:processing", f"{handles.queue}:processing:dead:0"
    handle.put([b"only"])
    admin.eval(EXPECT, 3, handles.queue, leases, mine, 200)
    admin.blmove(handles.queue, mine, 1, "LEFT", "RIGHT")
    assert handle.depth() == 0

    assert bodies(handle.get(SLACK_S)) == [b"only"]


def test_a_full_server_can_be_emptied(handles: Handles, admin: redis.Redis, server: Server) -> None:
    if isinstance(server, External):
        pytest.skip("the server is not ours to change")
    handle = handles()
    handle.put(numbered(3))
    admin.config_set("maxmemory", "1")
    try:
        assert bodies(take(handle, 3)) == numbered(3)
        assert settles_to(0, handle)
    finally:
        admin.config_set("maxmemory", "0")


def test_leases_of_another_type_are_refused_and_left_untouched(handles: Handles, admin: redis.Redis) -> None:
    admin.set(f"{handles.queue}:processing", "somebody's")

    with pytest.raises(BackendError, match=r"processing' holds a string, not a zset; left untouched"):
        handles()

    assert admin.get(f"{handles.queue}:processing") == b"somebody's"


def test_how_often_an_idle_worker_looks_is_told(handles: Handles) -> None:
    assert handles(lease_s=2.0).guarantees.settings["look_s"] == "0.2"
