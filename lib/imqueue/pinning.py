"""Which cores a trial's processes may run on: the workload's `pin`, applied by each child at its start.

Where they run moves a round trip: a message that stays on one core wakes no other, and waits for that one. On
redis_list at batch 1 and 500 messages/s (2 busy cores, medians of 5 trials each, from sent), p50 and p90: none 139 and
386 us, separate 154 and 304 us, together 135 and 223 us.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

import psutil

from imqueue import settings
from imqueue.backend import BackendError
from imqueue.workload import BadInput


def allowed() -> list[int]:
    """The cores that this process may use; [] where the system does not tell (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def check(pin: str, server: str | None = None) -> None:
    """Raises `BadInput` where this machine cannot pin so; `server`: the kind that would be bound too."""
    if pin == "none":
        return
    here = allowed()
    if not here:
        raise BadInput(f"pin is {pin!r}; allowed here: none, for this system does not let a process choose its cores")
    if pin == "separate" and len(here) < 2:
        raise BadInput("pin is 'separate'; allowed here: none or together, for there is only one core to share")
    if server is not None and pin == "together" and settings.server_url(server):
        name = f"IMQUEUE_{server.upper()}_URL"
        raise BadInput(
            f"pin is 'together'; allowed here: none or separate, for the server of {name} is not ours to bind"
        )


def cores(pin: str, role: str, here: Sequence[int]) -> list[int]:
    """Those of `here` that a role is bound to; [] for a role that is left alone.

    separate: producers on one half, workers on the other, the server left alone. together: producers, workers and the
    server on one core, the last, for the first serves most interrupts.
    """
    if pin == "together" and role in ("producer", "worker", "server"):
        return list(here[-1:])
    half = len(here) // 2
    halves = {"producer": here[:half], "worker": here[half:]}
    return list(halves.get(role, [])) if pin == "separate" else []


def bind(pin: str, role: str) -> None:
    """Bind the calling thread, and whatever it starts from now on."""
    if mine := cores(pin, role, allowed()):
        os.sched_setaffinity(0, mine)


class Bound:
    """A server's processes, bound while a trial lasts. Raises `BackendError` where the system forbids it."""

    def __init__(self, pin: str, roots: Sequence[int]) -> None:
        self._roots = roots
        self._before: dict[int, set[int]] = {}
        self.cores = cores(pin, "server", allowed()) if roots else []
        if self.cores:
            self._bind()

    def _bind(self) -> None:
        try:
            for thread in _threads(self._roots):
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    self._before[thread] = os.sched_getaffinity(thread)
                    os.sched_setaffinity(thread, self.cores)
        except PermissionError as error:
            self.release()
            raise BackendError("the server's processes could not be bound to a core, as pin='together' asks") from error

    def release(self) -> None:
        """Give every thread back what it had; one started since then, what its root had. Safe twice."""
        if not self.cores:
            return
        whole = next(iter(self._before.values()), set(allowed()))
        for thread in _threads(self._roots):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.sched_setaffinity(thread, self._before.get(thread, whole))
        self.cores = []


def _threads(roots: Iterable[int]) -> list[int]:
    """The ids of all threads of some processes and their descendants."""
    found: list[int] = []
    for root in roots:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(root)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found += [thread.id for thread in each.threads()]
    return found
