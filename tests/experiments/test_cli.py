"""The command `zfjax`: an atlas, an import, the layers and the rules of any network, without a checkout."""

import json
import signal
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_import_network import NAMES, TABLE, file_of

import zfjax
from zfjax import cli, nets, pretrained, results

MODULE = """
import jax, jax.numpy as jnp, zfjax
from flax import nnx
KERNEL = jnp.linspace(-1, 1, 3 * 3 * 3 * 2).reshape(3, 3, 3, 2)
def fn(images):
    with jax.named_scope("stem"):
        maps = jax.nn.relu(jax.lax.conv_general_dilated(images, KERNEL, (2, 2), "SAME",
                                                        dimension_numbers=("NHWC", "HWIO", "NHWC")))
    return maps.mean((1, 2))
NET = zfjax.FunctionNet(fn, image_size=8, layers=["stem", "logits"])
trained = nnx.BatchNorm(3, rngs=nnx.Rngs(0))  # in training mode
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module of networks and three pictures, which is the current one."""
    (tmp_path / "cli_nets.py").write_text(MODULE)
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        array = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(array).save(tmp_path / "pictures" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])  # as a script's, without the folder
    monkeypatch.delitem(sys.modules, "cli_nets", raising=False)
    return tmp_path


def test_layers_of_a_net_are_listed_with_what_is_inside_it(here, capsys):
    cli.main(["layers", "cli_nets:NET"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[:3] == [
        "cli_nets.NET, images of 8x8",
        "  stem                 4 x 4 x 2",
        "  logits               2",
    ]
    assert "stem   float32[1, 4, 4, 2]" in printed


def test_every_operation_is_listed_on_request(here, capsys):
    cli.main(["layers", "cli_nets:NET", "--all"])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["div", "[1,", "2]"]


def test_layers_of_a_function_need_the_size_of_its_images(here, capsys):
    cli.main(["layers", "cli_nets:fn", "--image-size", "6x12"])
    assert "float32[1, 3, 6, 2]" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: net=cli_nets:fn: a function that takes images is no Net"):
        cli.main(["layers", "cli_nets:fn"])


def test_explain_lists_the_rules(here, capsys):
    cli.main(["explain", "cli_nets:NET"])
    of_net = capsys.readouterr().out
    cli.main(["explain", "cli_nets:fn", "--image-size", "8"])
    assert capsys.readouterr().out == of_net
    assert [line.split()[-5:] for line in of_net.splitlines()[1:]] == [["rectifier", "lower", "bound", "at", "zero"]]


def test_an_atlas_is_made_of_a_folder_of_pictures(here, capsys):
    cli.main(["atlas", "cli_nets:NET", "--data", "pictures", "--layers", "stem", "--num-images", "2"])
    assert "units: stem 2\n" in (printed := capsys.readouterr().out) and printed.endswith("open atlas/index.html\n")
    manifest = json.loads((here / "atlas" / "manifest.json").read_text())
    assert all((here / "atlas" / name).is_file() for name in ["index.html", "atlas.js", *manifest["files"]])


def test_an_import_is_a_run_that_the_library_opens(here, capsys):
    (here / "names.txt").write_text("\n".join(NAMES))
    (here / "cli_tables.py").write_text("from test_import_network import TABLE\n")
    path = file_of(here / "weights", TABLE)
    words = ["import", str(path), "--table", "cli_tables:TABLE", "--class-names", "names.txt", "--picture-size", "36"]
    cli.main(words)
    assert "not compared" in (printed := capsys.readouterr().out) and "zfjax atlas runs/net --data" in printed
    loaded = nets.load_net("runs/net")
    expected = pretrained.from_file(path, TABLE).params["fc6"]["kernel"]
    np.testing.assert_array_equal(loaded.params["fc6"]["kernel"], expected)
    with pytest.raises(SystemExit, match="out='runs/net': it already holds a result; .* or --overwrite"):
        cli.main(words)
    cli.main([*words, "--overwrite"])
    assert sorted(file.name for file in (here / "runs" / "net").iterdir()) == ["checkpoints", "result.json"]


def test_an_atlas_is_not_put_beside_a_result_that_says_something_else(here):
    results.write(here / "out", {}, command="atlas", contents={})
    with pytest.raises(SystemExit, match="error: out='out': it holds a result of atlas; give another folder"):
        cli.main(["atlas", "cli_nets:NET", "--data", "pictures", "--out", "out"])
    assert [path.name for path in (here / "out").iterdir()] == ["result.json"]


def test_an_import_replaces_no_result_of_another_command(here):
    results.write(here / "out", {}, command="figure_a", contents={"a.txt": b"a"})
    before = (here / "out" / "result.json").read_bytes()
    with pytest.raises(SystemExit, match="error: out='out': it holds a result of figure_a; give another folder"):
        cli.main(["import", str(file_of(here / "weights", TABLE)), "--out", "out", "--overwrite"])
    assert (here / "out" / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layers", "nothing:NET"], "error: net=nothing:NET: there is no module 'nothing' here"),
        (
            ["layers", "cli_nets:fn", "--image-size", "8", "--channels", "1"],
            r"error: net=cli_nets:fn: it does not take images \[1, 8, 8, 1\], \w+: .*; --image-size and --channels say",
        ),
        (["explain", "cli_nets:trained", "--image-size", "8"], "error: net=cli_nets:trained: .*with model.eval"),
        (["layers", "cli_nets:fn"], "error: .* take a function of images with --image-size"),
        (["explain", "runs/x", "--image-size", "8"], "error: net='runs/x': module:NAME of a Python object is needed"),
        (["atlas", "cli_nets:NET"], "error: data=None: cli_nets.NET does not say what it was trained on"),
        (["atlas", "cli_nets:NET", "--data", "absent"], "error: data='absent': no such folder"),
        (["atlas", "cli_nets:NET", "--data", "pictures", "--layers", "x"], "error: layer='x': one of stem, logits"),
        (
            ["atlas", "cli_nets:NET", "--data", "pictures", "--out", "pictures/atlas"],
            "out='pictures/atlas': it lies in the",
        ),
        (
            ["atlas", "cli_nets:NET", "--data", "pictures/0.png", "--out", "pictures"],
            "out='pictures': it holds 0.png, and",
        ),
        (["import", "absent.npz"], "error: .*absent.npz.*: no such file"),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(here, words, message):
    before = sorted(here.rglob("*"))
    with pytest.raises(SystemExit, match=message):
        cli.main(words)
    assert [path for path in sorted(here.rglob("*")) if "__pycache__" not in path.parts] == before


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"zfjax {zfjax.__version__}\n"


def test_a_size_is_one_number_or_two(capsys):
    for words in ("0", "1x2x3", "x", "8x"):
        with pytest.raises(SystemExit):
            cli.main(["layers", "cli_nets:fn", "--image-size", words])
        assert "argument --image-size" in capsys.readouterr().err


def test_a_net_is_made_by_a_function_without_arguments(here, monkeypatch):
    (here / "cli_nets.py").write_text(MODULE + "def make(size=8):\n    return NET\n")
    monkeypatch.syspath_prepend(here)
    assert nets.load_net("cli_nets:make").features(["logits"])(jnp.ones((1, 8, 8, 3)))["logits"].shape == (1, 2)


def test_a_signal_ends_it_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(cli.nets, "load_net", lambda net: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        cli.main(["atlas", "a net"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped; the same command resumes\n"
