"""The paper's claims about its figures, in its order, each above the judge that holds our results against it.

A judge reads a `result.json`. Where that has a spread it tests; else it compares a number with stated bounds. It says
nothing (None) where the result does not hold what the claim is about. Before a figure's claims stands what its results
hold, as far as it is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NotRequired, TypedDict

import numpy as np

from experiments.report.results import side_words
from experiments.report.statistics import (
    ALPHA,
    Outcome,
    every,
    falling,
    mostly,
    paired,
    permuted,
    smaller,
    unpaired,
    untested,
    with_interval,
)
from experiments.report.tables import TABLES
from experiments.report.verdicts import (
    COMPARED,
    FAILS,
    HOLDS,
    LONG,
    MANY_CLASSES,
    NOT_SHOWN,
    NOTHING,
    TRAINED,
    Finding,
    bounded,
    claim,
    reaches,
    tested,
)
from zfjax.analyses import evolution
from zfjax.analyses.evolution import Continuity, OfPairs
from zfjax.analyses.filters import Aliasing
from zfjax.analyses.strongest import ByChance
from zfjax.errors import UserError
from zfjax.schema import Count, Range, Share, entry

# Margins of what has no spread to test by, each larger than what the nulls of `null_claims` come to by chance alone:
CLEAR = 0.1  # of correlation: above layer 1 two draws of weights differ by .04 at most
AHEAD = 0.1  # of similarity: half the layers of a network whose weights walk at random are ahead by less than .04
MORE = 1.5  # times: by 1.3 at most two draws of weights differ in how much more layer 1 moves, in all images alike
FURTHER = 0.1  # of the amounts: two draws of weights differ by less in how much more often labels are kept under both
COARSER = 0.1  # of white noise's share that is too fine for the grid: two seeds of one net differ by .06
MIDDLE = 0.05  # of a filter's energy: two seeds of one net differ by .03
DOMINATES = 2.0  # times: in two networks that were drawn, or trained, alike the strongest filters differ by 1.1 at most
# Paper is silent on what is quasi-linear: here a line leaves less than a third of a curve's size, sqrt(1 - .9), over
QUASI_LINEAR = 0.9  # R^2 of a line through zero
CURVED = 0.75  # R^2 of a line that leaves half of a curve's size, sqrt(1 - .75): below it no curve is called linear
# Paper is silent on what is stable: here the label is kept at no fewer of the amounts than it is lost
STABLE = 0.5  # of the amounts

CONVOLUTIONS = tuple(f"conv{number}" for number in range(1, 6))  # whose maps the paper's figures project
DRAWN_ANEW = "the same network with random weights"
OVER_IMAGES = "sign-flip permutation test over the images"
OVER_FILTERS = "Welch's t-test over the filters"


class ProjectedLayer(TypedDict):
    """One layer of Figure 2."""

    resemblance: ByChance  # correlations


class Projections(TypedDict):
    """A result of Figure 2."""

    layers: dict[str, ProjectedLayer]


@claim(
    "Figure 2",
    says="Projections of the strongest activations show the structures in the patches that excite a map.",
    paper="shown",
    rule="in each of layers 2 to 5 (the filters of layer 1 look like what excites them whatever they are) a projection "
    "correlates with its own patch more than with another map's patch (first number "
    "in brackets), and more than the projection of the same place with random weights does (second number; switches "
    f"alone carry much of the patch), by at least {CLEAR:g}: holds; in one of them by as much less than with another "
    "map's patch: does not hold; otherwise, or where a layer or a number is missing: not shown",
    needs=TRAINED,
)
def resemblance(result: Projections) -> Finding | None:
    """Projections and their patches correlate, more than with another map's patches, and more than untrained ones."""
    all_layers = {layer: _of_projections(facts) for layer, facts in result["layers"].items()}
    known = {layer: of for layer, of in all_layers.items() if None not in of[:2]}
    if not known:
        return None
    ours = ", ".join(f"{layer} {_beside(*of)}" for layer, of in known.items())
    above = {layer: known.get(layer) for layer in CONVOLUTIONS[1:]}
    lacking = Finding(ours, NOT_SHOWN, _nothing_in(above))
    if not any(above.values()):
        return lacking
    own, others, untrained = np.array([of for of in above.values() if of], np.float64).T  # NaN for None
    finding = bounded(ours, float(min(own - others)), holds_from=CLEAR, fails_to=-CLEAR)
    if finding.verdict != HOLDS:
        return finding
    if not all(above.values()):
        return lacking
    if np.isnan(untrained).any():
        return Finding(ours, NOT_SHOWN, f"not compared with {DRAWN_ANEW}")
    return bounded(ours, float(min(own - untrained)), holds_from=CLEAR, fails_to=-np.inf)


def _of_projections(facts: ProjectedLayer) -> tuple[float | None, float | None, float | None]:
    of = facts["resemblance"]
    return of["value"], of["by_chance"], of.get("untrained")


def _nothing_in(layers: Mapping[str, object]) -> str:
    """Names those of which nothing is known."""
    return f"nothing to compare in {', '.join(layer for layer, of in layers.items() if of is None)}"


def _beside(value: float | None, by_chance: float | None, untrained: float | None) -> str:
    return f"{value:z.2f} ({by_chance:z.2f}{'' if untrained is None else f', {untrained:z.2f}'})"


class Sizes(TypedDict):
    """What is compared."""

    num_parameters: int
    map_sides: list[int | tuple[int, int]]  # a side, or [rows, columns]


class Diagram(Sizes):
    """A result of Figure 3, and the paper's sizes of its network; None for another one."""

    architecture: str  # its name
    paper: Sizes | None


@claim(
    "Figure 3",
    says="The network's sizes.",
    paper="drawn: maps of 110, 55, 26, 13; from these follow 62,357,608 parameters, which it does not print",
    rule="equal",
    needs=NOTHING,
)
def geometry(result: Diagram) -> Finding | None:
    """The table's map sizes and parameters."""
    if (papers := result["paper"]) is None or result["architecture"] != "zfnet":  # AlexNet's are of another paper
        return None
    ours = f"{result['num_parameters']:,} parameters, maps of {'-'.join(map(side_words, result['map_sides']))}"
    same = result["num_parameters"] == papers["num_parameters"] and result["map_sides"] == papers["map_sides"]
    return Finding(ours, HOLDS if same else FAILS)


class EvolvedLayer(TypedDict):
    """One layer of Figure 4."""

    similarity: list[float | None]  # to its final features, at each epoch
    straight: NotRequired[list[float]]  # the same, were all weights to go one straight way; earlier versions lack it
    continuity: NotRequired[Continuity]  # of the layers that are drawn


class Evolution(TypedDict):
    """A result of Figure 4."""

    lower_layers_first: float | None  # share of the pairs of layers
    layers: dict[str, EvolvedLayer]


@claim(
    "Figure 4",
    says="The lower layers can be seen to converge within a few epochs, the upper layers only after many.",
    paper="a few epochs against 40 to 50",
    rule="compared with weights on a straight line from the first to the last epoch (where lower layers are nearer to "
    "their final state too, because a change in a lower layer changes those above), averaged over the epochs, the "
    "lower a layer, the further its features are ahead (Kendall's rank correlation over the layers), and the lower "
    f"half of the layers is ahead of the upper half by at least {AHEAD:g}: holds; the contrary of both, and the upper "
    "layer is nearer in most pairs: does not hold; otherwise, or where one of layers 1 to 5 is missing: not shown",
    needs=LONG,
)
def lower_layers_settle_first(result: Evolution) -> Finding | None:
    """How far layers are ahead of the straight way, beside the share of pairs whose lower one is nearer to its end."""
    share = result["lower_layers_first"]
    if share is None or share != share:
        return None
    ours = f"in {share:.0%} of the pairs of layers the lower one is nearer"
    ways = {layer: facts["straight"] for layer, facts in result["layers"].items() if "straight" in facts}
    if len(ways) < 2:
        return Finding(ours, NOT_SHOWN, "not compared with a straight line of the weights")
    ahead = [_ahead(layer, result["layers"][layer]["similarity"], way) for layer, way in ways.items()]
    if not np.isfinite(ahead).all():
        return Finding(ours, NOT_SHOWN, "in some layer no similarity between the first and the last epoch is known")
    half = len(ahead) // 2
    by = float(np.mean(ahead[:half]) - np.mean(ahead[-half:]))
    alone = evolution.lower_first([*ways.values()])
    ours += f" (on the straight way {alone:.0%}); the lower half is ahead of it by {by:+.2f} more than the upper half"
    if lacking := [layer for layer in CONVOLUTIONS if layer not in ways]:
        return Finding(ours, NOT_SHOWN, f"not compared with a straight line of the weights in {', '.join(lacking)}")
    finding = tested(ours, falling(ahead))
    if finding.verdict != NOT_SHOWN and not reaches(by if finding.verdict == HOLDS else -by, AHEAD):
        return Finding(ours, NOT_SHOWN, f"the halves do not differ so by {AHEAD:g}")
    if finding.verdict == FAILS and share >= 0.5:
        return Finding(ours, NOT_SHOWN, "in most pairs the lower layer is nearer, as on the straight way")
    return finding


def _ahead(layer: str, similarity: Sequence[float | None], straight: Sequence[float]) -> float:
    """Mean over the epochs between the first and the last, where the straight way begins and ends."""
    if len(similarity) != len(straight):
        raise UserError(f"layers.{layer}.straight: one for each of {len(similarity)} epochs is needed")
    differences = np.array(similarity, np.float64) - np.array(straight)
    return float(differences[1:-1].mean()) if len(differences) > 2 else np.nan


@claim(
    "Figure 4",
    says="Sudden jumps in appearance come from a change of the image with the strongest activation.",
    paper="shown",
    rule="in each of layers 1 to 5 projections at neighbouring epochs correlate more where the image stayed than where "
    f"it changed, by {CLEAR:g} at least and beyond what maps and epochs have in common (sign-flip permutation test "
    "over the maps of what is left when each map and each epoch has its own level): holds; in one of them less, "
    "likewise: does not hold; otherwise, or where one is not drawn, or no image stayed in it or none changed: not "
    "shown",
    needs=LONG,
)
def jumps_come_from_other_images(result: Evolution) -> Finding | None:
    """A map's projections at neighbouring epochs are alike where its strongest image stayed."""
    layers = {layer: _both_means(result["layers"].get(layer)) for layer in CONVOLUTIONS}
    known = {layer: of for layer, of in layers.items() if of is not None}
    if not known:
        return None
    stayed, changed = np.array([*known.values()]).T
    ours = f"correlation {stayed.mean():.2f} where the image stayed, {changed.mean():.2f} where it changed"
    tests = []
    for layer, (mean_stayed, mean_changed) in known.items():
        test = _over_maps(result["layers"][layer]["continuity"].get("of_pairs"))
        tests.append(test if reaches(mean_changed - mean_stayed, CLEAR) else _refutes_nothing(test))
    finding = tested(ours, every(tests))
    if finding.verdict != HOLDS:
        return finding
    if not reaches(least := float(min(stayed - changed)), CLEAR):
        return Finding(ours, NOT_SHOWN, f"by {least:.2g} in some layer, where {CLEAR:g} is needed")
    return finding if len(known) == len(layers) else Finding(ours, NOT_SHOWN, _nothing_in(layers))


def _both_means(facts: EvolvedLayer | None) -> tuple[float, float] | None:
    """Mean correlation where the image stayed and where it changed; None where one is not known."""
    if facts is None or "continuity" not in facts:
        return None
    stayed, changed = facts["continuity"]["image_stayed"], facts["continuity"]["image_changed"]
    return None if stayed is None or changed is None else (stayed, changed)


def _over_maps(pairs: OfPairs | None) -> Outcome:
    """Whether projections correlate more where the image stayed, apart from what maps and epochs have in common."""
    if pairs is None:
        return untested("values of single pairs are missing: made by an earlier version")
    correlation = np.array(pairs["correlation"], np.float64)  # NaN for None
    stayed = np.array(pairs["image_stayed"], np.float64)
    if correlation.ndim != 2 or correlation.shape != stayed.shape:
        raise UserError(
            f"of_pairs of shapes {correlation.shape} and {stayed.shape}: both [epochs - 1, maps] are needed"
        )
    known = np.isfinite(correlation)
    of_maps = (_beyond_both(correlation, known) * _beyond_both(stayed, known)).sum(axis=0)[known.any(axis=0)]
    return paired(of_maps.tolist()) if len(of_maps) > 1 else untested("one map in some layer")


def _beyond_both(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What is left of [E, M] where each row and each column has its own level: least squares over what is known."""
    rows, columns = np.nonzero(known)
    levels = np.concatenate([np.eye(known.shape[0])[rows], np.eye(known.shape[1])[columns]], axis=1)
    left = np.zeros(known.shape)
    left[known] = values[known] - levels @ np.linalg.lstsq(levels, values[known], rcond=None)[0]
    return left


class OfImages(TypedDict):
    """A curve's numbers by layer, one for each image."""

    slope: NotRequired[dict[str, list[float]]]
    linearity: NotRequired[dict[str, list[float]]]


class Stability(TypedDict):
    """How often the most probable class stays: over all images, and of each."""

    mean: Share
    images: list[Share]
    num_amounts: NotRequired[Count]  # earlier versions lack it, and counted the picture that is not moved


class Transform(TypedDict):
    """One way of moving the images of Figure 5; numbers by layer are means over the images."""

    slope: dict[str, float]
    linearity: dict[str, float]
    of_images: NotRequired[OfImages]  # earlier versions did not write it
    label_stability: Stability | None  # None of a network without classes


class Transforms(TypedDict):
    """All of them."""

    translation: Transform
    scale: Transform
    rotation: Transform


class DrawnAnew(TypedDict):
    """As `Transform`, of a network whose weights are drawn anew: its labels mean nothing, but may stay."""

    of_images: OfImages
    label_stability: NotRequired[Stability | None]


class AllDrawnAnew(TypedDict):
    """Those that are held against a trained network's."""

    translation: DrawnAnew
    scale: DrawnAnew
    rotation: NotRequired[DrawnAnew]  # earlier versions did not write it


class Invariance(TypedDict):
    """A result of Figure 5."""

    layers: list[str]
    transforms: Transforms
    # of the same pictures, were the weights drawn anew; earlier versions lack it
    untrained: NotRequired[AllDrawnAnew | None]


SHIFTS: tuple[Literal["translation", "scale"], ...] = ("translation", "scale")
MOVES: tuple[Literal["translation", "scale", "rotation"], ...] = (*SHIFTS, "rotation")


@claim(
    "Figure 5",
    says="Small transformations have a dramatic effect in the first layer and a lesser one in the top layer.",
    paper="shown",
    rule="under translation and scaling the relative distance grows faster in layer 1 than in layer 7, by a factor of "
    f"more than {MORE:g}, and of more than {MORE:g} times that of the same network with random weights, because layers "
    f"and pools alone make upper layers more stable: holds; under one of them more slowly by more than {MORE:g} times: "
    f"does not hold; otherwise: not shown ({OVER_IMAGES} of the factors' logarithms)",
    needs=MANY_CLASSES,
)
def first_layer_moves_more(result: Invariance) -> Finding | None:
    """Relative distance per small step of each image, layer 1 against layer 7."""
    if not {"conv1", "fc7"} <= set(result["layers"]):
        return None
    both = {name: result["transforms"][name] for name in SHIFTS}
    slopes = {
        name: (entry(facts["slope"], "conv1", "slope"), entry(facts["slope"], "fc7", "slope"))
        for name, facts in both.items()
    }
    ours = ", ".join(f"{name} {a / b:.1f} times" if b else f"{name}: none" for name, (a, b) in slopes.items())
    of_images = [facts.get("of_images", {}) for facts in both.values()]
    factors = [_factors(of) if "slope" in of else [] for of in of_images]  # none of an earlier version
    tests = [_by_more(of) for of in factors]
    if (untrained := result.get("untrained")) is None:
        return _unless_blocked(ours, tests, [untested(f"not compared with {DRAWN_ANEW}")])
    controls, beside = [], []
    for name, trained in zip(SHIFTS, factors, strict=True):
        drawn_anew = _factors(untrained[name]["of_images"])
        controls.append(_by_more(_differences(trained, drawn_anew)))
        beside.append(f"{name} {np.exp(np.mean(drawn_anew)):.1f}")
    return _unless_blocked(f"{ours} (weights drawn anew: {', '.join(beside)})", tests, controls)


@claim(
    "Figure 5",
    says="In the top layer the effect of translation and scaling is quasi-linear.",
    paper="shown",
    rule=f"in most images R² of a line through zero is above {QUASI_LINEAR:g}, for both: holds; in most below "
    f"{CURVED:g}, for one of them: does not hold; otherwise: not shown (exact sign test over the images; one that does "
    "not move layer 7 counts for neither side). Paper is silent: the bounds",
    needs=MANY_CLASSES,
)
def top_layer_is_quasi_linear(result: Invariance) -> Finding | None:
    """R^2 of a line through zero in layer 7."""
    if "fc7" not in result["layers"]:
        return None
    words, tests = [], []
    for name in SHIFTS:
        values = _linearities(of) if (of := result["transforms"][name].get("of_images")) else []
        moved = [value for value in values if value is not None]
        still = f" ({len(values) - len(moved)} of {len(values)} images do not move it)" if moved != values else ""
        words.append(f"{name} R² {np.median(moved):.2f}{still}" if moved else f"{name}: none")
        tests.append(mostly([0.0 if value is None else _beyond_bounds(value) for value in values]))
    return tested(f"median of {', '.join(words)}", every(tests))


def _beyond_bounds(r2: float) -> float:
    """How far above QUASI_LINEAR, or (below 0) below CURVED; 0 between them."""
    return max(r2 - QUASI_LINEAR, 0.0) + min(r2 - CURVED, 0.0)


def _linearities(of_images: OfImages) -> list[float | None]:
    """R^2 of each image in layer 7; None where that stays as it is, of which `linearity` is 1 and the slope 0."""
    if "linearity" not in of_images:
        return []
    values = entry(of_images["linearity"], "fc7", "of_images.linearity")
    slopes = of_images.get("slope", {}).get("fc7", [0.0] * len(values))
    if len(values) != len(slopes):
        raise UserError(f"R² of {len(values)} images and slopes of {len(slopes)} cannot be compared")
    return [None if value == 1 and slope == 0 else value for value, slope in zip(values, slopes, strict=True)]


@claim(
    "Figure 5",
    says="The output is stable to translations and scalings, but in general not to rotation.",
    paper="shown",
    rule="under each of the two the most probable class stays the same more often than under rotation, by more than "
    f"{FURTHER:g} of the amounts, and by {FURTHER:g} more than that of the same network with random weights does, and "
    f"on average at {STABLE:g} of the amounts or more: holds; under one of them less often by more than {FURTHER:g}: "
    f"does not hold; otherwise: not shown ({OVER_IMAGES}). Paper is silent: what is stable",
    needs=MANY_CLASSES,
)
def rotation_breaks_labels(result: Invariance) -> Finding | None:
    """Labels survive translation and scale more often than rotation; None of a network without classes."""
    known, anew = _labels_kept(result["transforms"]), _labels_kept(result.get("untrained"))
    if known is None:
        return None
    ours = f"label kept: {_kept_words(known)}"
    if not all("num_amounts" in kept for kept in known.values()):
        return Finding(ours, NOT_SHOWN, "the picture that is not moved is counted: made by an earlier version")
    excess = _excess(known)
    if anew is None:
        controls = [untested(f"not compared with {DRAWN_ANEW}")]
    else:
        controls = [paired(_differences(excess[name], of), margin=FURTHER) for name, of in _excess(anew).items()]
        ours += f" (weights drawn anew: {_kept_words(anew)})"
    finding = _unless_blocked(ours, [paired(of, margin=FURTHER) for of in excess.values()], controls)
    if finding.verdict == HOLDS and (least := min(known[name]["mean"] for name in SHIFTS)) < STABLE:
        return Finding(ours, NOT_SHOWN, f"under one of the two at {least:.1%} of the amounts, less than {STABLE:.0%}")
    return finding


def _labels_kept(transforms: Transforms | AllDrawnAnew | None) -> dict[str, Stability] | None:
    """How often labels are kept, by transform; None where that is not known of all."""
    if transforms is None or "rotation" not in transforms:
        return None
    known: dict[str, Stability] = {
        name: kept for name in MOVES if (kept := transforms[name].get("label_stability")) is not None
    }
    return known if len(known) == len(MOVES) else None


def _kept_words(kept: dict[str, Stability]) -> str:
    """As "rotation 50.0% (18.8% to 81.2%)" of each transform."""
    return ", ".join(f"{name} {with_interval(of['mean'], len(of['images']))}" for name, of in kept.items())


def _excess(kept: dict[str, Stability]) -> dict[str, Sequence[float]]:
    """How much more often the label of each image is kept than under rotation."""
    return {name: _differences(kept[name]["images"], kept["rotation"]["images"]) for name in SHIFTS}


def _unless_blocked(ours: str, tests: Sequence[Outcome], controls: Sequence[Outcome]) -> Finding:
    """By tests; where they would hold, controls have to as well. A control refutes nothing."""
    finding = tested(ours, every(tests))
    if finding.verdict != HOLDS:
        return finding
    return tested(ours, every([*tests, *map(_refutes_nothing, controls)]))


def _refutes_nothing(test: Outcome) -> Outcome:
    return test._replace(against=None if test.against is None else 1.0)


def _by_more(factors: Sequence[float]) -> Outcome:
    """Whether factors, as logarithms, are above MORE."""
    if np.isnan(factors).any():
        return untested("some images do not move layer 1 or 7")
    return paired(factors, margin=float(np.log(MORE)))


def _factors(of_images: OfImages) -> list[float]:
    """The logarithm of layer 1's slope over layer 7's of each image; NaN where one of them is not above 0."""
    first, last = (entry(of_images.get("slope", {}), layer, "of_images.slope") for layer in ("conv1", "fc7"))
    if len(first) != len(last):
        raise UserError(f"slopes of {len(first)} and of {len(last)} images cannot be compared")
    pairs = zip(first, last, strict=True)
    return [float(np.log(a / b)) if a > 0 and b > 0 else np.nan for a, b in pairs]


def _differences(values: Sequence[float], others: Sequence[float]) -> Sequence[float]:
    """Image by image; UserError for other images."""
    if len(values) != len(others):
        raise UserError(f"values of {len(values)} and of {len(others)} images cannot be compared")
    return [value - other for value, other in zip(values, others, strict=True)]


class Dominance(TypedDict):
    """How far the strongest filter stands out."""

    largest_over_median: Annotated[float, Range(1, np.inf)]


class Dead(TypedDict):
    """The dead filters' share of all."""

    share: Share


class Bands(TypedDict):
    """The energy's share at middle frequencies."""

    middle: float


class SingleFilters(TypedDict):
    """Shares of each filter's energy."""

    middle: list[float]
    aliased: NotRequired[list[float]]


class FirstLayer(TypedDict):
    """One network of Figure 6."""

    num_filters: Count
    dominance: Dominance
    dead_by_weight: Dead
    dead_by_activity: NotRequired[Dead]  # absent where the network has no layer of the filters' maps
    band_energy: Bands
    of_filters: NotRequired[SingleFilters]  # earlier versions did not write it
    # absent where the filters' stride is not known
    aliased_energy: NotRequired[float]
    aliased_by_noise: NotRequired[float]
    on_finer_grid: NotRequired[Aliasing]  # of AlexNet at the smaller stride; earlier versions did not write it


class Roles(TypedDict):
    """Ours, ours without renormalisation, and AlexNet."""

    clipped: FirstLayer
    unclipped: NotRequired[FirstLayer]
    alexnet: NotRequired[FirstLayer]


class FirstLayers(TypedDict):
    """A result of Figure 6."""

    nets: Roles
    renormalisation_acted: bool | None  # None where there is no network without it


@claim(
    "Figure 6",
    says="Without renormalisation a few filters of the first layer dominate.",
    paper="shown",
    rule=f"the ratio of the strongest to the median filter is at least {DOMINATES:g} times as large without "
    f"renormalisation: holds; at most 1/{DOMINATES:g} of it: does not hold; between: not shown",
    needs=COMPARED,
)
def renormalisation_tames(result: FirstLayers) -> Finding | None:
    """The strongest first-layer filter over the median one, with renormalisation and without."""
    if "unclipped" not in result["nets"]:
        return None
    if not result["renormalisation_acted"]:
        return Finding("", NOT_SHOWN, "without renormalisation no filter ends above its radius")
    ours, other = (result["nets"][role]["dominance"]["largest_over_median"] for role in ("clipped", "unclipped"))
    return bounded(f"{ours:.1f} against {other:.1f}", other / ours, holds_from=DOMINATES, fails_to=1 / DOMINATES)


@claim(
    "Figure 6",
    says="Smaller filters and stride leave fewer dead features than AlexNet has.",
    paper="shown",
    rule="the share of filters that are weak is smaller, or that of filters that no image excites, where both networks "
    "tell it and it is the larger of the two (two-proportion test over filters)",
    needs=COMPARED,
)
def fewer_dead_filters(result: FirstLayers) -> Finding | None:
    """The share of the first layer's filters that are weak, or that no image excites, whichever is larger."""
    if "alexnet" not in result["nets"]:
        return None
    nets = (result["nets"]["clipped"], result["nets"]["alexnet"])
    kinds = [name for name in ("dead_by_weight", "dead_by_activity") if all(name in net for net in nets)]
    share, other = (max(net[name]["share"] for name in kinds) for net in nets)  # type: ignore[literal-required]
    num, num_other = (net["num_filters"] for net in nets)
    ours = f"{with_interval(share, num)} of {num} against {with_interval(other, num_other)} of {num_other}"
    return tested(ours, smaller(share, other, num=num, num_other=num_other))


@claim(
    "Figure 6",
    says="AlexNet's first filters are of extremely high and low frequencies, with little of the middle ones.",
    paper="shown",
    rule=f"the share of the filters' energy at middle frequencies is larger than AlexNet's by more than {MIDDLE:g} "
    f"({OVER_FILTERS}; the contrary likewise)",
    needs=COMPARED,
)
def more_middle_frequencies(result: FirstLayers) -> Finding | None:
    """The share of the first filters' energy at middle frequencies, against AlexNet's."""
    if "alexnet" not in result["nets"]:
        return None
    ours, other = (result["nets"][role] for role in ("clipped", "alexnet"))
    shares, others = (net["of_filters"]["middle"] if "of_filters" in net else [] for net in (ours, other))
    words = f"{ours['band_energy']['middle']:.1%} against {other['band_energy']['middle']:.1%}"
    return tested(words, unpaired(shares, others, margin=MIDDLE))


@claim(
    "Figure 6",
    says="The smaller stride removes the aliasing in the second layer.",
    paper="shown",
    rule="the share of the first filters' energy beyond 1 / (2 stride) cycles per pixel, which their own grid cannot "
    "hold, over that of white noise, which the stride alone decides, is smaller by more than "
    f"{COARSER:g} than AlexNet's, and than that of AlexNet's filters at the smaller stride, because a finer grid holds "
    f"more of any smooth filter: holds; larger than AlexNet's by more than {COARSER:g}: does not hold; otherwise: not "
    f"shown ({OVER_FILTERS}). Judged at the filters, not in the second layer's pictures",
    needs=COMPARED,
)
def less_aliasing(result: FirstLayers) -> Finding | None:
    """The share of the first filters' energy that is too fine for their grid, against AlexNet's at both strides."""
    if "alexnet" not in result["nets"]:
        return None
    ratios, words = [], []
    for net in (result["nets"][role] for role in ("clipped", "alexnet")):
        if "aliased_energy" not in net:
            return None
        noise = net.get("aliased_by_noise")
        shares = net["of_filters"].get("aliased", []) if "of_filters" in net else []
        ratios.append(_over_noise(shares, noise))
        words.append(f"{net['aliased_energy']:.1%}" + (f" ({noise:.1%} of white noise)" if noise else ""))
    ours, other = ratios
    sentence, control = " against ".join(words), untested("AlexNet's filters were not read at the smaller stride")
    if finer := result["nets"]["alexnet"].get("on_finer_grid"):
        sentence += f", AlexNet's filters at stride {side_words(finer['stride'])}: {finer['aliased_energy']:.1%}"
        control = unpaired(_over_noise(finer["aliased"], finer["aliased_by_noise"]), ours, margin=COARSER)
    return _unless_blocked(sentence, [unpaired(other, ours, margin=COARSER)], [control])


def _over_noise(shares: Sequence[float], noise: float | None) -> list[float]:
    """Shares of each filter in units of that of white noise; none where that is not known."""
    return [share / noise for share in shares] if noise else []


class Pointing(TypedDict):
    """How often a place lies on the image's object, and on that of another image."""

    object: Share
    other_object: Share
    p: NotRequired[Share]  # earlier versions did not write it
    p_contrary: NotRequired[Share]


class Score(TypedDict):
    """Of the place of the largest drop, and of the largest gradient."""

    num_images: Count
    occlusion: Pointing
    gradient: Pointing


class Occlusion(TypedDict):
    """A result of Figure 7; no score where the data do not say where objects are."""

    score: Score | None


@claim(
    "Figure 7",
    says="Hiding the object makes the probability of its class drop: the model locates the object in the scene.",
    paper="shown",
    rule="the largest drop lies on the object more often than where the objects are exchanged between scenes "
    "(permutation test)",
    needs=TRAINED,
)
def occlusion_finds_the_object(result: Occlusion) -> Finding | None:
    """The place of the largest drop lies on the object more often than on another scene's object."""
    score = result["score"]
    if score is None:
        return None
    number, places = score["num_images"], score["occlusion"]
    of_objects = (places["object"], places["other_object"], score["gradient"]["object"])
    own, chance, gradient = (with_interval(share, number) for share in of_objects)
    ours = f"{own} of {number} scenes, by chance {chance}; gradient {gradient}"
    return tested(ours, permuted(places.get("p"), places.get("p_contrary")))


FIGURES = (
    resemblance,
    geometry,
    lower_layers_settle_first,
    jumps_come_from_other_images,
    first_layer_moves_more,
    top_layer_is_quasi_linear,
    rotation_breaks_labels,
    renormalisation_tames,
    fewer_dead_filters,
    more_middle_frequencies,
    less_aliasing,
    occlusion_finds_the_object,
)

CLAIMS = (*FIGURES, *TABLES)

HOW = (
    f"Where a rule names a test, a claim holds if the test's one-sided p-value is below {ALPHA:g}, and does not hold "
    "if that of the contrary is; else it is not shown, which is no refutation. Of several comparisons in one claim all "
    "have to hold, and one refutes it (Bonferroni). Where a rule names no test, its bounds decide.",
    "Tests over images say how sure the comparison of these networks is, not what other seeds would give. The paper's "
    "numbers are of ImageNet, 1,000 classes and full width: compare the order of ours, not their size.",
)
