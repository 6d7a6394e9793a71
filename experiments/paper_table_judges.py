"""How results are held against the paper's claims about its tables: one judge for each entry of `paper_table_claims`.

As in `paper_judges`. Layers, variants and networks are looked up by their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from experiments.paper_statistics import Outcome, alike, every, over_folds, permuted, smaller, untested
from experiments.paper_verdicts import NOT_SHOWN, Finding, Result, bounded, tested

PERMUTATIONS = 10_000  # orders behind a stored p-value, where there are as many
LITTLE, ALIKE = 0.05, 0.02  # shares of the images: what removing layers may cost, what counts as the same error
ALIKE_PERCENT = 2.0  # of accuracy
CLOSER = 0.05  # of random places' score: how much nearer the parts come to it
TEST_IMAGES = 50  # per class of Caltech, at most
EARLIER_CALTECH256 = 55.2  # percent, Bo et al. with 60 images per class
VOC_CLASSES = 20
SANDE, FAR_BELOW = 74.3, 5.0  # percent of average precision: the lower of the earlier methods; what is clearly less
Judge = Callable[[Result], Finding | None]


def parts_correspond(layer: str) -> Judge:
    """A judge of Table 1: every part's masks change the features more consistently than both controls."""

    def judge(result: Result) -> Finding | None:
        if (rows := result["layers"].get(layer)) is None:
            return None
        ours = ", ".join(f"{part} {row['delta']:.3f}" for part, row in rows.items())
        parts = [row for row in rows.values() if row["p"] is not None]
        tests = [(row["p"], PERMUTATIONS) for row in parts]
        tests += [(row["p_aligned"], result["config"]["num_aligned"]) for row in parts]
        return tested(ours, every([permuted(*test) for test in tests]))

    return judge


def parts_gain_less_above(result: Result) -> Finding | None:
    """How far the parts' mean lies below random places, in layer 7 against layer 5."""
    if not {"conv5", "fc7"} <= set(result["layers"]):
        return None
    gains = {}
    for layer in ("conv5", "fc7"):
        rows = result["layers"][layer]
        parts = [row["delta"] for part, row in rows.items() if row["p"] is not None]
        if not parts:
            return None
        gains[layer] = 1 - float(np.mean(parts)) / rows["random"]["delta"]
    ours = ", ".join(f"{layer}: parts {gain:.1%} below random places" for layer, gain in gains.items())
    return bounded(ours, gains["conv5"] - gains["fc7"], holds_from=CLOSER, fails_to=-CLOSER)


def ten_crops_help(result: Result) -> Finding | None:
    """The average of ten crops errs less than the centre."""
    if "error" not in result:
        return None
    center, ten = result["error"]["center"]["top1"], result["error"]["ten"]["top1"]
    return tested(f"{ten:.1%} against {center:.1%}", smaller(ten, center, result["num_images"]))


def averaging_helps(result: Result) -> Finding | None:
    """Several networks together err less than the best one alone."""
    alone = [member["error"]["ten"]["top1"] for member in result["members"]]
    if len(alone) < 2 or "error" not in result:
        return None
    together, best = result["error"]["ten"]["top1"], min(alone)
    ours = f"{together:.1%} together, {best:.1%} the best of {len(alone)} alone"
    return tested(ours, smaller(together, best, result["num_images"]))


def member_errors(result: Result) -> dict[str, float]:
    """Table 2's top-1 error of ten crops by architecture: the mean where there are several networks of one."""
    errors: dict[str, list[float]] = {}
    for member in result["members"]:
        errors.setdefault(member["name"], []).append(member["error"]["ten"]["top1"])
    return {name: float(np.mean(of_name)) for name, of_name in errors.items()}


def variant_errors(result: Result) -> dict[str, float]:
    """Table 3's validation top-1 error by variant."""
    return {row["name"]: row["error"]["validation"]["top1"] for row in result["rows"]}


def errs_less(errors_of: Callable[[Result], Mapping[str, float]], better: str, worse: str) -> Judge:
    """A judge: whether one network errs less than another, by name."""

    def judge(result: Result) -> Finding | None:
        errors = errors_of(result)
        if not {better, worse} <= set(errors):
            return None
        ours = f"{errors[better]:.1%} against {errors[worse]:.1%}"
        return tested(ours, smaller(errors[better], errors[worse], images_of(result)))

    return judge


def depth_matters(result: Result) -> Finding | None:
    """AlexNet without layers 3, 4, 6 and 7 errs more than whole, and than without either pair."""
    errors, worst = variant_errors(result), "alexnet, no conv3,4,fc6,7"
    others = ("alexnet", "alexnet, no conv3,4", "alexnet, no fc6,7")
    if not {worst, *others} <= set(errors):
        return None
    ours = f"{errors[worst]:.1%} against " + ", ".join(f"{errors[name]:.1%}" for name in others)
    return tested(ours, every([smaller(errors[name], errors[worst], images_of(result)) for name in others]))


def costs_little(variant: str, base: str) -> Judge:
    """A judge of Table 3: whether a variant errs less than LITTLE above another."""

    def judge(result: Result) -> Finding | None:
        errors = variant_errors(result)
        if not {variant, base} <= set(errors):
            return None
        ours = f"{errors[variant]:.1%} against {errors[base]:.1%}"
        return tested(ours, smaller(errors[variant], errors[base], images_of(result), margin=LITTLE))

    return judge


def sizes_matter_little(*pairs: tuple[str, str]) -> Judge:
    """A judge of Table 3: whether each (variant, base) differ by less than ALIKE."""

    def judge(result: Result) -> Finding | None:
        errors = variant_errors(result)
        if not {name for pair in pairs for name in pair} <= set(errors):
            return None
        ours = ", ".join(f"{variant}: {100 * (errors[variant] - errors[base]):+.1f} points" for variant, base in pairs)
        number = images_of(result)
        tests = [alike(errors[variant], errors[base], number, margin=ALIKE) for variant, base in pairs]
        return tested(ours, every(tests))

    return judge


def images_of(result: Result) -> int:
    """The number of validation images; 0 where an earlier version did not write it."""
    return result.get("num_images") or 0


def same_order(result: Result) -> Finding | None:
    """Our order of the variants is the paper's."""
    found = result["rank_correlation"]
    if found is None:
        return None
    rho, p, number = found["rho"], found["p_value"], found["num_variants"]
    if rho is None or p is None or rho != rho or p != p:  # NaN
        return tested(f"{number} variants", untested("all errors are the same"))
    orders = min(math.factorial(number), PERMUTATIONS)
    return tested(f"Spearman's rho {rho:.2f}, {number} variants", permuted(p, orders))


def pretrained_beats_scratch(result: Result) -> Finding | None:
    """Frozen features against the same net from scratch, paired by fold, at every number of images with both."""
    arms = _arms(result)
    sizes = [size for arm, size in arms if arm == "scratch" and ("pretrained", size) in arms]
    if not sizes:
        return None
    pairs = [(arms["pretrained", size], arms["scratch", size]) for size in sizes]
    ours = "; ".join(f"{a['num_train']} per class: {a['mean']:.1f} against {b['mean']:.1f} %" for a, b in pairs)
    return tested(ours, every([_paired(result, a, b, a["num_train"]) for a, b in pairs]))


def beats_the_best_earlier(result: Result) -> Finding | None:
    """Frozen features against the best earlier method, at every number of images that both have."""
    arms = _arms(result)
    earlier = {int(size): row["mean"] for size, row in result["paper"]["best earlier"].items()}
    rows = [(arms["pretrained", size], mean) for size, mean in earlier.items() if ("pretrained", size) in arms]
    if not rows:
        return None
    ours = "; ".join(f"{row['num_train']} per class: {row['mean']:.1f} against {mean:.1f} %" for row, mean in rows)
    return tested(ours, every([_above(result, row, mean) for row, mean in rows]))


def few_images_suffice(result: Result) -> Finding | None:
    """Six images per class, pretrained, beat what the best earlier method reached with sixty."""
    row = _arms(result).get(("pretrained", 6))
    return None if row is None else tested(f"{row['mean']:.1f} %", _above(result, row, EARLIER_CALTECH256))


def average_precision(result: Result) -> Finding:
    """Table 6: the mean over VOC's classes."""
    value, classes = result["mean_average_precision"], len(result["average_precision"])
    ours = f"{value:.1f} % on val, trained on train"
    if classes < VOC_CLASSES:
        return Finding(ours, NOT_SHOWN, f"{classes} of VOC's {VOC_CLASSES} classes")
    return bounded(ours, value, holds_from=SANDE, fails_to=SANDE - FAR_BELOW)


def higher_layers_are_better(result: Result) -> Finding | None:
    """Each of layers 1 to 5 gives a better linear SVM than the one below."""
    rows = _by_layer(result, "svm")
    layers = [f"conv{number}" for number in range(1, 6)]
    if not set(layers) <= set(rows):
        return None
    ours = ", ".join(f"{layer} {rows[layer]['mean']:.1f} %" for layer in layers)
    pairs = pairwise(layers)
    return tested(ours, every([_paired(result, rows[up], rows[low], result["num_train"]) for low, up in pairs]))


def top_layer_is_as_good(result: Result) -> Finding | None:
    """A linear SVM on layer 7 is less than ALIKE_PERCENT below one on layer 5."""
    rows = _by_layer(result, "svm")
    if not {"conv5", "fc7"} <= set(rows):
        return None
    ours = f"fc7 {rows['fc7']['mean']:.1f} %, conv5 {rows['conv5']['mean']:.1f} %"
    return tested(ours, _paired(result, rows["fc7"], rows["conv5"], result["num_train"], margin=ALIKE_PERCENT))


def classifiers_agree(result: Result) -> Finding | None:
    """A linear SVM and a softmax on layer 7 differ by less than ALIKE_PERCENT."""
    svm, softmax = (_by_layer(result, name).get("fc7") for name in ("svm", "softmax"))
    if svm is None or softmax is None:
        return None
    both = [
        _paired(result, *pair, result["num_train"], margin=ALIKE_PERCENT) for pair in ((svm, softmax), (softmax, svm))
    ]
    return tested(f"SVM {svm['mean']:.1f} %, softmax {softmax['mean']:.1f} %", every(both))


def _arms(result: Result) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(row["arm"], row["num_train"]): row for row in result["rows"]}


def _by_layer(result: Result, classifier: str) -> dict[str, Mapping[str, Any]]:
    return {row["layer"]: row for row in result["rows"] if row["classifier"] == classifier}


def _paired(result: Result, row: Mapping, other: Mapping, num_train: int, *, margin: float = 0.0) -> Outcome:
    """Whether a row is above another one of the same folds, less the margin."""
    if len(row["folds"]) != len(other["folds"]):
        return untested("not the same folds")
    return over_folds(np.subtract(row["folds"], other["folds"]) + margin, _test_over_train(result, num_train))


def _above(result: Result, row: Mapping, number: float) -> Outcome:
    return over_folds(np.subtract(row["folds"], number), _test_over_train(result, row["num_train"]))


def _test_over_train(result: Result, num_train: int) -> float:
    """Most test images that there can be over the training images: at most 50 per class, and what is left."""
    classes, images = result.get("num_classes"), result.get("num_images")
    if not classes or not images:
        return TEST_IMAGES / num_train
    return min(TEST_IMAGES * classes, images - num_train * classes) / (num_train * classes)
