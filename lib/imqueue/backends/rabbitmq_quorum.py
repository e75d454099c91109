"""RabbitMQ, one quorum queue: a Raft log on disk, here with one member; else as ``rabbitmq.py`` does it.

Through the harness, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, RabbitMQ 3.10.8, two busy
cores): 1.3k / 27k / 38k; a bare loop of the same frames 1.3k / 29k / 40k beside it.

Every message is written to the Raft log, transient ones too, and the log is fdatasynced before each confirm (3.10.8,
strace of the broker: 20 puts, 20 fdatasyncs of its .wal file, each before the confirm went out). So there is only
`flushed`. A passive declaration asks the queue's leader, and tells what it has applied. From 4.0 on a queue drops a
message after 20 redeliveries unless its limit is -1, which is asked for here; a policy of the server may still set one.

The table that finds a queue's log again (names.dets) is fsynced up to 1.0 s after the declaration, and a broker killed
before that starts the queue anew, empty, or never answers for it again (3 of 3 kills). So the `open` that makes the
queue waits that out; who declares quorum queues all the time postpones it further. For half a second after a restart
`depth` may tell too little: the log is still being read.
"""

from __future__ import annotations

import time
from typing import Any

from pika.spec import Queue

from imqueue.backend import BackendError, Declares, Durability
from imqueue.backends._amqp import Link
from imqueue.backends._rabbitmq import SIZE_MAX_BYTES, WAKES_BY, RabbitBackend, words

VERSION_MIN = (3, 8)
LIMITED_FROM = (4,)  # before it a message was redelivered for ever
SAVED_AFTER_S = 1.2  # Raft's table of names is saved within two of its intervals of 0.5 s


class RabbitMQQuorum(RabbitBackend):
    """The queue is a quorum queue of that name, with as many members as the server gives it: on one node, one."""

    declares = Declares(
        built_on="a quorum queue; pika's frames over a plain socket",
        durabilities=(Durability.FLUSHED,),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by=WAKES_BY,
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="rabbitmq",
    )

    def open(self) -> None:
        is_new = not self._is_there()
        super().open()
        if is_new:
            time.sleep(SAVED_AFTER_S)

    def _is_there(self) -> bool:
        """Asked on a connection of its own, because a "no" ends the channel."""
        link = Link(self.url)
        try:
            link.call(Queue.Declare(queue=self.queue, passive=True), Queue.DeclareOk)
        except BackendError as error:
            if "NOT_FOUND" not in str(error):
                raise
            return False
        finally:
            link.close()
        return True

    def _arguments(self) -> dict[str, Any]:
        if self._version < VERSION_MIN:
            raise BackendError(
                f"RabbitMQ {words(self._version)} has no quorum queues; allowed: {words(VERSION_MIN)} and later"
            )
        unlimited = {"x-delivery-limit": -1} if self._version >= LIMITED_FROM else {}
        return {"x-queue-type": "quorum"} | unlimited
