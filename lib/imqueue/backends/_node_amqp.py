"""What the Node libraries on RabbitMQ share: the library in a child of its own, one connection for each handle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from imqueue.backend import Backend, BackendError, Message, Rejected
from imqueue.backends._amqp import Link
from imqueue.node_child import NodeChild, missing, version

SIZE_MAX_BYTES = 16 * 1024 * 1024  # the least max_message_size that any version has by default (4.0; 3.x: 128 MiB)
CONSUMER_TIMEOUT_S = 1800.0  # the broker's default since 3.9; AMQP does not tell it


class NodeAmqp(Backend):
    """A `get` hands out what the library's consumer was sent: its prefetch is `batch`."""

    package: ClassVar[str]
    adapter: ClassVar[str]

    _child: NodeChild | None = None

    def _config(self, version: tuple[int, ...]) -> dict[str, Any]:
        """What the adapter is told besides the queue and the batch, or a refusal where this server cannot do it."""
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str | None:
        return missing(cls.package)

    def open(self) -> None:
        self.close()
        link = Link(self.url)
        link.close()
        self._version = _version(link.server)
        config = {"url": self.url, "queue": self.queue, "batch": self.batch}
        self._child = NodeChild(self.adapter, config | self._config(self._version))

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def put(self, bodies: Sequence[bytes]) -> None:
        child = self._open_child()
        largest = max(map(len, bodies), default=0)
        if largest > SIZE_MAX_BYTES:
            raise Rejected(f"a message of {largest} bytes was not sent; allowed: up to {SIZE_MAX_BYTES}")
        if bodies:
            child.put(bodies)

    def get(self, timeout_s: float) -> list[Message]:
        return self._open_child().get(self.batch, timeout_s)

    def ack(self, messages: Sequence[Message]) -> None:
        child = self._open_child()
        if messages:
            child.ack([message.receipt for message in messages])

    def depth(self) -> int:
        return self._open_child().depth()

    def counts(self) -> dict[str, Any]:
        """What the library's own API tells of the queue."""
        return self._open_child().counts()

    def destroy(self) -> None:
        self._open_child().destroy()

    def _open_child(self) -> NodeChild:
        if self._child is None:
            raise BackendError("the handle is not open")
        return self._child

    def _versions(self) -> dict[str, str]:
        facts = self._open_child().facts
        return {"version": ".".join(map(str, self._version)), self.package: str(version(self.package))} | facts


def _version(server: dict[str, Any]) -> tuple[int, ...]:
    """(3, 10, 8), as the server says it in its greeting. Only RabbitMQ's own promises are known here."""
    product, version = (str(server.get(each, "?")) for each in ("product", "version"))
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if product != "RabbitMQ" or numbers is None:
        raise BackendError(f"the server is {product!r} {version!r}; allowed: RabbitMQ")
    return tuple(int(each) for each in numbers.groups() if each)
