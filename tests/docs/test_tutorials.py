"""The tutorials run from top to bottom, on small settings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"
SCRIPTS = sorted(TUTORIALS.glob("*.py"))


def in_small(text):
    """`NUM, SIZE = 96, 64  # small: 4, 48` with what stands behind it."""
    return re.sub(r"= .*  # small: (.*)", r"= \1", text)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_tutorial_runs(script, tmp_path):
    text = script.read_text()
    assert in_small(text) != text
    (tmp_path / "tutorial.py").write_text(in_small(text))
    done = subprocess.run([sys.executable, "tutorial.py"], cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-3000:]


def test_there_are_five_tutorials_whose_pictures_are_there():
    assert [script.stem[0] for script in SCRIPTS] == list("12345")
    for script in SCRIPTS:
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", script.read_text()):
            assert (TUTORIALS / picture).exists(), picture
