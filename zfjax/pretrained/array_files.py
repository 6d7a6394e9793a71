"""Files of named arrays: NumPy, safetensors and their shards, Flax, Keras and Orbax. Nothing in them can execute."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from zfjax.errors import UserError, check_utf8
from zfjax.extras import extra
from zfjax.files import once
from zfjax.pretrained.words import Found, listed

NO_CHECKSUM = "the format holds no checksum: damage inside its numbers cannot be seen; sha256= compares the whole file"

_SAFETENSORS = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "BOOL": "bool",
}
_TRAINING = ("opt_state", "optimizer", "optimizer_weights", "opt_vars", "rng", "step")  # beside weights, in a tree


def read_npz(archive: zipfile.ZipFile) -> Found:
    """Arrays by name; each member is read to its end, where its CRC is compared."""
    arrays = {}
    for member in archive.namelist():
        stream = io.BytesIO(archive.read(member))
        arrays[member.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise UserError(f"{member}: more stands behind its array")
    return arrays, []


def read_safetensors(path: Path, key: str | None) -> Found:
    """The layout of https://github.com/huggingface/safetensors: the length of a JSON header, it, and the numbers."""
    _no_key(key)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    if end > len(data):
        raise UserError(f"its header ends at byte {end}, and the file at {len(data)}: a download that broke off?")
    header = json.loads(data[8:end], object_pairs_hook=once)
    header.pop("__metadata__", None)
    arrays, expected = {}, end
    for name, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if row["dtype"] not in _SAFETENSORS:
            raise UserError(f"{name} is of type {row['dtype']}: one of {', '.join(_SAFETENSORS)} is known")
        dtype, shape, (start, stop) = jnp.dtype(_SAFETENSORS[row["dtype"]]), tuple(row["shape"]), row["data_offsets"]
        size = _product(shape)
        if end + start != expected or stop - start != size * dtype.itemsize:
            raise UserError(f"{name} of shape {shape} stands at bytes {start} to {stop}, which does not fit")
        expected = end + stop
        if expected > len(data):
            raise UserError(f"{name} ends at byte {expected}, and the file at {len(data)}: a download that broke off?")
        arrays[name] = np.frombuffer(data, dtype, count=size, offset=end + start).reshape(shape)
    if expected != len(data):
        raise UserError(f"its arrays end at byte {expected}, and the file at {len(data)}")
    return arrays, [NO_CHECKSUM]


def shards_of(path: Path, text: bytes) -> dict[str, list[str]]:
    """{file: names of its arrays} of an index, `model.safetensors.index.json` or `pytorch_model.bin.index.json`."""
    index = json.loads(text, object_pairs_hook=once)
    names = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(names, Mapping) or not names:
        raise UserError("it is JSON without a 'weight_map', which says in which file each array lies")
    files: dict[str, list[str]] = {}
    for name, file in names.items():
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".", "..") or "\\" in file:
            raise UserError(f"{name} lies in {file!r}: the name of a file beside the index is needed")
        files.setdefault(file, []).append(name)
    if missing := [file for file in files if not (path.parent / file).is_file()]:
        raise UserError(f"{len(missing)} of its {len(files)} shards are not beside it: {listed(missing)}")
    return files


def read_msgpack(path: Path, key: str | None) -> Found:
    """A tree that `flax.serialization` wrote (to_bytes, msgpack_serialize)."""
    from flax import serialization

    tree = serialization.msgpack_restore(path.read_bytes())
    arrays, notes = _of_tree(tree, key)
    return arrays, [*notes, NO_CHECKSUM]


def read_hdf5(path: Path, key: str | None) -> Found:
    """Keras's `.weights.h5`, or its whole models as .h5."""
    return _of_hdf5(path.read_bytes(), key)


def read_keras(archive: zipfile.ZipFile, key: str | None) -> Found:
    """The weights of a `.keras` archive; its configuration, which may name code, is not looked at."""
    records = {name: archive.read(name) for name in archive.namelist()}
    return _of_hdf5(records["model.weights.h5"], key, is_checked=True)


def read_orbax(path: Path, key: str | None) -> Found:
    """A checkpoint of Orbax, its newest step where `path` is a manager's folder, and its one item of arrays."""
    import orbax.checkpoint as ocp

    check_utf8("weights", path)
    folder, notes = _orbax_item(path)
    checkpointer = ocp.PyTreeCheckpointer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that the shards of other devices come to this one
        metadata = checkpointer.metadata(folder).item_metadata
        if metadata is None:
            raise UserError(f"{folder.name}/_METADATA is damaged")
        tree = metadata.tree
        as_numpy = _mapped(tree, lambda _: ocp.RestoreArgs(restore_type=np.ndarray))
        arrays, more = _of_tree(checkpointer.restore(folder, restore_args=as_numpy), key)
    return arrays, [*notes, *more]


def is_orbax(folder: Path) -> bool:
    """Whether a folder is a checkpoint of Orbax, a step with items, or a manager's folder of steps."""
    marks = ("_METADATA", "_CHECKPOINT_METADATA")
    return any(next(folder.glob(f"{below}{mark}"), None) for below in ("", "*/", "*/*/") for mark in marks)


def _orbax_item(path: Path) -> tuple[Path, list[str]]:
    notes: list[str] = []
    folder = path.absolute()
    for _ in range(3):
        if (folder / "_METADATA").is_file():
            return folder, notes
        below = [child for child in folder.iterdir() if child.is_dir()]
        steps = sorted((child for child in below if re.fullmatch(r"(\w+_)?[0-9]+", child.name)), key=_step)
        items = steps[-1:] or [child for child in below if (child / "_METADATA").is_file()]
        if len(items) != 1:
            names = ", ".join(sorted(child.name for child in items)) or "none"
            raise UserError(f"one item of arrays (a folder with _METADATA) is needed in {folder.name}, found {names}")
        (folder,) = items
        notes.append(f"{folder.name!r} was taken")
    raise UserError("no folder with _METADATA is in it")


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("_")[2])


def _of_hdf5(data: bytes, key: str | None, *, is_checked: bool = False) -> Found:
    with extra("h5"):
        import h5py

    arrays: dict[str, np.ndarray] = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        if key is not None and not isinstance(file.get(key), h5py.Group):
            raise UserError(f"key={key!r}: it holds {listed(file)}")
        top = key or ("model_weights" if "model_weights" in file else "")
        root = file[top] if top else file
        for name, dataset in _datasets(root):
            if not key and name.split("/")[0] in _TRAINING:
                continue
            if dataset.dtype.kind not in "biufc":
                continue
            if dataset.is_virtual or dataset.external:
                raise UserError(f"{name} lies outside the file")
            stored = dataset.id.get_storage_size()
            if dataset.compression is None and stored < dataset.nbytes:
                raise UserError(f"{name} has {stored} of its {dataset.nbytes} bytes: a file that was not written whole")
            arrays[name] = np.asarray(dataset[()])
    notes = [f"{top!r} was taken"] if top else []
    return arrays, notes + ([] if is_checked else [NO_CHECKSUM])


def _datasets(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Those that lie in the file itself: links to elsewhere are not followed."""
    import h5py

    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            child = group[name]
            if isinstance(child, h5py.Group):
                yield from _datasets(child, f"{prefix}{name}/")
            elif isinstance(child, h5py.Dataset):
                yield f"{prefix}{name}", child


def _of_tree(tree: Any, key: str | None) -> Found:
    """{path: array} of nested dicts, without what training keeps beside the weights."""
    if not isinstance(tree, Mapping):
        raise UserError(f"it holds a {type(tree).__name__}, not arrays by name")
    if key is not None:
        if not isinstance(tree.get(key), Mapping):
            raise UserError(f"key={key!r}: it holds {listed(map(str, tree))}")
        return dict(_leaves(tree[key])), [f"{key!r} was taken, as asked"]
    left = [str(name) for name in tree if name in _TRAINING]
    arrays = dict(_leaves({name: value for name, value in tree.items() if name not in _TRAINING}))
    if not arrays and left:
        raise UserError(f"it holds {listed(left)}, and no network's weights")
    return arrays, [f"left out: {listed(left)}"] if left else []


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        elif isinstance(value, np.ndarray | np.generic | int | float) and np.asarray(value).dtype != object:
            yield f"{prefix}{name}", np.asarray(value)


def _mapped(tree: Any, make: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _mapped(value, make) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_mapped(value, make) for value in tree]
    return make(tree)


def _no_key(key: str | None) -> None:
    if key is not None:
        raise UserError(f"key={key!r}: its arrays stand in no groups")


def _product(shape: tuple[int, ...]) -> int:
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise UserError(f"a shape of {shape}")
    product = 1
    for side in shape:
        product *= side
    return product
