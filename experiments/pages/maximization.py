"""The pictures of gradient ascent: where each climb ended, beside the deconvnet's answer, and the climbs' paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas
from experiments.pages import deconv as deconv_page
from experiments.pages.canvas import Panel, Section
from zfjax import nets, pixels
from zfjax.analyses.maximization import Climbed
from zfjax.analyses.strongest import Strongest

COLUMNS = 4  # units in a row of the page


PATHS: dict[str, Any] = {"figsize": (12.4, 2.6), "layout": "constrained"}  # inches


def climbs_page(
    net: nets.TrainedNet,
    climbed: Mapping[str, Climbed],
    drawn: Mapping[str, Strongest],
    result: Mapping[str, Any],
) -> Figure:
    """Per unit: where the climb ended, the strongest image's projection, and what the unit sees there."""
    sections = []
    for layer, seen in climbed.items():
        facts, heading = result["layers"][layer], layer
        if facts["median_ratio"] is not None:
            heading += f": climbs end at {facts['median_ratio']:.2g} times the strongest activation seen (median)"
        names = unit_names(net, layer, seen.maps)
        sections.append(Section(heading, unit_panels(seen, drawn[layer], facts["strongest"], names), COLUMNS))
    return canvas.page("Gradient ascent from noise, beside the deconvnet", sections, caption(result["config"]))


def unit_names(net: nets.TrainedNet, layer: str, maps: np.ndarray) -> list[str]:
    """What the units are called: the class, or the number of the map."""
    is_class = layer == net.architecture.layer_names[-1]
    return [net.class_words[number] if is_class else f"map {number}" for number in maps]


def unit_panels(seen: Climbed, shown: Strongest, strongest: np.ndarray, names: Sequence[str]) -> list[Panel]:
    """One panel for each unit, called by its name."""
    width = (deconv_page.PAGE - 2 * canvas.MARGIN - (COLUMNS - 1) * canvas.GAP) // COLUMNS
    side = (width - 2 * pixels.TILE_GAP) // 3
    ended = pixels.resized(seen.patches, side)
    panels = []
    for m, name in enumerate(names):
        projection = pixels.resized(pixels.signed_pictures(shown.projections[m, :1], shown.scales[m]), side)[0]
        patch = pixels.resized(shown.patches[m, :1], side)[0]
        sheet = pixels.side_by_side(ended[m], projection, patch, gap=pixels.TILE_GAP)
        sheet = np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255)  # columns align
        panels.append(Panel(sheet, f"{name}: climbed to {seen.reached[m]:.3g}, seen {strongest[m]:.3g}"))
    return panels


def caption(config: Any) -> list[str]:
    """What is shown, on which scale, and what such pictures do not show; `config`: of the experiment."""
    climbed = "the unit in the middle of its map" if config.climb == "unit" else "the mean of its map"
    return [
        f"Left: {config.steps} steps of {config.step_size:g} px RMS along the gradient of {climbed}, before the ReLU, "
        f"from the mean picture and noise of {config.noise:g} px; jitter {config.jitter} px, blur {config.blur:g} px, "
        f"decay {config.decay:g}; kept in the range of pictures, 0 to 255. Middle: the strongest activation of the "
        "validation set, projected by the deconvnet; zero is mid-grey, each on its own scale, the 99.5th percentile "
        "of its |values|. Right: what its unit sees there; light grey: no picture.",
        "Numbers: the map's strongest activation on the climbed picture, and on the validation set. A climb finds what "
        "drives the network, not what photos hold: fine waves that no photo has often drive it further.",
        canvas.SWITCHES_NOTE,
    ]


def paths_figure(net: nets.TrainedNet, climbed: Mapping[str, Climbed]) -> Figure:
    """The climbed value against the steps: a line for each unit, a panel for each layer."""
    figure = Figure(**PATHS, dpi=canvas.DPI)
    for axes, (layer, seen) in zip(figure.subplots(1, len(climbed), squeeze=False)[0], climbed.items(), strict=True):
        for label, path in zip(unit_names(net, layer, seen.maps), seen.paths, strict=True):
            axes.plot(path, linewidth=1.2, label=label)
        axes.set_title(layer, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    figure.axes[0].set_ylabel("activation before the ReLU", fontsize=8)
    return figure
