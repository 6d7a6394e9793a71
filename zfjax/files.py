"""Files that are whole or not there, and folders that one process at a time writes into."""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zfjax import schema
from zfjax.errors import NotThereError, UserError

LOCK = ".lock"  # the file that a process holds while it writes into a folder


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
    write_atomically(path, (json.dumps(_plain(result), indent=2, allow_nan=False) + "\n").encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path` under another name, then rename: a killed run leaves the old file or none, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


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
    if not path.is_file():
        raise NotThereError(f"{path}: no such file; {way_on}")
    return parse_json(path.read_bytes(), fields, str(path), way_on)


def parse_json(text: bytes, fields: Any, where: str, way_on: str) -> Any:
    """`read_json` of bytes that are read already, and lie at `where`."""
    try:
        value = json.loads(text.decode())
        schema.check(value, fields)
    except (ValueError, RecursionError) as error:  # no text, no JSON, too deep, a number of too many digits, a field
        raise UserError(f"{where} is damaged ({error}); {way_on}") from error
    return value


def read_npz(path: Path, way_on: str) -> dict[str, np.ndarray]:
    """{name: array} of all that an .npz of ours holds; the checksums of the zip are verified.

    UserError, naming the file and the `way_on`, for one that is damaged or no .npz.
    """
    try:
        with open(path, "rb") as stream:  # not np.load, which tries what is no .npz as other formats
            saved = np.lib.npyio.NpzFile(stream, allow_pickle=False)
            if len(set(saved.files)) < len(saved.files):
                raise UserError("a name stands in it twice")
            return {name: saved[name] for name in saved.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError) as error:
        raise UserError(f"{path} is damaged ({_words(error)}); {way_on}") from error


def read_npy(path: Path, shape: Sequence[int], dtype: Any, way_on: str, *, finite: bool = False) -> np.ndarray:
    """The array of an .npy file of ours, of this shape and type; `finite`: and without NaN and infinities.

    UserError, naming the file and the `way_on`, for any other.
    """
    try:
        with open(path, "rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, MemoryError) as error:
        raise UserError(f"{path} is damaged ({_words(error)}); {way_on}") from error
    if array.shape != tuple(shape) or array.dtype != dtype:
        raise UserError(f"{path} holds {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}; {way_on}")
    if finite and not np.isfinite(array).all():
        raise UserError(f"{path} holds values that are not finite; {way_on}")
    return array


def _words(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def hash_of(data: bytes) -> str:
    """A hash of a file's bytes, as a manifest holds it."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    """`value` in the types of JSON; TypeError for what has no place there."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if hasattr(value, "__array__"):
        return _plain(np.asarray(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(entry) for entry in value]
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
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other process out of `folder`; the lock falls with its process, however that ends.

    UserError where another one holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing into {folder}; wait for it, or take another folder") from None
        yield


def clear(folder: Path, replaced: Path) -> None:
    """Remove what unfinished preparations left beside `folder`; a set that one was about to replace comes back."""
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    for rest in folder.parent.glob("incomplete.*"):
        shutil.rmtree(rest)
