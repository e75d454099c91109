"""Files that a few processes share by mapping them: no locks, and a SIGKILL loses nothing that was written.

Each 64-bit word has one writer. `multiprocessing.shared_memory` would do the same, but its resource tracker unlinks
a segment when any process that opened it ends.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

_STRETCH = bytes(1 << 18)


class Mapped:
    """A mapped file. `words` is it as signed 64-bit integers, `buffer` for `struct`.

    Views on an outgrown mapping stay valid and show the same file, so nobody has to give theirs up. `ready_bytes`: how
    much of it, from its start, lies on pages that are there; what a file had when it was opened counts as such.
    """

    def __init__(self, path: Path, *, create_bytes: int = 0, map_bytes: int = 0) -> None:
        """Creates the file, all zeros, where `create_bytes` is given; maps `map_bytes` of it, 0: all."""
        self._descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create_bytes else 0), 0o600)
        if create_bytes:
            os.ftruncate(self._descriptor, create_bytes)
        self._map(map_bytes)
        self.ready_bytes = 0 if create_bytes else len(self)

    def __len__(self) -> int:
        return len(self.buffer)

    def grow(self) -> None:
        """Doubles the file."""
        os.ftruncate(self._descriptor, 2 * len(self))
        self._map(0)

    def make_ready(self, upto_bytes: int) -> None:
        """Have zeros on all that is not ready up to there, and somewhat beyond; grows the file where it must.

        For its one writer. A page that is made when it is first touched costs 5 us, one of a stretch that is written at
        once 1 us; and a full disk is an `OSError` here, where there it would be a SIGBUS.
        """
        while self.ready_bytes < upto_bytes:
            if self.ready_bytes == len(self):
                self.grow()
            part = _STRETCH[: len(self) - self.ready_bytes]
            self.ready_bytes += os.pwrite(self._descriptor, part, self.ready_bytes)

    def close(self) -> None:
        """Safe twice. The mapping itself ends with the last view on it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _map(self, length_bytes: int) -> None:
        self.buffer = mmap.mmap(self._descriptor, length_bytes)
        self.words = memoryview(self.buffer).cast("q")
