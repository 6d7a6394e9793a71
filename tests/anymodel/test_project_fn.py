"""project_fn: two independent engines agree on this library's networks; any model, any intermediate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
from jax import lax

import zfjax
from zfjax.anymodel import Unit, explain_rules, project_fn
from zfjax.ops import conv_transpose

NHWC = ("NHWC", "HWIO", "NHWC")

LAYERS = {
    "mini": ("conv1", "conv2", "conv3", "fc6", "fc7", "fc8"),
    "zfnet-113": ("conv1", "conv2", "conv5", "fc8"),
    "alexnet-112": ("conv2", "conv4", "fc6"),
}


def features_of(table, layer):
    return lambda images: zfjax.forward(tiny_nets.params(table), images, architecture=table)[1][layer].features


def strongest_channels(features):
    """[B] the map with the strongest activation of each image."""
    return features.reshape(len(features), -1, features.shape[-1]).max(axis=1).argmax(axis=1)


@pytest.mark.parametrize("name", LAYERS)
def test_both_engines_agree_on_the_networks_of_the_paper(name):
    """The program that is traced and given another way back, and the layers undone one by one, all in two programs."""
    table, layers = tiny_nets.TABLES[name], LAYERS[name]
    images, (_, trace) = tiny_nets.images(table.image_size), tiny_nets.run(table)
    channels = {layer: strongest_channels(trace[layer].features) for layer in layers}

    @jax.jit
    def by_layers(images):
        trace = zfjax.forward(tiny_nets.params(table), images, architecture=table)[1]
        tops = {layer: zfjax.isolate(trace[layer].features, channel=channels[layer]) for layer in layers}
        return {
            layer: zfjax.project(tiny_nets.params(table), trace, top, layer=layer, architecture=table)
            for layer, top in tops.items()
        }

    @jax.jit
    def by_rule(images):
        return {layer: project_fn(features_of(table, layer), images, unit=channels[layer]) for layer in layers}

    found, expected = by_rule(images), by_layers(images)
    for layer in layers:
        if np.any(expected[layer]) or layer != "fc8":  # the strongest logit of "mini" is negative
            assert tiny_nets.relative_error(found[layer], expected[layer]) < 1e-6


@pytest.mark.slow
def test_both_engines_agree_to_the_bit_operation_by_operation():
    """Compiled as a whole each is a program of its own, which XLA may round in its own way: that of JAX 0.8 does."""
    table, params = tiny_nets.MINI, tiny_nets.params(tiny_nets.MINI)
    with jax.disable_jit():
        _, trace = zfjax.forward(params, tiny_nets.images(34), architecture=table)
        channels = strongest_channels(trace["fc7"].features)
        top = zfjax.isolate(trace["fc7"].features, channel=channels)
        expected = zfjax.project(params, trace, top, layer="fc7", architecture=table)
        found = project_fn(features_of(table, "fc7"), tiny_nets.images(34), unit=channels)
    assert np.any(expected)
    np.testing.assert_array_equal(found, expected)


def test_gradient_and_guided_backprop_agree_with_the_explicit_ones_norms_included():
    table, (_, trace) = tiny_nets.MINI, tiny_nets.run(tiny_nets.MINI)
    channels = strongest_channels(trace["conv3"].features)
    top = zfjax.isolate(trace["conv3"].features, channel=channels)
    for rule, explicit in {"gradient": zfjax.gradient, "guided": zfjax.guided_backprop}.items():
        expected = explicit(tiny_nets.params(table), trace, top, layer="conv3", architecture=table)
        found = jax.jit(
            lambda images, rule=rule: project_fn(features_of(table, "conv3"), images, unit=channels, rule=rule)
        )
        assert np.any(expected)
        assert tiny_nets.relative_error(found(tiny_nets.images(34)), expected) < 1e-5


def test_every_operation_of_zfnet_is_accounted_for():
    """Three pools keep their reading, two norms are skipped, seven ReLUs follow the rule; that is all."""
    table = tiny_nets.TABLES["zfnet-113"]
    report = explain_rules(features_of(table, "fc8"), tiny_nets.images(113))
    rules = [line.rule for line in report]
    assert {rule: rules.count(rule) for rule in set(rules)} == {"own gradient": 3, "skipped": 2, "rectifier": 7}


KERNEL = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(3, 8, 8, 2)).astype(np.float32)


def maps_of(images):
    """A convolution and its rectifier."""
    return jnp.maximum(lax.conv_general_dilated(images, KERNEL, (2, 2), "SAME", dimension_numbers=NHWC), 0)


@pytest.mark.parametrize(
    ("unit", "options"),
    [
        (2, {"channel": 2}),
        (np.array([1, 3, 0]), {"channel": np.array([1, 3, 0])}),
        (Unit(2), {"channel": 2}),
        (Unit(position=(np.array([2, 0, 3]), 1)), {"position": (np.array([2, 0, 3]), 1)}),
        ((1, (1, 2)), {"channel": 1, "position": (1, 2)}),
    ],
)
def test_a_unit_is_a_channel_a_position_or_both(unit, options):
    """What is isolated, filtered with the kernel's own transpose; isolated values of a rectifier are not negative."""
    top = zfjax.isolate(maps_of(IMAGES), **options)
    row = zfjax.Conv("conv1", 4, kernel=3, stride=2, padding=(0, 1))
    found = jax.jit(functools.partial(project_fn, maps_of, unit=unit))(IMAGES)
    assert np.any(found)
    assert tiny_nets.relative_error(found, conv_transpose(top, KERNEL, layer=row, input_shape=(8, 8, 2))) < 1e-6


def test_several_units_of_one_image_are_each_alone():
    units = Unit(np.array([1, 3, 0, 1]), (np.array([0, 1, 2, 3]), 1))
    project = jax.jit(lambda unit: project_fn(maps_of, IMAGES[:1], unit=unit))
    found = project(units)
    assert found.shape == (4, 8, 8, 2) and np.any(found)
    for n, picture in enumerate(found):
        alone = project(Unit(units.channel[n], (units.position[0][n], 1)))
        np.testing.assert_array_equal(picture, alone[0])


def test_a_units_layer_names_one_of_the_features_that_a_model_gives():
    def model(images):
        maps = maps_of(images)
        return {"maps": maps, "above": jax.nn.silu(maps)}  # which has no rule, and is not passed on the way

    expected = project_fn(maps_of, IMAGES, unit=2)
    np.testing.assert_array_equal(project_fn(model, IMAGES, unit=Unit(2, layer="maps")), expected)
    with pytest.raises(ValueError, match="layer='map': fn has none of this name .near: 'maps'"):
        project_fn(model, IMAGES, unit=Unit(2, layer="map"))


def test_a_units_layer_says_the_same_as_layer():
    """Where `fn` gives one array too: nothing that a user names is passed over."""
    scoped = lambda images: 2 * jax.named_call(maps_of, name="maps")(images)  # noqa: E731
    by_unit = project_fn(scoped, IMAGES, unit=Unit(2, layer="maps"))
    np.testing.assert_array_equal(by_unit, project_fn(scoped, IMAGES, unit=2, layer="maps"))
    assert not np.array_equal(by_unit, project_fn(scoped, IMAGES, unit=2))
    with pytest.raises(ValueError, match="layer='zz': fn has none of this name"):
        project_fn(scoped, IMAGES, unit=Unit(2, layer="zz"))


def test_it_starts_from_the_activation_itself():
    """One dense layer: the unit's value times its weights, whatever its sign; no ReLU stands above it."""
    images, weights = IMAGES[:, 1, :, 0], KERNEL[:2].reshape(8, -1)
    with pytest.warns(UserWarning, match="activations are below 0"):
        found = project_fn(lambda images: images @ weights, images, unit=1)
    values = (images @ weights)[:, 1:2]
    assert values.min() < 0 < values.max()
    np.testing.assert_allclose(found, values * weights[:, 1], rtol=1e-5)


def test_a_batch_is_its_images_one_by_one():
    project = jax.jit(functools.partial(project_fn, maps_of, unit=1))
    for image, expected in zip(IMAGES, project(IMAGES), strict=True):
        assert tiny_nets.relative_error(project(image[None])[0], expected) < 1e-6


def test_it_does_no_more_work_than_the_explicit_engine():
    """Forward and projection together: the same arithmetic within a hundredth, counted by the compiler."""
    table = tiny_nets.TABLES["zfnet-113"]

    def explicit(images):
        _, trace = zfjax.forward(tiny_nets.params(table), images, architecture=table)
        top = zfjax.isolate(trace["conv5"].features, channel=1)
        return zfjax.project(tiny_nets.params(table), trace, top, layer="conv5", architecture=table)

    by_rule = functools.partial(project_fn, features_of(table, "conv5"), unit=1)
    counts = [jax.jit(fn).lower(tiny_nets.images(113)).compile().cost_analysis()["flops"] for fn in (explicit, by_rule)]
    assert counts[1] <= 1.01 * counts[0]


@pytest.mark.parametrize(
    ("fn", "images", "words"),
    [
        (lambda x: x, np.zeros((2, 4), np.uint8), "images of type uint8: floating point"),
        (lambda x: {"a": x}, np.zeros((2, 4), np.float32), "fn returns PyTreeDef.*: one floating array"),
        (lambda x: x.astype(jnp.int32), np.zeros((2, 4), np.float32), "fn returns int32: one floating array"),
        (lambda x: x[:1], np.zeros((2, 4), np.float32), r"fn returns \(1, 4\) for images of \(2, 4\): features of"),
        (lambda x: x.sum(), np.zeros((2, 4), np.float32), r"features of shape \(\)"),
        (jax.nn.silu, np.zeros((2, 4), np.float32), "no rule covers"),
        (lambda x: x[:, :0], np.zeros((2, 4), np.float32), "channel=0"),
    ],
)
def test_what_cannot_be_projected_is_named(fn, images, words):
    with pytest.raises(ValueError, match=words):
        project_fn(fn, images, unit=0)


def test_unknown_operations_keep_their_gradient_on_request():
    images = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    with pytest.warns(UserWarning, match="1 of 2 activations are below 0"):
        found = project_fn(jnp.tanh, images, unit=2, on_unknown="keep")
    expected = np.zeros_like(images)
    expected[:, 2] = np.tanh(images[:, 2]) * (1 - np.tanh(images[:, 2]) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
