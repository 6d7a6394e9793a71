"""The house: what linters cannot say. Layout, imports, private names and docstrings are rules of ruff, import-linter
and mypy (pyproject.toml), which `.ci/run` and pre-commit run."""

import ast
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:work|home|root|opt|Users|mnt|scratch|srv|tmp)/\w")
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".cfg", ".txt", ".json"}


def test_no_file_names_a_path_of_one_machine():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    files = [ROOT / name for name in listed.stdout.splitlines() if pathlib.Path(name).suffix in TEXT]
    assert files
    assert not [str(path) for path in files if path.exists() and MACHINE_PATH.search(path.read_text())]


def private_imports(source):
    """Private names that a program imports from the house.

    Ruff's PLC2701 lets a package import its own private names, and import-linter knows modules, not names.
    """
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in nodes if node.level or node.module.split(".")[0] in ("zfjax", "experiments")]
    return [name.name for node in ours for name in node.names if re.match(r"_(?!_)", name.name)]


@pytest.mark.parametrize(
    "imported", ["from zfjax.ops import _conv", "from zfjax.ops import (\n    conv,\n    _conv,\n)"]
)
def test_a_private_import_is_seen(imported):
    assert private_imports(imported) == ["_conv"]


def test_no_file_imports_a_private_name_of_another():
    files = sorted(path for room in ("zfjax", "experiments") for path in (ROOT / room).rglob("*.py"))
    assert files
    assert not [str(path) for path in files if private_imports(path.read_text())]


def empty_names(source):
    """(line, name) of what is called by having been met, and not by what it is: found, seen, shown, told."""
    stored = [
        (node.lineno, node.arg if isinstance(node, ast.arg) else node.id)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    ]
    return [one for one in stored if {"found", "seen", "shown", "told"} & set(one[1].split("_"))]


def test_an_empty_name_is_noticed():
    source = "def f(shown, *, kept):\n    found_maps = shown\n    maps = found_maps\n"
    assert sorted(empty_names(source)) == [(1, "shown"), (2, "found_maps")]


@pytest.mark.parametrize("room", ["zfjax", "experiments"])
def test_names_say_what_a_thing_is(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    assert not {str(path): names for path in files if (names := empty_names(path.read_text()))}
