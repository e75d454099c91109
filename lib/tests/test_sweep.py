"""Sweeps: what is asked for is checked before anything runs, what ran is kept, and the same command goes on."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import psutil
import pytest
from made import LATENCY_S, make_trial

from imqueue import client
from imqueue.report import NOTEBOOKS
from imqueue.sweep import child, grid, load, plan, store
from imqueue.workload import BadInput

DEFAULTS: dict[str, Any] = {"backend": "memory", "rate_hz": 100.0, "workers": 1, "batch": 100, "why": False}


def points_of(text: str) -> list[tuple[Any, ...]]:
    found = grid.parsed(text, DEFAULTS)
    return [tuple(each[name] for name in found.names) for each in found.points(DEFAULTS)]


# What is asked for.


def test_a_grid_is_all_combinations() -> None:
    assert points_of("backend=memory,sqlite workers=1,2") == list(itertools.product(["memory", "sqlite"], [1, 2]))


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("rate_hz=100..10000*5", [100.0, 316.2, 1000.0, 3162.0, 10000.0]),
        ("rate_hz=100..1000/4", [100.0, 400.0, 700.0, 1000.0]),
        ("rate_hz=0.5..2.5", [0.5, 1.5, 2.5]),
        ("rate_hz=1e3,1000", [1000.0]),
        ("workers=1..4,8", [1, 2, 3, 4, 8]),
        ("workers=1..4*6", [1, 2, 3, 4]),
        ("why=true,false", [True, False]),
    ],
)
def test_ranges_give_values_of_the_parameters_type(word: str, values: list[Any]) -> None:
    found = [value for (value,) in points_of(word)]
    assert found == values
    assert {type(each) for each in found} == {type(values[0])}


def test_zipped_parameters_go_together_and_excluded_points_are_left_out() -> None:
    assert points_of("rate_hz:workers=500:1,2000:4") == [(500.0, 1), (2000.0, 4)]
    assert points_of("workers=1,2 batch=1,10 -workers:batch=2:1") == [(1, 1), (1, 10), (2, 10)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rate=1", "unknown parameter 'rate'; did you mean 'rate_hz'?"),
        ("workers=1.5", "workers is '1.5'; allowed: a whole number"),
        ("rate_hz=nan", "rate_hz is 'nan'; allowed: a number"),
        ("why=1", "why is '1'; allowed: true or false"),
        ("backend=1..2", "backend is '1..2'; allowed: text, which has no ranges"),
        ("rate_hz=0..10*3", "allowed: a range from above 0"),
        ("workers=4..1", "allowed: a range from a number to a larger one"),
        ("workers=1..1000000000", "which is 1,000,000,000 values"),
        ("workers:batch=1:2,3", "'3' does not have one value for each of workers:batch"),
        ("workers=1 workers=2", "workers is in the grid twice"),
        ("workers", "'workers' is no parameter with values"),
        ("", "the grid is empty"),
    ],
)
def test_a_wrong_grid_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        grid.parsed(text, DEFAULTS)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def asked(text: str, **more: Any) -> plan.Asked:
    return plan.asked(NOTEBOOKS, notebook="20_flow", grid=text, **more)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("workers=0,1", "workers is 0; allowed: a whole number from 1"),
        ("backend=redis_lst", "unknown backend 'redis_lst'; did you mean 'redis_list'?"),
        ("workers=1..64 batch=1..200", r"12,800 points; allowed: up to 10,000, or more with FORCE=1"),
        ("workers=1,2 -workers=1,2", "every point of the grid is left out"),
    ],
)
def test_values_that_no_trial_may_have_and_too_many_points_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        plan.planned(asked(text), seed=1)


def test_more_than_ten_thousand_points_run_when_forced() -> None:
    assert len(plan.planned(asked("workers=1..64 batch=1..200"), 1, force=True)) == 12_800


def test_the_seed_decides_the_order_of_each_block_of_repeats() -> None:
    sweep = asked("workers=1..8", repeats=2)
    first, again, other = (plan.planned(sweep, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert {each.key for each in first} == {each.key for each in other}
    assert len({each.key for each in first}) == 16
    workers = [each.parameters["workers"] for each in first]
    assert sorted(workers[:8]) == sorted(workers[8:]) == list(range(1, 9))
    assert workers[:8] not in (workers[8:], list(range(1, 9)))


def test_the_kept_sweep_is_read_from_its_file() -> None:
    sweep = plan.asked(NOTEBOOKS, file=NOTEBOOKS / "sweeps" / "scaling.yaml")
    points = plan.planned(sweep, seed=1)
    assert (sweep.name, sweep.repeats, len(points)) == ("scaling", 3, 3 * 2 * (3 * 3 - 1))
    assert {each.parameters["rate_hz"] for each in points} == {500.0, 2000.0, 8000.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grids: {}", "unknown word in a.yaml 'grids'; did you mean 'grid'?"),
        ("grid: {workers: two}\nnotebook: 20_flow", "workers is 'two'; allowed: a whole number"),
        ("grid: {workers: 1}\nnotebook: 20_flow\nrepeats: 0", "repeats is 0; allowed: a whole number from 1"),
        ("notebook: 20_flow\nzip: [{workers: [1, 2], batch: [1]}]", "workers has 2, batch has 1"),
        ("grid: [", "is no YAML"),
        ("grid: {workers: 1}", "no notebook to sweep"),
    ],
)
def test_a_wrong_file_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadInput) as refused:
        plan.asked(NOTEBOOKS, file=tmp_path / "a.yaml")
    assert says in str(refused.value)


# What is kept.


@pytest.mark.parametrize("name", ["..", "../x", "/tmp/x", "a/b", "", ".hidden", "a b", "x" * 200])
def test_a_name_that_leads_out_of_the_data_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the sweep's name is"):
        store.folder_of(name, tmp_path)


def test_a_link_out_of_the_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "out").symlink_to("/tmp")
    with pytest.raises(BadInput, match="the sweep's name is"):
        store.folder_of("out", tmp_path)


def a_row(point: plan.Point, trials: list[Path], **changes: Any) -> dict[str, Any]:
    row = {"key": point.key, "repeat": 1, "parameters": dict(point.parameters), "state": "done", "error": None}
    files = {"notebook": f"notebooks/{point.key}.ipynb", "page": f"pages/{point.key}.html", "wall_s": 2.0}
    return {**row, **store.figures(trials), **files, **changes}


def kept_sweep(name: str, n: int, trials: list[Path]) -> tuple[store.Store, list[plan.Point]]:
    points = plan.planned(asked(f"batch=1..{n}"), seed=1)
    kept = store.Store(store.folder_of(name))
    kept.begin({"name": name, "notebook": "20_flow", "seed": 1}, points)
    return kept, points


def test_figures_failures_and_paths_come_back_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))
    kept, points = kept_sweep("two", 3, [])
    kept.keep(a_row(points[0], [make_trial(tmp_path / "trials", sampled=False)]))
    kept.keep(a_row(points[1], [], state="failed", error="ValueError: <b>no</b>"))

    frame = load("two")
    assert list(frame["batch"]) == [each.parameters["batch"] for each in points[:2]]
    assert list(frame["state"]) == ["done", "failed"]
    assert frame["due_p99_s"][0] == LATENCY_S
    assert pd.isna(frame["settled_hz"][1])
    assert frame["lost"][0] == 0
    assert frame["notebook"][0] == str(kept.folder / "notebooks" / f"{points[0].key}.ipynb")
    page = (kept.folder / "index.html").read_text()
    assert "1 done, 1 failed, 1 waiting" in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert f'href="pages/{points[0].key}.html"' in page


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"PAR1 no"), Path.unlink])
def test_a_spoilt_table_is_made_anew_from_the_points(
    spoil: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))
    kept, points = kept_sweep("spoilt", 2, [])
    for point in points:
        kept.keep(a_row(point, []))
    before = load("spoilt")
    spoil(kept.folder / "points.parquet")
    pd.testing.assert_frame_equal(load("spoilt"), before)


def test_an_unknown_sweep_is_refused_with_those_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))
    kept_sweep("here", 2, [])
    with pytest.raises(BadInput, match=r"no sweep 'there' in .*; there: here"):
        load("there")


def test_a_thousand_points_load_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))
    kept, points = kept_sweep("big", 1_000, [])
    trials = [make_trial(tmp_path / "trials", sampled=False)]
    store.write_table(kept.folder, [a_row(each, trials) for each in points])
    started = time.perf_counter()
    assert len(load("big")) == 1_000
    assert time.perf_counter() - started < 1.0


# What runs.


def sweeping(data: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "imqueue",
        "sweep",
        "--notebook=10_sum",
        "--grid=backend=memory messages=1000,2000",
    ]
    environment = {**os.environ, "IMQUEUE_DATA": str(data)}
    options = ["--name=tiny", "--seed=1", *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *options], env=environment, **pipes)


def of_points() -> list[psutil.Process]:
    """Kernels and all else that a point started, but for drivers."""
    found = []
    for each in psutil.process_iter():
        try:
            if child.MARK in each.environ():
                found.append(each)
        except psutil.Error:
            continue
    return found


def gone_within(seconds_s: float) -> bool:
    deadline = time.monotonic() + seconds_s
    while of_points():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def ended_in_point(place: int, how: signal.Signals, data: Path) -> None:
    """Start the sweep, end it while its point `place` runs, and see that nothing of it is left."""
    sweep = sweeping(data)
    deadline = time.monotonic() + 40
    while len(list(data.glob("sweeps/tiny/points/*.json"))) < place - 1 or not of_points():
        assert time.monotonic() < deadline, f"point {place} never started"
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.02)
    sweep.send_signal(how)
    sweep.communicate(timeout=40)
    assert gone_within(10), of_points()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("cell", "max_s", "error", "dead"),
    [
        ("import subprocess; subprocess.run(['sleep', '300'])", 3.0, "it was ended after 3 s", False),
        ("import os; os.kill(os.getpid(), 9)", 30.0, "DeadKernelError", True),
        ("1 / n", 30.0, "ZeroDivisionError", False),
    ],
)
def test_however_a_notebook_ends_it_is_told_and_nothing_is_left(
    cell: str, max_s: float, error: str, dead: bool, tmp_path: Path
) -> None:
    parameters = nbformat.v4.new_code_cell("n: int = 1", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(cell)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "a.ipynb")
    child.preload()
    ran = child.run(tmp_path / "a.ipynb", {"n": 0}, tmp_path / "b.ipynb", tmp_path, "a-test", max_s)
    assert ran.error is not None
    assert error in ran.error
    assert ran.dead == dead
    assert not of_points()


@pytest.mark.timeout(150)
def test_a_sweep_ended_half_way_leaves_nothing_running_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "tiny"
    try:
        ended_in_point(1, signal.SIGINT, tmp_path)
        ended_in_point(2, signal.SIGKILL, tmp_path)
        done = {path.name: path.stat().st_mtime_ns for path in folder.glob("points/*.json")}
        assert len(done) == 1

        last = sweeping(tmp_path)
        told, _ = last.communicate(timeout=40)
        assert last.returncode == 0, told
        assert "1 of them there already" in told
        assert "point 2 of 2" in told
        after = {path.name: path.stat().st_mtime_ns for path in folder.glob("points/*.json")}
        assert len(after) == 2
        assert done.items() <= after.items(), "a point that was there ran again"
    finally:
        client.end(tmp_path)
