"""amqplib 2 in a Node child: a confirm channel, a batch of publications, then their confirms; prefetch, multiple ack.

The queue is a durable classic queue as in ``rabbitmq.py``, and so is what a confirm means: an index of version 1 is
fsynced before it, one of version 2 only written. AMQP has no answer to an ack: a message is settled once its ack is on
the way.

Tried, messages/s through the harness at batch 1 / 100 / 1000 (its own plain script): 1.1k (1.0k) / 16.4k (18.5k) /
25.0k (27.2k), persistent.
"""

from __future__ import annotations

from typing import Any

from imqueue.backend import BackendError, Declares, Durability, Guarantees, Within
from imqueue.backends._node_amqp import CONSUMER_TIMEOUT_S, SIZE_MAX_BYTES, NodeAmqp

WRITEBACK_S = 35.0  # Linux writes out what is older than 30 s, and looks every 5 s
INDEX_VERSION = {Durability.DELAYED: 2, Durability.FLUSHED: 1}


class Amqplib(NodeAmqp):
    """A handle is one connection with one channel. The consumer starts with the first `get`."""

    package = adapter = "amqplib"
    declares = Declares(
        built_on="npm amqplib, a classic queue",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by="push: the server sends up to a batch ahead",
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="rabbitmq",
    )

    @property
    def guarantees(self) -> Guarantees:
        settings = self._versions()
        written, flushed = self.durability is not Durability.MEMORY, self.durability is Durability.FLUSHED
        return Guarantees(
            survives_kill=written,
            survives_power_loss=True if flushed else Within(WRITEBACK_S) if written else False,
            fifo=True,
            puts_confirmed=True,
            redelivers_after_s=0.0,
            lease_s=CONSUMER_TIMEOUT_S if self._version >= (3, 9) else None,
            source=f"version {settings['version']} in the handshake; that version's defaults for consumer_timeout",
            settings=settings | {"x-queue-version": str(INDEX_VERSION.get(self.durability)), "durable": "true"},
        )

    def _config(self, version: tuple[int, ...]) -> dict[str, Any]:
        release = ".".join(map(str, version))
        if self.durability is Durability.FLUSHED and version >= (3, 13):
            raise BackendError(f"RabbitMQ {release} confirms without fsync: no `flushed`; allowed: memory, delayed")
        if self.durability is Durability.DELAYED and version < (3, 10):
            raise BackendError(f"RabbitMQ {release} has no index of version 2; allowed: memory, flushed")
        index = INDEX_VERSION.get(self.durability)
        arguments = {"x-queue-version": index} if index and version < (4,) else {}
        return {"persistent": self.durability is not Durability.MEMORY, "arguments": arguments}
