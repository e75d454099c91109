"""The loops of ``rabbitmq.py`` on a quorum queue."""

from __future__ import annotations

from bench.bare.rabbitmq import Consumer, Producer, declare, destroy

__all__ = ["Consumer", "Producer", "create", "destroy"]


def create(url: str, queue: str, durability: str) -> None:
    declare(url, queue, {"x-queue-type": "quorum"})
