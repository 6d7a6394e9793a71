"""The reference: every public name of the package is on one of its pages."""

import importlib
import pkgutil
import re
import types
from pathlib import Path

import pytest

import zfjax
from zfjax import anymodel

DOCS = Path(__file__).parents[2] / "docs"
MODULES = [
    module
    for page in sorted((DOCS / "reference").glob("*.md"))
    for module in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
]
# What only the package itself calls: the command line, and what the engine and the atlas are made of
INSIDE = {"cli", "leaving", "__main__", "anymodel", "atlas"}


def home_of(name):
    """The module that a public name is, or stands in."""
    thing = getattr(zfjax, name)
    if isinstance(thing, types.ModuleType):
        return thing.__name__
    return type(thing).__module__ if isinstance(thing, zfjax.Architecture) else thing.__module__


@pytest.mark.parametrize("name", zfjax.__all__)
def test_a_public_name_is_on_a_page(name):
    home = home_of(name)
    assert any(module == home or module.startswith(f"{home}.") for module in MODULES)


@pytest.mark.parametrize("name", anymodel.__all__)
def test_a_public_name_of_the_engine_is_on_a_page(name):
    assert getattr(anymodel, name).__module__ in MODULES


def test_every_file_of_the_open_rooms_is_on_one_page():
    rooms = [room for room in pkgutil.iter_modules(zfjax.__path__) if room.name not in INSIDE]
    files = {f"zfjax.{room.name}" for room in rooms if not room.ispkg}
    for room in rooms:
        if room.ispkg:
            path = importlib.import_module(f"zfjax.{room.name}").__path__
            files |= {f"zfjax.{room.name}.{file.name}" for file in pkgutil.iter_modules(path)}
    inside = {"zfjax.data.tfds_records", "zfjax.data.processes"}
    inside |= {f"zfjax.pretrained.{name}" for name in ("torch_files", "array_files", "onnx_files", "pictures", "words")}
    assert files - inside == {module for module in MODULES if module.split(".")[1] not in INSIDE} - {"zfjax.data"}
    assert len(set(MODULES)) == len(MODULES)
