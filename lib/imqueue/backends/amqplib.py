"""amqplib 2 in a Node child: a confirm channel, a batch of publications, then their confirms; prefetch, multiple ack.

The queue is a durable classic queue as in ``rabbitmq.py``, and so is what a confirm means: an index of version 1 is
fsynced before it, one of version 2 only written. AMQP has no answer to an ack: a message is settled once its ack is on
the way.

Tried, messages/s through the harness at batch 1 / 100 / 1000 (its own plain script): 1.1k (0.9k) / 14.2k (18.5k) /
24.2k (26.9k), persistent.
"""

from __future__ import annotations

from typing import Any

from imqueue.backend import Declares, Durability, Guarantees
from imqueue.backends._node_amqp import NodeAmqp
from imqueue.backends._rabbitmq import SIZE_MAX_BYTES, WAKES_BY, Version, classic_arguments, guarantees


class Amqplib(NodeAmqp):
    """A handle is one connection with one channel. The consumer starts with the first `get`."""

    package = adapter = "amqplib"
    declares = Declares(
        built_on="npm amqplib, a classic queue",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by=WAKES_BY,
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="rabbitmq",
    )

    @property
    def guarantees(self) -> Guarantees:
        arguments = {name: str(value) for name, value in classic_arguments(self.durability, self._version).items()}
        return guarantees(self.durability, self._version, arguments | self._versions(), self.url)

    def _config(self, version: Version) -> dict[str, Any]:
        arguments = classic_arguments(self.durability, version)
        return {"persistent": self.durability is not Durability.MEMORY, "arguments": arguments}
