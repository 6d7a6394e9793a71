"""Files of weights, read without running anything that stands in them, and checked against what is expected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from zfjax.architecture import Shape
from zfjax.errors import NotThereError, UserError

_LISTED = 6  # names in a message; the rest is counted


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of everything in a file of weights, by its ending: see `READERS`.

    Raises:
      FileNotFoundError: no such file.
      UserError: an ending that is not known, a package that is not installed, or contents that are damaged, or that
        would have to be executed to be read.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise UserError(f"{path}: a file that ends in {', '.join(READERS)} is needed")
    if not path.is_file():
        raise NotThereError(f"{path}: no such file")
    words, read = READERS[path.suffix]
    try:
        arrays = read(path)
    except ImportError as error:
        package = {".onnx": "onnx"}.get(path.suffix, "torch")
        raise UserError(f"{path}: reading it needs {package}: pip install 'zfjax[{package}]'") from error
    except Exception as error:  # zipfile, pickle, protobuf and their like raise many kinds; the file is no use
        raise UserError(f"{path} is not {words} ({_first_line(error)})") from error
    if not arrays:
        raise UserError(f"{path}: it holds no array")
    return arrays


def take(
    path: Path, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Shape], *, ignored: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """The arrays called as `shapes`, as float32, and no others.

    Args:
      path: of the file, for messages.
      arrays: what it holds.
      shapes: {name: shape} of every array that is needed.
      ignored: names that may stand there too; so may arrays of whole numbers, which are no weights.

    Raises:
      UserError: an array that is missing, left over, of another shape, not floating point or not finite. An array
        left over is an error, since it may belong to an operation that would be missing here, such as a norm.
    """
    found = {name: _problem(arrays[name], shape) for name, shape in shapes.items() if name in arrays}
    rest = [name for name in arrays if name not in shapes and name not in ignored and _is_floating(arrays[name])]
    problems = {
        "missing": [name for name in shapes if name not in arrays],
        "wrong": [f"{name} {problem}" for name, problem in found.items() if problem],
        "left over": [f"{name} {arrays[name].shape}" for name in rest],
    }
    if any(problems.values()):
        words = "; ".join(f"{problem}: {_listed(names)}" for problem, names in problems.items() if names)
        raise UserError(f"{path} does not hold the weights that are expected. {words}")
    return {name: np.asarray(arrays[name], np.float32) for name in shapes}


def _problem(array: np.ndarray, shape: Shape) -> str:
    """What is wrong with an array of which this shape is expected; nothing if it is right."""
    if array.shape != tuple(shape):
        return f"of shape {array.shape}, expected {tuple(shape)}"
    if not _is_floating(array):
        return f"of type {array.dtype}, expected floating point"
    return "" if np.isfinite(array).all() else "with values that are not finite"


def _is_floating(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16 too


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as stream:  # NpzFile, not np.load: that one tries what is no .npz as other formats
        arrays = np.lib.npyio.NpzFile(stream, allow_pickle=False)
        return {name: arrays[name] for name in arrays.files}


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """A state dict, or one under "state_dict", where training scripts put it."""
    import torch

    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise UserError(f"it holds a {type(loaded).__name__}, not one tensor for each name")
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in loaded.items()}
    return {name: value.detach().numpy() for name, value in tensors.items()}


def _read_onnx(path: Path) -> dict[str, np.ndarray]:
    """The initializers of the graph; its operations are not looked at."""
    import onnx
    import onnx.numpy_helper

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    outside = [tensor.name for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise UserError(
            f"{_listed(outside)} lie outside the file: export it as one, in PyTorch with external_data=False"
        )
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


# What a file with this ending has to be, and how it is read
READERS: dict[str, tuple[str, Callable[[Path], dict[str, np.ndarray]]]] = {
    ".npz": ("a whole .npz of plain arrays", _read_npz),
    ".pt": ("a whole state dict of PyTorch, tensors by name and nothing to execute", _read_torch),
    ".pth": ("a whole state dict of PyTorch, tensors by name and nothing to execute", _read_torch),
    ".onnx": ("a whole ONNX model with its weights inside", _read_onnx),
}
