"""Where the photos lie: official tars, class folders or TFDS's records, listed without unpacking or holding them."""

from __future__ import annotations

import collections
import functools
import hashlib
import importlib.resources
import itertools
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from zfjax.data import pictures, tfds_records
from zfjax.data.tfds_records import RecordPhoto
from zfjax.errors import FailedError, NotThereError, UserError, check_name, naming
from zfjax.extras import extra
from zfjax.files import DANGLING, LeftOut, is_hidden, printable, walk

TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
_NAMES = {"train": ("train",), "validation": ("val", "validation", "valid")}  # of folders
_ROOTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")  # above them; the latter as Kaggle's archive has it
_OFFICIAL = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")
_OF_PHOTOS = "([ _-]?(images|photos|set|data|split))?"
_LIKE = {  # names that people give to splits
    "train": re.compile(f"(train|training){_OF_PHOTOS}"),
    "validation": re.compile(f"(val|valid|validate|validation){_OF_PHOTOS}"),
    "test": re.compile(f"(test|testing){_OF_PHOTOS}"),
}
_COMPRESSED = {  # by their first bytes
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"]\0\0": "lzma",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
    b"\x04\x22\x4d\x18": "lz4",
}
_ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip", ".zst", ".lzma", ".7z", ".rar", ".lz4")
_PARTS = (".part", ".crdownload", ".aria2", ".tmp", ".download", ".partial", ".!qb", ".filepart")  # of downloads


class AnyPhoto(Protocol):
    """A photo of a split, wherever its bytes lie."""

    @property
    def file(self) -> str:
        """The file that holds its bytes."""
        ...

    @property
    def folder(self) -> str:
        """Its class."""
        ...

    @property
    def name(self) -> str:
        """Its own file name."""
        ...

    def read(self) -> bytes:
        """The bytes of its file."""
        ...


class Photo(NamedTuple):
    """The place of one photo's bytes."""

    file: str  # the tar that holds them, or the picture file itself
    offset: int  # bytes from the start of `file`
    size: int  # bytes
    folder: str  # the class: synset or folder name
    name: str  # the photo's own file name

    def read(self) -> bytes:
        """The photo's bytes; OSError where the file has become shorter than it was when listed.

        UserError where they are too many for a picture.
        """
        pictures.check_bytes(self.size)
        with (
            naming("photo", self.file, "it was there when it was listed; put it back"),
            open(self.file, "rb") as stream,
        ):
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) != self.size:
            raise FailedError(
                f"{self.file} ended within {self.folder}/{self.name}: did it change during the preparation?"
            )
        return data


@dataclass(frozen=True)
class Split:
    """One split of a source: where it lies, and its photos, always the same ones in the same order."""

    where: str
    listed: Callable[[LeftOut], Iterator[AnyPhoto]]
    path: Path  # all that lies at or below it is listed, or counted as left out

    def __call__(self, left_out: LeftOut | None = None) -> Iterator[AnyPhoto]:
        """Lists the photos; what lies there and is none of them is counted in `left_out`."""
        return self.listed(LeftOut() if left_out is None else left_out)


def find_splits(source: Path, val_share: float | None = None) -> dict[str, Split]:
    """The splits found in `source`, of which each lists its photos.

    Training photos come by class, then file name; validation photos by file name. Tars, folders and records with the
    same photos so give the same list.

    Args:
      source: a folder with the official tars; with class folders train/<class>/ and val/<class>/ (or validation/,
        valid/), where a flat val/ of official names is labelled by the official list; ILSVRC/Data/CLS-LOC as on
        Kaggle; what TFDS prepared as imagenet2012; or, with `val_share`, <class>/*.jpg or <class>_<number>.jpg.
      val_share: share of each class's training photos that become the validation split, where there is none.

    Raises:
      FileNotFoundError: where `source` holds nothing of these.
      UserError: where it holds one split twice, or a validation split beside `val_share`.
    """
    if val_share is not None and not 0 < val_share < 1:
        raise UserError(f"--val-share {val_share}: a share between 0 and 1 is needed, as 0.1")
    check_name("source", source)
    splits = _of_any_form(source)
    if not splits and val_share is not None and source.is_dir():
        splits = _of_one_folder(source)
    else:
        _check_misnamed(source, splits)
    if not splits:
        raise NotThereError(_nothing_there(source))
    if val_share is not None:
        if "validation" in splits:
            raise UserError(
                f"--val-share {val_share}: there is a validation split already, {splits['validation'].where}"
            )
        train = splits["train"]
        for split, name in (("train", "the rest"), ("validation", f"{val_share:.0%} of each class")):
            listed = functools.partial(_share_of, train, share=val_share, held_out=split == "validation")
            splits[split] = Split(f"{name} of {train.where}", listed, train.path)
    return splits


def beside(source: Path, splits: Mapping[str, Split], left_out: LeftOut, *, ours: Path) -> None:
    """Count what lies in `source` outside of its splits, and of `ours`, the folder that receives the prepared sets."""
    root, source = source, source.resolve()
    named = {source / split.path.relative_to(root) for split in splits.values()}  # a split may be a link to elsewhere
    taken = named | {split.path.resolve() for split in splits.values()} | {ours.resolve()}
    if source not in taken:
        _beside(source, source, taken=taken, left_out=left_out)


def _beside(folder: Path, source: Path, *, taken: set[Path], left_out: LeftOut) -> None:
    for path in sorted(folder.iterdir()):
        name = path.relative_to(source).as_posix()
        if path in taken:
            continue
        if any(path in split.parents for split in taken):
            _beside(path, source, taken=taken, left_out=left_out)
        elif is_hidden(path.name):
            left_out.add_hidden(path, name)
        elif path.is_dir():
            passed = LeftOut()
            for below in walk(path, passed):
                _add_beside(below, below.relative_to(source).as_posix(), left_out)
            left_out.take(passed, f"{name}/")
        elif path.is_symlink() and not path.exists():
            left_out.add(DANGLING, name)
        else:
            _add_beside(path, name, left_out)


def _add_beside(path: Path, name: str, left_out: LeftOut) -> None:
    left_out.add("pictures beside the splits" if _is_picture(path) else "other files beside the splits", name)


def _check_misnamed(source: Path, splits: Mapping[str, Split]) -> None:
    """UserError for what seems to be a split that is not there, under a name by which it is not known."""
    listed = sorted(source.iterdir()) if source.is_dir() else []
    for split in (split for split in TARS if split not in splits):
        for path in listed:
            name = path.name.casefold()
            if path.is_dir() and _LIKE[split].fullmatch(name):
                known = ", ".join(f"{one}/" for one in _NAMES[split])
                raise UserError(f"{path} seems to be the {split} split, which is called {known}: rename the folder")
            if path.is_symlink() and not path.exists() and name in (*_NAMES[split], TARS[split].casefold()):
                raise UserError(f"{path} is a link to nothing: the {split} split would be missing; mend or remove it")
            official = name.startswith(TARS[split].casefold().removesuffix(".tar"))
            is_meant = official or _LIKE[split].fullmatch(name.partition(".")[0])
            if path.is_file() and is_meant and name.endswith((*_ARCHIVES, *_PARTS)):
                raise UserError(f"{path} {_whats_wrong(path)} (it seems to be the {split} split)")


def _whats_wrong(path: Path) -> str:
    """Why an archive of a split is not read, and the way on."""
    if path.name.casefold().endswith(_PARTS):
        return "is no finished download: finish it"
    with naming("--source", path, "name files that can be read"), open(path, "rb") as stream:
        first = stream.read(8)
    if kind := _compressed(first):
        return f"is compressed ({kind}): unpack it to a tar or a folder"
    return "has another name than the official tar's: rename it, or unpack it to a folder"


def _compressed(first: bytes) -> str:
    """What compressed a file that begins so; "" for anything else."""
    return next((kind for magic, kind in _COMPRESSED.items() if first.startswith(magic)), "")


def has_validation(source: Path) -> bool:
    """Whether validation photos lie in `source`, as `find_splits` finds them."""
    check_name("source", source)
    return "validation" in _of_any_form(source)


def _nothing_there(source: Path) -> str:
    there = "must hold" if source.is_dir() else "is no folder; it must hold"
    return (
        f"--source {source} {there} {TARS['train']} and/or {TARS['validation']}, class folders train/<class>/*.jpg "
        "and/or val/<class>/*.jpg, or TFDS's imagenet2012; with --val-share 0.1 class folders <class>/*.jpg will do"
    )


def _of_any_form(source: Path) -> dict[str, Split]:
    """The splits of a source that names them, {} where it does not."""
    records, others = _of_tfds(source), _of_tars_and_folders(source)
    if records and others:
        both = " and ".join(next(iter(form.values())).where for form in (records, others))
        raise UserError(f"--source {source} holds both {both}: leave only one of them there")
    return records or others


def _of_tars_and_folders(source: Path) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for split in TARS:
        tars = [source / TARS[split]] if (source / TARS[split]).is_file() else []
        folders = [source / root / name for root in _ROOTS for name in _NAMES[split]]
        places = [*tars, *(folder for folder in folders if folder.is_dir())]
        if len(places) > 1:
            both = " and ".join(str(path.relative_to(source)) + "/" * path.is_dir() for path in places)
            raise UserError(f"--source {source} holds both {both}: leave only one of them there")
        if places:
            listed = functools.partial(_LISTS[split, places[0].is_dir()], places[0])
            splits[split] = Split(str(places[0]), listed, places[0])
    return splits


def _of_tfds(source: Path) -> dict[str, Split]:
    """The splits of imagenet2012 as TFDS prepared it, {} where it lies not there."""
    if not (folder := tfds_records.find(source, "imagenet2012")):
        return {}
    info = tfds_records.info_of(folder)
    if info.name != "imagenet2012":
        raise UserError(f"--source {folder} holds TFDS's {info.name!r}: imagenet2012 is needed")
    names = tuple(info.features["label"].names)
    return {
        split: Split(f"{folder} ({split})", functools.partial(_of_records, info, names=names, split=split), folder)
        for split in TARS
        if split in info.splits
    }


def _of_records(info: Any, left_out: LeftOut, *, names: tuple[str, ...], split: str) -> Iterator[RecordPhoto]:
    if split == next(name for name in TARS if name in info.splits):  # once
        for other in (other for other in info.splits if other not in TARS):
            for place in range(info.splits[other].num_examples):
                left_out.add("records of other splits", f"{other} {place}")
    photos = []
    for file, count in tfds_records.shards_of(info, split):
        for place in range(count):
            features = tfds_records.features_of(file, place)
            try:
                name = features["file_name"].bytes_list.value[0].decode()
                (label,) = tfds_records.labels_in(features["label"], len(names))
                photos.append(RecordPhoto(file, place, names[label], name))
            except (IndexError, ValueError) as error:  # the latter: no UTF-8, or no label of the set
                raise UserError(f"{file} has no name or label in record {place}: prepare the set again") from error
    photos.sort(key=_by_class if split == "train" else _by_name)
    for photo, other in itertools.pairwise(photos):
        if photo[2:] == other[2:]:
            raise UserError(f"{other.file} holds {other.folder}/{other.name} twice: prepare the set again")
    yield from photos


def _of_one_folder(source: Path) -> dict[str, Split]:
    """Class folders without splits, or one flat folder whose file names say the class; {} for a folder of neither."""
    listed = sorted(path for path in source.iterdir() if not is_hidden(path.name))
    for path in listed:
        if path.is_dir() and any(like.fullmatch(path.name.casefold()) for like in _LIKE.values()):
            raise UserError(f"{path} seems to be a split and no class: move it away, or rename it")
    if any(path.is_dir() for path in listed):
        return {"train": Split(str(source), functools.partial(_class_folders, source), source)}
    if any(_is_picture(path) for path in listed):
        return {"train": Split(str(source), functools.partial(_flat, source), source)}
    return {}


def _flat(folder: Path, left_out: LeftOut) -> Iterator[Photo]:
    """<class>_<number>.jpg, as ImageNet's own training photos are called."""
    photos = []
    for path in _pictures(folder, left_out):
        match = re.fullmatch(r"(.+)_[0-9]+", path.stem)
        if match is None:
            raise UserError(f"{path}: in one folder names as <class>_<number>.jpg are needed, or one folder per class")
        photos.append(Photo(str(path), 0, path.stat().st_size, match[1], path.name))
    yield from sorted(photos, key=_by_class)


def _share_of(train: Split, left_out: LeftOut, *, share: float, held_out: bool) -> Iterator[AnyPhoto]:
    """The `held_out` photos, or the rest: of each class the first ones in the order of a hash of their names."""
    chosen: list[AnyPhoto] = []
    for name, of_class in itertools.groupby(train(LeftOut() if held_out else left_out), key=lambda photo: photo.folder):
        photos = sorted(of_class, key=lambda photo: (_hash(f"{photo.folder}/{photo.name}"), photo.name))
        count = min(max(1, round(share * len(photos))), len(photos) - 1)
        if count < 1:
            raise UserError(f"--val-share {share}: class {name} has one photo alone, two are needed")
        chosen += photos[:count] if held_out else photos[count:]
    yield from sorted(chosen, key=_by_name if held_out else _by_class)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()


def _by_class(photo: AnyPhoto) -> tuple[str, str]:
    return photo.folder, photo.name


def _by_name(photo: AnyPhoto) -> tuple[str, str]:
    return photo.name, photo.folder


def official_synsets() -> tuple[str, ...]:
    """ImageNet's 1000 synsets in the order of its own indices."""
    return tuple(_words_of_synsets())


def class_words(class_names: Iterable[str]) -> tuple[str, ...]:
    """What people call these classes: ImageNet's first word for one of its synsets, for any other class its name."""
    words = _words_of_synsets()
    return tuple(words.get(name, name) for name in class_names)


@functools.cache
def _words_of_synsets() -> dict[str, str]:
    """{synset: the first of its words}, in the order of ImageNet's own indices."""
    lines = (importlib.resources.files("zfjax.data") / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


@functools.cache
def _synsets_of_validation() -> tuple[str, ...]:
    """The synset of each of the 50,000 validation photos, in the order of their numbers: a list that TFDS bundles."""
    with extra("train"):
        bundled = importlib.resources.files("tensorflow_datasets") / "datasets" / "imagenet2012"
    return tuple((bundled / "validation_labels.txt").read_text().split())


def _train_tar(path: Path, left_out: LeftOut) -> Iterator[Photo]:
    """The official training tar: one tar per synset, each with that synset's photos."""
    with open(path, "rb") as stream:
        listed = sorted(members(stream, str(path), left_out), key=lambda member: member.name)
    _check_once(str(path), (Path(member.name).stem for member in listed))
    with tarfile.open(path, mode="r:") as archive:
        for member in listed:
            where = f"{path} ({member.name})"
            if not member.name.endswith(".tar"):
                raise UserError(
                    f"{where}: the training tar must hold one <synset>.tar per class, nothing else; make it again "
                    "without that, or unpack it to class folders"
                )
            window = archive.extractfile(member)
            photos = sorted(members(window, where, left_out), key=lambda photo: photo.name)
            if not photos:
                raise UserError(f"{where} holds no photo: copy or download it again")
            for photo in photos:
                start = member.offset_data + photo.offset_data
                yield Photo(str(path), start, photo.size, Path(member.name).stem, Path(photo.name).name)


def _validation_tar(path: Path, left_out: LeftOut) -> Iterator[Photo]:
    """The official validation tar: photos named by number, whose class stands on that line of the official list."""
    with open(path, "rb") as stream:
        listed = sorted(members(stream, str(path), left_out), key=lambda member: Path(member.name).name)
    _check_once(str(path), (Path(member.name).name for member in listed))
    for member in listed:
        name = Path(member.name).name
        yield Photo(str(path), member.offset_data, member.size, _official_class(name, f"{path} ({name})"), name)


def _official_class(name: str, where: str) -> str:
    """The synset of a validation photo, by the official list."""
    synsets = _synsets_of_validation()
    match = _OFFICIAL.fullmatch(name)
    if match is None or not 1 <= int(match[1]) <= len(synsets):
        raise UserError(
            f"{where}: names must run from ILSVRC2012_val_00000001.JPEG to _00050000.JPEG; rename or remove it"
        )
    return synsets[int(match[1]) - 1]


def _check_once(where: str, names: Iterable[str]) -> None:
    """UserError for a name that comes twice: which of the two is meant, nobody can tell."""
    name, count = collections.Counter(names).most_common(1)[0] if (names := list(names)) else ("", 0)
    if count > 1:
        raise UserError(f"{where} holds {printable(name)} {count} times: make it again with each name once")


def _train_folder(root: Path, left_out: LeftOut) -> Iterator[Photo]:
    yield from _class_folders(root, left_out)


def _validation_folder(root: Path, left_out: LeftOut) -> Iterator[Photo]:
    """Class folders, or the official photos without any, as they come out of the tar."""
    listed = [path for path in root.iterdir() if not is_hidden(path.name)]
    if listed and not any(path.is_dir() for path in listed) and any(_OFFICIAL.fullmatch(path.name) for path in listed):
        for path in _pictures(root, left_out):  # in the order of their numbers
            yield Photo(str(path), 0, path.stat().st_size, _official_class(path.name, str(path)), path.name)
        return
    yield from sorted(_class_folders(root, left_out), key=_by_name)


def _class_folders(root: Path, left_out: LeftOut) -> Iterator[Photo]:
    """Photos of root/<class>/; what is none of them is counted."""
    folders = []
    for path in sorted(root.iterdir()):
        name = f"{root.name}/{path.name}"
        if is_hidden(path.name):
            left_out.add_hidden(path, name)
        elif path.is_dir():
            folders.append(path)
        elif path.is_symlink() and not path.exists():
            if not _is_picture(path):
                raise UserError(f"{path} is a link to nothing: a whole class would be missing; mend or remove the link")
            left_out.add(DANGLING, name)
        else:
            left_out.add("pictures beside the class folders" if _is_picture(path) else NO_PICTURES, name)
    if not folders:
        raise UserError(f"{root} has no class folders: it must hold one folder of pictures per class")
    for folder in folders:
        paths = _pictures(folder, left_out)
        if not paths:
            raise UserError(f"{folder} has no pictures ({' '.join(pictures.ENDINGS)}): put some there, or remove it")
        yield from (Photo(str(path), 0, path.stat().st_size, folder.name, path.name) for path in paths)


NO_PICTURES = "files without the ending of a picture"


def _pictures(folder: Path, left_out: LeftOut) -> list[Path]:
    """The pictures of a folder, by name; deeper ones are counted, not taken."""
    paths, passed = [], LeftOut()
    for path in walk(folder, passed):
        name = f"{folder.parent.name}/{folder.name}/{path.relative_to(folder).as_posix()}"
        if not _is_picture(path):
            left_out.add(NO_PICTURES, name)
        elif path.parent != folder:
            left_out.add("pictures in folders within a class", name)
        else:
            paths.append(path)
    left_out.take(passed, f"{folder.parent.name}/{folder.name}/")
    return paths


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in pictures.ENDINGS


# (split, in a folder and not in a tar) -> its list
_LISTS: dict[tuple[str, bool], Callable[[Path, LeftOut], Iterator[Photo]]] = {
    ("train", False): _train_tar,
    ("train", True): _train_folder,
    ("validation", False): _validation_tar,
    ("validation", True): _validation_folder,
}


def members(stream: Any, where: str, left_out: LeftOut | None = None) -> list[tarfile.TarInfo]:
    """The files in a tar that is complete, but for hidden ones, which are counted.

    UserError naming `where` for a tar that is cut short, damaged, compressed or followed by something else, for a link
    in it, as nothing is unpacked that it could point to, and for a name that stands in it twice.
    """
    left_out = LeftOut() if left_out is None else left_out
    first = stream.read(512)
    if kind := _compressed(first):
        raise UserError(f"{where} is compressed ({kind}): unpack it to a tar or a folder, to be read in any order")
    if first.lstrip()[:5].lower() in (b"<html", b"<!doc", b"<?xml"):
        raise UserError(f"{where} is a web page and no tar: the download needs an account; sign in and repeat it")
    if not first:
        raise UserError(f"{where} is empty: copy or download it again")
    stream.seek(0)
    listed = []
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                name = printable(member.name)
                if any(is_hidden(part) for part in Path(member.name).parts if part != ".."):
                    left_out.add("hidden files", f"{where}: {name}")
                elif member.islnk() or member.issym():
                    raise UserError(
                        f"{where} holds the link {name}: make it anew with the files that its links stand for "
                        "(tar --dereference --hard-dereference), or unpack it to a folder"
                    )
                elif member.issparse():
                    raise UserError(
                        f"{where} holds {name} with its holes left out: make it anew without tar's --sparse, or "
                        "unpack it to a folder"
                    )
                elif member.isfile():
                    listed.append(member)
                elif not member.isdir():
                    left_out.add("neither files nor folders", f"{where}: {name}")
            end = archive.offset
    except tarfile.TarError as error:
        raise UserError(f"{where} is no complete tar ({error}): copy or download it again") from error
    _check_end(stream, end, where)
    _check_once(where, (posixpath.normpath(member.name) for member in listed))  # "./a" is "a"
    return listed


def _check_end(stream: Any, end: int, where: str) -> None:
    """UserError where a tar does not end at `end`, after its last member.

    Cut exactly between two members, a tar looks to `tarfile` like a shorter one; only blocks of zeros at its end tell
    them apart. Two are the rule, some programs write one.
    """
    stream.seek(end)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise UserError(f"{where} is cut short, its end is not marked: copy or download it again")
    while block:
        if block.strip(b"\0"):
            raise UserError(f"{where} goes on after its end, or is damaged there: copy or download it again")
        block = stream.read(2**20)
