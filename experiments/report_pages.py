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
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { border: 1px solid #ccc; padding: .4em .5em; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { background: #f0f0f0; } td.holds { background: #dff0d8; } td.does-not-hold { background: #f6d9d5; }
td.not-measured { color: #777; } img { max-width: 100%; height: auto; border: 1px solid #ddd; }
figure { margin: 1em 0 2em; } figcaption { color: #555; }
"""


class Cell(NamedTuple):
    """One field of the table."""

    text: str
    kind: str = ""  # a class of STYLE, in words


class Figure(NamedTuple):
    """One picture."""

    heading: str
    caption: str
    path: Path


class Page(NamedTuple):
    """All that a report shows."""

    title: str
    summary: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    figures: Sequence[Figure]


def as_html(page: Page) -> str:
    """One file that needs no other."""
    head = "".join(f"<th>{html.escape(word)}</th>" for word in page.heads)
    rows = "\n".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in page.rows)
    title = html.escape(page.title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<p>{html.escape(page.summary)}</p>\n"
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>\n"
        f"{''.join(_html_figures(page.figures))}</body>\n</html>\n"
    )


def as_markdown(page: Page, folder: Path) -> str:
    """The same for a reader of text; pictures are linked as seen from `folder`."""
    lines = [f"# {_markdown(page.title)}", "", _markdown(page.summary), ""]
    lines += [_markdown_row(page.heads), _markdown_row(["---"] * len(page.heads), escape=False)]
    lines += [_markdown_row([cell.text for cell in row]) for row in page.rows]
    heading = None
    for figure in page.figures:
        if figure.heading != heading:
            heading = figure.heading
            lines += ["", f"## {_markdown(heading)}"]
        link = quote(os.path.relpath(figure.path, folder))
        lines += ["", f"![{_markdown(figure.caption)}]({link})"]
    return "\n".join(lines) + "\n"


def _html_cell(cell: Cell) -> str:
    kind = f' class="{cell.kind.replace(" ", "-")}"' if cell.kind else ""
    return f"<td{kind}>{html.escape(cell.text)}</td>"


def _html_figures(figures: Sequence[Figure]) -> list[str]:
    parts, heading = [], None
    for figure in figures:
        if figure.heading != heading:
            heading = figure.heading
            parts.append(f"<h2>{html.escape(heading)}</h2>\n")
        data = base64.b64encode(figure.path.read_bytes()).decode()
        caption = html.escape(figure.caption)
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>\n"
        )
    return parts


def _markdown(words: str) -> str:
    """Without line breaks, and with what Markdown or HTML would read as a mark made plain."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&$~])", r"\\\1", " ".join(words.split()))


def _markdown_row(words: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(_markdown(word) if escape else word for word in words) + " |"
