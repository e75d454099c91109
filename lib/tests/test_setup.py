"""Set-up by itself: each target and each script does what it says, or says in one sentence why it cannot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imqueue import servers

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {"report", "lab", "backends", "up", "down", "status", "test"} | {
    "check",
    "bench",
    "env",
    "servers",
    "lock",
    "clean",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that set-up needs, alone in a folder."""
    for name in ("Makefile", ".gitignore", ".ci", "lib/setup", "lib/pyproject.toml", "lib/requirements.lock"):
        target = tmp_path / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target)
        else:
            shutil.copy(ROOT / name, target)
    (tmp_path / "clone/lib/imqueue").mkdir()
    (tmp_path / "clone/lib/imqueue/__init__.py").touch()
    return tmp_path / "clone"


def run(folder: Path, *command: str, timeout_s: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
    ours = ("CI", "IMQUEUE_", "CONDA_", "MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        command,
        cwd=folder,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# The Makefile


def test_every_kind_of_server_is_looked_for_by_make() -> None:
    (line,) = re.findall(r"programs\.sh (redis .*)", (ROOT / "Makefile").read_text())
    assert set(line.split()) == set(servers.kinds()) - {"manager"}  # which is Python's own


def test_make_alone_lists_every_public_target_with_what_you_get() -> None:
    listed: dict[str, str] = dict(re.findall(r"^make (\w+) +(.{15,})$", run(ROOT, "make").stdout, re.M))
    assert set(listed) == PUBLIC


def test_report_passes_on_its_profile_and_backends() -> None:
    planned = run(ROOT, "make", "-n", "report", "PROFILE=full", "BACKENDS=a,b").stdout
    assert "-m imqueue report --profile 'full' --backends 'a,b'" in planned


def test_a_failing_step_fails_make(checkout: Path) -> None:
    program(checkout / "conda/bin/python", "exit 3")
    done = run(checkout, "make", "status", CONDA_DEFAULT_ENV="im-queue", CONDA_PREFIX=str(checkout / "conda"))
    assert done.returncode == 2


def test_in_its_conda_environment_make_uses_that_and_makes_no_venv(checkout: Path) -> None:
    program(checkout / "conda/bin/python", 'echo "conda runs $*"')
    done = run(checkout, "make", "status", CONDA_DEFAULT_ENV="im-queue", CONDA_PREFIX=str(checkout / "conda"))
    assert done.stdout == "conda runs -m imqueue status\n"
    assert not (checkout / ".venv").exists()


# The Python environment


def test_a_python_that_is_too_old_is_named_in_one_sentence(checkout: Path) -> None:
    old = program(checkout / "old", 'case "$2" in *exit*) exit 1 ;; *) echo 3.9.2 ;; esac')
    done = run(checkout, "sh", "lib/setup/env.sh", PYTHON=str(old))
    assert done.returncode == 1
    assert f"needs Python 3.11 or newer, but {old} is 3.9.2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (checkout / ".venv").exists()


def test_a_python_without_ensurepip_is_told_in_one_sentence(checkout: Path) -> None:
    bare = program(
        checkout / "bare",
        f"""case "$2" in
            *ensurepip*) exit 1 ;;
            *base_prefix*) echo /opt/python ;;  # not Debian's, which would be mended
            *) exec {sys.executable} "$@" ;;
        esac""",
    )
    done = run(checkout, "sh", "lib/setup/env.sh", PYTHON=str(bare))
    assert done.returncode == 1
    assert "cannot make virtual environments" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_half_made_environment_is_mended_and_a_whole_one_left_alone(checkout: Path) -> None:
    """With one small package instead of all, from the registry that made this very environment."""
    (block,) = re.findall(r"^flit-core==.*?(?=^\w|\Z)", (ROOT / "lib/requirements.lock").read_text(), re.S | re.M)
    (checkout / "lib/requirements.lock").write_text(block)
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to("/nowhere/python3")

    first = run(checkout, "make", "env", timeout_s=110, PYTHON=sys.executable)
    if re.search("connection|resolve", first.stderr, re.I) and not os.environ.get("CI"):
        pytest.skip("no network")
    assert first.returncode == 0, first.stderr
    assert run(checkout, ".venv/bin/python", "-c", "import imqueue; print(imqueue.__file__)").stdout.strip() == str(
        checkout / "lib/imqueue/__init__.py"
    )
    steps = (checkout / "data/setup_times.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in steps] == ["step", "venv", "packages"]

    made_ns = (checkout / ".venv/.imqueue").stat().st_mtime_ns
    again = run(checkout, "make", "env")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert (checkout / ".venv/.imqueue").stat().st_mtime_ns == made_ns


# Servers and other programs


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH without servers, sudo or apt-get."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "dirname", "printenv", "tr", "id", "date", "mkdir"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return str(folder)


def programs(checkout: Path, path: str, *kinds: str, **env: str) -> subprocess.CompletedProcess[str]:
    settings = ["env", f"PATH={path}", f"CONDA_PREFIX={checkout}", *(f"{k}={v}" for k, v in env.items())]
    return run(checkout, *settings, "/bin/sh", "lib/setup/programs.sh", *kinds)


def test_a_server_that_is_left_out_is_named_with_how_to_get_it(checkout: Path, bare_path: str) -> None:
    done = programs(checkout, bare_path, "redis", "prometheus")
    assert done.returncode == 0
    assert "left out: redis prometheus" in done.stdout
    assert "environment.yml" in done.stdout
    assert "compose.yaml" in done.stdout


def test_a_missing_server_is_an_error_under_ci(checkout: Path, bare_path: str) -> None:
    done = programs(checkout, bare_path, "redis", CI="true")
    assert done.returncode == 1
    assert "left out: redis" in done.stdout


def test_a_server_of_your_own_is_not_missed(checkout: Path, bare_path: str) -> None:
    done = programs(checkout, bare_path, "redis", CI="true", IMQUEUE_REDIS_URL="redis://127.0.0.1:6379/0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_server_in_conda_is_found(checkout: Path, bare_path: str) -> None:
    program(checkout / "bin/redis-server", "exit 0")
    assert programs(checkout, bare_path, "redis", CI="true").returncode == 0


def apt(checkout: Path, install: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """apt.sh below a root of its own, with this instead of apt-get."""
    root = checkout / "root"
    (root / "usr/sbin").mkdir(parents=True)
    program(root / "bin/apt-get", f'cd "$DPKG_ROOT"\n{install}')
    program(root / "bin/update-rc.d", 'echo "$@" >>"$DPKG_ROOT/rc"')
    program(root / "usr/sbin/policy-rc.d", "exit 104")
    path = f"{root / 'bin'}:{os.environ['PATH']}"
    return run(checkout, "sh", "lib/setup/apt.sh", "redis-server", DPKG_ROOT=str(root), PATH=path), root


def test_while_packages_are_installed_no_service_may_start(checkout: Path) -> None:
    done, root = apt(
        checkout,
        "usr/sbin/policy-rc.d; echo $? >policy; cat etc/postgresql-common/createcluster.d/* >cluster",
    )
    assert done.returncode == 0, done.stderr
    assert (root / "policy").read_text() == "101\n"
    assert (root / "cluster").read_text() == "create_main_cluster = false\n"


@pytest.mark.parametrize("install", ["exit 0", "exit 100", "kill $PPID; exit 0"], ids=["done", "failed", "stopped"])
def test_what_an_install_changed_is_put_back(checkout: Path, install: str) -> None:
    done, root = apt(checkout, install)
    assert (done.returncode == 0) == (install == "exit 0")
    assert [each.name for each in (root / "usr/sbin").iterdir()] == ["policy-rc.d"]
    assert "exit 104" in (root / "usr/sbin/policy-rc.d").read_text()
    assert not (root / "etc/postgresql-common").exists()


def test_a_newly_installed_service_does_not_start_at_the_next_boot(checkout: Path) -> None:
    links, units = "etc/systemd/system/multi-user.target.wants", "redis-server.service cron.service"
    _, root = apt(
        checkout,
        f"mkdir -p etc/init.d {links}; touch etc/init.d/redis-server; cd {links}; touch {units}",
    )
    assert (root / "rc").read_text() == "redis-server disable\n"
    assert [each.name for each in (root / links).iterdir()] == ["cron.service"]


# Around it


@pytest.mark.parametrize("failing", ["none", "test", "check"])
def test_ci_runs_tests_and_checks_and_fails_with_either(checkout: Path, failing: str) -> None:
    program(checkout / "bin/make", f'echo "make $* CI=$CI"; [ "$1" != {failing} ]')
    done = run(checkout, "bash", ".ci/run", PATH=f"{checkout / 'bin'}:{os.environ['PATH']}")
    assert done.stdout == "make check CI=true\nmake test CI=true\n"
    assert (done.returncode == 0) == (failing == "none")


def test_git_keeps_pictures_and_ignores_what_is_made_here(checkout: Path) -> None:
    assert run(checkout, "git", "init", "-q").returncode == 0
    made = [
        "data/trials/x/trial.json",
        "data/setup_times.tsv",
        ".venv/bin/python",
        "notebooks/.ipynb_checkpoints/a",
        "lib/.mypy_cache/a",
    ]
    kept = ["data/.gitkeep", "data/pictures/report.png", "docker/.env", ".ci/run", "lib/requirements.lock"]
    assert run(checkout, "git", "check-ignore", *made, *kept).stdout.split() == made
