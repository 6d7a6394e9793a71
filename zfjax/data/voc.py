"""PASCAL VOC 2012's classification task as its authors distribute it: the VOCdevkit folder, or its tar."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from zfjax.data.archives import Photo
from zfjax.data.photo_sets import PhotoSet, fingerprint_of, list_files

SPLITS = ("train", "val")  # those whose labels are public
_ROOTS = ("VOCdevkit/VOC2012/", "VOC2012/", "")

Labels = dict[str, dict[str, int]]  # photo -> class -> 1, -1 or 0


def open_voc(path: Path) -> PhotoSet:
    """The photos of VOC 2012's splits train and val with what they show.

    A label is 1 where an object of the class is shown, -1 where none is, and 0 where all of them are marked as
    difficult: such a photo is left out of that class, in training and in the average precision, as in the devkit.
    Labels are those of ImageSets/Main/<class>_<split>.txt; where these files are not there, of Annotations.

    Args:
      path: VOCdevkit, VOC2012 or a folder above them; or VOCtrainval_11-May-2012.tar.
    Raises:
      FileNotFoundError: nothing at `path`.
      ValueError: no lists of train and val; a photo, label or annotation that is missing; labels of other photos.
    """
    files = list_files(Path(path))
    root = next((root for root in _ROOTS if f"{root}ImageSets/Main/train.txt" in files), None)
    if root is None:
        raise ValueError(f"{path} has no VOCdevkit/VOC2012/ImageSets/Main/train.txt: is it VOC 2012?")
    files = {name.removeprefix(root): file for name, file in files.items() if name.startswith(root)}
    names = {split: [line[0] for line in _lines(files, f"ImageSets/Main/{split}.txt")] for split in SPLITS}
    classes = _classes(files)
    shown: Labels = {}
    for split in SPLITS:
        shown |= _listed(files, classes, split, names[split]) if classes else _annotated(files, names[split])
    class_names = tuple(classes or sorted({name for labels in shown.values() for name in labels}))
    if not class_names:
        raise ValueError(f"{path} has no classes: neither ImageSets/Main/<class>_train.txt nor objects in Annotations")
    everything = [name for split in SPLITS for name in names[split]]
    labels = np.array([[shown[name].get(c, -1) for c in class_names] for name in everything], np.int8)
    photos = tuple(_file(files, f"JPEGImages/{name}.jpg") for name in everything)
    bounds = np.arange(len(everything))
    splits = {"train": bounds[: len(names["train"])], "val": bounds[len(names["train"]) :]}
    return PhotoSet("voc2012", class_names, photos, labels, splits, fingerprint_of(photos, labels, class_names))


def _classes(files: dict[str, Photo]) -> list[str]:
    """The classes that have a list of their own."""
    lists = (name.removeprefix("ImageSets/Main/") for name in files if name.startswith("ImageSets/Main/"))
    return sorted(name.removesuffix("_train.txt") for name in lists if name.endswith("_train.txt"))


def _listed(files: dict[str, Photo], classes: list[str], split: str, names: list[str]) -> Labels:
    """The labels of one split from the lists of its classes."""
    shown: Labels = {name: {} for name in names}
    for label in classes:
        inside = f"ImageSets/Main/{label}_{split}.txt"
        lines = {line[0]: line[-1] for line in _lines(files, inside)}
        if lines.keys() != shown.keys():
            other = sorted(lines.keys() ^ shown.keys())[0]
            raise ValueError(f"{inside} does not list the photos of {split}.txt ({other}): labels of another set?")
        for name, value in lines.items():
            if value not in ("1", "-1", "0"):
                raise ValueError(f"{inside} gives {name} the label {value!r}: 1, -1 or 0 is needed")
            shown[name][label] = int(value)
    return shown


def _annotated(files: dict[str, Photo], names: list[str]) -> Labels:
    """The labels of photos from the objects in their annotations."""
    shown: Labels = {}
    for name in names:
        objects = ElementTree.fromstring(_file(files, f"Annotations/{name}.xml").read()).findall("object")
        easy = [(thing.findtext("name", ""), thing.findtext("difficult", "0") != "1") for thing in objects]
        shown[name] = {label: int((label, True) in easy) for label, _ in easy}
    return shown


def _lines(files: dict[str, Photo], inside: str) -> list[list[str]]:
    """The words of each line of a text file, which are at least one."""
    return [line.split() for line in _file(files, inside).read().decode().splitlines() if line.strip()]


def _file(files: dict[str, Photo], inside: str) -> Photo:
    if inside not in files:
        raise ValueError(f"VOC2012/{inside} is missing")
    return files[inside]
