"""Gradient and guided backpropagation: exactly jax.grad, and jax.grad with another ReLU, through pools and norms."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax import network


@jax.custom_vjp
def guided_relu(x):
    return jnp.maximum(x, 0)


guided_relu.defvjp(
    lambda x: (jnp.maximum(x, 0), x), lambda x, signal: (jnp.where(x > 0, jnp.maximum(signal, 0), 0 * signal),)
)


# Both orders of pool and norm, two norms in one layer, a norm alone
NORMS = zfjax.Architecture(
    name="norms",
    layers=(
        zfjax.Conv("conv1", 6, 3, after=(zfjax.ContrastNorm(alpha=0.1), zfjax.Pool(), zfjax.ContrastNorm(alpha=0.2))),
        zfjax.Conv("conv2", 5, 3, after=(zfjax.ContrastNorm(alpha=0.3),)),
        zfjax.Dense("fc6", 7),
        zfjax.Dense("fc7", 4, hidden=False),
    ),
    image_size=16,
)

TABLES = {
    "norms": NORMS,
    "mini": tiny_nets.MINI,
    "zfnet": tiny_nets.TABLES["zfnet-113"],
    "alexnet": tiny_nets.TABLES["alexnet-112"],
}


def signal_for(table, layer):
    shape = tiny_nets.run(table)[1][layer].features.shape
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def vjp(table, layer, signal, features):
    def forward(images):
        return features(tiny_nets.params(table), images, architecture=table)[1][layer].features

    images = tiny_nets.images(table.image_size)
    return jax.jit(lambda signal: jax.vjp(forward, images)[1](signal)[0])(signal)


def ours(method, table, layer, signal):
    return method(tiny_nets.params(table), tiny_nets.run(table)[1], signal, layer=layer, architecture=table)


@pytest.mark.parametrize(
    ("name", "layer"), [("norms", "conv1"), ("norms", "fc7"), ("mini", "fc8"), ("zfnet", "conv5"), ("alexnet", "fc6")]
)
def test_gradient_is_that_of_jax(name, layer):
    table = TABLES[name]
    signal = signal_for(table, layer)
    expected = vjp(table, layer, signal, network.forward)
    assert np.abs(expected).max() > 0
    assert tiny_nets.relative_error(ours(zfjax.gradient, table, layer, signal), expected) < 1e-5


@pytest.mark.parametrize(("name", "layer"), [("norms", "fc7"), ("mini", "conv3"), ("zfnet", "conv5")])
def test_guided_backprop_is_the_gradient_with_a_rectified_signal_at_every_relu(name, layer, monkeypatch):
    table = TABLES[name]
    signal = signal_for(table, layer)
    monkeypatch.setattr(jax.nn, "relu", guided_relu)
    untraced = inspect.unwrap(vars(network)["_conv_layer"])  # it keeps traces with the other ReLU
    monkeypatch.setattr(network, "_conv_layer", untraced)
    expected = vjp(table, layer, signal, network.forward)
    monkeypatch.undo()
    found = ours(zfjax.guided_backprop, table, layer, signal)
    assert tiny_nets.relative_error(found, expected) < 1e-5
    assert tiny_nets.relative_error(ours(zfjax.gradient, table, layer, signal), expected) > 0.1


def test_the_three_agree_where_nothing_is_negative_and_no_norm_stands():
    """Positive weights, biases and images: every ReLU is active and every signal positive."""
    table = tiny_nets.without_norm(tiny_nets.MINI)
    params, images = tiny_nets.params(table, positive=True), np.abs(tiny_nets.images(table.image_size))
    trace = tiny_nets.forward(params, images, architecture=table)[1]
    top = zfjax.isolate(trace["conv3"].features, channel=1)
    pixels = [
        method(params, trace, top, layer="conv3", architecture=table)
        for method in (zfjax.project, zfjax.gradient, zfjax.guided_backprop)
    ]
    assert np.abs(pixels[0]).max() > 0
    np.testing.assert_array_equal(pixels[1], pixels[0])
    np.testing.assert_array_equal(pixels[2], pixels[0])


def test_a_relu_that_let_nothing_through_blocks_the_gradient_but_not_the_projection():
    """One filter of -1, one image of ones: the unit is silent, and only the deconvnet carries it down."""
    table = zfjax.Architecture("one", (zfjax.Conv("conv1", 1, 1), zfjax.Dense("fc2", 2, hidden=False)), 2, 1)
    params = {
        "conv1": {"kernel": -np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32)},
        "fc2": {"kernel": np.ones((4, 2), np.float32), "bias": np.zeros(2, np.float32)},
    }
    trace = zfjax.forward(params, np.ones((1, 2, 2, 1), np.float32), architecture=table)[1]
    top = np.ones((1, 2, 2, 1), np.float32)
    arguments = {"layer": "conv1", "architecture": table}
    np.testing.assert_array_equal(zfjax.project(params, trace, top, **arguments), -top)
    np.testing.assert_array_equal(zfjax.gradient(params, trace, top, **arguments), 0 * top)
    np.testing.assert_array_equal(zfjax.guided_backprop(params, trace, top, **arguments), 0 * top)


def test_a_norm_whose_input_is_missing_is_named():
    trace = {name: seen._replace(norm_inputs=()) for name, seen in tiny_nets.run(tiny_nets.MINI)[1].items()}
    with pytest.raises(ValueError, match=r"trace\['conv2'\].norm_inputs is missing: the layer's norm"):
        zfjax.gradient(
            tiny_nets.params(tiny_nets.MINI), trace, trace["conv2"].features, layer="conv2", architecture=tiny_nets.MINI
        )
