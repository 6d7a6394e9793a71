"""Climbs beside projections: the right units, honest numbers, files that say what they hold."""

import dataclasses
import json
from functools import partial

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_run import MEAN, NET, make_data, make_net, make_params

import zfjax
from experiments import activation_maximization
from experiments.activation_maximization import Config
from experiments.pages import canvas
from experiments.pages import maximization as maximization_page
from zfjax.analyses import maximization, robust_ascent
from zfjax.analyses.maximization import Climbed, climb, drives_of, middle

STEPS = {"steps": 5, "step_size": 4.0}
SMALL = {**STEPS, "num_maps": 3}
CROP = MEAN[2:22, 2:22]


@pytest.fixture
def trained(tmp_path):
    """The tiny net and set in the place of a run."""
    return dataclasses.replace(make_net(tmp_path), class_names=("a", "b", "c"))


def _run(net, **changes):
    return activation_maximization.run(Config(**changes), net=net, data=make_data())


def drive(layer, images):
    return np.asarray(drives_of(make_params(), layer, architecture=NET)(jnp.asarray(images)))


def features(layer, images):
    return np.asarray(zfjax.forward(make_params(), jnp.asarray(images), architecture=NET)[1][layer].features)


@pytest.mark.usefixtures("undrawn")
def test_each_map_climbs_its_own_middle_unit_also_in_several_goes():
    """Three maps, two at once: the path ends at the unit's drive on the picture that is kept, higher than it began."""
    maps = np.array([0, 4, 5])
    climbed = climb(make_net(), maps, layer="conv1", key=jax.random.key(0), at_once=2, **STEPS)
    assert middle(make_net(), "conv1") == ((2, 2), (5, 5))
    np.testing.assert_allclose(
        climbed.paths[:, -1], drive("conv1", climbed.images)[np.arange(3), 5, 5, maps], rtol=1e-3
    )
    assert climbed.paths.shape == (3, 6) and (np.diff(climbed.paths, axis=1) > 0).all()
    answers = features("conv1", climbed.images).max(axis=(1, 2))
    np.testing.assert_allclose(climbed.reached, answers[np.arange(3), maps], rtol=1e-3)
    np.testing.assert_array_equal(climbed.won, answers.argmax(axis=1) == maps)
    assert climbed.images.min() >= -120 - 1e-3 and climbed.images.max() <= 135 + 1e-3
    top, left, bottom, right = zfjax.receptive_field(NET, "conv1").box((2, 2))
    shown = np.floor(climbed.images + CROP + 0.5)[:, top:bottom, left:right]
    np.testing.assert_array_equal(climbed.patches, shown.astype(np.uint8))


def test_a_whole_map_is_climbed_by_its_mean_and_shown_whole():
    maps = np.array([2, 3])
    climbed = climb(make_net(), maps, layer="conv1", key=jax.random.key(0), of="map", **STEPS)
    means = drive("conv1", climbed.images).mean(axis=(1, 2))[[0, 1], maps]
    np.testing.assert_allclose(climbed.paths[:, -1], means, rtol=1e-3)
    assert climbed.patches.shape == (2, 20, 20, 3)


@pytest.mark.usefixtures("undrawn")
def test_a_class_is_climbed_by_its_logit():
    climbed = climb(make_net(), [2], layer="fc7", key=jax.random.key(1), **STEPS)
    np.testing.assert_allclose(climbed.paths[0, -1], features("fc7", climbed.images)[0, 2], rtol=1e-3)
    assert climbed.reached[0] == pytest.approx(climbed.paths[0, -1], rel=1e-3) and middle(make_net(), "fc7") == (
        None,
        None,
    )


@pytest.mark.parametrize("table", [zfjax.ZFNET, zfjax.ALEXNET, NET])
def test_the_climbed_unit_lies_in_the_middle_of_what_is_shown(table):
    """Its field, before the pool, lies inside that of the place that is shown, which no border cuts off."""
    for layer in ("conv1", "conv2"):
        place, unit = middle(dataclasses.replace(make_net(), architecture=table), layer)
        inner = zfjax.receptive_field(table, layer, stage="filtered").box(unit)
        outer = zfjax.receptive_field(table, layer).box(place)
        assert outer[0] <= inner[0] and inner[2] <= outer[2]
        assert layer == "conv2" or (0 <= outer[0] and outer[2] <= table.image_size)
        assert table is NET or abs(sum(outer[::2]) - table.image_size) <= 2 * 16


@pytest.mark.usefixtures("undrawn")
def test_noise_and_options_reach_the_climb():
    still = climb(make_net(), [0], layer="conv1", key=jax.random.key(0), noise=0.0, steps=1, step_size=1e-6)
    np.testing.assert_allclose(still.images, 0, atol=1e-4)
    assert still.paths[0, 0] == pytest.approx(make_params()["conv1"]["bias"][0], abs=1e-4)
    same = climb(make_net(), [0], layer="conv1", key=jax.random.key(0), **STEPS)
    for change in ({"decay": 0.9}, {"blur": 2.0}, {"jitter": 3}):
        other = climb(make_net(), [0], layer="conv1", key=jax.random.key(0), **STEPS, **change)
        assert np.abs(other.images - same.images).max() > 0.5


def test_scores_of_hand_made_climbs():
    """Map 1 is dead in the set and has no ratio; half of the steps rise."""
    paths = np.array([[0.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
    ends = np.array([6.0, 1.0])
    climbed = Climbed(np.array([2, 1]), None, None, paths, np.array([0.0, 0.5]), ends, np.array([True, False]))
    scores = maximization.score(climbed, np.array([9.0, 0.0, 4.0]))
    assert (scores["median_ratio"], scores["rising"], scores["silent_at_start"], scores["won"]) == (1.5, 0.5, 0.5, 0.5)
    np.testing.assert_array_equal(scores["strongest"], [4, 0])
    dead = maximization.score(climbed, np.zeros(3))
    assert dead["median_ratio"] is None


def test_the_command_writes_what_it_drew_and_overwrites_only_when_told(trained, capsys):
    out = trained.run / "out"
    result = _run(trained, **SMALL, seed=2, out=out)
    layers = ("conv1", "conv2", "fc7")
    names = {"climbs.png", "paths.png", "result.json", *(f"{layer}.npz" for layer in layers)}
    assert {path.name for path in out.iterdir()} == names
    (scan,) = (trained.run / "scans").iterdir()
    written, best = json.loads((out / "result.json").read_text()), np.load(scan)
    assert written["settings"]["before_relu"] and list(written["not_applicable"]) == ["fc6"]
    assert written["layers"]["fc7"]["units"] == [trained.class_names[n] for n in written["layers"]["fc7"]["maps"]]
    assert written["paper"] is None and written["seed"] == 2 and written["data"]["fingerprint"] == "data"
    for layer in layers:
        facts, arrays = written["layers"][layer], np.load(out / f"{layer}.npz")
        np.testing.assert_allclose(facts["strongest"], best[f"{layer}/values"][facts["maps"], 0], rtol=1e-6)
        answers = features(layer, arrays["images"]).reshape(len(facts["maps"]), -1, NET.layer(layer).features).max(1)
        np.testing.assert_allclose(facts["reached"], answers[np.arange(len(answers)), facts["maps"]], rtol=1e-3)
        np.testing.assert_array_equal(arrays["deconvnet_images"][:, 0], best[f"{layer}/images"][facts["maps"], 0])
        assert facts["images"] == [str(image) for image in arrays["deconvnet_images"][:, 0]]
    assert 1 not in written["layers"]["conv1"]["maps"]  # no image excites it
    for name in ("climbs.png", "paths.png"):
        with Image.open(out / name) as page:
            assert page.size[0] <= 1500 and (out / name).stat().st_size <= 1_000_000
    activation_maximization.report(result)
    assert "conv1: climbs end at" in capsys.readouterr().out
    with pytest.raises(ValueError, match="already holds a result"):
        _run(trained, **SMALL, out=out)
    again = _run(trained, **SMALL, layers=("conv2",), maps=("conv2:4,1",), out=out, overwrite=True)
    assert again["layers"]["conv2"]["maps"].tolist() == [4, 1] and not (out / "conv1.npz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0: a whole number of at least 1"),
        ({"noise": -1.0}, "noise=-1.0: a finite number of pixels"),
        ({"decay": 1.5}, "decay=1.5: a share from 0 to below 1"),
        ({"layers": ("conv9",)}, "layer='conv9': one of conv1, conv2, fc6, fc7"),
        ({"maps": ("conv1:6",)}, "maps='conv1:6': LAYER:NUMBER,NUMBER with numbers from 0 to 5"),
        ({"num_maps": 0}, "num_maps=0: at least 1"),
    ],
)
def test_what_cannot_be_climbed_is_named_before_anything_is_written(trained, options, message):
    with pytest.raises(ValueError, match=message):
        _run(trained, **options)
    assert {path.name for path in trained.run.rglob("*") if path.is_file()} <= {".lock"}


def test_the_page_says_how_it_was_climbed_and_what_it_does_not_show():
    def caption(net, **changes):
        return " ".join(maximization_page.caption(activation_maximization.settings_of(Config(**changes), net)))

    words = caption(make_net(), climb="map", jitter=4)
    assert "the mean of its map, before the ReLU, from the mean picture" in words
    assert "jitter 4 px" in words and canvas.SWITCHES_NOTE in words
    assert "unit in the middle" in caption(make_net())
    assert "as the layer hands it on, from mid-grey" in caption(foreign_nets.SMALL)


def test_a_net_that_is_none_of_ours_climbs_what_its_layer_hands_on_in_pixels():
    """Its input is a mean taken away, another order of the channels and a scale: a step stays one pixel RMS."""
    mean = np.array([100, 110, 120], np.float32)[None, None, None]
    small = dataclasses.replace(
        foreign_nets.SMALL, picture_size=(24, 30), preprocess=lambda crops: (crops[..., ::-1] - mean) / 50
    )
    maps = np.array([0, 3, 5])
    climbed = climb(small, maps, layer="conv2", key=jax.random.key(0), at_once=2, **STEPS)
    assert middle(small, "conv2") == ((2, 3), (2, 3)) and middle(small, "logits") == (None, None)
    answers = np.asarray(foreign_nets.answers(small.params, jnp.asarray(climbed.images))["conv2"])
    np.testing.assert_allclose(climbed.paths[:, -1], answers[np.arange(3), 2, 3, maps], rtol=1e-3)
    assert (np.diff(climbed.paths, axis=1) >= 0).all() and climbed.paths[:, -1].max() > climbed.paths[:, 0].max()
    pictures = 50 * climbed.images[..., :] + mean
    assert pictures.min() >= -0.01 and pictures.max() <= 255.01
    assert climbed.patches.shape == (3, 10, 10, 3)
    np.testing.assert_allclose(climbed.patches[..., ::-1], pictures[:, 5:15, 9:19], atol=0.51)  # what the place sees
    still = climb(small, maps, layer="conv2", key=jax.random.key(0), noise=0.0, steps=1, step_size=1e-6)
    np.testing.assert_allclose(50 * still.images + mean, 127.5, atol=1e-3)
    one = climb(small, [0], layer="logits", key=jax.random.key(0), noise=0.0, steps=1, step_size=2.0)
    moved = 50 * one.images[0] + mean - 127.5
    assert np.sqrt(np.square(moved).mean()) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.usefixtures("undrawn")
def test_a_silent_unit_of_a_net_that_is_none_of_ours_stands_still():
    silent = foreign_nets.SMALL.with_params(jax.tree.map(lambda leaf: -abs(leaf), foreign_nets.SMALL.params))
    climbed = climb(silent, [1], layer="conv1", key=jax.random.key(0), **STEPS)
    np.testing.assert_array_equal(climbed.paths, 0)
    assert maximization.score(climbed, np.ones(4))["silent_at_start"] == 1


def test_an_input_that_is_not_linear_in_the_pixels_is_refused():
    squares = dataclasses.replace(foreign_nets.SMALL, preprocess=lambda crops: (crops / 255) ** 2)
    with pytest.raises(ValueError, match="net='small': its input is not linear in each pixel"):
        climb(squares, [0], layer="conv1", key=jax.random.key(0))
    with pytest.raises(ValueError, match="at_once=0: at least 1 is needed"):
        climb(foreign_nets.SMALL, [0], layer="conv1", key=jax.random.key(0), at_once=0)
    with pytest.raises(ValueError, match=r"channels=\[\]: a list of at least one is needed"):
        climb(foreign_nets.SMALL, [], layer="conv1", key=jax.random.key(0))
    with pytest.raises(ValueError, match="channel=.*: a whole number from 0 to 3 is needed"):
        climb(foreign_nets.SMALL, [4], layer="conv1", key=jax.random.key(0))
    with pytest.raises(ValueError, match="channel=.*4.*: a whole number from 0 to 3 is needed"):
        climb(foreign_nets.SMALL, zfjax.Unit(4, layer="conv1"), key=jax.random.key(0))


def test_the_command_climbs_a_net_that_is_none_of_ours(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    data = str(foreign_nets.folder(tmp_path / "pictures"))
    out = tmp_path / "out"
    result = activation_maximization.run(Config(**SMALL, net="foreign_nets:SMALL", data=data, out=out))
    assert list(result["layers"]) == ["conv1", "conv2", "logits"]
    assert set(result["layers"]["logits"]["units"]) <= {"cat", "dog", "owl"}
    assert all(name.split("/")[-1].startswith("picture ") for name in result["layers"]["conv1"]["images"])
    assert list(result["not_applicable"]) == ["the value before the ReLU"]
    with np.load(out / "conv1.npz") as arrays:
        assert arrays["images"].shape == (3, 20, 28, 3) and arrays["patches"].shape == (3, 4, 4, 3)
    activation_maximization.report(result)
    assert "what stands before a ReLU of small is not known" in capsys.readouterr().out


def test_a_whole_map_is_drawn_beside_what_a_unit_sees(trained):
    """Their sides differ, and the higher one sets the height."""
    result = _run(trained, **SMALL, climb="map", layers=("conv1",))
    assert (result["folder"] / "climbs.png").exists()


def test_robust_climbs_stand_beside_the_plain_ones_and_a_second_network_judges_both(trained, capsys, monkeypatch):
    monkeypatch.setattr(robust_ascent.Options, "__new__", partial(robust_ascent.Options.__new__, steps=2))
    judge = dataclasses.replace(trained, class_names=("c", "b", "a"))
    monkeypatch.setattr(activation_maximization.nets, "load_net", lambda name: judge)
    out = trained.run / "out"
    options = {"layers": ("fc7",), "robust": 2, "judge": "other", "out": out}
    facts = _run(trained, **SMALL, **options)["layers"]["fc7"]
    maps, robust = facts["maps"], facts["robust"]
    np.testing.assert_array_equal(robust["maps"], np.repeat(maps, 2))
    with np.load(out / "fc7.npz") as arrays:
        for kind, prefix, score in (("plain", "", facts), ("robust", "robust_", robust)):
            logits = features("fc7", arrays[f"{prefix}images"])
            np.testing.assert_allclose(
                score["reached"], logits[np.arange(len(logits)), score["maps"]], rtol=1e-3, atol=1e-4
            )
            same = np.array(judge.class_names)[logits.argmax(1)] == np.array(trained.class_names)[score["maps"]]
            assert facts["judged"][kind] == pytest.approx(same.mean(), abs=0.34)
    activation_maximization.report(_run(trained, **SMALL, **options, overwrite=True))
    assert "gives the same class to" in capsys.readouterr().out
