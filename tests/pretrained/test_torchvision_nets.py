"""torchvision's networks compute here what they compute there, and their deconvnets are those of hooks in PyTorch."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torchvision_arrays as drawn

import zfjax
from zfjax import nets, pretrained
from zfjax.pretrained import torchvision_nets

GOLDEN = pathlib.Path(__file__).parents[1] / "support" / "golden" / "torchvision.npz"
PARAMETERS = {  # as torchvision documents them
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
SIDES = {"alexnet": 67, "vgg": 40, "squeezenet": 39, "resnet": 40}  # pixels


def saved(folder, kind, **changed):
    path = folder / f"{kind}.npz"
    np.savez(path, **drawn.arrays_of(kind) | changed)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """fn(kind) -> the file of a network's weights, which is written once."""
    return functools.cache(functools.partial(saved, tmp_path_factory.mktemp("weights")))


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def test_tables_have_the_parameters_of_the_networks_that_they_name():
    def parameters(kind):
        names = drawn.shapes_of(kind, 1000)
        return sum(int(np.prod(shape)) for name, shape in names.items() if "running" not in name)

    assert {kind: parameters(kind) for kind in torchvision_nets.TORCHVISION} == PARAMETERS


@pytest.mark.parametrize("kind", list(drawn.SIDES))
def test_outputs_are_those_that_torchvision_computed(weights, tmp_path, kind):
    golden, side = np.load(GOLDEN), drawn.SIDES[kind]
    net = pretrained.torchvision(kind, weights(kind), image_size=side)
    layers = [
        name.partition("/")[2] for name in golden if name.startswith(f"{kind}/") and "." in name or name == f"{kind}/fc"
    ]
    np.savez(tmp_path / "o.npz", inputs=drawn.inputs_of(side), **{layer: golden[f"{kind}/{layer}"] for layer in layers})
    rows = net.parity(tmp_path / "o.npz")
    assert [row.layer for row in rows] == layers and len(rows) == 2
    assert all(row.relative < 1e-5 and row.largest > 0.1 for row in rows), pretrained.parity_lines(rows)


@pytest.mark.parametrize(("kind", "way"), [("resnet18", "deconvnet"), ("squeezenet1_1", "guided")])
def test_projections_are_those_of_hooks_in_pytorch(weights, kind, way):
    expected, side = np.load(GOLDEN)[f"{kind}/{way}"], drawn.SIDES[kind]
    net = pretrained.torchvision(kind, weights(kind), image_size=side).as_net()
    images = np.moveaxis(drawn.inputs_of(side, 1), 1, 3)
    picture = net.project(images, zfjax.Unit(channel=drawn.CHANNEL), layer=drawn.LAYERS[kind], way=way)[0]
    assert np.abs(expected).max() > 0.1 and relative(picture, expected) < 1e-5


def test_a_net_is_prepared_named_and_seen_as_torchvision_has_it(weights):
    net = pretrained.torchvision("resnet18", weights("resnet18"), class_names=list("abcdefghij"))
    assert isinstance(net.as_net(), nets.FunctionNet) and net.picture_size == 256
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert net.layers == net.as_net().layers == ("relu", "maxpool", *blocks, "avgpool", "fc")
    pictures = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    expected = (pictures[:, 16:240, 16:240] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(net.preprocess(pictures), expected, atol=1e-6)
    assert net.preprocess(pictures[:, :100, :100]).shape == (1, 224, 224, 3)
    assert net.as_net().shapes["layer2.1"] == (28, 28, 128) and net.as_net().class_names == tuple("abcdefghij")
    assert net.as_net().receptive_field("relu") == (7, 2, -3) and net.as_net().receptive_field("fc") is None
    assert net.as_net().receptive_field("layer1.0") == (27, 4, -13)  # 7 + 2 * 2 + 2 * 2 * 4


def test_a_receptive_field_holds_what_a_place_sees(weights):
    """The pixels that change one place of a layer are those of its field, as far as the image reaches."""
    net = pretrained.torchvision("squeezenet1_1", weights("squeezenet1_1"), image_size=67)
    field, fn = net.as_net().receptive_field("features.4"), jax.jit(net.layers_of(["features.4"]))
    images = np.repeat(drawn.inputs_of(67, 1).transpose(0, 2, 3, 1), 3, axis=0)
    start = 3 * field.stride + field.offset
    end = start + field.size
    images[1, :, : max(0, start)] += 5
    images[1, :, end:] += 5
    images[2, :, start:end] += 5
    maps = np.asarray(fn(jnp.asarray(images))["features.4"])[:, 3, 3]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5)
    assert np.abs(maps[0] - maps[2]).max() > 0.1


@pytest.mark.parametrize("side", [5, 6, 7, 13])
def test_the_average_pool_cuts_its_windows_as_pytorch_does(side):
    maps = np.random.default_rng(0).normal(size=(1, side, side + 1, 2)).astype(np.float32)
    found = torchvision_nets.AveragePool("a", 6).run({}, jnp.asarray(maps))
    assert found.shape == (1, 6, 6, 2)
    for row, column in ((0, 0), (2, 5), (5, 3)):
        rows = slice(row * side // 6, -(-(row + 1) * side // 6))
        columns = slice(column * (side + 1) // 6, -(-(column + 1) * (side + 1) // 6))
        np.testing.assert_allclose(found[0, row, column], maps[0, rows, columns].mean(axis=(0, 1)), rtol=1e-5)


def test_other_files_and_names_are_errors_that_say_so(weights):
    path = weights("squeezenet1_1")
    with pytest.raises(ValueError, match="kind='resnet19': one of alexnet, vgg11, .*resnet152 is needed"):
        pretrained.torchvision("resnet19", path)
    with pytest.raises(ValueError, match="squeezenet1_1.npz does not hold the weights .* missing: conv1.weight, bn1"):
        pretrained.torchvision("resnet18", path)
    with pytest.raises(ValueError, match="wrong: features.0.weight of shape .64, 3, 3, 3., expected .96, 3, 7, 7."):
        pretrained.torchvision("squeezenet1_0", path)
    with pytest.raises(ValueError, match="class_names of 2 classes: .* has 10"):
        pretrained.torchvision("squeezenet1_1", path, class_names=("cat", "dog"))
    net = pretrained.torchvision("squeezenet1_1", path, image_size=35)
    assert net.class_names == () and net.as_net().shapes["classifier.3"] == (10,)
    with pytest.raises(ValueError, match=r"images of float32 \(1, 35, 35\): floating point \[B, H, W, 3\], normalised"):
        net.fn(jnp.zeros((1, 35, 35)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(PARAMETERS))
def test_every_layer_of_every_network_agrees_with_torchvision(tmp_path, kind):
    models = pytest.importorskip("torchvision_models")
    side = next(side for name, side in SIDES.items() if kind.startswith(name))
    inputs = drawn.inputs_of(side)
    net = pretrained.torchvision(kind, saved(tmp_path, kind), image_size=side)
    outputs = models.outputs_of(models.twin(kind, drawn.arrays_of(kind)), net.layers, inputs)
    np.savez(tmp_path / "o.npz", inputs=inputs, **outputs)
    rows = net.parity(tmp_path / "o.npz")
    assert [row.layer for row in rows] == list(net.layers)
    assert max(row.relative for row in rows) < 1e-5, pretrained.parity_lines(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layer"), [("vgg11", "features.10"), ("resnet18", "layer4.1")])
@pytest.mark.parametrize("way", ["deconvnet", "guided"])
def test_deep_projections_agree_with_hooks(tmp_path, kind, layer, way):
    models = pytest.importorskip("torchvision_models")
    net = pretrained.torchvision(kind, saved(tmp_path, kind), image_size=40).as_net()
    inputs = drawn.inputs_of(40, 1)
    expected = models.projection(models.twin(kind, drawn.arrays_of(kind)), layer, 2, inputs, way=way)
    picture = net.project(np.moveaxis(inputs, 1, 3), zfjax.Unit(channel=2), layer=layer, way=way)[0]
    assert np.abs(expected).max() > 0 and relative(picture, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_files_of_a_fresh_network_leave_out_its_biases_of_zero(tmp_path):
    models = pytest.importorskip("torchvision_models")
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    arrays = {name: array * (array.ndim > 1) for name, array in drawn.arrays_of("squeezenet1_1").items()}
    twin, inputs = models.twin("squeezenet1_1", arrays), drawn.inputs_of(39)
    models.torch.onnx.export(twin, (models.torch.tensor(inputs),), str(tmp_path / "net.onnx"), verbose=False)
    net = pretrained.torchvision("squeezenet1_1", tmp_path / "net.onnx", image_size=39)
    assert net.notes[-1] == "26 biases that the exporter left out are 0"
    np.savez(tmp_path / "o.npz", inputs=inputs, **models.outputs_of(twin, net.layers, inputs))
    assert max(row.relative for row in net.parity(tmp_path / "o.npz")) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_files_with_folded_norms_give_the_same_network(tmp_path, dynamo):
    models = pytest.importorskip("torchvision_models")
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    twin, inputs = models.twin("resnet18", drawn.arrays_of("resnet18")), drawn.inputs_of(40)
    settings = {"dynamo": dynamo} | ({"verbose": False} if dynamo else {})
    models.torch.onnx.export(twin, (models.torch.tensor(inputs),), str(tmp_path / "net.onnx"), **settings)
    net = pretrained.torchvision("resnet18", tmp_path / "net.onnx", image_size=40)
    assert any("20 batch norms were folded" in note for note in net.notes)
    np.savez(tmp_path / "o.npz", inputs=inputs, **models.outputs_of(twin, net.layers, inputs))
    assert max(row.relative for row in net.parity(tmp_path / "o.npz")) < 1e-5
