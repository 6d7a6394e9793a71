"""The paper's claims about Tables 1 to 3, each with its judge: see `experiments.report.figures`.

Layers, variants and networks are looked up by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from experiments.report.transfer import LAYERS, TRANSFER, WIDE
from experiments.report.verdicts import (
    NOT_SHOWN,
    Claim,
    Finding,
    Result,
    alike,
    bounded,
    every,
    permuted,
    smaller,
    tested,
    untested,
)

LITTLE, ALIKE = 0.05, 0.02  # shares of the images: what removing layers may cost, what counts as the same error


CLOSER = 0.05  # of random places' score: how much nearer the parts come to it


Judge = Callable[[Result], Finding | None]


def parts_correspond(layer: str) -> Judge:
    """A judge of Table 1: every part's masks change the features more consistently than both controls."""

    def judge(result: Result) -> Finding | None:
        if (rows := result["layers"].get(layer)) is None:
            return None
        ours = ", ".join(f"{part} {row['delta']:.3f}" for part, row in rows.items())
        parts = [row for row in rows.values() if row["p"] is not None]
        return tested(ours, every([permuted(row[p]) for row in parts for p in ("p", "p_aligned")]))

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
        if not rows["random"]["delta"]:
            return Finding("", NOT_SHOWN, f"{layer}: random places score 0")
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
    return tested(f"Spearman's rho {rho:.2f}, {number} variants", permuted(p, found.get("p_contrary")))


OVER_SHARES = "two-proportion test over the validation images, as if each net had seen others"


CORRESPONDENCE = (
    Claim(
        "Table 1",
        "In layer 5 eyes and nose correspond more consistently between images than random places do.",
        ".067, .069, .079 against .107",
        "every part's score is lower than that of random places, and than those of places that are the same in all "
        "pictures (permutation tests; largest p-value). Of these there are 39, and they may lie on other parts: each "
        "part has to come first of all. No contrary is tested: it holds or is not shown",
        parts_correspond("conv5"),
    ),
    Claim(
        "Table 1",
        "In layer 7 parts and random places score more alike.",
        ".069, .068, .069 against .073",
        f"the parts' mean, over that of random places, is nearer to 1 than in layer 5 by {CLOSER:g} at least: holds; "
        "further from it by as much: does not hold; between: not shown",
        parts_gain_less_above,
    ),
)


ERRORS = (
    Claim(
        "Table 2",
        "Ten crops averaged, the paper's protocol, err less than the centre crop.",
        "not reported",
        f"the average of ten crops errs less ({OVER_SHARES})",
        ten_crops_help,
    ),
    Claim(
        "Table 2",
        "Averaging several networks reduces the error.",
        "38.4 % one, 36.7 % five, 36.0 % six",
        f"the average errs less than the best of its members ({OVER_SHARES})",
        averaging_helps,
    ),
    Claim(
        "Table 2",
        "The network of Fig. 3 errs less than that of Krizhevsky et al.",
        "38.4 against 40.5 %",
        f"zfnet errs less than alexnet, of ten crops ({OVER_SHARES})",
        errs_less(member_errors, "zfnet", "alexnet"),
    ),
    Claim(
        "Table 2",
        "With 512, 1024, 512 maps in layers 3, 4, 5 it errs still less.",
        "37.5 against 38.4 %",
        f"errs less than zfnet, of ten crops ({OVER_SHARES})",
        errs_less(member_errors, "zfnet-conv3+4+5-of-512+1024+512", "zfnet"),
    ),
)


ARCHITECTURES = (
    Claim(
        "Table 3",
        "Removing both the middle convolutional and the fully connected layers hurts most: depth matters.",
        "71.3 % against 40.5, 45.4, 44.8 %",
        f"errs more than the whole net, and than without either ({OVER_SHARES})",
        depth_matters,
    ),
    *(
        Claim(
            "Table 3",
            f"Removing {what} alone costs little.",
            f"{number} against 40.5 %",
            f"errs less than {LITTLE:.0%} of the images more than the whole net ({OVER_SHARES})",
            costs_little(f"alexnet, no {layers}", "alexnet"),
        )
        for what, number, layers in (
            ("the fully connected layers 6 and 7", "44.8", "fc6,7"),
            ("the middle convolutional layers 3 and 4", "45.4", "conv3,4"),
        )
    ),
    Claim(
        "Table 3",
        "The sizes of the fully connected layers matter little.",
        "+1.2, -0.5, +1.8, +0.4 points",
        f"of both nets, with layers half and twice as wide, the error differs by less than {100 * ALIKE:g} points "
        f"({OVER_SHARES})",
        sizes_matter_little(
            *((f"{net}, fc6,7 of {size}", net) for net in ("alexnet", "zfnet") for size in (2048, 8192))
        ),
    ),
    Claim(
        "Table 3",
        "Wider middle convolutional layers help.",
        "37.5 against 38.4 %",
        f"with 512, 1024, 512 maps zfnet errs less ({OVER_SHARES})",
        errs_less(variant_errors, f"zfnet, {WIDE}", "zfnet"),
    ),
    Claim(
        "Table 3",
        "Wider fully connected layers beside them overfit.",
        "38.3 against 37.5 %",
        f"with both zfnet errs more than with 512, 1024, 512 maps alone ({OVER_SHARES})",
        errs_less(variant_errors, f"zfnet, {WIDE}", "zfnet, both"),
    ),
    Claim(
        "Table 3",
        "The network of Fig. 3 errs less than that of Krizhevsky et al.",
        "38.4 against 40.5 %",
        f"zfnet errs less than alexnet ({OVER_SHARES})",
        errs_less(variant_errors, "zfnet", "alexnet"),
    ),
    Claim(
        "Table 3",
        "The order of the variants.",
        "validation top-1 error",
        "Spearman's rank correlation with the paper's order is above 0 (permutation tests of it and of the contrary)",
        same_order,
    ),
)


TABLES = (*CORRESPONDENCE, *ERRORS, *ARCHITECTURES, *TRANSFER, *LAYERS)
