"""Pages of exact pixels: panels in sections with headings, labels and a caption, on a matplotlib Figure.

`page` lays panels out pixel for pixel; `blank`, `show`, `write` and `arrow` draw in pixels from the upper left corner,
for pictures in which panels, words and arrows stand side by side.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform
from PIL import Image

from experiments.pages import lettering
from experiments.pages.lettering import DPI as DPI
from experiments.pages.lettering import SIZES as SIZES

MARGIN, GAP = 20, 14  # pixels: around the page, between panels
MIN_WIDTH = 600  # pixels of a page, for its words
FREE = 12  # pixels along every edge of a saved picture that hold no ink
LABEL_WIDTH, LABEL_LINES = 140, 3  # pixels that a label may take where its panel is narrower; its lines at most
HEADING_LINES = 6  # of a title or a heading at most
MAX_BYTES = 1_000_000  # a larger PNG is saved in the 256 colours that suit it best

EXACT = (255, 128)  # greys that stay what they are among few colours: the page, and the zero of a projection

SWITCHES_NOTE = (
    "Much of a deconvnet picture is carried by the switches and ReLU masks of its image (Nie et al. 2018); how far the "
    "unit decides it in a given net is what `experiments.sanity_checks` measures."
)


class Panel(NamedTuple):
    """One picture of a page."""

    pixels: np.ndarray  # uint8 [H, W, 3]
    label: str = ""  # above it, in lines of its width


class Section(NamedTuple):
    """Panels in rows of `columns` that stand below each other, under one heading."""

    heading: str
    panels: Sequence[Panel]
    columns: int


def page(title: str, sections: Sequence[Section], caption: Sequence[str]) -> Figure:
    """A page of panels, each drawn pixel for pixel, with headings, labels and a caption of wrapped paragraphs.

    The page is as wide as its widest row, panels and labels, and as high as it needs.
    """
    widths = [_column_widths(section) for section in sections]
    width = max(MIN_WIDTH, 2 * MARGIN - GAP + max(sum(columns) for columns in widths))
    pictures: list[tuple[int, int, np.ndarray]] = []  # left, top, pixels
    words: list[tuple[int, int, str, str]] = []  # left, top, kind, text
    top = _write(words, title, width=width, top=MARGIN, kind="title")
    for section, columns in zip(sections, widths, strict=True):
        top = _write(words, section.heading, width=width, top=top + GAP // 2, kind="heading")
        for row in _rows(section):
            left, labels = MARGIN, [_label(panel) for panel in row]
            below = top + _line_height("label") * max(map(len, labels))
            for panel, label, column in zip(row, labels, columns, strict=False):
                first = below - _line_height("label") * len(label)
                words += [(left, first + n * _line_height("label"), "label", line) for n, line in enumerate(label)]
                pictures.append((left, below, panel.pixels))
                left += column
            top = below + max(panel.pixels.shape[0] for panel in row) + GAP
    for paragraph in caption:
        top = _write(words, paragraph, width=width, top=top, kind="caption")
    return _draw(pictures, words, width=width, height=top + MARGIN)


def png(figure: Figure, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The figure as a PNG file, FREE pixels without ink around it; in 256 colours beyond `max_bytes`."""
    return png_of(pixels_of(figure), max_bytes=max_bytes)


def png_of(pixels: np.ndarray, *, max_bytes: int = MAX_BYTES) -> bytes:
    """`png` of a picture that is drawn already, uint8 [H, W, 3]."""
    image = Image.fromarray(framed(pixels))
    if len(_encoded(image, compress_level=1)) <= max_bytes:  # a third of the time, and a tenth larger at most
        return _encoded(image)
    sample = image.resize((-(-image.width // 2), -(-image.height // 2)), Image.Resampling.NEAREST)
    chosen = sample.quantize(256 - len(EXACT), method=Image.Quantize.MEDIANCUT).getpalette() or []
    colours = [chosen[n : n + 3] for n in range(0, 3 * (256 - len(EXACT)), 3)]
    # Pillow looks colours up in cells of 4 levels, in which another one may be the nearer
    apart = [of for of in colours if of and all(max(abs(c - level) for c in of) > 6 for level in EXACT)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for of in (*apart, *([level] * 3 for level in EXACT)) for channel in of])
    return _encoded(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))


def pixels_of(figure: Figure) -> np.ndarray:
    """The drawn figure, the words of its plots in the room that they have. -> uint8 [H, W, 3]"""
    canvas = FigureCanvasAgg(figure)
    with lettering.missing_letters_as_boxes():
        lettering.fit_plots(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def framed(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3], widened with white where there is ink in the outer FREE pixels."""
    ink = np.asarray((pixels < 250).any(axis=2))
    edges = [ink[:FREE], ink[::-1][:FREE], ink.T[:FREE], ink.T[::-1][:FREE]]  # from each edge inwards
    short = [FREE - int(edge.any(axis=1).argmax()) if edge.any() else 0 for edge in edges]
    return np.pad(pixels, ((short[0], short[1]), (short[2], short[3]), (0, 0)), constant_values=255)


def _rows(section: Section) -> list[Sequence[Panel]]:
    return [section.panels[n : n + section.columns] for n in range(0, len(section.panels), section.columns)]


def _label(panel: Panel) -> list[str]:
    """The lines of a panel's label; none without one."""
    room = max(panel.pixels.shape[1], LABEL_WIDTH)
    return lettering.lines(panel.label, "label", room, most=LABEL_LINES) if panel.label else []


def _column_widths(section: Section) -> list[int]:
    """Pixels of each column of a section: its widest panel or line of a label, and the gap after it."""
    needed = [
        max([panel.pixels.shape[1], *(math.ceil(lettering.text_width(line, "label")) for line in _label(panel))])
        for panel in section.panels
    ]
    return [max(needed[n :: section.columns]) + GAP for n in range(min(section.columns, len(needed)))]


def _line_height(kind: str) -> int:
    return round(SIZES[kind] * DPI / 72 * 1.35)


def _write(words: list[tuple[int, int, str, str]], text: str, *, width: int, top: int, kind: str) -> int:
    """Note the lines of `text`, wrapped inside the margins, and return where the next thing may begin."""
    most = None if kind == "caption" else HEADING_LINES
    for line in lettering.lines(text, kind, width - 2 * MARGIN, most=most):
        words.append((MARGIN, top, kind, line))
        top += _line_height(kind)
    return top


def _draw(
    pictures: Iterable[tuple[int, int, np.ndarray]],
    words: Iterable[tuple[int, int, str, str]],
    *,
    width: int,
    height: int,
) -> Figure:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for left, top, pixels in pictures:
        figure.figimage(pixels, xo=left, yo=height - top - pixels.shape[0], origin="upper")
    for left, top, kind, text in words:
        place = (left / width, 1 - top / height)
        figure.text(*place, text, fontproperties=lettering.font(kind), ha="left", va="top", parse_math=False)
    return figure


def _encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", dpi=(DPI, DPI), **options)
    return buffer.getvalue()


def blank(width: int, height: int) -> Figure:
    """An empty white figure of so many pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")


def show(figure: Figure, sheet: np.ndarray, *, left: float, top: float, side: int) -> Axes:
    """A picture in a square of `side` pixels, its own pixels as squares; (left, top) from the figure's corner."""
    width, height = figure.bbox.size
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    look = "nearest" if max(sheet.shape[:2]) <= side else "antialiased"
    axes.imshow(sheet, interpolation=look)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():  # white tiles end where they end
        spine.set(edgecolor="0.6", linewidth=0.6)
    return axes


def write(
    figure: Figure,
    text: str,
    *,
    left: float,
    top: float,
    kind: str = "label",
    room: float | None = None,
    **style: Any,
) -> None:
    """A line of text, or several, in one of `SIZES`; shortened to `room` pixels; `style` as of matplotlib's Text."""
    text = text if room is None else lettering.fitted(text, kind, room)
    width, height = figure.bbox.size
    look: dict[str, Any] = {
        "fontsize": SIZES[kind],
        "ha": "left",
        "va": "top",
        "weight": "bold" if lettering.is_bold(kind) else "normal",
    }
    figure.text(left / width, 1 - top / height, text, parse_math=False, **(look | style))


def arrow(figure: Figure, points: Sequence[tuple[float, float]], colour: str) -> None:
    """A line through points (left, top), with a head at the last."""
    path = Path([(x, figure.bbox.height - y) for x, y in points])
    head: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 9,
        "linewidth": 1.3,
        "joinstyle": "miter",
        "color": colour,
    }
    figure.add_artist(FancyArrowPatch(path=path, transform=IdentityTransform(), **head))
