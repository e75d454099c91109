"""Trials made up by rule, so that a test knows what every figure must be; and one small real report a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imqueue import client
from imqueue.histogram import PROMETHEUS_BOUNDS_S

LATENCY_S = 0.002
SCRAPE_S = 0.5
FIRST_SCRAPE_S = -0.7


def make_trial(
    trials: Path,
    backend: str = "redis_list",
    shape: str = "flow",
    *,
    offered_hz: float = 1_000.0,
    duration_s: float = 4.0,
    sampled: bool = True,
    events: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> Path:
    """A trial of `offered_hz` for `duration_s`: every message is put when due and handled `LATENCY_S` later.

    `changes` replace what ``trial.json`` says; those of `audit` and `declares` are merged into it.
    """
    due_s = (np.arange(round(offered_hz * duration_s)) + 1) / offered_hz
    n = len(due_s)
    name = f"20261124-0515{len(list(trials.glob('*'))):02d}-{backend}-{shape}-0000"
    folder = trials / name
    folder.mkdir(parents=True)
    info = _info(name, backend, shape, n, offered_hz, duration_s)
    for key, value in changes.items():
        info[key] = {**info[key], **value} if key in ("audit", "declares") and value else value
    (folder / "trial.json").write_text(json.dumps(info))
    (folder / "events.json").write_text(json.dumps(events or [{"at_s": 0.0, "kind": "go", "text": "go"}]))
    if sampled:
        _series(due_s, duration_s).to_parquet(folder / "series.parquet")
        latency = {"lower_s": LATENCY_S * 0.998, "upper_s": LATENCY_S * 1.002, "count": n}
        pd.DataFrame([{"kind": kind, **latency} for kind in ("due", "sent")]).to_parquet(folder / "latency.parquet")
    return folder


def _series(due_s: np.ndarray, duration_s: float) -> pd.DataFrame:
    rows: list[tuple[str, float, float, str | None]] = []
    for at_s in np.arange(FIRST_SCRAPE_S, duration_s + 2 * SCRAPE_S, SCRAPE_S):
        due, popped = int((due_s <= at_s).sum()), int((due_s + LATENCY_S <= at_s).sum())
        for metric, value in (("due_total", due), ("push_total", due), ("pop_total", popped), ("queue_depth", 3)):
            rows.append((f"queue_trial_{metric}", at_s, value, None))
        for histogram in ("latency", "service"):
            for bound_s in (*PROMETHEUS_BOUNDS_S, np.inf):
                le = "+Inf" if np.isinf(bound_s) else f"{bound_s:.6g}"
                value = popped if bound_s >= LATENCY_S else 0
                rows.append((f"queue_trial_{histogram}_seconds_bucket", at_s, value, le))
    return pd.DataFrame(rows, columns=["metric", "time_s", "value", "le"])


def _info(name: str, backend: str, shape: str, n: int, rate_hz: float, duration_s: float) -> dict[str, Any]:
    figures = {"n": n, "p50_s": LATENCY_S, "p90_s": LATENCY_S, "p99_s": LATENCY_S, "p999_s": None}
    total = n * (n + 1) // 2
    workload = {"backend": backend, "messages": n, "rate_hz": rate_hz if shape == "flow" else None}
    found = ("lost", "duplicated", "unexpected", "corrupted", "recovered", "reordered", "undelivered")
    put = {"attempted": n, "acknowledged": n, "rejected": 0, "uncertain": 0, "received": n, "settled": n}
    return {
        "id": name,
        "backend": backend,
        "shape": shape,
        "made_at": "2026-11-24T05:15:12+00:00",
        "state": "done",
        "error": None,
        "workload": {**workload, "duration_s": duration_s},
        "durability": "delayed",
        "declares": {"built_on": "Redis lists", "delivery": "at most once", "settles": "none"},
        "guarantees": {"survives_kill": True, "survives_power_loss": {"seconds_s": 2.0}, "source": "CONFIG GET"},
        "times": {"setup_s": 0.1, "load_s": duration_s},
        "load_s": duration_s,
        "elapsed_s": duration_s + LATENCY_S,
        "rate_hz": rate_hz,
        "counts": {"due": n, "attempted": n, "pushed": n, "popped": n},
        "audit": {
            **put,
            **dict.fromkeys(found, 0),
            "sum_expected": total,
            "sum_received": total,
            "sum_fits": True,
            "passed": True,
        },
        "latency": {kind: {**figures, "max_s": LATENCY_S, "zero_n": 0, "negative_n": 0} for kind in ("due", "sent")},
        "stamps": [],
        "cpu_s": {"producer": 0.5, "worker": 0.4},
        "versions": {"python": "3.11.7", "server": "redis 7.0.15", "packages": {"redis": "6.0"}},
        "machine": {"cpu": "a CPU", "cores": 2, "memory_bytes": 8 * 2**30, "system": "Debian"},
        "server_settings": {"appendonly": "yes"},
    }


def run_report(data: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code`, which calls `report`, in a process of its own on a data folder of its own; end its driver."""
    head = "from pathlib import Path\nfrom imqueue.report import Profile, report\n"
    try:
        return subprocess.run(
            [sys.executable, "-c", head + code],
            env={**os.environ, "IMQUEUE_DATA": str(data)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    finally:
        client.end(data)


def small_report(base: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The data folder of a real report of two backends, made once a session, and what making it said."""
    data = base / "small-report"
    kept = base / "small-report.json"
    if not kept.exists():
        small = "Profile(name='small', messages=10_000, duration_s=2.0, rate_hz=1_000.0, "
        small += "price={'messages': 500, 'repeats': 1}, why=True)"
        done = run_report(data, f"raise SystemExit(report({small}, 'memory,redis_list'))")
        kept.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    code, stdout, stderr = json.loads(kept.read_text())
    return data, subprocess.CompletedProcess([], code, stdout, stderr)
