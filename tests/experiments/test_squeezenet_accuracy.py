"""SqueezeNet's accuracy over folders of photos, after the network was compared with another implementation."""

import json
import sys

import numpy as np
import pytest
import tiny_photos
from judges import check_keys
from test_squeezenet import RNG, write_net

from experiments import squeezenet_accuracy
from zfjax import features, pretrained


def measure(monkeypatch, capsys, net, data, out, *more):
    flags = ("--weights", net, "--data", data, "--out", out, *more)
    monkeypatch.setattr(sys, "argv", ["squeezenet_accuracy", *map(str, flags)])
    squeezenet_accuracy.main()
    check_keys(out)
    return capsys.readouterr().out, json.loads((out / "result.json").read_text())


def test_accuracy_counts_official_photos_and_prepared_ones(tmp_path, monkeypatch, capsys):
    net, source = write_net(tmp_path / "net"), tiny_photos.write_tars(tmp_path / "source")
    shares = {
        synset: np.mean([tiny_photos.VALIDATION[n - 1] == synset for n in tiny_photos.NUMBERS])
        for synset in tiny_photos.SYNSETS
    }
    assert 0 < shares["n01440764"] < 1  # class 0, which the biases put first; class 1 is not among the five
    tiny_photos.prepare(source, tmp_path / "set")
    for data in (source, tmp_path / "set"):
        # five photos: the last batch is filled up
        printed, result = measure(monkeypatch, capsys, net, data, tmp_path / data.name / "out", "--batch-size", 3)
        assert result["accuracy"] == {"top1": shares["n01440764"], "top5": shares["n01440764"]}
        assert result["num_images"] == 5 and f"top1 accuracy {shares['n01440764']:.1%}" in printed
    with pytest.raises(SystemExit, match="it already holds a result; give another folder, or --overwrite"):
        measure(monkeypatch, capsys, net, source, tmp_path / "set" / "out")
    with pytest.raises(SystemExit, match="batch_size=0: at least 1 is needed"):
        measure(monkeypatch, capsys, net, source, tmp_path / "new", "--batch-size", 0)


def test_classes_of_others_are_refused(tmp_path, monkeypatch, capsys):
    net, source = write_net(tmp_path / "net"), tmp_path / "source"
    (source / "val" / "creature").mkdir(parents=True)
    (source / "val" / "creature" / "a.jpg").write_bytes(tiny_photos.photo(0))
    with pytest.raises(SystemExit, match="'creature' is not one of ImageNet's 1000 synsets"):
        measure(monkeypatch, capsys, net, source, tmp_path / "out")
    tiny_photos.prepare(source, tmp_path / "set")
    with pytest.raises(SystemExit, match="its classes are not all among ImageNet's 1000"):
        measure(monkeypatch, capsys, net, tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_implementations_outputs_are_compared_first(tmp_path, monkeypatch, capsys):
    folder = write_net(tmp_path / "net")
    source, net = tiny_photos.write_tars(tmp_path / "source"), pretrained.squeezenet(folder)
    images = RNG.normal(0, 60, (2, 227, 227, 3)).astype(np.float32)
    pool1 = np.moveaxis(features.in_batches(net.layers_of(["pool1"]), images)["pool1"], 3, 1)
    file = tmp_path / "outputs.npz"
    np.savez(file, inputs=np.moveaxis(images, 3, 1), pool1=pool1)  # RGB, where the network reads BGR
    with pytest.raises(SystemExit, match="not the exporter's: pool1 differ"):
        measure(monkeypatch, capsys, folder, source, tmp_path / "out", "--outputs", file)
    assert not (tmp_path / "out").exists()
    np.savez(file, inputs=np.moveaxis(images[..., ::-1], 3, 1), pool1=pool1)
    printed, result = measure(monkeypatch, capsys, folder, source, tmp_path / "out", "--outputs", file)
    assert [found["layer"] for found in result["parity"]] == ["pool1"] and result["parity"][0]["relative"] < 1e-5
    assert printed.splitlines()[1].split()[0] == "pool1"
