"""How results are held against the paper's claims about its figures: one judge for each entry of `paper_claims`.

A judge reads a `result.json`. Where that has a spread it tests (`paper_statistics`); else it compares a number with
stated bounds. It says nothing (None) where the result does not hold what the claim is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.paper_statistics import Outcome, every, falling, more_often, paired, smaller, untested
from experiments.paper_verdicts import FAILS, HOLDS, NOT_SHOWN, Finding, Result, bounded, tested

CLEAR = 0.1  # a correlation this much larger, or another number by this share of it, is clearly so
TINY = 1e-9  # in place of a number of 0 that another is compared with
QUASI_LINEAR = 0.9  # R^2 of a line through zero


def resemblance(result: Result) -> Finding | None:
    """Projections and their patches correlate, more than with the patches of another map."""
    pairs = {layer: facts["resemblance"] for layer, facts in result["layers"].items()}
    known = {layer: pair for layer, pair in pairs.items() if None not in pair.values()}
    if not known:
        return None
    ours = ", ".join(f"{layer} {pair['value']:.2f} ({pair['by_chance']:.2f})" for layer, pair in known.items())
    least = min(pair["value"] - pair["by_chance"] for pair in known.values())
    return bounded(ours, least, holds_from=CLEAR, fails_to=0.0)


def geometry(result: Result) -> Finding | None:
    """The table's map sizes and parameters."""
    if result["paper"] is None:
        return None
    ours = f"{result['num_parameters']:,} parameters, maps of {'-'.join(map(str, result['map_sides']))}"
    same = all(result[name] == value for name, value in result["paper"].items() if name in result)
    return Finding(ours, HOLDS if same else FAILS)


def lower_layers_settle_first(result: Result) -> Finding | None:
    """Share of the pairs of layers whose lower one is nearer to its final features over the epochs."""
    share = result["lower_layers_first"]
    if share is None or share != share:
        return None
    curves = [facts["similarity"] for facts in result["layers"].values()]
    means = [float(np.mean(curve)) for curve in curves if None not in curve]
    return tested(f"in {share:.0%} of the pairs of {len(means)} layers the lower one is nearer", falling(means))


def jumps_come_from_other_images(result: Result) -> Finding | None:
    """A map's projections at neighbouring epochs are alike where its strongest image stayed."""
    found = [facts["continuity"] for facts in result["layers"].values() if "continuity" in facts]
    known = [pair for pair in found if None not in pair.values()]
    if not known:
        return None
    stayed, changed = (np.mean([pair[f"image_{what}"] for pair in known]) for what in ("stayed", "changed"))
    ours = f"correlation {stayed:.2f} where the image stayed, {changed:.2f} where it changed"
    least = min(pair["image_stayed"] - pair["image_changed"] for pair in known)
    return bounded(ours, least, holds_from=CLEAR, fails_to=0.0)


def first_layer_moves_more(result: Result) -> Finding | None:
    """Relative distance per small step of each image, layer 1 against layer 7."""
    if not {"conv1", "fc7"} <= set(result["layers"]):
        return None
    both = {name: result["transforms"][name] for name in ("translation", "scale")}
    slopes = {name: (facts["slope"]["conv1"], facts["slope"]["fc7"]) for name, facts in both.items()}
    ours = ", ".join(f"{name} {a / b:.1f} times" if b else f"{name}: none" for name, (a, b) in slopes.items())
    return tested(ours, every([_over_images(facts, "slope", "conv1", "fc7") for facts in both.values()]))


def top_layer_is_quasi_linear(result: Result) -> Finding | None:
    """R^2 of a line through zero in layer 7."""
    if "fc7" not in result["layers"]:
        return None
    both = {name: result["transforms"][name] for name in ("translation", "scale")}
    ours = ", ".join(f"{name} R² {facts['linearity']['fc7']:.2f}" for name, facts in both.items())
    return tested(ours, every([_over_images(facts, "linearity", "fc7", QUASI_LINEAR) for facts in both.values()]))


def _over_images(facts: Mapping[str, Any], number: str, layer: str, other: str | float) -> Outcome:
    """Whether a layer's number is above another layer's, or a constant, over the images."""
    by_layer = facts.get("of_images", {}).get(number)
    if by_layer is None:
        return untested("values of single images are missing: made by an earlier version")
    least = by_layer[other] if isinstance(other, str) else other
    return paired(np.subtract(by_layer[layer], least))


def rotation_breaks_labels(result: Result) -> Finding:
    """Labels survive translation and scale more often than rotation."""
    kept = {name: facts["label_stability"] for name, facts in result["transforms"].items()}
    ours = ", ".join(f"{name} {facts['mean']:.0%}" for name, facts in kept.items())
    rotated = kept["rotation"]["images"]
    tests = [paired(np.subtract(kept[name]["images"], rotated)) for name in ("translation", "scale")]
    return tested(f"label kept: {ours}", every(tests))


def renormalisation_tames(result: Result) -> Finding | None:
    """The strongest first-layer filter over the median one, with renormalisation and without."""
    if "unclipped" not in result["nets"]:
        return None
    if not result["renormalisation_acted"]:
        return Finding("", NOT_SHOWN, "renormalisation never acted: both networks are the same")
    return against("unclipped", lambda net: net["dominance"]["largest_over_median"], ".1f", larger=False)(result)


def against(
    role: str, number: Callable[[Mapping[str, Any]], float], form: str, *, larger: bool
) -> Callable[[Result], Finding | None]:
    """A judge of Figure 6: whether the net's number is clearly larger (smaller) than that of the net in `role`."""

    def judge(result: Result) -> Finding | None:
        if role not in result["nets"]:
            return None
        ours, other = number(result["nets"]["clipped"]), number(result["nets"][role])
        gain = (ours - other if larger else other - ours) / (other or TINY)
        return bounded(f"{ours:{form}} against {other:{form}}", gain, holds_from=CLEAR, fails_to=0.0)

    return judge


def fewer_dead_filters(result: Result) -> Finding | None:
    """The share of the first layer's filters that are weak, or that no image excites, whichever is larger."""
    if "alexnet" not in result["nets"]:
        return None
    nets = [result["nets"][role] for role in ("clipped", "alexnet")]
    dead = [max(net[f"dead_by_{what}"]["share"] for what in ("weight", "activity")) for net in nets]
    numbers = [net["num_filters"] for net in nets]
    ours = " against ".join(f"{share:.1%} of {number}" for share, number in zip(dead, numbers, strict=True))
    return tested(ours, smaller(*dead, *numbers))


def occlusion_finds_the_object(result: Result) -> Finding | None:
    """The place of the largest drop lies on the object more often than on another scene's object."""
    score = result["score"]
    if score is None:
        return None
    own, chance = (score["occlusion"][name] for name in ("object", "other_object"))
    number = score["num_images"]
    told = f"{own:.0%} of {number} scenes, by chance {chance:.0%}; gradient {score['gradient']['object']:.0%}"
    return tested(told, more_often(own, number, chance))
