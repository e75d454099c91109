"""Repeats are pooled only where they were made alike: the same imqueue, the same server, set the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import make_trial

from imqueue import compare
from imqueue.compare import Comparison
from imqueue.results import Result
from imqueue.workload import BadInput

SEVEN: dict[str, Any] = {"versions": {"server": "redis 7.0.15"}, "server_private": True}
EIGHT: dict[str, Any] = {"versions": {"server": "redis 8.2.1"}, "server_private": False}
POSTGRES: dict[str, Any] = {"versions": {"server": "postgres 15.18"}, "server_private": True}


def sums(folder: Path, backend: str = "redis_list", n: int = 4, rate_hz: float = 100.0, **changes: Any) -> list[Result]:
    return [
        Result(make_trial(folder, backend, "sum", sampled=False, rate_hz=rate_hz + each, **changes))
        for each in range(n)
    ]


def set_to(**settings: str) -> dict[str, Any]:
    return {"guarantees": {"survives_kill": True, "source": "CONFIG GET", "settings": settings}}


def names(results: list[Result]) -> list[str]:
    return [row.name for row in Comparison(results).rows]


def test_another_servers_repeats_are_another_row_of_the_same_group(tmp_path: Path) -> None:
    comparison = Comparison([*sums(tmp_path, **SEVEN), *sums(tmp_path, rate_hz=900.0, **EIGHT)])
    assert len(comparison.groups) == 1
    assert sorted(row.name for row in comparison.rows) == [
        "redis_list (server redis 7.0.15, run by us)",
        "redis_list (server redis 8.2.1, run by others)",
    ]
    assert [row.results[0].rate_hz for row in comparison.rows] == [900.0, 100.0]
    assert "server redis 8.2.1, run by others" in comparison.headline
    (found,) = (each for each in comparison.verdicts().rows if not each.is_reference)
    assert (found.row.under, found.verdicts["sum_hz"].word) == ("server redis 8.2.1, run by others", "faster")


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (SEVEN, {**SEVEN, "server_private": False}, "redis_list (run by others)"),
        (set_to(appendfsync="no"), set_to(appendfsync="always"), "redis_list (appendfsync always)"),
    ],
)
def test_what_differs_is_told_and_nothing_else(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], told: str
) -> None:
    found = names([*sums(tmp_path, **ours), *sums(tmp_path, **theirs)])
    assert len(found) == 2
    assert told in found


def test_settings_that_change_with_the_version_do_not_lengthen_the_name(tmp_path: Path) -> None:
    seven, eight = set_to(server_version="7", save=""), set_to(server_version="8", save="")
    found = names([*sums(tmp_path, **SEVEN, **seven), *sums(tmp_path, **{**EIGHT, "server_private": True}, **eight)])
    assert found == ["redis_list (server redis 7.0.15)", "redis_list (server redis 8.2.1)"]


def test_backends_on_unlike_servers_share_a_group_and_can_be_divided(tmp_path: Path) -> None:
    trials = [*sums(tmp_path, **SEVEN, **set_to(appendfsync="no"))]
    trials += sums(tmp_path, "postgres", rate_hz=50.0, **POSTGRES, **set_to(synchronous_commit="off"))
    comparison = Comparison(trials)
    assert sorted(names(trials)) == ["postgres", "redis_list"]
    assert len(comparison.groups) == 1
    assert compare.ratio(comparison.row("redis_list"), comparison.row("postgres")).verdict.word == "faster"


def test_one_class_set_unlike_another_is_no_difference_within_either(tmp_path: Path) -> None:
    flushed = sums(tmp_path, durability="flushed", **set_to(appendfsync="always"))
    assert names([*sums(tmp_path, **set_to(appendfsync="everysec")), *flushed]) == ["redis_list", "redis_list"]


def test_another_imqueue_is_another_load_for_every_backend(tmp_path: Path) -> None:
    old, new = {"source": "0123456789abcdef"}, {"source": "fedcba9876543210"}
    comparison = Comparison([*sums(tmp_path, code=old), *sums(tmp_path, "postgres", code=new)])
    assert {group.load for group in comparison.groups} == {"imqueue 0123456789ab", "imqueue fedcba987654"}
    with pytest.raises(BadInput, match="they differ in imqueue"):
        compare.ratio(comparison.row("redis_list"), comparison.row("postgres"))


def test_other_cores_are_another_load_and_a_server_bound_elsewhere_is_another_row(tmp_path: Path) -> None:
    bound = [{"allowed": [0, 1], "producer": [0], "worker": [1]}, {"allowed": [0, 1]}]
    loads = {
        group.load for group in Comparison([each for cores in bound for each in sums(tmp_path, cores=cores)]).groups
    }
    assert loads == {"on cores allowed 0+1, producer 0, worker 1", "on cores allowed 0+1"}
    servers = [sums(tmp_path, cores={"allowed": [0, 1]} | server) for server in ({}, {"server": [1]})]
    assert names([each for same in servers for each in same]) == [
        "redis_list (server on cores 1)",
        "redis_list (server on cores unbound)",
    ]


def test_a_trial_that_failed_before_it_knew_its_server_spoils_the_row_of_its_backend(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"audit": None, "guarantees": None, "versions": {}}
    failed = sums(tmp_path, n=1, state="failed", error="no server", **nothing)
    (row,) = Comparison([*sums(tmp_path, **SEVEN, **set_to(save="")), *failed]).rows
    assert len(row.results) == 5


def test_a_count_of_files_is_no_setting(tmp_path: Path) -> None:
    counts = [sums(tmp_path, "beanstalkd", n=2, **set_to(**{"binlog-current-index": n})) for n in "12"]
    assert names([each for same in counts for each in same]) == ["beanstalkd"]


def test_the_reader_chooses_among_the_rows_of_a_backend(tmp_path: Path) -> None:
    comparison = Comparison([*sums(tmp_path, **SEVEN), *sums(tmp_path, **EIGHT)])
    assert comparison.row("redis_list", under="redis 8").under.startswith("server redis 8.2.1")
    with pytest.raises(BadInput, match=r"is 2 rows.*server redis 7\.0\.15"):
        comparison.row("redis_list")
