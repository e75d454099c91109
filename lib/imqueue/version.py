"""Which code is this? A driver lives long, and must not go on with code that has been edited since."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint() -> str:
    """Changes when a source file of imqueue is added, removed, renamed or written."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        stat = path.stat()
        digest.update(f"{path} {stat.st_mtime_ns} {stat.st_size}\n".encode())
    return digest.hexdigest()[:16]
