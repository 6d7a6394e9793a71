"""Figure 7: maps that are the net's own answers, the score's closed cases, honest pages and files, clear refusals."""

import dataclasses
import functools
import json

import foreign_nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny_nets
from judges import findings
from PIL import Image
from tiny_run import CENTRES, MEAN, NET, PICTURES, SIDE, make_net

import zfjax
from experiments import occlusion_maps
from experiments.report.statistics import interval, with_interval
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
    return dataclasses.replace(make_net(), class_names=NAMES)


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
def trained(tmp_path):
    """The tiny net and set in the place of a run."""
    return dataclasses.replace(net(), run=tmp_path)


def config(**changes):
    return occlusion_maps.Config(**{"num_images": 2, "num_scored": 4, "stride": 5, **changes})


def _run(net, images=None, **changes):
    return occlusion_maps.run(config(**changes), net=net, data=data() if images is None else images)


def written_of(result):
    """result.json as it stands in the folder that the result names."""
    return json.loads((result["folder"] / "result.json").read_text())


@pytest.mark.usefixtures("undrawn")
def test_the_maps_are_the_nets_answers_to_the_occluded_image(trained):
    """Activity, probability and class of a picture that is occluded by hand, for each place and fill."""
    result = _run(trained, fill="grey")
    maps = np.load(result["folder"] / "maps.npz")
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


def test_the_command_writes_page_arrays_and_result_and_overwrites_only_when_told(trained):
    out = trained.run / "figures" / "occlusion"
    result = _run(trained, seed=3, out=out)
    assert {path.name for path in out.iterdir() if path.suffix in (".npz", ".png", ".json")} == {
        "maps.npz",
        "maps.png",
        "result.json",
    }
    written = written_of(result)
    assert set(written["files"]) == {"maps.npz", "maps.png"} and written["square"] == 5 and written["stride"] == 5
    assert len(list((trained.run / "scans").glob("*.npz"))) == 1
    assert written["seed"] == 3 and written["paper"] == occlusion_maps.PAPER and written["places"] == [4, 4]
    assert written["config"]["layer"] == "conv2" and written["config"]["square"] == 5
    assert written["checkpoint"]["fingerprint"] == "net" and written["data"]["fingerprint"] == "data"
    assert written["score"]["num_images"] == 4 and written["score"]["area"] == 100 / 400
    assert written["score"]["occlusion"]["object"] == written["score"]["occlusion"]["other_object"]  # one mask for all
    score = written["score"]
    shares = [score["occlusion"]["object"], score["occlusion"]["other_object"], score["gradient"]["object"]]
    assert score["occlusion"]["interval"] == pytest.approx(interval(shares[0], 4))
    words = "{} of 4 scenes, by chance {}; gradient {}".format(*(with_interval(share, 4) for share in shares))
    assert findings(out)["occlusion_finds_the_object"].ours == words
    with Image.open(out / "maps.png") as page:
        assert page.size[0] <= 1500 and (out / "maps.png").stat().st_size < 1_000_000
    with pytest.raises(ValueError, match="already holds a result; give another folder, or --overwrite"):
        _run(trained, out=out)
    mostly_wrong = np.where(np.arange(len(PICTURES)) < 3, answers(), answers() + 1) % 3
    wrong = data(mostly_wrong)
    assert _run(trained, wrong, num_scored=9, out=out, overwrite=True)["score"]["num_images"] == 3
    assert _run(trained, wrong, num_scored=0, out=out, overwrite=True)["score"] is None


@pytest.mark.usefixtures("undrawn")
def test_every_pass_stays_within_the_budget(trained, monkeypatch):
    """Of a budget for ten images of `look`, the most hungry one, eight are taken, as there are four devices."""
    monkeypatch.setattr(occlusion_maps.occlusion, "batch_size_within", lambda fn, image, *, memory, **then: memory)
    within = functools.partial(occlusion.images_within, trained, "conv2")
    assert [within(memory, most=16) for memory in (1, 10, 100)] == [4, 8, 16]
    passes, scan = [], occlusion_maps.scans.kept_scan
    monkeypatch.setattr(
        occlusion_maps.scans, "kept_scan", lambda *a, **k: passes.append(k["batch_size"]) or scan(*a, **k)
    )
    run_look = occlusion.features.in_batches
    monkeypatch.setattr(
        occlusion.features,
        "in_batches",
        lambda *a, batch_size: passes.append(batch_size) or run_look(*a, batch_size=batch_size),
    )
    project = nets.TrainedNet.project
    monkeypatch.setattr(
        nets.TrainedNet,
        "project",
        lambda self, images, *a, **k: passes.append(len(images)) or project(self, images, *a, **k),
    )
    _run(trained, memory=10, num_scored=0)
    assert passes == [8, 8, 8]  # the scan, the looks, and the two images with their three others


def test_images_that_are_classified_correctly_come_first(trained):
    labels = (answers() + 1) % 3
    labels[[4, 9]] -= 1
    labels %= 3
    scenes = occlusion.choose_scenes(trained, data(labels), layer="conv2", num=4, seed=0, batch_size=8)
    assert set(scenes.indices[:2]) == {4, 9} and scenes.correct.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(scenes.labels, labels[scenes.indices])
    other = occlusion.choose_scenes(trained, data(labels), layer="conv2", num=4, seed=1, batch_size=8)
    assert scenes.indices[2:].tolist() != other.indices[2:].tolist()


def test_a_picture_without_a_class_of_the_net_is_watched_for_the_most_probable_one(trained):
    other_classes = data(labels=(answers() + 1) % 3, names=("x", "y", "z"))
    scenes = occlusion.choose_scenes(trained, other_classes, layer="conv2", num=3, seed=0, batch_size=8)
    np.testing.assert_array_equal(scenes.labels, answers()[scenes.indices])
    assert scenes.correct.all() and (scenes.views.labels == -1).all()


def test_a_look_says_what_forward_and_the_gradient_say(trained):
    fn = trained.features(("conv2", "fc7"))
    looked = jax.jit(lambda images: occlusion.look(fn, images, layer="conv2", logits="fc7"))(IMAGES[:3])
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
    scores = occlusion.score(_scenes(saliency, masks), Swept(None, probability, None), corners, square=2)
    assert scores["num_images"] == 4 and scores["area"] == 0.5
    assert scores["occlusion"]["object"] == 0.75 and scores["gradient"]["object"] == 0.25
    z, middle = scipy.stats.norm.ppf(0.975), 0.75
    centre, half = middle + z**2 / 8, z * np.sqrt(middle * (1 - middle) / 4 + z**2 / 64)
    expected = np.array([centre - half, centre + half]) / (1 + z**2 / 4)  # Wilson (1927)
    np.testing.assert_allclose(scores["occlusion"]["interval"], expected)
    np.testing.assert_allclose(scores["occlusion"]["other_object"], np.mean([1 / 3, 1 / 3, 1 / 3, 2 / 3]))
    np.testing.assert_allclose(scores["gradient"]["other_object"], np.mean([2 / 3, 2 / 3, 1 / 3, 2 / 3]))


def test_the_gradient_is_smoothed_by_the_same_square():
    """One bright pixel loses against a square that is moderately bright everywhere."""
    saliency, masks = np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), bool)
    saliency[:, 0, 0], saliency[:, 4:6, 4:6], masks[:, 4:6, 4:6] = 3.0, 1.0, True
    swept = Swept(None, np.ones((2, 4, 4), np.float32), None)
    scores = occlusion.score(_scenes(saliency, masks), swept, occlusion.places(8, 2, 2), square=2)
    assert scores["gradient"]["object"] == 1.0 and scores["occlusion"]["object"] == 0.0


def test_other_images_are_the_maps_strongest_without_the_image_itself(trained):
    """Of an image that is itself one of those that excite its map most."""
    source, features = data().validation, np.asarray(up(IMAGES)[1]["conv2"].features)
    strongest = features.max(axis=(1, 2))
    own, channel = (int(place) for place in np.unravel_index(strongest.argmax(), strongest.shape))
    scenes = occlusion.choose_scenes(trained, data(), layer="conv2", num=len(IMAGES), seed=0, batch_size=8)
    scenes = occlusion.take(scenes, np.flatnonzero(scenes.indices == own))
    top = occlusion_maps.scans.kept_scan(trained, source, ("conv2",), of="", k=4)["conv2"]
    (projected,) = occlusion.project_maps(trained, source, scenes, strongest=top, layer="conv2", batch_size=3)
    assert projected.images.tolist() == np.argsort(-strongest[:, channel]).tolist()[:4] and projected.images[0] == own
    for index, projection in zip(projected.images, projected.projections, strict=True):
        trace = up(IMAGES[index : index + 1])[1]
        signal = zfjax.isolate(trace["conv2"].features, channel=channel)
        expected = zfjax.project(trained.params, trace, signal, layer="conv2", architecture=NET)[0]
        np.testing.assert_allclose(projection, expected, rtol=1e-3, atol=1e-4)


def test_a_users_folder_is_drawn_without_labels_and_without_a_score(trained, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(2):
        Image.fromarray(PICTURES[n]).save(folder / f"{n}.png")
    with pytest.raises(zfjax.UserError, match="it lies in the folder of pictures, data=.* and would be looked at too"):
        occlusion_maps.run(config(data=str(folder), out=folder / "a" / "out"), net=trained)
    result = occlusion_maps.run(config(data=str(folder), out=tmp_path / "out", num_images=3), net=trained)
    assert len(result["images"]) == 2  # as many as there are
    assert result["score"] is None and not any(facts["class_is_known"] for facts in result["images"])
    assert [facts["class"] for facts in result["images"]] == [
        NAMES[answers()[facts["index"]]] for facts in result["images"]
    ]
    assert {facts["image"] for facts in result["images"]} == {"0.png", "1.png"}
    one = occlusion_maps.run(config(data=str(folder / "1.png"), out=tmp_path / "one", layer="fc6"), net=trained)
    assert len(one["images"]) == 1 and one["config"].layer == "fc6" and one["images"][0]["unit"].startswith("unit ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"square": 21}, "square=21: 1 to 20 pixels are needed, the image has 20 a side"),
        ({"stride": 0}, "stride=0: at least 1 pixel"),
        ({"num_images": 0}, "num_images=0: at least 1"),
        ({"num_scored": -1}, "num_scored=-1: at least 0"),
        ({"fill": "black"}, "fill='black': one of mean, grey, blur"),
        ({"layer": "conv9"}, "layer='conv9': one of conv1, conv2, fc6, fc7"),
        ({"memory": 0}, "memory=0: at least 1 MiB"),
    ],
)
def test_bad_configurations_are_refused_before_anything_is_written(trained, changes, message):
    with pytest.raises(ValueError, match=message):
        _run(trained, **changes)
    assert not list(trained.run.rglob("result.json"))


def hidden_by_hand(image, corner, square, fill):
    """The image with `fill` in the square."""
    copy, (top, left) = np.array(image), corner
    copy[top : top + square, left : left + square] = np.broadcast_to(fill, copy.shape)[
        top : top + square, left : left + square
    ]
    return copy


def test_any_function_of_images_that_are_not_square_is_drawn(tmp_path):
    """A foreign net's own answers to pictures that are occluded by hand, with the mean colour of those drawn."""
    folder = foreign_nets.folder(tmp_path / "pictures")
    options = {"net": "foreign_nets:SMALL", "data": str(folder), "out": tmp_path / "out", "num_images": 2}
    result = occlusion_maps.run(config(**options))
    net, maps = foreign_nets.SMALL, np.load(tmp_path / "out" / "maps.npz")
    assert result["layer"] == "conv2" and result["square"] == 5 and result["not_applicable"] == {}
    assert maps["probability"].shape == (2, 4, 5) and maps["corners"][3, 4].tolist() == [15, 21]
    assert [facts["image"] for facts in result["images"]] == maps["names"].tolist()
    assert all(facts["image"].endswith(".png") and facts["class_is_known"] for facts in result["images"])
    source = sets.open_images(str(folder), net).validation
    every = np.asarray(net.prepare(np.stack([source[n]["image"] for n in range(6)])))
    colour = every[maps["images"]].mean(axis=(0, 1, 2))
    for n, facts in enumerate(result["images"]):
        hidden = hidden_by_hand(every[facts["index"]], maps["corners"][2, 3], 5, colour)
        answers = foreign_nets.answers(net.params, hidden[None])
        shares = jax.nn.softmax(answers["logits"][0])
        label = foreign_nets.CLASS_NAMES.index(facts["class"])
        np.testing.assert_allclose(maps["probability"][n, 2, 3], shares[label], rtol=1e-4)
        activity = answers["conv2"][0, ..., facts["map"]].sum()
        np.testing.assert_allclose(maps["activity"][n, 2, 3], activity, rtol=1e-4)


@pytest.mark.parametrize(
    ("net", "why"),
    [
        pytest.param(
            "MAPS_ONLY",
            "the last layer of maps only, conv2, has feature maps and no classes",
            marks=pytest.mark.slow,
        ),
        ("EMBEDDING", "embedding does not say that the units of its last layer, embedding, are classes"),
    ],
)
def test_a_network_without_classes_is_drawn_as_far_as_it_goes(net, why, tmp_path, capsys):
    folder = foreign_nets.folder(tmp_path / "pictures")
    options = {"net": f"foreign_nets:{net}", "data": str(folder), "out": tmp_path / "out"}
    result = occlusion_maps.run(config(**options))
    assert set(np.load(tmp_path / "out" / "maps.npz")) == {"corners", "images", "names", "activity"}
    assert list(result["not_applicable"]) == ["probability (d)", "most probable class (e)"]
    assert all(facts["class"] is None and facts["probability"] is None for facts in result["images"])
    capsys.readouterr()
    occlusion_maps.report(result)
    assert f"Left out: probability (d) and most probable class (e), as {why}" in capsys.readouterr().out
