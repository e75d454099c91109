"""Redis, by INFO."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.watch.reader import ASK_MAX_S, Reader, Reading


class RedisInfo(Reader):
    """One INFO a scrape, 0.1 ms of Redis' own thread; two of the commands per second are these."""

    def __init__(self, server: Server, guard: Guard) -> None:
        self._client = redis.Redis.from_url(
            server.url, socket_timeout=ASK_MAX_S, socket_connect_timeout=ASK_MAX_S, retry=Retry(NoBackoff(), 0)
        )
        self._client.ping()

    def read(self) -> list[Reading]:
        info: dict[str, Any] = self._client.info("stats", "cpu", "memory", "persistence", "clients")
        readings = [
            Reading("commands", info["total_commands_processed"], counts=True),
            Reading("cpu_seconds", info["used_cpu_user"], "user", True),
            Reading("cpu_seconds", info["used_cpu_sys"], "system", True),
            Reading("memory_bytes", info["used_memory"]),
            Reading("clients_blocked", info["blocked_clients"]),
        ]
        if info["aof_enabled"]:
            readings += [
                Reading("aof_bytes", info["aof_current_size"]),  # a rewrite makes it smaller
                Reading("aof_delayed_fsync", info["aof_delayed_fsync"], counts=True),
                Reading("aof_pending_fsync", info["aof_pending_bio_fsync"]),
            ]
        return readings

    def close(self) -> None:
        self._client.close()
