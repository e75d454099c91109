"""PostgreSQL, by its statistics views."""

from __future__ import annotations

import select
import time
from collections import Counter

import psycopg
from psycopg.pq import ExecStatus

from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.watch.reader import ASK_MAX_S, Reader, Reading, WatchError

WAITS = """
    select case when state = 'active' then coalesce(wait_event_type, 'on CPU')
                when state like 'idle in transaction%' then 'in transaction'
                else 'idle' end, count(*)
    from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() group by 1
"""
TABLES = """
    select coalesce(sum(n_dead_tup), 0), coalesce(sum(n_live_tup), 0), coalesce(sum(autovacuum_count), 0),
           pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')
    from pg_stat_user_tables
"""
KINDS = ("on CPU", "IO", "LWLock", "Lock", "IPC", "Client", "Timeout", "in transaction", "idle")
OTHER = "other"  # the rarer ones, such as BufferPin and those of extensions, together


class Statistics(Reader):
    """What sessions wait for is looked at ten times a second, and told as their mean number since the last scrape.

    An idle session waits for its client to ask; one "in transaction" does so with its locks held.

    The row counts are PostgreSQL's own estimates, which each session adds to once a second at the most.
    """

    glance_s = 0.1

    def __init__(self, server: Server, guard: Guard) -> None:
        self._connection = psycopg.connect(
            server.url, autocommit=True, connect_timeout=max(1, round(ASK_MAX_S)), application_name="imqueue watch"
        )
        self._looks = 0
        self._seen: Counter[str] = Counter()

    def glance(self) -> None:
        self._looks += 1
        for kind, sessions in self._ask(WAITS):
            self._seen[kind if kind in KINDS else OTHER] += int(sessions)

    def read(self) -> list[Reading]:
        self.glance()
        readings = [Reading("sessions", self._seen[kind] / self._looks, kind) for kind in (*KINDS, OTHER)]
        self._looks = 0
        self._seen.clear()
        ((dead, live, vacuums, wal_bytes),) = [map(float, row) for row in self._ask(TABLES)]
        return [
            *readings,
            Reading("rows", dead, "dead"),
            Reading("rows", live, "live"),
            Reading("autovacuums", vacuums, counts=True),
            Reading("wal_bytes", wal_bytes, counts=True),
        ]

    def close(self) -> None:
        self._connection.close()

    def _ask(self, query: str) -> list[list[str]]:
        """Rows as text. psycopg's own `execute` waits for ever on a server that hangs."""
        link = self._connection.pgconn
        deadline = time.monotonic() + ASK_MAX_S
        link.send_query(query.encode())
        link.flush()
        rows: list[list[str]] = []
        while True:
            while link.is_busy():
                if not select.select([link.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    raise WatchError(f"PostgreSQL did not answer within {ASK_MAX_S:g} s")
                link.consume_input()
            if (result := link.get_result()) is None:
                return rows
            if result.status != ExecStatus.TUPLES_OK:
                raise WatchError(f"PostgreSQL said: {result.get_error_message()}")
            for row in range(result.ntuples):
                rows.append([(result.get_value(row, column) or b"").decode() for column in range(result.nfields)])
