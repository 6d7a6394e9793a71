"""A report as Markdown and as one HTML file that holds its pictures; every word is escaped.

The HTML's looks are those of `report.html.j2`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined


class Cell(NamedTuple):
    """One field of a table."""

    text: str
    kind: str = ""  # a class of the HTML's style, in words
    link: str = ""  # the heading that it leads to


class Table(NamedTuple):
    """Rows under their heads."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Block(NamedTuple):
    """What one result shows."""

    heading: str
    note: str
    figures: Sequence[Path]
    table: Table | None  # of numbers


class Part(NamedTuple):
    """All that belongs to one figure or table of the paper."""

    heading: str
    table: Table | None
    blocks: Sequence[Block]


class Page(NamedTuple):
    """All that a report shows."""

    title: str
    notes: Sequence[str]
    overview: Table
    parts: Sequence[Part]


def as_html(page: Page) -> str:
    """One file that needs no other."""
    pages = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {"anchor": anchor, "caption": caption, "base64": as_base64}
    return pages.get_template("report.html.j2").render(page=page)


def as_markdown(page: Page, folder: Path) -> str:
    """The same for a reader of text; pictures are linked as seen from `folder`."""
    lines = [f"# {_markdown(page.title)}", ""]
    for note in page.notes:
        lines += [_markdown(note), ""]
    lines += _markdown_table(page.overview)
    for part in page.parts:
        lines += ["", f'<a id="{anchor(part.heading)}"></a>', "", f"## {_markdown(part.heading)}"]
        lines += [] if part.table is None else ["", *_markdown_table(part.table)]
        for block in part.blocks:
            lines += ["", f"### {_markdown(block.heading)}", "", _markdown(block.note)]
            lines += [] if block.table is None else ["", *_markdown_table(block.table)]
            for path in block.figures:
                lines += ["", f"![{_markdown(caption(path))}]({quote(os.path.relpath(path, folder))})"]
    return "\n".join(lines) + "\n"


def anchor(heading: str) -> str:
    """The name by which links find a heading: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def caption(path: Path) -> str:
    """What stands below a picture."""
    return path.stem.replace("_", " ")


def as_base64(path: Path) -> str:
    """A file's bytes, spelt as HTML can hold them."""
    return base64.b64encode(path.read_bytes()).decode()


def _markdown_table(table: Table) -> list[str]:
    heads = [_markdown(head) for head in table.heads]
    rows = [heads, ["---"] * len(heads), *([_markdown_cell(cell) for cell in row] for row in table.rows)]
    return [f"| {' | '.join(row)} |" for row in rows]


def _markdown_cell(cell: Cell) -> str:
    text = _markdown(cell.text)
    return f"[{text}](#{anchor(cell.link)})" if cell.link else text


def _markdown(words: str) -> str:
    """Without line breaks, and with what Markdown or HTML would read as a mark made plain."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&$~])", r"\\\1", " ".join(words.split()))
