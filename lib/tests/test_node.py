"""The Node libraries: ours and theirs meet in the same queue, and a child never outlives or hangs us."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Handles
from contract import SPAWN, bodies, hold, numbered, take
from holders import Where, hold_until_killed
from noding import ALL, BODIES, JOBS, Obtain, child_of, encoded, make_handles, on, plain

from imqueue import node_child
from imqueue.backend import Backend, BackendError, Message


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
    waiting, completed = ("inactive", "complete") if "kue" in handles.loaded.__module__ else ("waiting", "completed")

    def counts() -> tuple[int, int, int, int]:
        told = plain(producer, "counts")
        return told[waiting], told["active"], told[completed], told["failed"]

    producer.put(numbered(3))
    assert counts() == (3, 0, 0, 0)
    assert producer.depth() == 3
    held = hold(worker, 2)
    assert counts() == (1, 2, 0, 0)
    assert producer.depth() == 1
    worker.ack(held)
    worker.ack(hold(worker, 1))
    assert counts() == (0, 0, 0, 0)  # ours are removed when completed
    plain(producer, "put", bodies=encoded(BODIES))
    worker.ack(hold(worker, 2))
    worker.ack(hold(worker, 2))
    assert counts() == (0, 0, 4, 0)  # theirs ask to be kept


@on("rsmq")
def test_rsmqs_own_count_is_ours_once_the_second_is_over(handles: Handles) -> None:
    handle = handles(batch=1, lease_s=30.0)
    handle.put(numbered(3))
    hold(handle, 1)
    assert handle.depth() <= 2

    time.sleep(1.1)  # until then it takes what is new for hidden

    told = plain(handle, "counts")
    assert told["msgs"] - told["hiddenmsgs"] == handle.depth()


@on("amqplib", "rabbitjs")
def test_the_plain_library_counts_as_many_ready_messages_as_we_do(handles: Handles) -> None:
    handle = handles()
    handle.put(numbered(3))

    assert plain(handle, "counts")["messageCount"] == handle.depth() == 3


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
def test_a_stopped_process_group_loses_its_locks_however_often(handles: Handles) -> None:
    backend = handles()
    backend.put([b"only"])

    for _ in range(2):  # by itself the library fails a job that stalls twice
        holder = handles()
        hold(holder, 1)
        os.kill(child_of(holder).pid, signal.SIGSTOP)
        time.sleep(2.0 * backend.lease_s)
        holder.close()

    assert bodies(take(backend, 1)) == [b"only"]


@on("kue")
def test_what_a_closed_handle_had_not_handed_out_goes_back(handles: Handles) -> None:
    worker, other = handles(batch=10), handles()
    assert worker.get(0.0) == []
    other.put(numbered(5))
    deadline = time.monotonic() + 5.0
    while other.depth() and time.monotonic() < deadline:
        time.sleep(0.02)

    worker.close()

    assert sorted(bodies(take(other, 5))) == numbered(5)


@on("rabbitjs")
def test_rabbitjs_settles_in_order_only_and_refuses_anything_else(handles: Handles) -> None:
    handle = handles(batch=4)
    handle.put(numbered(4))
    held = hold(handle, 4)

    for wrong in (held[1:], held[:-1] if len(held) > 1 else held, [Message(b"", 99)]):
        with pytest.raises(BackendError, match="acks in order"):
            handle.ack(wrong)

    handle.ack(held)
