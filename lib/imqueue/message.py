"""A message's bytes: a header of four 64-bit words, then padding up to the trial's size.

    word 0  the trial's id (low half) and the integer (high half)
    word 1  due_ns     word 2  sent_ns     word 3  the check value over the words before it and the padding

Whole batches are encoded and decoded by numpy; a batch of one takes a scalar path, where numpy would cost a third
of the rate. The padding is the same for every message, and random: a server that compresses must not gain by it.
"""

from __future__ import annotations

import functools
import secrets
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imqueue.workload import HEADER_BYTES

CORRUPTED = 0
"""In place of the trial's id in a decoded row: the right length, but the check value does not fit.

The row keeps the integer that stands in its header: the best name there is for it.
"""
FOREIGN = 1
"""In place of the trial's id in a decoded row: not of this length, so no message of ours."""
TRIAL_MIN = 2
WARMUP_BIT = 1 << 31
"""Set in the trial's id in the messages of its warm-up, which thus can't be taken for measured ones."""

MASK = (1 << 64) - 1
# Odd factors: a change of one word alone changes the check value, whatever the change.
K0, K1, K2 = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
HEADER = struct.Struct("<IIqqQ")

Rows = NDArray[np.uint64]
"""Decoded messages, shape (n, 4): word 0, due_ns, sent_ns, and a free word that the ledger fills."""


def new_trial_number() -> int:
    """A random id of a trial as it stands in its messages: 31 bits, neither CORRUPTED nor FOREIGN."""
    return secrets.randbelow(WARMUP_BIT - TRIAL_MIN) + TRIAL_MIN


class Codec:
    """Encodes and decodes the messages of one trial, all of `size_bytes`."""

    def __init__(self, trial: int, size_bytes: int) -> None:
        self.trial = trial
        self.size_bytes = size_bytes
        self._words = -(-size_bytes // 8)
        self._gap = self._words * 8 - size_bytes
        random = np.random.default_rng(20_190_316)
        padding = random.bytes(size_bytes - HEADER_BYTES)
        whole = np.frombuffer(padding + bytes(self._gap), dtype="<u8")
        self._padding = padding
        self._factors = random.integers(0, 2**63, len(whole), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._padding_check = np.sum(whole * self._factors, dtype=np.uint64)
        self._template = np.zeros((0, self._words), dtype="<u8")
        self._whole = whole

    def encode(self, numbers: NDArray[np.uint64], due_ns: NDArray[np.int64] | int, sent_ns: int) -> list[bytes]:
        """Bodies of the integers `numbers`; `due_ns` is one for each, or one for all."""
        n = len(numbers)
        if n > len(self._template):
            self._template = np.zeros((n, self._words), dtype="<u8")
            self._template[:, 4:] = self._whole
        words = self._template[:n]
        words[:, 0] = (numbers << np.uint64(32)) | np.uint64(self.trial)
        words[:, 1] = due_ns
        words[:, 2] = sent_ns
        words[:, 3] = self._check(words)
        return list(_splitter(self.size_bytes, self._gap, n).unpack(words.tobytes()))

    def encode_one(self, number: int, due_ns: int, sent_ns: int) -> bytes:
        check = (((number << 32) | self.trial) * K0 + due_ns * K1 + sent_ns * K2 + int(self._padding_check)) & MASK
        return HEADER.pack(self.trial, number, due_ns, sent_ns, check) + self._padding

    def decode(self, bodies: Sequence[bytes]) -> Rows:
        """A row for each body, in order; what is not a sound message of this length is marked, never dropped."""
        joined = bytes(self._gap).join(bodies) + bytes(self._gap)
        if len(joined) != len(bodies) * self._words * 8:
            return self._decode_mixed(bodies)
        words = np.frombuffer(joined, dtype="<u8").reshape(len(bodies), self._words)
        expected = self._check(words)
        if self._words > 4:
            sums = (words[:, 4:] * self._factors).sum(axis=1, dtype=np.uint64)
            expected = expected - self._padding_check + sums
        rows = words[:, :4].copy()
        bad = rows[:, 3] != expected
        if bad.any():
            if {len(body) for body in bodies} != {self.size_bytes}:
                return self._decode_mixed(bodies)
            rows[bad, 0] = rows[bad, 0] >> np.uint64(32) << np.uint64(32) | np.uint64(CORRUPTED)
        return rows

    def decode_one(self, body: bytes) -> tuple[int, int, int]:
        """Word 0, due_ns and sent_ns of one body, marked like a row of `decode`."""
        if len(body) != self.size_bytes:
            return FOREIGN, 0, 0
        trial, number, due_ns, sent_ns, check = HEADER.unpack_from(body)
        word0 = (number << 32) | trial
        sound = (word0 * K0 + due_ns * K1 + sent_ns * K2 + int(self._padding_check)) & MASK
        if sound != check or body[HEADER_BYTES:] != self._padding:
            return number << 32 | CORRUPTED, due_ns, sent_ns
        return word0, due_ns, sent_ns

    def _check(self, words: Rows) -> NDArray[np.uint64]:
        """The check value of each row as if its padding were ours."""
        check: Rows = words[:, 0] * np.uint64(K0) + words[:, 1] * np.uint64(K1) + words[:, 2] * np.uint64(K2)
        check += self._padding_check
        return check

    def _decode_mixed(self, bodies: Sequence[bytes]) -> Rows:
        rows = np.zeros((len(bodies), 4), dtype="<u8")
        for row, body in zip(rows, bodies, strict=True):
            word0, due_ns, sent_ns = self.decode_one(body)
            row[:3] = word0, due_ns & MASK, sent_ns & MASK
        return rows


@functools.lru_cache(maxsize=4096)
def _splitter(size_bytes: int, gap: int, n: int) -> struct.Struct:
    """Cuts n bodies from one buffer: 18 us per 1,000, where slicing takes 82."""
    return struct.Struct("<" + f"{size_bytes}s{gap}x" * n if gap else "<" + f"{size_bytes}s" * n)
