"""The seam: what a backend promises. One file in ``backends/`` keeps these promises for one way of queueing.

Everything above this file speaks of bytes, seconds and promises, never of Redis or SQL.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import repeat
from typing import Any, ClassVar, Literal, NamedTuple, Self


class BackendError(Exception):
    """A backend could not do what was asked. The text says whether the messages concerned are uncertain."""


class Rejected(BackendError):
    """The backend said no to the whole batch: none of its messages was accepted."""


class Durability(StrEnum):
    """What `put` waits for. A backend offers only the classes that it really has."""

    MEMORY = "memory"  # nothing is written
    DELAYED = "delayed"  # written within a bounded window
    FLUSHED = "flushed"  # on stable storage before put returns


@dataclass(frozen=True)
class Within:
    """Yes, but for what was acknowledged in the last `seconds_s`."""

    seconds_s: float

    def __str__(self) -> str:
        return f"all but the last {self.seconds_s:g} s"


Survives = bool | Within


class Message(NamedTuple):
    """A message as `get` returns it; `receipt` is the backend's own handle on it, opaque to everybody else."""

    body: bytes
    receipt: Any


def messages(bodies: Iterable[bytes], receipts: Iterable[Any]) -> list[Message]:
    """A batch of them at 0.1 µs each, where `Message(body, receipt)` takes 0.26."""
    return list(map(tuple.__new__, repeat(Message), zip(bodies, receipts, strict=False)))


@dataclass(frozen=True, kw_only=True)
class Declares:
    """What a backend is, known without a server. README's table and the contract tests read it.

    `settles`: "each" (any subset can be acked), "batch" (only all that one `get` returned), "none" (`get` removes).
    `wakes_by`: how a waiting `get` learns of a message, in words. `unacked_returns`: when one that was got and not
    acked comes back, as far as that can be said without a server. `late_ack_settles`: an ack after the lease settles
    the message even while another holds it, who may then lose it; else it is ignored or refused. `server`: the kind
    in ``servers/``, None: no server. `in_process`: handles of one queue must live in one process, so a trial runs its
    loops as threads. `control`: no queue to choose, but what the harness reaches by itself; it is never ranked with
    queues.
    """

    built_on: str
    durabilities: tuple[Durability, ...]
    delivery: Literal["at least once", "at most once"]
    settles: Literal["each", "batch", "none"]
    fifo: bool
    wakes_by: str
    unacked_returns: Literal["never", "when its holder's connection ends", "when its lease ends"]
    size_max_bytes: int | None
    late_ack_settles: bool = False
    server: str | None = None
    in_process: bool = False
    control: bool = False

    @property
    def at_least_once(self) -> bool:
        return self.delivery == "at least once"

    @property
    def default_durability(self) -> Durability:
        """`delayed` where the backend has it, else the first it offers."""
        return Durability.DELAYED if Durability.DELAYED in self.durabilities else self.durabilities[0]


@dataclass(frozen=True, kw_only=True)
class Guarantees:
    """What holds now, on this open handle.

    `survives_kill`, `survives_power_loss`: acknowledged messages outlive SIGKILL of the server; loss of power.
    `redelivers_after_s`: an unacked message returns this long after its holder's connection ended; None: never.
    `lease_s`: it returns this long after it was got although its holder still lives; None: never.
    `source`: where these facts were read. `settings`: the server's settings that decide them, as it reports them.
    """

    survives_kill: Survives
    survives_power_loss: Survives
    fifo: bool
    puts_confirmed: bool
    redelivers_after_s: float | None
    lease_s: float | None
    source: str
    settings: dict[str, str] = field(default_factory=dict)


class Backend(ABC):
    """One handle on one queue. It belongs to one thread; open many.

    Raises `BackendError` for whatever the client library or the server does; no other exception of theirs leaves it.
    """

    declares: ClassVar[Declares]

    def __init__(self, url: str, queue: str, *, durability: Durability, batch: int, lease_s: float = 30.0) -> None:
        """`url`: the server's, or a folder for a backend without one. `batch`: the most that one `get` returns.

        `lease_s` matters only to backends that redeliver by a lease. Nothing is connected yet.
        """
        if durability not in self.declares.durabilities:
            offered = ", ".join(self.declares.durabilities)
            raise BackendError(f"durability {durability!s} is not offered here; allowed: {offered}")
        self.url = url
        self.queue = queue
        self.durability = durability
        self.batch = batch
        self.lease_s = lease_s

    @classmethod
    def missing(cls) -> str | None:
        """What this machine lacks for it besides its server, and what would bring that; None: nothing."""
        return None

    @abstractmethod
    def open(self) -> None:
        """Connect; create the queue if absent; apply the durability asked for or refuse with a `BackendError`."""

    @abstractmethod
    def close(self) -> None:
        """Let go. Safe twice and on a dead link. Unacked messages come back as `guarantees` says."""

    @property
    @abstractmethod
    def guarantees(self) -> Guarantees:
        """What holds now; read from the live server where the server decides. Needs an open handle."""

    @abstractmethod
    def put(self, bodies: Sequence[bytes]) -> None:
        """Append in order, in as few round trips as the protocol allows; return when all are accepted.

        `Rejected`: none was. Any other `BackendError`: acceptance is unknown; there is no silent retry.
        """

    @abstractmethod
    def get(self, timeout_s: float) -> list[Message]:
        """Take up to `batch` messages; [] when none came within `timeout_s`.

        Waits for the first in the client library's own blocking call where there is one; never to fill the batch.
        """

    @abstractmethod
    def ack(self, messages: Sequence[Message]) -> None:
        """Settle exactly these, in any order; they are settled when it returns, the rest stay held.

        A message whose lease is over is left to its next holder, silently or with a `BackendError`, unless
        `late_ack_settles`. Where `settles` is "batch" a part of what one `get` returned is refused with `BackendError`.
        """

    @abstractmethod
    def depth(self) -> int:
        """How many messages the server calls ready (a push consumer's prefetch hides some)."""

    @abstractmethod
    def destroy(self) -> None:
        """Drop the queue and all that it holds. The handle must be open; it may only be closed afterwards."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Inline(ABC):
    """No queue between producer and worker: the control, which shows what the harness itself costs.

    So each of them declares `control`, without a word in its file.
    """

    declares: ClassVar[Declares]
    guarantees: ClassVar[Guarantees] = Guarantees(
        survives_kill=False,
        survives_power_loss=False,
        fifo=True,
        puts_confirmed=True,
        redelivers_after_s=None,
        lease_s=None,
        source="there is no queue: a message is handled before its put returns",
    )

    def __init_subclass__(cls) -> None:
        if "declares" in vars(cls):
            cls.declares = replace(cls.declares, control=True)

    @abstractmethod
    def pump(self, batches: Iterable[Sequence[bytes]], handle: Callable[[Sequence[bytes]], None]) -> None:
        """Pass each batch to `handle` in this backend's own way; return when all have been handled."""
