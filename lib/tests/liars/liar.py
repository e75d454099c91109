"""A queue in memory that breaks one promise on purpose: the instrument has to find out which, and where.

The lie stands in ``lie.json`` in the folder that a backend without a server is given: `{"lie": "loses", ...}`, the rest
are its parameters. It concerns measured messages only. What a liar can tell of itself afterwards stands beside it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import ClassVar

from imqueue.backend import Message, messages
from imqueue.backends.memory import Memory
from imqueue.message import HEADER, WARMUP_BIT, Codec

LIE, CONFESSION = "lie.json", "confession.json"

Lie = Callable[[list[bytes]], list[bytes]]
"""From what was put to what goes into the queue."""


def integer(body: bytes) -> int:
    return int(HEADER.unpack_from(body)[1])


def nothing() -> Lie:
    return lambda bodies: bodies


def loses(integers: list[int]) -> Lie:
    return lambda bodies: [body for body in bodies if integer(body) not in integers]


def loses_every(nth: int) -> Lie:
    return lambda bodies: [body for body in bodies if integer(body) % nth]


def drops(nth_put: int) -> Lie:
    """Acknowledges a whole put and throws it away."""
    done = 0

    def lie(bodies: list[bytes]) -> list[bytes]:
        nonlocal done
        done += 1
        return bodies if done % nth_put else []

    return lie


def duplicates(integers: list[int]) -> Lie:
    return lambda bodies: [each for body in bodies for each in [body] * (1 + (integer(body) in integers))]


def swaps(lost: int, doubled: list[int]) -> Lie:
    first, then = duplicates(doubled), loses([lost])
    return lambda bodies: then(first(bodies))


def reorders(integers: list[int]) -> Lie:
    """Each of these comes after its successor, which is in the same put."""

    def lie(bodies: list[bytes]) -> list[bytes]:
        later = [integer(body) + 1.5 * (integer(body) in integers) for body in bodies]
        return [body for _, body in sorted(zip(later, bodies, strict=True))]

    return lie


def corrupts(positions: dict[str, int]) -> Lie:
    """Flips a bit of the byte at a position, by integer."""

    def lie(bodies: list[bytes]) -> list[bytes]:
        return [flipped(body, positions.get(str(integer(body)))) for body in bodies]

    return lie


def flipped(body: bytes, position: int | None) -> bytes:
    if position is None:
        return body
    return body[:position] + bytes([body[position] ^ 0x10]) + body[position + 1 :]


def brings(foreign: int, after: int) -> Lie:
    """A message of another trial comes after one of ours; it is sound, and has the integer `foreign`."""

    def lie(bodies: list[bytes]) -> list[bytes]:
        trial = HEADER.unpack_from(bodies[0])[0]
        strange = Codec(trial + 1, len(bodies[0])).encode_one(foreign, 1, 1)
        return [each for body in bodies for each in ([body, strange] if integer(body) == after else [body])]

    return lie


LIES: dict[str, Callable[..., Lie]] = {
    each.__name__: each for each in (nothing, loses, loses_every, drops, duplicates, swaps, reorders, corrupts, brings)
}


class Liar(Memory):
    """Besides what it does to the messages, it can hold each put back for `delay_s`, or stall in one for `stall_s`."""

    declares = dataclasses.replace(Memory.declares, built_on="a queue in memory that breaks one promise on purpose")
    _held: ClassVar[dict[str, SimpleQueue[tuple[int, list[bytes]]]]] = {}

    def open(self) -> None:
        super().open()
        told = json.loads((Path(self.url) / LIE).read_text())
        self._delay_ns = int(1e9 * told.pop("delay_s", 0.0))
        self._stall_s, self._stall_at = told.pop("stall_s", 0.0), told.pop("stall_at", 0)
        self._lie = LIES[told.pop("lie", "nothing")](**told)
        self._line = self._held.setdefault(self.queue, SimpleQueue())
        self._kept_ns: dict[int, int] = {}

    def close(self) -> None:
        super().close()
        if self._kept_ns:
            (Path(self.url) / CONFESSION).write_text(json.dumps(self._kept_ns))
            self._kept_ns = {}

    def put(self, bodies: Sequence[bytes]) -> None:
        trial, first, *_ = HEADER.unpack_from(bodies[0])
        if self._delay_ns:
            self._line.put((time.monotonic_ns(), list(bodies)))
        elif trial & WARMUP_BIT:
            super().put(bodies)
        else:
            if self._stall_s and first <= self._stall_at < first + len(bodies):
                self._stall(len(bodies))
            super().put(self._lie(list(bodies)))

    def _stall(self, n: int) -> None:
        started_ns = time.monotonic_ns()
        time.sleep(self._stall_s)
        self._kept_ns = {n: time.monotonic_ns() - started_ns}

    def get(self, timeout_s: float) -> list[Message]:
        if not self._delay_ns:
            return super().get(timeout_s)
        try:
            put_ns, bodies = self._line.get(timeout=timeout_s)
        except Empty:
            return []
        time.sleep(max(0.0, (put_ns + self._delay_ns - time.monotonic_ns()) / 1e9))
        kept_ns = time.monotonic_ns() - put_ns
        if not HEADER.unpack_from(bodies[0])[0] & WARMUP_BIT:
            self._kept_ns |= dict.fromkeys(map(integer, bodies), kept_ns)
        return messages(bodies, repeat(None))
