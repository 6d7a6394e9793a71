"""Files that are whole or not there, and folders that one process at a time writes into."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import socket
import time
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from zfjax import schema
from zfjax.errors import FailedError, HeldError, NotThereError, UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LONGEST = 150  # characters of a file's name; systems take 255, of which endings and locks need some
_END = 22  # bytes of the record that ends a zip
LOCK = ".lock"  # the file that a process holds while it writes into a folder; it says which process
# What a file system, or a sandbox, without locks says of one: some Lustre, NFS and FUSE mounts
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EPERM}
_TAKEN = {errno.EWOULDBLOCK, errno.EACCES}  # by another process; the latter says SMB


def file_name(text: str) -> str:
    """A name for a file, of a layer's or a network's: another for every text, and a plain name as it is."""
    quoted = urllib.parse.quote(text, safe="")
    quoted = f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
    return quoted if len(quoted) <= _LONGEST else f"{quoted[:_LONGEST]}~{hash_of(text.encode())}"


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as the bytes of a compressed .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub fears one named allow_pickle
    return buffer.getvalue()


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed .npz, whole or not at all."""
    write_atomically(path, npz(arrays))


def save_json(path: Path, result: Mapping[str, Any] | list[str]) -> None:
    """Write `result` as JSON, whole or not at all.

    Dataclasses, paths and NumPy values are spelt out. A number that is not finite becomes null, as JSON has none.
    """
    write_atomically(path, (json.dumps(plain(result), indent=2, allow_nan=False) + "\n").encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path` under another name, then rename: a killed run leaves the old file or none, never half."""
    with naming(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            unfinished.write_bytes(data)
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed processes left half written of these files; `folder` is this process's alone."""
    for name in names:
        for rest in folder.glob(f".{glob.escape(name)}.*"):
            if re.fullmatch(r"\d+(\.partial)?", rest.name.removeprefix(f".{name}.")):
                rest.unlink(missing_ok=True)


def read_json(path: Path, fields: Any, way_on: str) -> Any:
    """What a JSON file of ours holds, which has the fields that it should have.

    Args:
      path: the file.
      fields: a TypedDict, or another type of `schema.faults`.
      way_on: what a user can do where it is damaged, as "make it again".

    Raises:
      FileNotFoundError: no such file.
      UserError: no JSON, or without one of the fields; it names the file.
    """
    if not path.is_file() and not path.is_dir():
        raise NotThereError(f"{path}: no such file; {way_on}")
    with naming(path):
        data = path.read_bytes()
    return parse_json(data, fields, where=str(path), way_on=way_on)


def parse_json(text: bytes, fields: Any, *, where: str, way_on: str) -> Any:
    """`read_json` of bytes that are read already, and lie at `where`."""
    try:
        value = json.loads(text.decode(), object_pairs_hook=once)
        schema.check(value, fields)
    except (ValueError, RecursionError) as error:  # no text, no JSON, too deep, a number of too many digits, a field
        raise UserError(f"{where} is damaged ({error}); {way_on}") from error
    return value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for its reader; UserError for a name that stands there twice, of which one would be lost."""
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise UserError(f"{next(name for name in values if names.count(name) > 1)!r} stands there twice")
    return values


def read_npz(path: Path, way_on: str) -> dict[str, np.ndarray]:
    """{name: array} of all that an .npz of ours holds; the checksums of the zip are verified, and its directory.

    UserError, naming the file and the `way_on`, for one that is damaged or no .npz.
    """
    with naming(path):
        data = path.read_bytes()
    try:
        # not np.load, which tries what is no .npz as other formats
        saved = np.lib.npyio.NpzFile(io.BytesIO(data), allow_pickle=False)
        end = data[-_END:]  # without a comment, as NumPy writes it
        count, size, start = (int.from_bytes(end[at:to], "little") for at, to in ((10, 12), (12, 16), (16, 20)))
        whole = end.startswith(b"PK\5\6") and start + size + _END == len(data)
        if not whole or not count == len(saved.files) == len(set(saved.files)):
            raise UserError("its list of arrays is not whole, or has a name twice")
        return {name: saved[name] for name in saved.files}
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds; the file is no use
        raise UserError(f"{path} is damaged ({_words(error)}); {way_on}") from error


def read_npy(path: Path, *, shape: Sequence[int], dtype: Any, way_on: str, finite: bool = False) -> np.ndarray:
    """The array of an .npy file of ours, of this shape and type; `finite`: and without NaN and infinities.

    UserError, naming the file and the `way_on`, for any other.
    """
    try:
        with naming(path), open(path, "rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, MemoryError) as error:
        raise UserError(f"{path} is damaged ({_words(error)}); {way_on}") from error
    if array.shape != tuple(shape) or array.dtype != dtype:
        raise UserError(f"{path} holds {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}; {way_on}")
    if finite and not np.isfinite(array).all():
        raise UserError(f"{path} holds values that are not finite; {way_on}")
    return array


# What systems leave beside a user's own files, whatever the letters' size; names that begin with a dot are hidden too
_OF_SYSTEMS = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__macosx", "lost+found"),
    *("#recycle", "$recycle.bin", "system volume information"),
}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's own, as .DS_Store, ._photo.jpg and Thumbs.db."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


class LeftOut:
    """What a reader passed over: how many by reason, with the first names of each."""

    FIRST = 5

    def __init__(self) -> None:
        self.reasons: dict[str, dict[str, Any]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one more."""
        entry = self.reasons.setdefault(reason, {"count": 0, "first": []})
        entry["count"] += 1
        if entry["count"] <= self.FIRST:
            entry["first"].append(printable(name))

    def add_hidden(self, path: Path, name: str) -> None:
        """Count a hidden file, or each file in a hidden folder, but none deeper: it may be a disk's snapshots."""
        inside = sorted(below.name for below in path.glob("*") if below.is_file()) if path.is_dir() else []
        for one in [f"{name}/{below}" for below in inside] or [name]:
            self.add("hidden files", one)

    def take(self, other: LeftOut, before: str) -> None:
        """Add another's counts, whose names stand below `before`."""
        for reason, entry in other.reasons.items():
            mine = self.reasons.setdefault(reason, {"count": 0, "first": []})
            mine["count"] += entry["count"]
            mine["first"] = [*mine["first"], *(f"{before}{name}" for name in entry["first"])][: self.FIRST]

    def lines(self) -> list[str]:
        """Each reason as a line: "3 links to nothing (first: a.jpg, b.jpg)"."""
        return lines_of(self.reasons)


def lines_of(reasons: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """`LeftOut.reasons` as lines."""
    return [
        f"{entry['count']:,} {reason} ({', '.join(entry['first'])}{', ...' * (entry['count'] > len(entry['first']))})"
        for reason, entry in reasons.items()
    ]


def printable(name: str) -> str:
    """A name in one line that can be encoded: bytes that are no UTF-8, line breaks and the like are spelt out."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _BREAKING else letter
        for letter in text
    )


_BREAKING = ("Cc", "Zl", "Zp")  # controls of a terminal, and what separates lines


def walk(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """Every file below a folder, by path; links are followed. The one walk over folders of users.

    Hidden files, links to nothing or back to a folder above, and what is neither file nor folder (a pipe) are passed
    over and counted.
    """
    yield from _walk(folder, root=folder, left_out=left_out, above=frozenset())


def _walk(folder: Path, *, root: Path, left_out: LeftOut, above: frozenset[Path]) -> Iterator[Path]:
    above |= {folder.resolve()}
    for path in sorted(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        if is_hidden(path.name):
            left_out.add_hidden(path, name)
        elif path.is_dir():
            if path.is_symlink() and path.resolve() in above:
                left_out.add("links back to a folder above", name)
            else:
                yield from _walk(path, root=root, left_out=left_out, above=above)
        elif path.is_file():
            yield path
        elif path.is_symlink():
            left_out.add(DANGLING, name)
        else:
            left_out.add("neither files nor folders", name)


DANGLING = "links to nothing"


def _words(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def hash_of(data: bytes) -> str:
    """A hash of a file's bytes, as a manifest holds it."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def plain(value: Any) -> Any:
    """`value` in the types of JSON; TypeError for what has no place there."""
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if hasattr(value, "__array__"):
        return plain(np.asarray(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    raise TypeError(f"result of {type(value).__name__}: plain values, arrays, paths and dataclasses can be written")


def digest(tree: Any) -> str:
    """A hash of every array in `tree`: its path, type, shape and bytes."""
    hashed = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        hashed.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()


@contextlib.contextmanager
def locked(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Keeps every other process out of `folder`; the lock falls with its process, however that ends.

    Where the file system has no locks a warning is logged, and nobody is kept out.

    Args:
      folder: made if it is not there.
      patience: seconds to wait for a process that holds it.

    Raises:
      HeldError: another one holds it; its words say which.
      UserError: a system without such locks (Windows).
      FailedError: the lock failed otherwise, as on a disk that is broken.
    """
    if fcntl is None:
        raise UserError(
            f"{folder} cannot be kept from other processes: this system has no flock. zfjax is tested on Linux; "
            "on Windows use WSL"
        )
    with _taken(folder, patience) as lock:
        try:
            with naming(folder / LOCK):
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            yield
        finally:
            with contextlib.suppress(OSError):  # gone with the folder, or the disk is no longer there
                (folder / LOCK).unlink()


@contextlib.contextmanager
def claimed(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """`locked`; a folder that was made for it, and its parents, are gone again where nothing came of it."""
    made = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        with locked(folder, patience=patience):
            yield
    finally:
        for place in made:
            with contextlib.suppress(OSError):  # something lies there, or it was not made
                place.rmdir()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Lets an error of the system name `path`, of our own making, where it names none: a full disk is noticed without.

    UserError for a folder where a file of ours belongs, or a file where a folder does: somebody put it there.
    """
    try:
        yield
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder, and a file of that name belongs there: move it away") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{error.filename or path} is no folder, and one belongs there: move it away") from error
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _taken(folder: Path, patience: float) -> IO[bytes]:
    """The open lock file of `folder`, which is ours until it is closed."""
    last = time.monotonic() + patience
    while True:
        folder.mkdir(parents=True, exist_ok=True)  # again, where its holder has taken it away
        lock = open(folder / LOCK, "ab+", buffering=0)  # noqa: SIM115  stays open; what it says of its holder stays
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                logging.getLogger(__name__).warning(
                    "%s: its file system has no locks (%s); see to it that no other process writes there",
                    folder,
                    error.strerror,
                )
                return lock
            with lock:
                holder = _holder(lock)
            if error.errno not in _TAKEN:
                why = f"{folder} cannot be kept from other processes ({error.strerror})"
                raise FailedError(f"{why}; name a folder on another disk") from error
            if time.monotonic() >= last:
                raise HeldError(
                    f"another process is writing into {folder} ({holder}); wait for it, or take another folder"
                ) from None
            time.sleep(0.1)
        else:
            if _is_at(lock, folder / LOCK):
                return lock
            lock.close()  # its holder has taken it away since it was opened


def _holder(lock: IO[bytes]) -> str:
    """What the holder wrote into its lock; on SMB nobody else can read it."""
    with contextlib.suppress(OSError):
        lock.seek(0)
        if words := lock.read(_LONGEST).decode(errors="replace").strip():
            return words
    return "which does not say its name"


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def clear(folder: Path, replaced: Path) -> None:
    """Remove what unfinished preparations left beside `folder`; a set that one was about to replace comes back."""
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    for rest in folder.parent.glob("incomplete.*"):
        shutil.rmtree(rest)
