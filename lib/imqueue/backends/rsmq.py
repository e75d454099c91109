"""RSMQ 0.12 in a Node child: sendMessage, receiveMessage and deleteMessage, a batch of each in flight at once.

A received message is hidden for `lease_s`, in whole seconds (at least 1), and comes back unless it was deleted by then.
A later ack still deletes it, whoever holds it now. RSMQ cannot wait for a message, so an empty queue is asked
again after 1 ms, then 2, 4 and so on up to POLL_MAX_MS: that decides the latency of a slow flow.

Tried, messages/s through the harness at batch 1 / 100 / 1000 (its own plain script, whose loops receive and delete
independently): 1.8k (2.9k) / 12.7k (17.6k) / 18.3k (19.2k). A batch is received in waves that double, up to 8 round
trips for 100, and deleted only when all of it is handled: that is what small batches pay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imqueue.backend import BackendError, Declares, Durability, Guarantees
from imqueue.backends._node_redis import NodeRedis

SIZE_MAX_BYTES = 65_536  # RSMQ's own default, and the most that it takes without being told "no limit"
POLL_MAX_MS = 16
POLL_INTERVAL = f"1 to {POLL_MAX_MS} ms"
NAME_MAX = 160


class RSMQ(NodeRedis):
    """The queue is RSMQ's of the same name, under its own prefix `rsmq`."""

    key_type = "none"
    package = "rsmq"
    declares = Declares(
        built_on="npm rsmq on Redis: sendMessage, receiveMessage, deleteMessage",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by=f"polling every {POLL_INTERVAL}",
        unacked_returns="when its lease ends",
        late_ack_settles=True,
        size_max_bytes=SIZE_MAX_BYTES,
        server="redis",
    )

    def open(self) -> None:
        if len(self.queue) > NAME_MAX or not all(
            each.isascii() and (each.isalnum() or each in "_-") for each in self.queue
        ):
            raise BackendError(f"queue {self.queue!r}; allowed: up to {NAME_MAX} letters, digits, - and _")
        super().open()

    @property
    def guarantees(self) -> Guarantees:
        now = super().guarantees
        return replace(now, settings=now.settings | {"poll_interval": POLL_INTERVAL})

    def _keys(self) -> Mapping[str, str]:
        return {f"rsmq:{self.queue}": "zset", f"rsmq:{self.queue}:Q": "hash", "rsmq:QUEUES": "set"}

    def _config(self) -> dict[str, Any]:
        return {"poll_max_ms": POLL_MAX_MS}

    def _returns(self) -> tuple[float | None, float | None]:
        hidden_s = float(max(1, math.ceil(self.lease_s)))
        return hidden_s, hidden_s
