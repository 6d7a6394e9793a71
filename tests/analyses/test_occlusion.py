"""Occlusion: closed forms of a linear function, the geometry of the map, one program for all images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from zfjax.analyses import occlusion

SIZE, SQUARE = 13, 4


RNG = np.random.default_rng(0)


IMAGE, WEIGHTS, FILL = (RNG.normal(0, 50, (SIZE, SIZE, 3)).astype(np.float32) for _ in range(3))


CORNERS = occlusion.places(SIZE, SQUARE, 2)


def linear(images):
    return (images * WEIGHTS[None]).sum(axis=(1, 2, 3))


def hidden_by_hand(image, corner, square, fill):
    shown = image.copy()
    top, left = corner
    shown[top : top + square, left : left + square] = np.broadcast_to(fill, image.shape)[
        top : top + square, left : left + square
    ]
    return shown


@pytest.mark.parametrize(
    ("size", "square", "stride", "line"),
    [(10, 4, 3, [0, 3, 6]), (12, 4, 3, [1, 4, 7]), (11, 4, 3, [0, 3, 6]), (5, 5, 1, [0]), (5, 1, 9, [2])],
)
def test_places_lie_inside_and_share_the_rest_between_the_edges(size, square, stride, line):
    corners = occlusion.places(size, square, stride)
    np.testing.assert_array_equal(corners[:, 0, 0], line)
    np.testing.assert_array_equal(corners[0, :, 1], line)
    np.testing.assert_array_equal(corners[0, :, 0], line[0])


def test_a_value_belongs_to_the_middle_of_its_square():
    np.testing.assert_array_equal(occlusion.centers(np.array([[2, 5]]), 3), [[3, 6]])
    np.testing.assert_array_equal(occlusion.centers(np.array([[2, 5]]), 4), [[4, 7]])


def test_the_square_hides_its_own_pixels_and_no_others():
    flat = CORNERS.reshape(-1, 2)
    found = np.asarray(occlusion.occlude(jnp.asarray(IMAGE), jnp.asarray(flat), square=SQUARE, fill=jnp.asarray(FILL)))
    for shown, corner in zip(found, flat, strict=True):
        np.testing.assert_array_equal(shown, hidden_by_hand(IMAGE, corner, SQUARE, FILL))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_drop_of_a_linear_function_is_its_sum_over_the_square(batch_size):
    done = []
    found = occlusion.sweep(
        linear, IMAGE, CORNERS, square=SQUARE, fill=FILL, batch_size=batch_size, on_batch=done.append
    )
    drop = linear(IMAGE[None])[0] - found
    expected = occlusion.square_sums((WEIGHTS * (IMAGE - FILL)).sum(axis=-1), CORNERS, square=SQUARE)
    assert found.shape == (5, 5) and np.abs(expected).max() > 1000
    np.testing.assert_allclose(drop, expected, rtol=1e-3, atol=1)
    assert sum(done) == 25 and max(done) <= batch_size


def test_sums_over_squares_are_those_of_loops():
    maps = RNG.normal(size=(2, SIZE, SIZE))
    found = occlusion.square_sums(maps, CORNERS, square=SQUARE)
    for n, i, j in np.ndindex(found.shape):
        top, left = CORNERS[i, j]
        np.testing.assert_allclose(found[n, i, j], maps[n, top : top + 4, left : left + 4].sum(), atol=1e-10)


def test_a_tree_keeps_the_shapes_of_its_rows():
    def both(images):
        return {"first": images[:, 0, 0], "all": (images.sum(axis=(1, 2, 3)),)}

    found = occlusion.sweep(both, IMAGE, CORNERS, square=SQUARE, fill=0.0, batch_size=7)
    assert found["first"].shape == (5, 5, 3)
    np.testing.assert_array_equal(found["first"][0, 0], 0)  # hidden at this place alone
    np.testing.assert_array_equal(found["first"].reshape(-1, 3)[1:], np.broadcast_to(IMAGE[0, 0], (24, 3)))
    np.testing.assert_allclose(found["all"][0][2, 3], hidden_by_hand(IMAGE, CORNERS[2, 3], 4, 0).sum(), atol=0.1)


def test_an_image_equal_to_its_occluder_gives_a_constant_map():
    found = occlusion.sweep(linear, IMAGE, CORNERS, square=SQUARE, fill=IMAGE)
    np.testing.assert_array_equal(found, np.full((5, 5), found[0, 0]))


def test_another_image_fill_or_square_compiles_nothing_anew():
    traces = []

    def weighted(weight, images):
        traces.append(images.shape)
        return images.sum(axis=(1, 2, 3)) * weight

    for weight, square in ((2.0, 4), (3.0, 3)):
        corners = occlusion.places(SIZE, square, 4)
        found = occlusion.sweep(
            Partial(weighted, jnp.float32(weight)), weight * IMAGE, corners, square=square, fill=FILL
        )
        expected = weight * hidden_by_hand(weight * IMAGE, corners[1, 1], square, FILL).sum()
        np.testing.assert_allclose(found[1, 1], expected, rtol=1e-4)
    assert traces == [(9, SIZE, SIZE, 3)]


def test_a_budget_of_memory_bounds_the_batch():
    """Sorting needs the occluded images themselves, so a batch cannot hold more of them than the budget does."""
    image = np.zeros((128, 128, 3), np.float32)

    def median(images):
        return jnp.sort(images.reshape(len(images), -1), axis=1)[:, 0]

    held = 8 * occlusion.MIB / image.nbytes
    found = occlusion.batch_size_within(median, image, memory=8)
    assert held / 6 < found <= held
    assert 2 * found <= occlusion.batch_size_within(median, image, memory=16) <= 2 * found + 1
    with pytest.raises(ValueError, match="memory=0: at least 1 MiB are needed, for a batch of one image"):
        occlusion.batch_size_within(median, image, memory=0)


def test_each_pixel_shows_the_nearest_centre_and_the_frame_shows_none():
    """Squares of 2 at 0, 3 and 6 of 8 pixels: centres at 1, 4 and 7, each 1.5 pixels wide to both sides."""
    corners = occlusion.places(8, 2, 3)
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    found = occlusion.on_image(values, corners, square=2, size=8, outside=np.nan)
    np.testing.assert_array_equal(found[0], [0, 0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(found[:, 0], [0, 0, 0, 3, 3, 3, 6, 6])
    labels = occlusion.on_image(np.array([[7]]), occlusion.places(9, 3, 1)[3:4, 3:4], square=3, size=9, outside=-1)
    np.testing.assert_array_equal(labels, np.pad(np.full((3, 3), 7), 3, constant_values=-1))


def test_pointing_counts_own_and_other_objects():
    masks = np.zeros((3, 4, 4), bool)
    masks[0, 0, 0] = masks[1, 0, 0] = masks[2, 3, 3] = True
    own, others = occlusion.pointing(np.array([[0, 0], [3, 3], [3, 3]]), masks)
    np.testing.assert_array_equal(own, [True, False, True])
    np.testing.assert_array_equal(others, [0.5, 0.5, 0.0])


def test_a_point_at_random_hits_by_the_objects_share():
    masks = RNG.random((2000, 6, 6)) < 0.3
    own, others = occlusion.pointing(RNG.integers(0, 6, (2000, 2)), masks)
    assert abs(own.mean() - 0.3) < 0.04 and abs(others.mean() - masks.mean()) < 0.01


def test_fills_are_the_mean_mid_grey_and_the_blurred_image():
    mean = np.full_like(IMAGE, 100)
    np.testing.assert_array_equal(occlusion.FILLS["mean"](IMAGE, mean, 4), 0 * IMAGE)
    np.testing.assert_array_equal(occlusion.FILLS["grey"](IMAGE, mean, 4) + mean, np.full_like(IMAGE, 128))
    constant = np.full_like(IMAGE, 7)
    np.testing.assert_allclose(occlusion.FILLS["blur"](constant, mean, 4), constant, rtol=1e-6)
    spike = np.zeros((41, 41, 3), np.float32)
    spike[20, 20, 1] = 1
    blurred = occlusion.FILLS["blur"](spike, mean, 8)  # a standard deviation of 2 pixels
    offset = np.arange(41) - 20
    line = np.exp(-(offset**2) / 8) / np.sqrt(8 * np.pi)
    np.testing.assert_allclose(blurred[..., 1], np.outer(line, line), atol=1e-6)
    assert not blurred[..., 0].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: occlusion.places(8, 9, 1), "square=9: 1 to 8 pixels are needed, the image has 8 a side"),
        (lambda: occlusion.places(8, 0, 1), "square=0: 1 to 8 pixels"),
        (lambda: occlusion.places(8, 4, 0), "stride=0: at least 1 pixel"),
        (
            lambda: occlusion.sweep(linear, IMAGE, np.array([[10, 0]]), square=SQUARE, fill=0.0),
            r"square=4 at \(top, left\) from \[10, 0\] to \[10, 0\]: squares inside the image of 13x13 pixels",
        ),
        (lambda: occlusion.sweep(linear, IMAGE, CORNERS, square=14, fill=0.0), "square=14 at .*: squares inside"),
        (lambda: occlusion.sweep(linear, IMAGE, CORNERS[:0], square=4, fill=0.0), "at least one place is needed"),
        (lambda: occlusion.sweep(linear, IMAGE, CORNERS, square=4, fill=0.0, batch_size=0), "batch_size=0: at least 1"),
        (lambda: occlusion.pointing(np.zeros((1, 2), int), np.ones((1, 4, 4), bool)), "at least two images are needed"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_square_is_traced_so_jit_takes_it():
    hide = jax.jit(lambda corners, square: occlusion.occlude(IMAGE, corners, square=square, fill=FILL))
    found = hide(np.array([[1, 2]], np.int32), np.int32(3))[0]
    np.testing.assert_array_equal(found, hidden_by_hand(IMAGE, (1, 2), 3, FILL))
