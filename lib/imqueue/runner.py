"""One trial at a time: what the driver's HTTP interface stands on."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from imqueue import admission
from imqueue.backend import BackendError
from imqueue.exporter import Exporter
from imqueue.fleet import Fleet, why_missing
from imqueue.locks import FileLock, Taken, machine_lock
from imqueue.servers.guard import Guard
from imqueue.trial import Trial
from imqueue.workload import Workload


class Busy(Exception):
    """Another trial is running; the text names it."""


class Unknown(Exception):
    """No trial of that name has been run by this driver."""


class Runner:
    """Thread-safe. Of the trials that it ran it remembers what they came to, not their ledgers and processes."""

    def __init__(self, data: Path, fleet: Fleet, exporter: Exporter, guard: Guard) -> None:
        self._data, self._fleet, self._exporter, self._guard = data, fleet, exporter, guard
        self._ended: dict[str, dict[str, Any]] = {}
        self._current: Trial | None = None
        self._lock = threading.Lock()

    def start(self, parameters: dict[str, Any]) -> Trial:
        """Start a trial and return at once.

        `BadInput`: refused, nothing was started. `Busy`: another one runs. `BackendError`: it cannot be had here.
        """
        workload = Workload.of(parameters)
        admission.check(workload)
        with self._lock:
            if self._current is not None:
                raise Busy(f"{self._current.id} is running; stop it or wait for its end")
            if reason := why_missing(workload.backend):
                raise BackendError(f"{workload.backend} cannot run here: {reason}")
            lock = machine_lock()
            try:
                lock.take(f"a trial of {workload.backend} (data folder {self._data}, driver {os.getpid()})")
            except Taken as taken:
                raise Busy(f"{taken} is running on this machine; two at once would spoil each other") from None
            try:
                trial = Trial(workload, self._data, self._fleet, self._exporter, self._guard)
            except BaseException:
                lock.release()
                raise
            self._current = trial
        threading.Thread(target=self._run, args=(trial, lock), name=trial.id).start()
        return trial

    def _run(self, trial: Trial, lock: FileLock) -> None:
        try:
            trial.run()
        finally:
            lock.release()
            with self._lock:  # who sees that it has finished may start the next one at once
                self._current = None
                trial.finished.set()
                self._ended[trial.id] = trial.status()

    def status(self, trial_id: str) -> dict[str, Any]:
        """What there is to say of a trial, running or ended. Raises `Unknown`."""
        with self._lock:
            trial, ended = self._current, self._ended.get(trial_id)
        if trial is not None and trial.id == trial_id:
            return trial.status()
        if ended is None:
            raise Unknown(f"this driver has run no trial {trial_id!r}")
        return ended

    def running(self, trial_id: str) -> Trial | None:
        """This trial, while it runs; None when it has ended. Raises `Unknown`."""
        self.status(trial_id)
        trial = self._current
        return trial if trial is not None and trial.id == trial_id else None

    @property
    def current(self) -> Trial | None:
        """The trial that runs now."""
        return self._current

    def stop(self, timeout_s: float) -> None:
        """Stop what runs and wait for its record."""
        if (trial := self.current) is not None:
            trial.stop()
            trial.finished.wait(timeout_s)

    def url(self, parameters: dict[str, Any]) -> str:
        """The address of the server that a backend's handles use, started if need be."""
        workload = Workload.of(parameters)
        _, durability = admission.check(workload)
        if reason := why_missing(workload.backend):
            raise BackendError(f"{workload.backend} cannot be had here: {reason}")
        return self._fleet.url(workload.backend, durability)
