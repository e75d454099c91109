"""What every backend promises, on its real server. A test branches on what is declared, never on a class."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter

import pytest
from conftest import Handles
from contract import SLACK_S, bodies, hold, numbered, return_s, settles_to, take

from imqueue.backend import Backend, Rejected

TRIED_MAX_BYTES = 8 << 20  # the largest body that a test sends
REFUSED_MAX_BYTES = 64 << 20  # the largest that it makes only to be refused
BODIES = [b"\0" * 32, b"'; \r\n\t\\\"%s{}$1", bytes(range(256)), b"trailing zeros\0\0\0", b"\xff\xfe\xfd", b"1"]


def test_bodies_come_back_byte_equal(backend: Backend, another_handle: Backend) -> None:
    backend.put(BODIES)

    assert Counter(bodies(take(another_handle, len(BODIES)))) == Counter(BODIES)


def test_a_body_as_large_as_declared_comes_back(backend: Backend, another_handle: Backend) -> None:
    size_bytes = min(backend.declares.size_max_bytes or TRIED_MAX_BYTES, TRIED_MAX_BYTES)
    body = os.urandom(1 << 16) * (size_bytes >> 16)

    backend.put([body])

    (message,) = take(another_handle, 1, 20.0)
    assert message.body == body


def test_a_larger_body_is_refused_and_nothing_of_its_batch_is_kept(backend: Backend, another_handle: Backend) -> None:
    size_bytes = backend.declares.size_max_bytes
    if size_bytes is None:
        pytest.skip("no body is too large for it")
    if size_bytes > REFUSED_MAX_BYTES:
        pytest.skip(f"its limit of {size_bytes} bytes is more than a test should use")

    with pytest.raises(Rejected):
        backend.put([b"small", bytes(size_bytes + 1)])

    assert another_handle.get(0.5) == []


def test_no_bodies_and_no_messages_are_no_error(backend: Backend) -> None:
    backend.put([])
    backend.ack([])

    assert backend.depth() == 0


def test_an_empty_get_waits_its_timeout_and_returns_nothing(backend: Backend) -> None:
    for timeout_s in (0.0, 0.25):
        began = time.monotonic()
        assert backend.get(timeout_s) == []
        took_s = time.monotonic() - began
        assert timeout_s - 0.02 <= took_s < timeout_s + 1.0


def test_get_returns_as_soon_as_a_message_is_there(backend: Backend, another_handle: Backend) -> None:
    later = threading.Timer(0.4, another_handle.put, [[b"late"]])
    later.start()
    began = time.monotonic()

    messages = backend.get(30.0)

    took_s = time.monotonic() - began
    later.join()
    assert bodies(messages) == [b"late"]
    assert 0.35 < took_s < 0.4 + SLACK_S


def test_get_returns_no_more_than_a_batch_and_never_waits_to_fill_it(handles: Handles) -> None:
    producer, worker = handles(), handles(batch=10)
    producer.put(numbered(25))
    sizes: list[int] = []
    began = time.monotonic()

    while sum(sizes) < 25 and time.monotonic() - began < SLACK_S:
        messages = worker.get(30.0)
        worker.ack(messages)
        sizes.append(len(messages))

    assert sum(sizes) == 25
    assert 0 < min(sizes) <= max(sizes) <= 10


def test_a_batch_of_thousands_goes_through(handles: Handles) -> None:
    producer, worker = handles(), handles(batch=2500, lease_s=60.0)
    producer.put(numbered(2500))

    held = hold(worker, 2500)
    worker.ack(held)

    assert sorted(bodies(held)) == numbered(2500)
    worker.close()
    assert producer.get(return_s(producer.guarantees)) == []


def test_first_in_is_first_out_where_declared(backend: Backend, another_handle: Backend) -> None:
    sent = numbered(300)
    for start in range(0, 300, 60):
        backend.put(sent[start : start + 60])

    received = bodies(take(another_handle, 300))

    assert sorted(received) == sent
    if backend.declares.fifo:
        assert received == sent


def test_queues_are_isolated(handles: Handles) -> None:
    one, two = handles(), handles(queue=f"{handles.queue}-two")
    one.put([b"one"])
    two.put([b"two"])

    assert bodies(take(one, 1)) == [b"one"]
    assert one.get(0.2) == []
    one.destroy()
    assert bodies(take(two, 1)) == [b"two"]
    assert two.get(0.2) == []


def test_destroy_drops_everything_and_a_fresh_queue_of_that_name_is_empty(handles: Handles) -> None:
    handle, holder = handles(), handles(batch=1)
    handle.put(numbered(5))
    hold(holder, 1)
    again_s = return_s(handle.guarantees)
    holder.close()
    handle.destroy()
    handle.close()

    fresh = handles()

    assert fresh.depth() == 0
    assert fresh.get(again_s) == []


def test_depth_counts_what_is_ready(handles: Handles) -> None:
    producer = handles()
    assert producer.depth() == 0
    producer.put(numbered(7))
    assert settles_to(7, producer)

    worker = handles(batch=7)
    held = hold(worker, 7)
    assert settles_to(0, producer)
    worker.ack(held)
    assert settles_to(0, producer)


def test_a_queue_that_is_there_is_opened_with_what_it_holds(handles: Handles) -> None:
    first = handles()
    first.put(numbered(3))
    first.close()

    assert bodies(take(handles(), 3)) == numbered(3)
