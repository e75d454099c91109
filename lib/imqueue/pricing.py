"""Trials that show what durability costs: every backend in every class that it has, measured, then watched."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from imqueue import client, notebook, registry
from imqueue.backend import BackendError
from imqueue.client import Busy, DriverError
from imqueue.grouping import Group
from imqueue.price import Price, Prices
from imqueue.results import Result
from imqueue.workload import BadInput, choose

Cell = tuple[str, str]  # backend, durability

WARMUP_MAX = 200  # messages; at batch 1 in class flushed the usual 2,000 take longer than the trial


def durability(
    backends: str = "",
    *,
    messages: int = 10_000,
    batch: int = 1,
    repeats: int = 3,
    time_max_s: float = 2.0,
    seed: int = 0,
    progress: bool = True,
) -> Prices:
    """Run sums on each backend (`a,b`; empty: all that are here) in each class of durability that it has.

    `repeats` measured trials of each, interleaved in random order by `seed`; then one of each in which strace counts
    fsyncs and nothing is measured. Raises `BadInput`; `Busy` while another trial runs.
    """
    if not 1 <= repeats <= 100:
        raise BadInput(f"repeats is {repeats}; allowed: a whole number from 1 to 100")
    wanted, left_out = _here(backends)
    cells = [(name, str(each)) for name in wanted for each in registry.load(name).declares.durabilities]
    load: dict[str, Any] = {"messages": messages, "batch": batch, "time_max_s": time_max_s}
    load |= {"warmup_messages": min(WARMUP_MAX, messages)}
    tried = _run(_order(cells, repeats, seed), load, progress)
    prices = [_price(cell, [outcome for of, outcome in tried if of == cell]) for cell in cells]
    what = (
        f"Sums of {messages:,} messages or {time_max_s:g} s, one producer and one worker, batches of up to {batch:,}; "
        f"{repeats} of each in random order (seed {seed}), then one of each watched by strace, which slows it. A "
        "count holds for the rate that it was made at: where fsyncs come by the clock or are shared, as in class "
        "delayed, fewer fall on a message at full speed."
    )
    return Prices(prices, what, left_out)


def _here(backends: str) -> tuple[list[str], dict[str, str]]:
    """Those that can run, and why others cannot. One that was named and cannot is refused."""
    named = [choose("backend", each.strip(), registry.names()) for each in backends.split(",") if each.strip()]
    missing = client.connect().ask("GET", "/backends")
    reasons = {name: reason for name, reason in missing.items() if reason is not None}
    for name in named:
        if name in reasons:
            raise BadInput(f"{name} cannot run here: {reasons[name]}")
    return list(dict.fromkeys(named)) or [name for name in missing if name not in reasons], {} if named else reasons


def _order(cells: Sequence[Cell], repeats: int, seed: int) -> list[tuple[Cell, bool]]:
    """Each cell once a repeat, in an order of its own, and at last once to be watched."""
    chance = random.Random(seed)
    measured = [(cell, False) for _ in range(repeats) for cell in chance.sample(cells, len(cells))]
    return measured + [(cell, True) for cell in cells]


def _run(order: Sequence[tuple[Cell, bool]], load: dict[str, Any], progress: bool) -> list[tuple[Cell, Result | str]]:
    """What came of each, in this order: a result, or why it could not be started."""
    from tqdm import tqdm

    options: dict[str, Any] = {"leave": False, "bar_format": "{desc} {percentage:3.0f}%|{bar:30}| {elapsed}"}
    if not progress:
        options["disable"] = True  # said only here, so that TQDM_DISABLE holds where it is not
    tried: list[tuple[Cell, Result | str]] = []
    with tqdm(total=len(order), **options) as bar:
        for cell, watched in order:
            backend, durability = cell
            bar.set_description_str(f"{backend} {durability}{', watched' if watched else ''}")
            trial = {**load, "durability": durability, "count_fsyncs": watched}
            try:
                tried.append((cell, notebook.run(backend, progress=False, **trial)))
            except Busy:
                raise
            except (DriverError, BackendError) as error:
                tried.append((cell, str(error)))
            bar.update()
    return tried


def _price(cell: Cell, outcomes: Sequence[Result | str]) -> Price:
    backend, durability = cell
    declares = registry.load(backend).declares
    results = [each for each in outcomes if isinstance(each, Result)]
    return Price(
        backend,
        durability,
        Group(delivery=declares.delivery, durability="", settles=declares.settles, control=declares.control),
        results=[each for each in results if not each.watched],
        watched=next((each for each in results if each.watched), None),
        error=next((each for each in outcomes if isinstance(each, str)), None),
    )
