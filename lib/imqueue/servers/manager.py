"""A Python process that keeps queues for others, on the standard library's `multiprocessing.connection`.

Run as ``python -m imqueue.servers.manager <file with the password> <port>``, by `Manager` only.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from imqueue.backend import BackendError
from imqueue.backends._manager import call, connect, serve
from imqueue.servers import ServerError
from imqueue.servers._machine import secret
from imqueue.servers._private import Private


class Manager(Private):
    """The manager's process, on loopback and behind a password. What it holds is gone when it ends."""

    kind = "manager"

    @classmethod
    def missing(cls) -> str | None:
        return None

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        try:
            with connect(url, timeout_s) as connection:
                call(connection, "depth", "", timeout_s=timeout_s)
        except BackendError as error:
            raise ServerError(str(error)) from error
        return platform.python_version()

    @property
    def url(self) -> str:
        return f"manager://:{self.password}@127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        return {}

    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(Path(__file__).parents[2])}  # this lib, also where it is not installed

    def prepare(self) -> list[str]:
        kept = self.folder / "password"
        secret(kept)  # made here and read by the child: a command line can be read by everybody
        return [sys.executable, "-m", "imqueue.servers.manager", str(kept), str(self.port)]


def main() -> None:
    """Serve until killed."""
    serve("127.0.0.1", int(sys.argv[2]), secret(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
