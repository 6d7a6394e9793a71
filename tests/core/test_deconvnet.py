"""The deconvnet: one activation isolated, carried down as the slow reference does it, from any layer of any table."""

import dataclasses

import jax
import numpy as np
import pytest
import reference
import tiny_nets

import zfjax

MINI_LAYERS = tiny_nets.MINI.layer_names


CASES = [("mini", layer) for layer in MINI_LAYERS] + [
    ("zfnet-112", "conv5"),
    ("zfnet-113", "conv5"),
    ("zfnet-113", "fc8"),
    ("zfnet-224", "conv2"),
    ("alexnet-112", "fc7"),
]


def project(table, layer, top):
    return zfjax.project(tiny_nets.params(table), tiny_nets.run(table)[1], top, layer=layer, architecture=table)


def project_reference(table, layer, top):
    return reference.project(tiny_nets.params(table), tiny_nets.reference_run(table), top, layer, table)


@pytest.mark.parametrize(("table", "layer"), CASES)
def test_projection_of_a_unit_is_the_reference(table, layer):
    """The map with the largest sum; of the logits the smallest, for a negative one is carried down as it is."""
    table = tiny_nets.TABLES[table]
    features = np.asarray(tiny_nets.run(table)[1][layer].features)
    sums = features.sum(axis=tuple(range(features.ndim - 1)))
    top = tiny_nets.one_unit(features, sums.argmin() if layer == "fc8" else sums.argmax())
    assert np.all(np.any(top.reshape(2, -1), axis=1))
    assert tiny_nets.relative_error(project(table, layer, top), project_reference(table, layer, top)) < 1e-5


@pytest.mark.parametrize("layer", MINI_LAYERS)
def test_projection_of_any_signed_signal_is_the_reference(layer):
    """Every place filled with both signs: all overlaps, ReLUs and groups at work at once."""
    table = tiny_nets.MINI
    top = np.random.default_rng(7).normal(size=tiny_nets.run(table)[1][layer].features.shape).astype(np.float32)
    assert tiny_nets.relative_error(project(table, layer, top), project_reference(table, layer, top)) < 1e-5


def test_projection_reads_only_the_switches_of_the_trace():
    trace = {name: seen._replace(features=None) for name, seen in tiny_nets.run(tiny_nets.MINI)[1].items()}
    top = np.asarray(tiny_nets.run(tiny_nets.MINI)[1]["conv2"].features)
    found = zfjax.project(tiny_nets.params(tiny_nets.MINI), trace, top, layer="conv2", architecture=tiny_nets.MINI)
    np.testing.assert_array_equal(found, project(tiny_nets.MINI, "conv2", top))


def test_projection_ignores_biases():
    other = jax.tree.map(np.copy, tiny_nets.params(tiny_nets.MINI))
    for layer in other.values():
        layer["bias"] += 1000
    top = np.asarray(tiny_nets.run(tiny_nets.MINI)[1]["fc6"].features)
    found = zfjax.project(other, tiny_nets.run(tiny_nets.MINI)[1], top, layer="fc6", architecture=tiny_nets.MINI)
    np.testing.assert_array_equal(found, project(tiny_nets.MINI, "fc6", top))


def test_projection_is_signed_below_and_its_input_scale_is_that_of_the_images():
    top = np.asarray(tiny_nets.run(tiny_nets.MINI)[1]["conv1"].features)
    pixels = project(tiny_nets.MINI, "conv1", top)
    assert pixels.min() < 0 < pixels.max()
    unscaled = dataclasses.replace(tiny_nets.MINI, input_scale=1.0)
    whole = zfjax.project(
        tiny_nets.params(tiny_nets.MINI), tiny_nets.run(tiny_nets.MINI)[1], top, layer="conv1", architecture=unscaled
    )
    np.testing.assert_array_equal(pixels, 0.5 * whole)


def features_4d():
    """Two images of 3x4 places and 3 maps, whole numbers with repeats."""
    return np.random.default_rng(2).integers(1, 6, (2, 3, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("channel", range(3))
def test_isolate_keeps_the_strongest_place_the_first_of_equal_ones(channel):
    features = features_4d()
    np.testing.assert_array_equal(zfjax.isolate(features, channel=channel), tiny_nets.one_unit(features, channel))


def test_isolate_takes_numpys_whole_numbers():
    features = features_4d()
    for kind in (np.int64, np.uint8):
        np.testing.assert_array_equal(zfjax.isolate(features, channel=kind(2)), zfjax.isolate(features, channel=2))


def test_isolate_takes_one_channel_for_each_image():
    features, channels = features_4d(), np.array([2, 0])
    expected = [tiny_nets.one_unit(features[b : b + 1], c)[0] for b, c in enumerate(channels)]
    np.testing.assert_array_equal(zfjax.isolate(features, channel=channels), expected)


def test_isolate_at_a_position_keeps_that_activation_or_with_no_channel_all_of_that_place():
    features = features_4d()
    expected = np.zeros_like(features)
    expected[:, 1, 3, :] = features[:, 1, 3, :]
    np.testing.assert_array_equal(zfjax.isolate(features, position=(1, 3)), expected)
    expected[..., [0, 2]] = 0
    np.testing.assert_array_equal(zfjax.isolate(features, channel=1, position=(1, 3)), expected)


def test_isolate_takes_one_position_for_each_image():
    features = features_4d()
    expected = np.zeros_like(features)
    expected[0, 2, 0, 1], expected[1, 0, 3, 1] = features[0, 2, 0, 1], features[1, 0, 3, 1]
    found = zfjax.isolate(features, channel=1, position=(np.array([2, 0]), np.array([0, 3])))
    np.testing.assert_array_equal(found, expected)


def test_isolate_of_a_dense_layer_keeps_the_unit_even_a_negative_one():
    features = -features_4d()[:, 0, :, 0]
    expected = np.zeros_like(features)
    expected[:, 2] = features[:, 2]
    np.testing.assert_array_equal(zfjax.isolate(features, channel=2), expected)


def test_isolate_takes_a_traced_channel_and_one_outside_keeps_nothing():
    features = features_4d()
    traced = jax.jit(lambda features, channel: zfjax.isolate(features, channel=channel))
    np.testing.assert_array_equal(traced(features, 1), tiny_nets.one_unit(features, 1))
    assert not np.any(traced(features, 3)) and not np.any(traced(features, -1))


def test_isolate_under_vmap_is_the_loop():
    features = features_4d()
    found = jax.vmap(lambda channel: zfjax.isolate(features, channel=channel))(np.arange(3))
    np.testing.assert_array_equal(found, [tiny_nets.one_unit(features, channel) for channel in range(3)])
