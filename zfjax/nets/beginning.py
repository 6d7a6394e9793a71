"""The weights that a network's images meet first: what it says of them itself, or what its program shows."""

from __future__ import annotations

import weakref
from typing import Any

import jax
import numpy as np

from zfjax.anymodel.first_filters import FirstFilters, first_filters_of
from zfjax.architecture import Conv
from zfjax.data import num_channels
from zfjax.errors import UserError
from zfjax.nets.protocol import Net
from zfjax.nets.questions import map_layers, shapes_of
from zfjax.nets.tables import OfTable
from zfjax.pixels import size_of

_READ: weakref.WeakKeyDictionary[Any, FirstFilters | str] = weakref.WeakKeyDictionary()


def first_filters(net: Net) -> FirstFilters:
    """The first filters of a network: those that it names as its `first_filters`, or those of its program.

    Returns:
      FirstFilters, `is_own` where they are those of the lowest layer with maps, or of the lowest one where none has
      maps. UserError where they cannot be read, in words that say why, or where those that are named are not of the
      lowest layer.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> fn = lambda images: {"maps": jax.nn.relu(images[:, ::2, ::2] @ jnp.eye(3, 5)), "mean": images.mean((1, 2))}
      >>> first = zfjax.nets.first_filters(zfjax.FunctionNet(fn, image_size=8, name="halves"))
      >>> first.kernel.shape, first.stride, first.is_own
      ((1, 1, 3, 5), (2, 2), True)
    """
    layer = lowest_layer(net)
    named = getattr(net, "first_filters", None)
    if named is not None:
        return _named(net, layer, np.asarray(named, np.float32))
    read = _kept(net)
    if read is None:
        read = _read(net, layer)
        _keep(net, read)
    if isinstance(read, str):
        raise UserError(
            f"net={net.name!r}: its first filters cannot be read, as {read}; of a function they can be said, "
            "`FunctionNet(..., first_filters=)`, [h, w, C, N]"
        )
    return read


def own_filters(net: Net) -> np.ndarray | None:
    """float32 [h, w, C, N], the filters of the lowest layer; None where they cannot be read, or are not its own."""
    try:
        first = first_filters(net)
    except UserError:
        return None
    return first.kernel if first.is_own else None


def lowest_layer(net: Net) -> str:
    """The lowest layer that has maps; the lowest one where none has."""
    return (map_layers(net) or net.layers)[0]


def _named(net: Net, layer: str, kernel: np.ndarray) -> FirstFilters:
    num = shapes_of(net, [layer])[layer][-1]
    if kernel.ndim != 4 or kernel.shape[-1] != num:
        raise UserError(
            f"net={net.name!r}: first_filters of shape {kernel.shape}; its first layer has {num} maps, so "
            f"[h, w, C, {num}] is needed"
        )
    return FirstFilters(kernel, _stride(net, layer, kernel), "", True)


def _stride(net: Net, layer: str, kernel: np.ndarray) -> tuple[int, int] | None:
    """A table says it; else it is known where nothing but the filters lies between the pixels and the layer."""
    if isinstance(net, OfTable):
        row = net.architecture.layers[0]
        return size_of(row.stride) if isinstance(row, Conv) else None
    field = net.receptive_field(layer)
    return size_of(field.stride) if field is not None and field.sides == kernel.shape[:2] else None


def _read(net: Net, layer: str) -> FirstFilters | str:
    """What the program shows, or why it does not."""
    fn = net.features([layer])
    pictures = jax.ShapeDtypeStruct((1, *size_of(net.picture_size), num_channels(net)), np.uint8)
    images = jax.eval_shape(net.prepare, pictures)
    try:
        return first_filters_of(lambda images: fn(images)[layer], images.shape[1:], images.dtype)
    except UserError as error:
        return str(error)


def _kept(net: Net) -> FirstFilters | str | None:
    try:
        return _READ.get(net)
    except TypeError:  # it has no hash
        return None


def _keep(net: Net, read: FirstFilters | str) -> None:
    try:
        _READ[net] = read
    except TypeError:  # nor can it be referred to weakly
        return
