"""The only reader of the environment."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> Path:
    """The data folder: `IMQUEUE_DATA`, else `data/` of the checkout this file lies in, else `./data`."""
    if named := os.environ.get("IMQUEUE_DATA"):
        return Path(named).resolve()
    checkout = Path(__file__).resolve().parents[2]
    return checkout / "data" if (checkout / "notebooks").is_dir() else Path.cwd() / "data"


def backends_dir() -> Path | None:
    """`IMQUEUE_BACKENDS`: a folder of backends of the reader's own, beside those of the lib; None: there is none."""
    named = os.environ.get("IMQUEUE_BACKENDS")
    return Path(named).resolve() if named else None


def server_url(kind: str) -> str | None:
    """The address of a server of the reader's own: `IMQUEUE_<KIND>_URL`, e.g. `IMQUEUE_REDIS_URL`."""
    return os.environ.get(f"IMQUEUE_{kind.upper()}_URL") or None


def server_urls() -> list[tuple[str, str]]:
    """All such variables that are set, with their values."""
    return sorted(
        (name, url) for name, url in os.environ.items() if name.startswith("IMQUEUE_") and name.endswith("_URL")
    )


def servers_required() -> bool:
    """Whether a missing server is an error (under CI) instead of a counted skip."""
    return bool(os.environ.get("CI") or os.environ.get("IMQUEUE_REQUIRE"))


def environment_for(data: Path) -> dict[str, str]:
    """Our environment, for a child that must use this data folder."""
    return {**os.environ, "IMQUEUE_DATA": str(data)}
