"""What is known of a trial while it runs, gathered for its record."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from imqueue import pinning
from imqueue.backend import Declares, Durability
from imqueue.servers import External, Server
from imqueue.workload import Workload


@dataclass
class Facts:
    """Times in ns are of the host's monotonic clock; `go_wall_s` is the same instant as `go_ns` in Unix time."""

    id: str
    number: int
    workload: Workload
    made_at: datetime
    declares: Declares
    durability: Durability
    state: str = "starting"
    error: str | None = None
    go_ns: int = 0
    go_wall_s: float = 0.0
    end_ns: int = 0
    drained: bool = False
    segments: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    harness_errors: list[str] = field(default_factory=list)
    guarantees: dict[str, Any] | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)
    fsyncs: dict[str, Any] | None = None  # None: not asked for
    server_version: str | None = None
    server_private: bool | None = None  # None: it needs no server
    prometheus_version: str | None = None
    readers: dict[str, Any] = field(default_factory=dict)  # how each reader of `why` did
    server_settings: dict[str, str] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    cpu_window_s: float = 0.0  # of `cpu_s`: from go until the queue was drained
    window_s: float = 0.0  # of the shares of cores: while the producers put
    client_cores: dict[str, float] = field(default_factory=dict)
    machine_cores: tuple[float, ...] = ()
    server_cores: list[int] = field(default_factory=list)

    def event(self, kind: str, text: str, at_ns: int | None = None) -> None:
        self.events.append({"at_ns": time.monotonic_ns() if at_ns is None else at_ns, "kind": kind, "text": text})

    def go(self, go_ns: int) -> None:
        self.go_ns = go_ns
        self.go_wall_s = time.time() + (go_ns - time.monotonic_ns()) / 1e9
        self.event("go", "the measured load starts", go_ns)

    def since_go_s(self, at_ns: int) -> float:
        return (at_ns - self.go_ns) / 1e9 if self.go_ns else 0.0

    def read_guarantees(self, live: Path) -> None:
        path = live / "guarantees.json"
        self.guarantees = json.loads(path.read_text()) if path.exists() else None

    def describe_server(self, server: Server) -> None:
        self.server_version = f"{server.kind} {server.version()}"
        self.server_private = not isinstance(server, External)
        self.server_settings = server.settings()

    def as_dict(self) -> dict[str, Any]:
        """The part of ``trial.json`` that was known without reading a ledger."""
        return {
            "id": self.id,
            "backend": self.workload.backend,
            "shape": self.workload.shape,
            "made_at": self.made_at.isoformat(timespec="seconds"),
            "state": self.state,
            "error": self.error,
            "workload": self.workload.as_dict(),
            "durability": str(self.durability),
            "declares": asdict(self.declares),
            "guarantees": self.guarantees,
            "changes": [self._relative(each, "asked") for each in self.changes],
            "fsyncs": self.fsyncs,
            "segments": [self._relative(each, "start") for each in self.segments],
            "go_wall_s": self.go_wall_s,
            "cores": self._cores(),
            "times": self.times,
            "cpu_s": self.cpu_s,
            "cpu_window_s": round(self.cpu_window_s, 3),
            "client_cores": {name: round(cores, 3) for name, cores in self.client_cores.items()},
            "machine_cores": [round(cores, 3) for cores in self.machine_cores],
            "memory_bytes": self.memory_bytes,
            "server_settings": self.server_settings,
            "server_private": self.server_private,
            "readers": self.readers,
        }

    def _cores(self) -> dict[str, list[int]]:
        """The cores allowed to us, and those that a role was bound to; a role that was left alone is absent."""
        here = pinning.allowed()
        bound = {role: pinning.cores(self.workload.pin, role, here) for role in ("producer", "worker")}
        bound["server"] = self.server_cores
        return {"allowed": here} | {role: cores for role, cores in bound.items() if cores}

    def events_dict(self) -> list[dict[str, Any]]:
        return [self._relative(each, "at") for each in sorted(self.events, key=lambda each: int(each["at_ns"]))]

    def _relative(self, entry: Mapping[str, Any], name: str) -> dict[str, Any]:
        rest = {key: value for key, value in entry.items() if key != f"{name}_ns"}
        return {f"{name}_s": round(self.since_go_s(entry[f"{name}_ns"]), 6), **rest}


@dataclass
class Window:
    """One reading of what was used so far: by each role, each child, each core; and of the memory held now."""

    roles_s: dict[str, float]
    memory_bytes: dict[str, int]
    children_s: dict[str, float]
    cores: Sequence[tuple[float, float]]
    at_s: float = field(default_factory=time.monotonic)

    def loaded(self, later: Window, facts: Facts) -> None:
        """Write into `facts` who was how busy from this reading to a later one, at which the producers have ended."""
        took_s = max(later.at_s - self.at_s, 1e-9)
        facts.window_s = took_s
        facts.memory_bytes = later.memory_bytes
        facts.client_cores = {
            name: (used_s - self.children_s.get(name, 0.0)) / took_s for name, used_s in later.children_s.items()
        }
        facts.machine_cores = tuple(
            (busy - busy0) / max(total - total0, 1e-9)
            for (busy0, total0), (busy, total) in zip(self.cores, later.cores, strict=True)
        )

    def spent(self, later: Window, facts: Facts) -> None:
        """Write into `facts` the CPU time up to a later reading, at which all that was put has been handled."""
        facts.cpu_window_s = later.at_s - self.at_s
        facts.cpu_s = {role: round(s - self.roles_s.get(role, 0.0), 3) for role, s in later.roles_s.items()}
