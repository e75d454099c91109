"""Locks between processes, held by an open file: they end with their holder, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

MACHINE_LOCK = Path("/tmp/imqueue-trial.lock")


class Taken(Exception):
    """Somebody else holds the lock; the text is what they wrote about themselves."""


class FileLock:
    """An exclusive lock on a file, which holds a line about its holder."""

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self._path = path
        self._mode = mode
        self._descriptor: int | None = None

    def take(self, about: str) -> None:
        """Raises `Taken` at once when another process, or another `FileLock`, holds it."""
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise Taken(told) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, about.encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Safe twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def _open(self) -> int:
        # Without O_CREAT first: in a sticky folder the kernel forbids even root to create over another's file.
        with contextlib.suppress(FileNotFoundError):
            return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._mode)
        os.fchmod(descriptor, self._mode)
        return descriptor


def machine_lock() -> FileLock:
    """Held during a trial: two benchmarks at once on one machine spoil each other."""
    return FileLock(MACHINE_LOCK, 0o666)


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no such file, or it is half written."""
    try:
        content = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None
