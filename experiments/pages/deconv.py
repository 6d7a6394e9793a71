"""The pages of Figure 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from experiments.pages.lettering import counted
from zfjax import pixels
from zfjax.analyses.strongest import Strongest
from zfjax.nets import size_of

PAGE = 1500  # pixels, the width that the maps of a page fill
FILTER_SIDE, FILTERS_PER_ROW = 42, 24  # layer 1's filters: pixels, number
OVERVIEW_MAPS = 4  # maps of each layer on the overview
SIGNED = "Projections and filters"


def layer_page(layer: str, strongest: Strongest, *, filters: np.ndarray | None, facts: Mapping[str, Any]) -> Figure:
    """One layer's page: its maps, and above them the layer's filters [h, w, C, N] where they are given.

    `facts`: see `summary_line`; its "units" are what the layer's units are called.
    """
    columns = 4 if len(strongest.maps) > 12 else 3
    sections = [Section(summary_line(layer, facts), map_panels(strongest, columns, facts["units"]), columns)]
    if filters is not None:
        sections.insert(0, filter_section(filters, layer))
    title = f"Figure 2, {layer}: the nine images that excite a {facts['kind']} most, projected to the pixels"
    words = caption(facts["num_images"], rounding=bool(np.any(strongest.rounding)))
    return canvas.page(title, sections, [*words, *lettering.grey_projections(strongest.projections.shape[-1], SIGNED)])


def overview_page(
    filters: tuple[str, np.ndarray] | None, drawn: Mapping[str, Strongest], facts: Mapping[str, Any]
) -> Figure:
    """One page with the filters of (layer, [h, w, C, N]) and the first maps of every layer. `facts` by layer."""
    sections = [] if filters is None else [filter_section(filters[1], filters[0])]
    for layer, strongest in drawn.items():
        some = Strongest._make(field if field is None else field[:OVERVIEW_MAPS] for field in strongest)
        panels = map_panels(some, OVERVIEW_MAPS, facts[layer]["units"])
        sections.append(Section(summary_line(layer, facts[layer]), panels, OVERVIEW_MAPS))
    kind = " or ".join(dict.fromkeys(of["kind"] for of in facts.values()))
    title = f"Figure 2: the nine images that excite a {kind} most, projected to the pixels"
    num_images = next(iter(facts.values()))["num_images"]
    rounding = any(np.any(of.rounding[:OVERVIEW_MAPS]) for of in drawn.values())
    channels = next(iter(drawn.values())).projections.shape[-1]
    words = [*caption(num_images, rounding=rounding), *lettering.grey_projections(channels, SIGNED)]
    return canvas.page(title, sections, words)


def map_panels(strongest: Strongest, columns: int, names: Sequence[str]) -> list[Panel]:
    """For each map its projections, three by three, beside the patches; `columns` maps fill the page's width.

    `names` [M] are what the maps are called.
    """
    width = (PAGE - (columns - 1) * canvas.GAP) // columns
    side = (width // 2 - 4 * pixels.TILE_GAP) // 3
    panels = []
    some = names[: len(strongest.maps)], strongest.scales, strongest.projections, strongest.patches
    for name, scale, projections, patches in zip(*some, strict=True):
        tiles = [pixels.resized(pixels.signed_pictures(projections, scale), side), pixels.resized(patches, side)]
        sheet = pixels.side_by_side(*(pixels.mosaic(pair, columns=3) for pair in tiles))
        sheet = np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255)  # columns align
        panels.append(Panel(sheet, f"{name}   {scale_words(scale)}"))
    return panels


def scale_words(scale: float) -> str:
    """What is drawn white; of a map whose projections are drawn as grey, why."""
    return f"white = +{lettering.two_digits(scale)}" if np.isfinite(scale) else "nothing but rounding"


def filter_section(kernel: np.ndarray, layer: str) -> Section:
    """A layer's filters [h, w, C, N], all on one scale."""
    tiles, scale = pixels.filter_pictures(kernel)
    sheet = pixels.mosaic(pixels.resized(tiles, FILTER_SIDE), columns=min(FILTERS_PER_ROW, len(tiles)))
    size = f"{kernel.shape[0]}x{kernel.shape[1]}"
    return Section(
        f"{layer}: its {len(tiles)} filters of {size}, white = +{lettering.two_digits(scale)}", [Panel(sheet)], 1
    )


def summary_line(layer: str, facts: Mapping[str, Any]) -> str:
    """Heading of a layer's maps: facts "kind", "num_maps", "num_dead", "receptive_field", "image_size"."""
    field, (height, width) = facts["receptive_field"], size_of(facts["image_size"])
    if field is None:
        sees = f"what a {facts['kind']} sees is not known: the whole picture of {height}x{width} pixels is shown"
    elif size_of(field)[0] >= height and size_of(field)[1] >= width:
        sees = f"a unit sees the whole picture of {height}x{width} pixels"
    else:
        sees = f"a unit sees {'x'.join(map(str, size_of(field)))} pixels"
    units = counted(facts["num_maps"], facts["kind"])
    return f"{layer}: {units}, {facts['num_dead']} of them dead; {sees}"


def caption(num_images: int, image: str = "image", *, rounding: bool = False) -> list[str]:
    """What the blocks are, what the grey is, and what such pictures do not show.

    So many images, each an `image`, were looked through; with `rounding`, some of the maps show nothing else.
    """
    grey = " Grey alone, 'nothing but rounding': the way down cancels, as under a norm whose mean is all that is read."
    return [
        f"Left of each pair: the strongest activation in each of the nine images of {counted(num_images, image)} "
        "that excite it most, strongest first, projected to the pixels alone. Right: what its unit sees there.",
        "Zero is mid-grey. The nine projections of a map share one scale, the 99.5th percentile of their |values|; "
        "maps have scales of their own, as their activations differ in size. Light grey: no picture there."
        + (grey if rounding else ""),
        canvas.SWITCHES_NOTE,
    ]
