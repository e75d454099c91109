"""im-queue: compare work queues on your own machine, every message accounted for.

    import imqueue as imq
    imq.backends()
    result = imq.run("redis_stream", rate_hz=2000, duration_s=10, workers=2)
    imq.charts.throughput(result)

Names are imported when they are first used, so that `import imqueue` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from imqueue import charts, compare, sweep
    from imqueue.client import Busy, DriverError
    from imqueue.notebook import attach, backends, open, rerun, result, run, server_url, start, trials
    from imqueue.pricing import durability
    from imqueue.workload import BadInput, Workload

_FROM = {
    "attach": "notebook",
    "backends": "notebook",
    "durability": "pricing",
    "open": "notebook",
    "rerun": "notebook",
    "result": "notebook",
    "run": "notebook",
    "server_url": "notebook",
    "start": "notebook",
    "trials": "notebook",
    "BadInput": "workload",
    "Workload": "workload",
    "Busy": "client",
    "DriverError": "client",
}

__all__ = [
    "BadInput",
    "Busy",
    "DriverError",
    "Workload",
    "attach",
    "backends",
    "charts",
    "compare",
    "durability",
    "open",
    "rerun",
    "result",
    "run",
    "server_url",
    "start",
    "sweep",
    "trials",
]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(f"imqueue.{_FROM[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"imqueue.{name}")
    raise AttributeError(f"module 'imqueue' has no attribute {name!r}")
