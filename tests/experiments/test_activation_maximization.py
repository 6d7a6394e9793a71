"""Climbs beside projections: the right units, honest numbers, files that say what they hold."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_deconv_figures import MEAN, NET, make_data, make_net, make_params

import zfjax
from experiments import activation_maximization
from experiments.activation_maximization import Config, climb
from experiments.pages import canvas
from experiments.pages import maximization as maximization_page
from zfjax import nets
from zfjax.analyses import maximization
from zfjax.analyses.maximization import Climbed, drives_of, middle
from zfjax.data import sets

SMALL = {"steps": 5, "step_size": 4.0, "num_maps": 3}


CROP = MEAN[2:22, 2:22]


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The tiny net and set in the place of a run."""
    net = make_net(tmp_path)._replace(class_names=("a", "b", "c"))
    monkeypatch.setattr(nets, "load_net", lambda checkpoint: net)
    monkeypatch.setattr(sets, "open_data", lambda data, **_: make_data())
    return net


def drive(layer, images):
    return np.asarray(drives_of(make_params(), layer, architecture=NET)(jnp.asarray(images)))


def features(layer, images):
    return np.asarray(zfjax.forward(make_params(), jnp.asarray(images), architecture=NET)[1][layer].features)


def test_each_map_climbs_its_own_middle_unit_also_in_several_goes(monkeypatch):
    """Three maps, two at once: the path ends at the unit's drive on the picture that is kept, higher than it began."""
    monkeypatch.setattr(maximization, "AT_ONCE", 2)
    maps = np.array([0, 4, 5])
    seen = climb(Config(**SMALL), make_net(), "conv1", maps, jax.random.key(0))
    assert middle(NET, "conv1") == ((2, 2), (5, 5))
    np.testing.assert_allclose(seen.paths[:, -1], drive("conv1", seen.images)[np.arange(3), 5, 5, maps], rtol=1e-3)
    assert seen.paths.shape == (3, 6) and (np.diff(seen.paths, axis=1) > 0).all()
    answers = features("conv1", seen.images).max(axis=(1, 2))
    np.testing.assert_allclose(seen.reached, answers[np.arange(3), maps], rtol=1e-3)
    np.testing.assert_array_equal(seen.won, answers.argmax(axis=1) == maps)
    assert seen.images.min() >= -120 - 1e-3 and seen.images.max() <= 135 + 1e-3
    top, left, bottom, right = zfjax.receptive_field(NET, "conv1").box((2, 2))
    shown = np.floor(seen.images + CROP + 0.5)[:, top:bottom, left:right]
    np.testing.assert_array_equal(seen.patches, shown.astype(np.uint8))


def test_a_whole_map_is_climbed_by_its_mean_and_shown_whole():
    maps = np.array([2, 3])
    seen = climb(Config(climb="map", **SMALL), make_net(), "conv1", maps, jax.random.key(0))
    means = drive("conv1", seen.images).mean(axis=(1, 2))[[0, 1], maps]
    np.testing.assert_allclose(seen.paths[:, -1], means, rtol=1e-3)
    assert seen.patches.shape == (2, 20, 20, 3)


def test_a_class_is_climbed_by_its_logit():
    seen = climb(Config(**SMALL), make_net(), "fc7", np.array([2]), jax.random.key(1))
    np.testing.assert_allclose(seen.paths[0, -1], features("fc7", seen.images)[0, 2], rtol=1e-3)
    assert seen.reached[0] == pytest.approx(seen.paths[0, -1], rel=1e-3) and middle(NET, "fc7") == (None, None)


@pytest.mark.parametrize("table", [zfjax.ZFNET, zfjax.ALEXNET, NET])
def test_the_climbed_unit_lies_in_the_middle_of_what_is_shown(table):
    """Its field, before the pool, lies inside that of the place that is shown, which no border cuts off."""
    for layer in ("conv1", "conv2"):
        place, unit = middle(table, layer)
        inner = zfjax.receptive_field(table, layer, stage="filtered").box(unit)
        outer = zfjax.receptive_field(table, layer).box(place)
        assert outer[0] <= inner[0] and inner[2] <= outer[2]
        assert layer == "conv2" or (0 <= outer[0] and outer[2] <= table.image_size)
        assert table is NET or abs(sum(outer[::2]) - table.image_size) <= 2 * 16


def test_noise_and_options_reach_the_climb():
    still = climb(Config(noise=0.0, steps=1, step_size=1e-6), make_net(), "conv1", np.array([0]), jax.random.key(0))
    np.testing.assert_allclose(still.images, 0, atol=1e-4)
    assert still.paths[0, 0] == pytest.approx(make_params()["conv1"]["bias"][0], abs=1e-4)
    same = climb(Config(**SMALL), make_net(), "conv1", np.array([0]), jax.random.key(0))
    for change in ({"decay": 0.9}, {"blur": 2.0}, {"jitter": 3}):
        other = climb(Config(**SMALL, **change), make_net(), "conv1", np.array([0]), jax.random.key(0))
        assert np.abs(other.images - same.images).max() > 0.5


def test_scores_of_hand_made_climbs():
    """Map 1 is dead in the set and has no ratio; half of the steps rise."""
    paths = np.array([[0.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
    ends = np.array([6.0, 1.0])
    seen = Climbed(np.array([2, 1]), None, None, paths, np.array([0.0, 0.5]), ends, np.array([True, False]))
    found = maximization.score(seen, np.array([9.0, 0.0, 4.0]))
    assert (found["median_ratio"], found["rising"], found["silent_at_start"], found["won"]) == (1.5, 0.5, 0.5, 0.5)
    np.testing.assert_array_equal(found["strongest"], [4, 0])
    dead = maximization.score(seen, np.zeros(3))
    assert dead["median_ratio"] is None


def test_the_command_writes_what_it_drew_and_overwrites_only_when_told(trained, capsys):
    result = activation_maximization.run(Config(**SMALL, seed=2))
    out = trained.run / "figures" / "maximization"
    layers = ("conv1", "conv2", "fc7")
    names = {"climbs.png", "paths.png", "result.json", "scan.npz", *(f"{layer}.npz" for layer in layers)}
    assert {path.name for path in out.iterdir()} == names
    written, best = json.loads((out / "result.json").read_text()), np.load(out / "scan.npz")
    assert written["paper"] is None and written["seed"] == 2 and written["data"]["fingerprint"] == "data"
    for layer in layers:
        facts, arrays = written["layers"][layer], np.load(out / f"{layer}.npz")
        np.testing.assert_allclose(facts["strongest"], best[f"{layer}/values"][facts["maps"], 0], rtol=1e-6)
        answers = features(layer, arrays["images"]).reshape(len(facts["maps"]), -1, NET.layer(layer).features).max(1)
        np.testing.assert_allclose(facts["reached"], answers[np.arange(len(answers)), facts["maps"]], rtol=1e-3)
        np.testing.assert_array_equal(arrays["deconvnet_images"][:, 0], best[f"{layer}/images"][facts["maps"], 0])
    assert 1 not in written["layers"]["conv1"]["maps"]  # no image excites it
    for name in ("climbs.png", "paths.png"):
        with Image.open(out / name) as page:
            assert page.size[0] <= 1500 and (out / name).stat().st_size <= 1_000_000
    activation_maximization.report(result)
    assert "conv1: climbs end at" in capsys.readouterr().out
    with pytest.raises(ValueError, match="already holds a result"):
        activation_maximization.run(Config(**SMALL))
    again = activation_maximization.run(Config(**SMALL, layers=("conv2",), maps=("conv2:4,1",), overwrite=True))
    assert again["layers"]["conv2"]["maps"].tolist() == [4, 1] and not (out / "conv1.npz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0: a whole number of at least 1"),
        ({"noise": -1.0}, "noise=-1.0: a finite number of pixels"),
        ({"decay": 1.5}, "decay=1.5: a share from 0 to below 1"),
        ({"layers": ("conv9",)}, "unknown layer 'conv9'"),
        ({"maps": ("conv1:6",)}, "maps='conv1:6': LAYER:NUMBER,NUMBER with numbers from 0 to 5"),
        ({"num_maps": 0}, "num_maps=0: at least 1"),
    ],
)
def test_what_cannot_be_climbed_is_named_before_anything_is_written(trained, options, message):
    with pytest.raises(ValueError, match=message):
        activation_maximization.run(Config(**options))
    assert not (trained.run / "figures").exists()


def test_the_page_says_how_it_was_climbed_and_what_it_does_not_show():
    words = " ".join(maximization_page.caption(Config(climb="map", jitter=4)))
    assert "the mean of its map" in words and "jitter 4 px" in words and canvas.SWITCHES_NOTE in words
    assert "unit in the middle" in maximization_page.caption(Config())[0]
