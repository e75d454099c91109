"""rabbit.js 0.4 in a Node child: a PUSH socket, a WORKER socket.

A PUSH socket asks for no confirms, so nothing is known of what the broker wrote: `memory` is all that can be offered.
`put` returns when the broker has answered a question about the queue, sent behind the batch on the same channel:
by then it has taken in what came before. A WORKER socket acks the oldest message that is not acked yet, whichever the
application means; so what `get` returned is settled as a whole, and in that order.

Tried, messages/s through the harness at batch 1 / 100 / 1000 (its own plain script): 2.1k (3.0k) / 20.9k (26.3k) /
25.8k (34.6k): five processes on two cores where the script has three, and the broker pushes a batch in small pieces,
for each of which a `get` and an `ack` through the child's socket add 0.15 ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from imqueue.backend import BackendError, Declares, Durability, Guarantees, Message
from imqueue.backends._node_amqp import NodeAmqp
from imqueue.backends._rabbitmq import SIZE_MAX_BYTES, WAKES_BY, Version, guarantees


class RabbitJS(NodeAmqp):
    """A handle is one connection. The WORKER socket is made at the first `get`."""

    package = "rabbit.js"
    adapter = "rabbitjs"
    declares = Declares(
        built_on="npm rabbit.js (amqplib 0.3): PUSH to WORKER",
        durabilities=(Durability.MEMORY,),
        delivery="at least once",
        settles="batch",
        fifo=True,
        wakes_by=WAKES_BY,
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="rabbitmq",
    )

    @property
    def guarantees(self) -> Guarantees:
        settings = self._versions() | {"persistent": "false"}
        return guarantees(self.durability, self._version, settings, self.url, confirms=False)

    def open(self) -> None:
        super().open()
        self._gets: deque[int] = deque()  # how many messages each get returned that is not settled yet

    def get(self, timeout_s: float) -> list[Message]:
        messages = super().get(timeout_s)
        if messages:
            self._gets.append(len(messages))
        return messages

    def ack(self, messages: Sequence[Message]) -> None:
        receipts = {message.receipt for message in messages}
        settled_n = self._settled_n
        count = gets = 0
        while count < len(receipts) and gets < len(self._gets):
            count += self._gets[gets]
            gets += 1
        if receipts != set(range(settled_n, settled_n + count)):
            raise BackendError("rabbit.js acks in order: settle all that one get returned, the earliest first")
        super().ack([Message(b"", receipt) for receipt in sorted(receipts)])
        for _ in range(gets):
            self._gets.popleft()
        self._settled_n += count

    def _config(self, version: Version) -> dict[str, Any]:
        self._settled_n = 0
        return {}
