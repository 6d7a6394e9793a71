"""Drawing in pixels on a matplotlib Figure, from its upper left corner: pictures, lines of text, arrows.

For pictures in which panels, words and arrows stand side by side; `experiments.pictures.page` sets them on a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform

from experiments.pictures import DPI, SIZES


def blank(width: int, height: int) -> Figure:
    """An empty white figure of so many pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")


def show(figure: Figure, left: float, top: float, side: int, sheet: np.ndarray) -> Axes:
    """A picture in a square of `side` pixels, its own pixels as squares; (left, top) from the figure's corner."""
    width, height = figure.bbox.size
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    look = "nearest" if max(sheet.shape[:2]) <= side else "antialiased"
    axes.imshow(sheet, interpolation=look)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():  # white tiles end where they end
        spine.set(edgecolor="0.6", linewidth=0.6)
    return axes


def write(figure: Figure, left: float, top: float, text: str, *, kind: str = "label", **style: Any) -> None:
    """A line of text, or several, in one of the sizes of `pictures.SIZES`; `style` as of matplotlib's Text."""
    width, height = figure.bbox.size
    look: dict[str, Any] = {
        "fontsize": SIZES[kind],
        "ha": "left",
        "va": "top",
        "weight": "bold" if kind == "heading" else "normal",
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
