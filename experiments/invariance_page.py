"""The page of Figure 5: transformed pictures, the distances of their features, the probability of their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments import pictures
from experiments.pictures import Panel, Section
from zfjax import invariance
from zfjax.invariance import TRANSFORMS, Curves

AXES = {"translation": "translation downwards (pixels)", "scale": "scale", "rotation": "rotation (degrees)"}
COLOURS, EXAMPLES = [f"C{n}" for n in range(10)], 5  # of the images drawn, the first ten; amounts of each shown
WIDTH, TILE = 1460, 80  # pixels: of the curves, of an example


class Chosen(NamedTuple):
    """The N pictures looked at."""

    indices: np.ndarray  # int [N] in the validation split, ascending
    stored: np.ndarray  # uint8 [N, S, S, 3]
    labels: np.ndarray  # int [N] the true class; the most probable one where the set does not say
    known: np.ndarray  # bool [N] the set says the class
    right: np.ndarray  # bool [N] the label is the most probable class
    names: tuple[str, ...]  # [N] of the classes


def draw(
    chosen: Chosen, amounts: Mapping[str, np.ndarray], found: Mapping[str, Curves], layers: Sequence[str], size: int
) -> Figure:
    """The page: a row for each transform, with examples, distances on one scale, and the label's probability."""
    figure = Figure(figsize=(WIDTH / pictures.DPI, 10), dpi=pictures.DPI, layout="constrained")
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
            plot.set_title(title, fontsize=pictures.SIZES["heading"])
            plot.set_xlabel(AXES[name], fontsize=pictures.SIZES["label"])
            plot.tick_params(labelsize=pictures.SIZES["label"])
            plot.grid(alpha=0.3)
    legend: dict[str, Any] = {"loc": "outside upper center", "ncols": 5, "fontsize": pictures.SIZES["caption"]}
    figure.legend(figure.axes[1].get_lines(), chosen.names[: len(COLOURS)], **legend)
    label = "true class" if chosen.known.all() else "true class, or of the most probable one where it is not known"
    caption = (
        "Left: each picture at five amounts of the transform, in the colour of its curves. Then the Euclidean distance "
        "of a layer's features from those of the untransformed picture, over their length, on one scale for all layers "
        f"and transforms; right, the probability of the {label}. What moves in from outside is the stored picture "
        "around the crop, and beyond that its mirror image."
    )
    section = Section(f"{len(chosen.labels)} pictures", [Panel(pictures.pixels_of(figure))], 1)
    return pictures.page("Figure 5: invariance to translation, scale and rotation", [section], [caption])


def label_probability(found: Curves, labels: np.ndarray) -> np.ndarray:
    """The probability of each picture's label at each amount. -> float32 [N, A]"""
    assert found.probabilities is not None  # `curves` was told which layer is the logits
    return found.probabilities[np.arange(len(labels)), :, labels]


def _draw_examples(axes: Any, chosen: Chosen, name: str, amounts: np.ndarray, size: int) -> None:
    shown = amounts[np.ceil(np.linspace(0, len(amounts) - 1, EXAMPLES)).astype(int)]
    tiles, frame = [], TILE // 20
    for colour, picture in zip(COLOURS, chosen.stored, strict=False):
        images = np.repeat(picture[None].astype(np.float32), EXAMPLES, axis=0)
        seen = np.asarray(invariance.warp(images, TRANSFORMS[name].maps(shown), size=size)).round().astype(np.uint8)
        for tile in pictures.resized(seen, TILE):
            tile[:frame] = tile[-frame:] = tile[:, :frame] = tile[:, -frame:] = 255 * np.array(to_rgb(colour))
            tiles.append(tile)
    axes.imshow(pictures.mosaic(np.stack(tiles), EXAMPLES))
    axes.set_xticks((np.arange(EXAMPLES) + 0.5) * (TILE + pictures.TILE_GAP), [f"{amount:g}" for amount in shown])
    axes.set_yticks([])
    axes.set_title("examples", fontsize=pictures.SIZES["heading"])
    axes.set_xlabel(AXES[name], fontsize=pictures.SIZES["label"])
    axes.tick_params(length=0, labelsize=pictures.SIZES["label"])
    axes.spines[:].set_visible(False)
