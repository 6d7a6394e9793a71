"""The page of Figure 7: five panels for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.pages import canvas
from experiments.pages.canvas import Panel, Section
from zfjax import pixels
from zfjax.analyses import occlusion
from zfjax.analyses.occlusion import Projected, Scenes, Swept
from zfjax.nets import Pictured

SIDE, BAR, LEGEND = 230, 72, 130  # pixels: a panel (at most), its colour bar, its legend


FRAME = 0.88  # light grey, along the image's frame, where no square's centre can stand


RED = (230, 30, 30)


OTHERS = (0.5, 0.5, 0.5)  # grey, of all classes beyond the nine that have colours of their own


LONGEST = 16  # letters of a class name in a legend


def describe(net: Pictured, drawn: Scenes, swept: Swept) -> list[dict[str, Any]]:
    """What result.json says of each image that is drawn."""
    found = []
    for n, (index, label) in enumerate(zip(drawn.indices, drawn.labels, strict=True)):
        probabilities = drawn.looks.probabilities[n]
        found.append(
            {
                "index": index,
                "class": net.class_words[label],
                "class_is_known": drawn.views.labels[n] >= 0,
                "predicted": net.class_words[probabilities.argmax()],
                "probability": probabilities[label],
                "lowest_probability": swept.probability[n].min(),
                "other_class": (swept.predicted[n] != label).mean(),  # share of the places
                "map": drawn.looks.channel[n],
                "lowest_activity": swept.activity[n].min(),
                "highest_activity": swept.activity[n].max(),
            }
        )
    return found


def draw(
    net: Pictured,
    drawn: Scenes,
    swept: Swept,
    projected: Sequence[Projected],
    corners: np.ndarray,
    result: Mapping[str, Any],
) -> Figure:
    """The page: a row of five panels for each image. `result` is what result.json will hold."""
    config = result["config"]
    colours = class_colours(swept.predicted)
    sections = []
    for n, facts in enumerate(result["images"]):
        outline = None if drawn.views.objects is None else drawn.views.objects[n]
        lowest = corners.reshape(-1, 2)[swept.probability[n].argmin()]
        frame = {"corners": corners, "square": config.square, "size": net.architecture.image_size}
        middle, name = occlusion.centers(lowest, config.square), short(facts["class"])
        over: dict[str, Any] = {"outline": outline, "cross": middle}
        activity, probability, predicted = (
            occlusion.on_image(field[n], **frame, outside=outside)
            for field, outside in zip(swept, (np.nan, np.nan, -1), strict=True)
        )
        panels = [
            Panel(square_panel(drawn, n, lowest, config), "(a) the square where (d) is lowest"),
            Panel(value_panel(activity, np.nanmax(activity), **over), f"(b) activity of map {facts['map']}"),
            Panel(projection_panel(projected[n].projections), f"(c) map {facts['map']}, projected"),
            Panel(value_panel(probability, 1.0, **over), f"(d) probability of {name}"),
            Panel(class_panel(predicted, colours, net.class_words), "(e) most probable class"),
        ]
        sections.append(Section(heading(facts), panels, len(panels)))
    title = f"Figure 7: what a square of {config.square} pixels, sliding over the image, does to the net's answer"
    return canvas.page(title, sections, caption(result))


def heading(facts: Mapping[str, Any]) -> str:
    """One line about an image: an entry of `describe`."""
    who = short(facts["class"])
    if not facts["class_is_known"]:
        who = f"class unknown, most probable: {who}"
    elif facts["predicted"] != facts["class"]:
        who = f"{who}, taken for {short(facts['predicted'])}"
    return (
        f"Image {facts['index']}, {who}: probability {facts['probability']:.2f}, at least "
        f"{facts['lowest_probability']:.2f} with the square; another class wins at {facts['other_class']:.0%} of places"
    )


def caption(result: Mapping[str, Any]) -> list[str]:
    """What the panels show, and how often the largest drop lies on the object."""
    config, (rows, columns) = result["config"], result["places"]
    shows = {"mean": "the mean image", "grey": "mid-grey", "blur": "the image itself, blurred"}[config.fill]
    paragraphs = [
        f"One forward pass for each of {rows} x {columns} places of the square, {config.stride} pixels apart, which "
        f"shows {shows}. A value is drawn at the square's centre; light grey: none can stand there. Cross: where (d) "
        "is lowest. White line: the object's outline, where the set knows it.",
        f"(b) Sum over the map of {config.layer} that holds the strongest activation of the image without a square. "
        "(c) Its strongest activation projected to the pixels, here (framed) and in the validation images that excite "
        "the map most; one scale for all of them, zero is mid-grey. (b) has a scale for each image, (d) one for all.",
    ]
    if (found := result["score"]) is not None:
        ours, gradient = found["occlusion"], found["gradient"]
        paragraphs.append(
            f"In {found['num_images']} images the largest drop lies on the object in {ours['object']:.0%} "
            f"(± {ours['standard_error']:.0%}), the largest |gradient|, summed over the same squares, in "
            f"{gradient['object']:.0%} (± {gradient['standard_error']:.0%}). By chance: the object covers "
            f"{found['area']:.0%} of the pixels, and another image's object holds the point in "
            f"{ours['other_object']:.0%} and {gradient['other_object']:.0%}."
        )
    return [*paragraphs, canvas.SWITCHES_NOTE]


def fill_of(scenes: Scenes, n: int, config: Any) -> np.ndarray:
    """What the square shows in image `n`: float32 [s, s, 3], network pixels."""
    image = scenes.views.images[n]
    return occlusion.FILLS[config.fill](image, scenes.views.pictures[n] - image, config.square)


def square_panel(drawn: Scenes, n: int, corner: np.ndarray, config: Any) -> np.ndarray:
    """(a) The image with the square at `corner`, its edge in red. -> uint8 [side, side, 3]"""
    image, square, fill = drawn.views.images[n], config.square, fill_of(drawn, n, config)
    mean = drawn.views.pictures[n] - image
    hidden = np.asarray(occlusion.occlude(image, corner[None], square=square, fill=fill))[0] + mean
    panel = pixels.resized(np.clip(hidden.round(), 0, 255).astype(np.uint8)[None], SIDE)[0]
    scale = len(panel) / len(image)
    top, left, bottom, right = (round(edge * scale) for edge in (*corner, *(corner + square)))
    inner = panel[top + 2 : bottom - 2, left + 2 : right - 2].copy()
    panel[top:bottom, left:right] = RED
    panel[top + 2 : bottom - 2, left + 2 : right - 2] = inner
    return panel


def value_panel(values: np.ndarray, highest: float, *, outline: np.ndarray | None, cross: np.ndarray) -> np.ndarray:
    """(b), (d) Values [s, s], NaN along the frame, from 0 to `highest`, with a bar. -> uint8 [side, side + BAR, 3]"""
    size = len(values)
    axes, beside = _canvas(size, BAR)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=(FRAME,) * 3)
    drawn = axes.imshow(values, cmap=colours, vmin=0, vmax=highest or 1, extent=(0, size, size, 0))
    if outline is not None and outline.any() and not outline.all():
        line = np.arange(size) + 0.5
        axes.contour(line, line, outline, levels=[0.5], colors="white", linewidths=1)
    axes.plot(cross[1] + 0.5, cross[0] + 0.5, "x", color=np.array(RED) / 255, markersize=9, markeredgewidth=2)
    scale = beside.inset_axes((8 / BAR, 0.04, 10 / BAR, 0.92))
    axes.figure.colorbar(drawn, cax=scale).ax.tick_params(labelsize=canvas.SIZES["label"] - 1)
    return canvas.pixels_of(cast(Figure, axes.figure))


def projection_panel(projections: np.ndarray) -> np.ndarray:
    """(c) Projections [M, s, s, 3] two by two on one scale, the first in a black frame. -> uint8 [H, W, 3]"""
    side = (panel_side(projections.shape[1]) - pixels.TILE_GAP) // 2
    tiles = pixels.resized(pixels.signed_pictures(projections, pixels.symmetric_scale(projections)), side)
    for edge in (np.s_[:3], np.s_[-3:], np.s_[:, :3], np.s_[:, -3:]):
        tiles[0][edge] = 0
    return pixels.mosaic(tiles, columns=2)


def class_panel(predicted: np.ndarray, colours: Mapping[int, tuple[float, ...]], names: Sequence[str]) -> np.ndarray:
    """(e) Classes [s, s], -1 along the frame, with those of this image named. -> uint8 [side, side + LEGEND, 3]"""
    axes, beside = _canvas(len(predicted), LEGEND)
    shown = np.full((*predicted.shape, 3), FRAME)
    entries = {}  # words of the legend -> colour, in the order of the classes' areas
    for label in by_area(predicted[predicted >= 0]):
        shown[predicted == label] = colours[label]
        entries[short(names[label]) if colours[label] != OTHERS else "others"] = colours[label]
    axes.imshow(shown)
    for row, (words, colour) in enumerate(entries.items()):
        beside.add_patch(Rectangle((8, 8 + 22 * row), 12, 12, color=colour))
        beside.text(26, 14 + 22 * row, words, va="center", size=canvas.SIZES["label"], parse_math=False)
    return canvas.pixels_of(cast(Figure, axes.figure))


def class_colours(predicted: jax.Array | np.ndarray) -> dict[int, tuple[float, ...]]:
    """A colour for each class that wins anywhere, for all images alike; the rarest share a grey."""
    tab10: Any = matplotlib.colormaps["tab10"]  # one of listed colours
    wheel = [colour for n, colour in enumerate(tab10.colors) if n != 7]  # 7 is grey
    return {label: wheel[n] if n < len(wheel) else OTHERS for n, label in enumerate(by_area(predicted))}


def by_area(classes: jax.Array | np.ndarray) -> list[int]:
    """The classes that occur, the most frequent first."""
    found, counts = np.unique(classes, return_counts=True)
    return found[np.argsort(-counts, kind="stable")].tolist()


def short(name: str) -> str:
    """A class's name, cut to what a legend holds."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def panel_side(size: int) -> int:
    """Pixels of a panel's side for an image of `size`: what `pictures.resized` gives."""
    return SIDE // size * size if 3 * size <= SIDE else SIDE


def _canvas(size: int, beside: int) -> tuple[Axes, Axes]:
    """Bare axes over a panel, in pixels of the image, and over the `beside` pixels right of it, in pixels."""
    side = panel_side(size)
    width = side + beside
    figure = Figure(figsize=(width / canvas.DPI, side / canvas.DPI), dpi=canvas.DPI, facecolor="white")
    panel, right = (figure.add_axes(box) for box in ((0, 0, side / width, 1), (side / width, 0, beside / width, 1)))
    right.set(xlim=(0, beside), ylim=(side, 0))
    for axes in (panel, right):
        axes.set_axis_off()
    return panel, right
