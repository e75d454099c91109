"""RabbitMQ, one durable classic queue: windowed publisher confirms, push with prefetch, multiple ack.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, RabbitMQ 3.10.8, two busy cores), class
delayed: pika's frames over a plain socket (this) 1.3k / 26k / 38k; pika's SelectConnection, its loop run inside each
call, 1.4k / 10k / 16k; the same with its frames joined before they are sent 1.1k / 21k / 27k. This in class memory:
4.5k / 45k / 58k; in class flushed: 1.8k / 28k / 37k.

What a confirm means was read from the broker's system calls while it confirmed (3.10.8, strace): a queue with index
version 1 fsyncs its journal before each confirm; with version 2 it has only written to its files. So `flushed` asks for
version 1 and `delayed` for version 2. RabbitMQ 3.13 brought a message store that no longer fsyncs, 4.0 dropped
version 1: on those there is no `flushed`, and `open` says so. AMQP has no answer to an ack: a message is settled
once its ack is on the way, and a broker killed in that instant delivers it again.
"""

from __future__ import annotations

from typing import Any

from imqueue.backend import Declares, Durability
from imqueue.backends._rabbitmq import SIZE_MAX_BYTES, WAKES_BY, RabbitBackend, classic_arguments


class RabbitMQ(RabbitBackend):
    """The queue is a durable classic queue of that name."""

    declares = Declares(
        built_on="a classic queue; pika's frames over a plain socket",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by=WAKES_BY,
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="rabbitmq",
    )

    def _arguments(self) -> dict[str, Any]:
        return classic_arguments(self.durability, self._version)
