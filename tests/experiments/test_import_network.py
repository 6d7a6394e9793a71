"""Networks of other frameworks become ours: weights in their places, and a run that loads like any other."""

import dataclasses
import json
import shlex
import sys

import numpy as np
import pytest
import tiny_photos
import torchvision_arrays as drawn
from judges import check_keys

import zfjax
from experiments import evaluate_imagenet, import_network
from zfjax import features, nets, pretrained
from zfjax.data import sets
from zfjax.pretrained.tables import by_prefix

NORM = zfjax.ContrastNorm(k=1.5, alpha=0.6)

# strides, lopsided padding, groups, both orders of pool and norm, and a colour order, mean and std to undo
ARCHITECTURE = zfjax.Architecture(
    name="theirs",
    layers=(
        zfjax.Conv("conv1", 6, kernel=5, stride=2, padding=(1, 1), after=(zfjax.Pool(), NORM)),
        zfjax.Conv("conv2", 4, kernel=3, padding=(1, 1), groups=2, after=(NORM, zfjax.Pool())),
        zfjax.Dense("fc6", 7),
        zfjax.Dense("fc7", 10, hidden=False),
    ),
    image_size=34,
    input_scale=0.25,
)

TABLE = pretrained.ImportTable(
    ARCHITECTURE,
    by_prefix(conv1="body.0", conv2="body.3", fc6="head.1", fc7="head.3"),
    channels="BGR",
    mean=(120.0, 110.0, 100.0),
    std=(60.0, 50.0, 40.0),
)

NAMES = tuple(f"class {letter}" for letter in "abcdefghij")


def arrays_of(table, seed=0):
    """Weights as the exporter's file has them: OIHW, [out, in] with `in` from CHW."""
    rng, arrays = np.random.default_rng(seed), {}
    for names in table.names:
        kernel = table.architecture.sizes()[names.layer].kernel
        shape = {4: lambda k: (k[3], k[2], k[0], k[1]), 2: lambda k: (k[1], k[0])}[len(kernel)](kernel)
        arrays[names.kernel] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        arrays[names.bias] = rng.normal(0, 0.3, shape[0]).astype(np.float32)
    return arrays


def file_of(folder, table, name="net.npz", **changed):
    folder.mkdir(exist_ok=True)
    np.savez(folder / name, **arrays_of(table) | changed)
    return folder / name


def test_weights_are_rearranged_one_by_one(tmp_path):
    theirs, net = arrays_of(TABLE), pretrained.from_file(file_of(tmp_path, TABLE), TABLE)
    kernel, (height, width, maps) = theirs["body.0.weight"], ARCHITECTURE.sizes()["fc6"].input
    for channel, (other, std) in enumerate([(2, 60.0), (1, 50.0), (0, 40.0)]):  # red stands last in BGR
        expected = kernel[4, other, 1, 3] / std / 0.25
        np.testing.assert_allclose(net.params["conv1"]["kernel"][1, 3, channel, 4], expected, rtol=1e-6)
    assert net.params["conv2"]["kernel"][2, 0, 1, 3] == theirs["body.3.weight"][3, 1, 2, 0]
    for y, x, c in ((0, 1, 2), (height - 1, 0, maps - 1)):
        ours, other = (y * width + x) * maps + c, (c * height + y) * width + x
        assert net.params["fc6"]["kernel"][ours, 5] == theirs["head.1.weight"][5, other]
    assert net.params["fc7"]["kernel"][6, 2] == theirs["head.3.weight"][2, 6]
    np.testing.assert_array_equal(net.params["fc6"]["bias"], theirs["head.1.bias"])
    np.testing.assert_array_equal(net.mean, np.float32([120, 110, 100]))


def test_the_norm_multiplies_a_sum_here_and_a_mean_there(tmp_path):
    path = file_of(tmp_path, TABLE)
    for norm, alpha in (("mean", 0.6 / 5), ("sum", 0.6)):
        net = pretrained.from_file(path, dataclasses.replace(TABLE, norm=norm))
        found = [stage for layer in net.architecture.layers[:2] for stage in layer.after if stage != zfjax.Pool()]
        assert found == [zfjax.ContrastNorm(k=1.5, alpha=alpha)] * 2
    assert net.architecture == ARCHITECTURE


def test_tables_have_the_parameters_of_the_networks_that_they_name():
    """torchvision's AlexNet has 61,100,840 parameters; the ZFNets as in Table 3."""
    found = {name: table.architecture.num_parameters() for name, table in pretrained.TABLES.items()}
    assert found == {"alexnet-torchvision": 61_100_840, "zfnet": 62_357_608, "zfnet-512": 107_627_624}
    names = [names.kernel for names in pretrained.TABLES["alexnet-torchvision"].names]
    places = [f"features.{place}" for place in (0, 3, 6, 8, 10)] + [f"classifier.{place}" for place in (1, 4, 6)]
    assert names == [f"{place}.weight" for place in places]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"norm": "max"}, "import table of 'theirs': norm='max': one of 'sum', 'mean' is needed"),
        ({"pools": "round"}, "pools='round': one of 'ceil', 'floor' is needed"),
        ({"channels": "GRB"}, "channels='GRB': one of 'RGB', 'BGR' is needed"),
        ({"std": (1.0, 0.0, 1.0)}, r"std=\(1.0, 0.0, 1.0\): a tuple of finite numbers above 0 is needed"),
        ({"mean": (1.0, np.inf, 1.0)}, "mean=.*: a tuple of finite numbers is needed"),
        ({"mean": (1.0,)}, r"mean=\(1.0,\), std=\(60.0, 50.0, 40.0\): 3 numbers each are needed"),
        ({"names": TABLE.names[1:]}, "names for conv2, fc6, fc7: theirs has conv1, conv2, fc6, fc7, in this order"),
        ({"pools": "floor"}, "pools='floor': layer 'conv1' pools its map of 16 to 7, the ceil rule to 8; only where"),
        (
            {
                "architecture": ARCHITECTURE.without("conv1", "conv2"),
                "names": TABLE.names[2:],
            },
            "layer 'fc6': the first has to be a Conv without groups, which sees all colours",
        ),
    ],
)
def test_a_table_that_cannot_be_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TABLE, **changed)


def call(monkeypatch, capsys, module, *flags):
    words = [word for flag in flags for word in (sum(flag.items(), ()) if isinstance(flag, dict) else [flag])]
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    module.main()
    return capsys.readouterr().out


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """A module with a table of one's own, a file of weights, and the names of its classes."""
    (tmp_path / "my_nets.py").write_text("from test_import_network import TABLE\nNUMBER = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    found = {"--table": "my_nets:TABLE", "--weights": file_of(tmp_path / "w", TABLE), "--picture-size": 36}
    return found | {"--class-names": tmp_path / "names.txt", "--out": tmp_path / "run", "--data": tmp_path / "seen"}


def test_an_import_is_a_run_that_experiments_load(tmp_path, flags, monkeypatch, capsys):
    net = pretrained.from_file(flags["--weights"], TABLE)
    inputs_ = np.random.default_rng(1).normal(0, 1, (2, 3, 34, 34)).astype(np.float32)
    images = inputs_[:, ::-1].transpose(0, 2, 3, 1) * np.float32([60, 50, 40])
    fn = features.layers_of(net.params, ["fc7"], architecture=net.architecture)
    np.savez(tmp_path / "outputs.npz", inputs=inputs_, **features.in_batches(fn, images))
    printed = call(monkeypatch, capsys, import_network, flags, "--outputs", tmp_path / "outputs.npz")
    assert printed.splitlines()[1].split()[0] == "fc7" and f"--net {tmp_path / 'run'}" in printed
    assert "\nmean, std, channel order: not checked, the outputs hold no 'pictures'" in printed
    loaded = nets.load_net(tmp_path / "run")
    assert loaded.architecture == net.architecture and loaded.data == str(tmp_path / "seen")
    assert loaded.class_names == NAMES
    np.testing.assert_array_equal(loaded.mean, np.broadcast_to(np.float32([120, 110, 100]), (36, 36, 3)))
    np.testing.assert_array_equal(loaded.params["conv1"]["kernel"], net.params["conv1"]["kernel"])
    check_keys(tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["parity"][0]["relative"] < 1e-5 and result["paper"] is None
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "result.json"]
    for number, name in enumerate(NAMES):
        (tmp_path / "seen" / name).mkdir(parents=True)
        (tmp_path / "seen" / name / "a.jpg").write_bytes(tiny_photos.photo(number))
    views = nets.read_views(sets.open_images(None, loaded).validation, range(10), loaded)
    best = features.in_batches(fn, views.images)["fc7"].argmax(axis=1)
    call(monkeypatch, capsys, evaluate_imagenet, "--checkpoint", tmp_path / "run", "--batch-size", 8)
    result = json.loads((tmp_path / "run" / "evaluation" / "result.json").read_text())
    assert result["error"]["center"]["top1"] == np.mean(best != views.labels)


def test_an_import_is_replaced_only_on_request_and_a_trained_run_never(tmp_path, flags, monkeypatch, capsys):
    call(monkeypatch, capsys, import_network, flags)
    with pytest.raises(SystemExit, match="it already holds a result; give another folder, or --overwrite"):
        call(monkeypatch, capsys, import_network, flags)
    flags["--weights"] = file_of(tmp_path / "w", TABLE, **{"body.0.bias": np.full(6, 2.5, np.float32)})
    printed = call(monkeypatch, capsys, import_network, flags, "--overwrite")
    assert "not compared: no --outputs of the exporter were given" in printed
    np.testing.assert_array_equal(nets.load_net(tmp_path / "run").params["conv1"]["bias"], np.float32([2.5] * 6))
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(SystemExit, match="a run that was trained lies there; give another folder"):
        call(monkeypatch, capsys, import_network, flags, "--overwrite")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"--table": "resnet"},
            "table='resnet': one of alexnet-torchvision, zfnet, zfnet-512, module:NAME, or of torchvision's alexnet, ",
        ),
        ({"--table": "no_such_module:TABLE"}, "table='no_such_module:TABLE': No module named"),
        ({"--table": "my_nets:NOTHING"}, "table='my_nets:NOTHING': module 'my_nets' has no attribute"),
        ({"--table": "my_nets:NUMBER"}, "table='my_nets:NUMBER' is of type int, not zfjax.pretrained.ImportTable"),
        ({"--picture-size": 33}, "picture_size=33: at least 34, the side of the net's input, is needed"),
        ({"--class-names": None}, "class_names=None: the table has 10 classes; name them"),
        ({"--class-names": "empty"}, "class_names='.*empty': one name in each line is needed"),
        ({"--class-names": "two"}, r"wrong: head.3.weight of shape \(10, 7\), expected \(2, 7\)"),
        ({"--outputs": "wrong.npz"}, "the imported network is not the exporter's: conv1 differ"),
        ({"--weights": "absent.npz"}, "absent.npz: no such file"),
    ],
)
def test_what_does_not_fit_is_an_error_and_writes_nothing(tmp_path, flags, changed, message, monkeypatch, capsys):
    (tmp_path / "empty").touch()
    (tmp_path / "two").write_text("a\nb")
    maps = ARCHITECTURE.sizes()["conv1"].output
    np.savez(tmp_path / "wrong.npz", inputs=np.zeros((1, 3, 34, 34)), conv1=np.ones((1, maps[2], *maps[:2])))
    monkeypatch.chdir(tmp_path)
    given = {flag: value for flag, value in (flags | changed).items() if value is not None}
    with pytest.raises(SystemExit, match=message):
        call(monkeypatch, capsys, import_network, given)
    assert not (tmp_path / "run").exists()


def test_weights_of_keras_or_flax_stand_as_they_are(tmp_path):
    """HWIO and [in, out] from HWC, where the table says so: the same network as from PyTorch's layout."""
    net = pretrained.from_file(file_of(tmp_path, TABLE), TABLE)
    scale = np.asarray(TABLE.std)[::-1, None] * ARCHITECTURE.input_scale
    arrays = {
        name: net.params[row.layer][part]
        for row in TABLE.names
        for name, part in ((row[1], "kernel"), (row[2], "bias"))
    }
    arrays["body.0.weight"] = arrays["body.0.weight"][:, :, ::-1] * scale
    np.savez(tmp_path / "hwio.npz", **arrays)
    table = dataclasses.replace(TABLE, layout="HWIO")
    same = pretrained.from_file(tmp_path / "hwio.npz", table)
    for layer, params in net.params.items():
        np.testing.assert_allclose(same.params[layer]["kernel"], params["kernel"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"wrong: body.0.weight of shape \(5, 5, 3, 6\), expected \(6, 3, 5, 5\)"):
        pretrained.from_file(tmp_path / "hwio.npz", TABLE)


def test_a_network_of_torchvision_is_compared_and_opened_by_name(tmp_path, monkeypatch, capsys):
    arrays = drawn.arrays_of("squeezenet1_1")
    np.savez(tmp_path / "s.npz", **{f"net.{name}": array for name, array in arrays.items()}, other=np.ones(2))
    (tmp_path / "names & more.txt").write_text("\n".join("abcdefghij"))
    flags = {"--weights": tmp_path / "s.npz", "--table": "squeezenet1_1", "--out": tmp_path / "run", "--prefix": "net."}
    flags["--class-names"] = tmp_path / "names & more.txt"
    printed = call(monkeypatch, capsys, import_network, flags)
    assert "s.npz: 52 arrays below 'net.' were taken, 1 left out" in printed
    (command,) = (line for line in printed.splitlines() if "--net" in line)
    name = shlex.split(command)[-1]
    assert name.startswith(f"torchvision:squeezenet1_1:{tmp_path / 's.npz'}?prefix=net.&class_names=")
    assert nets.load_net(name).class_names == tuple("abcdefghij")
    for wrong in (name + "&seed=3", name.partition("?")[0] + "?net"):
        with pytest.raises(ValueError, match="no file, and behind . key=, prefix=, sha256=, class_names= are known"):
            nets.load_net(wrong)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["num_parameters"] == sum(array.size for array in arrays.values()) and result["parity"] == []
    np.savez(tmp_path / "plain.npz", **arrays)
    net = nets.load_net(f"torchvision:squeezenet1_1:{tmp_path / 'plain.npz'}")
    assert net.name == "squeezenet1_1" and net.shapes["classifier.3"] == (drawn.NUM_CLASSES,)
    with pytest.raises(ValueError, match="kind='resnet': one of alexnet"):
        nets.load_net("torchvision:resnet:x.pth")
