"""The images that drive each feature map most, found in one streaming pass over a set (the choice behind Fig. 2).

`init` and `update` keep, for every map, the `k` images with the strongest activation seen so far and the place where
it stood; their memory does not grow with the set. `scan` runs them over batches on all devices; `project_strongest`
carries what was found down to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zfjax import parallel
from zfjax.architecture import Architecture
from zfjax.deconvnet import isolate, project
from zfjax.network import LayerTrace, Params, Trace, forward
from zfjax.pixels import center_crop

CHUNK = 16  # images per forward pass, and activations per projection, of `project_strongest`


class TopActivations(NamedTuple):
    """The strongest activations of each map of one layer, at most one per image, strongest first.

    A dead map, which no image excites, holds the first images with the value 0: see `alive`.
    """

    values: jax.Array  # float32 [C, k] activations, descending; -inf where there is none yet
    images: jax.Array  # int32 [C, k] index of the image in its set; -1 where there is none yet
    rows: jax.Array  # int32 [C, k] place in the map, 0 for a dense layer
    columns: jax.Array  # int32 [C, k]


State = dict[str, TopActivations]  # by layer


def init(architecture: Architecture, layers: Sequence[str], k: int = 9) -> State:
    """The state before any image.

    Args:
      architecture: the table.
      layers: names of the layers to watch, convolutional or dense.
      k: images to keep for each map; the paper shows 9.

    Returns:
      {layer: TopActivations}; ValueError for an unknown layer, none at all or k below 1.
    """
    if k < 1:
        raise ValueError(f"k={k!r}: at least 1 image per map is needed")
    if not layers:
        raise ValueError(f"layers={layers!r}: at least one of {', '.join(architecture.layer_names)} is needed")
    shapes = {layer: (architecture.layer(layer).features, k) for layer in layers}
    return {
        layer: TopActivations(
            values=jnp.full(shape, -jnp.inf, jnp.float32),
            images=jnp.full(shape, -1, jnp.int32),
            rows=jnp.zeros(shape, jnp.int32),
            columns=jnp.zeros(shape, jnp.int32),
        )
        for layer, shape in shapes.items()
    }


def update(state: State, trace: Trace, indices: jax.Array) -> State:
    """The state after the images of one batch.

    Each image offers each map one activation, its maximum over the places (the first of equal ones): the nine
    pictures of Fig. 2 are nine images. Of equal activations the image with the lower index stands first, so neither
    the order nor the size of the batches matters. Each image of the set is to come once.

    Args:
      state: from `init` or `update`.
      trace: `forward`'s trace of B images; layers outside the state are not looked at.
      indices: int32 [B], index of each image in the set; negative ones are padding and ignored.

    Returns:
      The new state; ValueError where indices and trace differ in B.
    """
    return {layer: _merge(top, *_strongest_places(trace[layer], indices)) for layer, top in state.items()}


def alive(top: TopActivations) -> np.ndarray:
    """bool [C]: some image excites the map, that is, its strongest activation is above zero."""
    return np.asarray(top.values)[:, 0] > 0


def scan(
    params: Params,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    architecture: Architecture,
    mean: np.ndarray,
    layers: Sequence[str],
    k: int = 9,
    state: State | None = None,
    on_batch: Callable[[State], None] | None = None,
) -> State:
    """One pass over a set: centre crop, forward and `update`, compiled once for all layers, on all devices.

    Every device offers the maxima of its images to all others, so all devices of all hosts hold the same state, and
    it does not depend on their number. One batch is read while one is computed; nothing else accumulates.

    Args:
      params: the network's parameters.
      batches: this host's rows of each batch: {"image": uint8 [b, S, S, 3], "index": int32 [b], -1 padding}; other
        entries are not read.
      architecture: the table.
      mean: float32 [S, S, 3], the mean training image.
      layers: as in `init`.
      k: as in `init`.
      state: where to go on from; None starts anew.
      on_batch: called with the state after each batch, to save it or to show progress.

    Returns:
      The state after the last batch; ValueError where `state` is not of these layers and k.
    """
    empty = init(architecture, layers, k)
    state = empty if state is None else state
    _check_state(state, empty)
    step = _scan_step(architecture)
    fixed, state = parallel.replicate(((params, mean), state))
    for batch in batches:
        rows = {"image": batch["image"], "index": np.asarray(batch["index"], np.int32)}
        before, state = state, step((fixed, state), parallel.split(rows))
        jax.block_until_ready(before)  # otherwise batches pile up in memory where reading is faster than computing
        if on_batch is not None:
            on_batch(state)
    return state


def project_strongest(
    params: Params,
    images: np.ndarray,
    places: Mapping[str, np.ndarray],
    *,
    layer: str,
    architecture: Architecture,
) -> np.ndarray:
    """Project many single activations of one layer, each alone; every image goes up once, however many maps need it.

    Args:
      params: the network's parameters.
      images: float32 [U, size, size, 3], network input, each picture once.
      places: integers [N] under "image" (row of `images`), "channel", "row", "column" (0 for a dense layer).
      layer: where the activations stand.
      architecture: the table.

    Returns:
      float32 [N, size, size, 3], signed, in pixels: `project` of each activation by itself. ValueError for a place
      outside `images` or the layer.
    """
    _check_places(places, len(images), layer, architecture)
    found = np.zeros((len(places["image"]), *images.shape[1:]), np.float32)
    for start in range(0, len(images), CHUNK):
        trace = _trace_below(params, _fill(images[start : start + CHUNK]), layer=layer, architecture=architecture)
        wanted = np.flatnonzero((places["image"] >= start) & (places["image"] < start + CHUNK))
        for first in range(0, len(wanted), CHUNK):
            chosen = wanted[first : first + CHUNK]
            some = {name: _fill(np.asarray(place[chosen], np.int32)) for name, place in places.items()}
            some["image"] = some["image"] - np.int32(start)
            drawn = _project_places(params, trace, some, layer=layer, architecture=architecture)
            found[chosen] = np.asarray(drawn)[: len(chosen)]
    return found


def _strongest_places(layer: LayerTrace, indices: jax.Array) -> tuple[jax.Array, ...]:
    """Per image and map: (value, image index, row, column) of the maximum, each [B, C]."""
    features = layer.features.astype(jnp.float32)
    batch, *places, channels = features.shape
    if indices.shape != (batch,):
        raise ValueError(f"indices of shape {indices.shape}: one for each of the trace's {batch} images is needed")
    flat = features.reshape(batch, -1, channels)
    place, values = flat.argmax(axis=1).astype(jnp.int32), flat.max(axis=1)
    width = jnp.int32(places[1] if places else 1)
    real = jnp.broadcast_to((indices >= 0)[:, None], values.shape)
    images = jnp.broadcast_to(indices.astype(jnp.int32)[:, None], values.shape)
    nothing = jnp.zeros_like(place)
    return (
        jnp.where(real, values, -jnp.inf),
        jnp.where(real, images, jnp.full_like(images, -1)),
        jnp.where(real, place // width, nothing),
        jnp.where(real, place % width, nothing),
    )


def _merge(top: TopActivations, *offered: jax.Array) -> TopActivations:
    """The k strongest of those held ([C, k]) and those offered ([B, C]): by value down, then image index up."""
    k = top.values.shape[1]
    values, images, rows, columns = (
        jnp.concatenate([held, new.T], axis=1) for held, new in zip(top, offered, strict=True)
    )
    weakness, images, rows, columns = lax.sort((-values, images, rows, columns), dimension=1, num_keys=2)
    return TopActivations(-weakness[:, :k], images[:, :k], rows[:, :k], columns[:, :k])


@lru_cache(maxsize=4)
def _scan_step(architecture: Architecture):
    def step(carried, batch):
        (params, mean), state = carried
        images = center_crop(batch["image"], mean, architecture.image_size)
        _, trace = forward(params, images, architecture=architecture)
        offered = {layer: _strongest_places(trace[layer], batch["index"]) for layer in state}
        offered = lax.all_gather(offered, parallel.AXIS, axis=0, tiled=True)
        return {layer: _merge(top, *offered[layer]) for layer, top in state.items()}

    return parallel.data_parallel(step)


@partial(jax.jit, static_argnames=("layer", "architecture"))
def _trace_below(params: Params, images: jax.Array, *, layer: str, architecture: Architecture) -> Trace:
    """The trace up to the layer; under jit what lies above it is not computed."""
    trace = forward(params, images, architecture=architecture)[1]
    return {name: trace[name] for name in architecture.layer_names[: architecture.layer_names.index(layer) + 1]}


@partial(jax.jit, static_argnames=("layer", "architecture"))
def _project_places(params: Params, trace: Trace, places, *, layer: str, architecture: Architecture) -> jax.Array:
    chosen = jax.tree.map(lambda maps: maps[places["image"]], trace)
    features = chosen[layer].features
    position = (places["row"], places["column"]) if features.ndim == 4 else None
    top = isolate(features, channel=places["channel"], position=position)
    return project(params, chosen, top, layer=layer, architecture=architecture)


def _fill(rows: np.ndarray) -> np.ndarray:
    """Repeat the first row until there are CHUNK, so that one compiled function also serves the last chunk."""
    return np.concatenate([rows, np.repeat(rows[:1], CHUNK - len(rows), axis=0)])


def _check_state(state: State, empty: State) -> None:
    found = {layer: top.values.shape for layer, top in state.items()}
    needed = {layer: top.values.shape for layer, top in empty.items()}
    if found != needed:
        raise ValueError(f"state of {found}: these layers and k need {needed}")


def _check_places(places: Mapping[str, np.ndarray], num_images: int, layer: str, architecture: Architecture) -> None:
    architecture.layer(layer)
    *sides, channels = architecture.sizes()[layer].output
    height, width = sides or (1, 1)
    for name, limit in {"image": num_images, "channel": channels, "row": height, "column": width}.items():
        place = np.asarray(places[name])
        if place.size and not (0 <= place.min() and place.max() < limit):
            raise ValueError(f"places[{name!r}] from {place.min()} to {place.max()}: 0 to {limit - 1} is needed")
