"""NATS JetStream: a stream with work-queue retention for each queue, one durable pull consumer, explicit acks.

Tried, messages/s at batch 1 / 100 / 1000 (one producer, one worker, 32 bytes, NATS 2.9.10, class delayed, two busy
cores): frames over a plain socket, only a batch's last ack answered (this) 4.2k / 61k / 67k, in class memory 4.3k / 65k
/ 93k; nats-py's publish_async, fetch and ack in a loop run inside each call 1.4k / 10k / 11k. To have each ack answered
costs near half (29k beside 52k at 100, in one run). One pull with both no_wait and expires saves a round trip on an
empty queue, but 2.9.10 now and then forgets to end it.

What an answer means was read from the server's system calls (2.9.10, strace): a message is written to its file before
it is confirmed, and fsynced by a clock of 2 minutes. 2.9 has no setting for that clock; later versions do, but tell no
client, so there is no `flushed` here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)

from imqueue.backend import Backend, BackendError, Declares, Durability, Guarantees, Message, Rejected, Within
from imqueue.backends._nats import Link, Refused, why

SIZE_MAX_BYTES = 1 << 20  # max_payload, the default
SYNC_S = 120.0  # sync_interval: fixed in 2.9, the default since; the server tells it to no client
VERSION_MIN = (2, 9)  # of which the answers below are known
BLOCK_MAX_S = 5.0  # how long one pull may wait
PULLS_PER_LEASE = 10  # nor longer than this part of a lease, which is counted from the pull
LEASE_PART = 0.95  # of a lease, in which a message may be acked; the rest is for the ack's way
GRACE_S = 0.1  # 2.9 now and then forgets to say that a pull has ended; so much later it is asked whether it lives
CONSUMER = "workers"
NAME = re.compile(r"[-A-Za-z0-9_]{1,200}")
UNLIMITED = -1
STORAGE = {Durability.MEMORY: StorageType.MEMORY, Durability.DELAYED: StorageType.FILE}
NOTHING = "none"  # what is not set: the server says it by 0, by "" or not at all
STREAM_WANTED: dict[str, Any] = {
    "retention": RetentionPolicy.WORK_QUEUE.value,
    "discard": DiscardPolicy.NEW.value,
    "no_ack": NOTHING,
    "max_age": NOTHING,  # this and the next forget messages that nobody has got
    "max_msgs_per_subject": UNLIMITED,
}
CONSUMER_WANTED: dict[str, Any] = {
    "ack_policy": AckPolicy.EXPLICIT.value,
    "max_deliver": UNLIMITED,  # after so many deliveries a message is never seen again
    "filter_subject": NOTHING,
    "filter_subjects": NOTHING,
    "deliver_subject": NOTHING,
    "backoff": NOTHING,  # it would be the lease in place of ack_wait
    "headers_only": NOTHING,
}
NO_STREAM, NO_CONSUMER = 10059, 10014  # JetStream's numbers for "not found"


class Nats(Backend):
    """The queue is the stream of its name, on a subject of its own. Whoever opens it first decides how long a lease is.

    A lease starts when a message is delivered; the server keeps the time. It takes an ack for a message whoever sends
    it, so `ack` refuses what this handle's own clock, started with the pull, says is over: another may hold it. Only an
    ack that is on its way for longer than a twentieth of the lease can still settle another's.

    `close` hands nothing back early, since a crash could not. The server pings an idle handle every 2 minutes, and
    nothing answers between two calls: after some 6 minutes without one the server hangs up, and the next call says so.
    """

    declares = Declares(
        built_on="a JetStream work queue; nats-py's words over a plain socket",
        durabilities=(Durability.MEMORY, Durability.DELAYED),
        delivery="at least once",
        settles="each",
        fifo=True,
        wakes_by="a pull that the server answers when a message comes",
        unacked_returns="when its lease ends",
        size_max_bytes=SIZE_MAX_BYTES,
        server="nats",
    )

    _link: Link | None = None

    def open(self) -> None:
        self.close()
        if not NAME.fullmatch(self.queue):
            raise BackendError(f"{self.queue!r} cannot be a stream's name; allowed: up to 200 letters, digits, - and _")
        link = self._link = Link(self.url)
        try:
            self._refuse_old(link)
            self._create(link)
        except BaseException:
            self.close()
            raise
        subject, inbox = f"imqueue.{self.queue}".encode(), link.inbox.encode()
        self._block_max_s = min(BLOCK_MAX_S, self._lease_s / PULLS_PER_LEASE)
        self._put_start = b"PUB %b %b " % (subject, inbox)
        self._pull_start = f"PUB $JS.API.CONSUMER.MSG.NEXT.{self.queue}.{CONSUMER} ".encode()
        self._ack_end = b" %b 0\r\n\r\n" % inbox
        self._size_max_bytes = min(SIZE_MAX_BYTES, int(link.server.get("max_payload", SIZE_MAX_BYTES)))

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def guarantees(self) -> Guarantees:
        link = self._open_link()
        stream = self._stream(link)
        consumer = self._consumer(link)
        written = stream.config.storage == StorageType.FILE
        settings = {
            "version": str(link.server["version"]),
            "storage": str(stream.config.storage),
            "retention": str(stream.config.retention),
            "discard": str(stream.config.discard),
            "ack_wait": f"{consumer.config.ack_wait:g} s",
            "sync_interval": f"{SYNC_S:g} s by default; not told",
        }
        return Guarantees(
            survives_kill=written,
            survives_power_loss=Within(SYNC_S) if written else False,
            fifo=True,
            puts_confirmed=not stream.config.no_ack,
            redelivers_after_s=consumer.config.ack_wait,
            lease_s=consumer.config.ack_wait,
            source=f"STREAM.INFO and CONSUMER.INFO (NATS {link.server['version']}); that version's sync_interval",
            settings=settings,
        )

    def put(self, bodies: Sequence[bytes]) -> None:
        link = self._open_link()
        largest = max(map(len, bodies), default=0)
        if largest > self._size_max_bytes:
            raise Rejected(f"a message of {largest} bytes was not sent; allowed: up to {self._size_max_bytes}")
        if not bodies:
            return
        link.catch_up()
        start = self._put_start
        with link.exchange():
            link.send(b"".join([b"%b%d\r\n%b\r\n" % (start, len(body), body) for body in bodies]))
            answers = link.take_answers(len(bodies))
        refused = [answer for answer in answers if b'"error"' in answer]
        if refused:
            kind = Rejected if len(refused) == len(bodies) else BackendError
            raise kind(f"of {len(bodies)} messages JetStream refused {len(refused)}: {why(refused[0])}")

    def get(self, timeout_s: float) -> list[Message]:
        link = self._open_link()
        deadline = time.monotonic() + timeout_s
        messages = link.take_pulled(self.batch) or self._pull(link, self.batch)
        while not messages and (left_s := deadline - time.monotonic()) > 0:
            messages = self._pull(link, 1, min(left_s, self._block_max_s))
            if messages and self.batch > 1:
                messages += self._pull(link, self.batch - 1)
        return messages

    def ack(self, messages: Sequence[Message]) -> None:
        """The server takes acks in their order, so the answer to the last one speaks for all.

        Where the leases of some are over it settles the others and raises.
        """
        link = self._open_link()
        since_s = time.monotonic() - LEASE_PART * self._lease_s
        frames = [b"PUB %b" % subject for _, (subject, pulled_s) in messages if pulled_s > since_s]
        if frames:
            with link.exchange():
                link.send(b" 0\r\n\r\n".join(frames) + self._ack_end)
                (answer,) = link.take_answers(1)
            if b'"error"' in answer:
                raise BackendError(f"ack of {len(frames)} messages is uncertain: {why(answer)}")
        if late := len(messages) - len(frames):
            raise BackendError(
                f"{late} of {len(messages)} messages were not acked: their lease of {self._lease_s:g} s is over, "
                "and another may hold them"
            )

    def depth(self) -> int:
        return int(self._consumer(self._open_link()).num_pending or 0)

    def destroy(self) -> None:
        self._open_link().ask(f"$JS.API.STREAM.DELETE.{self.queue}")

    def _open_link(self) -> Link:
        if self._link is None:
            raise Rejected("nothing was sent: the handle is not open")
        return self._link

    def _pull(self, link: Link, count: int, wait_s: float = 0.0) -> list[Message]:
        """Up to `count` messages that are there now, or with `wait_s` the first that comes within it."""
        asked = (
            {"batch": count, "expires": max(1, round(wait_s * 1e9))} if wait_s else {"batch": count, "no_wait": True}
        )
        question = json.dumps(asked).encode()
        with link.exchange():
            link.send(b"%b%b %d\r\n%b\r\n" % (self._pull_start, link.new_pull(), len(question), question))
            deadline = time.monotonic() + wait_s + GRACE_S
            while len(link.pulled) < count and not link.pull_end:
                if not link.step(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    link.prove_alive()
                    break
            if link.pull_end not in (b"", b"404", b"408"):
                raise BackendError(f"NATS ended a pull with {link.pull_end.decode()}: the queue is gone, or changed")
        return link.take_pulled(count)

    def _refuse_old(self, link: Link) -> None:
        version = str(link.server.get("version", "?"))
        numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
        if numbers < VERSION_MIN:
            raise BackendError(f"NATS {version} is too old; allowed: 2.9 and later")
        if not link.server.get("jetstream"):
            raise BackendError("JetStream is not enabled on this NATS; `nats-server --jetstream` enables it")

    def _create(self, link: Link) -> None:
        """The stream and its consumer, where they are not there yet."""
        try:
            found = self._stream(link)
        except Refused as error:
            if error.code != NO_STREAM:
                raise BackendError(f"JetStream cannot be asked here: {error}") from error
            found = self._create_stream(link)
        self._refuse_unless("stream", found.config, self._stream_wanted())
        try:
            consumer = self._consumer(link)
        except Refused as error:
            if error.code != NO_CONSUMER:
                raise
            self._create_consumer(link)
            consumer = self._consumer(link)
        self._refuse_unless("consumer", consumer.config, CONSUMER_WANTED)
        self._lease_s = float(consumer.config.ack_wait or 0.0)

    def _create_stream(self, link: Link) -> StreamInfo:
        config = StreamConfig(
            name=self.queue,
            subjects=[f"imqueue.{self.queue}"],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=STORAGE[self.durability],
            discard=DiscardPolicy.NEW,  # a full stream refuses; the default would forget its oldest
            num_replicas=1,
        )
        try:
            made: StreamInfo = StreamInfo.from_response(
                link.ask(f"$JS.API.STREAM.CREATE.{self.queue}", config.as_dict())
            )
        except Refused as error:
            raise BackendError(f"JetStream makes no stream {self.queue!r}: {error}") from error
        return made

    def _create_consumer(self, link: Link) -> None:
        config = ConsumerConfig(
            durable_name=CONSUMER,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self.lease_s,
            max_ack_pending=UNLIMITED,
        )
        where = f"$JS.API.CONSUMER.DURABLE.CREATE.{self.queue}.{CONSUMER}"
        try:
            link.ask(where, {"stream_name": self.queue, "config": config.as_dict()})
        except Refused as error:
            raise BackendError(f"stream {self.queue!r} takes no consumer of ours: {error}; left untouched") from error

    def _stream_wanted(self) -> dict[str, Any]:
        return STREAM_WANTED | {"subjects": [f"imqueue.{self.queue}"], "storage": STORAGE[self.durability].value}

    def _refuse_unless(self, kind: str, config: StreamConfig | ConsumerConfig, wanted: dict[str, Any]) -> None:
        """Refuse what was not made here, or not for this class; it stays as it is."""
        for name, value in wanted.items():
            found = getattr(config, name) or NOTHING
            if found != value:
                raise BackendError(
                    f"the {kind} of queue {self.queue!r} has {name} {found}, and durability {self.durability!s} needs "
                    f"{value}; left untouched"
                )

    def _stream(self, link: Link) -> StreamInfo:
        found: StreamInfo = StreamInfo.from_response(link.ask(f"$JS.API.STREAM.INFO.{self.queue}"))
        return found

    def _consumer(self, link: Link) -> ConsumerInfo:
        found: ConsumerInfo = ConsumerInfo.from_response(link.ask(f"$JS.API.CONSUMER.INFO.{self.queue}.{CONSUMER}"))
        return found
