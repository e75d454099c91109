"""NATS JetStream: what its server can be asked is asked, and a stream that is not ours stays as it is."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest
from conftest import Handles
from contract import bodies, hold, numbered, take
from nats.js.api import ConsumerInfo
from serving import make, place, wait_until

from imqueue import registry
from imqueue.backend import Backend, BackendError, Durability, Rejected
from imqueue.backends._nats import Link
from imqueue.servers import Server, _private
from imqueue.servers.guard import Guard


def handles_on(url: str) -> Handles:
    loaded = registry.load("nats")
    assert issubclass(loaded, Backend)
    return Handles(loaded, lambda _: url, f"nats-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def handles(obtain: Callable[[str, Durability], Server]) -> Handles:
    return handles_on(obtain("nats", Durability.DELAYED).url)


@pytest.fixture
def admin(handles: Handles) -> Iterator[Link]:
    """Asks JetStream as anybody may; the test's queue goes at the end."""
    link = Link(handles.url(Durability.DELAYED))
    yield link
    for handle in handles.opened:
        handle.close()
    link.ask(f"$JS.API.STREAM.DELETE.{handles.queue}")
    link.close()


@pytest.fixture
def server(guard: Guard) -> Iterator[_private.Private]:
    """One of the test's own."""
    with place() as folder:
        made = make("nats", folder, guard)
        made.start()
        yield made
        made.stop()


def consumer_of(admin: Link, queue: str) -> dict[str, Any]:
    return admin.ask(f"$JS.API.CONSUMER.INFO.{queue}.workers")


def test_the_answer_to_the_last_ack_speaks_for_the_whole_batch(handles: Handles, admin: Link) -> None:
    handle = handles(batch=1000, lease_s=30.0)
    for _ in range(10):
        handle.put(numbered(1000))
        held = hold(handle, 1000)
        handle.ack(held[::-1])
        assert consumer_of(admin, handles.queue)["num_ack_pending"] == 0


def test_a_lease_changed_behind_our_back_changes_the_guarantees(handles: Handles, admin: Link) -> None:
    handle = handles(lease_s=2.0)
    assert (handle.guarantees.lease_s, handle.guarantees.redelivers_after_s) == (2.0, 2.0)

    config = consumer_of(admin, handles.queue)["config"] | {"ack_wait": 7 * 10**9}
    where = f"$JS.API.CONSUMER.DURABLE.CREATE.{handles.queue}.workers"
    admin.ask(where, {"stream_name": handles.queue, "config": config})

    assert (handle.guarantees.lease_s, handle.guarantees.settings["ack_wait"]) == (7.0, "7 s")
    assert handles(lease_s=2.0).guarantees.lease_s == 7.0


@pytest.mark.parametrize(
    ("strange", "told"),
    [
        ({"retention": "limits"}, "has retention limits"),
        ({"storage": "memory"}, "has storage memory, and durability delayed needs file"),
        ({"subjects": ["theirs.>"]}, "has subjects"),
        ({"discard": "old"}, "has discard old"),
        ({"max_age": 10**9}, "has max_age 1.0, and .*needs none"),
        ({"max_msgs_per_subject": 5}, "has max_msgs_per_subject 5"),
    ],
)
def test_a_stream_made_otherwise_is_refused_and_left_untouched(
    handles: Handles, admin: Link, strange: dict[str, Any], told: str
) -> None:
    name = handles.queue
    ours = {"name": name, "subjects": [f"imqueue.{name}"], "retention": "workqueue", "storage": "file"}
    made = admin.ask(f"$JS.API.STREAM.CREATE.{name}", ours | {"discard": "new"} | strange)

    with pytest.raises(BackendError, match=rf"{told}.*left untouched"):
        handles()

    found = admin.ask(f"$JS.API.STREAM.INFO.{name}")
    assert (found["config"], found["state"]["consumer_count"]) == (made["config"], 0)


@pytest.mark.parametrize(
    ("strange", "told"),
    [
        ({"max_deliver": 1}, "has max_deliver 1"),
        ({"filter_subject": "imqueue.{queue}"}, "has filter_subject imqueue"),
        ({"deliver_subject": "theirs"}, "has deliver_subject theirs"),
        ({"max_deliver": 3, "backoff": [10**9, 2 * 10**9]}, "has max_deliver 3"),
        ({"headers_only": True}, "has headers_only True"),
    ],
)
def test_a_consumer_made_otherwise_is_refused_and_left_untouched(
    handles: Handles, admin: Link, strange: dict[str, Any], told: str
) -> None:
    name = handles.queue
    handles().close()
    admin.ask(f"$JS.API.CONSUMER.DELETE.{name}.workers")
    theirs = {key: value.format(queue=name) if isinstance(value, str) else value for key, value in strange.items()}
    config = {"durable_name": "workers", "ack_policy": "explicit", "deliver_policy": "all"} | theirs
    made = admin.ask(f"$JS.API.CONSUMER.DURABLE.CREATE.{name}.workers", {"stream_name": name, "config": config})

    with pytest.raises(BackendError, match=rf"{told}.*left untouched"):
        handles()

    assert consumer_of(admin, name)["config"] == made["config"]


@pytest.mark.parametrize(
    ("strange", "told"),
    [
        ({"ack_policy": "none"}, "has ack_policy none"),
        ({"backoff": [1.0]}, r"has backoff \[1.0\]"),
        ({"filter_subjects": ["theirs"]}, r"has filter_subjects \['theirs'\]"),
    ],
)
def test_so_is_one_that_only_other_versions_make(
    handles: Handles, admin: Link, monkeypatch: pytest.MonkeyPatch, strange: dict[str, Any], told: str
) -> None:
    handles().close()
    found = ConsumerInfo.from_response(consumer_of(admin, handles.queue))
    theirs = replace(found, config=replace(found.config, **strange))
    monkeypatch.setattr("imqueue.backends.nats.Nats._consumer", lambda *_: theirs)

    with pytest.raises(BackendError, match=rf"{told}.*left untouched"):
        handles()


def test_an_ack_that_nobody_took_is_a_backend_error(handles: Handles, admin: Link) -> None:
    handle = handles()
    handle.put(numbered(2))
    held = hold(handle, 2)
    admin.ask(f"$JS.API.STREAM.DELETE.{handles.queue}")

    with pytest.raises(BackendError, match="ack of 2 messages is uncertain: nobody answers there"):
        handle.ack(held)

    handles()  # for the fixture's end


@pytest.mark.usefixtures("admin")
def test_an_ack_within_the_lease_settles_though_others_come_too_late(handles: Handles) -> None:
    handle, other = handles(batch=1, lease_s=1.0), handles(batch=1, lease_s=1.0)
    handle.put(numbered(2))
    late = hold(handle, 1)
    time.sleep(1.0)
    (again,) = hold(other, 1, 3.0)
    in_time = hold(handle, 1, 3.0) if again.body == late[0].body else [again]

    with pytest.raises(BackendError, match="1 of 2 messages were not acked: their lease of 1 s is over"):
        handle.ack([*late, *in_time])

    other.close()
    assert bodies(take(handle, 2, 3.0)) == bodies(late)


@pytest.mark.usefixtures("admin")
def test_the_lease_that_the_first_gave_the_consumer_is_the_one_that_counts(handles: Handles) -> None:
    handles(lease_s=1.0)
    handle = handles(lease_s=60.0)
    handle.put([b"x"])
    held = hold(handle, 1)
    time.sleep(1.0)

    with pytest.raises(BackendError, match="lease of 1 s is over"):
        handle.ack(held)


def test_a_full_stream_refuses_and_says_whether_anything_was_kept(handles: Handles, admin: Link) -> None:
    handle = handles()
    config = admin.ask(f"$JS.API.STREAM.INFO.{handles.queue}")["config"]
    admin.ask(f"$JS.API.STREAM.UPDATE.{handles.queue}", config | {"max_msgs": 5})

    with pytest.raises(BackendError, match="of 8 messages JetStream refused 3: maximum messages exceeded") as caught:
        handle.put(numbered(8))
    assert not isinstance(caught.value, Rejected)
    with pytest.raises(Rejected, match="of 2 messages JetStream refused 2"):
        handle.put(numbered(2))

    assert bodies(take(handle, 5)) == numbered(5)


def test_bytes_that_are_not_ours_are_passed_on(handles: Handles, admin: Link) -> None:
    handle = handles()
    body = b"\xff\r\nMSG not ours\0"
    admin.send(b"PUB imqueue.%b %b %d\r\n%b\r\n" % (handles.queue.encode(), admin.inbox.encode(), len(body), body))
    assert b'"seq"' in admin.take_answers(1)[0]

    assert bodies(take(handle, 1)) == [body]


def test_a_message_with_headers_that_is_not_ours_is_passed_on(handles: Handles, admin: Link) -> None:
    handle = handles()
    header = b"NATS/1.0\r\nTheirs: 1\r\n\r\n"
    frame = b"HPUB imqueue.%b %b %d %d\r\n%bnot ours\r\n"
    admin.send(
        frame % (handles.queue.encode(), admin.inbox.encode(), len(header), len(header) + len(b"not ours"), header)
    )
    assert b'"seq"' in admin.take_answers(1)[0]

    assert bodies(take(handle, 1)) == [b"not ours"]


@pytest.mark.parametrize("name", ["", "a.b", "two words", "all*", "x" * 201, "a/b"])
def test_a_name_that_no_stream_can_have_is_refused(handles: Handles, name: str) -> None:
    url = handles.url(Durability.DELAYED)
    with pytest.raises(BackendError, match="cannot be a stream's name; allowed: up to 200 letters"):
        handles.loaded(url, name, durability=Durability.DELAYED, batch=1).open()


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"version": "2.8.4", "jetstream": True}, "NATS 2.8.4 is too old; allowed: 2.9 and later"),
        ({"version": "2.9.10"}, "JetStream is not enabled on this NATS"),
        ({"version": "2.9.10", "tls_required": True}, "wants TLS"),
    ],
)
def test_a_server_without_what_is_needed_is_refused(about: dict[str, Any], told: str) -> None:
    def greet() -> None:
        with listener.accept()[0] as link:
            link.sendall(b"INFO %b\r\n" % json.dumps(about | {"max_payload": 1 << 20}).encode())
            link.recv(1 << 16)
            link.sendall(b"PONG\r\n")
            link.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        greeter = threading.Thread(target=greet)
        greeter.start()
        handle = handles_on(f"nats://127.0.0.1:{listener.getsockname()[1]}").make()
        with pytest.raises(BackendError, match=told):
            handle.open()
        greeter.join(5.0)


def test_a_put_after_the_server_hung_up_on_an_idle_handle_is_known_to_be_lost(server: _private.Private) -> None:
    handle = handles_on(server.url)()
    server.stop()

    with pytest.raises(Rejected, match="nothing was sent"):
        handle.put([b"x"])

    handle.close()


def test_a_stalled_server_ends_every_wait(server: _private.Private, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imqueue.backends._nats.ANSWER_MAX_S", 0.4)
    made = handles_on(server.url)
    opened = [made() for _ in range(3)]
    process = psutil.Process(server.pids()[0])
    process.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    began_s = time.monotonic()

    for use in (lambda: opened[0].put([b"x"]), lambda: opened[1].get(0.1), lambda: opened[2].depth()):
        with pytest.raises(BackendError, match="did not answer"):
            use()

    assert time.monotonic() - began_s < 5.0
    process.send_signal(signal.SIGCONT)
    for handle in opened:
        handle.close()
