"""Transforms move pixels where they should, and the numbers drawn from the curves are what their formulas say."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

import zfjax
from zfjax import features
from zfjax.analyses import invariance
from zfjax.analyses.invariance import TRANSFORMS, Curves

STORED = tiny_nets.images(25, batch=3)
TRANSLATION, SCALE, ROTATION = (TRANSFORMS[name] for name in ("translation", "scale", "rotation"))
RNG = np.random.default_rng(1)
WEIGHTS = {"a": RNG.normal(size=(17 * 17 * 3, 6)).astype("f4"), "b": RNG.normal(size=(17 * 17 * 3, 4)).astype("f4")}


def warped(images, transform, amount, size):
    return np.asarray(invariance.warp(images, np.repeat(transform.maps([amount]), len(images), axis=0), size=size))


def linear(images):
    return {name: images.reshape(len(images), -1) @ jnp.asarray(weights) / 1e3 for name, weights in WEIGHTS.items()}


def _as_they_are(images):
    return {"f": images.reshape(len(images), -1)}


@pytest.mark.parametrize("size", [25, 20, 17])
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_the_identity_is_the_centre_crop_bit_for_bit(transform, size):
    margin = (25 - size) // 2
    crop = STORED[:, margin : margin + size, margin : margin + size]
    np.testing.assert_array_equal(warped(STORED, transform, transform.identity, size), crop)
    assert transform.extent(np.array([transform.identity])) == 0


@pytest.mark.parametrize("amount", [-30, -7, -4, -1, 1, 4, 9, 24])
def test_whole_pixels_are_slices_of_the_stored_picture_and_of_its_mirror_image_beyond(amount):
    wide = np.pad(STORED, ((0, 0), (40, 40), (0, 0), (0, 0)), mode="reflect")
    top = 40 + 4 - amount
    np.testing.assert_array_equal(warped(STORED, TRANSLATION, amount, 17), wide[:, top : top + 17, 4:21])


def test_a_picture_that_is_not_square_turns_about_its_own_centre():
    wide = STORED[:, 3:22]
    np.testing.assert_array_equal(warped(wide, SCALE, 1.0, (9, 15)), wide[:, 5:14, 5:20])
    np.testing.assert_array_equal(warped(wide, ROTATION, 180, (9, 15)), wide[:, 5:14, 5:20][:, ::-1, ::-1])
    with pytest.raises(ValueError, match=r"size=\(20, 9\): 2 to 19 by 2 to 25, the sides of the images, is needed"):
        warped(wide, SCALE, 1.0, (20, 9))


def test_half_a_pixel_is_the_mean_of_two_rows():
    expected = (STORED[:, 3:20, 4:21] + STORED[:, 4:21, 4:21]) / 2
    np.testing.assert_allclose(warped(STORED, TRANSLATION, 0.5, 17), expected, atol=1e-4)


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [25, 17])
def test_quarter_turns_are_those_of_numpy(turns, size):
    margin = (25 - size) // 2
    crop = STORED[:, margin : margin + size, margin : margin + size]
    np.testing.assert_array_equal(warped(STORED, ROTATION, 90 * turns, size), np.rot90(crop, turns, axes=(1, 2)))


@pytest.mark.parametrize(
    ("name", "amount"), [("scale", 1.3), ("rotation", 30), ("rotation", 217), ("translation", 1.7)]
)
def test_a_ramp_stays_the_ramp_that_geometry_says(name, amount):
    """Bilinear weights leave linear pictures alone; y down, x right, turned counter-clockwise about the centre."""
    rows, columns = np.mgrid[:25, :25].astype(np.float32) - 12
    seen = warped(np.stack([rows, columns], axis=-1)[None], TRANSFORMS[name], amount, 13)[0]
    y, x = np.mgrid[:13, :13] - 6.0
    angle = np.deg2rad(amount)
    expected = {
        "scale": (y / amount, x / amount),
        "translation": (y - amount, x),
        "rotation": (np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y),
    }[name]
    np.testing.assert_allclose(seen, np.stack(expected, axis=-1), atol=1e-4)


def test_nothing_rings_at_any_border():
    box = np.where(np.arange(25) % 3 == 0, 100, -50).astype(np.float32)
    image = np.broadcast_to(box[:, None, None] * box[None, :, None] / 100, (1, 25, 25, 1))
    for name, amount in [("rotation", 45), ("translation", 11.3), ("scale", 0.4), ("scale", 1.77)]:
        seen = warped(image, TRANSFORMS[name], amount, 25)
        assert image.min() - 1e-4 <= seen.min() and seen.max() <= image.max() + 1e-4


def test_a_translation_by_the_stride_moves_conv_features_by_one_place():
    conv1 = zfjax.Conv("conv1", 6, kernel=3, stride=2, padding=(1, 1), after=(zfjax.Pool(),))
    net = zfjax.Architecture("tiny", (conv1, zfjax.Dense("fc8", 3, hidden=False)), image_size=20)
    assert zfjax.receptive_field(net, "conv1").stride == 4
    fn = features.jitted(features.layers_of(tiny_nets.params(net), ["conv1"], architecture=net))
    still, moved = (fn(warped(STORED, TRANSLATION, amount, 20))["conv1"] for amount in (0, 4))
    assert np.abs(still).max() > 1
    np.testing.assert_allclose(moved[:, 2:4], still[:, 1:3], rtol=1e-4, atol=1e-3)


def test_curves_of_a_linear_net_are_the_norms_of_what_it_sees():
    amounts = np.array([30.0, 0.0, 90.0, 200.0])
    found = invariance.curves(linear, STORED, transform=ROTATION, amounts=amounts, size=17, logits="b", batch_size=3)
    seen = np.stack([warped(STORED, ROTATION, amount, 17) for amount in amounts], axis=1).reshape(3, 4, -1)
    for name, weights in WEIGHTS.items():
        vectors = seen.astype(np.float64) @ weights / 1e3
        expected = np.linalg.norm(vectors - vectors[:, 1:2], axis=-1)
        np.testing.assert_allclose(found.distances[name], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.norms[name], np.linalg.norm(vectors[:, 1], axis=-1), rtol=1e-4)
        np.testing.assert_allclose(invariance.relative(found)[name], expected / found.norms[name][:, None], rtol=1e-4)
        assert (found.distances[name][:, 1] == 0).all()
    shares = np.exp(seen.astype(np.float64) @ WEIGHTS["b"] / 1e3)
    shares /= shares.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, shares, rtol=1e-4)
    np.testing.assert_array_equal(found.untransformed, found.probabilities[:, 1])


def test_one_array_is_measured_as_such_and_a_tree_as_a_tree():
    amounts = [0.0, 1.0, 2.5]
    named = invariance.curves(linear, STORED, transform=TRANSLATION, amounts=amounts, size=17, logits="b")
    for fn, of in (
        (lambda images: linear(images)["a"], lambda found: found),
        (lambda images: (linear(images)["a"], {"b": images}), lambda found: found[0]),
    ):
        found = invariance.curves(fn, STORED, transform=TRANSLATION, amounts=amounts, size=17)
        np.testing.assert_allclose(of(found.distances), named.distances["a"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(of(found.norms), named.norms["a"], rtol=1e-5)
        expected = named.distances["a"] / named.norms["a"][:, None]
        np.testing.assert_allclose(of(invariance.relative(found)), expected, rtol=1e-4, atol=1e-6)
        assert found.probabilities is None and found.untransformed is None


def test_a_picture_that_looks_alike_after_a_quarter_turn_moves_no_net_by_it():
    rings = np.hypot(*np.mgrid[-12:13, -12:13]).astype(np.float32)[None, :, :, None]
    angles = np.arange(0.0, 360.0, 30.0)
    found = invariance.curves(_as_they_are, rings, transform=ROTATION, amounts=angles, size=17, logits="f")
    quarter = angles % 90 == 0
    assert (found.distances["f"][0, quarter] == 0).all() and (found.distances["f"][0, ~quarter] > 0.1).all()


def test_all_images_and_transforms_share_one_program():
    traces = []

    def fn(images):
        traces.append(images.shape)
        return {"f": images.mean((1, 2))}

    for transform, amounts in [(TRANSLATION, [0, 1, 2, 3]), (SCALE, [1, 1.5, 2]), (ROTATION, [0, 10, 20, 30, 40])]:
        invariance.curves(fn, STORED, transform=transform, amounts=amounts, size=17, logits="f", batch_size=2)
    assert traces == [(2, 17, 17, 3)]


def test_the_slope_is_that_of_the_small_transforms():
    extents = np.array([0.0, 1.0, 2.0, 5.0, 10.0])
    values = np.array([[0.0, 3.0, 6.0, 8.0, 8.0], [0.0, 1.0, 1.0, 9.0, 9.0]])
    np.testing.assert_allclose(invariance.slope(extents, values), [3.0, (1 + 2) / 5])
    np.testing.assert_allclose(invariance.slope(extents, values, small=1.0)[0], (3 + 12 + 40 + 80) / 130)
    np.testing.assert_allclose(invariance.slope(extents, values, small=0.01), [3.0, 1.0])  # the smallest stands alone


def test_linearity_is_one_for_a_line_and_falls_for_a_jump():
    extents = np.array([2.0, 1.0, 0.0, 1.0, 2.0])
    assert invariance.linearity(extents, 0.3 * extents) == pytest.approx(1)
    assert invariance.linearity(extents, 0 * extents) == 1
    # the line through zero has slope 0.6: missed 2 (0.4^2 + 0.2^2), spread 4 - 16 / 5
    assert invariance.linearity(extents, np.sign(extents)) == pytest.approx(1 - 0.4 / 0.8)
    assert invariance.linearity(np.arange(10.0), np.minimum(np.arange(10.0), 1)) < 0


def test_a_label_is_stable_where_the_top_class_stays():
    shares = np.array([[[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]], [[0.2, 0.8], [0.1, 0.9], [0.6, 0.4]]])
    found = Curves({}, {}, shares, shares[:, 0])
    np.testing.assert_array_equal(invariance.stability(found), [[True, False, True], [True, True, False]])


@pytest.mark.parametrize(("name", "still"), [("translation", 0.0), ("scale", 1.0)])
def test_the_amount_that_changes_nothing_is_left_out_of_how_often_a_label_stays(name, still):
    amounts = np.array([still - 0.5, still, still + 0.5])
    shares = np.array([[[0.1, 0.9], [0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.8, 0.2], [0.3, 0.7]]])
    measured = Curves({"f": np.array([[1.0, 0.0, 1.0]] * 2)}, {"f": np.ones(2)}, shares, shares[:, 1])
    labels = np.zeros(2, int)
    numbers = invariance.numbers(measured, transform=name, amounts=amounts, layers=("f",), labels=labels)
    kept = numbers["label_stability"]
    assert kept["images"].tolist() == [0.0, 0.5] and kept["mean"] == 0.25 and kept["num_amounts"] == 2
    assert kept["amounts"].tolist() == [0.5, 1.0, 0.0]


def test_quarter_turns_stand_out_for_what_looks_alike_then():
    angles = np.arange(0.0, 360.0, 10.0)
    values = np.stack([angles % 90 == 0, np.ones(36), np.cos(np.deg2rad(4 * angles)), angles == 0]).astype(float)
    between = np.cos(np.deg2rad([120, 160, 200, 240])).mean()
    np.testing.assert_allclose(invariance.quarter_turns(angles, values), [1, 0, 1 - between, 0], atol=1e-12)


def test_extents_are_distances_from_no_change():
    assert TRANSLATION.extent(np.array([-3.0, 2.0])).tolist() == [3, 2]
    np.testing.assert_allclose(SCALE.extent(np.array([1.0, 1.8])), [0, 0.8])
    assert ROTATION.extent(np.array([0.0, 10.0, 180.0, 350.0])).tolist() == [0, 10, 180, 10]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: invariance.warp(STORED, TRANSLATION.maps([0.0] * 3), size=26), "size=26: 2 to 25, the side of the"),
        (lambda: invariance.warp(STORED.astype("u1"), TRANSLATION.maps([0.0] * 3), size=9), "type uint8: floating"),
        (lambda: invariance.scalings([1.0, 0.0]), r"amounts=\[1.0, 0.0\]: scales above 0"),
        (lambda: invariance.translations([]), r"amounts=\[\]: a list of finite numbers"),
        (lambda: invariance.rotations([np.nan]), r"amounts=\[nan\]: a list of finite numbers"),
        (lambda: _curves(amounts=[1.0, 2.0]), r"amounts=\[1.0, 2.0\]: 0.0 must be among them"),
        (lambda: _curves(images=STORED[:0]), r"images of shape \(0, 25, 25, 3\): at least one"),
        (
            lambda: _curves(logits="c"),
            r"logits='c': a name in what fn returns, .*{'a': \*, 'b': \*}\), is needed",
        ),
        (lambda: _curves(lambda x: x), r"logits='b': a name in what fn returns, PyTreeDef\(\*\), is needed"),
        (lambda: invariance.stability(_curves(logits=None)), r"probabilities=None: curves\(..., logits=NAME\) tell"),
        (lambda: _curves(batch_size=0), "batch_size=0: at least 1"),
        (
            lambda: invariance.relative(Curves({}, {"a": np.array([1.0, 0.0])}, 0, 0)),
            "layer 'a' is 0 for image 1: no",
        ),
        (lambda: invariance.relative(Curves({}, np.array([1.0, 0.0]), 0, 0)), "its answer is 0 for image 1: no unit"),
        (lambda: invariance.slope(np.zeros(2), np.zeros(2)), r"extents=\[0.0, 0.0\]: at least one above 0"),
        (lambda: invariance.quarter_turns([0.0, 45.0], np.zeros(2)), r"angles=\[0.0, 45.0\]: a quarter turn, and"),
        (lambda: invariance.quarter_turns([90.0, 100.0], np.zeros(2)), r"angles=\[90.0, 100.0\]: a quarter turn, and"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _curves(fn=linear, images=STORED, amounts=(0.0, 1.0), logits="b", batch_size=2):
    return invariance.curves(
        fn, images, transform=TRANSLATION, amounts=amounts, size=17, logits=logits, batch_size=batch_size
    )
