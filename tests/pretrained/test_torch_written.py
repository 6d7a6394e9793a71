"""Files that PyTorch itself writes are read to the bit, without it."""

import argparse
import pathlib

import numpy as np
import pytest

from zfjax import pretrained

torch = pytest.importorskip("torch", reason="the files are PyTorch's")
OLD = {"_use_new_zipfile_serialization": False}


def network():
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    net[1].running_mean.normal_()
    return net


NET = network()
EXPECTED = {name: tensor.numpy() for name, tensor in NET.state_dict().items()}


def assert_read(path, expected=EXPECTED, **settings):
    found = pretrained.read_weights(path, **settings)
    assert sorted(found.arrays) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(found.arrays[name], np.float64), array)
    return found.notes


@pytest.mark.parametrize("settings", [{}, OLD])
def test_checkpoints_and_whole_networks(tmp_path, settings):
    optimizer = torch.optim.Adam(NET.parameters())
    extras = {"epoch": 3, "best_acc1": torch.tensor(3.0), "optimizer": optimizer.state_dict(), "score": np.float64(2)}
    extras |= {"args": argparse.Namespace(lr=1, out=pathlib.Path("runs")), "counts": np.arange(3), "seen": {1, 2}}
    torch.save({"state_dict": NET.state_dict(), **extras}, tmp_path / "c.pth.tar", **settings)
    assert assert_read(tmp_path / "c.pth.tar")[0].startswith("'state_dict' was taken; left out: epoch, best_acc1")
    torch.save(NET, tmp_path / "whole.pt", **settings)
    assert assert_read(tmp_path / "whole.pt")[0].startswith(
        "it is a whole pickled torch.nn.modules.container.Sequential"
    )
    torch.save(optimizer.state_dict(), tmp_path / "o.pt", **settings)
    with pytest.raises(ValueError, match="an optimizer's state, and no network's weights"):
        pretrained.read_weights(tmp_path / "o.pt")


@pytest.mark.parametrize("settings", [{}, OLD])
def test_types_views_and_shared_storages(tmp_path, settings):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {"turned": base.t(), "part": base[1:3, ::2], "all": base, "half": base.half(), "b": base.bfloat16()[1:]}
    tensors |= {"int": torch.arange(3), "bool": torch.tensor([True, False]), "empty": torch.zeros(0, 3)}
    tensors |= {"wide": torch.ones(1).expand(3), "double": base.double(), "scalar": torch.tensor(2.5)}
    tensors |= {"parameter": torch.nn.Parameter(base[:, 1])}
    if not settings:
        tensors["float8"] = base.to(torch.float8_e4m3fn)
    torch.save(tensors, tmp_path / "v.pt", **settings)
    assert_read(tmp_path / "v.pt", {name: tensor.detach().double().numpy() for name, tensor in tensors.items()})


@pytest.mark.filterwarnings("ignore")
def test_torchscript_gives_its_weights_and_says_where_it_has_none(tmp_path):
    for name, script in (("s.pt", torch.jit.script(NET)), ("t.pt", torch.jit.trace(NET, torch.ones(1, 3, 8, 8)))):
        script.save(tmp_path / name)
        assert assert_read(tmp_path / name)[0].startswith("TorchScript: its weights alone are taken")
    torch.jit.freeze(torch.jit.script(NET)).save(tmp_path / "frozen.pt")
    torch.jit.script(torch.nn.ReLU()).save(tmp_path / "none.pt")
    for name, words in (("frozen.pt", "has been frozen"), ("none.pt", "holds no weights")):
        with pytest.raises(ValueError, match=f"{name} is not .*it is TorchScript that {words}"):
            pretrained.read_weights(tmp_path / name)


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights_are_refused_by_kind(tmp_path):
    base = torch.ones(2, 2)
    quantized = torch.quantize_per_tensor(base, 0.1, 0, torch.qint8)
    for tensor, words in ((quantized, "quantized"), (base.to_sparse(), "sparse"), (base.to("meta"), "meta device")):
        torch.save({"a": tensor}, tmp_path / "w.pt")
        with pytest.raises(ValueError, match=rf"w.pt is not .*\(a .*{words}"):
            pretrained.read_weights(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", [{"dynamo": True}, {"dynamo": True, "external_data": False}, {"dynamo": False}])
def test_onnx_gives_dense_layers_by_their_modules_however_they_are_stored(tmp_path, settings):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    nn = torch.nn
    net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    quiet = {"verbose": False} if settings["dynamo"] else {}
    torch.onnx.export(net, (torch.ones(1, 7, 6),), str(tmp_path / "n.onnx"), **settings, **quiet)
    assert_read(tmp_path / "n.onnx", {name: tensor.numpy() for name, tensor in net.state_dict().items()})
