"""Make the kept A/A data anew: real trials of a backend against itself, of which only the figures are kept.

python lib/tests/again.py 24 redis_list postgres > lib/tests/data/again.json
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import imqueue as imq
from imqueue.results import Result

SEED = 20261124
SHAPES: dict[str, dict[str, Any]] = {
    "sum": {"messages": 500_000},
    "flow": {"rate_hz": 2_000.0, "duration_s": 5.0},
}


def figures(result: Result, block: int, order: int) -> dict[str, Any]:
    due = (result.info.get("latency") or {}).get("due", {})
    return {
        "backend": result.backend,
        "shape": result.shape,
        "block": block,
        "order": order,
        "passed": result.passed,
        "stamps": [each["stamp"] for each in result.stamps],
        "rate_hz": result.rate_hz,
        "p50_s": due.get("p50_s"),
        "p99_s": due.get("p99_s"),
    }


def alike(first: Result, result: Result) -> None:
    """Raises `SystemExit` where a repeat was not made like the first: figures of both would be no A/A."""
    for told in (code, conditions):
        if told(first) != told(result):
            raise SystemExit(f"{result.id} was made unlike {first.id}: {told(result)}, not {told(first)}")


def code(result: Result) -> dict[str, Any]:
    return dict(result.info["code"])


def conditions(result: Result) -> dict[str, Any]:
    """What its server was, and what that promised."""
    info = result.info
    return {
        "server": info["versions"]["server"],
        "server_private": info["server_private"],
        "durability": info["durability"],
        "guarantees": info["guarantees"],
    }


def setting(results: dict[str, Result]) -> dict[str, Any]:
    """Of a result of each backend: what all their trials were made with and on. The kernel's name stays here."""
    first = next(iter(results.values()))
    machine = first.info["machine"]
    kept = {name: machine[name] for name in ("cpu", "cores", "memory_bytes")}
    return {
        "workloads": SHAPES,
        "seed": SEED,
        "code": code(first),
        "machine": {**kept, "distribution": machine["system"].split(",")[0]},
        "backends": {backend: conditions(result) for backend, result in results.items()},
    }


def main(repeats: int, backends: list[str]) -> None:
    """Blocks as a report runs them: each has every cell once, in an order of its own."""
    cells = [(backend, shape) for backend in backends for shape in SHAPES]
    chance = random.Random(SEED)
    trials: list[dict[str, Any]] = []
    results: dict[str, Result] = {}
    for block in range(repeats):
        chance.shuffle(cells)
        for order, (backend, shape) in enumerate(cells):
            result = imq.run(backend, progress=False, **SHAPES[shape])
            trials.append(figures(result, block, order))
            alike(results.setdefault(backend, result), result)
            print(f"{block + 1}/{repeats} {result.verdict()}", file=sys.stderr)
    lines = ",\n".join(json.dumps(trial) for trial in trials)
    print(f'{{"setting": {json.dumps(setting(results))},\n"trials": [\n{lines}\n]}}')


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
