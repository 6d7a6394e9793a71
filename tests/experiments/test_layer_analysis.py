"""Table 7 on a tiny net: each layer and classifier is that of its features, recorded, and skipped when run again."""

import json
import sys

import numpy as np
import pytest
import tiny_transfer
from judges import findings, findings_of
from PIL import Image

from experiments import layer_analysis
from experiments.pages import canvas
from zfjax import transfer
from zfjax.data import caltech
from zfjax.transfer import arms as transfer_arms
from zfjax.transfer import linear_models


@pytest.fixture
def photos(tmp_path):
    return tiny_transfer.write_photos(tmp_path)


@pytest.fixture
def trained(tmp_path):
    return tiny_transfer.network(tmp_path / "run")


def config(net, photos, **changes):
    settings = {"svm": ("conv1", "fc7"), "softmax": ("fc7",), "num_train": 4, "num_folds": 2, "batch_size": 16}
    return layer_analysis.Config(net=net.run, images=photos, **(settings | changes))


def by_hand(photo_set, every, layer, loss, number):
    """Accuracy of one fold from the layer's features themselves, not from their Gram matrix."""
    features = every[layer]
    options = {"num_train": 4, "num_folds": 2, "seed": 0, "class_names": photo_set.class_names}
    fold = transfer.folds(photo_set.labels, **options)[number]
    train, test = linear_models.normalized(features[fold.train], features[fold.test])
    targets = linear_models.targets_of(photo_set.labels[fold.train], 3)

    def quality(scores, targets):
        return (scores.argmax(axis=1) == targets.argmax(axis=1)).mean()

    held = np.tile([False] * 3 + [True], 3)
    model, _ = linear_models.fit_chosen(train, targets, held, loss=loss, quality=quality)
    right = linear_models.scores(model, test).argmax(axis=1) == photo_set.labels[fold.test]
    return np.mean([right[photo_set.labels[fold.test] == label].mean() for label in range(3)])


def test_rows_are_those_of_the_features_themselves(trained, photos):
    result = layer_analysis.run(config(trained, photos))
    written = json.loads((result["folder"] / "result.json").read_text())
    named = [(row["layer"], row["classifier"], row["num_features"]) for row in written["rows"]]
    assert named == [("conv1", "svm", 3 * 2 * 2), ("fc7", "svm", 12), ("fc7", "softmax", 12)]
    photo_set = caltech.open_caltech(photos, "caltech101")
    every = tiny_transfer.features_of(trained, photo_set)
    for row in written["rows"]:
        of_row = row["layer"], row["classifier"]
        expected = [100 * by_hand(photo_set, every, *of_row, number) for number in range(2)]
        assert row["folds"] == pytest.approx(expected, abs=2)  # one test image of 30 at most
        assert row["spread"] == pytest.approx(np.std(row["folds"], ddof=1))
    assert [row["paper"] for row in written["rows"]] == [44.8, 85.5, 85.4] and written["paper"]["num_train"] == 30
    assert written["rows"][0]["mean"] > 60 and written["num_train"] == 4
    assert sum(written["photos_per_class"]) == written["num_images"] and len(written["photos_per_class"]) == 3
    judged, (first, top, softmax) = findings(result["folder"]), written["rows"]
    assert judged["classifiers_agree"].ours == f"SVM {top['mean']:.1f} %, softmax {softmax['mean']:.1f} %"
    assert judged["higher_layers_are_better"] is judged["top_layer_is_as_good"] is None  # it has no conv5
    low, high = {**first, "layer": "conv5"}, {**top, "layer": "fc7"}
    judged = findings_of(result["folder"], rows=[low, high])["top_layer_is_as_good"]
    assert judged.ours == f"fc7 {top['mean']:.1f} %, conv5 {first['mean']:.1f} %"
    rows = [{**(first, top)[number % 2], "layer": f"conv{number + 1}"} for number in range(5)]
    judged = findings_of(result["folder"], rows=rows)["higher_layers_are_better"]
    assert judged.ours == ", ".join(f"{row['layer']} {row['mean']:.1f} %" for row in rows)
    with Image.open(result["folder"] / "layers.png") as image:
        assert (960, 600) <= image.size <= (960 + 2 * canvas.FREE, 600 + 2 * canvas.FREE)  # and an edge free of ink


@pytest.mark.usefixtures("undrawn")
def test_what_was_done_is_skipped_and_another_layer_is_not(trained, photos, monkeypatch):
    grams, real = [], linear_models.gram_matrix
    monkeypatch.setattr(linear_models, "gram_matrix", lambda f, *a: grams.append(f.shape) or real(f, *a))
    first = layer_analysis.run(config(trained, photos, svm=("conv1",)))
    assert grams == [(46, 12), (46, 12)]
    again = layer_analysis.run(config(trained, photos, svm=("conv1",), overwrite=True))
    assert len(grams) == 2 and again["rows"] == first["rows"]
    layer_analysis.run(config(trained, photos, overwrite=True))
    assert grams[2:] == [(46, 12)]  # fc7 for the SVM
    keys = [json.loads(path.read_text())["key"] for path in (trained.run / "layers" / "records").rglob("*.json")]
    assert {key["version"] for key in keys} == {transfer_arms.MODEL_VERSION}
    with pytest.raises(ValueError, match="it already holds a result; give another folder, or --overwrite"):
        layer_analysis.run(config(trained, photos))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"svm": ("conv2",)}, "layer='conv2': one of conv1, fc7, fc8 of .* is needed"),
        ({"svm": (), "softmax": ()}, r"svm=\(\), softmax=\(\): at least one layer is needed"),
        ({"batch_size": 0}, "batch_size=0: at least 1 is needed"),
        ({"num_train": 9}, "num_train=9: class 'ant' has 9 images"),
        ({"num_folds": 0}, "num_folds=0: at least 1"),
        ({"num_train": None}, "num_train=30: class 'ant' has 9 images"),
        ({"dataset": "caltech256"}, "holds 101_ObjectCategories, which is caltech101"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(trained, photos, changes, message):
    with pytest.raises(ValueError, match=message):
        layer_analysis.run(config(trained, photos, **changes))
    assert not [*trained.run.rglob("result.json"), *trained.run.rglob("records"), *trained.run.rglob("*.npy")]


def test_the_command_prints_its_table_beside_the_papers(trained, photos, monkeypatch, capsys):
    flags = [
        "--net",
        str(trained.run),
        "--images",
        str(photos),
        "--svm",
        "fc7",
        "--softmax",
        "fc8",
        "--num-train",
        "4",
        "--num-folds",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["layer_analysis", *flags])
    layer_analysis.main()
    net, data, *lines = capsys.readouterr().out.splitlines()
    assert net.startswith("net: ") and data == "data: caltech101, 3 classes, 46 photos"
    assert lines[1].split()[:3] == ["fc7", "12", "svm"] and lines[1].endswith("85.5")
    assert lines[2].split()[:3] == ["fc8", "3", "softmax"] and lines[2].endswith("-")
    asked = f"{'-'.join(photos.parts[-2:])}-svm-fc7-softmax-fc8-num-train4-num-folds1"
    assert lines[3] == f"written to {trained.run / 'layers' / 'caltech101' / asked}"


def test_a_classifier_that_had_not_converged_is_recorded_and_told(trained, photos, monkeypatch, capsys):
    calm = layer_analysis.run(config(trained, photos, svm=()))
    assert [record["converged"] for record in calm["rows"][0]["records"]] == [True, True]
    layer_analysis.report(calm)
    assert "warning" not in capsys.readouterr().out
    monkeypatch.setattr(linear_models, "converged", lambda model: False)
    told = layer_analysis.run(config(trained, photos, svm=(), num_folds=3, overwrite=True))  # two of them are recorded
    assert [record["converged"] for record in told["rows"][0]["records"]] == [True, True, False]
    layer_analysis.report(told)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("warning: 1 of 3 linear models had not converged after 5000 steps; see what was `left`")
