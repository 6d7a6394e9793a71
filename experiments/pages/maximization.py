"""The pictures of gradient ascent: where each climb ended, beside the deconvnet's answer, and the climbs' paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from experiments.pages import canvas, lettering
from experiments.pages import deconv as deconv_page
from experiments.pages.canvas import Panel, Section
from experiments.pages.lettering import counted
from zfjax import pixels
from zfjax.analyses.maximization import Climbed
from zfjax.analyses.strongest import Strongest

COLUMNS = 4  # units in a row of the page
PATHS_PER_ROW, PATHS_SIZE, PATHS_PAD = 6, (12.4, 2.6), 0.12  # panels; inches of a row, and free along the edges


def climbs_page(
    climbed: Mapping[str, Climbed],
    robust: Mapping[str, Climbed],
    *,
    drawn: Mapping[str, Strongest],
    result: Mapping[str, Any],
) -> Figure:
    """Per unit: where its climbs ended, the strongest image's projection, and what the unit sees there.

    `result` says "settings" (see `caption`) and of each of the "layers" what `maximization.score` does, and its
    "units", what they are called.
    """
    sections = []
    for layer, of in climbed.items():
        facts, heading = result["layers"][layer], layer
        if facts["median_ratio"] is not None:
            heading += f": climbs end at {facts['median_ratio']:.2g} times the strongest activation seen (median)"
        if layer in robust and facts["robust"]["median_ratio"] is not None:
            heading += f", robust ones at {facts['robust']['median_ratio']:.2g}"
        panels = unit_panels(
            of, robust.get(layer), drawn=drawn[layer], strongest=facts["strongest"], names=facts["units"]
        )
        sections.append(Section(heading, panels, COLUMNS if layer not in robust else COLUMNS // 2))
    has_projections = any(of.projections.size for of in drawn.values())
    left_out = lettering.left_out(result["not_applicable"])
    beside = ", beside the deconvnet" if has_projections else ""
    words = [*caption(result["settings"], has_projections=has_projections), *left_out]
    words += lettering.grey_projections(next(iter(drawn.values())).projections.shape[-1]) if has_projections else []
    return canvas.page(f"Gradient ascent from noise{beside}", sections, words)


def unit_panels(
    climbed: Climbed, robust: Climbed | None, *, drawn: Strongest, strongest: np.ndarray, names: Sequence[str]
) -> list[Panel]:
    """One panel for each unit, called by its name."""
    columns, starts = COLUMNS, 0
    if robust is not None:
        columns, starts = COLUMNS // 2, len(robust.maps) // len(climbed.maps)
    width = (deconv_page.PAGE - 2 * canvas.MARGIN - (columns - 1) * canvas.GAP) // columns
    side = (width - (2 + starts) * pixels.TILE_GAP) // (3 + starts)
    ended = pixels.resized(climbed.patches, side)
    others = None if robust is None else pixels.resized(robust.patches, side)
    panels = []
    for m, name in enumerate(names):
        own = drawn.projections[m, :1]
        beside = [pixels.resized(pixels.signed_pictures(own, drawn.scales[m]), side)[0]] if own.size else []
        patch = pixels.resized(drawn.patches[m, :1], side)[0]
        more = [] if others is None else list(others[m * starts : (m + 1) * starts])
        sheet = pixels.side_by_side(*_of_one_height(ended[m], *more, *beside, patch), gap=pixels.TILE_GAP)
        sheet = np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255)  # columns align
        reached = f"{climbed.reached[m]:.3g}"
        if robust is not None:
            reached += ", " + ", ".join(f"{value:.3g}" for value in robust.reached[m * starts : (m + 1) * starts])
        panels.append(Panel(sheet, f"{name}: climbed to {reached}, seen {strongest[m]:.3g}"))
    return panels


def _of_one_height(*pictures: np.ndarray) -> list[np.ndarray]:
    """White below those that are not as high as the highest, as the patch of a whole map beside that of a unit."""
    height = max(len(picture) for picture in pictures)
    return [np.pad(one, ((0, height - len(one)), (0, 0), (0, 0)), constant_values=255) for one in pictures]


def caption(settings: Mapping[str, Any], *, has_projections: bool = True) -> list[str]:
    """What is shown, on which scale, and what such pictures do not show.

    `settings`: "climb", "steps", "step_size", "noise", "jitter", "blur", "decay", as the command's flags; "start", what
    the noise is added to; "before_relu", whether the climbed value is the one before the ReLU; "robust", starts of
    each unit's second kind of climb, 0 where there is none.
    """
    robust = (
        f"Beside it, {settings['robust']} climbs of the same unit from other starts, of waves weighed by 1 / f in the "
        "colours of the set, moved, turned and scaled at every step (Olah et al. 2017). "
        if settings["robust"]
        else ""
    )
    of = "the unit in the middle of its map" if settings["climb"] == "unit" else "the mean of its map"
    steps = counted(settings["steps"], "step")
    value = "before the ReLU" if settings["before_relu"] else "as the layer hands it on"
    middle = (
        "Middle: the strongest activation of the validation set, projected by the deconvnet; zero is mid-grey, each on "
        "its own scale, the 99.5th percentile of its |values|. Right: what its unit sees there"
        if has_projections
        else "Right: what the unit of the strongest activation of the validation set sees there"
    )
    return [
        f"Left: {steps} of {settings['step_size']:g} px RMS along the gradient of {of}, {value}, "
        f"from {settings['start']} and noise of {settings['noise']:g} px; jitter {settings['jitter']} px, blur "
        f"{settings['blur']:g} px, decay {settings['decay']:g}; kept in the range of pictures, 0 to 255. {robust}"
        f"{middle}; light grey: no picture.",
        "Numbers: the map's strongest activation on the climbed picture, and on the validation set. A climb finds what "
        "drives the network, not what photos hold: fine waves that no photo has often drive it further.",
        *([canvas.SWITCHES_NOTE] if has_projections else []),
    ]


def paths_figure(climbed: Mapping[str, Climbed], result: Mapping[str, Any]) -> Figure:
    """The climbed value against the steps: a line for each unit, a panel for each layer."""
    rows, columns = -(-len(climbed) // PATHS_PER_ROW), min(len(climbed), PATHS_PER_ROW)
    layout = ConstrainedLayoutEngine(w_pad=PATHS_PAD, h_pad=PATHS_PAD)
    figure = Figure(figsize=(PATHS_SIZE[0], rows * PATHS_SIZE[1]), layout=layout, dpi=canvas.DPI)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(climbed) :]:
        axes.remove()
    for axes, (layer, of) in zip(panels.flat, climbed.items(), strict=False):
        for label, path in zip(result["layers"][layer]["units"], of.paths, strict=True):
            axes.plot(path, linewidth=1.2, label=label)
        axes.set_title(layer, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        lettering.legend(axes, axes.get_lines(), fontsize=canvas.SIZES["small"])
    value = "activation before the ReLU" if result["settings"]["before_relu"] else "activation"
    for axes in panels[:, 0]:
        axes.set_ylabel(value, fontsize=8)
    return figure
