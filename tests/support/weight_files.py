"""Files of weights made by hand, so that every layout is read in a test without the framework that writes it."""

import io
import json
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

STORAGES = {"float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long"}
SAFETENSORS = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}


class Global(NamedTuple):
    """A name that a pickle looks up."""

    module: str
    name: str


class Reduce(NamedTuple):
    """A call."""

    function: Any
    arguments: tuple


class New(NamedTuple):
    """An object of a class, with its state."""

    kind: Global
    state: Any


class Build(NamedTuple):
    """A value that is given a state."""

    value: Any
    state: Any


class Outside(NamedTuple):
    """An object that stands outside the pickle."""

    pid: tuple


def pickled(content):
    """A pickle of protocol 2, opcode by opcode."""
    return b"\x80\x02" + _opcodes(content) + b"."


def _opcodes(value):
    many = lambda values: b"(" + b"".join(map(_opcodes, values))  # noqa: E731
    match value:
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Reduce(function, arguments):
            return _opcodes(function) + _opcodes(tuple(arguments)) + b"R"
        case New(kind, state):
            return _opcodes(kind) + b")\x81" + _opcodes(state) + b"b"
        case Build(inner, state):
            return _opcodes(inner) + _opcodes(state) + b"b"
        case Outside(pid):
            return _opcodes(tuple(pid)) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return many(value) + b"t"
        case list():
            return b"]" + many(value) + b"e"
        case dict():
            return b"}" + many(part for pair in value.items() for part in pair) + b"u"
    raise TypeError(value)


def tensor(array, key, *, is_old=False):
    """An array as PyTorch pickles it: a view of storage `key`."""
    array = np.asarray(array)
    strides = tuple(int(stride) // array.itemsize for stride in np.empty(array.shape, array.dtype).strides)
    kind = Global("torch", f"{STORAGES[array.dtype.name]}Storage")
    storage = Outside(("storage", kind, key, "cpu", array.size, *((None,) if is_old else ())))
    hooks = Reduce(Global("collections", "OrderedDict"), ())
    return Reduce(Global("torch._utils", "_rebuild_tensor_v2"), (storage, 0, array.shape, strides, False, hooks))


def state_dict(arrays, *, is_old=False):
    """{name: tensor}, the n-th in storage n."""
    return {name: tensor(array, str(n), is_old=is_old) for n, (name, array) in enumerate(arrays.items())}


def torch_zip(content, arrays, **more):
    """An archive of torch.save: `content` pickled, and the storages of `arrays`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net/data.pkl", pickled(content))
        archive.writestr("net/byteorder", "little")
        for n, array in enumerate(arrays.values()):
            archive.writestr(f"net/data/{n}", np.asarray(array).tobytes())
        for name, data in more.items():
            archive.writestr(f"net/{name.replace('__', '/')}", data)
        archive.writestr("net/version", "3\n")
    return stream.getvalue()


def torch_old(content, arrays):
    """torch.save's file from before 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled(system), pickled(content)]
    parts.append(pickled([str(n) for n in range(len(arrays))]))
    for array in arrays.values():
        parts.append(struct.pack("<q", np.asarray(array).size) + np.asarray(array).tobytes())
    return b"".join(parts)


def torch_script(arrays):
    """TorchScript of a network of modules, by the dots of the names; its code is none."""
    tensors, root = state_dict(arrays), {}
    for name, value in tensors.items():
        *modules, last = name.split(".")
        place = root
        for module in modules:
            place = place.setdefault(module, {})
        place[last] = value

    def module(place, name):
        state = {key: module(of, key) if isinstance(of, dict) else of for key, of in place.items()}
        return New(Global("__torch__", f"Module_{name}"), {"training": False, **state})

    more = {"constants.pkl": pickled(()), "code__net.py": b"raise SystemExit"}
    return torch_zip(module(root, "net"), arrays, **more)


def safetensors(arrays):
    """A file of safetensors."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        array = np.asarray(array)
        end = len(data) + array.nbytes
        dtype = SAFETENSORS[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def npz(arrays):
    """A .npz."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def nested(arrays):
    """{name: array} as dicts within dicts, by the dots of the names."""
    tree = {}
    for name, array in arrays.items():
        *groups, last = name.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = np.asarray(array)
    return tree


def keras_h5(arrays):
    """Keras's .weights.h5: a group for each layer, and an optimizer's beside them."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            file[name.replace(".", "/")] = np.asarray(array)
        file["optimizer/vars/0"] = np.float32(3)
    return stream.getvalue()


def keras_archive(arrays):
    """A .keras archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", keras_h5(arrays))
    return stream.getvalue()
