"""The table: for each backend and batch the harness beside the bare loop, in turns within one run.

A ratio is the median over pairs that ran right after one another, since the machine's own speed wanders. The bare
loop of a pair tells how many messages the sum beside it takes, so that both run about as long.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imqueue as imq
from bench import own, pair
from imqueue import registry
from imqueue.backend import Backend, Durability
from imqueue.notebook import Trial
from imqueue.workload import BadInput, choose

RATIO_MIN = 0.8
CONTROL_HZ = 500_000.0  # about what the backends without a server reach: it sizes their sums
BUSY_MAX_S = 120.0  # how long to wait for somebody else's trial to end
TARGETS_HZ = {("redis_list", "memory", 1000): 700_000.0, ("rabbitmq", "delayed", 1000): 15_000.0}
ROW = "{:<17}{:<10}{:>6}{:>14}{:>14}{:>8}  {:<14}{}"


@dataclass(frozen=True)
class Cell:
    """One row of the table. Rates are messages per second."""

    backend: str
    durability: str
    batch: int
    harness_hz: tuple[float, ...] = ()
    bare_hz: tuple[float, ...] = ()
    failure: str = ""

    @property
    def ratios(self) -> list[float]:
        return [ours / bare for ours, bare in zip(self.harness_hz, self.bare_hz, strict=True)]

    def __str__(self) -> str:
        name = (self.backend, self.durability, self.batch)
        if self.failure:
            return f"{ROW.format(*name, '', '', '', '', '').rstrip()}  failed: {self.failure}"
        ours, bare = statistics.median(self.harness_hz), statistics.median(self.bare_hz)
        ratio, low, high = statistics.median(self.ratios), min(self.ratios), max(self.ratios)
        flag = f"  under {RATIO_MIN}" if ratio < RATIO_MIN else ""
        return ROW.format(
            *name, f"{ours:,.0f}", f"{bare:,.0f}", f"{ratio:.2f}", f"({low:.2f}-{high:.2f})", flag
        ).rstrip()


def bare_names() -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parent / "bare").glob("[a-z]*.py"))


def cells(names: Sequence[str], batches: Sequence[int], durability: str | None) -> list[Cell]:
    """What to measure: each backend in one class, its default one, and what a target asks for besides."""
    found = []
    for name in names:
        loaded = registry.load(name)
        assert issubclass(loaded, Backend)
        chosen = durability or str(loaded.declares.default_durability)
        if chosen in loaded.declares.durabilities:
            found += [Cell(name, chosen, batch) for batch in batches]
    targets = [Cell(*target) for target in TARGETS_HZ if target[0] in names and target[2] in batches]
    return found + [each for each in targets if each not in found and durability is None]


def measure(cell: Cell, pairs: int, seconds_s: float) -> Cell:
    rates: list[tuple[float, float]] = []
    try:
        url = imq.server_url(cell.backend, cell.durability)
        for _ in range(pairs):
            bare_hz = pair.rate_hz(cell.backend, url, cell.durability, cell.batch, seconds_s)
            rates.append((harness_rate_hz(cell, bare_hz, seconds_s), bare_hz))
    except (pair.Failed, imq.DriverError, BadInput) as error:
        return replace(cell, failure=str(error))
    harness, bare = zip(*rates, strict=True)
    return replace(cell, harness_hz=harness, bare_hz=bare)


def harness_rate_hz(cell: Cell, bare_hz: float, seconds_s: float) -> float:
    """Of a sum of as many messages as the bare loop moved. Raises `Failed` where its audit did not pass."""
    trial = start_when_free(
        cell.backend,
        messages=max(cell.batch, round(bare_hz * seconds_s)),
        batch=cell.batch,
        durability=cell.durability,
        backlog_max=pair.BACKLOG_MAX,
        size_bytes=pair.SIZE_BYTES,
        time_max_s=4 * seconds_s,
    )
    result = trial.wait(progress=False)
    if result.rate_hz is None or not result.passed:
        raise pair.Failed(result.verdict())
    return result.rate_hz


def start_when_free(backend: str, **workload: Any) -> Trial:
    """Only one trial runs on a machine at a time. Raises `imqueue.Busy` where the other one does not end."""
    deadline = time.monotonic() + BUSY_MAX_S
    while True:
        try:
            return imq.start(backend, **workload)
        except imq.Busy:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def verdict(measured: Sequence[Cell]) -> list[str]:
    """One line for each target, and one for the ratios."""
    lines = []
    for cell in measured:
        least = TARGETS_HZ.get((cell.backend, cell.durability, cell.batch))
        if least and cell.harness_hz:
            best = statistics.median(cell.harness_hz)
            word = "kept" if best >= least else "missed"
            lines.append(f"{cell.backend}, {cell.durability}, batch {cell.batch}: {least:,.0f}/s {word} ({best:,.0f})")
    lines.append(_kept("at each batch", measured))
    at_best: dict[tuple[str, str], Cell] = {}
    for cell in measured:
        so_far = at_best.setdefault((cell.backend, cell.durability), cell)
        if statistics.median(cell.bare_hz or [0.0]) > statistics.median(so_far.bare_hz or [0.0]):
            at_best[cell.backend, cell.durability] = cell
    lines.append(_kept("at the batch that is the bare client's best", list(at_best.values())))
    return lines


def _kept(which: str, measured: Sequence[Cell]) -> str:
    short = [cell for cell in measured if not cell.ratios or statistics.median(cell.ratios) < RATIO_MIN]
    names = ", ".join(f"{cell.backend} {cell.durability} {cell.batch}" for cell in short)
    kept = f"{which}: {len(measured) - len(short)} of {len(measured)} at {RATIO_MIN} of the bare client or above"
    return f"{kept}; short: {names}" if short else kept


def harness_alone(batches: Sequence[int], seconds_s: float) -> list[str]:
    """What the harness itself costs: sums through the controls, and through queues that live in one process."""
    lines = ["the harness alone, µs a message at batch " + " / ".join(map(str, batches))]
    for name in registry.names():
        loaded = registry.load(name)
        if loaded.declares.control or loaded.declares.in_process:
            cells = [Cell(name, str(loaded.declares.default_durability), batch) for batch in batches]
            rates = [harness_rate_hz(cell, CONTROL_HZ, seconds_s) for cell in cells]
            lines.append(f"{name:<17}{' / '.join(f'{1e6 / rate_hz:.2f}' for rate_hz in rates)}")
    return lines


def fastest_networked(measured: Sequence[Cell]) -> Cell:
    """The cell with the best median rate at batch 100; redis_list where none was measured."""
    networked = [each for each in measured if each.batch == own.BATCH and registry.load(each.backend).declares.server]
    able = [each for each in networked if each.harness_hz]
    fallback = Cell("redis_list", str(Durability.MEMORY), own.BATCH)
    return max(able, key=lambda cell: statistics.median(cell.harness_hz), default=fallback)


def _positive(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 600:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 0.1 to 600")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where a trial or a bare loop failed; a rate alone is never a failure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help="backends, e.g. redis_list,sqlite")
    parser.add_argument("--batch", default="1,100,1000", help="batches, e.g. 100")
    parser.add_argument(
        "--durability",
        choices=[str(each) for each in Durability],
        help="one class for all (default: each backend's own)",
    )
    parser.add_argument("--seconds", type=_positive, default=2.0, help="how long one loop runs")
    parser.add_argument("--pairs", type=int, choices=range(1, 101), metavar="N", default=3, help="how often each")
    parser.add_argument("--rates-only", action="store_true", help="leave out what the harness takes for itself")
    parser.add_argument("--audits", action="store_true", help="audit many messages with --only too")
    chosen = parser.parse_args(arguments)
    try:
        names = (
            [choose("backend", name, bare_names()) for name in chosen.only.split(",")] if chosen.only else bare_names()
        )
        batches = [int(each) for each in chosen.batch.split(",")]
        if not all(1 <= batch <= pair.BACKLOG_MAX for batch in batches):
            raise BadInput(f"--batch is {chosen.batch}; allowed: 1 to {pair.BACKLOG_MAX}")
        todo = cells(names, batches, chosen.durability)
    except (BadInput, ValueError) as error:
        parser.error(str(error))
    print(ROW.format("backend", "class", "batch", "harness/s", "bare/s", "ratio", "(min-max)", ""), flush=True)
    measured = []
    for cell in todo:
        measured.append(measure(cell, chosen.pairs, chosen.seconds))
        print(measured[-1], flush=True)
    print(*verdict(measured), sep="\n", flush=True)
    if not chosen.only:
        print(*harness_alone(batches, chosen.seconds), sep="\n", flush=True)
    fastest = fastest_networked(measured)
    for line in () if chosen.rates_only else own.lines(fastest.backend, fastest.durability):
        print(line, flush=True)
    for line in own.audits() if chosen.audits or not (chosen.only or chosen.rates_only) else ():
        print(line, flush=True)
    return 1 if any(cell.failure for cell in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
