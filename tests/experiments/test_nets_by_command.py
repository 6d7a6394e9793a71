"""Networks of other frameworks, by command: Figure 2, Figure 7 and the sanity table of each."""

import json
import pathlib
import shutil

import foreign_nets
import numpy as np
import pytest
from PIL import Image

from experiments import activation_maximization, deconv_figures, evaluate_imagenet, occlusion_maps, sanity_checks
from experiments.pages import canvas

SHARED = pathlib.Path(__file__).parents[3] / "shared"
SQUEEZENET = SHARED / "models" / "squeezenet_v1.0"
NETS = [
    pytest.param("linen_resnet", marks=pytest.mark.slow),
    pytest.param("nnx_convnet", marks=pytest.mark.slow),
    "equinox_net",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return str(foreign_nets.folder(tmp_path_factory.mktemp("pictures")))


def result_of(command, monkeypatch, out, *flags):
    """result.json of a command, as a shell would call it."""
    words = [command.__name__, "--out", str(out), *map(str, flags)]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.chdir(out.parent)  # where the scans of such nets lie
    monkeypatch.setattr("zfjax.parallel.connect_hosts", lambda *_, **__: None)  # JAX runs already, alone
    command.main()
    result = json.loads((out / "result.json").read_text())
    for name in result["files"]:
        if name.endswith(".png"):
            pixels = np.asarray(Image.open(out / name).convert("RGB"))
            frame = np.ones(pixels.shape[:2], bool)
            frame[12:-12, 12:-12] = False
            assert (pixels[frame] >= 250).all(), f"{name} has ink at its edge"
    return result


@pytest.mark.parametrize("name", NETS)
def test_figure_2_of_any_framework(name, monkeypatch, tmp_path, pictures):
    flags = ("--net", f"foreign_nets:{name}", "--data", pictures, "--num-maps", 2, "--batch-size", 4)
    result = result_of(deconv_figures, monkeypatch, tmp_path / "out", *flags)
    net = getattr(foreign_nets, name)()
    assert list(result["layers"]) == [layer for layer in net.layers if layer != "logits"]
    assert result["net"]["name"] == net.name and result["net"]["fingerprint"] == net.fingerprint
    drawn = np.load(tmp_path / "out" / f"{net.layers[1]}.npz")
    assert np.abs(drawn["projections"]).max() > 0 and "picture" in str(drawn["names"][0, 0])


@pytest.mark.parametrize("command", [deconv_figures, activation_maximization])
def test_layers_named_by_paths_are_written_too(command, monkeypatch, tmp_path, pictures):
    quick = {deconv_figures: ("--batch-size", 4), activation_maximization: ("--steps", 2)}
    flags = ("--net", "foreign_nets:PATHED", "--data", pictures, "--num-maps", 2, *quick[command])
    result = result_of(command, monkeypatch, tmp_path / "out", *flags)
    assert {"Net%2Fconv1.npz", "Net%2Fconv2.npz"} <= result["files"].keys()
    assert all((tmp_path / "out" / name).is_file() for name in result["files"])


@pytest.mark.parametrize("command", [deconv_figures, occlusion_maps, sanity_checks])
def test_a_page_says_how_projections_of_four_channels_are_drawn(command, monkeypatch, tmp_path, pictures):
    quick = {deconv_figures: ("--batch-size", 4), occlusion_maps: ("--stride", 8), sanity_checks: ("--num-images", 2)}
    pages, page = [], canvas.page
    monkeypatch.setattr(canvas, "page", lambda *words: pages.append(" ".join(words[2])) or page(*words))
    flags = ("--net", "foreign_nets:RGBA", "--data", pictures, *quick[command])
    result_of(command, monkeypatch, tmp_path / "out", *flags)
    said = [words for words in pages if "have 4 channels: their mean is drawn, in grey" in words]
    assert len(said) == len(pages) - (command is sanity_checks)  # whose table shows none


@pytest.mark.parametrize("name", NETS)
def test_figure_7_of_any_framework(name, monkeypatch, tmp_path, pictures):
    flags = ("--net", f"foreign_nets:{name}", "--data", pictures, "--num-images", 2, "--stride", 8)
    result = result_of(occlusion_maps, monkeypatch, tmp_path / "out", *flags)
    assert len(result["images"]) == 2 and result["images"][0]["class"] in foreign_nets.CLASS_NAMES


@pytest.mark.parametrize("name", NETS)
def test_the_sanity_table_of_any_framework(name, monkeypatch, tmp_path, pictures):
    flags = ("--net", f"foreign_nets:{name}", "--data", pictures, "--num-images", 3)
    result = result_of(sanity_checks, monkeypatch, tmp_path / "out", *flags)
    assert "switches" in " ".join(result["not_applicable"])
    cell = result["checks"]["units"]["best class and worst class"]["deconvnet"]
    assert cell["num"] == 3 and -1 <= cell["mean"] <= 1


@pytest.mark.parametrize("command", [deconv_figures, occlusion_maps])
def test_the_protocol_is_enough_to_be_a_net(command, monkeypatch, tmp_path, pictures):
    """And it is not traced anew for every image, however many functions it makes."""
    quick = {deconv_figures: ("--num-maps", 2, "--batch-size", 4), occlusion_maps: ("--num-images", 4, "--stride", 8)}
    flags = ("--net", "foreign_nets:MINIMAL", "--data", pictures, *quick[command])
    before = foreign_nets.MINIMAL.traces
    result = result_of(command, monkeypatch, tmp_path / "out", *flags)
    assert result["net"]["name"] == "minimal" and foreign_nets.MINIMAL.traces - before < 40


@pytest.mark.slow
@pytest.mark.parametrize("command", [deconv_figures, occlusion_maps, sanity_checks])
def test_squeezenet_by_command(command, monkeypatch, tmp_path, pictures):
    if not SQUEEZENET.exists():
        pytest.skip("the weights of SqueezeNet are not here")
    quick = {
        deconv_figures: ("--layers", "pool1", "--num-maps", 2, "--batch-size", 4),
        occlusion_maps: ("--num-images", 1, "--stride", 60),
        sanity_checks: ("--num-images", 1),
    }
    flags = ("--net", f"squeezenet:{SQUEEZENET}", "--data", pictures, *quick[command])
    assert result_of(command, monkeypatch, tmp_path / "out", *flags)["net"]["name"] == "squeezenet"


def test_pictures_of_no_class_are_named_before_any_is_opened(monkeypatch, tmp_path, pictures, capsys):
    strays = tmp_path / "strays"
    shutil.copytree(pictures, strays)
    for name in ("elsewhere/a.png", "b.png"):
        (strays / name).parent.mkdir(exist_ok=True)
        (strays / name).write_bytes(b"no picture, and not looked at")
    with pytest.raises(SystemExit) as ended:
        result_of(evaluate_imagenet, monkeypatch, tmp_path / "out", "--net", "foreign_nets:SMALL", "--data", strays)
    assert (
        "of its 8 pictures 'b.png' and 1 more are in no folder with the name of a class of small (cat, dog, "
        in str(ended.value) + capsys.readouterr().err
    )
