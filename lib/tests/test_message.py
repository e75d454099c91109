"""A message's bytes: what went in comes out, and nothing that was touched on the way passes for sound."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from imqueue.message import CORRUPTED, FOREIGN, TRIAL_MIN, WARMUP_BIT, Codec, new_trial_number
from imqueue.workload import HEADER_BYTES

SIZES = (32, 33, 40, 57, 1000)
TRIAL = 77


def numbered(n: int) -> np.ndarray:
    return np.arange(1, n + 1, dtype=np.uint64)


def trial_of(row: np.ndarray) -> int:
    return int(row[0]) & 0xFFFFFFFF


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_batch_comes_back_as_it_was(size_bytes: int) -> None:
    codec = Codec(TRIAL, size_bytes)
    bodies = codec.encode(numbered(50), np.arange(1000, 1050), 7)
    rows = codec.decode(bodies)

    assert {len(body) for body in bodies} == {size_bytes}
    assert [trial_of(row) for row in rows] == [TRIAL] * 50
    assert (rows[:, 0] >> np.uint64(32)).tolist() == numbered(50).tolist()
    assert rows[:, 1].tolist() == list(range(1000, 1050))
    assert set(rows[:, 2].tolist()) == {7}


@pytest.mark.parametrize("size_bytes", SIZES)
def test_the_scalar_path_writes_and_reads_the_same_bytes(size_bytes: int) -> None:
    codec = Codec(TRIAL, size_bytes)
    (body,) = codec.encode(np.array([4], dtype=np.uint64), 1003, 7)

    assert codec.encode_one(4, 1003, 7) == body
    assert codec.decode_one(body) == (4 << 32 | TRIAL, 1003, 7)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_any_changed_byte_is_corruption(size_bytes: int) -> None:
    codec = Codec(TRIAL, size_bytes)
    bodies = codec.encode(numbered(3), 5, 6)
    for position in range(size_bytes):
        changed = bytearray(bodies[1])
        changed[position] ^= 0x40
        rows = codec.decode([bodies[0], bytes(changed), bodies[2]])
        claimed = int.from_bytes(changed[4:8], "little")
        assert [trial_of(row) for row in rows] == [TRIAL, CORRUPTED, TRIAL], f"byte {position}"
        assert int(rows[1, 0]) == codec.decode_one(bytes(changed))[0] == claimed << 32 | CORRUPTED, f"byte {position}"


def test_two_swapped_words_are_corruption() -> None:
    codec = Codec(TRIAL, HEADER_BYTES)
    body = codec.encode_one(1, 5, 6)
    assert codec.decode_one(body[:8] + body[16:24] + body[8:16] + body[24:])[0] == 1 << 32 | CORRUPTED


@pytest.mark.parametrize("foreign", [b"", b"hello", b"x" * 31, b"x" * 33, b"x" * 5000])
def test_a_body_of_another_length_is_foreign_and_spoils_none_beside_it(foreign: bytes) -> None:
    codec = Codec(TRIAL, HEADER_BYTES)
    bodies = codec.encode(numbered(2), 5, 6)
    assert [trial_of(row) for row in codec.decode([bodies[0], foreign, bodies[1]])] == [TRIAL, FOREIGN, TRIAL]
    assert codec.decode_one(foreign)[0] == FOREIGN


def test_lengths_that_only_add_up_are_foreign_too() -> None:
    codec = Codec(TRIAL, HEADER_BYTES)
    good = codec.encode_one(1, 5, 6)
    assert [trial_of(row) for row in codec.decode([good, b"x" * 31, b"x" * 33])] == [TRIAL, FOREIGN, FOREIGN]


def test_a_message_of_another_trial_keeps_its_trial() -> None:
    other = Codec(TRIAL + 1, HEADER_BYTES).encode_one(9, 5, 6)
    assert Codec(TRIAL, HEADER_BYTES).decode_one(other)[0] == 9 << 32 | TRIAL + 1


def test_padding_does_not_compress() -> None:
    body = Codec(TRIAL, 4096).encode_one(1, 5, 6)
    assert len(zlib.compress(body)) > 0.98 * len(body)


def test_a_trials_number_is_never_a_mark_nor_a_warm_up() -> None:
    assert all(TRIAL_MIN <= new_trial_number() < WARMUP_BIT for _ in range(1000))
