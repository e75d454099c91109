"""MariaDB. How a commit is flushed is a setting of the whole server, so each class gets one of its own."""

from __future__ import annotations

import re
from pathlib import Path

from imqueue.backend import Durability
from imqueue.servers import ServerError
from imqueue.servers._installed import Installed
from imqueue.servers._machine import find, how_to_get, output

ROLE = DATABASE = "imqueue"
MYSQL_MIN = (8, 0, 4)  # MySQL's own numbers; for JSON_TABLE, SKIP LOCKED came with 8.0.1

DURABLE: dict[Durability, dict[str, str]] = {
    # Written at each commit, flushed each second. 0 would also keep a second of writes from the kernel: more is lost
    # to a kill, and next to nothing is gained.
    Durability.DELAYED: {"innodb_flush_log_at_trx_commit": "2"},
    Durability.FLUSHED: {"innodb_flush_log_at_trx_commit": "1"},
}
COMMON = {
    "innodb_flush_log_at_timeout": "1",  # seconds between the flushes of 2
    "innodb_doublewrite": "ON",  # without it a page torn by a power cut cannot be repaired
    "innodb_flush_method": "fsync",  # O_DIRECT is refused by some file systems, and saves memory only
    "innodb_buffer_pool_size": "256M",  # holds any backlog a trial allows, and leaves a laptop its memory
    "innodb_log_file_size": "512M",  # at the default of 96 MB a long sum is mostly checkpoints
    "innodb_purge_batch_size": "1000",  # each get steps over the deleted rows that are not purged yet
    "innodb_file_per_table": "ON",  # a dropped queue gives its disk space back
    "skip_log_bin": "ON",  # nothing is replicated; a binary log would be a second flush, ruled by sync_binlog
    "transaction_isolation": "READ-COMMITTED",  # the default also locks the gaps between rows
    "performance_schema": "OFF",  # measures, and is felt
    "max_allowed_packet": "16M",  # MariaDB's own default, said aloud: it bounds a body
    "max_connections": "200",  # 64 producers, 64 workers, and room to look
    "skip_name_resolve": "ON",  # a new connection must not wait for a name server
    "bind_address": "127.0.0.1",
    "socket": "",  # one way in, as with the other servers: TCP on loopback
}


class MySQL(Installed):
    """A private MariaDB; settings follow `durability` (None: delayed). As root it runs as the user mysql.

    MySQL's own mysqld, which sets up its data in another way, is reached as an external server only.
    """

    kind = "mysql"
    account = "mysql"
    brand = "MariaDB"
    per_durability = True
    version_min = "10.6"  # MariaDB's; for SKIP LOCKED and JSON_TABLE

    @classmethod
    def missing(cls) -> str | None:
        how = how_to_get("mariadb-server")
        program, install = find("mariadbd"), find("mariadb-install-db")
        if program is None or install is None:
            return f"mariadbd and mariadb-install-db are not on this machine; {how}"
        if reason := cls.account_missing():
            return reason
        told = output(program, "--no-defaults", "--version")
        version = re.search(r"Ver ([\d.]+-MariaDB)", told)
        if version is None:
            return f"{program} does not run here: it says {told!r}; {how}"
        return f"{reason}; {how}" if (reason := cls.too_old(version[1])) else None

    @classmethod
    def too_old(cls, version: str) -> str | None:
        if "MariaDB" in version:
            return super().too_old(version)
        if tuple(map(int, re.findall(r"\d+", version)[:3])) >= MYSQL_MIN:
            return None
        return f"MySQL {version} is too old; {'.'.join(map(str, MYSQL_MIN))} or newer is needed"

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        import pymysql

        from imqueue.backends._mysql import address

        try:
            with pymysql.connect(
                **address(url), connect_timeout=timeout_s, read_timeout=timeout_s, write_timeout=timeout_s
            ) as connection:
                return str(connection.get_server_info()).removeprefix("5.5.5-")  # which MariaDB adds for old clients
        # RuntimeError: MySQL's way to log in needs the package cryptography.
        except (pymysql.MySQLError, OSError, ValueError, RuntimeError) as error:
            raise ServerError(" ".join(str(error).split()) or type(error).__name__) from error

    @property
    def url(self) -> str:
        return f"mysql://{ROLE}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def settings(self) -> dict[str, str]:
        return COMMON | DURABLE[self.durability]

    def prepare(self) -> list[str]:
        program = find("mariadbd")
        assert program is not None
        # An older version cannot read a newer one's data.
        series = re.search(r"\d+\.\d+", output(program, "--no-defaults", "--version"))
        data = self.folder / f"data-{series[0] if series else ''}"
        if not data.exists():
            self.install(data, _first_statements(self.password))
        return [
            program,
            "--no-defaults",  # nor the machine's own settings
            f"--datadir={data}",
            f"--port={self.port}",
            f"--pid-file={data}/pid",
            *(f"--{name.replace('_', '-')}={value}" for name, value in self.settings().items()),
        ]

    def installer(self, data: Path, told: Path) -> list[str]:
        install = find("mariadb-install-db")
        assert install is not None
        command = [install, "--no-defaults", f"--datadir={data}", f"--extra-file={told}", "--skip-test-db"]
        return [*command, "--auth-root-authentication-method=normal", "--skip-name-resolve"]


def _first_statements(word: str) -> str:
    """Our user in place of those without a password that an installation makes. One statement a line."""
    return f"""FLUSH PRIVILEGES;
CREATE DATABASE {DATABASE};
CREATE USER {ROLE}@'127.0.0.1' IDENTIFIED BY '{word}';
GRANT ALL PRIVILEGES ON *.* TO {ROLE}@'127.0.0.1' WITH GRANT OPTION;
DELETE FROM mysql.global_priv WHERE User IN ('', 'root');
FLUSH PRIVILEGES;
"""
