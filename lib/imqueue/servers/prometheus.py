"""Prometheus, which scrapes the driver: the source of every series that is charted."""

from __future__ import annotations

import json
import re
from pathlib import Path

from imqueue.backend import Durability
from imqueue.servers import ServerError
from imqueue.servers._machine import find, how_to_get, output, write_private
from imqueue.servers._private import Private

SCRAPE = "500ms"  # below that, a scrape of a busy driver would disturb what it measures
FLAGS = {
    "query.lookback-delta": "3s",  # at the default of 5 minutes a short trial drags a flat tail
    "storage.tsdb.retention.time": "8d",  # longer than the longest trial, whose samples are read at its end
    "storage.tsdb.retention.size": "1GB",  # a driver may idle for weeks
    "log.level": "warn",
}


class Prometheus(Private):
    """A private prometheus. Set `target` (the driver's host:port) and its `token_file` before `start`."""

    kind = "prometheus"
    version_min = "2.33"  # for the @ modifier without a flag

    def __init__(
        self,
        folder: Path,
        durability: Durability | None = None,
        *,
        target: str | None = None,
        token_file: Path | None = None,
    ) -> None:
        super().__init__(folder, durability)
        self.target = target
        self.token_file = token_file

    @classmethod
    def missing(cls) -> str | None:
        program = find("prometheus")
        how = how_to_get("prometheus")
        if program is None:
            return f"prometheus is not on this machine; {how}"
        told = output(program, "--version")
        return (
            None
            if re.match(r"prometheus, version \d", told)
            else f"{program} does not run here: it says {told!r}; {how}"
        )

    @classmethod
    def ask(cls, url: str, timeout_s: float) -> str:
        import requests

        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy has no business between us and loopback
                session.get(f"{url.rstrip('/')}/-/ready", timeout=timeout_s).raise_for_status()
                told = session.get(f"{url.rstrip('/')}/api/v1/status/buildinfo", timeout=timeout_s)
                return str(told.json()["data"]["version"])
        except (requests.RequestException, KeyError, ValueError) as error:
            raise ServerError(str(error)) from error

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        return {"scrape_interval": SCRAPE, **FLAGS}

    def config(self) -> str:
        """The configuration file, as JSON (which is YAML): the same for every version from 2.34 on."""
        job: dict[str, object] = {
            "job_name": "imqueue",
            "static_configs": [{"targets": [self.target] if self.target else []}],
        }
        if self.token_file is not None:
            job["authorization"] = {"credentials_file": str(self.token_file.resolve())}
        return json.dumps({"global": {"scrape_interval": SCRAPE}, "scrape_configs": [job]}, indent=2)

    def prepare(self) -> list[str]:
        program = find("prometheus")
        assert program is not None
        config = self.folder / "prometheus.yml"
        write_private(config, self.config())
        return [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            *(f"--{name}={value}" for name, value in FLAGS.items()),
        ]
