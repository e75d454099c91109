"""Which servers run on this machine, and how late its kernel writes to disk what nobody flushes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from imqueue.backend import Within

LOOPBACK = ("127.0.0.1", "::1", "localhost")
EXPIRE, LOOK = "dirty_expire_centisecs", "dirty_writeback_centisecs"
DEFAULTS = {EXPIRE: 3000, LOOK: 500}  # Linux' own
VM = Path("/proc/sys/vm")


class Writeback(NamedTuple):
    """What outlives a loss of power of what was only written, and where that was read."""

    survives: Within | bool
    source: str


def is_here(url: str) -> bool:
    """Whether a server at `url` is on this machine; so is a file, or a socket that has a path."""
    return (urlsplit(url).hostname or "localhost") in LOOPBACK


def writeback(url: str) -> Writeback:
    """Of the kernel under `url`. Linux writes out what is older than one setting, and looks as often as another says.

    Where they cannot be read (on another machine, or under macOS, which names no such bound) Linux' own are assumed.
    """
    try:
        found = {name: int((VM / name).read_text()) for name in DEFAULTS} if is_here(url) else None
    except (OSError, ValueError):
        found = None
    told = found or DEFAULTS
    if told[LOOK] == 0:
        return Writeback(False, f"vm.{LOOK} is 0: the kernel does not write by the clock")
    how = f"vm.{EXPIRE} and vm.{LOOK}" if found else "Linux' default for writeback, assumed"
    return Writeback(Within((told[EXPIRE] + told[LOOK]) / 100), how)
