"""Networks that bear no claim out, as filters of noise and networks that differ by chance alone, decide nothing."""

import collections
import dataclasses
import functools

import numpy as np
import pytest

from experiments import null_claims
from experiments.report import figures, nulls, statistics, tables, transfer, verdicts
from experiments.report.figures import CLAIMS
from zfjax.data import demo

SEEDS = 100


def shares(claim, make, num=SEEDS):
    """{verdict: share of the seeds} of the rule alone."""
    verdicts = collections.Counter(claim.judge(make(seed)).verdict for seed in range(num))
    return {verdict: count / num for verdict, count in verdicts.items()}


@functools.cache
def first_layers(seed):
    return null_claims.first_layers(seed, num_filters=24)


variants = functools.cache(null_claims.variants)


FIRST_LAYER = (
    figures.renormalisation_tames,
    figures.fewer_dead_filters,
    figures.more_middle_frequencies,
    figures.less_aliasing,
)


@pytest.mark.parametrize("claim", FIRST_LAYER, ids=lambda claim: claim.judge.__name__)
def test_white_noise_of_7x7_and_of_11x11_decides_nothing(claim):
    found = shares(claim, first_layers, num=20)
    assert found.get("holds", 0) <= 0.15 and found.get("does not hold", 0) <= 0.15


@pytest.mark.parametrize("words", null_claims.SMOOTH)
def test_filters_of_smooth_noise_are_less_aliased_by_the_stride_alone(words):
    """What decides is that noise is no less so at the smaller stride where it stands for AlexNet's filters."""
    results = [null_claims.SMOOTH[words](seed) for seed in range(6)]
    assert {figures.less_aliasing.judge(result).verdict for result in results} == {"not shown"}
    for result in results:
        del result["nets"]["alexnet"]["on_finer_grid"]
    because = {figures.less_aliasing.judge(result).because for result in results}
    assert "AlexNet's filters were not read at the smaller stride" in because  # all else would hold


@pytest.mark.parametrize("claim", tables.ARCHITECTURES, ids=lambda claim: claim.judge.__name__)
def test_variants_that_err_alike_decide_nothing(claim):
    """What costs a few points at most is told only by networks whose seeds are as near to each other as the paper's."""
    is_told_by_points = claim.judge.__name__ in null_claims.AS_THE_PAPERS
    assert claim.needs == verdicts.COMPARED_IMAGENET or not is_told_by_points
    found = shares(claim, functools.partial(variants, spread=0.0) if is_told_by_points else variants)
    assert found.get("holds", 0) <= 0.15 and found.get("does not hold", 0) <= 0.15


@pytest.mark.parametrize("size", [{"num_layers": 1}, {"num_layers": 5}, {"num_maps": 4}], ids=str)
def test_jumps_at_other_epochs_than_the_images_changes_decide_nothing(size):
    found = shares(figures.jumps_come_from_other_images, functools.partial(null_claims.jumps, **size), num=50)
    assert found.get("holds", 0) <= 0.1 and found.get("does not hold", 0) <= 0.1


def test_layers_that_are_alike_do_not_rise():
    found = shares(transfer.higher_layers_are_better, null_claims.layers)
    assert found.get("holds", 0) == 0 and found.get("does not hold", 0) <= 0.15


def test_arms_that_are_alike_decide_nothing():
    for claim in (
        transfer.pretrained_beats_scratch_on_101,
        transfer.pretrained_beats_earlier_on_256,
        transfer.few_images_suffice,  # at the number that it is held against
    ):
        found = shares(claim, null_claims.arms)
        assert found.get("holds", 0) <= 0.1 and found.get("does not hold", 0) <= 0.15, claim.judge.__name__


def test_networks_that_guess_err_alike_in_table_2():
    for claim in tables.ERRORS:
        assert shares(claim, null_claims.evaluated).get("holds", 0) <= 0.15


def test_what_is_as_far_apart_as_is_not_alike_is_not_alike():
    for claim in (transfer.top_layer_is_as_good, transfer.classifiers_agree):
        assert shares(claim, null_claims.apart).get("holds", 0) <= 0.1


def test_classifiers_that_guess_are_not_called_alike():
    for claim in (transfer.top_layer_is_as_good, transfer.classifiers_agree):
        assert shares(claim, null_claims.guesses).get("holds", 0) <= 0.1


@pytest.mark.parametrize("num_test", [25, 300, 5100])
def test_two_single_folds_that_are_alike_differ_as_rarely_as_a_test_would_have_it(num_test):
    rng = np.random.default_rng(0)
    chances = rng.normal(60, statistics.FOLD_SPREAD, (2000, 2)) / 100
    folds = 100 * rng.binomial(num_test, chances) / num_test
    spreads = [2**0.5 * statistics.fold_spread(both, num_test) for both in folds]
    outcomes = [statistics.over_folds([a - b], 1.0, assumed=of) for (a, b), of in zip(folds, spreads, strict=True)]
    assert 0.03 < np.mean([of.p < statistics.ALPHA for of in outcomes]) < 0.07
    assert 0.03 < np.mean([of.against < statistics.ALPHA for of in outcomes]) < 0.07


@pytest.mark.parametrize("spread", [1.7, 3.0])
@pytest.mark.parametrize(("num_classes", "per_class"), [(5, 5), (20, 15), (102, 50)])
def test_arms_and_layers_of_one_fold_that_are_alike_decide_nothing(num_classes, per_class, spread):
    of = {"num_classes": num_classes, "per_class": per_class, "spread": spread}
    for claim, make in (
        (transfer.pretrained_beats_scratch_on_101, null_claims.arms_of_one_fold),
        (transfer.higher_layers_are_better, null_claims.layers_of_one_fold),
    ):
        found = shares(claim, functools.partial(make, **of), num=500)
        assert found.get("holds", 0) <= 0.1 and found.get("does not hold", 0) <= 0.1, claim.judge.__name__


def test_an_untrained_network_holds_nothing_beside_a_training_that_got_nowhere():
    for claim in (transfer.pretrained_beats_scratch_on_101, transfer.pretrained_beats_scratch_on_256):
        found = shares(claim, null_claims.never_trained)
        assert found.get("holds", 0) <= 0.05 and found.get("does not hold", 0) == 0


def test_several_comparisons_of_one_fold_refute_no_more_often_than_one():
    found = shares(transfer.pretrained_beats_scratch_on_256, null_claims.four_sizes, num=300)
    assert found.get("holds", 0) == 0 and found["does not hold"] <= 0.07


@pytest.mark.parametrize("rise", [0.5, 1.0])
def test_layers_that_rise_by_little_are_not_refuted_by_one_fold(rise):
    make = functools.partial(null_claims.layers_of_one_fold, num_classes=102, per_class=50, spread=1.7, rise=rise)
    assert shares(transfer.higher_layers_are_better, make, num=300).get("does not hold", 0) <= 0.02


def test_guesses_pass_for_what_was_learnt_no_more_often_than_a_test_would_have_it():
    found = np.random.default_rng(0).binomial(250, 1 / 5, 2000) / 250
    passed = [statistics.p_of_guessing(100 * share, num_classes=5, num_test=250) < statistics.ALPHA for share in found]
    assert 0.02 < np.mean(passed) < 0.06


@pytest.mark.parametrize("per_class", [[31] * 40 + [40] * 30 + [80] * 25 + [800] * 7, [31] * 100 + [800] * 2])
def test_neither_do_guesses_of_classes_of_unlike_sizes(per_class):
    """As those of Caltech-101: the mean over classes spreads as that of fewer images, evenly spread, does."""
    rng, chance = np.random.default_rng(0), 1 / len(per_class)
    tested_on = [min(50, num - 30) for num in per_class]
    learnt = {"arm": "pretrained", "num_train": 30, "folds": [90.0], "mean": 90.0}
    passed = []
    for _ in range(500):
        percent = 100 * float(np.mean(rng.binomial(tested_on, chance) / tested_on))
        guessed = {"arm": "scratch", "num_train": 30, "folds": [percent], "mean": percent}
        result = {
            "rows": [learnt, guessed, {**guessed, "arm": "untrained"}],
            "paper": {"best earlier": {}},
            "num_classes": len(per_class),
            "num_images": sum(per_class),
            "photos_per_class": per_class,
        }
        passed.append(transfer.pretrained_beats_scratch_on_101.judge(result).verdict == "holds")
    assert np.mean(passed) < 0.06


def test_no_rule_holds_for_more_than_a_tenth_of_one_of_its_nulls():
    """By itself: that a network was trained, and on what, is asked besides."""
    for name, of_claim in nulls.stored().items():
        for null in of_claim:
            assert null["verdicts"]["holds"] <= 0.1 * sum(null["verdicts"].values()), (name, null)


def test_every_claim_but_two_has_a_stored_null():
    """Figure 3's sizes and VOC's accuracy have none."""
    without = {claim.judge.__name__ for claim in CLAIMS} - set(nulls.stored())
    assert without == {"geometry", "average_precision"}
    assert nulls.words("geometry") == "no null is measured"


@pytest.mark.parametrize(("epochs", "tables"), [(5.0, 0), (10.0, 2)])
def test_seeds_are_nulls_of_the_claims_whose_precondition_they_meet(epochs, tables, monkeypatch, tmp_path):
    data = demo.demo_set(null_claims.PICTURE, 4, 4)
    opened = [null_claims.untrained_net(seed, data, tmp_path / str(seed)) for seed in range(2)]
    known = {"num_classes": 1_000, "num_images": 1_000_000, "epochs": epochs, "width": 1.0}
    runs = {str(n): dataclasses.replace(net, training=known) for n, net in enumerate(opened)}
    measured = {net.name: n for n, net in enumerate(runs.values())}
    monkeypatch.setattr(null_claims.nets, "load_net", runs.get)
    monkeypatch.setattr(null_claims, "filters_of", lambda net: first_layers(measured[net.name])["nets"]["clipped"])
    monkeypatch.setattr(null_claims, "error_of", lambda net: (0.5 + 0.1 * measured[net.name], 2_000))
    counted = dict(null_claims.alike(null_claims.Config(nets=("0", "1"))))
    assert set(counted) >= {claim.judge.__name__ for claim in FIRST_LAYER}
    assert len(counted) == len(FIRST_LAYER) + tables


@pytest.mark.slow
def test_the_command_counts_the_verdicts_of_every_null(tmp_path):
    config = null_claims.Config(out=tmp_path / "nulls", num_simulated=2, num_untrained=1, num_images=24)
    made = null_claims.run(config)
    assert set(made["claims"]) == set(nulls.stored())
    assert {sum(null["verdicts"].values()) for of in made["claims"].values() for null in of} == {1, 2}
