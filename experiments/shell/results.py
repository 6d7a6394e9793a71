"""A result: the folder that one command claims, its files, and result.json, which is written last and names them.

Only files that an earlier result.json of the same command names are ever removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar, cast

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas
from zfjax import files, parallel
from zfjax.data import ImageSet
from zfjax.data.photo_sets import PhotoSet
from zfjax.errors import UserError, naming
from zfjax.nets import Net, Training, training_of

RESULT = "result.json"
PENDING = ".pending.json"  # names of the files while they are replaced


class FileFacts(TypedDict):
    """What result.json says of a file that was written with it."""

    bytes: int
    blake2b: str


class Stored(TypedDict):
    """What is read of an earlier result.json, whoever wrote it."""

    command: NotRequired[str]
    files: NotRequired[dict[str, object]]


class NetFacts(TypedDict):
    """A network as a result names it."""

    name: str
    fingerprint: str


class Checkpoint(TypedDict):
    """Where a network comes from."""

    path: Path | str  # its name where it comes from no file
    fingerprint: str
    training: NotRequired[Training]  # earlier versions did not write it


class DataFacts(TypedDict):
    """The pictures that were looked at."""

    name: str
    fingerprint: str
    num_classes: int
    left_out: NotRequired[Any]  # pictures that cannot be decoded, where there are any


class Written(TypedDict):
    """What every result.json holds."""

    config: Any  # the command's flags
    versions: dict[str, str]
    # `write` adds these
    folder: NotRequired[Path]
    command: NotRequired[str]
    files: NotRequired[dict[str, FileFacts]]


class Provenance(Written):
    """Where the numbers of a result come from."""

    net: NetFacts
    checkpoint: Checkpoint
    data: DataFacts


class Result(Provenance):
    """What the result.json of a figure or table holds whose numbers are those of a network."""

    paper: Any  # what the paper says, None where it says nothing
    seed: int


Whole = TypeVar("Whole", bound=Mapping[str, Any])


@contextlib.contextmanager
def claimed(folder: Path, command: str, *, overwrite: bool, names: Iterable[str] = ()) -> Iterator[Path]:
    """`folder` for the result of one command at a time, checked before any work is done.

    Args:
      folder: where the result goes; made if it is not there.
      command: what makes the result, as "deconv_figures".
      overwrite: whether an earlier result of this command may be replaced.
      names: of the files that will be written, as far as they are known; see `check_names`.

    Raises:
      UserError: a result is there that may not be replaced, pictures of something else are, or another process is
        writing into the folder.
    """
    with contextlib.ExitStack() as held:

        def claim() -> None:
            with naming("out", folder, "name another folder"):
                held.enter_context(files.claimed(folder))
            check_free(folder, command, overwrite=overwrite, names=names)

        parallel.of_host_0(claim)  # of several hosts that share the folder the first one writes into it
        yield folder


def check_free(folder: Path, command: str, *, overwrite: bool, names: Iterable[str] = ()) -> None:
    """UserError where a result of `command` cannot go into `folder`."""
    named = f"out={str(folder)!r}"
    with naming("out", folder, "name another folder"), contextlib.suppress(FileNotFoundError):
        os.listdir(folder)
    if (folder / RESULT).exists():
        owner = read(folder).get("command", command)
        if owner != command:
            raise UserError(f"{named}: it holds a result of {owner}; give another folder")
        if not overwrite:
            raise UserError(f"{named}: it already holds a result; give another folder, or --overwrite")
    elif not overwrite and any(path.suffix in (".png", ".npz") for path in folder.glob("[!.]*")):
        raise UserError(f"{named}: it holds files of something else; give another folder")
    check_names(folder, names)


def check_names(folder: Path, names: Iterable[str]) -> None:
    """UserError where a file of another stands where one of these is to be written; see that before any work."""
    _named(folder, list(names))


def read(folder: Path) -> dict[str, Any]:
    """The result.json of a folder, {} where there is none; UserError where it is none of ours."""
    path = folder / RESULT
    if not path.exists():
        return {}
    stored: dict[str, Any] = files.read_json(path, Stored, "remove it, or give another folder")
    return stored


def write(
    folder: Path,
    result: Whole,
    *,
    command: str,
    contents: Mapping[str, Figure | Mapping[str, np.ndarray] | bytes],
) -> Whole:
    """Write the files of a result, and last result.json, which names them with their sizes and digests.

    All files are whole before the first replaces an earlier one; what an earlier result of this folder named and this
    one does not is removed. Numbers that are not finite become null, as JSON has no others.

    Args:
      folder: from `claimed`.
      command: what made the result.
      result: what result.json says.
      contents: {name: a figure (.png), arrays (.npz), or bytes}.

    Returns:
      What result.json holds: `result` with "folder", "command" and "files".
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = _named(folder, contents)
    files.sweep(folder, {*ours, *contents, RESULT, PENDING})
    partial = {name: folder / f".{name}.{os.getpid()}.partial" for name in contents}
    facts: dict[str, FileFacts] = {}
    try:
        for name, content in contents.items():
            data = _encoded(content)
            with files.naming(folder / name):
                partial[name].write_bytes(data)
            facts[name] = {"bytes": len(data), "blake2b": hashlib.blake2b(data, digest_size=16).hexdigest()}
        files.save_json(folder / PENDING, sorted({*ours, *contents}))  # should this be killed, they are still known
        (folder / RESULT).unlink(missing_ok=True)
        for name, path in partial.items():
            with files.naming(folder / name):
                os.replace(path, folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    for name in ours - set(contents):
        (folder / name).unlink(missing_ok=True)
    whole = {**result, "folder": folder, "command": command, "files": facts}
    files.save_json(folder / RESULT, whole)
    (folder / PENDING).unlink(missing_ok=True)
    return cast(Whole, whole)


def _named(folder: Path, contents: Iterable[str]) -> set[str]:
    """The names that an earlier result of this folder gave; UserError for a file of another that is in the way."""
    result = read(folder)
    path = folder / PENDING
    pending = files.read_json(path, list[str], "remove it, or give another folder") if path.exists() else []
    names = {Path(name).name for name in [*result.get("files", {}), *pending]}
    if result and "files" not in result:  # of before there was such a list
        names |= set(contents)
    if alien := [name for name in contents if name not in names and (folder / name).exists()]:
        raise UserError(f"out={str(folder)!r}: {', '.join(alien)} there is not from an earlier result; move it away")
    return names


def _encoded(content: Figure | Mapping[str, np.ndarray] | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    return canvas.png(content) if isinstance(content, Figure) else files.npz(content)


def provenance(net: Net, data: ImageSet | PhotoSet, config: Any) -> Provenance:
    """What every result.json says about where its numbers come from."""
    facts: DataFacts = {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_classes": len(data.class_names),
    }
    if isinstance(data, ImageSet) and data.left_out:
        facts["left_out"] = data.left_out
    return {
        "net": {"name": net.name, "fingerprint": net.fingerprint},
        "checkpoint": checkpoint_of(net),
        "data": facts,
        "config": config,
        "versions": versions(),
    }


def checkpoint_of(net: Net) -> Checkpoint:
    """Where a network comes from, and what it was trained on."""
    path = getattr(net, "path", net.name)
    return {"path": path, "fingerprint": net.fingerprint, "training": training_of(net)}


def versions() -> dict[str, str]:
    """Versions of what computed and drew a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("jax", "numpy", "matplotlib")}
