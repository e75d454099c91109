"""The report: whatever happens to one notebook, all pages are there, and the exit code tells."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from made import make_trial, run_report, small_report

from imqueue import compare, report
from imqueue.report import NOTEBOOKS, PROFILES, pages, record
from imqueue.report.notebooks import Executed
from imqueue.workload import BadInput

QUICK = PROFILES["quick"]
TINY = "Profile(name='tiny', messages=1_000, duration_s=1.0, rate_hz=200.0)"


# What comes out.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    return small_report(tmp_path_factory.getbasetemp())


@pytest.fixture
def folder(small: tuple[Path, Any]) -> Path:
    return small[0] / "report"


@pytest.mark.timeout(240)
def test_a_good_report_ends_with_0_and_says_where_it_lies(small: tuple[Path, Any]) -> None:
    data, done = small
    assert done.returncode == 0, done.stderr
    assert f"report: {data / 'report' / 'index.html'}" in done.stdout


def test_it_tells_backend_step_and_time_left(small: tuple[Path, Any]) -> None:
    assert "redis_list delayed 20_flow" in small[1].stderr
    assert "left" in small[1].stderr


def test_it_tells_where_the_time_went(small: tuple[Path, Any], folder: Path) -> None:
    for name in ("driver and servers", "90_compare", "10_sum-memory", "20_flow-redis_list"):
        assert name in small[1].stdout
        assert name in (folder / "index.html").read_text()


def test_a_page_tells_the_price_of_durability_in_every_class(small: tuple[Path, Any], folder: Path) -> None:
    assert 'href="30_durability.html"' in (folder / "index.html").read_text()
    page = BeautifulSoup((folder / "30_durability.html").read_text(), "html.parser")
    rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("tbody tr")]
    told = {tuple(row[:2]) for row in rows if len(row) > 2}
    assert told == {("memory", "memory"), *(("redis_list", each) for each in ("memory", "delayed", "flushed"))}


def test_a_watched_flow_has_a_page_with_its_servers_view_and_no_figure_in_the_comparison(folder: Path) -> None:
    index = BeautifulSoup((folder / "index.html").read_text(), "html.parser")
    assert len(index.select('a[href="20_flow-redis_list-why.html"]')) == 1
    assert "watched" not in {what for _, _, what, _ in compare.read(folder).troubled}  # it was asked for
    page = (folder / "20_flow-redis_list-why.html").read_text()
    assert "Redis: commands per second" in page
    assert "Watched: its server was asked" in page


def test_reports_are_kept_under_dated_names_and_the_link_is_relative(folder: Path) -> None:
    target = os.readlink(folder)
    assert target.startswith("reports/2")
    assert target.endswith("-small")


def test_each_step_is_recorded_with_its_trial_and_page(folder: Path) -> None:
    steps = json.loads((folder / "report.json").read_text())["steps"]
    assert [(step["notebook"], step["backend"]) for step in steps] == [
        ("10_sum", "memory"),
        ("20_flow", "memory"),
        ("10_sum", "redis_list"),
        ("20_flow", "redis_list"),
        ("10_sum", "null"),
        ("10_sum", "simple"),
        ("20_flow", "memory"),
        ("20_flow", "redis_list"),
    ]
    assert all((folder / step["page"]).is_file() for step in steps)
    assert all((folder / ".." / ".." / "trials" / step["trial"] / "trial.json").is_file() for step in steps)


def test_pages_show_no_progress_bars_and_no_code(folder: Path) -> None:
    text = (folder / "10_sum-redis_list.html").read_text()
    assert "imq.run(" not in text
    assert "%|" not in text


# What fails.


def broken(tmp_path: Path, name: str, source: str) -> Path:
    """The notebooks, of which `name` does `source` after its parameters instead of its trial."""
    notebooks = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, notebooks, ignore=shutil.ignore_patterns(".*"))
    path = notebooks / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].source = source
    nbformat.write(notebook, path)
    return notebooks


@pytest.mark.timeout(240)
def test_a_failing_notebook_fails_the_report_after_all_else_is_rendered(tmp_path: Path) -> None:
    notebooks = broken(tmp_path, "10_sum", "raise RuntimeError('the reason')")
    done = run_report(tmp_path, f"raise SystemExit(report({TINY}, 'memory', notebooks=Path({str(notebooks)!r})))")
    assert done.returncode == 1
    told = "10_sum-memory, 10_sum-null and 10_sum-simple failed: RuntimeError: the reason"
    assert told in done.stderr.splitlines()[-1]
    folder = tmp_path / "report"
    assert "RuntimeError: the reason" in (folder / "10_sum-memory.html").read_text()
    assert "memory handled" in (folder / "20_flow-memory.html").read_text()
    index = (folder / "index.html").read_text()
    assert '<a href="10_sum-memory.html">10_sum-memory</a>' in index
    assert "RuntimeError: the reason" in index


LOSING = """
import sys
sys.path.insert(0, {tests!r})
from made import make_trial
from imqueue import settings
from imqueue.results import Result
result = Result(make_trial(settings.data_dir() / "trials", backend, "sum", audit={{"passed": False, "lost": 7}}))
import imqueue as imq
"""


@pytest.mark.timeout(240)
def test_a_failed_audit_fails_the_report_and_is_shown(tmp_path: Path) -> None:
    notebooks = broken(tmp_path, "10_sum", LOSING.format(tests=str(Path(__file__).parent)))
    done = run_report(tmp_path, f"raise SystemExit(report({TINY}, 'memory', notebooks=Path({str(notebooks)!r})))")
    assert done.returncode == 1
    assert "7 lost" in done.stderr.splitlines()[-1]
    index = (tmp_path / "report" / "index.html").read_text()
    assert "failed its audit" in index
    assert "7 lost" in index


def test_a_message_lost_in_a_trial_of_the_price_fails_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = report._Run(replace(QUICK, price={}), tmp_path, NOTEBOOKS, seed=1)
    run.folder.mkdir(parents=True)
    make_trial(run.trials, audit={"passed": False, "lost": 9})  # one of somebody before

    def execute(*_: object) -> Executed:
        make_trial(run.trials, shape="sum")
        make_trial(run.trials, shape="sum", audit={"passed": False, "lost": 7})
        return Executed(nbformat.v4.new_notebook(), 1.0, None)

    monkeypatch.setattr(run, "_execute", execute)
    run.price(["redis_list"])
    assert "7 lost" in run.failures["30_durability"]
    assert "9 lost" not in run.failures["30_durability"]
    assert "7 lost" in (run.folder / "30_durability.html").read_text()


def test_a_backend_that_is_not_here_is_left_out_with_its_reason(tmp_path: Path) -> None:
    run = report._Run(QUICK, tmp_path, NOTEBOOKS, seed=1)
    run.choose_here({"memory": None, "rabbitmq": "no rabbitmq-server; apt-get install rabbitmq-server"})
    assert run.left_out == [{"backend": "rabbitmq", "reason": "no rabbitmq-server; apt-get install rabbitmq-server"}]


def test_nothing_to_compare_is_refused_with_every_reason(tmp_path: Path) -> None:
    run = report._Run(QUICK, tmp_path, NOTEBOOKS, seed=1)
    with pytest.raises(BadInput, match="rabbitmq: no rabbitmq-server"):
        run.choose_here({"rabbitmq": "no rabbitmq-server"})


# Its parts.


def test_the_link_is_switched_to_the_newest(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        report._point(tmp_path / "report", tmp_path / name)
        assert (tmp_path / "report").resolve() == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old", "report"]


def test_set_up_that_make_did_is_in_the_table_with_its_last_time(tmp_path: Path) -> None:
    rows = "step\tduration_s\tended_at\nvenv\t3\tx\nvenv\t4\ty\nservers\t70\tz\n"
    (tmp_path / "setup_times.tsv").write_text(rows)
    assert record.set_up_times(tmp_path) == [("venv", 4.0), ("servers", 70.0)]
    assert record.set_up_times(tmp_path / "nowhere") == []


def page_of(*sources: str) -> str:
    cells = [nbformat.v4.new_markdown_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell("secret_code()")])
    return pages.Pages().render(notebook, title="a <title>", back="index.html", notice="it's <bad>")


def test_a_page_asks_for_nothing_and_hides_code() -> None:
    page = page_of("# Question?", "## One")
    assert "secret_code" not in page
    assert "<script" not in page
    assert "http-equiv" not in page
    assert "@import" not in page
    assert "it's &lt;bad&gt;" in page
    assert "<title>a &lt;title&gt;</title>" in page


def test_columns_of_numbers_are_set_flush_right() -> None:
    frame = pd.DataFrame({"messages": [1, 20], "what": ["1 lost", "b"], "ms": [0.5, None]}, index=["x", "y"])
    cell = nbformat.v4.new_code_cell("frame")
    cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": frame.to_html()})]
    page = pages.Pages().render(nbformat.v4.new_notebook(cells=[cell]), title="a title")
    right = re.findall(r'<(?:th|td) class="number">([^<]*)<', page)
    assert right == ["messages", "ms", "1", "0.5", "20", "NaN"]


def test_the_table_of_contents_has_an_entry_for_each_section_even_of_the_same_name() -> None:
    page = page_of("# Question?", "## One\n\ntext", "## One", "### Two")
    for index in range(3):
        assert page.count(f'id="section-{index}"') == 1
        assert page.count(f'href="#section-{index}"') == 1
