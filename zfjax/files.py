"""Files that are whole or not there, and folders that one process at a time writes into."""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zfjax.errors import UserError


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed .npz, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub fears one named allow_pickle
    write_atomically(path, buffer.getvalue())


def save_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result` as JSON, whole or not at all; dataclasses, paths and NumPy values are spelt out."""
    write_atomically(path, (json.dumps(result, indent=2, default=_spelt_out) + "\n").encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path` under another name, then rename: a killed run leaves the old file or none, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _spelt_out(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"result of {type(value).__name__}: plain values, arrays, paths and dataclasses can be written")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second preparation out of `folder`; the lock falls with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another preparation is writing into {folder}") from None
        yield


def clear(folder: Path, replaced: Path) -> None:
    """Remove what unfinished preparations left beside `folder`; a set that one was about to replace comes back."""
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    for rest in folder.parent.glob("incomplete.*"):
        shutil.rmtree(rest)
