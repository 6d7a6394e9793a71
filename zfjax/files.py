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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zfjax.errors import UserError

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
