"""The package: what pyproject.toml says of it is what lies here. `.ci/package` builds, installs and uses it."""

import fnmatch
import importlib
import re
import tomllib
from pathlib import Path

import zfjax

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_file_of_the_library_that_is_no_program_is_named_as_package_data():
    named = PYPROJECT["tool"]["setuptools"]["package-data"]
    patterns = [f"{package.replace('.', '/')}/{pattern}" for package, of in named.items() for pattern in of]
    files = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "zfjax").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert [file for file in files if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)] == []
    assert all(any(fnmatch.fnmatch(file, pattern) for file in files) for pattern in patterns)


def test_the_library_alone_is_installed():
    assert PYPROJECT["tool"]["setuptools"]["packages"]["find"] == {"include": ["zfjax*"]}


def test_every_folder_of_the_library_is_a_package():
    folders = {path.parent for path in (ROOT / "zfjax").rglob("*.py")}
    assert len(folders) > 5 and all((folder / "__init__.py").exists() for folder in folders)


def test_the_command_is_there():
    module, _, name = PYPROJECT["project"]["scripts"]["zfjax"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_all_is_training_and_figures():
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert extras["all"] == ["zfjax[train,figures]"] and "zfjax[all]" in extras["test"]


def test_the_description_on_an_index_links_to_no_file_of_the_checkout():
    text = (ROOT / PYPROJECT["tool"]["setuptools"]["dynamic"]["readme"]["file"]).read_text()
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets and all(target.startswith("https://") for target in targets)


def test_the_citation_and_the_changelog_are_of_this_version():
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == zfjax.__version__
    headings = re.findall(r"^## \[(.*?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert all(
        re.fullmatch(r"\d+\.\d+\.\d+", name) and re.fullmatch(r" - \d{4}-\d\d-\d\d", date)
        for name, date in headings[1:]
    )
    assert not headings[1:] or headings[1][0] == zfjax.__version__


def test_the_forge_runs_the_versions_that_ci_runs():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert set(re.findall(r'python: "(.*?)"', workflow)) == set(
        re.findall(r"interpreter python(3\.\d+)", (ROOT / ".ci" / "versions").read_text())
    )
    ci = (ROOT / ".ci" / "run").read_text()
    for command in ("ruff check .", "ruff format --check .", "mypy", "lint-imports", ".ci/package", ".ci/docs"):
        assert re.search(rf"- run: (.* && )?{re.escape(command)}$", workflow, re.MULTILINE)
        assert re.search(rf"^(\.venv/bin/)?{re.escape(command)}$", ci, re.MULTILINE)
