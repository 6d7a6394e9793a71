"""What `import zfjax` gives: every public name, nothing else, and nothing heavy before it is used."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zfjax

README = (Path(__file__).parents[2] / "README.md").read_text()
HEAVY = ("orbax", "grain", "tensorflow_datasets", "matplotlib", "array_record", "tyro")
ROOMS = re.findall(r"`(?:zfjax\.)?(\w+)`", "".join(re.findall(r"^\| (`zfjax\..*?) \|", README, re.MULTILINE)))


def run(code):
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("name", zfjax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(zfjax, name).__doc__


def test_rooms_of_the_readme_work_after_import_zfjax_alone():
    assert len(ROOMS) >= 16
    assert run(f"import zfjax\nprint(*(getattr(zfjax, name).__name__ for name in {ROOMS}))")


def test_importing_the_package_imports_nothing_heavy():
    loaded = run("import sys, zfjax\nprint(*sorted(sys.modules))")
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]


def test_dir_lists_the_public_names_alone():
    assert run("import zfjax\nprint(*dir(zfjax))") == sorted([*zfjax.__all__, "__version__"])


KEYWORDED = [
    name
    for name in zfjax.__all__
    if inspect.isfunction(fn := getattr(zfjax, name))
    and not any(one.kind is one.VAR_POSITIONAL for one in inspect.signature(fn).parameters.values())
    and any(one.kind is one.KEYWORD_ONLY for one in inspect.signature(fn).parameters.values())
]


@pytest.mark.parametrize("name", KEYWORDED)
def test_a_call_by_position_says_in_words_what_is_a_keyword(name):
    fn = getattr(zfjax, name)
    flowing = [one for one in inspect.signature(fn).parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    with pytest.raises(zfjax.UserError, match=rf"{name}\(.*\) and 1 more by position: \w+="):
        fn(*[None] * (len(flowing) + 1))


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(AttributeError, match="module 'zfjax' has no attribute 'deconvolve'; it has ALEXNET"):
        _ = zfjax.deconvolve


def test_renormalize_is_the_function_and_hides_no_module():
    assert inspect.isfunction(zfjax.renormalize)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("zfjax.renormalize")


def test_names_that_moved_to_another_room_still_work():
    from zfjax import inner_products, occlusion, part_masks, training

    assert inner_products.gram_matrix is zfjax.linear_models.gram_matrix
    assert part_masks.mask_squares is zfjax.correspondence.mask_squares
    assert (occlusion.sweep, training.make_train_step) == (zfjax.occlusion.sweep, zfjax.training.make_train_step)


def test_the_version_is_that_of_the_package():
    assert zfjax.__version__ == importlib.metadata.version("zfjax")
