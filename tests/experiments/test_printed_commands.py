"""Commands that are printed for a user to copy: a shell reads out of them the folder that was meant."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments import import_network, prepare_imagenet
from experiments.shell import training_log
from zfjax.data import imagenet
from zfjax.errors import NotThereError, command_line

FOLDERS = [Path("my runs/a"), Path("it's here"), Path("$HOME/a;b"), Path("plain")]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_what_follows_a_command_is_quoted(folder):
    words = shlex.split(command_line("python -m experiments.atlas", "--net", folder, "--num-images", 9))
    assert words == ["python", "-m", "experiments.atlas", "--net", str(folder), "--num-images", "9"]


@pytest.mark.parametrize(
    "name", [b"two\nlines", b"no \xff\xfe letters", b"it's a \\ \t", b"-x", b"--net", "Ä".encode()]
)
def test_a_command_is_one_line_that_a_shell_reads_whatever_the_name(name):
    line = command_line("printf '%s '", "--net", Path(os.fsdecode(name)))
    assert line.isprintable()
    read = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert read == b"--net " + b"./" * name.startswith(b"-") + name + b" "


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_command_that_goes_on_with_a_run(folder):
    words = shlex.split(training_log.resume_command(folder))
    assert words == ["python", "-m", "experiments.train_imagenet", "--resume", str(folder)]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_command_that_prepares_a_set(tmp_path, folder):
    with pytest.raises(NotThereError) as raised:
        imagenet.open_imagenet(tmp_path / folder, 64)
    line = str(raised.value).partition("Prepare it: ")[2].partition(". Without data")[0]
    wanted = ["--source", "DIR", "--data-dir", str(tmp_path / folder), "--size", "64"]
    assert shlex.split(line) == ["python", "-m", "experiments.prepare_imagenet", *wanted]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_command_that_trains_on_a_prepared_set(folder):
    result = {
        "fresh": True, "seconds": 1.0, "folder": folder, "counts": {"train": 2, "validation": 2}, "size": 64,
        "class_names": ["a", "b"], "sizes": [64, 256], "skipped": [],
    }  # fmt: skip
    config = prepare_imagenet.Config(data_dir=folder, source=Path("x"))
    words = shlex.split(prepare_imagenet.report(config, result).splitlines()[-1])
    size = ["--data-size", "64", "--preset", "reduced", "--image-size", "56"]
    assert words == ["python", "-m", "experiments.train_imagenet", "--data-dir", str(folder), *size]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_command_that_looks_at_an_import(capsys, folder):
    class Table:
        name = "zfnet"

    weights = {"name": "w.npz", "notes": []}
    facts = {"parity": [], "weights": weights, "folder": folder, "architecture": Table, "num_parameters": 5}
    import_network.report(facts)
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words == ["python", "-m", "experiments.deconv_figures", "--net", str(folder)]
