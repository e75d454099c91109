"""The notebook API: start a trial, watch and change it, wait for its result."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from imqueue import admission, client, registry
from imqueue.backend import Backend, BackendError, Durability
from imqueue.workload import BadInput, Workload

if TYPE_CHECKING:
    import pandas as pd

    from imqueue.provenance import Rerun
    from imqueue.results import Result

LOOK_S = 0.1


class Trial:
    """A trial that the driver runs. It goes on when this object, or its kernel, ends; `attach` finds it again."""

    def __init__(self, driver: client.Driver, status: dict[str, Any]) -> None:
        self._driver = driver
        self._status = status
        self.id: str = status["id"]

    def __repr__(self) -> str:
        status = self.status()
        figures = f"{status['pushed']:,} pushed, {status['popped']:,} popped"
        return f"<trial {self.id}: {status['state']}, {figures}>"

    def status(self) -> dict[str, Any]:
        """What the driver says of it now."""
        if not self._status["finished"]:
            self._status = self._driver.ask("GET", f"/trials/{self.id}")
        return self._status

    @property
    def state(self) -> str:
        return str(self.status()["state"])

    @property
    def rate_hz(self) -> float | None:
        """Messages offered per second; setting it changes the running flow at once."""
        rate_hz: float | None = self.status()["workload"]["rate_hz"]
        return rate_hz

    @rate_hz.setter
    def rate_hz(self, rate_hz: float) -> None:
        self.change(rate_hz=rate_hz)

    @property
    def producers(self) -> int:
        return int(self.status()["workload"]["producers"])

    @producers.setter
    def producers(self, n: int) -> None:
        self.change(producers=n)

    @property
    def workers(self) -> int:
        return int(self.status()["workload"]["workers"])

    @workers.setter
    def workers(self, n: int) -> None:
        self.change(workers=n)

    def change(self, **values: float | int) -> None:
        """Several at once: `rate_hz`, `producers`, `workers`. Raises `BadInput`, and the trial goes on as it was."""
        self._wait_until_measuring()
        self._status = self._driver.ask("PATCH", f"/trials/{self.id}", values)

    def _wait_until_measuring(self) -> None:
        """So that a change right after `start` is not refused for having come a second too early."""
        deadline = time.monotonic() + 60.0
        while not self.status()["finished"] and time.monotonic() < deadline:
            if self._status["state"] not in BEFORE_LOAD:
                return
            time.sleep(0.02)

    def stop(self) -> None:
        """End the load now; the trial is drained and audited as at a planned end."""
        self._status = self._driver.ask("POST", f"/trials/{self.id}/stop")

    def wait(self, *, progress: bool = True) -> Result:
        """Until it has ended. An interrupt stops the trial, waits for its record and goes on up.

        Raises `DriverError` where the driver is gone. A trial that failed has a `Result` too: see its `error`.
        """
        from imqueue.results import Result

        try:
            self._follow(progress)
        except KeyboardInterrupt:
            self.stop()
            self._follow(progress=False)
            raise
        return Result(self._status["folder"])

    def _follow(self, progress: bool) -> None:
        from tqdm import tqdm

        name = f"{self._status['workload']['backend']} {'flow' if self.rate_hz else 'sum'}"
        layout = "{desc} {percentage:3.0f}%|{bar:30}| {elapsed}{postfix}"
        options: dict[str, Any] = {"total": 100, "desc": name, "bar_format": layout, "leave": False}
        if not progress:
            options["disable"] = True  # said only here, so that TQDM_DISABLE holds where it is not
        with tqdm(**options) as bar:
            while not (status := self.status())["finished"]:
                bar.n = round(100 * status["done"] / status["total"], 1)
                bar.set_postfix_str(f"{status['state']}, {status['popped']:,} popped")
                time.sleep(LOOK_S)


BEFORE_LOAD = ("starting", "setting up", "warming up", "waiting for Prometheus")


def start(backend: str, **workload: Any) -> Trial:
    """Start a trial in the background: a flow when `rate_hz` is given, else a sum. See `imqueue.Workload`.

    Raises `BadInput` for a value that is not allowed and `Busy` while another trial runs; nothing is started then.
    """
    with contextlib.suppress(BackendError):  # a missing package: the driver says so, with the reason
        admission.check(Workload.of({"backend": backend, **workload}))
    driver = client.connect()
    return Trial(driver, driver.ask("POST", "/trials", {"backend": backend, **workload}))


def run(backend: str, *, progress: bool = True, **workload: Any) -> Result:
    """`start` and `wait`."""
    return start(backend, **workload).wait(progress=progress)


def attach() -> Trial | None:
    """The trial that the driver is running now, whoever started it; None when there is none."""
    driver = client.find()
    status = driver.ask("GET", "/status")["trial"] if driver is not None else None
    return Trial(driver, status) if driver is not None and status is not None else None


def result(trial: Any) -> Result:
    """A finished trial from disk: its folder, or its id in the data folder. No server is needed."""
    from pathlib import Path

    from imqueue import settings
    from imqueue.results import Result

    folder = Path(trial)
    if not (folder / "trial.json").exists():
        folder = settings.data_dir() / "trials" / str(trial)
    if not (folder / "trial.json").exists():
        raise BadInput(f"no finished trial {str(trial)!r}; imqueue.trials() lists them")
    return Result(folder)


def rerun(trial: Any, *, progress: bool = True) -> Rerun:
    """Repeat a finished trial (its folder, or its id), changes made by hand included, and say what differs here.

    The `Result` has `differences`, a DataFrame: `what`, `then`, `now`. Raises `BadInput` where there is no such trial,
    or none that this machine and this imqueue can repeat; nothing is started then.
    """
    from imqueue import provenance

    original = result(trial)
    parameters = provenance.workload_of(original)
    _refuse_absent(original)
    again = start(**parameters)
    not_made = _replay(again, original.info.get("changes") or [])
    repeated = provenance.Rerun(again.wait(progress=progress).folder, original, not_made)
    print(repeated.sentence())
    return repeated


def _refuse_absent(original: Result) -> None:
    from imqueue.fleet import why_missing

    backend = original.backend
    if backend not in registry.names():
        raise BadInput(f"{original.id} is a trial of {backend}, a backend that is not in this imqueue")
    if reason := why_missing(backend):
        raise BadInput(f"{original.id} is a trial of {backend}, which cannot run here: {reason}")


def _replay(trial: Trial, changes: list[dict[str, Any]]) -> list[str]:
    """Make changes when they were asked for; returns why some could not be made."""
    refused = []
    try:
        for change in changes:
            while not (status := trial.status())["finished"] and status["since_go_s"] < change["asked_s"]:
                time.sleep(min(0.02, change["asked_s"] - status["since_go_s"]))
            try:
                trial.change(**{name: value for name, value in change.items() if name != "asked_s"})
            except BadInput as error:
                refused.append(str(error))
    except BaseException:
        trial.stop()
        raise
    return refused


def trials() -> list[str]:
    """The ids of all finished trials in the data folder, oldest first."""
    from imqueue import settings

    return sorted(path.parent.name for path in (settings.data_dir() / "trials").glob("*/trial.json"))


def backends() -> pd.DataFrame:
    """A table of all backends: what each promises, whether it is here, and why one is missing."""
    import pandas as pd

    missing = client.connect().ask("GET", "/backends")
    rows = [
        {"backend": name, **_promises(name), "here": "yes" if reason is None else reason}
        for name, reason in missing.items()
    ]
    return pd.DataFrame(rows).set_index("backend").fillna("")


def _promises(name: str) -> dict[str, str]:
    try:
        return registry.describe(registry.load(name).declares)
    except BackendError:
        return {}


def server_url(backend: str, durability: str | None = None) -> str:
    """The address of the server that this backend's handles use (or its folder), started if need be."""
    content = {"backend": backend, "durability": durability}
    return str(client.connect().ask("POST", "/url", content)["url"])


@contextlib.contextmanager
def open(backend: str, durability: str | None = None, batch: int = 10, lease_s: float = 30.0) -> Iterator[Backend]:
    """A handle on a fresh queue, to put, get and ack by hand; the queue is dropped at the end."""
    url = server_url(backend, durability)
    loaded = registry.load(backend)
    if not issubclass(loaded, Backend):
        raise BadInput(f"{backend} has no queue to open; it passes messages on in a loop")
    chosen = Durability(durability) if durability else loaded.declares.default_durability
    queue = f"imq_hand_{secrets.token_hex(4)}"
    with loaded(url, queue, durability=chosen, batch=batch, lease_s=lease_s) as handle:
        try:
            yield handle
        finally:
            handle.destroy()
