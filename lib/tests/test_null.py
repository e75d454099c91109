"""The ring of the null backend: it wraps, it fills, and a holder that dies in between spoils nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import bodies

from imqueue.backend import BackendError, Durability, Rejected
from imqueue.backends import null


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[null.Null]:
    """An open handle on a ring of 1 KiB."""
    monkeypatch.setattr(null, "RING_BYTES", 1024)
    monkeypatch.setattr(null, "BODIES_MAX_BYTES", 128)
    monkeypatch.setattr(null, "FULL_MAX_S", 0.05)
    with null.Null(str(tmp_path), "ring", durability=Durability.MEMORY, batch=3) as handle:
        yield handle


def test_bodies_of_any_size_come_back_in_order_however_often_the_ring_wraps(ring: null.Null) -> None:
    chance = random.Random(1)
    sent: list[bytes] = []
    received: list[bytes] = []
    for _ in range(2_000):
        batch = [chance.randbytes(chance.choice([0, 1, 32, 32, 32, 100])) for _ in range(chance.randint(1, 4))]
        ring.put(batch)
        sent += batch
        received += bodies(ring.get(0.0))
        while ring.depth() > 6:
            received += bodies(ring.get(0.0))
    while messages := ring.get(0.0):
        received += bodies(messages)

    assert received == sent
    assert ring.depth() == 0


def test_a_full_ring_rejects_and_takes_more_once_there_is_room(ring: null.Null) -> None:
    for _ in range(1024 // 128):
        ring.put([b"x" * 100])
    with pytest.raises(Rejected, match="the ring stayed full"):
        ring.put([b"x" * 100])
    assert ring.depth() == 1024 // 128

    ring.get(0.0)
    ring.put([b"y" * 100])


def test_a_batch_of_which_only_a_part_fits_is_uncertain(ring: null.Null) -> None:
    with pytest.raises(BackendError, match="8 of 20 bodies are in it") as raised:
        ring.put([b"x" * 100] * 20)
    assert not isinstance(raised.value, Rejected)


def test_a_record_that_its_dead_holder_emptied_is_passed_over(ring: null.Null) -> None:
    ring.put([b"taken"])
    assert ring._ring is not None
    n, _, length = null.HEAD.unpack_from(ring._ring.buffer, null.PAGE_BYTES)
    null.HEAD.pack_into(ring._ring.buffer, null.PAGE_BYTES, n, n, length)  # and then it was killed
    ring.put([b"next"])

    assert bodies(ring.get(0.0)) == [b"next"]


def test_a_processor_that_may_show_the_word_before_the_record_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert null.Null.missing() == "its shared memory needs an x86 processor, this one is aarch64"
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert null.Null.missing() is None
