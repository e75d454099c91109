"""One file for each backend. Called, it is `imqueue.notebook.backends`, whose name it takes in `imqueue`."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """Python binds a package's name in its parent, and there `imqueue.backends()` must stay a call."""

    def __call__(self) -> Any:
        return importlib.import_module("imqueue.notebook").backends()


sys.modules[__name__].__class__ = _Package
