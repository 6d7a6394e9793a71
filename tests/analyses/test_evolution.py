"""When features settle: each map against its own end, whatever its size; epochs, order and jumps by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from zfjax import nets
from zfjax.analyses import evolution

RNG = np.random.default_rng(0)
FINAL = RNG.normal(size=(6, 4, 5, 3)).astype(np.float32)
EARLY = RNG.normal(size=(6, 4, 5, 3)).astype(np.float32)


def test_correlation_is_pearsons_over_images_and_places():
    expected = [np.corrcoef(EARLY[..., c].ravel(), FINAL[..., c].ravel())[0, 1] for c in range(3)]
    np.testing.assert_allclose(evolution.correlations(EARLY, FINAL), expected, rtol=1e-5)
    assert evolution.similarity(EARLY, FINAL) == pytest.approx(np.mean(expected), rel=1e-5)


def test_size_and_offset_of_the_activations_do_not_matter_and_the_sign_does():
    features = FINAL * np.array([0.001, 3.0, -2.0], np.float32) + np.array([0.0, 500.0, 7.0], np.float32)
    np.testing.assert_allclose(evolution.correlations(features, FINAL), [1, 1, -1], atol=1e-5)


def test_a_map_is_compared_with_itself_and_not_with_its_neighbour():
    np.testing.assert_allclose(evolution.correlations(FINAL, FINAL), 1, rtol=1e-6)
    assert abs(evolution.similarity(np.roll(FINAL, 1, axis=-1), FINAL)) < 0.2


def test_a_dead_map_is_like_nothing_and_nothing_is_like_a_map_that_dies():
    dead = np.zeros_like(FINAL)
    dead[..., 1:] = FINAL[..., 1:]
    np.testing.assert_allclose(evolution.correlations(dead, FINAL), [0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(evolution.correlations(FINAL, dead), [np.nan, 1, 1], rtol=1e-6)
    assert evolution.similarity(dead, FINAL) == pytest.approx(2 / 3)
    assert evolution.similarity(FINAL, dead) == pytest.approx(1)
    assert evolution.similarity(FINAL, np.full_like(FINAL, 0.1)) is None


def test_units_of_a_dense_layer_are_maps_of_one_place():
    rows = FINAL[:, 0, 0]
    expected = [np.corrcoef(EARLY[:, 0, 0, c], rows[:, c])[0, 1] for c in range(3)]
    np.testing.assert_allclose(evolution.correlations(EARLY[:, 0, 0], rows), expected, rtol=1e-5)


def test_chance_is_the_similarity_of_different_maps():
    angle = 2 * np.pi * np.arange(12) / 12
    waves = np.stack([np.cos(angle), np.zeros(12), np.sin(angle), np.cos(angle) + np.sin(angle)], axis=-1)
    # around the circle: cos with the sum, sin with cos, the sum with sin
    assert evolution.similarity_by_chance(waves) == pytest.approx((np.sqrt(0.5) + 0 + np.sqrt(0.5)) / 3)
    assert evolution.similarity_by_chance(waves[:, :2]) is None


def test_a_layer_is_settled_when_it_stays_alike():
    epochs = [1, 2, 5, 10, 20]
    assert evolution.settling_epoch([0.1, 0.5, 0.9, 0.95, 0.99], epochs) == 5
    assert evolution.settling_epoch([0.1, 0.95, 0.5, 0.92, 0.99], epochs) == 10  # the early peak did not last
    assert evolution.settling_epoch([0.91] * 5, epochs) == 1
    assert evolution.settling_epoch([0.95, 0.95, 0.95, 0.95, 0.89], epochs) is None
    assert evolution.settling_epoch([0.1, 0.5, 0.9, 0.95, 0.99], epochs, threshold=0.96) == 20


def test_order_of_the_layers_counts_pairs():
    settled = [[0.9, 1.0], [0.5, 0.9], [0.1, 0.2]]
    assert evolution.lower_first(settled) == 1 and evolution.lower_first(settled[::-1]) == 0
    assert evolution.lower_first([settled[1], settled[0], settled[2]]) == pytest.approx(2 / 3)
    assert evolution.lower_first([settled[0], settled[0]]) == 0.5
    assert evolution.lower_first(settled[:1]) is None


def test_growth_is_the_median_over_maps_that_are_alive_at_the_end():
    values = np.array([[1.0, 2.0, 1.0, 9.0], [2.0, 8.0, 8.0, 0.0], [4.0, 16.0, 10.0, 0.0]])
    assert evolution.growth(values) == pytest.approx([0.125, 0.5, 1.0])
    assert evolution.growth(np.zeros((2, 3))) == [None, None]


def test_change_of_the_strongest_image_counts_maps_alive_at_both_epochs():
    values = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    images = np.array([[5, 6, 0, 7], [5, 8, 9, 7], [5, 6, 0, 7]])
    assert evolution.changed(values, images) == [pytest.approx(1 / 3), None]


def test_continuity_tells_a_new_image_from_a_new_look():
    first = RNG.normal(size=(2, 4, 4, 3))
    other = RNG.normal(size=(4, 4, 3))
    projections = np.stack([first, np.stack([3 * first[0], other])])  # map 0 stays, map 1 jumps
    result = evolution.continuity(projections, np.array([[4, 5], [4, 6]]))
    changed = pytest.approx(np.corrcoef(first[1].ravel(), other.ravel())[0, 1])
    (alike,), flags = result["of_pairs"]["correlation"], result["of_pairs"]["image_stayed"]
    assert alike == [pytest.approx(1), changed] and flags == [[True, False]]
    assert result["image_stayed"] == pytest.approx(1) and result["image_changed"] == changed
    for none in (0, 3):  # dead, or one grey: nothing to compare with
        projections[0, 1] = none
        result = evolution.continuity(projections, np.array([[4, 5], [4, 6]]))
        assert result["image_changed"] is None and result["of_pairs"]["correlation"][0][1] is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: evolution.correlations(EARLY[:2], FINAL),
            r"features of shape \(2, 4, 5, 3\): final has \(6, 4, 5, 3\)",
        ),
        (lambda: evolution.settling_epoch([0.5], [1, 2]), r"similarities=\[0.5\]: one for each of the epochs \[1, 2\]"),
        (lambda: evolution.settling_epoch([], []), r"similarities=\[\]: one for each"),
        (lambda: evolution.settling_epoch([0.5, 0.6], [2, 2]), r"epochs=\[2, 2\]: ascending"),
        (lambda: evolution.settling_epoch([0.5], [1], threshold=0), "threshold=0: above 0 and at most 1"),
        (lambda: evolution.settling_epoch([0.5], [1], threshold=1.5), "threshold=1.5: above 0 and at most 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class OfWeights:
    """Nets of two layers, a map of each pixel and one of that, at some epochs."""

    IMAGES = RNG.normal(size=(8, 5, 5, 3)).astype(np.float32)

    def __init__(self):
        first, second = (RNG.normal(size=(2, 3, 3)).astype(np.float32) for _ in range(2))
        self.ends = [{"low": first[n], "up": second[n]} for n in range(2)]

    def net(self, params):
        def apply(weights, images):
            low = images @ weights["low"]
            return {"low": low, "up": jnp.maximum(low, 0) @ weights["up"]}

        return nets.FunctionNet(apply, params, image_size=5, preprocess=lambda crops: crops)

    def on_the_way(self, low, up):
        (a, b), shares = self.ends, {"low": low, "up": up}
        return self.net({name: a[name] + share * (b[name] - a[name]) for name, share in shares.items()})


def test_weights_that_go_one_straight_way_are_where_the_straight_way_has_them():
    made = OfWeights()
    by_epoch = {n: made.on_the_way(share, share) for n, share in enumerate((0, 0.25, 0.625, 1))}
    measured = evolution.measure(by_epoch, made.IMAGES, ["low", "up"])
    straight = evolution.straight(by_epoch, made.IMAGES, ["low", "up"])
    for layer, way in straight.items():
        np.testing.assert_allclose(way, measured[layer]["similarity"], atol=1e-3)
    assert evolution.lower_first([*straight.values()]) == 1.0  # though nothing settles first


def test_a_layer_whose_weights_settle_first_is_ahead_of_the_straight_way_and_the_other_behind():
    made = OfWeights()
    by_epoch = {0: made.on_the_way(0, 0), 1: made.on_the_way(0.9, 0.1), 2: made.on_the_way(1, 1)}
    measured = evolution.measure(by_epoch, made.IMAGES, ["low", "up"])
    straight = evolution.straight(by_epoch, made.IMAGES, ["low", "up"])
    ahead = {layer: measured[layer]["similarity"][1] - way[1] for layer, way in straight.items()}
    assert ahead["low"] > 0.05 and ahead["up"] == pytest.approx(-ahead["low"], abs=1e-3)


def test_nets_without_weights_at_hand_or_of_other_shapes_have_no_straight_way():
    made = OfWeights()
    whole, other = made.on_the_way(1, 1), made.net({"low": np.eye(3), "up": np.ones((3, 2))})
    held = nets.FunctionNet(lambda images: {"low": images}, image_size=5, preprocess=lambda crops: crops)
    assert evolution.straight({0: other, 1: whole}, made.IMAGES, ["low", "up"]) is None
    assert evolution.straight({0: held, 1: held}, made.IMAGES, ["low"]) is None
