"""What comes down at the layers of any model, wherever they stand in its program: that of the explicit deconvnet."""

from itertools import pairwise

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
from jax import lax

import zfjax
from zfjax import UserError, nets
from zfjax.anymodel.signals import signals_at
from zfjax.deconvnet import descend

MINI = tiny_nets.MINI
PARAMS = tiny_nets.params(MINI)
IMAGES = tiny_nets.images(34, batch=1)


def features(images):
    trace = zfjax.forward(PARAMS, images, architecture=MINI)[1]
    return {layer: trace[layer].features for layer in MINI.layer_names}


@pytest.mark.parametrize("wrapped", [features, jax.jit(features), jax.checkpoint(features)])
@pytest.mark.parametrize("layer", MINI.layer_names[2:4])
def test_what_comes_down_a_table_is_what_the_explicit_deconvnet_hands_down(layer, wrapped):
    trace = tiny_nets.forward(PARAMS, IMAGES, architecture=MINI)[1]
    top = zfjax.isolate(trace[layer].features, channel=1)
    steps = descend(PARAMS, trace, top, layer=layer, architecture=MINI)
    down = MINI.layer_names[: MINI.layer_names.index(layer) + 1]
    signals = signals_at(wrapped, IMAGES, down, unit=zfjax.Unit(1))
    np.testing.assert_allclose(signals.layers[layer], top, rtol=1e-5)
    for lower, upper in pairwise(down):
        expected = np.asarray(steps[upper].filtered)
        np.testing.assert_allclose(signals.layers[lower], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    pixels = zfjax.project(PARAMS, trace, top, layer=layer, architecture=MINI)
    np.testing.assert_allclose(signals.pixels, pixels, rtol=1e-3, atol=1e-5 * np.abs(pixels).max())


def conv(images, kernel, layout=("NHWC", "HWIO", "NHWC")):
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)


FIRST, SECOND, THIRD = (np.asarray(tiny_nets.images(3, batch=9)[..., :2].reshape(3, 3, 3, 6)) / 60 for _ in range(3))
FIRST, SECOND, THIRD = FIRST[..., :4], np.moveaxis(SECOND, 2, 3)[:, :, :4], THIRD[:, :, :, :3]
HERE = np.random.default_rng(0).normal(size=(1, 8, 10, 3)).astype(np.float32)


def by_hand(images):
    """Both layers' features, and what comes down at the first from a unit of the last, written out."""
    first = jax.nn.relu(conv(images, FIRST))
    last = jax.nn.relu(conv(first, SECOND)) + conv(first, ACROSS)
    return first, last


ACROSS = np.random.default_rng(1).normal(size=(1, 1, 4, 3)).astype(np.float32)


def expected_at_first():
    first, last = by_hand(HERE)
    top = zfjax.isolate(last, zfjax.Unit(2))
    (through,) = jax.vjp(lambda maps: conv(maps, SECOND), first)[1](jnp.maximum(top, 0))
    (across,) = jax.vjp(lambda maps: conv(maps, ACROSS), first)[1](top)
    return through + across


def straight(images):
    first, last = by_hand(images)
    return {"first": first, "last": last}


def computed_anew(images):
    return {"first": by_hand(images)[0], "last": by_hand(images)[1]}


def channels_first(images):
    layout = ("NCHW", "HWIO", "NCHW")
    first = jax.nn.relu(conv(images.transpose(0, 3, 1, 2), FIRST, layout))
    last = jax.nn.relu(conv(first, SECOND, layout)) + conv(first, ACROSS, layout)
    return {"first": first.transpose(0, 2, 3, 1), "last": last.transpose(0, 2, 3, 1)}


def cut(images):
    """The first is read as the whole of a slice, as JAX 0.7 reads an axis of one; only the last looks beneath it."""
    first, last = by_hand(images)
    return {"first": lax.slice(first, (0,) * 4, first.shape), "last": last}


def one_at_a_time(images):
    return jax.vmap(lambda image: {k: v[0] for k, v in straight(image[None]).items()})(images)


@pytest.mark.parametrize("model", [straight, computed_anew, channels_first, cut, one_at_a_time])
def test_branches_add_up_at_a_layer_however_the_model_is_written(model):
    signals = signals_at(model, HERE, ["first", "last"], unit=zfjax.Unit(2))
    expected = np.asarray(expected_at_first())
    np.testing.assert_allclose(signals.layers["first"], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["linen_resnet", "nnx_convnet", "equinox_net"])
def test_pixels_and_signals_of_frameworks_nets(name):
    net = getattr(foreign_nets, name)()
    images = np.random.default_rng(0).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    layers = net.layers[:-1]
    unit = zfjax.Unit(3)
    signals = signals_at(net.features(layers), images, layers, unit=unit)
    expected = net.project(images, unit, layer=layers[-1])
    np.testing.assert_allclose(signals.pixels, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    shapes = nets.shapes_of(net)
    assert all(signals.layers[layer].shape == (1, *shapes[layer]) for layer in layers)
    assert all(np.abs(signals.layers[layer]).max() > 0 for layer in layers)


def test_what_a_loop_gives_is_a_layer_and_the_image_itself_is_none():
    def looped(images):
        first = lax.map(lambda image: straight(image[None])["first"][0], images)
        return {"first": first, "last": jax.nn.relu(conv(first, SECOND)) + conv(first, ACROSS)}

    signals = signals_at(looped, HERE, ["first", "last"], unit=zfjax.Unit(2))
    np.testing.assert_allclose(signals.layers["first"], expected_at_first(), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="layer 'image' is what the model is given"):
        signals_at(lambda images: {"image": images, **straight(images)}, HERE, ["image", "last"], unit=zfjax.Unit(2))
