"""Evaluation: ranks by hand, ties, broken rows, few classes; views averaged; every image counted once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

from zfjax import pixels
from zfjax.data import ArraySource, loader
from zfjax.errors import UserError
from zfjax.training import evaluation

SIDE, COUNT = 36, 19
TABLE = tiny_nets.MINI


@functools.lru_cache
def data():
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8).repeat(9, axis=1).repeat(9, axis=2)
    return stored, rng.integers(0, 5, COUNT), rng.uniform(90, 150, (SIDE, SIDE, 3)).astype(np.float32)


@functools.lru_cache
def parameters():
    """Weights whose logits on these pictures have mean 0 and standard deviation 1 in every class."""
    stored, _, mean = data()
    params = jax.tree.map(np.array, tiny_nets.params(TABLE))
    params["fc8"]["bias"][:] = 0
    logits = np.asarray(tiny_nets.forward(params, pixels.center_crop(stored, mean, 34), architecture=TABLE)[0])
    params["fc8"]["kernel"] /= logits.std(axis=0)
    params["fc8"]["bias"] -= logits.mean(axis=0) / logits.std(axis=0)
    return params


def batches(batch_size):
    stored, labels, _ = data()
    return loader.eval_batches(ArraySource(stored, labels), batch_size=batch_size)


@functools.lru_cache
def views_by_hand(views):
    """Mean probabilities of the 19 pictures, one view after the other. float64 [19, 5]"""
    stored, _, mean = data()
    crops = pixels.ten_crops(stored, mean, 34) if views == "ten" else pixels.center_crop(stored, mean, 34)[None]
    params, total = parameters(), 0
    for crop in crops:
        logits = np.asarray(tiny_nets.forward(params, crop, architecture=TABLE)[0], np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        total = total + odds / odds.sum(axis=1, keepdims=True)
    return total / len(crops)


def rank(probabilities, label):
    return int(evaluation.rank_of_label(jnp.array([probabilities], jnp.float32), jnp.array([label], jnp.int32))[0])


@pytest.mark.parametrize(
    ("probabilities", "label", "expected"),
    [
        ([0.1, 0.5, 0.2, 0.2], 1, 0),
        ([0.1, 0.5, 0.2, 0.2], 0, 3),
        ([0.1, 0.5, 0.2, 0.2], 2, 1),  # of equals the lower class ranks first
        ([0.1, 0.5, 0.2, 0.2], 3, 2),
        ([0.25, 0.25, 0.25, 0.25], 0, 0),
        ([0.25, 0.25, 0.25, 0.25], 3, 3),
    ],
)
def test_rank_is_the_number_of_classes_before_the_true_one(probabilities, label, expected):
    assert rank(probabilities, label) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("classes", [3, 8])
def test_a_row_that_is_not_finite_is_wrong_for_every_label_and_both_errors(value, classes):
    row = np.full((1, classes), 0.1, np.float32)
    row[0, 1] = value
    for label in range(classes):
        errors = evaluation.update(evaluation.init(), jnp.array(row), labels=jnp.array([label]), mask=jnp.array([True]))
        assert errors == (1, 1, 1)


def test_with_five_classes_or_fewer_no_finite_row_is_a_top5_error():
    for classes in (2, 5):
        rows = jnp.array(np.random.default_rng(0).random((6, classes)), jnp.float32)
        labels, mask = jnp.arange(6, dtype=jnp.int32) % classes, jnp.ones(6, bool)
        errors = evaluation.update(evaluation.init(), rows, labels=labels, mask=mask)
        assert errors.top5 == 0 < errors.top1 and errors.count == 6


def test_the_sixth_of_six_classes_is_a_top5_error_and_the_fifth_is_not():
    rows = jnp.array([[0.3, 0.25, 0.2, 0.15, 0.07, 0.03]] * 2, jnp.float32)
    errors = evaluation.update(evaluation.init(), rows, labels=jnp.array([4, 5]), mask=jnp.ones(2, bool))
    assert errors == (2, 1, 2) and errors.shares() == errors.shares(num_classes=6) == {"top1": 1.0, "top5": 0.5}
    assert errors.shares(num_classes=5) == {"top1": 1.0}  # whatever was counted: it is no error of theirs


def test_masked_rows_count_for_nothing_and_counts_add_up():
    rows, labels = jnp.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], jnp.float32), jnp.array([0, 1, 1])
    once = evaluation.update(evaluation.init(), rows, labels=labels, mask=jnp.array([True, True, False]))
    assert once == (1, 0, 2)
    assert evaluation.update(once, rows, labels=labels, mask=jnp.array([False, True, True])) == (3, 0, 4)


def test_no_image_at_all_is_an_error():
    with pytest.raises(ValueError, match="count=0: no image was evaluated"):
        evaluation.init().shares()


@pytest.mark.parametrize("views", ["center", "ten"])
def test_probabilities_are_the_mean_of_the_views(views):
    stored, _, mean = data()
    found = evaluation.probabilities_of(parameters(), stored, mean, architecture=TABLE, views=views)
    np.testing.assert_allclose(found, views_by_hand(views), rtol=2e-4, atol=1e-6)


def test_ten_views_say_something_else_than_the_centre():
    assert np.abs(views_by_hand("ten") - views_by_hand("center")).max() > 0.01


def test_unknown_views_are_an_error_that_names_them():
    stored, _, mean = data()
    with pytest.raises(ValueError, match="views='five': one of 'center', 'ten'"):
        evaluation.probabilities_of(parameters(), stored, mean, architecture=TABLE, views="five")


@pytest.mark.parametrize("views", ["center", "ten"])
def test_the_whole_split_on_four_devices_is_the_count_by_hand_partial_batch_included(views):
    _, labels, mean = data()
    order = np.argsort(-views_by_hand(views), axis=1, kind="stable")
    wrong = int((order[:, 0] != labels).sum())
    evaluate = evaluation.make_evaluate(TABLE, mean, views=views)
    assert evaluate(parameters(), batches(8)) == (wrong, 0, COUNT)
    assert jax.local_device_count() == 4 and 0 < wrong < COUNT


def test_the_size_of_the_batches_does_not_matter():
    evaluate = evaluation.make_evaluate(TABLE, data()[2])
    assert evaluate(parameters(), batches(4)) == evaluate(parameters(), batches(20))


def test_a_network_that_broke_down_is_wrong_everywhere():
    params = jax.tree.map(np.array, parameters())
    params["fc8"]["bias"][0] = np.nan
    assert evaluation.make_evaluate(TABLE, data()[2])(params, batches(8)) == (COUNT, COUNT, COUNT)


OTHER = dataclasses.replace(TABLE, name="other").with_sizes(conv3=5)


def members(*tables):
    """(evaluate, parameters) of an ensemble of these tables."""
    mean = data()[2]
    evaluate = evaluation.make_evaluate_ensemble([evaluation.Member(table, mean) for table in tables], views="ten")
    return evaluate, [parameters() if table == TABLE else tiny_nets.params(table, 1) for table in tables]


def test_an_ensemble_of_one_or_of_equals_is_the_net_itself():
    one = evaluation.make_evaluate(TABLE, data()[2], views="ten")(parameters(), batches(8))
    for tables in [(TABLE,), (TABLE, TABLE)]:
        evaluate, _ = members(*tables)
        found = evaluate([parameters()] * len(tables), batches(8))
        assert found[:3] == (one, (one,) * len(tables), (0,) * len(tables))


def test_different_architectures_average_their_softmax_and_are_counted_alone_too():
    stored, labels, mean = data()
    evaluate, params = members(TABLE, OTHER)
    rows = [
        np.asarray(evaluation.probabilities_of(p, stored, mean, architecture=table, views="ten"), np.float64)
        for p, table in zip(params, (TABLE, OTHER), strict=True)
    ]
    wrong = [int((r.argmax(axis=1) != labels).sum()) for r in [(rows[0] + rows[1]) / 2, *rows]]
    found = evaluate(params, batches(8))
    assert [found.ensemble.top1, *(errors.top1 for errors in found.members)] == wrong
    assert len({tuple(r.argmax(axis=1)) for r in rows}) == 2  # the two nets do not say the same


def test_the_images_of_each_class_are_counted_without_those_that_fill_a_batch_up():
    _, labels, _ = data()
    counts = [int((labels == label).sum()) for label in range(5)]
    evaluate, params = members(TABLE)
    of_functions = evaluation.errors_of_functions([lambda x: jnp.zeros((len(x), 5))], batches(8))
    for found in (evaluate(params, batches(8)), of_functions):
        assert found.of_class.tolist() == counts and found.largest_class_share == max(counts) / COUNT


def test_members_that_cannot_be_averaged_are_refused():
    for tables in [(), (TABLE, TABLE.with_sizes(**{TABLE.layer_names[-1]: 9}))]:
        with pytest.raises(ValueError, match="at least one, all with the same number, are needed"):
            members(*tables)


def test_functions_that_are_sure_are_ranked_by_their_logits_and_by_the_mean_of_their_probabilities():
    """Probabilities of e^-200 and less are 0 in single precision, and a class may have the logit -inf."""
    logits = jnp.array([[0, -200, -300, -400, -500, -600, -700.0], [-jnp.inf, 0, -jnp.inf, 1, 2, 3, 4]])
    batch = {"image": logits, "label": np.array([6, 1], np.int32), "mask": np.array([True, True])}
    errors = evaluation.errors_of_functions([lambda x: x], [batch])
    assert errors.ensemble == errors.members[0] == (2, 1, 2)
    both = evaluation.errors_of_functions([lambda x: x, lambda x: jnp.zeros_like(x).at[:, 6].set(9)], [batch])
    assert both.members == (errors.members[0], (1, 0, 2)) and both.ensemble == (2, 0, 2)


@pytest.mark.parametrize("label", [-1, 5, 2**31 - 1])
def test_a_label_outside_the_logits_is_an_error_and_never_counts_as_right(label):
    rows, labels = jnp.full((2, 5), 0.2), np.array([0, label], np.int32)
    for call in (
        lambda: evaluation.rank_of_label(rows, labels),
        lambda: evaluation.update(evaluation.init(), rows, labels=labels, mask=np.array([True, True])),
        lambda: evaluation.errors_of_functions(
            [lambda x: x], [{"image": rows, "label": labels, "mask": np.array([True, True])}]
        ),
        lambda: evaluation.make_evaluate(TABLE, data()[2])(
            parameters(), [{"image": data()[0][:2], "label": labels, "mask": np.array([True, True])}]
        ),
    ):
        with pytest.raises(UserError, match=f"labels hold {label}: 0 to 4 is needed"):
            call()
    ranks = jax.jit(evaluation.rank_of_label)(rows, labels)
    assert ranks.tolist() == [0, 5]  # under jit, where no error can be raised, it is wrong
    padded = evaluation.update(evaluation.init(), rows, labels=labels, mask=np.array([True, False]))
    assert (padded.top1, padded.count) == (0, 1)
