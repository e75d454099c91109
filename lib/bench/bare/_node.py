"""The bare loops of the Node libraries: their own plain scripts in ``node/``, a producer and a consumer process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MODULES = Path(sys.prefix) / "share" / "imqueue" / "node" / "node_modules"
PAIR = Path(__file__).parent / "node" / "pair.js"
START_AND_DRAIN_MAX_S = 60.0


def rate_hz(library: str, job: dict[str, str | int | float]) -> float:
    """Messages put, taken and settled per second. Raises `subprocess.SubprocessError` or `ValueError`."""
    done = subprocess.run(
        ["node", "--no-deprecation", str(PAIR)],
        input=json.dumps({"library": library, **job}),
        capture_output=True,
        text=True,
        timeout=float(job["seconds_s"]) + START_AND_DRAIN_MAX_S,
        env=os.environ | {"NODE_PATH": str(MODULES)},
        check=False,
    )
    if done.returncode != 0:
        raise subprocess.SubprocessError(f"{library}: {done.stderr.strip()[-500:]}")
    return float(done.stdout)
