"""One producer process and one consumer process on a fresh queue, as fast as they go."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import secrets
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from typing import Any

BACKLOG_MAX = 20_000
SIZE_BYTES = 32
NAP_S = 0.0002  # a producer looks at the backlog this often while it is full
START_MAX_S = 30.0
DRAIN_MAX_S = 20.0

spawn = multiprocessing.get_context("spawn")


class Failed(Exception):
    """A loop did not come to its end, or what it moved did not come out right."""


@dataclass(frozen=True)
class Job:
    """What a pair does: `seconds_s` of putting, until all of it is settled."""

    backend: str
    url: str
    queue: str
    durability: str
    batch: int
    seconds_s: float

    @property
    def loops(self) -> Any:
        return importlib.import_module(f"bench.bare.{self.backend}")


class Shared:
    """What the two processes tell each other: single words that one of them writes."""

    def __init__(self) -> None:
        self.sent = spawn.Value("q", 0, lock=False)
        self.received = spawn.Value("q", 0, lock=False)
        self.ended = spawn.Value("b", 0, lock=False)
        self.rate_hz = spawn.Value("d", 0.0, lock=False)
        self.ready = spawn.Barrier(2)


def rate_hz(backend: str, url: str, durability: str, batch: int, seconds_s: float) -> float:
    """Messages put, taken and settled per second. Raises `Failed`."""
    job = Job(backend, url, f"bare_{secrets.token_hex(6)}", durability, batch, seconds_s)
    if hasattr(job.loops, "rate_hz"):
        return _own_pair(job)
    shared = Shared()
    try:
        job.loops.create(job.url, job.queue, job.durability)
    except Exception as error:
        raise Failed(f"the bare client could not make a queue: {error!r}") from error
    children = [spawn.Process(target=loop, args=(job, shared), daemon=True) for loop in (produce, consume)]
    try:
        for child in children:
            child.start()
        _wait(children, START_MAX_S + seconds_s + DRAIN_MAX_S)
    finally:
        for child in children:
            child.kill()
            child.join()
        with contextlib.suppress(Exception):  # a server that is gone was told already
            job.loops.destroy(job.url, job.queue)
    return float(shared.rate_hz.value)


def _own_pair(job: Job) -> float:
    """The rate of loops that bring their own two processes, in another language. Raises `Failed`."""
    told = {**asdict(job), "backlog_max": BACKLOG_MAX, "size_bytes": SIZE_BYTES}
    try:
        return float(job.loops.rate_hz(told))
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise Failed(str(error)) from error
    finally:
        job.loops.destroy(job.url, job.queue)


def _wait(children: Sequence[BaseProcess], most_s: float) -> None:
    deadline = time.monotonic() + most_s
    while any(child.is_alive() for child in children) and time.monotonic() < deadline:
        time.sleep(0.01)
        if any(child.exitcode for child in children):
            break
    codes = [child.exitcode for child in children]
    if codes != [0, 0]:
        raise Failed(f"the bare loop ended with {codes} (producer, consumer; None: it had to be stopped)")


def produce(job: Job, shared: Shared) -> None:
    producer = job.loops.Producer(job.url, job.queue, job.durability)
    bodies = [secrets.token_bytes(SIZE_BYTES) for _ in range(job.batch)]
    batch, sent, received = job.batch, shared.sent, shared.received
    gc.freeze()
    shared.ready.wait(START_MAX_S)
    end_s = time.monotonic() + job.seconds_s
    while time.monotonic() < end_s:
        while sent.value - received.value + batch > BACKLOG_MAX and time.monotonic() < end_s:
            time.sleep(NAP_S)
        producer.put(bodies)
        sent.value += batch
    shared.ended.value = 1


def consume(job: Job, shared: Shared) -> None:
    consumer = job.loops.Consumer(job.url, job.queue, job.durability, job.batch)
    received, settled_n = shared.received, 0
    gc.freeze()
    shared.ready.wait(START_MAX_S)
    start_s = last_s = time.monotonic()
    while True:
        taken = consumer.take()
        if taken:
            received.value += len(taken)
            consumer.settle(taken)
            settled_n += len(taken)
            last_s = time.monotonic()
        elif shared.ended.value and settled_n >= shared.sent.value:
            break
        elif time.monotonic() > start_s + job.seconds_s + DRAIN_MAX_S:
            raise Failed(f"{settled_n} of {shared.sent.value} messages arrived")
    shared.rate_hz.value = settled_n / (last_s - start_s)
