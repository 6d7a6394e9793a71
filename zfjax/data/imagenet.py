"""A prepared ImageNet, opened for reading."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2

from zfjax.data import ImageSet, pictures
from zfjax.errors import NotThereError, UserError

NAME, VERSION = "imagenet", "1.0.0"  # as in <data dir>/imagenet/256px/1.0.0, TFDS's layout
MEAN, FACTS = "mean.npy", "zfjax.json"  # what lies there beside TFDS's own files


class RecordSource:
    """The examples of one prepared split, decoded when they are asked for.

    Args:
      shards: (file, number of records) of each shard, in order.
    """

    def __init__(self, shards: tuple[tuple[str, int], ...]):
        # the form "file[start:stop]" spares opening every file to count it; files open at the first read, per process
        self._records = ArrayRecordDataSource([f"{file}[0:{count}]" for file, count in shards])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        feature = self._feature(index)
        return {
            "image": pictures.decode(feature["image"].bytes_list.value[0]),
            "label": np.int32(feature["label"].int64_list.value[0]),
            "index": np.int32(index),
        }

    def name(self, index: int) -> str:
        """Where the photo came from: "<class>/<file name>"."""
        feature = self._feature(index)
        return "/".join(feature[key].bytes_list.value[0].decode() for key in ("class", "file_name"))

    def jpeg(self, index: int) -> bytes:
        """The stored bytes, not decoded."""
        return self._feature(index)["image"].bytes_list.value[0]

    def _feature(self, index: int) -> Any:
        return tf_example_pb2.Example.FromString(self._records[index]).features.feature


def set_folder(data_dir: str | os.PathLike[str], size: int) -> Path:
    """The folder of the set of `size` pixels under `data_dir`, whether it exists or not."""
    return Path(data_dir) / NAME / f"{size}px" / VERSION


def read_facts(folder: Path) -> dict[str, Any]:
    """What the preparation wrote down: source, size, class_names, official_labels, counts, skipped, fingerprint.

    Raises:
      UserError: where `folder` lacks what a complete set has.
    """
    facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).is_file() else None
    if facts is None or ("train" in facts["counts"] and not (folder / MEAN).is_file()):
        raise UserError(f"{folder} is no complete set (no {FACTS} or {MEAN}): prepare it again with --overwrite")
    return facts


def open_imagenet(data_dir: str | os.PathLike[str], size: int | None = None) -> ImageSet:
    """Opens what `python -m experiments.prepare_imagenet` wrote.

    Args:
      data_dir: its --data-dir.
      size: side of the stored pictures, pixels; None takes the only one there.
    Raises:
      FileNotFoundError: where no complete set (of that size) lies there.
      UserError: where several do and `size` is None, or a set has lost files.
    """
    folder = set_folder(data_dir, _choose_size(Path(data_dir), size))
    facts = read_facts(folder)
    splits = tfds.builder_from_directory(folder).info.splits
    sources = {split: _open_split(splits[split]) for split in facts["counts"]}
    official = facts["official_labels"]
    return ImageSet(
        name=NAME,
        size=facts["size"],
        class_names=tuple(facts["class_names"]),
        train=sources.get("train"),
        validation=sources.get("validation"),
        mean=np.load(folder / MEAN) if "train" in sources else None,
        official_labels=None if None in official else tuple(official),
        fingerprint=facts["fingerprint"],
    )


def sizes_in(data_dir: str | os.PathLike[str]) -> list[int]:
    """The sizes of the sets that lie in `data_dir`, ascending."""
    folders = Path(data_dir).glob(f"{NAME}/*px/{VERSION}")
    return sorted(int(folder.parent.name.removesuffix("px")) for folder in folders)


def _choose_size(data_dir: Path, size: int | None) -> int:
    """The size to open, where it is there and clear."""
    sizes = sizes_in(data_dir)
    there = ", ".join(map(str, sizes))
    if size is None and len(sizes) > 1:
        raise UserError(f"{data_dir} holds pictures of {there} pixels: choose one, by --data-size or DIR:SIZE")
    if size in sizes or (size is None and sizes):
        return sizes[0] if size is None else size
    wanted = f"{size or '*'}px"
    begun = any(data_dir.glob(f"{NAME}/{wanted}/incomplete.*"))
    raise NotThereError(
        f"no prepared ImageNet {f'of {size} pixels ' if size else ''}in {data_dir}"
        + (f" (it holds {there} pixels)" if there else "")
        + (": a preparation was begun there and has not finished; running it again starts anew." if begun else ".")
        + f" Prepare it: python -m experiments.prepare_imagenet --source DIR --data-dir {data_dir}"
        + (f" --size {size}" if size else "")
        + ". Without data: python -m experiments.train_imagenet --preset demo"
    )


def _open_split(info: tfds.core.SplitInfo) -> RecordSource:
    shards = tuple(zip(map(str, info.filepaths), info.shard_lengths, strict=True))
    for file, _ in shards:
        if not Path(file).is_file():
            raise UserError(f"{file} is missing: prepare the set again with --overwrite")
    return RecordSource(shards)
