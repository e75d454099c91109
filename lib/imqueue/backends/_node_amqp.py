"""What the Node libraries on RabbitMQ share: the library in a child of its own, one connection for each handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from imqueue.backend import Backend, BackendError, Message, Rejected
from imqueue.backends._amqp import Link
from imqueue.backends._rabbitmq import SIZE_MAX_BYTES, Version, version_of
from imqueue.node_child import NodeChild, missing, version


class NodeAmqp(Backend):
    """A `get` hands out what the library's consumer was sent: its prefetch is `batch`."""

    package: ClassVar[str]
    adapter: ClassVar[str]

    _child: NodeChild | None = None

    def _config(self, version: Version) -> dict[str, Any]:
        """What the adapter is told besides the queue and the batch, or a refusal where this server cannot do it."""
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str | None:
        return missing(cls.package)

    def open(self) -> None:
        self.close()
        link = Link(self.url)
        link.close()
        self._version = version_of(link.server)
        config = {"url": self.url, "queue": self.queue, "batch": self.batch}
        self._child = NodeChild(self.adapter, config | self._config(self._version))

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def put(self, bodies: Sequence[bytes]) -> None:
        if self._child is None:
            raise Rejected("nothing was sent: the handle is not open")
        largest = max(map(len, bodies), default=0)
        if largest > SIZE_MAX_BYTES:
            raise Rejected(f"a message of {largest} bytes was not sent; allowed: up to {SIZE_MAX_BYTES}")
        if bodies:
            self._child.put(bodies)

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
        return {self.package: str(version(self.package))} | self._open_child().facts
