"""Which backends there are: the files in ``backends/`` and in the reader's own folder, and nothing else."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
from pathlib import Path

from imqueue.backend import Backend, BackendError, Declares, Inline
from imqueue.backends import folders
from imqueue.words import SETTLES
from imqueue.workload import BadInput, choose

Loaded = type[Backend] | type[Inline]


def names() -> list[str]:
    """All backends, whether or not their package and server are here.

    Raises `BadInput` where `IMQUEUE_BACKENDS` names no folder, or one with a file that is named like one of the lib's.
    """
    found: dict[str, Path] = {}
    for folder in folders():
        if not folder.is_dir():
            raise BadInput(f"IMQUEUE_BACKENDS is {str(folder)!r}; allowed: a folder that exists")
        for path in sorted(folder.glob("*.py")):
            if found.setdefault(path.stem, path) != path:
                raise BadInput(f"{path} is named like a file of imqueue itself; allowed: any other name")
    return sorted(name for name in found if not name.startswith("_"))


def load(name: str) -> Loaded:
    """The one class that ``<name>.py`` defines; imports no other backend.

    Raises `BadInput` for an unknown name, `BackendError` where the client package is absent or the file is broken.
    """
    choose("backend", name, names())
    try:
        module = importlib.import_module(f"imqueue.backends.{name}")
    except ImportError as error:
        needed = requirement((error.name or "").partition(".")[0])
        ours, *_ = folders()
        cure = "`make env` installs it" if (ours / f"{name}.py").is_file() else "install it where imqueue is"
        raise BackendError(f"{name} needs {needed}, which cannot be imported ({error}); {cure}") from error
    except Exception as error:  # somebody is still writing it
        raise BackendError(f"{name}.py cannot be imported: {error!r}") from error
    found: list[Loaded] = [
        each
        for each in vars(module).values()
        if inspect.isclass(each)
        and issubclass(each, Backend | Inline)
        and not inspect.isabstract(each)
        and each.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise BackendError(f"{name}.py must define one backend, it defines {len(found)}")
    return found[0]


def requirement(module: str) -> str:
    """The package that brings a module, with the versions that will do, as this lib's own metadata say."""
    try:
        lines = importlib.metadata.requires("imqueue") or []
    except importlib.metadata.PackageNotFoundError:  # run from its folder, not installed
        lines = []
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        if name and name[0].lower().partition("-")[0] == module:  # nats-py brings nats
            return line.partition(";")[0].strip()
    return f"a package that brings {module!r}"


def describe(declares: Declares) -> dict[str, str]:
    """What a backend declares, in words: a row of README's table and of `imqueue.backends()`."""
    return {
        "built on": declares.built_on,
        "delivery": declares.delivery,
        "settles": SETTLES[declares.settles],
        "durability": ", ".join(declares.durabilities),
        "in order": "yes" if declares.fifo else "no",
        "a worker wakes by": declares.wakes_by,
        "unacked returns": declares.unacked_returns,
    }
