"""Folds, scores, streamed features and duplicates, by value."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
from PIL import Image

from zfjax import features, transfer

NAMES = ("ant", "bass", "crab")
LABELS = np.repeat([0, 1, 2], [4, 70, 9])[np.random.default_rng(0).permutation(83)]


def draw(num_train=3, **changes):
    settings = {"num_train": num_train, "num_folds": 3, "seed": 5, "class_names": NAMES, "num_test": 50} | changes
    return transfer.folds(LABELS, **settings)


def test_a_fold_has_k_training_images_of_each_class_and_up_to_fifty_others():
    for fold in draw():
        assert [(LABELS[fold.train] == c).sum() for c in range(3)] == [3, 3, 3]
        assert [(LABELS[fold.test] == c).sum() for c in range(3)] == [1, 50, 6]
        assert len(set(fold.train) | set(fold.test)) == len(fold.train) + len(fold.test)


def test_folds_are_reproducible_and_differ():
    for fold, again, more in zip(draw(), draw(), draw(num_folds=9), strict=False):
        np.testing.assert_array_equal(fold.train, again.train)
        np.testing.assert_array_equal(fold.test, more.test)  # whatever the number of folds
    first, second, _ = draw()
    assert set(first.train) != set(second.train) and set(first.train) != set(draw(seed=6)[0].train)


def test_fewer_training_images_are_among_more_and_big_classes_keep_their_test():
    for few, many in zip(draw(1), draw(3), strict=True):
        assert set(few.train) < set(many.train)
        big = [set(fold.test[LABELS[fold.test] == 1]) for fold in (few, many)]
        assert big[0] == big[1]


def test_bad_folds_are_refused():
    with pytest.raises(ValueError, match="num_train=4: class 'ant' has 4 images, and at least one is to be tested on"):
        draw(4)
    with pytest.raises(ValueError, match="num_folds=0: at least 1"):
        draw(num_folds=0)
    with pytest.raises(ValueError, match="seed=-1: 0 or more is needed"):
        draw(seed=-1)
    with pytest.raises(ValueError, match=r"labels 0..2: those of 2 classes are needed"):
        draw(class_names=NAMES[:2])
    with pytest.raises(ValueError, match="class 'dog' has 0 images"):
        draw(class_names=(*NAMES, "dog"))


def test_a_third_of_each_class_is_held_out_and_nothing_of_a_single_image():
    labels = np.array([0] * 7 + [1] * 2 + [2])
    assert transfer.held_out(labels).tolist() == [False] * 5 + [True] * 2 + [False, True] + [False]


def test_every_class_counts_the_same():
    """Class 0: 8 of 8, class 1: 0 of 1, class 3: 1 of 2; class 2 has no image."""
    labels = np.array([0] * 8 + [1] + [3, 3])
    predicted = np.array([0] * 8 + [0] + [3, 2])
    assert transfer.mean_class_accuracy(predicted, labels) == pytest.approx((1 + 0 + 0.5) / 3)
    with pytest.raises(ValueError, match=r"predicted of shape \(2,\): one for each of the 11 labels"):
        transfer.mean_class_accuracy(predicted[:2], labels)


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("1", 1.0),
        ("0", None),
        ("01", 1 / 2),
        ("101", (1 + 2 / 3) / 2),
        ("110", 1.0),
        ("0101", (2 / 4 + 2 / 4) / 2),
        ("01011", (3 / 5) * 3 / 3),  # the precision at a later recall is the best one from there on
        ("10011", (1 + 3 / 5 + 3 / 5) / 3),
    ],
)
def test_average_precision_of_rankings_by_hand(ranking, expected):
    relevant = np.array([c == "1" for c in ranking])
    scores = -np.arange(len(relevant), dtype=float)
    found = transfer.average_precision(scores, relevant)
    assert np.isnan(found) if expected is None else found == pytest.approx(expected)


def test_ties_are_found_together_in_any_order():
    scores = np.array([3.0, 2, 2, 2, 1])
    relevant = np.array([False, True, False, True, True])
    for order in (np.arange(5), np.array([0, 2, 1, 3, 4]), np.array([4, 3, 2, 1, 0])):
        found = transfer.average_precision(scores[order], relevant[order])
        assert found == pytest.approx(2 / 3 * 3 / 5 + 1 / 3 * 3 / 5)  # 2 of 4, then 3 of 5, the better one
    assert transfer.average_precision(np.zeros(5), relevant) == pytest.approx(3 / 5)


def test_average_precision_is_the_devkits_loop_on_random_rankings():
    """VOCap.m, written once more: sentinels, the envelope from the right, the sum where recall changes."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, relevant = rng.normal(size=30), rng.random(30) < 0.3
        if not relevant.any():
            continue
        hits = np.cumsum(relevant[np.argsort(-scores)])
        recall, precision = [0, *(hits / relevant.sum()), 1], [0, *(hits / np.arange(1, 31)), 0]
        for i in range(30, -1, -1):
            precision[i] = max(precision[i], precision[i + 1])
        area = sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, 32))
        assert transfer.average_precision(scores, relevant) == pytest.approx(area)


def test_difficult_images_are_left_out_of_their_class_alone():
    scores = np.array([[3.0, 0], [2, 1], [1, 2]])
    shown = np.array([[0, -1], [1, -1], [-1, 1]])
    assert transfer.average_precisions(scores, shown).tolist() == [1.0, 1.0]
    shown[0, 0] = -1
    assert transfer.average_precisions(scores, shown).tolist() == [0.5, 1.0]
    shown[:, 1] = -1
    assert np.isnan(transfer.average_precisions(scores, shown)[1])
    assert transfer.mean_average_precision(scores, shown) == 0.5
    assert np.isnan(transfer.mean_average_precision(scores, -np.ones((3, 2))))


def test_scores_that_cannot_be_ranked_are_refused():
    for scores in (np.array([1.0, np.nan]), np.array([1.0])):
        with pytest.raises(ValueError, match="finite ones for each of 2 images"):
            transfer.average_precision(scores, np.array([True, False]))
    for relevant in (np.array([2, 0, 1]), np.array([1.0, 0, 0])):
        with pytest.raises(ValueError, match=f"relevant of type {relevant.dtype}: bool is needed"):
            transfer.average_precision(np.zeros(3), relevant)


@pytest.mark.parametrize("shown", [np.ones((2, 2)), np.ones((3, 1)), np.ones((4, 2)), np.ones(3)])
def test_as_many_labels_as_scores_are_needed(shown):
    with pytest.raises(ValueError, match=r"targets of shape .*: one for each of scores \(3, 2\), images by classes"):
        transfer.average_precisions(np.zeros((3, 2)), shown)
    with pytest.raises(ValueError, match=r"targets of shape \(3,\): one for each of scores \(3,\), images by classes"):
        transfer.average_precisions(np.zeros(3), np.ones(3))


@pytest.mark.parametrize("shown", [np.ones((3, 2), bool), np.full((3, 2), 2), np.full((3, 2), np.nan)])
def test_labels_are_shown_not_shown_or_difficult(shown):
    """False would read as 0, difficult, and leave every image out that does not show the class."""
    with pytest.raises(ValueError, match=f"targets of type {shown.dtype}: 1 .shown., -1 .not shown. and 0 .difficult."):
        transfer.average_precisions(np.zeros((3, 2)), shown)


def test_streamed_features_are_those_of_single_centre_crops():
    size = tiny_nets.MINI.image_size
    stored = np.random.default_rng(2).integers(0, 256, (5, size + 4, size + 4, 3), np.uint8)
    mean = np.random.default_rng(3).uniform(90, 140, stored.shape[1:]).astype(np.float32)
    blank = np.zeros_like(stored[:1])
    batches = [
        {"image": stored[:3], "mask": np.array([True, True, True])},
        {"image": np.concatenate([stored[3:], blank]), "mask": np.array([True, True, False])},
    ]
    fn = features.layers_of(tiny_nets.params(tiny_nets.MINI), ["conv1", "fc7"], architecture=tiny_nets.MINI)
    parts = list(transfer.features_of(fn, batches, mean=mean, size=size))
    assert [len(part["fc7"]) for part in parts] == [3, 2]
    found = {layer: np.concatenate([part[layer] for part in parts]) for layer in ("conv1", "fc7")}
    crops = (stored - mean)[:, 2:-2, 2:-2]
    _, trace = tiny_nets.forward(tiny_nets.params(tiny_nets.MINI), crops, architecture=tiny_nets.MINI)
    for layer in found:
        expected = np.asarray(trace[layer].features).reshape(5, -1)
        np.testing.assert_allclose(found[layer], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def smooth(seed, count=6, side=40):
    """Pictures with large shapes, as photos have."""
    noise = np.random.default_rng(seed).integers(60, 190, (count, 5, 5, 3), np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)) for picture in noise]
    )


def test_duplicates_are_found_at_another_brightness_contrast_and_size():
    tested = smooth(0)
    changed = (tested[[1, 4]] * 0.6 + 30).astype(np.uint8)
    larger = np.stack([np.asarray(Image.fromarray(picture).resize((64, 64))) for picture in changed])
    trained = [smooth(7, side=64), larger, smooth(8, side=64)]
    found = transfer.duplicates([tested[:4], tested[4:]], trained, 0.95)
    assert found.tolist() == [False, True, False, False, True, False]
    assert not transfer.duplicates([tested], trained[:1], 0.95).any()
    mirrored = transfer.duplicates([tested], [tested[:, :, ::-1]], 0.95)
    assert not mirrored.any()


def test_correlation_is_numpys_and_a_picture_of_one_colour_is_like_none():
    a, b = smooth(1, 1, side=32), smooth(2, 1, side=32)  # at the thumbnails' own size
    found = transfer.highest_correlations([a], [b])
    flat = [(picture[0] - picture[0].mean(axis=(0, 1))).ravel() for picture in (a, b)]
    assert found[0] == pytest.approx(np.corrcoef(*flat)[0, 1], abs=1e-5)
    cast = np.array([40, 0, -40])
    blue, red = ((picture * 0.4 + 90 + sign * cast).astype(np.uint8) for picture, sign in ((a, 1), (a, -1)))
    assert transfer.highest_correlations([blue], [red])[0] > 0.99  # one picture in two casts
    other = (b * 0.1 + 90 + cast).astype(np.uint8)
    assert transfer.highest_correlations([blue], [other])[0] < 0.5  # two pictures in one cast
    grey = np.full((1, 32, 32, 3), 128, np.uint8)
    assert transfer.highest_correlations([grey, a], [grey, a]).tolist() == pytest.approx([0, 1], abs=1e-5)
    assert transfer.highest_correlations([a], []).tolist() == [-1]
    assert jnp.isfinite(transfer.thumbnails(jnp.asarray(grey))).all()
    with pytest.raises(ValueError, match="threshold=0: a correlation above 0 and at most 1"):
        transfer.duplicates([a], [b], 0)
