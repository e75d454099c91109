"""Render executed notebooks as pages that ask the network for nothing."""

from __future__ import annotations

import warnings
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter

_TEMPLATES = Path(__file__).parent / "templates"


class Pages:
    """One exporter for all pages of a report: the first costs 0.3 s, the next 0.02."""

    def __init__(self) -> None:
        self._exporter = HTMLExporter(
            template_name="report",
            extra_template_basedirs=[str(_TEMPLATES)],
            exclude_input=True,
            exclude_output_prompt=True,
            exclude_input_prompt=True,
            embed_images=True,
        )

    def render(self, notebook: Any, *, title: str, back: str | None = None, notice: str | None = None) -> str:
        """A whole page: `back` is the relative address of the report, `notice` a sentence put on top."""
        notebook = nbformat.from_dict(notebook)
        notebook.metadata["title"] = title
        notebook.metadata.pop("widgets", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nbconvert's own template and markdown library
            page, _ = self._exporter.from_notebook_node(notebook)
        return _completed(page, back, notice)


def _completed(page: str, back: str | None, notice: str | None) -> str:
    soup = BeautifulSoup(page, "html.parser")
    main = soup.find("main")
    assert isinstance(main, Tag)
    for link in main.select("a.anchor-link"):
        link.decompose()
    head = f'<p class="back"><a href="{escape(back)}">← The report that this is part of</a></p>' if back else ""
    if notice:
        head += f'<p class="notice" role="alert">{escape(notice)}</p>'
    main.insert(0, BeautifulSoup(head + _contents(soup, main), "html.parser"))
    return str(soup)


def _contents(soup: BeautifulSoup, main: Tag) -> str:
    """A table of contents of the second and third level, whose targets get ids of their own."""
    items = []
    for index, heading in enumerate(main.select("h2, h3")):
        heading["id"] = f"section-{index}"
        text = escape(heading.get_text().strip())
        items.append(f'<li class="{heading.name}"><a href="#section-{index}">{text}</a></li>')
    return f'<nav class="contents" aria-label="Contents"><ol>{"".join(items)}</ol></nav>' if items else ""
