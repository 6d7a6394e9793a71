"""Where the photos lie: ImageNet's official tars or class folders, listed without unpacking or holding them."""

import functools
import importlib.resources
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zfjax.errors import FailedError, NotThereError, UserError

TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
FOLDERS = {"train": "train", "validation": "val"}
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


class Photo(NamedTuple):
    """The place of one photo's bytes."""

    file: str  # the tar that holds them, or the picture file itself
    offset: int  # bytes from the start of `file`
    size: int  # bytes
    folder: str  # the class: synset or folder name
    name: str  # the photo's own file name

    def read(self) -> bytes:
        """The photo's bytes; OSError where the file has become shorter than it was when listed."""
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) != self.size:
            raise FailedError(
                f"{self.file} ended within {self.folder}/{self.name}: did it change during the preparation?"
            )
        return data


def find_splits(source: Path) -> dict[str, Callable[[], Iterator[Photo]]]:
    """For each split found in `source`, a function that lists its photos: always the same ones in the same order.

    Training photos come by class, then file name; validation photos by file name. Tars and folders with the same
    photos so give the same list.

    Raises:
      FileNotFoundError: where `source` holds neither tars nor class folders.
      UserError: where it holds both for one split.
    """
    splits: dict[str, Callable[[], Iterator[Photo]]] = {}
    for split, listed in (("train", _train_tar), ("validation", _validation_tar)):
        tar, folder = source / TARS[split], source / FOLDERS[split]
        if tar.is_file() and folder.is_dir():
            raise UserError(f"--source {source} holds both {tar.name} and {folder.name}/: leave only one of them there")
        if tar.is_file():
            splits[split] = functools.partial(listed, tar)
        elif folder.is_dir():
            splits[split] = functools.partial(_class_folders, folder, by_class=split == "train")
    if not splits:
        raise NotThereError(
            f"--source {source} must hold {TARS['train']} and/or {TARS['validation']}, "
            "or class folders train/<class>/*.jpg and/or val/<class>/*.jpg"
        )
    return splits


def official_synsets() -> tuple[str, ...]:
    """ImageNet's 1000 synsets in the order of its own indices (the list that TFDS bundles)."""
    return _bundled_list("labels.txt")


def class_words(class_names: Iterable[str]) -> tuple[str, ...]:
    """What people call these classes: ImageNet's first word for one of its synsets, for any other class its name."""
    from tensorflow_datasets.datasets.siscore.labels import IMAGENET_LABELS_LIST  # in the order of official_synsets

    words = dict(zip(official_synsets(), IMAGENET_LABELS_LIST, strict=True))
    return tuple(words.get(name, name).split(",")[0] for name in class_names)


def _bundled_list(name: str) -> tuple[str, ...]:
    bundled = importlib.resources.files("tensorflow_datasets") / "datasets" / "imagenet2012" / name
    return tuple(bundled.read_text().split())


def _train_tar(path: Path) -> Iterator[Photo]:
    """The official training tar: one tar per synset, each with that synset's photos."""
    with open(path, "rb") as stream:
        listed = sorted(members(stream, str(path)), key=lambda member: member.name)
    with tarfile.open(path, mode="r:") as archive:
        for member in listed:
            where = f"{path} ({member.name})"
            if not member.name.endswith(".tar"):
                raise UserError(f"{where}: the training tar must hold one <synset>.tar per class, nothing else")
            window = archive.extractfile(member)
            for photo in sorted(members(window, where), key=lambda photo: photo.name):
                start = member.offset_data + photo.offset_data
                yield Photo(str(path), start, photo.size, Path(member.name).stem, Path(photo.name).name)


def _validation_tar(path: Path) -> Iterator[Photo]:
    """The official validation tar: photos named by number, whose class stands on that line of the official list."""
    synsets = _bundled_list("validation_labels.txt")
    with open(path, "rb") as stream:
        for member in sorted(members(stream, str(path)), key=lambda member: Path(member.name).name):
            name = Path(member.name).name
            match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", name)
            if match is None or not 1 <= int(match[1]) <= len(synsets):
                raise UserError(f"{path} ({name}): names must run from ILSVRC2012_val_00000001.JPEG to _00050000.JPEG")
            yield Photo(str(path), member.offset_data, member.size, synsets[int(match[1]) - 1], name)


def _class_folders(root: Path, *, by_class: bool) -> Iterator[Photo]:
    """Photos of root/<class>/; what has no picture's ending, or a hidden name, is left alone."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(f"{root} has no class folders: it must hold one folder of pictures per class")
    if by_class:
        yield from (photo for folder in folders for photo in _pictures(folder))
    else:
        everything = (photo for folder in folders for photo in _pictures(folder))
        yield from sorted(everything, key=lambda photo: (photo.name, photo.folder))


def _pictures(folder: Path) -> list[Photo]:
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_ENDINGS and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise UserError(f"{folder} has no pictures ({' '.join(PICTURE_ENDINGS)})")
    return [Photo(str(path), 0, path.stat().st_size, folder.name, path.name) for path in paths]


def members(stream: Any, where: str) -> list[tarfile.TarInfo]:
    """The files in a tar that is complete, but for hidden ones; UserError naming `where` for any other.

    Cut exactly between two members, a tar looks to `tarfile` like a shorter one; only the two zero blocks at its end
    tell them apart.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            found = [member for member in archive if member.isfile() and not Path(member.name).name.startswith(".")]
            end = archive.offset
    except tarfile.TarError as error:
        raise UserError(f"{where} is no complete tar ({error}): copy or download it again") from error
    stream.seek(end)
    if stream.read(len(_END_OF_TAR)) != _END_OF_TAR:
        raise UserError(f"{where} is cut short, its end is not marked: copy or download it again")
    return found
