"""What a trial leaves behind: its ledgers audited, its series fetched, all of it written to its folder."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imqueue import audit, machine, series, stamps, store, version
from imqueue.audit import Audit, Latencies
from imqueue.exporter import Source
from imqueue.facts import Facts
from imqueue.histogram import Histogram
from imqueue.ledger import Outcome, Reader

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "p999_s": 0.999}
WATCHED = {
    "why": "its server was asked for its own view meanwhile, which costs it some speed: its figures are not ranked",
    "count_fsyncs": "fsyncs were counted by strace, which slows what it watches: its speed is no figure",
}
MARGIN_S = 2.0  # of series before the start of the load
SETTLE_TRIES = 10
SETTLE_S = 0.1


def write(facts: Facts, folder: Path, live: Path, source: Source, prometheus_url: str) -> None:
    """Audit what the ledgers in `live` hold and write ``trial.json`` and its companions to `folder`.

    ``trial.json`` comes last: a folder that has one is whole.
    """
    source.tally.update()
    with contextlib.ExitStack() as stack:
        names = [path.stem for path in sorted((live / "ledger").glob("*-*.batches"))]
        readers = {name: stack.enter_context(Reader(live / "ledger", name)) for name in names}
        _write(facts, folder, live, source, prometheus_url, readers)


def _write(
    facts: Facts, folder: Path, live: Path, source: Source, prometheus_url: str, readers: dict[str, Reader]
) -> None:
    fifo = bool((facts.guarantees or {}).get("fifo", facts.declares.fifo))
    verdict, latencies = audited(readers, trial=facts.number, fifo=fifo, drained=facts.drained)
    frame, disagreements = _series(facts, source, prometheus_url)
    if frame is not None:
        frame.to_parquet(folder / "series.parquet", index=False)
    store.write_histograms(folder / "latency.parquet", {"due": latencies.due, "sent": latencies.sent})
    store.pack_ledgers(live / "ledger", folder / "ledger", list(readers))
    store.write_json(folder / "events.json", facts.events_dict())
    figures = _figures(facts, source, readers)
    judged = stamps.judge(_stamp_facts(facts, source, figures, disagreements))
    content = {
        **facts.as_dict(),
        **figures,
        "audit": audit.as_dict(verdict),
        "latency": {"due": _summary(latencies.due), "sent": _summary(latencies.sent)},
        "stamps": [asdict(stamp) for stamp in judged],
        "crosscheck": _crosscheck(source, frame, disagreements),
        "versions": {
            "python": sys.version.split()[0],
            "server": facts.server_version,
            "prometheus": facts.prometheus_version,
            "packages": machine.packages(),
        },
        "machine": machine.describe(),
        "code": version.code(),
    }
    store.write_json(folder / "trial.json", content)


def audited(readers: dict[str, Reader], *, trial: int, fifo: bool, drained: bool) -> tuple[Audit, Latencies]:
    """The audit of what the ledgers' files hold, read in chunks."""
    producers = {name: each.all_batches for name, each in readers.items() if name.startswith("producer")}
    workers = {name: (each.all_batches, each.all_rows) for name, each in readers.items() if name.startswith("worker")}
    return audit.audit(producers, workers, trial=trial, fifo=fifo, drained=drained)


def _series(facts: Facts, source: Source, url: str) -> tuple[pd.DataFrame | None, list[str]]:
    """The trial's raw samples, and where their last counts differ from the ledger's.

    Prometheus stores a scrape a moment after it was served, so it is asked a few times.
    """
    if not facts.go_ns:
        return None, []
    tally = source.tally
    problems: list[str] = []
    for _ in range(SETTLE_TRIES):
        try:
            start_s = facts.go_wall_s - MARGIN_S
            frame = series.fetch(url, facts.id, start_s, time.time(), facts.go_wall_s)
        except series.SeriesError as error:
            return None, [str(error)]
        problems = [
            f"{name}: {last if last is None else int(last):} in Prometheus, {count} in the ledger"
            for name, count in (("push", tally.pushed), ("pop", tally.popped))
            if (last := series.last_value(frame, f"queue_trial_{name}_total")) != count
        ]
        if not problems:
            break
        time.sleep(SETTLE_S)
    return frame, problems


def _crosscheck(source: Source, frame: pd.DataFrame | None, disagreements: list[str]) -> dict[str, Any]:
    def last(name: str) -> float | None:
        return None if frame is None else series.last_value(frame, f"queue_trial_{name}_total")

    return {
        "push_ledger": source.tally.pushed,
        "push_prometheus": last("push"),
        "pop_ledger": source.tally.popped,
        "pop_prometheus": last("pop"),
        "agrees": frame is not None and not disagreements,
    }


def _figures(facts: Facts, source: Source, readers: dict[str, Reader]) -> dict[str, Any]:
    """Counts and rates; None where the measured load never began."""
    tally = source.tally
    counts = {
        "due": source.due_total(facts.end_ns) if facts.go_ns else 0,
        "attempted": tally.attempted,
        "pushed": tally.pushed,
        "popped": tally.popped,
        "redelivered": tally.redelivered,
        "rejected": tally.rejected,
        "uncertain": tally.uncertain,
        "late": tally.late,
        "settled_in_window": sum(
            _settled_before(records, facts.end_ns)
            for name, reader in readers.items()
            if name.startswith("worker")
            for records in reader.all_batches()
        ),
    }
    elapsed_s = (tally.last_settled_ns - facts.go_ns) / 1e9 if tally.popped and facts.go_ns else None
    window_s = (facts.end_ns - facts.go_ns) / 1e9 if facts.go_ns else None
    load_s = window_s if source.is_flow else elapsed_s
    settled = counts["settled_in_window"] if source.is_flow else tally.popped
    rate_hz = settled / load_s if load_s else None
    return {"counts": counts, "elapsed_s": elapsed_s, "load_s": load_s, "rate_hz": rate_hz}


def _settled_before(records: NDArray[np.void], until_ns: int) -> int:
    settled = (records["outcome"] == Outcome.DONE) & (records["end_ns"] <= until_ns)
    return int(records["n"][settled].sum())


def _stamp_facts(facts: Facts, source: Source, figures: dict[str, Any], disagreements: list[str]) -> stamps.Facts:
    counts = figures["counts"]
    return stamps.Facts(
        is_flow=source.is_flow,
        attempted=counts["attempted"],
        late=counts["late"],
        due=counts["due"],
        settled_in_window=counts["settled_in_window"],
        window_s=facts.window_s,
        client_cores=facts.client_cores,
        machine_cores=facts.machine_cores,
        errors=tuple([facts.error] if facts.error else facts.harness_errors),
        disagreements=tuple(disagreements),
        watched=tuple(reason for name, reason in WATCHED.items() if getattr(facts.workload, name)),
    )


def _summary(histogram: Histogram) -> dict[str, Any]:
    """Percentiles and the maximum in seconds; None for one that is unresolved, and why."""
    found = {name: histogram.quantile(q) for name, q in QUANTILES.items()}
    reasons = {name: each.reason for name, each in found.items() if each.value_s is None}
    return {
        "n": histogram.n,
        **{name: each.value_s for name, each in found.items()},
        "unresolved": reasons if histogram.n else {**reasons, "max_s": "nothing was measured"},
        "max_s": histogram.max_ns / 1e9 if histogram.n else None,
        "zero_n": histogram.zero_n,
        "negative_n": histogram.negative_n,
    }
