"""Docker's servers: a valid file, pinned, on loopback, and at the addresses that im-queue is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from imqueue import servers, settings
from imqueue.servers import prometheus

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def env_file(name: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.+)$", (DOCKER / name).read_text(), re.M))


def published(service: dict[str, Any]) -> set[int]:
    """The ports at which the host reaches it."""
    listens = re.findall(r"--web\.listen-address=[\d.]+:(\d+)", " ".join(service.get("command", ())))
    return {int(port.split(":")[1]) for port in service.get("ports", ())} | set(map(int, listens))


def base_images(service: dict[str, Any]) -> list[str]:
    """What it runs, or what it is built on where there is no image of the program itself."""
    built_on = re.findall("^FROM (.+)$", service.get("build", {}).get("dockerfile_inline", ""), re.M)
    return [*([service["image"]] if "image" in service else []), *built_on]


each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_it_follows_the_compose_specification() -> None:
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(DOCKER / "compose.yaml"),
    ]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_offers_every_kind_of_server() -> None:
    assert set(SERVICES) == set(servers.kinds()) - {"manager"}  # a process of Python's own, which needs no image


@each_service
def test_a_service_listens_on_loopback_only(service: dict[str, Any]) -> None:
    if service.get("network_mode") == "host":
        assert "--web.listen-address=127.0.0.1:9090" in service["command"]
    else:
        assert service["ports"]
    assert [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")] == []


@each_service
def test_an_image_is_pinned_by_the_versions_file(service: dict[str, Any]) -> None:
    (named,) = base_images(service)
    image, variable = re.fullmatch(r"([a-z/]+):\$\{([A-Z]+_TAG):\?.+\}", named).groups()  # type: ignore[union-attr]
    assert re.match(r"v?\d+\.\d+", env_file(".env")[variable]), f"{image} floats"


def test_the_versions_file_pins_nothing_else() -> None:
    used = re.findall(r"\$\{(\w+_TAG)", (DOCKER / "compose.yaml").read_text())
    assert sorted(used) == sorted(env_file(".env"))


@each_service
def test_health_is_asked_with_an_end(service: dict[str, Any]) -> None:
    health = service["healthcheck"]
    assert health["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= set(health)


@each_service
def test_what_a_service_keeps_is_in_a_named_volume(service: dict[str, Any]) -> None:
    named = {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith((".", "$"))}
    assert named
    assert named <= set(COMPOSE["volumes"])


@pytest.mark.parametrize("kind", SERVICES)
def test_the_address_that_im_queue_is_told_is_the_services(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = env_file("urls.env")
    monkeypatch.setenv(f"IMQUEUE_{kind.upper()}_URL", told[f"IMQUEUE_{kind.upper()}_URL"])
    url = urlsplit(settings.server_url(kind) or "")
    login = SERVICES[kind].get("environment", {})
    assert url.hostname == "127.0.0.1"
    assert url.port in published(SERVICES[kind])
    assert {url.username, url.password} - {None} == set(login.values())


def test_no_other_address_is_told() -> None:
    assert set(env_file("urls.env")) == {f"IMQUEUE_{kind.upper()}_URL" for kind in SERVICES}


def test_prometheus_accepts_its_file_and_scrapes_as_often_as_the_private_one() -> None:
    file = DOCKER / "prometheus.yml"
    assert yaml.safe_load(file.read_text())["global"]["scrape_interval"] == prometheus.SCRAPE
    promtool = shutil.which("promtool")
    if promtool is None and not settings.servers_required():
        pytest.skip("promtool is not on this machine; Debian's prometheus brings it")
    assert promtool, "promtool is not on this machine; Debian's prometheus brings it"
    check = [promtool, "check", "config", "--syntax-only", str(file)]  # the token is there while a driver runs
    done = subprocess.run(check, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
