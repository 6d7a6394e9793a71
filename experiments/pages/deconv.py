"""The pages of Figure 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas
from experiments.pages.canvas import Panel, Section
from zfjax import pixels
from zfjax.analyses.strongest import Strongest
from zfjax.architecture import Architecture
from zfjax.network import Params

PAGE = 1500  # pixels, the width that the maps of a page fill


FILTER_SIDE, FILTERS_PER_ROW = 42, 24  # layer 1's filters: pixels, number


OVERVIEW_MAPS = 4  # maps of each layer on the overview


def layer_page(
    params: Params, architecture: Architecture, layer: str, seen: Strongest, facts: Mapping[str, Any]
) -> Figure:
    """One layer's page: its maps, and in the first layer its filters above them. `facts`: see `summary_line`."""
    columns = 4 if len(seen.maps) > 12 else 3
    sections = [Section(summary_line(layer, facts), map_panels(seen, columns), columns)]
    if layer == architecture.layer_names[0]:
        sections.insert(0, filter_section(params, layer))
    title = f"Figure 2, {layer}: the nine images that excite a map most, projected to the pixels"
    return canvas.page(title, sections, caption(facts["num_images"]))


def overview_page(
    params: Params, architecture: Architecture, drawn: Mapping[str, Strongest], facts: Mapping[str, Any]
) -> Figure:
    """One page with the first layer's filters and the first maps of every layer. `facts` by layer."""
    sections = [filter_section(params, architecture.layer_names[0])]
    for layer, seen in drawn.items():
        some = Strongest._make(field if field is None else field[:OVERVIEW_MAPS] for field in seen)
        sections.append(Section(summary_line(layer, facts[layer]), map_panels(some, OVERVIEW_MAPS), OVERVIEW_MAPS))
    title = "Figure 2: the nine images that excite a map most, projected to the pixels"
    return canvas.page(title, sections, caption(next(iter(facts.values()))["num_images"]))


def map_panels(seen: Strongest, columns: int, words: Sequence[str] = ()) -> list[Panel]:
    """For each map its projections, three by three, beside the patches; `columns` maps fill the page's width.

    `words` are what the layer's maps are called, where they have names.
    """
    width = (PAGE - (columns - 1) * canvas.GAP) // columns
    side = (width // 2 - 4 * pixels.TILE_GAP) // 3
    panels = []
    for number, scale, projections, patches in zip(seen.maps, seen.scales, seen.projections, seen.patches, strict=True):
        tiles = [pixels.resized(pixels.signed_pictures(projections, scale), side), pixels.resized(patches, side)]
        sheet = pixels.side_by_side(*(pixels.mosaic(pair, columns=3) for pair in tiles))
        sheet = np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255)  # columns align
        name = f"map {number}, {words[number]}" if words else f"map {number}"
        panels.append(Panel(sheet, f"{name}   white = +{scale:.2g}"))
    return panels


def filter_section(params: Params, layer: str) -> Section:
    """Layer 1's filters, all on one scale."""
    kernel = np.asarray(params[layer]["kernel"], np.float32)
    tiles, scale = pixels.filter_pictures(kernel)
    sheet = pixels.mosaic(pixels.resized(tiles, FILTER_SIDE), columns=min(FILTERS_PER_ROW, len(tiles)))
    size = f"{kernel.shape[0]}x{kernel.shape[1]}"
    return Section(f"{layer}: its {len(tiles)} filters of {size}, white = +{scale:.2g}", [Panel(sheet)], 1)


def summary_line(layer: str, facts: Mapping[str, Any]) -> str:
    """Heading of a layer's maps: facts "num_maps", "num_dead", "receptive_field", "image_size"."""
    field, size = facts["receptive_field"], facts["image_size"]
    sees = f"{field}x{field} pixels" if field < size else f"the whole picture of {size}x{size} pixels"
    return f"{layer}: {facts['num_maps']} maps, {facts['num_dead']} of them dead; a unit sees {sees}"


def caption(num_images: int, images: str = "images") -> list[str]:
    """What the blocks are, what the grey is, and what such pictures do not show; `images` were looked through."""
    return [
        f"Left of each pair: the map's strongest activation in each of the nine images of {num_images:,} {images} "
        "that excite it most, strongest first, projected to the pixels alone. Right: what its unit sees there.",
        "Zero is mid-grey. The nine projections of a map share one scale, the 99.5th percentile of their |values|; "
        "maps have scales of their own, as their activations differ in size. Light grey: no picture there.",
        canvas.SWITCHES_NOTE,
    ]
