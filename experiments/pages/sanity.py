"""The pages of the sanity checks: their table, the sentence that it comes down to, and the pictures compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from experiments.pages.lettering import counted
from zfjax import pixels
from zfjax.analyses.sanity import ALL_LAYERS, UNITS, Checks, Drawn, Pictures

METHODS = ("deconvnet", "guided backprop", "gradient", "gradient x input", "edges alone")

GROUPS = {
    "units": "Cosine of the pictures of two units (1: it does not matter which one was asked)",
    "switches": "Cosine with the right picture under wrong switches (0: the switches make the picture)",
    "signed": "Spearman correlation with the trained net's picture, signed, a layer and all above it drawn anew "
    "(1: the weights do not matter)",
    "absolute": "the same of the pictures' absolute values",
    "image": "Spearman correlation with the image alone (1: the net does not matter)",
}

ANEW = "Spearman correlation with the trained net's picture (of absolute values)"

VERDICTS = {  # (two units look alike, other switches give another picture)
    (True, True): "such a picture shows what passed the switches and ReLU masks more than which unit was asked",
    (True, False): "such a picture shows the image more than which unit was asked",
    (False, True): "such a picture tells units apart, though most of it is carried by the switches",
    (False, False): "such a picture tells units apart, and not by its switches alone",
}

HALF = 0.5  # a cosine from here on counts as alike
LABEL, CELL, GAP = 400, 150, 16  # pixels: the words of a row, a cell at least, free between two
ROW, LINE, ROW_LINES = 27, 18, 3  # pixels: a row, each further line of its words; lines at most
NAME = 48  # letters of a row's name on the console
TILE = 142  # pixels of a picture
OWN = "own switches"


def sentence(checks: Checks) -> str:
    """What a gallery of this net's pictures should say of itself, from the numbers that there are."""
    rows, clauses = checks["units"], []
    classes, same = (rows.get(f"{first} and {second}") for first, second in (UNITS[:2], UNITS[2:]))
    untrained = rows.get(f"{UNITS[0]} and {UNITS[1]}, untrained net")
    kept = checks.get("switches", {}).get(f"{UNITS[2]}, switches of another image", {}).get("deconvnet")
    assert same is not None  # every network has units
    method = METHODS[0] if METHODS[0] in same else "gradient"  # which needs no rule
    if classes is not None:
        beside = [] if untrained is None else [f"untrained net {mean_of(untrained[method])}"]
        beside += [f"gradient {mean_of(classes['gradient'])}"] if method != "gradient" else []
        in_brackets = f" ({'; '.join(beside)})" if beside else ""
        clauses.append(f"of best and worst class {mean_of(classes[method])}{in_brackets}")
    clauses.append(f"of two units of one place {mean_of(same[method])}")
    if "switches" in checks:
        clauses.append(f"of one unit with its own and another image's switches {mean_of(kept or {'mean': None})}")
    means_in_words = f"Cosine of the {method}'s pictures {', '.join(clauses)}"
    alike = same[method]["mean"]
    if kept is None or alike is None or kept["mean"] is None:
        return f"{means_in_words}."
    return f"{means_in_words}: {VERDICTS[alike >= HALF, kept['mean'] < HALF]}."


def which_anew(rows: Iterable[str]) -> str:
    """Which weights are drawn anew in these rows of the table, or stages."""
    return "all weights" if ALL_LAYERS in rows else "this layer and all above"


def mean_of(check: Mapping[str, Any]) -> str:
    """The mean in words of a table."""
    return "undefined" if check["mean"] is None else f"{round(check['mean'], 2) + 0.0:.2f}"  # + 0.0: no "-0.00"


def table_rows(checks: Checks) -> Iterator[tuple[str, dict[str, str], dict[str, float]]]:
    """(words, what stands below each method, how dark it is) of each row; a heading has no cells."""
    for group, rows in checks.items():
        if group == "absolute":  # stands beside the signed ones
            continue
        yield (f"{ANEW}, {which_anew(rows)} drawn anew" if group == "signed" else GROUPS[group]), {}, {}
        for row, cells in rows.items():
            words = {method: mean_of(check) for method, check in cells.items()}
            if group == "signed":
                words = {
                    method: f"{mean}  ({mean_of(checks['absolute'][row][method])})" for method, mean in words.items()
                }
            yield row, words, {method: abs(check["mean"] or 0.0) for method, check in cells.items()}


def table_lines(checks: Checks) -> list[str]:
    """The table as lines of text: a column is as wide as what stands in it, a longer name of a row shortened."""
    rows = [("", {method: method for method in METHODS}, {}), *table_rows(checks)]
    wide = {method: 2 + max(16, *(len(cells.get(method, "")) for _, cells, _ in rows)) for method in METHODS}
    text = []
    for words, cells, _ in rows:
        columns = "".join(f"{cells.get(method, '-'):>{wide[method]}}" for method in METHODS)
        text.append(f"{lettering.on_console(words, NAME):{NAME}}{columns}" if cells else f"\n{words}")
    return text


def table_page(result: Mapping[str, Any]) -> Figure:
    """The table with its caption. `result` is what result.json will hold."""
    checks, words = result["checks"], ["Darker: further from 0."]
    if f"{UNITS[0]} and {UNITS[1]}" in checks["units"]:
        words.append("Best and worst class: most and least probable.")
    words.append(
        f"Strongest and weakest unit: where {result['layer']} is most active, the strongest map and the weakest that "
        "is active."
    )
    if ALL_LAYERS in checks.get("signed", {}):
        words.append("Drawn anew, as in the untrained net: the values of every array of weights in another order.")
    elif "signed" in checks:
        words.append(
            "Drawn anew: kernels from N(0, RMS of the trained one), biases 0; the untrained net is one with every "
            "layer drawn anew."
        )
    if "switches" in checks:
        words.append("In the middle: every maximum of a pool put at the middle of its window.")
    words.append("Edges alone: Sobel's edge strength, a picture that looks at no net.")
    caption = [" ".join(words), result["sentence"], *lettering.left_out(result["not_applicable"])]
    heading = f"Means over {counted(len(result['images']), 'validation image')}"
    section = Section(heading, [Panel(table_panel(result["checks"]))], 1)
    return canvas.page("Sanity checks: what the pictures depend on", [section], [words for words in caption if words])


def table_panel(checks: Checks) -> np.ndarray:
    """The table in pixels. -> uint8 [H, W, 3]"""
    rows = [("", {method: method for method in METHODS}, {}), *table_rows(checks)]
    columns = [
        max(CELL, *(GAP + math.ceil(lettering.text_width(cells.get(method, "–"), "caption")) for _, cells, _ in rows))
        for method in METHODS
    ]
    width = LABEL + sum(columns)
    broken = [
        lettering.lines(words, "caption", LABEL - GAP, most=ROW_LINES)
        if cells
        else lettering.lines(words, "strong", width - GAP)
        for words, cells, _ in rows
    ]
    heights = [ROW + LINE * (len(lines) - 1) for lines in broken]
    figure = canvas.blank(width, sum(heights))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(sum(heights), 0))
    axes.set_axis_off()
    shades, top = matplotlib.colormaps["Blues"], 0
    for (_, cells, darkness), lines, height in zip(rows, broken, heights, strict=True):
        middle, left = top + height / 2, LABEL
        for n, line in enumerate(lines):
            place = middle + LINE * (n - (len(lines) - 1) / 2)
            canvas.write(figure, line, left=0, top=place, kind="caption" if cells else "strong", va="center")
        for method, column in zip(METHODS, columns, strict=True):
            if method in darkness:
                shade = shades(0.6 * darkness[method])
                axes.add_patch(Rectangle((left + 1, top + 1), column - 2, height - 2, color=shade))
            number = cells.get(method, "–") if cells else ""
            canvas.write(figure, number, left=left + column / 2, top=middle, kind="caption", ha="center", va="center")
            left += column
        top += height
    return canvas.pixels_of(figure)


def pictures_page(drawn: Drawn, photos: np.ndarray, result: Mapping[str, Any]) -> Figure:
    """Some of the pictures that the table compares; `photos` uint8 [N, H, W, 3] are the images."""
    layer, units, asked, names = result["layer"], drawn["units"], result["asked"], result["images"]
    sections, columns = [], 1 + 2 * len(drawn_of(units))
    if UNITS[0] in units:
        sections.append(
            Section("Best and worst class", pair_panels(units, photos, names=names, pair=UNITS[:2]), columns)
        )
    sections.append(
        Section(
            units_heading(units, layer),
            pair_panels(units, photos, names=names, pair=UNITS[2:]),
            columns,
        )
    )
    if drawn["anew"]:
        stages = {"trained": units[asked], **drawn["anew"]}
        heading = f"{asked.capitalize()}, with {which_anew(stages)} drawn anew, on {names[0]}"
        sections.append(Section(heading, stage_panels(stages), len(stages)))
    if drawn["switches"]:
        sections.append(Section(f"Strongest unit of {layer}, by the deconvnet", switch_panels(drawn, names), 9))
    caption = [
        "Zero is mid-grey; each picture has a scale of its own, the 99.5th percentile of its |values|: cosines and "
        "ranks do not see the scale either.",
        result["sentence"],
        *lettering.grey_projections(next(iter(units[asked].values())).shape[-1]),
        *lettering.left_out(result["not_applicable"]),
    ]
    return canvas.page(
        "Sanity checks: the pictures that were compared", sections, [words for words in caption if words]
    )


def units_heading(units: Mapping[str, Pictures], layer: str) -> str:
    """What the pictures of the two units show, and what the blank ones among them mean."""
    pictures = (np.stack([units[unit][method] for method in drawn_of(units)], axis=1) for unit in UNITS[2:])
    strongest, weakest = (of.any(axis=(1, 2, 3, 4)) for of in pictures)
    if not strongest.any():
        return f"None of these images excites {layer}: the pictures of its units are blank"
    return f"Two active units of one place of {layer}{'' if weakest.all() else '; blank where there are not two'}"


def pair_panels(
    units: Mapping[str, Pictures], photos: np.ndarray, *, names: Sequence[str], pair: Sequence[str]
) -> list[Panel]:
    """For each image: itself by its name, and the pictures of two units by three methods, named in the first row."""
    panels = []
    for n, (photo, name) in enumerate(zip(pixels.resized(photos, TILE), names, strict=False)):
        panels.append(Panel(photo, name))
        for method in drawn_of(units):
            above = [f"{method.split()[0]}: {unit.split()[0]}" if n == 0 else "" for unit in pair]
            panels += [Panel(tile(units[unit][method][n]), words) for unit, words in zip(pair, above, strict=True)]
    return panels


def drawn_of(units: Mapping[str, Pictures]) -> list[str]:
    """The ways down that these pictures were drawn by: of a network without a way for the deconvnet the gradient."""
    return [method for method in METHODS[:3] if all(method in of for of in units.values())]


def stage_panels(stages: Mapping[str, Pictures]) -> list[Panel]:
    """For each method the first image's picture from the trained net, then as more layers are drawn anew."""
    return [
        Panel(tile(of[method][0]), method if name == "trained" else name)
        for method in drawn_of(stages)
        for name, of in stages.items()
    ]


def switch_panels(drawn: Drawn, names: Sequence[str]) -> list[Panel]:
    """For each image, by its name, a unit's picture with its own switches and under every wrong kind of them."""
    unit = UNITS[2]
    wrong = {row: of for row, of in drawn["switches"].items() if row.startswith(unit)}
    kinds = {OWN: drawn["units"][unit], **{row.rpartition("switches ")[2]: of for row, of in wrong.items()}}
    num = len(drawn["units"][unit]["deconvnet"])
    return [
        Panel(tile(of["deconvnet"][n]), f"{names[n]}: {OWN}" if words == OWN else words)
        for n in range(num)
        for words, of in kinds.items()
    ]


def tile(picture: np.ndarray) -> np.ndarray:
    """A signed picture [H, W, C] on its own scale, its longer side TILE pixels. -> uint8 [h, w, 3]"""
    drawn = pixels.signed_pictures(picture, pixels.symmetric_scale(picture))
    resized: np.ndarray = pixels.resized(drawn[None], TILE)[0]
    return resized
