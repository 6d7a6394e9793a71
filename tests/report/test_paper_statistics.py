"""The tests behind the verdicts: closed forms, both sides, and what cannot be tested."""

import numpy as np
import pytest
import scipy.stats

from experiments.report import statistics, verdicts
from experiments.report.statistics import Outcome


def test_paired_differences_are_tested_by_all_sign_flips():
    outcome = statistics.paired([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (outcome.p, outcome.against) == (1 / 32, 1.0)
    assert statistics.paired([3.0, -1.0, 1.0]).p == 3 / 8  # of the sums +-3 +-1 +-1 one is 5, two are 3
    assert statistics.paired([0.0] * 6) == Outcome(1.0, 1.0)
    assert statistics.paired([2.0]).why == "fewer than two images"
    assert statistics.paired([]).p is None and statistics.paired([1.0, np.nan]).p is None


def test_folds_are_tested_with_the_correction_for_shared_images():
    differences = np.array([2.0, 3.0, 1.0, 2.5, 1.5])
    plain, corrected = (statistics.over_folds(differences, ratio, assumed=None) for ratio in (0.0, 50 / 15))
    assert plain.p == pytest.approx(scipy.stats.ttest_1samp(differences, 0, alternative="greater").pvalue)
    t = 2.0 / (differences.std(ddof=1) * np.sqrt(1 / 5 + 50 / 15))
    assert corrected.p == pytest.approx(scipy.stats.t.sf(t, 4)) and corrected.p > plain.p
    assert corrected.p + corrected.against == pytest.approx(1)


def of_one(points, assumed=2.0, **more):
    return statistics.over_folds([points], 1.0, assumed=assumed, **more)


def test_one_fold_is_tested_by_the_spread_that_is_assumed():
    outcome = of_one(3.0, assumed=1.5)
    assert (outcome.p, outcome.against) == pytest.approx((scipy.stats.norm.sf(2), scipy.stats.norm.cdf(2)))
    assert of_one(3.0, assumed=None) == statistics.untested("one fold, and the number of test images is missing")
    words = [verdicts.tested("", of_one(points)).words for points in (3.3, 3.28, -3.28, -3.3)]
    assert words == [
        "holds (p = 0.049; one fold: an assumed spread)",
        "not shown (p = 0.051; one fold: an assumed spread)",
        "not shown (p = 0.95; one fold: an assumed spread)",
        "does not hold (the contrary: p = 0.049; one fold: an assumed spread)",
    ]


def test_a_margin_shifts_what_the_folds_are_tested_for():
    differences = np.array([2.0, 3.0, 1.0])
    shifted = statistics.over_folds(differences - 2, 1.0, assumed=None, margin=2.0)
    assert shifted == pytest.approx(statistics.over_folds(differences, 1.0, assumed=None))
    assert of_one(1.0, margin=4.0) == of_one(5.0) and of_one(-5.0, margin=4.0) == of_one(-1.0)


def test_folds_without_spread_are_tested_as_one():
    for mean in (4.1, -4.1):
        outcome = statistics.over_folds([mean, mean + 1e-12], 1.0, assumed=2.0)
        assert outcome[:2] == pytest.approx(of_one(mean)[:2])
        assert outcome.why == "no spread over the folds: an assumed spread"
    assert statistics.over_folds([4.0, 4.1], 1.0, assumed=2.0).why == ""
    assert statistics.over_folds([], 1.0, assumed=2.0).why == "accuracies of single folds are missing"
    assert statistics.over_folds([np.nan, 1.0], 1.0, assumed=2.0).p is None


def test_the_spread_of_one_fold_is_that_of_folds_and_of_its_test_images():
    assert statistics.fold_spread([50.0], 10**9) == pytest.approx(3.0)
    assert statistics.fold_spread([50.0], 98) == pytest.approx(np.hypot(3, 5))
    assert statistics.fold_spread([40.0, 80.0], 98) == pytest.approx(np.hypot(3, 100 * (0.598 * 0.402 / 100) ** 0.5))
    of_all, of_none = (statistics.fold_spread([accuracy], 25) for accuracy in (100.0, 0.0))
    assert of_all == pytest.approx(of_none) and of_all > 4


def test_guesses_are_binomial():
    expected = scipy.stats.binomtest(30, 100, 0.2, alternative="greater").pvalue
    assert statistics.p_of_guessing(30.0, num_classes=5, num_test=100) == pytest.approx(expected)
    assert statistics.p_of_guessing(30.9, num_classes=5, num_test=100) == pytest.approx(expected)
    for hits in range(1, 5101):  # also where hits / 5100 * 5100 is rounded down
        p = statistics.p_of_guessing(100 * hits / 5100, num_classes=102, num_test=5100)
        assert p == scipy.stats.binom.sf(hits - 1, 5100, 1 / 102)
    assert statistics.p_of_guessing(0.0, num_classes=5, num_test=100) == 1
    of_one_class = statistics.p_of_guessing(30.0, num_classes=5, num_test=100, largest_share=0.3)
    assert of_one_class == scipy.stats.binom.sf(29, 100, 0.3) > 0.5


def test_shares_are_compared_with_one_more_hit_and_miss_in_each():
    first, second = 31 / 102, 51 / 102
    z = (second - first) / np.sqrt((first * (1 - first) + second * (1 - second)) / 102)
    assert statistics.smaller(0.3, 0.5, num=100).p == pytest.approx(scipy.stats.norm.sf(z))
    assert statistics.smaller(0.5, 0.3, num=100).against == pytest.approx(scipy.stats.norm.sf(z))
    assert statistics.smaller(0.0, 1.0, num=1).p > 0.05  # one image decides nothing
    assert statistics.smaller(0.1, 0.5, num=0).why == "the number of images is missing"


@pytest.mark.parametrize("num", [2, 3, 5, 10, 30, 100])
def test_equal_shares_are_rarely_told_apart_however_few_the_cases(num):
    hits = np.arange(num + 1)
    told = np.array([[statistics.smaller(a / num, b / num, num=num).p < statistics.ALPHA for b in hits] for a in hits])
    chances = [scipy.stats.binom.pmf(hits, num, share) for share in np.linspace(0.01, 0.99, 99)]
    assert max(chance @ told @ chance for chance in chances) < 0.06


def test_a_weighted_sum_of_shares_is_tested_by_its_own_spread():
    shares, weights = (np.array([0.5, 0.4, 0.8]) * 98 + 1) / 100, np.array([1.0, -0.75, -0.25])
    z = (weights @ shares) / np.sqrt(np.sum(weights**2 * shares * (1 - shares)) / 100)
    outcome = statistics.below_zero([(0.5, 1.0), (0.4, -0.75), (0.8, -0.25)], 98)
    assert (outcome.p, outcome.against) == pytest.approx((scipy.stats.norm.cdf(z), scipy.stats.norm.sf(z)))


def test_pairs_lie_above_a_margin_and_the_contrary_below_its_negative():
    for by, expected in ((0.31, (1 / 32, 1)), (0.29, (1, 1)), (-0.29, (1, 1)), (-0.31, (1, 1 / 32))):
        outcome = statistics.paired([by] * 5, margin=0.3)
        assert (outcome.p, outcome.against) == expected


def test_most_pairs_lie_above_zero_whatever_their_size():
    assert statistics.mostly([1e-9] * 5) == Outcome(1 / 32, 1.0)
    assert statistics.mostly([-1e-9] * 5) == Outcome(1.0, 1 / 32)
    assert statistics.mostly([0.07] * 9 + [-0.9]) == Outcome(11 / 1024, 1023 / 1024)  # though their mean is below 0
    assert statistics.mostly([1.0] * 5 + [0.0]) == Outcome(7 / 64, 1.0)  # five of six
    assert statistics.mostly([0.0] * 9) == Outcome(1.0, 1.0)
    assert statistics.mostly([1.0]).why == "fewer than two images"
    assert statistics.mostly([]).p is None and statistics.mostly([1.0, np.nan]).p is None


def test_values_half_of_which_lie_above_zero_rarely_pass_for_most():
    draws = np.random.default_rng(0).random((400, 5)) < 0.5
    shares = [statistics.mostly(np.where(of, 0.07, -0.9)).p < statistics.ALPHA for of in draws]
    assert np.mean(shares) < 0.06  # half of them lie above: 1 / 32


def test_a_fall_is_tested_over_all_orders():
    assert statistics.falling([4, 3, 2, 1]).p == pytest.approx(1 / 24)
    assert statistics.falling([1, 2, 3, 4]).against == pytest.approx(1 / 24)
    assert statistics.falling([1, 1, 1]).p is None and statistics.falling([1]).p is None


def test_of_several_all_must_hold_and_any_refutes_by_bonferroni():
    outcome = statistics.every([Outcome(0.01, 0.99), Outcome(0.04, 0.96)])
    assert outcome == Outcome(0.04, 1.0)
    assert statistics.every([Outcome(0.97, 0.03), Outcome(0.01, 0.99)]).against == pytest.approx(0.06)
    assert statistics.every([Outcome(0.01, 0.99), statistics.untested("gone")]).why == "gone"
    assert np.isnan(statistics.every([Outcome(0.01, 0.99), Outcome(np.nan, np.nan)]).p)
    assert statistics.every([]) == Outcome(None, None, "nothing to test")


def test_a_comparison_that_refutes_wins_over_one_that_cannot_be_tested():
    gone, worse = statistics.untested("gone"), Outcome(0.99, 0.01)
    for tests in ([gone, worse], [worse, gone]):
        assert verdicts.tested("", statistics.every(tests)).words == "does not hold (the contrary: p = 0.01)"
    assert statistics.every([gone, Outcome(0.9, 0.1)]) == gone
    assert statistics.every([Outcome(np.nan, np.nan), worse]).against == 0.01


def test_of_several_tests_the_one_that_decides_tells_what_it_assumes():
    more, less, between = (of_one(points) for points in (9.0, -9.0, 0.0))
    words = [
        verdicts.tested("", statistics.every(tests)).words
        for tests in ([more, Outcome(0.01, 0.99)], [less, Outcome(0.01, 0.99)], [more, Outcome(0.99, 0.01)])
    ]
    assert words == [
        "holds (p = 0.01)",
        "does not hold (the contrary: p < 0.0001; one fold: an assumed spread)",
        "does not hold (the contrary: p = 0.02)",
    ]
    open_beside_refuted = statistics.every([between, Outcome(0.99, 0.01)])
    assert verdicts.tested("", open_beside_refuted).words == "does not hold (the contrary: p = 0.02)"
    assert statistics.every([Outcome(1.0, 0.5, "more"), Outcome(0.99, 0.01, "less")]).why == "less"
    assert statistics.every([between, Outcome(0.3, 0.7)]).why == "one fold: an assumed spread"


def test_a_stored_permutation_p_value_refutes_only_by_that_of_the_contrary():
    assert statistics.permuted(1.0) == Outcome(1.0, 1.0)
    assert statistics.permuted(0.99, 0.02) == Outcome(0.99, 0.02)
    assert verdicts.tested("", statistics.permuted(None)).verdict == "not shown"


@pytest.mark.parametrize(
    ("outcome", "verdict", "because"),
    [
        (Outcome(0.049, 0.951), "holds", "p = 0.049"),
        (Outcome(1e-9, 1.0), "holds", "p < 0.0001"),
        (Outcome(0.951, 0.049), "does not hold", "the contrary: p = 0.049"),
        (Outcome(0.3, 0.7), "not shown", "p = 0.3"),
        (Outcome(None, None, "one fold"), "not shown", "one fold"),
        (Outcome(np.nan, np.nan), "not shown", "no p-value"),
    ],
)
def test_only_a_rejection_gives_a_verdict(outcome, verdict, because):
    finding = verdicts.tested("ours", outcome)
    assert finding == ("ours", verdict, because) and finding.words == f"{verdict} ({because})"


def test_bounds_decide_where_there_is_no_spread():
    words = [verdicts.bounded("", value, holds_from=0.1, fails_to=0.0).verdict for value in (0.1, 0.05, 0.0, np.nan)]
    assert words == ["holds", "not shown", "does not hold", "not shown"]
    assert verdicts.bounded("", 1.0, holds_from=0.1, fails_to=0.0).words == "holds"


def test_an_interval_of_all_cases_is_no_point():
    low, high = statistics.interval(1.0, 10)
    assert (low, high) == pytest.approx((1 / (1 + scipy.stats.norm.ppf(0.975) ** 2 / 10), 1.0))
    assert statistics.interval(0.0, 10)[1] == pytest.approx(1 - low)


def test_an_interval_is_wilsons_of_scipy():
    for hits, num in ((1, 3), (7, 40), (39, 40)):
        expected = scipy.stats.binomtest(hits, num).proportion_ci(0.95, method="wilson")
        assert statistics.interval(hits / num, num) == pytest.approx((expected.low, expected.high))
    assert statistics.with_interval(0.5, 10) == "50.0% (23.7% to 76.3%)" and statistics.with_interval(0.5, 0) == "50.0%"


@pytest.mark.parametrize(("off", "verdict"), [(0.0, True), (1e-10, True), (1e-6, False)])
def test_a_bound_is_reached_but_for_rounding(off, verdict):
    """.3 - .2 is below .1 by rounding."""
    assert verdicts.reaches(0.1 - off, 0.1) is verdict and verdicts.reaches(0.3 - 0.2, 0.1)
    bounds = {"holds_from": 0.1, "fails_to": -0.2}
    assert (verdicts.bounded("", 0.1 - off, **bounds).verdict == verdicts.HOLDS) is verdict
    assert (verdicts.bounded("", -0.2 + off, **bounds).verdict == verdicts.FAILS) is verdict
