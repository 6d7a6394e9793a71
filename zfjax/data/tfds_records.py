"""What TensorFlow Datasets prepared, its TFRecord or ArrayRecord files read without TensorFlow."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zfjax.errors import UserError, check_utf8
from zfjax.extras import extra

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

FACTS = "dataset_info.json"
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")  # what is called otherwise is not finished
_OPEN = 256  # files that a process holds open


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


class RecordPhoto(NamedTuple):
    """A photo inside a record."""

    file: str  # the shard
    place: int  # in the shard
    folder: str  # its class, or its split
    name: str  # its file name

    def read(self) -> bytes:
        """The bytes of its file, as it was given to TFDS."""
        encoded: bytes = features_of(self.file, self.place)["image"].bytes_list.value[0]
        return encoded


def find(path: Path, below: str) -> Path | None:
    """The newest version of a set prepared by TFDS: in its data folder, under `below`, or the version's own folder."""
    if (path / FACTS).is_file():
        return path
    folders = (facts.parent for facts in path.glob(f"{below}/*/{FACTS}") if _VERSION.fullmatch(facts.parent.name))
    return max(folders, key=lambda folder: [int(part) for part in folder.name.split(".")], default=None)


def info_of(folder: Path) -> tfds.core.DatasetInfo:
    """What TFDS wrote down of a set; UserError where that is damaged."""
    with extra("train"):
        import tensorflow_datasets as tfds
    try:
        info = tfds.builder_from_directory(folder).info
        for split in info.splits.values():  # names of files, and the number of records in each, are worked out here
            list(zip(split.filepaths, split.shard_lengths, strict=True))
        return info
    except Exception as error:  # protobuf, JSON and TFDS raise a dozen kinds for a file that is damaged or missing
        words = str(error).strip().split("\n")[0]
        raise UserError(f"{folder} is no complete set of TFDS ({words}): prepare it again") from error


def shards_of(info: tfds.core.DatasetInfo, split: str) -> list[tuple[str, int]]:
    """(file, number of records) of each shard of a split.

    UserError for a file that is missing, of another format, cut short, or with another number of records.
    """
    _opened.cache_clear()  # what was opened before may have been prepared anew
    shards = list(zip(map(str, info.splits[split].filepaths), info.splits[split].shard_lengths, strict=True))
    for file, count in shards:
        if not Path(file).is_file():
            raise UserError(f"{file} is missing: prepare the set again")
        if info.file_format.value not in _READERS:
            raise UserError(f"{file} is in the format {info.file_format}: {' or '.join(_READERS)} is needed")
        length = len(_opened(file))
        if length != count:
            raise UserError(f"{file} holds {length} records, not {count}: prepare the set again")
    return shards


def features_of(file: str, place: int) -> Any:
    """The features of a record of a shard; UserError where it is damaged."""
    records = _opened(file)
    try:
        return parse(records[place])
    except Exception as error:  # array_record and protobuf raise their own
        raise UserError(f"{file} is damaged at record {place} ({error}): prepare the set again") from error


def labels_in(feature: Any, num_classes: int) -> list[int]:
    """The labels that a feature holds; ValueError for one that is of no class."""
    labels = list(feature.int64_list.value)
    if other := [label for label in labels if not 0 <= label < num_classes]:
        raise ValueError(f"label {other[0]}, of {num_classes} classes")
    return labels


def parse(record: bytes) -> Any:
    """The features of a record, by name."""
    return _example_of_bytes()(record).features.feature


@functools.cache
def _example_of_bytes() -> Callable[[bytes], Any]:
    with extra("train"):
        from tensorflow_datasets.proto import tf_example_pb2
    of_bytes: Callable[[bytes], Any] = tf_example_pb2.Example.FromString
    return of_bytes


def open_array_records(files: Sequence[str]) -> Any:
    """Random access to the records of files, as "FILE", or "FILE[0:COUNT]", which are opened at the first read."""
    with extra("train"):
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    for file in files:
        check_utf8("file", file)
    _example_of_bytes()  # what reads the records is there too
    return ArrayRecordDataSource(list(files))


@functools.lru_cache(_OPEN)
def _opened(file: str) -> Any:
    """The records of a shard; its ending says the format, as "imagenet2012-train.tfrecord-00000-of-01024" does."""
    form = next((f for f in _READERS if f".{f}-" in Path(file).name), None)
    if form is None:
        raise UserError(f"{file}: a name as NAME-SPLIT.tfrecord-00000-of-00001 is needed")
    try:
        return _READERS[form](file)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file} is cut short or damaged ({error}): prepare the set again") from error


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


def _array_records(file: str) -> Any:
    records = open_array_records([file])
    len(records)  # opens it
    return records


_READERS: dict[str, Callable[[str], Any]] = {  # by what TFDS calls a format, which is what its files end with too
    "tfrecord": lambda file: TFRecords(Path(file)),
    "array_record": _array_records,
}
