"""The packages that are declared, locked and offered to conda are the same ones."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = (ROOT / "lib/requirements.lock", ROOT / "lib/setup/uv.txt")
CONDA_NAMES = {
    "matplotlib": "matplotlib-base",  # the rest of matplotlib there is Qt
    "playwright": "playwright-python",
    "redis": "redis-py",
}


def named(lines: Iterable[str]) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def asked_for() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "lib/pyproject.toml").read_text())["project"]
    return named([*project["dependencies"], *project["optional-dependencies"]["dev"]])


def locked(lock: Path) -> dict[str, tuple[str, list[str]]]:
    """name → version and hashes."""
    found: dict[str, tuple[str, list[str]]] = {}
    for block in re.split(r"\n(?=\S)", lock.read_text().strip()):
        match = re.match(r"([a-z0-9-]+)==(\S+)", block)
        assert match, f"{lock.name} holds something else than a pinned package: {block[:80]!r}"
        assert match[1] not in found, f"{lock.name} pins {match[1]} twice"
        found[match[1]] = (match[2], re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))
    return found


def conda() -> tuple[dict[str, Requirement], list[str]]:
    """What conda installs, by canonical name, and the lines that it hands to pip."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [each["pip"] for each in listed if isinstance(each, dict)]
    lines = [each.replace("python=", "python==") for each in listed if isinstance(each, str)]
    return named(lines), pip


def test_every_package_asked_for_is_locked_within_its_bounds() -> None:
    pins = locked(LOCKS[0])
    for name, requirement in asked_for().items():
        assert name in pins, f"{name} is not in the lock: make lock"
        assert requirement.specifier.contains(pins[name][0]), (
            f"{name} {pins[name][0]} is not {requirement.specifier}: make lock"
        )


def test_extras_are_locked_too() -> None:
    assert {"hiredis", "psycopg-binary"} <= set(locked(LOCKS[0]))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_a_hash(lock: Path) -> None:
    pins = locked(lock)
    assert pins
    assert [name for name, (_, hashes) in pins.items() if not hashes] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_address_and_no_path(lock: Path) -> None:
    assert not re.search(r"://|@|(?:^|\s)/|--(?!hash=)", lock.read_text())


def test_the_lock_serves_debians_older_python() -> None:
    unfit = {}
    for name, (version, _) in locked(LOCKS[0]).items():
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or Python
        needs = installed.metadata["Requires-Python"]
        if installed.version == version and needs and not SpecifierSet(needs).contains("3.11.2"):
            unfit[name] = needs
    assert unfit == {}


def test_conda_is_offered_the_same_packages_within_the_same_bounds() -> None:
    from_conda, pip = conda()
    offered = from_conda | named(line for line in pip if not line.startswith("-"))
    for name, requirement in asked_for().items():
        known_as = CONDA_NAMES.get(name, name)
        assert known_as in offered, f"environment.yml lacks {known_as}"
        assert offered[known_as].specifier == requirement.specifier, f"environment.yml bounds {known_as} otherwise"


def test_conda_is_offered_nothing_else_but_the_servers_and_node() -> None:
    from_conda, pip = conda()
    ours = {CONDA_NAMES.get(name, name) for name in asked_for()} | {"hiredis", "python", "pip"}
    servers_there = {"nodejs", "redis-server", "postgresql", "rabbitmq-server", "prometheus"}
    assert set(from_conda) - ours == servers_there
    assert [line for line in pip if line.startswith("-")] == ["-e ./lib"]
