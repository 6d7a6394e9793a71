"""The page of Table 1: scores beside the paper's, and below them what the network sees (Figure 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas
from experiments.pages.canvas import Panel, Section
from zfjax import nets, pixels
from zfjax.analyses.correspondence import mask_squares

CONTROLS = ("random", "one random place")


ROWS = ("right eye", "left eye", "nose", "random")


PAPER = {  # Table 1: mean and spread
    "conv5": dict(zip(ROWS, [(0.067, 0.007), (0.069, 0.007), (0.079, 0.017), (0.107, 0.017)], strict=True)),
    "fc7": dict(zip(ROWS, [(0.069, 0.015), (0.068, 0.013), (0.069, 0.011), (0.073, 0.014)], strict=True)),
}


WIDTH, RANDOM_SHOWN = 1460, 3  # pixels of a page, masks of a control in Figure 8


MEANINGS = {
    "delta": "normalised Hamming distance of sign(x - masked x), mean over pairs, and over draws of pictures",
    "std": "standard deviation over the draws, which share pictures: their spread, no standard error",
    "all": "the same distance over all pictures together; of a control the mean over its masks",
    "changed": "share of the features that a mask changes at all: where few change, few can be unequal",
    "p": "one-sided: share of permutations, where each picture takes its part or one of its random places by chance, "
    "whose distance over all pictures is at most the part's",
    "p_aligned": "one-sided: rank of the part's distance over all pictures among those of places that are the same in "
    "every picture, as a part of aligned pictures nearly is",
}


def told(layer: str, row: str, score: Mapping[str, Any]) -> str:
    """A cell of the table in words: the score, its tests, and the paper's."""
    words = f"{score['delta']:.3f} ± {score['std']:.3f}"
    if score["p"] is not None:
        words += f", p = {score['p']:.2g}, aligned {score['p_aligned']:.2g}"
    return words + ("; paper {:.3f} ± {:.3f}".format(*PAPER[layer][row]) if row in PAPER.get(layer, ()) else "")


def draw_table(layers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Section:
    """A plot for each layer: scores over that of random places, ours and the paper's, and the numbers themselves."""
    figure = Figure(figsize=(WIDTH / canvas.DPI, 2.4 * len(layers)), dpi=canvas.DPI, layout="constrained")
    plots = figure.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
    for plot, (layer, rows) in zip(plots, layers.items(), strict=True):
        ours = {row: (score["delta"], score["std"]) for row, score in rows.items()}
        paper = {row: cell for row, cell in PAPER.get(layer, {}).items() if row in rows}
        for cells, offset, look in ((ours, 0.0, {"color": "C0"}), (paper, 0.3, {"color": "0.5", "mfc": "w"})):
            for row, cell in cells.items():
                mean, std = np.array(cell) / (cells[CONTROLS[0]][0] or 1.0)
                plot.errorbar(mean, list(rows).index(row) + offset, xerr=std, fmt="o", capsize=3, **look)
        words = [told(layer, row, score) for row, score in rows.items()]
        plot.set(ylim=(len(rows) - 0.3, -0.7), yticks=range(len(rows)), yticklabels=rows)
        plot.set_title(layer, fontsize=canvas.SIZES["heading"])
        plot.tick_params(labelsize=canvas.SIZES["label"], labelbottom=True)
        plot.secondary_yaxis("right").set_yticks(range(len(rows)), words, fontsize=canvas.SIZES["label"])
        plot.axvline(1, color="0.8", zorder=0)
    heading = "Delta over that of random places: left of 1 is more consistent. Beside it, Delta itself"
    return Section(heading, [Panel(canvas.pixels_of(figure))], 1)


def draw_masks(
    views: nets.Views, mean: np.ndarray, places: Any, masks: Mapping[str, Sequence[int]], side: int, num: int
) -> Section:
    """Figure 8: what the network sees of `num` pictures, whole and under the masks of each row."""
    seen, size, named = [views.images], views.images.shape[1], ["original"]
    for row, own in masks.items():
        for mask in own[:RANDOM_SHOWN]:
            seen.append(np.asarray(mask_squares(views.images, places[mask], side=side)))
            named.append(row)
    margin, wide = (len(mean) - size) // 2, WIDTH // len(named) - canvas.GAP
    shown = np.stack(seen, axis=1)[:num] + mean[margin : margin + size, margin : margin + size]
    looks = pixels.resized(shown.round().astype(np.uint8).reshape(-1, size, size, 3), wide)
    panels = [Panel(look, named[n] if n < len(named) else "") for n, look in enumerate(looks)]
    return Section("Figure 8: what the network sees", panels, len(named))


def caption(config: Any, result: Mapping[str, Any], size: int) -> str:
    """What the marks are, what p tests, and what the squares show in pictures of `size` pixels."""
    paper = "hollow: the paper's, of 5 dogs. " if set(result["layers"]) & set(PAPER) else ""
    return (
        f"Filled: mean ± spread over {config.num_draws} draws of {config.num_images} of {result['num_pictures']} "
        f"pictures; {paper}p: whether the part is more consistent than random places, and than {config.num_aligned} "
        "places that are the same in every picture (aligned), one-sided. "
        f"Squares of {result['mask_pixels']} of {size} pixels show the mean picture, which is 0 to the network."
    )
