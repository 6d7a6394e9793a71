"""The tests behind the verdicts: of pairs, of folds, of shares, of an order.

Each test has a p-value for a claim and one for its contrary. A test that does not reject refutes nothing: hence two
one-sided p-values. Tests over images say how sure we are of these networks, not of others trained from another seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # its submodules load at their first use: stats alone takes half a second

ALPHA = 0.05  # a p-value below this decides
TINY_SPREAD = 1e-9  # percent: rounding
NUM_RESAMPLES = 9_999  # of sign flips, where there are more than that
# Points of accuracy: the largest standard deviation over five folds that was measured, by our nets from scratch on
# Caltech-101. The paper prints 1.7 at most (Table 4).
FOLD_SPREAD = 3.0
# Share of images: the standard deviation over seeds of the error of one recipe, by one pair: two of ours differ by 1.8
# points.
SEED_SPREAD = 0.018 / 2**0.5
SINGLE_IMAGES = "values of single images are missing"


class Outcome(NamedTuple):
    """What a test says; both p-values are None (or NaN) where nothing can be tested."""

    p: float | None  # one-sided, in the claim's direction
    against: float | None  # one-sided, in the other direction
    why: str = ""  # nothing can be tested, or what the test assumes


def untested(why: str) -> Outcome:
    """No test, and the reason."""
    return Outcome(None, None, why)


def every(tests: Sequence[Outcome]) -> Outcome:
    """All of them: the largest p-value; for the contrary of any, the smallest times their number (Bonferroni).

    One that refutes decides, whatever cannot be tested beside it.
    """
    known: list[tuple[Any, Any, str]] = [(test.p, test.against, test.why) for test in tests if _is_known(test)]
    if known:
        p, _, why = max(known)
        _, smallest, refutes = min(known, key=lambda test: test[1])
        against = min(1.0, len(known) * smallest)
        if against < ALPHA:
            return Outcome(p, against, refutes)
        if len(known) == len(tests):
            return Outcome(p, against, why)
    return next((test for test in tests if not _is_known(test)), untested("nothing to test"))


def paired(differences: Sequence[float], *, margin: float = 0.0) -> Outcome:
    """Whether differences of pairs lie above a margin: sign-flip permutation test of their mean, exact for up to 13.

    The contrary is that they lie below -margin.

    Args:
      differences: one for each image, in the claim's direction.
      margin: 0 or more, what they may come to by chance, in all images alike.
    """
    values = np.asarray(differences, np.float64)
    if not values.size or not np.isfinite(values).all():
        return untested(SINGLE_IMAGES)
    if len(values) < 2:
        return untested("fewer than two images")
    options = {"permutation_type": "samples", "n_resamples": NUM_RESAMPLES, "vectorized": True}
    p, against = (
        scipy.stats.permutation_test((beyond,), np.mean, alternative=side, rng=np.random.default_rng(0), **options)
        for side, beyond in (("greater", values - margin), ("less", values + margin))
    )
    return Outcome(float(p.pvalue), float(against.pvalue))


def mostly(differences: Sequence[float]) -> Outcome:
    """Whether most differences lie above 0: exact sign test, whatever their distribution.

    The contrary is that most lie below 0. Those of 0 stand on neither side, and count among all.

    Args:
      differences: one for each image, in the claim's direction.
    """
    values = np.asarray(differences, np.float64)
    if not values.size or not np.isfinite(values).all():
        return untested(SINGLE_IMAGES)
    if len(values) < 2:
        return untested("fewer than two images")
    p, against = (
        scipy.stats.binomtest(int(side.sum()), len(values), alternative="greater").pvalue
        for side in (values > 0, values < 0)
    )
    return Outcome(float(p), float(against))


def unpaired(values: Sequence[float], others: Sequence[float], *, margin: float = 0.0) -> Outcome:
    """Whether the mean of some values is above that of others by more than a margin: Welch's t-test.

    The contrary is that it is below it by more than the margin.
    """
    both = [np.asarray(some, np.float64) for some in (values, others)]
    if any(len(some) < 2 or not np.isfinite(some).all() for some in both):
        return untested("values of single filters are missing")
    if all(np.ptp(some) == 0 for some in both):
        return untested("no spread over the filters to test by")
    p, against = (
        float(scipy.stats.ttest_ind(both[0] - beyond, both[1], equal_var=False, alternative=side).pvalue)
        for side, beyond in (("greater", margin), ("less", -margin))
    )
    return Outcome(p, against)


def over_folds(
    differences: Sequence[float], test_over_train: float, *, assumed: float | None, margin: float = 0.0
) -> Outcome:
    """Whether differences over folds lie above -margin: t-test with the correction of Nadeau and Bengio (2003).

    Folds share images, so their variance / J is too small; in its place stands (1 / J + test_over_train) variance, with
    J - 1 degrees of freedom. Where there is no variance, as of one fold, a z-test of the mean takes the standard
    deviation that is assumed. The contrary is that they lie below -margin.

    Args:
      differences: percent, one for each of J folds, in the claim's direction.
      test_over_train: number of test images over that of training images; a larger one is on the safe side.
      assumed: percent, the standard deviation of the difference of one fold, see `fold_spread`; None: not known.
      margin: percent, how far below 0 they may lie.
    """
    values = np.asarray(differences, np.float64)
    if not values.size or not np.isfinite(values).all():
        return untested("accuracies of single folds are missing")
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if spread < TINY_SPREAD:
        what = "one fold" if len(values) == 1 else "no spread over the folds"
        if assumed is None:
            return untested(f"{what}, and the number of test images is missing")
        z = (float(values.mean()) + margin) / assumed
        return Outcome(float(scipy.stats.norm.sf(z)), float(scipy.stats.norm.cdf(z)), f"{what}: an assumed spread")
    t = (float(values.mean()) + margin) / (spread * (1 / len(values) + test_over_train) ** 0.5)
    p, against = (float(tail(t, len(values) - 1)) for tail in (scipy.stats.t.sf, scipy.stats.t.cdf))
    return Outcome(p, against)


def fold_spread(accuracies: Sequence[float], num_test: int) -> float:
    """Standard deviation to assume of the accuracy of one fold, in percent.

    sqrt(`FOLD_SPREAD`^2 + binomial variance of the test images), that of the mean accuracy with one more hit and miss
    (Agresti).

    Args:
      accuracies: percent.
      num_test: test images of one fold, 1 or more.
    """
    share = (float(np.mean(accuracies)) / 100 * num_test + 1) / (num_test + 2)
    return float(np.hypot(FOLD_SPREAD, 100 * (share * (1 - share) / (num_test + 2)) ** 0.5))


def p_of_guessing(accuracy: float, *, num_classes: int, num_test: int, largest_share: float | None = None) -> float:
    """How often guesses find as many test images or more: exact binomial test.

    Args:
      accuracy: percent; of several folds their mean.
      num_classes: each guessed as often.
      num_test: test images of one fold. Folds share images, so those of several are not added up.
      largest_share: share of the test images that are of the most frequent class, which then is every guess; None where
        it is not known, or does not matter, as for a mean over classes.
    """
    hits = np.floor(accuracy / 100 * num_test + TINY_SPREAD)
    return float(scipy.stats.binom.sf(hits - 1, num_test, largest_share or 1 / num_classes))


def smaller(share: float, other: float, *, num: int, num_other: int | None = None, spread: float = 0.0) -> Outcome:
    """Whether a share of `num` cases is smaller than another of `num_other` (by default as many): see `below_zero`."""
    return below_zero([(share, 1.0), (other, -1.0)], num, num_other, spread=spread)


def below_zero(
    terms: Sequence[tuple[float, float]], num: int, num_other: int | None = None, *, spread: float = 0.0
) -> Outcome:
    """Whether a sum of weighted shares lies below 0: two-proportion test, one more hit and miss in each (Agresti).

    Shares of the same images are taken for those of different ones, as which images both hit is not stored: on the safe
    side where what is hard for one network is hard for the other.

    Args:
      terms: (share, weight), each share once.
      num, num_other: cases of the first share, and of each other one (by default as many).
      spread: standard deviation of each share by what the cases do not tell, as the seed of a training.
    """
    if not num or not (num_other or num):
        return untested("the number of images is missing")
    sizes = np.array([num, *[num_other or num] * (len(terms) - 1)], np.float64)
    shares, weights = np.array(terms, np.float64).T
    pulled = (shares * sizes + 1) / (sizes + 2)
    error = np.sqrt(np.sum(weights**2 * (pulled * (1 - pulled) / (sizes + 2) + spread**2)))
    z = -np.sum(weights * pulled) / error
    return Outcome(float(scipy.stats.norm.sf(z)), float(scipy.stats.norm.cdf(z)))


def interval(share: float, num: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `num` cases: also of all or none of them it is no point.

    Of a mean of shares, one of each case, it is too wide rather than too narrow.
    """
    z = float(scipy.stats.norm.ppf(0.975))
    middle, pulled = (share + z**2 / (2 * num)), 1 + z**2 / num
    half = z * (share * (1 - share) / num + z**2 / (4 * num**2)) ** 0.5
    return max(0.0, (middle - half) / pulled), min(1.0, (middle + half) / pulled)


def with_interval(share: float, num: int) -> str:
    """A share of `num` cases in words, with its `interval`: "50.0% (18.8% to 81.2%)"; alone where there are none."""
    if num < 1:
        return f"{share:.1%}"
    low, high = interval(share, num)
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def permuted(p: float | None, contrary: float | None = None) -> Outcome:
    """What a stored one-sided p-value says, and that of the contrary; without that nothing is refuted.

    With ties 1 - p is not the contrary's.
    """
    return Outcome(p, 1.0 if contrary is None else contrary)


def falling(values: Sequence[float]) -> Outcome:
    """Whether values fall along their order: Kendall's rank correlation, exact where no two are equal."""
    if len(values) < 2:
        return untested("fewer than two layers")
    sides = (
        scipy.stats.kendalltau(range(len(values)), values, alternative=side).pvalue for side in ("less", "greater")
    )
    p, against = map(float, sides)
    return untested("all values are the same") if np.isnan(p) else Outcome(p, against)


def _is_known(test: Outcome) -> bool:
    return test.p is not None and test.against is not None and not np.isnan(test.p)
