"""PostgreSQL, by its statistics views."""

from __future__ import annotations

from collections import Counter

import psycopg

from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.watch import ASK_MAX_S, Reader, Reading

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


class Statistics(Reader):
    """What sessions wait for is looked at ten times a second, and told as their mean number since the last scrape.

    An idle session waits for its client to ask; one "in transaction" does so with its locks held.

    The row counts are PostgreSQL's own estimates, which each session adds to once a second at the most.
    """

    glance_s = 0.1

    def __init__(self, server: Server, guard: Guard) -> None:
        timeout_ms = int(ASK_MAX_S * 1e3)
        self._connection = psycopg.connect(
            server.url,
            autocommit=True,
            connect_timeout=round(ASK_MAX_S),
            options=f"-c statement_timeout={timeout_ms}",
            application_name="imqueue watch",
        )
        self._looks = 0
        self._seen: Counter[str] = Counter()

    def glance(self) -> None:
        self._looks += 1
        for kind, sessions in self._connection.execute(WAITS).fetchall():
            self._seen[kind] += sessions

    def read(self) -> list[Reading]:
        self.glance()
        kinds = [*KINDS, *(kind for kind in self._seen if kind not in KINDS)]
        readings = [Reading("sessions", self._seen[kind] / self._looks, kind) for kind in kinds]
        self._looks = 0
        self._seen.clear()
        row = self._connection.execute(TABLES).fetchone()
        assert row is not None
        dead, live, vacuums, wal_bytes = map(float, row)
        return [
            *readings,
            Reading("rows", dead, "dead"),
            Reading("rows", live, "live"),
            Reading("autovacuums", vacuums, counts=True),
            Reading("wal_bytes", wal_bytes, counts=True),
        ]

    def close(self) -> None:
        self._connection.close()
