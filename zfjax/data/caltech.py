"""Caltech-101 and Caltech-256 as their authors distribute them: one folder of pictures per class, or its tar."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from zfjax.data import pictures
from zfjax.data.archives import Photo
from zfjax.data.photo_sets import PhotoSet, fingerprint_of, list_files
from zfjax.errors import UserError
from zfjax.files import is_hidden

FOLDERS = {"caltech101": "101_ObjectCategories", "caltech256": "256_ObjectCategories"}

CALTECH101 = """
    BACKGROUND_Google Faces Faces_easy Leopards Motorbikes accordion airplanes anchor ant barrel bass beaver binocular
    bonsai brain brontosaurus buddha butterfly camera cannon car_side ceiling_fan cellphone chair chandelier cougar_body
    cougar_face crab crayfish crocodile crocodile_head cup dalmatian dollar_bill dolphin dragonfly electric_guitar
    elephant emu euphonium ewer ferry flamingo flamingo_head garfield gerenuk gramophone grand_piano hawksbill headphone
    hedgehog helicopter ibis inline_skate joshua_tree kangaroo ketch lamp laptop llama lobster lotus mandolin mayfly
    menorah metronome minaret nautilus octopus okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster
    saxophone schooner scissors scorpion sea_horse snoopy soccer_ball stapler starfish stegosaurus stop_sign strawberry
    sunflower tick trilobite umbrella watch water_lilly wheelchair wild_cat windsor_chair wrench yin_yang
""".split()  # its 101 categories and the background, as its folders spell them

_NUMBERED = re.compile(r"(\d{3})\..+")  # 056.dog: how Caltech-256 names its 256 categories and 257.clutter


def open_caltech(path: Path | str, name: str) -> PhotoSet:
    """Caltech-101 or Caltech-256 from its folder, from a folder that holds it or its tar, or from the tar.

    Pictures lie in <class>/; deeper folders and files without a picture's ending, of which the official tars hold a
    few, are left alone. Every folder is a class, the background (BACKGROUND_Google, 257.clutter) too. A part of the
    set's classes is taken as it is, but each must be one of them: no other set passes for this one.

    Args:
      path: 101_ObjectCategories, a folder above it, or 101_ObjectCategories.tar, not compressed.
      name: "caltech101" or "caltech256".

    Raises:
      FileNotFoundError: nothing at `path`.
      UserError: no class folders or only one, one without pictures, a class that the set does not have, or a tar
        that is not complete.

    Examples:
      photos = caltech.open_caltech("101_ObjectCategories.tar", "caltech101")
      len(photos.photos), photos.class_names[:3]
    """
    if name not in FOLDERS:
        raise UserError(f"name={name!r}: one of {', '.join(FOLDERS)} is needed")
    root = _find(Path(path), FOLDERS[name])
    files = _below(list_files(root), root, name)
    photos = tuple(file for inside, file in files.items() if _is_picture(inside))
    class_names = tuple(sorted({photo.folder for photo in photos}))
    if not class_names:
        raise UserError(f"{root} has no class folders: <class>/*.jpg is needed, one folder of pictures per class")
    if root.is_dir():
        for below in sorted(root.iterdir()):
            if below.is_dir() and not is_hidden(below.name) and below.name not in class_names:
                raise UserError(f"{below} has no pictures ({' '.join(pictures.ENDINGS)})")
    for folder in class_names:
        if not _IS_CLASS[name](folder):
            raise UserError(f"{root} holds the class {folder!r}, which is not a name of {name}: is it another set?")
    same = Counter(folder[:3] if name == "caltech256" else folder.lower() for folder in class_names).most_common(1)
    if same[0][1] > 1:
        raise UserError(f"{root} holds two folders of the class {same[0][0]!r}: one is needed")
    if len(class_names) == 1:
        raise UserError(f"{root} holds the class {class_names[0]!r} alone: at least two are needed to tell them apart")
    number = {folder: label for label, folder in enumerate(class_names)}
    labels = np.array([number[photo.folder] for photo in photos], np.int32)
    return PhotoSet(name, class_names, photos, labels, {}, fingerprint_of(photos, labels, class_names))


def _find(path: Path, folder: str) -> Path:
    """The folder or tar of the set in `path`, or `path` itself."""
    return next((place for place in (path / folder, path / f"{folder}.tar") if place.exists()), path)


def _below(files: dict[str, Photo], root: Path, name: str) -> dict[str, Photo]:
    """The files by their path below the set's own folder, which a tar names and a folder does not."""
    first = {inside.split("/")[0] for inside in files}
    for other, folder in FOLDERS.items():
        if folder in first and other != name:
            raise UserError(f"{root} holds {folder}, which is {other}, not {name}")
    return {inside.removeprefix(f"{FOLDERS[name]}/"): file for inside, file in files.items()}


def _is_picture(inside: str) -> bool:
    return inside.count("/") == 1 and inside.lower().endswith(pictures.ENDINGS)


def _is_numbered(folder: str) -> bool:
    match = _NUMBERED.fullmatch(folder)
    return match is not None and 1 <= int(match[1]) <= 257


_SPELT_ALIKE = {folder.lower() for folder in CALTECH101}  # some copies write all in small letters
_IS_CLASS = {"caltech101": lambda folder: folder.lower() in _SPELT_ALIKE, "caltech256": _is_numbered}
