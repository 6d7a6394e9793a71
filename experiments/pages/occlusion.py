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

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from experiments.pages.lettering import counted
from zfjax import pixels
from zfjax.analyses import occlusion
from zfjax.analyses.occlusion import Projected, Swept
from zfjax.nets import Size, Views, size_of

SIDE, BAR, LEGEND = 230, 72, 130  # pixels: a panel (at most), its colour bar, its legend
FRAME = 0.88  # light grey, along the image's frame, where no square's centre can stand
RED = (230, 30, 30)
OTHERS = (0.5, 0.5, 0.5)  # grey, of all classes beyond the nine that have colours of their own
NAME = 200  # pixels of a class in a heading
HALF_LINE = 8  # pixels, of a number beside a bar
LINE = 22  # pixels, an entry of the legend


def draw(
    views: Views,
    swept: Swept,
    *,
    fills: np.ndarray,
    projected: Sequence[Projected] | None,
    corners: np.ndarray,
    class_names: Sequence[str],
    result: Mapping[str, Any],
) -> Figure:
    """The page: a row of panels for each image: five, without (d) and (e) of a network without classes.

    Args:
      views: the images that are drawn.
      fills: uint8 [N, H, W, 3], what the square shows in each.
      swept, projected, corners: from `occlusion.sweep_all`, `project_maps` and `places`; None: (c) is not drawn.
      class_names: of the logits.
      result: what result.json will hold: "images", "places", "square", "stride", "layer", "fill", "score".
    """
    square = result["square"]
    colours = {} if swept.predicted is None else class_colours(swept.predicted)
    sections = []
    for n, facts in enumerate(result["images"]):
        harmed, size = occlusion.harmed(swept)[n], views.pictures.shape[1:3]
        corner = corners.reshape(-1, 2)[harmed.argmin()]
        frame: dict[str, Any] = {"corners": corners, "square": square, "size": size}
        outline = None if views.objects is None else views.objects[n]
        over: dict[str, Any] = {"outline": outline, "cross": occlusion.centers(corner, square)}
        activity = occlusion.on_image(swept.activity[n], **frame, outside=np.nan)
        lowest = "(a) square where (d) is lowest" if colours else "(a) square where (b) is lowest"
        panels = [
            Panel(square_panel(views.pictures[n], fills[n], corner=corner, square=square), lowest),
            Panel(value_panel(activity, np.nanmax(activity), **over), f"(b) activity of {facts['unit']}"),
        ]
        if projected is not None:
            panels.append(Panel(projection_panel(projected[n].projections), f"(c) {facts['unit']}, projected"))
        if swept.probability is not None and swept.predicted is not None:
            probability = occlusion.on_image(swept.probability[n], **frame, outside=np.nan)
            predicted = occlusion.on_image(swept.predicted[n], **frame, outside=-1)
            panels += [
                Panel(value_panel(probability, 1.0, **over), f"(d) probability of {facts['class']}"),
                Panel(class_panel(predicted, colours, class_names), "(e) most probable class"),
            ]
        sections.append(Section(heading(facts), panels, len(panels)))
    title = f"Figure 7: what a square of {counted(square, 'pixel')}, sliding over the image, does to the net's answer"
    words = caption(result, has_classes=bool(colours), has_projections=projected is not None)
    words += [] if projected is None else lettering.grey_projections(projected[0].projections.shape[-1])
    return canvas.page(title, sections, words)


def heading(facts: Mapping[str, Any]) -> str:
    """One line about an image: an entry of the result's "images"."""
    if facts["class"] is None:
        return (
            f"Image {facts['image']}: activity of {facts['unit']} {facts['highest_activity']:.3g} at most with the "
            f"square, {facts['lowest_activity']:.3g} at least"
        )
    who = short(facts["class"])
    if not facts["class_is_known"]:
        who = f"class unknown, most probable: {who}"
    elif facts["predicted"] != facts["class"]:
        who = f"{who}, taken for {short(facts['predicted'])}"
    share = facts["other_class"]
    others = f"another class wins at {lettering.percent(share)} of places" if share else "no other class wins anywhere"
    return (
        f"Image {facts['image']}, {who}: probability {facts['probability']:.2f}, with the square "
        f"{facts['lowest_probability']:.2f} at its lowest; {others}"
    )


def caption(result: Mapping[str, Any], *, has_classes: bool = True, has_projections: bool = True) -> list[str]:
    """What the panels show, and how often the largest drop lies on the object."""
    rows, columns = result["places"]
    projections = (
        "(c) Its strongest activation projected to the pixels, here (framed) and in the validation images that excite "
        "the map most; one scale for all of them, zero is mid-grey. "
    )
    cross = "(d)" if has_classes else "(b)"
    scales = "(b) has a scale for each image, (d) one for all." if has_classes else "(b) has a scale for each image."
    apart = counted(result["stride"], "pixel")
    paragraphs = [
        f"One forward pass for each of {rows} x {columns} places of the square, {apart} apart, which "
        f"shows {result['fill']}. A value is drawn at the square's centre; light grey: none can stand there. "
        f"Cross: where {cross} is lowest. White line: the object's outline, where the set knows it.",
        f"(b) Sum over the map of {result['layer']} that holds the strongest activation of the image without a square. "
        f"{projections if has_projections else ''}{scales}",
        *lettering.left_out(result["not_applicable"]),
    ]
    if (score := result["score"]) is not None:
        ours, gradient = score["occlusion"], score["gradient"]
        paragraphs.append(
            f"In {counted(score['num_images'], 'image')} the largest drop lies on the object in {ours['object']:.0%} "
            f"({_interval(ours)}), the largest |gradient|, summed over the same squares, in "
            f"{gradient['object']:.0%} ({_interval(gradient)}; 95 % intervals). By chance: the object covers "
            f"{score['area']:.0%} of the pixels, and another image's object holds the point in "
            f"{ours['other_object']:.0%} and {gradient['other_object']:.0%}."
        )
    return [*paragraphs, *([canvas.SWITCHES_NOTE] if has_projections else [])]


def _interval(of: Mapping[str, Any]) -> str:
    low, high = of["interval"]
    return f"{low:.0%} to {high:.0%}"


def square_panel(picture: np.ndarray, fill: np.ndarray, *, corner: np.ndarray, square: int) -> np.ndarray:
    """(a) The picture with `fill` in the square at `corner`, its edge in red. uint8 [H, W, 3] -> [h, w, 3] enlarged"""
    hidden, (first, last) = picture.copy(), (corner, corner + square)
    hidden[first[0] : last[0], first[1] : last[1]] = fill[first[0] : last[0], first[1] : last[1]]
    panel: np.ndarray = pixels.resized(hidden[None], SIDE)[0]
    scale = np.array(panel.shape[:2]) / picture.shape[:2]
    top, left, bottom, right = (round(edge) for edge in (*(first * scale), *(last * scale)))
    inner = panel[top + 2 : bottom - 2, left + 2 : right - 2].copy()
    panel[top:bottom, left:right] = RED
    panel[top + 2 : bottom - 2, left + 2 : right - 2] = inner
    return panel


def value_panel(values: np.ndarray, highest: float, *, outline: np.ndarray | None, cross: np.ndarray) -> np.ndarray:
    """(b), (d) Values [H, W], NaN along the frame, from 0 to `highest`, with a bar. -> uint8 [h, w + BAR, 3]"""
    height, width = values.shape
    axes, beside = _canvas((height, width), BAR)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=(FRAME,) * 3)
    drawn = axes.imshow(values, cmap=colours, vmin=0, vmax=highest or 1, extent=(0, width, height, 0))
    if outline is not None and outline.any() and not outline.all():
        axes.contour(
            np.arange(width) + 0.5, np.arange(height) + 0.5, outline, levels=[0.5], colors="white", linewidths=1
        )
    axes.plot(cross[1] + 0.5, cross[0] + 0.5, "x", color=np.array(RED) / 255, markersize=9, markeredgewidth=2)
    free = max(0.04, HALF_LINE / panel_size((height, width))[0])  # for the upper half of the highest number
    scale = beside.inset_axes((8 / BAR, free, 10 / BAR, 1 - 2 * free))
    axes.figure.colorbar(drawn, cax=scale).ax.tick_params(labelsize=canvas.SIZES["label"] - 1)
    return canvas.pixels_of(cast(Figure, axes.figure))


def projection_panel(projections: np.ndarray) -> np.ndarray:
    """(c) Projections [M, H, W, C] two by two on one scale, the first in a black frame. -> uint8 [h, w, 3]"""
    side = (max(panel_size(projections.shape[1:3])) - pixels.TILE_GAP) // 2
    tiles = pixels.resized(pixels.signed_pictures(projections, pixels.symmetric_scale(projections)), side)
    for edge in (np.s_[:3], np.s_[-3:], np.s_[:, :3], np.s_[:, -3:]):
        tiles[0][edge] = 0
    return pixels.mosaic(tiles, columns=2)


def class_panel(predicted: np.ndarray, colours: Mapping[int, tuple[float, ...]], names: Sequence[str]) -> np.ndarray:
    """(e) Classes [H, W], -1 along the frame, with those of this image named. -> uint8 [h, w + LEGEND, 3]"""
    axes, beside = _canvas(predicted.shape, LEGEND)
    coloured = np.full((*predicted.shape, 3), FRAME)
    entries: dict[tuple[float, ...], str] = {}  # colour -> words of the legend, in the order of the classes' areas
    for label in by_area(predicted[predicted >= 0]):
        coloured[predicted == label] = colours[label]
        entries[colours[label]] = names[label] if colours[label] != OTHERS else "others"
    axes.imshow(coloured)
    room = (panel_size(predicted.shape)[0] - 8) // LINE
    if len(entries) > room:
        kept = dict(list(entries.items())[: room - 1])
        entries = {**kept, (1.0, 1.0, 1.0): f"and {len(entries) - len(kept)} more"}
    for row, (colour, words) in enumerate(entries.items()):
        beside.add_patch(Rectangle((8, 8 + LINE * row), 12, 12, color=colour))
        words = lettering.fitted(words, "label", LEGEND - 30)
        beside.text(26, 14 + LINE * row, words, va="center", size=canvas.SIZES["label"], parse_math=False)
    return canvas.pixels_of(cast(Figure, axes.figure))


def class_colours(predicted: jax.Array | np.ndarray) -> dict[int, tuple[float, ...]]:
    """A colour for each class that wins anywhere, for all images alike; the rarest share a grey."""
    tab10: Any = matplotlib.colormaps["tab10"]  # one of listed colours
    wheel = [colour for n, colour in enumerate(tab10.colors) if n != 7]  # 7 is grey
    return {label: wheel[n] if n < len(wheel) else OTHERS for n, label in enumerate(by_area(predicted))}


def by_area(classes: jax.Array | np.ndarray) -> list[int]:
    """The classes that occur, the most frequent first."""
    occurring, counts = np.unique(classes, return_counts=True)
    labels: list[int] = occurring[np.argsort(-counts, kind="stable")].tolist()
    return labels


def short(name: str) -> str:
    """A class's name, shortened to what a heading holds."""
    return lettering.fitted(name, "heading", NAME)


def panel_size(size: Size) -> tuple[int, int]:
    """(height, width) of a panel for an image of `size`, pixels: what `pixels.resized` gives."""
    height, width = pixels.resized(np.zeros((1, *size_of(size), 3), np.uint8), SIDE).shape[1:3]
    return height, width


def _canvas(size: tuple[int, ...], beside: int) -> tuple[Axes, Axes]:
    """Bare axes over a panel, in pixels of the image, and over the `beside` pixels right of it, in pixels."""
    height, side = panel_size((size[0], size[1]))
    width = side + beside
    figure = Figure(figsize=(width / canvas.DPI, height / canvas.DPI), dpi=canvas.DPI, facecolor="white")
    panel, right = (figure.add_axes(box) for box in ((0, 0, side / width, 1), (side / width, 0, beside / width, 1)))
    right.set(xlim=(0, beside), ylim=(height, 0))
    for axes in (panel, right):
        axes.set_axis_off()
    return panel, right
