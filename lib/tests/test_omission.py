"""The latency meter reads a delay that is known, and a stall is told in full: nothing is omitted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lying import tell
from numpy.typing import NDArray

from imqueue import notebook, store
from imqueue.record import QUANTILES
from imqueue.results import Result

BUCKET = 1 / 256
"""Half of a fine bucket: the histogram's stated error, 0.4 %."""
DELAY_S = 0.03
RATE_HZ, DURATION_S, STALL_S, BATCH = 2_500, 4.0, 1.4, 100


def flow(data: Path, lie: dict[str, float], **workload: float) -> tuple[Result, dict[int, int]]:
    """The trial, and what the liar says of itself afterwards: ns by integer."""
    folder = data / "servers" / "liar"
    tell(folder, lie)
    result = notebook.run("liar", **workload, batch=BATCH, warmup_messages=200, progress=False)
    assert result.passed, result.verdict()
    confession = folder / "confession.json"
    told = json.loads(confession.read_text()) if lie else {}
    return result, {int(number): ns for number, ns in told.items()}


def rows(result: Result) -> NDArray[np.void]:
    return store.read_ledger(Path(result.folder) / "ledger" / "worker-0.rows.parquet")


def test_a_known_delay_is_read_within_the_stated_error(liars_data: Path) -> None:
    steady = {"rate_hz": 2_000, "duration_s": 0.6}
    plain, _ = flow(liars_data, {}, **steady)
    late, held = flow(liars_data, {"delay_s": DELAY_S}, **steady)
    got = rows(late)
    sent_ns = got["handled_ns"] - got["sent_ns"]
    held_ns = np.array([held[number] for number in got["number"].tolist()])
    machine_s = plain.info["latency"]["sent"]["p50_s"]

    assert (sent_ns >= held_ns).all()
    assert np.median(sent_ns - held_ns) / 1e9 < 3 * machine_s, "what the machine adds to the delay, as to no delay"
    for kind in ("due", "sent"):
        exact_s = np.sort(got["handled_ns"] - got[f"{kind}_ns"]) / 1e9
        for name in ("p50_s", "p90_s", "p99_s"):
            true_s = exact_s[int(np.ceil(QUANTILES[name] * len(exact_s) - 1e-9)) - 1]
            assert late.info["latency"][kind][name] == pytest.approx(true_s, rel=BUCKET)
    read_s = late.info["latency"]["sent"]["p50_s"]
    assert DELAY_S * (1 - BUCKET) <= read_s <= (float(np.median(held_ns)) / 1e9 + 3 * machine_s) * (1 + BUCKET)


def catching_up_hz(result: Result) -> float:
    """Messages per second that were handled after the stall, while the producer was behind and put full batches."""
    puts = store.read_ledger(Path(result.folder) / "ledger" / "producer-0.batches.parquet")
    stalled = int(np.argmax(puts["end_ns"] - puts["start_ns"]))
    after = puts[stalled + 1 :]
    behind = after[: int(np.argmax(after["n"] < BATCH))]
    got = rows(result)
    (handled_ns,) = got["handled_ns"][got["number"] == behind["first"][-1] + behind["n"][-1] - 1]
    return float(behind["n"].sum() / ((int(handled_ns) - puts["end_ns"][stalled]) / 1e9))


def closed_form_s(q: float, pace_hz: float) -> float | None:
    """The quantile of latency from due; None: it lies among the messages that the stall did not touch.

    A message that is due x after the stall began waits S - x, and then until the backlog before it, r x messages,
    was handled at the pace c: S - x (1 - r/c). That is over at x = S c/(c - r), so S r c/(c - r) messages are late,
    evenly from S down to 0; the share of all r D messages that is over l is (1 - l/S) S c/((c - r) D).
    """
    share = STALL_S * pace_hz / ((pace_hz - RATE_HZ) * DURATION_S)
    return STALL_S * (1 - (1 - q) / share) if 1 - q < share else None


def test_a_stall_stands_in_the_percentiles_from_due_as_the_closed_form_says_and_is_hidden_from_sent(
    liars_data: Path,
) -> None:
    lie = {"stall_s": STALL_S, "stall_at": RATE_HZ + 1}  # one second after go
    result, confession = flow(liars_data, lie, rate_hz=RATE_HZ, duration_s=DURATION_S)
    ((stalled_n, stalled_ns),) = confession.items()
    due, sent = result.info["latency"]["due"], result.info["latency"]["sent"]
    pace_hz, got = catching_up_hz(result), rows(result)
    untouched = got[got["number"] <= RATE_HZ - 100]
    machine_s = float(np.quantile(untouched["handled_ns"] - untouched["due_ns"], 0.99)) / 1e9
    # The sleep's own overrun, what the machine adds to any message, and the grain of the grid and of a batch.
    noise_s = stalled_ns / 1e9 - STALL_S + machine_s + 1 / RATE_HZ + BATCH / pace_hz
    catch_up_s = STALL_S * RATE_HZ / (pace_hz - RATE_HZ)
    assert 0 < noise_s + catch_up_s < 0.1 * STALL_S, "the machine is too restless to tell"
    print(f"\ncaught up at {pace_hz:,.0f}/s; noise {noise_s * 1e3:.1f} ms; {stalled_n} in the put that stalled")
    for name, q in QUANTILES.items():
        expected_s = closed_form_s(q, pace_hz)
        print(f"{name}: closed form {expected_s}, due {due[name]}, sent {sent[name]}")
        if expected_s is None:
            assert due[name] < noise_s
        else:
            assert due[name] == pytest.approx(expected_s, abs=expected_s * BUCKET + noise_s)
    slow_ns = STALL_S / 2 * 1e9
    over = {kind: int((got["handled_ns"] - got[f"{kind}_ns"] > slow_ns).sum()) for kind in ("due", "sent")}
    half = STALL_S / 2 * RATE_HZ * pace_hz / (pace_hz - RATE_HZ)

    assert over["due"] == pytest.approx(half, abs=RATE_HZ * noise_s)
    assert over["sent"] == stalled_n, "a closed loop would have seen one slow put"
    assert max(sent["p50_s"], sent["p90_s"], sent["p99_s"]) < noise_s + catch_up_s
