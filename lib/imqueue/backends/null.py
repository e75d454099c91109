"""No queue to speak of: what the harness reaches when only shared memory lies between its processes.

A ring of bytes in a mapped file, written by producers and read by workers in processes of their own, as with a server.
It carries the real bodies, for only then do encoding, check values, ledger and audit do their real work; a worker that
made up the messages by itself would skip half of what is to be measured. Beside the harness there is left: a copy in, a
copy out, and a lock on either side. The lock is the kernel's (flock: it ends with its holder), for several producers
and several workers. At most once, for `get` moves the ring's end, and who dies then takes its messages along.

Only on x86: a producer writes a record and then the word that shows it to the workers, and nothing that Python offers
makes a processor with weaker ordering (ARM) let others see the one before the other.
"""

from __future__ import annotations

import fcntl
import functools
import os
import platform
import struct
import time
from array import array
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

from imqueue.backend import Backend, BackendError, Declares, Durability, Guarantees, Message, Rejected, messages
from imqueue.mapped import Mapped

RING_BYTES = 1 << 26
BODIES_MAX_BYTES = 1 << 24  # in one record, of which a few must fit
FULL_MAX_S = 10.0  # a put waits so long for room
NAP_S = 2e-5  # a worker that spun instead would take the core that a producer may need
PAGE_BYTES = 4096  # in front of the ring
WRITTEN, READ, PUT_N, GOT_N = range(4)  # words of the page: bytes, bytes, messages, messages; they only grow
HEAD = struct.Struct("<IIQ")  # of a record: how many bodies, how many of them taken, its length; lengths, bodies follow
ORDERED = ("x86_64", "AMD64", "i686")
SKIP = 0xFFFFFFFF  # in place of the number of bodies: nothing from here to the end of the ring


class Null(Backend):
    """Each handle maps the ring. Records lie in it one after another, none across its end."""

    declares = Declares(
        built_on="a ring of bytes in a mapped file",
        durabilities=(Durability.MEMORY,),
        delivery="at most once",
        settles="none",
        fifo=True,
        wakes_by="looking every 20 µs",
        unacked_returns="never",
        size_max_bytes=BODIES_MAX_BYTES,
        control=True,
    )

    @classmethod
    def missing(cls) -> str | None:
        machine = platform.machine()
        return None if machine in ORDERED else f"its shared memory needs an x86 processor, this one is {machine}"

    _ring: Mapped | None = None
    _putting = _getting = -1

    def open(self) -> None:
        self.close()
        try:
            self._putting, self._getting = (os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in self._locks())
            self._ring = Mapped(self._path("ring"), create_bytes=PAGE_BYTES + RING_BYTES)
        except OSError as error:
            self.close()
            raise BackendError(f"the ring could not be made: {error}") from error
        self._ring.close()  # the descriptor; the mapping stays

    def close(self) -> None:
        for lock in (self._putting, self._getting):
            if lock >= 0:
                os.close(lock)
        self._putting = self._getting = -1
        self._ring = None

    @property
    def guarantees(self) -> Guarantees:
        self._here("guarantees")
        return Guarantees(
            survives_kill=False,
            survives_power_loss=False,
            fifo=True,
            puts_confirmed=True,
            redelivers_after_s=None,
            lease_s=None,
            source="no server: the ring is a mapped file that nobody flushes",
        )

    def put(self, bodies: Sequence[bytes]) -> None:
        ring = self._here("put")
        sizes = array("I", map(len, bodies))
        if not sizes:
            return
        largest = max(sizes)
        if largest > BODIES_MAX_BYTES:
            raise Rejected(f"a body of {largest} bytes is more than the {BODIES_MAX_BYTES} that are taken")
        at_once = BODIES_MAX_BYTES // (largest + sizes.itemsize) or 1
        fcntl.flock(self._putting, fcntl.LOCK_EX)
        try:
            for start in range(0, len(sizes), at_once):
                part = slice(start, start + at_once)
                if not _append(ring, sizes[part], bodies[part]):
                    kind = BackendError if start else Rejected
                    raise kind(f"the ring stayed full for {FULL_MAX_S:g} s; {start} of {len(sizes)} bodies are in it")
        finally:
            fcntl.flock(self._putting, fcntl.LOCK_UN)

    def get(self, timeout_s: float) -> list[Message]:
        words = self._here("get").words
        deadline_s = time.monotonic() + timeout_s
        while True:
            if words[WRITTEN] != words[READ] and (bodies := self._take()):
                return messages(bodies, repeat(None))
            if time.monotonic() >= deadline_s:
                return []
            time.sleep(NAP_S)

    def _take(self) -> list[bytes]:
        """Up to `batch` bodies; [] where another worker came first."""
        ring = self._here("get")
        words = ring.words
        taken: list[bytes] = []
        fcntl.flock(self._getting, fcntl.LOCK_EX)
        try:
            while len(taken) < self.batch and words[WRITTEN] != words[READ]:
                taken += _pop(ring, self.batch - len(taken))
            words[GOT_N] += len(taken)
        finally:
            fcntl.flock(self._getting, fcntl.LOCK_UN)
        return taken

    def ack(self, messages: Sequence[Message]) -> None:
        """Nothing to do: `get` has removed them."""

    def depth(self) -> int:
        words = self._here("depth").words
        return int(words[PUT_N] - words[GOT_N])

    def destroy(self) -> None:
        self._here("destroy")
        for path in (self._path("ring"), *self._locks()):
            path.unlink(missing_ok=True)

    def _here(self, doing: str) -> Mapped:
        if self._ring is None:
            raise Rejected(f"{doing} was not tried: the handle is closed")
        return self._ring

    def _path(self, suffix: str) -> Path:
        return Path(self.url) / f"{self.queue}.{suffix}"

    def _locks(self) -> tuple[Path, Path]:
        return self._path("put"), self._path("get")


def _append(ring: Mapped, sizes: array[int], bodies: Sequence[bytes]) -> bool:
    """Write one record, once there is room for it; False where none came."""
    content = sizes.tobytes() + b"".join(bodies)
    length = (HEAD.size + len(content) + 15) & ~15  # so that a head fits wherever a record ends
    words, buffer = ring.words, ring.buffer
    written = words[WRITTEN]
    left = RING_BYTES - written % RING_BYTES
    end = written + length + (left if left < length else 0)
    deadline_s = 0.0
    while end - words[READ] > RING_BYTES:
        deadline_s = deadline_s or time.monotonic() + FULL_MAX_S
        if time.monotonic() > deadline_s:
            return False
        time.sleep(NAP_S)
    at = PAGE_BYTES + written % RING_BYTES
    if left < length:
        HEAD.pack_into(buffer, at, SKIP, 0, left)
        at = PAGE_BYTES
    HEAD.pack_into(buffer, at, len(sizes), 0, length)
    at += HEAD.size
    buffer[at : at + len(content)] = content
    words[PUT_N] += len(sizes)
    words[WRITTEN] = end  # from here on workers see it
    return True


def _pop(ring: Mapped, most: int) -> tuple[bytes, ...]:
    """Up to `most` bodies of the oldest record, which goes once it is empty."""
    words, buffer = ring.words, ring.buffer
    at = PAGE_BYTES + words[READ] % RING_BYTES
    n, taken, length = HEAD.unpack_from(buffer, at)
    if n == SKIP or taken == n:
        words[READ] += length
        return ()
    upto = min(taken + most, n)
    first = at + HEAD.size
    sizes = array("I", buffer[first : first + 4 * n])
    first += 4 * n + sum(sizes[:taken])
    bodies = _splitter(sizes[taken:upto].tobytes()).unpack_from(buffer, first)
    HEAD.pack_into(buffer, at, n, upto, length)
    if upto == n:
        words[READ] += length
    return bodies


@functools.lru_cache(maxsize=64)
def _splitter(sizes: bytes) -> struct.Struct:
    """Cuts a record's bodies from the ring at once. Batches of messages have few different patterns of sizes."""
    return struct.Struct("<" + "".join(f"{size}s" for size in array("I", sizes)))
