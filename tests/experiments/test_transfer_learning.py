"""Tables 4 to 6 on a tiny net and tiny sets: what is measured, recorded, skipped when run again, and refused."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import tiny_transfer
from judges import findings, findings_of
from native_sets import NAMES, VOC, devkit, write
from PIL import Image
from tiny_transfer import RECIPE, SIDE, TABLE

from experiments import transfer_learning
from experiments.pages import canvas
from zfjax import nets, transfer
from zfjax.analyses import sanity
from zfjax.data import ArraySource, caltech, voc
from zfjax.training import checkpoints, loop, step
from zfjax.transfer import arms as transfer_arms
from zfjax.transfer import linear_models


@pytest.fixture
def photos(tmp_path):
    return tiny_transfer.write_photos(tmp_path)


@pytest.fixture
def trained(tmp_path):
    return tiny_transfer.network(tmp_path / "run")


def config(net, photos, **changes):
    settings = {"num_train": (4,), "curve": (1,), "num_folds": 2, "batch_size": 16, "scratch_batch_size": 8}
    return transfer_learning.Config(net=net.run, images=photos, **({"arms": ("pretrained",)} | settings | changes))


def by_hand(photo_set, features, num_train, number):
    """(accuracy, penalty) of one fold, from single pictures, the penalty searched here."""
    options = {"num_train": num_train, "num_folds": 2, "seed": 0, "class_names": photo_set.class_names}
    fold = transfer.folds(photo_set.labels, **options)[number]
    train, test = linear_models.normalized(features[fold.train], features[fold.test])
    labels = photo_set.labels[fold.train]
    held = np.tile([False] * 3 + [True], 3) if num_train == 4 else np.zeros(3, bool)
    quality = [0.0] * 6
    for n, penalty in enumerate(linear_models.PENALTIES if held.any() else ()):
        model = linear_models.fit(train[~held], linear_models.targets_of(labels[~held], 3), penalty, loss="softmax")
        quality[n] = (linear_models.scores(model, train[held]).argmax(axis=1) == labels[held]).mean()
    penalty = linear_models.PENALTIES[int(np.argmax(quality)) if held.any() else 3]
    model = linear_models.fit(train, linear_models.targets_of(labels, 3), penalty, loss="softmax")
    right = linear_models.scores(model, test).argmax(axis=1) == photo_set.labels[fold.test]
    return np.mean([right[photo_set.labels[fold.test] == label].mean() for label in range(3)]), penalty


def test_pretrained_rows_are_those_of_single_pictures(trained, photos):
    result = transfer_learning.run(config(trained, photos))
    written = json.loads((result["folder"] / "result.json").read_text())
    assert [(row["arm"], row["num_train"]) for row in written["rows"]] == [("pretrained", 1), ("pretrained", 4)]
    photo_set = caltech.open_caltech(photos, "caltech101")
    features = tiny_transfer.features_of(trained, photo_set)["fc7"]
    for row in written["rows"]:
        both = [by_hand(photo_set, features, row["num_train"], number) for number in range(2)]
        accuracies, penalties = zip(*both, strict=True)
        expected = 100 * np.array(accuracies)
        assert row["folds"] == pytest.approx(expected, abs=1e-6)
        assert tuple(record["penalty"] for record in row["records"]) == penalties
        assert row["mean"] == pytest.approx(np.mean(expected)) and row["paper"] is None
        assert row["spread"] == pytest.approx(np.std(expected, ddof=1))
    assert written["rows"][1]["mean"] > 60 and written["num_images"] == 46 and written["unit"] == "percent"
    assert written["photos_per_class"] == [(photo_set.labels == label).sum() for label in range(3)]
    assert written["paper"]["pretrained"]["30"] == {"mean": 86.5, "spread": 0.5}
    assert written["table"] == "Table 4" and written["data"]["name"] == "caltech101" and written["seed"] == 0
    with Image.open(result["folder"] / "curve.png") as image:
        assert (960, 600) <= image.size <= (960 + 2 * canvas.FREE, 600 + 2 * canvas.FREE)  # and an edge free of ink
    with pytest.raises(ValueError, match="it already holds a result; give another folder, or --overwrite"):
        transfer_learning.run(config(trained, photos))


@pytest.mark.usefixtures("undrawn")
def test_untrained_rows_are_those_of_the_net_with_its_weights_drawn_anew(trained, photos):
    result = transfer_learning.run(config(trained, photos, arms=("untrained", "pretrained"), seed=3))
    assert [(row["arm"], row["num_train"]) for row in result["rows"]] == [
        ("pretrained", 1),
        ("pretrained", 4),
        ("untrained", 4),
    ]
    twin = sanity.untrained(trained, 3)
    records = [json.loads(file.read_text()) for file in (trained.run / "transfer" / "records").glob("untrained*")]
    assert {record["key"]["features"]["weights"] for record in records} == {twin.fingerprint} != {trained.fingerprint}
    features = tiny_transfer.features_of(twin, caltech.open_caltech(photos, "caltech101"))["fc7"]
    stored = [np.load(file) for file in (trained.run / "features").glob("fc7*.npy")]
    assert sum(np.allclose(of, features, atol=1e-5) for of in stored) == 1
    assert result["rows"][2]["paper"] is None
    ours = findings(result["folder"])["pretrained_beats_scratch_on_101"]
    assert ours is None  # without a net from scratch there is nothing to compare


def test_a_function_whose_weights_are_not_at_hand_has_no_untrained_arm():
    net = nets.FunctionNet(lambda images: {"fc7": images.mean(axis=(1, 2))}, image_size=4)
    with pytest.raises(ValueError, match="arms='untrained': .* whose weights are not at hand; leave it out of --arms"):
        transfer_learning.drawn_anew(net, 0)


@pytest.mark.usefixtures("undrawn")
def test_what_was_done_is_skipped_and_only_that(trained, photos, monkeypatch):
    seen = []
    classify = transfer_learning.transfer_arms.classify
    monkeypatch.setattr(
        transfer_learning.transfer_arms, "classify", lambda *a, **k: seen.append(1) or classify(*a, **k)
    )
    first = transfer_learning.run(config(trained, photos))
    assert len(seen) == 4
    again = transfer_learning.run(config(trained, photos, overwrite=True))
    assert len(seen) == 4 and again["rows"] == first["rows"]
    transfer_learning.run(config(trained, photos, overwrite=True, num_folds=3))
    assert len(seen) == 6
    transfer_learning.run(config(trained, photos, overwrite=True, seed=1))
    assert len(seen) == 10
    other = tiny_transfer.network(trained.run.with_name("other"), 1)
    transfer_learning.run(config(other, photos, overwrite=True, out=first["folder"]))
    assert len(seen) == 14


@pytest.mark.usefixtures("undrawn")
def test_from_scratch_learns_its_fold_alone(trained, photos, monkeypatch):
    rates, set_rate = [], step.with_learning_rate
    monkeypatch.setattr(step, "with_learning_rate", lambda s, rate: rates.append(rate) or set_rate(s, rate))
    changes = {"scratch_epochs": 25, "scratch_learning_rate": 0.02, "num_folds": 1}
    changes |= {"arms": ("pretrained", "scratch"), "curve": ()}
    result = transfer_learning.run(config(trained, photos, **changes))
    np.testing.assert_allclose(rates, 0.01 * (1 + np.cos(np.pi * np.arange(25) / 25)), atol=1e-9)
    assert not (result["folder"] / "unfinished").exists()
    frozen, row = result["rows"]
    assert row["arm"] == "scratch" and row["num_train"] == 4 and row["mean"] > 60  # chance is 33
    (file,) = (trained.run / "transfer" / "records").glob("scratch*")
    record = json.loads(file.read_text())
    key, learnt = record["key"], record["training_accuracy"]
    assert learnt > 0.6 and (12 * learnt) % 1 == pytest.approx(0, abs=1e-9)  # of four images of each of three classes
    assert row["records"][0]["training_accuracy"] == learnt
    assert key["recipe"]["num_epochs"] == 25 and key["recipe"]["annealing"] == "cosine" and key["size"] == SIDE
    assert "features=3" in key["architecture"] and key["num_test"] == 50
    words = f"4 per class: {frozen['mean']:.1f} against {row['mean']:.1f} %"
    judged = findings_of(result["folder"], paper={"best earlier": {"4": {"mean": 10.0}}})
    assert judged["pretrained_beats_scratch_on_101"].ours == words
    assert judged["pretrained_beats_earlier_on_101"].ours == f"4 per class: {frozen['mean']:.1f} against 10.0 %"
    assert judged["pretrained_beats_earlier_on_101"].because == "3 of 101 classes"


@pytest.mark.usefixtures("undrawn")
def test_six_images_of_caltech_256_are_judged_by_their_mean(trained, tmp_path):
    photos = tiny_transfer.write_photos(tmp_path, "caltech256")
    changes = {"dataset": "caltech256", "num_train": (6,), "curve": (), "num_folds": 1}
    result = transfer_learning.run(config(trained, photos, **changes))
    judged, (row,) = findings(result["folder"]), result["rows"]
    assert judged["few_images_suffice"].ours == f"{row['mean']:.1f} %"
    assert judged["few_images_suffice"].because == "3 of 256 classes"
    assert judged["pretrained_beats_scratch_on_256"] is judged["pretrained_beats_earlier_on_256"] is None


@pytest.mark.usefixtures("undrawn")
def test_scratch_training_takes_the_mean_of_its_own_pictures_and_stops_at_nonsense():
    images = np.random.default_rng(0).integers(0, 256, (9, SIDE, SIDE, 3), np.uint8)
    source = ArraySource(images, np.arange(9) % 3)
    np.testing.assert_allclose(transfer_arms.mean_picture(source, SIDE), images.mean(axis=0), rtol=1e-6)
    changes = {"num_epochs": 2, "batch_size": 4, "learning_rate": 0.5, "weight_decay": 0.1, "initialization": "he"}
    recipe = transfer_arms.scratch_recipe(RECIPE, **changes)
    assert recipe == dataclasses.replace(RECIPE, **changes, annealing="cosine")
    nan = np.full((SIDE, SIDE, 3), np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="loss=nan at step 1: training from scratch diverged"):
        transfer_arms.train(recipe, TABLE, source=source, mean=nan)


@pytest.mark.slow
def test_from_scratch_a_stopped_fold_goes_on_after_its_last_epoch_to_the_same_bits(monkeypatch, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (17, SIDE, SIDE, 3), np.uint8)
    mean = np.full((SIDE, SIDE, 3), 120, np.float32)
    fold = {"source": ArraySource(images, np.arange(17) % 3), "mean": mean}
    recipe = dataclasses.replace(RECIPE, num_epochs=4, learning_rate=0.02, annealing="cosine")
    whole = transfer_arms.train(recipe, TABLE, **fold)

    def train(*args):  # two steps an epoch
        for event in real(*args):
            yield event
            steps.extend([event.step] if isinstance(event, loop.Stepped) else [])
            if stop and len(steps) == 5:
                raise KeyboardInterrupt

    real, steps, stop = loop.train, [], True
    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(KeyboardInterrupt):
        transfer_arms.train(recipe, TABLE, **fold, folder=tmp_path)
    stop = False
    params = transfer_arms.train(recipe, TABLE, **fold, folder=tmp_path)
    assert steps == [1, 2, 3, 4, 5] + [5, 6, 7, 8]
    assert checkpoints.digest(params) == checkpoints.digest(whole)


@pytest.mark.usefixtures("undrawn")
def test_voc_is_scored_by_average_precision(trained, tmp_path):
    write(tmp_path, devkit())
    result = transfer_learning.run(
        transfer_learning.Config(net=trained.run, images=tmp_path, dataset="voc2012", batch_size=16)
    )
    written = json.loads((result["folder"] / "result.json").read_text())
    assert set(written["average_precision"]) == {"cat", "dog"}
    assert written["average_precision"]["cat"] in (50.0, 100.0)  # one of two photos of val shows a cat
    assert written["average_precision"]["dog"] == 100.0  # the only clear photo of val shows a dog
    assert written["mean_average_precision"] == np.mean(list(written["average_precision"].values()))
    assert written["penalty"] == 1e-2  # the strongest of all that rank the one held-out photo right
    assert written["paper"]["pretrained"] == 79.0 and "rows" not in written
    assert written["photos_per_class"] == (voc.open_voc(tmp_path).labels > 0).sum(axis=0).tolist()
    judged = findings(result["folder"])["average_precision"]
    assert judged.ours == f"{written['mean_average_precision']:.1f} % on val, trained on train"
    assert judged.because == "2 of VOC's 20 classes"
    assert written["converged"] is True and written["left"] <= 1e-3 and written["iterations"] > 0


def test_another_split_of_the_same_photos_is_measured_anew(trained, tmp_path):
    """The third photo moves from train to val, which leaves the photos and their order as they were."""
    arms = []
    for number, train in enumerate((3, 2)):
        files, names = devkit(False), NAMES["train"] + NAMES["val"]
        files[f"{VOC}/ImageSets/Main/train.txt"] = "\n".join(names[:train])
        files[f"{VOC}/ImageSets/Main/val.txt"] = "\n".join(names[train:])
        photo_set = voc.open_voc(write(tmp_path / str(number), files))
        arms.append(transfer_arms.voc(trained, photo_set, layer="fc7", folder=tmp_path / "cache", batch_size=16))
    keys = [arm.key for arm in arms]
    assert keys[0]["features"] == keys[1]["features"]  # computed once for both
    assert [key["splits"] for key in keys] == [{"train": 3, "val": 2}, {"train": 2, "val": 3}]


def test_splits_that_show_nothing_are_refused(trained, tmp_path):
    whole = voc.open_voc(write(tmp_path, devkit()))
    for labels, message in (
        (np.where(np.arange(5)[:, None] < 3, -1, whole.labels), "no photo of train shows a class: of 3 photos"),
        (np.where(np.arange(5)[:, None] < 3, whole.labels, 0), "no photo of val shows a class: of 2 photos"),
    ):
        photo_set = dataclasses.replace(whole, labels=labels)
        with pytest.raises(ValueError, match=f"voc2012: {message}"):
            transfer_arms.voc(trained, photo_set, layer="fc7", folder=tmp_path, batch_size=16)


def test_the_keys_of_records_know_the_version_of_what_measured_them(trained, photos, tmp_path):
    photo_set = caltech.open_caltech(photos, "caltech101")
    (fold,) = transfer.folds(photo_set.labels, num_train=4, num_folds=1, seed=0, class_names=photo_set.class_names)
    frozen = {"layer": "fc7", "folder": tmp_path, "batch_size": 16}
    assert transfer_arms.pretrained(trained, photo_set, fold, **frozen).key["version"] == transfer_arms.MODEL_VERSION
    key = transfer_arms.scratch(trained, photo_set, fold, recipe=RECIPE, folder=tmp_path).key
    assert key["version"] == transfer_arms.SCRATCH_VERSION


@pytest.mark.parametrize(("initialization", "input_scale"), [("paper", 1.0), ("he", 7 / 58), ("he_even", 7 / 58)])
def test_from_scratch_pixels_are_scaled_as_suits_how_the_weights_begin(
    trained, photos, tmp_path, initialization, input_scale
):
    photo_set = caltech.open_caltech(photos, "caltech101")
    (fold,) = transfer.folds(photo_set.labels, num_train=4, num_folds=1, seed=0, class_names=photo_set.class_names)
    recipe = dataclasses.replace(RECIPE, initialization=initialization)
    key = transfer_arms.scratch(trained, photo_set, fold, recipe=recipe, folder=tmp_path).key
    assert f"input_scale={input_scale!r}" in key["architecture"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train": (7,)}, "num_train=7: class 'bass' has 7 images, and at least one is to be tested on"),
        ({"num_train": (0,)}, "num_train=0: at least 1"),
        ({"num_folds": 0}, "num_folds=0: at least 1"),
        ({"scratch_epochs": 0}, "scratch_epochs=0: at least 1"),
        ({"scratch_learning_rate": -1.0}, "learning_rate=-1.0: a finite number above 0 is needed"),
        ({"arms": ()}, r"arms=\(\): at least one is needed"),
        (
            {"arms": ("scratch",), "num_train": (2,)},
            "arms='scratch': 6 training images do not fill the net's batches of 8; a smaller scratch_batch_size",
        ),
        ({"layer": "fc9"}, "layer='fc9': one of conv1, fc7, fc8 of .* is needed"),
        ({"dataset": "caltech256"}, "holds 101_ObjectCategories, which is caltech101, not caltech256"),
        ({"dataset": "voc2012", "arms": ("scratch",)}, "of voc2012 pretrained alone"),
        ({"dataset": "voc2012"}, r"num_train=\(4,\): voc2012 is trained on the whole of its split train"),
        ({"remove_duplicates": 2.0}, "remove_duplicates=2.0: a correlation above 0 and at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(trained, photos, changes, message):
    with pytest.raises(ValueError, match=message):
        transfer_learning.run(config(trained, photos, **changes))
    assert not [*trained.run.rglob("result.json"), *trained.run.rglob("records"), *trained.run.rglob("*.npy")]


def test_the_command_prints_its_table_beside_the_papers(trained, photos, monkeypatch, capsys):
    flags = [
        "--net",
        str(trained.run),
        "--images",
        str(photos),
        "--arms",
        "pretrained",
        "--num-train",
        "4",
        "--curve",
        "2",
        "--num-folds",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", ["transfer_learning", *flags])
    monkeypatch.setitem(transfer_learning.PAPER["caltech101"]["pretrained"], 4, {"mean": 50.0, "spread": 0.5})
    transfer_learning.main()
    printed = capsys.readouterr().out
    folder = (
        trained.run / "transfer" / "caltech101" / f"{'-'.join(photos.parts[-2:])}-arms-pretrained-num-train4-curve2"
    )
    assert "50.0 ± 0.5" in printed and f"written to {folder}-num-folds2" in printed
    monkeypatch.setattr(sys, "argv", ["transfer_learning", *flags])
    with pytest.raises(SystemExit, match="error: out=.*it already holds a result"):
        transfer_learning.main()
