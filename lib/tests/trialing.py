"""What the tests of whole trials share."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from imqueue import notebook
from imqueue.fleet import why_missing
from imqueue.results import Result
from imqueue.settings import servers_required

SMALL: dict[str, Any] = {"messages": 3_000, "warmup_messages": 100, "progress": False}
BRIEF: dict[str, Any] = {"rate_hz": 500, "duration_s": 1.5, "warmup_messages": 100, "progress": False}


def here(backend: str) -> str:
    """Skips where the backend's server is missing; that is an error under CI."""
    if reason := why_missing(backend):
        assert not servers_required(), reason
        pytest.skip(reason)
    return backend


def sound(result: Result) -> None:
    info = result.info
    assert info["error"] is None
    assert info["audit"]["passed"], info["audit"]
    assert info["crosscheck"]["agrees"], info["crosscheck"]
    assert info["audit"]["sum_fits"] or info["audit"]["duplicated"], info["audit"]


def running(backend: str = "redis_list", **workload: Any) -> notebook.Trial:
    trial = notebook.start(here(backend), rate_hz=500, warmup_messages=100, **workload)
    while trial.state in notebook.BEFORE_LOAD:
        time.sleep(0.02)
    return trial


def queues_left() -> Any:
    with redis.Redis.from_url(notebook.server_url("redis_list")) as connected:
        return connected.keys("imq_*")
