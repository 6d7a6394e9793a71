"""The house: what linters cannot say. Layout, imports, private names and docstrings are rules of ruff, import-linter
and mypy (pyproject.toml), which `.ci/run` and pre-commit run."""

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
