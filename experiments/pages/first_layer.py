"""The pages of Figure 6: first-layer filters and second-layer projections side by side, and their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from experiments.pages.deconv import PAGE
from experiments.pages.lettering import counted
from zfjax import pixels
from zfjax.analyses import filters
from zfjax.analyses.filters import Bottom
from zfjax.analyses.strongest import OUTSIDE, Strongest
from zfjax.nets import Size, size_of
from zfjax.training import filter_rms

HALF = (PAGE - canvas.GAP) // 2  # pixels, the width of a panel
MAPS_PER_ROW = 3
MISSING = {"unclipped": "the net without renormalisation", "alexnet": "AlexNet"}
COLOURS = {"clipped": "C0", "unclipped": "C3", "alexnet": "C1"}


def filters_page(bottoms: Mapping[str, Bottom], result: Mapping[str, Any]) -> Figure:
    """The panels of Fig. 6 for the nets that are there.

    Args:
      bottoms: by role, "clipped" for the net itself, and "unclipped" and "alexnet" beside it.
      result: "nets" with the numbers of each, "num_images", "missing", "renormalisation_acted", "not_applicable".
    """
    layers, apart = bottoms["clipped"].layers, "renormalisation" in result["not_applicable"]
    Draw = Callable[[str, Bottom, Mapping[str, Any]], Panel]
    rows: list[tuple[str, Draw, dict[str, str]]] = [
        (
            f"{layers[0]}: how strong its filters are",
            strength_panel,
            {
                "unclipped": "(a) {name} without renormalisation",
                "clipped": "(b) {name}" if apart else "(b) {name} with renormalisation",
            },
        ),
        (f"{layers[0]}: what its filters look like", look_panel, {"alexnet": "(c) {name}", "clipped": "(d) {name}"}),
    ]
    if len(layers) > 1:
        heading = f"{layers[1]}: nine strongest activations of each map, projected"
        rows.append((heading, second_layer_panel, {"alexnet": "(e) {name}", "clipped": "(f) {name}"}))
    sections = []
    for heading, draw, titles in rows:
        there = [
            role for role in titles if role in bottoms and (draw is not second_layer_panel or bottoms[role].second)
        ]
        panels = [
            draw(titles[role].format(name=bottoms[role].title), bottoms[role], result["nets"][role]) for role in there
        ]
        sections.append(Section(heading, panels, 2))
    title = "Figure 6: the first layer's filters, and what their stride leaves for the second"
    return canvas.page(title, sections, caption(result))


def strength_panel(title: str, bottom: Bottom, facts: Mapping[str, Any]) -> Panel:
    """The filters on the scale of the largest weight: how far one dominates."""
    scale, ratio = float(np.abs(bottom.kernel).max()), facts["dominance"]["largest_over_median"]
    return Panel(
        filter_sheet(bottom.kernel, scale),
        f"{title}: strongest {lettering.two_digits(ratio)} x median; white = +{lettering.two_digits(scale)}",
    )


def look_panel(title: str, bottom: Bottom, facts: Mapping[str, Any]) -> Panel:
    """The filters on the scale of the median one: what they look like, and which are dead."""
    scale = float(np.median(np.abs(bottom.kernel).max(axis=(0, 1, 2))))
    return Panel(
        filter_sheet(bottom.kernel, scale), f"{title}: {summary_line(facts)}; white = +{lettering.two_digits(scale)}"
    )


def second_layer_panel(title: str, bottom: Bottom, facts: Mapping[str, Any]) -> Panel:
    """What excites maps of layer 2 most, projected."""
    assert bottom.second is not None
    share = facts.get("aliased_energy")
    aliased = "" if share is None else f": {share:.0%} of the energy of layer 1's filters is too fine for their grid"
    return Panel(projection_sheet(bottom.second), f"{title}{aliased}")


def caption(result: Mapping[str, Any]) -> list[str]:
    """How panels are scaled, what the numbers mean, and what is left out."""
    notes = [f"Left out: {MISSING[role]}; result.json holds the command that trains it." for role in result["missing"]]
    num = result["num_images"]
    if result["renormalisation_acted"] is False:
        notes.append("In (a) no filter ends above the radius: what renormalisation does to these filters is not shown.")
    second = "the second layer" not in result["not_applicable"]
    projections = (
        f"(e), (f): for each map the {min(9, num)} of {counted(num, 'validation image')} "
        "that excite it most, on one scale, the 99.5th percentile of its |values|; light grey where there is none. "
    )
    return [
        "Zero is mid-grey. (a), (b): white is the panel's largest weight, so a filter that dominates leaves the others "
        "grey. (c), (d): white is the largest weight of the median filter, so what is grey is dead; stronger filters "
        "are cut off. Dead: an RMS below a twentieth of the median filter's.",
        f"{projections if second else ''}Too "
        "fine: beyond 1 / (2 stride) cycles per pixel, where the grid takes it for something coarser (aliasing), so "
        "that it comes back as blocks and repeated dots.",
        *([canvas.SWITCHES_NOTE, *lettering.grey_projections(result["nets"]["clipped"]["channels"])] if second else []),
        *(channels_note(result["nets"]["clipped"]["channels"])),
        *notes,
        *lettering.left_out(result["not_applicable"]),
    ]


def channels_note(channels: int) -> list[str]:
    """How filters of other channels than those of colours are drawn."""
    if channels in (1, 3):
        return ["The images have one channel: filters are drawn in grey."] if channels == 1 else []
    return [
        f"The images have {channels} channels: a filter is drawn as {channels} tiles in grey, one a channel, in rows."
    ]


def summary_line(facts: Mapping[str, Any]) -> str:
    """The filters of one net: their size, how many are dead, how many lie at middle frequencies."""
    (height, width), middle = size_of(facts["size"]), facts["band_peaks"]["middle"]
    dead = f"{facts['dead_by_weight']['count']} of {facts['num_filters']} dead"
    stride = "" if facts["stride"] is None else f", stride {_stride_words(facts['stride'])}"
    return f"{height}x{width}{stride}; {dead}; {middle:.0%} peak at middle frequencies"


def _stride_words(stride: Size) -> str:
    """The stride in words: "2", or "2 down, 3 across" where they differ."""
    down, across = size_of(stride)
    return f"{down}" if down == across else f"{down} down, {across} across"


def filter_sheet(kernel: np.ndarray, scale: float) -> np.ndarray:
    """Filters [h, w, C, N], all with `scale` as white, in a sheet HALF wide. -> uint8

    Three channels are colours, one is grey; of any other number each is a grey tile of its filter's block.
    """
    height, width, channels, num = kernel.shape
    apart = 1 if channels in (1, 3) else math.ceil(channels**0.5)  # tiles in a row of a filter's block
    columns = max(1, min(num, int(np.ceil(np.sqrt(8 / 3 * num)))))  # 96 filters: 6 rows of 16
    gap = pixels.TILE_GAP if apart == 1 else 3 * pixels.TILE_GAP
    side = max(1, ((HALF + gap) // columns - gap - (apart - 1)) // apart)
    if apart == 1:
        blocks = pixels.resized(pixels.signed_pictures(np.moveaxis(kernel, -1, 0), scale), side)
    else:
        each = kernel.transpose(3, 2, 0, 1).reshape(num * channels, height, width, 1)
        tiles = pixels.resized(pixels.signed_pictures(each, scale), side)
        blocks = np.stack([pixels.mosaic(of, apart, 1) for of in tiles.reshape(num, channels, *tiles.shape[1:])])
    return _widened(pixels.mosaic(blocks, columns, gap))


def projection_sheet(strongest: Strongest) -> np.ndarray:
    """The nine projections of each map, three by three, on the map's scale, in a sheet HALF wide. -> uint8"""
    gap = 4 * pixels.TILE_GAP
    side = ((HALF + gap) // MAPS_PER_ROW - gap + pixels.TILE_GAP) // 3 - pixels.TILE_GAP
    blocks = []
    for of_map, images, scale in zip(strongest.projections, strongest.images, strongest.scales, strict=True):
        tiles = pixels.resized(pixels.signed_pictures(of_map, scale), side)
        tiles[images < 0] = OUTSIDE
        blocks.append(pixels.mosaic(tiles, columns=3))
    return _widened(pixels.mosaic(np.stack(blocks), MAPS_PER_ROW, gap))


def _widened(sheet: np.ndarray) -> np.ndarray:
    """White at the right up to HALF, so that the panels below each other align."""
    return np.pad(sheet, ((0, 0), (0, max(0, HALF - sheet.shape[1])), (0, 0)), constant_values=255)


def numbers_figure(bottoms: Mapping[str, Bottom], result: Mapping[str, Any]) -> Figure:
    """Strength of the filters, and their frequencies beside what each grid can tell apart."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    strength, spectrum = figure.subplots(1, 2)
    for role, one in bottoms.items():
        label = f"{one.title}, without renormalisation" if role == "unclipped" else one.title
        rms = np.sort(np.asarray(filter_rms(one.kernel)))[::-1]
        style = {"color": COLOURS[role], "label": label, "linestyle": "--" if role == "unclipped" else "-"}
        strength.plot(np.linspace(0, 100, len(rms)), rms / np.median(rms), **style)
        if role != "unclipped":
            of_filters = filters.radial_spectrum(one.kernel[..., ~filters.weak(one.kernel)])
            centres = of_filters.frequencies + of_filters.frequencies[1] / 2
            spectrum.plot(centres, 100 * of_filters.energy.mean(axis=0), COLOURS[role], label=label)
            if (stride := result["nets"][role]["stride"]) is not None:
                dashed = {"color": COLOURS[role], "linestyle": "--", "linewidth": 1}
                spectrum.axvline(1 / (2 * max(size_of(stride))), **dashed, label=f"1 / (2 stride), {one.title}")
    strength.axhline(filters.DEAD, color="0.4", linestyle=":", linewidth=1, label="dead below")
    strength.set_yscale("log")
    strength.set_xlabel("filters, strongest first (%)")
    spectrum.set_xlabel("cycles per pixel")
    spectrum.set_xlim(0, 0.6)
    spectrum.set_ylim(bottom=0)
    for axes, title in ((strength, "RMS of the filters / median"), (spectrum, "Energy of layer 1's filters (%)")):
        axes.set_title(title, fontsize=11)
        axes.grid(alpha=0.3)
        lettering.legend(axes, axes.get_lines(), fontsize=8)
    return figure
