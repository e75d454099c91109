"""The driver as notebooks, the command line and the report use it: found or started, then asked over HTTP."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from imqueue import registry, settings
from imqueue.locks import read_json
from imqueue.version import fingerprint
from imqueue.workload import BadInput

START_MAX_S = 30.0
ANSWER_MAX_S = 60.0  # a server that has to be started first takes up to 30 s
END_MAX_S = 40.0


_started: list[subprocess.Popen[bytes]] = []
"""Drivers that this process has started: it is their parent, and so the one who has to notice their end."""


class DriverError(RuntimeError):
    """The driver refused, or cannot be reached. The text is its sentence."""


class Busy(DriverError):
    """Another trial is running; the text names it."""


class Driver:
    """A connection to the driver of one data folder."""

    def __init__(self, url: str, token: str, pid: int, code: str) -> None:
        """`code`: the `fingerprint` of what it runs."""
        import requests

        self.url = url
        self.pid = pid
        self.code = code
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business between us and loopback
        self._session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, content: Any = None, timeout_s: float = ANSWER_MAX_S) -> Any:
        """The answer's JSON. `BadInput`: refused because of a value; `Busy`, `DriverError`: for another reason."""
        import requests

        try:
            answer = self._session.request(method, self.url + path, json=content, timeout=timeout_s)
        except requests.RequestException as error:
            raise DriverError(f"the driver at {self.url} does not answer: {error}") from error
        if answer.ok:
            return answer.json()
        try:
            sentence = str(answer.json()["detail"])
        except (ValueError, KeyError):
            sentence = f"the driver answered {answer.status_code}: {answer.text[:500]}"
        refused = {422: BadInput, 409: Busy}.get(answer.status_code, DriverError)
        raise refused(sentence)


def find(data: Path | None = None) -> Driver | None:
    """The running driver of this data folder; None when there is none."""
    folder = (data or settings.data_dir()) / "driver"
    about = read_json(folder / "driver.json")
    if about is None or not _lives(about["pid"]):
        return None
    try:
        driver = Driver(about["url"], (folder / "token").read_text(), about["pid"], about.get("code", ""))
        driver.ask("GET", "/pid", timeout_s=5.0)
    except (DriverError, OSError):
        return None
    return driver


def connect(data: Path | None = None) -> Driver:
    """The driver of this data folder, started in the background if there is none.

    Raises `DriverError`, and `BadInput` for a folder of backends that no driver could start with.
    """
    folder = (data or settings.data_dir()) / "driver"
    driver = find(data)
    if driver is not None and driver.code == fingerprint():
        return driver
    registry.names()  # before anything ends: the next driver would only leave a traceback in its log
    if driver is not None:
        _make_way(driver, data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = open(folder / "driver.log", "ab")  # noqa: SIM115 - the child's
    except OSError as error:
        raise DriverError(f"the data folder cannot be written: {error}") from error
    with log:
        started_at = log.tell()
        process = _start(folder.parent, log)
    deadline = time.monotonic() + START_MAX_S
    while time.monotonic() < deadline:
        if (driver := find(data)) is not None:
            return driver
        # One that found the folder taken has ended; the other is about to answer.
        if process.poll() not in (None, 0) and "has a driver already" not in _tail(folder, started_at):
            break
        time.sleep(0.05)
    raise DriverError(f"the driver did not start; its log ends: {_tail(folder, started_at)}")


def _make_way(driver: Driver, data: Path | None) -> None:
    """End a driver whose code has been edited, or which knows other servers; not while it measures."""
    trial = driver.ask("GET", "/status")["trial"]
    if trial is not None:
        raise Busy(
            f"{trial['id']} is running in a driver with older code or other servers; wait for its end, or make down"
        )
    end(data)


def _start(data: Path, log: Any) -> subprocess.Popen[bytes]:
    # Not `-m imqueue.driver`: every child of the forkserver would import that as its main module again.
    code = "from imqueue.driver import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env=settings.environment_for(data),
    )
    _started.append(process)
    return process


def _tail(folder: Path, start: int) -> str:
    with open(folder / "driver.log", "rb") as log:
        log.seek(start)
        return log.read().decode(errors="replace")[-2000:].strip() or "(empty)"


def _lives(pid: int) -> bool:
    import psutil

    for process in _started:
        process.poll()
    return psutil.pid_exists(pid)


def end(data: Path | None = None) -> bool:
    """End the driver of this data folder and all that it owns; False when there was none."""
    driver = find(data)
    if driver is None:
        return False
    driver.ask("POST", "/end")
    deadline = time.monotonic() + END_MAX_S
    while _lives(driver.pid):
        if time.monotonic() > deadline:
            raise DriverError(f"the driver (pid {driver.pid}) did not end within {END_MAX_S:g} s")
        time.sleep(0.05)
    return True
