"""RabbitMQ's two kinds of queue: each refuses the other's, and each version offers what it can keep."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from conftest import Handles
from contract import bodies, hold, numbered, settles_to, take

from imqueue import registry
from imqueue.backend import Backend, BackendError, Durability, Rejected
from imqueue.servers import Server

KINDS = ["rabbitmq", "rabbitmq_quorum"]


@pytest.fixture
def on(obtain: Callable[[str, Durability], Server]) -> Iterator[Callable[[str], Handles]]:
    """Handles of one backend or another on the same queue."""
    queue, made = f"kind-{uuid.uuid4().hex[:12]}", []

    def make(name: str) -> Handles:
        loaded = registry.load(name)
        assert issubclass(loaded, Backend)
        made.append(Handles(loaded, lambda durability: obtain("rabbitmq", durability).url, queue))
        return made[-1]

    yield make
    for each in made:
        for handle in each.opened:
            handle.close()


@pytest.mark.parametrize(("there", "asked"), [KINDS, KINDS[::-1]])
def test_a_queue_of_the_other_kind_is_refused_and_left_untouched(
    on: Callable[[str], Handles], there: str, asked: str
) -> None:
    owner = on(there)()
    owner.put(numbered(3))

    with pytest.raises(BackendError, match=r"it is there and of another kind; left untouched.*x-queue-(type|version)"):
        on(asked)()

    assert settles_to(3, owner)
    assert bodies(take(owner, 3)) == numbered(3)
    owner.destroy()


def test_a_message_is_redelivered_however_often(on: Callable[[str], Handles]) -> None:
    handle = on("rabbitmq_quorum")(batch=1)
    handle.put([b"only"])

    for _ in range(22):  # RabbitMQ 4 would drop it after 20
        hold(handle, 1)
        handle.close()
        handle.open()

    assert bodies(take(handle, 1)) == [b"only"]
    handle.destroy()


@pytest.mark.parametrize(
    ("name", "durability", "version", "told"),
    [
        ("rabbitmq_quorum", Durability.FLUSHED, (3, 7, 28), "3.7.28 has no quorum queues; allowed: 3.8 and later"),
        ("rabbitmq", Durability.FLUSHED, (3, 13, 0), "3.13.0 confirms without fsync: .*allowed: memory, delayed"),
        ("rabbitmq", Durability.DELAYED, (3, 9, 29), "3.9.29 has no index of version 2.*allowed: memory, flushed"),
    ],
)
def test_a_version_that_cannot_keep_it_is_refused_with_what_it_can(
    on: Callable[[str], Handles],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    durability: Durability,
    version: tuple[int, ...],
    told: str,
) -> None:
    monkeypatch.setattr("imqueue.backends._rabbitmq.version_of", lambda _: version)

    with pytest.raises(BackendError, match=told):
        on(name)(durability=durability)


@pytest.mark.parametrize("name", KINDS)
def test_a_put_on_a_link_that_is_known_to_be_dead_is_rejected(on: Callable[[str], Handles], name: str) -> None:
    handle, other = on(name)(), on(name)()
    other.destroy()
    with pytest.raises(BackendError, match="NOT_FOUND"):
        handle.depth()  # there is no such queue: RabbitMQ ends the channel

    with pytest.raises(Rejected, match=r"nothing was sent: .*NOT_FOUND"):
        handle.put([b"x"])
