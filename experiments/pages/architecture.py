"""The picture of Figure 3: every layer's maps as blocks, drawn to one rule, above the table's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.transforms import IdentityTransform

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from experiments.pages.lettering import counted
from zfjax.nets import Size, size_of
from zfjax.pixels import size_words

WIDTH, NAMES, COLUMNS = 1440, 104, 9  # pixels of the drawing and of the rows' names; columns in a row, image included
TALLEST, WIDEST, TALLEST_DENSE = 190, 46, 150  # pixels: side of the largest map, widest block, tallest dense block
COLUMN = (WIDTH - NAMES) // COLUMNS
DEPTH = np.array([0.34, -0.22])  # (right, down) that a map's columns recede by, per pixel of its height
GAP, LINE = 7, 17  # pixels between a layer's two blocks; of a line of text
MAPS, POOLED, DENSE, IMAGE, KERNEL = "#c9d9ef", "#5e8bc9", "#7fb08a", "#d9d9d9", "#e07b00"
TEXT_ROWS = ("weights", "stride, pad", "then", "maps", "handed on", "a place sees", "after pool", "parameters")
NETWORKS = {"zfnet": "the network of the paper", "alexnet": "the network that the paper's is compared with"}


LAYER_ROWS = ("reads", "does", "hands on", "a place sees", "parameters")  # of a net that is no table
MOST_STEPS = 9  # of what a layer does, as a column names them


class Block(NamedTuple):
    """The maps of one stage as a box."""

    left: float  # pixels from the drawing's left edge
    middle: float  # pixels from its top edge to the front's middle
    width: float  # the maps, or the side of a dense layer's front
    height: float  # the rows of a map, or the units of a dense layer
    depth: float  # pixels of height that the columns recede like


def draw(result: Mapping[str, Any]) -> Figure:
    """The page of result.json's table."""
    rows = result["layers"]
    strips = [rows[: COLUMNS - 1], *(rows[n : n + COLUMNS] for n in range(COLUMNS - 1, len(rows), COLUMNS))]
    panels = [Panel(strip(result, some, first=n == 0)) for n, some in enumerate(strips)]
    name = result["architecture"]
    what = NETWORKS[name] if result["paper"] else f"{name} in sizes of its own"
    height, width = size_of(result["image_size"])
    heading = f"{counted(result['num_parameters'], 'parameter')}; images of {height}x{width} pixels"
    return canvas.page(f"Figure 3: {what}", [Section(heading, panels, 1)], caption())


def caption() -> list[str]:
    """The rule of the drawing."""
    return [
        "The rule: a block's height and depth are the rows and columns of its maps, its width their number, each in "
        "proportion to the square root, so that the largest just fit. Pale: after the filters; solid: what the layer "
        "hands on, after its pool and norm. Dense layers are maps of one place, set upright. Orange: the filter on "
        "what it reads. Numbers under the blocks: places of a side, or of both where they differ, or units.",
        "Weights: rows x columns x maps read (of one group) x filters. A place sees a square of so many pixels, zeros "
        "of the padding included; its neighbour sees the square so many pixels further.",
    ]


def strip(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, first: bool) -> np.ndarray:
    """One row of columns, the image's before the `first`: blocks, and the numbers under them. -> uint8 [H, WIDTH, 3]"""
    middle = 34 - DEPTH[1] * TALLEST + TALLEST / 2
    lines = max(len(row["then"]) for row in result["layers"])
    bottom = middle + TALLEST / 2 + 40
    figure = canvas.blank(WIDTH, int(bottom + (len(TEXT_ROWS) + lines - 1) * LINE + 4))
    tops = _tops(bottom, lines)
    for top, name in zip(tops, TEXT_ROWS, strict=True):
        ruler = np.array([(0, top), (WIDTH, top)])
        _polygon(figure, ruler, closed=False, fill=False, edgecolor="0.88", linewidth=0.6)
        _lines(figure, name, left=0, top=top, color="0.4")
    left, below = NAMES, None
    if first:
        channels = result["layers"][0]["input"][-1]
        sides = size_of(result["image_size"])
        tall, deep = (TALLEST * (side / max(sides)) ** 0.5 for side in sides)
        below = Block(left, middle, _proportions(result)[1] * channels**0.5, tall, deep)
        canvas.write(figure, "image", left=left, top=0, kind="heading")
        _draw_block(figure, below, colour=IMAGE, label=size_words(sides))
        left += COLUMN
    for row in rows:
        canvas.write(figure, row["layer"], left=left, top=0, kind="heading", room=COLUMN - 6)
        below = _draw_layer(figure, result, row=row, left=left, middle=middle, below=below)
        for top, text in zip(tops, words(row, result["image_size"]), strict=True):
            _lines(figure, text, left=left, top=top)
        left += COLUMN
    return canvas.pixels_of(figure)


def words(row: Mapping[str, Any], image_size: Size) -> list[str]:
    """A layer's entries under TEXT_ROWS."""
    weights = " x ".join(f"{side:,}" for side in row["kernel"])
    first, second = (" x ".join(f"{side:,}" for side in row[stage]) for stage in ("filtered", "output"))
    sees = [_sees(row["sees"][stage], image_size) for stage in ("filtered", "output")]
    pooled = row["sees"]["filtered"] != row["sees"]["output"]
    filtering = "-"
    if "stride" in row:
        filtering = f"{row['stride']}, {row['padding'][0]} and {row['padding'][1]}"
        filtering += f", {row['groups']} groups" if row["groups"] > 1 else ""
    return [
        weights,
        filtering,
        "\n".join(row["then"]),
        first,
        second,
        sees[0],
        sees[1] if pooled else "-",
        f"{row['parameters']:,}",
    ]


def blocks_of(result: Mapping[str, Any], *, row: Mapping[str, Any], left: float, middle: float) -> list[Block]:
    """The blocks of one layer: one, or two where a pool makes its maps smaller."""
    per_place, per_map = _proportions(result)
    if len(row["output"]) == 1:
        side = per_place
        return [Block(left, middle, side, per_map * row["output"][0] ** 0.5, side)]
    blocks = []
    for stage in ("filtered", "output") if row["filtered"] != row["output"] else ("output",):
        rows, columns, maps = row[stage]
        tall, deep = per_place * rows**0.5, per_place * columns**0.5
        blocks.append(Block(left, middle, per_map * maps**0.5, tall, deep))
        left += blocks[-1].width + DEPTH[0] * deep + GAP
    return blocks


def _proportions(result: Mapping[str, Any]) -> tuple[float, float]:
    """(pixels per root of a side's places, pixels per root of a number of maps or units): the largest just fit."""
    per_place = TALLEST / max(size_of(result["image_size"])) ** 0.5
    fits = []
    for row in result["layers"]:
        root = row["output"][-1] ** 0.5
        if len(row["output"]) == 1:
            fits.append(TALLEST_DENSE / root)
            continue
        fits.append(WIDEST / root)
        if row["filtered"] != row["output"]:  # two blocks share the column
            recede = DEPTH[0] * per_place * sum(row[stage][1] ** 0.5 for stage in ("filtered", "output"))
            fits.append((COLUMN - 2 * GAP - recede) / (2 * root))
    return per_place, min(fits)


def _draw_layer(
    figure: Figure,
    result: Mapping[str, Any],
    *,
    row: Mapping[str, Any],
    left: float,
    middle: float,
    below: Block | None,
) -> Block:
    """Draw the blocks of a layer, and its filter on the block that it reads; return the block that it hands on."""
    blocks, dense = blocks_of(result, row=row, left=left, middle=middle), len(row["output"]) == 1
    stages = ("filtered", "output")[-len(blocks) :]
    for block, stage in zip(blocks, stages, strict=True):
        colour = DENSE if dense else POOLED if stage == "output" else MAPS
        places = f"{row[stage][0]:,}" if dense else size_words(tuple(row[stage][:2]))
        _draw_block(figure, block, colour=colour, label=places)
    if below is not None:
        shares = [min(own / side, 1.0) for own, side in zip(row["kernel"][:2], row["input"][:2], strict=False)]
        down, across = (1.0, 1.0) if dense else shares
        _draw_filter(figure, blocks[0], below=below, down=down, across=across)
    return blocks[-1]


def _draw_block(figure: Figure, block: Block, *, colour: str, label: str) -> None:
    """Front, top and right face, the light from above; under it the side of its maps, or its units."""
    away = DEPTH * block.depth
    top, bottom = block.middle - block.height / 2, block.middle + block.height / 2
    near, far = np.array([block.left, top]), np.array([block.left + block.width, top])
    down = np.array([0, block.height])
    for corners, light in (
        ((near, far, far + down, near + down), 0.0),
        ((near, far, far + away, near + away), 0.35),
        ((far, far + away, far + away + down, far + down), -0.18),
    ):
        _polygon(figure, corners, facecolor=_lit(colour, light), edgecolor="0.3", linewidth=0.6)
    canvas.write(figure, label, left=block.left, top=bottom + 3)


def _draw_filter(figure: Figure, block: Block, *, below: Block, down: float, across: float) -> None:
    """A window of these shares of the face of the block below, and lines from its corners to where it is read."""
    face = np.array([below.left + below.width, below.middle - below.height / 2])
    right, height = DEPTH * below.depth, np.array([0, below.height])
    corners = ((-across, -down), (across, -down), (across, down), (-across, down))
    window = [face + (0.5 + x / 2) * right + (0.5 + y / 2) * height for x, y in corners]
    _polygon(figure, window, fill=False, edgecolor=KERNEL, linewidth=1.4)
    target = np.array([block.left, block.middle])
    for corner in window[1:3]:
        _polygon(figure, (corner, target), closed=False, fill=False, edgecolor=KERNEL, linewidth=0.8)


def _polygon(figure: Figure, corners: Sequence[np.ndarray] | np.ndarray, *, closed: bool = True, **style: Any) -> None:
    flipped = np.array([(x, figure.bbox.height - y) for x, y in corners])
    figure.add_artist(Polygon(flipped, closed=closed, transform=IdentityTransform(), joinstyle="round", **style))


def _lines(figure: Figure, text: str, *, left: float, top: float, **style: Any) -> None:
    """Lines of text that stand on the same lines in every column."""
    for n, line in enumerate(text.split("\n")):
        canvas.write(figure, line, left=left, top=top + (n + 0.75) * LINE, va="baseline", **style)


def _lit(colour: str, light: float) -> np.ndarray:
    """The colour mixed with white (light > 0) or black."""
    rgb = np.array(to_rgb(colour))
    return rgb + light * (1 - rgb) if light > 0 else rgb * (1 + light)


def _sees(field: Mapping[str, Any], image_size: Size) -> str:
    sides = zip(size_of(field["pixels"]), size_of(image_size), strict=True)
    if all(own >= side for own, side in sides):
        return "the whole image"
    return f"{size_words(field['pixels'])} px, every {size_words(field['every'])}"


def _tops(bottom: float, lines: int) -> list[float]:
    """Where the lines of TEXT_ROWS begin: "then" takes `lines`."""
    taken = [lines if name == "then" else 1 for name in TEXT_ROWS]
    return [bottom + LINE * sum(taken[:n]) for n in range(len(taken))]


def draw_layers(result: Mapping[str, Any]) -> Figure:
    """The page of a net that is no table: its layers in rows, blocks above what is known of each."""
    rows = result["layers"]
    strips = [rows[: COLUMNS - 1], *(rows[n : n + COLUMNS] for n in range(COLUMNS - 1, len(rows), COLUMNS))]
    panels = [Panel(layers_strip(result, some, first=n == 0)) for n, some in enumerate(strips)]
    height, width = size_of(result["image_size"])
    num = counted(result["num_parameters"], "parameter")
    heading = f"{counted(len(rows), 'layer')}; {num}; images of {height}x{width} pixels"
    caption = [*LAYERS_CAPTION, *lettering.left_out(result["not_applicable"])]
    return canvas.page(f"Figure 3: the layers of {result['architecture']}", [Section(heading, panels, 1)], caption)


LAYERS_CAPTION = (
    "The rule: a block's height and depth are the rows and columns of a layer's maps, its width their number, each in "
    "proportion to the square root, so that the largest just fit. Dense layers are maps of one place, set upright. "
    "Under the blocks: rows x columns, or units.",
    "Reads: the layers that a layer is made of. Does: the operations from there to the layer, in the order of the "
    "program; a matrix is one of weights, a product one of features, what norms do is left out. A place sees so many "
    "pixels, its neighbour those so many further. Parameters: numbers in the arrays that these operations take.",
)


def layers_strip(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, first: bool) -> np.ndarray:
    """One row of layers, the image before the `first`. -> uint8 [H, WIDTH, 3]"""
    middle = 34 - DEPTH[1] * TALLEST + TALLEST / 2
    words = [layer_words(row, result["image_size"]) for row in rows]
    lines = [max(len(of[n]) for of in words) for n in range(len(LAYER_ROWS))]
    bottom = middle + TALLEST / 2 + 40
    tops = [bottom + LINE * sum(lines[:n]) for n in range(len(LAYER_ROWS) + 1)]
    figure = canvas.blank(WIDTH, int(tops[-1] + 8))
    for top, name in zip(tops, LAYER_ROWS, strict=False):
        ruler = np.array([(0, top), (WIDTH, top)])
        _polygon(figure, ruler, closed=False, fill=False, edgecolor="0.88", linewidth=0.6)
        _lines(figure, name, left=0, top=top, color="0.4")
    left = NAMES
    if first:
        canvas.write(figure, "image", left=left, top=0, kind="heading")
        _draw_block(
            figure,
            _layer_block(result, None, left=left, middle=middle),
            colour=IMAGE,
            label=_sides(result["image_size"]),
        )
        left += COLUMN
    for row, of_row in zip(rows, words, strict=True):
        for n, (kind, line) in enumerate(heading(row["layer"])):
            canvas.write(figure, line, left=left, top=n * LINE, kind=kind)
        shape, is_dense = row["output"], len(row["output"]) == 1
        label = f"{shape[0]:,}" if is_dense else _sides(shape[:2])
        block = _layer_block(result, shape, left=left, middle=middle)
        _draw_block(figure, block, colour=DENSE if is_dense else POOLED, label=label)
        for top, text in zip(tops, of_row, strict=False):
            _lines(figure, "\n".join(text), left=left, top=top)
        left += COLUMN
    return canvas.pixels_of(figure)


def layer_words(row: Mapping[str, Any], image_size: Size) -> list[list[str]]:
    """A layer's entries under LAYER_ROWS, each in lines that fit a column."""

    def fitted(text: str, most: int = 2) -> list[str]:
        return lettering.lines(text, "label", COLUMN - 10, most=most)

    steps = row["steps"] or ["picks some of it"]
    if len(steps) > MOST_STEPS:
        steps = [*steps[: MOST_STEPS - 2], f"... and {len(steps) - MOST_STEPS + 1} more ...", steps[-1]]
    shape = row["output"]
    counts = f"{shape[0]:,} units" if len(shape) == 1 else f"{shape[2]:,} maps of {_sides(shape[:2])}"
    return [
        [line for name in row["reads"][:3] for line in fitted(name, 1)] + ["..."] * (len(row["reads"]) > 3),
        [line for step in steps for line in fitted(step)],
        fitted(counts),
        fitted(_seen(row, image_size)),
        [f"{row['parameters']:,}"],
    ]


def heading(name: str) -> list[tuple[str, str]]:
    """(kind, line) of a layer's name: one line where it fits, else two of smaller letters."""
    room = COLUMN - 8
    if lettering.text_width(name, "heading") <= room:
        return [("heading", name)]
    return [("label", line) for line in lettering.lines(name, "label", room, most=2)]


def _seen(row: Mapping[str, Any], image_size: Size) -> str:
    """What a place of a layer sees, as far as it is known."""
    field = row["sees"]
    if field is None:
        return "not known" if len(row["output"]) == 3 else "-"
    return _sees(field, image_size)


def _layer_block(result: Mapping[str, Any], shape: Sequence[int] | None, *, left: float, middle: float) -> Block:
    """The block of a layer of this shape, or of the image: roots of rows, columns and maps, so that the largest fit."""
    image = (*size_of(result["image_size"]), 3)
    maps = [image, *(row["output"] for row in result["layers"] if len(row["output"]) == 3)]
    units = [row["output"][0] for row in result["layers"] if len(row["output"]) == 1]
    per_place = TALLEST / max(max(of[:2]) for of in maps) ** 0.5
    per_map = min([WIDEST / max(of[2] for of in maps) ** 0.5, *(TALLEST_DENSE / num**0.5 for num in units)])
    rows, columns, num = image if shape is None else shape if len(shape) == 3 else (None, 1, shape[0])
    if rows is None:
        return Block(left, middle, per_place, per_map * num**0.5, per_place)
    return Block(left, middle, per_map * num**0.5, per_place * rows**0.5, per_place * columns**0.5)


def _sides(size: Size | Sequence[int]) -> str:
    height, width = size_of(size if isinstance(size, int) else (size[0], size[1]))
    return f"{height}x{width}"
