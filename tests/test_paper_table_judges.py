"""Each claim about a table, on results made by hand: it holds, fails, is not shown, or nothing can be said."""

import numpy as np
import pytest
import scipy.stats

from experiments import ablation_variants
from experiments import paper_table_judges as judges
from experiments.paper_table_claims import TABLES

HOLDS, FAILS, OPEN = "holds", "does not hold", "not shown"
SHALLOW, WIDE = "alexnet, no conv3,4,fc6,7", "zfnet, conv3,4,5 of 512,1024,512"


def parts(*p_values, layer="conv5", aligned=0.025):
    rows = {f"part {n}": {"delta": 0.1, "p": p, "p_aligned": aligned} for n, p in enumerate(p_values)}
    layers = {layer: {**rows, "random": {"delta": 0.2, "p": None, "p_aligned": None}}}
    return {"layers": layers, "config": {"num_aligned": 39}}


def gains(below, above):
    """Parts' score over that of random places in layers 5 and 7."""
    rows = {
        layer: {"nose": {"delta": score, "p": 0.1}, "random": {"delta": 1.0, "p": None}}
        for layer, score in (("conv5", below), ("fc7", above))
    }
    return {"layers": rows}


def evaluated(together, *alone, num=50_000, center=0.4, names=None):
    def error(top1):
        return {"ten": {"top1": top1}, "center": {"top1": center}}

    names = names or ["zfnet"] * len(alone)
    members = [{"name": name, "error": error(top1)} for name, top1 in zip(names, alone, strict=True)]
    return {"num_images": num, "members": members, **({} if together is None else {"error": error(together)})}


def variants(num=50_000, **errors):
    rows = [{"name": name, "error": {"validation": {"top1": error}}} for name, error in errors.items()]
    return {"rows": rows, **({} if num is None else {"num_images": num})}


def cut(shallow, whole=0.4, convs=0.45, dense=0.44, **more):
    names = {"alexnet": whole, "alexnet, no conv3,4": convs, "alexnet, no fc6,7": dense, SHALLOW: shallow}
    return variants(**names, **more)


def sizes(change, num=50_000):
    nets = {net: 0.4 for net in ("alexnet", "zfnet")}
    return variants(num, **nets, **{f"{net}, fc6,7 of {size}": 0.4 + change for net in nets for size in (2048, 8192)})


def ranked(rho, p, num=12):
    return {"rank_correlation": {"rho": rho, "p_value": p, "num_variants": num}}


def rows(*numbers, **more):
    """(arm, images per class, folds...) -> rows as transfer_learning writes them."""
    return {
        "rows": [
            {"arm": arm, "num_train": size, "folds": list(folds), "mean": sum(folds) / len(folds)}
            for arm, size, *folds in numbers
        ],
        "paper": {"best earlier": {"15": {"mean": 81.4}, "30": {"mean": 84.3}}},
        **more,
    }


def svm(classifier="svm", **folds):
    facts = {layer: {"folds": values, "mean": float(np.mean(values))} for layer, values in folds.items()}
    return {"num_train": 30, "rows": [{"layer": layer, "classifier": classifier, **of} for layer, of in facts.items()]}


def rising(*means):
    return svm(**{f"conv{n}": [mean, mean + 0.1 * n, mean - 0.1] for n, mean in enumerate(means, 1)})


def both_on_fc7(of_svm, of_softmax):
    first, second = svm(fc7=of_svm), svm("softmax", fc7=of_softmax)
    return {**first, "rows": first["rows"] + second["rows"]}


def voc(mean, classes=20):
    return {"mean_average_precision": mean, "average_precision": dict.fromkeys(map(str, range(classes)), mean)}


FAR, NEAR, SAME = ("pretrained", 15, 90, 91, 89.5), ("scratch", 15, 20, 21.5, 20), ("scratch", 15, 89, 92, 89)
part_5, beats_alexnet = judges.parts_correspond("conv5"), judges.errs_less(judges.member_errors, "zfnet", "alexnet")
wide_helps = judges.errs_less(judges.variant_errors, WIDE, "zfnet")
without_dense = judges.costs_little("alexnet, no fc6,7", "alexnet")
fc_sizes = next(claim.judge for claim in TABLES if claim.says.startswith("The sizes of the fully"))
CASES = [
    (part_5, parts(0.01, 0.04), HOLDS),
    (part_5, parts(0.01, 0.06), OPEN),
    (part_5, parts(0.01, 0.04, aligned=0.4), OPEN),
    (part_5, parts(0.01, 0.04, aligned=1.0), OPEN),  # 39 places are too few to refute
    (part_5, parts(0.01, 0.999), FAILS),
    (part_5, parts(None, None), OPEN),
    (part_5, parts(float("nan"), 0.01), OPEN),
    (part_5, parts(0.01, layer="fire8"), None),  # SqueezeNet's layers are none of the paper's
    (judges.parts_gain_less_above, gains(0.7, 0.95), HOLDS),
    (judges.parts_gain_less_above, gains(0.98, 0.97), OPEN),
    (judges.parts_gain_less_above, gains(0.95, 0.7), FAILS),
    (judges.parts_gain_less_above, parts(0.1), None),
    (judges.averaging_helps, evaluated(0.3, 0.35, 0.31), HOLDS),
    (judges.averaging_helps, evaluated(0.3, 0.35, 0.31, num=300), OPEN),
    (judges.averaging_helps, evaluated(0.33, 0.35, 0.31), FAILS),
    (judges.averaging_helps, evaluated(0.3, 0.3), None),
    (judges.averaging_helps, evaluated(None, 0.3, 0.4), None),
    (judges.ten_crops_help, evaluated(0.39), HOLDS),
    (judges.ten_crops_help, evaluated(0.39, num=500), OPEN),
    (judges.ten_crops_help, evaluated(0.41), FAILS),
    (judges.ten_crops_help, evaluated(None), None),
    (beats_alexnet, evaluated(0.3, 0.38, 0.40, names=["zfnet", "alexnet"]), HOLDS),
    (beats_alexnet, evaluated(0.3, 0.38, 0.40, names=["zfnet", "alexnet"], num=500), OPEN),
    (beats_alexnet, evaluated(0.3, 0.42, 0.40, names=["zfnet", "alexnet"]), FAILS),
    (beats_alexnet, evaluated(0.3, 0.38, 0.40), None),
    (judges.depth_matters, cut(0.7), HOLDS),
    (judges.depth_matters, cut(0.451), OPEN),
    (judges.depth_matters, cut(0.3), FAILS),
    (judges.depth_matters, cut(0.7, num=None), OPEN),
    (judges.depth_matters, variants(**{SHALLOW: 0.7, "alexnet": 0.4, "alexnet, no fc6,7": 0.44}), None),
    (without_dense, cut(0.7), HOLDS),
    (without_dense, cut(0.7, num=500), OPEN),
    (without_dense, cut(0.7, dense=0.5), FAILS),
    (without_dense, variants(alexnet=0.4), None),
    (wide_helps, variants(**{WIDE: 0.375, "zfnet": 0.384}), HOLDS),
    (wide_helps, variants(**{WIDE: 0.375, "zfnet": 0.384, "num": 1024}), OPEN),
    (wide_helps, variants(**{WIDE: 0.4, "zfnet": 0.384}), FAILS),
    (wide_helps, variants(zfnet=0.4), None),
    (fc_sizes, sizes(0.01), HOLDS),
    (fc_sizes, sizes(0.01, num=500), OPEN),
    (fc_sizes, sizes(0.05), FAILS),
    (fc_sizes, sizes(-0.05), FAILS),
    (fc_sizes, variants(**{"zfnet": 0.4, "zfnet, fc6,7 of 2048": 0.4}), None),
    (judges.same_order, ranked(0.6, 0.03), HOLDS),
    (judges.same_order, ranked(0.4, 0.08), OPEN),
    (judges.same_order, ranked(-0.9, 0.999), FAILS),
    (judges.same_order, ranked(1.0, 1 / 6, num=3), OPEN),
    (judges.same_order, ranked(-1.0, 1.0, num=3), OPEN),
    (judges.same_order, ranked(None, None), OPEN),
    (judges.same_order, ranked(float("nan"), float("nan")), OPEN),
    (judges.same_order, {"rank_correlation": None}, None),
    (judges.pretrained_beats_scratch, rows(FAR, NEAR), HOLDS),
    (judges.pretrained_beats_scratch, rows(FAR, SAME), OPEN),
    (judges.pretrained_beats_scratch, rows(("pretrained", 15, 20, 21.5, 20), ("scratch", 15, 90, 91, 89)), FAILS),
    (judges.pretrained_beats_scratch, rows(("pretrained", 15, 60), ("scratch", 15, 1)), OPEN),  # one fold
    (judges.pretrained_beats_scratch, rows(("pretrained", 15, 60, 61), ("scratch", 15, 50)), OPEN),
    (judges.pretrained_beats_scratch, rows(FAR, ("scratch", 30, 1, 2)), None),
    (judges.beats_the_best_earlier, rows(("pretrained", 15, 90, 90.2, 90.1)), HOLDS),
    (judges.beats_the_best_earlier, rows(("pretrained", 15, 90, 90.2, 90.1), ("pretrained", 30, 84, 85)), OPEN),
    (judges.beats_the_best_earlier, rows(("pretrained", 15, 26, 27, 26.5)), FAILS),
    (judges.beats_the_best_earlier, rows(("pretrained", 6, 90, 91)), None),
    (judges.few_images_suffice, rows(("pretrained", 6, 60, 60.1, 60.2)), HOLDS),
    (judges.few_images_suffice, rows(("pretrained", 6, 55.3)), OPEN),
    (judges.few_images_suffice, rows(("pretrained", 6, 54, 56, 57)), OPEN),
    (judges.few_images_suffice, rows(("pretrained", 6, 40, 40.1, 40.2)), FAILS),
    (judges.few_images_suffice, rows(("scratch", 6, 90)), None),
    (judges.average_precision, voc(79.0), HOLDS),
    (judges.average_precision, voc(70.0), OPEN),
    (judges.average_precision, voc(60.0), FAILS),
    (judges.average_precision, voc(90.0, classes=2), OPEN),
    (judges.higher_layers_are_better, rising(10, 20, 30, 40, 50), HOLDS),
    (judges.higher_layers_are_better, rising(10, 20, 20, 40, 50), OPEN),
    (judges.higher_layers_are_better, rising(10, 20, 50, 40, 60), FAILS),
    (judges.higher_layers_are_better, svm(conv1=[1, 1.1], conv5=[50, 51]), None),
    (judges.higher_layers_are_better, svm(**{f"conv{n}": [n] for n in range(1, 6)}), OPEN),
    (judges.top_layer_is_as_good, svm(conv5=[80, 81, 80.4], fc7=[79.8, 80.7, 80.3]), HOLDS),
    (judges.top_layer_is_as_good, svm(conv5=[80, 81, 80], fc7=[79, 78, 79]), OPEN),
    (judges.top_layer_is_as_good, svm(conv5=[80, 81, 80.4], fc7=[60, 60.7, 60.3]), FAILS),
    (judges.top_layer_is_as_good, svm(conv4=[1, 2], fc7=[1, 2]), None),
    (judges.classifiers_agree, both_on_fc7([80, 81, 80.4], [80.1, 81.3, 80.4]), HOLDS),
    (judges.classifiers_agree, both_on_fc7([80, 81, 80.4], [60, 60.8, 60.4]), FAILS),
    (judges.classifiers_agree, both_on_fc7([80], [80]), OPEN),
    (judges.classifiers_agree, svm(fc7=[80, 81]), None),
]


@pytest.mark.parametrize(("judge", "result", "verdict"), CASES)
def test_the_rule_decides(judge, result, verdict):
    finding = judge(result)
    assert (None if finding is None else finding.verdict) == verdict


def test_folds_are_paired_and_corrected_for_the_most_test_images_there_can_be():
    ours, others = ("pretrained", 15, 60, 66, 63), ("scratch", 15, 50, 55, 51)
    differences = np.array([10.0, 11.0, 12.0])

    def p_words(test_over_train):
        t = differences.mean() / (differences.std(ddof=1) * np.sqrt(1 / 3 + test_over_train))
        return f"p = {scipy.stats.t.sf(t, 2):.2g}"

    def because(**more):
        return judges.pretrained_beats_scratch(rows(ours, others, **more)).because

    assert because(num_images=9144, num_classes=102) == because() == p_words(50 / 15)
    assert because(num_images=102 * 20, num_classes=102) == p_words(5 / 15)  # five are left in each class


def test_one_fold_says_why_nothing_is_shown():
    found = judges.pretrained_beats_scratch(rows(("pretrained", 15, 60), ("scratch", 15, 1)))
    assert found.because == "one fold: no spread to test by"


def test_names_are_those_that_the_experiments_write():
    names = {variant.name for variant in ablation_variants.VARIANTS}
    assert {SHALLOW, WIDE, "alexnet, no conv3,4", "alexnet, no fc6,7", "zfnet, both"} <= names
    every = variants(**dict.fromkeys(names, 0.4))
    judged = [claim for claim in TABLES if claim.source == "Table 3" and claim.judge is not judges.same_order]
    assert len(judged) == 7 and all(claim.judge(every) is not None for claim in judged)
    folders = [ablation_variants.folder_name(variant) for variant in ablation_variants.VARIANTS]
    members = evaluated(None, *[0.4] * len(folders), names=folders)
    of_nets = [claim for claim in TABLES if claim.source == "Table 2"][2:]
    assert len(of_nets) == 2 and all(claim.judge(members) is not None for claim in of_nets)


def test_several_networks_of_one_architecture_count_by_their_mean():
    found = judges.member_errors(evaluated(None, 0.2, 0.4, 0.5, names=["zfnet", "zfnet", "alexnet"]))
    assert found == {"zfnet": pytest.approx(0.3), "alexnet": 0.5}
