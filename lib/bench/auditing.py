"""What the audit of a large trial takes: ledgers of made-up batches, audited in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from imqueue import ledger, record
from imqueue.ledger import BATCH, BATCHES_N, MESSAGES_N, PAGE_BYTES, ROW, Outcome, Reader

MESSAGES = 10_000_000
TIME_MAX_S, MEMORY_MAX_MB = 5.0, 300.0
TRIAL = 77
CHUNK = 1_000_000

AGAIN = 0.01
"""The share of messages redelivered, where some are: a worker or a lease was lost now and then.

Where all are (10,000,000 twice, batch 100), the audit takes 4.5 s and 460 MB, so there the bound is missed.
"""
END_MAX_S = 120.0

spawn = multiprocessing.get_context("spawn")


class Failed(Exception):
    """The audit did not come to its end, or said what is not so."""


@dataclass(frozen=True)
class Audited:
    """Seconds, and the most memory that the process ever held, Python and numpy included."""

    messages: int
    batch: int
    again: float
    took_s: float
    memory_mb: float
    received: int

    def __str__(self) -> str:
        kept = "kept" if self.took_s <= TIME_MAX_S and self.memory_mb <= MEMORY_MAX_MB else "missed"
        again = f", {self.again:.0%} redelivered" if self.again else ""
        return (
            f"audit of {self.messages:,} messages, batch {self.batch}{again}: "
            f"{self.took_s:.2f} s and {self.memory_mb:.0f} MB "
            f"(at most {TIME_MAX_S:g} s and {MEMORY_MAX_MB:.0f} MB: {kept})"
        )


def measure(messages: int, batch: int, again: float = 0.0) -> Audited:
    """`again`: the share of the messages that is delivered twice. Raises `Failed`."""
    with tempfile.TemporaryDirectory(prefix="imq-bench-") as folder:
        twice = round(messages * again)
        make(Path(folder), messages, batch, twice)
        ours, theirs = spawn.Pipe(duplex=False)
        child = spawn.Process(target=_audit, args=(Path(folder), messages, twice, theirs))
        child.start()
        theirs.close()
        try:
            if not ours.poll(END_MAX_S):
                raise Failed(f"the audit of {messages:,} messages was not done after {END_MAX_S:g} s")
            took_s, memory_mb, received = ours.recv()
        except EOFError:
            child.join(END_MAX_S)
            raise Failed(f"the audit of {messages:,} messages died (exit code {child.exitcode})") from None
        finally:
            child.kill()
            child.join()
        return Audited(messages, batch, again, took_s, memory_mb, received)


def make(folder: Path, messages: int, batch: int, twice: int) -> None:
    """One producer's and one worker's ledger: everything in order, a microsecond apart, handled 200 us later.

    `twice` messages, evenly spread, come once more after all others.
    """
    for name, n in (("producer-0", messages), ("worker-0", messages + twice)):
        ledger.create(folder, name)
        with (folder / f"{name}.batches").open("r+b") as file:
            words = np.zeros(PAGE_BYTES // 8, dtype=np.int64)
            words[BATCHES_N], words[MESSAGES_N] = -(-n // batch), n
            file.write(words.tobytes())
            for start in range(0, n, CHUNK):
                file.write(_batches(start, min(CHUNK, n - start), batch, name).tobytes())
    with (folder / "worker-0.rows").open("r+b") as file:
        for start in range(0, messages + twice, CHUNK):
            at = np.arange(start, min(start + CHUNK, messages + twice), dtype=np.int64)
            again = (at - messages) * messages // max(twice, 1)
            rows = np.zeros(len(at), dtype=ROW)
            rows["trial"], rows["number"] = TRIAL, 1 + np.where(at < messages, at, again)
            rows["due_ns"] = rows["sent_ns"] = 1 + 1000 * rows["number"].astype(np.int64)
            rows["handled_ns"] = 1000 * at + 200_000 + rows["number"] % 1009
            file.write(rows.tobytes())


def _batches(start: int, n: int, batch: int, name: str) -> np.ndarray:
    records = np.zeros(-(-n // batch), dtype=BATCH)
    records["first"] = start + np.arange(0, n, batch) + (1 if name.startswith("producer") else 0)
    records["n"] = np.minimum(batch, n - np.arange(0, n, batch))
    records["step"], records["outcome"] = 1, Outcome.DONE
    records["start_ns"] = 1000 * records["first"]
    records["end_ns"] = records["start_ns"] + 150_000
    return records


def _audit(folder: Path, messages: int, twice: int, pipe: Connection) -> None:
    began_s = time.perf_counter()
    with Reader(folder, "producer-0") as producer, Reader(folder, "worker-0") as worker:
        verdict, _ = record.audited({"producer-0": producer, "worker-0": worker}, trial=TRIAL, fifo=True, drained=True)
    took_s = time.perf_counter() - began_s
    sound = verdict.passed and verdict.received == verdict.acknowledged == messages and not verdict.reordered
    if not (sound and verdict.duplicated == twice):
        raise AssertionError(f"the audit of sound ledgers says {verdict}")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send((took_s, most / (1e6 if sys.platform == "darwin" else 1e3), verdict.received))
