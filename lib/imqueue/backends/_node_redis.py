"""What the Node libraries on Redis share: the library in a child of its own, durability as the live server reports it.

A connection of ours reads the server's settings; all messages go through the child. Whatever the library's connection
does wrong ends the child, and the handle with it: nothing reconnects or sends again behind our back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from imqueue.backend import BackendError, Guarantees, Message, Rejected
from imqueue.backends._redis import RedisBackend, survives
from imqueue.node_child import NodeChild, missing, version

SIZE_MAX_BYTES = 64 << 20
"""A limit of ours. Redis and Node would take strings of 512 MB, of which base64 leaves three quarters."""


class NodeRedis(RedisBackend):
    """A handle is one child. A `get` hands out what the library gave it; `batch` is the library's concurrency."""

    package: ClassVar[str]

    _child: NodeChild | None = None

    def _keys(self) -> Mapping[str, str]:
        """The library's keys for this queue -> what `TYPE` must say of each, unless it is absent."""
        raise NotImplementedError

    def _config(self) -> dict[str, Any]:
        """What the adapter is told besides the queue, the batch and the lease."""
        return {}

    def _returns(self) -> tuple[float | None, float | None]:
        """`redelivers_after_s`, `lease_s`."""
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str | None:
        return missing(cls.package)

    @property
    def guarantees(self) -> Guarantees:
        child = self._open_child()
        settings = self._settings()
        survives_kill, survives_power_loss = survives(settings, self.url)
        redelivers_after_s, lease_s = self._returns()
        return Guarantees(
            survives_kill=survives_kill,
            survives_power_loss=survives_power_loss,
            fifo=self.declares.fifo,
            puts_confirmed=True,
            redelivers_after_s=redelivers_after_s,
            lease_s=lease_s,
            source=f"{self._source()}; the source code of {self.package} {version(self.package)}",
            settings=settings | {self.package: str(version(self.package))} | child.facts,
        )

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
        super().close()

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
        """Of the messages in each state, as the library's own API counts them."""
        return self._open_child().counts()

    def destroy(self) -> None:
        self._open_child().destroy()

    def _create(self) -> None:
        for key, key_type in self._keys().items():
            self._refuse_another_type(key, key_type)
        config = {
            "url": self.url,
            "queue": self.queue,
            "batch": self.batch,
            "lease_ms": round(1000 * self.lease_s),
            "size_max_bytes": self.declares.size_max_bytes,
        }
        self._child = NodeChild(self.package, config | self._config())

    def _open_child(self) -> NodeChild:
        if self._child is None:
            raise BackendError("the handle is not open")
        return self._child
