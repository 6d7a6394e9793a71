"""Each claim of the paper, on results made by hand: it holds, fails, or nothing can be said, by the stated rule."""

import pytest
import scipy.stats

from experiments import paper_judges as judges
from experiments.paper_claims import CLAIMS


def layers(**facts):
    return {"layers": facts}


def pair(value, by_chance):
    return {"resemblance": {"value": value, "by_chance": by_chance}}


def rows(*numbers, **more):
    """(arm, images per class, folds...) -> rows as transfer_learning writes them."""
    return {
        "rows": [
            {"arm": arm, "num_train": size, "folds": list(folds), "mean": sum(folds) / len(folds)}
            for arm, size, *folds in numbers
        ],
        **more,
    }


def invariance(translation, scale, rotation, name):
    values = {"translation": translation, "scale": scale, "rotation": rotation}
    if name == "linearity":
        wrapped = {key: {name: {"conv1": 0.0, "fc7": value}} for key, value in values.items()}
    else:
        wrapped = {key: {name: {"mean": v} if name == "label_stability" else v} for key, v in values.items()}
    return {"layers": ["conv1", "fc7"], "transforms": wrapped}


def occlusion(own, chance, error=0.03):
    score = {"object": own, "other_object": chance, "standard_error": error}
    return {"score": {"num_images": 100, "occlusion": score, "gradient": {"object": 0.5}}}


def parts(*p_values):
    rows = {f"part {n}": {"delta": 0.1, "p": p} for n, p in enumerate(p_values)}
    return layers(conv5={**rows, "random": {"delta": 0.2, "p": None}})


def evaluated(together, *alone):
    def error(top1):
        return {"ten": {"top1": top1}, "center": {"top1": 0.4}}

    return {"num_images": 9, "error": error(together), "members": [{"error": error(top1)} for top1 in alone]}


def variants(**errors):
    named = {"shallow": "alexnet, no conv3,4,fc6,7"}
    return {
        "rows": [
            {"name": named.get(name, name), "paper": [1, 2, 3], "error": {"validation": {"top1": error}}}
            for name, error in errors.items()
        ]
    }


def svm(*means):
    return {"rows": [{"layer": f"conv{n}", "classifier": "svm", "mean": mean} for n, mean in enumerate(means, 1)]}


def first_layers(ours, other):
    def net(value):
        return {"dominance": {"ratio": value}}

    return {"nets": {"clipped": net(ours), **({} if other is None else {"unclipped": net(other)})}}


dominance = judges.against("unclipped", lambda net: net["dominance"]["ratio"], ".1f", larger=False)
CASES = [
    (judges.resemblance, layers(conv1=pair(0.5, 0.1), conv2=pair(0.2, 0.1)), True),
    (judges.resemblance, layers(conv1=pair(0.5, 0.1), conv2=pair(0.1, 0.1)), False),
    (judges.resemblance, layers(conv1=pair(None, None)), None),
    (judges.lower_layers_settle_first, {"lower_layers_first": 0.51}, True),
    (judges.lower_layers_settle_first, {"lower_layers_first": 0.5}, False),
    (judges.lower_layers_settle_first, {"lower_layers_first": None}, None),
    (judges.first_layer_moves_more, invariance(2.0, 1.1, 0.1, "slope_ratio"), True),
    (judges.first_layer_moves_more, invariance(2.0, 0.9, 9.0, "slope_ratio"), False),
    (judges.first_layer_moves_more, invariance(2.0, None, 9.0, "slope_ratio"), False),
    (judges.top_layer_is_quasi_linear, invariance(0.9, 0.95, 0.0, "linearity"), True),
    (judges.top_layer_is_quasi_linear, invariance(0.95, 0.89, 1.0, "linearity"), False),
    (judges.rotation_breaks_labels, invariance(0.9, 0.8, 0.7, "label_stability"), True),
    (judges.rotation_breaks_labels, invariance(0.9, 0.6, 0.7, "label_stability"), False),
    (dominance, first_layers(2.0, 9.0), True),
    (dominance, first_layers(9.0, 2.0), False),
    (dominance, first_layers(9.0, None), None),
    (judges.occlusion_finds_the_object, occlusion(0.9, 0.8), True),
    (judges.occlusion_finds_the_object, occlusion(0.82, 0.8), False),
    (judges.occlusion_finds_the_object, occlusion(1.0, 0.8, error=0.0), True),
    (judges.occlusion_finds_the_object, {"score": None}, None),
    (judges.parts_correspond(0), parts(0.01, 0.04), True),
    (judges.parts_correspond(0), parts(0.01, 0.06), False),
    (judges.parts_correspond(1), parts(0.01), None),
    (judges.averaging_helps, evaluated(0.3, 0.35, 0.31), True),
    (judges.averaging_helps, evaluated(0.31, 0.35, 0.31), False),
    (judges.averaging_helps, evaluated(0.3, 0.3), None),
    (judges.ten_crops_help, evaluated(0.39), True),
    (judges.ten_crops_help, evaluated(0.4), False),
    (judges.depth_matters, variants(shallow=0.7, alexnet=0.4, zfnet=0.3), True),
    (judges.depth_matters, variants(shallow=0.4, alexnet=0.4), False),
    (judges.depth_matters, variants(alexnet=0.4), None),
    (judges.same_order, {"rank_correlation": {"rho": 0.6, "p_value": 0.09, "num_variants": 12}}, True),
    (judges.same_order, {"rank_correlation": {"rho": 0.5, "p_value": 0.11, "num_variants": 12}}, False),
    (judges.same_order, {"rank_correlation": {"rho": -0.9, "p_value": 0.001, "num_variants": 12}}, False),
    (judges.same_order, {"rank_correlation": None}, None),
    (judges.pretrained_beats_scratch, rows(("pretrained", 15, 60), ("scratch", 15, 50)), True),
    (judges.pretrained_beats_scratch, rows(("pretrained", 15, 60, 61), ("scratch", 15, 50, 51)), True),
    (judges.pretrained_beats_scratch, rows(("pretrained", 15, 60, 40), ("scratch", 15, 45, 54)), False),
    (judges.pretrained_beats_scratch, rows(("pretrained", 15, 60), ("scratch", 30, 50)), None),
    (judges.pretrained_beats_scratch, {"average_precision": {}}, None),
    (judges.few_images_suffice, rows(("pretrained", 6, 55.3)), True),
    (judges.few_images_suffice, rows(("pretrained", 6, 55.2)), False),
    (judges.few_images_suffice, rows(("scratch", 6, 90)), None),
    (judges.higher_layers_are_better, svm(1, 2, 3), True),
    (judges.higher_layers_are_better, svm(1, 3, 3), False),
    (judges.higher_layers_are_better, svm(1), None),
]


@pytest.mark.parametrize(("judge", "result", "holds"), CASES)
def test_the_rule_decides(judge, result, holds):
    finding = judge(result)
    assert (None if finding is None else finding.holds) is holds


def test_jumps_are_judged_by_every_layer():
    def both(*pairs):
        found = {f"conv{n}": {"continuity": {"image_stayed": a, "image_changed": b}} for n, (a, b) in enumerate(pairs)}
        return judges.jumps_come_from_other_images({"layers": {**found, "fc6": {}}})

    assert both((0.9, 0.1), (0.5, 0.4)).holds and not both((0.9, 0.1), (0.3, 0.4)).holds
    assert both((0.9, 0.1), (None, 0.4)).ours == "correlation 0.90 where the image stayed, 0.10 where it changed"
    assert both((None, 0.1)) is None


def test_p_values_are_those_of_the_stated_tests():
    found = judges.pretrained_beats_scratch(rows(("pretrained", 15, 60, 62, 61), ("scratch", 15, 57, 59, 61)))
    expected = scipy.stats.ttest_ind([60, 62, 61], [57, 59, 61], equal_var=False, alternative="greater").pvalue
    assert found.p_value == pytest.approx(expected)
    assert judges.occlusion_finds_the_object(occlusion(0.86, 0.8)).p_value == pytest.approx(scipy.stats.norm.sf(2))
    assert judges.same_order({"rank_correlation": {"rho": 0.6, "p_value": 0.08, "num_variants": 12}}).p_value == 0.04


def test_every_claim_says_its_rule_and_every_source_has_one():
    assert all(claim.says and claim.paper and claim.rule for claim in CLAIMS)
    sources = {claim.source for claim in CLAIMS}
    assert {f"Figure {n}" for n in range(2, 8)} | {"Table 1", "Table 2", "Table 3", "Table 4", "Table 7"} <= sources
