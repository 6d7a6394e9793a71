"""SqueezeNet is SqueezeNet: layer by layer as PyTorch computes it, with the accuracy that it is known for.

Its weights and the ImageNet photos lie beside the checkout where there are any; without them a narrow net of the same
layers stands in, and the tests of the real one are skipped.
"""

import functools
import io
import json
import pathlib
import tempfile

import numpy as np
import pytest
from PIL import Image
from test_caffe import row, table_of

from zfjax import features, pretrained
from zfjax.data import archives
from zfjax.pretrained import caffe

RNG = np.random.default_rng(0)
SHARED = pathlib.Path(__file__).parents[3] / "shared"
REAL, PHOTOS = SHARED / "models" / "squeezenet_v1.0", SHARED / "data" / "ilsvrc2012-mini"


def fire(n, bottom, squeezed, expanded):
    name = f"fire{n}"
    rows = [row(f"{name}/conv1x1_1", "Convolution", bottom, num_output=squeezed, kernel=1)]
    for branch, (kernel, pad) in {"conv1x1_2": (1, 0), "conv3x3_2": (3, 1)}.items():
        fields = {"num_output": expanded, "kernel": kernel, "pad": pad}
        rows.append(row(f"{name}/{branch}", "Convolution", rows[0]["name"], **fields))
    rows = [made for r in rows for made in (r, row(r["name"].replace("/", "/relu_"), "ReLU", r["name"], r["name"]))]
    return [*rows, row(f"{name}/concat", "Concat", [f"{name}/conv1x1_2", f"{name}/conv3x3_2"])]


def narrow_rows():
    """SqueezeNet v1.0 with 2 to 6 maps in a layer, all 1000 classes."""
    window = {"pool": "MAX", "kernel": 3, "stride": 2}
    rows = [row("conv1", "Convolution", "data", num_output=6, kernel=7, stride=2)]
    rows.append(row("relu_conv1", "ReLU", "conv1", "conv1"))
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
    rows.append(row("relu_conv_final", "ReLU", "conv_final", "conv_final"))
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


def changed(name, **fields):
    return [r | fields if r["name"] == name else r for r in narrow_rows()]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([r for r in narrow_rows() if r["type"] != "ReLU"], "row 1, 'pool1', has name='pool1', where 'relu_conv1' is"),
        (changed("conv1", stride=1), "row 0, 'conv1', has stride=1, where 2 is"),
        (changed("fire2/conv3x3_2", kernel=1, pad=0), "row 7, 'fire2/conv3x3_2', has kernel=1, where 3 is"),
        (changed("pool4", kernel=2), "row 24, 'pool4', has kernel=2, where 3 is"),
        (
            changed("fire3/concat", bottom=["fire3/conv3x3_2", "fire3/conv1x1_2"]),
            r"row 16, 'fire3/concat', has bottom=\('fire3/conv3x3_2', 'fire3/conv1x1_2'\), where .* is",
        ),
        (changed("relu_conv_final", type="Dropout"), "row 63, 'relu_conv_final', has type='Dropout', where 'ReLU' is"),
        (changed("conv_final", num_output=10), "row 62, 'conv_final', has num_output=10, where 1000 is"),
        (narrow_rows()[:-1], "it has 64 rows, where 65 are"),
        ([*narrow_rows(), row("prob", "Softmax", "pool_final")], "it has 66 rows, where 65 are"),
    ],
)
def test_the_first_row_that_is_another_nets_is_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=f"architecture.json is not SqueezeNet v1.0: {message} expected"):
        pretrained.squeezenet(write_net(tmp_path, rows=rows))


def test_other_weights_or_a_cut_file_are_refused(tmp_path):
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
