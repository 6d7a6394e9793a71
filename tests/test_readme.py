"""README: its library example runs as printed, its commands exist, its test command is what CI runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_library_example_runs_as_printed():
    example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]  # all of them: tests/docs/test_pages.py
    found = subprocess.run([sys.executable, "-W", "error", "-c", example + "print(pixels.shape)"], capture_output=True)
    assert found.stdout.decode() == "(2, 224, 224, 3)\n", found.stderr.decode()
    assert len([line for line in example.splitlines() if line and not line.startswith("import")]) <= 10


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = [line for line in README.splitlines() if "venv" in line and "pytest" in line]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"-m (experiments\.\w+)", README))))
def test_commands_of_the_readme_exist(module):
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()


def test_pictures_of_the_readme_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).exists(), path


def test_the_readme_stays_short():
    assert len(README.splitlines()) < 150
