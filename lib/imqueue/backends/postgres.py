"""PostgreSQL, one table per queue: DELETE … SKIP LOCKED … RETURNING in a transaction that `ack` commits.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, PostgreSQL 15, two busy cores), class
delayed and class flushed: COMMIT AND CHAIN, which spares the next BEGIN (this), 4.2k / 123k / 254k and 2.2k / 102k /
249k; BEGIN and COMMIT 3.1k / 125k / 304k and 1.9k / 90k / 240k; BEGIN and DELETE in one pipeline 3.2k / 127k / 251k
and 1.9k / 92k / 258k. To put a batch, an array is as fast as COPY at 1000, a fifth faster at 100: 112k beside 90k.
"""

from __future__ import annotations

from imqueue.backend import Declares, Durability, Guarantees
from imqueue.backends._postgres_held import HeldQueue
from imqueue.backends._postgres_queue import SIZE_MAX_BYTES
from imqueue.backends._sql import POLL_INTERVAL


class Postgres(HeldQueue):
    """Workers poll: a table cannot wake anybody."""

    declares = Declares(
        built_on="one PostgreSQL table: INSERT … unnest, DELETE … SKIP LOCKED, COMMIT",
        durabilities=(Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="batch",
        fifo=True,  # within one producer; the commits of several may overtake one another
        wakes_by=f"polling every {POLL_INTERVAL}",
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="postgres",
    )

    def _promises(self, settings: dict[str, str]) -> Guarantees:
        return super()._promises(settings | {"poll_interval": POLL_INTERVAL})
