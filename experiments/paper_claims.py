"""The paper's claims, in its order, each with the rule by which our results are held against it."""

from __future__ import annotations

from experiments import paper_judges as judges
from experiments.paper_judges import CLEAR, QUASI_LINEAR
from experiments.paper_statistics import ALPHA
from experiments.paper_table_claims import TABLES
from experiments.paper_verdicts import Claim

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
        judges.resemblance,
    ),
    Claim("Figure 3", "The network's sizes.", "62,357,608 parameters; 110-55-26-13", "equal", judges.geometry),
    Claim(
        "Figure 4",
        "The lower layers can be seen to converge within a few epochs, the upper layers only after many.",
        "a few epochs against 40 to 50",
        "the lower a layer, the nearer it is to its final features, on average over the epochs (Kendall's rank "
        "correlation over the layers)",
        judges.lower_layers_settle_first,
    ),
    Claim(
        "Figure 4",
        "Sudden jumps in appearance come from a change of the image with the strongest activation.",
        "shown",
        "projections at neighbouring epochs correlate more where the image stayed, in every layer by "
        f"{CLEAR:g} at least: holds; in some layer not at all: does not hold; between: not shown",
        judges.jumps_come_from_other_images,
    ),
    Claim(
        "Figure 5",
        "Small transformations have a dramatic effect in the first layer and a lesser one in the top layer.",
        "shown",
        f"the relative distance grows faster in layer 1 than in layer 7 under translation and scaling ({OVER_IMAGES})",
        judges.first_layer_moves_more,
    ),
    Claim(
        "Figure 5",
        "In the top layer the effect of translation and scaling is quasi-linear.",
        "shown",
        f"R² of a line through zero is above {QUASI_LINEAR:g} for both ({OVER_IMAGES})",
        judges.top_layer_is_quasi_linear,
    ),
    Claim(
        "Figure 5",
        "The output is stable to translations and scalings, but in general not to rotation.",
        "shown",
        f"the most probable class stays the same more often under each of the two than under rotation ({OVER_IMAGES})",
        judges.rotation_breaks_labels,
    ),
    Claim(
        "Figure 6",
        "Without renormalisation a few filters of the first layer dominate.",
        "shown",
        f"the strongest filter over the median one is smaller with renormalisation, {BY_A_TENTH}",
        judges.renormalisation_tames,
    ),
    Claim(
        "Figure 6",
        "Smaller filters and stride leave fewer dead features than AlexNet has.",
        "shown",
        "the share of filters that no image excites, or that are weak, is smaller (two-proportion test over filters)",
        judges.fewer_dead_filters,
    ),
    Claim(
        "Figure 6",
        "AlexNet's first filters are of extremely high and low frequencies, with little of the middle ones.",
        "shown",
        f"the share of the filters' energy at middle frequencies is larger than AlexNet's, {BY_A_TENTH}",
        judges.against("alexnet", lambda net: net["band_energy"]["middle"], ".1%", larger=True),
    ),
    Claim(
        "Figure 6",
        "The smaller stride removes the aliasing in the second layer.",
        "shown",
        "the share of the first filters' energy beyond 1 / (2 stride) cycles per pixel, which their own grid cannot "
        f"hold, is smaller than AlexNet's, {BY_A_TENTH}. Judged at the filters, not in the second layer's pictures",
        judges.against("alexnet", lambda net: net["aliased_energy"], ".1%", larger=False),
    ),
    Claim(
        "Figure 7",
        "Hiding the object makes the probability of its class drop: the model locates the object in the scene.",
        "shown",
        "the largest drop lies on the object more often than on another scene's object (binomial test)",
        judges.occlusion_finds_the_object,
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
