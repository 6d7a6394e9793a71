"""What the paper printed, judged by our rules: it bears its own claims out."""

import numpy as np
import pytest

from experiments.report import tables, transfer, verdicts
from experiments.report.figures import CLAIMS
from experiments.report.verdicts import UNITS, Claim
from tests.support import paper_numbers

TABLE_2 = (tables.averaging_helps, tables.member_beats_alexnet, tables.wide_member_helps)
CALTECH_101 = (transfer.pretrained_beats_scratch_on_101, transfer.pretrained_beats_earlier_on_101)
CALTECH_256 = (transfer.pretrained_beats_scratch_on_256, transfer.pretrained_beats_earlier_on_256)
APART, ALIKE, ALONE = (False, paper_numbers.SPREAD), (True, paper_numbers.SPREAD), (False, None)
WAYS = [ALONE, APART, ALIKE]
RESULTS = [
    *((claim, paper_numbers.table_2()) for claim in TABLE_2),
    *((claim, paper_numbers.table_3()) for claim in tables.ARCHITECTURES),
    *((claim, paper_numbers.caltech(4, alike)) for claim in CALTECH_101 for alike in (False, True)),
    *((claim, paper_numbers.caltech(5, *way)) for claim in CALTECH_256 for way in WAYS),
    *((claim, paper_numbers.table_7(n, *APART)) for claim in transfer.LAYERS for n in (0, 1)),
    (tables.parts_gain_less_above, paper_numbers.table_1()),
    (transfer.average_precision, paper_numbers.table_6()),
]


def name_of(value):
    return value.judge.__name__ if isinstance(value, Claim) else ""


@pytest.mark.parametrize(
    ("claim", "result"), RESULTS, ids=lambda value: value.judge.__name__ if hasattr(value, "judge") else ""
)
def test_the_papers_own_numbers_hold(claim, result):
    finding = claim.finding(result)
    assert finding is not None and finding.verdict == "holds", finding


def test_folds_that_differ_by_more_leave_the_papers_layers_open_and_refute_nothing():
    verdicts = {claim.judge(paper_numbers.table_7(1, False, 1.7)).verdict for claim in transfer.LAYERS}
    assert verdicts <= {"holds", "not shown"} and "not shown" in verdicts


@pytest.mark.parametrize("way", [ALONE, ALIKE])
def test_where_differences_of_layers_have_no_spread_they_refute_nothing(way):
    """The paper prints none in Table 7: a rise of five points may be one fold's."""
    verdicts = {(claim.judge(paper_numbers.table_7(n, *way)).verdict) for claim in transfer.LAYERS for n in (0, 1)}
    assert verdicts <= {"holds", "not shown"}


def test_folds_have_the_mean_and_the_spread_that_they_are_asked_for():
    for number in range(5):
        values = paper_numbers.folds(86.2, 0.8, number)
        assert (np.mean(values), np.std(values, ddof=1)) == (pytest.approx(86.2), pytest.approx(0.8))


@pytest.mark.parametrize(("claim", "result"), RESULTS, ids=name_of)
def test_of_networks_that_were_not_trained_so_they_show_nothing(claim, result):
    """Each precondition at its bound and just below it, and where nothing is known."""
    least = {name: value for name in UNITS if (value := getattr(claim.needs, name))}
    assert least["epochs"] >= 1
    assert claim.finding(trained(result, least)).verdict == "holds"
    for name, value in least.items():
        below, unknown = (claim.finding(trained(result, {**least, name: lower})) for lower in (value - 0.1, None))
        assert (below.verdict, below.ours) == ("not shown", claim.judge(result).ours)
        assert below.because.startswith("precondition: trained: ") and unknown.because.endswith("is not known")
    assert claim.finding(trained(result, {})).verdict == "not shown"


def trained(result, training):
    """The result with networks of another training."""
    if "checkpoint" in result:
        return {**result, "checkpoint": {"training": training}}
    (name,) = {"members", "rows"} & set(result)
    return {**result, name: [{**one, "checkpoint": {"training": training}} for one in result[name]]}


@pytest.mark.parametrize(
    ("name", "number", "words"),
    [
        ("epochs", 69.0, "69, 70 epochs"),
        ("num_classes", 2_000, "1,000, 2,000 classes"),
        ("width", 2.0, "1, 2 of the full width"),
    ],
)
def test_networks_that_were_not_trained_alike_are_not_compared(name, number, words):
    """One of them learnt longer, or something else."""
    for claim, result in RESULTS:
        if claim.source in ("Table 2", "Table 3"):
            (field,) = {"members", "rows"} & set(result)
            first, *others = result[field]
            first = {**first, "checkpoint": {"training": {**paper_numbers.TRAINING, name: number}}}
            finding = claim.finding({**result, field: [first, *others]})
            if field == "rows":  # one that goes beyond the paper is none of those that are compared
                beyond = [{**first, "paper": None}, *result[field]]
                assert claim.finding({**result, field: beyond}) == claim.finding(result)
            if not claim.needs.alike:
                assert claim is tables.ten_crops_help  # of one network
                continue
            assert finding[1:] == ("not shown", f"precondition: its networks were not trained alike: {words}")


def test_large_numbers_are_told_digit_by_digit():
    claim, training = transfer.few_images_suffice, {**paper_numbers.TRAINING, "num_images": 50_000}
    lacking = claim.needs.lacking({"checkpoint": {"training": training}})
    assert lacking == "trained: 50,000 images, not 1,000,000" and " 1,000,000 images" in claim.needs.words
    assert claim.needs.lacking({"checkpoint": {"training": {"epochs": 1 / 3}}}) == "trained: 0.33 epochs, not 10"


def test_beside_the_precondition_stands_what_the_networks_have_of_it():
    needs, members = verdicts.COMPARED_MANY, paper_numbers.table_2()["members"]
    here = "69 and 70 epochs, 1,000 classes, 1,281,167 images, 1 of the full width"
    members[0] = {**members[0], "checkpoint": {"training": {**paper_numbers.TRAINING, "epochs": 69.0}}}
    assert needs.words_beside({"members": members}) == f"{needs.words}; here {here}"
    assert needs.words_beside({"members": [{"checkpoint": "runs/x"}]}) == needs.words


def test_figure_6_compares_networks_that_were_trained_alike():
    assert all(claim.needs.alike for claim in CLAIMS if claim.source == "Figure 6")


@pytest.mark.parametrize(
    "unknown", [{}, {"checkpoint": "runs/x"}, {"checkpoint": None}, {"checkpoint": {"training": 3}}]
)
def test_of_several_networks_each_has_to_say_what_it_was_trained_on(unknown):
    for claim, result, name in (
        (tables.variant_beats_alexnet, paper_numbers.table_3(), "rows"),
        (tables.member_beats_alexnet, paper_numbers.table_2(), "members"),
    ):
        *others, last = result[name]
        last = {key: value for key, value in last.items() if key != "checkpoint"} | unknown
        finding = claim.finding({**result, name: [*others, last]})
        assert finding.because == "precondition: the number of epochs of its training is not known"


def test_every_claim_about_features_needs_a_network_that_was_trained():
    untrained = [claim.source for claim in CLAIMS if not claim.needs.epochs]
    assert untrained == ["Figure 3"]


ON_IMAGENET = {"epochs": 10, "num_classes": 1_000, "num_images": 1_000_000, "width": 1}
NEEDS = {  # in numbers, and the claims that need it
    "NOTHING": ({}, "geometry"),
    "TRAINED": (
        {"epochs": 1},
        "resemblance occlusion_finds_the_object ten_crops_help",
    ),
    "LONG": ({"epochs": 10}, "lower_layers_settle_first jumps_come_from_other_images"),
    "MANY_CLASSES": (
        {"epochs": 10, "num_classes": 100, "to_refute": verdicts.IMAGENET},
        "first_layer_moves_more top_layer_is_quasi_linear rotation_breaks_labels parts_correspond "
        "parts_gain_less_above pretrained_beats_scratch_on_101 pretrained_beats_scratch_on_256 "
        "higher_layers_are_better classifiers_agree",
    ),
    "IMAGENET": (
        ON_IMAGENET,
        "pretrained_beats_earlier_on_101 pretrained_beats_earlier_on_256 few_images_suffice average_precision "
        "top_layer_is_as_good",
    ),
    "COMPARED": (
        {"epochs": 1, "alike": True},
        "renormalisation_tames fewer_dead_filters more_middle_frequencies less_aliasing averaging_helps",
    ),
    "COMPARED_MANY": (
        {"epochs": 10, "num_classes": 100, "alike": True, "to_refute": verdicts.IMAGENET},
        "depth_matters same_order",
    ),
    "COMPARED_IMAGENET": (
        {**ON_IMAGENET, "alike": True},
        "member_beats_alexnet wide_member_helps wide_variant_helps wide_dense_layers_overfit variant_beats_alexnet "
        "dense_layers_cost_little middle_layers_cost_little dense_sizes_matter_little",
    ),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_a_claim_needs_is_so_much_and_no_less(name):
    needs, (numbers, claims) = getattr(verdicts, name), NEEDS[name]
    assert {field: value for field, value in needs._asdict().items() if value} == numbers
    assert {claim.judge.__name__ for claim in CLAIMS if claim.needs == needs} == set(claims.split())


@pytest.mark.parametrize("name", ["MANY_CLASSES", "COMPARED_MANY"])
@pytest.mark.parametrize(
    ("training", "verdict", "because"),
    [
        ({}, "does not hold", "p = 0.01"),
        ({"num_images": 1_000_000, "num_classes": 1_000, "epochs": 10, "width": 1}, "does not hold", "p = 0.01"),
        ({"num_images": 50_000}, "not shown", "precondition of a refutation: trained: 50,000 images, not 1,000,000"),
        ({"num_classes": 200}, "not shown", "precondition of a refutation: trained: 200 classes, not 1,000"),
        ({"width": 0.5}, "not shown", "precondition of a refutation: trained: 0.5 of the full width, not 1"),
        ({"num_classes": 10}, "not shown", "precondition: trained: 10 classes, not 100"),
    ],
)
def test_what_has_learnt_less_than_the_papers_bears_out_but_does_not_refute(name, training, verdict, because):
    def finding(of):
        says = {
            "says": "",
            "paper": "",
            "rule": "",
            "judge": lambda _: verdicts.Finding("", of, "p = 0.01"),
            "fields": None,
        }
        claim = verdicts.Claim("Table 7", needs=getattr(verdicts, name), **says)
        return claim.finding({"checkpoint": {"training": {**paper_numbers.TRAINING, **training}}})

    assert finding("does not hold").verdict == verdict and finding("does not hold").because.startswith(because)
    assert finding("holds").verdict == ("not shown" if training == {"num_classes": 10} else "holds")


def test_a_refutation_by_a_bound_has_no_reason_to_repeat():
    of = {"layers": {}, "checkpoint": {"training": {**paper_numbers.TRAINING, "num_classes": 200}}}
    for layer, score in (("conv5", 0.95), ("fc7", 0.65)):
        of["layers"][layer] = {"nose": {"delta": score, "p": 0.1}, "random": {"delta": 1.0, "p": None}}
    finding = tables.parts_gain_less_above.finding(of)
    assert finding.because == "precondition of a refutation: trained: 200 classes, not 1,000"


def test_what_a_refutation_needs_stands_beside_the_rest():
    assert verdicts.MANY_CLASSES.words == (
        "trained: at least 10 epochs, 100 classes; to refute it at least 10 epochs, 1,000 classes, 1,000,000 images, "
        "the full width"
    )


def test_no_claim_needs_anything_else():
    assert {claim.needs for claim in CLAIMS} == {getattr(verdicts, name) for name in NEEDS}
    assert transfer.few_images_suffice.needs.words == (
        "trained: at least 10 epochs, 1,000 classes, 1,000,000 images, the full width"
    )


def test_every_claim_of_a_table_is_tried_on_what_the_paper_printed_but_three():
    """It prints no p-values in Table 1, no error of the centre crop, and of six images per class only a curve."""
    tried = {claim.judge.__name__ for claim, _ in RESULTS}
    of_tables = {claim.judge.__name__ for claim in CLAIMS if claim.source.startswith("Table")}
    assert of_tables - tried == {"parts_correspond", "ten_crops_help", "few_images_suffice"}


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ({"width": 1 / 16}, "trained: 0.06 of the full width, not 1"),
        ({"epochs": 1.0}, "trained: 1 epoch, not 10"),
        ({"width": None}, "how wide it is beside the paper's is not known"),
    ],
)
def test_a_narrow_net_and_one_that_has_begun_are_not_held_against_printed_accuracies(lack, words):
    """Of a thousand classes and as many photos as the paper's."""
    worse = paper_numbers.caltech(4) | {"checkpoint": {"training": {**paper_numbers.TRAINING, **lack}}}
    for row in worse["rows"]:
        row |= {"folds": [10.0] * 5, "mean": 10.0}
    claim = transfer.pretrained_beats_earlier_on_101
    assert claim.judge(worse).verdict == "does not hold"
    assert claim.finding(worse)[1:] == ("not shown", f"precondition: {words}")
