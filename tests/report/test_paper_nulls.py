"""Networks that bear no claim out, as filters of noise and networks that differ by chance alone, decide nothing."""

import collections
import functools

import numpy as np
import pytest

from experiments.report import figures, tables, transfer
from zfjax.analyses import filters

SEEDS = 20


def shares(claim, make):
    """{verdict: share of the seeds} of the rule alone."""
    verdicts = collections.Counter(claim.judge(make(seed)).verdict for seed in range(SEEDS))
    return {verdict: count / SEEDS for verdict, count in verdicts.items()}


def noise(rng, *, side, stride, num=24):
    kernel = rng.normal(size=(side, side, 3, num)).astype(np.float32)
    return filters.measure(filters.Bottom("noise", ("conv1",), kernel, np.ones(num, bool), stride, None))


@functools.cache
def first_layers(seed):
    rng = np.random.default_rng(seed)
    roles = {"clipped": (7, 2), "unclipped": (7, 2), "alexnet": (11, 4)}
    nets = {role: noise(rng, side=side, stride=stride) for role, (side, stride) in roles.items()}
    return {"nets": nets, "renormalisation_acted": True}


FIRST_LAYER = (
    figures.renormalisation_tames,
    figures.fewer_dead_filters,
    figures.more_middle_frequencies,
    figures.less_aliasing,
)


@pytest.mark.parametrize("claim", FIRST_LAYER, ids=lambda claim: claim.judge.__name__)
def test_white_noise_of_7x7_and_of_11x11_decides_nothing(claim):
    found = shares(claim, first_layers)
    assert found.get("holds", 0) <= 0.15 and found.get("does not hold", 0) <= 0.15


def errors(seed, num=2000, share=0.9):
    """Table 3 of networks that all guess among ten classes."""
    rng = np.random.default_rng(seed)
    names = {"alexnet", "zfnet", tables.SHALLOW, "alexnet, no conv3,4", "alexnet, no fc6,7", "zfnet, both"}
    names |= {f"{net}, fc6,7 of {size}" for net in ("alexnet", "zfnet") for size in (2048, 8192)}
    names |= {f"zfnet, {transfer.WIDE}"}
    rows = [{"name": n, "error": {"validation": {"top1": rng.binomial(num, share) / num}}} for n in sorted(names)]
    return {"rows": rows, "num_images": num}


@pytest.mark.parametrize("claim", tables.ARCHITECTURES[:-1], ids=lambda claim: claim.judge.__name__)
def test_variants_that_guess_decide_nothing(claim):
    found = shares(claim, errors)
    assert found.get("holds", 0) <= 0.15 and found.get("does not hold", 0) <= 0.15


def layers(seed):
    """Table 7 of layers that are alike: folds share what is hard in them."""
    rng = np.random.default_rng(seed)
    of_folds = rng.normal(30, 1, 5)
    names = [("svm", f"conv{n}") for n in range(1, 6)] + [("svm", "fc7"), ("softmax", "fc7")]
    rows = [{"classifier": c, "layer": n, "folds": (of_folds + rng.normal(0, 1, 5)).tolist()} for c, n in names]
    for row in rows:
        row["mean"] = float(np.mean(row["folds"]))
    return {"rows": rows, "num_train": 30, "num_classes": 102, "num_images": 9144}


def test_layers_that_are_alike_do_not_rise():
    found = shares(transfer.higher_layers_are_better, layers)
    assert found.get("holds", 0) == 0 and found.get("does not hold", 0) <= 0.15


def caltech(seed):
    rng = np.random.default_rng(seed)
    of_folds = rng.normal(30, 1, 5)
    arms = {arm: (of_folds + rng.normal(0, 1, 5)).tolist() for arm in ("pretrained", "scratch")}
    rows = [{"arm": arm, "num_train": 15, "folds": folds, "mean": 30.0} for arm, folds in arms.items()]
    return {"rows": rows, "paper": {"best earlier": {}}, "num_classes": 102, "num_images": 9144}


def test_arms_that_are_alike_decide_nothing():
    found = shares(transfer.pretrained_beats_scratch_on_101, caltech)
    assert found.get("holds", 0) <= 0.15 and found.get("does not hold", 0) <= 0.15
