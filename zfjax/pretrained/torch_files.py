"""Files of PyTorch, read without PyTorch and without executing anything that stands in them.

Three layouts are known: the zip archives that `torch.save` writes since 1.6, TorchScript (the same with code, which is
not looked at), and the row of pickles from before 1.6. A pickle is a program that calls what it names. Here it may
name what the tables below list, plain functions of this file; of every other class it gets an inert stand-in, and a
call of another function of Python's, PyTorch's or NumPy's is refused by name.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from zfjax.errors import UserError
from zfjax.pretrained.words import Found, check_unpacked, entry, listed

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # how a file from before 1.6 begins
CONTAINERS = (  # where training scripts put the weights, the first that is there being taken
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module"),
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict", "params_ema"),
)
_DEEPEST = 8  # containers within containers


class Storage(NamedTuple):
    """A row of numbers that tensors look at."""

    key: str
    dtype: str  # of one number; BYTES where the tensor says it
    start: int  # first element of the record, for views of views
    size: int  # elements


class Tensor(NamedTuple):
    """A strided view of a storage, which may not be read yet."""

    storage: Storage
    dtype: str
    offset: int  # elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements


def read_zip(archive: zipfile.ZipFile, key: str | None) -> Found:
    """A state dict of torch.save's archive, or the weights of TorchScript; `archive` yields verified records."""
    names = archive.namelist()
    (pickled,) = (name for name in names if PurePosixPath(name).name == "data.pkl" and name.count("/") <= 1)
    folder = pickled.removesuffix("data.pkl")
    records = {name: archive.read(name) for name in names}  # all of them: reading a record whole checks its CRC
    is_script = any(name.startswith((f"{folder}code/", f"{folder}constants.pkl")) for name in names)
    order = {b"little": "<", b"big": ">"}[records.get(f"{folder}byteorder", b"little")]
    content, storages = _unpickled(io.BytesIO(records[pickled]), whole=True)
    buffers = {}
    for storage in storages.values():
        name = f"{folder}data/{storage.key}"
        if name not in records:
            raise UserError(f"the record {name} is missing")
        size = storage.size * _width(storage.dtype)
        if len(records[name]) != size:
            raise UserError(f"the record {name} has {len(records[name])} bytes, where {size} are expected")
        buffers[storage.key] = records[name]
    tensors, notes = _taken(content, key)
    if is_script:
        notes = ["TorchScript: its weights alone are taken, its code is not looked at", *notes]
        if not tensors:
            constants = f"{folder}constants.pkl"
            frozen = bool(records.get(constants)) and bool(_unpickled(io.BytesIO(records[constants]), whole=True)[1])
            words = "has been frozen, which takes their names from its weights" if frozen else "holds no weights"
            raise UserError(f"it is TorchScript that {words}; give a state dict")
    return {name: _array(tensor, buffers, order) for name, tensor in tensors.items()}, notes


def read_old(data: bytes, key: str | None) -> Found:
    """A state dict as torch.save wrote it before 1.6, or with _use_new_zipfile_serialization=False."""
    stream = io.BytesIO(data)
    _, version, system = (_unpickled(stream)[0] for _ in range(3))
    if version != 1001 or not isinstance(system, Mapping):
        raise UserError(f"protocol version {version!r}, where 1001 is expected")
    order = "<" if system.get("little_endian", True) else ">"
    content, storages = _unpickled(stream)
    keys, _ = _unpickled(stream)
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise UserError("its list of storages is not that of its tensors")
    buffers = {}
    for name in keys:
        storage = storages[name]
        size = int.from_bytes(stream.read(8), "little" if order == "<" else "big", signed=True)
        if size != storage.size:
            raise UserError(f"storage {name} of {size} numbers, where {storage.size} are expected")
        buffers[name] = stream.read(size * _width(storage.dtype))
        if missing := size * _width(storage.dtype) - len(buffers[name]):
            raise UserError(f"it ends {missing} bytes early: a download that broke off?")
    if rest := len(data) - stream.tell():
        raise UserError(f"{rest} bytes too many stand at its end")
    tensors, notes = _taken(content, key)
    return {name: _array(tensor, buffers, order) for name, tensor in tensors.items()}, notes


# Tensors


def _array(tensor: Tensor | _NumpyArray, buffers: Mapping[str, bytes], order: str) -> np.ndarray:
    """The numbers, a view of the record that does not own them."""
    if isinstance(tensor, _NumpyArray):
        return tensor.array
    storage, dtype = tensor.storage, jnp.dtype(tensor.dtype)
    width = dtype.itemsize
    # an UntypedStorage counts bytes, and a tensor in it its own elements
    start, size = storage.start, storage.size // (width if storage.dtype == BYTES else 1)
    counts = (tensor.offset, *tensor.shape, *tensor.strides)
    if len(tensor.shape) != len(tensor.strides) or min(counts) < 0:
        raise UserError(f"a tensor of shape {tensor.shape}, strides {tensor.strides}, offset {tensor.offset}")
    reach = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and tensor.offset + reach >= size - start:
        raise UserError(f"a tensor of shape {tensor.shape} reaches beyond its storage of {size - start} numbers")
    check_unpacked(math.prod(tensor.shape) * width, stored=size * width, what=f"a tensor of shape {tensor.shape}")
    numbers = np.frombuffer(buffers[storage.key], dtype, count=size)
    if order == ">":
        half = width // 2 if dtype.kind == "c" else width
        numbers = numbers.view(f"u{half}").byteswap().view(dtype)
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    strides = tuple(stride * width for stride in tensor.strides)
    view: np.ndarray = np.lib.stride_tricks.as_strided(
        numbers[start + tensor.offset :], tensor.shape, strides, writeable=False
    )
    return view


def _width(dtype: str) -> int:
    return 1 if dtype == BYTES else jnp.dtype(dtype).itemsize


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`: requires_grad and hooks follow, and metadata of lazy signs."""
    if len(rest) > 2 and rest[2]:
        raise UserError(f"a tensor that is conjugated or negated when it is read, {rest[2]}: clone() it before saving")
    if not isinstance(storage, Storage) or storage.dtype == BYTES:
        raise UserError("a tensor without a typed storage")
    return _checked(storage, storage.dtype, offset, shape, strides)


def _tensor_of_bytes(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """`torch._utils._rebuild_tensor_v3`: of types without a storage class of their own, as float8."""
    if not isinstance(storage, Storage) or dtype not in _DTYPES:
        raise UserError("a tensor without storage or type")
    return _checked(storage, dtype, offset, shape, strides)


def _checked(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any) -> Tensor:
    if not isinstance(offset, int) or not all(
        isinstance(sides, tuple | list) and all(isinstance(side, int) for side in sides) for sides in (shape, strides)
    ):
        raise UserError("a tensor whose shape is not made of whole numbers")
    return Tensor(storage, dtype, offset, tuple(shape), tuple(strides))


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _of_subclass(rebuild: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a tensor of a subclass, taken as a plain one."""
    if not isinstance(rebuild, _Function):
        raise UserError("a tensor of an unknown kind")
    return rebuild(*arguments)


def _refused(words: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any) -> NoReturn:
        raise UserError(words)

    return refuse


# What a pickle of PyTorch's may name


class _Function:
    """A function of this file as a pickle may call it; as an object without attributes it cannot be changed by one."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        """What the function makes."""
        return self._call(*arguments)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise UserError("a pickle that would change what reads it")


class _Dict(dict[Any, Any]):
    """Any mapping of which no entry was lost; attributes such as a state dict's `_metadata` are dropped."""

    def __setitem__(self, name: Any, value: Any) -> None:
        if name in self:
            raise UserError(f"{name!r} stands there twice")
        super().__setitem__(name, value)

    def __setstate__(self, state: Any) -> None:
        pass


def _counted(*arguments: Any) -> _Dict:
    """A defaultdict (its factory is dropped), an OrderedDict or a Counter."""
    entries = arguments[-1] if arguments and isinstance(arguments[-1], dict | list) else ()
    made = _Dict()
    for name, value in entries.items() if isinstance(entries, dict) else entries:
        made[name] = value
    return made


class _NumpyType:
    """`numpy.dtype`, of plain numbers; None of any others."""

    def __init__(self, kind: Any = "", *_: Any):
        self.dtype = np.dtype(kind) if re.fullmatch("[biufc][0-9]+", str(kind)) else None

    def __setstate__(self, state: Any) -> None:
        if self.dtype is not None and isinstance(state, tuple) and state[1:2] in (("<",), (">",)):
            self.dtype = self.dtype.newbyteorder(state[1])


class _NumpyArray:
    """`numpy.ndarray`, as it is put together after it was named; `is_numbers` tells one of plain numbers."""

    array = np.zeros(0)
    is_numbers = False

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, data = state
        self.is_numbers = isinstance(kind, _NumpyType) and kind.dtype is not None and isinstance(data, bytes)
        if self.is_numbers:
            self.array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if is_fortran else "C")


def _numpy_scalar(kind: Any, data: Any = b"") -> Any:
    if not isinstance(kind, _NumpyType) or kind.dtype is None or not isinstance(data, bytes):
        return None
    return np.frombuffer(data, kind.dtype)[0].item()


def _list(values: Any = (), *_: Any) -> list[Any]:
    return list(values)


def _set(values: Any = (), *_: Any) -> frozenset[Any]:
    return frozenset(values)


def _bytes(text: Any, _coding: Any = "latin1") -> bytes:
    return str(text).encode("latin1")


_PYTHONS = {*sys.stdlib_module_names, "__builtin__", "exceptions", "torch", "numpy"}


class _Called(type):
    """Its classes are made empty; a call of something of Python's or PyTorch's own is refused by name."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        if cls.__module__.partition(".")[0] in _PYTHONS:
            words = "nothing in a file is executed: save the state dict alone"
            raise UserError(f"it would call {cls.__qualname__}, and {words}")
        return super().__call__()


class StandIn(metaclass=_Called):
    """An object of a class that is not looked up: what was put into it, and no method."""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        """An empty one."""
        made: StandIn = object.__new__(cls)
        made.state = None
        return made

    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, name: Any, value: Any) -> None:
        """An entry, of what is a dict there."""

    def append(self, value: Any) -> None:
        """An item, of what is a list there."""

    def extend(self, values: Any) -> None:
        """Items, of what is a list there."""


BYTES = "bytes"
_TYPES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
_STORAGES = {f"{name}Storage": kind for name, kind in _TYPES.items()} | {"UntypedStorage": BYTES}
_DTYPES = (*_TYPES.values(), "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz")
_QUANTIZED = "a quantized tensor; save the network of floating point, or dequantize() its tensors"
_UTILS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v3": _tensor_of_bytes,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_rebuild_qtensor": _refused(_QUANTIZED),
    "_rebuild_sparse_tensor": _refused("a sparse tensor; save its to_dense()"),
    "_rebuild_sparse_csr_tensor": _refused("a sparse tensor; save its to_dense()"),
    "_rebuild_meta_tensor_no_storage": _refused("a tensor of the meta device, which has no numbers"),
    "_rebuild_nested_tensor": _refused("a nested tensor, which has no shape"),
    "_rebuild_device_tensor_from_numpy": _first,
}
_NUMPY: dict[str, Callable[..., Any]] = {"scalar": _numpy_scalar, "_reconstruct": _NumpyArray}
_NAMED: dict[tuple[str, str], Callable[..., Any]] = {
    **{("torch._utils", name): _UTILS[name] for name in _UTILS},
    **{(f"numpy.{core}.multiarray", name): _NUMPY[name] for core in ("core", "_core") for name in _NUMPY},
    **dict.fromkeys(
        [("torch.jit._pickle", f"build_{kind}list") for kind in ("int", "double", "bool", "tensor")], _list
    ),
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("torch.serialization", "_get_layout"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_subclass,
    ("torch", "Size"): _first,
    ("torch", "device"): _first,
    ("numpy", "dtype"): _NumpyType,
    ("numpy", "ndarray"): _NumpyArray,
    ("_codecs", "encode"): _bytes,
    **{("collections", name): _counted for name in ("OrderedDict", "defaultdict", "Counter")},
    **{(module, name): _set for module in ("builtins", "__builtin__") for name in ("set", "frozenset")},
}
_GLOBALS = {name: call if isinstance(call, type) else _Function(call) for name, call in _NAMED.items()}
_IGNORED = re.compile(  # calls whose result is not looked at
    r"pathlib\.\w+|datetime\.\w+|(builtins|__builtin__)\.(slice|complex|bytearray|x?range)|uuid\.UUID|decimal\.Decimal"
    r"|fractions\.Fraction|collections\.deque|functools\.partial|numpy\.random\.[\w.]+"
)


_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
_FORBIDDEN = ("EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER")


_InPython: Any = pickle._Unpickler  # noqa: SLF001  unlike the one in C it can be told what its dicts are


class _Unpickler(_InPython):  # type: ignore[misc]  # of no class that mypy knows
    """A pickle whose names are looked up in the tables above and nowhere else, and whose dicts are `_Dict`s."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_counted(list(zip(items[::2], items[1::2], strict=True))))

    def load_empty_dictionary(self) -> None:
        self.append(_Dict())

    dispatch = {**_InPython.dispatch, pickle.DICT[0]: load_dict, pickle.EMPTY_DICT[0]: load_empty_dictionary}

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        if module in ("torch", "torch.storage", "torch.cuda"):
            if re.fullmatch("Q.*Storage", name) or name in ("qint8", "quint8", "qint32"):
                raise UserError(_QUANTIZED)
            if name in _STORAGES or name in _DTYPES:
                return _STORAGES.get(name, name)
        if _IGNORED.fullmatch(f"{module}.{name}"):
            return _Function(lambda *_: StandIn.__new__(StandIn))
        return _Called(name, (StandIn,), {"__module__": module, "__qualname__": f"{module}.{name}"})

    def persistent_load(self, pid: Any, /) -> Any:
        if not isinstance(pid, tuple) or not pid:
            raise UserError("an object that stands outside the pickle")
        if pid[0] == "module":  # of a network that was pickled whole, before 1.6: a class and its source
            return pid[1]
        kind, key, _, size, *view = pid[1:]
        if pid[0] != "storage" or kind not in _STORAGES.values() or not isinstance(size, int):
            raise UserError(f"an object outside the pickle, {pid[0]!r}, that is no storage of numbers")
        storage = Storage(str(key), kind, 0, size)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise UserError(f"storage {key} is described in two ways")
        if view and view[0] is not None:
            _, start, length = view[0]
            if not (0 <= start <= start + length <= size):
                raise UserError(f"a view of storage {key} reaches beyond its end")
            return storage._replace(start=start)
        return storage


def _unpickled(stream: io.BytesIO, *, whole: bool = False) -> tuple[Any, dict[str, Storage]]:
    _check_opcodes(stream)
    unpickler = _Unpickler(stream)
    content = unpickler.load()
    if whole and stream.read(1):
        raise UserError("more stands behind the end of its pickle")
    return content, unpickler.storages


def _check_opcodes(stream: io.BytesIO) -> None:
    """UserError where the pickle that comes next would take more memory than its own size has reason for."""
    start, limit = stream.tell(), len(stream.getbuffer())
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in _FORBIDDEN or (opcode.name in _MEMO and int(argument or 0) > limit):
            raise UserError(f"a pickle with {opcode.name} {argument}, as PyTorch writes none")
    stream.seek(start)


# Where in the content the weights stand


def _taken(content: Any, key: str | None) -> tuple[dict[str, Any], list[str]]:
    """{name: tensor}, and what was chosen and left out."""
    notes: list[str] = []
    place = ""  # what a key of an entry here begins with
    if key is not None:
        content = entry(content, key)
        place = f"{key}/"
        notes.append(f"{key!r} was taken, as asked")
    for _ in range(_DEEPEST):
        if isinstance(content, StandIn):
            return _of_module(content, notes)
        if not isinstance(content, Mapping):
            raise UserError(f"it holds a {_kind(content)}, not one tensor for each name")
        if _is_optimizer(content):
            raise UserError("it holds an optimizer's state, and no network's weights")
        tensors = {name: value for name, value in content.items() if _is_tensor(value)}
        nested = [str(name) for name, value in content.items() if _holds_tensors(value)]
        known = [name for name in CONTAINERS if name in nested]
        if tensors and not known and (not nested or not all(map(_is_number, tensors.values()))):
            return _of_names(content, tensors, nested, place, notes)
        content, place = _inside(content, nested, known, place, notes)
    raise UserError("it holds dicts within dicts, and no tensor")


def _of_names(
    content: Mapping[Any, Any], tensors: dict[Any, Any], nested: list[str], place: str, notes: list[str]
) -> tuple[dict[str, Any], list[str]]:
    if nested:
        keys = listed(f"{place}{name}" for name in nested)
        raise UserError(f"it holds tensors by name and more of them in {keys}; give key=, one of these")
    rest = [name for name in content if name not in tensors]
    if rest:
        notes.append(f"left out, as no tensors: {listed(map(str, rest))}")
    return _each_once((str(name), value) for name, value in tensors.items()), notes


def _inside(
    content: Mapping[Any, Any], nested: list[str], known: list[str], place: str, notes: list[str]
) -> tuple[Any, str]:
    """What holds the weights among the entries of a training script's checkpoint, and where it stands."""
    inside = [name for name, value in content.items() if _holds_tensors(value)]
    if not inside:
        if any(_is_optimizer(value) for value in content.values()):
            raise UserError("it holds an optimizer's state, and no network's weights")
        raise UserError(f"it holds {listed(map(str, content)) or 'nothing'}, and no tensors")
    if not known and len(inside) > 1:
        raise UserError(f"tensors stand in {listed(f'{place}{name}' for name in nested)}; give key=, one of these")
    (chosen, *_) = known or inside
    others = [str(name) for name in content if name != chosen]
    also = f"; left out: {listed(others)}" if others else ""
    other = next((name for name in nested if name != str(chosen)), None)
    hint = "" if other is None else f"; key={f'{place}{other}'!r} takes the other"
    notes.append(f"{chosen!r} was taken{also}{hint}")
    return content[chosen], f"{place}{chosen}/"


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, _NumpyArray) and value.is_numbers)


def _is_number(tensor: Tensor | _NumpyArray) -> bool:
    """Of no axis: a counter or a score, where weights stand beside it."""
    return not (tensor.array.shape if isinstance(tensor, _NumpyArray) else tensor.shape)


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and "param_groups" in value


def _holds_tensors(value: Any, depth: int = 3) -> bool:
    if isinstance(value, StandIn):
        return next(_tensors_of_module(value), None) is not None
    if not isinstance(value, Mapping) or _is_optimizer(value):
        return False
    return any(map(_is_tensor, value.values())) or (
        depth > 0 and any(_holds_tensors(inner, depth - 1) for inner in value.values() if isinstance(inner, Mapping))
    )


def _of_module(module: StandIn, notes: list[str]) -> tuple[dict[str, Any], list[str]]:
    name = type(module).__qualname__
    tensors = _each_once(_tensors_of_module(module))
    if not name.startswith("__torch__"):
        if not tensors:
            raise UserError(f"it holds a {name}, not one tensor for each name")
        notes.append(f"it is a whole pickled {name}: its parameters and buffers alone are taken, its code is not run")
    return tensors, notes


def _each_once(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """UserError for a name that stands there twice, as 1 and "1" would."""
    return _counted(list(named))


def _tensors_of_module(module: StandIn, prefix: str = "", above: tuple[StandIn, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The parameters and buffers of a pickled network by their names in its state dict."""
    state = module.state
    if not isinstance(state, Mapping) or any(module is other for other in above):
        return
    if "_modules" in state and "_parameters" in state:  # an nn.Module
        passing = state.get("_non_persistent_buffers_set") or ()
        entries = {**state["_parameters"], **{k: v for k, v in state["_buffers"].items() if k not in passing}}
        entries |= state["_modules"]
    else:  # TorchScript
        entries = dict(state)
    for name, value in entries.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, StandIn):
            yield from _tensors_of_module(value, f"{prefix}{name}.", (*above, module))


def _kind(content: Any) -> str:
    return "tensor" if isinstance(content, Tensor) else type(content).__name__.strip("_").lower()
