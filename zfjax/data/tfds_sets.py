"""The sets that the paper carries its features to (sec. 4.2), opened from whatever form of them is there.

Caltech-101 and VOC 2012 as TensorFlow Datasets prepared them are read here without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.proto import tf_example_pb2

from zfjax.data.caltech import open_caltech
from zfjax.data.photo_sets import PhotoSet, fingerprint_of
from zfjax.data.voc import open_voc
from zfjax.errors import UserError

FOLDERS = {"caltech101": "caltech101", "voc2012": "voc/2012"}  # in TFDS's data folder, above the version
_FACTS = "dataset_info.json"


class RecordPhoto(NamedTuple):
    """A photo inside a record."""

    records: Sequence[bytes]  # of its shard
    place: int  # in the shard
    folder: str  # its split
    name: str  # its file name

    def read(self) -> bytes:
        """The bytes of its file, as it was given to TFDS."""
        return _features(self.records[self.place])["image"].bytes_list.value[0]


class TFRecords:
    """Random access to the records of one TFRecord file, whose places are found by one walk over their lengths."""

    def __init__(self, path: Path):
        self._path, self._places = str(path), list(_tfrecord_places(path))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> bytes:
        offset, length = self._places[index]
        with open(self._path, "rb") as stream:
            stream.seek(offset)
            return stream.read(length)


def find_prepared(path: Path, name: str) -> Path | None:
    """The newest version of the set prepared by TFDS at `path`: in its data folder, or the version's own folder."""
    if (path / _FACTS).is_file():
        return path
    found = sorted(path.glob(f"{FOLDERS[name]}/*/{_FACTS}")) if name in FOLDERS else []
    return found[-1].parent if found else None


def open_prepared(folder: Path, name: str) -> PhotoSet:
    """The set that TFDS prepared in `folder`, from TFRecord or ArrayRecord files.

    Caltech-101's two splits are TFDS's own and are put together; VOC's are train and val.

    Raises:
      UserError: another set, another file format, or files that are missing or cut short.
    """
    info = tfds.builder_from_directory(folder).info
    wanted = FOLDERS.get(name, "").split("/")[0]
    if info.name != wanted:
        raise UserError(f"{folder} holds TFDS's {info.name!r}: {name} is needed")
    records = {split: _records(info, split) for split in ("train", "validation" if name == "voc2012" else "test")}
    photos: list[RecordPhoto] = []
    splits, labels = {}, []
    read_label, class_names = _LABELS[name], tuple(info.features[_NAMED_BY[name]].names)
    for split, shards in records.items():
        start = len(photos)
        for shard in shards:
            for place in range(len(shard)):
                feature = _features(shard[place])
                photos.append(RecordPhoto(shard, place, split, _file_name(feature)))
                labels.append(read_label(feature, len(class_names)))
        splits[split] = np.arange(start, len(photos))
    official = {"train": splits["train"], "val": splits["validation"]} if name == "voc2012" else {}
    stacked = np.stack(labels)
    return PhotoSet(name, class_names, tuple(photos), stacked, official, fingerprint_of(photos, stacked, class_names))


def _records(info: tfds.core.DatasetInfo, split: str) -> list[Any]:
    """Each shard of a split as a sequence of records."""
    shards = []
    for file, count in zip(map(str, info.splits[split].filepaths), info.splits[split].shard_lengths, strict=True):
        if not Path(file).is_file():
            raise UserError(f"{file} is missing: prepare the set again")
        if info.file_format not in _READERS:
            formats = " or ".join(f.value for f in _READERS)
            raise UserError(f"{file} is in the format {info.file_format}: {formats} is needed")
        shard = _READERS[info.file_format](file)
        if len(shard) != count:
            raise UserError(f"{file} holds {len(shard)} records, not {count}: prepare the set again")
        shards.append(shard)
    return shards


def _tfrecord_places(path: Path) -> Iterator[tuple[int, int]]:
    """(offset, length) of each record: uint64 length, its checksum of 4 bytes, the data, their checksum of 4 bytes."""
    end = path.stat().st_size
    with open(path, "rb") as stream:
        while header := stream.read(12):
            offset, length = stream.tell(), int.from_bytes(header[:8], "little")
            if len(header) < 12 or offset + length + 4 > end:
                raise UserError(f"{path} is cut short: prepare the set again")
            yield offset, length
            stream.seek(offset + length + 4)


def _features(record: bytes) -> Any:
    return tf_example_pb2.Example.FromString(record).features.feature


def _file_name(feature: Any) -> str:
    key = next(key for key in ("image/file_name", "image/filename") if key in feature)  # Caltech-101's, VOC's
    return feature[key].bytes_list.value[0].decode()


def _single_label(feature: Any, _: int) -> np.ndarray:
    return np.asarray(feature["label"].int64_list.value[0], np.int32)


def _shown_labels(feature: Any, num_classes: int) -> np.ndarray:
    """1 shown, -1 not shown, 0 shown by difficult objects alone. int8 [classes]"""
    labels = np.full(num_classes, -1, np.int8)
    labels[list(feature["labels"].int64_list.value)] = 0
    labels[list(feature["labels_no_difficult"].int64_list.value)] = 1
    return labels


_LABELS = {"caltech101": _single_label, "voc2012": _shown_labels}
_NAMED_BY = {"caltech101": "label", "voc2012": "labels"}

_READERS: dict[FileFormat, Callable[[str], Any]] = {
    FileFormat.TFRECORD: lambda file: TFRecords(Path(file)),
    FileFormat.ARRAY_RECORD: lambda file: ArrayRecordDataSource([file]),
}

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
    prepared = find_prepared(Path(path), name)
    return NATIVE[name](Path(path)) if prepared is None else open_prepared(prepared, name)
