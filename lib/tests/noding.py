"""What the tests of the Node libraries share: handles on one backend, and a script that knows only the npm library."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Handles

from imqueue import node_child, registry, settings
from imqueue.backend import Backend, Durability
from imqueue.backends._node import NodeHandle
from imqueue.servers import Server

JOBS = ["bull", "bullmq", "kue"]  # jobs with states
ON_REDIS = [*JOBS, "rsmq"]
ALL = [*ON_REDIS, "amqplib", "rabbitjs"]
BODIES = [bytes(range(256)), b"\0" * 32, b"plain", '"quoted\\", ünicode'.encode()]

Obtain = Callable[[str, Durability], Server]


def make_handles(name: str, obtain: Obtain) -> Handles:
    loaded: Any = registry.load(name)
    if (reason := loaded.missing()) is not None:
        if settings.servers_required():
            pytest.fail(reason)
        pytest.skip(reason)
    kind = loaded.declares.server
    return Handles(loaded, lambda durability: obtain(kind, durability).url, f"node-{uuid.uuid4().hex[:12]}")


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("handles", names, indirect=True)


def plain(handle: Backend, doing: str, **more: Any) -> Any:
    """Have a script that knows only the npm library do it on this handle's queue."""
    at = {"url": handle.url, "queue": handle.queue, "prefix": getattr(handle, "prefix", None), **more}
    name = type(handle).__module__.rpartition(".")[2]
    done = subprocess.run(
        ["node", "--no-deprecation", str(Path(__file__).parent / "node" / "plain.js")],
        input=json.dumps({"library": name, "doing": doing, **at}),
        capture_output=True,
        text=True,
        timeout=30.0,
        env=os.environ | {"NODE_PATH": str(node_child.INSTALLED / "node_modules")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def child_of(handle: Backend) -> node_child.NodeChild:
    child = vars(handle)["_child"]
    assert isinstance(child, node_child.NodeChild)
    return child


def counts_of(handle: Backend) -> dict[str, Any]:
    """As our handle tells them."""
    assert isinstance(handle, NodeHandle)
    return handle.counts()


def states_of(handle: Backend) -> tuple[int, int, int, int]:
    """How many jobs wait, are active, completed and failed: as the plain library counts them, and our handle too."""
    told = plain(handle, "counts")
    assert counts_of(handle) == told
    waiting, completed = ("inactive", "complete") if "inactive" in told else ("waiting", "completed")
    return told[waiting], told["active"], told[completed], told["failed"]


def encoded(sent: list[bytes]) -> list[str]:
    return [base64.b64encode(body).decode() for body in sent]
