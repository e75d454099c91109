"""A file that several processes write: what SQLite leaves to us."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import LEASE_S

from imqueue.backend import BackendError, Durability, Rejected
from imqueue.backends import sqlite


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[sqlite.Sqlite]:
    with another(tmp_path) as handle:
        yield handle


def another(folder: Path, batch: int = 100) -> sqlite.Sqlite:
    return sqlite.Sqlite(str(folder), "queue", durability=Durability.DELAYED, batch=batch, lease_s=LEASE_S)


def test_a_file_that_stays_locked_rejects_a_put_in_the_end(
    backend: sqlite.Sqlite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_MAX_S", 0.3)
    blocker = sqlite3.connect(tmp_path / "queue.sqlite3", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    with pytest.raises(Rejected, match="database is locked"):
        backend.put([b"x"])

    blocker.execute("ROLLBACK")
    blocker.close()
    backend.put([b"y"])
    assert [message.body for message in backend.get(1.0)] == [b"y"]


def test_a_batch_that_fails_half_way_leaves_nothing(backend: sqlite.Sqlite) -> None:
    with pytest.raises(Rejected, match="left nothing behind"):
        backend.put([b"x", None])  # type: ignore[list-item]

    assert backend.depth() == 0


def test_a_smaller_batch_takes_an_expired_claim_piece_by_piece(backend: sqlite.Sqlite, tmp_path: Path) -> None:
    backend.put([b"%d" % number for number in range(7)])
    held = backend.get(1.0)
    backend.ack([held[2], held[6]])
    time.sleep(LEASE_S)
    backend.put([b"7"])

    with another(tmp_path, batch=2) as small:
        pieces = []
        while messages := small.get(0.0):
            pieces.append([message.body for message in messages])
            assert small.depth() == 6 - sum(map(len, pieces))
            small.ack(messages)

    assert pieces == [[b"0", b"1"], [b"3", b"4"], [b"5"], [b"7"]]


def test_a_put_after_the_highest_message_was_acked_is_seen(backend: sqlite.Sqlite) -> None:
    backend.put([b"0", b"1", b"2"])
    held = backend.get(1.0)
    backend.ack(held[1:])  # the claim stays, and covers ids that are free again

    backend.put([b"3"])

    assert backend.depth() == 1
    assert [message.body for message in backend.get(1.0)] == [b"3"]


def test_a_folder_that_cannot_be_made_is_a_backend_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(BackendError, match="cannot open"):
        another(tmp_path / "file" / "folder").open()


def test_a_queue_may_have_any_name(tmp_path: Path) -> None:
    with sqlite.Sqlite(str(tmp_path), "../a/b c", durability=Durability.FLUSHED, batch=1) as handle:
        handle.put([b"x"])
        assert [path.suffix for path in tmp_path.iterdir() if "sqlite3-" not in path.name] == [".sqlite3"]
        handle.destroy()

    assert list(tmp_path.iterdir()) == []
