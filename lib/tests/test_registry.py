"""Backends are found by their files, and a broken one breaks only itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import imqueue
from imqueue import client, notebook, registry, version
from imqueue.backend import Backend, BackendError, Inline
from imqueue.driver import Driver
from imqueue.version import fingerprint
from imqueue.workload import BadInput


def test_names_are_the_files_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMQUEUE_BACKENDS", raising=False)
    folder = Path(registry.__file__).parent / "backends"

    assert registry.names() == sorted(path.stem for path in folder.glob("[!_]*.py"))
    assert {"simple", "memory", "sqlite", "redis_list", "redis_stream", "rabbitmq", "postgres"} <= set(registry.names())


@pytest.mark.parametrize("name", registry.names())
def test_every_file_defines_one_backend_that_says_what_it_is(name: str) -> None:
    loaded = registry.load(name)

    assert issubclass(loaded, Backend | Inline)
    declares = loaded.declares
    assert declares.built_on
    assert declares.wakes_by
    assert declares.default_durability in declares.durabilities
    assert declares.at_least_once == (declares.settles != "none")
    assert declares.server is None or not declares.in_process
    assert declares.control == (issubclass(loaded, Inline) or name == "null")


def test_an_unknown_name_is_refused_with_the_nearest_and_all_that_are_allowed() -> None:
    with pytest.raises(BadInput, match=r"unknown backend 'redis_steam'; did you mean 'redis_stream'\?.*sqlite"):
        registry.load("redis_steam")


def test_the_table_of_backends_can_be_asked_for_when_one_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load("memory")
    monkeypatch.setattr(notebook, "backends", lambda: "the table")
    assert imqueue.backends() == "the table"


def test_a_missing_package_disables_one_backend_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "imqueue.backends.redis_list", raising=False)
    monkeypatch.delitem(sys.modules, "imqueue.backends._redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(BackendError, match=r"redis_list needs redis\S*>=6.*, which cannot be imported \(.*`make env`"):
        registry.load("redis_list")
    assert registry.load("sqlite")


def test_a_package_is_named_as_it_is_installed_with_the_versions_that_will_do() -> None:
    assert re.fullmatch(r"nats-py[<>=,.\d]{6,}", registry.requirement("nats"))
    assert re.fullmatch(r"PyMySQL[<>=,.\d]{6,}", registry.requirement("pymysql"))
    assert registry.requirement("cheese") == "a package that brings 'cheese'"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of backends of one's own, with one that stands on a helper beside it."""
    (tmp_path / "_spool_parts.py").write_text("from imqueue.backends.memory import Memory\n")
    text = "from imqueue.backends._spool_parts import Memory\n\n\nclass Spool(Memory):\n    pass\n"
    (tmp_path / "spool.py").write_text(text)
    monkeypatch.setenv("IMQUEUE_BACKENDS", str(tmp_path))
    return tmp_path


def test_a_backend_of_ones_own_stands_beside_those_of_the_lib(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"spool", "memory"} <= set(registry.names())
    assert registry.load("spool").declares.in_process

    monkeypatch.delenv("IMQUEUE_BACKENDS")
    with pytest.raises(BadInput, match="unknown backend 'spool'"):
        registry.load("spool")


@pytest.mark.parametrize("name", ["memory", "_redis"])
def test_one_that_would_hide_a_file_of_the_lib_is_refused_by_name(own: Path, name: str) -> None:
    (own / f"{name}.py").write_text("")
    with pytest.raises(BadInput, match=rf"/{name}\.py is named like a file of imqueue itself"):
        registry.names()


def test_a_folder_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMQUEUE_BACKENDS", str(tmp_path / "none"))
    with pytest.raises(BadInput, match=r"IMQUEUE_BACKENDS is '.*/none'; allowed: a folder that exists"):
        registry.names()


def test_no_driver_is_started_with_such_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMQUEUE_BACKENDS", str(tmp_path / "none"))
    with pytest.raises(BadInput, match="allowed: a folder that exists"):
        client.connect(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_package_that_only_ones_own_backend_needs_is_not_promised_by_make(own: Path) -> None:
    (own / "deck.py").write_text("import nothing_here\n")
    with pytest.raises(BackendError, match=r"brings 'nothing_here'.*; install it where imqueue is"):
        registry.load("deck")


def test_a_file_that_is_half_written_disables_one_backend_with_a_reason(own: Path) -> None:
    (own / "draft.py").write_text("class Draft(:\n")
    with pytest.raises(BackendError, match=r"draft\.py cannot be imported: SyntaxError"):
        registry.load("draft")
    assert registry.load("memory")


def test_a_driver_that_knows_older_files_of_ones_own_is_told_apart(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_spool = fingerprint()
    (own / "spool.py").write_text((own / "spool.py").read_text() + "\n")
    edited = fingerprint()
    monkeypatch.delenv("IMQUEUE_BACKENDS")

    assert len({with_spool, edited, fingerprint()}) == 3


def test_the_digest_of_the_code_tells_ones_own_backends_too(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [version.code.__wrapped__()["source"]]
    text = (own / "spool.py").read_text()
    for each in (text + "\n", text):
        (own / "spool.py").write_text(each)
        sources.append(version.code.__wrapped__()["source"])
    monkeypatch.delenv("IMQUEUE_BACKENDS")
    assert sources[0] == sources[2], "it is of the text, not of when it was written"
    assert len({*sources, version.code.__wrapped__()["source"]}) == 3


def test_a_driver_tells_the_code_that_was_there_when_it_started(own: Path, tmp_path: Path) -> None:
    version.code.cache_clear()
    Driver(tmp_path / "data")
    at_start = version.code.__wrapped__()
    (own / "spool.py").write_text("")
    assert version.code() == at_start
    version.code.cache_clear()
