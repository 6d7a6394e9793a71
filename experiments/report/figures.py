"""The paper's claims about its figures, in its order, each with the judge that holds our results against it.

A judge reads a `result.json`. Where that has a spread it tests; else it compares a number with stated bounds. It says
nothing (None) where the result does not hold what the claim is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.report.tables import TABLES
from experiments.report.verdicts import (
    ALPHA,
    FAILS,
    HOLDS,
    NOT_SHOWN,
    Claim,
    Finding,
    Outcome,
    Result,
    bounded,
    every,
    falling,
    more_often,
    paired,
    smaller,
    tested,
    untested,
)

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


def rotation_breaks_labels(result: Result) -> Finding | None:
    """Labels survive translation and scale more often than rotation; None of a network without classes."""
    if any(facts["label_stability"] is None for facts in result["transforms"].values()):
        return None
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


OVER_IMAGES = "sign-flip permutation test over the images"


BY_A_TENTH = f"by {CLEAR:.0%} at least: holds; not at all: does not hold; between: not shown"


FIGURES = (
    Claim(
        "Figure 2",
        "Projections of the strongest activations show the structures in the patches that excite a map.",
        "shown",
        "a projection correlates more with its own patch than with another map's (in brackets), in every layer by "
        f"{CLEAR:g} at least: holds; in some layer not at all: does not hold; between: not shown. An untrained network "
        "passes too, as the switches carry much of the patch: what the unit decides is measured by the sanity checks",
        resemblance,
    ),
    Claim("Figure 3", "The network's sizes.", "62,357,608 parameters; 110-55-26-13", "equal", geometry),
    Claim(
        "Figure 4",
        "The lower layers can be seen to converge within a few epochs, the upper layers only after many.",
        "a few epochs against 40 to 50",
        "the lower a layer, the nearer it is to its final features, on average over the epochs (Kendall's rank "
        "correlation over the layers)",
        lower_layers_settle_first,
    ),
    Claim(
        "Figure 4",
        "Sudden jumps in appearance come from a change of the image with the strongest activation.",
        "shown",
        "projections at neighbouring epochs correlate more where the image stayed, in every layer by "
        f"{CLEAR:g} at least: holds; in some layer not at all: does not hold; between: not shown",
        jumps_come_from_other_images,
    ),
    Claim(
        "Figure 5",
        "Small transformations have a dramatic effect in the first layer and a lesser one in the top layer.",
        "shown",
        f"the relative distance grows faster in layer 1 than in layer 7 under translation and scaling ({OVER_IMAGES})",
        first_layer_moves_more,
    ),
    Claim(
        "Figure 5",
        "In the top layer the effect of translation and scaling is quasi-linear.",
        "shown",
        f"R² of a line through zero is above {QUASI_LINEAR:g} for both ({OVER_IMAGES})",
        top_layer_is_quasi_linear,
    ),
    Claim(
        "Figure 5",
        "The output is stable to translations and scalings, but in general not to rotation.",
        "shown",
        f"the most probable class stays the same more often under each of the two than under rotation ({OVER_IMAGES})",
        rotation_breaks_labels,
    ),
    Claim(
        "Figure 6",
        "Without renormalisation a few filters of the first layer dominate.",
        "shown",
        f"the strongest filter over the median one is smaller with renormalisation, {BY_A_TENTH}",
        renormalisation_tames,
    ),
    Claim(
        "Figure 6",
        "Smaller filters and stride leave fewer dead features than AlexNet has.",
        "shown",
        "the share of filters that no image excites, or that are weak, is smaller (two-proportion test over filters)",
        fewer_dead_filters,
    ),
    Claim(
        "Figure 6",
        "AlexNet's first filters are of extremely high and low frequencies, with little of the middle ones.",
        "shown",
        f"the share of the filters' energy at middle frequencies is larger than AlexNet's, {BY_A_TENTH}",
        against("alexnet", lambda net: net["band_energy"]["middle"], ".1%", larger=True),
    ),
    Claim(
        "Figure 6",
        "The smaller stride removes the aliasing in the second layer.",
        "shown",
        "the share of the first filters' energy beyond 1 / (2 stride) cycles per pixel, which their own grid cannot "
        f"hold, is smaller than AlexNet's, {BY_A_TENTH}. Judged at the filters, not in the second layer's pictures",
        against("alexnet", lambda net: net["aliased_energy"], ".1%", larger=False),
    ),
    Claim(
        "Figure 7",
        "Hiding the object makes the probability of its class drop: the model locates the object in the scene.",
        "shown",
        "the largest drop lies on the object more often than on another scene's object (binomial test)",
        occlusion_finds_the_object,
    ),
)


CLAIMS = (*FIGURES, *TABLES)


HOW = (
    f"Where a rule names a test, a claim holds if the test's one-sided p-value is below {ALPHA:g}, and does not hold "
    "if that of the contrary is; else it is not shown, which is no refutation. Of several comparisons in one claim all "
    "have to hold, and one refutes it (Bonferroni). Where a rule names no test, its bounds decide.",
    "Tests over images say how sure the comparison of these networks is, not what other seeds would give. The paper's "
    "numbers are of ImageNet, 1,000 classes and full width: compare the order of ours, not their size.",
)
