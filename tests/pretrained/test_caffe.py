"""Tables in Caffe's terms compute what NumPy says, and those that cannot run are named."""

import json

import jax
import numpy as np
import pytest
import reference

import zfjax
from zfjax.errors import UserError
from zfjax.pretrained import caffe

RNG = np.random.default_rng(0)


def row(name, kind, bottom, top=None, **fields):
    """One row as the JSON has it, with a field that the reader does not know."""
    empty = {"num_output": None, "kernel": None, "stride": 1, "pad": 0, "pool": None, "global_pooling": False}
    bottom = [bottom] if isinstance(bottom, str) else bottom
    return {"name": name, "type": kind, "bottom": bottom, "top": [top or name], "inplace": None, **empty, **fields}


BRANCHES = [
    row("conv", "Convolution", "data", num_output=4, kernel=3, stride=2, pad=1),
    row("relu", "ReLU", "conv", "conv"),
    row("pool", "Pooling", "conv", pool="MAX", kernel=3, stride=2),
    row("left", "Convolution", "pool", num_output=3, kernel=1),
    row("right", "Convolution", "pool", num_output=2, kernel=3, pad=1),
    row("both", "Concat", ["left", "right"]),
    row("relu2", "ReLU", "both", "both"),
    row("drop", "Dropout", "both", "both"),
    row("padded", "Pooling", "both", pool="MAX", kernel=3, stride=2, pad=1),
    row("mean", "Pooling", "padded", pool="AVE", global_pooling=True),
    row("share", "Softmax", "mean"),
]


def table_of(path, rows):
    path.write_text(json.dumps(rows))
    return caffe.read_table(path)


def test_a_table_with_branches_computes_what_numpy_does(tmp_path):
    table = table_of(tmp_path / "net.json", BRANCHES)
    shapes = caffe.kernel_shapes(table)
    assert shapes == {"conv": (3, 3, 3, 4), "left": (1, 1, 4, 3), "right": (3, 3, 4, 2)}
    kernels = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    biases = {name: RNG.normal(size=shape[-1]).astype(np.float32) for name, shape in shapes.items()}
    params = {name: {"kernel": kernels[name], "bias": biases[name]} for name in shapes}
    images = RNG.normal(size=(2, 15, 15, 3)).astype(np.float32)

    def filtered(maps, name, stride=1, pad=0):
        filters = zfjax.Conv(name, shapes[name][3], shapes[name][0], stride=stride, padding=(pad, pad))
        return reference.conv(maps, kernels[name], filters) + biases[name]

    expected = {"conv": np.maximum(filtered(images, "conv", 2, 1), 0)}
    expected["pool"] = reference.max_pool(expected["conv"], 3, 2)[0]  # 8 -> 4: the last window hangs over
    left, right = filtered(expected["pool"], "left"), filtered(expected["pool"], "right", pad=1)
    expected["both"] = np.maximum(np.concatenate([left, right], axis=3), 0)
    # Caffe counts ceil((4 + 2 - 3) / 2) + 1 = 3 windows: rows -1..1, 1..3 and, hanging over, 3..5
    ranges = [slice(0, 2), slice(1, 4), slice(3, 4)]
    windows = [[expected["both"][:, y, x].max(axis=(1, 2)) for x in ranges] for y in ranges]
    expected["padded"] = np.moveaxis(np.array(windows), 2, 0)
    expected["mean"] = expected["padded"].mean(axis=(1, 2))
    expected["share"] = np.exp(expected["mean"]) / np.exp(expected["mean"]).sum(axis=1, keepdims=True)
    found = jax.jit(lambda params, images: caffe.run(table, params, images))(params, images)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=1e-5, err_msg=name)


def test_a_padded_pool_drops_the_window_that_begins_outside_the_map():
    """A map of 5 with padding 1, kernel 2, stride 3: rows -1..0, 2..3 and 5..6, the last of which is no row at all."""
    pool = caffe.CaffeLayer("pool", "Pooling", ("data",), ("pool",), kernel=2, stride=3, pad=1, pool="MAX")
    maps = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(caffe.run((pool,), {}, maps)["pool"][0, :, :, 0], [[0, 3], [15, 18]])


def test_receptive_fields_are_the_pixels_that_change_a_place(tmp_path):
    """A bright spot at each pixel in turn, under positive filters: whatever sees it changes."""
    table = table_of(tmp_path / "net.json", BRANCHES)
    params = {
        n: {"kernel": np.ones(s, "f4"), "bias": np.ones(s[3], "f4")} for n, s in caffe.kernel_shapes(table).items()
    }
    side = 23
    spots = np.zeros((side, side, side, side, 3), np.float32)
    spots[(*np.mgrid[:side, :side], *np.mgrid[:side, :side])] = 1.0
    spots = spots[:, side // 2]  # all rows of the middle column
    images = np.concatenate([spots, np.zeros_like(spots[:1])])
    maps = jax.jit(lambda images: caffe.run(table, params, images))(images)
    fields = caffe.receptive_fields(table)
    assert set(fields) == {"data", "conv", "pool", "left", "right", "both", "padded"}
    assert fields["both"] == (15, 4, -5)
    for name, field in fields.items():
        for place in range(maps[name].shape[1]):
            seen = np.flatnonzero((maps[name][:-1] != maps[name][-1:])[:, place].any(axis=(1, 2)))
            top, _, bottom, _ = field.box((place, 0))
            assert (seen.min(), seen.max() + 1) == (max(top, 0), min(bottom, side)), (name, place)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("norm", "LRN", "data")], "layer 'norm' is of type 'LRN': one of Convolution, ReLU, .* is known"),
        ([row("p", "Pooling", "data", pool="AVE", kernel=3)], "layer 'p' pools by 'AVE', global_pooling=False: MAX in"),
        ([row("c", "Convolution", "data", kernel=3)], "layer 'c': Convolution needs num_output"),
        ([row("p", "Pooling", "data", pool="MAX")], "layer 'p': Pooling needs kernel"),
        ([row("r", "ReLU", "conv1")], "layer 'r' reads conv1, which no layer before has made"),
        ([row("r", "ReLU", ["data", "data"])], r"layer 'r' goes from \('data', 'data'\) to \('r',\): from one map"),
        ([row("r", "ReLU", "data", stride=0)], "layer 'r': stride=0: a Python int of at least 1 is needed"),
        ([row("r", "ReLU", "data", pad=-1)], "layer 'r': pad=-1: a whole number of at least 0 is needed"),
        ([row("r", "ReLU", "data", kernel=1.5)], "layer 'r': kernel=1.5: a whole number of at least 1, or null is"),
        ([row("r", "ReLU", "data") | {"bottom": "data"}], "layer 'r': bottom='data': a list of names is needed"),
        ([{"name": "r"}], r"net.json is damaged \(1.type is missing\); a JSON list of layers"),
        ({"layers": []}, r"net.json is damaged \(the result is {'layers': \[\]}, not a list\)"),
        ([row("r", {}, "data")], r"1.type is {}, not a string"),
        ([row(None, "ReLU", "data")], "1.name is None, not a string"),
        ([row(["r"], "ReLU", "data")], r"1.name is \['r'\], not a string"),
        ([row("c", "Convolution", "data", num_output=2, kernel=1)] * 2, "layer 'c' is a Convolution twice"),
    ],
)
def test_tables_that_cannot_run_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        table_of(tmp_path / "net.json", rows)


def test_a_table_that_is_no_json_is_named(tmp_path):
    for text in ("layer {", "[" * 100_000, '[{"name": "a", "name": "b"}]'):
        (tmp_path / "net.json").write_text(text)
        with pytest.raises(UserError, match="net.json is damaged .*; a JSON list of layers .* is needed"):
            caffe.read_table(tmp_path / "net.json")
