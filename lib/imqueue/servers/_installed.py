"""Servers whose data folder is made by a program of theirs, and that refuse to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from imqueue.backend import Durability
from imqueue.servers import ServerError
from imqueue.servers._machine import log_end, write_private
from imqueue.servers._private import Private

INSTALL_S = 60.0


class Installed(Private):
    """A private server that runs as `account` where we are root; `brand` is its name in sentences."""

    account: ClassVar[str]
    brand: ClassVar[str]

    def __init__(self, folder: Path, durability: Durability | None = None) -> None:
        super().__init__(folder, durability)
        self.user = self.runs_as()

    @classmethod
    def runs_as(cls) -> str | None:
        return cls.account if os.geteuid() == 0 else None

    @classmethod
    def account_missing(cls) -> str | None:
        """Why nobody is there to run it as, and what would help."""
        if (user := cls.runs_as()) and user not in (each.pw_name for each in pwd.getpwall()):
            return f"{cls.brand} refuses to run as root; `useradd --system {user}` makes a user for it"
        return None

    @abstractmethod
    def installer(self, data: Path, told: Path) -> list[str]:
        """The command that fills the empty folder `data`; `told` holds what only it may read."""

    def install(self, data: Path, told: str) -> None:
        """Make the data folder; an interrupted attempt leaves nothing that looks like one. `ServerError`: it failed."""
        half = data.with_name(data.name + ".new")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        word, log = self.folder / "install.secret", self.folder / "install.log"
        write_private(word, told)
        command = self.installer(half, word)
        if self.user:
            for each in (half, word):
                shutil.chown(each, self.user)
        try:
            with open(log, "wb") as out:
                subprocess.run(
                    command,
                    check=True,
                    timeout=INSTALL_S,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env={"PATH": f"{Path(command[0]).parent}:{os.defpath}", "LC_ALL": "C"},
                    **self.identity(),
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerError(f"{Path(command[0]).name} failed: {error}; {log_end(log)}") from error
        finally:
            word.unlink()
        half.rename(data)
