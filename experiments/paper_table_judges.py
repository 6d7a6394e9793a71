"""How results are held against the paper's claims about Tables 1 to 3: one judge for each in `paper_table_claims`.

As in `paper_judges`. Layers, variants and networks are looked up by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from experiments.paper_statistics import alike, every, permuted, smaller, untested
from experiments.paper_verdicts import NOT_SHOWN, Finding, Result, bounded, tested

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
