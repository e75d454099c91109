"""The Node libraries: ours and theirs meet in the same queue, and a child never outlives or hangs us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Handles
from contract import SLACK_S, SPAWN, bodies, hold, numbered, take
from holders import Where, hold_as_a_group, hold_until_killed
from noding import ALL, BODIES, JOBS, Obtain, child_of, counts_of, encoded, make_handles, on, plain, states_of

from imqueue import node_child
from imqueue.backend import Backend, BackendError, Message, Rejected


@pytest.fixture
def handles(request: pytest.FixtureRequest, obtain: Obtain) -> Iterator[Handles]:
    """On a fresh queue of the backend that the test is parametrized with."""
    made = make_handles(request.param, obtain)
    yield made
    made.end()


@on(*ALL)
def test_what_we_put_is_processed_by_the_plain_library(handles: Handles) -> None:
    handle = handles()
    handle.put(BODIES)

    taken = plain(handle, "take", count=len(BODIES))

    assert sorted(taken) == sorted(encoded(BODIES))
    assert handle.get(0.3) == []


@on(*ALL)
def test_what_the_plain_library_put_is_processed_by_us(handles: Handles) -> None:
    handle = handles()

    plain(handle, "put", bodies=encoded(BODIES))

    assert sorted(bodies(take(handle, len(BODIES)))) == sorted(BODIES)


@on(*JOBS)
def test_the_librarys_own_count_of_each_state_is_ours(handles: Handles) -> None:
    producer, worker = handles(), handles(batch=2)

    producer.put(numbered(3))
    assert states_of(producer) == (3, 0, 0, 0)
    assert producer.depth() == 3
    held = hold(worker, 2)
    assert states_of(producer) == (1, len(held), 0, 0)
    assert producer.depth() == 1
    worker.ack(held)
    worker.ack(hold(worker, 1))
    assert states_of(producer) == (0, 0, 0, 0)  # ours are removed when completed
    assert producer.depth() == 0
    plain(producer, "put", bodies=encoded(BODIES))
    worker.ack(hold(worker, 2))
    worker.ack(hold(worker, 2))
    assert states_of(producer) == (0, 0, 4, 0)  # theirs ask to be kept


@on("rsmq")
def test_rsmqs_own_count_is_ours_once_the_second_is_over(handles: Handles) -> None:
    handle = handles(batch=1, lease_s=30.0)
    handle.put(numbered(3))
    hold(handle, 1)
    assert handle.depth() <= 2

    time.sleep(1.1)  # until then it takes what is new for hidden

    told = plain(handle, "counts")
    assert counts_of(handle) == told
    assert (told["msgs"] - told["hiddenmsgs"], told["hiddenmsgs"]) == (handle.depth(), 1) == (2, 1)
    handle.ack(hold(handle, 1))
    assert counts_of(handle)["msgs"] == plain(handle, "counts")["msgs"] == 2


@on("amqplib", "rabbitjs")
def test_the_plain_library_counts_as_many_ready_messages_as_we_do(handles: Handles) -> None:
    handle, worker = handles(), handles(batch=1)
    handle.put(numbered(3))
    assert plain(handle, "counts") == counts_of(handle)
    assert counts_of(handle)["messageCount"] == handle.depth() == 3

    held = hold(worker, 1)

    assert plain(handle, "counts")["messageCount"] == counts_of(handle)["messageCount"] == handle.depth() == 2
    worker.ack(held)


@on(*JOBS)
def test_a_job_that_is_not_ours_comes_out_as_the_json_of_its_data(handles: Handles) -> None:
    handle = handles()
    plain(handle, "put", bodies=[7])

    assert bodies(take(handle, 1)) == [b'{"body":7}']


@on(*ALL)
@pytest.mark.parametrize("use", [lambda each: each.put([b"x"]), lambda each: each.get(5.0), lambda each: each.depth()])
def test_a_child_that_was_killed_is_a_backend_error_at_once(handles: Handles, use: Callable[[Backend], Any]) -> None:
    handle = handles()
    os.kill(child_of(handle).pid, signal.SIGKILL)
    began = time.monotonic()

    with pytest.raises(BackendError, match="the Node child"):
        use(handle)

    assert time.monotonic() - began < 4.0
    handle.close()
    handle.open()
    handle.put([b"again"])
    assert bodies(take(handle, 1)) == [b"again"]


@on("bullmq", "rabbitjs")
def test_a_child_that_stalls_is_a_backend_error_and_leaves_nothing_behind(
    handles: Handles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_child, "GET_GRACE_S", 0.5)
    handle = handles()
    pid = child_of(handle).pid
    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(BackendError, match="did not answer within"):
        handle.get(0.2)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@on("bull")
def test_a_child_is_in_our_process_group_and_ends_with_us(handles: Handles) -> None:
    handle = handles()
    assert os.getpgid(child_of(handle).pid) == os.getpgid(0)
    handle.put([b"only"])
    ours, theirs = SPAWN.Pipe()
    at = Where("bull", handle.url, handle.queue, handle.durability, handle.lease_s)
    holder = SPAWN.Process(target=hold_until_killed, args=(at, theirs, 5.0))
    holder.start()
    assert ours.poll(30.0)
    (child,) = subprocess.run(
        ["pgrep", "-P", str(holder.pid), "node"], capture_output=True, text=True, check=True
    ).stdout.split()

    holder.kill()
    holder.join(10.0)

    deadline = time.monotonic() + 5.0
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()
    ours.close()
    theirs.close()


@on("bull", "bullmq")
def test_a_stopped_or_killed_process_group_loses_its_locks_however_often(handles: Handles) -> None:
    backend = handles(lease_s=0.4)
    backend.put([b"only"])
    name = type(backend).__module__.rpartition(".")[2]
    at = Where(name, backend.url, backend.queue, backend.durability, backend.lease_s)
    ours, theirs = SPAWN.Pipe()
    patience_s = 3 * SLACK_S  # a stopped worker may be the one that Redis wakes, for 5 s: see the docstrings
    groups = []
    try:
        for end in (signal.SIGSTOP, signal.SIGKILL):  # by itself the library fails a job that stalls twice
            holder = SPAWN.Process(target=hold_as_a_group, args=(at, theirs, patience_s))
            holder.start()
            assert holder.pid is not None
            groups.append(holder.pid)
            assert ours.poll(30.0)
            assert ours.recv() == 1
            os.killpg(holder.pid, end)

        assert bodies(take(backend, 1, patience_s)) == [b"only"]
        assert states_of(backend) == (0, 0, 0, 0)
    finally:
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        ours.close()
        theirs.close()


def wait_until_none_is_ready(handle: Backend) -> None:
    deadline = time.monotonic() + SLACK_S
    while handle.depth() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert handle.depth() == 0


@on(*JOBS)
def test_what_a_closed_handle_had_not_handed_out_goes_back(handles: Handles) -> None:
    worker, other = handles(batch=10, lease_s=60.0), handles(lease_s=60.0)
    other.put(numbered(2))
    held = hold(worker, 2)
    other.put([b"unseen"] * 5)
    wait_until_none_is_ready(other)

    worker.close()

    assert bodies(take(other, 5)) == [b"unseen"] * 5
    assert states_of(other) == (0, len(held), 0, 0)  # what was held stays so until its lock ends


@on(*JOBS)
def test_a_handle_that_is_closed_while_it_fetches_keeps_nothing(handles: Handles) -> None:
    other = handles(batch=200, lease_s=60.0)
    sent = numbered(600)
    for start in range(0, 600, 100):
        worker = handles(batch=40, lease_s=60.0)
        worker.ack(worker.get(0.0))  # its consumer runs
        other.put(sent[start : start + 100])
        worker.close()

    assert sorted(bodies(take(other, 600))) == sent


@on("bull", "bullmq")
@pytest.mark.parametrize("settled", [False, True])
def test_an_ack_after_the_lock_was_lost_takes_nothing_from_the_next_holder(handles: Handles, settled: bool) -> None:
    stalled, other = handles(batch=1, lease_s=0.4), handles(lease_s=0.4)
    stalled.put([b"only"])
    late = hold(stalled, 1)
    os.kill(child_of(stalled).pid, signal.SIGSTOP)
    taken = hold(other, 1)
    if settled:
        other.ack(taken)
    os.kill(child_of(stalled).pid, signal.SIGCONT)
    began = time.monotonic()

    stalled.ack(late)

    assert time.monotonic() - began < 4.0
    assert states_of(other) == (0, 0 if settled else 1, 0, 0)
    if not settled:
        other.ack(taken)
    assert states_of(stalled) == (0, 0, 0, 0)


@on("bull", "bullmq")
def test_a_stalled_holder_with_room_for_more_hands_out_nothing_that_is_settled(handles: Handles) -> None:
    stalled, other = handles(batch=10, lease_s=0.4), handles(lease_s=0.4)
    stalled.put([b"only"])
    late = hold(stalled, 1)
    os.kill(child_of(stalled).pid, signal.SIGSTOP)
    other.ack(hold(other, 1))
    other.close()

    os.kill(child_of(stalled).pid, signal.SIGCONT)

    assert stalled.get(1.0) == []
    stalled.ack(late)
    assert states_of(stalled) == (0, 0, 0, 0)


@on(*ALL)
def test_a_put_on_a_closed_handle_or_a_dead_child_is_rejected_not_uncertain(handles: Handles) -> None:
    handle = handles()
    os.kill(child_of(handle).pid, signal.SIGKILL)
    os.waitid(os.P_PID, child_of(handle).pid, os.WEXITED | os.WNOWAIT)

    for _ in range(2):
        with pytest.raises(Rejected, match=r"nothing was sent: the Node child of .* is gone"):
            handle.put([b"x"])
    handle.close()
    with pytest.raises(Rejected, match="nothing was sent: the handle is not open"):
        handle.put([b"x"])


@on("rabbitjs")
def test_rabbitjs_settles_in_order_only_and_refuses_anything_else(handles: Handles) -> None:
    handle = handles(batch=4)
    handle.put(numbered(4))
    held = hold(handle, 4)

    for wrong in (held[1:], held[:-1] if len(held) > 1 else held, [Message(b"", 99)]):
        with pytest.raises(BackendError, match="acks in order"):
            handle.ack(wrong)

    handle.ack(held)
