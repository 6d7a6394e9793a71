"""A user's own folder of pictures, opened as a set to look at."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from zfjax import files
from zfjax.data import ImageSet, pictures
from zfjax.errors import NotThereError, UserError, naming

UNKNOWN = np.int32(-1)  # label of a picture whose class is not among the net's


class FolderSource:
    """Picture files as a `zfjax.data.Source`, decoded when they are asked for.

    Args:
      paths: the pictures.
      labels: int32, one for each.
      size: side, or (height, width), that they are brought to, pixels, as `prepare_imagenet` does.
      channels: 3 of colours, 1 of grey, or 4 with transparency.
      root: the folder that they were found below, for their names.
    """

    way_on = "; --skip-bad leaves such pictures out, and names them"

    def __init__(
        self,
        paths: Sequence[Path],
        labels: np.ndarray,
        *,
        size: int | tuple[int, int],
        channels: int = 3,
        root: Path | None = None,
    ):
        self._root = root
        self._files, self.labels, self._size, self._channels = tuple(paths), labels, size, channels

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            with naming("picture", self._files[index], "it was there when its folder was read; put it back"):
                data = pictures.read(self._files[index])
            image = pictures.preprocess(data, self._size, self._channels)
        except NotThereError:
            raise
        except ValueError as error:
            raise UserError(f"{files.printable(str(self._files[index]))}: {error}{self.way_on}") from error
        return {"image": image, "label": self.labels[index], "index": np.int32(index)}

    def name(self, index: int) -> str:
        """The file's path below the folder, or its own name where there is none: it names one picture alone."""
        file = self._files[index]
        return files.printable(file.name if self._root is None else file.relative_to(self._root).as_posix())


def open_folder(
    path: Path | str,
    size: int | tuple[int, int],
    class_names: Sequence[str] = (),
    *,
    channels: int = 3,
    skip_bad: bool = False,
) -> ImageSet:
    """Every picture below a folder, by path; or the one picture that `path` is.

    A picture directly inside a folder that is called as one of `class_names` has that class; any other has the label
    -1. The same pictures stand for both splits, as they are looked at and not learnt from.

    Args:
      path: a folder with .jpg, .png and other pictures, at any depth, or one such file.
      size: side of the pictures that it yields, or their (height, width), pixels.
      class_names: label -> name, of the net that will look at them.
      channels: 3 of colours, 1 of grey, or 4 with transparency.
      skip_bad: decode every picture once, and leave out, counted and named, those that cannot be.

    Raises:
      FileNotFoundError: nothing there, or no file with the ending of a picture.
      UserError: later, where a file that is asked for holds no picture, naming it.

    Examples:
      >>> import pathlib, tempfile, numpy as np
      >>> from PIL import Image
      >>> from zfjax.data import folder
      >>> photos = pathlib.Path(tempfile.mkdtemp())
      >>> Image.fromarray(np.zeros((9, 16, 3), np.uint8)).save(photos / "a.png")
      >>> folder.open_folder(photos, 8).validation[0]["image"].shape
      (8, 8, 3)
    """
    path, left_out, paths = Path(path), files.LeftOut(), []
    for file in [path] if path.is_file() else files.walk(path, left_out) if path.is_dir() else ():
        if file.suffix.lower() in pictures.ENDINGS:
            paths.append(file)
        else:
            left_out.add("without the ending of a picture", file.relative_to(path.parent).as_posix())
    if not paths:
        others = "".join(f"; {line}" for line in files.lines_of(left_out.reasons))
        raise NotThereError(
            f"{path}: no picture there ({', '.join(pictures.ENDINGS)}){others}; name a folder that holds some"
        )
    if skip_bad:
        paths = _readable(paths, path, left_out)
    labels = {name: np.int32(label) for label, name in enumerate(class_names)}
    source = FolderSource(
        paths,
        np.array([labels.get(file.parent.name, UNKNOWN) for file in paths]),
        size=size,
        channels=channels,
        root=path if path.is_dir() else None,
    )
    hashed = hashlib.blake2b(f"{size}{f' {channels}' if channels != 3 else ''}".encode(), digest_size=16)
    for file in paths:
        facts = file.stat()
        line = f"{file.relative_to(path.parent)} {facts.st_size} {facts.st_mtime_ns}"
        hashed.update(line.encode(errors="surrogateescape"))
    digest = hashed.hexdigest()
    return ImageSet(path.name, size, tuple(class_names), source, source, None, None, digest, left_out.reasons)


def _readable(paths: Sequence[Path], path: Path, left_out: files.LeftOut) -> list[Path]:
    """Those of the pictures that can be decoded; UserError where none can."""

    def problem(file: Path) -> str:
        try:
            pictures.load(pictures.read(file))
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        problems = list(pool.map(problem, paths))
    for file, words in zip(paths, problems, strict=True):
        if words:
            left_out.add("pictures that cannot be decoded", f"{file.relative_to(path.parent).as_posix()}: {words}")
    if all(problems):
        raise UserError(f"{path}: none of its {len(paths)} pictures can be decoded; the first: {problems[0]}")
    return [file for file, words in zip(paths, problems, strict=True) if not words]
