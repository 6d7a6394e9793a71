"""Rendering and saving, shared by all figures: arrays in, a page of exact pixels out.

Computing, rendering and saving are three things: an experiment computes arrays, `signed_pictures`, `resized` and
`mosaic` turn them into uint8 panels, `page` lays panels out on a matplotlib Figure pixel for pixel, and `save_figure`,
`save_arrays` and `save_result` write files that are either whole or not there.
"""

import dataclasses
import io
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from zfjax.pixels import as_picture

DPI = 120  # pixels per inch: type of 9 points is 15 pixels high
MARGIN, GAP, TILE_GAP = 20, 14, 2  # pixels: around the page, between panels, between the tiles of a mosaic
MIN_WIDTH = 600  # pixels of a page, for its words
SIZES = {"title": 13.0, "heading": 10.5, "caption": 9.0, "label": 8.0}  # points
PERCENTILE = 99.5  # of |value|; the few above it are drawn white or black, so that one spike does not grey the rest
MAX_BYTES = 1_000_000  # a larger PNG is saved in the 256 colours that suit it best
SWITCHES_NOTE = (
    "Much of a deconvnet picture is carried by the switches and ReLU masks of its image (Nie et al. 2018); how far the "
    "unit decides it in a given net is what `experiments.sanity_checks` measures."
)


class Panel(NamedTuple):
    """One picture of a page."""

    pixels: np.ndarray  # uint8 [H, W, 3]
    label: str = ""  # one line above it


class Section(NamedTuple):
    """Panels in rows of `columns`, under one heading."""

    heading: str
    panels: Sequence[Panel]
    columns: int


def symmetric_scale(values: np.ndarray) -> float:
    """The |value| that is drawn white (or black): the PERCENTILE of those that are not zero; 0 where all are."""
    size = np.abs(values[values != 0])
    return float(np.percentile(size, PERCENTILE)) if size.size else 0.0


def signed_pictures(signed: np.ndarray, scale: float) -> np.ndarray:
    """Signed values [..., H, W, 3] on one scale: zero is mid-grey 128, +-scale white and black. -> uint8"""
    return np.floor(as_picture(signed, scale) * 255 + 0.5).astype(np.uint8)


def filter_pictures(kernel: np.ndarray) -> tuple[np.ndarray, float]:
    """Layer 1's filters [h, w, 3, N] on one shared scale, their largest |weight|. -> (uint8 [N, h, w, 3], scale)"""
    scale = float(np.abs(kernel).max())
    return signed_pictures(np.moveaxis(kernel, -1, 0), scale), scale


def resized(pictures: np.ndarray, side: int) -> np.ndarray:
    """Squares uint8 [N, s, s, 3] -> [N, side, side, 3].

    Those of at most a third of `side` keep their pixels visible, each as a square of whole pixels, and come out at the
    largest multiple of s that `side` holds.
    """
    size = pictures.shape[1]
    if 3 * size <= side:
        return pictures.repeat(side // size, axis=1).repeat(side // size, axis=2)
    look = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(picture).resize((side, side), look)) for picture in pictures])


def mosaic(pictures: np.ndarray, columns: int, gap: int = TILE_GAP) -> np.ndarray:
    """uint8 [N, h, w, 3] in rows of `columns` with white gaps. -> uint8 [H, W, 3]"""
    num, height, width, _ = pictures.shape
    rows = -(-num // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for n, picture in enumerate(pictures):
        top, left = (n // columns) * (height + gap), (n % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def side_by_side(*sheets: np.ndarray, gap: int = 3 * TILE_GAP) -> np.ndarray:
    """Sheets uint8 [H, W, 3] of one height, left to right with white gaps. -> uint8 [H, W', 3]"""
    between = np.full((sheets[0].shape[0], gap, 3), 255, np.uint8)
    pieces = [piece for sheet in sheets for piece in (between, sheet)]
    return np.concatenate(pieces[1:], axis=1)


def page(title: str, sections: Sequence[Section], caption: Sequence[str]) -> Figure:
    """A page of panels, each drawn pixel for pixel, with headings, labels and a caption of wrapped paragraphs.

    The page is as wide as its widest row, panels and labels, and as high as it needs.
    """
    rows = [row for section in sections for row in _rows(section)]
    width = max(MIN_WIDTH, 2 * MARGIN - GAP + max(sum(_slot(panel) for panel in row) for row in rows))
    pictures: list[tuple[int, int, np.ndarray]] = []  # left, top, pixels
    words: list[tuple[int, int, str, str]] = []  # left, top, kind, text
    top = _write(words, width, MARGIN, "title", title)
    for section in sections:
        top = _write(words, width, top + GAP // 2, "heading", section.heading)
        for row in _rows(section):
            left, label_height = MARGIN, _line_height("label") if any(panel.label for panel in row) else 0
            for panel in row:
                if panel.label:
                    words.append((left, top, "label", panel.label))
                pictures.append((left, top + label_height, panel.pixels))
                left += _slot(panel)
            top += label_height + max(panel.pixels.shape[0] for panel in row) + GAP
    for paragraph in caption:
        top = _write(words, width, top, "caption", paragraph)
    return _draw(width, top + MARGIN, pictures, words)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file; in 256 colours where it would be larger than MAX_BYTES."""
    image = Image.fromarray(pixels_of(figure))
    data = _encoded(image)
    if len(data) > MAX_BYTES:
        palette = image.quantize(256, method=Image.Quantize.MEDIANCUT)
        data = _encoded(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
    return data


def pixels_of(figure: Figure) -> np.ndarray:
    """The drawn figure. -> uint8 [H, W, 3]"""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(path: Path, figure: Figure) -> None:
    """Write `figure` as a PNG, whole or not at all."""
    write_atomically(path, png(figure))


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed .npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub fears one named allow_pickle
    write_atomically(path, buffer.getvalue())


def save_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result` as JSON, whole or not at all; dataclasses, paths and NumPy values are spelt out."""
    write_atomically(path, (json.dumps(result, indent=2, default=_spelt_out) + "\n").encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path` under another name, then rename: a killed run leaves the old file or none, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Versions of what computed and drew a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("jax", "numpy", "matplotlib")}


def _rows(section: Section) -> list[Sequence[Panel]]:
    return [section.panels[n : n + section.columns] for n in range(0, len(section.panels), section.columns)]


def _slot(panel: Panel) -> int:
    """Pixels of a row that a panel takes with its label and the gap after it."""
    return max(panel.pixels.shape[1], math.ceil(_text_width(panel.label, "label"))) + GAP


def _line_height(kind: str) -> int:
    return round(SIZES[kind] * DPI / 72 * 1.35)


def _write(words: list[tuple[int, int, str, str]], width: int, top: int, kind: str, text: str) -> int:
    """Note the lines of `text`, wrapped inside the margins, and return where the next thing may begin."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _text_width(longer, kind) > width - 2 * MARGIN:
            words.append((MARGIN, top, kind, line))
            top, line = top + _line_height(kind), word
        else:
            line = longer
    words.append((MARGIN, top, kind, line))
    return top + _line_height(kind)


def _font(kind: str) -> FontProperties:
    return FontProperties(size=SIZES[kind], weight="bold" if kind in ("title", "heading") else "normal")


def _text_width(text: str, kind: str) -> float:
    """Pixels that a line takes."""
    return text_to_path.get_text_width_height_descent(text, _font(kind), ismath=False)[0] * DPI / 72


def _draw(
    width: int,
    height: int,
    pictures: Iterable[tuple[int, int, np.ndarray]],
    words: Iterable[tuple[int, int, str, str]],
) -> Figure:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for left, top, pixels in pictures:
        figure.figimage(pixels, xo=left, yo=height - top - pixels.shape[0], origin="upper")
    for left, top, kind, text in words:
        place = (left / width, 1 - top / height)
        figure.text(*place, text, fontproperties=_font(kind), ha="left", va="top", parse_math=False)
    return figure


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, dpi=(DPI, DPI))
    return buffer.getvalue()


def _spelt_out(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"result of {type(value).__name__}: plain values, arrays, paths and dataclasses can be written")
