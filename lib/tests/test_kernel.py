"""The kernel's writeback: read where it can be, assumed where it cannot, and never promised where it is off."""

from __future__ import annotations

from pathlib import Path

import pytest

from imqueue.backend import Within
from imqueue.backends import _kernel


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_kernel, "VM", tmp_path)
    return tmp_path


def say(settings: Path, expire: str, look: str) -> None:
    (settings / "dirty_expire_centisecs").write_text(f"{expire}\n")
    (settings / "dirty_writeback_centisecs").write_text(f"{look}\n")


@pytest.mark.parametrize(
    "url", ["", "redis://localhost:1", "amqp://me:word@127.0.0.1/", "redis://[::1]:6379", "unix:///s"]
)
def test_this_kernel_is_asked(settings: Path, url: str) -> None:
    say(settings, "1200", "300")
    assert _kernel.writeback(url) == (Within(15.0), "vm.dirty_expire_centisecs and vm.dirty_writeback_centisecs")


def test_another_s_is_assumed_to_be_as_linux_has_it_by_default(settings: Path) -> None:
    say(settings, "1200", "300")
    assert _kernel.writeback("redis://far.example:6379") == (Within(35.0), "Linux' default for writeback, assumed")


def test_so_is_one_that_does_not_tell(settings: Path) -> None:
    assert _kernel.writeback("").survives == Within(35.0)
    say(settings, "soon", "300")
    assert _kernel.writeback("").survives == Within(35.0)


def test_a_kernel_that_never_looks_promises_nothing(settings: Path) -> None:
    say(settings, "3000", "0")
    assert _kernel.writeback("").survives is False
