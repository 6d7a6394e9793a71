"""Pictures that are not square, one channel, other types: every analysis is right of them, or names what it needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zfjax import pixels
from zfjax.analyses import correspondence, evolution, filters, invariance, maximization, sanity

RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(2, 6, 9, 1)).astype(np.float32)


def _warped(name, amount, image=WIDE, size=(6, 9)):
    maps = np.repeat(invariance.TRANSFORMS[name].maps([amount]), len(image), axis=0)
    return np.asarray(invariance.warp(jnp.asarray(image), maps, size=size))


def test_transforms_of_wide_pictures_are_those_of_loops():
    np.testing.assert_allclose(_warped("rotation", 180), WIDE[:, ::-1, ::-1], atol=1e-5)
    np.testing.assert_array_equal(_warped("translation", 1, size=(4, 9)), WIDE[:, :4])
    image, found = WIDE[0, ..., 0], _warped("scale", 2.0)[0, ..., 0]
    for i, j in np.ndindex(found.shape):
        y, x = 2.5 + (i - 2.5) / 2, 4 + (j - 4) / 2
        (top, down), (left, across) = divmod(y, 1), divmod(x, 1)
        rows = image[int(top)] * (1 - down) + image[int(top) + 1] * down
        assert found[i, j] == pytest.approx(rows[int(left)] * (1 - across) + rows[int(left) + 1] * across, abs=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_curves_read_the_images_own_type_and_measure_lengths_that_do_not_overflow(dtype, double_precision):
    read, images = [], np.full((1, 4, 6, 1), 300, dtype)

    def fn(batch):
        read.append(batch.dtype)
        return batch[:, :, ::2]

    measured = invariance.curves(
        fn, images, transform=invariance.TRANSFORMS["translation"], amounts=[0, 1], size=(4, 6)
    )
    assert read == [dtype]
    np.testing.assert_allclose(measured.norms, [300 * 12**0.5], rtol=2e-2)
    np.testing.assert_array_equal(measured.distances, [[0, 0]])


def test_a_rectangle_is_painted_over_around_its_place():
    found = np.asarray(correspondence.mask_squares(WIDE, [[2, 3], [5.9, 8.9]], side=(2, 5), fill=7.0))
    expected = WIDE.copy()
    expected[0, 1:3, 0:5] = 7  # the first of two as near
    expected[1, 5:6, 6:9] = 7
    np.testing.assert_array_equal(found, expected)
    places = correspondence.random_places(np.array([[[2.0, 3.0]]]), (6, 9), side=(2, 3), num=40, rng=RNG)
    assert (places >= [1, 1.5]).all() and (places <= [5, 7.5]).all()
    assert not ((np.abs(places[:, 0] - [2, 2.5]) < [2, 3]).all(axis=1)).any()  # none overlaps the part's own


def test_signs_of_bytes_are_those_of_their_difference():
    images = np.array([5, 200], np.uint8).reshape(2, 1, 1, 1)
    masks = np.full((1, 2, 2), 0.5)
    found = correspondence.sign_changes(lambda x: x, images, masks, side=1, fill=90)
    np.testing.assert_array_equal(found[0].ravel(), [-1, 1])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_a_climb_stays_in_its_type_and_shape(dtype, double_precision):
    start = np.zeros((1, 4, 6, 1), dtype)
    bounds = maximization.picture_range(np.full((4, 6, 1), 100, np.float32))
    options = {"channel": 0, "position": (1, 4), "steps": 3, "step_size": 100.0, "bounds": bounds, "blur": 0.3}
    ascent = maximization.maximize(lambda images: 2 * images, start, jax.random.key(0), **options)
    assert ascent.images.dtype == dtype and ascent.images.shape == start.shape
    image = np.asarray(ascent.images, np.float32)[0, ..., 0]
    assert np.unravel_index(image.argmax(), image.shape) == (1, 4) and 100 < image.max() <= 155
    assert maximization.grey_and_noise(jax.random.key(0), (1, 2, 3, 1)).dtype == np.float32


def test_crops_of_wide_pictures_are_slices():
    pictures = RNG.integers(0, 256, (2, 7, 10, 1), np.uint8)
    mean = RNG.uniform(0, 255, (7, 10, 1)).astype(np.float32)
    less = pictures - mean
    np.testing.assert_allclose(pixels.center_crop(pictures, mean, (5, 6)), less[:, 1:6, 2:8], rtol=1e-6)
    ten = np.asarray(pixels.ten_crops(jnp.asarray(pictures), jnp.asarray(mean), (5, 6)))
    np.testing.assert_allclose(ten[3], less[:, 2:, 4:], rtol=1e-5)
    np.testing.assert_allclose(ten[8], less[:, 2:, 4:][:, :, ::-1], rtol=1e-5)
    keys = jax.random.split(jax.random.key(0), 2)
    for crops in ("ten", "random"):
        drawn = pixels.training_crops(jnp.asarray(pictures), jnp.asarray(mean), keys, size=(5, 6), crops=crops)
        offered = [less[0, y : y + 5, x : x + 6] for y in range(3) for x in range(5)]
        assert any(np.allclose(drawn[0], of) or np.allclose(drawn[0], of[:, ::-1]) for of in offered)


def test_a_grid_has_a_stride_for_each_direction():
    fine = np.cos(np.pi * 0.9 * np.arange(16)) * np.ones((16, 1))  # 0.45 cycles per pixel, across
    kernel = fine[..., None, None]
    down, across = (filters.aliased_energy(kernel, stride)[0] for stride in ((2, 1), (1, 2)))
    assert down < 0.1 < 0.9 < across


def test_features_of_whole_numbers_correlate_as_their_values_do():
    features = RNG.integers(0, 9, (5, 2, 3, 2))
    final = features + RNG.integers(0, 3, features.shape)
    expected = [np.corrcoef(features[..., c].ravel(), final[..., c].ravel())[0, 1] for c in range(2)]
    np.testing.assert_allclose(evolution.correlations(features, final), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _warped("scale", 1.0, np.zeros((1, 2, 3, 4, 1), np.float32)), r"\[B, H, W, C\] and \[B, 2, 3\]"),
        (lambda: correspondence.mask_squares(WIDE[None], np.zeros((1, 2)), side=1), r"\[N, H, W, C\] and \[N, 2\]"),
        (lambda: correspondence.mask_squares(WIDE, np.ones((2, 2)), side=(7, 2)), r"side=\(7, 2\): a square of 1 to 6"),
        (lambda: correspondence.sign_consistency(np.zeros((2, 3, 4))), r"shape \(2, 3, 4\): \[N, D\]"),
        (lambda: correspondence.sign_changes(jnp.sin, WIDE, np.ones((2, 2)), side=1), r"masks of shape \(2, 2\)"),
        (lambda: sanity.edges(WIDE[..., 0]), r"images of shape \(2, 6, 9\): \[B, H, W, C\]"),
        (lambda: sanity.class_tops(jnp.asarray(WIDE)), r"logits of shape \(2, 6, 9, 1\): \[B, classes\]"),
        (lambda: sanity.neuron_tops(jnp.zeros((1, 2, 3, 4, 5))), r"features of shape \(1, 2, 3, 4, 5\)"),
        (lambda: evolution.correlations(np.zeros(3), np.zeros(3)), r"features of shape \(3,\)"),
        (lambda: pixels.in_colours(WIDE[0, ..., 0]), r"pictures of shape \(6, 9\)"),
        (lambda: pixels.cut(WIDE, (0, 0, 1, 1), 0), r"picture of shape \(2, 6, 9, 1\)"),
        (lambda: pixels.center_crop(np.zeros((2, 6, 9)), np.zeros((6, 9)), 3), r"pictures of shape \(2, 6, 9\)"),
        (lambda: pixels.size_of((1, 2, 3)), r"size=\(1, 2, 3\): a whole number of pixels, or \(height, width\)"),
    ],
)
def test_shapes_that_mean_nothing_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
