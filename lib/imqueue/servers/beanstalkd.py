"""beanstalkd. Durability is an option of its command line, so each class gets a server of its own."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

from imqueue.backend import Durability
from imqueue.servers import ServerError
from imqueue.servers._machine import find, output
from imqueue.servers._private import Private

HOW = "`apt-get install --no-install-recommends beanstalkd` brings it"  # conda-forge has none
BINLOG = "binlog"
DURABLE: dict[Durability, dict[str, str]] = {
    Durability.MEMORY: {},
    Durability.DELAYED: {"-b": BINLOG, "-f": "1000"},  # milliseconds; as often as Redis' everysec
    Durability.FLUSHED: {"-b": BINLOG, "-f": "0"},
}
COMMON = {"-z": str((1 << 20) + 2)}  # bytes of a job; the default of 65,535 is small, and the log counts two more


class Beanstalkd(Private):
    """A private beanstalkd; options follow `durability` (None: delayed). Its protocol knows no password."""

    kind = "beanstalkd"
    per_durability = True
    version_min = "1.12"  # of which it is known what its answers mean; before it `stats` does not tell a drain

    @classmethod
    def missing(cls) -> str | None:
        program = find("beanstalkd")
        if program is None:
            return f"beanstalkd is not on this machine; {HOW}"
        told = output(program, "-v")
        version = re.search(r"beanstalkd (\d[\d.]*)", told)
        if version is None:
            return f"{program} does not run here: it says {told!r}; {HOW}"
        return f"{reason}; {HOW}" if (reason := cls.too_old(version[1])) else None

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        import greenstalk

        at = urlsplit(url)
        try:
            with socket.create_connection((at.hostname or "127.0.0.1", at.port or 11300), timeout_s) as link:
                client = greenstalk.Client(link, encoding=None)
                try:
                    return str(client.stats()["version"])
                finally:
                    client.close()
        except (OSError, ValueError, AssertionError, greenstalk.Error) as error:
            raise ServerError(str(error) or type(error).__name__) from error

    @property
    def url(self) -> str:
        return f"beanstalkd://127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        return COMMON | DURABLE[self.durability]

    def prepare(self) -> list[str]:
        program = find("beanstalkd")
        assert program is not None
        (self.folder / BINLOG).mkdir(mode=0o700, exist_ok=True)
        options = {"-l": "127.0.0.1", "-p": str(self.port)} | self.settings()
        return [program, *(word for option in options.items() for word in option)]
