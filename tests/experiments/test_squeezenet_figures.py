"""The figures of SqueezeNet: every number is its own forward pass's or `project_fn`'s; clear refusals.

A narrow net of SqueezeNet's layers stands in, on 256-pixel pictures of noise.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_squeezenet import write_net

from experiments import part_correspondence, squeezenet_figures, squeezenet_occlusion, squeezenet_photos
from zfjax import data, pixels
from zfjax.analyses import correspondence, occlusion, strongest
from zfjax.analyses.top_activations import TopActivations
from zfjax.anymodel import Unit, project_fn
from zfjax.data import ArraySource, ImageSet, sets

RNG = np.random.default_rng(0)


TRAIN, VALIDATION = (RNG.integers(0, 256, (num, 256, 256, 3), np.uint8) for num in (5, 4))


OFFICIAL = (574, 0)  # golf ball, and the class that wins in the narrow net


PLACES = occlusion.places


def photos(size=256, official=OFFICIAL, validation=True):
    train, held = (ArraySource(some[:, :size, :size], np.arange(len(some)) % 2) for some in (TRAIN, VALIDATION))
    mean = np.zeros((size, size, 3), np.float32)
    return ImageSet(
        "photos", size, ("n03445777", "n01440764"), train, held if validation else None, mean, official, "data"
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_net(tmp_path_factory.mktemp("weights") / "narrow")


@pytest.fixture(scope="module")
def net(weights):
    return squeezenet_photos.load_net(weights)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """One picture a device."""
    monkeypatch.setattr(squeezenet_photos, "BATCH", 1)


@pytest.fixture
def opened(monkeypatch):
    monkeypatch.setattr(sets, "open_data", lambda data, **_: photos())


@pytest.fixture(scope="module")
def all_features(net):
    """{layer: NumPy features} of the training and then the validation pictures."""
    images = net.architecture.preprocess(np.concatenate([TRAIN, VALIDATION]))
    return jax.tree.map(np.asarray, jax.jit(net.architecture.fn)(images))


def alone(net, image, channel, place, layer):
    fn = net.architecture.layers_of([layer])
    unit = Unit(channel, place)
    return np.asarray(jax.jit(lambda x: project_fn(lambda x: fn(x)[layer], x, unit=unit))(image[None]))[0]


def test_both_splits_are_one_source_training_first():
    both = data.Concatenated(photos())
    assert len(both) == 9 and [int(both[n]["index"]) for n in range(9)] == list(range(9))
    np.testing.assert_array_equal([both[n]["image"] for n in range(9)], np.concatenate([TRAIN, VALIDATION]))
    with pytest.raises(IndexError, match="index=9: 0 to 8 is needed"):
        both[9]


def test_the_scan_finds_each_maps_strongest_photo_and_place_of_both_splits(net, all_features, tmp_path):
    both, layers = data.Concatenated(photos()), ("fire4", "conv10")
    state = squeezenet_photos.scan(net, both, layers, tmp_path / "scan.npz", of="data", k=3)
    assert set(state) == set(layers)
    for layer in layers:
        maps = all_features[layer]
        by_image = maps.reshape(len(maps), -1, maps.shape[-1]).max(axis=1)
        order = np.argsort(-by_image, axis=0, kind="stable")[:3].T
        wanted = np.take_along_axis(by_image.T, order, axis=1)
        found = state[layer]
        np.testing.assert_allclose(found.values, wanted, rtol=1e-4, atol=1e-3)
        channel = np.arange(maps.shape[-1])[:, None]
        np.testing.assert_allclose(maps[found.images, found.rows, found.columns, channel], wanted, rtol=1e-4, atol=1e-3)


def test_each_place_is_projected_alone_however_many_there_are(net, monkeypatch):
    """Four places in chunks of three: the last chunk is filled up with places that are there already."""
    monkeypatch.setattr(squeezenet_photos, "CHUNK", 3)
    images = net.architecture.preprocess(VALIDATION[:2])
    places = {"image": [1, 0, 1, 1], "channel": [0, 2, 5, 3], "row": [4, 0, 27, 9], "column": [8, 54, 0, 9]}
    places = {name: np.array(place) for name, place in places.items()}
    found = squeezenet_photos.project_places(net, images, places, layer="fire4")
    assert np.abs(found).max(axis=(1, 2, 3)).min() > 0
    none = {name: place[:0] for name, place in places.items()}
    assert squeezenet_photos.project_places(net, images[:0], none, layer="fire4").shape == (0, 227, 227, 3)
    for n, (image, channel, row, column) in enumerate(zip(*places.values(), strict=True)):
        expected = alone(net, images[image], int(channel), (int(row), int(column)), "fire4")
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_photos_classes_come_first_among_the_class_maps():
    values = np.ones((1000, 9), np.float32)
    state = {"conv10": TopActivations(values, *[np.zeros((1000, 9), np.int32)] * 3)}
    state["fire8"] = TopActivations(*(field[:6] for field in state["conv10"]))
    chosen = squeezenet_figures.choose_maps(photos(), "conv10", state, 4, (0, 3))
    assert chosen[:2].tolist() == list(OFFICIAL) and len(set(chosen.tolist())) == 4
    assert squeezenet_figures.choose_maps(photos(), "conv10", state, 1, (0, 3)).tolist() == [574]
    expected = strongest.choose_maps(state["fire8"], 4, (0, 2))
    np.testing.assert_array_equal(squeezenet_figures.choose_maps(photos(), "fire8", state, 4, (0, 2)), expected)


def test_figure_2_is_drawn_of_both_splits_and_its_scan_is_kept(net, weights, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(squeezenet_figures, "LAYERS", ("pool1", "conv10"))
    config = squeezenet_figures.Config(weights, "photos", "deconv", out=tmp_path, num_maps=2)
    folder = tmp_path / "deconv"
    result = squeezenet_figures.run(config)["deconv"]
    saved = json.loads((folder / "result.json").read_text())
    assert saved["figure"] == "Figure 2" and saved["num_images"] == 9 and list(saved["layers"]) == ["pool1", "conv10"]
    assert saved["network"] == "SqueezeNet v1.0" and saved["checkpoint"]["fingerprint"] == net.fingerprint
    assert saved["layers"]["pool1"]["receptive_field"] == 11 and saved["layers"]["conv10"]["maps"] == list(OFFICIAL)
    for layer in ("pool1", "conv10"):
        with np.load(folder / f"{layer}.npz") as file:
            seen = dict(file)
        both, field = data.Concatenated(photos()), net.architecture.receptive_field(layer)
        picture, box = both[int(seen["images"][0, 0])]["image"], tuple(seen["boxes"][0, 0].tolist())
        np.testing.assert_array_equal(seen["patches"][0, 0], pixels.cut(picture[14:241, 14:241], box, 224))
        assert seen["patches"].shape[2:4] == (field.size, field.size)
        place = [(edge - field.offset) // field.stride for edge in box[:2]]
        image = net.architecture.preprocess(picture[None])[0]
        expected = pixels.cut(alone(net, image, int(seen["maps"][0]), tuple(place), layer), box, 0.0)
        np.testing.assert_allclose(seen["projections"][0, 0], expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())
    assert {path.name for path in folder.glob("*.png")} == {"pool1.png", "conv10.png", "overview.png"}
    with pytest.raises(ValueError, match="already holds a result"):
        squeezenet_figures.run(config)
    monkeypatch.delattr(squeezenet_photos.scans, "eval_batches")  # it cannot scan again
    again = squeezenet_figures.run(squeezenet_figures.Config(**{**vars(config), "overwrite": True}))["deconv"]
    np.testing.assert_array_equal(again["layers"]["pool1"]["strongest"], result["layers"]["pool1"]["strongest"])


def test_what_is_watched_of_an_occluded_photo_is_the_nets_answer(net, all_features):
    images = net.architecture.preprocess(VALIDATION)
    fn = net.architecture.layers_of([squeezenet_occlusion.WATCHED, "logits"])
    watched = jax.jit(squeezenet_occlusion.watch)(fn, np.int32(2), np.int32(574), images)
    logits = all_features["logits"][5:]
    np.testing.assert_allclose(watched.probability, jax.nn.softmax(logits)[:, 574], rtol=1e-3)
    np.testing.assert_allclose(watched.activity, all_features["fire9"][5:, ..., 2].sum(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(watched.predicted, logits.argmax(axis=1))
    seen = jax.jit(squeezenet_occlusion.look)(fn, images)
    for n, maps in enumerate(all_features["fire9"][5:]):
        place = np.unravel_index(maps.argmax(), maps.shape)
        assert (int(seen.row[n]), int(seen.column[n]), int(seen.channel[n])) == place


def test_scenes_have_imagenets_labels_and_the_right_ones_come_first(net):
    """Class 0 wins everywhere in the narrow net: of the labels 574, 0, 574, 0 numbers 1 and 3 are right."""
    scenes = squeezenet_occlusion.choose_scenes(net, photos(), 3, seed=0)
    assert scenes.labels.tolist() == [0, 0, 574] and scenes.correct.tolist() == [True, True, False]
    assert set(scenes.indices[:2].tolist()) == {1, 3}
    np.testing.assert_array_equal(scenes.views.pictures, VALIDATION[scenes.indices][:, 14:241, 14:241])


def test_figure_7_sweeps_the_square_over_validation_photos(net, weights, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(occlusion, "places", lambda size, square, stride: PLACES(size, square, 8 * stride))
    config = squeezenet_figures.Config(weights, "photos", "occlusion", out=tmp_path, num_images=1)
    squeezenet_figures.run(config)
    folder = tmp_path / "occlusion"
    saved = json.loads((folder / "result.json").read_text())
    assert saved["figure"] == "Figure 7" and saved["score"] is None and saved["square"] == 56
    (facts,) = saved["images"]
    assert facts["class"] == "tench" and facts["predicted"] == "tench"
    with np.load(folder / "maps.npz") as maps:
        corner, index = maps["corners"][1, 2], int(maps["images"][0])
        image = net.architecture.preprocess(VALIDATION[index][None])
        hidden = image.copy()
        hidden[:, corner[0] : corner[0] + 56, corner[1] : corner[1] + 56] = 0
        found = net.architecture.fn(jnp.asarray(hidden))
        activity = np.asarray(found["fire9"])[0, ..., facts["map"]].sum()
        np.testing.assert_allclose(maps["activity"][0, 1, 2], activity, rtol=1e-3)
        assert maps["predicted"][0, 1, 2] == int(found["logits"].argmax())
    assert (folder / "maps.png").exists()


def test_table_1_compares_the_nets_own_signs_in_the_papers_order_of_layers(net, weights, opened, tmp_path, monkeypatch):
    """Delta of all four pictures under their noses, from plain forward passes."""
    config = {"num_random": 1, "num_aligned": 1, "num_images": 4, "num_draws": 2}
    real = part_correspondence.Config
    monkeypatch.setattr(part_correspondence, "Config", lambda **given: real(**given, **config))
    monkeypatch.setattr(part_correspondence, "NUM_PERMUTATIONS", 9)
    faces = [{"file": f"{n}.png", "nose": [128, 100 + n], "left_eye": [60 + 9 * n, 70]} for n in range(4)]
    for face, picture in zip(faces, VALIDATION, strict=True):
        Image.fromarray(picture).save(tmp_path / face["file"])
    (tmp_path / "parts.json").write_text(json.dumps({"faces": faces}))
    given = {"annotations": tmp_path / "parts.json", "out": tmp_path}
    squeezenet_figures.run(squeezenet_figures.Config(weights, "photos", "correspondence", **given))
    saved = json.loads((tmp_path / "correspondence" / "result.json").read_text())
    assert saved["table"] == "Table 1" and list(saved["layers"]) == ["fire8", "conv10", "fire4"]
    images = net.architecture.preprocess(VALIDATION)
    noses = np.array([[100 + n - 14, 128 - 14] for n in range(4)])
    masked = np.asarray(correspondence.mask_squares(images, noses, side=57))
    fn = jax.jit(net.architecture.fn)
    for layer, rows in saved["layers"].items():
        changes = np.asarray(fn(images)[layer] - fn(masked)[layer]).reshape(4, -1)
        assert rows["nose"]["all"] == pytest.approx(correspondence.sign_consistency(changes), rel=1e-3)
        assert rows["nose"]["p"] is not None and rows["random"]["p"] is None


REFUSED = {
    "num_maps=0: at least 1 is needed": {"num_maps": 0},
    "num_images=0: at least 1 is needed": {"num_images": 0},
    "annotations=None: figure='correspondence' needs pictures whose parts are known": {"figure": "correspondence"},
    "absent.json": {"figure": "all", "annotations": Path("absent.json")},
}


@pytest.mark.parametrize(("message", "change"), REFUSED.items())
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(weights, opened, tmp_path, message, change):
    config = {"weights": weights, "data": "photos", "figure": "deconv", "out": tmp_path / "new", **change}
    with pytest.raises((ValueError, OSError), match=message):
        squeezenet_figures.run(squeezenet_figures.Config(**config))
    assert not (tmp_path / "new").exists()


UNFIT = {
    "data='x': its pictures have 128 pixels a side, the net's 256": {"size": 128},
    "data='x': its classes are not all among ImageNet's 1000": {"official": None},
    "data='photos' has no validation split": {"validation": False},
}


@pytest.mark.parametrize(("message", "change"), UNFIT.items())
def test_photos_that_do_not_fit_the_net_are_refused(net, monkeypatch, message, change):
    monkeypatch.setattr(sets, "open_data", lambda data, **_: photos(**change))
    with pytest.raises(ValueError, match=message):
        squeezenet_photos.open_photos("x", net)
