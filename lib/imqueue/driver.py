"""The driver: a background process that owns the servers, runs trials one at a time, and serves `/metrics`.

Started by the lib on first use, one per data folder. Loopback only, and every request needs the token that lies
beside its address in ``data/driver/``, readable by its owner only.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict

from imqueue import servers, settings, version
from imqueue.backend import BackendError
from imqueue.crew import CrewError, warm_forkserver
from imqueue.exporter import Exporter
from imqueue.fleet import Fleet, missing
from imqueue.locks import FileLock, Taken
from imqueue.runner import Busy, Runner, Unknown
from imqueue.servers import Server, ServerError, ServerMissing
from imqueue.servers.guard import Guard
from imqueue.servers.prometheus import Prometheus
from imqueue.store import write_json
from imqueue.workload import BadInput

STOP_TRIAL_MAX_S = 20.0
REFUSALS: dict[type[Exception], int] = {
    BadInput: 422,
    Busy: 409,
    Unknown: 404,
    BackendError: 424,
    CrewError: 424,
    ServerError: 424,
    ServerMissing: 424,
}


class Change(BaseModel):
    """New values for a running trial; what is absent stays."""

    model_config = ConfigDict(extra="forbid")
    rate_hz: float | None = None
    producers: int | None = None
    workers: int | None = None


def make_app(runner: Runner, fleet: Fleet, exporter: Exporter, token: str, end: threading.Event) -> FastAPI:
    """The HTTP interface; `end` is set when somebody asks the driver to end."""

    def authorized(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "the token in data/driver/token is needed: Authorization: Bearer <token>")

    app = FastAPI(title="im-queue driver", docs_url=None, redoc_url=None, dependencies=[Depends(authorized)])
    metrics = CollectorRegistry()
    metrics.register(exporter)
    for refused, code in REFUSALS.items():
        app.add_exception_handler(refused, _refusal(code))
    app.add_exception_handler(RequestValidationError, _malformed)

    @app.get("/metrics")
    def scrape(user_agent: Annotated[str, Header()] = "") -> Response:
        started_ns = time.monotonic_ns()
        body = generate_latest(metrics)
        if user_agent.startswith("Prometheus"):
            exporter.scraped(started_ns)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    _tell_of_itself(app, runner, fleet, end)
    _run_trials(app, runner)
    return app


def _tell_of_itself(app: FastAPI, runner: Runner, fleet: Fleet, end: threading.Event) -> None:
    """The driver, its servers and its backends."""

    @app.get("/pid")
    def pid() -> dict[str, int]:
        return {"pid": os.getpid()}

    @app.get("/status")
    def status() -> dict[str, Any]:
        trial = runner.current
        running = [_about(server) for server in fleet.running()]
        return {"pid": os.getpid(), "trial": trial.status() if trial else None, "servers": running}

    @app.get("/backends")
    def backends() -> dict[str, str | None]:
        return missing()

    @app.post("/servers")
    def start_servers() -> dict[str, str | None]:
        return fleet.start_all()

    @app.post("/url")
    def url(parameters: Annotated[dict[str, Any], Body()]) -> dict[str, str]:
        return {"url": runner.url(parameters)}

    @app.post("/end", status_code=202)
    def end_driver() -> dict[str, int]:
        end.set()
        return {"pid": os.getpid()}


def _run_trials(app: FastAPI, runner: Runner) -> None:
    @app.post("/trials", status_code=201)
    def start(parameters: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return runner.start(parameters).status()

    @app.get("/trials/{trial_id}")
    def read(trial_id: str) -> dict[str, Any]:
        return runner.status(trial_id)

    @app.patch("/trials/{trial_id}")
    def change(trial_id: str, wanted: Change) -> dict[str, Any]:
        trial = runner.running(trial_id)
        if trial is None:
            raise BadInput(f"{trial_id} has ended: nothing can be changed any more")
        trial.change(wanted.rate_hz, wanted.producers, wanted.workers)
        return trial.status()

    @app.post("/trials/{trial_id}/stop")
    def stop(trial_id: str) -> dict[str, Any]:
        if (trial := runner.running(trial_id)) is not None:
            trial.stop()
        return runner.status(trial_id)


def _about(server: Server) -> dict[str, Any]:
    try:
        version = server.version()
    except ServerError:
        version = "(does not answer)"
    url, pids = servers.masked(server.url), server.pids()
    return {"kind": server.kind, "version": version, "url": url, "pids": pids, "note": server.note}


def _refusal(code: int) -> Any:
    def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, code)

    return answer


def _malformed(_: Request, error: Exception) -> JSONResponse:
    """Pydantic's list of errors, as one sentence."""
    assert isinstance(error, RequestValidationError)
    told = [f"{'.'.join(map(str, each['loc'][1:])) or 'the body'}: {each['msg']}" for each in error.errors()]
    return JSONResponse({"detail": "; ".join(told)}, 422)


class HttpServer(uvicorn.Server):
    """Leaves signals to the driver: uvicorn's own handlers end the process before it has cleaned up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Driver:
    """Everything that one driver process owns, from start to end."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = data / "driver"
        self._end = threading.Event()
        self._guard = Guard()
        self._code = version.fingerprint()
        version.code()  # read now: the trials run what is loaded now

    def run(self) -> None:
        """Serve until asked to end. Raises `Taken` when this data folder has a driver already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        lock = FileLock(self.folder / "lock")
        lock.take(str(os.getpid()))
        self._guard.start()
        fleet = Fleet(self.data / "servers", self._guard)
        try:
            self._serve(fleet)
        finally:
            (self.folder / "driver.json").unlink(missing_ok=True)
            fleet.stop()
            self._guard.close()
            lock.release()

    def _serve(self, fleet: Fleet) -> None:
        token = secrets.token_urlsafe(24)
        token_file = self.folder / "token"
        token_file.unlink(missing_ok=True)
        descriptor = os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, token.encode())
        os.close(descriptor)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        exporter = Exporter()
        runner = Runner(self.data, fleet, exporter, self._guard)
        app = make_app(runner, fleet, exporter, token, self._end)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        server = HttpServer(config)
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, lambda *_: self._end.set())
        self._adopt_prometheus(fleet, port, token_file)
        preparing = threading.Thread(target=self._prepare, args=(fleet,), name="prepare")
        preparing.start()
        warm_forkserver(self._guard)
        watching = threading.Thread(target=self._wait_for_end, args=(server, runner), name="end")
        watching.start()
        about = {"pid": os.getpid(), "url": f"http://127.0.0.1:{port}", "code": self._code}
        write_json(self.folder / "driver.json", about)
        try:
            server.run(sockets=[listener])
        finally:
            self._end.set()
            watching.join()
            preparing.join()

    def _adopt_prometheus(self, fleet: Fleet, port: int, token_file: Path) -> None:
        target = f"127.0.0.1:{port}"
        write_json(self.folder / "prometheus.json", [{"targets": [target]}])  # for one that runs elsewhere
        with contextlib.suppress(ServerMissing):  # a trial is refused with the reason
            server = servers.obtain("prometheus", self.data / "servers")
            if isinstance(server, Prometheus):
                server.target, server.token_file = target, token_file
            fleet.adopt(server)

    @staticmethod
    def _prepare(fleet: Fleet) -> None:
        """Before it is needed, while the first requests are answered: Prometheus scrapes 5 s after its start."""
        try:
            fleet.server("prometheus")
        except (ServerMissing, ServerError) as error:
            print(f"Prometheus: {error}", file=sys.stderr, flush=True)

    def _wait_for_end(self, server: uvicorn.Server, runner: Runner) -> None:
        self._end.wait()
        runner.stop(STOP_TRIAL_MAX_S)
        server.should_exit = True


def main() -> None:
    """Run the driver of the data folder in the foreground; the lib starts it in the background."""
    try:
        Driver(settings.data_dir()).run()
    except Taken as taken:
        raise SystemExit(f"imqueue: this data folder has a driver already, pid {taken}") from None
