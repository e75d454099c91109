"""The bench: a bare loop that owes nothing to the harness, and a table that says where the harness falls short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bench
from bench import auditing, pair, recording
from bench.__main__ import TARGETS_HZ, Cell, bare_names, fastest_networked, main, verdict
from imqueue import registry

HERE = Path(bench.__file__).parent


def test_the_bare_loops_share_no_code_with_the_harness() -> None:
    files = [HERE / "pair.py", *(HERE / "bare").glob("*.py")]
    assert len(files) > len(bare_names())
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "imqueue" for name in names), f"{path.name} imports {names}"


def test_every_backend_with_a_server_and_sqlite_has_a_bare_client() -> None:
    served = {name for name in registry.names() if registry.load(name).declares.server}
    assert set(bare_names()) == served | {"sqlite"}


def test_a_bare_loop_settles_what_it_puts_and_leaves_no_file(tmp_path: Path) -> None:
    assert pair.rate_hz("sqlite", str(tmp_path), "delayed", batch=10, seconds_s=0.3) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("backend", "scheme"), [("redis_list", "redis"), ("rabbitmq", "amqp")])
def test_a_bare_loop_without_its_server_is_told(backend: str, scheme: str) -> None:
    with pytest.raises(pair.Failed, match=r"could not make a queue|ended with"):
        pair.rate_hz(backend, f"{scheme}://127.0.0.1:1", "delayed", batch=10, seconds_s=0.3)


def test_a_ratio_is_of_neighbours_and_a_low_one_is_flagged() -> None:
    good = Cell("sqlite", "delayed", 100, harness_hz=(90.0, 10.0, 900.0), bare_hz=(100.0, 10.0, 1000.0))
    bad = Cell("sqlite", "delayed", 1, harness_hz=(50.0,), bare_hz=(100.0,))
    assert "0.90  (0.90-1.00)" in str(good)
    assert "under" not in str(good)
    assert "under 0.8" in str(bad)
    assert verdict([good, bad]) == [
        "at each batch: 1 of 2 at 0.8 of the bare client or above; short: sqlite delayed 1",
        "at the batch that is the bare client's best: 1 of 1 at 0.8 of the bare client or above",
    ]


def test_a_failed_cell_counts_as_nothing_reached() -> None:
    failed = Cell("sqlite", "delayed", 1, failure="it died")
    assert "failed: it died" in str(failed)
    assert "0 of 1 at 0.8 of the bare client or above" in verdict([failed])[-1]


def test_a_target_is_kept_or_missed_by_the_median() -> None:
    name, least_hz = next(iter(TARGETS_HZ.items()))
    rates = (least_hz / 2, least_hz * 1.01, least_hz * 2)
    assert "kept" in verdict([Cell(*name, harness_hz=rates, bare_hz=rates)])[0]
    assert "missed" in verdict([Cell(*name, harness_hz=rates[:1], bare_hz=rates[:1])])[0]


@pytest.mark.parametrize("wrong", ["--only=nope", "--batch=0", "--seconds=-1", "--pairs=0", "--durability=maybe"])
def test_bad_input_is_refused_in_one_line(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([wrong])
    assert stopped.value.code == 2
    assert wrong.partition("=")[2] in capsys.readouterr().err.splitlines()[-1]


def test_a_recording_that_forgets_counts_the_same_messages_and_keeps_none(tmp_path: Path) -> None:
    for recorded in (True, False):
        found = recording.run("null", str(tmp_path), "memory", 100, 0.2, recorded)
        assert found.rate_hz > 1_000
        assert 0 < found.cpu_us < 1_000
    assert list(tmp_path.iterdir()) == []


def test_the_cost_of_recording_is_judged_by_its_interval() -> None:
    assert recording.Shares([0.02] * 12).word == "within"
    assert recording.Shares([0.08] * 12).word == "over"
    torn = recording.Shares([-0.2, 0.3] * 6)
    assert torn.word == "cannot tell from"
    assert torn.interval == pytest.approx((-0.2, 0.3))
    assert recording.Shares([-9, -9, *[0.02] * 8, 9, 9]).interval == pytest.approx((0.02, 0.02))


def test_the_cost_of_recording_is_told_of_rates_and_of_cpu_time() -> None:
    recorded, forgotten = recording.Run(98.0, 2.1), recording.Run(100.0, 2.0)
    told = str(recording.Cost("redis_list", "memory", 100, (recorded,) * 12, (forgotten,) * 12))
    assert "98/s with, 100/s without: 2.0% (2.0% to 2.0%), within 5%" in told
    assert "CPU a message 2.10 and 2.00 µs: 4.8% (4.8% to 4.8%), within 5%" in told


def test_recording_is_measured_on_the_fastest_networked_backend_at_batch_100() -> None:
    nats = Cell("nats", "delayed", 100, harness_hz=(300.0, 100.0, 200.0), bare_hz=(1.0,) * 3)
    others = [
        Cell("postgres", "delayed", 100, harness_hz=(150.0, 900.0, 150.0), bare_hz=(1.0,) * 3),
        Cell("sqlite", "delayed", 100, harness_hz=(999.0,), bare_hz=(1.0,)),
        Cell("redis_list", "delayed", 1000, harness_hz=(999.0,), bare_hz=(1.0,)),
        Cell("rabbitmq", "delayed", 100, failure="it died"),
    ]
    assert fastest_networked([*others, nats]) == nats
    assert fastest_networked(others[1:]) == Cell("redis_list", "memory", 100)


@pytest.mark.parametrize(("batch", "again"), [(100, 0.0), (1, 0.0), (1, 0.01), (100, 1.0)])
def test_the_audit_of_many_messages_stays_small(batch: int, again: float) -> None:
    small, large = auditing.measure(10_000, batch, again), auditing.measure(1_000_000, batch, again)
    assert large.received == 1_000_000
    # State, counts and owners are 5 bytes a message, 50 where all come twice; chunks of records and rows come to some
    # 60 MB, however many.
    assert large.memory_mb - small.memory_mb < 100


def test_an_audit_that_finds_what_is_not_so_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "make", lambda *_: None)
    with pytest.raises(auditing.Failed, match=r"the audit of 10 messages died \(exit code 1\)"):
        auditing.measure(10, 1)
