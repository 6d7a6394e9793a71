"""Gradient ascent on the input: closed forms of linear functions, one image as in a batch, silent units, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny_nets
from jax.tree_util import Partial
from scipy.ndimage import gaussian_filter

import zfjax
from zfjax.analyses.maximization import drives_of, grey_and_noise, maximize, picture_range
from zfjax.features import layers_of

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(6, 5, 3, 4)).astype(np.float32)  # four linear units over images of 6 x 5
START = RNG.normal(0, 20, (3, 6, 5, 3)).astype(np.float32)
KEY = jax.random.key(0)
DIRECTIONS = np.moveaxis(WEIGHTS / np.sqrt(np.square(WEIGHTS).mean((0, 1, 2))), -1, 0)  # RMS of 1


def linear(images):
    """[B, 4]: dot products with WEIGHTS."""
    return jnp.einsum("bhwc,hwcn->bn", images, WEIGHTS, precision="highest")


def same(images):
    """[B, H, W, C] as they are: unit (y, x, c) is a pixel."""
    return images


def climb(fn=linear, start=START, key=KEY, channel=0, **options):
    return maximize(fn, start, key, channel=channel, **options)


def test_a_linear_unit_is_climbed_straight_by_whole_steps_of_its_direction():
    """w . x: the gradient is w everywhere, so n steps end at start + n * step * w / rms(w), all equally high."""
    channels = np.array([2, 0, 3])
    found = climb(channel=channels, steps=7, step_size=0.5)
    expected = START + 7 * 0.5 * DIRECTIONS[channels]
    np.testing.assert_allclose(found.images, expected, rtol=1e-4, atol=1e-4)
    start = np.einsum("bhwc,bhwc->b", START, np.moveaxis(WEIGHTS, -1, 0)[channels])
    rise = 0.5 * np.sqrt(np.square(WEIGHTS).mean((0, 1, 2)))[channels] * 90  # step * |w|^2 / rms(w)
    np.testing.assert_allclose(found.path, start + np.arange(8)[:, None] * rise, rtol=1e-3, atol=1e-2)


def test_a_step_is_one_pixel_rms_however_steep_or_flat_the_climb():
    steep, flat = (climb(lambda x, s=s: s * linear(x), steps=1) for s in (np.float32(1e12), np.float32(1e-27)))
    for found in (steep, flat):
        moved = np.asarray(found.images) - START
        np.testing.assert_allclose(np.sqrt(np.square(moved).mean((1, 2, 3))), 1.0, rtol=1e-5)
    np.testing.assert_allclose(steep.images, flat.images, rtol=1e-5, atol=1e-5)


def test_a_unit_a_map_and_a_class_are_what_isolate_would_name():
    """One pixel moves alone by the root of the number of pixels; a whole map moves evenly."""
    unit = np.asarray(climb(same, channel=1, position=(2, 4), steps=1).images) - START
    expected = np.zeros_like(START)
    expected[:, 2, 4, 1] = np.sqrt(90)
    np.testing.assert_allclose(unit, expected, rtol=1e-5, atol=1e-5)
    each = climb(same, channel=np.array([1, 0, 2]), position=(np.array([0, 5, 3]), 2), steps=1)
    moved = np.argwhere(np.abs(np.asarray(each.images) - START) > 1)
    np.testing.assert_array_equal(moved, [[0, 0, 2, 1], [1, 5, 2, 0], [2, 3, 2, 2]])
    units = zfjax.Unit(np.array([1, 0, 2]), (np.array([0, 5, 3]), 2))
    np.testing.assert_array_equal(climb(same, channel=None, unit=units, steps=1).images, each.images)
    whole = climb(same, channel=2, steps=1)
    np.testing.assert_allclose(np.asarray(whole.images)[..., 2] - START[..., 2], np.sqrt(3), rtol=1e-5)
    np.testing.assert_allclose(whole.path[0], START[..., 2].mean((1, 2)), rtol=1e-4)


def test_decay_takes_its_share_after_each_step():
    found = climb(channel=1, steps=3, decay=0.25)
    expected = START
    for _ in range(3):
        expected = 0.75 * (expected + DIRECTIONS[1])
    np.testing.assert_allclose(found.images, expected, rtol=1e-4, atol=1e-4)


def test_blur_is_a_gaussian_whose_edge_goes_on():
    found = climb(lambda x: 0 * linear(x), start=START, steps=1, blur=1.3)  # a flat function: nothing but the blur
    expected = gaussian_filter(START.astype(float), (0, 1.3, 1.3, 0), mode="nearest", truncate=3)
    np.testing.assert_allclose(found.images, expected, rtol=1e-4, atol=1e-4)
    even = np.full((1, 6, 5, 3), 7, np.float32)
    np.testing.assert_allclose(climb(lambda x: 0 * linear(x), start=even, steps=4, blur=2.0).images, even, rtol=1e-5)


def test_the_climb_stays_within_its_bounds():
    mean = np.full((6, 5, 3), 100, np.float32)
    mean[0] = 250
    low, high = picture_range(mean)
    assert low[0, 0, 0] == -250 and high[0, 0, 0] == 5 and low[1, 0, 0] == -100 and high[1, 0, 0] == 155
    start = np.zeros((1, 6, 5, 3), np.float32)
    found = np.asarray(climb(start=start, channel=1, steps=3, step_size=1e5, bounds=(low, high)).images)[0]
    np.testing.assert_allclose(found, np.where(WEIGHTS[..., 1] > 0, high, low), rtol=1e-4)


def test_jitter_looks_at_the_rolled_image_and_moves_it_back():
    """One pixel is climbed: with jitter the one that was rolled to its place, which rises by a whole step."""
    start = np.tile(np.arange(49, dtype=np.float32).reshape(1, 7, 7, 1), (120, 1, 1, 1))
    found = climb(same, start=start, channel=0, position=(3, 3), steps=1, jitter=1)
    risen = np.argwhere(np.asarray(found.images) - start > 1e-3)
    around = {(y, x) for y in (2, 3, 4) for x in (2, 3, 4)}
    assert len(risen) == 120 and set(map(tuple, risen[:, 1:3].tolist())) == around
    np.testing.assert_allclose(np.asarray(found.images)[tuple(risen.T)], start[tuple(risen.T)] + 7, rtol=1e-5)
    np.testing.assert_array_equal(found.path[0], start[tuple(risen.T)])  # what the step looked at
    np.testing.assert_array_equal(found.path[1], np.asarray(found.images)[:, 3, 3, 0])


def test_the_same_key_gives_the_same_images_and_another_key_others():
    climbs = [climb(same, channel=0, position=(3, 3), jitter=2, key=jax.random.key(n)) for n in (1, 1, 2)]
    np.testing.assert_array_equal(climbs[0].images, climbs[1].images)
    assert np.abs(np.asarray(climbs[0].images) - np.asarray(climbs[2].images)).max() > 1


def test_each_image_climbs_alone():
    fn = drives_of(tiny_nets.params(tiny_nets.MINI), "conv1", architecture=tiny_nets.MINI)
    start = tiny_nets.images(34, batch=2) / np.float32(10)
    both = maximize(fn, start, KEY, channel=np.array([1, 3]), position=(np.array([2, 9]), 3), steps=3)
    one = maximize(fn, start[1:], KEY, channel=3, position=(9, 3), steps=3)
    np.testing.assert_allclose(both.images[1:], one.images, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(both.path[:, 1:], one.path, rtol=1e-3, atol=1e-3)
    assert np.abs(np.asarray(both.images) - start).max() > 0.5


def test_several_units_of_one_start_climb_as_each_alone():
    both = maximize(linear, START[:1], KEY, unit=[zfjax.Unit(1), zfjax.Unit(3)], steps=3)
    for image, channel in zip(both.images, (1, 3), strict=True):
        one = maximize(linear, START[:1], KEY, unit=channel, steps=3)
        np.testing.assert_allclose(image, one.images[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layer", tiny_nets.MINI.layer_names)
def test_drives_are_what_the_relu_reads(layer):
    """Rectified, pooled and normed by the reference, they are what the layer hands on."""
    row = tiny_nets.MINI.layer(layer)
    maps = np.asarray(
        drives_of(tiny_nets.params(tiny_nets.MINI), layer, architecture=tiny_nets.MINI)(tiny_nets.images(34))
    )
    assert maps.shape[1:] == tiny_nets.MINI.sizes()[layer].filtered and (maps < 0).any()
    maps = np.maximum(maps, 0) if layer != "fc8" else maps
    for stage in getattr(row, "after", ()):
        if isinstance(stage, zfjax.Pool):
            maps = reference.max_pool(maps, stage.size, stage.stride)[0]
        else:
            maps = reference.contrast_norm(maps, stage)
    expected = tiny_nets.reference_run(tiny_nets.MINI)[layer]["features"]
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_silent_unit_stands_still_behind_its_relu_and_climbs_before_it():
    params = jax.tree.map(np.copy, tiny_nets.params(tiny_nets.MINI))
    params["conv3"]["bias"][:] = -1e3
    start = grey_and_noise(KEY, (2, 34, 34, 3))
    options = {"channel": np.array([0, 3]), "position": (1, 1), "steps": 3}
    behind = maximize(layers_of(params, ["conv3"], architecture=tiny_nets.MINI), start, KEY, **options)
    np.testing.assert_array_equal(behind.images, start)
    np.testing.assert_array_equal(behind.path, 0)
    before = maximize(drives_of(params, "conv3", architecture=tiny_nets.MINI), start, KEY, **options)
    assert (np.diff(before.path, axis=0) > 0).all()


def test_other_parameters_units_and_starts_compile_nothing_anew():
    traced = []

    def scaled(weight, images):
        traced.append(images.shape)
        return images * weight

    def climb_with(n):
        before = len(traced)
        climb(Partial(scaled, jnp.float32(n)), START * n, jax.random.key(n), channel=n, position=(n, n), step_size=n)
        return len(traced) - before

    assert climb_with(1) > 1 and climb_with(2) == 1  # the look at the shape alone


def test_the_start_is_grey_with_noise_of_its_size():
    start = np.asarray(grey_and_noise(KEY, (4, 40, 40, 3), 8.0))
    assert abs(start.mean()) < 0.3 and abs(start.std() - 8) < 0.2
    np.testing.assert_array_equal(grey_and_noise(KEY, (1, 4, 4, 3), 0.0), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0: a whole number of at least 1 is needed"),
        ({"steps": 2.5}, "steps=2.5: a whole number"),
        ({"step_size": 0.0}, "step_size=0.0: a finite number of pixels above 0"),
        ({"step_size": np.inf}, "step_size=inf: a finite number"),
        ({"jitter": -1}, "jitter=-1: a whole number of pixels, at least 0"),
        ({"jitter": np.nan}, "jitter=nan: a whole number"),
        ({"blur": -0.5}, "blur=-0.5: a finite number of pixels, at least 0"),
        ({"decay": 1.0}, "decay=1.0: a share from 0 to below 1"),
        ({"start": START[0]}, r"start of shape \(6, 5, 3\), float32: floating point \[B, H, W, C\]"),
        ({"start": START.astype(np.int32)}, r"start of shape \(3, 6, 5, 3\), int32"),
        ({"channel": 4}, "channel=4: a whole number from 0 to 3 is needed"),
        ({"channel": np.array([0, 1])}, r"channel of shape \(2,\): one index, or one for each of the 3 images"),
        ({"unit": zfjax.Unit(0)}, "channel=0, position=None: name what is climbed once"),
        ({"channel": None}, "unit=None, channel=None, position=None: name what is climbed once"),
        ({"channel": None, "unit": zfjax.Unit(None, (0, 0))}, "a channel is needed"),
        ({"position": (0, 0)}, r"position=\(0, 0\): a dense layer has no places"),
        ({"fn": same, "position": 3}, r"position=3: \(y, x\) in the map is needed"),
        ({"fn": same, "position": (6, 0)}, "position row=6: a whole number from 0 to 5"),
        ({"fn": same, "position": (0, -1)}, "position column=-1: a whole number from 0 to 4"),
        ({"fn": lambda x: {"a": x, "b": x}}, "fn gives 2 arrays: one is climbed"),
        ({"fn": lambda x: x.sum((1, 2, 3))}, r"fn gives features of shape \(3,\): \[3, H, W, C\] or \[3, C\]"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        climb(**options)


def test_bad_noise_and_layers_are_named():
    with pytest.raises(ValueError, match="noise=-1: a finite number of pixels, at least 0"):
        grey_and_noise(KEY, (1, 4, 4, 3), -1)
    with pytest.raises(ValueError, match="unknown layer 'conv9'"):
        drives_of({}, "conv9", architecture=tiny_nets.MINI)
