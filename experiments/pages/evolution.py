"""The pages of Figure 4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from experiments.pages.deconv import PAGE
from experiments.pages.lettering import counted
from zfjax import pixels
from zfjax.analyses.evolution import Drawn
from zfjax.analyses.strongest import Strongest

TILE = 70  # pixels, least side of a projection
BAR, WORDS = 4, 20  # pixels: the mark left of a tile; the column and the row of words around a strip
CHANGED = (213, 94, 0)  # orange bar between two epochs whose strongest images differ

CURVES = {
    "similarity": "Similarity to the final features",
    "growth": "Strongest activation / the last epoch's",
    "changed": "Share of maps with another strongest image",
}


def evolution_page(drawn: Drawn, result: Mapping[str, Any], *, patches: bool) -> Figure:
    """The strips of all maps, layer by layer; with `patches`, what the unit sees stands below each projection.

    `result` says "epochs", "threshold", "num_images", and of each of the "layers" its "units" (what the maps are
    called) and its "settling_epoch".
    """
    num = len(result["epochs"])
    columns = strips_per_row(num)
    side = ((PAGE + canvas.GAP) // columns - canvas.GAP - WORDS) // num - 2 * BAR
    sections = []
    for layer, at in drawn.items():
        strips = []
        for m, name in enumerate(result["layers"][layer]["units"]):
            images = [of.images[m, 0] for of in at.values()]
            changed = [n > 0 and images[n] != images[n - 1] for n in range(num)]
            tiles = [
                tile(of, m, side=side, changed=c, patches=patches) for of, c in zip(at.values(), changed, strict=True)
            ]
            strips.append(Panel(strip(np.stack(tiles), name, epochs=at if m < columns else ())))
        sections.append(Section(heading(layer, result), strips, columns))
    title = "Figure 4: a map's strongest activation, projected to the pixels, as the network trains"
    channels = {of.projections.shape[-1] for at in drawn.values() for of in at.values()}
    words = [*caption(result), *(words for num in channels for words in lettering.grey_projections(num))]
    return canvas.page(title, sections, words)


def strips_per_row(num_epochs: int) -> int:
    """How many maps stand side by side on the page, with tiles of at least TILE pixels."""
    return max(1, (PAGE + canvas.GAP) // (num_epochs * (TILE + 2 * BAR) + WORDS + canvas.GAP))


def heading(layer: str, result: Mapping[str, Any], *, named: str | None = None) -> str:
    """When the layer, `named` so or by its name, settled."""
    settled = result["layers"][layer]["settling_epoch"]
    when = f"from epoch {settled} on" if settled is not None else "only at the end"
    return f"{named or layer}: its features are like the final ones (similarity {result['threshold']} or more) {when}"


def caption(result: Mapping[str, Any]) -> list[str]:
    """What the tiles are, how they are scaled, and what such pictures do not show."""
    last, images = result["epochs"][-1], counted(result["num_images"], "training image")
    return [
        f"Each tile: the strongest activation of a map among {images} after the epoch above it, projected to the "
        f"pixels alone. Maps were chosen among those that are alive after epoch {last}. "
        "Orange bar: between these two epochs another image became the strongest one.",
        "Zero is mid-grey. Each tile has a scale of its own, the 99.5th percentile of its |values|: it shows what the "
        "map sees, not how strongly. On one scale the early epochs would be grey, for activations grow (curves.png). "
        "Plain grey: no image excites the map. Light grey: no picture there.",
        canvas.SWITCHES_NOTE,
    ]


def tile(strongest: Strongest, m: int, *, side: int, changed: bool, patches: bool) -> np.ndarray:
    """Projection number `m`, its patch below it where wanted, a bar left of it where the image changed. -> uint8"""
    pictures = [pixels.signed_pictures(strongest.projections[m], strongest.scales[m])]
    pictures += [strongest.patches[m]] if patches else []
    squares = [pixels.resized(picture, side)[0] for picture in pictures]
    height, width = side * len(squares) + 2 * BAR, side + 2 * BAR
    framed = np.full((height, width, 3), 255, np.uint8)
    if changed:
        framed[BAR : BAR + len(squares) * (len(squares[0]) + 2) - 2, :BAR] = CHANGED
    for n, square in enumerate(squares):
        top, left = BAR + n * (len(square) + 2), BAR + 2
        framed[top : top + len(square), left : left + square.shape[1]] = square
    return framed


def strip(tiles: np.ndarray, name: str, *, epochs: Iterable[int]) -> np.ndarray:
    """Tiles uint8 [E, h, w, 3] in a row, the map's name upright at their left, above them the epochs, if any.

    Of a name that is longer than the tiles are high an ellipsis takes the rest.
    """
    num, height, width, _ = tiles.shape
    epochs = list(epochs)
    size = np.array([WORDS + num * width, height + (WORDS if epochs else 0)])
    figure = Figure(figsize=tuple(size / canvas.DPI), dpi=canvas.DPI, facecolor="white")
    figure.figimage(pixels.mosaic(tiles, columns=num, gap=0), xo=WORDS, yo=0, origin="upper")
    style: dict[str, Any] = {"fontsize": canvas.SIZES["label"], "ha": "center", "va": "center", "parse_math": False}
    upright = lettering.fitted(name, "label", height - 2 * BAR)
    figure.text(WORDS / 2 / size[0], height / 2 / size[1], upright, rotation="vertical", **style)
    for n, epoch in enumerate(epochs):
        figure.text((WORDS + (n + 0.5) * width) / size[0], 1 - WORDS / 2 / size[1], f"epoch {epoch}", **style)
    return canvas.pixels_of(figure)


def curves_figure(result: Mapping[str, Any]) -> Figure:
    """Against epochs: similarity to the final features, growth of the strongest activation, changes of its image.

    Dashes: the similarity, were all weights to go one straight way.
    """
    epochs, layers = result["epochs"], result["layers"]
    figure = Figure(figsize=(14.6, 4.2), layout="constrained")
    *panels, beside = figure.subplots(1, len(CURVES) + 1, width_ratios=[1] * len(CURVES) + [0.6])
    named: list[Any] = []
    for axes, (name, title) in zip(panels, CURVES.items(), strict=True):
        for depth, (layer, facts) in enumerate(layers.items()):
            if name in facts:
                colour = colormaps["viridis"](0.95 * depth / max(1, len(layers) - 1))
                values = [np.nan if value is None else value for value in facts[name]]
                drawn = axes.plot(epochs[-len(values) :], values, "o-", color=colour, markersize=4, label=layer)
                named += drawn if name == "similarity" else []
                if name == "similarity" and "straight" in facts:
                    axes.plot(epochs, facts["straight"], "--", color=colour, linewidth=1)
        axes.set_title(title, fontsize=11)
        axes.set_xscale("log")
        axes.set_xlim(epochs[0] / 1.1, epochs[-1] * 1.1)
        axes.set_xticks(epochs, map(str, epochs))
        axes.minorticks_off()
        axes.set_xlabel("epoch")
        axes.set_ylim(0, None if name == "growth" else 1.03)
        axes.grid(alpha=0.3)
    named.append(panels[0].axhline(result["threshold"], color="0.4", linestyle=":", linewidth=1, label="settled"))
    if any("straight" in facts for facts in layers.values()):
        named += panels[0].plot([], [], "--", color="0.4", linewidth=1, label="weights on one way")
    beside.axis("off")
    lettering.legend(beside, named, fontsize=8, loc="upper left", borderaxespad=0)
    return figure
