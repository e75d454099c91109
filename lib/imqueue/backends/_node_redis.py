"""What the Node libraries on Redis share: the library in a child of its own, durability as the live server reports it.

A connection of ours reads the server's settings; all messages go through the child. Whatever the library's connection
does wrong ends the child, and the handle with it: nothing reconnects or sends again behind our back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imqueue.backend import Guarantees
from imqueue.backends._node import NodeHandle
from imqueue.backends._redis import RedisBackend, survives
from imqueue.node_child import version

SIZE_MAX_BYTES = 64 << 20
"""A limit of ours. Redis and Node would take strings of 512 MB, of which base64 leaves three quarters."""


class NodeRedis(NodeHandle, RedisBackend):
    """`batch` is the library's concurrency."""

    def _keys(self) -> Mapping[str, str]:
        """The library's keys for this queue -> what `TYPE` must say of each, unless it is absent."""
        raise NotImplementedError

    def _config(self) -> dict[str, Any]:
        """What the adapter is told besides the queue, the batch and the lease."""
        return {}

    def _returns(self) -> tuple[float | None, float | None]:
        """`redelivers_after_s`, `lease_s`."""
        raise NotImplementedError

    @property
    def guarantees(self) -> Guarantees:
        versions = self._versions()
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
            settings=settings | versions,
        )

    def close(self) -> None:
        self._end_child()
        super().close()

    def _create(self) -> None:
        for key, key_type in self._keys().items():
            self._refuse_another_type(key, key_type)
        config = {"lease_ms": round(1000 * self.lease_s), "size_max_bytes": self.declares.size_max_bytes}
        self._start_child(self.package, config | self._config())
