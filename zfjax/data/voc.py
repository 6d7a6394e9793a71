"""PASCAL VOC 2012's classification task as its authors distribute it: the VOCdevkit folder, or its tar."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np

from zfjax.data.archives import Photo
from zfjax.data.photo_sets import PhotoSet, fingerprint_of, list_files
from zfjax.errors import UserError

SPLITS = ("train", "val")  # those whose labels are public
_ROOTS = ("VOCdevkit/VOC2012/", "VOC2012/", "")
_NAME = re.compile(r"20\d\d_\d+")  # 2008_000002: in VOC 2007 photos had a number alone
_CLASS_LIST = re.compile(r"ImageSets/Main/([^/]+)_(train|val|trainval)\.txt")
Labels = dict[str, dict[str, int]]  # photo -> class -> 1, -1 or 0


def open_voc(path: Path | str) -> PhotoSet:
    """The photos of VOC 2012's splits train and val with what they show.

    A label is 1 where an object of the class is shown, -1 where none is, and 0 where all of them are marked as
    difficult: such a photo is left out of that class, in training and in the average precision, as in the devkit.
    Labels are those of ImageSets/Main/<class>_<split>.txt; where these files are not there, of Annotations.

    Args:
      path: VOCdevkit, VOC2012 or a folder above them; or VOCtrainval_11-May-2012.tar.

    Raises:
      FileNotFoundError: nothing at `path`.
      UserError: no lists of train and val; a photo, list, label or annotation that is missing or damaged; a photo
        that is listed twice; labels of other photos; VOC of another year.

    Examples:
      photos = voc.open_voc("VOCtrainval_11-May-2012.tar")
      photos.labels.shape, photos.splits.keys()
    """
    files = list_files(Path(path))
    root = next((root for root in _ROOTS if f"{root}ImageSets/Main/train.txt" in files), None)
    if root is None:
        raise UserError(f"{path} has no VOCdevkit/VOC2012/ImageSets/Main/train.txt: is it VOC 2012?")
    files = {name.removeprefix(root): file for name, file in files.items() if name.startswith(root)}
    names = _names(files)
    _check_year(files, names["train"][0])
    classes = _classes(files)
    labels_of: Labels = {}
    for split in SPLITS:
        labels_of |= (
            _listed(files, classes, split=split, names=names[split]) if classes else _annotated(files, names[split])
        )
    class_names = tuple(classes or sorted({name for labels in labels_of.values() for name in labels}))
    if not class_names:
        raise UserError(f"{path} has no classes: neither ImageSets/Main/<class>_train.txt nor objects in Annotations")
    everything = [name for split in SPLITS for name in names[split]]
    labels = np.array([[labels_of[name].get(c, -1) for c in class_names] for name in everything], np.int8)
    photos = tuple(_file(files, f"JPEGImages/{name}.jpg") for name in everything)
    bounds = np.arange(len(everything))
    splits = {"train": bounds[: len(names["train"])], "val": bounds[len(names["train"]) :]}
    return PhotoSet("voc2012", class_names, photos, labels, splits, fingerprint_of(photos, labels, class_names))


def _names(files: dict[str, Photo]) -> dict[str, list[str]]:
    """The photos of train and of val; none is listed twice, in one of them or in both."""
    names: dict[str, list[str]] = {}
    listed: set[str] = set()
    for split in SPLITS:
        inside = f"ImageSets/Main/{split}.txt"
        names[split] = [line[0] for line in _lines(files, inside)]
        if not names[split]:
            raise UserError(f"VOC2012/{inside} lists no photo")
        for name in names[split]:
            if name in listed:
                raise UserError(f"VOC2012/{inside} lists {name} again: a photo stands once, in train or in val")
            listed.add(name)
    return names


def _check_year(files: dict[str, Photo], name: str) -> None:
    """UserError where the photo's name, or the folder that its annotation names, is another year's."""
    if not _NAME.fullmatch(name):
        raise UserError(f"train.txt lists {name!r}, not <year>_<number> as in VOC 2012: is it VOC 2007?")
    annotation = f"Annotations/{name}.xml"
    year = _annotation(files, annotation).findtext("folder", "VOC2012") if annotation in files else "VOC2012"
    if year != "VOC2012":
        raise UserError(f"{annotation} is of {year}: VOC2012 is needed")


def _classes(files: dict[str, Photo]) -> list[str]:
    """The classes that have any list of their own; `_listed` needs both of each."""
    return sorted({match[1] for match in map(_CLASS_LIST.fullmatch, files) if match})


def _listed(files: dict[str, Photo], classes: list[str], *, split: str, names: list[str]) -> Labels:
    """The labels of one split from the lists of its classes."""
    labels: Labels = {name: {} for name in names}
    for label in classes:
        inside = f"ImageSets/Main/{label}_{split}.txt"
        lines = _lines(files, inside)
        listed, wanted = Counter(line[0] for line in lines), Counter(names)
        if listed != wanted:
            other = min((listed - wanted) + (wanted - listed))
            raise UserError(f"{inside} does not list the photos of {split}.txt ({other}), each once: of another set?")
        for name, *values in lines:
            value = " ".join(values)
            if value not in ("1", "-1", "0"):
                raise UserError(f"{inside} gives {name} the label {value!r}: 1, -1 or 0 is needed")
            labels[name][label] = int(value)
    return labels


def _annotated(files: dict[str, Photo], names: list[str]) -> Labels:
    """The labels of photos from the objects in their annotations."""
    labels: Labels = {}
    for name in names:
        inside = f"Annotations/{name}.xml"
        objects = _annotation(files, inside).findall("object")
        easy = [(thing.findtext("name", ""), thing.findtext("difficult", "0") != "1") for thing in objects]
        if not all(label for label, _ in easy):
            raise UserError(f"VOC2012/{inside} has an object without a name")
        labels[name] = {label: int((label, True) in easy) for label, _ in easy}
    return labels


def _annotation(files: dict[str, Photo], inside: str) -> ElementTree.Element:
    data = _file(files, inside).read()
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: of the encoding it names
        raise UserError(f"VOC2012/{inside} is damaged ({error}): unpack it again") from error


def _lines(files: dict[str, Photo], inside: str) -> list[list[str]]:
    """The words of each line of a text file, which are at least one."""
    try:
        text = _file(files, inside).read().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"VOC2012/{inside} is damaged ({error}): unpack it again") from error
    return [line.split() for line in text.splitlines() if line.strip()]


def _file(files: dict[str, Photo], inside: str) -> Photo:
    if inside not in files:
        raise UserError(f"VOC2012/{inside} is missing")
    return files[inside]
