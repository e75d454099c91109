"""Render executed notebooks as pages that ask the network for nothing."""

from __future__ import annotations

import re
import warnings
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter

from imqueue.words import Html

_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?|nan|NaN|<NA>|unresolved")
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

    def render(
        self, notebook: Any, *, title: str, back: str | None = None, notice: str | None = None, closing: str = ""
    ) -> str:
        """A whole page. `back`: the report's address. `notice`: a sentence on top. `closing`: markup at the end."""
        notebook = nbformat.from_dict(notebook)
        notebook.metadata["title"] = title
        notebook.metadata.pop("widgets", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nbconvert's own template and markdown library
            page, _ = self._exporter.from_notebook_node(notebook)
        return _completed(page, back, notice, closing)


def _completed(page: str, back: str | None, notice: str | None, closing: str) -> str:
    soup = BeautifulSoup(page, "html.parser")
    main = soup.find("main")
    assert isinstance(main, Tag)
    main.append(BeautifulSoup(closing, "html.parser"))
    for link in main.select("a.anchor-link"):
        link.decompose()
    _align(main)
    head = ""
    if back:
        subject = soup.title.get_text() if soup.title else ""
        head = f'<p class="back"><a href="{escape(back)}">← The report</a> · {escape(subject)}</p>'
    if notice:
        head += f'<p class="notice" role="alert">{notice if isinstance(notice, Html) else escape(notice)}</p>'
    contents = BeautifulSoup(_contents(main), "html.parser")
    title = main.select_one(".jp-Cell:has(h1)")
    if title:
        title.insert_after(contents)
    else:
        main.insert(0, contents)
    main.insert(0, BeautifulSoup(head, "html.parser"))
    return str(soup)


def _align(main: Tag) -> None:
    """Set the columns of numbers in pandas' tables flush right; pandas itself does not tell them from text."""
    for frame in main.select("table.dataframe"):
        columns = zip(*(row.find_all(["th", "td"]) for row in frame.select("tr")), strict=False)
        for heading, *cells in columns:
            if all(_NUMBER.fullmatch(cell.get_text().strip()) for cell in cells):
                for aligned in (heading, *cells):
                    aligned["class"] = "number"


def _contents(main: Tag) -> str:
    """A table of contents of the second and third level, whose targets get ids of their own."""
    items = []
    for index, heading in enumerate(main.select("h2, h3")):
        heading["id"] = f"section-{index}"
        text = escape(heading.get_text().strip())
        items.append(f'<li class="{heading.name}"><a href="#section-{index}">{text}</a></li>')
    return f'<nav class="contents" aria-label="Contents"><ol>{"".join(items)}</ol></nav>' if items else ""
