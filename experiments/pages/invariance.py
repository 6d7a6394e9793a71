"""The page of Figure 5: transformed pictures, the distances of their features, the probability of their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments.pages import canvas
from experiments.pages.canvas import Panel, Section
from zfjax import pixels
from zfjax.analyses import invariance
from zfjax.analyses.invariance import TRANSFORMS, Chosen, Curves, label_probability

AXES = {"translation": "translation downwards (pixels)", "scale": "scale", "rotation": "rotation (degrees)"}


COLOURS, EXAMPLES = [f"C{n}" for n in range(10)], 5  # of the images drawn, the first ten; amounts of each shown


WIDTH, TILE = 1460, 80  # pixels: of the curves, of an example


def draw(
    chosen: Chosen, amounts: Mapping[str, np.ndarray], found: Mapping[str, Curves], layers: Sequence[str], size: int
) -> Figure:
    """The page: a row for each transform, with examples, distances on one scale, and the label's probability."""
    figure = Figure(figsize=(WIDTH / canvas.DPI, 10), dpi=canvas.DPI, layout="constrained")
    rows = figure.subplots(len(found), 2 + len(layers), width_ratios=[1.15] + [1.0] * (1 + len(layers)))
    relative = {name: invariance.relative(of) for name, of in found.items()}
    highest = 1.04 * (max(of[layer].max() for of in relative.values() for layer in layers) or 1.0)
    for (name, of), (examples, *plots) in zip(found.items(), rows, strict=True):
        _draw_examples(examples, chosen, name, amounts[name], size)
        panels = {f"{layer}: distance / length": (relative[name][layer], highest) for layer in layers}
        panels["probability of the label"] = (label_probability(of, chosen.labels), 1.04)
        for plot, (title, (values, top)) in zip(plots, panels.items(), strict=True):
            for colour, line in zip(COLOURS, values, strict=False):
                plot.plot(amounts[name], line, color=colour, linewidth=1.5)
            plot.set(xlim=amounts[name][[0, -1]], ylim=(0, top))
            plot.locator_params("x", nbins=4, steps=[1, 1.5, 2, 3, 5, 9, 10])
            plot.set_title(title, fontsize=canvas.SIZES["heading"])
            plot.set_xlabel(AXES[name], fontsize=canvas.SIZES["label"])
            plot.tick_params(labelsize=canvas.SIZES["label"])
            plot.grid(alpha=0.3)
    legend: dict[str, Any] = {"loc": "outside upper center", "ncols": 5, "fontsize": canvas.SIZES["caption"]}
    figure.legend(figure.axes[1].get_lines(), chosen.names[: len(COLOURS)], **legend)
    label = "true class" if chosen.known.all() else "true class, or of the most probable one where it is not known"
    caption = (
        "Left: each picture at five amounts of the transform, in the colour of its curves. Then the Euclidean distance "
        "of a layer's features from those of the untransformed picture, over their length, on one scale for all layers "
        f"and transforms; right, the probability of the {label}. What moves in from outside is the stored picture "
        "around the crop, and beyond that its mirror image."
    )
    section = Section(f"{len(chosen.labels)} pictures", [Panel(canvas.pixels_of(figure))], 1)
    return canvas.page("Figure 5: invariance to translation, scale and rotation", [section], [caption])


def _draw_examples(axes: Any, chosen: Chosen, name: str, amounts: np.ndarray, size: int) -> None:
    shown = amounts[np.ceil(np.linspace(0, len(amounts) - 1, EXAMPLES)).astype(int)]
    tiles, frame = [], TILE // 20
    for colour, picture in zip(COLOURS, chosen.stored, strict=False):
        images = np.repeat(picture[None].astype(np.float32), EXAMPLES, axis=0)
        seen = np.asarray(invariance.warp(images, TRANSFORMS[name].maps(shown), size=size)).round().astype(np.uint8)
        for tile in pixels.resized(seen, TILE):
            tile[:frame] = tile[-frame:] = tile[:, :frame] = tile[:, -frame:] = 255 * np.array(to_rgb(colour))
            tiles.append(tile)
    axes.imshow(pixels.mosaic(np.stack(tiles), EXAMPLES))
    axes.set_xticks((np.arange(EXAMPLES) + 0.5) * (TILE + pixels.TILE_GAP), [f"{amount:g}" for amount in shown])
    axes.set_yticks([])
    axes.set_title("examples", fontsize=canvas.SIZES["heading"])
    axes.set_xlabel(AXES[name], fontsize=canvas.SIZES["label"])
    axes.tick_params(length=0, labelsize=canvas.SIZES["label"])
    axes.spines[:].set_visible(False)
