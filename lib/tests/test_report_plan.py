"""What a report runs, and what it refuses before it runs anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from imqueue import registry
from imqueue.report import PROFILES, Profile, plan

FULL, QUICK = PROFILES["full"], PROFILES["quick"]


def test_quick_runs_each_backend_once_in_delayed_or_what_it_has() -> None:
    steps = plan.planned(QUICK, ["memory", "redis_list"], seed=1)
    assert [(step.notebook, step.backend, step.durability) for step in steps] == [
        ("10_sum", "memory", "memory"),
        ("20_flow", "memory", "memory"),
        ("10_sum", "redis_list", "delayed"),
        ("20_flow", "redis_list", "delayed"),
        ("10_sum", "null", "memory"),
        ("10_sum", "simple", "memory"),
    ]


def test_a_control_that_was_chosen_runs_like_any_other() -> None:
    steps = plan.planned(QUICK, ["simple"], seed=1)
    assert [(step.shape, step.backend) for step in steps] == [("sum", "simple"), ("flow", "simple"), ("sum", "null")]


def test_full_repeats_every_class_eight_times_in_blocks_of_random_order() -> None:
    steps = plan.planned(FULL, ["memory", "redis_list"], seed=1)
    classes = len(registry.load("redis_list").declares.durabilities)
    steps, watched = steps[:-2], steps[-2:]
    assert [(step.name, step.parameters["why"]) for step in watched] == [
        ("20_flow-memory-why", True),
        ("20_flow-redis_list-why", True),
    ]
    cells = [(step.shape, step.backend, step.durability) for step in steps]
    block = 2 * (1 + classes) + len(plan.CONTROLS)
    assert set(Counter(cells).values()) == {8}
    blocks = [cells[start : start + block] for start in range(0, len(cells), block)]
    assert all(len(set(each)) == block for each in blocks)  # each repeat is whole before the next one starts
    assert len({tuple(each) for each in blocks}) > 1


def test_the_seed_decides_the_order() -> None:
    first, again, other = (plan.planned(FULL, ["memory", "redis_list"], seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("profile", [QUICK, FULL])
def test_every_trial_has_a_page_of_its_own(profile: Profile) -> None:
    names = [step.name for step in plan.planned(profile, registry.names(), seed=1)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("everything", ["", "all", " "])
def test_no_names_mean_all_backends(everything: str) -> None:
    assert plan.backends_named(everything) == registry.names()


def test_names_narrow_the_report_and_count_once() -> None:
    assert plan.backends_named("redis_list, memory,redis_list") == ["redis_list", "memory"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--profile", "quik"], "'quik'; did you mean 'quick'"),
        (["--backends", "redis_lst"], "'redis_lst'; did you mean 'redis_list'"),
        (["--backends", ","], "BACKENDS is ','"),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_nothing_started(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    command = [sys.executable, "-m", "imqueue", "report", *arguments]
    environment = {**os.environ, "IMQUEUE_DATA": str(tmp_path / "data")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()
