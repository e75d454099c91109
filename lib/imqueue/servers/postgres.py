"""PostgreSQL. `synchronous_commit` is each session's choice, so one server serves every durability."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path
from typing import ClassVar

import psutil

from imqueue.servers import ServerError
from imqueue.servers._installed import Installed
from imqueue.servers._machine import find, how_to_get, output, slay, tree

ROLE = "imqueue"

SETTINGS = {
    "fsync": "on",  # a commit that waits must wait for the disk
    "full_page_writes": "on",  # without it a page torn by a power cut cannot be repaired
    "synchronous_commit": "on",  # what a session gets that asks for nothing else
    "autovacuum": "on",  # a queue table is all dead rows; a server without it would be nobody's
    "autovacuum_naptime": "1",  # at the default of a minute a fresh queue's dead rows slow down a whole short trial
    "max_connections": "200",  # 64 producers, 64 workers, and room to look
    "shared_buffers": "256MB",  # holds any backlog a trial allows, and leaves a laptop its memory
    "max_wal_size": "2GB",  # at the default of 1 GB a long sum is mostly checkpoints
    "checkpoint_timeout": "15min",  # for the same reason
    "jit": "off",  # a queue's statements are short; compiling one shows as a stall
    "unix_socket_directories": "",  # one way in, as with the other servers: TCP on loopback
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
}


class Postgres(Installed):
    """A private PostgreSQL. As root it runs as the user postgres, because it refuses to run as root."""

    kind = "postgres"
    account = "postgres"
    brand = "PostgreSQL"
    version_min = "13"  # for pg_current_snapshot; SKIP LOCKED came with 9.5
    stop_signal: ClassVar[int] = signal.SIGINT  # its fast shutdown: does not wait for clients to leave

    @classmethod
    def missing(cls) -> str | None:
        how = how_to_get("postgresql")
        programs = _programs()
        if programs is None:
            return f"postgres and initdb are not on this machine; {how}"
        if reason := cls.account_missing():
            return reason
        user = cls.runs_as()
        told = output(str(programs / "postgres"), "--version", user=user)
        version = re.search(r"\(PostgreSQL\) ([\d.]+)", told)
        if version is None:
            return f"{programs}/postgres does not run here as {user or 'you'}: it says {told!r}; {how}"
        return f"{reason}; {how}" if (reason := cls.too_old(version[1])) else None

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        import psycopg

        try:
            with psycopg.connect(url, connect_timeout=max(2, round(timeout_s)), autocommit=True) as connection:
                row = connection.execute("show server_version").fetchone()
                return str(row[0]).split()[0] if row else ""
        except psycopg.Error as error:
            raise ServerError(" ".join(str(error).split())) from error

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}:{self.password}@127.0.0.1:{self.port}/postgres"

    def settings(self) -> dict[str, str]:
        return dict(SETTINGS)

    def prepare(self) -> list[str]:
        programs = _programs()
        assert programs is not None
        # Another major version cannot read it, and would refuse to start.
        major = re.search(r"\d+", output(str(programs / "postgres"), "--version", user=self.user))
        data = self.folder / f"data-{major[0] if major else ''}"
        if not data.exists():
            self.install(data, self.password)
        _forget_stranger(data / "postmaster.pid")
        settings = [f"{name}={value}" for name, value in SETTINGS.items()]
        return [
            str(programs / "postgres"),
            *("-D", str(data), "-p", str(self.port)),
            *(part for each in settings for part in ("-c", each)),
        ]

    def installer(self, data: Path, told: Path) -> list[str]:
        programs = _programs()
        assert programs is not None
        command = [str(programs / "initdb"), "-D", str(data), f"--username={ROLE}", f"--pwfile={told}"]
        return [*command, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]


def _programs() -> Path | None:
    """The folder that holds both postgres and initdb: of PATH, else Debian's newest."""
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    newest_first = sorted(debian, key=lambda path: [int(n) for n in re.findall(r"\d+", path.parent.name)], reverse=True)
    found = find("postgres", *map(str, newest_first))
    for folder in [*([Path(found).resolve().parent] if found else []), *newest_first]:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    return None


def _forget_stranger(pid_file: Path) -> None:
    """Remove a pid file whose pid is now another program's: postgres would take it for a server of its own.

    A file whose process has gone is left to postgres, which then looks for orphans in its shared memory.
    """
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int(pid_file.read_text().split()[0]))
        if str(pid_file.parent) not in process.cmdline():
            pid_file.unlink()
        else:
            slay(tree(process.pid))
