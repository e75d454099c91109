"""The plain npm library: see ``node/rabbitjs.js``."""

from __future__ import annotations

from functools import partial

import pika

from bench.bare import _node

rate_hz = partial(_node.rate_hz, "rabbitjs")


def destroy(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(queue)
