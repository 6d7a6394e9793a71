"""The pages: what they print runs, and what they name is there."""

import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from saved_runs import save_run

import zfjax

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "PACKAGE.md", *sorted(DOCS.rglob("*.md"))]
FRAMEWORKS = ("equinox", "haiku", "keras")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    """What stands between ```language and ```, at any indentation."""
    text = page.read_text()
    for indent, block in re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        yield re.sub(f"^{indent}", "", block, flags=re.MULTILINE)


def commands():
    """[page, command as words] of every command of ours in every page, in ```sh blocks and inline."""
    for page in PAGES:
        lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", "").splitlines()]
        for line in lines + re.findall(r"`(python -m experiments\.[^`]+|zfjax [a-z]+ [^`]+)`", page.read_text()):
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words[1:2] == ["-m"] and words[2].startswith("experiments.") or words[:1] == ["zfjax"]:
                    yield name_of(page), words


def flags_by_command():
    """{(module, what stands before the flags): the flags that some page prints}."""
    found = {}
    for _, words in commands():
        command = ("zfjax", words[1]) if words[0] == "zfjax" else (words[2],)
        # a benchmark's flags are those of what is measured
        command += (words[3],) if command[0] == "experiments.benchmark" and words[3:] else ()
        found.setdefault(command, set()).update(word.split("=")[0] for word in words if word.startswith("--"))
    return found


PYTHON = [page for page in PAGES if any(blocks(page, "python"))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs: `zfnet` is a narrow one of the paper's network, with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64, fc8=3)
    net = zfjax.ConvNet(table, kernel_init=jax.nn.initializers.he_normal())
    params = jax.tree.map(np.asarray, net.init(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))["params"])
    mean = np.full((72, 72, 3), 120, np.float32)
    save_run(folder / "zfnet", table, {1: params}, mean, class_names=("cat", "dog", "owl"), data="demo:72:16:16")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=name_of)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, runs, monkeypatch):
    """In one namespace, in a folder with photos and a run; what needs a framework that is not here is left out."""
    (tmp_path / "runs").symlink_to(runs)
    photos = tmp_path / "PHOTOS"
    for number in range(6):
        array = np.random.default_rng(number).integers(0, 256, (80, 96, 3), np.uint8)
        folder = photos / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"__name__": "page"}
    for block in blocks(page, "python"):
        needed = [name for name in FRAMEWORKS if re.search(rf"^import {name}\b", block, re.MULTILINE)]
        if all(importlib.util.find_spec(name) for name in needed):
            with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # as a reader's JAX
                exec(compile(block, str(page), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(flags_by_command()), ids=" ".join)
def test_the_flags_of_a_printed_command_exist(command, monkeypatch, capsys):
    module, *words = command
    monkeypatch.setattr(sys, "argv", [module, *words, "--help"])
    monkeypatch.setenv("COLUMNS", "250")  # no flag is broken in two
    monkeypatch.delitem(sys.modules, module if module != "zfjax" else "zfjax.__main__", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)  # `python -m`, without a process for each
    assert not ended.value.code
    assert flags_by_command()[command] <= set(re.findall(r"--[a-z0-9][a-z0-9-]*", capsys.readouterr().out))


def test_printed_commands_are_there():
    modules = {words[2] for _, words in commands() if words[0] != "zfjax"}
    assert len(modules) > 10
    assert not [module for module in modules if not (ROOT / f"{module.replace('.', '/')}.py").exists()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_links_to_is_there(page):
    """Pictures and pages; those of tutorials are made of scripts."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http:", "https:")):
            path = page.parent / target
            assert path.exists() or path.with_suffix(".py").exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_line_of_a_page_names_a_module_that_is_gone(page):
    for room in re.findall(r"`zfjax/([\w/]+\.py)`", page.read_text()):
        assert (ROOT / "zfjax" / room).exists(), room


def test_every_function_that_the_paper_s_page_names_is_in_its_file():
    text = (DOCS / "paper.md").read_text()
    named = [
        (name, path)
        for names, path in re.findall(r"((?:`\w+`,? )+)in\s+`(\w+/[\w/]+\.py)`", text)
        for name in re.findall(r"\w+", names)
    ]
    assert len(named) > 15
    assert not [(name, path) for name, path in named if f"def {name}(" not in (ROOT / path).read_text()]
