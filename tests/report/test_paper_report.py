"""The report: each claim at least once, whatever results there are; words escaped; nothing stops it."""

import base64
import html
import importlib
import json
import re
import sys

import numpy as np
import pytest
import tyro
from judges import check_keys
from PIL import Image

from experiments import paper_report
from experiments.report import results as report_results
from experiments.report import tables
from experiments.report.figures import CLAIMS
from experiments.report.verdicts import Finding

TRAINED = {"num_classes": 1000, "num_images": 1_281_167, "epochs": 70.0, "width": 1.0}
NASTY = "<script>alert(1)</script> | `x` & [y](z)"


def write(folder, result, *pictures):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    for name in pictures:
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / name)


def settled(falls, name, data, **layers):
    means = [0.9, 0.75, 0.6, 0.45, 0.3] if falls else [0.3, 0.45, 0.6, 0.75, 0.9]
    return {
        "figure": "Figure 4",
        "lower_layers_first": float(falls),
        "layers": {
            f"conv{n}": {"similarity": [0.2, mean, 1], "straight": [0.2, 0.6, 1]} for n, mean in enumerate(means, 1)
        }
        | layers,
        "num_images": 1234,
        "data": {"name": data, "num_classes": 10},
        "checkpoint": {"path": f"runs/{name}/checkpoints/7", "fingerprint": name, "training": TRAINED},
    }


def evaluation(*nets, top1=0.3, num=500, fingerprint="f", **views):
    error = {"center": {"top1": top1, "top5": 0.1}, "ten": {"top1": top1, "top5": 0.1}} | views
    paths = [{"path": f"runs/{run}/checkpoints/1", "fingerprint": run, "training": TRAINED} for _, run in nets]
    members = [{"name": name, "checkpoint": path, "error": error} for (name, _), path in zip(nets, paths, strict=True)]
    data = {"name": "imagenet", "fingerprint": fingerprint, "num_classes": 10}
    common = {"num_images": num, "data": data, "checkpoint": members[0]["checkpoint"]}
    paper = {"1 net": [40.7, 18.2, None]}
    return {"table": "Table 2", "error": error, "members": members, "paper": paper, **common}


def layers_7(*rows, folds=(80, 81, 80.4)):
    """Table 7 of one net and set; each row's first fold is a little lower than that of the row before."""
    first, *others = folds
    facts = [
        {"layer": layer, "classifier": of, "folds": [first - 0.1 * n, *others], "mean": 80.5}
        for n, (layer, of) in enumerate(rows)
    ]
    checkpoint = {"path": "runs/n/checkpoints/1", "fingerprint": "n", "training": TRAINED}
    data = {"name": "caltech", "fingerprint": "f"}
    return {"table": "Table 7", "rows": facts, "num_train": 30, "num_classes": 102, "num_images": 9144} | {
        "checkpoint": checkpoint,
        "data": data,
    }


@pytest.mark.parametrize(("classes", "expected"), [(6, "10.0 (7.7 to 12.9)"), (5, "")])
def test_of_five_classes_or_fewer_no_top5_is_told_also_where_earlier_versions_wrote_it(classes, expected):
    _, rows = report_results.errors(evaluation(("zfnet", "a")) | {"num_classes": classes})
    assert rows[0][2] == rows[0][4] == expected and rows[0][1].startswith("30.0 (")


def invariance(slope=None, of_scale=(0.5,)):
    """Figure 5 of one picture, or with another slope, or with that many pictures scaled."""
    transform = {
        "slope": slope or {"conv1": 2.0, "fc7": 1.0},
        "linearity": {"fc7": 0.9},
        "label_stability": {"mean": 0.5, "images": [0.5], "num_amounts": 24},
        "of_images": {"slope": {"conv1": [2.0], "fc7": [1.0]}, "linearity": {"fc7": [0.9]}},
    }
    transforms = dict.fromkeys(("translation", "scale", "rotation"), transform)
    transforms["scale"] = {**transform, "label_stability": {"mean": 0.5, "images": list(of_scale), "num_amounts": 16}}
    return {"figure": "Figure 5", "layers": ["conv1", "fc7"], "transforms": transforms}


@pytest.fixture
def results(tmp_path):
    """Two runs with Figure 4, one of nasty names, and a table without a claim."""
    runs = tmp_path / "runs"
    write(runs / "a/figures/evolution", settled(True, "a", "demo"), "evolution.png")
    write(runs / "b/figures/evolution", settled(False, "b", NASTY), "overview.png", "conv1.png")
    write(runs / "a/sanity", {"table": "sanity checks", "score": {"of units": 0.25}}, "sanity_checks.png")
    write(runs / "a/training", {"no": "figure"})
    return tmp_path


def make(results, **more):
    return paper_report.run(paper_report.Config(results / "runs", results / "report", **more))


def pages(results):
    return [(results / "report" / name).read_text() for name in ("report.html", "report.md")]


def test_each_claim_stands_for_each_result_and_once_where_there_is_none(results):
    claims = make(results)["claims"]
    check_keys(results / "report")
    first = [claim for claim in claims if claim["says"].startswith("The lower layers")]
    assert [claim["verdict"] for claim in first] == ["holds", "does not hold"]
    assert [claim["because"] for claim in first] == ["p = 0.0083", "the contrary: p = 0.0083"]
    assert first[0]["setting"] == "a; demo, 1,234 images of 10 classes" and first[0]["result"] == "a/figures/evolution"
    assert len(claims) == len(CLAIMS) + 1
    assert sum(claim["verdict"] == "not measured" for claim in claims) == len(CLAIMS) - 1
    for page in pages(results):
        assert f"1 holds, 1 does not hold, 0 not shown, {len(CLAIMS) - 1} not measured" in page


@pytest.mark.parametrize(
    ("verdicts", "begins", "ends"),
    [
        ("H", "holds here", ""),
        ("FHH", "holds here in 2 of 3 results", "; does not hold in 1"),
        ("HFF", "does not hold here in 2 of 3 results", "; holds in 1"),
        ("HOO", "is neither shown nor refuted here in 2 of 3 results", "; holds in 1"),
        ("HO", "is neither shown nor refuted here in 1 of 2 results", "; holds in 1"),
        ("HFO", "is neither shown nor refuted here in 1 of 3 results", "; does not hold in 1; holds in 1"),
    ],
)
def test_a_sentence_begins_with_what_most_results_come_to(verdicts, begins, ends):
    words = {"H": "holds", "F": "does not hold", "O": "not shown"}
    rows = [paper_report.Row(CLAIMS[0], None, Finding(f"{n}", words[of])) for n, of in enumerate(verdicts)]
    said = paper_report.sentence(CLAIMS[0], rows)
    first = next(n for n, of in enumerate(verdicts) if begins.startswith({"H": "h", "F": "d", "O": "i"}[of]))
    assert said == f"“{CLAIMS[0].says.removesuffix('.')}” {begins} (): {first}{ends}."


def test_the_four_verdicts_have_four_colours(results):
    undecided = settled(True, "c", "demo")
    undecided["layers"] = {f"conv{n}": {"similarity": [0.1 * n]} for n in range(2)}
    write(results / "runs/c", undecided)
    make(results)
    page = pages(results)[0]
    for kind in ("holds", "does-not-hold", "not-shown", "not-measured"):
        assert f'<td class="{kind}">' in page
    styles = re.findall(r"td\.([a-z-]+) \{ ([^}]+) \}", page)
    assert len({look for _, look in styles}) == len(styles) == 5  # with that of what cannot be read


def test_the_pages_hold_every_picture_and_no_name_as_code(results):
    make(results)
    page, text = pages(results)
    assert "<script>" not in page and "&lt;script&gt;" in page and "a; demo, 1,234 images of 10 classes" in page
    assert "<script>" not in text and "\\<script\\>" in text and "\\[y\\]" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 3  # the overview stands for the page that it sums up
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert "](../runs/a/figures/evolution/evolution.png)" in text and "conv1.png" not in text
    assert "of units" not in text  # a picture shows the numbers


def test_what_nothing_measured_stands_in_the_overview_and_in_a_table_of_its_own(results):
    """With all that a measured claim has, and the command that decides it."""
    make(results)
    overview, *details = pages(results)[1].split("## ")
    (waiting,) = [part for part in details if part.startswith("Claims that are not measured")]
    rest = "".join(part for part in details if part is not waiting)
    assert rest.count("The lower layers can be seen to converge") == 2
    for claim in CLAIMS:
        words = claim.says.removesuffix(".")
        assert words in overview and (words in waiting) != (words in rest)
    assert waiting.count("python -m experiments.") >= len(CLAIMS) - 1
    assert waiting.count("| trained: at least ") == len(CLAIMS) - 2  # one is measured, one needs none


def test_a_long_list_of_numbers_says_how_many_more_there_are(results):
    write(results / "runs/long", {"table": "of my own", "of_map": [0.5] * 1042})
    write(results / "runs/short", {"table": "short", "of_map": [0.5] * 40})
    make(results)
    text = pages(results)[1]
    assert "| of\\_map, 40 | 0.5 |\n| ... and 1,002 more |  |\n" in text and text.count(" more |") == 1


def test_a_figure_stands_below_the_claims_of_its_source_and_the_overview_leads_there(results):
    write(results / "runs/t2", evaluation(("zfnet", "z")))
    make(results)
    page, text = pages(results)
    assert page.index('<a href="#figure-4">') < page.index('<h2 id="figure-4">')
    assert page.index('<h2 id="figure-4">') < page.index('alt="evolution"') < page.index('<h2 id="table-2">')
    assert text.index("[Figure 4](#figure-4)") < text.index('<a id="figure-4">') < text.index("![evolution]")
    assert text.index("![evolution]") < text.index("## Table 2") < text.index("## Sanity")
    headings = set(re.findall(r'<h2 id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= headings


def test_a_result_without_a_picture_shows_its_numbers(results):
    write(results / "runs/a/evaluation", evaluation(("zfnet", "a"), ("alexnet", "b")))
    voc = {"average_precision": {"cat": 51.5, "dog": None}, "mean_average_precision": 51.5, "paper": {"pretrained": 79}}
    write(results / "runs/a/voc", {"table": "Table 6", **voc})
    write(results / "runs/a/more", {"table": "of my own", "score": {"of units": 0.25, "sure": True}, "steps": 50000})
    make(results)
    text = pages(results)[1]
    assert "zfnet (a), alexnet (b); imagenet, 500 images of 10 classes" in text  # every member
    assert (
        "| the average of all 2 | 30.0 (26.1 to 34.2) | 10.0 (7.7 to 12.9) | 30.0 (" in text
        and "paper: 1 net |  |  | 40.7" in text
    )
    assert "| cat | 51.5 |" in text and "| dog | - |" in text and "## Of my own" in text
    assert "| score, of units | 0.25 |" in text and "| steps | 50,000 |" in text and "score, sure" not in text


def test_networks_evaluated_one_by_one_are_compared_on_the_same_data(results):
    write(results / "runs/z", evaluation(("zfnet", "z"), top1=0.3))
    write(results / "runs/x", evaluation(("alexnet", "x"), top1=0.5))
    write(results / "runs/y", evaluation(("alexnet", "y"), top1=0.1, fingerprint="of other data"))
    write(results / "runs/w", evaluation(("alexnet", "w"), top1=0.1, num=499))  # without a bad picture
    (row,) = [
        claim
        for claim in make(results)["claims"]
        if claim["says"].startswith("The network of Fig. 3") and claim["ours"]
    ]
    assert (
        row["verdict"] == "holds"
        and row["ours"].startswith("30.0% (26.1% to 34.2%) against 50.0% (")
        and row["result"] == "x, z"
    )
    write(results / "runs/both", evaluation(("zfnet", "z"), ("alexnet", "x"), top1=0.3))
    measurements, _ = report_results.read_results(results / "runs")
    assert report_results.joined(measurements) == []  # they stand side by side already
    told = {"num_classes": 10, "largest_class_share": 0.5}  # which the others do not tell
    write(results / "runs/v", {**evaluation(("zfnet", "v"), top1=0.3), **told})
    (measured,) = report_results.joined(report_results.read_results(results / "runs")[0])
    assert len(measured.result["members"]) == 3 and told.items() <= measured.result.items()


def test_two_drawings_of_one_net_and_set_count_once(results):
    """The one of more images speaks; another set, or another net, is another witness."""
    one, again = ({**settled(True, "c", "demo"), "num_images": num} for num in (10, 20))
    others = {**one, "data": {**one["data"], "fingerprint": "other"}}
    for name, result in {"1": one, "2": again, "3": others}.items():
        data = {"fingerprint": "demo", **result["data"]}
        write(results / "runs/c" / name, {**result, "data": data})
    made = make(results)
    first = [claim["result"] for claim in made["claims"] if claim["says"].startswith("The lower layers")]
    assert first == ["a/figures/evolution", "b/figures/evolution", "c/2", "c/3"]
    assert "from c/1" in pages(results)[1]  # its pictures are shown


def test_a_drawing_of_all_numbers_of_images_counts_before_one_of_more_folds_of_some(results):
    """A net from scratch that learnt with 30 images per class speaks although it has fewer folds than with 15."""

    def of(*sizes, folds):
        rows = [
            {"arm": arm, "num_train": size, "mean": mean, "folds": [mean + 0.01 * n for n in range(folds)]}
            for size, scratch in sizes
            for arm, mean in (("pretrained", 60.0), ("scratch", scratch), ("untrained", 5.0))
        ]
        for row in rows[1::3]:
            row["records"] = [{"training_accuracy": 0.9}] * folds
        data = {"name": "caltech101", "fingerprint": "caltech101"}
        training = {"num_classes": 200, "num_images": 50_000, "epochs": 20.0, "width": 1.0}
        checkpoint = {"path": "runs/net/checkpoints/7", "fingerprint": "net", "training": training}
        facts = {"num_classes": 102, "num_images": 9144, "data": data, "checkpoint": checkpoint}
        return {"table": "Table 4", "rows": rows, "paper": {"best earlier": {}}, **facts}

    few = of((15, 20.0), folds=5)
    few["rows"] += [{**few["rows"][0], "num_train": num} for num in (1, 2, 4, 6, 10)]  # the curve says nothing of it
    write(results / "runs/c", few)
    write(results / "runs/d", of((15, 20.0), (30, 59.9), folds=3))
    (row,) = [claim for claim in make(results)["claims"] if "beat training from scratch" in claim["says"]][:1]
    assert row["result"] == "d" and row["verdict"] == "not shown"


def test_a_drawing_of_more_scored_pictures_counts_before_one_of_more_drawn_ones(results):
    def of(num_images, scored, p):
        score = {"object": 0.8, "other_object": 0.2, "p": p, "p_contrary": 1 - p}
        of_net = {key: value for key, value in settled(True, "net", "demo").items() if key in ("checkpoint", "data")}
        of_net["data"]["fingerprint"] = "demo"
        scores = {"num_images": scored, "occlusion": score, "gradient": score}
        return {"figure": "Figure 7", "num_images": num_images, "score": scores, **of_net}

    write(results / "runs/c", of(5, 20, 0.2))
    write(results / "runs/d", of(3, 100, 0.001))
    (row,) = [claim for claim in make(results)["claims"] if claim["source"] == "Figure 7"]
    assert (row["result"], row["verdict"]) == ("d", "holds")


@pytest.mark.parametrize("reverse", [False, True])
def test_of_drawings_of_one_net_and_set_the_folders_names_do_not_decide(results, reverse):
    """That of most layers counts, of as many that of most epochs, maps, then that of the cautious verdict."""

    def of(falls, epochs, maps, **more):
        result = settled(falls, "c", "demo", fc6={"similarity": [None], "maps": list(range(maps))}, **more)
        data = {"fingerprint": "demo", **result["data"]}
        return {**result, "data": data, "epochs": list(range(epochs))}

    order = [of(True, 5, 3), of(False, 6, 2), of(True, 6, 3), of(False, 6, 3)]
    order.append(of(True, 5, 1, fc7={"similarity": [None]}))
    verdicts = ("does not hold", "holds", "does not hold", "holds")
    for most, verdict in enumerate(verdicts, start=2):
        drawings = order[:most]
        for n, result in enumerate(reversed(drawings) if reverse else drawings):
            write(results / f"{most}/{n}", result)
        made = paper_report.run(paper_report.Config(results / str(most), results / f"report of {most}"))
        (row,) = [claim for claim in made["claims"] if claim["says"].startswith("The lower layers")]
        assert row["verdict"] == verdict, most


def test_results_of_one_net_and_set_that_speak_to_different_claims_all_count(results):
    write(results / "runs/svm", layers_7(("conv5", "svm"), ("fc7", "svm")))
    write(results / "runs/softmax", layers_7(("fc7", "svm"), ("fc7", "softmax")))
    of_table = [claim for claim in make(results)["claims"] if claim["source"] == "Table 7"]
    assert [(claim["result"], claim["verdict"]) for claim in of_table] == [
        (None, "not measured"),
        ("svm", "holds"),
        ("softmax", "holds"),
    ]


def test_of_results_of_one_net_and_set_that_of_most_folds_counts(results):
    for name, num in (("1", 1), ("5", 5), ("9 of three", 3)):
        write(results / "runs" / name, layers_7(("conv5", "svm"), ("fc7", "svm"), folds=[80] * num))
    claims = make(results)["claims"]
    assert [claim["result"] for claim in claims if claim["says"].startswith("Layer 7 does")] == ["5"]


def test_networks_that_a_larger_result_compares_too_are_no_second_witness(results):
    write(results / "runs/both", evaluation(("zfnet", "z"), ("alexnet", "x")))
    write(results / "runs/three", evaluation(("zfnet", "z"), ("alexnet", "x"), ("alexnet", "y")))
    write(results / "runs/others", evaluation(("zfnet", "w"), ("alexnet", "x")))
    claims = make(results)["claims"]
    assert [claim["result"] for claim in claims if claim["says"].startswith("Averaging")] == ["others", "three"]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({}, ""),
        ({"data": "demo", "checkpoint": "runs/a/checkpoints/3", "num_images": 1}, "a; demo, 1 image"),
        ({"data": {"name": "demo", "num_classes": 1}, "num_images": 2}, "demo, 2 images of 1 class"),
        ({"data": {"name": "demo", "num_classes": 10}, "network": "a"}, "a; demo"),
        ({"network": "SqueezeNet", "num_pictures": 24, "num_classes": 1000}, "SqueezeNet; 24 images of 1,000 classes"),
        ({"data": {"name": "dogs"}, "num_pictures": 24, "num_images": 5}, "dogs, 24 images"),  # in draws of five
        ({"data": {"name": "demo"}, "num_images": 3, "score": {"num_images": 100}}, "demo, 100 images"),  # three drawn
        ({"architecture": "zfnet", "image_size": 224, "checkpoint": None}, "zfnet, 224 pixels"),
        ({"rows": [{"parameters": 1}] * 2, "data": {"name": "demo"}}, "2 architectures; demo"),
        (
            {"checkpoints": {"clipped": {"path": "r/x/checkpoints/1"}, "alexnet": "y.npz"}},
            "clipped (x), alexnet (y.npz)",
        ),
        ({"images": [{}, {}], "num_images": "many"}, "2 images"),
    ],
)
def test_networks_data_and_size_are_told_in_few_words(result, words):
    assert report_results.setting(result) == words


BROKEN = {
    "cut off": '{"figure": "Figure 4", ',
    "no file of ours": "[1, 2]",
    "no number": '{"figure": "Figure 4", "lower_layers_first": NaN, "layers": {}}',
    "an infinity": '{"figure": "Figure 4", "lower_layers_first": -Infinity, "layers": {}}',
    "too large a number": '{"figure": "Figure 4", "lower_layers_first": 1e999, "layers": {}}',
    "an empty name": {"table": ""},
    "a name that is none": {"figure": {"a": 1}},
    "of an earlier version": {"figure": "Figure 7"},
    "a string for a number": {**evaluation(("zfnet", "a")), "num_images": "500"},
    "a string for a share": {**settled(True, "a", "demo"), "lower_layers_first": "all"},
    "a string for a checkpoint": {**evaluation(("zfnet", "a")), "members": ["a"]},
    "an empty table": {"table": "Table 7", "rows": [{}]},
    "numbers as strings": {"table": "Table 1", "layers": {"conv5": {"nose": {"delta": "low", "p": "0.1"}}}},
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_result_stops_the_report(results, name):
    write(results / "runs/broken <b>", BROKEN[name])
    made = make(results)
    page, text = pages(results)
    if name == "no file of ours":
        assert made["unreadable"] == []
    else:
        (one,) = made["unreadable"]
        assert one["where"] == "broken <b>" and one["what"]
        assert 'class="unreadable">unreadable: broken &lt;b&gt;/result.json: ' in page
        assert "unreadable: broken \\<b\\>/result.json: " in text and "1 result could not be read" in text
    assert len(made["claims"]) == len(CLAIMS) + 1  # the others are judged as before


MISFITS = {
    "score is missing": {"figure": "Figure 7"},
    "members.1.error.ten.top1 is missing": evaluation(("zfnet", "a"), ten={"top5": 0.1}),
    "lower_layers_first is 'all', not a number": {**settled(True, "a", "demo"), "lower_layers_first": "all"},
    "layers.conv2.similarity.1 is 'low', not a number": settled(True, "a", "demo", conv2={"similarity": ["low"]}),
    "rows.1.folds.1 is 100.1, not at least 0 and at most 100": layers_7(("fc7", "svm"), folds=[100.1]),
    "num_train is 0, not at least 1": {"table": "Table 7", "rows": [], "num_train": 0},
    "layers.conv5.nose.p_aligned is missing": {"table": "Table 1", "layers": {"conv5": {"nose": {"delta": 1, "p": 1}}}},
    "slope.conv1 is missing": invariance(slope={"fc7": 1.0}),
    "num_images is 9, too few to train on 5 of 2 classes": {
        "table": "Table 4",
        "rows": [{"arm": arm, "num_train": 5, "folds": [1, 2], "mean": 1.5} for arm in ("pretrained", "scratch")],
        "paper": {"best earlier": {}},
        "num_images": 9,
        "num_classes": 2,
    },
    "photos_per_class holds 4, too few to train on 5": {
        "table": "Table 4",
        "rows": [{"arm": arm, "num_train": 5, "folds": [1, 2], "mean": 1.5} for arm in ("pretrained", "scratch")],
        "paper": {"best earlier": {}},
        "photos_per_class": [60, 4],
    },
    "values of 2 and of 1 images cannot be compared": invariance(of_scale=[0.5, 1.0]),
}


@pytest.mark.parametrize("fault", MISFITS)
def test_what_a_result_lacks_is_named_with_its_file(results, fault):
    write(results / "runs/misfit", MISFITS[fault])
    source = MISFITS[fault].get("figure") or MISFITS[fault]["table"]
    (one,) = make(results)["unreadable"]
    assert one == {"where": "misfit", "what": f"no result of this version of {source} ({fault}); make it again"}
    assert f"unreadable: misfit/result.json: {one['what']}" in html.unescape(pages(results)[0])


@pytest.mark.parametrize("bug", [KeyError("share"), TypeError("None"), ZeroDivisionError("0")])
def test_a_bug_of_a_judge_keeps_its_traceback(results, monkeypatch, bug):
    def judge(result):
        raise bug

    broken = [claim._replace(judge=judge) if claim.source == "Figure 4" else claim for claim in CLAIMS]
    monkeypatch.setattr(paper_report, "CLAIMS", broken)
    with pytest.raises(type(bug)) as raised:
        make(results)
    assert raised.value is bug and raised.traceback[-1].name == "judge"
    assert not (results / "report/result.json").exists()


@pytest.mark.parametrize(
    "result", [{"table": "x", name: value} for name in ("members", "rows", "checkpoint") for value in (3, ["a"], [3])]
)
def test_a_result_of_another_program_is_shown_whatever_its_fields_hold(results, result):
    write(results / "runs/foreign", result)
    assert make(results)["unreadable"] == [] and "## X" in pages(results)[1]


@pytest.mark.parametrize("name", ["members", "rows", "checkpoint", "checkpoints", "data", "num_images"])
@pytest.mark.parametrize(
    "value", [3, None, ["a"], [3], [{"folds": 3}], {"training": {"epochs": [1], "num_classes": "many"}}]
)
def test_fields_that_no_judge_reads_may_hold_anything(results, name, value):
    write(results / "runs/foreign", {**settled(True, "c", "demo"), name: value})
    assert make(results)["unreadable"] == []


def test_a_training_of_no_number_is_not_known(results):
    foreign = evaluation(("zfnet", "a"), ("alexnet", "b"))
    foreign["members"][1]["checkpoint"]["training"] = {**TRAINED, "num_images": "many"}
    write(results / "runs/foreign", foreign)
    of = {claim["says"]: claim for claim in make(results)["claims"] if claim["result"] == "foreign"}
    because = of["Averaging several networks reduces the error."]["because"]
    assert "precondition" not in because
    assert tables.depth_matters.needs.lacking(foreign) == (
        "its networks were not trained alike: 1,281,167, unknown images"
    )


def test_one_image_is_not_enough_to_compare_transforms(results):
    write(results / "runs/one", invariance())
    made = make(results)
    of_one = [claim["because"] for claim in made["claims"] if claim["result"] == "one"]
    assert made["unreadable"] == [] and of_one == ["fewer than two images"] * 3


def test_what_lacks_numbers_but_is_whole_is_shown_as_not_shown(results):
    rows = {"nose": {"delta": 0.1, "p": None}, "random": {"delta": 0.2, "p": None}}
    write(results / "runs/t1", {"table": "Table 1", "layers": {"conv5": rows}, "data": "demo", "checkpoint": "runs/x"})
    write(results / "runs/t7", {"table": "Table 7", "rows": [], "num_train": 30})
    write(
        results / "runs/t3",
        {"table": "Table 3", "rows": [], "rank_correlation": {"rho": None, "p_value": None, "num_variants": 3}},
    )
    made = make(results)
    assert made["unreadable"] == []
    verdicts = {claim["source"]: claim["verdict"] for claim in made["claims"] if claim["result"] in ("t1", "t3", "t7")}
    assert verdicts == {"Table 1": "not shown", "Table 3": "not shown"}


def test_a_name_that_no_encoding_knows_stops_nothing(results):
    write(results / "runs/odd", settled(True, "odd", "\ud800"))
    assert make(results)["unreadable"] == [] and "odd; ?, 1,234 images" in pages(results)[1]


def test_a_report_is_replaced_only_when_told(results):
    make(results)
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        make(results)
    make(results, overwrite=True)


def test_where_there_is_nothing_to_report_it_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result below .*/: draw a figure first"):
        paper_report.run(paper_report.Config(tmp_path, tmp_path / "report"))


def test_a_result_that_says_something_twice_is_unreadable(results):
    write(results / "runs/broken", '{"figure": "Figure 2", "figure": "Figure 4"}')
    (one,) = make(results)["unreadable"]
    assert one["where"] == "broken" and "'figure' stands there twice" in one["what"]


def test_verdicts_are_printed_with_what_could_not_be_read(results, capsys):
    write(results / "runs/broken", "{")
    paper_report.report(make(results))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CLAIMS) + 2 and lines[-1].startswith("unreadable: broken: JSONDecodeError")


def test_every_claim_has_one_sentence_to_quote_or_the_command_that_decides_it(results):
    made = make(results)
    overview = pages(results)[1].split("## ", 1)[0]
    assert "or better” is not measured; decided by: python -m experiments.layer\\_analysis" in overview
    begun = "only after many” does not hold here in 1 of 2 results (b; "
    assert begun in overview and "; holds in 1." in overview  # of as many, the more cautious one
    assert {claim.source for claim in CLAIMS} == set(paper_report.DECIDES)
    (first, *_) = made["claims"]
    assert first["precondition"] == "trained: at least 1 epoch" and first["null"].startswith("untrained networks: ")


class Parsed(Exception):
    """In the place of a run."""


@pytest.mark.parametrize("source", paper_report.DECIDES)
def test_the_command_that_decides_a_claim_parses(source, monkeypatch):
    cli = tyro.cli

    def parse_alone(config_type, **options):
        raise Parsed(cli(config_type, **options))

    monkeypatch.setattr(tyro, "cli", parse_alone)
    for words in paper_report.DECIDES[source].split(" && "):
        python, flag, module, *args = words.split()
        monkeypatch.setattr(sys, "argv", [module, *args])
        with pytest.raises(Parsed):
            importlib.import_module(module).main()
        assert (python, flag) == ("python", "-m")


def test_of_results_with_one_verdict_one_with_numbers_is_quoted():
    claim = CLAIMS[0]
    findings = [Finding(ours, "not shown", "why") for ours in ("", "1.8 against 2.6")]
    rows = [paper_report.Row(claim, None, finding) for finding in findings]
    assert paper_report.sentence(claim, rows).endswith("): 1.8 against 2.6.")
