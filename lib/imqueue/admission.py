"""What is refused before anything is started: values that the backend cannot take, a folder that cannot hold them."""

from __future__ import annotations

import shutil
from pathlib import Path

from imqueue import pinning, registry
from imqueue.backend import Declares, Durability, Inline
from imqueue.workload import BadInput, Workload, choose

FREE_MIN_BYTES = 200_000_000
LEDGER_BYTES = 150  # for each message, at the most: at batch 1 its records and its row, live and packed
LOG_FACTOR = 3  # a server's log holds each body, and something around it


def check(workload: Workload) -> tuple[Declares, Durability]:
    """What only the backend knows to refuse; returns its declaration and the class of durability to use.

    Raises `BadInput`; `BackendError` where the backend's package is missing.
    """
    loaded = registry.load(workload.backend)
    declares = loaded.declares
    durability = declares.default_durability
    if workload.durability is not None:
        what = f"durability of {workload.backend}"
        durability = Durability(choose(what, workload.durability, declares.durabilities))
    most = declares.size_max_bytes
    if most is not None and workload.size_bytes > most:
        raise BadInput(f"size_bytes is {workload.size_bytes}; {workload.backend} takes at most {most}")
    if issubclass(loaded, Inline) and (workload.producers, workload.workers) != (1, 1):
        n = f"{workload.producers} producers and {workload.workers} workers"
        raise BadInput(f"{workload.backend} has no queue, so not {n}; allowed: 1 and 1")
    if issubclass(loaded, Inline) and workload.pin == "separate":
        raise BadInput(f"{workload.backend} produces and works in one thread; allowed for pin: none or together")
    pinning.check(workload.pin, declares.server)
    return declares, durability


def make_folder(workload: Workload, folder: Path) -> None:
    """Make a trial's live folder; `BadInput` where that fails or the disk is too full for what may be written."""
    expected = workload.messages if workload.rate_hz is None else workload.rate_hz * workload.duration_s
    need_bytes = FREE_MIN_BYTES + (LEDGER_BYTES + LOG_FACTOR * workload.size_bytes) * int(expected)
    there = next(parent for parent in folder.parents if parent.exists())
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < need_bytes:
        has, needs = f"{free_bytes / 1e9:.2f} GB", f"{need_bytes / 1e9:.2f} GB"
        raise BadInput(f"the disk under {there} has {has} free; this trial may need {needs}")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"the data folder cannot be written: {error}") from error
