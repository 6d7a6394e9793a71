"""Where units stand in the images of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from zfjax import features as layer_features
from zfjax.deconvnet import WAYS, Way
from zfjax.errors import UserError
from zfjax.features import Features
from zfjax.units import Unit, as_unit, one_layer

LOOKED_AT_ONCE = 16  # images, to find the places of units that do not say theirs


def places_of(units: Unit, images: np.ndarray, *, of: Any, fn: Features, layer: str) -> dict[str, np.ndarray]:
    """{"image", "channel", "row", "column"}, int32 [N] each, of units in images; UserError for one that is not there.

    Args:
      units, images, of, layer: as for `Net.project`.
      fn: the layer's features; run only where the units do not say their places.
    """
    units = as_unit(units)
    shape = jax.eval_shape(fn, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype))[layer].shape[1:]
    if units.channel is None:
        raise UserError(f"units={units}: a channel is needed, to project each unit alone")
    given = [units.channel, *(units.position or ()), *(() if of is None else (of,))]
    if not all(np.issubdtype(np.asarray(value).dtype, np.integer) for value in given):
        raise UserError(f"units={units}, of={of}: whole numbers are needed")
    lengths = {len(value) for value in given if np.ndim(value)} or {1 if of is not None else len(images)}
    (num, *others) = sorted(lengths)
    if others:
        raise UserError(f"units of {sorted(lengths)} channels, places or images: one number each, or as many of each")
    if of is None and len(images) not in (1, num):
        raise UserError(f"images of shape {images.shape} for {num} units: one image, {num}, or `of` is needed")
    image = of if of is not None else np.arange(num) if len(images) == num else np.zeros(num, int)
    image, channel = (np.broadcast_to(np.asarray(value, np.int32), num) for value in (image, units.channel))
    _check_range(image, name="image", limit=len(images), layer=layer)
    _check_range(channel, name="channel", limit=shape[-1], layer=layer)
    zeros = np.zeros(num, np.int32)
    if len(shape) == 1:
        if units.position is not None:
            raise UserError(f"position={units.position}: layer {layer!r} is dense and has no places, only channels")
        row, column = zeros, zeros
    elif units.position is None:
        maps = layer_features.in_batches(fn, images, batch_size=LOOKED_AT_ONCE)[layer]
        own = maps.reshape(len(images), -1, shape[-1])[image, :, channel]
        row, column = (place.astype(np.int32) for place in np.unravel_index(own.argmax(axis=1), shape[:2]))
    else:
        row, column = (np.broadcast_to(np.asarray(value, np.int32), num) for value in units.position)
        _check_range(row, name="row", limit=shape[0], layer=layer)
        _check_range(column, name="column", limit=shape[1], layer=layer)
    return {"image": image, "channel": channel, "row": row, "column": column}


def _check_range(values: np.ndarray, *, name: str, limit: int, layer: str) -> None:
    if values.size and not (0 <= values.min() and values.max() < limit):
        raise UserError(f"{name} from {values.min()} to {values.max()} of layer {layer!r}: 0 to {limit - 1} is needed")


def layer_of(units: Unit, layer: str | None) -> str:
    """The layer that `layer=` or the units name; UserError where neither does, or they disagree."""
    named = one_layer(as_unit(units), layer)
    if named is None:
        raise UserError("layer=None: say in which layer the units stand")
    return named


def check_shape(given: Any, needed: Sequence[int], *, argument: str, net: str) -> None:
    """UserError for pictures or images [B, ...] that are not of the network's shape."""
    if tuple(given.shape[1:]) != tuple(needed):
        raise UserError(
            f"{argument} of shape {tuple(given.shape)}: [B, {', '.join(map(str, needed))}] is needed, as {net} takes "
            "them"
        )


def check_way(way: Way) -> Way:
    """`way`; UserError where there is none of this name."""
    if way not in WAYS:
        raise UserError(f"way={way!r}: one of {', '.join(map(repr, WAYS))} is needed")
    return way
