"""Of images that differ in a rectangle only what it changes is computed, and is what whole forward passes give."""

from functools import partial

import jax
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax import features
from zfjax.analyses import changed_parts, occlusion

RNG = np.random.default_rng(3)


def corners_of(size, sides):
    """Every corner of the image, its middle, and places in between."""
    last = np.array(zfjax.nets.size_of(size)) - sides
    return np.concatenate([[[0, 0], last, last * [0, 1], last * [1, 0], last // 2], RNG.integers(0, last + 1, (4, 2))])


def both_ways(table, sides):
    """{layer: features} by parts and by whole passes."""
    params, image = tiny_nets.params(table), 50 * RNG.normal(size=table.image_shape)
    corners = corners_of(table.image_size, sides).astype(np.int32)
    patches = 50 * RNG.normal(size=(len(corners), *sides, table.channels))
    pasted = np.stack([image] * len(corners))
    for sheet, patch, (y, x) in zip(pasted, patches, corners, strict=True):
        sheet[y : y + sides[0], x : x + sides[1]] = patch
    image, patches, pasted = (array.astype(np.float32) for array in (image, patches, pasted))
    layers = table.layer_names
    of_parts = partial(changed_parts.layers_where_changed, layers=layers, architecture=table)
    found = jax.jit(of_parts)(params, image, patches, corners=corners)
    trace = jax.jit(lambda images: zfjax.forward(params, images, architecture=table)[1])(pasted)
    return {layer: (found[layer], trace[layer].features) for layer in layers}


def assert_alike(ways):
    for layer, (found, expected) in ways.items():
        np.testing.assert_allclose(
            found, expected, rtol=2e-5, atol=2e-5 * np.abs(np.asarray(expected)).max(), err_msg=layer
        )


@pytest.mark.parametrize(("seed", "sides"), [(0, (9, 14)), (1, (1, 1)), (2, (7, 3)), (4, (12, 12)), (6, (20, 2))])
def test_parts_of_a_random_table_are_those_of_whole_passes(seed, sides):
    assert_alike(both_ways(tiny_nets.random_table(seed), sides))


@pytest.mark.parametrize(("seed", "size", "sides"), [(1, (33, 60), (9, 14)), (4, (64, 31), (20, 4))])
def test_parts_of_images_that_are_no_squares_are_those_of_whole_passes(seed, size, sides):
    table = tiny_nets.random_table(seed, size, zfjax.Dense("fc3", 4, hidden=False))
    assert_alike(both_ways(table, sides))
    assert changed_parts.times_saved(table, sides) > 1


def test_a_patch_costs_as_many_products_as_it_changes():
    """Of 4 x 8 places a patch of 2 x 3 pixels changes 3 x 4, as the filters of 2 look into it from one more."""
    table = zfjax.Architecture("one", (zfjax.Conv("conv1", 1, kernel=2),), image_size=(5, 9))
    assert changed_parts.times_saved(table, (2, 3)) == 4 * 8 / (3 * 4)


@pytest.mark.parametrize("name", ["zfnet", "alexnet"])
def test_parts_go_up_to_the_logits(name):
    """Groups, norms before and after pools, dense layers; a square that grows to whole maps on the way."""
    table = {"zfnet": zfjax.ZFNET, "alexnet": zfjax.ALEXNET}[name].scaled(1 / 16).with_sizes(image=96, fc8=5)
    ways = both_ways(table, (13, 20))
    assert_alike(ways)
    assert np.ptp(np.asarray(ways["fc8"][0]), axis=0).max() > 0  # the places differ


def test_a_patch_as_large_as_the_image_is_the_image():
    assert_alike(both_ways(tiny_nets.random_table(2), (48, 48)))


def test_a_number_that_is_none_is_in_the_places_that_see_it_and_in_no_others():
    table = tiny_nets.random_table(1)
    params, image = tiny_nets.params(table), np.ones((48, 48, 3), np.float32)
    patches, corners = np.full((1, 2, 2, 3), np.nan, np.float32), np.array([[30, 11]], np.int32)
    options = {"layers": ["conv0"], "architecture": table}
    of_parts = jax.jit(partial(changed_parts.layers_where_changed, **options))
    found = of_parts(params, image, patches, corners=corners)["conv0"]
    image[30:32, 11:13] = np.nan
    whole = features.jitted(features.layers_of(params, **options))(image[None])["conv0"]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(whole))
    assert 0 < np.isnan(whole).mean() < 0.5


@pytest.mark.parametrize("square", [(8, 8), (16, 5)])
def test_a_sweep_over_a_table_is_that_of_whole_passes(square, monkeypatch):
    table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64, fc8=5)
    fn = features.layers_of(tiny_nets.params(table), ["conv2", "fc8"], architecture=table)
    image, fill = 50 * RNG.normal(size=(2, 64, 64, 3)).astype(np.float32)
    corners = occlusion.places(64, square, 12)
    options = {"square": square, "fill": fill, "batch_size": 10}
    expected = occlusion.sweep(lambda images: fn(images), image, corners, **options)  # any function: whole passes
    assert changed_parts.times_saved(table, square) > occlusion.SAVING
    monkeypatch.setattr(occlusion, "occlude", None)  # what whole passes need
    found = occlusion.sweep(fn, image, corners, **options)
    assert found["fc8"].shape == (*corners.shape[:2], 5)
    for layer in found:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-4, atol=1e-4 * abs(expected[layer]).max())


def test_where_a_square_changes_nearly_all_whole_passes_are_taken(monkeypatch):
    table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64, fc8=5)
    fn = features.layers_of(tiny_nets.params(table), ["fc8"], architecture=table)
    monkeypatch.setattr(changed_parts, "layers_where_changed", None)
    found = occlusion.sweep(fn, np.ones((64, 64, 3), np.float32), occlusion.places(64, 60, 4), square=60, fill=0.0)
    assert found["fc8"].shape == (2, 2, 5)


def test_another_image_or_net_of_the_table_compiles_no_parts_anew(monkeypatch):
    table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64, fc8=6)
    traces, layers_where_changed = [], changed_parts.layers_where_changed

    def counted(*arguments, **options):
        traces.append(options["layers"])
        return layers_where_changed(*arguments, **options)

    monkeypatch.setattr(changed_parts, "layers_where_changed", counted)
    for seed in (0, 1):
        fn = features.layers_of(tiny_nets.params(table, seed=seed), ["fc8"], architecture=table)
        image = np.full((64, 64, 3), 1.0 + seed, np.float32)
        occlusion.sweep(fn, image, occlusion.places(64, 8, 28), square=8, fill=float(seed))
    assert traces == [("fc8",)]


def test_work_saved_is_counted_in_products():
    """By hand: a square of 4 pixels reaches 6 x 6 of 16 x 16 places of a 3 x 3 filter and all of a dense layer."""
    rows = (zfjax.Conv("conv1", 2, kernel=3, padding=(1, 1)), zfjax.Dense("fc2", 3, hidden=False))
    table = zfjax.Architecture("small", rows, image_size=16)
    filters, dense = 27 * 2, 16 * 16 * 2 * 3
    expected = (256 * filters + dense) / (36 * filters + dense)
    np.testing.assert_allclose(changed_parts.times_saved(table, (4, 4)), expected)
