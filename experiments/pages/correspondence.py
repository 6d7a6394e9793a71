"""The page of Table 1: scores beside the paper's, and below them what the network sees (Figure 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from experiments.pages.lettering import counted
from zfjax import pixels
from zfjax.analyses.correspondence import CONTROLS, Compared, mask_squares
from zfjax.nets import Views
from zfjax.pixels import size_words

TITLE = "Table 1: correspondence of parts"
ROWS = ("right eye", "left eye", "nose", "random")

PAPER = {  # Table 1: mean and spread
    "conv5": dict(zip(ROWS, [(0.067, 0.007), (0.069, 0.007), (0.079, 0.017), (0.107, 0.017)], strict=True)),
    "fc7": dict(zip(ROWS, [(0.069, 0.015), (0.068, 0.013), (0.069, 0.011), (0.073, 0.014)], strict=True)),
}

WIDTH, RANDOM_SHOWN = 1460, 3  # pixels of a page, masks of a control in Figure 8
PARTS = 180  # pixels of the parts' names beside a plot


def draw(views: Views, compared: Compared, *, side: int, result: Mapping[str, Any]) -> Figure:
    """The page: the table, and below it what the network sees.

    Args:
      views: the pictures.
      compared: from `correspondence.compare_parts` of them.
      side: of the squares, pixels.
      result: what result.json will hold: "layers", and what `caption` reads.
    """
    sections = [draw_table(result["layers"]), draw_masks(views, compared, side=side, num=result["num_images"])]
    return canvas.page(TITLE, sections, [caption(result)])


def score_words(layer: str, row: str, score: Mapping[str, Any]) -> str:
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
        words = [score_words(layer, row, score) for row, score in rows.items()]
        plot.set_ylim(len(rows) - 0.3, -0.7)
        plot.set_yticks(range(len(rows)), [lettering.fitted(row, "label", PARTS) for row in rows], parse_math=False)
        plot.set_title(layer, fontsize=canvas.SIZES["heading"])
        plot.tick_params(labelsize=canvas.SIZES["label"], labelbottom=True)
        plot.secondary_yaxis("right").set_yticks(range(len(rows)), words, fontsize=canvas.SIZES["label"])
        plot.axvline(1, color="0.8", zorder=0)
    heading = "Delta over that of random places: left of 1 is more consistent. Beside it, Delta itself"
    return Section(heading, [Panel(canvas.pixels_of(figure))], 1)


def draw_masks(views: Views, compared: Compared, *, side: int, num: int) -> Section:
    """Figure 8: what the network sees of `num` pictures, whole and under the masks of each row."""
    pictures = views.pictures[:num].astype(np.float32)
    sheets, named = [pictures], [""]
    for row, own in compared.masks.items():
        for mask in own[:RANDOM_SHOWN]:
            sheets.append(
                np.asarray(mask_squares(pictures, compared.places[mask][:num], side=side, fill=compared.fill))
            )
            named.append(row)
    wide = WIDTH // len(named) - canvas.GAP
    rows = np.stack(sheets, axis=1).round().astype(np.uint8)
    panels = []
    for n, row in enumerate(rows):
        name = views.names[n] if views.names else f"{n}"
        labels = [name, *named[1:]]
        looks = pixels.resized(row, wide)
        panels += [
            Panel(look, label if n == 0 or not c else "")
            for c, (look, label) in enumerate(zip(looks, labels, strict=True))
        ]
    return Section("Figure 8: what the network sees; left the whole pictures, by their names", panels, len(named))


def caption(result: Mapping[str, Any]) -> str:
    """What the marks are, what p tests, and what the squares show.

    `result`: "layers", "num_draws", "num_images", "num_pictures", "num_aligned", "mask_pixels", "mask_shows" and
    "image_size".
    """
    paper = "hollow: the paper's, of 5 dogs. " if set(result["layers"]) & set(PAPER) else ""
    return (
        f"Filled: mean ± spread over {counted(result['num_draws'], 'draw')} of {result['num_images']} of "
        f"{result['num_pictures']} "
        f"pictures; {paper}p: whether the part is more consistent than random places, and than "
        f"{result['num_aligned']} places that are the same in every picture (aligned), one-sided. "
        f"Squares of {result['mask_pixels']} of {size_words(result['image_size'])} pixels show {result['mask_shows']}."
    )
