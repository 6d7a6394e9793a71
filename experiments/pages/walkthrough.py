"""The picture of Figure 1: the ladder of stages down to the pixels, and a lens on some windows of one pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.pages import canvas, lettering
from experiments.pages.canvas import Panel, Section
from zfjax import pixels
from zfjax.analyses.walkthrough import Layer, LayerWalk, Stage, Walk, switch_places
from zfjax.pixels import cut

WIDTH = 1440  # pixels of the ladder and of the lens
NAMES, GUTTER, LABEL = 112, 40, 19  # pixels: the rows' names, between columns, a line above a tile
LARGEST_TILE = 200
LENS_TILE, LENS_PLACES = 250, 5  # pixels; windows of the pool along each side
DOWN, UP, SWITCH = "#1f5fbf", "0.55", "#e07b00"  # the deconvnet's way, the convnet's way, the switches
OUTSIDE = 224  # light grey, where what a unit sees reaches beyond the picture
NO_POOL: dict[str, Any] = {"ha": "center", "va": "center", "color": "0.6"}
ROWS = ("the map on\nthe way up", "switches\nof its pool", "from above", "unpooled\nat the switches", "rectified")


def draw(walk: Walk) -> Figure:
    """The page: ladder, lens where a pool lies on the way, caption."""
    sections = [Section("Every stage, from the unit down to the pixels", [Panel(ladder(walk))], 1)]
    pooled = [stage for stage in walk.stages if stage.pool]
    if pooled:
        sections.append(Section(f"A closer look: unpooling in {pooled[-1].layer}", [Panel(lens(pooled[-1]))], 1))
    return canvas.page(walk.title, sections, caption(walk))


LAYER_ROWS = ("the map on\nthe way up", "what comes\ndown there")  # of a network that is no table
MOST_LAYERS = 7  # that are drawn
WAY_WORDS = {"deconvnet": "deconvnet", "gradient": "gradient", "guided": "guided backpropagation"}


def draw_layers(walk: LayerWalk) -> Figure:
    """The page of a network that is no table: its layers from the unit's down, the pixels, and three ways down."""
    drawn = some_of(walk.layers)
    heading = "From the unit down to the pixels, layer by layer"
    if len(drawn) < len(walk.layers):
        heading += f" ({len(drawn)} of {len(walk.layers)} layers are drawn)"
    sections = [Section(heading, [Panel(layer_ladder(walk, drawn))], 1)]
    scales = {way: pixels.symmetric_scale(of) for way, of in walk.projections.items()}
    tiles = [
        Panel(
            pixels.resized(pixels.signed_pictures(of, scales[way])[None], LARGEST_TILE)[0],
            f"{WAY_WORDS[way]}, white = +{lettering.two_digits(scales[way])}",
        )
        for way, of in walk.projections.items()
    ]
    sections.append(Section("The same unit by three ways down", tiles, len(tiles)))
    return canvas.page(walk.title, sections, layers_caption(walk))


def some_of(layers: Sequence[Layer]) -> list[Layer]:
    """At most MOST_LAYERS of the layers, the first and the last among them, evenly spread."""
    places = np.linspace(0, len(layers) - 1, min(len(layers), MOST_LAYERS)).round().astype(int)
    return [layers[place] for place in places]


def layers_caption(walk: LayerWalk) -> list[str]:
    """How to read the page, and what is left out."""
    known = any(of.above is not None for of in walk.layers)
    chosen = (
        "In every layer one map is drawn: of those that the image excites, the one that carries most of what comes "
        "down; all maps take part. What comes down at a layer is the derivative of the unit's value by its features, "
        "with the deconvnet's rule at every rectifier on the way."
        if known
        else "In every layer the strongest map is drawn."
    )
    return [
        f"Columns from left to right lead from the unit's layer down. {chosen}",
        *([where(walk.numbers)] if walk.box is not None or walk.numbers["energy_on_object"] is not None else []),
        "Zero is mid-grey; white is the 99.5th percentile of the |values|, of a map on the way up its largest. Orange "
        "frames: the unit, and what it sees. The gradient passes where the ReLU was open on the way up, guided "
        "backpropagation only where the signal is positive too.",
        canvas.SWITCHES_NOTE,
        *lettering.grey_projections(next(iter(walk.projections.values())).shape[-1]),
        *lettering.left_out(walk.not_applicable),
    ]


def layer_ladder(walk: LayerWalk, drawn: Sequence[Layer]) -> np.ndarray:
    """One column for each layer and one for the pixels. -> uint8 [H, WIDTH, 3]"""
    num = len(drawn) + 1
    tile = min(LARGEST_TILE, (WIDTH - NAMES - (num - 1) * GUTTER) // num)
    lefts = [NAMES + n * (tile + GUTTER) for n in range(num)]
    tops = [24 + 2 * LABEL + row * (tile + 2 * LABEL + 4) for row in range(len(LAYER_ROWS))]
    figure = canvas.blank(WIDTH, tops[-1] + tile + 4)
    for top, name in zip(tops, LAYER_ROWS, strict=True):
        canvas.write(figure, name, left=0, top=top + tile / 2, va="center")
    for n, (of, left) in enumerate(zip(drawn, lefts, strict=False)):
        _draw_layer(figure, of, walk=walk, left=left, tops=tops, tile=tile, is_unit=n == 0)
        canvas.arrow(
            figure, [(left + tile + GUTTER - 4, tops[0] + tile / 2), (left + tile + 4, tops[0] + tile / 2)], UP
        )
        if of.above is not None:
            ends = [(left + tile + 4, tops[1] + tile / 2), (left + tile + GUTTER - 4, tops[1] + tile / 2)]
            canvas.arrow(figure, ends, DOWN)
    left, projection = lefts[-1], walk.projections["deconvnet"]
    scale = pixels.symmetric_scale(projection)
    canvas.write(figure, "pixels", left=left, top=0, kind="heading")
    canvas.write(figure, "the image", left=left, top=tops[0] - LABEL)
    canvas.write(figure, f"white = +{lettering.two_digits(scale)}", left=left, top=tops[1] - LABEL)
    for top, sheet in zip(tops, (walk.picture, pixels.signed_pictures(projection, scale)), strict=True):
        axes = canvas.show(figure, sheet, left=left, top=top, side=tile)
        if walk.box is not None:
            above, edge, bottom, right = walk.box
            size, corner = (right - edge, bottom - above), (edge - 0.5, above - 0.5)
            axes.add_patch(Rectangle(corner, *size, fill=False, color=SWITCH, linewidth=1.5))
    return canvas.pixels_of(figure)


def _draw_layer(
    figure: Figure, of: Layer, *, walk: LayerWalk, left: int, tops: Sequence[int], tile: int, is_unit: bool
) -> None:
    facts, room = walk.numbers["layers"][of.layer], tile + GUTTER - 8
    canvas.write(figure, of.layer, left=left, top=0, kind="heading", room=room)
    canvas.write(figure, of.title, left=left, top=tops[0] - 2 * LABEL, room=room)
    up = float(np.abs(of.handed_on).max())
    canvas.write(figure, f"white = +{lettering.two_digits(up)}", left=left, top=tops[0] - LABEL)
    axes = [canvas.show(figure, grey(of.handed_on, up), left=left, top=tops[0], side=tile)]
    if of.above is None:
        canvas.write(figure, "not known", left=left + tile / 2, top=tops[1] + tile / 2, **NO_POOL)
    else:
        scale = pixels.symmetric_scale(of.above)
        reached = f"{lettering.percent(facts['reached'])} of places reached" if facts["reached"] else "nothing arrives"
        canvas.write(figure, reached, left=left, top=tops[1] - 2 * LABEL, room=room)
        canvas.write(figure, f"white = +{lettering.two_digits(scale)}", left=left, top=tops[1] - LABEL)
        axes.append(canvas.show(figure, grey(of.above, scale), left=left, top=tops[1], side=tile))
    if is_unit and walk.place:
        corner = (walk.place[1] - 0.5, walk.place[0] - 0.5)
        for each in axes:
            each.add_patch(Rectangle(corner, 1, 1, fill=False, color=SWITCH, linewidth=2))


def caption(walk: Walk) -> list[str]:
    """How to read the page, and where the projection lies."""
    closer_look = (
        "The closer look shows the strongest part of a map: each window hands on its largest value and remembers its "
        "place (arrow and colour; a dot is the middle). What comes from above goes to exactly these places; values "
        "that meet add up; the rest is zero. Rectification then removes what is negative."
    )
    return [
        "Columns from left to right, each from its third row down. In every layer one map is drawn: of those that the "
        "image excites, the one that carries most of the signal; all maps take part. What comes from above is unpooled "
        "at the switches that the pool set on the way up, rectified, and filtered with the layer's transposed filters: "
        "that is what comes from above in the next column, and at last the pixels. No bias, no contrast norm.",
        *([closer_look] if any(stage.pool for stage in walk.stages) else []),
        where(walk.numbers),
        "Zero is mid-grey. The three signals of a column share one scale, the 99.5th percentile of their |values|; "
        "maps on the way up have their own. Switches: the colour says where in its window the maximum stood, the "
        "brightness how much was handed on. Grey arrows lead up, blue ones down, orange ones carry switches; orange "
        "frames: the unit, and what it sees; light grey: beyond the picture.",
        canvas.SWITCHES_NOTE,
        *lettering.grey_projections(walk.projection.shape[-1]),
    ]


def where(numbers: Mapping[str, Any]) -> str:
    """In words, where the projection's energy lies."""
    words = f"Of the projection's energy, {numbers['energy_in_field']:.0%} lies inside what the unit sees"
    on_object = numbers["energy_on_object"]
    if on_object is None:
        return f"{words}."
    return f"{words}, {on_object['value']:.0%} on the object, which covers {on_object['by_chance']:.0%} of that."


def ladder(walk: Walk) -> np.ndarray:
    """One column for each stage and one for the pixels. -> uint8 [H, WIDTH, 3]"""
    num = len(walk.stages) + 1
    tile = min(LARGEST_TILE, (WIDTH - NAMES - (num - 1) * GUTTER) // num)
    lefts = [NAMES + n * (tile + GUTTER) for n in range(num)]
    tops = [24 + LABEL + row * (tile + LABEL + 4) for row in range(len(ROWS))]
    figure = canvas.blank(WIDTH, tops[-1] + tile + 4)
    for top, name in zip(tops, ROWS, strict=True):
        canvas.write(figure, name, left=0, top=top + tile / 2, va="center")
    pools = [stage.pool for stage in walk.stages if stage.pool]
    if pools:
        canvas.show(figure, switch_colours(pools[-1].size), left=0, top=tops[1] + tile // 2 + 24, side=48)
    for n, stage in enumerate(walk.stages):
        removed = walk.numbers["layers"][stage.layer]["removed"]
        _draw_stage(figure, stage, removed=removed, left=lefts[n], tops=tops, tile=tile, place=() if n else walk.place)
        _connect(figure, stage, left=lefts[n], tops=tops, tile=tile)
    _draw_pixels(figure, walk, left=lefts[-1], tops=tops, tile=tile)
    return canvas.pixels_of(figure)


def lens(stage: Stage) -> np.ndarray:
    """A few windows of one pool, around the strongest signal, the switches as arrows. -> uint8 [H, WIDTH, 3]"""
    pool, switches = stage.pool, stage.switches
    assert pool is not None and switches is not None and stage.pool_input is not None
    rows, columns = (around(place, side) for place, side in zip(_strongest(stage.above), switches.shape, strict=True))
    windows = np.s_[rows[0] : rows[1], columns[0] : columns[1]]
    y, x = (places[windows].ravel() for places in switch_places(switches, pool))
    pixels = [(first * pool.stride, (last - 1) * pool.stride + pool.size) for first, last in (rows, columns)]
    below = np.s_[pixels[0][0] : pixels[0][1], pixels[1][0] : pixels[1][1]]
    pooled = stage.pool_input[switch_places(switches, pool)]
    colours = switch_colours(pool.size).reshape(-1, 3)[switches[windows].ravel()] / 255
    scale, bright = _scale(stage), float(stage.pool_input[below].max())
    tiles = (
        ("on the way up: the maxima", stage.pool_input[below], bright),
        ("pooled, and the switches", pooled[windows], bright),
        ("from above", stage.above[windows], scale),
        ("unpooled at the switches", stage.unpooled[below], scale),
        ("rectified", stage.rectified[below], scale),
    )
    gap = (WIDTH - len(tiles) * LENS_TILE) // (len(tiles) - 1)
    figure = canvas.blank(WIDTH, LENS_TILE + LABEL + 26)
    frames = []
    for n, (label, values, white) in enumerate(tiles):
        left = n * (LENS_TILE + gap)
        canvas.write(figure, f"{label}  (white = +{lettering.two_digits(white)})", left=left, top=0)
        frames.append(canvas.show(figure, grey(values, white), left=left, top=LABEL, side=LENS_TILE))
    for axes in (frames[0], frames[3]):
        axes.scatter(x - pixels[1][0], y - pixels[0][0], s=30, facecolors="none", edgecolors=colours, linewidths=1.6)
    _draw_arrows(frames[1], switches[windows], size=pool.size, colours=colours)
    middle = LABEL + LENS_TILE / 2
    for n, colour in ((0, UP), (2, DOWN), (3, DOWN)):
        start = n * (LENS_TILE + gap) + LENS_TILE
        canvas.arrow(figure, [(start + 6, middle), (start + gap - 6, middle)], colour)
    from_switch, to_unpooled = (n * (LENS_TILE + gap) + LENS_TILE / 2 for n in (1, 3))
    low = LABEL + LENS_TILE
    canvas.arrow(
        figure,
        [(from_switch, low + 3), (from_switch, low + 16), (to_unpooled, low + 16), (to_unpooled, low + 3)],
        SWITCH,
    )
    return canvas.pixels_of(figure)


def switch_colours(size: int) -> np.ndarray:
    """A colour for each place of a window: hue by direction from the middle, which is white. -> uint8 [s, s, 3]"""
    y, x = np.indices((size, size)) - (size - 1) / 2
    distance = np.hypot(y, x)
    hue = (np.arctan2(y, x) / (2 * np.pi)) % 1.0
    hsv = np.stack([hue, 0.85 * (distance > 0), np.ones_like(hue)], axis=-1)
    return np.floor(hsv_to_rgb(hsv) * 255 + 0.5).astype(np.uint8)


def switch_picture(stage: Stage) -> np.ndarray:
    """Each window in the colour of its switch, as bright as the root of what it hands on. -> uint8 [H, W, 3]"""
    assert stage.pool is not None and stage.switches is not None
    most = stage.handed_on.max()
    light = np.sqrt(np.clip(stage.handed_on, 0, None) / (most if most > 0 else 1))
    colours = switch_colours(stage.pool.size).reshape(-1, 3)[stage.switches]
    picture: np.ndarray = np.floor(colours * light[..., None] + 0.5).astype(np.uint8)
    return picture


def grey(values: np.ndarray, scale: float) -> np.ndarray:
    """Signed values [H, W] as mid-grey +- scale. -> uint8 [H, W, 3]"""
    return pixels.signed_pictures(np.repeat(values[..., None], 3, axis=-1), scale)


def _draw_stage(
    figure: Figure, stage: Stage, *, removed: float, left: int, tops: Sequence[int], tile: int, place: tuple[int, ...]
) -> None:
    canvas.write(figure, stage.layer, left=left, top=tops[0] - LABEL - 22, kind="heading", room=tile + GUTTER - 6)
    up, scale = float(np.abs(stage.handed_on).max()), _scale(stage)
    canvas.write(figure, stage.title, left=left, top=tops[0] - LABEL, room=tile + GUTTER - 6)
    canvas.write(figure, f"white = +{lettering.two_digits(scale)}", left=left, top=tops[2] - LABEL)
    canvas.write(figure, f"{lettering.percent(removed)} removed", left=left, top=tops[4] - LABEL)
    axes = [canvas.show(figure, grey(stage.handed_on, up), left=left, top=tops[0], side=tile)]
    axes.append(canvas.show(figure, grey(stage.above, scale), left=left, top=tops[2], side=tile))
    if place:
        for each in axes:
            corner = (place[1] - 0.5, place[0] - 0.5)
            each.add_patch(Rectangle(corner, 1, 1, fill=False, color=SWITCH, linewidth=2))
    if stage.pool:
        canvas.show(figure, switch_picture(stage), left=left, top=tops[1], side=tile)
        canvas.show(figure, grey(stage.unpooled, scale), left=left, top=tops[3], side=tile)
    else:
        for row in (1, 3):
            canvas.write(figure, "no pool", left=left + tile / 2, top=tops[row] + tile / 2, **NO_POOL)
    canvas.show(figure, grey(stage.rectified, scale), left=left, top=tops[4], side=tile)


def _connect(figure: Figure, stage: Stage, *, left: int, tops: Sequence[int], tile: int) -> None:
    """The arrows of one column, and the one that leads to the next."""
    right, half = left + tile, tile / 2
    canvas.arrow(figure, [(right + GUTTER - 4, tops[0] + half), (right + 4, tops[0] + half)], UP)
    if stage.pool:
        switch = [(right + 2, tops[1] + half), (right + 9, tops[1] + half), (right + 9, tops[3] + half)]
        canvas.arrow(figure, [*switch, (right + 1, tops[3] + half)], SWITCH)
    for first, last in ((2, 3), (3, 4)) if stage.pool else ((2, 4),):
        x = left + 0.93 * tile  # beside the line above the tile
        canvas.arrow(figure, [(x, tops[first] + tile + 1), (x, tops[last] - 1)], DOWN)
    bend = right + 19
    canvas.arrow(
        figure,
        [
            (right + 2, tops[4] + half),
            (bend, tops[4] + half),
            (bend, tops[2] + half),
            (right + GUTTER - 2, tops[2] + half),
        ],
        DOWN,
    )
    canvas.write(
        figure, stage.leaves, left=bend + 3, top=tops[4] + half, rotation=90, ha="left", va="bottom", color=DOWN
    )


def _draw_pixels(figure: Figure, walk: Walk, *, left: int, tops: Sequence[int], tile: int) -> None:
    scale = pixels.symmetric_scale(walk.projection)
    projected = pixels.signed_pictures(walk.projection, scale)
    canvas.write(figure, "pixels", left=left, top=tops[0] - LABEL - 22, kind="heading")
    canvas.write(figure, "the image", left=left, top=tops[0] - LABEL)
    canvas.write(figure, f"white = +{lettering.two_digits(scale)}", left=left, top=tops[2] - LABEL)
    for row, sheet in ((0, walk.picture), (2, projected)):
        axes = canvas.show(figure, sheet, left=left, top=tops[row], side=tile)
        if walk.box is None:
            continue
        top, edge, bottom, right = walk.box
        frame = Rectangle((edge - 0.5, top - 0.5), right - edge, bottom - top, fill=False, color=SWITCH, linewidth=1.5)
        axes.add_patch(frame)
        canvas.write(figure, ("what the unit sees", "", "its projection")[row], left=left, top=tops[row + 1] - LABEL)
        canvas.show(figure, cut(sheet, walk.box, OUTSIDE), left=left, top=tops[row + 1], side=tile)


def _draw_arrows(axes: Axes, switches: np.ndarray, *, size: int, colours: np.ndarray) -> None:
    """In each pooled place an arrow to where its maximum stood in the window; a dot for the middle."""
    for (row, column), colour in zip(np.ndindex(switches.shape), colours, strict=True):
        toward = (np.array(divmod(int(switches[row, column]), size)) - (size - 1) / 2) / size
        if toward.any():
            axes.annotate(
                "",
                (column + toward[1], row + toward[0]),
                (column - toward[1], row - toward[0]),
                arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 0, "shrinkB": 0},
            )
        else:
            axes.plot(column, row, "o", color=colour, markersize=6, markeredgecolor="0.4")


def _scale(stage: Stage) -> float:
    return pixels.symmetric_scale(np.concatenate([stage.above.ravel(), stage.unpooled.ravel()]))


def _strongest(values: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
    return int(row), int(column)


def around(place: int, side: int) -> tuple[int, int]:
    """LENS_PLACES places around one, inside the map: first and one past the last."""
    first = min(max(place - LENS_PLACES // 2, 0), max(side - LENS_PLACES, 0))
    return first, min(first + LENS_PLACES, side)
