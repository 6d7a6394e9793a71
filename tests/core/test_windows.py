"""A unit's window is its whole picture, cut out: for every table, place and way down."""

import jax
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax import Conv, Pool, Unit, deconvnet
from zfjax.deconvnet import WAYS, project_windows, windows_of_places

NUM = 6  # units of each case


def units_of(features, seed=0):
    """(unit, image of each): the first and the last that live, some others, and of maps one in the last corner."""
    features, rng = np.asarray(features), np.random.default_rng(seed)
    alive = np.argwhere(features > 0)
    chosen = np.concatenate([alive[[0, -1]], rng.permutation(alive)[: NUM - 3], [np.array(features.shape) - 1]])
    chosen = chosen if features.ndim == 4 else chosen[:-1]  # a logit there may be below 0
    image, *place, channel = chosen.T
    return Unit(channel, tuple(place) if place else None), image


def both(table, layer, way):
    """(windows, pictures) of the same units."""
    params, (_, trace) = tiny_nets.params(table), tiny_nets.run(table)
    unit, image = units_of(trace[layer].features)
    options = {"layer": layer, "architecture": table}
    windows = project_windows(params, trace, unit, way=way, of=image, **options)
    seen = jax.tree.map(lambda maps: np.asarray(maps)[image], trace)
    return windows, np.asarray(WAYS[way](params, seen, unit, **options))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", [9, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 23))])
def test_windows_of_a_random_table_are_its_pictures(seed, way):
    table = tiny_nets.random_table(seed)
    windows, pictures = both(table, "conv2", way)
    assert tiny_nets.relative_error(windows.paste((48, 48)), pictures) < 1e-6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", ["conv2", "fc7"])
def test_windows_of_the_small_table_are_its_pictures(layer, way):
    windows, pictures = both(tiny_nets.MINI, layer, way)
    assert pictures.any()
    assert tiny_nets.relative_error(windows.paste((34, 34)), pictures) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc8"])
@pytest.mark.parametrize("name", ["zfnet-113", "alexnet-112"])
def test_windows_of_the_papers_tables_are_their_pictures(name, layer, way):
    table = tiny_nets.TABLES[name]
    windows, pictures = both(table, layer, way)
    assert tiny_nets.relative_error(windows.paste((table.image_size,) * 2), pictures) < 1e-6


def test_a_window_of_the_first_layer_is_its_filter_to_the_bit():
    windows, pictures = both(tiny_nets.MINI, "conv1", "deconvnet")
    assert windows.pixels.shape == (NUM, 5, 5, 3)
    np.testing.assert_array_equal(windows.paste((34, 34)), pictures)


def test_a_window_is_as_large_as_what_lies_under_the_top_switch():
    """13 pixels of conv2 seen from one place of its filters; from the pool above it would be 21."""
    table = zfjax.Architecture(
        "two", (Conv("conv1", 2, kernel=5, stride=2, after=(Pool(),)), Conv("conv2", 2, kernel=2, after=(Pool(),))), 60
    )
    windows, _ = both(table, "conv2", "deconvnet")
    assert windows.pixels.shape[1:3] == (13, 13)
    assert zfjax.receptive_field(table, "conv2", stage="filtered").size == 13


def test_units_in_turns_are_units_at_once():
    """1,200 units go down in several turns, as the products of so many fill no cache."""
    params, (_, trace) = tiny_nets.params(tiny_nets.MINI), tiny_nets.run(tiny_nets.MINI)
    unit, image = units_of(trace["conv2"].features)
    options = {"layer": "conv2", "architecture": tiny_nets.MINI}
    apart = project_windows(params, trace, unit, of=image, **options).pixels
    many = jax.tree.map(lambda index: np.resize(index, 1201), unit)
    together = project_windows(params, trace, many, of=np.resize(image, 1201), **options).pixels
    assert np.any(apart)
    assert tiny_nets.relative_error(together, np.resize(apart, together.shape)) < 1e-6


@pytest.mark.parametrize(
    "unit", [Unit(2), Unit(None, (1, 2)), Unit(2, (1, np.array([2, 0]))), Unit(np.array([2, 3]))], ids=str
)
@pytest.mark.parametrize("way", WAYS)
def test_a_unit_is_named_as_everywhere(unit, way):
    """One of each image: a map at its strongest place, every map at one place."""
    params, (_, trace) = tiny_nets.params(tiny_nets.MINI), tiny_nets.run(tiny_nets.MINI)
    options = {"layer": "conv2", "architecture": tiny_nets.MINI}
    pictures = WAYS[way](params, trace, unit, **options)
    assert np.any(pictures)
    windows = project_windows(params, trace, unit, way=WAYS[way], **options)
    assert tiny_nets.relative_error(windows.paste((34, 34)), pictures) < 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_a_window_starts_from_one_where_that_is_asked(way):
    params, (_, trace) = tiny_nets.params(tiny_nets.MINI), tiny_nets.run(tiny_nets.MINI)
    options = {"layer": "conv1", "architecture": tiny_nets.MINI, "seed": "one"}
    pictures = WAYS[way](params, trace, Unit(1), **options)
    windows = project_windows(params, trace, Unit(1), way=way, **options)
    assert np.any(pictures)
    assert tiny_nets.relative_error(windows.paste((34, 34)), pictures) < 1e-6


def test_units_of_one_image_and_traced_ones_are_the_same():
    params, (_, trace) = tiny_nets.params(tiny_nets.MINI), tiny_nets.run(tiny_nets.MINI)
    trace = jax.tree.map(lambda maps: maps[:1], trace)

    def down(unit):
        return project_windows(params, trace, unit, architecture=tiny_nets.MINI).pixels

    units = Unit(np.array([0, 5, 2]), (1, 2), "conv2")
    np.testing.assert_array_equal(jax.jit(down)(units), down(units))
    alone = jax.vmap(lambda channel: down(Unit(channel, (1, 2), "conv2"))[0])(units.channel)
    assert tiny_nets.relative_error(alone, down(units)) < 1e-6
    for outside in (Unit(0, (3, 2), "conv2"), Unit(0, (1, -1), "conv2"), Unit(6, (1, 2), "conv2")):
        assert not np.any(jax.jit(down)(outside))


def test_a_sheet_holds_what_lies_on_it():
    pixels = 1.0 + np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
    rows, columns = np.array([-1, 2], np.int32), np.array([1, 2], np.int32)
    expected = np.zeros((2, 3, 4, 1), np.float32)
    expected[0, 0, 1:3], expected[1, 2, 2:4] = pixels[0, 1], pixels[1, 0]
    for kind in (np.asarray, jax.numpy.asarray):
        windows = zfjax.Windows(*map(kind, (pixels, rows, columns)))
        np.testing.assert_array_equal(windows.paste((3, 4)), expected)
        np.testing.assert_array_equal(windows.paste((2, 2), rows=rows, columns=columns), pixels)
        assert not np.any(windows.paste((3, 4), rows=10, columns=-10))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_places_of_many_images_keep_their_order(batch_size):
    params, images = tiny_nets.params(tiny_nets.MINI), tiny_nets.images(34)
    _, trace = tiny_nets.run(tiny_nets.MINI)
    image, channel, row, column = (np.array(numbers) for numbers in ([1, 0, 1, 1], [2, 0, 5, 1], [1, 2, 0, 0], [0] * 4))
    places = {"image": image, "channel": channel, "row": row, "column": column}
    options = {"layer": "conv2", "architecture": tiny_nets.MINI}
    found = windows_of_places(params, images, places, batch_size=batch_size, **options)
    expected = project_windows(params, trace, Unit(channel, (row, column)), of=image, **options)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert tiny_nets.relative_error(found.pixels, expected.pixels) < 1e-6
    none = {name: numbers[:0] for name, numbers in places.items()}
    assert windows_of_places(params, images, none, **options).pixels.shape == (0, *found.pixels.shape[1:])


def test_images_without_a_unit_do_not_go_up(monkeypatch):
    params, images = tiny_nets.params(tiny_nets.MINI), np.resize(tiny_nets.images(34), (9, 34, 34, 3))
    gone_up, trace_below = [], vars(deconvnet)["_trace_below"]
    monkeypatch.setattr(
        deconvnet, "_trace_below", lambda *of, **more: gone_up.append(of[1]) or trace_below(*of, **more)
    )
    places = {
        "image": np.array([8, 1, 8]),
        "channel": np.array([0, 2, 1]),
        "row": np.arange(3),
        "column": np.zeros(3, int),
    }
    found = windows_of_places(params, images, places, layer="conv2", architecture=tiny_nets.MINI, batch_size=2)
    np.testing.assert_array_equal(np.concatenate(gone_up), images[[1, 8]])
    _, trace = zfjax.forward(params, images, architecture=tiny_nets.MINI)
    unit = Unit(places["channel"], (places["row"], places["column"]))
    expected = project_windows(params, trace, unit, of=places["image"], layer="conv2", architecture=tiny_nets.MINI)
    assert np.any(expected.pixels) and tiny_nets.relative_error(found.pixels, expected.pixels) < 1e-6
