"""The reference: every public name is on one of its pages, says what it takes and gives, and shows it."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import zfjax
from zfjax import anymodel

DOCS = Path(__file__).parents[2] / "docs"
ENTRY = re.compile(r"^::: (\S+)\n    options:\n      members: \[(.*)\]$", re.MULTILINE)
SHOWN = [
    (module, name)
    for page in sorted((DOCS / "reference").glob("*.md"))
    for module, names in ENTRY.findall(page.read_text())
    for name in names.split(", ")
]
IDS = [f"{module.removeprefix('zfjax.')}.{name}" for module, name in SHOWN]
HEAVY = {  # they compile a network, or look for prepared data
    *"ConvNet forward isolate project project_windows project_places gradient guided_backprop maximize curves".split(),
    *"relative project_and_cut sign_changes probabilities_of cascade init_state LayerTrace read_views".split(),
    *"fit fit_chosen errors_of_functions neuron_tops choose_maps TopActivations update alive occlude".split(),
    *"demo_images demo_set render DemoSource open_images colours_of warp scan filler".split(),
}


def thing_of(module, name):
    return getattr(importlib.import_module(module), name)


def text_of(module, name):
    return inspect.getdoc(thing_of(module, name)) or ""


def test_every_page_lists_what_it_shows_and_no_name_is_shown_twice():
    entries = [
        line for page in (DOCS / "reference").glob("*.md") for line in re.findall("^:::.*", page.read_text(), re.M)
    ]
    assert len(entries) == len({module for module, _ in SHOWN}) > 40
    assert len(set(SHOWN)) == len(SHOWN) > 150


def test_a_page_s_module_can_be_imported_from_its_room():
    """In a process of its own: a module that was imported before hides what else the room calls by its name."""
    modules = sorted({module for module, _ in SHOWN})
    code = "".join(
        f"from {'.'.join(m.split('.')[:-1])} import {m.split('.')[-1]} as m; print(m.__name__)\n" for m in modules
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == modules, done.stderr


@pytest.mark.parametrize("name", zfjax.__all__)
def test_a_public_name_is_on_a_page(name):
    thing = getattr(zfjax, name)
    if isinstance(thing, types.ModuleType):
        assert any(module == thing.__name__ or module.startswith(f"{thing.__name__}.") for module, _ in SHOWN)
    else:
        home = type(thing).__module__ if isinstance(thing, zfjax.Architecture) else thing.__module__
        assert (home, name) in SHOWN


@pytest.mark.parametrize("name", anymodel.__all__)
def test_a_public_name_of_the_engine_is_on_a_page(name):
    assert (getattr(anymodel, name).__module__, name) in SHOWN


@pytest.mark.parametrize(("module", "name"), SHOWN, ids=IDS)
def test_what_is_shown_says_what_it_takes_and_how_it_is_used(module, name):
    """A function has an example; a class has one, or says what its fields are."""
    thing, text = thing_of(module, name), text_of(module, name)
    assert not name.startswith("_") and text
    if isinstance(thing, type):
        fields = [field for field in getattr(thing, "__annotations__", {}) if not field.startswith("_")]
        source = inspect.getsource(thing)
        said = [
            field for field in fields if re.search(rf"^    {field}: .*  # |^\s+(\w+, )*{field}(, \w+)*: ", source, re.M)
        ]
        assert ">>>" in text or "Args:" in text or len(said) >= len(fields) / 2
    elif callable(thing):
        assert "Examples:" in text


@pytest.mark.parametrize(("module", "name"), SHOWN, ids=IDS)
def test_no_text_of_what_is_shown_reads_as_a_link_of_markdown(module, name):
    """`[a][b]` outside of code: mkdocs looks for b, and a strict build fails."""
    text = re.sub(r"Examples:\n(  .*\n?|\n)*|`[^`]*`", "", text_of(module, name))
    assert "][" not in text


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(module, name, id=id, marks=[pytest.mark.slow] if name in HEAVY else [])
        for (module, name), id in zip(SHOWN, IDS, strict=True)
        if ">>>" in text_of(module, name)
    ],
)
def test_the_examples_of_a_name_hold(module, name):
    test = doctest.DocTestParser().get_doctest(text_of(module, name), {}, name, None, 0)
    said = []
    assert not doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append).failed, "".join(said)


def test_what_guides_and_tutorials_use_is_shown():
    pages = [*DOCS.rglob("*.md"), *DOCS.glob("tutorials/*.py"), DOCS.parent / "README.md"]
    used = {use for page in pages for use in re.findall(r"\bzfjax\.([a-z_]+)\.([A-Za-z_]+)\(", page.read_text())}
    rooms = {room: getattr(zfjax, room) for room, _ in used if isinstance(getattr(zfjax, room, None), types.ModuleType)}
    assert len(rooms) > 5
    for room, name in used:
        if room in rooms and hasattr(rooms[room], name):
            assert (thing_of(rooms[room].__name__, name).__module__, name) in SHOWN, f"{room}.{name}"
