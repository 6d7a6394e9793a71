"""The mistakes of public implementations (paper.md, section 3), each as a patch of one name of zfjax.

`MUTANTS` is read by test_mutants: what is patched, with what, and the test that then has to fail.
"""

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import test_architecture
import test_deconvnet
import test_dropout
import test_golden
import test_network
import test_top_activations
from jax import lax

import zfjax
from zfjax import deconvnet, network, ops
from zfjax.analyses import top_activations
from zfjax.ops import contrast_norm, conv, conv_transpose


class Mutant(NamedTuple):
    """One mistake."""

    mistake: str
    module: Any
    name: str  # patched in `module`
    replacement: Any
    killer: Callable[[], None]  # a test with its arguments


# Unpooling ------------------------------------------------------------------------------------------------------------


def _strewn(values, switches, shape, size, stride):
    """For each place of the window: (its values spread over the map below, where they stand)."""
    for place in range(size * size):
        dy, dx = divmod(place, size)
        spread = ((0, 0, 0), (dy, size - 1 - dy, stride - 1), (dx, size - 1 - dx, stride - 1), (0, 0, 0))
        chosen = switches == place
        below = lax.pad(jnp.where(chosen, values, 0), jnp.zeros((), values.dtype), spread)
        yield below[:, : shape[0], : shape[1]], lax.pad(chosen, False, spread)[:, : shape[0], : shape[1]]


def unpool_last_write_wins(values, switches, *, shape, size=3, stride=2):
    below = jnp.zeros((values.shape[0], *shape[:2], values.shape[3]), values.dtype)
    for strewn, stands in _strewn(values, switches, shape, size, stride):
        below = jnp.where(stands, strewn, below)
    return below


def unpool_max(values, switches, *, shape, size=3, stride=2):
    below = jnp.full((values.shape[0], *shape[:2], values.shape[3]), -jnp.inf, values.dtype)
    for strewn, stands in _strewn(values, switches, shape, size, stride):
        below = jnp.where(stands, jnp.maximum(strewn, below), below)
    return jnp.where(jnp.isfinite(below), below, 0)


def unpool_by_upsampling(values, switches, *, shape, size=3, stride=2):
    large = values.repeat(stride, axis=1).repeat(stride, axis=2)[:, : shape[0], : shape[1]]
    return jnp.pad(large, ((0, 0), (0, shape[0] - large.shape[1]), (0, shape[1] - large.shape[2]), (0, 0)))


# Filtering ------------------------------------------------------------------------------------------------------------


def filter_without_flip(maps, kernel, layer, input_shape, flip=False):
    """Stretch the maps by the stride and correlate with the filters as they are (`flip` would be right)."""
    kernel = kernel[::-1, ::-1] if flip else kernel
    low = layer.kernel - 1 - layer.padding[0]
    high = input_shape[0] + layer.kernel - 1 - low - ((maps.shape[1] - 1) * layer.stride + 1)
    pairs = zip(jnp.split(maps, layer.groups, axis=3), jnp.split(kernel, layer.groups, axis=3), strict=True)
    parts = [
        lax.conv_general_dilated(
            part,
            mine.swapaxes(2, 3),
            (1, 1),
            [(low, high)] * 2,
            lhs_dilation=(layer.stride, layer.stride),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for part, mine in pairs
    ]
    return jnp.concatenate(parts, axis=3)


def filter_flipped_twice(maps, kernel, layer, input_shape):
    return conv_transpose(maps, kernel[::-1, ::-1], layer=layer, input_shape=input_shape)


def undo_with_relu_after_the_filter(signal, *, row, kernel, way_up, size, way, undo_filters=deconvnet._undo_filters):
    if row.pool:
        switches, pool = way_up.switches, row.pool
        signal = ops.unpool(signal, switches, shape=size.filtered, size=pool.size, stride=pool.stride)
    below = undo_filters(signal, row=row, kernel=kernel, size=size)
    return deconvnet.Step(signal, signal, jax.nn.relu(below))


# Biases and other ReLUs on the way down -------------------------------------------------------------------------------


def walk(at_top=None, rectify=jax.nn.relu, before_filter=None, after_filter=None):
    """`project` with something done to the signal at three points of each layer; with nothing, `project` itself."""

    def done(change, signal, row, params, trace):
        return change(signal, params[row.name], trace[row.name]) if change else signal

    @partial(jax.jit, static_argnames=("layer", "architecture"))
    def project(params, trace, top, *, layer, architecture):
        signal, sizes = top, architecture.sizes()
        for row in architecture.layers[architecture.layer_names.index(layer) :: -1]:
            kernel, size = params[row.name]["kernel"], sizes[row.name]
            signal = done(at_top, signal, row, params, trace)
            if isinstance(row, zfjax.Conv):
                if row.pool:
                    switches = trace[row.name].switches
                    signal = zfjax.unpool(
                        signal, switches, shape=size.filtered, size=row.pool.size, stride=row.pool.stride
                    )
                signal = done(before_filter, rectify(signal), row, params, trace)
                signal = conv_transpose(signal, kernel, layer=row, input_shape=size.input)
            else:
                signal = done(before_filter, rectify(signal) if row.hidden else signal, row, params, trace)
                signal = (signal @ kernel.T).reshape(-1, *size.input)
            signal = done(after_filter, signal, row, params, trace)
        return signal * architecture.input_scale

    return project


def _bias(params, signal):
    return params["bias"].reshape((1,) * (signal.ndim - 1) + (-1,))


def random_bias(signal, params, trace):
    drawn = jax.random.uniform(jax.random.key(0), signal.shape[-1:], signal.dtype, -1, 1)
    return signal + drawn.reshape((1,) * (signal.ndim - 1) + (-1,))


def where_active_going_up(signal, params, trace):
    return jnp.where(trace.features > 0, signal, 0)


# The network ----------------------------------------------------------------------------------------------------------


def fig3(changes=None, **fields):
    """ZFNET with fields of some layers changed."""
    layers = tuple(dataclasses.replace(layer, **(changes or {}).get(layer.name, {})) for layer in zfjax.ZFNET.layers)
    return dataclasses.replace(zfjax.ZFNET, layers=layers, **fields)


POOL, NORM = zfjax.Pool(), zfjax.ContrastNorm()
CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def norm_over(num_maps):
    return lambda maps, norm: contrast_norm(maps, dataclasses.replace(norm, num_maps=num_maps(norm.num_maps)))


def dense_layer_dropping_logits(maps, *, layer, params, keys, dense_layer=network._dense_layer):
    trace = dense_layer(maps, layer=layer, params=params, keys=keys)
    if layer.hidden or keys is None:
        return trace
    return zfjax.LayerTrace(network._dropout(trace.features, layer.dropout, keys))


def isolate_weakest(features, *, channel=None, position=None, isolate=deconvnet.isolate):
    with warnings.catch_warnings(action="ignore"):  # of activations below 0, as they all are now
        return -isolate(-features, channel=channel, position=position)


def conv_of_reshaped(maps, kernel, layer):
    """The maps came as NCHW and were reshaped to NHWC."""
    return conv(maps.transpose(0, 3, 1, 2).reshape(maps.shape), kernel, layer)


def dense_layer_of_nchw(maps, *, layer, params, keys, dense_layer=network._dense_layer):
    maps = maps.transpose(0, 3, 1, 2) if maps.ndim == 4 else maps
    return dense_layer(maps, layer=layer, params=params, keys=keys)


def undo_dense_to_nchw(signal, *, row, kernel, size, undo_filters=deconvnet._undo_filters):
    below = undo_filters(signal, row=row, kernel=kernel, size=size)
    if isinstance(row, zfjax.Conv) or below.ndim != 4:
        return below
    batch, height, width, channels = below.shape
    return below.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


def every_place(features, indices):
    _, rows, columns, channels = features.shape
    places = jnp.tile(jnp.arange(rows * columns, dtype=jnp.int32), len(indices))
    about = (jnp.repeat(indices, rows * columns), places // columns, places % columns)
    values = features.reshape(-1, channels)
    return values, *(jnp.broadcast_to(number[:, None], values.shape) for number in about)


def weakest_place(features, indices, right=top_activations._strongest_places):
    return right(-features, indices)


# The table ------------------------------------------------------------------------------------------------------------

signed = partial(test_deconvnet.test_projection_of_any_signed_signal_is_the_reference, "conv2")
signed_fc = partial(test_deconvnet.test_projection_of_any_signed_signal_is_the_reference, "fc6")
golden = partial(test_golden.test_features_agree, "zfnet_small", "conv1")
sides = partial(test_architecture.test_map_sizes_are_those_of_the_figure, "ZFNET")
count = partial(test_architecture.test_parameter_counts_are_those_of_table_3, "ZFNET", (), {}, 62_357_608)
logits = test_dropout.test_logits_are_never_dropped
strongest = partial(test_deconvnet.test_isolate_keeps_the_strongest_place_the_first_of_equal_ones, 1)
forward = partial(test_network.test_forward_is_the_reference, "mini")
nine_images = test_top_activations.test_nine_different_images
strongest_first = test_top_activations.test_strongest_first
VALID = fig3({name: {"padding": (0, 0)} for name in CONVS})
PADS = {"SAME": fig3({"conv1": {"padding": (2, 3)}}), "VALID": fig3({"conv1": {"padding": (0, 0)}})}

MUTANTS = [
    Mutant("the last write wins where windows overlap", deconvnet, "unpool", unpool_last_write_wins, signed),
    Mutant("the largest wins where windows overlap", deconvnet, "unpool", unpool_max, signed),
    Mutant("no switches: upsampling", deconvnet, "unpool", unpool_by_upsampling, signed),
    Mutant("no ReLU going down", deconvnet, "rectify", lambda signal: signal, signed),
    Mutant("ReLU after the filter", deconvnet, "_undo", undo_with_relu_after_the_filter, signed),
    Mutant("kernel not flipped", deconvnet, "conv_transpose", filter_without_flip, signed),
    Mutant("kernel flipped twice", deconvnet, "conv_transpose", filter_flipped_twice, signed),
    Mutant("bias added", zfjax, "project", walk(before_filter=lambda s, p, t: s + _bias(p, s)), signed),
    Mutant("bias subtracted", zfjax, "project", walk(before_filter=lambda s, p, t: s - _bias(p, s)), signed),
    Mutant("bias drawn at random", zfjax, "project", walk(after_filter=random_bias), signed),
    Mutant("gradient", zfjax, "project", walk(at_top=where_active_going_up, rectify=lambda s: s), signed),
    Mutant("guided backpropagation", zfjax, "project", walk(at_top=where_active_going_up), signed),
    Mutant("norm before pool", zfjax, "ZFNET", fig3({n: {"after": (NORM, POOL)} for n in CONVS[:2]}), golden),
    Mutant("VALID everywhere", zfjax, "ZFNET", VALID, sides),
    Mutant("conv1 SAME: 112", zfjax, "ZFNET", PADS["SAME"], sides),
    Mutant("conv1 VALID: 109", zfjax, "ZFNET", PADS["VALID"], sides),
    Mutant("conv2 stride 1", zfjax, "ZFNET", fig3({"conv2": {"stride": 1}}), sides),
    Mutant("512-1024-512 as base", zfjax, "ZFNET", zfjax.ZFNET.with_sizes(conv3=512, conv4=1024, conv5=512), count),
    Mutant("norm missing in the table", zfjax, "ZFNET", fig3({n: {"after": (POOL,)} for n in CONVS[:2]}), golden),
    Mutant("norm missing in the network", network, "contrast_norm", lambda maps, norm: maps, golden),
    Mutant("norm's n taken for its radius", network, "contrast_norm", norm_over(lambda n: 2 * n + 1), golden),
    Mutant("norm's radius taken for its n", network, "contrast_norm", norm_over(lambda n: n // 2), golden),
    Mutant("one hidden dense layer", zfjax, "ZFNET", zfjax.ZFNET.without("fc7"), count),
    Mutant("dropout on the logits", network, "_dense_layer", dense_layer_dropping_logits, logits),
    Mutant("the weakest instead of the strongest", zfjax, "isolate", isolate_weakest, strongest),
    Mutant("NHWC by reshape", network, "conv", conv_of_reshaped, forward),
    Mutant("dense layer flattened from NCHW", network, "_dense_layer", dense_layer_of_nchw, forward),
    Mutant("dense layer undone to NCHW", deconvnet, "_undo_filters", undo_dense_to_nchw, signed_fc),
    Mutant("nine pixels of one image as the top 9", top_activations, "_strongest_places", every_place, nine_images),
    Mutant("the weakest images as the strongest", top_activations, "_strongest_places", weakest_place, strongest_first),
]
