"""Extras: the core does without them, and what needs one says so in a line that names it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zfjax import extras

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALL = [package for name, packages in extras.EXTRAS.items() if name != "bench" for package in packages]
ALL += [package for packages in extras.FASTER.values() for package in packages]


@pytest.fixture
def run_without(tmp_path):
    """fn(packages, *arguments) -> the finished Python process, in which these packages cannot be imported."""

    def run(packages, *arguments):
        (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({list(packages)}))\n")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("name", extras.EXTRAS)
def test_the_packages_of_an_extra_are_those_that_the_project_installs(name):
    installed = [re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["optional-dependencies"][name]]
    named = (*extras.EXTRAS[name], *extras.FASTER.get(name, ()))
    assert sorted(named) == sorted(package.replace("-", "_") for package in installed)


def test_no_extra_is_a_dependency_of_the_core():
    core = {re.match(r"[\w-]+", requirement)[0].replace("-", "_") for requirement in PROJECT["dependencies"]}
    assert core and not core & set(ALL)


def test_another_package_that_is_missing_keeps_its_error():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), extras.extra("train"):
        import no_such_package  # noqa: F401


def test_without_any_extra_every_room_of_the_library_opens(run_without):
    code = (
        "import importlib, pkgutil, zfjax\n"
        "names = {module.name for module in pkgutil.walk_packages(zfjax.__path__, 'zfjax.')}\n"
        "for name in names - {'zfjax.data.imagenet_builder', 'zfjax.__main__'}: importlib.import_module(name)\n"
        "print(len(names) > 90)\n"
    )
    done = run_without(ALL, "-c", code)
    assert done.stdout == "True\n", done.stderr


def test_without_training_s_extra_every_command_opens(run_without):
    code = (
        "import importlib, pkgutil, experiments\n"
        "names = {module.name for module in pkgutil.walk_packages(experiments.__path__, 'experiments.')}\n"
        "for name in names - {'experiments.shell.torch_twin'}: importlib.import_module(name)\n"
        "print(len(names) > 50)\n"
    )
    done = run_without(extras.EXTRAS["train"], "-c", code)
    assert done.stdout == "True\n", done.stderr


def test_without_any_extra_a_folder_of_pictures_is_looked_through(run_without, tmp_path):
    for number in range(3):
        Image.fromarray(np.full((9, 9, 3), 80 * number, np.uint8)).save(tmp_path / f"{number}.png")
    code = (
        "import zfjax\n"
        "from zfjax.data import archives, loader, sets\n"
        "net = zfjax.FunctionNet(lambda images: {'mean': images.mean((1, 2))}, image_size=4, name='mean')\n"
        "batches = loader.eval_batches(sets.open_images('.', net).validation, batch_size=2)\n"
        "print([batch['index'].tolist() for batch in batches], archives.class_words(['n03445777']))\n"
    )
    done = run_without(ALL, "-c", code)
    assert done.stdout == "[[0, 1], [2, -1]] ('golf ball',)\n", done.stderr


CALLS = {  # what needs a package: the package
    "loader.train_batches(source, batch_size=1, seed=0, num_epochs=1)": "grain",
    "loader.eval_batches(source, batch_size=1, num_workers=1)": "grain",
    "imagenet.RecordSource((('a', 1),), size=8, num_classes=2)": "array_record",
    "tfds_records.parse(b'')": "tensorflow_datasets",
    "from zfjax.data import imagenet_builder": "tensorflow_datasets",
}


def test_a_call_that_needs_training_s_extra_names_it(run_without):
    """All of them in one process, from which a package goes before the call that needs it and comes back after it."""
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from zfjax.data import ArraySource, imagenet, loader, tfds_records\n"
        "source = ArraySource(np.zeros((2, 3, 3, 3), np.uint8), np.zeros(2, int))\n"
        f"for call, package in {CALLS!r}.items():\n"
        "    sys.modules[package] = None\n"
        "    try: exec(call)\n"
        "    except ImportError as error: print(type(error).__name__, error)\n"
        "    del sys.modules[package]\n"
    )
    done = run_without([], "-c", code)
    assert done.stdout.splitlines() == [
        f"MissingExtraError {package} is not installed: `pip install 'zfjax[train]'` brings it, "
        "or in a checkout `pip install -e '.[train]'`"
        for package in CALLS.values()
    ], done.stderr


@pytest.mark.parametrize(
    ("missing", "extra", "command"),
    [
        ("tyro", "figures", ["deconv_figures"]),
        ("matplotlib", "figures", ["atlas", "--help"]),
        ("tensorflow_datasets", "train", ["prepare_imagenet", "--source", ".", "--data-dir", "data"]),
        ("grain", "train", ["train_imagenet", "--preset", "demo"]),
    ],
)
def test_a_command_whose_extra_is_missing_says_so_in_one_line_and_writes_nothing(
    run_without, tmp_path, missing, extra, command
):
    name, *flags = command
    done = run_without([missing], "-m", f"experiments.{name}", *flags)
    assert done.returncode == 1 and re.fullmatch(
        rf"error: {missing} is not installed: .*zfjax\[{extra}\].*\n", done.stderr
    )
    assert {path.name for path in tmp_path.iterdir()} <= {"sitecustomize.py", "__pycache__"}
