"""What the Node libraries on RabbitMQ share: the library in a child of its own, one connection for each handle."""

from __future__ import annotations

from typing import Any, ClassVar

from imqueue.backend import BackendError
from imqueue.backends._amqp import Link
from imqueue.backends._node import NodeHandle
from imqueue.backends._rabbitmq import Version, version_of


class NodeAmqp(NodeHandle):
    """The library's consumer is sent up to `batch` messages ahead: that is its prefetch."""

    adapter: ClassVar[str]
    """The file in ``node/``."""

    def _config(self, version: Version) -> dict[str, Any]:
        """What the adapter is told besides the queue and the batch, or a refusal where this server cannot do it."""
        raise NotImplementedError

    def open(self) -> None:
        self.close()
        link = Link(self.url)
        link.close()
        self._version = version_of(link.server)
        try:
            self._start_child(self.adapter, self._config(self._version))
        except BackendError as error:
            why = "it is there and of another kind; left untouched " if "PRECONDITION" in str(error) else ""
            raise BackendError(f"cannot open queue {self.queue!r}: {why}({error})") from error

    def close(self) -> None:
        self._end_child()
