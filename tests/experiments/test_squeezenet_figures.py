"""The figures of SqueezeNet, by the commands of any network: every number is its own forward pass's or `project_fn`'s.

A narrow net of SqueezeNet's layers stands in, on 256-pixel pictures of noise.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_squeezenet import write_net

from experiments import deconv_figures, occlusion_maps, part_correspondence, squeezenet_figures
from experiments.shell import scans
from zfjax import data, nets, pixels, pretrained
from zfjax.analyses import correspondence, occlusion, strongest
from zfjax.analyses.top_activations import TopActivations
from zfjax.anymodel import Unit, project_fn
from zfjax.data import ArraySource, ImageSet

RNG = np.random.default_rng(0)
TRAIN, VALIDATION = (RNG.integers(0, 256, (num, 256, 256, 3), np.uint8) for num in (5, 4))
OFFICIAL = (574, 0)  # golf ball, and the class that wins in the narrow net


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
def caffe(weights):
    return pretrained.squeezenet(weights)


@pytest.fixture(scope="module")
def net(weights):
    return nets.load_net(f"squeezenet:{weights}")


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Scans lie in a folder of their own."""
    monkeypatch.chdir(tmp_path)


def configured(weights, figure, out, **changes):
    """Batches of a picture a device."""
    given = {"figure": figure, "out": out, "batch_size": jax.device_count(), **changes}
    return squeezenet_figures.Config(weights=weights, data="photos", **given)


@pytest.fixture(scope="module")
def all_features(caffe):
    """{layer: NumPy features} of the training and then the validation pictures."""
    images = caffe.preprocess(np.concatenate([TRAIN, VALIDATION]))
    return jax.tree.map(np.asarray, jax.jit(caffe.fn)(images))


def alone(caffe, image, channel, place, layer):
    fn = caffe.layers_of([layer])
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
    state = scans.kept_scan(
        net, both, layers, path=tmp_path / "scan.npz", of="data", k=3, batch_size=2 * jax.device_count()
    )
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


@pytest.mark.usefixtures("undrawn")
def test_each_place_is_projected_alone_however_many_there_are(net, caffe):
    """Four places in chunks of three: the last chunk is filled up with places that are there already."""
    net = dataclasses.replace(net, units_at_once=3)
    images = caffe.preprocess(VALIDATION[:2])
    image, channel, row, column = np.array([[1, 0, 1, 1], [0, 2, 5, 3], [4, 0, 27, 9], [8, 54, 0, 9]])
    drawn = net.project(images, Unit(channel, (row, column)), layer="fire4", of=image)
    assert np.abs(drawn).max(axis=(1, 2, 3)).min() > 0
    none = np.zeros(0, int)
    assert net.project(images[:1], Unit(none, (none, none)), layer="fire4", of=none).shape == (0, 227, 227, 3)
    for n in range(4):
        expected = alone(caffe, images[image[n]], int(channel[n]), (int(row[n]), int(column[n])), "fire4")
        np.testing.assert_allclose(drawn[n], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_photos_classes_come_first_among_the_class_maps(net):
    values = np.ones((1000, 9), np.float32)
    top = TopActivations(values, *[np.zeros((1000, 9), np.int32)] * 3)
    own = deconv_figures.own_classes(net, "conv10", photos())
    assert own == list(OFFICIAL)
    chosen = strongest.choose_maps(top, 4, (0, 3), first=own)
    assert chosen[:2].tolist() == list(OFFICIAL) and len(set(chosen.tolist())) == 4
    assert strongest.choose_maps(top, 1, (0, 3), first=own).tolist() == [574]
    assert deconv_figures.own_classes(net, "fire8", photos()) == []
    every = dataclasses.replace(photos(), class_names=net.class_names)  # a folder's, or all of ImageNet's
    assert deconv_figures.own_classes(net, "conv10", every) == []


@pytest.mark.slow
def test_figure_2_is_drawn_of_both_splits_and_its_scan_is_kept(net, caffe, weights, elsewhere, tmp_path, monkeypatch):
    config = configured(weights, "deconv", tmp_path, layers=("pool1", "conv10"), num_maps=2)
    folder = tmp_path / "deconv"
    result = squeezenet_figures.run(config, data=photos())["deconv"]
    saved = json.loads((folder / "result.json").read_text())
    assert saved["figure"] == "Figure 2" and saved["num_images"] == 9 and list(saved["layers"]) == ["pool1", "conv10"]
    assert saved["net"] == {"name": "squeezenet", "fingerprint": net.fingerprint}
    assert saved["layers"]["pool1"]["receptive_field"] == 11 and saved["layers"]["conv10"]["maps"] == list(OFFICIAL)
    for layer in ("pool1", "conv10"):
        with np.load(folder / f"{layer}.npz") as file:
            drawn = dict(file)
        both, field = data.Concatenated(photos()), net.receptive_field(layer)
        picture, box = both[int(drawn["images"][0, 0])]["image"], tuple(drawn["boxes"][0, 0].tolist())
        np.testing.assert_array_equal(drawn["patches"][0, 0], pixels.cut(picture[14:241, 14:241], box, 224))
        assert drawn["patches"].shape[2:4] == (field.size, field.size)
        place = [(edge - field.offset) // field.stride for edge in box[:2]]
        image = caffe.preprocess(picture[None])[0]
        expected = pixels.cut(alone(caffe, image, int(drawn["maps"][0]), tuple(place), layer), box, 0.0)
        np.testing.assert_allclose(drawn["projections"][0, 0], expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())
    assert {path.name for path in folder.glob("*.png")} == {"pool1.png", "conv10.png", "overview.png"}
    with pytest.raises(ValueError, match="already holds a result"):
        squeezenet_figures.run(config, data=photos())
    monkeypatch.delattr(scans, "eval_batches")  # it cannot scan again
    again = squeezenet_figures.run(dataclasses.replace(config, overwrite=True), data=photos())["deconv"]
    np.testing.assert_array_equal(again["layers"]["pool1"]["strongest"], result["layers"]["pool1"]["strongest"])


@pytest.mark.usefixtures("undrawn")
def test_what_is_watched_of_an_occluded_photo_is_the_nets_answer(net, caffe, all_features):
    layer = occlusion.watched_layer(net)
    assert layer == "fire9"  # the last layer whose maps are features; those of conv10 are classes
    images, fn = caffe.preprocess(VALIDATION), net.features([layer, "logits"])
    options = {"layer": layer, "logits": "logits"}
    watched = jax.jit(partial(occlusion.watch, **options))(np.int32(2), np.int32(574), fn(images))
    logits = all_features["logits"][5:]
    np.testing.assert_allclose(watched.probability, jax.nn.softmax(logits)[:, 574], rtol=1e-3)
    np.testing.assert_allclose(watched.activity, all_features["fire9"][5:, ..., 2].sum(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(watched.predicted, logits.argmax(axis=1))
    looked = jax.jit(partial(occlusion.look, **options))(fn, images)
    for n, maps in enumerate(all_features["fire9"][5:]):
        place = np.unravel_index(maps.argmax(), maps.shape)
        assert (int(looked.row[n]), int(looked.column[n]), int(looked.channel[n])) == place


def test_scenes_have_imagenets_labels_and_the_right_ones_come_first(net):
    """Class 0 wins everywhere in the narrow net: of the labels 574, 0, 574, 0 numbers 1 and 3 are right."""
    scenes = occlusion.choose_scenes(net, photos(), layer="fire9", num=3, seed=0, batch_size=4)
    assert scenes.labels.tolist() == [0, 0, 574] and scenes.correct.tolist() == [True, True, False]
    assert set(scenes.indices[:2].tolist()) == {1, 3}
    np.testing.assert_array_equal(scenes.views.pictures, VALIDATION[scenes.indices][:, 14:241, 14:241])


@pytest.mark.slow
def test_figure_7_sweeps_the_square_over_validation_photos(net, caffe, weights, elsewhere, tmp_path):
    flags = squeezenet_figures.configs_of(configured(weights, "occlusion", tmp_path, num_images=1))["occlusion"]
    occlusion_maps.run(dataclasses.replace(flags, stride=56), net=net, data=photos())
    folder = tmp_path / "occlusion"
    saved = json.loads((folder / "result.json").read_text())
    assert saved["figure"] == "Figure 7" and saved["score"] is None and saved["square"] == 56
    assert saved["layer"] == "fire9"
    (facts,) = saved["images"]
    assert facts["class"] == "tench" and facts["predicted"] == "tench" and facts["class_is_known"]
    with np.load(folder / "maps.npz") as maps:
        corner, index = maps["corners"][1, 2], int(maps["images"][0])
        image = caffe.preprocess(VALIDATION[index][None])
        views = nets.read_views(photos().validation, [index], net)
        hidden, fill = image.copy(), occlusion.filler(net, views, "mean", square=56)(views, 0)
        rows, columns = (slice(edge, edge + 56) for edge in corner)
        hidden[0, rows, columns] = np.broadcast_to(fill[0], image[0].shape)[rows, columns]
        answer = caffe.fn(jnp.asarray(hidden))
        activity = np.asarray(answer["fire9"])[0, ..., facts["map"]].sum()
        np.testing.assert_allclose(maps["activity"][0, 1, 2], activity, rtol=1e-3)
        assert maps["predicted"][0, 1, 2] == int(answer["logits"].argmax())
    assert (folder / "maps.png").exists()


def test_table_1_compares_the_nets_own_signs_in_the_papers_order_of_layers(caffe, net, weights, elsewhere, tmp_path):
    """Delta of all four pictures under their noses, from plain forward passes."""
    faces = [{"file": f"{n}.png", "nose": [128, 100 + n], "left_eye": [60 + 9 * n, 70]} for n in range(4)]
    for face, picture in zip(faces, VALIDATION, strict=True):
        Image.fromarray(picture).save(tmp_path / face["file"])
    (tmp_path / "parts.json").write_text(json.dumps({"faces": faces}))
    config = configured(weights, "correspondence", tmp_path, annotations=tmp_path / "parts.json")
    few = {"num_random": 1, "num_aligned": 1, "num_images": 4, "num_draws": 2, "num_permutations": 9}
    flags = squeezenet_figures.configs_of(config)["correspondence"]
    part_correspondence.run(dataclasses.replace(flags, **few), net=net)
    saved = json.loads((tmp_path / "correspondence" / "result.json").read_text())
    assert saved["table"] == "Table 1" and list(saved["layers"]) == ["fire8", "conv10", "fire4"]
    images = caffe.preprocess(VALIDATION)
    noses = np.array([[100 + n - 14, 128 - 14] for n in range(4)])
    masked = np.asarray(correspondence.mask_squares(images, noses, side=57))
    fn = jax.jit(caffe.fn)
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
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(weights, elsewhere, tmp_path, message, change):
    config = {"weights": weights, "data": "photos", "figure": "deconv", "out": tmp_path / "new", **change}
    with pytest.raises((ValueError, OSError), match=message):
        squeezenet_figures.run(squeezenet_figures.Config(**config), data=photos())
    assert not (tmp_path / "new").exists()


UNFIT = {
    "data='x': its pictures have 128 pixels a side, the net's 256": {"size": 128},
    "data='x': its classes are not all among ImageNet's 1000": {"official": None},
    "data='photos' has no validation split": {"validation": False},
}


@pytest.mark.parametrize(("message", "change"), UNFIT.items())
@pytest.mark.parametrize("figure", ["deconv", "occlusion"])
def test_photos_that_do_not_fit_the_net_are_refused(weights, tmp_path, figure, message, change):
    with pytest.raises(ValueError, match=message):
        squeezenet_figures.run(
            squeezenet_figures.Config(weights=weights, data="x", figure=figure, out=tmp_path / "new"),
            data=photos(**change),
        )
    assert not (tmp_path / "new").exists()
