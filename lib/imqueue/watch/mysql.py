"""MariaDB and MySQL, by SHOW GLOBAL STATUS."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pymysql

from imqueue.servers import Server
from imqueue.servers.guard import Guard
from imqueue.watch.reader import ASK_MAX_S, Reader, Reading

COUNTERS = {
    "commits": "Handler_commit",
    "statements": "Questions",
    "row_lock_waits": "Innodb_row_lock_waits",
    "fsyncs": "Innodb_data_fsyncs",
    "log_bytes": "Innodb_os_log_written",
    "deadlocks": "Innodb_deadlocks",
}
LEVELS = {"row_locks_waited_for": "Innodb_row_lock_current_waits", "history_list": "Innodb_history_list_length"}
HISTORY = "select count from information_schema.innodb_metrics where name = 'trx_rseg_history_len'"


class Status(Reader):
    """InnoDB's own counters; what this version of the server does not have is left out."""

    def __init__(self, server: Server, guard: Guard) -> None:
        where = urlsplit(server.url)
        self._connection = pymysql.connect(
            host=where.hostname,
            port=where.port or 3306,
            user=unquote(where.username or ""),
            password=unquote(where.password or ""),
            connect_timeout=ASK_MAX_S,
            read_timeout=ASK_MAX_S,
            write_timeout=ASK_MAX_S,
            autocommit=True,
        )

    def read(self) -> list[Reading]:
        with self._connection.cursor() as cursor:
            cursor.execute("show global status")
            status = dict(cursor.fetchall())
            if LEVELS["history_list"] not in status and cursor.execute(HISTORY):  # MySQL tells it elsewhere
                status[LEVELS["history_list"]] = cursor.fetchall()[0][0]
        counters = [Reading(name, float(status[of]), counts=True) for name, of in COUNTERS.items() if of in status]
        levels = [Reading(name, float(status[of])) for name, of in LEVELS.items() if of in status]
        waited_s = float(status.get("Innodb_row_lock_time", 0)) / 1e3
        return [*counters, *levels, Reading("row_lock_wait_seconds", waited_s, counts=True)]

    def close(self) -> None:
        self._connection.close()
