"""Backends are found by their files, and a broken one breaks only itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import imqueue
from imqueue import notebook, registry
from imqueue.backend import Backend, BackendError, Inline
from imqueue.workload import BadInput


def test_names_are_the_files_of_the_folder() -> None:
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
