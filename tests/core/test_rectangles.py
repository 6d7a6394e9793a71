"""Images that are no squares, over random tables of random sides: up as the slow reference, down by all three ways."""

import functools
import itertools

import jax
import numpy as np
import pytest
import reference
import tiny_nets

import zfjax
from zfjax import Unit
from zfjax.deconvnet import WAYS, project_places, project_windows

LAYERS = ["fc4", "conv2"]
HEAD = (zfjax.Dense("fc3", 6), zfjax.Dense("fc4", 4, hidden=False))
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))]
CASES = [
    (0, "fc4"),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [*itertools.product(range(9), LAYERS)][1:]),
]


@functools.cache
def table_of(seed):
    """A random table for images of another height than width."""
    height, width = np.random.default_rng(seed).choice(np.arange(24, 70), 2, replace=False).tolist()
    return tiny_nets.random_table(100 + seed, (height, width), *HEAD)


def compare(pixels, expected):
    assert pixels.shape == expected.shape
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("seed", SEEDS)
def test_forward_is_the_reference(seed):
    table = table_of(seed)
    _, trace = tiny_nets.run(table)
    for name, expected in tiny_nets.reference_run(table).items():
        assert trace[name].features.shape[1:] == table.sizes()[name].output
        compare(trace[name].features, expected["features"])
        if expected["switches"] is not None:
            np.testing.assert_array_equal(trace[name].switches, expected["switches"], name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("seed", "layer"), CASES)
def test_every_way_down_is_the_reference(seed, layer, way):
    """Every place filled with both signs, on both images."""
    table = table_of(seed)
    params, (_, trace) = tiny_nets.params(table), tiny_nets.run(table)
    top = np.random.default_rng(7).normal(size=trace[layer].features.shape).astype(np.float32)
    expected = reference.project(params, tiny_nets.reference_run(table), top, layer, table, way)
    compare(WAYS[way](params, trace, top, layer=layer, architecture=table), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("seed", "layer"), CASES)
def test_windows_in_their_places_are_the_reference(seed, layer, way):
    """The first and the last living unit of the second image, each alone and from 1; of those below 0 if none lives."""
    table = table_of(seed)
    params, trace = tiny_nets.params(table), jax.tree.map(lambda maps: maps[1:], tiny_nets.run(table)[1])
    features = np.asarray(trace[layer].features)
    living = features[0] > 0 if (features[0] > 0).any() else features[0] < 0
    (*place, channel) = np.argwhere(living)[[0, -1]].T
    unit = Unit(channel, tuple(place) or None)
    top = np.zeros((2, *features.shape[1:]), np.float32)
    top[np.arange(2), *place, channel] = 1
    np.testing.assert_array_equal(zfjax.isolate(features, unit, seed="one"), top)
    images = tiny_nets.images(table.image_size)[[1, 1]]
    expected = reference.project(params, reference.forward(params, images, table), top, layer, table, way)
    windows = project_windows(params, trace, unit, layer=layer, architecture=table, way=way, seed="one")
    compare(windows.paste(table.image_shape[:2]), expected)


@pytest.mark.parametrize("layer", ["conv2", "fc6"])
def test_places_of_images_are_their_units(layer):
    table = tiny_nets.MINI.with_sizes(image=(40, 27))
    params, (_, trace) = tiny_nets.params(table), tiny_nets.run(table)
    features = np.asarray(trace[layer].features)
    channel = int(features.min(axis=0).reshape(-1, features.shape[-1]).max(axis=0).argmax())  # alive in both images
    place = np.unravel_index(features[..., channel].min(axis=0).argmax(), features.shape[1:-1])
    unit = Unit(channel, place or None)
    options = {"layer": layer, "architecture": table}
    expected = np.asarray(zfjax.project(params, trace, unit, **options))
    assert expected.any()
    compare(project_places(params, tiny_nets.images((40, 27)), unit, **options), expected)


def test_images_turned_upright_are_refused():
    table = table_of(0)
    height, width, _ = table.image_shape
    images = np.zeros((1, width, height, 3), np.float32)
    with pytest.raises(zfjax.UserError, match=rf"random-.* reads \[B, {height}, {width}, 3\]"):
        zfjax.forward(tiny_nets.params(table), images, architecture=table)


def test_a_window_of_a_dense_layer_is_the_whole_picture():
    table = tiny_nets.MINI.with_sizes(image=(40, 27))
    params, (_, trace) = tiny_nets.params(table), tiny_nets.run(table)
    windows = project_windows(params, trace, Unit(1, layer="fc6"), architecture=table)
    assert windows.pixels.shape == (2, 40, 27, 3) and not np.any(windows.rows) and not np.any(windows.columns)
