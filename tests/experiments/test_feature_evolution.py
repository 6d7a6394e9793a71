"""Figure 4: the right epochs, the strongest training image of each, every tile on its own scale, honest numbers."""

import functools
import json
import shutil
import sys
import types

import foreign_nets
import jax
import numpy as np
import pytest
import tiny_nets
from judges import findings
from PIL import Image
from saved_runs import save_run
from tiny_run import CENTRES, MEAN, NET, NUM, PICTURES, SIDE, make_params

import zfjax
from experiments import feature_evolution
from experiments.pages import canvas
from experiments.pages import deconv as deconv_page
from experiments.pages import evolution as evolution_page
from experiments.shell import kept_epochs as kept
from experiments.shell import scans, training_log
from zfjax import data, nets, pixels
from zfjax.analyses import evolution, strongest
from zfjax.data import ArraySource, ImageSet, sets

ENDS = {1: 10, 2: 20, 3: 30, 4: 40, 5: 50, 6: 60}  # epoch: step; the checkpoint of epoch 3 is gone
KEPT = (10, 20, 25, 40, 50)  # 25 lies inside an epoch, and epoch 6 is not saved
VALIDATION = PICTURES[::-1, ::-1]
PROBES = VALIDATION[:, 2:22, 2:22].astype(np.float32) - 120


@functools.cache
def params_at(step):
    """Other weights at every step, of the same size; map 1 of conv1 is dead, but in the beginning map 2."""
    weights = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else np.roll(leaf, step // 10, axis=-1), make_params())
    bias = np.roll(weights["conv1"]["bias"], int(step == 10))
    return {**weights, "conv1": {**weights["conv1"], "bias": bias}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a run of the tiny net, whose checkpoints differ."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    save_run(folder, NET, {step: params_at(step) for step in KEPT}, MEAN, class_names=("a", "b", "c"))
    log = training_log.TrainingLog(folder)
    log.append({"kind": "step", "step": 5, "epoch_done": 0.5, "loss": 1.0})
    errors = dict.fromkeys(("train_top1_error", "validation_top1_error", "validation_top5_error"), 0.5)
    for epoch, step in ENDS.items():
        log.append({"kind": "epoch", "epoch": epoch, "step": step, "learning_rate": 0.1, "train_loss": 1.0, **errors})
    return folder


@pytest.fixture
def run(saved, tmp_path):
    """A copy of it, to write to."""
    return shutil.copytree(saved, tmp_path / "run")


def images_of(train=PICTURES, validation=VALIDATION):
    """The tiny set, or one that lacks a split."""
    splits = [None if part is None else ArraySource(part, np.zeros(NUM, int)) for part in (train, validation)]
    return ImageSet("tiny", SIDE, ("a",), *splits, MEAN, None, "data")


def draw(run, data=None, **changes):
    return feature_evolution.run(config(net=run, **changes), data=images_of() if data is None else data)


def config(**changes):
    return feature_evolution.Config(**{"batch_size": 4, "num_maps": 2, "layers": ("conv1", "conv2"), **changes})


def features_at(step, images, layer):
    return np.asarray(tiny_nets.forward(params_at(step), images, architecture=NET)[1][layer].features)


def epochs_up_to(run, step, epochs=()):
    return kept.epoch_checkpoints(nets.load_net(run / "checkpoints" / str(step)), epochs)


def test_epochs_are_those_of_the_log_whose_checkpoint_is_there(run):
    paths = epochs_up_to(run, 50)
    assert paths == {epoch: run / "checkpoints" / str(ENDS[epoch]) for epoch in (1, 2, 5)}  # 4 is not in Fig. 4
    assert list(epochs_up_to(run, 40)) == [1, 2, 4]  # 4 is the last
    assert list(epochs_up_to(run, 25)) == [1, 2]
    assert list(epochs_up_to(run, 50, (4, 1))) == [1, 4]


def test_epochs_that_are_not_there_are_refused(run):
    with pytest.raises(ValueError, match=r"epochs=\[3, 6\]: .* holds the checkpoints after the epochs \[1, 2, 4, 5\]"):
        epochs_up_to(run, 50, (6, 3, 1))
    too_few = r"epochs=\[1\]: two or more are needed; training keeps .* 1, 2, 5, 10, .* --resume .* --num-epochs N"
    for step, epochs in ((10, ()), (50, (1,))):
        with pytest.raises(ValueError, match=too_few):
            epochs_up_to(run, step, epochs)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"epochs=\[\]: two or more are needed"):
        draw(run)
    assert not (run / "figures").exists()


def test_a_sample_keeps_the_place_in_its_split():
    sample = data.Subset(ArraySource(PICTURES, np.arange(NUM)), np.array([3, 8]))
    assert len(sample) == 2 and [int(sample[n]["index"]) for n in (0, 1)] == [3, 8]
    np.testing.assert_array_equal(sample[1]["image"], PICTURES[8])


@pytest.mark.usefixtures("undrawn")
def test_each_epoch_shows_the_strongest_training_image_of_all(run):
    out = draw(run, maps=("conv2:0,3",), layers=("conv2",))["folder"]
    images = CENTRES.astype(np.float32) - 120
    with np.load(out / "conv2.npz") as saved:
        for epoch in (1, 2, 5):
            features = features_at(ENDS[epoch], images, "conv2")
            for m, channel in enumerate((0, 3)):
                image, row, column = np.unravel_index(features[..., channel].argmax(), features.shape[:3])
                assert saved[f"epoch_{epoch}/images"][m, 0] == image
                assert saved[f"epoch_{epoch}/names"][m, 0] == str(image)
                weights = params_at(ENDS[epoch])
                trace = tiny_nets.forward(weights, images[image][None], architecture=NET)[1]
                top = zfjax.isolate(trace["conv2"].features, channel=channel, position=(row, column))
                alone = zfjax.project(weights, trace, top, layer="conv2", architecture=NET)[0]
                projection = saved[f"epoch_{epoch}/projections"][m, 0]
                np.testing.assert_allclose(projection, alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max())


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_those_of_the_features_and_the_strongest_images(run):
    result = draw(run, num_probes=NUM, num_maps=5)
    assert result["epochs"] == [1, 2, 5] and list(result["layers"]) == ["conv1", "conv2", "fc6"]
    for layer, facts in result["layers"].items():
        final = features_at(50, PROBES, layer)
        for step, value in zip((10, 20, 50), facts["similarity"], strict=True):
            now = features_at(step, PROBES, layer)
            maps = [c for c in range(final.shape[-1]) if np.ptp(final[..., c]) > 0]
            with np.errstate(invalid="ignore", divide="ignore"):
                each = [np.corrcoef(now[..., c].ravel(), final[..., c].ravel())[0, 1] for c in maps]
            assert value == pytest.approx(np.nan_to_num(each).mean(), abs=1e-4)
        assert facts["settling_epoch"] is None and facts["similarity"][-1] == pytest.approx(1)
    strongest = [features_at(s, CENTRES.astype(np.float32) - 120, "conv1").max(axis=(1, 2)) for s in (10, 20, 50)]
    alive = strongest[-1].max(axis=0) > 0
    ratio = [np.median(s.max(axis=0)[alive] / strongest[-1].max(axis=0)[alive]) for s in strongest]
    assert result["layers"]["conv1"]["growth"] == pytest.approx(ratio, rel=1e-4) and ratio[-1] == 1
    both = alive & (strongest[1].max(axis=0) > 0)
    moved = (strongest[1].argmax(axis=0) != strongest[2].argmax(axis=0))[both].mean()
    assert result["layers"]["conv1"]["changed"][1] == pytest.approx(moved) and 0 < moved
    assert result["layers"]["conv1"]["maps"].tolist() == [0, 2, 3, 4, 5]  # map 1 is dead at the end


def test_logits_are_compared_only_where_they_are_drawn(run):
    result = draw(run, layers=("conv1", "fc7"), num_probes=3)
    assert list(result["layers"]) == ["conv1", "conv2", "fc6", "fc7"] and len(result["layers"]["fc7"]["maps"]) == 2


def test_the_command_writes_what_it_drew_goes_on_from_its_scans_and_overwrites_only_when_told(run, monkeypatch):
    read = []
    real = scans.eval_batches
    monkeypatch.setattr(scans, "eval_batches", lambda *a, **o: read.append(1) or real(*a, **o))
    out = run / "out"
    draw(run, seed=3, num_images=7, out=out)
    names = {"conv1.npz", "conv2.npz", "evolution.png", "curves.png", "result.json"}
    assert {path.name for path in out.iterdir()} == names and len(read) == 3
    files = list((run / "scans").iterdir())
    assert len(files) == 3  # one for each epoch
    for file in files:
        with np.load(file) as saved:  # the sample does not depend on the seed of the maps
            assert set(saved["conv2/images"].ravel()) <= set(sets.choose(PICTURES, 7, seed=0))
    written = json.loads((out / "result.json").read_text())
    assert written["folder"] == str(out) and written["seed"] == 3 and written["num_images"] == 7
    assert written["checkpoint"]["fingerprint"] == nets.load_net(run).fingerprint
    assert written["data"]["fingerprint"] == "data"
    assert written["config"]["batch_size"] == 4 and "jax" in written["versions"] and "paper" in written
    assert set(written["layers"]["conv1"]) >= set(evolution.MEANINGS) - {"lower_layers_first"}
    judged = findings(out)
    share = (
        f"in {written['lower_layers_first']:.0%} of the pairs of layers the lower one is nearer (on the straight way "
    )
    assert judged["lower_layers_settle_first"].ours.startswith(share)
    pairs = [of["continuity"] for of in written["layers"].values() if "continuity" in of]
    known = [
        [pair["image_stayed"], pair["image_changed"]]
        for pair in pairs
        if None not in (pair["image_stayed"], pair["image_changed"])
    ]
    stayed, changed = np.mean(known, axis=0)
    words = f"correlation {stayed:.2f} where the image stayed, {changed:.2f} where it changed"
    assert judged["jumps_come_from_other_images"].ours == words
    maps = written["layers"]["conv1"]["maps"]
    assert written["layers"]["conv1"]["units"] == [f"map {number}" for number in maps]
    with np.load(out / "conv1.npz") as saved:
        assert written["layers"]["conv1"]["images"]["2"] == saved["epoch_2/names"][:, 0].tolist()
    with Image.open(out / "evolution.png") as image:
        assert image.size[0] <= 1600
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        draw(run, out=out)
    draw(run, layers=("conv1",), maps=("conv1:4",), num_images=7, seed=4, out=out, overwrite=True)
    assert len(read) == 3  # other maps need no other scan
    assert {path.name for path in out.iterdir()} == names - {"conv2.npz"}
    draw(run, num_images=8, out=out, overwrite=True)
    assert len(read) == 6


def test_bad_settings_are_refused_before_anything_is_written(run):
    for name in ("num_maps", "num_images", "num_probes"):
        with pytest.raises(ValueError, match=f"{name}=0: at least 1 is needed"):
            draw(run, **{name: 0})
    with pytest.raises(ValueError, match="maps='conv9:1': 'conv9' is not among the layers drawn"):
        draw(run, maps=("conv9:1",))
    with pytest.raises(ValueError, match="layer='conv9': one of conv1, conv2, fc6, fc7 of .* is needed"):
        draw(run, layers=("conv9",))
    with pytest.raises(ValueError, match="data='tiny' has no training split"):
        draw(run, images_of(train=None))
    assert not [path for path in (run / "figures").rglob("*") if path.is_file()]
    assert not (run / "scans").exists()


@pytest.mark.usefixtures("undrawn")
def test_without_a_validation_split_training_pictures_are_compared(run):
    result = draw(run, images_of(validation=None), num_probes=NUM, layers=("conv1",))
    now, final = (features_at(step, CENTRES.astype(np.float32) - 120, "conv1") for step in (20, 50))
    assert result["layers"]["conv1"]["similarity"][1] == pytest.approx(evolution.similarity(now, final), abs=1e-5)


def test_a_net_without_epochs_is_sent_to_the_library(tmp_path):
    pictures = foreign_nets.folder(tmp_path / "pictures")
    needed = "net='small': the kept epochs of a training run are needed, .* `zfjax.evolution.measure`"
    with pytest.raises(ValueError, match=needed):
        feature_evolution.run(
            feature_evolution.Config(net="foreign_nets:SMALL", data=str(pictures), out=tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_epochs_of_a_net_that_is_none_of_ours_are_compared_and_drawn(tmp_path):
    """Not square, its field of view unknown, its pictures called by their files' names, its logits by their classes."""
    net = foreign_nets.SMALL
    late = net.params
    early = jax.tree.map(lambda leaf: leaf + 0.2 * np.roll(leaf, 1, axis=-1), late)
    by_epoch = {3: net, 1: net.with_params(early)}
    pictures = sets.open_images(str(foreign_nets.folder(tmp_path / "pictures")), net).train
    images = nets.read_views(pictures, range(6), net).images
    facts = evolution.measure(by_epoch, images, net.layers)
    first, last = (foreign_nets.answers(params, images) for params in (early, late))
    for layer in net.layers:
        expected = evolution.similarity(np.asarray(first[layer]), np.asarray(last[layer]))
        assert facts[layer]["similarity"] == pytest.approx([expected, 1], abs=1e-5) and 0.1 < expected < 1
    tops = {
        epoch: scans.kept_scan(of, pictures, net.layers, of="", path=tmp_path / f"{epoch}.npz", k=1, batch_size=4)
        for epoch, of in by_epoch.items()
    }
    assert evolution.follow(tops)["conv1"]["growth"][1] == 1
    maps = {"conv1": np.array([0, 3]), "logits": np.array([2])}
    drawn = evolution.project(by_epoch, pictures, tops=tops, maps=maps)
    assert list(drawn["conv1"]) == [1, 3] and drawn["conv1"][1].projections.shape == (2, 1, 4, 4, 3)
    assert drawn["logits"][3].names[0, 0].split("/")[-1].startswith("picture ")
    assert set(evolution.continuities(drawn)) == {"conv1", "logits"}
    for layer, numbers in maps.items():
        facts[layer]["units"] = [nets.unit_name(net, layer, number) for number in numbers]
    result = {"epochs": [1, 3], "layers": facts, "threshold": 0.9, "num_images": 6}
    page = canvas.pixels_of(evolution_page.evolution_page(drawn, result, patches=True))
    assert facts["logits"]["units"] == ["owl"] and page.shape[1] <= 1600


@pytest.mark.parametrize(
    "call", [evolution.measure, lambda by_epoch, *_: evolution.project(by_epoch, None, tops={}, maps={})]
)
def test_one_epoch_is_too_few(call):
    with pytest.raises(ValueError, match=r"by_epoch of the epochs \[4\]: two or more are needed"):
        call({4: foreign_nets.SMALL}, np.zeros((1, 20, 28, 3), np.float32), ["conv1"])


def projected_with(factor, image):
    """One map of 8-pixel projections: a dark and a light half, `factor` large."""
    projections = np.full((1, 1, 8, 8, 3), factor, np.float32)
    projections[..., :4, :] = -factor
    blank = np.full((1, 1, 8, 8, 3), 7, np.uint8)
    scales = np.array([pixels.symmetric_scale(projections)])
    return strongest.Strongest(
        np.array([0]), None, np.array([[image]]), None, projections, blank, None, None, scales, None
    )


def test_every_tile_has_its_own_scale_and_a_bar_where_the_image_changed():
    weak, strong = (
        evolution_page.tile(projected_with(f, 0), 0, side=24, changed=False, patches=False) for f in (0.01, 5.0)
    )
    np.testing.assert_array_equal(weak, strong)
    bar = evolution_page.BAR
    assert set(weak[bar:-bar, bar + 2 : bar + 26].ravel()) == {0, 255}
    changed = evolution_page.tile(projected_with(1.0, 0), 0, side=24, changed=True, patches=True)
    assert (changed[bar:-bar, :bar] == evolution_page.CHANGED).all()
    assert (weak[:, :bar] == 255).all() and (changed[bar + 26 : bar + 50, bar + 2 : bar + 26] == 7).all()


def test_the_page_marks_the_epochs_between_which_the_image_changed():
    drawn = {
        "conv1": {
            1: projected_with(1.0, 4),
            2: projected_with(2.0, 4),
            5: projected_with(3.0, 9),
            10: projected_with(4.0, 9),
        }
    }
    facts = {"units": ["map 0"], "settling_epoch": 2}
    result = {"epochs": [1, 2, 5, 10], "layers": {"conv1": facts}, "threshold": 0.9, "num_images": 5}
    page = canvas.pixels_of(evolution_page.evolution_page(drawn, result, patches=False))
    columns = np.flatnonzero((page == evolution_page.CHANGED).all(axis=-1).any(axis=0))
    assert len(columns) == evolution_page.BAR and np.ptp(columns) == evolution_page.BAR - 1
    strip = (deconv_page.PAGE + canvas.GAP) // 4 - canvas.GAP  # four of them fit a row
    tile = (strip - evolution_page.WORDS) // 4
    assert columns[0] == canvas.MARGIN + evolution_page.WORDS + 2 * tile  # left of the third
    assert [evolution_page.strips_per_row(num) for num in (2, 6, 7, 9, 30)] == [7, 3, 2, 2, 1]
    assert evolution_page.heading("conv1", result).endswith("0.9 or more) from epoch 2 on")
    facts["settling_epoch"] = None
    assert evolution_page.heading("conv1", result).endswith("only at the end")
    assert canvas.SWITCHES_NOTE in evolution_page.caption(result)


def test_curves_show_the_numbers_and_gaps_where_there_are_none():
    facts = {"similarity": [0.2, 0.95, 1.0], "growth": [None, 0.5, 1.0], "changed": [1.0, 0.25]}
    figure = evolution_page.curves_figure({"epochs": [1, 2, 5], "layers": {"conv1": facts}, "threshold": 0.9})
    lines = [axes.lines[0] for axes in figure.axes[:3]]
    np.testing.assert_array_equal(lines[0].get_xydata(), [[1, 0.2], [2, 0.95], [5, 1.0]])
    np.testing.assert_array_equal(lines[1].get_xydata(), [[1, np.nan], [2, 0.5], [5, 1.0]])
    np.testing.assert_array_equal(lines[2].get_xydata(), [[2, 1.0], [5, 0.25]])
    assert set(figure.axes[0].lines[1].get_ydata()) == {0.9}


FOREIGN = {"net": "foreign_nets:EPOCHS", "num_maps": 2, "num_images": 6, "num_probes": 3, "batch_size": 4}


@pytest.mark.usefixtures("undrawn")
def test_the_epochs_of_any_training_are_an_object_of_a_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = str(foreign_nets.folder(tmp_path / "pictures"))
    result = feature_evolution.run(feature_evolution.Config(data=pictures, **FOREIGN))
    assert result["epochs"] == [1, 2, 3] and set(result["layers"]) == {"conv1", "conv2"}
    assert result["layers"]["conv1"]["similarity"][-1] == pytest.approx(1) and result["net"]["name"] == "small"
    assert (result["folder"] / "evolution.png").exists()
    two = feature_evolution.run(feature_evolution.Config(data=pictures, epochs=(1, 2), **FOREIGN))
    first = [of["layers"]["conv1"]["similarity"][0] for of in (two, result)]
    assert two["epochs"] == [1, 2] and first[0] != first[1]
    assert nets.load_net("foreign_nets:EPOCHS") is foreign_nets.SMALL


@pytest.mark.parametrize(
    ("value", "epochs", "words"),
    [
        (foreign_nets.EPOCHS, (1, 9), r"epochs=\[9\]: these:NETS holds the epochs \[1, 2, 3\]"),
        (foreign_nets.EPOCHS, (2,), r"epochs=\[2\]: two or more are needed; these:NETS holds"),
        ({"first": foreign_nets.SMALL}, (), r"whole numbers as epochs is needed, not \['first'\]"),
        ({}, (), "whole numbers as epochs is needed"),
        ({1: 3}, (), "a int is no Net"),
        ({1: foreign_nets.SMALL, 2: foreign_nets.MAPS_ONLY}, (), "its nets have different layers"),
    ],
)
def test_what_is_no_net_of_each_epoch_is_refused(value, epochs, words, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "these", types.SimpleNamespace(NETS=value))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        feature_evolution.run(feature_evolution.Config(net="these:NETS", epochs=epochs, data="nowhere"))


def test_the_legend_names_layers_and_what_dashes_are_and_no_line_that_has_no_name():
    facts = {"similarity": [0.1, 0.5, 1.0], "straight": [0.1, 0.4, 1.0]}
    layers = {"conv1": facts, "conv2": {"similarity": [0.1, 0.2, 1.0]}}
    figure = evolution_page.curves_figure({"epochs": [1, 2, 5], "layers": layers, "threshold": 0.9})
    texts = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert texts == ["conv1", "conv2", "settled", "weights on one way"]
    dashes = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "--" and len(line.get_xdata())]
    np.testing.assert_array_equal(dashes[0].get_ydata(), facts["straight"])
    del facts["straight"]
    figure = evolution_page.curves_figure({"epochs": [1, 2, 5], "layers": layers, "threshold": 0.9})
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["conv1", "conv2", "settled"]
