"""The pages of the sanity checks: their table, the sentence that it comes down to, and the pictures compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.pages import canvas
from experiments.pages.canvas import Panel, Section
from zfjax import pixels
from zfjax.analyses.sanity import UNITS, Checks, Drawn, Pictures

METHODS = ("deconvnet", "guided backprop", "gradient", "gradient x input", "edges alone")


GROUPS = {
    "units": "Cosine of the pictures of two units (1: it does not matter which one was asked)",
    "switches": "Cosine with the right picture under wrong switches (0: the switches make the picture)",
    "signed": "Spearman correlation with the trained net's picture, signed, a layer and all above it drawn anew "
    "(1: the weights do not matter)",
    "absolute": "the same of the pictures' absolute values",
    "image": "Spearman correlation with the image alone (1: the net does not matter)",
}


ANEW = "Spearman correlation with the trained net's picture (of absolute values), this layer and all above drawn anew"


VERDICTS = {  # (two units look alike, other switches give another picture)
    (True, True): "such a picture shows what passed the switches and ReLU masks more than which unit was asked",
    (True, False): "such a picture shows the image more than which unit was asked",
    (False, True): "such a picture tells units apart, though most of it is carried by the switches",
    (False, False): "such a picture tells units apart, and not by its switches alone",
}


HALF = 0.5  # a cosine from here on counts as alike


LABEL, CELL, ROW = 400, 150, 27  # pixels: the words of a row, a cell, their height


TILE = 142  # pixels of a picture


def sentence(checks: Checks) -> str:
    """What a gallery of this net's pictures should say of itself, from the numbers."""
    classes, units = (checks["units"][f"{first} and {second}"] for first, second in (UNITS[:2], UNITS[2:]))
    untrained = checks["units"][f"{UNITS[0]} and {UNITS[1]}, untrained net"]
    kept = checks["switches"].get(f"{UNITS[2]}, switches of another image", {}).get("deconvnet", {"mean": None})
    same = units["deconvnet"]
    told = (
        f"Cosine of the deconvnet's pictures of best and worst class {mean_of(classes['deconvnet'])} (untrained net "
        f"{mean_of(untrained['deconvnet'])}; gradient {mean_of(classes['gradient'])}), of two units of one place "
        f"{mean_of(same)}, of one unit with its own and another image's switches {mean_of(kept)}"
    )
    if same["mean"] is None or kept["mean"] is None:
        return f"{told}."
    return f"{told}: {VERDICTS[same['mean'] >= HALF, kept['mean'] < HALF]}."


def mean_of(check: Mapping[str, Any]) -> str:
    """The mean in words of a table."""
    return "undefined" if check["mean"] is None else f"{round(check['mean'], 2) + 0.0:.2f}"  # + 0.0: no "-0.00"


def table_rows(checks: Checks) -> Iterator[tuple[str, dict[str, str], dict[str, float]]]:
    """(words, what stands below each method, how dark it is) of each row; a heading has no cells."""
    for group, rows in checks.items():
        if group == "absolute":  # stands beside the signed ones
            continue
        yield (ANEW if group == "signed" else GROUPS[group]), {}, {}
        for row, cells in rows.items():
            words = {method: mean_of(check) for method, check in cells.items()}
            if group == "signed":
                words = {
                    method: f"{told}  ({mean_of(checks['absolute'][row][method])})" for method, told in words.items()
                }
            yield row, words, {method: abs(check["mean"] or 0.0) for method, check in cells.items()}


def table_lines(checks: Checks) -> list[str]:
    """The table as lines of text."""
    lines = ["".join([" " * 48, *(f"{method:>18}" for method in METHODS)])]
    for words, cells, _ in table_rows(checks):
        told = "".join(f"{cells.get(method, '-'):>18}" for method in METHODS) if cells else ""
        lines.append(f"{words:48}{told}" if cells else f"\n{words}")
    return lines


def table_page(result: Mapping[str, Any]) -> Figure:
    """The table with its caption. `result` is what result.json will hold."""
    caption = [
        "Darker: further from 0. Best and worst class: most and least probable. Strongest and weakest unit: where "
        f"{result['layer']} is most active, the strongest map and the weakest that is active. Drawn anew: kernels from "
        "N(0, RMS of the trained one), biases 0; the untrained net is one with every layer drawn anew. In the middle: "
        "every maximum of a pool put at the middle of its window. Edges alone: Sobel's edge strength, a picture that "
        "looks at no net.",
        result["sentence"],
    ]
    heading = f"Means over {len(result['images'])} validation images"
    section = Section(heading, [Panel(table_panel(result["checks"]))], 1)
    return canvas.page("Sanity checks: what the pictures depend on", [section], caption)


def table_panel(checks: Checks) -> np.ndarray:
    """The table in pixels. -> uint8 [H, W, 3]"""
    rows = [("", {method: method for method in METHODS}, {}), *table_rows(checks)]
    width, height = LABEL + CELL * len(METHODS), ROW * len(rows)
    figure = Figure(figsize=(width / canvas.DPI, height / canvas.DPI), dpi=canvas.DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    size, shades = canvas.SIZES["caption"], matplotlib.colormaps["Blues"]
    for number, (words, cells, darkness) in enumerate(rows):
        middle, is_heading = (number + 0.5) * ROW, not cells
        axes.text(0, middle, words, va="center", size=size, weight="bold" if is_heading else "normal")
        for column, method in enumerate(METHODS):
            left = LABEL + column * CELL
            if method in darkness:
                box = Rectangle((left + 1, number * ROW + 1), CELL - 2, ROW - 2, color=shades(0.6 * darkness[method]))
                axes.add_patch(box)
            told = "" if is_heading else cells.get(method, "–")
            axes.text(left + CELL / 2, middle, told, va="center", ha="center", size=size)
    return canvas.pixels_of(figure)


def pictures_page(drawn: Drawn, photos: np.ndarray, result: Mapping[str, Any]) -> Figure:
    """Some of the pictures that the table compares; `photos` uint8 [N, s, s, 3] are the images."""
    layer, stages = result["layer"], {"trained": drawn["units"]["best class"], **drawn["anew"]}
    sections = [
        Section("Best and worst class", pair_panels(drawn["units"], photos, UNITS[:2]), 7),
        Section(f"Two active units of one place of {layer}", pair_panels(drawn["units"], photos, UNITS[2:]), 7),
        Section("Best class, with that layer and all above it drawn anew", stage_panels(stages), len(stages)),
        Section(f"Strongest unit of {layer}, by the deconvnet", switch_panels(drawn), 9),
    ]
    caption = [
        "Zero is mid-grey; each picture has a scale of its own, the 99.5th percentile of its |values|: cosines and "
        "ranks do not see the scale either.",
        result["sentence"],
    ]
    return canvas.page("Sanity checks: the pictures that were compared", sections, caption)


def pair_panels(units: Mapping[str, Pictures], photos: np.ndarray, pair: Sequence[str]) -> list[Panel]:
    """For each image: itself, and the pictures of two units by three methods; methods stand above the first row."""
    panels = []
    for n, photo in enumerate(pixels.resized(photos, TILE)):
        panels.append(Panel(photo))
        for method in METHODS[:3]:
            above = [f"{method.split()[0]}: {unit.split()[0]}" if n == 0 else "" for unit in pair]
            panels += [Panel(tile(units[unit][method][n]), words) for unit, words in zip(pair, above, strict=True)]
    return panels


def stage_panels(stages: Mapping[str, Pictures]) -> list[Panel]:
    """For each method the first image's picture from the trained net, then as more layers are drawn anew."""
    return [
        Panel(tile(of[method][0]), method if name == "trained" else name)
        for method in METHODS[:3]
        for name, of in stages.items()
    ]


def switch_panels(drawn: Drawn) -> list[Panel]:
    """For each image a unit's picture with its own switches and under every wrong kind of them."""
    unit = UNITS[2]
    wrong = {row: of for row, of in drawn["switches"].items() if row.startswith(unit)}
    kinds = {"own switches": drawn["units"][unit], **{row.rpartition("switches ")[2]: of for row, of in wrong.items()}}
    num = len(drawn["units"][unit]["deconvnet"])
    return [Panel(tile(of["deconvnet"][n]), words) for n in range(num) for words, of in kinds.items()]


def tile(picture: np.ndarray) -> np.ndarray:
    """A signed picture [s, s, 3] on its own scale. -> uint8 [TILE, TILE, 3]"""
    drawn = pixels.signed_pictures(picture, pixels.symmetric_scale(picture))
    return pixels.resized(drawn[None], TILE)[0]
