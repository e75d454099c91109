"""What the tests of the contract share."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import holders
import pytest

from imqueue.backend import Backend, Guarantees, Message

SLACK_S = 5.0  # the machine may be busy: no promise is tested more sharply than this
SPAWN = multiprocessing.get_context("spawn")


def numbered(count: int) -> list[bytes]:
    return [f"{number:08}".encode() for number in range(count)]


def take(handle: Backend, count: int, patience_s: float = SLACK_S) -> list[Message]:
    """Get and ack until there are `count`, or until patience ends."""
    taken: list[Message] = []
    deadline = time.monotonic() + patience_s
    while len(taken) < count and time.monotonic() < deadline:
        messages = handle.get(0.2)
        if messages:
            handle.ack(messages)
        taken += messages
    return taken


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.body for message in messages]


def hold(handle: Backend, count: int, patience_s: float = SLACK_S) -> list[Message]:
    """Get `count` messages and ack none."""
    held: list[Message] = []
    deadline = time.monotonic() + patience_s
    while len(held) < count and time.monotonic() < deadline:
        held += handle.get(0.2)
    assert len(held) == count
    return held


def return_s(guarantees: Guarantees) -> float:
    """By when what a closed handle held is back, where it comes back at all."""
    return (guarantees.redelivers_after_s or 0.0) * 1.2 + 0.3


def settles_to(expected: int, handle: Backend) -> bool:
    """Whether the server's count comes to `expected` soon: some servers count a little late."""
    deadline = time.monotonic() + SLACK_S
    while handle.depth() != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return handle.depth() == expected


def several(loaded: type[Backend], count: int) -> Executor:
    """Processes, or threads where handles must share one."""
    return ThreadPoolExecutor(count) if loaded.declares.in_process else ProcessPoolExecutor(count, mp_context=SPAWN)


def where(handle: Backend, request: pytest.FixtureRequest) -> holders.Where:
    name = str(request.node.callspec.params["loaded"])  # as the registry calls it
    return holders.Where(name, handle.url, handle.queue, handle.durability, handle.lease_s)
