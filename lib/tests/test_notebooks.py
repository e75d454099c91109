"""Notebooks: a question, short cells, no program, no outputs; each runs under papermill against the real driver."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imqueue import client
from imqueue.report import NOTEBOOKS
from imqueue.report.notebooks import check, execute, parameters_of
from imqueue.workload import BadInput

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LINES_MAX = 15
PROMQL = re.compile(r"\b(rate|irate|increase|histogram_quantile)\s*\(|\w+_total\b|\[\d+[smh]\]")
TINY: dict[str, dict[str, Any]] = {
    "00_tour": {"backend": "memory", "messages": 1_000},
    "10_sum": {"backend": "memory", "messages": 1_000},
    "20_flow": {"backend": "memory", "rate_hz": 200.0, "duration_s": 1.0},
    "30_durability": {"backends": "memory,sqlite", "messages": 200, "repeats": 1, "time_max_s": 1.0},
    "90_compare": {},
}


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(request.param.read_text())
    return {**content, "path": request.param}


def cells(notebook: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [{**cell, "text": "".join(cell["source"])} for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebooks_are_the_ones_that_are_tested() -> None:
    assert [path.stem for path in PATHS] == sorted(TINY)


def test_no_outputs_are_kept(notebook: dict[str, Any]) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(notebook, "code"))


def test_the_title_is_a_question(notebook: dict[str, Any]) -> None:
    title = cells(notebook, "markdown")[0]["text"].splitlines()[0]
    assert re.fullmatch(r"# .+\?", title)


def test_cells_are_short_and_no_program(notebook: dict[str, Any]) -> None:
    forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While)
    for cell in cells(notebook, "code"):
        assert len(cell["text"].splitlines()) <= LINES_MAX
        assert not [node for node in ast.walk(ast.parse(cell["text"])) if isinstance(node, forbidden)]
        assert not PROMQL.search(cell["text"])


def test_parameters_stand_in_one_cell_one_a_line_with_type_and_help(notebook: dict[str, Any]) -> None:
    (cell,) = [cell for cell in cells(notebook, "code") if "parameters" in cell["metadata"].get("tags", [])]
    line = re.compile(r"(\w+): (str|int|float|bool) = [^=#]+  # \S.+")
    names = [line.fullmatch(text)[1] for text in cell["text"].splitlines()]  # type: ignore[index]
    found = parameters_of(notebook["path"])
    assert list(found) == names
    assert all(each["help"] and each["inferred_type_name"] for each in found.values())


def test_a_parameter_with_a_unit_names_it_in_its_help(notebook: dict[str, Any]) -> None:
    units = {"_s": "second", "_hz": "per second", "_bytes": "bytes"}
    for name, each in parameters_of(notebook["path"]).items():
        for ending, word in units.items():
            assert not name.endswith(ending) or word in each["help"]


def test_every_picture_has_a_heading_and_a_sentence_before_it(notebook: dict[str, Any]) -> None:
    before: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if "imq.charts." in "".join(cell["source"]):
            words = "".join(before["source"])
            assert before["cell_type"] == "markdown" or "imq.run" in words
        before = cell


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with a driver of its own for all notebooks of this file."""
    folder = tmp_path_factory.mktemp("data")
    yield folder
    client.end(folder)


@pytest.mark.parametrize("name", TINY)
def test_it_runs_under_papermill(name: str, data: Path, tmp_path: Path) -> None:
    if name == "90_compare":  # it needs a trial to compare
        _run("10_sum", data, tmp_path)
    executed = _run(name, data, tmp_path)
    shown = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    assert shown
    assert not [output for output in shown if output["output_type"] == "stream"]


def _run(name: str, data: Path, tmp_path: Path) -> Any:
    environment = {"IMQUEUE_DATA": str(data), "TQDM_DISABLE": "1"}
    output = tmp_path / f"{name}.ipynb"
    executed = execute(NOTEBOOKS / f"{name}.ipynb", TINY[name], output, environment=environment, timeout_s=60)
    assert executed.error is None
    return executed.notebook


def test_an_unknown_parameter_is_refused_with_the_nearest_match() -> None:
    with pytest.raises(BadInput, match="'mesages'; did you mean 'messages'"):
        check(NOTEBOOKS / "10_sum.ipynb", {"mesages": 1})


def test_an_unknown_notebook_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="11_sum"):
        check(NOTEBOOKS / "11_sum.ipynb", {})
