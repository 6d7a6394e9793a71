"""Occlusion: closed forms of a linear function, the geometry of the map, one program for all images."""

from pathlib import Path

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
from jax.tree_util import Partial

from zfjax import nets
from zfjax.analyses import occlusion
from zfjax.data import ImageSet

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


def test_pointing_is_tested_by_exchanging_the_objects():
    """Of n points, each on its own object alone, one order of n! hits as often; in one hole all orders do."""
    for n, expected in ((2, 1 / 2), (3, 1 / 6), (4, 1 / 24)):
        points = np.stack([np.arange(n), np.zeros(n, int)], axis=1)
        p, contrary = occlusion.pointing_p_values(points, np.eye(n, dtype=bool)[:, :, None])
        assert abs(p - expected) < 0.02 and contrary == 1
        p, contrary = occlusion.pointing_p_values(points, np.roll(np.eye(n, dtype=bool), 1, axis=0)[:, :, None])
        assert p == 1 and contrary < 1
    assert occlusion.pointing_p_values(points * 0, np.ones((n, 1, 1), bool)) == (1, 1)


def test_a_point_at_random_hits_by_the_objects_share():
    masks = RNG.random((2000, 6, 6)) < 0.3
    own, others = occlusion.pointing(RNG.integers(0, 6, (2000, 2)), masks)
    assert abs(own.mean() - 0.3) < 0.04 and abs(others.mean() - masks.mean()) < 0.01


def _table_net(mean):
    params = tiny_nets.params(tiny_nets.DENSE)
    return nets.TrainedNet(tiny_nets.DENSE, params, mean, Path("x"), Path("x"), "demo", tuple("abcde"), "print")


def _views(net, pictures):
    return nets.Views(np.asarray(net.prepare(pictures)), pictures, None, None, None)


def test_fills_of_a_table_are_the_mean_mid_grey_and_the_blurred_image():
    mean = RNG.uniform(90, 160, (4, 4, 3)).astype(np.float32)
    net, pictures = _table_net(mean), RNG.integers(0, 256, (2, 4, 4, 3), np.uint8)
    views = _views(net, pictures)
    fills = {name: occlusion.filler(net, views, name, square=2)(views, 1) for name in occlusion.FILLS}
    np.testing.assert_array_equal(fills["mean"].image, np.zeros((4, 4, 3)))
    np.testing.assert_array_equal(fills["mean"].picture, mean.round())
    np.testing.assert_allclose(fills["grey"].image + mean, np.full((4, 4, 3), 128), rtol=1e-6)
    np.testing.assert_array_equal(fills["grey"].picture, np.full((4, 4, 3), 128))
    blurred = occlusion.blurred(views.images[1], 2)
    np.testing.assert_array_equal(fills["blur"].image, blurred)
    np.testing.assert_array_equal(fills["blur"].picture, np.clip((blurred + mean).round(), 0, 255))


def test_the_mean_of_a_network_that_knows_none_is_the_colour_of_the_pictures():
    net, pictures = foreign_nets.SMALL, RNG.integers(0, 256, (3, 20, 28, 3), np.uint8)
    views = _views(net, pictures)
    fills = {name: occlusion.filler(net, views, name, square=4)(views, 1) for name in occlusion.FILLS}
    colour = pictures.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(fills["mean"].image, np.broadcast_to(colour / 255, (20, 28, 3)), rtol=1e-5)
    np.testing.assert_array_equal(fills["mean"].picture, np.broadcast_to(colour.round(), (20, 28, 3)))
    np.testing.assert_allclose(fills["grey"].image, np.full((20, 28, 3), 128 / 255), rtol=1e-6)
    np.testing.assert_allclose(fills["blur"].image * 255, fills["blur"].picture, atol=0.501)


def test_a_picture_is_blurred_by_a_gaussian_and_what_is_constant_stays_so():
    np.testing.assert_allclose(occlusion.blurred(np.full_like(IMAGE, 7), 4), np.full_like(IMAGE, 7), rtol=1e-6)
    spike = np.zeros((41, 41, 3), np.float32)
    spike[20, 20, 1] = 1
    blurred = occlusion.blurred(spike, 8)  # a standard deviation of 2 pixels
    offset = np.arange(41) - 20
    line = np.exp(-(offset**2) / 8) / np.sqrt(8 * np.pi)
    np.testing.assert_allclose(blurred[..., 1], np.outer(line, line), atol=1e-6)
    assert not blurred[..., 0].any()


def test_at_the_edges_the_gaussians_weights_are_divided_by_their_sum():
    image = RNG.normal(size=(9, 17, 2)).astype(np.float32)
    lines = [np.exp(-(np.subtract.outer(np.arange(n), np.arange(n)) ** 2) / (2 * 1.5**2)) for n in (9, 17)]
    rows, columns = (weights / weights.sum(axis=1, keepdims=True) for weights in lines)
    np.testing.assert_allclose(
        occlusion.blurred(image, 6), np.einsum("yi,xj,ijc->yxc", rows, columns, image), rtol=1e-5, atol=1e-6
    )


def test_places_of_an_image_that_is_not_square_share_the_rest_on_each_axis():
    corners = occlusion.places((10, 15), 4, 3)
    assert corners[:, 0, 0].tolist() == [0, 3, 6] and corners[0, :, 1].tolist() == [1, 4, 7, 10]
    values = np.arange(12).reshape(3, 4)
    drawn = occlusion.on_image(values, corners, square=4, size=(10, 15), outside=-1)
    assert drawn.shape == (10, 15)
    assert drawn[4].tolist() == [-1, 4, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, -1]


def test_another_network_of_the_same_function_compiles_no_sweep_anew():
    traces = []

    def fn(params, images):
        traces.append(images.shape)
        maps = images[:, ::2, ::2] * params
        return {"maps": maps, "logits": maps.sum(axis=(1, 2))}

    net = nets.FunctionNet(fn, np.float32(1), image_size=(8, 12), class_names=("r", "g", "b"))
    data = ImageSet("x", 0, net.class_names, None, Pictures(), None, None, "")
    corners = occlusion.places((8, 12), 2, 2)
    swept = []
    for of in (net, net.with_params(np.float32(2))):
        scenes = occlusion.choose_scenes(of, data, layer="maps", num=2, seed=0, batch_size=4)
        fill = occlusion.filler(of, scenes.views, "mean", square=2)
        before = len(traces)
        swept.append(occlusion.sweep_all(of, scenes, corners, layer="maps", square=2, fill=fill))
    assert [shape for shape in traces[before:] if shape[0] > 1] == []
    np.testing.assert_allclose(swept[1].activity, 2 * swept[0].activity, rtol=1e-5)


class Pictures:
    """Five pictures of noise that are not square."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 12, 3), np.uint8)
        return {"image": pixels, "label": np.int32(index % 3), "index": np.int32(index)}


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
        (
            lambda: occlusion.sweep(linear, IMAGE, CORNERS, square=SQUARE, fill=np.zeros((3, 5, 1))),
            r"fill of shape \(3, 5, 1\): the image's",
        ),
        (
            lambda: occlusion.sweep(linear, IMAGE, CORNERS, square=SQUARE, fill=IMAGE[None]),
            r"fill of shape \(1, .*: the image's",
        ),
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


def test_a_sweep_of_a_rectangle_over_a_picture_that_is_not_square():
    image, weights = RNG.normal(size=(2, 9, 14, 1)).astype(np.float32)
    corners = occlusion.places((9, 14), (4, 2), (3, 4))
    assert corners[:, 0, 0].tolist() == [1, 4] and corners[0, :, 1].tolist() == [0, 4, 8, 12]
    found = occlusion.sweep(
        lambda images: (images * weights[None]).sum((1, 2, 3)), image, corners, square=(4, 2), fill=0.5
    )
    expected = [[(_hidden(image, corner, (4, 2), 0.5) * weights).sum() for corner in row] for row in corners]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    sums = occlusion.square_sums(((image - 0.5) * weights)[..., 0], corners, square=(4, 2))
    np.testing.assert_allclose((image * weights).sum() - found, sums, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(occlusion.centers(corners, (4, 2))[0, 1], [3, 5])
    drawn = occlusion.on_image(found, corners, square=(4, 2), size=(9, 14), outside=np.nan)
    np.testing.assert_array_equal(drawn[[3, 6], [5, 9]], found[[0, 1], [1, 2]])


def _hidden(image, corner, square, fill):
    shown = np.array(image)
    shown[tuple(slice(first, first + side) for first, side in zip(corner, square, strict=True))] = fill
    return shown


def test_a_sweep_of_a_cuboid_over_a_volume():
    volume = RNG.normal(size=(4, 5, 6, 2)).astype(np.float32)
    corners = occlusion.places((4, 5, 6), (2, 3, 2), 2)
    assert corners.shape == (2, 2, 3, 3)
    found = occlusion.sweep(lambda images: images.max((1, 2, 3, 4)), volume, corners, square=(2, 3, 2), fill=-9.0)
    expected = np.array([_hidden(volume, corner, (2, 3, 2), -9).max() for corner in corners.reshape(-1, 3)])
    np.testing.assert_array_equal(found, expected.reshape(2, 2, 3))
    sums = occlusion.square_sums(volume[..., 0], corners, square=(2, 3, 2))
    np.testing.assert_allclose(sums[1, 0, 2], volume[2:4, 0:3, 4:6, 0].sum(), rtol=1e-5)
    drawn = occlusion.on_image(found, corners, square=(2, 3, 2), size=(4, 5, 6), outside=0)
    assert drawn.shape == (4, 5, 6) and drawn[3, 1, 5] == found[1, 0, 2]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64, np.uint8])
def test_a_sweep_keeps_the_type_of_the_image(dtype, double_precision):
    read = []

    def brightest(images):
        read.append(images.dtype)
        return images.max((1, 2, 3))

    image = np.arange(16).reshape(4, 4, 1).astype(dtype)
    found = occlusion.sweep(brightest, image, occlusion.places(4, 2, 2), square=2, fill=0)
    assert read == [dtype] and found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.float32), [[15, 15], [15, 13]])
    assert occlusion.blurred(image, 2).dtype == (np.float32 if dtype == np.uint8 else dtype)


def test_what_is_watched_of_bfloat16_is_summed_and_shared_out_in_float32():
    every = {"maps": jnp.ones((1, 20, 20, 2), jnp.bfloat16), "logits": jnp.array([[0.0, 1.0, 1.0]], jnp.bfloat16)}
    swept = occlusion.watch(1, 2, every, layer="maps", logits="logits")
    assert swept.activity.dtype == swept.probability.dtype == np.float32
    np.testing.assert_array_equal(swept.activity, [400])
    every["maps"] = every["maps"] * jnp.bfloat16(1.0078125)  # of 400 such bfloat16 would say 404
    np.testing.assert_allclose(occlusion.watch(1, 2, every, layer="maps", logits="logits").activity, [403.125])


def test_a_blur_has_the_rectangles_own_sides():
    image = RNG.normal(size=(12, 7, 1)).astype(np.float32)
    lines = [
        np.exp(-(np.subtract.outer(np.arange(n), np.arange(n)) ** 2) / (2 * (side / 4) ** 2))
        for n, side in ((12, 6), (7, 2))
    ]
    rows, columns = (weights / weights.sum(axis=1, keepdims=True) for weights in lines)
    expected = np.einsum("yi,xj,ijc->yxc", rows, columns, image)
    np.testing.assert_allclose(occlusion.blurred_fill(image, image, (6, 2)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _sweep((72, 60, 1), occlusion.places(60, 20, 20), 20), r"a grid over all of the image's 72x60 pixels"),
        (lambda: _sweep((72, 60, 1), occlusion.places((60, 72), 20, 9), 20), "squares inside the image of 72x60"),
        (
            lambda: _sweep((4, 5, 6, 1), occlusion.places(4, 2, 2), 2),
            r"corners of shape \(2, 2, 2\), int32: .*\[..., 3\]",
        ),
        (lambda: _sweep((6, 6), occlusion.places(6, 2, 2), 2), r"whole numbers \[..., 1\] are needed"),
        (
            lambda: _sweep((6, 6, 1), occlusion.places(6, 2, 2), (2, 2, 2)),
            r"square=\(2, 2, 2\): a whole number of pixels",
        ),
        (
            lambda: occlusion.places((6, 6), 2.5, 1),
            "square=2.5: a whole number of pixels, or one for each of the 2 axes",
        ),
        (lambda: occlusion.places((6, 9), (7, 2), 1), r"square=\(7, 2\): .* the image has 6x9"),
        (
            lambda: occlusion.on_image(np.zeros((3, 6)), occlusion.places((6, 12), 2, 2), square=2, size=6, outside=0),
            "squares inside the image of 6x6 pixels",
        ),
        (
            lambda: occlusion.on_image(np.zeros((3, 3)), occlusion.places((6, 12), 2, 2), square=2, size=6, outside=0),
            r"values of shape \(3, 3\), corners \(3, 6, 2\)",
        ),
        (
            lambda: occlusion.sweep(
                linear, np.zeros((6, 6, 1), np.uint8), occlusion.places(6, 2, 2), square=2, fill=0.5
            ),
            "fill=0.5: values of the image's type, uint8",
        ),
        (
            lambda: occlusion.sweep(jnp.mean, np.zeros((6, 6, 1)), occlusion.places(6, 2, 2), square=2, fill=0.0),
            r"fn gives \(\) for 9 images: features \[9, ...\] are needed",
        ),
    ],
)
def test_images_and_grids_that_do_not_belong_together_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _sweep(shape, corners, square):
    return occlusion.sweep(lambda images: images.sum(axis=-1), np.zeros(shape), corners, square=square, fill=0.0)
