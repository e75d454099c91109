"""Run a notebook with papermill, in this process; each has a kernel of its own."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from traitlets.config import Config

from imqueue.workload import BadInput, choose

# papermill imports jsonschema, whose check of addresses in a schema takes 1.5 s to import and is of no use here.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import papermill  # noqa: E402
from papermill.exceptions import PapermillExecutionError  # noqa: E402

_COLOUR_CODES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Executed:
    """A notebook that ran, to its end or to the cell that failed."""

    notebook: Any
    wall_s: float
    error: str | None


def parameters_of(notebook: Path) -> dict[str, Any]:
    """What its cell tagged `parameters` declares, as papermill reads it."""
    return dict(papermill.inspect_notebook(str(notebook)))


def check(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse a parameter that `notebook` does not declare; papermill would only warn."""
    if not notebook.is_file():
        raise BadInput(f"no notebook {str(notebook)!r}; allowed: a file in the folder notebooks/")
    allowed = parameters_of(notebook)
    for name in parameters:
        choose(f"parameter of {notebook.name}", name, allowed)


@contextmanager
def _environment(names: Mapping[str, str]) -> Iterator[None]:
    """Set for what is started inside: papermill has no other way to hand variables to a kernel."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def execute(
    notebook: Path, parameters: Mapping[str, Any], output: Path, *, environment: Mapping[str, str], timeout_s: float
) -> Executed:
    """Run `notebook`, keep the executed one at `output`. An error in a cell is returned, not raised.

    `environment` is added to the kernel's; `timeout_s` bounds each cell.
    Raises `BadInput` for a parameter that the notebook does not have.
    """
    check(notebook, parameters)
    started = time.perf_counter()
    error = None
    try:
        with (
            tempfile.TemporaryDirectory(prefix="imq-") as sockets,  # a short path: that of a socket ends at 107 bytes
            _environment({**environment, "JUPYTER_RUNTIME_DIR": sockets}),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # papermill 2.7 uses what its own libraries deprecate
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=dict(parameters),
                cwd=str(notebook.parent),
                kernel_name="python3",
                progress_bar=False,
                request_save_on_cell_execute=False,
                autosave_cell_every=0,
                execution_timeout=int(timeout_s),
                shutdown_kernel="immediate",
                config=Config({"KernelManager": {"transport": "ipc"}}),  # no port that others could reach
            )
    except PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}".strip()
    except Exception as failure:  # whatever the kernel does, the report goes on with the next notebook
        error = f"{type(failure).__name__}: {_COLOUR_CODES.sub('', str(failure)).strip()}"
    wall_s = time.perf_counter() - started
    ran = nbformat.read(output, as_version=4) if output.is_file() else nbformat.read(notebook, as_version=4)
    return Executed(ran, wall_s, error)
