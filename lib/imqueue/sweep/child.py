"""One point in a process of its own, forked from one that has papermill loaded; and how to end all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from imqueue import client

MARK = "IMQUEUE_POINT"
"""In the environment of a kernel and of its children, by which they are found when the process between is gone."""

STOP_MAX_S = 30.0  # a trial that is stopped is drained and audited before it is gone
_KILL_MAX_S = 5.0
_CONTEXT = get_context("forkserver")


@dataclass(frozen=True)
class Ran:
    """How a run ended. `error` None: to its end. `dead`: the kernel, or the process around it, was killed."""

    error: str | None
    dead: bool = False


def preload() -> None:
    """Start the process that others are forked from; safe twice."""
    _CONTEXT.set_forkserver_preload(["imqueue.sweep.child", "imqueue.report.notebooks"])


def run(notebook: Path, parameters: Mapping[str, Any], output: Path, data: Path, mark: str, max_s: float) -> Ran:
    """Execute `notebook` into `output`, for at most `max_s`. Whatever happens, nothing that it started is left."""
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    environment = {"IMQUEUE_DATA": str(data), "TQDM_DISABLE": "1", MARK: mark}
    process = _CONTEXT.Process(target=_execute, args=(theirs, notebook, dict(parameters), output, environment, max_s))
    process.start()
    theirs.close()
    ended = False
    try:
        process.join(max_s)
        ended = process.exitcode == 0 and ours.poll()
        if ended:
            error = ours.recv()
            return Ran(error, dead=bool(error and error.startswith("DeadKernelError")))
        if process.exitcode is None:
            return Ran(f"it was ended after {max_s:g} s")
        return Ran(f"its process ended with exit code {process.exitcode}", dead=True)
    finally:
        if not ended:
            stop_trial(data)
        end(process.pid, mark, data)
        process.join(_KILL_MAX_S)
        ours.close()


def _execute(
    told: Connection,
    notebook: Path,
    parameters: dict[str, Any],
    output: Path,
    environment: dict[str, str],
    max_s: float,
) -> None:
    os.setsid()  # a Ctrl-C is for the sweep, which ends us in its own way
    mark, data = environment[MARK], Path(environment["IMQUEUE_DATA"])
    threading.Thread(target=_end_with_parent, args=(mark, data), daemon=True).start()
    from imqueue.report.notebooks import execute

    executed = execute(notebook, parameters, output, environment=environment, timeout_s=max_s)
    told.send(executed.error)


def _end_with_parent(mark: str, data: Path) -> None:
    sweep = parent_process()
    assert sweep is not None
    sweep.join()
    end(None, mark, data)
    stop_trial(data)
    os._exit(1)


def stop_trial(data: Path, max_s: float = STOP_MAX_S) -> bool:
    """Stop the trial that runs, and wait until its producers and workers are gone; False where they are not."""
    with contextlib.suppress(client.DriverError):
        driver = client.find(data)
        if driver is not None and (trial := driver.ask("GET", "/status")["trial"]) is not None:
            driver.ask("POST", f"/trials/{trial['id']}/stop")
    return idle(data, max_s)


def idle(data: Path, max_s: float) -> bool:
    """Wait until no trial runs; False where one still does after `max_s`."""
    deadline = time.monotonic() + max_s
    while (driver := client.find(data)) is not None:
        with contextlib.suppress(client.DriverError):
            if driver.ask("GET", "/status")["trial"] is None:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def end(pid: int | None, mark: str, data: Path) -> None:
    """Kill the process `pid`, and every other that has `mark` in its environment, but for a driver and its servers."""
    driver = client.find(data)
    spared = {os.getpid(), *_family(driver.pid if driver else None)}
    found = [each for each in psutil.process_iter() if each.pid == pid or _marked(each, mark)]
    found = [each for each in found if each.pid not in spared]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(found, timeout=_KILL_MAX_S)


def _family(pid: int | None) -> set[int]:
    if pid is None:
        return set()
    try:
        return {pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))}
    except psutil.Error:
        return {pid}


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False
