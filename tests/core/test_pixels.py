"""Between stored pictures and pixels: mean before crop, the ten sub-crops by hand, mid-grey, patches at the border."""

import functools

import jax
import numpy as np
import pytest

from zfjax.pixels import as_picture, center_crop, cut, subtract_mean, ten_crops, training_crops

SIDE, SIZE = 9, 5


@functools.lru_cache
def pictures():
    """Three pictures without any repeated neighbourhood, and a mean that is another number at every pixel."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8), rng.uniform(80, 160, (SIDE, SIDE, 3)).astype("f4")


def by_hand():
    """Corners (top left, top right, bottom left, bottom right), centre, then the five mirrored. [10, 3, 5, 5, 3]"""
    stored, mean = pictures()
    pixels = stored.astype(np.float32) - mean
    five = [pixels[:, :5, :5], pixels[:, :5, 4:], pixels[:, 4:, :5], pixels[:, 4:, 4:], pixels[:, 2:7, 2:7]]
    return np.stack(five + [crop[:, :, ::-1] for crop in five])


@functools.partial(jax.jit, static_argnames=("size", "crops"))
def draw(stored, mean, keys, size=SIZE, crops="ten"):
    return training_crops(stored, mean, keys, size=size, crops=crops)


def keys_for(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_the_mean_is_subtracted_pixel_by_pixel_without_wrapping_around():
    stored, mean = pictures()
    pixels = subtract_mean(stored, mean)
    np.testing.assert_array_equal(pixels, stored.astype(np.float32) - mean)
    assert pixels.dtype == np.float32 and pixels.min() < 0 < pixels.max()


def test_ten_crops_are_the_slices_written_by_hand():
    np.testing.assert_array_equal(jax.jit(ten_crops, static_argnums=2)(*pictures(), SIZE), by_hand())


def test_center_crop_is_the_fifth_of_the_ten():
    np.testing.assert_array_equal(center_crop(*pictures(), SIZE), by_hand()[4])


def test_a_crop_of_the_whole_picture_is_the_picture():
    whole = subtract_mean(*pictures())
    np.testing.assert_array_equal(center_crop(*pictures(), SIDE), whole)
    for k, crop in enumerate(ten_crops(*pictures(), SIDE)):
        np.testing.assert_array_equal(crop, whole if k < 5 else whole[:, :, ::-1])


def test_training_crops_are_always_one_of_the_ten_and_all_ten_occur():
    stored, mean = pictures()
    many = draw(np.repeat(stored[:1], 200, axis=0), mean, keys_for(200))
    same = np.all(np.asarray(many)[:, None] == by_hand()[None, :, 0], axis=(2, 3, 4))
    np.testing.assert_array_equal(same.sum(axis=1), 1)
    counts = same.sum(axis=0)
    assert counts.min() >= 8 and counts.max() <= 40  # 20 expected each


def test_random_crops_cover_every_place_up_to_the_extremes_half_of_them_mirrored():
    """A picture that holds its own row and column says where each crop was taken."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    stored = np.repeat(np.stack([rows, columns, columns], axis=-1)[None], 200, axis=0)
    many = np.asarray(draw(stored, np.zeros((SIDE, SIDE, 3), np.float32), keys_for(200), crops="random"))
    mirrored = many[:, 0, 0, 1] > many[:, 0, -1, 1]
    tops, lefts = many[:, 0, 0, 0], many[:, 0, :, 1].min(axis=1)
    assert {*zip(tops.astype(int), lefts.astype(int), strict=True)} == {*np.ndindex(5, 5)}
    assert 75 < mirrored.sum() < 125
    steps = np.where(mirrored, -1, 1)[:, None, None]
    np.testing.assert_array_equal(np.diff(many[..., 1], axis=2), np.broadcast_to(steps, (200, 5, 4)))
    np.testing.assert_array_equal(np.diff(many[..., 0], axis=1), np.ones((200, 4, 5)))


@pytest.mark.parametrize("crops", ["ten", "random"])
def test_a_picture_keeps_its_crop_wherever_it_stands_in_the_batch(crops):
    keys, order, (_, mean) = keys_for(200), np.random.default_rng(1).permutation(200), pictures()
    stored = np.random.default_rng(2).integers(0, 256, (200, SIDE, SIDE, 3), dtype=np.uint8)
    together = draw(stored, mean, keys, crops=crops)
    np.testing.assert_array_equal(draw(stored[order], mean, keys[order], crops=crops), together[order])


@pytest.mark.parametrize("crops", ["ten", "random"])
def test_the_mean_is_subtracted_before_the_crop_moves(crops):
    """Pictures equal to the mean become zeros wherever they are cropped: the mean moves with the crop."""
    stored, _ = pictures()
    for k in range(3):
        found = draw(stored[k : k + 1].repeat(200, axis=0), stored[k].astype(np.float32), keys_for(200), crops=crops)
        assert not np.any(found)


def test_as_picture_zero_is_exactly_mid_grey_and_the_scale_white_and_black():
    signed = np.array([[[0.0, 3.0, -3.0], [1.5, 7.0, -7.0]]])
    np.testing.assert_array_equal(as_picture(signed, 3.0), [[[0.5, 1.0, 0.0], [0.75, 1.0, 0.0]]])


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_as_picture_of_nothing_is_mid_grey_at_any_scale(scale):
    np.testing.assert_array_equal(as_picture(np.zeros((2, 2, 3), np.float32), scale), np.full((2, 2, 3), 0.5))


# top, left, bottom, right around a 6x7 picture: inside, over each border, over all, outside on each side
BOXES = [(1, 2, 4, 6), (0, 0, 6, 7), (-2, 1, 3, 4), (1, -3, 4, 2), (4, 1, 9, 4), (1, 5, 4, 9), (-2, -3, 8, 9)]
OUTSIDE = [(-5, 1, -1, 4), (1, -5, 4, -2), (8, 1, 11, 4), (1, 9, 4, 12), (6, 7, 8, 9), (-3, -3, 0, 0)]


@pytest.mark.parametrize("box", BOXES + OUTSIDE)
@pytest.mark.parametrize("fill", [7.5, np.array([1.0, 2.0, 3.0], np.float32)])
def test_cut_is_every_pixel_of_the_box_or_the_fill(box, fill):
    picture = np.random.default_rng(0).normal(size=(6, 7, 3)).astype(np.float32)
    top, left, bottom, right = box
    expected = np.empty((bottom - top, right - left, 3), np.float32)
    for y, x in np.ndindex(expected.shape[:2]):
        inside = 0 <= top + y < 6 and 0 <= left + x < 7
        expected[y, x] = picture[top + y, left + x] if inside else fill
    np.testing.assert_array_equal(cut(picture, box, fill), expected)
    assert (box in OUTSIDE) == bool(np.all(expected == fill))


def test_cut_is_a_copy():
    picture = np.zeros((4, 4, 3), np.float32)
    cut(picture, (0, 0, 4, 4), 0)[:] = 1
    assert not picture.any()
