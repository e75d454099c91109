"""RabbitMQ: one node with its own epmd, Erlang's name server. Queue and message decide what is durable."""

from __future__ import annotations

import glob
import os
import re
import socket
import sys
from pathlib import Path

from imqueue.servers import ServerError
from imqueue.servers._machine import PROGRAM_FOLDERS, find, free_port, how_to_get, write_private
from imqueue.servers._private import Private

ROLE = "imqueue"

SETTINGS = {
    "vm_memory_high_watermark.relative": "0.4",  # beyond it publishers are blocked; defaults differ
    "disk_free_limit.absolute": "200MB",  # the default of 50 MB is gone before the next look at the disk
    "heartbeat": "60",  # seconds; a stalled client is noticed after two of them
}
QUIET = {
    "log.console": "true",  # standard output, which is our log file
    "log.console.level": "warning",  # at info every connection is three lines on the disk that is measured
    "log.file": "false",
}


class RabbitMQ(Private):
    """A private RabbitMQ node: the broker and its epmd."""

    kind = "rabbitmq"
    version_min = "3.8"  # for quorum queues

    @classmethod
    def missing(cls) -> str | None:
        how = how_to_get("rabbitmq-server")
        for what, found in {
            "rabbitmq-server": _script(),
            "erl": erlang("erl"),
            "epmd": erlang("epmd"),
        }.items():
            if found is None:
                return f"{what} is not on this machine; {how}"
        return None

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        import pika
        from pika.exceptions import AMQPError

        try:
            how = pika.URLParameters(url)
            how.connection_attempts = 1
            how.socket_timeout = how.stack_timeout = how.blocked_connection_timeout = timeout_s
            with socket.create_connection((how.host, how.port), timeout_s):
                pass  # pika logs a page of errors when nobody listens, as for most of a start
            with pika.BlockingConnection(how) as connection:
                told = connection._impl.server_properties or {}  # pika shows it nowhere else
                return str(told.get("version", "unknown"))
        except (AMQPError, OSError, ValueError, IndexError) as error:
            raise ServerError(str(error) or type(error).__name__) from error

    @property
    def url(self) -> str:
        return f"amqp://{ROLE}:{self.password}@127.0.0.1:{self.port}/%2F"

    def settings(self) -> dict[str, str]:
        return dict(SETTINGS)

    def choose_ports(self) -> None:
        super().choose_ports()
        self._between_nodes, self._epmd = free_port(), free_port()

    def launch(self, timeout_s: float) -> None:
        # A broker that finds no epmd starts one that outlives it; this one is our child, and ends with it.
        epmd = erlang("epmd")
        assert epmd is not None
        command = [epmd, "-port", str(self._epmd), "-address", "127.0.0.1"]
        self.spawn("epmd.log", command, self._epmd_obstacle, timeout_s)
        super().launch(timeout_s)

    def prepare(self) -> list[str]:
        lines = SETTINGS | QUIET | {"default_user": ROLE, "default_pass": self.password}
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        write_private(self.folder / "rabbitmq.conf", text)
        (self.folder / "plugins").write_text("[].\n")
        script = _script()
        assert script is not None
        return [str(script)]

    def env(self) -> dict[str, str]:
        script, erl = _script(), erlang("erl")
        assert script is not None
        assert erl is not None
        return {
            "PATH": os.pathsep.join([str(Path(erl).parent), *PROGRAM_FOLDERS]),
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script becomes the broker: its pid is the broker's
            "RABBITMQ_NODENAME": "imqueue@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._between_nodes),
            "RABBITMQ_MNESIA_BASE": str(self.folder / f"data-{_series(script)}"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none"),  # nor the machine's own settings
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "broker.pid"),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # For every Erlang that it starts; by default nodes listen for one another on all interfaces.
            "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_CRASH_DUMP_SECONDS": "0",  # no dump of its memory beside the data when it is killed
        }

    def _epmd_obstacle(self) -> str | None:
        try:
            with socket.create_connection(("127.0.0.1", self._epmd), 1.0):
                return None
        except OSError as error:
            return str(error)


def _script() -> Path | None:
    """The start script itself: Debian's /usr/sbin has a wrapper, which changes the user."""
    found = find("rabbitmq-server", f"{sys.prefix}/lib/rabbitmq/bin")
    if found is None:
        return None
    script = Path(found).resolve()
    if script.name == "rabbitmq-script-wrapper":
        script = (script.parent / "rabbitmq-server").resolve()
    return script


def _series(script: Path) -> str:
    """ "3.10" of the version: a broker reads no data of a much older or a newer one."""
    for each in script.parent.parent.glob("plugins/rabbit-*"):
        if version := re.match(r"rabbit-(\d+\.\d+)", each.name):
            return version[1]
    return "any"


def erlang(program: str) -> str | None:
    """Where a program of Erlang's lies; None: it is not here."""
    folders = [f for top in (sys.prefix, "/usr") for f in glob.glob(f"{top}/lib/erlang/erts-*/bin")]
    return find(program, *folders)
