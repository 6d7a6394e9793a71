"""Any function of images, over any number of them: the same values, one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
from jax.tree_util import Partial

from zfjax import features

IMAGES = tiny_nets.images(34, batch=7)


def test_layers_of_is_what_forward_hands_on():
    fn = features.layers_of(tiny_nets.params(tiny_nets.MINI), ["conv2", "fc8"], architecture=tiny_nets.MINI)
    found = fn(tiny_nets.images(34))
    logits, trace = tiny_nets.run(tiny_nets.MINI)
    assert list(found) == ["conv2", "fc8"]
    np.testing.assert_allclose(found["conv2"], trace["conv2"].features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["fc8"], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_of_any_size_give_the_same_rows(batch_size):
    found = features.in_batches(lambda x: {"mean": x.mean((1, 2, 3)), "half": x / 2}, IMAGES, batch_size=batch_size)
    np.testing.assert_allclose(found["mean"], IMAGES.mean((1, 2, 3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["half"], IMAGES / 2)


@pytest.mark.parametrize("batch_size", [3, 4, 7, 8])
def test_batches_are_full_of_different_rows_and_take_each_in_its_order(batch_size):
    batches = features.full_batches(7, batch_size)
    assert {len(set(rows.tolist())) for rows in batches} == {min(batch_size, 7)}
    np.testing.assert_array_equal(batches.ravel()[:7], np.arange(7))
    assert len(batches) == -(-7 // batch_size) and features.full_batches(0, batch_size).size == 0
    with pytest.raises(ValueError, match="batch_size=0: at least 1 is needed"):
        features.full_batches(7, 0)


def test_other_parameters_compile_nothing_anew():
    traces = []

    def scaled(weight, images):
        traces.append(images.shape)
        return images * weight

    for weight in (jnp.float32(2), jnp.float32(3)):
        found = features.in_batches(Partial(scaled, weight), IMAGES, batch_size=3)
        np.testing.assert_array_equal(found, IMAGES * np.float32(weight))
    assert traces == [(3, 34, 34, 3)]
    layers = [
        features.layers_of(tiny_nets.params(tiny_nets.MINI, s), ["fc8"], architecture=tiny_nets.MINI) for s in (0, 1)
    ]
    assert jax.tree.structure(layers[0]) == jax.tree.structure(layers[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: features.in_batches(jnp.sin, IMAGES, batch_size=0), "batch_size=0: at least 1"),
        (lambda: features.in_batches(jnp.sin, IMAGES[:0]), r"images of shape \(0, 34, 34, 3\): at least one"),
        (
            lambda: features.layers_of({}, [], architecture=tiny_nets.MINI),
            r"layers=\[\]: a list of at least one of conv1",
        ),
        (
            lambda: features.layers_of({}, "conv1", architecture=tiny_nets.MINI),
            "layers='conv1': a list of at least one",
        ),
        (lambda: features.layers_of({}, ["conv9"], architecture=tiny_nets.MINI), "unknown layer 'conv9'"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
