"""The link to NATS, where the server does not speak as it should."""

from __future__ import annotations

import socket
import threading

import pytest

from imqueue.backend import BackendError, Rejected
from imqueue.backends._nats import Link


@pytest.mark.parametrize(
    "said", [b"MSG in 1 many\r\n", b"INFO {\r\n", b"-ERR \xff\r\n", b"HMSG 1\r\n\r\n\r\n", b"MSG 1 2\r\n{}\r\n"]
)
def test_what_the_protocol_does_not_know_is_a_backend_error(said: bytes) -> None:
    def greet() -> None:
        with listener.accept()[0] as link:
            link.sendall(b'INFO {"version": "2.9.10"}\r\n')
            while b"PING" not in link.recv(1 << 16):
                pass
            link.sendall(b"PONG\r\n")
            link.recv(1 << 16)
            link.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        greeter = threading.Thread(target=greet)
        greeter.start()
        link = Link(f"nats://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BackendError, match="what its protocol does not know"):
            link.ask("any")
        with pytest.raises(Rejected, match="nothing was sent"):
            link.send(b"PING\r\n")
        greeter.join(5.0)
