"""Labelled photos where they lie, in folders, tars or records, decoded one by one when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from zfjax import files
from zfjax.architecture import Size
from zfjax.data import ArraySource, Source, archives, pictures
from zfjax.data.archives import Photo
from zfjax.errors import NotThereError, UserError
from zfjax.pixels import size_of


class Encoded(Protocol):
    """One photo's bytes, wherever they lie; an `archives.Photo` is one."""

    @property
    def folder(self) -> str:
        """The class, or the split of a set whose photos show several classes."""
        ...

    @property
    def name(self) -> str:
        """The photo's own file name."""
        ...

    def read(self) -> bytes:
        """The bytes of its file."""
        ...


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Labelled photos of any size.

    Attributes:
      name: "caltech101", "caltech256", "voc2012".
      class_names: dense label -> the set's own name.
      photos: N photos.
      labels: int32 [N]; where a photo shows several classes int8 [N, classes], 1 shown, -1 not shown, 0 shown only by
        objects marked as difficult.
      splits: the official splits that have labels, as indices of photos; empty where there are none.
      fingerprint: short hash of every photo and label, so that it changes when the data do.
    """

    name: str
    class_names: tuple[str, ...]
    photos: tuple[Encoded, ...]
    labels: np.ndarray
    splits: Mapping[str, np.ndarray]
    fingerprint: str

    def per_class(self) -> list[int]:
        """How many photos show each class, in the order of `class_names`; by more than difficult objects alone."""
        if self.labels.ndim == 2:
            return [int(num) for num in (self.labels > 0).sum(axis=0)]
        return [int(num) for num in np.bincount(self.labels, minlength=len(self.class_names))]


class PhotoSource:
    """A source of pictures of one size, each read, decoded and resized when it is asked for.

    Args:
      photos: N photos.
      labels: [N] or [N, classes].
      size: side of the pictures, or their (height, width), pixels; each is made as `pictures.preprocess` says, always
        the same.
      resample: the filter that brings it to this size.
      channels: 3 of colours, 1 of grey, or 4 of RGBA.
    """

    def __init__(
        self,
        photos: Sequence[Encoded],
        labels: np.ndarray,
        *,
        size: Size,
        resample: Image.Resampling = Image.Resampling.BICUBIC,
        channels: int = 3,
    ):
        if len(photos) != len(labels):
            raise UserError(f"labels of {len(labels)} photos: there are {len(photos)}")
        self._photos, self._labels, self.size, self._resample = photos, labels, size, resample
        self._channels = channels

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        photo = self._photos[index]
        try:
            image = pictures.preprocess(photo.read(), self.size, self._channels, resample=self._resample)
        except ValueError as error:
            raise UserError(f"{_where(photo)}: {error}") from error
        return {"image": image, "label": self._labels[index], "index": np.int32(index)}


def _where(photo: Encoded) -> str:
    """The photo's class and name, and the file that holds it."""
    named, file = f"{photo.folder}/{photo.name}", getattr(photo, "file", "")
    return file if file.endswith(named) else f"{named} in {file}" if file else named


class ResizedSource:
    """The pictures of another source, brought to another size by a filter."""

    def __init__(self, source: Source, size: Size, resample: Image.Resampling):
        self._source, self._size, self._resample = source, size, resample

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        height, width = size_of(self._size)
        image = Image.fromarray(example["image"]).resize((width, height), self._resample)
        return {**example, "image": np.asarray(image)}


def source_of(photo_set: PhotoSet, size: Size, indices: np.ndarray | None = None, *, channels: int = 3) -> PhotoSource:
    """The pictures of a set, or of some of its photos: `size` pixels a side, or (height, width)."""
    chosen = np.arange(len(photo_set.photos)) if indices is None else indices
    photos = [photo_set.photos[index] for index in chosen]
    return PhotoSource(photos, photo_set.labels[chosen], size=size, channels=channels)


def decoded(source: Source, *, threads: int = 8) -> ArraySource:
    """The source with all its pictures in memory: a byte for each channel of each pixel."""
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without the interpreter's lock
        examples = list(pool.map(source.__getitem__, range(len(source))))
    return ArraySource(np.stack([e["image"] for e in examples]), np.array([e["label"] for e in examples]))


def without(photo_set: PhotoSet, left_out: np.ndarray) -> PhotoSet:
    """The set without the photos where `left_out`, bool [N], holds; its fingerprint is that of what stays."""
    kept = np.flatnonzero(~left_out)
    place = np.cumsum(~left_out) - 1
    splits = {name: place[chosen[~left_out[chosen]]] for name, chosen in photo_set.splits.items()}
    photos, labels = tuple(photo_set.photos[index] for index in kept), photo_set.labels[kept]
    digest = fingerprint_of(photos, labels, photo_set.class_names)
    return replace(photo_set, photos=photos, labels=labels, splits=splits, fingerprint=digest)


def fingerprint_of(photos: Iterable[Encoded], labels: np.ndarray, class_names: Sequence[str]) -> str:
    """Short hash of every byte of the photos, and of their labels and names."""
    digest = hashlib.sha256("\n".join(class_names).encode())
    digest.update(np.ascontiguousarray(labels).tobytes())
    for photo in photos:
        digest.update(f"\n{photo.folder}/{photo.name}\n".encode(errors="surrogateescape"))
        digest.update(photo.read())
    return digest.hexdigest()[:16]


def list_files(root: Path) -> dict[str, Photo]:
    """Every file below a folder or in a tar, {path inside it: the place of its bytes}, sorted; hidden ones left out.

    Links in a folder are followed. Nothing is unpacked, so a tar's names need no trust.

    Raises:
      FileNotFoundError: where there is neither folder nor file.
      UserError: where the file is no complete tar, or a compressed one; a link to nothing.
    """
    if root.is_dir():
        left_out = files.LeftOut()
        paths = {path.relative_to(root).as_posix(): path for path in files.walk(root, left_out)}
        if files.DANGLING in left_out.reasons:
            name = left_out.reasons[files.DANGLING]["first"][0]
            raise UserError(f"{root / name} is a link to nothing: what it pointed to is gone")
        return {
            name: _photo(name, str(path), offset=0, size=path.stat().st_size) for name, path in sorted(paths.items())
        }
    if not root.is_file():
        raise NotThereError(f"images={str(root)!r}: no such folder or tar; name the one that holds the photos")
    with open(root, "rb") as stream:
        members = archives.members(stream, str(root))
    listed = {
        member.name.removeprefix("./"): _photo(member.name, str(root), offset=member.offset_data, size=member.size)
        for member in members
    }
    return dict(sorted(listed.items()))


def _photo(path: str, file: str, *, offset: int, size: int) -> Photo:
    parts = path.split("/")
    return Photo(file, offset, size, parts[-2] if len(parts) > 1 else "", parts[-1])
