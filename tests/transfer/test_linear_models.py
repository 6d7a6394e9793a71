"""Linear classifiers against closed forms and scikit-learn; what is not finite or has not converged says so."""

import jax
import numpy as np
import pytest

from zfjax.transfer import linear_models

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
    model = linear_models.fit(features, targets, penalty, loss="svm", tolerance=1e-10)
    np.testing.assert_allclose(model.weights[0, :2], [2 / (2 + penalty), -2 / (2 + penalty)], rtol=1e-5)
    np.testing.assert_allclose(model.bias[:2], [0, 0], atol=1e-5)
    assert not np.asarray(model.weights[1:]).any()


def test_a_point_beyond_the_margin_pulls_no_more():
    """Of 1, -1 and 9 the last is beyond the margin, and the first two alone decide; of three examples, so 2/3."""
    features, targets = repeated(np.array([[1.0], [-1.0], [9.0]]), np.array([[1], [-1], [1]]))
    model = linear_models.fit(features, targets, 0.3, loss="svm", tolerance=1e-10)
    np.testing.assert_allclose(model.weights[0, 0], 2 / (2 + 0.3 * 3 / 2), rtol=1e-4)
    np.testing.assert_allclose(model.bias[0], 0, atol=1e-4)


def test_softmax_without_features_gives_the_shares_of_the_classes():
    labels = np.repeat([0, 1, 2], [30, 18, 12])
    model = linear_models.fit(0 * FEATURES, linear_models.targets_of(labels, 3), 0.1, loss="softmax", tolerance=1e-10)
    np.testing.assert_allclose(jax.nn.softmax(model.bias), [0.5, 0.3, 0.2], rtol=1e-4)


def test_logistic_leaves_difficult_examples_out_of_their_class():
    """As if they were not there, but for the mean that they are counted in: a penalty that weighs more on the rest."""
    targets = TARGETS.copy()
    targets[::4, 1] = 0
    model = linear_models.fit(FEATURES, targets, 0.01, loss="logistic", tolerance=1e-10)
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
        model = linear_models.fit(FEATURES, TARGETS, penalty, loss=loss, tolerance=1e-9)
        np.testing.assert_allclose(model.weights, theirs.coef_.T, atol=2e-4)
        np.testing.assert_allclose(model.bias, theirs.intercept_, atol=2e-4)
        assert float(model.left) <= 1e-9 and 5 < int(model.iterations) < 100


@pytest.mark.parametrize("loss", ["softmax", "svm"])
def test_at_every_penalty_the_objective_is_that_of_scikit_learn(loss):
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is the independent reference")
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    digits = datasets.load_digits()
    features, _ = linear_models.normalized(digits.data[:600].astype(np.float32), digits.data[:1])
    labels = digits.target[:600]
    targets = linear_models.targets_of(labels, 10)

    def objective(weights, bias, penalty):
        scores = features.astype(np.float64) @ weights + bias
        if loss == "svm":
            losses = (np.maximum(0, 1 - targets * scores) ** 2).sum(axis=1)
        else:
            losses = np.log(np.exp(scores).sum(axis=1)) - scores[targets > 0]
        return losses.mean() + penalty / 2 * (np.asarray(weights, np.float64) ** 2).sum()

    model = None
    for penalty in linear_models.PENALTIES:
        model = linear_models.fit(features, targets, penalty, loss=loss, start=model)
        assert linear_models.converged(model)
        strength = 1 / (penalty * len(labels))
        if loss == "svm":  # LIBLINEAR halves the penalty alone
            theirs = LinearSVC(C=strength, tol=1e-3, max_iter=5000, dual=False, intercept_scaling=1000.0)
        else:
            theirs = LogisticRegression(C=strength, tol=1e-6, max_iter=5000)
        theirs.fit(features, labels)
        ours = objective(np.asarray(model.weights), np.asarray(model.bias), penalty)
        assert ours <= (1 + 1e-3) * objective(theirs.coef_.T, theirs.intercept_, penalty)


def test_a_fit_that_begins_at_its_end_takes_no_step():
    model = linear_models.fit(FEATURES, TARGETS, 0.01, loss="softmax")
    again = linear_models.fit(FEATURES, TARGETS, 0.01, loss="softmax", start=model)
    assert int(again.iterations) == 0 and float(again.left) <= linear_models.TOLERANCE
    np.testing.assert_array_equal(again.weights, model.weights)
    np.testing.assert_allclose(
        linear_models.scores(model, FEATURES), FEATURES @ np.asarray(model.weights) + np.asarray(model.bias), atol=1e-5
    )


def test_a_fit_can_be_stopped_every_few_steps_and_its_end_does_not_depend_on_where(monkeypatch):
    ended, iterate = [], vars(linear_models)["_iterate"]

    def stopped_at_the_second(*arguments, **options):
        carry = iterate(*arguments, **options)
        ended.append(int(carry.iterations))
        if len(ended) == 2:
            raise KeyboardInterrupt
        return carry

    whole = linear_models.fit(FEATURES, TARGETS, 1e-5, loss="svm")
    monkeypatch.setattr(linear_models, "AT_ONCE", 3)
    monkeypatch.setattr(linear_models, "_iterate", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        linear_models.fit(FEATURES, TARGETS, 1e-5, loss="svm")
    assert ended == [3, 6] and whole.iterations > 6
    monkeypatch.setattr(linear_models, "_iterate", iterate)
    by_threes = linear_models.fit(FEATURES, TARGETS, 1e-5, loss="svm")
    assert int(by_threes.iterations) == int(whole.iterations)
    np.testing.assert_array_equal(by_threes.weights, whole.weights)


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


def test_a_fit_that_is_stopped_before_its_end_says_so():
    """The same problem with fewer steps than it needs."""
    whole = linear_models.fit(FEATURES, TARGETS, 1e-3, loss="softmax")
    assert linear_models.converged(whole) and int(whole.iterations) > 3
    stopped = linear_models.fit(FEATURES, TARGETS, 1e-3, loss="softmax", max_iterations=3)
    assert not linear_models.converged(stopped) and int(stopped.iterations) == 3
    assert float(stopped.left) > linear_models.TOLERANCE


@pytest.mark.parametrize("loss", ["softmax", "svm", "logistic"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_in_training_and_in_testing(loss, value):
    spoilt = FEATURES.copy()
    spoilt[7, 2] = value
    with pytest.raises(ValueError, match=f"penalty=0.01: the {loss} is not finite after 0 steps; check the features"):
        linear_models.fit(spoilt, TARGETS, 0.01, loss=loss)
    model = linear_models.fit(FEATURES, TARGETS, 0.01, loss=loss)
    with pytest.raises(ValueError, match="features: their scores are not finite"):
        linear_models.scores(model, spoilt)


def test_penalties_that_make_no_sense_are_refused():
    for penalty in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"penalty={penalty}: a finite number, 0 or more, is needed"):
            linear_models.fit(FEATURES, TARGETS, penalty, loss="softmax")
    held = np.arange(NUM) % 2 == 0
    with pytest.raises(ValueError, match="loss='hinge': one of 'softmax', 'svm', 'logistic' is needed"):
        linear_models.fit(np.zeros((3, 2)), np.zeros((3, 2)), 0.1, loss="hinge")
    with pytest.raises(ValueError, match=r"features \(3, 2\), targets \(4, 2\): \[N, D\] and \[N, C\] are needed"):
        linear_models.fit(np.zeros((3, 2)), np.zeros((4, 2)), 0.1, loss="svm")
    with pytest.raises(ValueError, match=r"penalties=\(\): at least one is needed"):
        linear_models.fit_chosen(FEATURES, TARGETS, held, loss="softmax", quality=log_likelihood, penalties=())
    with pytest.raises(ValueError, match=r"quality=\[nan\] of the held-out examples: numbers are needed"):
        linear_models.fit_chosen(
            FEATURES, TARGETS, held, loss="softmax", quality=lambda scores, targets: np.nan, penalties=(0.1,)
        )
