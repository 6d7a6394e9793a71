"""The images that drive each feature map most, found in one streaming pass over a set (the choice behind Fig. 2).

`init` and `update` keep, for every map, the `k` images with the strongest activation seen so far and the place where
it stood; their memory does not grow with the set. `scan` runs them over batches on all devices;
`deconvnet.project_places`, by its name of before `project_strongest`, carries what was found down to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

from zfjax import parallel
from zfjax.deconvnet import project_places
from zfjax.errors import UserError
from zfjax.features import WHY_NOT_FINITE, Features, check_places, layer_words
from zfjax.programs import as_partial, compiled


class TopActivations(NamedTuple):
    """The strongest activations of each map of one layer, at most one per image, strongest first.

    A dead map, which no image excites, holds the first images with the value 0: see `alive`.

    Examples:
      >>> import numpy as np, zfjax
      >>> features = np.array([[3.0, 0.0], [1.0, 5.0]], np.float32)  # two images, two units
      >>> top = zfjax.top_activations.update(zfjax.top_activations.init(2, k=1), features, np.array([7, 8]))
      >>> top.values[:, 0], top.images[:, 0]
      (Array([3., 5.], dtype=float32), Array([7, 8], dtype=int32))
    """

    values: jax.Array  # float32 [C, k] activations, descending; -inf where there is none yet
    images: jax.Array  # int32 [C, k] index of the image in its set; -1 where there is none yet
    rows: jax.Array  # int32 [C, k] place in the map, 0 for a dense layer
    columns: jax.Array  # int32 [C, k]


State = Any  # TopActivations of one array of features, or a tree of them, such as {layer: TopActivations}


def init(num_maps: Any, k: int = 9) -> State:
    """The state of a scan before its first image.

    Args:
      num_maps: the tree of features with the number of maps or units of each, such as {layer: 96} or 96 alone.
      k: images to keep for each map; the paper shows 9.

    Returns:
      The tree with TopActivations; UserError for no layer at all or k below 1.

    Examples:
      >>> import zfjax
      >>> zfjax.top_activations.init({"conv5": 256}, k=9)["conv5"].values.shape
      (256, 9)
    """
    if k < 1:
        raise UserError(f"k={k!r}: at least 1 image per map is needed")
    if not jax.tree.leaves(num_maps):
        raise UserError(f"num_maps={num_maps!r}: at least one layer is needed")

    def empty(num: int) -> TopActivations:
        values = np.full((num, k), -np.inf, np.float32)
        images, rows, columns = (np.full((num, k), value, np.int32) for value in (-1, 0, 0))
        return TopActivations(*jax.device_put((values, images, rows, columns)))  # which compiles nothing

    return jax.tree.map(empty, num_maps)


def update(state: State, features: Any, indices: jax.Array) -> State:
    """The state of a scan after one more batch.

    Each image offers each map one activation, its maximum over the places (the first of equal ones): the nine
    pictures of Fig. 2 are nine images. Of equal activations the image with the lower index stands first, so neither
    the order nor the size of the batches matters. Each image of the set is to come once.

    Args:
      state: from `init` or `update`.
      features: [B, H, W, C] or [B, C], or the tree of them; names outside the state are not looked at.
      indices: int32 [B], index of each image in the set; negative ones are padding and ignored.

    Returns:
      The new state; UserError where indices and features differ in B, or state and features in their maps, and for
      features whose places are not (y, x).

    Examples:
      >>> import numpy as np, zfjax
      >>> features = np.array([[[[1.0, 0.0], [4.0, 2.0]]]], np.float32)  # one image, 1 x 2 places, two maps
      >>> top = zfjax.top_activations.update(zfjax.top_activations.init(2, k=1), features, np.array([7]))
      >>> top.values[:, 0], top.columns[:, 0]
      (Array([4., 2.], dtype=float32), Array([1, 1], dtype=int32))
    """
    watched = _watched(state, features)
    return _merged(state, jax.tree.map(lambda maps: _strongest_places(maps, indices), watched))


def alive(top: TopActivations) -> np.ndarray:
    """bool [C]: some image excites the map, that is, its strongest activation is above zero.

    Examples:
      >>> import numpy as np, zfjax
      >>> empty, features = zfjax.top_activations.init(2), np.array([[3.0, 0.0]], np.float32)
      >>> zfjax.top_activations.alive(zfjax.top_activations.update(empty, features, np.array([0])))
      array([ True, False])
    """
    return np.asarray(top.values)[:, 0] > 0


def scan(
    fn: Features,
    batches: Iterable[Mapping[str, np.ndarray]],
    state: State,
    *,
    on_batch: Callable[[State], None] | None = None,
    name: str = "fn",
) -> State:
    """`update` over the batches of a set, compiled once for all layers, on all devices.

    Every device offers the maxima of its images to all others, so all devices of all hosts hold the same state, and
    it does not depend on their number. One batch is read while one is computed; nothing else accumulates.

    Args:
      fn: images -> features or a tree of them, of any network; `features.layers_of_pictures` makes one.
      batches: this host's rows of each batch: {"image": [b, ...] as fn reads them, "index": int32 [b], -1 padding};
        other entries are not read.
      state: from `init`, or where to go on from.
      on_batch: called with the state after each batch, to save it or to show progress.
      name: what `fn` is called where its features are refused, as "net='small'".

    Returns:
      The state after the last batch; UserError where `state` is not of the maps that `fn` gives, or for activations
      that are not finite (see `check_finite`).

    Examples:
      >>> import numpy as np, zfjax
      >>> fn = lambda images: {"mean": images.mean((1, 2))}
      >>> images = np.arange(16.0, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 3), np.float32)
      >>> batches = [{"image": images[rows], "index": np.arange(16)[rows]} for rows in (slice(8), slice(8, 16))]
      >>> top = zfjax.top_activations.scan(fn, batches, zfjax.top_activations.init({"mean": 3}, k=2))
      >>> top["mean"].images
      Array([[15, 14],
             [15, 14],
             [15, 14]], dtype=int32)
    """
    fn, state = parallel.replicate((as_partial(fn), state))
    for batch in batches:
        rows = {"image": batch["image"], "index": np.asarray(batch["index"], np.int32)}
        before, state = state, _scan_step()((fn, state), parallel.split(rows))
        jax.block_until_ready(before)  # otherwise batches pile up in memory where reading is faster than computing
        if on_batch is not None:
            on_batch(state)
    return check_finite(state, name)


def check_finite(state: State, name: str = "fn") -> State:
    """The state; UserError that names the layer, map and image of a strongest activation that is not finite.

    NaN counts as the strongest of all, so that none is overlooked. `name` is what the features are of.
    """
    for path, top in jax.tree.leaves_with_path(state, is_leaf=_is_top):
        values, images = np.asarray(top.values), np.asarray(top.images)
        bad = np.argwhere((images >= 0) & ~np.isfinite(values))
        if len(bad):
            (channel, rank), num = bad[0], len(np.unique(bad[:, 0]))
            raise UserError(
                f"{name}: {layer_words(path)} is not finite in {num} of {len(values)} maps, first in map {channel}: "
                f"{values[channel, rank]} for image {images[channel, rank]}; {WHY_NOT_FINITE}"
            )
    return state


project_strongest = project_places  # its name of before


def _strongest_places(features: jax.Array, indices: jax.Array) -> TopActivations:
    """Of each image and map the maximum, its image index, row and column, each [B, C]."""
    batch, *places, channels = check_places(features).shape
    if indices.shape != (batch,):
        raise UserError(f"indices of shape {indices.shape}: one for each of the features' {batch} images is needed")
    flat = features.reshape(batch, -1, channels)
    values, place = lax.platform_dependent(flat, cpu=strongest_by_turns, default=strongest_by_reduction)
    width = jnp.int32(places[1] if places else 1)
    real = jnp.broadcast_to((indices >= 0)[:, None], values.shape)
    images = jnp.broadcast_to(indices.astype(jnp.int32)[:, None], values.shape)
    nothing = jnp.zeros_like(place)
    return TopActivations(
        jnp.where(real, values, -jnp.inf),
        jnp.where(real, images, jnp.full_like(images, -1)),
        jnp.where(real, place // width, nothing),
        jnp.where(real, place % width, nothing),
    )


# A CPU's reduction to a maximum and its place takes one number at a time; place by place it takes many maps at once,
# in an eighth of the time. Elsewhere thousands of steps one after the other would be slow.
def strongest_by_turns(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(maximum float32, its first place int32), each [B, C], of [B, P, C]; the first NaN is the maximum."""

    def compare(place: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values, places = best
        here = lax.dynamic_index_in_dim(flat, place, axis=1, keepdims=False).astype(jnp.float32)
        wins = (here > values) | (jnp.isnan(here) & ~jnp.isnan(values))
        return jnp.where(wins, here, values), jnp.where(wins, place, places)

    first = flat[:, 0].astype(jnp.float32), jnp.zeros_like(flat[:, 0], jnp.int32)
    strongest: tuple[jax.Array, jax.Array] = lax.fori_loop(jnp.int32(1), jnp.int32(flat.shape[1]), compare, first)
    return strongest


def strongest_by_reduction(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`strongest_by_turns` at once."""
    flat = flat.astype(jnp.float32)
    place = flat.argmax(axis=1).astype(jnp.int32)
    return jnp.take_along_axis(flat, place[:, None], axis=1)[:, 0], place


def _is_top(node: Any) -> bool:
    return isinstance(node, TopActivations)


def _merged(state: State, offered: State) -> State:
    return jax.tree.map(_merge, state, offered, is_leaf=_is_top)


def _merge(top: TopActivations, offered: TopActivations) -> TopActivations:
    """The k strongest of those held ([C, k]) and those offered ([B, C]): by value down, then image index up.

    NaN comes first, and where there is no image yet last.
    """
    fields = [jnp.concatenate([held.T, new]) for held, new in zip(top, offered, strict=True)]
    values, images, _, _ = fields
    weakness = jnp.where(jnp.isnan(values), -jnp.inf, -values)
    order = jnp.where(images < 0, _LAST, images)
    chosen = _least(weakness, order, top.values.shape[1])
    return TopActivations(*(jnp.take_along_axis(field, chosen, axis=0).T for field in fields))


_LAST = int(np.iinfo(np.int32).max)


def _least(first: jax.Array, second: jax.Array, k: int) -> jax.Array:
    """int32 [k, C], where in each column of [N, C] the k least stand, by the first key, the second, and their row.

    One after the other: of 41 that takes a quarter of a sort's time, which takes one column at a time.
    """
    rows = lax.broadcasted_iota(jnp.int32, first.shape, 0)

    def choose(left: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        tied = left
        for key, largest in ((first, jnp.inf), (second, _LAST)):
            tied &= key == jnp.where(tied, key, largest).min(axis=0, keepdims=True)
        chosen = jnp.where(tied, rows, _LAST).min(axis=0, keepdims=True)
        return left & (rows != chosen), chosen[0]

    return lax.scan(choose, jnp.ones(first.shape, bool), length=k)[1]


@cache
def _scan_step() -> Callable[..., State]:
    def step(carried: tuple[Partial, State], batch: Mapping[str, jax.Array]) -> State:
        fn, state = carried
        watched = _watched(state, fn(batch["image"]))
        offered = jax.tree.map(lambda maps: _strongest_places(maps, batch["index"]), watched)
        return _merged(state, lax.all_gather(offered, parallel.AXIS, axis=0, tiled=True))

    alone = jax.process_count() == 1
    program: Callable[..., State] = compiled(step, using=parallel.of_this_host if alone else parallel.data_parallel)
    return program


def _watched(state: State, features: Any) -> Any:
    """The features that the state is of; UserError where they are none of its tree, or have other maps."""
    if isinstance(state, Mapping) and isinstance(features, Mapping):
        features = {layer: features[layer] for layer in state if layer in features}
    needed = jax.tree.map(lambda top: len(top.values), state, is_leaf=_is_top)
    given = jax.tree.map(lambda maps: maps.shape[-1], features)
    if given != needed:
        raise UserError(f"state of {needed} maps: the features have {given}")
    return features
