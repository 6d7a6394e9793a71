"""The forward pass of images that differ from one image in a rectangle each, at the cost of what the rectangle changes.

A rectangle of pixels changes a rectangle of every map: the places whose filter or pool looks into it. So the maps of
the one image are computed once, and of each other image only that part [h, w, C] of every map, from what the part and
its surroundings hold below. Parts grow on the way up. One that would be as large as its map becomes the map; from
there on, and in dense layers, all is computed.

The sides of the parts follow from the table and the rectangle's sides alone, so all rectangles go up together as
arrays. At a border a part is moved inwards: what it then holds beyond the change is as in the one image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.architecture import Architecture, ContrastNorm, Conv, Pool, pooled_size
from zfjax.network import Params, forward
from zfjax.ops import contrast_norm, conv, max_pool

Stage = Conv | Pool | ContrastNorm  # of a layer: its filters with bias and ReLU, or what comes after them


def layers_where_changed(
    params: Params,
    image: jax.Array,
    patches: jax.Array,
    *,
    corners: jax.Array,
    layers: Sequence[str],
    architecture: Architecture,
) -> dict[str, jax.Array]:
    """What layers hand on of `image` with each of the patches pasted in: up to rounding, as of whole forward passes.

    Args:
      params, architecture: as for `zfjax.forward`.
      image: float [H, W, C], as `forward` reads it.
      patches: [N, h, w, C], each in the place of the image's own pixels.
      corners: int32 [N, 2], the corner (top, left) of each patch, which lies inside the image.
      layers: whose features are wanted.

    Returns:
      {layer: [N, ...]}; UserError for an image of another size or parameters of another architecture.
    """
    jax.eval_shape(partial(forward, architecture=architecture), params, image[None])  # for its checks
    scale = jnp.asarray(architecture.input_scale, image.dtype)
    part, one = _Part(patches * scale, corners[:, 0], corners[:, 1]), image[None] * scale
    features: dict[str, jax.Array] = {}
    for row in architecture.layers:
        if not isinstance(row, Conv) or part.values.shape[1:3] == one.shape[1:3]:
            break
        for stage in (row, *row.after):
            part, one = _next(stage, params[row.name], part=part, one=one)
        features[row.name] = _pasted(part, one)
    if above := architecture.layers[len(features) :]:
        maps = _pasted(part, one)
        _, height, width, channels = maps.shape
        rest = dataclasses.replace(
            architecture, layers=above, image_size=(height, width), channels=channels, input_scale=1.0
        )
        features |= {name: of.features for name, of in forward(params, maps, architecture=rest)[1].items()}
    return {name: features[name] for name in layers}


def times_saved(architecture: Architecture, sides: Sequence[int]) -> float:
    """How many times as many products a whole forward pass takes as the part that a patch of these sides changes."""
    whole = changed = 0
    for row in architecture.layers:
        sizes = architecture.sizes()[row.name]
        products, above = math.prod(sizes.kernel), sizes.input[:2]
        if not isinstance(row, Conv):
            whole, changed = whole + products, changed + products
            continue
        for stage in (row, *row.after):
            above = tuple(_places(stage, side) for side in above)
            sides = [_look_of(stage).reached(side, places) for side, places in zip(sides, above, strict=True)]
            if stage is row:
                whole, changed = whole + products * math.prod(above), changed + products * math.prod(sides)
    return whole / changed


class _Part(NamedTuple):
    """What N images hold of a map, where they may differ from the one image."""

    values: jax.Array  # [N, h, w, C]
    row: jax.Array  # int32 [N] the map's row at which the part begins
    column: jax.Array  # int32 [N]


class _Look(NamedTuple):
    """How a stage looks at a map: its place i at `size` rows, of which i * stride - before is the first."""

    size: int = 1
    stride: int = 1
    before: int = 0
    outside: float = 0.0  # what the map is taken to hold beyond its border

    def reached(self, length: int, places: int) -> int:
        """How many of all `places` along one side may look at `length` neighbouring rows."""
        return min(places, (length + self.size - 2) // self.stride + 1)

    def first(self, start: jax.Array, reached: int, places: int) -> jax.Array:
        """The first of the `reached` places that look at the rows from `start` on."""
        return jnp.clip(-((self.size - 1 - self.before - start) // self.stride), 0, places - reached)

    def rows(self, places: int) -> int:
        """How many rows that many neighbouring places look at."""
        return (places - 1) * self.stride + self.size


def _look_of(stage: Stage) -> _Look:
    if isinstance(stage, Conv):
        return _Look(stage.kernel, stage.stride, stage.padding[0])
    return _Look(stage.size, stage.stride, outside=-np.inf) if isinstance(stage, Pool) else _Look()


def _places(stage: Stage, side: int) -> int:
    """Places along one side of what the stage makes of a map of this side."""
    if isinstance(stage, Conv):
        return (side + sum(stage.padding) - stage.kernel) // stage.stride + 1
    return pooled_size(side, stage) if isinstance(stage, Pool) else side


def _next(stage: Stage, params: Mapping[str, jax.Array], *, part: _Part, one: jax.Array) -> tuple[_Part, jax.Array]:
    """The part and the one image's map after the stage."""
    if isinstance(stage, ContrastNorm):
        return part._replace(values=contrast_norm(part.values, stage)), contrast_norm(one, stage)
    look, starts = _look_of(stage), (part.row, part.column)
    places = [_places(stage, side) for side in one.shape[1:3]]
    reached = [look.reached(side, all_) for side, all_ in zip(part.values.shape[1:3], places, strict=True)]
    firsts = [look.first(*of) for of in zip(starts, reached, places, strict=True)]
    corner = [first * look.stride - look.before for first in firsts]
    below = _seen(part, one, corner=corner, sides=[look.rows(num) for num in reached], outside=look.outside)
    whole = _Part(one, *(jnp.zeros(1, jnp.int32),) * 2)
    below_one = _seen(
        whole,
        one,
        corner=[jnp.array([-look.before])] * 2,
        sides=[look.rows(num) for num in places],
        outside=look.outside,
    )
    return _Part(_run(stage, params, below), *firsts), _run(stage, params, below_one)


def _run(stage: Conv | Pool, params: Mapping[str, jax.Array], maps: jax.Array) -> jax.Array:
    """The stage, of maps that hold what lies outside the border already."""
    if isinstance(stage, Pool):
        return max_pool(maps, size=stage.size, stride=stage.stride).values
    filters = dataclasses.replace(stage, padding=(0, 0), after=())
    return jax.nn.relu(conv(maps, params["kernel"], filters) + params["bias"][None, None, None])


def _pasted(part: _Part, one: jax.Array) -> jax.Array:
    """Whole maps: the part in its place, the one image's map around it."""
    zero = jnp.zeros_like(part.row)
    return _seen(part, one, corner=[zero, zero], sides=one.shape[1:3], outside=0.0)


def _seen(
    part: _Part, one: jax.Array, *, corner: Sequence[jax.Array], sides: Sequence[int], outside: float
) -> jax.Array:
    """Rectangles of the N maps, [N, *sides, C]: of the part where it reaches, of the one image's map around it."""
    lines = [start[:, None] + jnp.arange(side)[None] for start, side in zip(corner, sides, strict=True)]
    inside = [(0 <= line) & (line < side) for line, side in zip(lines, one.shape[1:3], strict=True)]
    own = [line - start[:, None] for line, start in zip(lines, part[1:], strict=True)]
    changed = [(0 <= line) & (line < side) for line, side in zip(own, part.values.shape[1:3], strict=True)]
    around = one[0][_grid(lines, one.shape[1:3])]
    values = part.values[(jnp.arange(len(part.row))[:, None, None], *_grid(own, part.values.shape[1:3]))]
    values = jnp.where(_both(changed), values, around)
    return jnp.where(_both(inside), values, jnp.asarray(outside, values.dtype))


def _grid(lines: Sequence[jax.Array], sides: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    rows, columns = (jnp.clip(line, 0, side - 1) for line, side in zip(lines, sides, strict=True))
    return rows[:, :, None], columns[:, None, :]


def _both(lines: Sequence[jax.Array]) -> jax.Array:
    rows, columns = lines
    return (rows[:, :, None] & columns[:, None, :])[..., None]
