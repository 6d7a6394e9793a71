"""Table 1: squares where they belong, signs that count as they should, a test that keeps its level."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

from zfjax.analyses import correspondence
from zfjax.analyses.correspondence import consistency, mask_squares, mismatches, permutation_p_value, sign_consistency

IMAGES = tiny_nets.images(12, batch=3)


def signs_of(*shape, seed=0, zeros=1):
    return np.random.default_rng(seed).choice([-1, 1] + [0] * zeros, shape).astype(np.int8)


def delta_by_hand(signs):
    """Table 1's formula, pair by pair."""
    pairs = list(itertools.permutations(range(len(signs)), 2))
    return sum(np.mean(signs[i] != signs[j]) for i, j in pairs) / len(pairs)


@pytest.mark.parametrize(
    ("place", "side", "rows", "columns"),
    [
        ((6.0, 6.0), 4, (4, 8), (4, 8)),  # around a corner of pixels
        ((6.4, 5.6), 4, (4, 8), (4, 8)),  # the nearest whole square
        ((6.5, 2.5), 3, (5, 8), (1, 4)),  # around a pixel's centre
        ((0.0, 11.9), 4, (0, 2), (10, 12)),  # what hangs over is left out
        ((3.2, 3.2), 1, (3, 4), (3, 4)),
    ],
)
def test_the_square_stands_around_its_place(place, side, rows, columns):
    masked = np.asarray(mask_squares(IMAGES, [place, (6, 6), (1, 1)], side=side, fill=7.0))[0]
    expected = IMAGES[0].copy()
    expected[slice(*rows), slice(*columns)] = 7
    np.testing.assert_array_equal(masked, expected)


def test_each_image_has_a_place_of_its_own_and_grey_is_zero():
    masked = np.asarray(mask_squares(IMAGES, [(2, 2), (9, 4), (5, 10)], side=2))
    assert [tuple(np.argwhere((image == 0).all(axis=-1))[0]) for image in masked] == [(1, 1), (8, 3), (4, 9)]
    assert ((masked == 0) | (masked == IMAGES)).all() and (masked == 0).sum() == 3 * 2 * 2 * 3


def test_a_square_is_cut_out_of_the_picture_that_fills_it():
    fill = np.arange(IMAGES[0].size, dtype=np.float32).reshape(IMAGES[0].shape)
    masked = np.asarray(mask_squares(IMAGES[:1], [(2, 2)], side=2, fill=fill))[0]
    np.testing.assert_array_equal(masked[1:3, 1:3], fill[1:3, 1:3])
    assert (masked != IMAGES[0]).any(axis=-1).sum() == 4


def test_random_squares_of_an_image_that_is_not_square_reach_both_far_sides():
    drawn = correspondence.random_places(np.zeros((1, 0, 2)), (6, 11), side=4, num=300, rng=np.random.default_rng(0))
    assert sorted({tuple(place) for place in drawn[:, 0]}) == [(y + 2, x + 2) for y in range(3) for x in range(8)]


def test_random_squares_lie_inside_and_keep_off_the_parts():
    parts = np.array([[[6.0, 6.0], [3.0, 10.0]], [[0.5, 0.5], [20.0, 20.0]]])
    drawn = correspondence.random_places(parts, 24, side=4, num=400, rng=np.random.default_rng(0))
    assert drawn.shape == (400, 2, 2) and drawn.min() == 2 and drawn.max() == 22
    apart = np.abs(drawn[:, :, None] - parts[None]).max(axis=-1)
    assert apart.min() >= 3.5  # half a pixel is lost where a part's square was brought to whole pixels
    assert (apart[:, 0, 0] == 4).any()  # and they may touch
    places = {tuple(place) for place in drawn[:, 0]}
    everywhere = {(y + 2.0, x + 2.0) for y in range(21) for x in range(21)}
    free = {p for p in everywhere if all(max(abs(p[0] - y), abs(p[1] - x)) >= 4 for y, x in parts[0])}
    assert places <= free and len(places) > len(free) / 2


def test_where_the_parts_leave_no_room_the_least_is_covered():
    drawn = correspondence.random_places(np.array([[[5.0, 5.0]]]), 10, side=8, num=50, rng=np.random.default_rng(0))
    assert {tuple(place) for place in drawn[:, 0]} == {(4, 4), (4, 6), (6, 4), (6, 6)}
    anywhere = correspondence.random_places(np.zeros((1, 0, 2)), 10, side=8, num=200, rng=np.random.default_rng(0))
    assert len({tuple(place) for place in anywhere[:, 0]}) == 9


def test_delta_is_the_formula_pair_by_pair():
    differences = signs_of(5, 40) * np.random.default_rng(2).uniform(0.1, 9, (5, 40))
    assert sign_consistency(differences) == pytest.approx(delta_by_hand(np.sign(differences)), abs=1e-12)


def test_identical_changes_are_consistent_and_opposite_ones_are_not():
    change = np.random.default_rng(0).normal(size=30)
    assert sign_consistency(np.stack([change, 2 * change, change / 3])) == 0
    assert sign_consistency(np.stack([change, -change])) == 1
    # of three vectors two agree: 4 of 6 ordered pairs differ
    assert sign_consistency(np.stack([change, change, -change])) == pytest.approx(2 / 3)


def test_independent_signs_differ_half_of_the_time():
    assert sign_consistency(signs_of(6, 4000, zeros=0)) == pytest.approx(0.5, abs=0.01)
    assert sign_consistency(signs_of(6, 4000, zeros=1)) == pytest.approx(2 / 3, abs=0.01)


def test_sign_is_ternary_and_zero_against_one_counts_one():
    assert sign_consistency([[0.0, 1.0, -1.0, 0.0], [1.0, 1.0, 0.0, -0.0]]) == 0.5


def test_mismatches_are_counted_exactly_over_more_features_than_one_product_holds():
    signs = signs_of(4, 103)
    expected = (signs[:, None] != signs[None]).sum(axis=-1)
    np.testing.assert_array_equal(mismatches(signs), expected)
    np.testing.assert_array_equal(mismatches(signs, features_at_once=20), expected)


def test_consistency_of_some_is_that_of_these_alone():
    signs = signs_of(7, 50)
    chosen = np.array([[0, 3, 5], [6, 1, 2]])
    expected = [delta_by_hand(signs[some]) for some in chosen]
    np.testing.assert_allclose(consistency(mismatches(signs), chosen, 50), expected)


def test_signs_of_a_linear_net_are_those_of_the_masked_sum():
    weights = np.random.default_rng(3).normal(size=(12 * 12 * 3, 20)).astype(np.float32)
    places = np.array([[(2, 2), (6, 6), (9, 3)], [(5, 5), (1, 11), (11, 11)]], float)

    def fn(images):
        return {"sum": images.reshape(len(images), -1) @ jnp.asarray(weights), "map": images}

    found = correspondence.sign_changes(fn, IMAGES, places, side=4, batch_size=2)
    for m, of_mask in enumerate(places):
        change = IMAGES - np.asarray(mask_squares(IMAGES, of_mask, side=4))
        np.testing.assert_array_equal(found["map"][m], np.sign(change).reshape(3, -1))
        np.testing.assert_array_equal(found["sum"][m], np.sign(change.reshape(3, -1).astype("f8") @ weights))


def test_one_array_of_features_gives_one_array_of_signs_and_a_tree_its_tree():
    places = np.array([[(2, 2), (6, 6), (9, 3)], [(5, 5), (1, 11), (11, 11)]], float)
    alone = correspondence.sign_changes(lambda images: images, IMAGES, places, side=4, batch_size=2)
    for m, of_mask in enumerate(places):
        change = IMAGES - np.asarray(mask_squares(IMAGES, of_mask, side=4))
        np.testing.assert_array_equal(alone[m], np.sign(change).reshape(3, -1))
    first, rest = correspondence.sign_changes(lambda x: (x, [{"twice": -2 * x}]), IMAGES, places, side=4)
    np.testing.assert_array_equal(first, alone)
    np.testing.assert_array_equal(rest[0]["twice"], -alone)


def test_p_of_groups_that_are_alike_is_one_and_of_a_clear_part_the_smallest():
    same = np.broadcast_to(signs_of(1, 5, 30), (4, 5, 30)).reshape(-1, 30)
    masks = np.arange(20).reshape(4, 5)
    options = {"num_features": 30, "num_permutations": 199}
    assert permutation_p_value(mismatches(same), masks, rng=np.random.default_rng(0), **options) == 1
    clear = signs_of(4, 5, 30)
    clear[0] = clear[0, :1]  # the part changes every image in the same way
    p = permutation_p_value(mismatches(clear.reshape(-1, 30)), masks, rng=np.random.default_rng(0), **options)
    assert p == 1 / 200
    clear[0] = np.array([1, 0, -1, 1, 0])[:, None]  # and here in three ways that have nothing in common
    p = permutation_p_value(mismatches(clear.reshape(-1, 30)), masks, rng=np.random.default_rng(0), **options)
    assert p > 0.9


def test_p_is_the_share_of_all_labellings():
    """Two images, one random place each: four labellings, of which those at most as high as the part's count."""
    signs = signs_of(4, 40)  # part of image 0, of 1, random of 0, of 1
    deltas = [delta_by_hand(signs[[first, second]]) for first in (0, 2) for second in (1, 3)]
    masks, unequal = np.array([[0, 1], [2, 3]]), mismatches(signs)
    options = {"num_features": 40, "num_permutations": 4000, "rng": np.random.default_rng(0)}
    expected = np.mean(np.array(deltas) <= deltas[0])
    assert 0 < expected < 1 and permutation_p_value(unequal, masks, **options) == pytest.approx(expected, abs=0.03)


def test_p_keeps_its_level_where_parts_are_random_places():
    ps = []
    for seed in range(60):
        unequal = mismatches(signs_of(3 * 6, 24, seed=seed))
        masks, rng = np.arange(18).reshape(3, 6), np.random.default_rng(seed)
        ps.append(permutation_p_value(unequal, masks, num_features=24, num_permutations=99, rng=rng))
    assert np.mean(np.array(ps) <= 0.2) == pytest.approx(0.2, abs=0.13) and np.mean(ps) == pytest.approx(0.5, abs=0.1)


def test_permutations_come_in_batches_that_change_nothing():
    unequal, masks = mismatches(signs_of(12, 30)), np.arange(12).reshape(3, 4)
    options = {"num_features": 30, "num_permutations": 50}
    whole = permutation_p_value(unequal, masks, rng=np.random.default_rng(0), **options)
    in_batches = permutation_p_value(unequal, masks, rng=np.random.default_rng(0), **options, pairs_at_once=7 * 16)
    assert in_batches == whole


def _table(signs, **changes):
    options = {"num_images": 4, "num_draws": 3, "num_permutations": 99, "seed": 0, **changes}
    return correspondence.table(signs, {"nose": [0], "eye": [1], "far": range(2, 5)}, controls=["far"], **options)


def test_the_table_tells_every_row_by_hand():
    signs = signs_of(5, 4, 30)
    signs[0] = signs[0, 0]
    scores = _table(signs)  # each draw is all four images
    assert scores["nose"] == (0, 0, 0, np.mean(signs[0] != 0), 0.01, None, 0)
    eye = delta_by_hand(signs[1])
    np.testing.assert_allclose(scores["eye"][:3], [eye, 0, eye], atol=1e-12)
    pairs = list(itertools.combinations(signs[1], 2))
    of_touched = [np.mean((a != b)[(a != 0) | (b != 0)]) for a, b in pairs]
    assert scores["eye"].touched == pytest.approx(np.mean(of_touched))
    assert scores["eye"].p > 0.01 and scores["far"].p is None
    far = [delta_by_hand(signs[m]) for m in (2, 3, 4)]
    assert scores["far"].all == pytest.approx(np.mean(far)) and min(far) <= scores["far"].delta <= max(far)
    assert scores["far"].changed == np.mean(signs[2:] != 0)


def test_masks_that_touch_nothing_have_no_score_of_touched_features():
    signs = signs_of(5, 4, 30)
    signs[0] = 0
    score = _table(signs)["nose"]
    assert (score.delta, score.changed, score.touched) == (0, 0, None)


def test_a_part_is_ranked_among_aligned_places():
    signs = signs_of(5, 4, 30)
    signs[3] = signs[3, 0]  # one of the three places is as consistent as can be
    signs[0] = signs[0, 0]
    scores = _table(signs, aligned="far")
    deltas = [delta_by_hand(of_mask) for of_mask in signs]
    assert scores["nose"].p_aligned == (1 + 1) / (1 + 3) and scores["far"].p_aligned is None
    assert scores["eye"].p_aligned == (1 + sum(delta <= deltas[1] for delta in deltas[2:])) / 4


def test_draws_of_some_images_spread_around_the_whole():
    signs = signs_of(5, 12, 200)
    score = _table(signs, num_images=5, num_draws=400)["eye"]
    every = [delta_by_hand(signs[1][list(some)]) for some in itertools.combinations(range(12), 5)]
    assert score.delta == pytest.approx(np.mean(every), abs=4 * np.std(every) / 20)
    assert score.std == pytest.approx(np.std(every), rel=0.15) and score.all == pytest.approx(np.mean(every))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mask_squares(IMAGES, [(1, 1), (3, 12.0), (1, 1)], side=2), r"places\[1\]=\(3, 12\): \(y, x\) inside"),
        (
            lambda: mask_squares(IMAGES, [(1, 1), (1, 1), (-0.5, 3)], side=2),
            r"places\[2\]=\(-0.5, 3\): .* 12x12 pixels",
        ),
        (lambda: mask_squares(IMAGES, [(np.nan, 1)] * 3, side=2), r"places\[0\]=\(nan, 1\)"),
        (lambda: mask_squares(IMAGES, [(1, 1)] * 3, side=0), "side=0: a square of 1 to 12 pixels"),
        (lambda: mask_squares(IMAGES, [(1, 1)] * 3, side=13), "side=13: a square of 1 to 12 pixels"),
        (lambda: sign_consistency(np.ones((1, 5))), "1 feature vectors: at least 2 are needed"),
        (lambda: sign_consistency([[np.nan, 1.0], [1.0, 1.0]]), "differences: finite numbers are needed"),
        (lambda: _table(signs_of(5, 4, 9), num_images=5), "num_images=5: 2 to 4, the number of images"),
        (lambda: _table(signs_of(5, 4, 9), num_images=1), "num_images=1: 2 to 4, the number of images"),
        (lambda: _table(signs_of(5, 4, 9), num_draws=0), "num_draws=0, num_permutations=99: at least 1 of each"),
        (lambda: _table(signs_of(5, 4, 9), num_permutations=0), "num_permutations=0: at least 1 of each"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
