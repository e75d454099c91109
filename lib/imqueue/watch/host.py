"""The machine: CPU by what it was used for, disks, and what the server's processes wrote."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from imqueue.servers import Server
from imqueue.servers._machine import tree
from imqueue.servers.guard import Guard
from imqueue.watch.reader import Reader, Reading

TREE_EVERY_S = 1.0  # finding a server's children means reading all of /proc
MODES = ("user", "system", "iowait", "softirq", "steal")  # what little is left is time of the others


class Host(Reader):
    """From /proc, by psutil. Disks are whole ones: partitions and layers above them would count twice."""

    place = "host"

    def __init__(self, server: Server | None, guard: Guard) -> None:
        self._roots = server.pids() if server is not None else []
        self._family: list[psutil.Process] = []
        self._family_at_s = 0.0
        self._written: dict[int, int] = {}  # by pid; what a process wrote stays counted after it ended

    def read(self) -> list[Reading]:
        times = psutil.cpu_times()
        readings = [Reading("cpu_seconds", getattr(times, mode, 0.0), mode, True) for mode in MODES]
        disks = psutil.disk_io_counters(perdisk=True) or {}
        for name, disk in disks.items():
            if not Path(f"/sys/block/{name}/device").exists():
                continue
            readings.append(Reading("disk_writes", disk.write_count, name, True))
            readings.append(Reading("disk_write_bytes", disk.write_bytes, name, True))
            readings.append(Reading("disk_busy_seconds", getattr(disk, "busy_time", 0) / 1e3, name, True))
        if self._look_at_server():
            readings.append(Reading("server_write_bytes", sum(self._written.values()), counts=True))
        return readings

    def close(self) -> None:
        pass

    def _look_at_server(self) -> bool:
        """Whether there is a server of ours, whose processes can be seen."""
        if time.monotonic() - self._family_at_s > TREE_EVERY_S:
            self._family_at_s = time.monotonic()
            self._family = [process for root in self._roots for process in tree(root)]
        for process in self._family:
            with contextlib.suppress(psutil.Error, AttributeError):
                self._written[process.pid] = int(process.io_counters().write_bytes)
        return bool(self._written)
