"""What every Node library shares: a handle is one child, and what it is asked goes through that child's socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from imqueue.backend import Backend, Message, Rejected
from imqueue.node_child import NodeChild, missing, version


class NodeHandle(Backend):
    """A `get` hands out what the library gave the child; `batch` is how much that is at most."""

    package: ClassVar[str]
    """On npm."""

    _child: NodeChild | None = None

    @classmethod
    def missing(cls) -> str | None:
        return missing(cls.package)

    def put(self, bodies: Sequence[bytes]) -> None:
        child = self._open_child()
        largest = max(map(len, bodies), default=0)
        limit = self.declares.size_max_bytes
        if limit is not None and largest > limit:
            raise Rejected(f"a message of {largest} bytes was not sent; allowed: up to {limit}")
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
        """The queue as the library's own API counts it, in the library's words: to hold ours against it."""
        return self._open_child().counts()

    def destroy(self) -> None:
        self._open_child().destroy()

    def _start_child(self, adapter: str, config: Mapping[str, Any]) -> None:
        """`config` is what the adapter is told besides the server, the queue and the batch."""
        self._child = NodeChild(adapter, {"url": self.url, "queue": self.queue, "batch": self.batch, **config})

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _open_child(self) -> NodeChild:
        if self._child is None:
            raise Rejected("nothing was sent: the handle is not open")
        return self._child

    def _versions(self) -> dict[str, str]:
        """The library's and Node's, and what the library reports of its settings."""
        return {self.package: str(version(self.package))} | self._open_child().facts
