"""Every layout of a file of weights gives the same arrays; damage and what is no file of weights is said, never run."""

import hashlib
import importlib.util
import io
import json
import random
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import weight_files as made
from flax import serialization

from zfjax import pretrained
from zfjax.errors import UserError
from zfjax.pretrained import weights

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.normal(size=(2, 3, 2, 2)).astype(np.float32),
    "conv.bias": RNG.normal(size=2).astype(np.float16),
    "head.weight": RNG.normal(size=(4, 2)).astype(jnp.bfloat16),
    "head.bias": RNG.normal(size=4),
    "steps": np.int64(7),
}
PLAIN = {name: array for name, array in ARRAYS.items() if name != "head.weight"}  # without bfloat16
SHAPES = {name: array.shape for name, array in ARRAYS.items() if name != "steps"}
STATE, OLD = made.state_dict(ARRAYS), made.state_dict(ARRAYS, is_old=True)
OPTIMIZER = {"state": {}, "param_groups": []}
WHOLE = made.New(made.Global("mine", "Net"), {"_parameters": STATE, "_buffers": {}, "_modules": {}})
NAMESPACE = made.New(made.Global("argparse", "Namespace"), {"lr": 0.1})
PATH = made.Reduce(made.Global("pathlib", "PosixPath"), ("runs",))
MODE = made.Reduce(made.Global("mine", "Mode"), ("train",))  # of an enumeration
GENERATOR = made.Build(made.Reduce(made.Global("numpy.random._pickle", "__generator_ctor"), ()), {"state": 1})
WORDS = made.Build(  # an array of objects
    made.Reduce(made.Global("numpy._core.multiarray", "_reconstruct"), (made.Global("numpy", "ndarray"), (0,), "b")),
    (1, (2,), made.Reduce(made.Global("numpy", "dtype"), ("O8", False, True)), False, ["cat", "dog"]),
)
needs_h5py = pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="Keras's files need the extra h5")

LAYOUTS = {  # ending -> (the file, its arrays, whether it holds checksums)
    "npz": (lambda: made.npz(PLAIN), PLAIN, True),
    "pth": (lambda: made.torch_zip(STATE, ARRAYS), ARRAYS, True),
    "old.pth": (lambda: made.torch_old(OLD, ARRAYS), ARRAYS, False),
    "script.pt": (lambda: made.torch_script(ARRAYS), ARRAYS, True),
    "safetensors": (lambda: made.safetensors(ARRAYS), ARRAYS, False),
    "msgpack": (lambda: serialization.msgpack_serialize(made.nested(ARRAYS)), ARRAYS, False),
    "weights.h5": (lambda: made.keras_h5(PLAIN), PLAIN, False),
    "keras": (lambda: made.keras_archive(PLAIN), PLAIN, True),
}
ENDINGS = [pytest.param(name, marks=needs_h5py if name[-2:] in ("h5", "as") else ()) for name in LAYOUTS]


def file_of(folder, name, data):
    (folder / name).write_bytes(data)
    return folder / name


def renamed(pattern):
    return {pattern.format(name): value for name, value in STATE.items()}


def dotted(arrays):
    return {name.replace("/", "."): array for name, array in arrays.items()}


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_layout_gives_the_arrays_as_they_were_saved(tmp_path, ending):
    data, arrays, is_checked = LAYOUTS[ending]
    found = pretrained.read_weights(file_of(tmp_path, f"net.{ending}", data()))
    assert_same(dotted(found.arrays), arrays)
    assert is_checked != any("no checksum" in note for note in found.notes)


@pytest.mark.parametrize("ending", ["pth", "old.pth", "safetensors", "npz", "msgpack"])
def test_the_content_says_what_a_file_is_and_not_its_ending(tmp_path, ending):
    data, arrays, _ = LAYOUTS[ending]
    for name in ("pytorch_model.bin", "checkpoint_100"):
        assert_same(dotted(pretrained.read_arrays(file_of(tmp_path, name, data()))), arrays)


def test_a_folder_of_orbax_is_read_as_itself_and_by_its_newest_step(tmp_path):
    import orbax.checkpoint as ocp

    params = {"params": made.nested(ARRAYS), "opt_state": {"mu": np.ones(3, np.float32)}}
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (3, 12):
            tree = params | {"scale": np.float32(step)}
            manager.save(step, args=ocp.args.StandardSave(tree))
    expected = {f"params.{name}": array for name, array in ARRAYS.items()}
    for path, notes in (
        (tmp_path / "run", ("'12' was taken", "'default' was taken")),
        (tmp_path / "run/12/default", ()),
    ):
        found = pretrained.read_weights(path)
        assert found.notes == (*notes, "left out: opt_state")
        assert_same(dotted(found.arrays), expected | {"scale": np.asarray(np.float32(12))})
    inner = pretrained.read_arrays(tmp_path / "run", key="params")
    assert_same(dotted(inner), ARRAYS)
    (tmp_path / "run/12/default/_METADATA").write_text("{")
    with pytest.raises(UserError, match="run is not a whole checkpoint of Orbax .default/_METADATA is damaged"):
        pretrained.read_weights(tmp_path / "run")


def test_what_training_keeps_is_left_out_of_a_state_within_a_checkpoint(tmp_path):
    state = {"params": made.nested(PLAIN), "opt_state": {"mu": np.ones(3)}, "step": np.int64(3)}
    tree = {"state": state, "net": {"step": np.ones(2)}, "rng": np.ones(2, np.uint32)}
    path = file_of(tmp_path, "w.msgpack", serialization.msgpack_serialize(tree))
    found = pretrained.read_weights(path)
    assert found.notes[0] == "left out: rng, state/opt_state, state/step"
    assert_same(
        dotted(found.arrays), {f"state.params.{name}": PLAIN[name] for name in PLAIN} | {"net.step": np.ones(2)}
    )
    assert_same(dotted(pretrained.read_arrays(path, key="state/params")), PLAIN)
    with pytest.raises(UserError, match="key='state/x': it holds opt_state, params, step"):
        pretrained.read_weights(path, key="state/x")


def test_one_item_of_several_of_orbax_is_asked_for(tmp_path):
    import orbax.checkpoint as ocp

    saved = {"ema": made.nested(ARRAYS), "state": {"params": made.nested(PLAIN)}}
    items = ocp.args.Composite(**{name: ocp.args.StandardSave(tree) for name, tree in saved.items()})
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "c", args=items)
    assert_same(dotted(pretrained.read_arrays(tmp_path / "c", key="ema")), ARRAYS)
    assert_same(dotted(pretrained.read_arrays(tmp_path / "c", key="state/params")), PLAIN)
    with pytest.raises(UserError, match="key=None: c holds ema, state; give one of these"):
        pretrained.read_weights(tmp_path / "c")


@needs_h5py
def test_shards_of_keras_are_put_together_by_their_groups(tmp_path):
    names = [name for name in PLAIN if name != "steps"]
    for n, inside in enumerate((names[:1], names[1:])):
        file_of(tmp_path, f"s{n}.weights.h5", made.keras_h5({name: PLAIN[name] for name in inside}))
    table = {"/conv": ["s0.weights.h5", "s1.weights.h5"], "/head": ["s1.weights.h5"]}
    index = file_of(tmp_path, "model.weights.json", json.dumps({"weight_map": table}).encode())
    assert_same(dotted(pretrained.read_arrays(index)), {name: PLAIN[name] for name in names})
    index.write_text(json.dumps({"weight_map": {"/head": ["s0.weights.h5"]}}))
    with pytest.raises(UserError, match="shard s0.weights.h5 does not hold /head"):
        pretrained.read_weights(index)


def test_shards_are_put_together_by_their_index(tmp_path):
    names = list(ARRAYS)
    parts = {"a-1.safetensors": names[:2], "a-2.bin": names[2:]}
    file_of(tmp_path, "a-1.safetensors", made.safetensors({name: ARRAYS[name] for name in parts["a-1.safetensors"]}))
    second = {name: ARRAYS[name] for name in parts["a-2.bin"]}
    file_of(tmp_path, "a-2.bin", made.torch_zip(made.state_dict(second), second))
    table = {name: file for file, inside in parts.items() for name in inside}
    index = file_of(tmp_path, "model.safetensors.index.json", json.dumps({"weight_map": table}).encode())
    found = pretrained.read_weights(index)
    assert_same(found.arrays, ARRAYS)
    assert found.notes[0] == "put together of 2 shards"
    for file, message in (
        ("a-3.bin", "1 of its 2 shards are not beside it: a-3.bin"),
        ("../a-2.bin", "the name of a file beside the index is needed"),
        ("a-1.safetensors", "shard a-1.safetensors does not hold head.weight, head.bias, steps"),
    ):
        wrong = table | dict.fromkeys(parts["a-2.bin"], file)
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(UserError, match=f"index.json is not a whole index of shards.*{message}"):
            pretrained.read_weights(index)


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (
            {"epoch": 3, "state_dict": STATE, "optimizer": OPTIMIZER},
            "'state_dict' was taken; left out: epoch, optimizer",
        ),
        ({"model": STATE}, "'model' was taken"),
        ({"ema": {}, "net": STATE, "best": STATE["steps"]}, "'net' was taken; left out: ema, best"),
        ({"model": {"state_dict": STATE}}, "'model' was taken|'state_dict' was taken"),
        ({"generator": STATE, "epoch": 3}, "'generator' was taken; left out: epoch"),
        (renamed("module.{}"), "'module.' was left out of names"),
        (renamed("_orig_mod.{}"), "'_orig_mod.' was left out of names"),
        ({"n_averaged": STATE["steps"], **renamed("module.{}")}, "'module.' was left out of names"),
        ({**STATE, "step": 3, "note": "mine"}, "left out, as no tensors: step, note"),
        ({"num_updates": STATE["steps"], "shadow": STATE}, "'shadow' was taken; left out: num_updates"),
        (
            {"run": {"model": STATE, "ema": STATE}},
            "'run' was taken|'model' was taken; left out: ema; key='run/ema' takes the other",
        ),
        (WHOLE, "it is a whole pickled mine.Net: its parameters and buffers alone are taken, its code is not run"),
        ({"state_dict": STATE, "args": NAMESPACE}, "'state_dict' was taken; left out: args"),
        ({"state_dict": STATE, "out": PATH}, "'state_dict' was taken; left out: out"),
        ({"state_dict": STATE, "mode": MODE, "rng": GENERATOR}, "'state_dict' was taken; left out: mode, rng"),
        ({**STATE, "names": WORDS}, "left out, as no tensors: names"),
    ],
)
def test_weights_are_found_where_training_scripts_put_them(tmp_path, content, notes):
    found = pretrained.read_weights(file_of(tmp_path, "checkpoint.pth.tar", made.torch_zip(content, ARRAYS)))
    assert_same(found.arrays, ARRAYS)
    assert "|".join(found.notes) == notes


def test_an_entry_and_a_prefix_can_be_asked_for(tmp_path):
    inner = renamed("model.{}") | {"loss.weight": STATE["conv.bias"]}
    path = file_of(tmp_path, "c.pt", made.torch_zip({"model": {"a": STATE["steps"]}, "ema": inner}, ARRAYS))
    found = pretrained.read_weights(path, key="ema", prefix="model.")
    assert_same(found.arrays, ARRAYS)
    assert found.notes == ("'ema' was taken, as asked", "5 arrays below 'model.' were taken, 1 left out")
    assert pretrained.read_weights(path).notes == ("'model' was taken; left out: ema; key='ema' takes the other",)
    with pytest.raises(UserError, match="missing: conv.weight.*stand there below 'model.': give prefix='model.'"):
        weights.take(path, pretrained.read_arrays(path, key="ema"), SHAPES)
    nested = file_of(tmp_path, "n.pt", made.torch_zip({"run": {"a/b": {"ema": STATE}}}, ARRAYS))
    assert_same(pretrained.read_arrays(nested, key="run/a/b/ema"), ARRAYS)
    with pytest.raises(UserError, match="key='run/a': it holds a/b"):
        pretrained.read_arrays(nested, key="run/a")
    for key, message in (("emma", "key='emma': it holds model, ema"), (None, "prefix='model.': its names are a")):
        with pytest.raises(UserError, match=f"c.pt is not .*{message}"):
            pretrained.read_weights(path, key=key, prefix="model.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "it holds a list, not one tensor for each name"),
        ({"state": {0: {"m": STATE["steps"]}}, "param_groups": []}, "an optimizer's state, and no network's weights"),
        ({"optimizer": OPTIMIZER, "epoch": 1}, "an optimizer's state, and no network's weights"),
        ({"a": STATE, "b": STATE}, "tensors stand in a, b; give key=, one of these"),
        ({**STATE, "gan": STATE}, "tensors by name and more of them in gan; give key="),
        ({"net": {"a": STATE, "b": STATE}}, "tensors stand in net/a, net/b; give key=, one of these"),
        ({"epoch": 3}, "it holds epoch, and no tensors"),
        ({"w": made.Reduce(made.Global("torch._utils", "_rebuild_qtensor"), ())}, "a quantized tensor; save the"),
        ({"w": made.Reduce(made.Global("os", "system"), ("touch executed",))}, "it would call os.system, and nothing"),
        ({**STATE, "x": made.Reduce(made.Global("builtins", "eval"), ("1",))}, "it would call builtins.eval, and"),
        ({"w": made.New(made.Global("torch._utils", "_rebuild_tensor_v2"), {"a": 1})}, r"\("),
        (made.New(made.Global("mine", "Net"), {"a": 1}), "it holds a mine.Net, not one tensor for each name"),
    ],
)
def test_checkpoints_without_weights_say_what_they_hold(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    for name, data in (("a.pt", made.torch_zip(content, ARRAYS)), ("b.pt", made.torch_old(content, ARRAYS))):
        with pytest.raises(UserError, match=f"{name} is not a whole state dict of PyTorch.*({message}|storages)"):
            pretrained.read_weights(file_of(tmp_path, name, data))
    assert not (tmp_path / "executed").exists()


def test_a_name_that_stands_in_a_pickle_twice_is_refused(tmp_path):
    """In a dict, an OrderedDict, pairs of one, and as a number beside its digits."""
    ordered, first, second = made.Global("collections", "OrderedDict"), STATE["steps"], STATE["head.bias"]
    one = made.torch_zip({"steps": first, "other": second}, ARRAYS)
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        records = {name: archive.read(name).replace(b"other", b"steps") for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    pairs = made.Reduce(ordered, ([["steps", first], ["steps", second]],))
    numbered = {1: first, "1": second}
    for data in (buffer.getvalue(), made.torch_zip(pairs, ARRAYS), made.torch_zip(numbered, ARRAYS)):
        with pytest.raises(UserError, match="w.pt is not a whole state dict.*'(steps|1)' stands there twice"):
            pretrained.read_weights(file_of(tmp_path, "w.pt", data))


def test_a_pickle_cannot_change_what_reads_it(tmp_path):
    """BUILD on a function sets its attributes; each function that a pickle can name has none."""
    changed = made.Build(made.Global("collections", "OrderedDict"), (None, {"_call": 1}))
    path = file_of(tmp_path, "w.pt", made.torch_zip({"w": STATE["steps"], "x": changed}, ARRAYS))
    with pytest.raises(UserError, match="a pickle that would change what reads it"):
        pretrained.read_weights(path)


def test_tensors_are_views_of_storages_that_they_may_share(tmp_path):
    base = np.arange(12, dtype=np.float32)

    def view(offset, shape, strides, size=12):
        storage = made.Outside(("storage", made.Global("torch", "FloatStorage"), "0", "cpu", size))
        return made.Reduce(
            made.Global("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, None)
        )

    content = {"turned": view(0, (4, 3), (1, 4)), "part": view(5, (2, 2), (4, 2)), "one": view(7, (), ())}
    content["wide"] = view(1, (2, 3), (0, 0))
    found = pretrained.read_arrays(file_of(tmp_path, "v.pt", made.torch_zip(content, {"0": base})))
    np.testing.assert_array_equal(found["turned"], base.reshape(3, 4).T)
    np.testing.assert_array_equal(found["part"], [[5, 7], [9, 11]])
    assert found["one"] == 7 and (found["wide"] == 1).all()
    for wrong in (
        view(0, (3, 5), (5, 1)),
        view(-1, (2,), (1,)),
        view(3, (2,), (-1,)),
        view(12, (1,), (1,)),
        view(0, (2,), (1, 1)),
    ):
        with pytest.raises(UserError, match=r"v.pt is not .*\(a tensor of shape"):
            pretrained.read_arrays(file_of(tmp_path, "v.pt", made.torch_zip({"a": wrong}, {"0": base})))
    with pytest.raises(UserError, match="the record net/data/0 has 48 bytes, where 52 are expected"):
        pretrained.read_arrays(file_of(tmp_path, "v.pt", made.torch_zip({"a": view(0, (3,), (1,), 13)}, {"0": base})))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("w.pth", b"<!DOCTYPE html><html>", "a whole state dict of PyTorch.*it is a web page"),
        (
            "w.bin",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
            ".*it is a pointer of Git LFS",
        ),
        ("w.safetensors", b"", "a whole file of safetensors .it is empty"),
        ("w.pth", b"\x1f\x8b\x08\0", ".*it is compressed by gzip: unpack it"),
        ("w.npz", b"\x93NUMPY\x01", "a whole .npz of plain arrays .it is a single array of NumPy's"),
        ("w.json", b'{"a": 1}', ".*it is JSON and no index of shards"),
        ("w.caffemodel", b"\x0a\x07", "a file of weights: .*.caffemodel is a format that is not known here: convert"),
        ("w.pkl", b"\x80\x04\x95", ".*it is a pickle, and none of PyTorch's"),
        ("w.pth", b"epoch 3 loss 0.1\n", ".*it holds text that begins with 'epoch 3 loss"),
        ("w.pth", b"\x01\x02\xff" * 9, ".*it holds bytes that begin with 01 02 ff"),
        ("w.msgpack", b"\xc1" * 9, "a whole msgpack of Flax's"),
        ("w.bin", b"GGUF\3\0\0\0", ".*it is a model of llama.cpp"),
        ("w.mat", b"MATLAB 5.0 MAT-file", ".*it is a file of MATLAB: save its arrays as .npz"),
        ("w.safetensors", b'\7\0\0\0\0\0\0\0{"a": 1', ".*its header is no JSON"),
        ("w.safetensors", b'\x08\0\0\0\0\0\0\0{"a": 1}', ".*the row of a in its header lacks dtype, shape or"),
    ],
)
def test_what_is_no_file_of_weights_is_named(tmp_path, name, data, message):
    with pytest.raises(UserError, match=f"{name} is not {message}"):
        pretrained.read_weights(file_of(tmp_path, name, data))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("ending", ["npz", "pth", "script.pt"])
def test_a_name_that_stands_in_a_zip_twice_is_refused(tmp_path, ending):
    import zipfile

    path = file_of(tmp_path, f"w.{ending}", LAYOUTS[ending][0]())
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.namelist()[0]
        archive.writestr(first, archive.read(archive.namelist()[-1]))
    with pytest.raises(UserError, match=rf"w\.{ending} is not .* twice, so it is ambiguous"):
        pretrained.read_weights(path)


@pytest.mark.parametrize("ending", ["npz", "pth", "script.pt", pytest.param("keras", marks=needs_h5py)])
def test_a_zip_that_says_it_holds_what_no_memory_would_is_not_unpacked(tmp_path, ending):
    data = bytearray(LAYOUTS[ending][0]())
    record = data.index(b"PK\1\2")
    data[record + 24 : record + 28] = (0xFFFFFFF0).to_bytes(4, "little")  # the size of the first member
    with pytest.raises(UserError, match=r"is not .* .the archive unpacks to \d{10} bytes, more than 200 times its \d+"):
        pretrained.read_weights(file_of(tmp_path, f"w.{ending}", data))


def test_a_member_that_no_writer_of_weights_compresses_so_is_not_unpacked(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", b"0")
    with pytest.raises(UserError, match=r"a\.npy: compressed as no writer of weights does"):
        pretrained.read_weights(tmp_path / "w.npz")


def test_a_tensor_that_repeats_one_number_without_end_is_refused(tmp_path):
    number = np.ones((1, 1), np.float32)
    function, (storage, offset, _, _, *rest) = made.tensor(number, "0")
    tensor = made.Reduce(function, (storage, offset, (1 << 20, 1 << 20), (0, 0), *rest))
    data = made.torch_zip({"head.weight": tensor}, {"0": number})
    with pytest.raises(UserError, match=r"a tensor of shape \(1048576, 1048576\) unpacks to"):
        pretrained.read_weights(file_of(tmp_path, "w.pth", data))


@needs_h5py
def test_a_dataset_that_is_nearly_all_empty_is_not_unpacked(tmp_path):
    import h5py

    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (1 << 20, 1 << 20), "float32", chunks=(64, 64), compression="gzip")
    with pytest.raises(UserError, match=r"layers/dense/vars/0 unpacks to \d+ bytes"):
        pretrained.read_weights(tmp_path / "w.weights.h5")


def test_a_name_that_stands_in_a_msgpack_twice_is_refused(tmp_path):
    layer = serialization.msgpack_serialize({"fc8": {"bias": np.zeros(3, np.float32)}})[1:]  # without the map's length
    path = file_of(tmp_path, "w.msgpack", b"\x82" + layer + layer)
    with pytest.raises(UserError, match=r"w.msgpack is not .*'fc8' stands there twice"):
        pretrained.read_weights(path)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a": (1, ([-1], "float32", bytes(8)))}, r"a shape of \(-1,\)"),
        ({"a": (1, ([2.0], "float32", bytes(8)))}, r"a shape of \(2.0,\)"),
        ({"a": (99, ([2], "float32", bytes(8)))}, "an extension of msgpack, 99, that is none of Flax's"),
        ({b"a": (1, ([2], "float32", bytes(8)))}, "b'a' stands in the place of a name"),
        ({"a/b": 1.0, "a": {"b": 2.0}}, "a/b is there twice, so it is ambiguous"),
        ({1: 1.0, "1": 2.0}, "1 is there twice, so it is ambiguous"),
        ({"a": {"__msgpack_chunked_array__": True, "shape": {"0": -1}, "chunks": {}}}, r"a shape of \(-1,\)"),
    ],
)
def test_a_msgpack_whose_names_or_shapes_could_mean_two_things_is_refused(tmp_path, tree, words):
    import msgpack

    packed = {
        name: msgpack.ExtType(value[0], msgpack.packb(value[1])) if isinstance(value, tuple) else value
        for name, value in tree.items()
    }
    path = file_of(tmp_path, "w.msgpack", msgpack.packb(packed))
    with pytest.raises(UserError, match=f"w.msgpack is not .*{words}"):
        pretrained.read_weights(path)


def test_a_zip_of_something_and_a_folder_are_named(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with pytest.raises(UserError, match="w.pth is not a whole state dict.*it is a zip archive of photo.jpg"):
        pretrained.read_weights(tmp_path / "w.pth")
    with pytest.raises(UserError, match="it is a folder and no checkpoint of Orbax; name one of its files, w.pth"):
        pretrained.read_weights(tmp_path)
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("nets/resnet.pth", b"x")
    with pytest.raises(UserError, match="it is a zip archive that holds nets/resnet.pth: unpack it"):
        pretrained.read_weights(tmp_path / "w.zip")
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\1")
    with pytest.raises(UserError, match="no checkpoint of Orbax: a SavedModel of TensorFlow, whose variables"):
        pretrained.read_weights(tmp_path)


def test_a_file_is_compared_with_its_sha256(tmp_path):
    data = made.torch_old(OLD, ARRAYS)
    digest = hashlib.sha256(data).hexdigest()
    path = file_of(tmp_path, "w.pth", data)
    found = pretrained.read_weights(path, sha256=digest[:12].upper())
    assert found.notes == (f"its SHA-256 begins with {digest[:12].upper()}, as expected",)
    with pytest.raises(UserError, match=f"w.pth: its SHA-256 is {digest}, and does not begin with 00000000: damaged"):
        pretrained.read_weights(path, sha256="00000000")
    published = file_of(tmp_path, f"net-{digest[:8]}.pth", data)
    assert pretrained.read_weights(published).notes == (f"its SHA-256 begins with {digest[:8]}, as its name says",)
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(UserError, match=f"its name says {digest[:8]}: a damaged download"):
        pretrained.read_weights(file_of(tmp_path, f"net-{digest[:8]}.pth", damaged))
    assert "no checksum" in pretrained.read_weights(file_of(tmp_path, "net-20240131.pth", damaged)).notes[0]  # a date
    whole = made.torch_zip(STATE, ARRAYS)  # which its own checksums cover
    (note,) = pretrained.read_weights(file_of(tmp_path, "net-0badcafe.pth", whole)).notes
    assert note.endswith("it is not the published file that its name says")


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_damage_gives_other_weights_or_another_error(tmp_path, ending):
    """Flips and cuts: equal arrays, or an error that names the file; without checksums numbers alone may differ."""
    data, arrays, is_checked = LAYOUTS[ending]
    whole, path, rng = data(), tmp_path / f"net.{ending}", random.Random(0)
    accepted, named = 0, []
    num = 60 if len(whole) > 5000 else 150
    cuts = [whole[: rng.randrange(len(whole))] for _ in range(num // 3)]
    flips = [flipped(whole, rng.randrange(8 * len(whole))) for _ in range(num)]
    for damaged in cuts + flips:
        path.write_bytes(damaged)
        try:
            found = dotted(
                weights.take(
                    path, dotted(pretrained.read_arrays(path)), {n: s for n, s in SHAPES.items() if n in arrays}
                )
            )
        except UserError as error:
            named.append(str(path) in str(error))
            continue
        accepted += 1
        assert sorted(found) == sorted(name for name in arrays if name != "steps")
        if is_checked:
            for name, array in found.items():
                np.testing.assert_array_equal(array, np.float32(arrays[name]))
    assert len(named) > len(cuts) / 2 and all(named) and accepted
    digest = hashlib.sha256(whole).hexdigest()
    for damaged in flips[:20]:
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="SHA-256"):
            pretrained.read_weights(path, sha256=digest)


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_flip_in_the_numbers_of_an_archive_is_seen_each_time(tmp_path):
    for whole, name in (
        (made.torch_zip(STATE, ARRAYS), "w.pth"),
        (made.npz(PLAIN), "w.npz"),
        (made.torch_script(ARRAYS), "s.pt"),
    ):
        start = whole.index(ARRAYS["conv.weight"].tobytes())
        for bit in range(0, 8 * ARRAYS["conv.weight"].nbytes, 7):
            with pytest.raises(UserError, match=f"{name} is not .*CRC"):
                pretrained.read_weights(file_of(tmp_path, name, flipped(whole, 8 * start + bit)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1e300, 1, 2]), "with values up to 1e.300, beyond float32's 3.4e.38"),
        (np.array([1, np.nan, np.inf]), r"with values that are not finite: 1 NaN, 1 infinite, from \(1,\)"),
        (np.array([1, 2, 3], np.complex64), "of type complex64, expected floating point"),
    ],
)
def test_numbers_that_are_no_weights_are_named(array, message):
    with pytest.raises(UserError, match=f"wrong: a {message}"):
        weights.take("w.npz", {"a": array}, {"a": (3,)})


def test_all_prefixes_below_which_the_weights_stand_are_named():
    arrays = {f"{prefix}.{name}": ARRAYS[name] for prefix in ("online", "ema") for name in SHAPES}
    with pytest.raises(UserError, match="they stand there below 'online.', 'ema.': give prefix=, one of these"):
        weights.take("w.npz", arrays, SHAPES)


def test_a_bias_that_an_onnx_exporter_left_out_was_zero():
    read = weights.Weights("w.onnx", "ONNX", {"conv.weight": ARRAYS["conv.weight"]}, ())
    layers = [("conv.weight", "conv.bias"), ("head.weight", "head.bias")]
    found = weights.with_zero_biases(read, layers)
    assert_same(found.arrays, read.arrays | {"conv.bias": np.zeros(2, np.float32)})
    assert found.notes == ("1 biases that the exporter left out are 0",)
    assert weights.with_zero_biases(read._replace(format="safetensors"), layers).arrays == read.arrays


def test_names_in_a_table_may_keep_the_wrapper(tmp_path):
    path = file_of(tmp_path, "w.pt", made.torch_zip(renamed("module.{}"), ARRAYS))
    shapes = {f"module.{name}": shape for name, shape in SHAPES.items()}
    found = weights.take(path, pretrained.read_arrays(path), shapes)
    np.testing.assert_array_equal(found["module.conv.weight"], ARRAYS["conv.weight"])
