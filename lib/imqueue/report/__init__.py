"""The report: run the notebooks for every backend, render a page of each, and one that compares them all."""

from __future__ import annotations

from pathlib import Path

from imqueue.report.notebooks import execute
from imqueue.report.pages import Pages


def one_page(notebook: Path, parameters: dict[str, object], folder: Path) -> Path:
    """The first slice: run one notebook and render its page in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    executed = execute(notebook, parameters, folder / notebook.name, timeout_s=300)
    page = folder / f"{notebook.stem}.html"
    page.write_text(Pages().render(executed.notebook, title=notebook.stem, notice=executed.error))
    return page
