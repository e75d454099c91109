"""What recording costs: the harness' own loops with their ledger and with one that forgets, in turns within one run.

With: producer and worker write their ledgers, and twice a second the counts and histograms are brought up to date and
put into Prometheus' format, as in a trial. Without: the writer keeps nothing but the count of messages, which the cap
on the backlog reads. No trial can choose it: it lives here.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import multiprocessing
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import psutil
from prometheus_client import CollectorRegistry, generate_latest

import imqueue as imq
from imqueue import ledger, load
from imqueue.backend import Durability
from imqueue.control import Control, Phase
from imqueue.exporter import Exporter, Source
from imqueue.ledger import MESSAGES_N, STATE, Outcome, Page, State, Writer
from imqueue.load import Post
from imqueue.message import Rows, new_trial_number
from imqueue.tally import Tally
from imqueue.workload import Workload

COST_MAX = 0.05
SCRAPE_S = 0.5
LOOK_S = 0.002
END_MAX_S = 30.0

spawn = multiprocessing.get_context("spawn")


class Failed(Exception):
    """The loops did not come to their end."""


class Forgetful(Writer):
    """A ledger that nobody can audit."""

    def attempted(self, first: int, n: int, step: int, start_ns: int, late_n: int = 0) -> None:
        self.words[MESSAGES_N] += n

    def received(self, rows: Rows, start_ns: int, handled_ns: int) -> Rows:
        self.words[MESSAGES_N] += len(rows)
        return rows

    def received_one(self, word0: int, due_ns: int, sent_ns: int, start_ns: int, handled_ns: int) -> None:
        self.words[MESSAGES_N] += 1

    def finished(self, outcome: Outcome, end_ns: int) -> None:
        pass


class Run(NamedTuple):
    """Messages per second, and the CPU time that producer, worker and the reading of their ledgers took for each."""

    rate_hz: float
    cpu_us: float


class Shares:
    """What recording took of something, pair by pair."""

    def __init__(self, shares: Iterable[float]) -> None:
        self.shares = sorted(shares)

    @property
    def interval(self) -> tuple[float, float]:
        """What holds the true median with 95 % confidence, by the sign test; all pairs where they are too few."""
        n, outside = len(self.shares), -1
        while 2 * sum(math.comb(n, below) for below in range(outside + 2)) <= 0.05 * 2**n:
            outside += 1
        outside = max(outside, 0)
        return self.shares[outside], self.shares[n - 1 - outside]

    @property
    def word(self) -> str:
        low, high = self.interval
        return "within" if high <= COST_MAX else "over" if low > COST_MAX else "cannot tell from"

    def __str__(self) -> str:
        low, high = self.interval
        return f"{statistics.median(self.shares):.1%} ({low:.1%} to {high:.1%}), {self.word} {COST_MAX:.0%}"


@dataclass(frozen=True)
class Cost:
    """Neighbouring runs, with and without recording."""

    backend: str
    durability: str
    batch: int
    recorded: tuple[Run, ...]
    forgotten: tuple[Run, ...]

    @property
    def throughput(self) -> Shares:
        """What recording took of it."""
        return Shares(1 - ours.rate_hz / bare.rate_hz for ours, bare in self._pairs)

    @property
    def cpu(self) -> Shares:
        """What of the CPU time of producer, worker and reading is recording's; it spreads less than rates do."""
        return Shares(1 - bare.cpu_us / ours.cpu_us for ours, bare in self._pairs)

    @property
    def _pairs(self) -> list[tuple[Run, Run]]:
        return list(zip(self.recorded, self.forgotten, strict=True))

    def __str__(self) -> str:
        ours, bare = (Run(*map(statistics.median, zip(*each, strict=True))) for each in (self.recorded, self.forgotten))
        return (
            f"recording, {self.backend} {self.durability}, batch {self.batch}, {len(self.recorded)} pairs: "
            f"{ours.rate_hz:,.0f}/s with, {bare.rate_hz:,.0f}/s without: {self.throughput}; "
            f"CPU a message {ours.cpu_us:.2f} and {bare.cpu_us:.2f} µs: {self.cpu}"
        )


def measure(backend: str, durability: str, batch: int, pairs: int, seconds_s: float) -> Cost:
    """Runs right after one another, each of them first in turn. Raises `Failed`."""
    url = imq.server_url(backend, durability)
    runs: dict[bool, list[Run]] = {True: [], False: []}
    for index in range(pairs):
        for recorded in (True, False) if index % 2 else (False, True):
            runs[recorded].append(run(backend, url, durability, batch, seconds_s, recorded))
    return Cost(backend, durability, batch, tuple(runs[True]), tuple(runs[False]))


def run(backend: str, url: str, durability: str, batch: int, seconds_s: float, recorded: bool) -> Run:
    """`seconds_s` of putting, until all have come. Raises `Failed`."""
    workload = Workload(backend=backend, messages=10**9, batch=batch, warmup_messages=0)
    with tempfile.TemporaryDirectory(prefix="imq-bench-") as folder:
        (Path(folder) / "ledger").mkdir()
        queue = f"bench_{secrets.token_hex(6)}"
        template = Post("", "", 0, Path(folder), new_trial_number(), workload, url, queue, Durability(durability))
        with template.handle() as handle:
            try:
                return _run(template, seconds_s, recorded)
            finally:
                handle.destroy()


def _run(template: Post, seconds_s: float, recorded: bool) -> Run:
    control = Control(template.folder, create=True)
    control.workers = 1
    posts = [dataclasses.replace(template, role=role, name=f"{role}-0") for role in ("worker", "producer")]
    for post in posts:
        ledger.create(template.folder / "ledger", post.name)
        control.seat(post.role)
    pages = [Page(template.folder / "ledger", post.name) for post in posts]
    children = [spawn.Process(target=loop, args=(post, recorded), daemon=True) for post in posts]
    tally = Tally(template.folder, template.trial)
    scrape = _scraper(template, tally) if recorded else lambda: None
    try:
        for child in children:
            child.start()
        _wait(lambda: pages[0][STATE] == State.OPEN and pages[1][STATE] == State.WARM, END_MAX_S)
        cpu_s = _cpu_s(children)
        n, took_s = _measured(control, pages[0], pages[1], seconds_s, scrape)
        return Run(n / took_s, (_cpu_s(children) - cpu_s) * 1e6 / n)
    finally:
        control.phase = Phase.STOP
        tally.close()
        for child in children:
            child.join(5.0)
            child.kill()
            child.join()


def _cpu_s(children: Sequence[BaseProcess]) -> float:
    """Ours, for reading the ledgers, and the children's."""
    times = [psutil.Process(child.pid).cpu_times() for child in children]
    return time.process_time() + sum(each.user + each.system for each in times)


def _measured(
    control: Control, worker: Page, producer: Page, seconds_s: float, scrape: Callable[[], object]
) -> tuple[int, float]:
    """How many messages came, and how long that took."""
    control.phase = Phase.READY
    go_ns = time.monotonic_ns() + 50_000_000
    control.go(go_ns, go_ns + int(seconds_s * 1e9))
    next_s = time.monotonic() + SCRAPE_S

    def all_came() -> bool:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s += SCRAPE_S
            scrape()
        return producer[STATE] == State.ENDED and worker[MESSAGES_N] == producer[MESSAGES_N]

    _wait(all_came, seconds_s + END_MAX_S)
    return worker[MESSAGES_N], (time.monotonic_ns() - go_ns) / 1e9


def _scraper(post: Post, tally: Tally) -> Callable[[], object]:
    """What the driver does when Prometheus asks."""
    for name in ("producer-0", "worker-0"):
        tally.add(name)
    exporter = Exporter()
    exporter.source = Source("bench", post.workload.backend, tally, is_flow=False)
    registry = CollectorRegistry()
    registry.register(exporter)
    return lambda: generate_latest(registry)


def _wait(true: Callable[[], bool], most_s: float) -> None:
    deadline = time.monotonic() + most_s
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"the loops were not done after {most_s:g} s")
        time.sleep(LOOK_S)


def loop(post: Post, recorded: bool) -> None:
    """A child: one of the harness' loops, set up as `load.run` does."""
    load.sharpen_timers()
    gc.freeze()
    gc.set_threshold(load.GC_EVERY)
    writer = (Writer if recorded else Forgetful)(post.folder / "ledger", post.name)
    control = Control(post.folder)
    load.LOOPS[post.role](post, control, writer)
    writer.words[STATE] = State.ENDED
    while control.phase != Phase.STOP:  # so that its CPU time can still be read
        time.sleep(LOOK_S)
