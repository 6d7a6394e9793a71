"""The gradient and guided backpropagation, called as the deconvnet is, so that the three can be compared.

All three walk down the same layers and differ in what the ReLU does to the signal and in the contrast norm:

    project          relu(signal)               the norm is skipped
    gradient         signal * active            the norm's own derivative
    guided_backprop  relu(signal) * active      the norm's own derivative

with `active` true where the ReLU let something through on the way up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from zfjax.architecture import Architecture
from zfjax.deconvnet import rectify, rows_below
from zfjax.layers import Conv, Pool, Sizes
from zfjax.network import LayerTrace, Params, Trace
from zfjax.ops import contrast_norm, conv_transpose, unpool

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
      [B, image_size, image_size, channels], signed; ValueError as for `project`, or for a trace without the inputs
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
                raise ValueError(
                    f"trace[{row.name!r}].norm_inputs is missing: the layer's norm is differentiated there"
                )
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
