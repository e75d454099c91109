"""beanstalkd: what its server can be asked is asked, what it hides is not promised, and its faults are kept away."""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import greenstalk
import psutil
import pytest
from conftest import Handles
from contract import bodies, numbered, take
from serving import make, place, wait_until

from imqueue import registry, servers
from imqueue.backend import Backend, BackendError, Durability, Rejected
from imqueue.backends._beanstalkd import Link
from imqueue.backends._kernel import writeback
from imqueue.backends.beanstalkd import SIZE_MAX_BYTES
from imqueue.servers import External, Server, _private
from imqueue.servers.guard import Guard

Obtain = Callable[[str, Durability], Server]


def handles_on(url: str) -> Handles:
    loaded = registry.load("beanstalkd")
    assert issubclass(loaded, Backend)
    return Handles(loaded, lambda _: url, f"beanstalkd-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def shared(obtain: Obtain) -> Iterator[Handles]:
    made = handles_on(obtain("beanstalkd", Durability.DELAYED).url)
    yield made
    made.end()


@pytest.fixture
def server(guard: Guard) -> Iterator[_private.Private]:
    """One of the test's own, not started."""
    with place() as folder:
        made = make("beanstalkd", folder, guard, Durability.DELAYED)
        yield made
        made.stop()


@pytest.mark.parametrize("there", Durability)
@pytest.mark.parametrize("asked", Durability)
def test_a_server_with_another_command_line_is_refused(there: Durability, asked: Durability, obtain: Obtain) -> None:
    found = obtain("beanstalkd", there)
    if isinstance(found, External):
        pytest.skip("the server is not ours to choose")
    handle = handles_on(found.url).make(durability=asked)
    if there is asked:
        handle.open()
        handle.close()
        return
    with pytest.raises(BackendError, match=rf"durability {asked} was asked for .*; this beanstalkd has {there} "):
        handle.open()


def test_a_command_line_that_cannot_be_seen_gives_no_flushed(obtain: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    made = handles_on(obtain("beanstalkd", Durability.FLUSHED).url)
    handle = made(durability=Durability.FLUSHED)
    assert handle.guarantees.survives_power_loss is True

    monkeypatch.setattr("imqueue.backends._beanstalkd.os.uname", lambda: os.uname_result(("", "else", *"   ")))

    now = handle.guarantees
    assert (now.survives_power_loss, now.settings["fsync"]) == (writeback(handle.url).survives, "not told")
    with pytest.raises(BackendError, match="tells -f 0 only by its command line, which cannot be read from here"):
        made(durability=Durability.FLUSHED)
    handle.close()


@pytest.mark.parametrize("name", ["", "-first", "two words", "käfer", "x" * 201])
def test_a_name_that_no_tube_can_have_is_refused(shared: Handles, name: str) -> None:
    with pytest.raises(BackendError, match="cannot be a tube's name; allowed: up to 200 letters"):
        shared.loaded(shared.url(Durability.DELAYED), name, durability=Durability.DELAYED, batch=1).open()


def test_a_stranger_s_short_job_is_passed_on_and_waiting_beside_it_is_no_busy_loop(shared: Handles) -> None:
    handle = shared(batch=10)
    with greenstalk.Client(_address(handle.url), encoding=None, use=handle.queue) as stranger:
        stranger.put(b"\xff not ours", ttr=1)
    assert bodies(handle.get(1.0)) == [b"\xff not ours"]
    began_s, cpu_s = time.monotonic(), time.process_time()

    again = handle.get(0.8)  # the server refuses to wait in the last second of a job that we hold

    assert again == []
    assert time.monotonic() - began_s > 0.7
    assert time.process_time() - cpu_s < 0.2


@pytest.mark.parametrize("answer", [b"RESERVED 1", b"RESERVED one two", b"OK many", b"HELLO"])
def test_an_answer_that_its_protocol_does_not_know_is_a_backend_error(
    shared: Handles, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    handle = shared(batch=10)
    monkeypatch.setattr("imqueue.backends._beanstalkd.Link.line", lambda _: answer)

    with pytest.raises(BackendError):
        handle.get(0.0)

    with pytest.raises(Rejected, match="nothing was sent"):  # nobody could tell what a next answer answers
        handle.put([b"x"])


def test_the_server_s_no_to_a_question_closes_nothing(shared: Handles) -> None:
    link = Link(shared.url(Durability.DELAYED), shared.queue)

    for _ in range(2):
        with pytest.raises(BackendError, match="refused peek: NotFound"):
            link.ask("peek", 1 << 60)

    assert link.ask("stats")["pid"] > 0
    link.close()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("beanstalkd 1.11", r"1\.11 is too old; 1\.12 or newer is needed; `apt-get"),
        ("", "does not run here: it says ''"),
    ],
)
def test_a_beanstalkd_that_is_too_old_is_missing(told: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imqueue.servers.beanstalkd.find", lambda _: "/usr/bin/beanstalkd")
    monkeypatch.setattr("imqueue.servers.beanstalkd.output", lambda *_: told)

    assert re.search(reason, servers.load("beanstalkd").missing() or "")


def test_receipts_of_an_earlier_connection_settle_nothing(shared: Handles) -> None:
    handle, other = shared(), shared()
    handle.put(numbered(2))
    held = handle.get(1.0)
    handle.open()

    with pytest.raises(BackendError, match="2 of 2 messages are not held"):
        handle.ack(held)

    assert bodies(take(other, 2)) == numbered(2)


def test_destroy_of_many_messages_is_quick_and_takes_what_is_buried_too(shared: Handles) -> None:
    handle = shared()
    handle.put(numbered(10_000))
    with greenstalk.Client(_address(handle.url), encoding=None, use=handle.queue, watch=handle.queue) as stranger:
        stranger.bury(stranger.reserve(0))
    began_s = time.monotonic()

    handle.destroy()

    assert time.monotonic() - began_s < 10.0
    handle.close()
    handle.open()
    assert handle.depth() == 0
    assert not handle.get(0.0)


def test_the_largest_message_does_not_cost_those_behind_it_their_place_in_the_log(server: _private.Private) -> None:
    server.start()
    handle = handles_on(server.url)()
    sent = [b"before", b"x" * SIZE_MAX_BYTES, b"after"]
    handle.put(sent)
    server.kill()
    handle.close()
    server.start()

    handle.open()

    assert bodies(take(handle, 3)) == sent
    handle.close()


def test_a_server_that_takes_no_large_jobs_or_none_at_all_rejects_them(
    server: _private.Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imqueue.servers.beanstalkd.COMMON", {})  # its own limit
    server.start()
    handle = handles_on(server.url)()
    with pytest.raises(Rejected, match="65534 bytes was not sent; allowed: up to 65533"):
        handle.put([b"small", bytes(65534)])
    handle.put([bytes(65533)])

    psutil.Process(server.pids()[0]).send_signal(signal.SIGUSR1)

    assert wait_until(lambda: handle.guarantees.settings["draining"] == "true")
    with pytest.raises(Rejected, match="of 3 messages beanstalkd refused 3: DRAINING"):
        handle.put(numbered(3))
    assert bodies(take(handle, 1)) == [bytes(65533)]
    handle.close()


def test_the_log_is_its_owner_s_only(server: _private.Private) -> None:
    server.start()
    assert [path.stat().st_mode & 0o077 for path in Path(server.folder).glob("binlog/*")] == [0, 0]


def _address(url: str) -> tuple[str, int]:
    host, port = url.rpartition("/")[2].split(":")
    return host, int(port)
