"""The deconvnet of sec. 2.1, and beside it the gradient and guided backpropagation: three ways down to the pixels.

All three carry any activation of any layer down the same layers, and differ in what the ReLU does to the signal and in
the contrast norm:

    project          relu(signal)               the norm is skipped
    gradient         signal * active            the norm's own derivative
    guided_backprop  relu(signal) * active      the norm's own derivative

with `active` true where the ReLU let something through on the way up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.architecture import Architecture, Conv, Dense, Layer, Pool, Sizes
from zfjax.errors import UserError
from zfjax.network import LayerTrace, Params, Trace, check_params
from zfjax.ops import contrast_norm, conv_transpose, unpool

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
      The shape of `features`, the kept activations with their own values. UserError for a channel or position
      outside the features; a traced one outside keeps nothing.
    """
    if features.ndim not in (2, 4):
        raise UserError(f"features of shape {features.shape}: [B, H, W, C] or [B, C] is needed")
    if channel is None and position is None:
        raise UserError("channel=None, position=None: say which activation to keep, by channel, position or both")
    if features.ndim == 2 and position is not None:
        raise UserError(f"position={position}: a dense layer has no places, only a channel")
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


class Step(NamedTuple):
    """One layer on the way down, in the order of Fig. 1."""

    unpooled: jax.Array  # [B, H, W, C] what came from above, at its switches where the layer has a pool; dense: [B, C]
    rectified: jax.Array  # same shape; of the logits, which have no ReLU, as it came
    filtered: jax.Array  # the shape that the layer reads: what comes to the layer below, or, unscaled, the pixels


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
      [B, image_size, image_size, channels], signed, in pixels. UserError for an unknown layer, another shape,
      parameters of another architecture, or a trace without the switches of a pool.
    """
    pixels = descend(params, trace, top, layer=layer, architecture=architecture)[architecture.layer_names[0]].filtered
    return pixels * jnp.asarray(architecture.input_scale, pixels.dtype)


@partial(jax.jit, static_argnames=("layer", "architecture"))
def descend(params: Params, trace: Trace, top: jax.Array, *, layer: str, architecture: Architecture) -> dict[str, Step]:
    """Every step of `project`, for those who want to watch it: {layer: Step}; arguments and errors as there."""
    steps = {}
    signal = top
    for row in reversed(rows_below(params, trace, top, layer=layer, architecture=architecture)):
        kernel = params[row.name]["kernel"].astype(signal.dtype)
        size = architecture.sizes()[row.name]
        if isinstance(row, Conv):
            steps[row.name] = _undo_conv(row, kernel, trace[row.name].switches if row.pool else None, signal, size)
        else:
            steps[row.name] = _undo_dense(row, kernel, signal, size)
        signal = steps[row.name].filtered
    return steps


def rows_below(
    params: Params, trace: Trace, top: jax.Array, *, layer: str, architecture: Architecture
) -> tuple[Layer, ...]:
    """The rows of the table from the image up to `layer`; UserError where something that undoes them is missing."""
    rows = architecture.layers[: architecture.layer_names.index(architecture.layer(layer).name) + 1]
    expected = architecture.sizes()[layer].output
    if top.shape[1:] != expected:
        raise UserError(f"top of shape {top.shape}: layer {layer!r} hands on [B, {', '.join(map(str, expected))}]")
    for row in reversed(rows):
        check_params(params, architecture, row.name)
        if isinstance(row, Conv) and row.pool and (row.name not in trace or trace[row.name].switches is None):
            raise UserError(f"trace[{row.name!r}].switches is missing: the layer has a pool, which they undo")
    return rows


def rectify(signal: jax.Array) -> jax.Array:
    """ReLU of the reconstruction itself, whatever was active going up (sec. 2.1, "Rectification")."""
    return jax.nn.relu(signal)


def _undo_conv(row: Conv, kernel: jax.Array, switches: jax.Array | None, signal: jax.Array, size: Sizes) -> Step:
    if row.pool:
        assert switches is not None  # rows_below has looked
        signal = unpool(signal, switches, shape=size.filtered, size=row.pool.size, stride=row.pool.stride)
    rectified = rectify(signal)
    return Step(signal, rectified, conv_transpose(rectified, kernel, row, size.input))


def _undo_dense(row: Dense, kernel: jax.Array, signal: jax.Array, size: Sizes) -> Step:
    rectified = rectify(signal) if row.hidden else signal
    return Step(signal, rectified, (rectified @ kernel.T).reshape(signal.shape[0], *size.input))


def _is_at(index: Index, limit: int, name: str, batch: int, *, axis: int, ndim: int) -> jax.Array:
    """bool, true where `axis` counts to `index`; [B] indices go along the batch."""
    if not isinstance(index, jax.core.Tracer):
        index = np.asarray(index)
        if not np.issubdtype(index.dtype, np.integer) or not np.all((0 <= index) & (index < limit)):
            raise UserError(f"{name}={index}: a whole number from 0 to {limit - 1} is needed")
    index = jnp.asarray(index)
    if index.shape not in ((), (batch,)):
        raise UserError(f"{name} of shape {index.shape}: one index, or one for each of the {batch} images")
    counted = jnp.expand_dims(jnp.arange(limit), [a for a in range(ndim) if a != axis])
    return counted == index.reshape(-1, *(1,) * (ndim - 1)).astype(counted.dtype)


Rule = Callable[[jax.Array, jax.Array], jax.Array]  # (signal, active) -> signal, at each ReLU


@partial(jax.jit, static_argnames=("layer", "architecture"))
def gradient(params: Params, trace: Trace, top: jax.Array, *, layer: str, architecture: Architecture) -> jax.Array:
    """The derivative of sum(top * features of `layer`) by the images: exactly what `jax.grad` gives.

    With `top` from `isolate` this is an activation times its gradient; with ones in their places, the gradient
    itself (Simonyan et al. 2013, "saliency").

    Args:
      params, trace, top, layer, architecture: as for `project`; of the trace, features, switches and norm_inputs of
        a pass without dropout are used.

    Returns:
      [B, image_size, image_size, channels], signed; UserError as for `project`, or for a trace without the inputs
      of a norm.
    """
    return _descend(params, trace, top, layer, architecture, lambda signal, active: _where(active, signal))


@partial(jax.jit, static_argnames=("layer", "architecture"))
def guided_backprop(
    params: Params, trace: Trace, top: jax.Array, *, layer: str, architecture: Architecture
) -> jax.Array:
    """`gradient` with every ReLU also rectifying the signal (Springenberg et al. 2014): arguments as there."""
    return _descend(params, trace, top, layer, architecture, lambda signal, active: _where(active, rectify(signal)))


def _descend(
    params: Params, trace: Trace, top: jax.Array, layer: str, architecture: Architecture, rule: Rule
) -> jax.Array:
    sizes = architecture.sizes()
    signal = top
    for row in reversed(rows_below(params, trace, top, layer=layer, architecture=architecture)):
        kernel = params[row.name]["kernel"].astype(signal.dtype)
        if isinstance(row, Conv):
            signal, active = _undo_stages(row, trace[row.name], signal, sizes[row.name])
            signal = conv_transpose(rule(signal, active), kernel, row, sizes[row.name].input)
        else:
            if row.hidden:
                signal = rule(signal, trace[row.name].features > 0)
            signal = (signal @ kernel.T).reshape(signal.shape[0], *sizes[row.name].input)
    return signal * jnp.asarray(architecture.input_scale, signal.dtype)


def _undo_stages(row: Conv, seen: LayerTrace, signal: jax.Array, size: Sizes) -> tuple[jax.Array, jax.Array]:
    """(signal, active) right above the ReLU of a convolutional layer, below its pools and norms.

    Where no switch points the signal is 0, so what `active` says there does not matter, until a norm spreads it.
    """
    active = seen.features > 0
    norm_inputs = list(seen.norm_inputs)
    for stage in reversed(row.after):
        if isinstance(stage, Pool):
            signal, count = (_unpool(stage, seen, values, size) for values in (signal, active.astype(signal.dtype)))
            active = count > 0
        else:
            if not norm_inputs:
                raise UserError(f"trace[{row.name!r}].norm_inputs is missing: the layer's norm is differentiated there")
            below = norm_inputs.pop()
            (signal,) = jax.vjp(partial(contrast_norm, norm=stage), below)[1](signal)
            active = below > 0
    return signal, active


def _unpool(pool: Pool, seen: LayerTrace, values: jax.Array, size: Sizes) -> jax.Array:
    switches = seen.switches
    assert switches is not None  # rows_below has looked
    return unpool(values, switches, shape=size.filtered, size=pool.size, stride=pool.stride)


def _where(active: jax.Array, signal: jax.Array) -> jax.Array:
    return jnp.where(active, signal, jnp.zeros((), signal.dtype))
