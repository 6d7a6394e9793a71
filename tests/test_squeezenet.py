"""SqueezeNet is SqueezeNet: layer by layer as PyTorch computes it, with the accuracy that it is known for.

Its weights and the ImageNet photos lie beside the checkout where there are any; without them a narrow net of the same
layers stands in, and the tests of the real one are skipped.
"""

import functools
import io
import json
import pathlib
import sys
import tempfile

import numpy as np
import photos
import pytest
from PIL import Image
from test_caffe import row, table_of

from experiments import squeezenet_accuracy
from zfjax import features, pretrained
from zfjax.data import archives
from zfjax.pretrained import caffe

RNG = np.random.default_rng(0)
SHARED = pathlib.Path(__file__).parents[2] / "shared"
REAL, PHOTOS = SHARED / "models" / "squeezenet_v1.0", SHARED / "data" / "ilsvrc2012-mini"


def fire(n, bottom, squeezed, expanded):
    name = f"fire{n}"
    rows = [row(f"{name}/conv1x1_1", "Convolution", bottom, num_output=squeezed, kernel=1)]
    for branch, (kernel, pad) in {"conv1x1_2": (1, 0), "conv3x3_2": (3, 1)}.items():
        fields = {"num_output": expanded, "kernel": kernel, "pad": pad}
        rows.append(row(f"{name}/{branch}", "Convolution", rows[0]["name"], **fields))
    rows = [made for r in rows for made in (r, row(f"relu_{r['name']}", "ReLU", r["name"], r["name"]))]
    return [*rows, row(f"{name}/concat", "Concat", [f"{name}/conv1x1_2", f"{name}/conv3x3_2"])]


def narrow_rows():
    """SqueezeNet v1.0 with 2 to 6 maps in a layer, all 1000 classes."""
    window = {"pool": "MAX", "kernel": 3, "stride": 2}
    rows = [row("conv1", "Convolution", "data", num_output=6, kernel=7, stride=2), row("r1", "ReLU", "conv1", "conv1")]
    below = "conv1"
    for n in range(1, 10):
        if n > 1:
            rows += fire(n, below, 2, 3)
            below = f"fire{n}/concat"
        if n in (1, 4, 8):
            rows.append(row(f"pool{n}", "Pooling", below, **window))
            below = f"pool{n}"
    rows += [
        row("drop9", "Dropout", below, below),
        row("conv_final", "Convolution", below, num_output=1000, kernel=1, pad=1),
    ]
    rows.append(row("relu_final", "ReLU", "conv_final", "conv_final"))
    return [*rows, row("pool_final", "Pooling", "conv_final", pool="AVE", global_pooling=True)]


@functools.cache
def narrow_arrays():
    """Its weights as the file has them, OIHW; classes 0 and 7 to 10 win by their biases."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = caffe.kernel_shapes(table_of(pathlib.Path(folder) / "net.json", narrow_rows()))
    rng, arrays = np.random.default_rng(1), {}
    for name, (side, _, inputs, filters) in shapes.items():
        scale = np.sqrt(2 / (side * side * inputs))
        arrays[f"{name}/w"] = rng.normal(scale / 4, scale, (filters, inputs, side, side)).astype(np.float32)
        arrays[f"{name}/b"] = rng.normal(0, 0.1, filters).astype(np.float32)
    arrays["conv_final/b"][[0, 7, 8, 9, 10]] += np.float32([2e5, 1e5, 1e5, 1e5, 1e5])
    return arrays


def write_net(folder, arrays=None, rows=None):
    folder.mkdir(exist_ok=True)
    (folder / "architecture.json").write_text(json.dumps(narrow_rows() if rows is None else rows))
    np.savez(folder / "squeezenet_v1.0.npz", **(narrow_arrays() if arrays is None else arrays))
    return folder


@pytest.fixture
def real():
    if not REAL.exists():
        pytest.skip(f"the weights of SqueezeNet are not here: no shared/models/{REAL.name} beside the checkout")
    return REAL


def by_torch(folder, images):
    """{map: array} of the table in `folder` for RGB images, computed by PyTorch from the files."""
    torch = pytest.importorskip("torch", reason="the twin is PyTorch's")
    functional = torch.nn.functional
    maps = {"data": torch.tensor(images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float64))}
    operations = {
        "Convolution": lambda r, x: functional.conv2d(x[0], *weights(r["name"]), stride=r["stride"], padding=r["pad"]),
        "ReLU": lambda r, x: functional.relu(x[0]),
        "Concat": lambda r, x: torch.cat(x, dim=1),
        "Dropout": lambda r, x: x[0],
        "Pooling": lambda r, x: (
            x[0].mean(dim=(2, 3))
            if r["global_pooling"]
            else functional.max_pool2d(x[0], r["kernel"], r["stride"], ceil_mode=True)
        ),
    }
    with np.load(folder / "squeezenet_v1.0.npz") as file:
        weights = functools.cache(lambda name: [torch.tensor(file[f"{name}/{part}"]).double() for part in "wb"])
        for r in json.loads((folder / "architecture.json").read_text()):
            maps[r["top"][0]] = operations[r["type"]](r, [maps[name] for name in r["bottom"]])
    return {name: np.moveaxis(m.numpy(), 1, 3) if m.ndim == 4 else m.numpy() for name, m in maps.items()}


def compare_with_torch(folder, images):
    net, theirs = pretrained.squeezenet(folder), by_torch(folder, images)
    rows = pretrained.parity(net.fn, images, {layer: theirs[name] for layer, name in net.maps})
    assert len(rows) == 12
    for found in rows:
        assert found.relative < 1e-5 and found.largest > 0, pretrained.parity_lines(rows)


def test_every_layer_is_pytorchs(tmp_path):
    compare_with_torch(write_net(tmp_path), RNG.normal(0, 60, (2, 227, 227, 3)).astype(np.float32))


def test_every_layer_of_the_real_net_is_pytorchs(real):
    compare_with_torch(real, RNG.normal(0, 60, (1, 227, 227, 3)).astype(np.float32))


def test_images_are_rgb_and_caffe_reads_bgr(tmp_path):
    net = pretrained.squeezenet(write_net(tmp_path))
    images = RNG.normal(0, 60, (1, 227, 227, 3)).astype(np.float32)
    found = features.in_batches(net.layers_of(["conv1", "conv10", "logits"]), images)
    kernel, bias = narrow_arrays()["conv1/w"], narrow_arrays()["conv1/b"]
    expected = np.einsum("oihw,hwi->o", kernel, images[0, 20:27, 8:15, ::-1].astype(np.float64)) + bias
    np.testing.assert_allclose(found["conv1"][0, 10, 4], np.maximum(expected, 0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found["logits"][0], np.mean(found["conv10"], axis=(0, 1, 2)), rtol=1e-4)
    assert (net.class_names[0], net.class_names[999]) == ("n01440764", "n15075141")


def test_pictures_become_images_by_caffes_preprocessing(tmp_path):
    net = pretrained.squeezenet(write_net(tmp_path))
    small = RNG.integers(0, 256, (2, 40, 40, 3), np.uint8)
    for picture, image in zip(small, net.preprocess(small), strict=True):
        by_hand = np.asarray(Image.fromarray(picture).resize((256, 256), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image, by_hand[14:241, 14:241] - np.float32([123, 117, 104]))
    stored = RNG.integers(0, 256, (1, 256, 256, 3), np.uint8)
    np.testing.assert_array_equal(net.preprocess(stored)[0, 0, 0], stored[0, 14, 14] - np.float32([123, 117, 104]))
    for bad in (small[0], small[:, :30], small.astype(np.float32)):
        with pytest.raises(ValueError, match=r"pictures of .*: uint8 \[B, S, S, 3\] is needed"):
            net.preprocess(bad)


def test_wrong_calls_are_errors_that_say_so(tmp_path):
    net = pretrained.squeezenet(write_net(tmp_path))
    assert net.receptive_field("fire2") == (19, 4, -4)
    with pytest.raises(ValueError, match="layer 'logits' stands above a global pool and sees the whole image"):
        net.receptive_field("logits")
    for layers in (["fire10"], []):
        with pytest.raises(ValueError, match=r"layers=.*: at least one of conv1, pool1, fire2, .*logits is needed"):
            net.layers_of(layers)
    for bad in (np.zeros((1, 224, 224, 3), np.float32), np.zeros((1, 227, 227, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"images of .*: floating point \[B, 227, 227, 3\], pixels minus"):
            net.fn(bad)


def test_another_net_or_a_cut_file_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="architecture.json is not SqueezeNet v1.0: no row makes conv_final, fire9/con"
    ):
        pretrained.squeezenet(write_net(tmp_path, rows=narrow_rows()[:-12]))
    other = narrow_arrays() | {"conv1/w": np.zeros((6, 3, 3, 3), np.float32)}
    with pytest.raises(ValueError, match=r"wrong: conv1/w of shape \(6, 3, 3, 3\), expected \(6, 3, 7, 7\)"):
        pretrained.squeezenet(write_net(tmp_path, other))
    file = write_net(tmp_path) / "squeezenet_v1.0.npz"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match="squeezenet_v1.0.npz is not a whole .npz"):
        pretrained.squeezenet(tmp_path)
    with pytest.raises(FileNotFoundError, match="architecture.json"):
        pretrained.squeezenet(tmp_path / "nowhere")


def test_the_real_net_knows_imagenet(real):
    """57.6 % and 80.6 % on all 500 photos (`squeezenet_accuracy`); here on 20 of them, two of each class."""
    if not PHOTOS.exists():
        pytest.skip("ImageNet's photos are not here: no shared/data/ilsvrc2012-mini beside the checkout")
    listed = sorted(archives.find_splits(PHOTOS)["validation"](), key=lambda photo: (photo.folder, photo.name))[::25]
    net = pretrained.squeezenet(real)
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(photo.read())).convert("RGB")) for photo in listed])
    logits = features.in_batches(net.layers_of(["logits"]), net.preprocess(pictures), batch_size=20)["logits"]
    best = np.argsort(-logits, axis=1)[:, :5]
    labels = np.array([[net.class_names.index(photo.folder)] for photo in listed])
    assert ((best[:, :1] == labels).sum(), (best == labels).sum()) == (10, 12)


# The command ----------------------------------------------------------------------------------------------------------


def measure(monkeypatch, capsys, net, data, out, *more):
    flags = ("--weights", net, "--data", data, "--out", out, *more)
    monkeypatch.setattr(sys, "argv", ["squeezenet_accuracy", *map(str, flags)])
    squeezenet_accuracy.main()
    return capsys.readouterr().out, json.loads((out / "result.json").read_text())


def test_accuracy_counts_official_photos_and_prepared_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(squeezenet_accuracy, "BATCH", 3)  # five photos: the last batch is filled up
    net, source = write_net(tmp_path / "net"), photos.write_tars(tmp_path / "source")
    shares = {
        synset: np.mean([photos.VALIDATION[n - 1] == synset for n in photos.NUMBERS]) for synset in photos.SYNSETS
    }
    assert 0 < shares["n01440764"] < 1  # class 0, which the biases put first; class 1 is not among the five
    photos.prepare(source, tmp_path / "set")
    for data in (source, tmp_path / "set"):
        printed, result = measure(monkeypatch, capsys, net, data, tmp_path / data.name / "out")
        assert result["accuracy"] == {"top1": shares["n01440764"], "top5": shares["n01440764"]}
        assert result["num_images"] == 5 and f"top1 accuracy {shares['n01440764']:.1%}" in printed
    with pytest.raises(SystemExit, match="it already holds a result; give another folder, or --overwrite"):
        measure(monkeypatch, capsys, net, source, tmp_path / "set" / "out")


def test_classes_of_others_are_refused(tmp_path, monkeypatch, capsys):
    net, source = write_net(tmp_path / "net"), tmp_path / "source"
    (source / "val" / "creature").mkdir(parents=True)
    (source / "val" / "creature" / "a.jpg").write_bytes(photos.photo(0))
    with pytest.raises(SystemExit, match="'creature' is not one of ImageNet's 1000 synsets"):
        measure(monkeypatch, capsys, net, source, tmp_path / "out")
    photos.prepare(source, tmp_path / "set")
    with pytest.raises(SystemExit, match="its classes are not all among ImageNet's 1000"):
        measure(monkeypatch, capsys, net, tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_implementations_outputs_are_compared_first(tmp_path, monkeypatch, capsys):
    folder = write_net(tmp_path / "net")
    source, net = photos.write_tars(tmp_path / "source"), pretrained.squeezenet(folder)
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
