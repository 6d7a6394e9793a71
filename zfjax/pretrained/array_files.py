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

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.errors import UserError, check_utf8
from zfjax.extras import extra
from zfjax.files import once
from zfjax.pretrained.words import Found, check_unpacked, entry, listed

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
_OF_A_STATE = {"params", *_TRAINING[:4]}  # a mapping within a tree that holds one of these is a training's state


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
    header = _header(data[8:end])
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


def _header(text: bytes) -> dict[str, Any]:
    """{name: row} of safetensors; UserError where it is none."""
    try:
        header = json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        raise UserError(f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise UserError(f"its header is a {type(header).__name__}, not a row for each name")
    header.pop("__metadata__", None)
    for name, row in header.items():
        if not isinstance(row, dict) or not {"dtype", "shape", "data_offsets"} <= set(row):
            raise UserError(f"the row of {name} in its header lacks dtype, shape or data_offsets")
    return header


def shards_of(path: Path, text: bytes) -> dict[str, list[str]]:
    """{file: names of its arrays} of an index, as model.safetensors.index.json, or Keras's model.weights.json.

    Keras's names are groups of arrays, "/layers/conv2d/vars", and each may lie in several files.
    """
    index = json.loads(text, object_pairs_hook=once)
    names = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(names, Mapping) or not names:
        raise UserError("it is JSON without a 'weight_map', which says in which file each array lies")
    files: dict[str, list[str]] = {}
    for name, where in names.items():
        for file in where if isinstance(where, list) else [where]:
            if not isinstance(file, str) or Path(file).name != file or file in ("", ".", "..") or "\\" in file:
                raise UserError(f"{name} lies in {file!r}: the name of a file beside the index is needed")
            files.setdefault(file, []).append(name)
    if missing := [file for file in files if not (path.parent / file).is_file()]:
        raise UserError(f"{len(missing)} of its {len(files)} shards are not beside it: {listed(missing)}")
    return files


def read_msgpack(path: Path, key: str | None) -> Found:
    """A tree that `flax.serialization` wrote (to_bytes, msgpack_serialize)."""
    import msgpack
    from flax import serialization

    data = path.read_bytes()
    # Flax takes the last of two entries of one name, whatever it does not know for a number, and -1 for a free side
    msgpack.unpackb(data, object_pairs_hook=_named, ext_hook=_known, strict_map_key=False)
    tree = serialization.msgpack_restore(data)
    arrays, notes = _of_tree(tree, key)
    return arrays, [*notes, NO_CHECKSUM]


def _named(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping of msgpack, whose names are strings or numbers, each once."""
    if odd := next((name for name, _ in pairs if not isinstance(name, str | int)), None):
        raise UserError(f"{odd!r} stands in the place of a name")
    values = once(pairs)
    if "__msgpack_chunked_array__" in values:
        _product(tuple(values["shape"].values()))
    return values


def _known(code: int, data: bytes) -> None:
    """UserError for an extension of msgpack that is none of Flax's: array, complex number, NumPy's number."""
    import msgpack

    if code not in (1, 2, 3):
        raise UserError(f"it holds an extension of msgpack, {code}, that is none of Flax's")
    if code != 2:
        _product(tuple(msgpack.unpackb(data)[0]))


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
    folder, notes, key = _orbax_item(path, key)
    checkpointer = ocp.PyTreeCheckpointer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that the shards of other devices come to this one
        metadata = checkpointer.metadata(folder).item_metadata
        if metadata is None:
            raise UserError(f"{folder.name}/_METADATA is damaged")
        tree = metadata.tree
        sizes = [
            _product(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree) if _is_sized(leaf)
        ]
        stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        check_unpacked(sum(sizes), stored=stored, what=folder.name)
        as_numpy = _mapped(tree, lambda _: ocp.RestoreArgs(restore_type=np.ndarray))
        arrays, more = _of_tree(checkpointer.restore(folder, restore_args=as_numpy), key)
    return arrays, [*notes, *more]


def _is_sized(leaf: Any) -> bool:
    return getattr(leaf, "shape", None) is not None and getattr(leaf, "dtype", None) is not None


def is_orbax(folder: Path) -> bool:
    """Whether a folder is a checkpoint of Orbax, a step with items, or a manager's folder of steps."""
    marks = ("_METADATA", "_CHECKPOINT_METADATA")
    return any(next(folder.glob(f"{below}{mark}"), None) for below in ("", "*/", "*/*/") for mark in marks)


def _orbax_item(path: Path, key: str | None) -> tuple[Path, list[str], str | None]:
    """The folder of an item, how it was come by, and what of the key is left for what it holds."""
    notes: list[str] = []
    folder = path.absolute()
    for _ in range(3):
        if (folder / "_METADATA").is_file():
            return folder, notes, key
        below = [child for child in folder.iterdir() if child.is_dir()]
        steps = sorted((child for child in below if re.fullmatch(r"(\w+_)?[0-9]+", child.name)), key=_step)
        items = steps[-1:] or [child for child in below if (child / "_METADATA").is_file()]
        if not items:
            raise UserError(f"{folder.name} holds no item of arrays, a folder with _METADATA")
        if len(items) > 1:
            first, _, rest = (key or "").partition("/")
            names = listed(sorted(child.name for child in items))
            items = [child for child in items if child.name == first]
            if not items:
                raise UserError(f"key={key!r}: {folder.name} holds {names}; give one of these")
            key = rest or None
        (folder,) = items
        notes.append(f"{folder.name!r} was taken")
    raise UserError("no folder with _METADATA is in it")


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("_")[2])


def _of_hdf5(data: bytes, key: str | None, *, is_checked: bool = False) -> Found:
    with extra("h5"):
        import h5py

    arrays: dict[str, np.ndarray] = {}
    claimed = 0
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
            claimed += dataset.nbytes
            check_unpacked(claimed, stored=len(data), what=name)
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
        chosen = entry(tree, key)
        if not isinstance(chosen, Mapping):
            raise UserError(f"key={key!r} is a {type(chosen).__name__}, and it holds {listed(map(str, tree))}")
        return _by_path(chosen), [f"{key!r} was taken, as asked"]
    kept, left = _without_training(tree)
    arrays = _by_path(kept)
    if not arrays and left:
        raise UserError(f"it holds {listed(left)}, and no network's weights")
    return arrays, [f"left out: {listed(left)}"] if left else []


def _without_training(tree: Mapping[Any, Any], place: str = "") -> tuple[dict[Any, Any], list[str]]:
    """The tree without what training keeps beside weights, at its top and in states within, and its names."""
    is_state = not place or not _OF_A_STATE.isdisjoint(tree)
    left = [f"{place}{name}" for name in tree if is_state and name in _TRAINING]
    kept = {}
    for name, value in tree.items():
        if is_state and name in _TRAINING:
            continue
        if isinstance(value, Mapping):
            value, more = _without_training(value, f"{place}{name}/")
            left += more
        kept[name] = value
    return kept, left


def _by_path(tree: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """{path: array}; UserError for a path that two arrays have, as "a/b" and "b" within "a"."""
    arrays: dict[str, np.ndarray] = {}
    for path, array in _leaves(tree):
        if path in arrays:
            raise UserError(f"{path} is there twice, so it is ambiguous")
        arrays[path] = array
    return arrays


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
