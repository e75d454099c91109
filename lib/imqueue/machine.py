"""What a trial was measured on: enough to judge its figures, nothing that names a person or a host."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import psutil

CLIENT_PACKAGES = (
    "imqueue",
    "numpy",
    "redis",
    "hiredis",
    "pika",
    "psycopg",
    "psycopg-binary",
    "PyMySQL",
    "nats-py",
    "greenstalk",
    "reactivex",
    "prometheus-client",
)


def describe() -> dict[str, Any]:
    """CPU model, cores, memory in bytes, operating system and kernel, and the rule by which the CPU sets its clock."""
    return {
        "cpu": _cpu(),
        "cores": psutil.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{_distribution()}, {platform.system()} {platform.release()}, {platform.machine()}",
        "governor": _governor(),
    }


def packages() -> dict[str, str]:
    """Versions of the packages whose speed or behaviour is in the figures."""
    found = {}
    for name in CLIENT_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _governor() -> str | None:
    """As each core has it; None where it cannot be read, as in most virtual machines."""
    files = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    try:
        return ", ".join(sorted({file.read_text().strip() for file in files})) or None
    except OSError:
        return None


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)
