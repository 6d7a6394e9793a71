"""The paper's claims, in its order, each with the rule by which our results are held against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments import paper_judges as judges
from experiments.paper_judges import ALPHA, Finding

LEVEL = f"at {ALPHA:.0%}"


class Claim(NamedTuple):
    """One sentence of the paper."""

    source: str  # the "figure" or "table" of the results that speak to it
    says: str
    paper: str  # its number, or where it shows it
    rule: str  # when our result bears it out
    judge: Callable[[Mapping[str, Any]], Finding | None]


CLAIMS = (
    Claim(
        "Figure 2",
        "Projections of the strongest activations show the structures in the patches that excite a map.",
        "shown",
        "in every layer a projection correlates more with its own patch than with another map's (in brackets)",
        judges.resemblance,
    ),
    Claim("Figure 3", "The network's sizes.", "62,357,608 parameters; 110-55-26-13", "equal", judges.geometry),
    Claim(
        "Figure 4",
        "The lower layers can be seen to converge within a few epochs, the upper layers only after many.",
        "a few epochs against 40 to 50",
        "in more than half of the pairs of layers the lower one is nearer to its final features over the epochs",
        judges.lower_layers_settle_first,
    ),
    Claim(
        "Figure 4",
        "Sudden jumps in appearance come from a change of the image with the strongest activation.",
        "shown",
        "in every layer projections at neighbouring epochs correlate more where the image stayed",
        judges.jumps_come_from_other_images,
    ),
    Claim(
        "Figure 5",
        "Small transformations have a dramatic effect in the first layer and a lesser one in the top layer.",
        "shown",
        "the relative distance grows faster in the lowest layer under translation and under scaling",
        judges.first_layer_moves_more,
    ),
    Claim(
        "Figure 5",
        "In the top layer the effect of translation and scaling is quasi-linear.",
        "shown",
        "R² of a line through zero is at least 0.9 for both",
        judges.top_layer_is_quasi_linear,
    ),
    Claim(
        "Figure 5",
        "The output is stable to translations and scalings, but in general not to rotation.",
        "shown",
        "the most probable class stays the same less often under rotation than under either of the others",
        judges.rotation_breaks_labels,
    ),
    Claim(
        "Figure 6",
        "Without renormalisation a few filters of the first layer dominate.",
        "shown",
        "the strongest filter over the median one is smaller with renormalisation",
        judges.against("unclipped", lambda net: net["dominance"]["ratio"], ".1f", larger=False),
    ),
    Claim(
        "Figure 6",
        "Smaller filters and stride leave fewer dead features than AlexNet has.",
        "shown",
        "the share of filters that no image excites, or that are weak, is smaller",
        judges.against(
            "alexnet",
            lambda net: max(net["dead_by_weight"]["share"], net["dead_by_activity"]["share"]),
            ".1%",
            larger=False,
        ),
    ),
    Claim(
        "Figure 6",
        "AlexNet's first filters are of extremely high and low frequencies, with little of the middle ones.",
        "shown",
        "the share of the filters' energy at middle frequencies is larger than AlexNet's",
        judges.against("alexnet", lambda net: net["band_energy"]["middle"], ".1%", larger=True),
    ),
    Claim(
        "Figure 6",
        "The smaller stride removes the aliasing in the second layer.",
        "shown",
        "the share of aliased energy in the second layer's projections is smaller than AlexNet's",
        judges.against("alexnet", lambda net: net["aliased_energy"], ".1%", larger=False),
    ),
    Claim(
        "Figure 7",
        "Hiding the object makes the probability of its class drop: the model locates the object in the scene.",
        "shown",
        f"the largest drop lies on the object more often than on another scene's (normal test, {LEVEL})",
        judges.occlusion_finds_the_object,
    ),
    Claim(
        "Table 1",
        "In layer 5 eyes and nose correspond more consistently between images than random places do.",
        ".067, .069, .079 against .107",
        f"every part's score is lower than that of random places (permutation test, {LEVEL}; largest p-value)",
        judges.parts_correspond(0),
    ),
    Claim(
        "Table 2", "The average of ten crops is used.", "silent", "it errs less than the centre", judges.ten_crops_help
    ),
    Claim(
        "Table 2",
        "Averaging several networks reduces the error.",
        "38.4 % one, 36.7 % five, 36.0 % six",
        "the average errs less than the best of its members",
        judges.averaging_helps,
    ),
    Claim(
        "Table 3",
        "Removing both the middle convolutional and the fully connected layers hurts most: depth matters.",
        "71.3 % against at most 45.4 %",
        "its validation error is the largest",
        judges.depth_matters,
    ),
    Claim(
        "Table 3",
        "The order of the variants.",
        "validation top-1 error",
        f"Spearman's rank correlation with the paper's order is above 0 ({LEVEL})",
        judges.same_order,
    ),
    *(
        Claim(
            source,
            "Features of the pretrained network beat training from scratch at every number of images.",
            numbers,
            f"at every number of images (Welch's t-test over the folds, {LEVEL}; largest p-value)",
            judges.pretrained_beats_scratch,
        )
        for source, numbers in (
            ("Table 4", "83.8 against 22.8 % (15), 86.5 against 46.5 % (30)"),
            ("Table 5, Figure 9", "65.7 against 9.0 % (15) to 74.2 against 38.8 % (60)"),
        )
    ),
    Claim(
        "Table 5, Figure 9",
        "Six images per class beat what the best earlier method reached with sixty.",
        "above 55.2 %",
        "the mean accuracy with six is above 55.2 %",
        judges.few_images_suffice,
    ),
    Claim(
        "Table 7",
        "Each layer up to the fifth gives more discriminative features than the one below.",
        "44.8, 66.2, 72.3, 76.6, 86.2 % (Caltech-101)",
        "the accuracy of a linear SVM rises from layer to layer",
        judges.higher_layers_are_better,
    ),
)
