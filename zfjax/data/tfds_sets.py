"""The sets that the paper carries its features to (sec. 4.2), opened from whatever form of them is there.

Caltech-101 and VOC 2012 may be prepared by TensorFlow Datasets, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zfjax.data import tfds_records
from zfjax.data.caltech import open_caltech
from zfjax.data.photo_sets import PhotoSet, fingerprint_of
from zfjax.data.tfds_records import RecordPhoto
from zfjax.data.voc import open_voc
from zfjax.errors import UserError, check_name

FOLDERS = {"caltech101": "caltech101", "voc2012": "voc/2012"}  # in TFDS's data folder, above the version


def find_prepared(path: Path, name: str) -> Path | None:
    """The newest version of the set prepared by TFDS at `path`: in its data folder, or the version's own folder."""
    return tfds_records.find(path, FOLDERS[name]) if name in FOLDERS else None


def open_prepared(folder: Path, name: str) -> PhotoSet:
    """The set that TFDS prepared in `folder`, from TFRecord or ArrayRecord files.

    Caltech-101's two splits are TFDS's own and are put together; VOC's are train and val.

    Raises:
      UserError: another set, another file format, or files that are missing or cut short.
    """
    info = tfds_records.info_of(folder)
    wanted = FOLDERS.get(name, "").split("/")[0]
    if info.name != wanted:
        raise UserError(f"{folder} holds TFDS's {info.name!r}: {name} is needed")
    wanted_splits = ("train", "validation" if name == "voc2012" else "test")
    if missing := [split for split in wanted_splits if split not in info.splits]:
        raise UserError(f"{folder} has no split {missing[0]}: prepare the set again")
    photos: list[RecordPhoto] = []
    splits, labels = {}, []
    read_label, class_names = _LABELS[name], tuple(info.features[_NAMED_BY[name]].names)
    for split in wanted_splits:
        start = len(photos)
        for file, count in tfds_records.shards_of(info, split):
            for place in range(count):
                feature = tfds_records.features_of(file, place)
                try:
                    photos.append(RecordPhoto(file, place, split, _file_name(feature)))
                    labels.append(read_label(feature, len(class_names)))
                except (IndexError, StopIteration, ValueError) as error:  # the latter: no UTF-8, or no label of the set
                    raise UserError(f"{file} has no name or label in record {place}: prepare the set again") from error
        splits[split] = np.arange(start, len(photos))
    official = {"train": splits["train"], "val": splits["validation"]} if name == "voc2012" else {}
    stacked = np.stack(labels)
    return PhotoSet(name, class_names, tuple(photos), stacked, official, fingerprint_of(photos, stacked, class_names))


def _file_name(feature: Any) -> str:
    key = next(key for key in ("image/file_name", "image/filename") if key in feature)  # Caltech-101's, VOC's
    text: str = feature[key].bytes_list.value[0].decode()
    return text


def _single_label(feature: Any, num_classes: int) -> np.ndarray:
    (label,) = tfds_records.labels_in(feature["label"], num_classes)
    return np.asarray(label, np.int32)


def _several_labels(feature: Any, num_classes: int) -> np.ndarray:
    """1 shown, -1 not shown, 0 shown by difficult objects alone. int8 [classes]"""
    labels = np.full(num_classes, -1, np.int8)
    labels[tfds_records.labels_in(feature["labels"], num_classes)] = 0
    labels[tfds_records.labels_in(feature["labels_no_difficult"], num_classes)] = 1
    return labels


_LABELS = {"caltech101": _single_label, "voc2012": _several_labels}
_NAMED_BY = {"caltech101": "label", "voc2012": "labels"}

NATIVE: dict[str, Callable[[Path], PhotoSet]] = {
    "caltech101": lambda path: open_caltech(path, "caltech101"),
    "caltech256": lambda path: open_caltech(path, "caltech256"),
    "voc2012": open_voc,
}


def open_set(name: str, path: Path) -> PhotoSet:
    """A set by name from what lies at `path`: its native folder or tar, or what TFDS prepared.

    Args:
      name: "caltech101", "caltech256" or "voc2012".
      path: see `caltech.open_caltech`, `voc.open_voc`; or TFDS's data folder, or the set's version in it.

    Raises:
      FileNotFoundError: nothing at `path`.
      UserError: an unknown name, or what lies there is not that set, or not all of it.
    """
    if name not in NATIVE:
        raise UserError(f"dataset={name!r}: one of {', '.join(NATIVE)} is needed")
    check_name("path", path)
    prepared = find_prepared(Path(path), name)
    return NATIVE[name](Path(path)) if prepared is None else open_prepared(prepared, name)
