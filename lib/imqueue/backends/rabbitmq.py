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

import re
import time
from collections.abc import Sequence
from typing import Any

from pika.spec import Basic, BasicProperties, Confirm, Queue

from imqueue.backend import Backend, BackendError, Declares, Durability, Guarantees, Message, Rejected, Within
from imqueue.backends._amqp import ANSWER_MAX_S, Link, frame

SIZE_MAX_BYTES = 16 * 1024 * 1024  # the least max_message_size that any version has by default (4.0; 3.x: 128 MiB)
PREFETCH_MAX = 65_535  # what the protocol's field holds
WRITEBACK_S = 35.0  # Linux writes out what is older than 30 s, and looks every 5 s
CONSUMER_TIMEOUT_S = 1800.0  # the broker's default since 3.9; AMQP does not tell it
TRANSIENT, PERSISTENT = 1, 2  # AMQP's delivery modes

INDEX_VERSION = {Durability.DELAYED: 2, Durability.FLUSHED: 1}


class RabbitMQ(Backend):
    """A handle is one connection with one channel. The consumer starts with the first `get`."""

    declares = Declares(
        built_on="a classic queue; pika's frames over a plain socket",
        durabilities=(Durability.MEMORY, Durability.DELAYED, Durability.FLUSHED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by="push: the server sends up to a batch ahead",
        unacked_returns="when its holder's connection ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="rabbitmq",
    )

    _link: Link | None = None

    def open(self) -> None:
        self.close()
        link = Link(self.url)
        try:
            self._version = _version(link.server)
            arguments = self._arguments()
            link.call(Queue.Declare(queue=self.queue, durable=True, arguments=arguments), Queue.DeclareOk)
            # The broker's log says "committed" of a queue only when the next change flushes it: killed before that, it
            # takes back the queue with all in it (4 of 25 kills, 1.5 s after the declaration). This is such a change.
            link.call(Queue.Bind(queue=self.queue, exchange="amq.direct", routing_key=self.queue), Queue.BindOk)
            link.call(Confirm.Select(), Confirm.SelectOk)
            link.call(Basic.Qos(prefetch_count=min(self.batch, PREFETCH_MAX)), Basic.QosOk)
        except BackendError as error:
            link.close()
            raise BackendError(f"cannot open queue {self.queue!r}: {error}") from error
        persistent = self.durability is not Durability.MEMORY
        link.publish_to(self.queue, BasicProperties(delivery_mode=PERSISTENT if persistent else TRANSIENT))
        self._sent = 0
        self._held: set[int] = set()  # delivery tags that `get` returned and nobody acked
        self._consumer: str | None = None
        self._link = link

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def guarantees(self) -> Guarantees:
        self._open_link()
        written = self.durability is not Durability.MEMORY
        flushed = self.durability is Durability.FLUSHED
        version = ".".join(map(str, self._version))
        index = str(self._arguments().get("x-queue-version", "the server's default"))
        return Guarantees(
            survives_kill=written,
            survives_power_loss=True if flushed else Within(WRITEBACK_S) if written else False,
            fifo=True,
            puts_confirmed=True,
            redelivers_after_s=0.0,
            lease_s=CONSUMER_TIMEOUT_S if self._version >= (3, 9) else None,
            source=f"version {version} in the handshake; that version's defaults for consumer_timeout",
            settings={"version": version, "x-queue-version": index, "durable": "true"},
        )

    def put(self, bodies: Sequence[bytes]) -> None:
        link = self._open_link()
        largest = max(map(len, bodies), default=0)
        if largest > SIZE_MAX_BYTES:
            raise Rejected(f"a message of {largest} bytes was not sent; allowed: up to {SIZE_MAX_BYTES}")
        refused, returned, count = link.refused, link.returned, len(bodies)
        try:
            self._wait_until_it_reads(link)
            link.publish(bodies)
            self._sent += count
            self._wait_for_confirms(link)
        except Rejected:
            raise
        except BackendError as error:
            raise BackendError(f"put of {count} messages is uncertain: {error}") from error
        refused, returned = link.refused - refused, link.returned - returned
        if refused or returned:
            kind = Rejected if refused + returned == count else BackendError
            raise kind(f"of {count} messages RabbitMQ refused {refused} and had no queue for {returned}")

    def get(self, timeout_s: float) -> list[Message]:
        link = self._open_link()
        deadline = time.monotonic() + timeout_s
        if self._consumer is None or len(self._held) >= self.batch:
            self._renew_consumer(link)  # what is held has used up the old one's prefetch
        while not link.delivered:
            if not link.step(deadline - time.monotonic()) and time.monotonic() >= deadline:
                self._stop_consumer(link)  # or what comes next would wait here, perhaps for a handle nobody uses
                break
        while len(link.delivered) < self.batch and link.delivered and link.step(0.0):
            pass
        messages, link.delivered = link.delivered[: self.batch], link.delivered[self.batch :]
        self._held.update([message.receipt for message in messages])
        return messages

    def ack(self, messages: Sequence[Message]) -> None:
        link = self._open_link()
        tags = {message.receipt for message in messages}
        if not tags:
            return
        if not tags <= self._held:
            raise BackendError(f"{len(tags - self._held)} of {len(tags)} messages are not held by this handle")
        if len(tags) == len(self._held):  # all before it are settled already, so the last one speaks for all
            link.send(frame(Basic.Ack(max(tags), multiple=True)))
        else:
            link.send(b"".join([frame(Basic.Ack(tag)) for tag in sorted(tags)]))
        self._held -= tags

    def depth(self) -> int:
        told = self._open_link().call(Queue.Declare(queue=self.queue, passive=True), Queue.DeclareOk)
        return int(told.message_count)

    def destroy(self) -> None:
        link = self._open_link()
        self._stop_consumer(link)
        link.call(Queue.Delete(queue=self.queue), Queue.DeleteOk)

    def _open_link(self) -> Link:
        if self._link is None:
            raise BackendError("the handle is not open")
        return self._link

    def _arguments(self) -> dict[str, Any]:
        """The queue's arguments for the class asked for, or a refusal where this server cannot give it."""
        version, release = self._version, ".".join(map(str, self._version))
        if self.durability is Durability.FLUSHED and version >= (3, 13):
            raise BackendError(
                f"RabbitMQ {release} confirms without fsync: a classic queue gives no `flushed`; allowed: "
                "memory, delayed"
            )
        if self.durability is Durability.DELAYED and version < (3, 10):
            raise BackendError(
                f"RabbitMQ {release} has no index of version 2, so no `delayed`; allowed: memory, flushed"
            )
        index = INDEX_VERSION.get(self.durability)
        return {"x-queue-version": index} if index and version < (4,) else {}

    def _wait_until_it_reads(self, link: Link) -> None:
        deadline = time.monotonic() + ANSWER_MAX_S
        while link.blocked is not None:
            if not link.step(deadline - time.monotonic()) and time.monotonic() >= deadline:
                raise Rejected(
                    f"nothing was sent: RabbitMQ has blocked publishers for {ANSWER_MAX_S:g} s: {link.blocked}"
                )

    def _wait_for_confirms(self, link: Link) -> None:
        deadline = time.monotonic() + ANSWER_MAX_S
        while link.confirmed < self._sent:
            if not link.step(deadline - time.monotonic()) and time.monotonic() >= deadline:
                blocked = f"; it blocks publishers: {link.blocked}" if link.blocked else ""
                raise BackendError(f"no confirm within {ANSWER_MAX_S:g} s{blocked}")

    def _renew_consumer(self, link: Link) -> None:
        self._stop_consumer(link)
        self._consumer = link.call(Basic.Consume(queue=self.queue), Basic.ConsumeOk).consumer_tag

    def _stop_consumer(self, link: Link) -> None:
        """End the push. What is on the way still arrives before the answer does, and stays with this handle."""
        if self._consumer is not None:
            link.call(Basic.Cancel(self._consumer), Basic.CancelOk)
            self._consumer = None


def _version(server: dict[str, Any]) -> tuple[int, ...]:
    """(3, 10, 8), as the server says it in its greeting. Only RabbitMQ's own promises are known here."""
    product, version = (str(server.get(each, "?")) for each in ("product", "version"))
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if product != "RabbitMQ" or numbers is None:
        raise BackendError(f"the server is {product!r} {version!r}; allowed: RabbitMQ")
    return tuple(int(each) for each in numbers.groups() if each)
