"""nats-server with JetStream. Each stream chooses its storage, so one server serves every durability."""

from __future__ import annotations

import json
import re

from imqueue.backend import BackendError
from imqueue.servers import ServerError
from imqueue.servers._machine import find, output, write_private
from imqueue.servers._private import Private

USER = "imqueue"
HOW = "`apt-get install --no-install-recommends nats-server` brings it"  # conda-forge has none

SETTINGS = {
    "max_memory_store": "1GB",  # beyond it a put is refused; by default it is a part of the machine's memory
    "max_file_store": "8GB",  # likewise of the disk's
}


class Nats(Private):
    """A private nats-server with one port: no monitoring, no cluster."""

    kind = "nats"
    version_min = "2.9"  # of which it is known what its answers mean

    @classmethod
    def missing(cls) -> str | None:
        program = find("nats-server")
        if program is None:
            return f"nats-server is not on this machine; {HOW}"
        told = output(program, "--version")
        version = re.search(r"v(\d+\.[\d.]+)", told)
        if version is None:
            return f"{program} does not run here: it says {told!r}; {HOW}"
        return f"{reason}; {HOW}" if (reason := cls.too_old(version[1])) else None

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        from imqueue.backends._nats import Link

        try:
            link = Link(url, timeout_s)
        except BackendError as error:
            raise ServerError(str(error)) from error
        link.close()
        if not link.server.get("jetstream"):
            raise ServerError("JetStream is not enabled there")
        return str(link.server["version"])

    @property
    def url(self) -> str:
        return f"nats://{USER}:{self.password}@127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        return dict(SETTINGS)

    def prepare(self) -> list[str]:
        program = find("nats-server")
        assert program is not None
        password = self.password
        lines = [
            f'listen: "127.0.0.1:{self.port}"',
            f"authorization {{ user: {USER}, password: {json.dumps(password)} }}",  # loopback is shared
            f"jetstream {{ store_dir: {json.dumps(str(self.folder))}",
            *(f"{name}: {value}" for name, value in SETTINGS.items()),
            "}",
        ]
        config = self.folder / "nats.conf"  # a file, because a command line can be read by everybody
        write_private(config, "\n".join(lines) + "\n")
        return [program, "--config", str(config)]
