"""pika's frames over one socket: a batch in one write, its confirms; consume with a prefetch, ack the batch."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pika
from pika.frame import Body, Header, Method, ProtocolHeader, decode_frame
from pika.spec import Basic, Channel, Confirm, Connection, Queue

WAIT_S = 0.1
ANSWER_MAX_S = 30.0
FRAME = struct.Struct(">BHI")
METHOD, HEADER, BODY = 1, 2, 3
INDEX = {"delayed": 2, "flushed": 1}


class Link:
    """A connection with one channel."""

    def __init__(self, url: str) -> None:
        self.rest, self.answer = b"", None
        self.tag = self.confirmed = 0
        self.apart: set[int] = set()
        self.arrived: list[tuple[bytes, int]] = []
        at = pika.URLParameters(url)
        self.socket = socket.create_connection((at.host, at.port), ANSWER_MAX_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(ProtocolHeader().marshal())
        mechanism, response = at.credentials.response_for(self.wait(Connection.Start))
        tune = self.call(Connection.StartOk({}, mechanism, response.decode(), "en_US"), Connection.Tune, 0)
        self.send(Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
        self.call(Connection.Open(at.virtual_host), Connection.OpenOk, 0)
        self.call(Channel.Open(), Channel.OpenOk)

    def send(self, method: Any, channel: int = 1) -> None:
        self.socket.sendall(Method(channel, method).marshal())

    def call(self, method: Any, answer: type, channel: int = 1) -> Any:
        self.send(method, channel)
        return self.wait(answer)

    def wait(self, answer: type) -> Any:
        while not isinstance(self.answer, answer):
            assert self.step(ANSWER_MAX_S), "RabbitMQ did not answer"
        return self.answer

    def step(self, timeout_s: float) -> bool:
        self.socket.settimeout(max(timeout_s, 0.0))
        try:
            data = self.rest + self.socket.recv(1 << 18)
        except (TimeoutError, BlockingIOError):
            return False
        assert data, "RabbitMQ closed the link"
        at = 0
        while len(data) - at > FRAME.size:
            kind, _, length = FRAME.unpack_from(data, at)
            end = at + FRAME.size + length + 1
            if end > len(data):
                break
            if kind == METHOD:
                decoded: Any = decode_frame(data[at:end])[1]
                self.told(decoded.method)
            elif kind == BODY:  # every message here fits into one frame
                self.arrived.append((data[at + FRAME.size : end - 1], self.tag))
            at = end
        self.rest = data[at:]
        return True

    def told(self, method: Any) -> None:
        if isinstance(method, Basic.Deliver):
            self.tag = method.delivery_tag
        elif isinstance(method, Basic.Ack) and method.multiple:
            self.confirmed = max(self.confirmed, method.delivery_tag)
            self.apart = {each for each in self.apart if each > self.confirmed}
        elif isinstance(method, Basic.Ack):
            self.apart.add(method.delivery_tag)
        elif isinstance(method, Basic.Nack | Channel.Close | Connection.Close):
            raise RuntimeError(repr(method))
        else:
            self.answer = method


def create(url: str, queue: str, durability: str) -> None:
    declare(url, queue, {"x-queue-version": INDEX[durability]} if durability in INDEX else {})


def declare(url: str, queue: str, arguments: dict[str, Any]) -> None:
    link = Link(url)
    link.call(Queue.Declare(queue=queue, durable=True, arguments=arguments), Queue.DeclareOk)
    link.socket.close()


def destroy(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(queue)


class Producer:
    def __init__(self, url: str, queue: str, durability: str) -> None:
        self.link = Link(url)
        self.link.call(Confirm.Select(), Confirm.SelectOk)
        self.properties = pika.BasicProperties(delivery_mode=1 if durability == "memory" else 2)
        self.publish = Method(1, Basic.Publish(exchange="", routing_key=queue, mandatory=True)).marshal()
        self.starts: dict[int, bytes] = {}
        self.sent = 0

    def put(self, bodies: list[bytes]) -> None:
        size = len(bodies[0])
        if size not in self.starts:
            self.starts[size] = self.publish + Header(1, size, self.properties).marshal()
        start, link = self.starts[size], self.link
        link.socket.settimeout(ANSWER_MAX_S)
        link.socket.sendall(b"".join([part for body in bodies for part in (start, Body(1, body).marshal())]))
        self.sent += len(bodies)
        while link.confirmed + len(link.apart) < self.sent:
            assert link.step(ANSWER_MAX_S), "RabbitMQ did not confirm"


class Consumer:
    def __init__(self, url: str, queue: str, _durability: str, batch: int) -> None:
        self.link, self.batch = Link(url), batch
        self.link.call(Basic.Qos(prefetch_count=batch), Basic.QosOk)
        self.link.call(Basic.Consume(queue=queue), Basic.ConsumeOk)

    def take(self) -> list[tuple[bytes, int]]:
        link, deadline = self.link, time.monotonic() + WAIT_S
        while not link.arrived and time.monotonic() < deadline:
            link.step(deadline - time.monotonic())
        while link.arrived and len(link.arrived) < self.batch and link.step(0.0):
            pass
        taken, link.arrived = link.arrived[: self.batch], link.arrived[self.batch :]
        return taken

    def settle(self, taken: list[tuple[bytes, int]]) -> None:
        self.link.socket.settimeout(ANSWER_MAX_S)
        self.link.send(Basic.Ack(taken[-1][1], multiple=True))
