"""redis-server. Durability is a setting of the whole server, so each class gets one of its own."""

from __future__ import annotations

import re

from imqueue.backend import Durability
from imqueue.servers import ServerError
from imqueue.servers._machine import find, how_to_get, output, write_private
from imqueue.servers._private import Private

DURABLE: dict[Durability, dict[str, str]] = {
    Durability.MEMORY: {"appendonly": "no"},
    Durability.DELAYED: {"appendonly": "yes", "appendfsync": "everysec"},
    Durability.FLUSHED: {"appendonly": "yes", "appendfsync": "always"},
}
COMMON = {
    "save": '""',  # no snapshots: durability is the append-only file's alone
    "no-appendfsync-on-rewrite": "no",  # else a rewrite would quietly suspend the promise to flush
    "auto-aof-rewrite-percentage": "100",  # as people run it, so that the file stays bounded
    "auto-aof-rewrite-min-size": "256mb",  # but no fork for it in a short trial
    "hz": "100",  # blocking commands time out to the next tick: at the default of 10, 50 ms become 100
    "maxmemory-policy": "noeviction",  # a queue must never be made to forget
}


class Redis(Private):
    """A private redis-server; settings follow `durability` (None: delayed)."""

    kind = "redis"
    version_min = "7.0"  # for BLMPOP; streams are older
    per_durability = True

    @classmethod
    def missing(cls) -> str | None:
        program = find("redis-server")
        how = how_to_get("redis-server")
        if program is None:
            return f"redis-server is not on this machine; {how}"
        told = output(program, "--version")
        version = re.search(r"v=([\d.]+)", told)
        if version is None:
            return f"{program} does not run here: it says {told!r}; {how}"
        return f"{reason}; {how}" if (reason := cls.too_old(version[1])) else None

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis.from_url(
            url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        try:
            client.ping()  # refused while it still loads its file
            return str(client.info("server")["redis_version"])
        except (redis.RedisError, ValueError) as error:
            raise ServerError(str(error)) from error
        finally:
            client.close()

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def settings(self) -> dict[str, str]:
        return COMMON | DURABLE[self.durability]

    def prepare(self) -> list[str]:
        program = find("redis-server")
        assert program is not None
        lines = self.settings() | {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "requirepass": self.password,  # loopback is shared with every user of the machine
            "dir": f'"{self.folder}"',
            "daemonize": "no",
        }
        config = self.folder / "redis.conf"  # a file, because a command line can be read by everybody
        write_private(config, "".join(f"{name} {value}\n" for name, value in lines.items()))
        return [program, str(config)]
