"""The machine: CPU by what it was used for, disks, and what the server's processes wrote."""

from __future__ import annotations

from pathlib import Path

import psutil

from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.watch import Reader, Reading

MODES = ("user", "system", "iowait", "softirq", "steal")  # what little is left is time of the others


class Host(Reader):
    """From /proc, by psutil. Disks are whole ones: partitions and layers above them would count twice."""

    place = "host"

    def __init__(self, server: Server | None, guard: Guard) -> None:
        self._roots = server.pids() if server is not None else []

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
        if (written := self._written()) is not None:
            readings.append(Reading("server_write_bytes", written, counts=True))
        return readings

    def close(self) -> None:
        pass

    def _written(self) -> float | None:
        """By the server's first processes; None where there are none of ours, or it is not ours to see."""
        try:
            return sum(psutil.Process(pid).io_counters().write_bytes for pid in self._roots) if self._roots else None
        except (psutil.Error, AttributeError):
            return None
