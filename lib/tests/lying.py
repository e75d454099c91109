"""The liars of ``liars/liar.py``, what the audit must say of each, and the loops run on one without a driver."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imqueue import audit, ledger, registry
from imqueue.audit import Audit
from imqueue.backend import Backend, Durability
from imqueue.control import Control, Phase
from imqueue.ledger import STATE, WARM_N, Page, Reader, State
from imqueue.load import Post, perform
from imqueue.message import new_trial_number
from imqueue.pace import clock_ns
from imqueue.workload import Workload

LIARS = Path(__file__).parent / "liars"
N = 3_000
WORKLOAD: dict[str, Any] = {"messages": N, "batch": 100, "size_bytes": 40, "warmup_messages": 200}


@dataclass(frozen=True)
class Case:
    """`lie` goes into the liar's folder; `found` has the integers of each verdict. What is not named must be empty."""

    lie: dict[str, Any]
    found: dict[str, list[int]] = field(default_factory=dict)
    sum_fits: bool = True

    def check(self, told: dict[str, Any]) -> None:
        """`told`: the audit as it stands in ``trial.json``."""
        verdicts = ("lost", "duplicated", "unexpected", "corrupted", "recovered", "reordered", "undelivered")
        assert {name: told[name] for name in verdicts} == {name: len(self.found.get(name, [])) for name in verdicts}
        assert told["examples"] == self.found
        assert told["attempted"] == told["acknowledged"] == N
        assert told["received"] == N - len(self.found.get("lost", []))
        assert told["sum_fits"] == self.sum_fits
        assert told["passed"] == (not set(self.found) & {"lost", "unexpected", "corrupted"})


def losing(*integers: int) -> Case:
    return Case({"lie": "loses", "integers": integers}, {"lost": list(integers)}, sum_fits=False)


def corrupting(**positions: int) -> Case:
    """By integer (`_7`), the position of the byte. In bytes 4 to 7 lies the integer itself.

    The audit can name a corrupted message only by what stands in its header; the one that was put is lost.
    """
    named = {name[1:]: at for name, at in positions.items()}
    told = [int(name) ^ (0x10 << 8 * (at - 4) if 4 <= at < 8 else 0) for name, at in named.items()]
    found = {"corrupted": sorted(told), "lost": sorted(map(int, named))}
    return Case({"lie": "corrupts", "positions": named}, found, sum_fits=False)


DROPPED = [k for k in range(1, N + 1) if (k - 1) // 100 % 10 == 9]

CASES = {
    "tells the truth": Case({}),
    "loses one in a thousand": Case({"lie": "loses_every", "nth": 1000}, {"lost": [1000, 2000, 3000]}, sum_fits=False),
    "loses the first, the middle and the last": losing(1, 1500, 3000),
    "acknowledges every tenth put and drops it": Case(
        {"lie": "drops", "nth_put": 10}, {"lost": DROPPED}, sum_fits=False
    ),
    "delivers three twice": Case(
        {"lie": "duplicates", "integers": [1, 77, 3000]}, {"duplicated": [1, 77, 3000]}, sum_fits=False
    ),
    "swaps 5 for 2 and 3": Case({"lie": "swaps", "lost": 5, "doubled": [2, 3]}, {"lost": [5], "duplicated": [2, 3]}),
    "reorders two": Case({"lie": "reorders", "integers": [10, 2998]}, {"reordered": [10, 2998]}),
    "corrupts a byte of a header and one of a padding": corrupting(_7=20, _2900=39),
    "corrupts the integer itself": corrupting(_5=4),
    "delivers a message of another trial": Case(
        {"lie": "brings", "foreign": 9_999_999, "after": 50}, {"unexpected": [9_999_999]}
    ),
}
BY_THE_BYTE = {
    "loses the first": losing(1),
    "loses the middle": losing(1500),
    "loses the last": losing(3000),
    **{f"corrupts byte {position}": corrupting(_1501=position) for position in (0, 3, 4, 7, 8, 16, 24, 32, 39)},
}


def tell(folder: Path, lie: dict[str, Any]) -> None:
    """What the liar shall do whose handles are given this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lie.json").write_text(json.dumps(lie))


def run_loops(folder: Path, **workload: Any) -> Audit:
    """A sum's loops as threads of this process, on the liar in `folder`; the audit of what they wrote."""
    wanted = Workload(backend="liar", **workload)
    trial = new_trial_number()
    (folder / "ledger").mkdir()
    control = Control(folder, create=True)
    control.workers = wanted.workers
    template = Post("", "", 0, folder, trial, wanted, str(folder), f"q{trial}", Durability.MEMORY)
    posts = [_post(template, "producer", rank, control) for rank in range(wanted.producers)]
    posts += [_post(template, "worker", rank, control) for rank in range(wanted.workers)]
    pages = {post.name: Page(folder / "ledger", post.name) for post in posts}
    threads = [threading.Thread(target=perform, args=(post,), daemon=True) for post in posts]
    for thread in threads:
        thread.start()
    _go(control, pages, wanted)
    _drain(template.handle(), control)
    for thread in threads:
        thread.join(10)
    assert [page[STATE] for page in pages.values()] == [State.ENDED] * len(posts)
    return _audit(folder, trial, list(pages))


def _post(template: Post, role: str, rank: int, control: Control) -> Post:
    from dataclasses import replace

    name = f"{role}-{rank}"
    ledger.create(template.folder / "ledger", name)
    control.seat(role)
    return replace(template, role=role, name=name, rank=rank)


def _go(control: Control, pages: dict[str, Page], wanted: Workload) -> None:
    """Warm up as a trial does, then measure until the producers have ended."""
    producers = [page for name, page in pages.items() if name.startswith("producer")]
    workers = [page for name, page in pages.items() if name.startswith("worker")]
    _until(lambda: all(page[STATE] >= State.WARM for page in producers))
    _until(lambda: sum(page[WARM_N] for page in workers) >= sum(page[WARM_N] for page in producers))
    control.phase = Phase.READY
    control.go(clock_ns(), clock_ns() + int(wanted.time_max_s * 1e9))
    _until(lambda: all(page[STATE] >= State.ENDED for page in producers))


def _drain(handle: Backend, control: Control) -> None:
    with handle:
        _until(lambda: handle.depth() == 0)
        control.phase = Phase.STOP  # a worker books the batch that it holds before it ends
        handle.destroy()


def _until(condition: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        time.sleep(0.001)


def _audit(folder: Path, trial: int, names: list[str]) -> Audit:
    readers = {name: Reader(folder / "ledger", name) for name in names}
    producers = {name: each.batches() for name, each in readers.items() if name.startswith("producer")}
    workers = {name: (each.batches(), each.all_rows) for name, each in readers.items() if name.startswith("worker")}
    found, _ = audit.audit(producers, workers, trial=trial, fifo=registry.load("liar").declares.fifo)
    for reader in readers.values():
        reader.close()
    return found
