"""How the result of an experiment is held against a claim of the paper: one judge for each entry of `paper_claims`.

A judge reads a `result.json`. Where that has a spread it tests at ALPHA, one-sided in the claim's direction; else it
compares numbers. It says nothing (None) where the result does not hold what the claim is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

ALPHA = 0.05  # a test below this supports its claim
Result = Mapping[str, Any]  # a result.json


class Finding(NamedTuple):
    """What one result says to one claim."""

    ours: str
    holds: bool
    p_value: float | None = None  # of a one-sided test in the claim's direction; None where numbers are compared


def resemblance(result: Result) -> Finding | None:
    """Projections and their patches correlate, more than with the patches of another map."""
    pairs = {layer: facts["resemblance"] for layer, facts in result["layers"].items()}
    known = {layer: pair for layer, pair in pairs.items() if None not in pair.values()}
    if not known:
        return None
    ours = ", ".join(f"{layer} {pair['value']:.2f} ({pair['by_chance']:.2f})" for layer, pair in known.items())
    return Finding(ours, all(pair["value"] > pair["by_chance"] for pair in known.values()))


def geometry(result: Result) -> Finding | None:
    """The table's map sizes and parameters."""
    if result["paper"] is None:
        return None
    ours = f"{result['num_parameters']:,} parameters, maps of {'-'.join(map(str, result['map_sides']))}"
    same = all(result[name] == value for name, value in result["paper"].items() if name in result)
    return Finding(ours, same)


def lower_layers_settle_first(result: Result) -> Finding | None:
    """Share of the pairs of layers whose lower one is nearer to its final features over the epochs."""
    share = result["lower_layers_first"]
    return None if share is None else Finding(f"in {share:.0%} of the pairs of layers", share > 0.5)


def jumps_come_from_other_images(result: Result) -> Finding | None:
    """A map's projections at neighbouring epochs are alike where its strongest image stayed."""
    found = [facts["continuity"] for facts in result["layers"].values() if "continuity" in facts]
    known = [pair for pair in found if None not in pair.values()]
    if not known:
        return None
    stayed, changed = (np.mean([pair[f"image_{what}"] for pair in known]) for what in ("stayed", "changed"))
    ours = f"correlation {stayed:.2f} where the image stayed, {changed:.2f} where it changed"
    return Finding(ours, all(pair["image_stayed"] > pair["image_changed"] for pair in known))


def first_layer_moves_more(result: Result) -> Finding:
    """Relative distance per small step, lowest layer over highest."""
    ratios = {name: result["transforms"][name]["slope_ratio"] for name in ("translation", "scale")}
    ours = ", ".join(f"{name} {ratio:.1f} times" if ratio else f"{name}: none" for name, ratio in ratios.items())
    return Finding(ours, all(ratio is not None and ratio > 1 for ratio in ratios.values()))


def top_layer_is_quasi_linear(result: Result) -> Finding:
    """R^2 of a line through zero in the highest layer."""
    top = result["layers"][-1]
    found = {name: result["transforms"][name]["linearity"][top] for name in ("translation", "scale")}
    ours = ", ".join(f"{name} R² {value:.2f}" for name, value in found.items())
    return Finding(ours, all(value >= 0.9 for value in found.values()))


def rotation_breaks_labels(result: Result) -> Finding:
    """Labels survive translation and scale more often than rotation."""
    kept = {name: facts["label_stability"]["mean"] for name, facts in result["transforms"].items()}
    ours = ", ".join(f"{name} {share:.0%}" for name, share in kept.items())
    return Finding(ours, kept["rotation"] < min(kept["translation"], kept["scale"]))


def against(role: str, number: Callable[[Mapping[str, Any]], float], form: str, *, larger: bool):
    """A judge of Figure 6: whether the net's number is larger (smaller) than that of the net in `role`."""

    def judge(result: Result) -> Finding | None:
        if role not in result["nets"]:
            return None
        ours, other = number(result["nets"]["clipped"]), number(result["nets"][role])
        return Finding(f"{ours:{form}} against {other:{form}}", ours > other if larger else ours < other)

    return judge


def occlusion_finds_the_object(result: Result) -> Finding | None:
    """The place of the largest drop lies on the object more often than on another scene's object."""
    score = result["score"]
    if score is None:
        return None
    own, chance, error = (score["occlusion"][name] for name in ("object", "other_object", "standard_error"))
    p_value = float(scipy.stats.norm.sf((own - chance) / error)) if error else float(own <= chance)
    ours = (
        f"{own:.0%} of {score['num_images']} scenes, by chance {chance:.0%}; gradient {score['gradient']['object']:.0%}"
    )
    return Finding(ours, p_value < ALPHA, p_value)


def parts_correspond(layer: int) -> Callable[[Result], Finding | None]:
    """A judge of Table 1: every part's masks change the features more consistently than random ones do."""

    def judge(result: Result) -> Finding | None:
        layers = list(result["layers"])
        if layer >= len(layers):
            return None
        rows = result["layers"][layers[layer]]
        ours = f"{layers[layer]}: " + ", ".join(f"{part} {row['delta']:.3f}" for part, row in rows.items())
        worst = max(row["p"] for row in rows.values() if row["p"] is not None)
        return Finding(ours, worst < ALPHA, worst)

    return judge


def averaging_helps(result: Result) -> Finding | None:
    """Several networks together err less than the best one alone."""
    alone = [member["error"]["ten"]["top1"] for member in result["members"]]
    if len(alone) < 2:
        return None
    together = result["error"]["ten"]["top1"]
    return Finding(f"{together:.1%} together, {min(alone):.1%} the best of {len(alone)} alone", together < min(alone))


def ten_crops_help(result: Result) -> Finding:
    """The average of ten crops errs less than the centre."""
    center, ten = result["error"]["center"]["top1"], result["error"]["ten"]["top1"]
    return Finding(f"{ten:.1%} against {center:.1%} of {result['num_images']:,} images", ten < center)


def same_order(result: Result) -> Finding | None:
    """Our order of the variants is the paper's."""
    found = result["rank_correlation"]
    if found is None:
        return None
    one_sided = found["p_value"] / 2 if found["rho"] > 0 else 1 - found["p_value"] / 2
    return Finding(f"Spearman's rho {found['rho']:.2f}, {found['num_variants']} variants", one_sided < ALPHA, one_sided)


def depth_matters(result: Result) -> Finding | None:
    """Without layers 3, 4, 6 and 7 the error is the largest."""
    errors = {row["name"]: row["error"]["validation"]["top1"] for row in result["rows"] if row["paper"]}
    shallow = errors.pop("alexnet, no conv3,4,fc6,7", None)
    if shallow is None or not errors:
        return None
    return Finding(
        f"{shallow:.1%}; the largest of the others {max(errors.values()):.1%}", shallow > max(errors.values())
    )


def pretrained_beats_scratch(result: Result) -> Finding | None:
    """At every number of images; by Welch's t-test over the folds, the largest p-value of all."""
    arms = {(row["arm"], row["num_train"]): row for row in result.get("rows", ())}
    sizes = [size for arm, size in arms if arm == "scratch" and ("pretrained", size) in arms]
    if not sizes:
        return None
    pairs = [(arms["pretrained", size], arms["scratch", size]) for size in sizes]
    ours = "; ".join(f"{a['num_train']} per class: {a['mean']:.1f} against {b['mean']:.1f} %" for a, b in pairs)
    if any(len(row["folds"]) < 2 for pair in pairs for row in pair):
        return Finding(ours, all(a["mean"] > b["mean"] for a, b in pairs))
    options = {"equal_var": False, "alternative": "greater"}
    worst = max(float(scipy.stats.ttest_ind(a["folds"], b["folds"], **options).pvalue) for a, b in pairs)
    return Finding(ours, worst < ALPHA, worst)


def few_images_suffice(result: Result) -> Finding | None:
    """Six images per class, pretrained, beat what the best earlier method reached with sixty."""
    six = [row["mean"] for row in result.get("rows", ()) if (row["arm"], row["num_train"]) == ("pretrained", 6)]
    return Finding(f"{six[0]:.1f} % with 6 per class, the earlier best 55.2 % with 60", six[0] > 55.2) if six else None


def higher_layers_are_better(result: Result) -> Finding | None:
    """Each convolutional layer gives a better linear SVM than the one below."""
    rows = [row for row in result["rows"] if row["classifier"] == "svm" and row["layer"].startswith("conv")]
    if len(rows) < 2:
        return None
    ours = ", ".join(f"{row['layer']} {row['mean']:.1f} %" for row in rows)
    return Finding(ours, rising([row["mean"] for row in rows]))


def rising(values: Sequence[float]) -> bool:
    """Whether each is larger than the one before."""
    return all(low < high for low, high in pairwise(values))
