"""Files of weights, read without running anything that stands in them, and checked against what is expected.

weights = read_weights("checkpoint.pth.tar")     # weights.arrays["features.0.weight"], weights.notes
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from zfjax.architecture import Shape
from zfjax.errors import NotThereError, UserError, check_name
from zfjax.extras import MissingExtraError
from zfjax.pretrained import array_files, onnx_files, torch_files
from zfjax.pretrained.array_files import NO_CHECKSUM
from zfjax.pretrained.words import Found, check_unpacked, listed

_HEAD = 1024  # bytes that tell what a file is
_RESERVED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # names that wrappers put in between
_DATA_PARALLEL = "module."  # and in front of all names
_COUNTERS = ("n_averaged",)  # of a wrapper itself


class Weights(NamedTuple):
    """The content of a file of weights."""

    path: Path
    format: str  # in words
    arrays: dict[str, np.ndarray]  # as they are stored; some are views that cannot be written to
    notes: tuple[str, ...]  # what was chosen, left out or renamed, and what cannot be checked


def read_weights(path: Path | str, *, key: str | None = None, prefix: str = "", sha256: str | None = None) -> Weights:
    """Read the arrays of a file of weights, whose format is detected from its content.

    Known are .npz; PyTorch's state dicts (.pt, .pth, .bin, .pth.tar; zip or older), also within a training script's
    checkpoint, whole pickled networks and TorchScript, of which the tensors alone are taken; safetensors; an index of
    shards of these two, which are put together; ONNX, with external data; Keras's .weights.h5, .h5 and .keras; Flax's
    msgpack; a folder of Orbax. "module." (data parallel) and "_orig_mod." (torch.compile) are left out of names.

    Args:
      path: of the file, or a folder of Orbax.
      key: which entry of a checkpoint to take, as "ema", "run/ema"; by default the weights as trained, as `notes` say.
      prefix: takes what is called so alone, without it, as "model." of a network within another.
      sha256: what the file's has to begin with, hexadecimal.

    Examples:
      >>> zfjax.pretrained.read_weights("checkpoint.pth.tar").notes  # doctest: +SKIP
      ("'state_dict' was taken; left out: epoch, optimizer",)

    Raises:
      FileNotFoundError: no such file.
      UserError: a package that is not installed; or contents that are damaged, that would have to be executed to be
        read, or that are no weights: what was expected, and what it is.
    """
    path = Path(path)
    check_name("path", path)
    if not path.exists():
        raise NotThereError(f"{path}: no such file; a file of weights is needed")
    hashes = [] if sha256 is None else [_check_hash(path, sha256)]
    named, of_contents = _format_by_name(path), None
    try:
        of_contents = _format_by_content(path)
        arrays, notes = of_contents.read(path, key)
        arrays, renamed = _unwrapped(arrays)
        arrays, selected = _below(arrays, prefix)
        hashes += _published_hash(path, NO_CHECKSUM in notes)
    except MissingExtraError as error:
        raise MissingExtraError(f"{path}: {error}") from error
    except Exception as error:  # zipfile, pickle, protobuf and their like raise many kinds; the file is no use
        words = (named or of_contents or _ANY).words
        raise UserError(f"{path} is not {words} ({_first_line(error)})") from error
    if not arrays:
        raise UserError(f"{path}: it holds no array")
    if hashes:
        notes = [note for note in notes if note != NO_CHECKSUM]
    return Weights(path, of_contents.name, arrays, (*notes, *renamed, *selected, *hashes))


def read_arrays(path: Path | str, *, key: str | None = None, prefix: str = "") -> dict[str, np.ndarray]:
    """{name: array} of a file of weights: `read_weights(path).arrays`.

    Examples:
      >>> import pathlib, tempfile, numpy as np
      >>> from zfjax import pretrained
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "weights.npz"
      >>> np.savez(file, **{"conv1.weight": np.zeros((4, 3, 7, 7), np.float32)})
      >>> {name: array.shape for name, array in pretrained.read_arrays(file).items()}
      {'conv1.weight': (4, 3, 7, 7)}
    """
    return read_weights(path, key=key, prefix=prefix).arrays


def take(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
    *,
    ignored: Collection[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The arrays called as `shapes`, as float32, and no others.

    Args:
      path: of the file, for messages.
      arrays: what it holds.
      shapes: {name: shape} of every array that is needed.
      ignored: names that may stand there too; so may arrays of whole numbers, which are no weights.
      notes: of `Weights`, for messages.

    Raises:
      UserError: an array that is missing, left over, of another shape, not floating point, not finite, or too large
        for float32. An array left over is an error, since it may belong to an operation that would be missing here,
        such as a norm.
    """
    names = {name: name if name in arrays else _without_wrappers(name) for name in shapes}
    problem_of = {name: _problem(arrays[names[name]], shapes[name]) for name in shapes if names[name] in arrays}
    known = {*names.values(), *ignored}
    rest = [name for name, array in arrays.items() if name not in known and _is_floating(array)]
    problems = {
        "missing": [name for name in shapes if name not in problem_of],
        "wrong": [f"{name} {problem}" for name, problem in problem_of.items() if problem],
        "left over": [f"{name} {arrays[name].shape}" for name in rest],
    }
    if any(problems.values()):
        words = "; ".join(f"{problem}: {listed(names)}" for problem, names in problems.items() if names)
        hint = "".join((_prefix_hint(shapes, arrays), *(f" ({note})" for note in notes if note != NO_CHECKSUM)))
        raise UserError(f"{path} does not hold the weights that are expected. {words}{hint}")
    return {name: np.array(arrays[names[name]], np.float32) for name in shapes}


def with_zero_biases(weights: Weights, layers: Iterable[tuple[str, str]]) -> Weights:
    """The weights of an ONNX model with the biases that its exporter left out, as they were 0; others as they are.

    Args:
      weights: of any file.
      layers: (kernel, bias) of each layer that has a bias, by their names.
    """
    if weights.format != _FORMATS["onnx"].name:
        return weights
    missing = {bias: weights.arrays[kernel] for kernel, bias in layers if kernel in weights.arrays}
    zeros = {bias: np.zeros(len(kernel), np.float32) for bias, kernel in missing.items() if bias not in weights.arrays}
    notes = (f"{len(zeros)} biases that the exporter left out are 0",) if zeros else ()
    return weights._replace(arrays=weights.arrays | zeros, notes=(*weights.notes, *notes))


def _problem(array: np.ndarray, shape: Shape) -> str:
    """What is wrong with an array of which this shape is expected; nothing if it is right."""
    if array.shape != tuple(shape):
        return f"of shape {array.shape}, expected {tuple(shape)}"
    if not _is_floating(array):
        return f"of type {array.dtype}, expected floating point"
    finite = np.isfinite(array)
    if not finite.all():
        nans = int(np.isnan(array).sum())
        first = tuple(map(int, np.argwhere(~finite)[0]))
        return (
            f"with values that are not finite: {nans} NaN, {finite.size - finite.sum() - nans} infinite, from {first}"
        )
    if array.dtype.itemsize > 4 and (largest := np.abs(array).max(initial=0)) > np.finfo(np.float32).max:
        return f"with values up to {largest:.3g}, beyond float32's {np.finfo(np.float32).max:.3g}"
    return ""


def _is_floating(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16 too


def _prefix_hint(shapes: Mapping[str, Shape], arrays: Mapping[str, np.ndarray]) -> str:
    """Where all that is expected stands under one prefix, which it is."""
    first = next(iter(shapes), "")
    prefixes = [name.removesuffix(first) for name in arrays if name.endswith((f".{first}", f"/{first}"))]
    fitting = [prefix for prefix in prefixes if all(f"{prefix}{name}" in arrays for name in shapes)]
    if len(fitting) > 1:
        return f"; they stand there below {listed(map(repr, fitting))}: give prefix=, one of these"
    return "".join(f"; they stand there below {prefix!r}: give prefix={prefix!r}" for prefix in fitting)


# Names


def _unwrapped(arrays: dict[str, np.ndarray]) -> Found:
    """Without what wrappers of PyTorch's modules put into names."""
    inner = {name: name for name in arrays if name not in _COUNTERS}
    notes = []
    for part in _RESERVED:
        if any(part in name for name in inner.values()):
            inner = {old: name.replace(part, "") for old, name in inner.items()}
            notes.append(f"{part!r} was left out of names")
    while inner and all(name.startswith(_DATA_PARALLEL) for name in inner.values()):
        inner = {old: name.removeprefix(_DATA_PARALLEL) for old, name in inner.items()}
        notes.append(f"{_DATA_PARALLEL!r} was left out of names")
    if len(set(inner.values())) != len(inner):
        raise UserError("without 'module.' and '_orig_mod.' two of its names are the same")
    return ({new: arrays[old] for old, new in inner.items()}, notes) if notes else (arrays, [])


def _without_wrappers(name: str) -> str:
    for part in _RESERVED:
        name = name.replace(part, "")
    return name.removeprefix(_DATA_PARALLEL)


def _below(arrays: dict[str, np.ndarray], prefix: str) -> Found:
    if not prefix:
        return arrays, []
    chosen = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if not chosen:
        raise UserError(f"prefix={prefix!r}: its names are {listed(arrays)}")
    left = len(arrays) - len(chosen)
    return chosen, [f"{len(chosen)} arrays below {prefix!r} were taken, {left} left out"]


# Digests


def _check_hash(path: Path, expected: str) -> str:
    if path.is_dir():
        raise UserError(f"sha256={expected!r}: {path} is a folder")
    if not re.fullmatch("[0-9a-fA-F]{8,64}", expected):
        raise UserError(f"sha256={expected!r}: 8 to 64 hexadecimal digits are needed")
    digits = _sha256(path)
    if not digits.startswith(expected.lower()):
        raise UserError(
            f"{path}: its SHA-256 is {digits}, and does not begin with {expected}: damaged, or another file"
        )
    return f"its SHA-256 begins with {expected}, as expected"


def _published_hash(path: Path, is_unchecked: bool) -> list[str]:
    """Compare the digits that PyTorch's published files bear in their names, where nothing else would show damage."""
    match = re.fullmatch(r"\w[\w-]*-([0-9a-f]{8})\.(pth|pt|bin|safetensors)", path.name)
    if not match or re.fullmatch("(19|20)[0-9]{2}(0[1-9]|1[0-2])[0-3][0-9]", match[1]):  # or a date
        return []
    digits = _sha256(path)
    if digits.startswith(match[1]):
        return [f"its SHA-256 begins with {match[1]}, as its name says"]
    if is_unchecked:
        raise UserError(
            f"its SHA-256 begins with {digits[:8]}, and its name says {match[1]}: a damaged download? If it is your "
            "own, give it a name that does not end in a hash"
        )
    return [f"its SHA-256 begins with {digits[:8]}: it is not the published file that its name says"]


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Formats


_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack without end


class Format(NamedTuple):
    """One kind of file."""

    name: str
    words: str  # what a file of this kind has to be
    read: Callable[[Path, str | None], Found]


def _read_zip(path: Path, key: str | None) -> Found:
    with open(path, "rb") as stream:
        archive = zipfile.ZipFile(stream)
        names = archive.namelist()
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(f"it holds {listed(twice)} twice, so it is ambiguous")
        records = archive.infolist()
        if others := [record.filename for record in records if record.compress_type not in _COMPRESSIONS]:
            raise UserError(f"{listed(others)}: compressed as no writer of weights does; stored or deflated is known")
        check_unpacked(sum(record.file_size for record in records), stored=path.stat().st_size, what="the archive")
        try:
            return _READ_ZIP[_kind_of_zip(names)](archive, key)
        except zipfile.BadZipFile as error:
            raise UserError(f"{error}: it is damaged, or was saved without checksums") from error


def _read_old_torch(path: Path, key: str | None) -> Found:
    arrays, notes = torch_files.read_old(path.read_bytes(), key)
    return arrays, [*notes, NO_CHECKSUM]


def _read_npz(archive: zipfile.ZipFile, key: str | None) -> Found:
    if key is not None:
        raise UserError(f"key={key!r}: its arrays stand in no groups")
    return array_files.read_npz(archive)


def _read_index(path: Path, key: str | None) -> Found:
    """All shards of an index, each read like any other file."""
    arrays: dict[str, np.ndarray] = {}
    notes: list[str] = []
    files = array_files.shards_of(path, path.read_bytes())
    for file, names in files.items():
        shard_format = _format_by_content(path.parent / file)
        if shard_format is _FORMATS["index"]:
            raise UserError(f"shard {file} is an index")
        try:
            shard, more = shard_format.read(path.parent / file, key)
        except MissingExtraError:
            raise
        except Exception as error:
            raise UserError(f"shard {file}: {_first_line(error)}") from error
        by_name = {name: _of_shard(name, shard) for name in names}
        if missing := [name for name in names if not by_name[name]]:
            raise UserError(f"shard {file} does not hold {listed(missing)}")
        for inside in by_name.values():
            arrays |= inside
        notes += [note for note in more if note not in notes]
    return arrays, [f"put together of {len(files)} shards", *notes]


def _of_shard(name: str, shard: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The array of this name, or those of the group that Keras's index names, "/layers/conv2d/vars"."""
    if name in shard:
        return {name: shard[name]}
    group = f"{name.removeprefix('/')}/"
    return {path: array for path, array in shard.items() if name.startswith("/") and path.startswith(group)}


_TORCH = "a whole state dict of PyTorch, tensors by name and nothing to execute"
_FORMATS = {
    "npz": Format("NumPy's .npz", "a whole .npz of plain arrays", _read_zip),
    "torch": Format("PyTorch's zip archive", _TORCH, _read_zip),
    "old torch": Format("PyTorch's format from before 1.6", _TORCH, _read_old_torch),
    "safetensors": Format("safetensors", "a whole file of safetensors", array_files.read_safetensors),
    "index": Format("an index of shards", "a whole index of shards, all beside it", _read_index),
    "onnx": Format("ONNX", "a whole ONNX model with its weights", onnx_files.read_onnx),
    "hdf5": Format("HDF5", "a whole HDF5 file of Keras's", array_files.read_hdf5),
    "keras": Format("Keras's archive", "a whole .keras archive", _read_zip),
    "msgpack": Format("Flax's msgpack", "a whole msgpack of Flax's, arrays by name", array_files.read_msgpack),
    "orbax": Format("Orbax", "a whole checkpoint of Orbax", array_files.read_orbax),
}
_ANY = Format(
    "",
    "a file of weights: .npz, .pt, .pth, .bin, .safetensors, .onnx, .h5, .keras, .msgpack or Orbax's folder",
    _read_zip,
)
_BY_ENDING = {
    **{f".{name}": name for name in ("npz", "safetensors", "onnx", "keras", "msgpack")},
    **dict.fromkeys((".pt", ".pth", ".bin", ".pth.tar", ".pt.tar", ".ckpt", ".torch"), "torch"),
    **dict.fromkeys((".h5", ".hdf5"), "hdf5"),
    **dict.fromkeys((".index.json", ".weights.json"), "index"),
}
_READ_ZIP: dict[str, Callable[[zipfile.ZipFile, str | None], Found]] = {
    "npz": _read_npz,
    "torch": torch_files.read_zip,
    "keras": array_files.read_keras,
}

# How two formats begin that have no mark of their own
_BEGINNINGS = {
    "onnx": rb"\x08[\x03-\x1f][\x12\x1a\x22\x3a\x42]",  # its version, then who made it, or the graph
    "msgpack": rb"[\x81-\x8f][\xa1-\xbf]|[\x81-\x8f\xde\xdf]\x00*.?\xd9",  # a map, then its first name
}

# How files begin that are none of weights, and what they are
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file that it stands for: git lfs pull fetches it"),
    (rb"\s*(<!doctype|<html|<\?xml|<head)", "a web page, which a server sent in place of the file"),
    (rb"\x1f\x8b", "compressed by gzip: unpack it"),
    (rb"BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "a compressed archive: unpack it"),
    (rb"%PDF|\x89PNG|\xff\xd8\xff|GIF8", "a picture or document"),
    (rb"GGUF|ggml|ggjt", "a model of llama.cpp, of another kind of network"),
    (rb"MATLAB 5", "a file of MATLAB: save its arrays as .npz, scipy.io.loadmat reads them"),
    (rb"PAR1|ARROW1", "a table of Arrow or Parquet"),
    (rb"\x93NUMPY", "a single array of NumPy's: np.savez writes arrays with names"),
    (rb"(?s).{257}ustar", "a tar archive: unpack it"),
    (rb"TFL3|(?s:.{4})TFL3", "a model of TensorFlow Lite, whose weights have no names of layers"),
)


def _format_by_name(path: Path) -> Format | None:
    endings = ["".join(path.suffixes[n:]) for n in range(len(path.suffixes))]
    return next((_FORMATS[_BY_ENDING[ending]] for ending in endings if ending in _BY_ENDING), None)


def _format_by_content(path: Path) -> Format:
    """What kind of file it is; UserError saying what it is instead."""
    if path.is_dir():
        if array_files.is_orbax(path):
            return _FORMATS["orbax"]
        inside = sorted(child.name for child in path.iterdir())
        usable = [name for name in inside if _format_by_name(Path(name))]
        hint = f"; name one of its files, {listed(usable)}" if usable else ""
        if "saved_model.pb" in inside:
            hint = ": a SavedModel of TensorFlow, whose variables are not read: save the weights as .npz, .h5 or .keras"
        raise UserError(f"it is a folder and no checkpoint of Orbax{hint}")
    with open(path, "rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        raise UserError("it is empty")
    for pattern, words in _OTHERS:
        if re.match(pattern, head, re.IGNORECASE):
            raise UserError(f"it is {words}")
    if head[:2] == b"PK":
        with open(path, "rb") as stream:
            try:
                names = zipfile.ZipFile(stream).namelist()
            except zipfile.BadZipFile as error:
                size = path.stat().st_size
                words = (
                    f"it begins as a zip archive, and its end is missing after {size} bytes: a download that broke off?"
                )
                raise UserError(f"{words} {error}") from error
        return _FORMATS[_kind_of_zip(names)]
    if head.startswith(torch_files.MAGIC):
        return _FORMATS["old torch"]
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UserError("it is a pickle, and none of PyTorch's; reading another would execute it")
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return _FORMATS["hdf5"]
    if head[8:9] == b"{" and (path.suffix == ".safetensors" or head[5:8] == b"\0\0\0"):
        return _FORMATS["safetensors"]
    if re.match(rb"\s*[{\[]", head):
        if b"weight_map" in path.read_bytes():
            return _FORMATS["index"]
        raise UserError("it is JSON and no index of shards, which has a 'weight_map'")
    by_name = _format_by_name(path)
    if by_name in (_FORMATS["onnx"], _FORMATS["msgpack"]):
        return by_name  # they begin in many ways
    if path.suffix != ".pb" and (
        other := next((kind for kind in _BEGINNINGS if re.match(_BEGINNINGS[kind], head)), "")
    ):
        return _FORMATS[other]
    if path.suffix in (".caffemodel", ".pb", ".tflite", ".ckpt-1", ".index", ".mlmodel"):
        raise UserError(f"{path.suffix} is a format that is not known here: convert it, to .npz or ONNX")
    text = re.fullmatch(rb"[\x09\x0a\x0d\x20-\x7e]+", head[:200])
    words = (
        f"text that begins with {head[:40].decode('latin1')!r}"
        if text
        else f"bytes that begin with {head[:8].hex(' ')}"
    )
    raise UserError(f"it holds {words}, as no file of weights that is known")


def _kind_of_zip(names: Sequence[str]) -> str:
    if any(PurePosixPath(name).name == "data.pkl" and name.count("/") <= 1 for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if "model.weights.h5" in names:
        return "keras"
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise UserError("it is a program of torch.export, whose weights are not read: save its state_dict()")
    if any(".data/" in name for name in names):
        raise UserError("it is a torch.package, whose weights are not read: save the network's state_dict()")
    if inside := [name for name in names if _format_by_name(Path(name))]:
        raise UserError(f"it is a zip archive that holds {listed(inside)}: unpack it")
    if not names:
        return "npz"
    raise UserError(f"it is a zip archive of {listed(names)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
