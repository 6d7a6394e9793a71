"""A prepared ImageNet, opened for reading."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
from tqdm import tqdm

from zfjax import files
from zfjax.architecture import Size
from zfjax.data import ImageSet, pictures, tfds_records
from zfjax.errors import NotThereError, UserError, check_name, check_utf8, command_line
from zfjax.pixels import as_size, is_size, size_of, size_of_words, size_words
from zfjax.schema import Count, Range, faults

NAME, VERSION = "imagenet", "1.0.0"  # as in <data dir>/imagenet/256px/1.0.0, TFDS's layout
MEAN, FACTS, CHECKSUMS = "mean.npy", "zfjax.json", "checksums.npz"  # what lies there beside TFDS's own files
FORMAT = 2  # of FACTS


_WAY_ON = "prepare the set again with --overwrite"


class RecordSource:
    """The examples of one prepared split, decoded when they are asked for, and verified.

    Args:
      shards: (file, number of records) of each shard, in order.
      size: side of the pictures, or their (height, width), pixels.
      num_classes: labels are below it.
      checksums: uint32, the CRC-32 of each record; None where the set was prepared before there were any.
    """

    def __init__(
        self, shards: tuple[tuple[str, int], ...], *, size: Size, num_classes: int, checksums: np.ndarray | None = None
    ):
        # the form "file[start:stop]" spares opening every file to count it; files open at the first read, per process
        self._records = tfds_records.open_array_records([f"{file}[0:{count}]" for file, count in shards])
        self._shards, self._size, self._num_classes, self._checksums = shards, size, num_classes, checksums

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        feature = self._feature(index)
        try:
            image, label = pictures.decode(feature["image"].bytes_list.value[0]), feature["label"].int64_list.value[0]
        except (ValueError, OSError, SyntaxError, IndexError) as error:
            raise self._damaged(index, f"{self._called(feature)}: {error}") from error
        if image.shape != (*size_of(self._size), 3) or not 0 <= label < self._num_classes:
            words = size_words(self._size)
            problem = f"a picture {list(image.shape)} of class {label}, in a set of {words} pixels a side"
            raise self._damaged(index, f"{self._called(feature)}: {problem} and {self._num_classes} classes")
        return {"image": image, "label": np.int32(label), "index": np.int32(index)}

    def name(self, index: int) -> str:
        """Where the photo came from: "<class>/<file name>"."""
        return self._called(self._feature(index))

    def jpeg(self, index: int) -> bytes:
        """The stored bytes, not decoded."""
        encoded: bytes = self._feature(index)["image"].bytes_list.value[0]
        return encoded

    def stored(self, index: int) -> bytes:
        """What the set's fingerprint is made of: label, file name and picture."""
        feature = self._feature(index)
        label, name = feature["label"].int64_list.value[0], feature["file_name"].bytes_list.value[0]
        encoded: bytes = f"{label} ".encode() + name + b" " + feature["image"].bytes_list.value[0]
        return encoded

    def _feature(self, index: int) -> Any:
        try:
            record = self._records[index]
            feature = tfds_records.parse(record)
        except Exception as error:  # array_record and protobuf raise their own, RuntimeError and IndexError too
            if not -len(self) <= index < len(self):
                raise
            raise self._damaged(index, str(error)) from error
        if self._checksums is not None and zlib.crc32(record) != self._checksums[index]:
            raise self._damaged(index, f"{self._called(feature)}: its checksum is another")
        return feature

    @staticmethod
    def _called(feature: Any) -> str:
        parts = [feature[key].bytes_list.value for key in ("class", "file_name")]
        return "/".join(part[0].decode(errors="replace") if part else "?" for part in parts)

    def _damaged(self, index: int, problem: str) -> UserError:
        place = index
        for file, count in self._shards:
            if place < count:
                return UserError(f"{file} is damaged at record {place} ({problem}); {_WAY_ON}")
            place -= count
        return UserError(f"record {index} is damaged ({problem}); {_WAY_ON}")


Side = Annotated[int, Range(1, 2**16)]


class _Facts(TypedDict):
    """What is read of `FACTS`."""

    format: NotRequired[int]
    source: str
    size: Side | tuple[Side, Side]
    class_names: list[str]
    official_labels: list[int | None]
    counts: dict[str, Count]
    skipped: list[str]
    fingerprint: str


class _Verified(TypedDict):
    """What is read of `FACTS` besides, since its format 2."""

    shards: dict[str, list[tuple[str, int, int]]]
    files: dict[str, tuple[int, str]]
    digest: str


class _Shards(TypedDict):
    """What is read of TFDS's own facts, of a set from before format 2."""

    name: str
    shardLengths: list[str]


class _Info(TypedDict):
    splits: list[_Shards]


def set_folder(data_dir: str | os.PathLike[str], size: Size) -> Path:
    """The folder of the set of `size` pixels under `data_dir`, whether it exists or not."""
    return Path(data_dir) / NAME / f"{size_words(size)}px" / VERSION


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Writes `FACTS` of a set that is whole, with the sizes and digests of all its files but the shards."""
    shards = {name for of_split in facts["shards"].values() for name, _, _ in of_split}
    others = sorted(path for path in folder.iterdir() if path.name not in {*shards, FACTS})
    facts["files"] = {path.name: [path.stat().st_size, files.hash_of(path.read_bytes())] for path in others}
    facts["digest"] = _digest(facts)
    files.save_json(folder / FACTS, facts)


def read_facts(folder: Path) -> dict[str, Any]:
    """What the preparation wrote down: source, size, class_names, official_labels, counts, skipped, fingerprint.

    Since format 2 also left_out, equal, unseen, shards, files and a digest of all of it.

    Raises:
      UserError: where `folder` lacks what a complete set has, or what lies there is not what was written.
    """
    if not (folder / FACTS).is_file():
        raise UserError(f"{folder} is no complete set (no {FACTS}): {_WAY_ON}")
    facts: dict[str, Any] = files.read_json(folder / FACTS, _Facts, _WAY_ON)
    form = facts.get("format", 1)
    if form > FORMAT:
        raise UserError(f"{folder / FACTS} is of format {form}, made by a newer zfjax: this one reads up to {FORMAT}")
    if form > 1 or {"digest", "shards", "files"} & facts.keys():
        problem = next(faults(facts, _Verified), "") or ("" if facts["digest"] == _digest(facts) else "it was changed")
        if problem:
            raise UserError(f"{folder / FACTS} is damaged ({problem}); {_WAY_ON}")
    unknown = set(facts["counts"]) - {"train", "validation"}
    if unknown or not facts["counts"] or len(facts["official_labels"]) != len(facts["class_names"]):
        raise UserError(f"{folder / FACTS} is damaged (its splits or classes do not fit); {_WAY_ON}")
    needed = [*facts.get("files", {}), *([MEAN] if "train" in facts["counts"] else [])]
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise UserError(f"{folder} is no complete set (no {missing[0]}): {_WAY_ON}")
    return facts


def _digest(facts: dict[str, Any]) -> str:
    hashed = {name: value for name, value in facts.items() if name != "digest"}
    return files.hash_of(json.dumps(hashed, sort_keys=True).encode())


def open_imagenet(data_dir: str | os.PathLike[str], size: Size | None = None) -> ImageSet:
    """Open a set that `python -m experiments.prepare_imagenet` prepared.

    The sizes of its files are compared with what was written, and the digests of all but the photos; each record's
    checksum is as it is read. A set of before format 2 has none of these: its record counts are compared.

    Args:
      data_dir: its --data-dir.
      size: side of the stored pictures, or their (height, width), pixels; None takes the only one there.

    Raises:
      FileNotFoundError: where no complete set (of that size) lies there.
      UserError: where several do and `size` is None, or a set has lost files or holds others.

    Examples:
      photos = imagenet.open_imagenet("data", 256)
      len(photos.train), photos.validation[0]["image"].shape  # (256, 256, 3)
    """
    check_name("data_dir", data_dir)
    check_utf8("data_dir", data_dir)
    chosen = _choose_size(Path(data_dir), size)
    folder = set_folder(data_dir, chosen)
    facts = read_facts(folder)
    stored, class_names = as_size(size_of(facts["size"])), tuple(facts["class_names"])
    if size_of(stored) != size_of(chosen):
        raise UserError(
            f"{folder} holds pictures of {size_words(stored)} pixels: call the folder {size_words(stored)}px, as they "
            "were prepared"
        )
    for name, (length, digest) in facts.get("files", {}).items():
        data = (folder / name).read_bytes()
        if len(data) != length or files.hash_of(data) != digest:
            raise UserError(f"{folder / name} is damaged, or of another preparation; {_WAY_ON}")
    checksums = files.read_npz(folder / CHECKSUMS, _WAY_ON) if "shards" in facts else {}
    sources = {
        split: RecordSource(
            _shards_of(folder, facts, split), size=stored, num_classes=len(class_names), checksums=checksums.get(split)
        )
        for split in facts["counts"]
    }
    for split, count in facts["counts"].items():
        if len(sources[split]) != count:
            raise UserError(f"{folder}: {split} holds {len(sources[split])} records, not {count}; {_WAY_ON}")
    mean = None
    if "train" in sources:
        shape = (*size_of(stored), 3)
        mean = files.read_npy(folder / MEAN, shape=shape, dtype=np.float32, way_on=_WAY_ON, finite=True)
    official = facts["official_labels"]
    return ImageSet(
        name=NAME,
        size=stored,
        class_names=class_names,
        train=sources.get("train"),
        validation=sources.get("validation"),
        mean=mean,
        official_labels=None if None in official else tuple(official),
        fingerprint=facts["fingerprint"],
        left_out=facts.get("left_out", {}),
    )


def verify(data_dir: str | os.PathLike[str], size: Size | None = None) -> dict[str, Any]:
    """Reads every record of a prepared set; returns its facts, with "folder".

    Raises:
      FileNotFoundError, UserError: as `open_imagenet`; for a record that is damaged, or not what was prepared.

    Examples:
      imagenet.verify("data")["folder"]
    """
    images = open_imagenet(data_dir, size)
    hashed = hashlib.sha256()
    for split in (images.train, images.validation):
        if isinstance(split, RecordSource):
            for index in tqdm(range(len(split)), desc="verifying", unit=" photos", leave=False):
                split[index]
                hashed.update(split.stored(index))
    folder = set_folder(data_dir, images.size)
    if hashed.hexdigest()[:16] != images.fingerprint:
        raise UserError(f"{folder} does not hold the photos that were prepared; {_WAY_ON}")
    return {**read_facts(folder), "folder": folder}


def sizes_in(data_dir: str | os.PathLike[str]) -> list[Size]:
    """The sizes of the sets that lie in `data_dir`, ascending."""
    names = (folder.parent.name.removesuffix("px") for folder in Path(data_dir).glob(f"{NAME}/*px/{VERSION}"))
    return sorted((size_of_words(name) for name in names if is_size(name)), key=size_of)


def _choose_size(data_dir: Path, size: Size | None) -> Size:
    """The size to open, where it is there and clear."""
    sizes = sizes_in(data_dir)
    there = ", ".join(map(size_words, sizes))
    if size is None and len(sizes) > 1:
        raise UserError(f"{data_dir} holds pictures of {there} pixels: choose one, by --data-size or DIR:SIZE")
    if size in sizes or (size is None and sizes):
        return sizes[0] if size is None else size
    words = size_words(size) if size else ""
    wanted = f"{words or '*'}px"
    asked = ["--source", "DIR", "--data-dir", data_dir, *(["--size", words] if words else [])]
    begun = any(data_dir.glob(f"{NAME}/{wanted}/incomplete.*"))
    raise NotThereError(
        f"no prepared ImageNet {f'of {words} pixels ' if words else ''}in {data_dir}"
        + (f" (it holds {there} pixels)" if there else "")
        + (": a preparation was begun there and has not finished; running it again starts anew." if begun else ".")
        + f" Prepare it: {command_line('python -m experiments.prepare_imagenet', *asked)}"
        + ". Without data: python -m experiments.train_imagenet --preset demo"
    )


def _shards_of(folder: Path, facts: dict[str, Any], split: str) -> tuple[tuple[str, int], ...]:
    """(file, number of records) of each shard; UserError for one that is missing, or of another size."""
    if "shards" in facts:
        listed = [(folder / name, count, size) for name, count, size in facts["shards"].get(split, [])]
    else:
        listed = [(file, count, None) for file, count in _shards_of_tfds(folder, split)]
    for file, count, size in listed:
        if not file.is_file():
            raise UserError(f"{file} is missing: {_WAY_ON}")
        if size is None:
            _check_count(file, count)
        elif file.stat().st_size != size:
            raise UserError(f"{file} has {file.stat().st_size:,} bytes, not {size:,}: {_WAY_ON}")
    return tuple((str(file), count) for file, count, _ in listed)


def _shards_of_tfds(folder: Path, split: str) -> list[tuple[Path, int]]:
    """The shards of a set from before format 2, as TFDS wrote them down."""
    info = files.read_json(folder / "dataset_info.json", _Info, _WAY_ON)
    lengths: list[str] = next((of["shardLengths"] for of in info["splits"] if of["name"] == split), [])
    if not all(length.isdecimal() for length in lengths):
        raise UserError(f"{folder / 'dataset_info.json'} is damaged (the lengths of shards); {_WAY_ON}")
    names = [f"{NAME}-{split}.array_record-{n:05d}-of-{len(lengths):05d}" for n in range(len(lengths))]
    return [(folder / name, int(length)) for name, length in zip(names, lengths, strict=True)]


def _check_count(file: Path, count: int) -> None:
    """UserError where a shard does not hold so many records."""
    try:
        held = len(tfds_records.open_array_records([str(file)]))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{file} is cut short or damaged ({error}); {_WAY_ON}") from error
    if held != count:
        raise UserError(f"{file} holds {held} records, not {count}; {_WAY_ON}")
