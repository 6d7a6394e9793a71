"""The page of Figure 5: transformed pictures, the distances of their features, the probability of their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from experiments.pages.lettering import counted
from zfjax import pixels
from zfjax.analyses import invariance
from zfjax.analyses.invariance import TRANSFORMS, Chosen, Curves, label_probability
from zfjax.nets import Size

AXES = {"translation": "translation downwards (pixels)", "scale": "scale", "rotation": "rotation (degrees)"}
COLOURS, EXAMPLES = [f"C{n}" for n in range(10)], 5  # of the images drawn, the first ten; amounts of each shown
OWN = "the net's answer"  # what a class is that no set says
WIDTH, TILE = 1460, 80  # pixels: of the curves, of an example
LEGEND, SIGN = (5, 3), 110  # entries in a row of the legend, at most and at least; pixels of one beside its words


def draw(
    chosen: Chosen,
    measured: Mapping[str, Curves],
    *,
    amounts: Mapping[str, np.ndarray],
    layers: Sequence[str],
    size: Size,
) -> Figure:
    """The page: a row for each transform, with examples, distances on one scale, and the label's probability.

    The probability is left out where `measured` has none. `size` is that of the images.
    """
    has_classes = bool(chosen.names)
    num_plots = len(layers) + has_classes
    figure = Figure(figsize=(WIDTH / canvas.DPI, 10), dpi=canvas.DPI, layout="constrained")
    rows = figure.subplots(len(measured), 1 + num_plots, width_ratios=[1.15] + [1.0] * num_plots)
    relative = {name: invariance.relative(of) for name, of in measured.items()}
    highest = 1.04 * (max(of[layer].max() for of in relative.values() for layer in layers) or 1.0)
    for (name, of), (examples, *plots) in zip(measured.items(), rows, strict=True):
        _draw_examples(examples, chosen, name=name, amounts=amounts[name], size=size)
        panels = {f"{layer}: distance / length": (relative[name][layer], highest) for layer in layers}
        if (shares := label_probability(of, chosen.labels)) is not None:
            panels["probability of the label"] = (shares, 1.04)
        for plot, (title, (values, top)) in zip(plots, panels.items(), strict=True):
            for colour, line, words in zip(COLOURS, values, legend_words(chosen), strict=False):
                plot.plot(amounts[name], line, color=colour, linewidth=1.5, label=words)
            plot.set(xlim=amounts[name][[0, -1]], ylim=(0, top))
            plot.locator_params("x", nbins=4, steps=[1, 1.5, 2, 3, 5, 9, 10])
            plot.set_title(title, fontsize=canvas.SIZES["heading"])
            plot.set_xlabel(AXES[name], fontsize=canvas.SIZES["label"])
            plot.tick_params(labelsize=canvas.SIZES["label"])
            plot.grid(alpha=0.3)
    widest = max(lettering.text_width(words, "caption") for words in legend_words(chosen))
    columns = min(LEGEND[0], int(WIDTH / (widest + SIGN)))
    legend: dict[str, Any] = {"loc": "outside upper center", "ncols": columns, "fontsize": canvas.SIZES["caption"]}
    lettering.legend(figure, figure.axes[1].get_lines(), **legend)
    section = Section(counted(len(chosen.labels), "picture"), [Panel(canvas.pixels_of(figure))], 1)
    return canvas.page("Figure 5: invariance to translation, scale and rotation", [section], [caption(chosen)])


def legend_words(chosen: Chosen) -> list[str]:
    """What each of the drawn pictures is called, without folders if that tells them apart, and its class, shortened."""
    room = WIDTH / LEGEND[1] - SIGN
    marks = ["" if known else f" ({OWN})" for known in chosen.known] if chosen.names else [""] * len(chosen.pictures)
    files = [picture.rsplit("/", 1)[-1] for picture in chosen.pictures]
    pictures = files if len(set(files)) == len(files) else chosen.pictures
    named = zip(pictures, chosen.names or marks, marks, strict=True)
    return [entry_of(name, of, mark=mark, room=room) for name, of, mark in named][: len(COLOURS)]


def entry_of(picture: str, of_class: str, *, mark: str, room: float) -> str:
    """An entry of the legend: where it is too long, the longer of the two names is shortened first."""
    after = f": {of_class}{mark}" if of_class else ""
    if lettering.text_width(whole := lettering.plain(f"{picture}{after}"), "caption") <= room or not of_class:
        return lettering.fitted(whole, "caption", room)
    room -= lettering.text_width(f": {mark}", "caption")
    widths = [lettering.text_width(lettering.plain(name), "caption") for name in (picture, of_class)]
    own = [max(room / 2, room - other) for other in reversed(widths)]
    picture, of_class = (lettering.fitted(*of) for of in zip((picture, of_class), ("caption",) * 2, own, strict=True))
    return f"{picture}: {of_class}{mark}"


def caption(chosen: Chosen) -> str:
    """What the panels show."""
    label = (
        "the true class"
        if chosen.known.all()
        else f"the true class, or of {OWN} where that is not known"
        if chosen.known.any()
        else f"{OWN}, as the true class is not known"
    )
    shares = f"right, the probability of {label}. " if chosen.names else ""
    return (
        "Left: each picture at five amounts of the transform, in the colour of its curves. Then the Euclidean distance "
        "of a layer's features from those of the untransformed picture, over their length, on one scale for all layers "
        f"and transforms{'; ' if shares else '. '}{shares}What moves in from outside is the stored picture around the "
        "crop, and beyond that its mirror image."
    )


def _draw_examples(axes: Any, chosen: Chosen, *, name: str, amounts: np.ndarray, size: Size) -> None:
    drawn = amounts[np.ceil(np.linspace(0, len(amounts) - 1, EXAMPLES)).astype(int)]
    tiles, frame = [], TILE // 20
    for colour, picture in zip(COLOURS, chosen.stored, strict=False):
        images = np.repeat(picture[None].astype(np.float32), EXAMPLES, axis=0)
        warped = np.asarray(invariance.warp(images, TRANSFORMS[name].maps(drawn), size=size)).round().astype(np.uint8)
        for tile in pixels.resized(pixels.as_seen(warped), TILE):
            tile[:frame] = tile[-frame:] = tile[:, :frame] = tile[:, -frame:] = 255 * np.array(to_rgb(colour))
            tiles.append(tile)
    axes.imshow(pixels.mosaic(np.stack(tiles), EXAMPLES))
    step = tiles[0].shape[1] + pixels.TILE_GAP
    axes.set_xticks((np.arange(EXAMPLES) + 0.5) * step, [f"{amount:g}" for amount in drawn])
    axes.set_yticks([])
    axes.set_title("examples", fontsize=canvas.SIZES["heading"])
    axes.set_xlabel(AXES[name], fontsize=canvas.SIZES["label"])
    axes.tick_params(length=0, labelsize=canvas.SIZES["label"])
    axes.spines[:].set_visible(False)
