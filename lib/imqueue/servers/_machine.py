"""What servers need of the machine: programs, ports, folders, passwords, and the end of processes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil

from imqueue.servers import ServerError
from imqueue.servers.guard import alive

PROGRAM_FOLDERS = [
    f"{sys.prefix}/bin",
    f"{sys.base_prefix}/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/usr/sbin",
    "/bin",
]

PORTS = range(20_000, 32_000)
"""Below the ports that kernels hand to outgoing connections: while a killed server is away, no client can be
given its port, and none can connect to itself by chance."""

SLAY_S = 5.0
LOG_TAIL_LINES = 15


def find(program: str, *folders: str) -> str | None:
    """The path of a program: on PATH, beside this Python (conda), or in `folders`."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join([*PROGRAM_FOLDERS, *folders]))


@functools.cache
def output(*command: str, user: str | None = None) -> str:
    """What a short command such as ``redis-server --version`` prints; "" when it cannot be run."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, user=user, cwd="/", check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip()


def how_to_get(package: str) -> str:
    """The end of a sentence that says what is missing."""
    debian, conda = "apt-get install --no-install-recommends", "conda install -c conda-forge"
    return f"`{debian} {package}` brings it, or `{conda} {package}`"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError(f"no free port on 127.0.0.1 between {PORTS.start} and {PORTS.stop}")


def common_ground(folder: Path) -> Path:
    """A folder in its stead that other users can reach: below ``/var/tmp/imqueue-<uid>``, made if absent."""
    top = Path(f"/var/tmp/imqueue-{os.getuid()}")
    top.mkdir(mode=0o755, exist_ok=True)
    found = top.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ServerError(f"{top} is not a folder of ours; remove it, or keep the data where others can enter")
    top.chmod(0o755)
    place = top / f"{folder.name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"
    place.mkdir(mode=0o711, exist_ok=True)
    place.chmod(0o711)
    return place


def secret(path: Path) -> str:
    """The password kept in `path`, made on first use; only its owner can read the file."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants, itself first; [] when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def slay(family: list[psutil.Process]) -> None:
    """SIGKILL those that still are who they were, and wait until they are gone."""
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    deadline = time.monotonic() + SLAY_S
    # Not psutil.wait_procs: orphans may stay as zombies until the machine's first process looks after them.
    while any(alive(each) for each in family) and time.monotonic() < deadline:
        time.sleep(0.005)


def end_leftovers(pid_file: Path) -> None:
    """End what an owner left behind, guard and all: two servers on one data folder would ruin it."""
    lines = pid_file.read_text().splitlines() if pid_file.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError, psutil.NoSuchProcess):
            pid, started = line.split()
            # A second of grace, because clocks are corrected now and then.
            if abs(psutil.Process(int(pid)).create_time() - float(started)) < 1:
                slay(tree(int(pid)))
    pid_file.unlink(missing_ok=True)


def log_end(log: Path) -> str:
    """The last lines of a log, in words that can follow a semicolon."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()[-LOG_TAIL_LINES:]
    except OSError as error:
        return f"its log cannot be read: {error}"
    return "the end of its log:\n  " + "\n  ".join(lines) if lines else "its log is empty"
