"""The deconvnet of sec. 2.1: any activation of any layer, carried back to the pixels that it came from."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.architecture import Architecture
from zfjax.layers import Conv, Dense, Sizes
from zfjax.network import Params, Trace
from zfjax.ops import conv_transpose, unpool

Index = int | np.integer | np.ndarray | jax.Array  # an int, traced or not, or one for each image ([B])


def isolate(
    features: jax.Array, *, channel: Index | None = None, position: tuple[Index, Index] | None = None
) -> jax.Array:
    """Keep one activation of each image and set all others to zero ("set all other activations in the layer to zero").

    Args:
      features: [B, H, W, C] of a convolutional layer, or [B, C] of a dense one.
      channel: the map (or dense unit) to keep; None keeps every map at `position`.
      position: (y, x) in the map; None keeps the map's strongest place in each image, the first of equal ones. A
        dense unit has none.

    Returns:
      The shape of `features`, the kept activations with their own values. ValueError for a channel or position
      outside the features; a traced one outside keeps nothing.
    """
    if features.ndim not in (2, 4):
        raise ValueError(f"features of shape {features.shape}: [B, H, W, C] or [B, C] is needed")
    if channel is None and position is None:
        raise ValueError("channel=None, position=None: say which activation to keep, by channel, position or both")
    if features.ndim == 2 and position is not None:
        raise ValueError(f"position={position}: a dense layer has no places, only a channel")
    batch, *places, channels = features.shape
    keep = jnp.ones((batch, *(1 for _ in places), 1), bool)
    if channel is not None:
        keep = keep & _is_at(channel, channels, "channel", batch, axis=features.ndim - 1, ndim=features.ndim)
    if places and position is None:
        strongest = jnp.where(keep, features, -jnp.inf).max(axis=3).reshape(batch, -1).argmax(axis=1)
        position = (strongest // places[1], strongest % places[1])
    if position is not None:
        keep = keep & _is_at(position[0], places[0], "position row", batch, axis=1, ndim=4)
        keep = keep & _is_at(position[1], places[1], "position column", batch, axis=2, ndim=4)
    return jnp.where(keep, features, jnp.zeros((), features.dtype))


@partial(jax.jit, static_argnames=("layer", "architecture"))
def project(params: Params, trace: Trace, top: jax.Array, *, layer: str, architecture: Architecture) -> jax.Array:
    """Carry the activations `top` of `layer` down to pixels, layer by layer (sec. 2.1, Fig. 1).

    Each convolutional layer is undone by (i) unpooling at its switches, (ii) rectifying the reconstruction, and
    (iii) filtering with the transposed filters; each hidden dense layer by (ii) and (iii). Biases are not used and
    the contrast norm is skipped. The last filtering gives pixels, with no ReLU after it. The logits have no ReLU on
    the way up and get none on the way down.

    Args:
      params: the network's parameters.
      trace: `forward`'s trace of the same images; only its switches are used.
      top: the shape of trace[layer].features, zero but for what is to be seen: see `isolate`.
      layer: where `top` stands.
      architecture: the table.

    Returns:
      [B, image_size, image_size, channels], signed, in pixels. ValueError for an unknown layer, another shape, or a
      trace without the switches of a pool.
    """
    start = architecture.layer_names.index(architecture.layer(layer).name)
    sizes = architecture.sizes()
    if top.shape[1:] != sizes[layer].output:
        output = ", ".join(map(str, sizes[layer].output))
        raise ValueError(f"top of shape {top.shape}: layer {layer!r} hands on [B, {output}]")
    signal = top
    for row in reversed(architecture.layers[: start + 1]):
        kernel = params[row.name]["kernel"].astype(signal.dtype)
        if isinstance(row, Conv):
            switches = trace[row.name].switches if row.name in trace else None
            signal = _undo_conv(row, kernel, switches, signal, sizes[row.name])
        else:
            signal = _undo_dense(row, kernel, signal, sizes[row.name])
    return signal * jnp.asarray(architecture.input_scale, signal.dtype)


def rectify(signal: jax.Array) -> jax.Array:
    """ReLU of the reconstruction itself, whatever was active going up (sec. 2.1, "Rectification")."""
    return jax.nn.relu(signal)


def _undo_conv(row: Conv, kernel: jax.Array, switches: jax.Array | None, signal: jax.Array, size: Sizes) -> jax.Array:
    if row.pool:
        if switches is None:
            raise ValueError(f"trace[{row.name!r}].switches is missing: the layer has a pool, which they undo")
        signal = unpool(signal, switches, shape=size.filtered, size=row.pool.size, stride=row.pool.stride)
    return conv_transpose(rectify(signal), kernel, row, size.input)


def _undo_dense(row: Dense, kernel: jax.Array, signal: jax.Array, size: Sizes) -> jax.Array:
    if row.hidden:
        signal = rectify(signal)
    return (signal @ kernel.T).reshape(signal.shape[0], *size.input)


def _is_at(index: Index, limit: int, name: str, batch: int, *, axis: int, ndim: int) -> jax.Array:
    """bool, true where `axis` counts to `index`; [B] indices go along the batch."""
    if not isinstance(index, jax.core.Tracer):
        index = np.asarray(index)
        if not np.issubdtype(index.dtype, np.integer) or not np.all((0 <= index) & (index < limit)):
            raise ValueError(f"{name}={index}: a whole number from 0 to {limit - 1} is needed")
    index = jnp.asarray(index)
    if index.shape not in ((), (batch,)):
        raise ValueError(f"{name} of shape {index.shape}: one index, or one for each of the {batch} images")
    counted = jnp.expand_dims(jnp.arange(limit), [a for a in range(ndim) if a != axis])
    return counted == index.reshape(-1, *(1,) * (ndim - 1)).astype(counted.dtype)
