"""Linear classifiers against closed forms, scikit-learn, and themselves in kernel coordinates."""

import jax
import numpy as np
import pytest

from zfjax import linear_models

NUM, DIM, CLASSES = 60, 7, 3
LABELS = np.arange(NUM) % CLASSES
FEATURES = (np.random.default_rng(0).normal(size=(NUM, DIM)) + 1.2 * np.eye(DIM)[LABELS]).astype(np.float32)
TARGETS = linear_models.targets_of(LABELS, CLASSES)


def log_likelihood(scores, targets):
    return float(np.mean(jax.nn.log_softmax(scores)[targets > 0]))


def repeated(points, targets):
    """The examples over and over in the shapes above, which leaves their mean as it is, and one program for all."""
    times = NUM // len(points)
    features, wanted = np.zeros((NUM, DIM), np.float32), np.ones((NUM, CLASSES), np.float32)
    features[:, :1] = np.tile(points, (times, 1))
    wanted[:, : targets.shape[1]] = np.tile(targets, (times, 1))
    return features, wanted


@pytest.mark.parametrize("penalty", [0.5, 0.01])
def test_svm_of_two_points_is_the_closed_form(penalty):
    """At x = 1 and -1 each class minimises (1 - w)^2 + penalty / 2 w^2, so w = 2 / (2 + penalty), and b = 0."""
    features, targets = repeated(np.array([[1.0], [-1.0]]), np.array([[1, -1], [-1, 1]]))
    model = linear_models.fit(features, targets, penalty, loss="svm", tolerance=1e-6)
    np.testing.assert_allclose(model.weights[0, :2], [2 / (2 + penalty), -2 / (2 + penalty)], rtol=1e-5)
    np.testing.assert_allclose(model.bias[:2], [0, 0], atol=1e-5)
    assert not np.asarray(model.weights[1:]).any()


def test_a_point_beyond_the_margin_pulls_no_more():
    """Of 1, -1 and 9 the last is beyond the margin, and the first two alone decide; of three examples, so 2/3."""
    features, targets = repeated(np.array([[1.0], [-1.0], [9.0]]), np.array([[1], [-1], [1]]))
    model = linear_models.fit(features, targets, 0.3, loss="svm", tolerance=1e-6)
    np.testing.assert_allclose(model.weights[0, 0], 2 / (2 + 0.3 * 3 / 2), rtol=1e-4)
    np.testing.assert_allclose(model.bias[0], 0, atol=1e-4)


def test_softmax_without_features_gives_the_shares_of_the_classes():
    labels = np.repeat([0, 1, 2], [30, 18, 12])
    model = linear_models.fit(0 * FEATURES, linear_models.targets_of(labels, 3), 0.1, loss="softmax", tolerance=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(model.bias), [0.5, 0.3, 0.2], rtol=1e-4)


def test_logistic_leaves_difficult_examples_out_of_their_class():
    """As if they were not there, but for the mean that they are counted in: a penalty that weighs more on the rest."""
    targets = TARGETS.copy()
    targets[::4, 1] = 0
    model = linear_models.fit(FEATURES, targets, 0.01, loss="logistic", tolerance=1e-6)
    weights, bias = np.asarray(model.weights[:, 1], np.float64), float(model.bias[1])
    rest = np.arange(NUM) % 4 != 0
    wrong = -targets[rest, 1] / (1 + np.exp(targets[rest, 1] * (FEATURES[rest] @ weights + bias)))
    np.testing.assert_allclose(wrong @ FEATURES[rest] / NUM + 0.01 * weights, 0, atol=1e-5)
    assert wrong.sum() == pytest.approx(0, abs=1e-3) and np.abs(weights).max() > 0.5


@pytest.mark.parametrize("penalty", [0.1, 0.001])
def test_softmax_and_svm_are_scikit_learns(penalty):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the independent reference")
    from sklearn.svm import LinearSVC

    strength = 1 / (penalty * NUM)
    softmax = linear.LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(FEATURES, LABELS)
    # LIBLINEAR penalises the bias too, by next to nothing at this scale
    svm = LinearSVC(C=strength, tol=1e-8, max_iter=1_000_000, intercept_scaling=1000.0).fit(FEATURES, LABELS)
    for loss, theirs in (("softmax", softmax), ("svm", svm)):
        model = linear_models.fit(FEATURES, TARGETS, penalty, loss=loss, tolerance=1e-5)
        np.testing.assert_allclose(model.weights, theirs.coef_.T, atol=2e-4)
        np.testing.assert_allclose(model.bias, theirs.intercept_, atol=2e-4)
        assert float(model.gradient_norm) <= 1e-5 and 5 < int(model.iterations) < 100


def test_a_fit_that_begins_at_its_end_takes_no_step():
    model = linear_models.fit(FEATURES, TARGETS, 0.01, loss="softmax")
    again = linear_models.fit(FEATURES, TARGETS, 0.01, loss="softmax", start=model)
    assert int(again.iterations) == 0 and float(again.gradient_norm) <= linear_models.TOLERANCE
    np.testing.assert_array_equal(again.weights, model.weights)
    np.testing.assert_allclose(
        linear_models.scores(model, FEATURES), FEATURES @ np.asarray(model.weights) + np.asarray(model.bias), atol=1e-5
    )


def test_held_out_examples_choose_the_penalty():
    """The strongest learns nothing, the weakest learns the training examples by heart."""
    clearer = FEATURES + np.float32(1.2) * np.eye(DIM, dtype=np.float32)[LABELS]
    held, penalties = np.arange(NUM) % 2 == 0, (100.0, 0.1, 1e-4)
    chosen = linear_models.fit_chosen(
        clearer, TARGETS, held, loss="softmax", quality=log_likelihood, penalties=penalties
    )
    reached = []
    for tried in penalties:
        fitted = linear_models.fit(clearer[~held], TARGETS[~held], tried, loss="softmax")
        reached.append(log_likelihood(linear_models.scores(fitted, clearer[held]), TARGETS[held]))
    assert np.argmax(reached) == 1 and chosen.penalty == 0.1
    everything = linear_models.fit(clearer, TARGETS, 0.1, loss="softmax")
    np.testing.assert_array_equal(chosen.model.weights, everything.weights)
    nothing_held = linear_models.fit_chosen(clearer, TARGETS, held & False, loss="softmax", quality=log_likelihood)
    assert nothing_held.penalty == 1e-5


def test_normalized_features_have_no_mean_and_unit_mean_square_norm():
    train, test = linear_models.normalized(FEATURES[:40], FEATURES[40:])
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-6)
    assert (train**2).sum(axis=1).mean() == pytest.approx(1, abs=1e-5)
    mean = FEATURES[:40].mean(axis=0)
    scale = np.sqrt(((FEATURES[:40] - mean) ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(test, (FEATURES[40:] - mean) / scale, atol=1e-5)
    same = np.ones((4, 3), np.float32)
    assert not linear_models.normalized(same, same)[1].any()


def test_gram_matrix_is_added_up_over_blocks_of_features_and_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(linear_models, "_BLOCK_BYTES", 4 * NUM * 3)  # three features at a time, one in the last block
    np.save(tmp_path / "features.npy", FEATURES)
    monkeypatch.setattr(linear_models, "_ROWS", 25)
    seen = []
    gram = linear_models.gram_matrix(np.load(tmp_path / "features.npy", mmap_mode="r"), seen.append)
    assert seen == [3, 3, 1]
    centred = FEATURES - FEATURES.mean(axis=0)
    np.testing.assert_allclose(gram, centred @ centred.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_train", [40, 6])  # more images than features, and fewer
def test_kernel_coordinates_have_the_inner_products_of_normalized_features(num_train):
    short, outside, train, test = both_ways(num_train)
    np.testing.assert_allclose(short @ short.T, train @ train.T, atol=2e-4)
    np.testing.assert_allclose(outside @ short.T, test @ train.T, atol=2e-4)


def test_kernel_coordinates_give_the_same_classifier():
    short, outside, train, test = both_ways(6)
    direct, kernel = (linear_models.fit(x, TARGETS[:6], 0.01, loss="svm", tolerance=1e-5) for x in (train, short))
    theirs = linear_models.scores(direct, test)
    np.testing.assert_allclose(linear_models.scores(kernel, outside), theirs, atol=5e-3 * np.abs(theirs).max())


def both_ways(num_train):
    """Coordinates by the Gram matrix, and normalised features."""
    gram, chosen = linear_models.gram_matrix(FEATURES), np.arange(num_train)
    coordinates = linear_models.kernel_coordinates(gram[chosen][:, chosen], gram[40:][:, chosen])
    return *coordinates, *linear_models.normalized(FEATURES[chosen], FEATURES[40:])


def test_identical_images_have_coordinates_too():
    gram = np.ones((3, 3), np.float32)
    train, test = linear_models.kernel_coordinates(gram, gram[:1])
    np.testing.assert_allclose(train, 0.01 * np.eye(3), rtol=1e-6)
    assert not test.any()
