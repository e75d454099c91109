"""What server and machine say of themselves: each reader on its real server, and what is told when one can't answer."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imqueue import registry, servers, watch
from imqueue.backend import Backend, Durability
from imqueue.exporter import Source
from imqueue.servers import External, Server
from imqueue.servers._machine import tree
from imqueue.servers.guard import Guard
from imqueue.watch import rabbitmq
from imqueue.watch.postgres import KINDS, OTHER, Statistics
from imqueue.watch.reader import Reader, Reading, Watch

Obtain = Callable[[str, Durability], Server]
TOLD = {
    "redis": {"commands", "cpu_seconds", "memory_bytes", "aof_delayed_fsync"},
    "postgres": {"sessions", "rows", "autovacuums", "wal_bytes"},
    "rabbitmq": {"messages", "io", "alarms", "memory_bytes"},
    "mysql": {"row_lock_waits", "history_list", "fsyncs", "commits"},
    "beanstalkd": {"jobs", "commands", "cpu_seconds"},
    "nats": {"messages", "stream_bytes", "cpu_seconds", "memory_bytes"},
}
USED_BY = {
    "redis": "redis_list",
    "postgres": "postgres",
    "rabbitmq": "rabbitmq",
    "mysql": "mysql",
    "beanstalkd": "beanstalkd",
    "nats": "nats",
}
GROWS = {"redis": "commands", "postgres": "wal_bytes", "mysql": "commits", "beanstalkd": "commands"}


def put_and_hold(kind: str, server: Server, n: int) -> Backend:
    """An open handle that has put `n` messages and got them all, without an ack."""
    loaded = registry.load(USED_BY[kind])
    assert issubclass(loaded, Backend)
    handle = loaded(server.url, f"imq_watch_{time.time_ns()}", durability=Durability.DELAYED, batch=n, lease_s=30.0)
    handle.open()
    handle.put([b"x" * 32] * n)
    held = 0
    while held < n:
        held += len(handle.get(1.0))
    return handle


def take(watched: Watch) -> dict[tuple[str, str], Reading]:
    watched.ask()
    return {(each.name, each.kind): each for each in watched.take(5.0)}


@contextmanager
def watching(server: Server | None, guard: Guard) -> Iterator[dict[str, Watch]]:
    watches = watch.start(server, guard)
    try:
        yield {each.name: each for each in watches}
    finally:
        ended = {each.name: each.end() for each in watches}
    assert all(each["error"] is None and not each["missed"] for each in ended.values()), ended


@pytest.mark.parametrize("kind", [kind for kind in TOLD if kind in servers.kinds()])
def test_a_server_tells_what_happens_to_it(kind: str, obtain: Obtain, guard: Guard) -> None:
    server = obtain(kind, Durability.DELAYED)
    with watching(server, guard) as watches:
        before = take(watches[kind])
        handle = put_and_hold(kind, server, 20)
        try:
            after = take(watches[kind])
        finally:
            handle.destroy()
            handle.close()
    assert {name for name, _ in after} >= TOLD[kind]
    assert all(after[key].value >= each.value for key, each in before.items() if each.counts)
    if grown := GROWS.get(kind):
        assert sum(each.value - before[key].value for key, each in after.items() if key[0] == grown) > 0


def test_rabbitmq_tells_apart_what_is_ready_and_what_is_unacked(obtain: Obtain, guard: Guard) -> None:
    server = obtain("rabbitmq", Durability.DELAYED)
    with watching(server, guard) as watches:
        handle = put_and_hold("rabbitmq", server, 20)
        try:
            handle.put([b"y" * 32] * 20)  # beyond the prefetch of one batch
            told = take(watches["rabbitmq"])
            seen = {kind: told["messages", kind].value for kind in ("ready", "unacked")}
        finally:
            handle.destroy()
            handle.close()
        node = watches["rabbitmq"].pid
    assert seen == {"ready": 20.0, "unacked": 20.0}
    assert node is not None
    assert not Path(f"/proc/{node}").exists(), "the node beside the broker goes on"


def test_nats_tells_apart_what_is_delivered_and_what_is_not(obtain: Obtain, guard: Guard) -> None:
    server = obtain("nats", Durability.DELAYED)
    with watching(server, guard) as watches:
        handle = put_and_hold("nats", server, 20)
        try:
            handle.put([b"y" * 32] * 30)
            told = take(watches["nats"])
        finally:
            handle.destroy()
            handle.close()
    kinds = ("not delivered", "not acked", "redelivered")
    assert [told["messages", kind].value for kind in kinds] == [30, 20, 0]
    assert told["stream_bytes", ""].value >= 50 * 32


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """SIGSTOP all of its processes for the while of a `with`."""
    family = [each.pid for root in server.pids() for each in tree(root)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("kind", [kind for kind in TOLD if kind in servers.kinds()])
def test_a_server_that_hangs_costs_its_reader_no_more_than_its_time(
    kind: str, obtain: Obtain, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = obtain(kind, Durability.DELAYED)
    if isinstance(server, External):
        pytest.skip("the server is not ours to stop")
    loaded = importlib.import_module(f"imqueue.watch.{kind}")
    monkeypatch.setattr(loaded, "ASK_MAX_S", 0.5)
    watched = Watch(kind, lambda: watch.load(kind)(server, guard))
    watched.wait_until_open(5.0)
    assert take(watched)
    monkeypatch.setattr("imqueue.watch.reader.RETRY_S", 60.0)  # so that it is not opened again
    fds = set(os.listdir("/proc/self/fd"))
    with stopped(server):
        began = time.monotonic()
        watched.ask()
        assert watched.take(5.0) == []
        took_s = time.monotonic() - began
        ended = watched.end()
    assert 0.4 < took_s < 1.5
    assert ended["error"]
    assert not watched._thread.is_alive()
    assert len(os.listdir("/proc/self/fd")) < len(fds), "its connection goes on"


def test_postgres_tells_who_holds_a_transaction_open(obtain: Obtain, guard: Guard) -> None:
    server = obtain("postgres", Durability.DELAYED)
    with watching(server, guard) as watches:
        handle = put_and_hold("postgres", server, 5)  # its rows are locked until it acks
        try:
            time.sleep(0.3)
            take(watches["postgres"])
            time.sleep(0.3)  # some glances, of this state only
            seen = take(watches["postgres"])["sessions", "in transaction"].value
        finally:
            handle.destroy()
            handle.close()
    assert seen >= 1.0


def test_postgres_tells_rare_waits_together_and_every_kind_each_time(
    obtain: Obtain, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Statistics(obtain("postgres", Durability.DELAYED), guard)
    try:
        quiet = {each.kind: each.value for each in reader.read() if each.name == "sessions"}
        with monkeypatch.context() as patch:
            patch.setattr(reader, "_ask", lambda _: [["BufferPin", "2"], ["Extension", "1"], ["IO", "4"]])
            reader.glance()
        busy = {each.kind: each.value for each in reader.read() if each.name == "sessions"}
    finally:
        reader.close()
    assert set(quiet) == set(busy) == {*KINDS, OTHER}
    assert (busy["IO"], busy[OTHER]) == (2.0, 1.5), "means of two looks"


def test_what_a_broker_does_not_tell_is_left_out_and_not_zero() -> None:
    told = {(each.name, each.kind): each.value for each in rabbitmq.readings("3 4 none none none 5 0\n")}
    assert told == {("messages", "ready"): 3, ("messages", "unacked"): 4, ("memory_bytes", ""): 5, ("run_queue", ""): 0}


def test_the_process_of_a_reader_that_was_opened_anew_is_the_drivers_too() -> None:
    source = Source("id", "rabbitmq", tally=None, is_flow=True)  # type: ignore[arg-type]
    reader = Watch("node", Scripted)
    source.watches = [reader]
    for pid in (os.getpid(), os.getppid(), os.getppid()):
        reader.pid = pid
        source.own_readers()
    source.usage.read()
    reader.end()
    assert {pid for pid, _ in source.usage.each("driver")} == {os.getpid(), os.getppid()}


def test_the_machine_is_told_with_what_the_server_wrote(obtain: Obtain, guard: Guard) -> None:
    server = obtain("redis", Durability.DELAYED)
    with watching(server, guard) as watches:
        before = take(watches["host"])
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            pass
        after = take(watches["host"])
    assert after["cpu_seconds", "user"].value - before["cpu_seconds", "user"].value >= 0.1
    assert "server_write_bytes" in {name for name, _ in after}


class Scripted(Reader):
    """Answers as the script says: a time to take, then figures, or an error to raise."""

    def __init__(self, delay_s: float = 0.0, error: str | None = None) -> None:
        self.delay_s, self.error, self.looks = delay_s, error, 0

    def read(self) -> list[Reading]:
        time.sleep(self.delay_s)
        if self.error:
            raise RuntimeError(self.error)
        return [Reading("looks", self.looks)]

    def glance(self) -> None:
        self.looks += 1

    def close(self) -> None:
        pass


def test_a_server_that_answers_too_late_is_missing_from_that_scrape_and_counted() -> None:
    watched = Watch("slow", lambda: Scripted(delay_s=0.3))
    watched.ask()
    assert watched.take(0.05) == []
    assert watched.take(1.0) == [Reading("looks", 0)]
    assert watched.end() == {"asked": 1, "missed": 1, "error": None}


def test_a_server_that_refuses_costs_no_time_and_its_reason_is_kept() -> None:
    watched = Watch("sour", lambda: Scripted(error="no such view"))
    watched.wait_until_open(1.0)
    start_s = time.monotonic()
    watched.ask()
    assert watched.take(1.0) == []
    assert time.monotonic() - start_s < 0.5
    assert watched.end() == {"asked": 1, "missed": 1, "error": "no such view"}


def test_a_server_that_comes_back_is_read_again() -> None:
    scripts = iter([Scripted(error="gone"), Scripted()])
    watched = Watch("back", lambda: next(scripts))
    watched.ask()
    assert watched.take(1.0) == []
    watched.ask()
    assert watched.take(2.0) == [Reading("looks", 0)]
    assert watched.end()["error"] == "gone"


def test_a_reader_that_glances_does_so_between_scrapes() -> None:
    reader = Scripted()
    reader.glance_s = 0.02
    watched = Watch("quick", lambda: reader)
    time.sleep(0.3)
    watched.ask()
    assert 5 <= watched.take(1.0)[0].value <= 15
    watched.end()


def test_a_kind_of_server_without_a_reader_says_so(guard: Guard) -> None:
    watches = watch.start(External("manager", "tcp://127.0.0.1:1"), guard)
    ended = {each.name: each.end() for each in watches}
    assert ended["manager"]["error"] == "there is no reader for manager"


def test_a_broker_that_somebody_else_runs_is_not_asked_by_force(guard: Guard) -> None:
    watches = watch.start(External("rabbitmq", "amqp://guest:guest@127.0.0.1:1/"), guard)
    ended = {each.name: each.end() for each in watches}
    assert "somebody else runs" in ended["rabbitmq"]["error"]
    assert ended["host"]["error"] is None
