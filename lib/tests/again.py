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


def figures(result: Result, block: int) -> dict[str, Any]:
    due = (result.info.get("latency") or {}).get("due", {})
    return {
        "backend": result.backend,
        "shape": result.shape,
        "block": block,
        "passed": result.passed,
        "stamps": [each["stamp"] for each in result.stamps],
        "rate_hz": result.rate_hz,
        "p50_s": due.get("p50_s"),
        "p99_s": due.get("p99_s"),
    }


def main(repeats: int, backends: list[str]) -> None:
    """Blocks as a report runs them: each has every cell once, in an order of its own."""
    cells = [(backend, shape) for backend in backends for shape in SHAPES]
    chance = random.Random(SEED)
    trials = []
    for block in range(repeats):
        chance.shuffle(cells)
        for backend, shape in cells:
            result = imq.run(backend, progress=False, **SHAPES[shape])
            trials.append(figures(result, block))
            print(f"{block + 1}/{repeats} {result.verdict()}", file=sys.stderr)
    setting = {"workloads": SHAPES, "seed": SEED, "machine": result.info["machine"], "durability": "delayed"}
    lines = ",\n".join(json.dumps(trial) for trial in trials)
    print(f'{{"setting": {json.dumps(setting)},\n"trials": [\n{lines}\n]}}')


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
