"""What recording costs: the harness' own loops with their ledger and with one that forgets, in turns within one run.

With: producer and worker write their ledgers, and twice a second the counts and histograms are brought up to date and
put into Prometheus' format, as in a trial. Without: the writer keeps nothing but the count of messages, which the cap
on the backlog reads. No trial can choose it: it lives here.
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Cost:
    """Messages per second of neighbouring runs, with and without recording."""

    backend: str
    batch: int
    with_hz: tuple[float, ...]
    without_hz: tuple[float, ...]

    @property
    def shares(self) -> list[float]:
        """The share of its throughput that recording took, run by run."""
        return [1 - ours / bare for ours, bare in zip(self.with_hz, self.without_hz, strict=True)]

    @property
    def share(self) -> float:
        return statistics.median(self.shares)

    def __str__(self) -> str:
        kept = "within" if self.share <= COST_MAX else "over"
        return (
            f"recording, {self.backend}, batch {self.batch}: {statistics.median(self.with_hz):,.0f}/s with, "
            f"{statistics.median(self.without_hz):,.0f}/s without: it costs {self.share:.1%} "
            f"({min(self.shares):.1%} to {max(self.shares):.1%}; {kept} {COST_MAX:.0%})"
        )


def measure(backend: str, batch: int, pairs: int, seconds_s: float) -> Cost:
    """Runs right after one another, each of them first in turn. Raises `Failed`."""
    url = imq.server_url(backend, str(Durability.MEMORY))
    rates: dict[bool, list[float]] = {True: [], False: []}
    for index in range(pairs):
        for recorded in (True, False) if index % 2 else (False, True):
            rates[recorded].append(rate_hz(backend, url, batch, seconds_s, recorded))
    return Cost(backend, batch, tuple(rates[True]), tuple(rates[False]))


def rate_hz(backend: str, url: str, batch: int, seconds_s: float, recorded: bool) -> float:
    """Messages settled per second, of `seconds_s` of putting until all have come. Raises `Failed`."""
    workload = Workload(backend=backend, messages=10**9, batch=batch, warmup_messages=0)
    with tempfile.TemporaryDirectory(prefix="imq-bench-") as folder:
        (Path(folder) / "ledger").mkdir()
        queue = f"bench_{secrets.token_hex(6)}"
        template = Post("", "", 0, Path(folder), new_trial_number(), workload, url, queue, Durability.MEMORY)
        with template.handle() as handle:
            try:
                return _run(template, seconds_s, recorded)
            finally:
                handle.destroy()


def _run(template: Post, seconds_s: float, recorded: bool) -> float:
    control = Control(template.folder, create=True)
    control.workers = 1
    posts = [dataclasses.replace(template, role=role, name=f"{role}-0") for role in ("worker", "producer")]
    for post in posts:
        ledger.create(template.folder / "ledger", post.name)
        control.seat(post.role)
    pages = [Page(template.folder / "ledger", post.name) for post in posts]
    children = [spawn.Process(target=loop, args=(post, recorded), daemon=True) for post in posts]
    scrape = _scraper(template) if recorded else lambda: None
    try:
        for child in children:
            child.start()
        _wait(lambda: pages[0][STATE] == State.OPEN and pages[1][STATE] == State.WARM, END_MAX_S)
        return _measured(control, pages[0], pages[1], seconds_s, scrape)
    finally:
        control.phase = Phase.STOP
        for child in children:
            child.join(5.0)
            child.kill()
            child.join()


def _measured(control: Control, worker: Page, producer: Page, seconds_s: float, scrape: Callable[[], object]) -> float:
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
    return worker[MESSAGES_N] / ((time.monotonic_ns() - go_ns) / 1e9)


def _scraper(post: Post) -> Callable[[], object]:
    """What the driver does when Prometheus asks."""
    tally = Tally(post.folder, post.trial)
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
    load.LOOPS[post.role](post, Control(post.folder), writer)
    writer.words[STATE] = State.ENDED
