"""What every backend on RabbitMQ shares: what its versions promise, and a handle that consumes a durable queue."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from pika.spec import Basic, BasicProperties, Confirm, Queue

from imqueue.backend import Backend, BackendError, Durability, Guarantees, Message, Rejected
from imqueue.backends._amqp import ANSWER_MAX_S, Link, frame
from imqueue.backends._kernel import writeback

SIZE_MAX_BYTES = 16 * 1024 * 1024  # the least max_message_size that any version has by default (4.0; 3.x: 128 MiB)
PREFETCH_MAX = 65_535  # what the protocol's field holds
CONSUMER_TIMEOUT_S = 1800.0  # the broker's default since 3.9; AMQP does not tell it
TRANSIENT, PERSISTENT = 1, 2  # AMQP's delivery modes

INDEX_VERSION = {Durability.DELAYED: 2, Durability.FLUSHED: 1}
WAKES_BY = "push: the server sends up to a batch ahead"

Version = tuple[int, ...]


class RabbitBackend(Backend):
    """A handle is one connection with one channel. The consumer starts with the first `get`."""

    _link: Link | None = None

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """The queue's arguments for the class asked for, or a refusal where this server cannot give it."""

    def open(self) -> None:
        self.close()
        link = Link(self.url)
        try:
            self._version = version_of(link.server)
            _declare(link, self.queue, self._arguments())
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
        arguments = {name: str(value) for name, value in self._arguments().items()}
        return guarantees(self.durability, self._version, arguments, self.url)

    def put(self, bodies: Sequence[bytes]) -> None:
        if self._link is None or self._link.dead:
            raise Rejected(f"nothing was sent: {self._link.dead if self._link else 'the handle is not open'}")
        link = self._link
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


def version_of(server: dict[str, Any]) -> tuple[int, ...]:
    """(3, 10, 8), as the server says it in its greeting. Only RabbitMQ's own promises are known here."""
    product, version = (str(server.get(each, "?")) for each in ("product", "version"))
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if product != "RabbitMQ" or numbers is None:
        raise BackendError(f"the server is {product!r} {version!r}; allowed: RabbitMQ")
    return tuple(int(each) for each in numbers.groups() if each)


def classic_arguments(durability: Durability, version: Version) -> dict[str, Any]:
    """A classic queue's arguments for a class, or a refusal where this version cannot give it."""
    release = words(version)
    if durability is Durability.FLUSHED and version >= (3, 13):
        raise BackendError(
            f"RabbitMQ {release} confirms without fsync: a classic queue gives no `flushed`; allowed: memory, delayed"
        )
    if durability is Durability.DELAYED and version < (3, 10):
        raise BackendError(f"RabbitMQ {release} has no index of version 2, so no `delayed`; allowed: memory, flushed")
    index = INDEX_VERSION.get(durability)
    kind = {"x-queue-type": "classic"}  # a virtual host may have another default
    return kind | ({"x-queue-version": index} if index and version < (4,) else {})


def guarantees(
    durability: Durability, version: Version, settings: dict[str, str], url: str, confirms: bool = True
) -> Guarantees:
    """What holds for a queue of that class. `settings`: the queue's arguments, and what else belongs beside them."""
    written = durability is not Durability.MEMORY
    flushed, kernel = durability is Durability.FLUSHED, writeback(url)
    return Guarantees(
        survives_kill=written,
        survives_power_loss=True if flushed else kernel.survives if written else False,
        fifo=True,
        puts_confirmed=confirms,
        redelivers_after_s=0.0,
        lease_s=CONSUMER_TIMEOUT_S if version >= (3, 9) else None,
        source=f"version {words(version)} in the handshake; its default for consumer_timeout; {kernel.source}",
        settings={"version": words(version), "durable": "true"} | settings,
    )


def words(version: Version) -> str:
    return ".".join(map(str, version))


def _declare(link: Link, queue: str, arguments: dict[str, Any]) -> None:
    """Make the queue, unless one of the same kind is there."""
    try:
        link.call(Queue.Declare(queue=queue, durable=True, arguments=arguments), Queue.DeclareOk)
    except BackendError as error:
        if "PRECONDITION_FAILED" in str(error):
            raise BackendError(f"it is there and of another kind; left untouched ({error})") from error
        raise
