"""nats-server, by JetStream's own lists of streams and consumers, and its process."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psutil

from imqueue.backends._nats import Link
from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.watch.reader import ASK_MAX_S, Reader, Reading

CONSUMERS = {"not delivered": "num_pending", "not acked": "num_ack_pending", "redelivered": "num_redelivered"}


class JetStream(Reader):
    """One request a scrape, and one for each stream; of more than 256 streams the first ones, as the server lists them.

    Its CPU and memory, which it tells only on a port that is not open here, are those of its process; a server that
    somebody else runs has none.
    """

    def __init__(self, server: Server, guard: Guard) -> None:
        self._link = Link(server.url, ASK_MAX_S, ASK_MAX_S)
        self._processes = [psutil.Process(pid) for pid in server.pids()]

    def read(self) -> list[Reading]:
        self._link.catch_up()  # it is asked now and then whether it lives
        streams: list[dict[str, Any]] = self._link.ask("$JS.API.STREAM.LIST").get("streams") or []
        kept_bytes = sum(each["state"]["bytes"] for each in streams)
        told: Counter[str] = Counter()
        for stream in streams:
            answer = self._link.ask(f"$JS.API.CONSUMER.LIST.{stream['config']['name']}")
            for consumer in answer.get("consumers") or []:
                told.update({kind: consumer[field] for kind, field in CONSUMERS.items()})
        messages = [Reading("messages", told[kind], kind) for kind in CONSUMERS]
        return [*messages, Reading("stream_bytes", kept_bytes), *self._of_processes()]

    def close(self) -> None:
        self._link.close()

    def _of_processes(self) -> list[Reading]:
        if not self._processes:
            return []
        used = [each.cpu_times() for each in self._processes]
        return [
            Reading("cpu_seconds", sum(each.user for each in used), "user", True),
            Reading("cpu_seconds", sum(each.system for each in used), "system", True),
            Reading("memory_bytes", sum(each.memory_info().rss for each in self._processes)),
        ]
