"""One file for each backend, in this folder and in the one that `IMQUEUE_BACKENDS` names.

Called, it is `imqueue.notebook.backends`, whose name it takes in `imqueue`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from imqueue import settings

_OURS = Path(__file__).parent


def folders() -> list[Path]:
    """Where the files of backends lie. Each of them can be imported as `imqueue.backends.<name>`."""
    own = settings.backends_dir()
    found = [_OURS] if own is None else [_OURS, own]
    __path__[:] = map(str, found)
    return found


class _Package(ModuleType):
    """Python binds a package's name in its parent, and there `imqueue.backends()` must stay a call."""

    def __call__(self) -> Any:
        return importlib.import_module("imqueue.notebook").backends()


sys.modules[__name__].__class__ = _Package
folders()  # the forkserver imports backends by their modules' names and asks nobody for the folders
