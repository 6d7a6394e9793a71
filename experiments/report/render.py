"""A report as Markdown and as one HTML file that holds its pictures; every word is escaped."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1240px; padding: 0 1em; color: #222; }
h2 { margin-top: 2.2em; border-bottom: 2px solid #ddd; } h3 { margin: 1.6em 0 .2em; font-size: 1em; }
table { border-collapse: collapse; font-size: 13px; margin: .6em 0; } p.note { color: #555; margin: .3em 0; }
th, td { border: 1px solid #ccc; padding: .4em .5em; text-align: left; vertical-align: top; overflow-wrap: break-word; }
th { background: #f0f0f0; } td.holds { background: #dff0d8; } td.does-not-hold { background: #f6d9d5; }
td.not-shown { background: #fcf1cf; } td.not-measured { color: #777; } td.unreadable { background: #e4daf2; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; } figure { margin: .6em 0 1.4em; }
figcaption { color: #555; }
"""


class Cell(NamedTuple):
    """One field of a table."""

    text: str
    kind: str = ""  # a class of STYLE, in words
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
    title = html.escape(page.title)
    lines = [
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>",
        *(f"<p>{html.escape(note)}</p>" for note in page.notes),
        _html_table(page.overview),
    ]
    for part in page.parts:
        lines.append(f'<h2 id="{anchor(part.heading)}">{html.escape(part.heading)}</h2>')
        lines += [] if part.table is None else [_html_table(part.table)]
        for block in part.blocks:
            lines.append(f"<h3>{html.escape(block.heading)}</h3>\n<p class='note'>{html.escape(block.note)}</p>")
            lines += [] if block.table is None else [_html_table(block.table)]
            lines += map(_html_figure, block.figures)
    return "\n".join([*lines, "</body>\n</html>\n"])


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
                lines += ["", f"![{_markdown(_caption(path))}]({quote(os.path.relpath(path, folder))})"]
    return "\n".join(lines) + "\n"


def anchor(heading: str) -> str:
    """The name by which links find a heading: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(word)}</th>" for word in table.heads)
    rows = "\n".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in table.rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"


def _html_cell(cell: Cell) -> str:
    kind = f' class="{anchor(cell.kind)}"' if cell.kind else ""
    text = html.escape(cell.text)
    return f"<td{kind}>" + (f'<a href="#{anchor(cell.link)}">{text}</a>' if cell.link else text) + "</td>"


def _html_figure(path: Path) -> str:
    data, caption = base64.b64encode(path.read_bytes()).decode(), html.escape(_caption(path))
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _caption(path: Path) -> str:
    return path.stem.replace("_", " ")


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
