"""An imported network computes what its exporter's does, from the pictures on; another mean, std or order is seen."""

import dataclasses
import functools

import numpy as np
import pytest
from test_import_network import ARCHITECTURE, TABLE, arrays_of, file_of

import zfjax
from zfjax import features, pretrained
from zfjax.pretrained import importing

PICTURES = np.random.default_rng(2).integers(0, 256, (2, 40, 40, 3), np.uint8)


def torch_twin(table):
    """PyTorch's network: inputs [B, C, H, W] -> {layer: features}; its parameters as the table calls them."""
    torch = pytest.importorskip("torch", reason="the twin is PyTorch's")
    nn, functional = torch.nn, torch.nn.functional

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            for name, array in arrays_of(table).items():
                *folders, last = name.split(".")
                place = self
                for folder in folders:
                    if folder not in place._modules:
                        place.add_module(folder, nn.Module())
                    place = place._modules[folder]
                place.register_parameter(last, nn.Parameter(torch.tensor(array)))

        def forward(self, maps):
            tensors, outputs = dict(self.named_parameters()), {}
            for names, layer in zip(table.names, table.architecture.layers, strict=True):
                weights = tensors[names.kernel], tensors[names.bias]
                if isinstance(layer, zfjax.Dense):
                    maps = functional.linear(maps.flatten(1), *weights)
                    maps = functional.relu(maps) if layer.hidden else maps
                else:
                    fields = {"stride": layer.stride, "padding": layer.padding[0], "groups": layer.groups}
                    maps = functional.relu(functional.conv2d(maps, *weights, **fields))
                    for stage in layer.after:
                        if stage == zfjax.Pool():
                            maps = functional.max_pool2d(maps, 3, 2, ceil_mode=table.pools == "ceil")
                        else:
                            maps = functional.local_response_norm(maps, 5, stage.alpha, stage.beta, stage.k)
                outputs[names.layer] = maps
            return outputs

    return Twin().eval()


def run_twin(twin, inputs):
    import torch

    return {name: maps.detach().numpy() for name, maps in twin(torch.tensor(inputs)).items()}


def narrow(table):
    return dataclasses.replace(table, architecture=table.architecture.scaled(1 / 32).with_sizes(fc8=9))


NETS = {"theirs": TABLE} | {name: narrow(table) for name, table in pretrained.TABLES.items()}


def exported(twin, path, inputs):
    """The twin written by PyTorch itself; its own warnings are its own affair."""
    import torch

    if path.suffix == ".onnx":
        torch.onnx.export(twin, (torch.tensor(inputs),), path, dynamo=True, external_data=False, verbose=False)
    else:
        torch.save(twin.state_dict(), path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "ending"), [(name, ".npz") for name in NETS] + [("zfnet", ".pt"), ("zfnet", ".onnx"), ("theirs", ".onnx")]
)
def test_every_layer_agrees_with_pytorch(tmp_path, name, ending):
    for package in ("onnx", "onnxscript") if ending == ".onnx" else ():
        pytest.importorskip(package, reason="PyTorch exports ONNX with onnx and onnxscript")
    table, side = NETS[name], NETS[name].architecture.image_size
    twin, inputs = torch_twin(table), np.random.default_rng(1).normal(0, 1, (2, 3, side, side)).astype(np.float32)
    path = file_of(tmp_path, table) if ending == ".npz" else exported(twin, tmp_path / f"net{ending}", inputs)
    np.savez(tmp_path / "outputs.npz", inputs=inputs, **run_twin(twin, inputs))
    rows = importing.compared(pretrained.from_file(path, table), tmp_path / "outputs.npz", table)
    assert [row.layer for row in rows] == list(table.architecture.layer_names)
    for row in rows:
        assert row.relative < 1e-5 and row.largest > 0, pretrained.parity_lines(rows)


def test_constants_of_the_norm_may_stand_in_the_file_and_no_other_scalars(tmp_path):
    constants = {f"val_{n}": np.float32(value) for n, value in enumerate((0.6, 1.5, 0.75))}
    pretrained.from_file(file_of(tmp_path, TABLE, **constants), TABLE)
    for value in (0.7, 255):
        with pytest.raises(ValueError, match=r"left over: val_1 \(\)$"):
            pretrained.from_file(file_of(tmp_path, TABLE, **constants | {"val_1": np.float32(value)}), TABLE)


@functools.cache
def by_hand():
    """What the exporter reads, [B, C, H, W]: the centre of PICTURES, normalised, BGR."""
    normalised = (PICTURES[:, 3:37, 3:37] - np.float32(TABLE.mean)) / np.float32(TABLE.std)
    return normalised[..., ::-1].transpose(0, 3, 1, 2)


def write_outputs(folder, weights, **pictures):
    """The exporter's .npz, by the right table."""
    net = pretrained.from_file(weights, TABLE)
    fn = features.layers_of(net.params, ["fc6", "fc7"], architecture=net.architecture)
    outputs = features.in_batches(fn, pretrained.as_images(by_hand(), TABLE))
    np.savez(folder / "outputs.npz", inputs=by_hand(), **outputs, **pictures)
    return folder / "outputs.npz"


@pytest.mark.parametrize("wrong", [{"channels": "RGB"}, {"std": (1.0, 2.0, 3.0)}, {"mean": (0.0, 0.0, 0.0)}])
def test_pictures_show_a_wrong_mean_std_or_channel_order(tmp_path, wrong):
    weights, table = file_of(tmp_path, TABLE), dataclasses.replace(TABLE, **wrong)
    compared = functools.partial(importing.compared, pretrained.from_file(weights, table), table=table)
    rows = compared(outputs=write_outputs(tmp_path, weights))
    pretrained.check_parity(rows)  # the inputs alone show nothing
    assert "mean, std, channel order: not checked" in pretrained.parity_lines(rows)[-1]
    rows = compared(outputs=write_outputs(tmp_path, weights, pictures=PICTURES))
    with pytest.raises(ValueError, match=r"exporter's: inputs, fc6, fc7 differ .*\(of the inputs: mean, std"):
        pretrained.check_parity(rows)


def test_pictures_agree_under_the_right_table(tmp_path):
    weights = file_of(tmp_path, TABLE)
    net, outputs = pretrained.from_file(weights, TABLE), write_outputs(tmp_path, weights, pictures=PICTURES)
    rows = importing.compared(net, outputs, TABLE)
    assert [row.layer for row in rows] == ["inputs", "fc6", "fc7"] and max(row.relative for row in rows) < 1e-5
    assert rows[0].largest == np.abs(PICTURES[:, 3:37, 3:37] - np.float32(TABLE.mean)).max()
    assert pretrained.parity_lines(rows)[-1].startswith("fc7 ")
    side = ARCHITECTURE.image_size
    with pytest.raises(ValueError, match=f"size={side}: a crop of the 30x30 pictures is needed"):
        net.preprocess(PICTURES[:, :30, :30])
