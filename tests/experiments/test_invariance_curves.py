"""Figure 5: the right pictures under the right transforms, the numbers of the curves, honest files."""

import json
from pathlib import Path

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from judges import findings
from PIL import Image

import zfjax
from experiments import invariance_curves
from zfjax import nets
from zfjax.analyses import invariance, sanity
from zfjax.data import ArraySource, ImageSet, sets

NET = zfjax.Architecture(
    name="tiny",
    layers=(
        zfjax.Conv("conv1", 6, kernel=3, stride=2, padding=(1, 1), after=(zfjax.Pool(),)),
        zfjax.Dense("fc6", 5),
        zfjax.Dense("fc7", 3, hidden=False),
    ),
    image_size=20,
)

SIDE, NUM, NAMES = 24, 12, ("ash", "bog", "cat")
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (NUM, SIDE, SIDE, 3), np.uint8)
MEAN = RNG.uniform(90, 150, (SIDE, SIDE, 3)).astype(np.float32)  # not flat: it must not move with the picture


def _params():
    net = zfjax.ConvNet(NET, kernel_init=jax.nn.initializers.normal(0.05))
    params = jax.tree.map(np.asarray, jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 20, 20, 3)))["params"])
    params["fc6"]["bias"] = np.full(5, 3, np.float32)
    return params


PARAMS = _params()


@jax.jit
def _trace(images):
    return zfjax.forward(PARAMS, images, architecture=NET)[1]


def _predicted():
    return np.asarray(_trace(PICTURES[:, 2:22, 2:22].astype("f4") - MEAN[None, 2:22, 2:22])["fc7"].features).argmax(1)


def _set(labels, names=NAMES):
    return ImageSet("tiny", SIDE, names, None, ArraySource(PICTURES, labels), MEAN, None, "data")


def _net(run=Path("runs/x")):
    return nets.TrainedNet(NET, PARAMS, MEAN, Path("runs/x/checkpoints/1"), run, "tiny", NAMES, "net")


@pytest.fixture
def trained(tmp_path):
    """The tiny net, with a folder of its own."""
    return _net(tmp_path)


def _run(net, **changes):
    """Of its set with every third label wrong."""
    labels = _predicted()
    labels[::3] = (labels[::3] + 1) % 3
    return invariance_curves.run(invariance_curves.Config(**changes), net=net, data=_set(labels))


def test_pictures_are_those_classified_rightly_and_of_different_classes_first():
    predicted = _predicted()
    labels = predicted.copy()
    labels[[0, 3, 4, 8]] = (labels[[0, 3, 4, 8]] + 1) % 3
    right_classes = set(labels[labels == predicted])
    chosen = invariance.choose_images(_net(), _set(labels), num=len(right_classes), seed=1)
    assert chosen.right.all() and chosen.known.all() and set(chosen.labels) == right_classes
    assert (np.diff(chosen.indices) > 0).all()
    np.testing.assert_array_equal(chosen.stored, PICTURES[chosen.indices])
    assert chosen.names == tuple(NAMES[label] for label in chosen.labels)
    most = invariance.choose_images(_net(), _set(labels), num=9, seed=1)
    assert most.right.sum() == 8 and set(most.indices[~most.right]) < {0, 3, 4, 8}
    others = [tuple(invariance.choose_images(_net(), _set(labels), num=3, seed=s).indices) for s in range(8)]
    assert len(right_classes) == 3 and len(set(others)) > 3 and others[1] == tuple(chosen.indices)


def test_where_the_class_is_not_known_the_most_probable_one_stands_for_it():
    for unknown in (_set(np.full(NUM, -1)), _set(np.zeros(NUM, int), names=("other",))):
        chosen = invariance.choose_images(_net(), unknown, num=12, seed=0)
        assert not chosen.known.any() and chosen.right.all()
        np.testing.assert_array_equal(chosen.labels, _predicted())


def test_translations_are_the_papers_in_whole_pixels():
    at_224, at_20 = invariance.amounts_at(224), invariance.amounts_at(20)
    np.testing.assert_array_equal(at_224["translation"], np.arange(-60, 61, 5))
    np.testing.assert_array_equal(at_20["translation"], np.arange(-5, 6))
    assert at_20["scale"][[0, -1]].tolist() == [1, 1.8] and at_20["rotation"][[0, 1, -1]].tolist() == [0, 10, 350]


def test_the_command_writes_what_the_net_makes_of_moved_pictures(trained):
    out = trained.run / "figures" / "invariance"
    result = _run(trained, num_images=2, seed=3, out=out)
    assert {path.name for path in out.iterdir() if path.suffix in (".npz", ".png", ".json")} == {
        "curves.npz",
        "figure5.png",
        "result.json",
    }
    written, arrays = json.loads((out / "result.json").read_text()), np.load(out / "curves.npz")
    assert written["layers"] == ["conv1", "fc6"] and written["paper"] == invariance_curves.PAPER
    for layer, slope in written["transforms"]["scale"]["slope"].items():
        assert slope == pytest.approx(np.mean(written["transforms"]["scale"]["of_images"]["slope"][layer]))
    assert written["seed"] == 3
    assert written["checkpoint"]["fingerprint"] == "net" and written["config"]["num_images"] == 2
    assert [image["index"] for image in written["images"]] == arrays["indices"].tolist()
    assert all(image["known"] and image["right"] for image in written["images"])
    # two pixels down: rows 0..19 of the stored picture come into view, and the mean stays where it is
    moved = PICTURES[arrays["indices"], 0:20, 2:22].astype(np.float32) - MEAN[None, 2:22, 2:22]
    still = PICTURES[arrays["indices"], 2:22, 2:22].astype(np.float32) - MEAN[None, 2:22, 2:22]
    column = arrays["translation/amounts"].tolist().index(2)
    for layer in ("conv1", "fc6"):
        a, b = (np.asarray(_trace(images)[layer].features).reshape(2, -1) for images in (moved, still))
        expected = np.linalg.norm(a - b, axis=1)
        np.testing.assert_allclose(arrays[f"translation/distances/{layer}"][:, column], expected, rtol=1e-3)
        np.testing.assert_allclose(arrays[f"translation/norms/{layer}"], np.linalg.norm(b, axis=1), rtol=1e-4)
    shares = np.asarray(jax.nn.softmax(_trace(moved)["fc7"].features))
    np.testing.assert_allclose(arrays["translation/probabilities"][:, column], shares, rtol=1e-3)
    check_numbers(written, arrays)
    with Image.open(out / "figure5.png") as image:
        assert image.size[0] <= 1500 and (out / "figure5.png").stat().st_size <= 1_000_000
    assert result["folder"] == out
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        _run(trained, out=out)


def check_numbers(written, arrays):
    """The numbers of rotation, from the saved arrays."""
    facts = written["transforms"]["rotation"]
    angles, shares = arrays["rotation/amounts"], arrays["rotation/probabilities"]
    away = np.minimum(angles, 360 - angles)
    near = (away > 0) & (away <= 36)
    slopes = {}
    for layer in ("conv1", "fc6"):
        raw = arrays[f"rotation/distances/{layer}"].astype(np.float64)
        relative = raw / arrays[f"rotation/norms/{layer}"][:, None]
        slopes[layer] = ((relative * away)[:, near].sum(1) / (away[near] ** 2).sum()).mean()
        assert facts["slope"][layer] == pytest.approx(slopes[layer], rel=1e-4)
        expected = ((raw * away)[:, near].sum(1) / (away[near] ** 2).sum()).mean()
        assert facts["raw_slope"][layer] == pytest.approx(expected, rel=1e-4)
        assert facts["linearity"][layer] == pytest.approx(invariance.linearity(away, relative).mean(), rel=1e-4)
    assert facts["slope_ratio"] == pytest.approx(slopes["conv1"] / slopes["fc6"], rel=1e-4)
    kept = shares.argmax(-1) == arrays["labels"][:, None]  # both are right, so the label is the class at 0
    assert facts["label_stability"]["images"] == pytest.approx(kept[:, angles != 0].mean(axis=1))
    assert facts["label_stability"]["mean"] == pytest.approx(kept[:, angles != 0].mean())
    assert facts["label_stability"]["amounts"] == pytest.approx(kept.mean(axis=0))
    assert facts["label_stability"]["num_amounts"] == len(angles) - 1
    gain = invariance.quarter_turns(angles, np.stack([s[:, k] for s, k in zip(shares, arrays["labels"], strict=True)]))
    assert facts["quarter_turn_gain"] == pytest.approx(gain, rel=1e-4)
    assert "quarter_turn_gain" not in written["transforms"]["scale"]


def test_any_layers_are_compared_and_more_pictures_than_colours(trained, tmp_path):
    result = _run(trained, num_images=12, layers=("fc7", "conv1", "fc7"), out=tmp_path / "b")
    assert result["layers"] == ("fc7", "conv1") and len(result["images"]) == 12
    assert sum(not image["right"] for image in result["images"]) == 4
    assert set(result["transforms"]["scale"]["slope"]) == {"fc7", "conv1"}
    judged, of = findings(tmp_path / "b"), result["transforms"]
    ratios = [of[name]["slope"]["conv1"] / of[name]["slope"]["fc7"] for name in ("translation", "scale")]
    words = f"translation {ratios[0]:.1f} times, scale {ratios[1]:.1f} times (weights drawn anew: translation "
    assert judged["first_layer_moves_more"].ours.startswith(words)
    lines = [np.median(of[name]["of_images"]["linearity"]["fc7"]) for name in ("translation", "scale")]
    words = f"median of translation R² {lines[0]:.2f}, scale R² {lines[1]:.2f}"
    assert judged["top_layer_is_quasi_linear"].ours == words
    words = judged["rotation_breaks_labels"].ours
    assert all(f"{name} {of[name]['label_stability']['mean']:.1%} (" in words for name in of)


@pytest.mark.usefixtures("undrawn")
def test_beside_the_net_stands_the_same_with_its_weights_drawn_anew(trained, tmp_path):
    result = _run(trained, num_images=2, seed=1, layers=("conv1", "fc6"), out=tmp_path / "d")
    twin, scale = sanity.untrained(trained, 1), invariance.TRANSFORMS["scale"]
    pictures = PICTURES[[one["index"] for one in result["images"]]].astype(np.float32)
    fn = invariance.features_of_crops(twin, ("conv1", "fc6"))
    measured = invariance.curves(fn, pictures, transform=scale, amounts=invariance.SCALES, size=20)
    of = result["untrained"]
    assert set(of) == {"translation", "scale", "rotation"}
    for layer, distances in invariance.relative(measured).items():
        slope = invariance.slope(scale.extent(invariance.SCALES), distances)
        np.testing.assert_allclose(of["scale"]["of_images"]["slope"][layer], slope, rtol=1e-4)
        assert abs(of["scale"]["slope"][layer] / result["transforms"]["scale"]["slope"][layer] - 1) > 1e-3
    for name, transform in invariance.TRANSFORMS.items():
        amounts, fn = invariance.amounts_at(20)[name], invariance.features_of_crops(twin, ("fc7",))
        measured = invariance.curves(fn, pictures, transform=transform, amounts=amounts, size=20, logits="fc7")
        kept = invariance.stability(measured)[:, amounts != transform.identity].mean(axis=1)
        np.testing.assert_allclose(of[name]["label_stability"]["images"], kept)
    anew, trained = ([of[name]["label_stability"]["images"] for name in of] for of in (of, result["transforms"]))
    assert any(not np.array_equal(*both) for both in zip(anew, trained, strict=True))


def test_bad_fields_are_refused_before_anything_is_written(trained, tmp_path):
    for changes, message in [
        ({"num_images": 0}, "num_images=0: at least 1 is needed"),
        ({"layers": ("conv9",)}, "layer='conv9': one of conv1, fc6, fc7"),
    ]:
        with pytest.raises(ValueError, match=message):
            _run(trained, out=tmp_path / "c", **changes)
    assert not list(tmp_path.rglob("*.json")) + list(tmp_path.rglob("*.png"))


def test_the_report_names_every_transform(capsys):
    facts = {"per": "pixel", "slope": {"conv1": 0.25, "fc7": 0.0625}, "label_stability": {"mean": 0.5}}
    invariance_curves.report({"transforms": {"translation": facts}, "not_applicable": {}})
    assert capsys.readouterr().out.splitlines() == [
        "A small translation moves features, per pixel, by this share of their length: 0.25 in conv1, 0.0625 in fc7.",
        "  The most probable class stays the same at 50% of the amounts.",
    ]


@pytest.mark.usefixtures("undrawn")
def test_any_function_of_images_that_are_not_square_is_measured(tmp_path):
    """A foreign net's own answers to pictures that are moved by hand; beyond them stands their mirror image."""
    folder = foreign_nets.folder(tmp_path / "pictures")
    config = invariance_curves.Config(net="foreign_nets:SMALL", data=str(folder), out=tmp_path / "out", num_images=3)
    result = invariance_curves.run(config)
    net, arrays = foreign_nets.SMALL, np.load(tmp_path / "out" / "curves.npz")
    assert result["layers"] == ("conv1", "conv2") and result["not_applicable"] == {}
    assert [image["image"] for image in result["images"]] == arrays["pictures"].tolist()
    assert all(image["image"].endswith(".png") and image["known"] for image in result["images"])
    source = sets.open_images(str(folder), net).validation
    stored = np.stack([source[index]["image"] for index in arrays["indices"]])
    moved = np.pad(stored, ((0, 0), (2, 0), (0, 0), (0, 0)), mode="reflect")[:, :20]
    column = arrays["translation/amounts"].tolist().index(2)
    still, after = (foreign_nets.answers(net.params, jnp.float32(pictures) / 255) for pictures in (stored, moved))
    for layer in result["layers"]:
        expected = np.linalg.norm((after[layer] - still[layer]).reshape(3, -1), axis=1)
        np.testing.assert_allclose(arrays[f"translation/distances/{layer}"][:, column], expected, rtol=1e-3)
    shares = jax.nn.softmax(after["logits"])
    np.testing.assert_allclose(arrays["translation/probabilities"][:, column], shares, rtol=1e-3)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("net", "why"),
    [("MAPS_ONLY", "the last layer of maps only"), ("EMBEDDING", "embedding does not say that the units")],
)
def test_a_network_without_classes_is_measured_by_its_distances(net, why, tmp_path, capsys):
    folder = foreign_nets.folder(tmp_path / "pictures")
    config = invariance_curves.Config(net=f"foreign_nets:{net}", data=str(folder), out=tmp_path / "out")
    result = invariance_curves.run(config)
    assert result["transforms"]["rotation"]["label_stability"] is None and len(result["images"]) == 5
    assert all(image["class"] is None for image in result["images"])
    assert not [name for name in np.load(tmp_path / "out" / "curves.npz") if name.endswith("probabilities")]
    capsys.readouterr()
    invariance_curves.report(result)
    assert f"Left out: probability of the label, as {why}" in capsys.readouterr().out


def test_the_page_keeps_its_margins(trained, tmp_path):
    _run(trained, num_images=7, out=tmp_path / "d")
    with Image.open(tmp_path / "d" / "figure5.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    for edge in (sheet[:12], sheet[-12:], sheet[:, :12], sheet[:, -12:]):
        assert (edge == 255).all()
