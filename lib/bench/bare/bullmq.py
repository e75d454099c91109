"""The plain npm library: see ``node/bullmq.js``."""

from __future__ import annotations

from functools import partial

import redis

from bench.bare import _node

rate_hz = partial(_node.rate_hz, "bullmq")


def destroy(url: str, queue: str) -> None:
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"*{queue}*", count=1000):
            client.unlink(key)
