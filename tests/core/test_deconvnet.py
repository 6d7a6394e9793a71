"""The deconvnet: one activation isolated, carried down as the slow reference does it, from any layer of any table."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import reference
import tiny_nets

import zfjax
from zfjax import Unit

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
    with pytest.warns(UserWarning, match="2 activations are below 0"):
        kept = zfjax.isolate(features, channel=2)
    np.testing.assert_array_equal(kept, expected)


def test_isolate_takes_a_traced_channel_and_one_outside_keeps_nothing():
    features = features_4d()
    traced = jax.jit(lambda features, channel: zfjax.isolate(features, channel=channel))
    np.testing.assert_array_equal(traced(features, 1), tiny_nets.one_unit(features, 1))
    assert not np.any(traced(features, 3)) and not np.any(traced(features, -1))


def test_isolate_under_vmap_is_the_loop():
    features = features_4d()
    found = jax.vmap(lambda channel: zfjax.isolate(features, channel=channel))(np.arange(3))
    np.testing.assert_array_equal(found, [tiny_nets.one_unit(features, channel) for channel in range(3)])


WAYS = zfjax.deconvnet.WAYS


def one_image(table=tiny_nets.MINI):
    """(params, trace) of the first of the shared images."""
    params = tiny_nets.params(table)
    return params, tiny_nets.forward(params, tiny_nets.images(table.image_size)[:1], architecture=table)[1]


def strongest_unit(trace, layer):
    """The map with the strongest activation, so that there is something to see."""
    features = np.asarray(trace[layer].features)
    return Unit(features.max(axis=tuple(range(features.ndim - 1))).argmax(), layer=layer)


UNITS = Unit(np.array([2, 0, 1, 3]), (np.array([0, 1, 1, 2]), np.array([2, 2, 0, 1])))


def unit_of(units, n):
    """The n-th of several units, by itself."""
    row, column = units.position
    return Unit(int(units.channel[n]), (int(row[n]), int(column[n])), units.layer)


def test_isolate_of_a_unit_is_that_of_its_channel_and_position():
    features = features_4d()
    expected = zfjax.isolate(features, channel=1, position=(1, 3))
    np.testing.assert_array_equal(zfjax.isolate(features, Unit(1, (1, 3), "any layer")), expected)
    np.testing.assert_array_equal(zfjax.isolate(features, unit=2), zfjax.isolate(features, channel=2))


def test_isolate_of_several_units_of_one_image_is_each_alone():
    features = features_4d()[:1]
    units = Unit(np.array([2, 0, 1, 0]), (1, np.array([3, 0, 0, 2])))
    expected = [
        zfjax.isolate(features, channel=int(c), position=(1, int(x)))[0]
        for c, x in zip(units.channel, units.position[1], strict=True)
    ]
    np.testing.assert_array_equal(zfjax.isolate(features, units), expected)
    np.testing.assert_array_equal(jax.jit(zfjax.isolate)(features, units), expected)


def test_isolate_of_several_maps_of_one_image_keeps_the_strongest_place_of_each():
    features = features_4d()[:1]
    expected = [tiny_nets.one_unit(features, channel)[0] for channel in (2, 0, 1, 1)]
    np.testing.assert_array_equal(zfjax.isolate(features, Unit(np.array([2, 0, 1, 1]))), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_down_from_a_unit_is_that_from_its_isolated_features(way):
    params, trace = tiny_nets.params(tiny_nets.MINI), tiny_nets.run(tiny_nets.MINI)[1]
    channels = np.asarray(trace["conv2"].features).max(axis=(1, 2)).argmax(axis=1)  # unit n belongs to image n
    top = zfjax.isolate(trace["conv2"].features, channel=channels)
    expected = WAYS[way](params, trace, top, layer="conv2", architecture=tiny_nets.MINI)
    assert np.all(np.any(expected, axis=(1, 2, 3)))
    for unit, layer in (
        (Unit(channels), {"layer": "conv2"}),
        (Unit(channels, layer="conv2"), {}),
        (Unit(channels, layer="conv2"), {"layer": "conv2"}),
    ):
        found = WAYS[way](params, trace, unit, architecture=tiny_nets.MINI, **layer)
        np.testing.assert_array_equal(found, expected)


def test_projections_of_several_units_of_one_image_are_those_of_each_to_the_bit():
    params, trace = one_image()
    units = UNITS._replace(layer="conv2")
    found = zfjax.project(params, trace, units, architecture=tiny_nets.MINI)
    assert found.shape == (4, 34, 34, 3) and np.any(found)
    for n, picture in enumerate(found):
        alone = zfjax.project(params, trace, unit_of(units, n), architecture=tiny_nets.MINI)
        np.testing.assert_array_equal(picture, alone[0])


@pytest.mark.filterwarnings("ignore:seed='value'")  # some logits are below 0
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", ["conv2", "fc7", "fc8"])
def test_several_units_of_one_image_are_each_alone(layer, way):
    """But for the order of sums, which the compiler chooses by the size of the batch."""
    params, trace = one_image()
    found = WAYS[way](params, trace, Unit(np.array([2, 0, 1, 3]), layer=layer), architecture=tiny_nets.MINI)
    alone = [WAYS[way](params, trace, Unit(n, layer=layer), architecture=tiny_nets.MINI)[0] for n in (2, 0, 1, 3)]
    assert found.shape == (4, 34, 34, 3)
    assert tiny_nets.relative_error(found, alone) < 1e-6


def test_projections_of_several_units_of_one_image_are_a_batch_of_that_image_to_the_bit():
    params, trace = one_image()
    repeated = jax.tree.map(lambda array: np.repeat(array, 4, axis=0), trace)
    units = Unit(np.array([2, 0, 1, 3]), layer="fc7")
    found, expected = (zfjax.project(params, seen, units, architecture=tiny_nets.MINI) for seen in (trace, repeated))
    assert np.any(found)
    np.testing.assert_array_equal(found, expected)


def test_a_unit_passes_through_jit_and_vmap_with_its_layer():
    params, trace = one_image()
    units = UNITS._replace(layer="conv2")

    def down(unit):
        return zfjax.project(params, trace, unit, architecture=tiny_nets.MINI)

    expected = down(units)
    np.testing.assert_array_equal(jax.jit(down)(units), expected)
    np.testing.assert_array_equal(jax.vmap(down)(units)[:, 0], expected)


def test_the_way_down_from_a_unit_is_differentiable_in_the_trace():
    """Homogeneous of degree one in the features that it starts from."""
    params, trace = one_image()

    unit = strongest_unit(trace, "conv3")

    def down(features):
        seen = trace | {"conv3": trace["conv3"]._replace(features=features)}
        return zfjax.project(params, seen, unit, architecture=tiny_nets.MINI)

    features = trace["conv3"].features
    pixels, slope = jax.jvp(down, (features,), (features,))
    assert np.any(pixels) and tiny_nets.relative_error(slope, pixels) < 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_the_steps_of_a_way_end_in_its_pixels(way):
    """Each hands on what the next starts from; the last, scaled as the images are, is the picture."""
    params, trace = one_image()
    unit = strongest_unit(trace, "fc7")
    names = []

    # one program that XLA optimises a little: without, it rounds what is the same differently; names leave it sorted
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    def both(params, trace, unit):
        steps = zfjax.deconvnet.descend(params, trace, unit, architecture=tiny_nets.MINI, way=way)
        names.extend(steps)
        return steps, WAYS[way](params, trace, unit, architecture=tiny_nets.MINI)

    steps, pixels = both(params, trace, unit)
    assert names == ["fc7", "fc6", "conv3", "conv2", "conv1"]
    np.testing.assert_array_equal(np.float32(tiny_nets.MINI.input_scale) * steps["conv1"].filtered, pixels)
    assert np.any(steps["fc7"].filtered)
    np.testing.assert_array_equal(steps["fc6"].unpooled, steps["fc7"].filtered)


@pytest.mark.parametrize("way", WAYS)
def test_places_carried_down_together_are_the_way_of_each(way):
    params, images = tiny_nets.params(tiny_nets.MINI), tiny_nets.images(34)
    places = {"image": [1, 0, 1], "channel": [2, 0, 5], "row": [1, 2, 0], "column": [0, 2, 1]}
    places = {name: np.array(numbers) for name, numbers in places.items()}
    options = {"layer": "conv2", "architecture": tiny_nets.MINI}
    found = zfjax.deconvnet.project_places(params, images, places, way=WAYS[way], batch_size=2, **options)
    by_name = zfjax.deconvnet.project_places(params, images, places, way=way, batch_size=2, **options)
    np.testing.assert_array_equal(found, by_name)
    units = Unit(places["channel"], (places["row"], places["column"]), layer="conv2")
    architecture = tiny_nets.MINI
    by_units = zfjax.deconvnet.project_places(
        params, images, units, of=places["image"], way=way, architecture=architecture
    )
    np.testing.assert_array_equal(by_units, by_name)
    for n, picture in enumerate(found):
        trace = tiny_nets.forward(params, images[places["image"][n]][None], architecture=tiny_nets.MINI)[1]
        unit = Unit(int(places["channel"][n]), (int(places["row"][n]), int(places["column"][n])))
        expected = WAYS[way](params, trace, unit, **options)[0]
        np.testing.assert_allclose(picture, expected, rtol=1e-4, atol=1e-5)
    assert np.any(found)


def test_units_without_of_stand_in_the_one_image_or_each_in_its_own():
    params, images, options = tiny_nets.params(tiny_nets.MINI), tiny_nets.images(34), {"architecture": tiny_nets.MINI}
    both = zfjax.deconvnet.project_places(params, images, Unit(1, layer="fc6"), **options)
    each = zfjax.deconvnet.project_places(params, images, Unit(np.array([1, 3]), layer="fc6"), **options)
    one = zfjax.deconvnet.project_places(params, images[:1], Unit(np.array([1, 3]), layer="fc6"), **options)
    assert len(both) == len(each) == len(one) == 2
    np.testing.assert_allclose(both[0], each[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one[0], each[0], rtol=1e-5, atol=1e-6)
    assert np.abs(one[1] - each[1]).max() > 0
