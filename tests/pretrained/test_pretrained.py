"""Files of weights are read without executing anything; what does not fit is an error; parity is measured."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import zfjax
from zfjax import pretrained
from zfjax.extras import MissingExtraError
from zfjax.pretrained import weights

ARRAYS = {"a": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float16), "steps": np.int64(7)}
SHAPES = {"a": (2, 3), "b": (3,)}


class Bomb:
    """Pickled, it writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(path, arrays=None, **named):
    np.savez(path, **(ARRAYS if arrays is None else arrays), **named)
    return path


def test_npz_gives_its_arrays_as_float32(tmp_path):
    path = saved(tmp_path / "w.npz")
    found = weights.take(path, weights.read_arrays(path), SHAPES)
    assert list(found) == ["a", "b"] and {array.dtype for array in found.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": ARRAYS["a"]}, "missing: b$"),
        (ARRAYS | {"a": np.ones((3, 2), "f4")}, r"wrong: a of shape \(3, 2\), expected \(2, 3\)"),
        (ARRAYS | {"b": np.zeros(3, int)}, "wrong: b of type int64, expected floating point"),
        (ARRAYS | {"b": np.array([0, np.nan, 0])}, "wrong: b with values that are not finite"),
        (ARRAYS | {"bn.running_mean": np.ones(4)}, r"left over: bn.running_mean \(4,\)"),
        ({f"x{n}": np.ones(1) for n in range(8)}, r"missing: a, b; left over: x0 \(1,\).* and 2 more"),
    ],
)
def test_other_weights_than_expected_are_named(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=f"w.npz does not hold the weights that are expected. .*{message}"):
        weights.take(tmp_path / "w.npz", weights.read_arrays(saved(tmp_path / "w.npz", arrays)), SHAPES)


def test_ignored_arrays_may_stand_there():
    assert list(weights.take("w", ARRAYS | {"mean": np.ones(3)}, SHAPES, ignored=["mean"])) == ["a", "b"]


def test_files_that_are_none_are_errors_that_say_so(tmp_path):
    whole = saved(tmp_path / "whole.npz").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut.npz is not a whole .npz of plain arrays \("):
            weights.read_arrays(tmp_path / "cut.npz")
    flipped = bytearray(whole)
    flipped[whole.index(np.ones(6, "f4").tobytes())] ^= 1
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(ValueError, match="flipped.npz is not a whole .npz of plain arrays .*CRC"):
        weights.read_arrays(tmp_path / "flipped.npz")
    with pytest.raises(ValueError, match="empty.npz: it holds no array"):
        weights.read_arrays(saved(tmp_path / "empty.npz", {}))
    with pytest.raises(FileNotFoundError, match="nowhere.npz: no such file"):
        weights.read_arrays(tmp_path / "nowhere.npz")


def test_code_in_an_npz_is_refused_and_not_executed(tmp_path):
    path = saved(tmp_path / "w.npz", {"a": np.array([Bomb(tmp_path / "executed")], object)})
    plain = tmp_path / "plain.npz"
    plain.write_bytes(pickle.dumps({"a": Bomb(tmp_path / "executed")}))
    for file in (path, plain):
        with pytest.raises(ValueError, match="is not a whole .npz of plain arrays"):
            weights.read_arrays(file)
    assert not (tmp_path / "executed").exists()
    pickle.loads(plain.read_bytes())
    assert (tmp_path / "executed").exists()  # so the bomb works


def test_code_in_a_state_dict_is_refused_and_not_executed(tmp_path):
    torch = pytest.importorskip("torch", reason="state dicts are PyTorch's")
    torch.save({"a": torch.ones(2), "b": Bomb(tmp_path / "executed")}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="w.pt is not a whole state dict of PyTorch, tensors by name and nothing to"):
        weights.read_arrays(tmp_path / "w.pt")
    assert not (tmp_path / "executed").exists()


def test_state_dicts_of_pytorch_are_read_plain_or_inside_a_checkpoint(tmp_path):
    torch = pytest.importorskip("torch", reason="state dicts are PyTorch's")
    tensors = {"a": torch.full((2, 3), 0.5, dtype=torch.bfloat16, requires_grad=True), "n": torch.tensor(3)}
    for name, content in (("plain.pth", tensors), ("inside.pt", {"state_dict": tensors, "epoch": 3})):
        torch.save(content, tmp_path / name)
        found = weights.read_arrays(tmp_path / name)
        np.testing.assert_array_equal(found["a"], np.full((2, 3), 0.5, np.float32))
        assert found["n"] == 3
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="it holds a list, not one tensor for each name"):
        weights.read_arrays(tmp_path / "list.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "plain.pth").read_bytes()[:-40])
    with pytest.raises(ValueError, match="cut.pt is not a whole state dict"):
        weights.read_arrays(tmp_path / "cut.pt")


def test_onnx_initializers_are_read_from_the_file_and_beside_it(tmp_path):
    onnx = pytest.importorskip("onnx", reason="ONNX files need the extra zfjax[onnx]")
    tensors = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in ARRAYS.items()]
    graph = onnx.helper.make_graph([], "net", [], [], initializer=tensors)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "w.onnx")
    found = weights.take("w.onnx", weights.read_arrays(tmp_path / "w.onnx"), SHAPES)
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])
    model = onnx.helper.make_model(graph)
    external = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
    onnx.save(model, tmp_path / "outside.onnx", **external)
    found = weights.read_arrays(tmp_path / "outside.onnx")
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])
    (tmp_path / "w.data").unlink()
    with pytest.raises(
        ValueError, match="outside.onnx is not a whole ONNX model .*lie in a file beside it, which cannot"
    ):
        weights.read_arrays(tmp_path / "outside.onnx")
    (tmp_path / "other.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="other.onnx is not a whole ONNX model"):
        weights.read_arrays(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("name", "head", "package", "extra"),
    [("w.onnx", b"\x08\x0a", "onnx", "onnx"), ("w.weights.h5", b"\x89HDF\r\n\x1a\n", "h5py", "h5")],
)
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, name, head, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(head)
    with pytest.raises(
        MissingExtraError, match=rf"{name}: {package} is not installed: `pip install .zfjax\[{extra}\]'"
    ):
        weights.read_arrays(tmp_path / name)


def test_parity_is_the_largest_difference_of_each_layer():
    images = np.arange(6, dtype=np.float32).reshape(2, 1, 1, 3)
    theirs = {"half": images / 2 + np.float32([0, 0, 0.25]), "sum": images.sum(axis=(1, 2, 3))[:, None]}
    rows = pretrained.parity(lambda x: {"sum": x.sum((1, 2, 3))[:, None], "half": x / 2}, images, theirs)
    assert rows == [("half", 0.25, 2.75), ("sum", 0, 12)] and rows[0].relative == 0.25 / 2.75
    *lines, last = pretrained.parity_lines(rows)[1:]
    assert [line.split() for line in lines] == [["half", "0.25", "2.75", "9.1e-02"], ["sum", "0", "12", "0.0e+00"]]
    assert last == "mean, std, channel order: not checked, the outputs hold no 'pictures' to start from"
    pretrained.check_parity(rows[1:])
    with pytest.raises(ValueError, match=r"not the exporter's: half differ by more than 0.001 of [^$]*\nsum "):
        pretrained.check_parity(rows)
    for bad in (("conv1", np.nan, 1.0), ("conv1", 1e-9, 0.0)):
        with pytest.raises(ValueError, match="not the exporter's: conv1 differ"):
            pretrained.check_parity([pretrained.ParityRow(*bad)])
    pretrained.check_parity([pretrained.ParityRow("silent", 0.0, 0.0)])


def test_parity_names_layers_that_do_not_match():
    images = np.zeros((2, 1, 1, 3), np.float32)
    with pytest.raises(ValueError, match="outputs of layer 'conv9': the network has x"):
        pretrained.parity(lambda x: {"x": x}, images, {"conv9": images})
    with pytest.raises(ValueError, match=r"outputs of layer 'x' have shape \(2, 3\), ours \(2, 1, 1, 3\)"):
        pretrained.parity(lambda x: {"x": x}, images, {"x": images[:, 0, 0]})


def test_exporter_arrays_come_channels_last(tmp_path):
    inputs, maps = np.zeros((2, 3, 8, 8)), np.arange(120.0).reshape(2, 3, 4, 5)
    found = pretrained.read_exporter_run(
        saved(tmp_path / "w.npz", {"inputs": inputs, "conv1": maps, "fc": maps[:, 0, 0]})
    )
    np.testing.assert_array_equal(found.outputs["conv1"], np.einsum("bchw->bhwc", maps))
    np.testing.assert_array_equal(found.outputs["fc"], maps[:, 0, 0])
    assert found.pictures is None
    wide = np.zeros((2, 9, 12, 3), np.uint8)
    with_pictures = saved(tmp_path / "w.npz", {"inputs": inputs, "conv1": maps, "pictures": wide})
    assert pretrained.read_exporter_run(with_pictures).pictures.shape == (2, 9, 12, 3)
    for pictures in (inputs, np.zeros((1, 9, 9, 3), "u1"), np.zeros((2, 9, 8, 4), "u1"), np.zeros((2, 9), "u1")):
        arrays = {"inputs": inputs, "conv1": maps, "pictures": pictures}
        with pytest.raises(ValueError, match=r"'pictures' of \w+ \(.*\): uint8 \[2, H, W, 3\] is needed"):
            pretrained.read_exporter_run(saved(tmp_path / "w.npz", arrays))
    for arrays in ({"conv1": maps}, {"inputs": inputs}, {"inputs": maps[0], "conv1": maps}):
        with pytest.raises(ValueError, match=r"'inputs' of \[B, C, H, W\] and one array for each layer to compare"):
            pretrained.read_exporter_run(saved(tmp_path / "w.npz", arrays))
    with pytest.raises(ValueError, match=r"'conv1' of shape \(1, 3, 4, 5\): \[2, C, H, W\] or \[2, C\] is needed"):
        pretrained.read_exporter_run(saved(tmp_path / "w.npz", {"inputs": inputs, "conv1": maps[:1]}))


def test_a_network_of_images_that_are_no_squares_is_read_as_its_exporter_flattened_it(tmp_path):
    """Its dense layer reads rows x columns of each map in turn."""
    layers = (zfjax.Conv("conv1", 4, kernel=3, stride=2), zfjax.Dense("fc2", 2, hidden=False))
    table = pretrained.ImportTable(
        zfjax.Architecture("wide", layers, image_size=(9, 13)), pretrained.by_prefix(conv1="a", fc2="b")
    )
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (4, 3, 3, 3), "a.bias": (4,), "b.weight": (2, 4 * 4 * 6), "b.bias": (2,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    net = pretrained.from_file(saved(tmp_path / "w.npz", arrays), table)
    images = np.asarray(net.preprocess(rng.integers(0, 256, (2, 11, 15, 3), np.uint8)))
    logits, trace = zfjax.forward(net.params, images, architecture=net.architecture)
    maps = np.asarray(trace["conv1"].features)
    assert images.shape[1:] == (9, 13, 3) and maps.shape == (2, 4, 6, 4) and net.image_size == (9, 13)
    theirs = maps.transpose(0, 3, 1, 2).reshape(2, -1) @ arrays["b.weight"].T + arrays["b.bias"]
    np.testing.assert_allclose(logits, theirs, rtol=1e-4, atol=1e-3)


def test_the_floor_rule_is_looked_at_along_both_sides():
    layers = (zfjax.Conv("conv1", 4, kernel=1, after=(zfjax.Pool(),)), zfjax.Dense("fc2", 2, hidden=False))
    names = pretrained.by_prefix(conv1="a", fc2="b")
    pretrained.ImportTable(zfjax.Architecture("even", layers, image_size=(7, 9)), names, pools="floor")
    with pytest.raises(zfjax.UserError, match="'conv1' pools its map of 8 to 3, the ceil rule to 4"):
        pretrained.ImportTable(zfjax.Architecture("odd", layers, image_size=(7, 8)), names, pools="floor")
