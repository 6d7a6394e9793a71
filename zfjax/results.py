"""A result: the folder that one command claims, its files, and result.json, which is written last and names them.

Only files that an earlier result.json of the same command names are ever removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar, cast

from zfjax import files, parallel
from zfjax.errors import UserError, naming

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


def check_apart(folder: Path, data: str | None) -> None:
    """UserError where a result would lie in the folder of pictures that `data` names: they would be looked at too."""
    if data is not None and os.path.isdir(data) and _real(folder).is_relative_to(_real(Path(data))):
        raise UserError(
            f"out={str(folder)!r}: it lies in the folder of pictures, data={data!r}, and would be looked at too; give "
            "--out another folder"
        )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # which goes on where links run in a circle


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
    contents: Mapping[str, Any],
    encode: Callable[[Any], bytes] = bytes,
) -> Whole:
    """Write the files of a result, and last result.json, which names them with their sizes and digests.

    All files are whole before the first replaces an earlier one; what an earlier result of this folder named and this
    one does not is removed. Numbers that are not finite become null, as JSON has no others.

    Args:
      folder: from `claimed`.
      command: what made the result.
      result: what result.json says.
      contents: {name: what stands in that file}.
      encode: makes the bytes of it; the files are made one after the other.

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
            data = encode(content)
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
