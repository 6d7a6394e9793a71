"""Figure 7: maps that are the net's own answers, the score's closed cases, honest pages and files, clear refusals."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets
from PIL import Image
from test_deconv_figures import CENTRES, MEAN, NET, PICTURES, SIDE, make_net

import zfjax
from experiments import occlusion_maps
from zfjax import nets
from zfjax.analyses import occlusion
from zfjax.analyses.occlusion import Look, Scenes, Swept
from zfjax.data import ArraySource, ImageSet, sets

NAMES = ("a", "b", "c")


IMAGES = CENTRES.astype(np.float32) - np.float32(120)


OBJECT = np.zeros((SIDE, SIDE), bool)


OBJECT[4:14, 6:16] = True  # rows 2 to 11 and columns 4 to 13 of the centre crop


class Scenery(ArraySource):
    """The tiny pictures with their object."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "object": OBJECT}


@functools.cache
def net():
    return make_net()._replace(class_names=NAMES)


def up(images):
    return tiny_nets.forward(net().params, jnp.asarray(images), architecture=NET)


@functools.cache
def answers():
    """The net's own classes of the pictures."""
    return np.asarray(up(IMAGES)[0].argmax(axis=1))


def data(labels=None, names=NAMES, kind=Scenery):
    labels = answers() if labels is None else labels
    return ImageSet("tiny", SIDE, names, None, kind(PICTURES, labels), MEAN, None, "data")


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The tiny net and set in the place of a run."""
    moved = net()._replace(run=tmp_path)
    monkeypatch.setattr(nets, "load_net", lambda checkpoint: moved)
    monkeypatch.setattr(sets, "open_data", lambda name, **_: data())
    return moved


def config(**changes):
    return occlusion_maps.Config(**{"num_images": 2, "num_scored": 4, "stride": 5, **changes})


def test_the_maps_are_the_nets_answers_to_the_occluded_image(trained):
    """Activity, probability and class of a picture that is occluded by hand, for each place and fill."""
    result = occlusion_maps.run(config(fill="grey"))
    maps = np.load(trained.run / "figures" / "occlusion" / "maps.npz")
    assert maps["corners"][:, 0, 0].tolist() == [0, 5, 10, 15] and result["config"].square == 5
    for n, facts in enumerate(result["images"]):
        image = IMAGES[facts["index"]]
        features = up(image[None])[1]["conv2"].features[0]
        assert facts["map"] == features.max(axis=(0, 1)).argmax()
        for i, j in [(0, 0), (1, 3), (2, 2)]:
            hidden = image.copy()
            hidden[5 * i : 5 * i + 5, 5 * j : 5 * j + 5] = 128 - 120
            logits, trace = up(hidden[None])
            activity = trace["conv2"].features[0, ..., facts["map"]].sum()
            np.testing.assert_allclose(maps["activity"][n, i, j], activity, rtol=1e-4)
            probability = jax.nn.softmax(logits[0])[answers()[facts["index"]]]
            np.testing.assert_allclose(maps["probability"][n, i, j], probability, rtol=1e-3)
            assert maps["predicted"][n, i, j] == logits[0].argmax()
        assert facts["lowest_probability"] == maps["probability"][n].min()
        assert facts["other_class"] == (maps["predicted"][n] != answers()[facts["index"]]).mean()


def test_the_command_writes_page_arrays_and_result_and_overwrites_only_when_told(trained, monkeypatch):
    occlusion_maps.run(config(seed=3))
    out = trained.run / "figures" / "occlusion"
    assert {path.name for path in out.iterdir()} == {"maps.npz", "maps.png", "result.json", "scan.npz"}
    written = json.loads((out / "result.json").read_text())
    assert written["seed"] == 3 and written["paper"] == occlusion_maps.PAPER and written["places"] == [4, 4]
    assert written["config"]["layer"] == "conv2" and written["config"]["square"] == 5
    assert written["checkpoint"]["fingerprint"] == "net" and written["data"]["fingerprint"] == "data"
    assert written["score"]["num_images"] == 4 and written["score"]["area"] == 100 / 400
    assert written["score"]["occlusion"]["object"] == written["score"]["occlusion"]["other_object"]  # one mask for all
    with Image.open(out / "maps.png") as page:
        assert page.size[0] <= 1500 and (out / "maps.png").stat().st_size < 1_000_000
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        occlusion_maps.run(config())
    mostly_wrong = np.where(np.arange(len(PICTURES)) < 3, answers(), answers() + 1) % 3
    monkeypatch.setattr(sets, "open_data", lambda name, **_: data(mostly_wrong))
    assert occlusion_maps.run(config(num_scored=9, overwrite=True))["score"]["num_images"] == 3
    assert occlusion_maps.run(config(num_scored=0, overwrite=True))["score"] is None


def test_every_pass_stays_within_the_budget(trained, monkeypatch):
    """Of a budget for ten images of `look`, the most hungry one, eight are taken, as there are four devices."""
    monkeypatch.setattr(occlusion_maps.occlusion, "batch_size_within", lambda fn, image, *, memory: memory)
    within = functools.partial(occlusion.images_within, trained, "conv2")
    assert [within(memory, most=16) for memory in (1, 10, 100)] == [4, 8, 16]
    passes, scan = [], occlusion_maps.scans.scan
    monkeypatch.setattr(occlusion_maps.scans, "scan", lambda *a, **k: passes.append(k["batch_size"]) or scan(*a, **k))
    run_look = occlusion.features.in_batches
    monkeypatch.setattr(
        occlusion.features,
        "in_batches",
        lambda *a, batch_size: passes.append(batch_size) or run_look(*a, batch_size=batch_size),
    )
    project = occlusion_maps.top_activations.project_strongest
    monkeypatch.setattr(
        occlusion_maps.top_activations,
        "project_strongest",
        lambda *a, **k: passes.append(k["batch_size"]) or project(*a, **k),
    )
    occlusion_maps.run(config(memory=10, num_scored=0))
    assert passes == [8, 8, 8]


def test_images_that_are_classified_correctly_come_first(trained):
    labels = (answers() + 1) % 3
    labels[[4, 9]] -= 1
    labels %= 3
    scenes = occlusion.choose_scenes(trained, data(labels), "conv2", 4, seed=0, batch_size=8)
    assert set(scenes.indices[:2]) == {4, 9} and scenes.correct.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(scenes.labels, labels[scenes.indices])
    other = occlusion.choose_scenes(trained, data(labels), "conv2", 4, seed=1, batch_size=8)
    assert scenes.indices[2:].tolist() != other.indices[2:].tolist()


def test_a_picture_without_a_class_of_the_net_is_watched_for_the_most_probable_one(trained):
    other_classes = data(labels=(answers() + 1) % 3, names=("x", "y", "z"))
    scenes = occlusion.choose_scenes(trained, other_classes, "conv2", 3, seed=0, batch_size=8)
    np.testing.assert_array_equal(scenes.labels, answers()[scenes.indices])
    assert scenes.correct.all() and (scenes.views.labels == -1).all()


def test_a_look_says_what_forward_and_the_gradient_say(trained):
    look = jax.jit(functools.partial(occlusion.look, layer="conv2", architecture=NET))
    looked = look(trained.params, IMAGES[:3])
    features = up(IMAGES[:3])[1]["conv2"].features
    for n in range(3):
        place = np.unravel_index(features[n].argmax(), features[n].shape)
        assert (looked.row[n], looked.column[n], looked.channel[n]) == place
        label = answers()[n]
        slope = jax.grad(lambda images, label=label: up(images)[0][0, label])(IMAGES[n : n + 1])[0]
        np.testing.assert_allclose(looked.saliency[n], jnp.abs(slope).sum(axis=-1), rtol=1e-3, atol=1e-6)


def _scenes(saliency, masks):
    views = nets.Views(None, None, None, masks, None)
    return Scenes(None, views, Look(None, None, None, None, saliency), None, None)


def test_the_score_points_at_the_largest_drop_and_the_largest_gradient():
    """Four images; the drop stands on the object in three of them, the gradient in one; masks left and right."""
    corners = occlusion.places(8, 2, 2)
    masks = np.zeros((4, 8, 8), bool)
    masks[:2, :, :4], masks[2:, :, 4:] = True, True
    probability, saliency = np.ones((4, 4, 4), np.float32), np.zeros((4, 8, 8), np.float32)
    for n, column in enumerate([0, 1, 3, 0]):
        probability[n, 2, column] = 0.1
    for n, column in enumerate([6, 7, 5, 0]):
        saliency[n, 3, column] = 1
    found = occlusion.score(_scenes(saliency, masks), Swept(None, probability, None), corners, 2)
    assert found["num_images"] == 4 and found["area"] == 0.5
    assert found["occlusion"]["object"] == 0.75 and found["gradient"]["object"] == 0.25
    np.testing.assert_allclose(found["occlusion"]["standard_error"], np.sqrt(0.75 * 0.25 / 4))
    np.testing.assert_allclose(found["occlusion"]["other_object"], np.mean([1 / 3, 1 / 3, 1 / 3, 2 / 3]))
    np.testing.assert_allclose(found["gradient"]["other_object"], np.mean([2 / 3, 2 / 3, 1 / 3, 2 / 3]))


def test_the_gradient_is_smoothed_by_the_same_square():
    """One bright pixel loses against a square that is moderately bright everywhere."""
    saliency, masks = np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), bool)
    saliency[:, 0, 0], saliency[:, 4:6, 4:6], masks[:, 4:6, 4:6] = 3.0, 1.0, True
    swept = Swept(None, np.ones((2, 4, 4), np.float32), None)
    found = occlusion.score(_scenes(saliency, masks), swept, occlusion.places(8, 2, 2), 2)
    assert found["gradient"]["object"] == 1.0 and found["occlusion"]["object"] == 0.0


def test_other_images_are_the_maps_strongest_without_the_image_itself(trained):
    """Of an image that is itself one of those that excite its map most."""
    source, features = data().validation, np.asarray(up(IMAGES)[1]["conv2"].features)
    strongest = features.max(axis=(1, 2))
    own, channel = (int(place) for place in np.unravel_index(strongest.argmax(), strongest.shape))
    scenes = occlusion.choose_scenes(trained, data(), "conv2", len(IMAGES), seed=0, batch_size=8)
    scenes = occlusion.take(scenes, np.flatnonzero(scenes.indices == own))
    top = occlusion_maps.scans.scan(trained, source, ("conv2",), trained.run / "s.npz", of="", k=4)["conv2"]
    (found,) = occlusion_maps.project_maps(trained, source, "conv2", scenes, top, batch_size=3)
    assert found.images.tolist() == np.argsort(-strongest[:, channel]).tolist()[:4] and found.images[0] == own
    for index, projection in zip(found.images, found.projections, strict=True):
        trace = up(IMAGES[index : index + 1])[1]
        signal = zfjax.isolate(trace["conv2"].features, channel=channel)
        expected = zfjax.project(trained.params, trace, signal, layer="conv2", architecture=NET)[0]
        np.testing.assert_allclose(projection, expected, rtol=1e-3, atol=1e-4)


def test_a_users_folder_is_drawn_without_labels_and_without_a_score(trained, tmp_path):
    for n in range(2):
        Image.fromarray(PICTURES[n]).save(tmp_path / f"{n}.png")
    result = occlusion_maps.run(config(data=str(tmp_path), out=tmp_path / "out", num_images=3))
    assert len(result["images"]) == 2  # as many as there are
    assert result["score"] is None and not any(facts["class_is_known"] for facts in result["images"])
    assert [facts["class"] for facts in result["images"]] == [
        NAMES[answers()[facts["index"]]] for facts in result["images"]
    ]
    one = occlusion_maps.run(config(data=str(tmp_path / "1.png"), out=tmp_path / "one", layer="fc6"))
    assert len(one["images"]) == 1 and one["config"].layer == "fc6"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"square": 21}, "square=21: 1 to 20 pixels are needed, the image has 20 a side"),
        ({"stride": 0}, "stride=0: at least 1 pixel"),
        ({"num_images": 0}, "num_images=0: at least 1"),
        ({"num_scored": -1}, "num_scored=-1: at least 0"),
        ({"fill": "black"}, "fill='black': one of mean, grey, blur"),
        ({"layer": "conv9"}, "unknown layer 'conv9'"),
        ({"memory": 0}, "memory=0: at least 1 MiB"),
    ],
)
def test_bad_configurations_are_refused_before_anything_is_written(trained, changes, message):
    with pytest.raises(ValueError, match=message):
        occlusion_maps.run(config(**changes))
    assert not (trained.run / "figures" / "occlusion" / "result.json").exists()
