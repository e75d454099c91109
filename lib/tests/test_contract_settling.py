"""The contract: who holds a message, until when, and what an ack settles."""

from __future__ import annotations

import contextlib
import time

import holders
import pytest
from conftest import LEASE_S, Handles
from contract import SLACK_S, SPAWN, bodies, hold, numbered, return_s, settles_to, several, take, where

from imqueue.backend import Backend, BackendError


def is_short(lease_s: float | None) -> bool:
    """Whether a test can wait for the end of this lease."""
    return lease_s is not None and lease_s <= LEASE_S


def test_workers_never_share_a_message(handles: Handles, request: pytest.FixtureRequest) -> None:
    producer = handles(lease_s=60.0)
    sent = numbered(1500)
    place = where(producer, request)
    with several(handles.loaded, 3) as pool:
        workers = [pool.submit(holders.drain, place) for _ in range(3)]
        for start in range(0, 1500, 100):
            producer.put(sent[start : start + 100])
        received = [body for worker in workers for body in worker.result(60.0)]
    received += bodies(take(producer, 1500 - len(received), 1.0))  # what came before a worker was there

    assert sorted(received) == sent


def test_acked_messages_stay_gone(handles: Handles) -> None:
    handle = handles()
    handle.put(numbered(5))
    assert len(take(handle, 5)) == 5
    again_s = return_s(handle.guarantees)
    handle.close()

    handle.open()

    assert handle.get(again_s) == []
    assert settles_to(0, handle)


def test_acked_messages_stay_gone_in_any_order_of_acks(handles: Handles) -> None:
    handle, other = handles(), handles()
    handle.put(numbered(6))
    held = hold(handle, 6)
    again_s = return_s(handle.guarantees)

    if handle.declares.settles == "batch":
        handle.ack(held[::-1])
    else:
        for message in [held[index] for index in (5, 0, 3, 1, 4, 2)]:
            handle.ack([message])
    handle.close()

    assert other.get(again_s) == []


def test_ack_of_a_part_leaves_the_rest_held_or_is_refused(handles: Handles) -> None:
    holder, other = handles(), handles()
    holder.put(numbered(4))
    held = hold(holder, 4)
    again_s = return_s(holder.guarantees)

    if holder.declares.settles == "batch":
        with pytest.raises(BackendError):
            holder.ack(held[::2])
        holder.ack(held)
        left = []
    else:
        holder.ack(held[::2])
        left = bodies(held[1::2]) if holder.declares.at_least_once else []
    holder.close()

    assert sorted(bodies(take(other, len(left) or 1, again_s + (SLACK_S if left else 0.0)))) == left


def test_unacked_messages_come_back_iff_delivery_is_at_least_once(backend: Backend, another_handle: Backend) -> None:
    backend.put([b"only"])
    assert len(hold(another_handle, 1)) == 1
    again_s = return_s(backend.guarantees)
    another_handle.close()  # how a crash looks to the server

    again = take(backend, 1, again_s + (SLACK_S if backend.declares.at_least_once else 0.0))

    assert bodies(again) == ([b"only"] if backend.declares.at_least_once else [])


def test_what_a_killed_process_held_comes_back_iff_delivery_is_at_least_once(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    if backend.declares.in_process:
        pytest.skip("its handles die together")
    backend.put([b"only"])
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=holders.hold_until_killed, args=(where(backend, request), theirs, SLACK_S))
    holder.start()
    assert ours.poll(30.0)
    assert ours.recv() == 1
    holder.kill()
    holder.join(10.0)

    again = take(backend, 1, return_s(backend.guarantees) + (SLACK_S if backend.declares.at_least_once else 0.0))

    assert bodies(again) == ([b"only"] if backend.declares.at_least_once else [])
    ours.close()
    theirs.close()


def test_a_holder_that_stalls_loses_its_messages_when_its_lease_ends_and_not_before(
    backend: Backend, another_handle: Backend
) -> None:
    backend.put([b"only"])
    assert len(hold(another_handle, 1)) == 1
    began = time.monotonic()
    lease_s = backend.guarantees.lease_s
    ends = is_short(lease_s)

    again = take(backend, 1, LEASE_S + SLACK_S if ends else LEASE_S + 0.5)

    took_s = time.monotonic() - began
    assert bodies(again) == ([b"only"] if ends else [])
    assert not ends or took_s > LEASE_S - 0.3


@pytest.mark.parametrize("of", ["all", "part"])
def test_an_ack_after_the_lease_takes_nothing_from_the_next_holder_unless_declared(handles: Handles, of: str) -> None:
    first, second, third = handles(), handles(), handles()
    if not is_short(lease_s := first.guarantees.lease_s):
        pytest.skip(f"a living holder keeps its messages for {f'{lease_s:g} s' if lease_s else 'as long as it lives'}")
    sent = numbered(4)
    first.put(sent)
    late = hold(first, 4)
    assert sorted(bodies(hold(second, 4, LEASE_S + SLACK_S))) == sent

    with contextlib.suppress(BackendError):  # it may be refused
        first.ack(late if of == "all" else late[::-2])
    second.close()  # how a crash of the one who holds them now looks to the server
    again = bodies(take(third, 4, return_s(third.guarantees) + SLACK_S))

    lost = {"all": late, "part": late[::-2]}[of] if first.declares.late_ack_settles else []
    assert sorted(again) == sorted(set(sent) - set(bodies(lost)))


def test_an_ack_after_the_lease_takes_nothing_of_what_came_later(backend: Backend, another_handle: Backend) -> None:
    if not is_short(backend.guarantees.lease_s):
        pytest.skip("a living holder keeps its messages")
    backend.put([b"old"])
    late = hold(another_handle, 1)
    assert len(take(backend, 1, LEASE_S + SLACK_S)) == 1
    backend.put([b"new"])

    with contextlib.suppress(BackendError):
        another_handle.ack(late)

    assert bodies(take(backend, 1)) == [b"new"]
