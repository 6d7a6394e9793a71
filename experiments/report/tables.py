"""The paper's claims about Tables 1 to 3, each above its judge: see `experiments.report.figures`.

Layers, variants and networks are looked up by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from experiments.report.statistics import (
    ALPHA,
    SEED_SPREAD,
    Outcome,
    below_zero,
    every,
    p_of_guessing,
    permuted,
    smaller,
    untested,
    with_interval,
)
from experiments.report.transfer import LAYERS, TRANSFER, WIDE
from experiments.report.verdicts import (
    COMPARED,
    COMPARED_IMAGENET,
    COMPARED_MANY,
    MANY_CLASSES,
    NOT_SHOWN,
    TRAINED,
    Finding,
    bounded,
    claim,
    tested,
)
from zfjax.errors import UserError
from zfjax.schema import Count, Share, entry

# Of what removing layers 3, 4, 6 and 7 costs: what counts as little beside that. Paper is silent; the share of one of
# the four layers, if all cost alike, so that two of them cost little where they cost less than one does on average.
LITTLE = 1 / 4
SHALLOW = "alexnet, no conv3,4,fc6,7"
# Of random places' score, how much nearer the parts come to it. With the spreads that the paper prints, layers that are
# alike differ by more in either direction in a tenth of all sets of five pictures, and in 2 % of those of 24.
CLOSER = 0.25

GUESSERS = (
    "where one of them may only guess, by a binomial test against the share of the most frequent class, or one over "
    "the number of classes where that is not known: not shown"
)
OF_LEARNERS = f"two-proportion test over the validation images, treated as independent between nets; {GUESSERS}"
OF_SEEDS = (
    f"two-proportion test over the validation images, with a standard deviation of {100 * SEED_SPREAD:.1f} points for "
    f"the seed of each net; {GUESSERS}"
)


class PartScore(TypedDict):
    """How consistently a part's masks change the features, and its p-values; a control has none."""

    delta: Share
    p: Share | None
    p_aligned: NotRequired[Share | None]
    touched: NotRequired[Share | None]  # the other reading: of the features alone that a mask touches


class Correspondence(TypedDict):
    """A result of Table 1: layer, part or control, score."""

    layers: dict[str, dict[str, PartScore]]


@claim(
    "Table 1",
    says="In layer 5 eyes and nose correspond more consistently between images than random places do.",
    paper=".067, .069, .079 against .107",
    rule="every part's score is lower than that of random places, and lower than that of each of 39 places that are "
    "the same in all pictures and may be on other parts (permutation tests; largest p-value): holds; else: not shown, "
    "as the contrary is not tested. Paper is silent: features that neither mask changes count as agreeing here; in "
    "brackets the score without them",
    needs=MANY_CLASSES,
)
def parts_correspond(result: Correspondence) -> Finding | None:
    """Every part's masks change the features of layer 5 more consistently than both controls."""
    if (rows := result["layers"].get("conv5")) is None:
        return None
    ours = ", ".join(f"{part} {row['delta']:.3f}{_other_reading(row)}" for part, row in rows.items())
    parts = {part: row for part, row in rows.items() if row["p"] is not None}
    for part, row in parts.items():
        if "p_aligned" not in row:
            raise UserError(f"layers.conv5.{part}.p_aligned is missing")
    return tested(ours, every([permuted(p) for row in parts.values() for p in (row["p"], row["p_aligned"])]))


def _other_reading(row: PartScore) -> str:
    value = row.get("touched")
    return "" if value is None else f" ({value:.3f})"


@claim(
    "Table 1",
    says="In layer 7 parts and random places score more alike.",
    paper=".069, .068, .069 against .073",
    rule=f"the parts' mean, over that of random places, is nearer to 1 than in layer 5 by {CLOSER:g} at least: holds; "
    "further from it by as much: does not hold; between: not shown",
    needs=MANY_CLASSES,
)
def parts_gain_less_above(result: Correspondence) -> Finding | None:
    """How far the parts' mean lies from random places, on either side, in layer 7 against layer 5."""
    if not {"conv5", "fc7"} <= set(result["layers"]):
        return None
    ratios = {}
    for layer in ("conv5", "fc7"):
        rows = result["layers"][layer]
        parts = [row["delta"] for row in rows.values() if row["p"] is not None]
        if not parts:
            return None
        places = entry(rows, "random", f"layers.{layer}")["delta"]
        if not places:
            return Finding("", NOT_SHOWN, f"{layer}: random places score 0")
        ratios[layer] = float(np.mean(parts)) / places
    ours = ", ".join(f"{layer}: parts score {ratio:.3f} of random places" for layer, ratio in ratios.items())
    closer = abs(ratios["conv5"] - 1) - abs(ratios["fc7"] - 1)
    return bounded(ours, closer, holds_from=CLOSER, fails_to=-CLOSER)


class ErrorShares(TypedDict):
    """As `zfjax.training.evaluation.Shares`, in bounds."""

    top1: Share
    top5: NotRequired[Share]  # not of five classes or fewer


class Errors(TypedDict):
    """Of the centre crop, and of ten crops averaged."""

    center: ErrorShares
    ten: NotRequired[ErrorShares]  # only a table of layers has other crops than the centre


class Member(TypedDict):
    """One network of Table 2."""

    name: str  # of its architecture
    checkpoint: object
    error: Errors


class Evaluation(TypedDict):
    """A result of Table 2, or several that are taken together: these have no error of all, and no paper."""

    members: list[Member]
    num_images: Count
    num_classes: NotRequired[int | None]  # of the networks; earlier versions did not write it, nor the next
    largest_class_share: NotRequired[Share | None]  # of the images, those of the most frequent class
    error: NotRequired[Errors]
    paper: NotRequired[dict[str, tuple[float, float, float | None]]]


@claim(
    "Table 2",
    says="Ten crops averaged (Krizhevsky's practice; Paper is silent) err less than the centre crop.",
    paper="not reported",
    rule=f"the average of ten crops errs less ({OF_LEARNERS})",
    needs=TRAINED,
)
def ten_crops_help(result: Evaluation) -> Finding | None:
    """The average of ten crops errs less than the centre."""
    if "error" not in result or "ten" not in result["error"]:
        return None
    errors = {"the centre": result["error"]["center"]["top1"], "ten crops": result["error"]["ten"]["top1"]}
    finding = _errs_less(errors, better="ten crops", worse="the centre", num_images=result["num_images"])
    return finding and _of_learning_members(result, finding, errors.items())


@claim(
    "Table 2",
    says="Averaging several networks reduces the error.",
    paper="38.4 % one, 36.7 % five, 36.0 % six",
    rule=f"the average errs less than the best of its members: holds; more than one of them, beyond what comes of so "
    f"many comparisons: does not hold ({OF_LEARNERS})",
    needs=COMPARED,
)
def averaging_helps(result: Evaluation) -> Finding | None:
    """Several networks together err less than the best one alone."""
    named = _of_ten_crops(result)
    if len(named) < 2 or "error" not in result or "ten" not in result["error"]:
        return None
    alone = [error for _, error in named]
    together, best = result["error"]["ten"]["top1"], min(alone)
    ours = (
        f"{with_interval(together, result['num_images'])} together, "
        f"{with_interval(best, result['num_images'])} the best of {len(alone)} alone"
    )
    finding = tested(ours, every([smaller(together, one, num=result["num_images"]) for one in alone]))
    return _of_learning_members(result, finding, named)


@claim(
    "Table 2",
    says="The network of Fig. 3 errs less than that of Krizhevsky et al.",
    paper="38.4 against 40.5 %",
    rule=f"zfnet errs less than alexnet, of ten crops ({OF_LEARNERS})",
    needs=COMPARED_IMAGENET,
)
def member_beats_alexnet(result: Evaluation) -> Finding | None:
    """The paper's network errs less than AlexNet."""
    return _member_errs_less(result, better="zfnet", worse="alexnet")


@claim(
    "Table 2",
    says="With 512, 1024, 512 maps in layers 3, 4, 5 it errs still less.",
    paper="37.5 against 38.4 %",
    rule=f"errs less than zfnet, of ten crops ({OF_LEARNERS})",
    needs=COMPARED_IMAGENET,
)
def wide_member_helps(result: Evaluation) -> Finding | None:
    """The paper's network errs less where its middle layers are wide."""
    return _member_errs_less(result, better="zfnet-conv3+4+5-of-512+1024+512", worse="zfnet")


def member_errors(result: Evaluation) -> dict[str, float]:
    """Table 2's top-1 error of ten crops by architecture: the mean where there are several networks of one."""
    errors: dict[str, list[float]] = {}
    for name, error in _of_ten_crops(result):
        errors.setdefault(name, []).append(error)
    return {name: float(np.mean(of_name)) for name, of_name in errors.items()}


def _of_ten_crops(result: Evaluation) -> list[tuple[str, float]]:
    """(architecture, top-1 error) of each network that was measured on ten crops."""
    return [(one["name"], one["error"]["ten"]["top1"]) for one in result["members"] if "ten" in one["error"]]


class FirstAnswer(TypedDict):
    """Only the first answer counts."""

    top1: Share


class OfSplits(TypedDict):
    """The centre crop's errors."""

    validation: FirstAnswer
    train: NotRequired[FirstAnswer]


class Variant(TypedDict):
    """One architecture of Table 3."""

    name: str
    error: OfSplits
    largest_class_share: NotRequired[Share | None]  # of the validation images; earlier versions did not write it


class Ranking(TypedDict):
    """Spearman's rank correlation with the paper's order; None where all errors are the same."""

    rho: float | None
    p_value: float | None
    p_contrary: NotRequired[float | None]  # earlier versions did not write it
    num_variants: int


class OfClasses(TypedDict):
    """What was sorted."""

    num_classes: NotRequired[int | None]


class Ablation(TypedDict):
    """A result of Table 3."""

    data: NotRequired[OfClasses]
    rows: list[Variant]
    num_images: NotRequired[Count | None]  # of validation; earlier versions did not write it
    rank_correlation: Ranking | None  # None for fewer than three variants


@claim(
    "Table 3",
    says="Removing both the middle convolutional and the fully connected layers hurts most: depth matters.",
    paper="71.3 % against 40.5, 45.4, 44.8 %",
    rule="errs more than the whole net, and than without either: holds; less than one that is known to err less on its "
    "training images (by this test too, as of no more images), as larger nets do at their end, beyond what comes of "
    f"three comparisons: does not hold ({OF_SEEDS})",
    needs=COMPARED_MANY,
)
def depth_matters(result: Ablation) -> Finding | None:
    """AlexNet without layers 3, 4, 6 and 7 errs more than whole, and than without either pair."""
    errors, worst = variant_errors(result), SHALLOW
    others = ("alexnet", "alexnet, no conv3,4", "alexnet, no fc6,7")
    if not {worst, *others} <= set(errors):
        return None
    known = {name: with_interval(errors[name], images_of(result)) for name in (worst, *others)}
    ours = f"{known[worst]} against " + ", ".join(known[name] for name in others)
    learnt = {row["name"]: row["error"]["train"]["top1"] for row in result["rows"] if "train" in row["error"]}

    def errs_less_than_worst(of: Mapping[str, float], name: str) -> Outcome:
        return smaller(of[name], of[worst], num=images_of(result), spread=SEED_SPREAD)

    tests = {name: errs_less_than_worst(errors, name) for name in others}
    for name in others:
        if errors[name] <= errors[worst]:
            continue
        # unless it has learnt more than the shallow one, as it can, it would do so yet
        if not {name, worst} <= set(learnt):
            tests[name] = tests[name]._replace(against=1.0, why="training errors are not known")
        elif (errs_less_than_worst(learnt, name).p or 0.0) >= ALPHA:
            tests[name] = tests[name]._replace(against=1.0, why=f"{name} errs no less on its training images")
    finding = tested(ours, every([*tests.values()]))
    return _of_learning_variants(result, finding, known)


YARDSTICK = f"{LITTLE:.0%} of what removing layers 3, 4, 6 and 7 costs"
COSTS_LITTLE = f"the error rises by less than {YARDSTICK} ({OF_SEEDS}; where that costs nothing: not shown)"


@claim(
    "Table 3",
    says="Removing the fully connected layers 6 and 7 alone costs little.",
    paper="44.8 against 40.5 %",
    rule=COSTS_LITTLE,
    needs=COMPARED_IMAGENET,
)
def dense_layers_cost_little(result: Ablation) -> Finding | None:
    """AlexNet without layers 6 and 7 errs little more than whole."""
    return _costs_little(result, "alexnet, no fc6,7")


@claim(
    "Table 3",
    says="Removing the middle convolutional layers 3 and 4 alone costs little.",
    paper="45.4 against 40.5 %",
    rule=COSTS_LITTLE,
    needs=COMPARED_IMAGENET,
)
def middle_layers_cost_little(result: Ablation) -> Finding | None:
    """AlexNet without layers 3 and 4 errs little more than whole."""
    return _costs_little(result, "alexnet, no conv3,4")


@claim(
    "Table 3",
    says="The sizes of the fully connected layers matter little.",
    paper="+1.2, -0.5, +1.8, +0.4 points",
    rule=f"of both nets, with layers half and twice as wide, the error differs by less than {YARDSTICK} "
    f"({OF_SEEDS}; where that costs nothing: not shown)",
    needs=COMPARED_IMAGENET,
)
def dense_sizes_matter_little(result: Ablation) -> Finding | None:
    """With layers 6 and 7 half and twice as wide both nets err alike."""
    pairs = [(f"{net}, fc6,7 of {size}", net) for net in ("alexnet", "zfnet") for size in (2048, 8192)]
    return _changes_little(result, pairs, in_both_directions=True)


@claim(
    "Table 3",
    says="Wider middle convolutional layers help.",
    paper="37.5 against 38.4 %",
    rule=f"with 512, 1024, 512 maps zfnet errs less ({OF_LEARNERS})",
    needs=COMPARED_IMAGENET,
)
def wide_variant_helps(result: Ablation) -> Finding | None:
    """The paper's network errs less where its middle layers are wide."""
    return _variant_errs_less(result, better=f"zfnet, {WIDE}", worse="zfnet")


@claim(
    "Table 3",
    says="Wider fully connected layers beside them overfit.",
    paper="38.3 against 37.5 %",
    rule=f"with both zfnet errs more than with 512, 1024, 512 maps alone ({OF_LEARNERS})",
    needs=COMPARED_IMAGENET,
)
def wide_dense_layers_overfit(result: Ablation) -> Finding | None:
    """The paper's network errs less with wide middle layers alone than with wide dense layers too."""
    return _variant_errs_less(result, better=f"zfnet, {WIDE}", worse="zfnet, both")


@claim(
    "Table 3",
    says="The network of Fig. 3 errs less than that of Krizhevsky et al.",
    paper="38.4 against 40.5 %",
    rule=f"zfnet errs less than alexnet ({OF_LEARNERS})",
    needs=COMPARED_IMAGENET,
)
def variant_beats_alexnet(result: Ablation) -> Finding | None:
    """The paper's network errs less than AlexNet."""
    return _variant_errs_less(result, better="zfnet", worse="alexnet")


@claim(
    "Table 3",
    says="The order of the variants.",
    paper="validation top-1 error",
    rule="the variants of AlexNet among themselves, and those of the network of Fig. 3, stand in the paper's order "
    "(rank correlation; permutation tests of it and of the contrary within each of the two families; "
    f"{GUESSERS})",
    needs=COMPARED_MANY,
)
def same_order(result: Ablation) -> Finding | None:
    """Our order of the variants is the paper's."""
    ranking = result["rank_correlation"]
    if ranking is None:
        return None
    rho, p, number = ranking["rho"], ranking["p_value"], ranking["num_variants"]
    if rho is None or p is None or rho != rho or p != p:  # NaN
        return tested(f"{number} variants", untested("all errors are the same"))
    finding = tested(f"Spearman's rho {rho:.2f}, {number} variants", permuted(p, ranking.get("p_contrary")))
    return _of_learning_variants(result, finding, variant_errors(result))


def variant_errors(result: Ablation) -> dict[str, float]:
    """Table 3's validation top-1 error by variant."""
    return {row["name"]: row["error"]["validation"]["top1"] for row in result["rows"]}


def images_of(result: Ablation) -> int:
    """The number of validation images; 0 where an earlier version did not write it."""
    return result.get("num_images") or 0


def _costs_little(result: Ablation, variant: str) -> Finding | None:
    """Whether a variant errs little more than AlexNet."""
    return _changes_little(result, [(variant, "alexnet")], in_both_directions=False)


def _changes_little(result: Ablation, pairs: Sequence[tuple[str, str]], *, in_both_directions: bool) -> Finding | None:
    """Whether (variant, base) differ by less than LITTLE of what removing four layers costs; None without one of them.

    In points a change would be little wherever all networks err alike, as untrained ones do.
    """
    errors, number = variant_errors(result), images_of(result)
    if not {"alexnet", SHALLOW, *(name for pair in pairs for name in pair)} <= set(errors):
        return None
    whole, shallow = errors["alexnet"], errors[SHALLOW]
    changes = ", ".join(f"{variant}: {100 * (errors[variant] - errors[base]):+.1f}" for variant, base in pairs)
    kept = ", ".join(with_interval(error, number) for error in (whole, shallow))
    ours = f"{changes} points; all four layers: {100 * (shallow - whole):+.1f} points (from and to {kept})"
    costs = smaller(whole, shallow, num=number, spread=SEED_SPREAD)
    if costs.p is None or costs.p >= ALPHA:
        return Finding(ours, NOT_SHOWN, costs.why or "removing all four layers costs nothing that is sure")
    tests = []
    for variant, base in pairs:
        for way in (1.0, -1.0) if in_both_directions else (1.0,):
            weights = {variant: way, base: -way, SHALLOW: -LITTLE}
            weights["alexnet"] = weights.get("alexnet", 0.0) + LITTLE
            terms = [(errors[name], weight) for name, weight in weights.items()]
            tests.append(below_zero(terms, number, spread=SEED_SPREAD))
    compared = dict.fromkeys(("alexnet", SHALLOW, *(name for pair in pairs for name in pair)))
    return _of_learning_variants(result, tested(ours, every(tests)), compared)


def _member_errs_less(result: Evaluation, *, better: str, worse: str) -> Finding | None:
    errors = member_errors(result)
    finding = _errs_less(errors, better=better, worse=worse, num_images=result["num_images"])
    return finding and _of_learning_members(result, finding, [(name, errors[name]) for name in (better, worse)])


def _variant_errs_less(result: Ablation, *, better: str, worse: str) -> Finding | None:
    finding = _errs_less(variant_errors(result), better=better, worse=worse, num_images=images_of(result))
    return finding and _of_learning_variants(result, finding, (better, worse))


def _errs_less(errors: Mapping[str, float], *, better: str, worse: str, num_images: int) -> Finding | None:
    """Whether one network errs less than another; None where one of them was not measured."""
    if not {better, worse} <= set(errors):
        return None
    ours = f"{with_interval(errors[better], num_images)} against {with_interval(errors[worse], num_images)}"
    return tested(ours, smaller(errors[better], errors[worse], num=num_images))


def _of_learning_members(result: Evaluation, finding: Finding, errors: Iterable[tuple[str, float]]) -> Finding:
    """The finding on networks of Table 2 with these errors; not shown where one of them may only guess."""
    num_classes, largest = result.get("num_classes"), result.get("largest_class_share")
    return _of_learners(
        finding, errors, num_classes=num_classes, largest_share=largest, num_images=result["num_images"]
    )


def _of_learning_variants(result: Ablation, finding: Finding, names: Iterable[str]) -> Finding:
    """The finding on variants of these names; not shown where one of them may only guess."""
    errors, num_classes = variant_errors(result), result.get("data", {}).get("num_classes")
    largest = max((row.get("largest_class_share") or 0.0 for row in result["rows"]), default=0.0)  # of the same images
    named = [(name, errors[name]) for name in names]
    return _of_learners(finding, named, num_classes=num_classes, largest_share=largest, num_images=images_of(result))


def _of_learners(
    finding: Finding,
    errors: Iterable[tuple[str, float]],
    *,
    num_classes: int | None,
    largest_share: float | None,
    num_images: int,
) -> Finding:
    """The finding on networks, by name, with these errors; not shown where one of them may only guess.

    Where the number of classes is not known, as in results of earlier versions, none is asked.
    """
    if finding.verdict == NOT_SHOWN or not num_classes or not num_images:
        return finding
    for name, error in errors:
        p = p_of_guessing(100 * (1 - error), num_classes=num_classes, num_test=num_images, largest_share=largest_share)
        if p >= ALPHA:
            largest = f", one of them with {largest_share:.1%} of the images," if largest_share else ""
            because = f"{name} errs in {error:.1%}: of {num_classes} classes{largest} it may guess"
            return Finding(finding.ours, NOT_SHOWN, because)
    return finding


CORRESPONDENCE = (parts_correspond, parts_gain_less_above)

ERRORS = (ten_crops_help, averaging_helps, member_beats_alexnet, wide_member_helps)

ARCHITECTURES = (
    depth_matters,
    dense_layers_cost_little,
    middle_layers_cost_little,
    dense_sizes_matter_little,
    wide_variant_helps,
    wide_dense_layers_overfit,
    variant_beats_alexnet,
    same_order,
)

TABLES = (*CORRESPONDENCE, *ERRORS, *ARCHITECTURES, *TRANSFER, *LAYERS)
