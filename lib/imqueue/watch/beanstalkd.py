"""beanstalkd, by its command stats."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import greenstalk

from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.watch.reader import ASK_MAX_S, Reader, Reading

COUNTERS = {"puts": "cmd-put", "reserves": "cmd-reserve-with-timeout", "deletes": "cmd-delete"}


class Stats(Reader):
    """One command a scrape."""

    def __init__(self, server: Server, guard: Guard) -> None:
        at = urlsplit(server.url)
        self._link = socket.create_connection((at.hostname or "127.0.0.1", at.port or 11300), ASK_MAX_S)
        self._client = greenstalk.Client(self._link)

    def read(self) -> list[Reading]:
        told: dict[str, Any] = dict(self._client.stats())
        return [
            *(Reading("commands", float(told[of]), name, True) for name, of in COUNTERS.items()),
            Reading("jobs", float(told["current-jobs-ready"]), "ready"),
            Reading("jobs", float(told["current-jobs-reserved"]), "reserved"),
            Reading("cpu_seconds", float(told["rusage-utime"]), "user", True),
            Reading("cpu_seconds", float(told["rusage-stime"]), "system", True),
            Reading("binlog_records", float(told.get("binlog-records-written", 0)), counts=True),
        ]

    def close(self) -> None:
        self._client.close()
