"""The paper's claims about Tables 4 to 7, each with its judge: see `experiments.report.figures`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from experiments.report.verdicts import (
    CLEAR_POINTS,
    NOT_SHOWN,
    Claim,
    Finding,
    Outcome,
    Result,
    bounded,
    every,
    over_folds,
    tested,
    untested,
)

CALTECH101, CALTECH256 = "Table 4", "Table 5, Figure 9"


CALTECH_CLASSES = {CALTECH101: 101, CALTECH256: 256}  # without the one of clutter


ALIKE_PERCENT = 2.0  # of accuracy


TEST_IMAGES = 50  # per class of Caltech, at most


EARLIER_CALTECH256 = 55.2  # percent, Bo et al. with 60 images per class


VOC_CLASSES = 20


SANDE, FAR_BELOW = 74.3, 5.0  # percent of average precision: the lower of the earlier methods; what is clearly less


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
    return _held_against_the_paper(result, ours, every([_above(result, row, mean) for row, mean in rows]))


def few_images_suffice(result: Result) -> Finding | None:
    """Six images per class, pretrained, beat what the best earlier method reached with sixty."""
    row = _arms(result).get(("pretrained", 6))
    if row is None:
        return None
    return _held_against_the_paper(result, f"{row['mean']:.1f} %", _above(result, row, EARLIER_CALTECH256))


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


def _held_against_the_paper(result: Result, ours: str, test: Outcome) -> Finding:
    """By the test, but not where fewer classes make the task an easier one than the paper's."""
    classes, all_classes = result.get("num_classes"), CALTECH_CLASSES[result["table"]]
    if classes is None:
        return Finding(ours, NOT_SHOWN, "the number of classes is missing")
    if classes < all_classes:
        return Finding(ours, NOT_SHOWN, f"{classes} of {all_classes} classes")
    return tested(ours, test)


def _arms(result: Result) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(row["arm"], row["num_train"]): row for row in result["rows"]}


def _by_layer(result: Result, classifier: str) -> dict[str, Mapping[str, Any]]:
    return {row["layer"]: row for row in result["rows"] if row["classifier"] == classifier}


def _paired(
    result: Result, row: Mapping[str, Any], other: Mapping[str, Any], num_train: int, *, margin: float = 0.0
) -> Outcome:
    """Whether a row is above another one of the same folds, less the margin."""
    if len(row["folds"]) != len(other["folds"]):
        return untested("not the same folds")
    differences = np.subtract(row["folds"], other["folds"])
    return over_folds(differences, _test_over_train(result, num_train), margin=margin)


def _above(result: Result, row: Mapping[str, Any], number: float) -> Outcome:
    return over_folds(np.subtract(row["folds"], number), _test_over_train(result, row["num_train"]))


def _test_over_train(result: Result, num_train: int) -> float:
    """Most test images that there can be over the training images: at most 50 per class, and what is left."""
    classes, images = result.get("num_classes"), result.get("num_images")
    if not classes or not images:
        return TEST_IMAGES / num_train
    return min(TEST_IMAGES * classes, images - num_train * classes) / (num_train * classes)


OVER_FOLDS = (
    "t-test of paired folds, corrected for the images that they share (Nadeau and Bengio); one fold: larger by "
    f"{CLEAR_POINTS:g} points at least: holds; smaller by as many: does not hold; between: not shown"
)


ONE_SAMPLE = OVER_FOLDS.replace("paired ", "")


WIDE = "conv3,4,5 of 512,1024,512"


TRANSFER = (
    *(
        Claim(source, says, numbers, f"at every number of images measured, largest p-value ({test})", judge)
        for source, scratch, earlier in (
            (
                CALTECH101,
                "83.8 against 22.8 % (15), 86.5 against 46.5 % (30)",
                "83.8 against 81.4 % (15), 86.5 against 84.3 % (30)",
            ),
            (
                CALTECH256,
                "65.7 against 9.0 % (15) to 74.2 against 38.8 % (60)",
                "65.7 against 40.5 % (15) to 74.2 against 55.2 % (60)",
            ),
        )
        for says, numbers, test, judge in (
            (
                "Features of the pretrained network beat training from scratch at every number of images.",
                scratch,
                OVER_FOLDS,
                pretrained_beats_scratch,
            ),
            (
                "Features of the pretrained network beat the best earlier method.",
                earlier,
                f"{ONE_SAMPLE}; fewer than {CALTECH_CLASSES[source]} classes: not shown",
                beats_the_best_earlier,
            ),
        )
    ),
    Claim(
        CALTECH256,
        "Six images per class beat what the best earlier method reached with sixty.",
        "above 55.2 %",
        f"the accuracy with six is above {EARLIER_CALTECH256} % ({ONE_SAMPLE}; fewer than "
        f"{CALTECH_CLASSES[CALTECH256]} classes: not shown)",
        few_images_suffice,
    ),
    Claim(
        "Table 6",
        "A softmax on layer 7 comes near the best methods for PASCAL, whose photos are quite unlike ImageNet's.",
        "79.0 % on the test set; earlier 74.3, 82.2 %",
        f"mean average precision of {SANDE} % or more, the lower of the earlier methods: holds; "
        f"{SANDE - FAR_BELOW:.1f} % or less: does not hold; between: not shown",
        average_precision,
    ),
)


LAYERS = (
    Claim(
        "Table 7",
        "Each layer up to the fifth gives more discriminative features than the one below.",
        "44.8, 66.2, 72.3, 76.6, 86.2 % (Caltech-101)",
        f"the accuracy of a linear SVM rises from each of layers 1 to 5 to the next ({OVER_FOLDS})",
        higher_layers_are_better,
    ),
    Claim(
        "Table 7",
        "Layer 7 does as well as layer 5, or better.",
        "85.5 against 86.2 % (Caltech-101), 71.7 against 65.6 % (256)",
        f"a linear SVM on layer 7 is less than {ALIKE_PERCENT:g} points below one on layer 5 ({OVER_FOLDS})",
        top_layer_is_as_good,
    ),
    Claim(
        "Table 7",
        "On layer 7 a linear SVM and a softmax do alike.",
        "85.5 and 85.4 % (Caltech-101), 71.7 and 72.6 % (256)",
        f"they differ by less than {ALIKE_PERCENT:g} points ({OVER_FOLDS.partition('; one fold')[0]}; one fold: by "
        f"{CLEAR_POINTS:g} points or more: does not hold; less: not shown)",
        classifiers_agree,
    ),
)
