"""The command line: one line for bad input, and nothing started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imqueue import cli, client, settings

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = ("pandas", "matplotlib", "numpy", "fastapi", "redis", "pika", "psycopg", "papermill", "requests")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("IMQUEUE_DATA", str(tmp_path))
    yield tmp_path
    client.end()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["repotr"], "unknown command 'repotr'; did you mean 'report'?"),
        (["report", "--profile", "qick"], "unknown profile 'qick'; did you mean 'quick'?"),
        (["report", "--backends", "redis_lst"], "unknown backend 'redis_lst'; did you mean 'redis_list'?"),
        (["report", "--colour"], "unrecognized arguments: --colour"),
        (["run", "redis_steam"], "unknown backend 'redis_steam'; did you mean 'redis_stream'?"),
        (["run", "memory", "rate_hz=-3"], "rate_hz is -3; allowed: a number from 0.01"),
        (["run", "memory", "workers=0"], "workers is 0; allowed: a whole number from 1 to 64"),
        (["run", "memory", "size_bytes=31"], "size_bytes is 31; allowed: a whole number from 32"),
        (["run", "memory", "wokers=2"], "unknown parameter 'wokers'; did you mean 'workers'?"),
        (["run", "redis_list", "size_bytes=600000000"], "redis_list takes at most 536870912"),
        (["run", "memory", "durability=flushed"], "unknown durability of memory 'flushed'"),
        (["run", "memory", "rate_hz=1e6", "duration_s=6e5"], "allowed: up to 1,000,000,000 in one trial"),
        (["run", "memory", "fast"], "'fast' is no parameter; write name=value"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(arguments)
    told = capsys.readouterr().err

    assert code == 2
    assert told.startswith("imqueue: ")
    assert says in told
    assert told.count("\n") == 1
    assert client.find() is None, "a driver was started"
    assert not list(data.iterdir()), "bad input left something behind"


def test_without_a_command_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    told = capsys.readouterr().out
    assert all(command in told for command in cli.COMMANDS)


def test_status_and_down_need_no_driver(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status"]) == 0
    assert cli.main(["down"]) == 0
    assert "no driver is running" in capsys.readouterr().out


def test_up_run_status_down(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up"]) == 0
    assert cli.main(["run", "memory", "messages=1000", "warmup_messages=0"]) == 0
    assert cli.main(["status"]) == 0
    assert cli.main(["down"]) == 0
    told = capsys.readouterr().out

    assert "prometheus" in told
    assert "1,000" in told
    assert "trial: none" in told
    assert client.find() is None


def test_readme_has_the_table_that_the_code_prints() -> None:
    assert cli.markdown_table() in (CHECKOUT / "README.md").read_text(), "run: make backends MARKDOWN=1"


def test_importing_imqueue_imports_nothing_heavy() -> None:
    code = f"import sys, imqueue; print(*(set(sys.modules) & set({HEAVY!r})))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=settings.environment_for(CHECKOUT)
    )
    assert told.stdout.split() == []
