"""What does a driver stand on? It lives long, and must not go on with edited code, or with other servers than asked."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from pathlib import Path
from typing import Any

from imqueue import settings

LIB = Path(__file__).parent
GIT_MAX_S = 5.0


def fingerprint() -> str:
    """Changes when a source file is added, removed or written, and with the addresses of servers.

    Source files are those of imqueue and those in the folder of the reader's own backends.
    """
    digest = hashlib.sha256(repr(settings.server_urls()).encode())
    own = settings.backends_dir()
    for path in sorted([*LIB.rglob("*.py"), *(own.glob("*.py") if own else ())]):
        stat = path.stat()
        digest.update(f"{path} {stat.st_mtime_ns} {stat.st_size}\n".encode())
    return digest.hexdigest()[:16]


@functools.cache
def code() -> dict[str, Any]:
    """Which imqueue runs in this process, in words that mean the same on another machine.

    Read once; a process that lives long asks at its start, before anybody can edit what it has loaded.

    `source`: a digest of the text of all its source files and of the reader's own backends. `commit`: of the git
    checkout it lies in, and `edited`, whether its files differ from that; both None where there is no checkout, or no
    git.
    """
    commit = _git("rev-parse", "HEAD")
    status = _git("--no-optional-locks", "status", "--porcelain", "--", str(LIB)) if commit else None
    return {
        "source": _digest(),
        "commit": commit,
        "edited": None if status is None else bool(status),
    }


def _digest() -> str:
    digest = hashlib.sha256()
    sources = {f"{path.relative_to(LIB)}": path for path in LIB.rglob("*") if path.suffix in (".py", ".js", ".json")}
    own = settings.backends_dir()
    sources |= {f"own backends: {path.name}": path for path in (own.glob("*.py") if own else ())}
    for name, path in sorted(sources.items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    checkout = LIB.parents[1]
    if not (checkout / ".git").exists():  # an installed copy may lie inside somebody else's checkout
        return None
    command = ["git", "-C", str(checkout), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_MAX_S).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
