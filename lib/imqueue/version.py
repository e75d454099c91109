"""What does a driver stand on? It lives long, and must not go on with edited code, or with other servers than asked."""

from __future__ import annotations

import hashlib
from pathlib import Path

from imqueue import settings


def fingerprint() -> str:
    """Changes when a source file of imqueue is added, removed or written, and with the addresses of servers."""
    digest = hashlib.sha256(repr(settings.server_urls()).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        stat = path.stat()
        digest.update(f"{path} {stat.st_mtime_ns} {stat.st_size}\n".encode())
    return digest.hexdigest()[:16]
