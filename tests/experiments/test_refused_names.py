"""Names of files and folders that cannot be: each ends a command in one line that names the argument, and leaves
nothing behind."""

import importlib
import os
import re
import sys
from pathlib import Path

import foreign_nets
import pytest

import zfjax
from zfjax import files, nets
from zfjax.errors import NotThereError, check_name, naming

LONG, NET = "x" * 300, ("--net", "foreign_nets:SMALL", "--data", "pictures")
NO_FOLDER = "what lies there is no folder; name another folder"
TOO_LONG = r"x{60}\.\.\.x{20} \(300 characters\)': a name of this length is none for the system"
SQUEEZENET = "a folder with architecture.json and squeezenet_v1.0.npz is needed"

CASES = [
    ("deconv_figures", [*NET, "--out", "file"], f"out='file': {NO_FOLDER}"),
    ("sanity_checks", [*NET, "--out", "file/x"], "out='file/x': a step of its path is a file and no folder"),
    ("occlusion_maps", [*NET, "--out", LONG], f"out='{TOO_LONG}"),
    ("atlas", [*NET, "--out", "loop"], f"out='loop': {NO_FOLDER}"),
    ("demo_scenes", ["--out", "file"], f"out='file': {NO_FOLDER}"),
    ("train_imagenet", ["--preset", "demo", "--out", "file"], f"out='file': {NO_FOLDER}"),
    ("train_imagenet", ["--resume", LONG], f"checkpoint='{TOO_LONG}"),
    (
        "prepare_imagenet",
        ["--source", "pictures", "--val-share", "0.3", "--data-dir", "file"],
        "data_dir='file': file/",
    ),
    ("prepare_imagenet", ["--source", LONG, "--data-dir", "new/data"], f"source='{TOO_LONG}"),
    ("deconv_figures", ["--net", LONG], f"net='{TOO_LONG}"),
    ("deconv_figures", ["--net", "squeezenet:no/where"], f"weights='no/where': .*such file or folder; {SQUEEZENET}"),
    ("deconv_figures", ["--net", "squeezenet:file"], f"weights='file': .* is a file and no folder; {SQUEEZENET}"),
    ("deconv_figures", ["--net", "foreign_nets:SMALL", "--data", LONG], f"data='{TOO_LONG}"),
    ("part_correspondence", [*NET[:2], "--annotations", "none"], "annotations='none': there is no such file or folder"),
    ("part_correspondence", [*NET[:2], "--annotations", "empty"], "annotations='empty': it is a folder, and a file"),
    ("import_network", ["--weights", "file", "--class-names", "none"], "class_names='none': there is no such file"),
    ("import_network", ["--weights", LONG], "out='runs/x+...x+ .305 characters.': a name of this length"),
    ("transfer_learning", ["--net", "run", "--images", LONG], "checkpoint at .*run: a run's folder"),
    ("paper_report", ["--results", LONG], f"results='{TOO_LONG}"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what stands in the way, where the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zfjax.parallel.connect_hosts", lambda *_, **__: None)
    (tmp_path / "file").write_text("words")
    (tmp_path / "empty").mkdir()
    os.symlink("loop", tmp_path / "loop")
    foreign_nets.folder(tmp_path / "pictures")
    return tmp_path


@pytest.mark.parametrize(("name", "flags", "words"), CASES)
def test_the_line_names_the_argument_and_nothing_is_left(place, monkeypatch, name, flags, words):
    before = sorted(place.rglob("*"))
    monkeypatch.setattr(sys, "argv", [name, *flags])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"experiments.{name}").main()
    assert re.search(words, str(ended.value.code)), ended.value.code
    assert "Errno" not in ended.value.code and "\n" not in ended.value.code
    assert sorted(place.rglob("*")) == before


def test_a_name_that_is_not_there_is_a_file_not_found_too():
    with pytest.raises(NotThereError, match="data='x': y/z: there is no such file or folder; look"):
        with naming("data", "x", "look"):
            Path("y/z").read_bytes()


def test_a_full_disk_passes_as_it_is():
    with pytest.raises(OSError, match="No space") as raised, naming("out", "x", "look"):
        raise OSError(28, "No space left on device")
    assert not isinstance(raised.value, zfjax.UserError)


def test_whether_a_name_is_there_is_not_asked(place):
    check_name("data", "nowhere")
    check_name("data", "file/below")
    with pytest.raises(zfjax.UserError, match="links lead back"):
        check_name("data", "loop")


def test_names_of_any_length_make_names_of_files(tmp_path):
    names = ["n" * 400, "n" * 401, "/" * 400, "a/b"]
    made = [files.file_name(name) for name in names]
    assert len(set(made)) == len(names) and made[-1] == "a%2Fb"
    for name in made:
        (tmp_path / f".{name}.json.12345").write_text("x")


def test_a_network_of_a_long_name_has_a_folder(tmp_path):
    net = zfjax.FunctionNet(lambda images: {"a": images}, image_size=8, name="deep " * 100)
    (tmp_path / nets.home_of(net)).mkdir(parents=True)
