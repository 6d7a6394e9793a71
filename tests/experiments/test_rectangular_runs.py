"""A network of images that are no squares is trained, goes on, is opened and scored by the commands, as others are."""

import json
import shutil
import sys

import numpy as np
import pytest
import runs

import zfjax
from experiments import evaluate_imagenet, train_imagenet
from experiments.shell.training_run import Config
from zfjax import nets, pixels
from zfjax.data import sets
from zfjax.training import checkpoints, evaluation

FLAGS = (
    *("--preset", "demo", "--architecture", "alexnet", "--image-size", "36x48", "--demo-sizes", "40x56", "16", "6"),
    *("--width", "0.04", "--batch-size", "8", "--num-epochs", "2", "--num-workers", "0"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its folder: two epochs of two steps."""
    folder = tmp_path_factory.mktemp("rectangle") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        runs.train(monkeypatch, *FLAGS, "--out", folder, images=sets.open_data("demo:40x56:16:6"))
    return folder


@pytest.mark.slow
def test_its_sizes_are_written_down_and_read_back(run):
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["image_size"] == [36, 48] and config["demo_sizes"] == [[40, 56], 16, 6]
    net = nets.load_net(run)
    assert (net.image_size, net.picture_size, net.data) == ((36, 48), (40, 56), "demo:40x56:16:6")
    assert net.mean.shape == (40, 56, 3) and net.architecture.sizes()["conv5"].output[:2] == (1, 1)
    assert sets.open_images(None, net).validation[0]["image"].shape == (40, 56, 3)


@pytest.mark.slow
def test_it_goes_on_to_the_same_bits(run, tmp_path, monkeypatch):
    other = shutil.copytree(run, tmp_path / "other")
    shutil.rmtree(other / "checkpoints" / "4")
    runs.train(monkeypatch, "--resume", other, images=sets.open_data("demo:40x56:16:6"))
    first, second = (checkpoints.load(folder) for folder in (run, other))
    assert first.step == second.step == 4
    assert checkpoints.digest(dict(first.params)) == checkpoints.digest(dict(second.params))


@pytest.mark.slow
def test_ten_crops_are_its_corners_and_centre(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate_imagenet", "--net", str(run), "--out", str(tmp_path / "errors")])
    evaluate_imagenet.main()
    result = json.loads((tmp_path / "errors" / "result.json").read_text())
    net, source = nets.load_net(run), sets.open_data("demo:40x56:16:6").validation
    images = np.stack([source[n]["image"] for n in range(6)]).astype(np.float32) - net.mean
    corners = [(0, 0), (0, 8), (4, 0), (4, 8), (2, 4)]
    views = [images[:, y : y + 36, x : x + 48] for y, x in corners]
    crops = np.concatenate([*views, *(view[:, :, ::-1] for view in views)])
    np.testing.assert_array_equal(
        pixels.ten_crops(np.stack([source[n]["image"] for n in range(6)]), net.mean, (36, 48)).reshape(crops.shape),
        crops,
    )
    logits = zfjax.forward(net.params, crops, architecture=net.architecture)[0]
    shares = np.exp(np.asarray(logits, np.float64))
    shares = (shares / shares.sum(axis=1, keepdims=True)).reshape(10, 6, -1).mean(axis=0)
    labels = np.array([source[n]["label"] for n in range(6)])
    ranks = np.asarray(evaluation.rank_of_label(shares.astype(np.float32), labels))
    assert result["error"]["ten"] == {"top1": np.mean(ranks >= 1), "top5": np.mean(ranks >= 5)}


@pytest.mark.parametrize(
    ("words", "size"), [("96x128", (96, 128)), ("96", 96), ("96x96", 96), ("0", 0)], ids=lambda of: f"{of}"
)
def test_a_size_is_named_by_its_side_or_by_height_x_width(words, size):
    assert train_imagenet.parse(Config(), ["--image-size", words]).image_size == size


@pytest.mark.parametrize("words", ["96,128", "96x", "96x128x3", "9.5", "x96"])
def test_other_words_for_a_size_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        train_imagenet.parse(Config(), ["--image-size", words])
    assert f"'{words}': a number of pixels, as 64, or HEIGHTxWIDTH" in " ".join(capsys.readouterr().err.split())


def test_crops_wider_than_the_pictures_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"image_size=\(36, 60\): crops of at most 40x56 pixels, the size of the pic"):
        runs.train(
            monkeypatch,
            *(*FLAGS[:4], "--image-size", "36x60", *FLAGS[6:]),
            *("--out", tmp_path / "run"),
            images=sets.open_data("demo:40x56:16:6"),
        )
