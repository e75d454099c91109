"""The produce and consume loops, and the processes that run them.

A child is given its `Post`s and nothing else. One post: the loop runs in its main thread. Several (a backend whose
handles must share a process): a thread each. It reports through its ledger's page and, in trouble, an error file.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imqueue import pace, pinning, registry
from imqueue.backend import Backend, BackendError, Durability, Inline, Message, Rejected
from imqueue.control import Control, Phase
from imqueue.ledger import CPU_NS, DEPTH, DEPTH_AT_NS, LATE_NS, PID, STATE, THREAD, WARM_N, Outcome, State, Writer
from imqueue.message import WARMUP_BIT, Codec
from imqueue.pace import Batch, clock_ns
from imqueue.workload import Workload

GET_S = 0.1  # a worker looks at the driver's page at least this often
DEPTH_EVERY_S = 1.0
WARMUP_MAX_S = 3.0
PR_SET_TIMERSLACK = 29
GC_EVERY = 50_000  # allocations between collections: at Python's 700, each batch of 1,000 would pay for one


@dataclass(frozen=True)
class Post:
    """One role in a trial: `name` is its ledger's, `rank` its place among its equals."""

    role: str  # producer, worker, keeper (creates, watches and destroys the queue) or inline
    name: str
    rank: int
    folder: Path  # the trial's live folder
    trial: int  # the id in its messages
    workload: Workload
    url: str
    queue: str
    durability: Durability
    from_segment: int = 0

    def handle(self) -> Backend:
        loaded = registry.load(self.workload.backend)
        assert issubclass(loaded, Backend)
        return loaded(
            self.url,
            self.queue,
            durability=self.durability,
            batch=self.workload.batch,
            lease_s=self.workload.lease_s,
        )


def run(posts: Sequence[Post]) -> None:
    """The main function of a child process."""
    os.setpgid(0, 0)  # whoever stops or kills a worker means its group, with any child of its own
    sharpen_timers()
    gc.freeze()  # what the forkserver imported is not garbage; collecting it again would only cause pauses
    gc.set_threshold(GC_EVERY)
    if len(posts) == 1:
        perform(posts[0])
        return
    threads = [threading.Thread(target=perform, args=(post,), name=post.name, daemon=True) for post in posts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def sharpen_timers() -> None:
    """Linux wakes a sleeper up to 50 us late to save power; a producer's schedule should not pay for that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)


def perform(post: Post) -> None:
    """One post from start to end; whatever goes wrong stands in its error file and its state."""
    pinning.bind(post.workload.pin, "worker" if post.role == "inline" else post.role)
    control = Control(post.folder)
    writers = [Writer(post.folder / "ledger", name) for name in ledgers(post)]
    for writer in writers:
        writer.words[PID], writer.words[THREAD] = os.getpid(), threading.get_native_id()
    try:
        LOOPS[post.role](post, control, *writers)
        state = State.ENDED
    except BackendError as error:
        report_error(post, "backend", str(error))
        state = State.FAILED
    except Exception:
        report_error(post, "harness", traceback.format_exc())
        state = State.FAILED
    alone = threading.current_thread() is threading.main_thread()
    used_ns = time.process_time_ns() if alone else time.thread_time_ns()
    for writer in writers:
        writer.words[CPU_NS] = used_ns  # nobody can ask the system for it once this process is gone
        writer.words[STATE] = state
        writer.close()


def roles(post: Post) -> list[str]:
    """What a post counts as; an inline backend's loop is producer and worker in one."""
    return ["producer", "worker"] if post.role == "inline" else [post.role] if post.role != "keeper" else []


def ledgers(post: Post) -> list[str]:
    """The ledgers that a post writes; the first one's page has its state."""
    return ["producer-0", "worker-0"] if post.role == "inline" else [post.name]


def report_error(post: Post, kind: str, text: str) -> None:
    (post.folder / f"{post.name}.error.json").write_text(json.dumps({"kind": kind, "text": text}))


def keep(post: Post, control: Control, writer: Writer) -> None:
    """Create the queue, read what it guarantees, ask its depth once a second, and drop it at the end."""
    with post.handle() as handle:
        guarantees = json.dumps(dataclasses.asdict(handle.guarantees))
        (post.folder / "guarantees.json").write_text(guarantees)
        writer.words[STATE] = State.OPEN
        asked_s = 0.0
        while control.phase != Phase.STOP:
            if time.monotonic() - asked_s >= DEPTH_EVERY_S:
                asked_s = time.monotonic()
                writer.words[DEPTH] = handle.depth()
                writer.words[DEPTH_AT_NS] = clock_ns()
            time.sleep(0.02)
        handle.destroy()


def produce(post: Post, control: Control, writer: Writer) -> None:
    codec = Codec(post.trial, post.workload.size_bytes)
    with post.handle() as handle:
        writer.words[STATE] = State.OPEN
        if control.phase == Phase.WARMUP:
            warm_up(post, control, writer, handle)
        writer.words[STATE] = State.WARM
        wait_for_go(control)
        returned_ns = control.go_ns  # a late awakening is the producer's own lateness
        for batch in batches(post, control):
            bodies = begin_put(batch, codec, writer, returned_ns)
            try:
                handle.put(bodies)
            except BackendError as error:
                rejected = isinstance(error, Rejected)
                writer.finished(Outcome.REJECTED if rejected else Outcome.UNCERTAIN, clock_ns())
                raise
            returned_ns = clock_ns()
            writer.finished(Outcome.DONE, returned_ns)


def batches(post: Post, control: Control) -> Iterator[Batch]:
    if post.workload.shape == "flow":
        return pace.of_flow(post.workload, control, post.rank, post.from_segment)
    backlog = pace.Backlog(post.folder / "ledger", control)
    return pace.of_sum(post.workload, control, post.rank, backlog)


def begin_put(batch: Batch, codec: Codec, writer: Writer, returned_ns: int) -> list[bytes]:
    """Encode a batch and book it as attempted. `returned_ns`: when the put before it returned."""
    sent_ns = clock_ns()
    first, n, step, due_ns = batch
    late_n = 0
    if due_ns is not None and sent_ns - returned_ns > LATE_NS:
        late_n = int((due_ns < sent_ns - LATE_NS).sum())
    if n == 1:
        bodies = [codec.encode_one(first, sent_ns if due_ns is None else int(due_ns[0]), sent_ns)]
    else:
        bodies = codec.encode(pace.numbers(first, n, step), sent_ns if due_ns is None else due_ns, sent_ns)
    writer.attempted(first, n, step, clock_ns(), late_n)
    return bodies


def warm_up(post: Post, control: Control, writer: Writer, handle: Backend) -> None:
    codec = Codec(post.trial | WARMUP_BIT, post.workload.size_bytes)
    left = -(-post.workload.warmup_messages // post.workload.producers)
    deadline_ns = clock_ns() + int(WARMUP_MAX_S * 1e9)
    while left > 0 and control.phase == Phase.WARMUP and clock_ns() < deadline_ns:
        n = min(left, post.workload.batch)
        handle.put(codec.encode(pace.numbers(1, n, 1), 0, clock_ns()))
        writer.words[WARM_N] += n
        left -= n


def wait_for_go(control: Control) -> None:
    while control.phase < Phase.MEASURE:
        time.sleep(0.001)
    time.sleep(max(0.0, (control.go_ns - clock_ns()) / 1e9))


def work(post: Post, control: Control, writer: Writer) -> None:
    codec = Codec(post.trial, post.workload.size_bytes)
    warm = Codec(post.trial | WARMUP_BIT, post.workload.size_bytes)
    work_s = post.workload.work_s
    with post.handle() as handle:
        writer.words[STATE] = State.OPEN
        while control.phase != Phase.STOP and post.rank < control.workers:
            messages = handle.get(GET_S)
            if not messages:
                continue
            got_ns = clock_ns()
            if control.phase < Phase.MEASURE:
                warm.decode([message.body for message in messages])
                handle.ack(messages)
                writer.words[WARM_N] += len(messages)
                continue
            receive(messages, codec, writer, got_ns, work_s)
            try:
                handle.ack(messages)
            except BackendError:
                writer.finished(Outcome.UNCERTAIN, clock_ns())
                raise
            writer.finished(Outcome.DONE, clock_ns())


def receive(messages: Sequence[Message], codec: Codec, writer: Writer, got_ns: int, work_s: float) -> None:
    """Check and book a batch as received, and do the work that each message asks for."""
    handled_ns = 0 if work_s else got_ns
    if len(messages) == 1:
        word0, due_ns, sent_ns = codec.decode_one(messages[0].body)
        writer.received_one(word0, due_ns, sent_ns, got_ns, handled_ns)
    else:
        writer.received(codec.decode([message.body for message in messages]), got_ns, handled_ns)
    if work_s:
        for index in range(len(messages)):
            time.sleep(work_s)
            writer.handled_last(index, clock_ns())


def pump(post: Post, control: Control, producing: Writer, working: Writer) -> None:
    """Both loops of an `Inline` backend, which has no queue to open, to ask or to drop."""
    loaded = registry.load(post.workload.backend)
    assert issubclass(loaded, Inline)
    codec = Codec(post.trial, post.workload.size_bytes)
    for writer in (producing, working):
        writer.words[STATE] = State.WARM
    wait_for_go(control)

    def offered() -> Generator[list[bytes], None, None]:
        returned_ns = control.go_ns
        for batch in batches(post, control):
            yield begin_put(batch, codec, producing, returned_ns)
            returned_ns = clock_ns()
            producing.finished(Outcome.DONE, returned_ns)

    def handle(bodies: Sequence[bytes]) -> None:
        messages = [Message(body, None) for body in bodies]
        receive(messages, codec, working, clock_ns(), post.workload.work_s)
        working.finished(Outcome.DONE, clock_ns())

    with contextlib.closing(offered()) as bodies:
        loaded().pump(bodies, handle)


LOOPS: dict[str, Any] = {"keeper": keep, "producer": produce, "worker": work, "inline": pump}
