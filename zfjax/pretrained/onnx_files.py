"""ONNX models: the weights of their layers, by the names that the layers had where the model was exported.

Exporters rename weights ("onnx::Conv_193"), transpose them (MatMul reads [in, out]) and fold batch norms into
filters. A layer's weights are called after its module here, whatever the exporter did, and are [out, in] or OIHW.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zfjax.errors import UserError
from zfjax.extras import extra
from zfjax.pretrained.array_files import NO_CHECKSUM
from zfjax.pretrained.words import Found, listed

_LAYERS = ("Conv", "Gemm", "MatMul")
_SCOPES = "pkg.torch.onnx.name_scopes"  # where PyTorch's exporter by torch.export keeps the modules of a node


def read_onnx(path: Path, key: str | None) -> Found:
    """The initializers of the graph, also those beside the file; of its operations only what they are done to."""
    with extra("onnx"):
        import onnx

    if key is not None:
        raise UserError(f"key={key!r}: its arrays stand in no groups")
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    if not graph.node and not graph.initializer:
        raise UserError("it has no graph")
    quantized = sorted({node.op_type for node in graph.node if "Quantize" in node.op_type or "Integer" in node.op_type})
    quantized += sorted({node.op_type for node in graph.node if node.op_type.startswith("QLinear")})
    if quantized:
        raise UserError(f"it is quantized ({', '.join(quantized)}): export the network of floating point")
    outside = [tensor.name for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        try:
            onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        except (OSError, onnx.checker.ValidationError) as error:
            raise UserError(f"{listed(outside)} lie in a file beside it, which cannot be read: {error}") from error
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    if len(arrays) != len(graph.initializer):
        raise UserError("an initializer's name occurs twice, so it is ambiguous")
    return _by_module(graph, arrays)


def _by_module(graph: Any, arrays: dict[str, np.ndarray]) -> Found:
    """The arrays with those of the layers called `<module>.weight` and `<module>.bias`, as PyTorch has them."""
    constants = arrays | dict(_constants(graph))
    sources, flips = _aliases(graph)
    added = {name: node.input for node in graph.node if node.op_type == "Add" for name in node.input}
    named: dict[str, np.ndarray] = {}
    used: dict[str, str] = {}  # {initializer: what it is called here}
    for node in graph.node:
        if node.op_type not in _LAYERS or len(node.input) < 2:
            continue
        kernel = sources.get(node.input[1], node.input[1])
        if kernel not in constants:
            continue
        module = kernel.removesuffix(".weight") if kernel.endswith(".weight") else _module_of(node)
        if module is None or f"{module}.weight" in named or _is_taken(f"{module}.weight", kernel, arrays):
            continue
        settings = {attribute.name: attribute for attribute in node.attribute}
        as_stored = node.op_type == "Conv" or (node.op_type == "Gemm" and "transB" in settings and settings["transB"].i)
        array = constants[kernel]
        named[f"{module}.weight"] = array if bool(as_stored) != (node.input[1] in flips) else array.T
        used[kernel] = f"{module}.weight"
        biases = list(node.input[2:3]) or [name for name in added.get(node.output[0], ()) if name != node.output[0]]
        for name in biases if node.op_type != "MatMul" else biases[:1]:
            bias = sources.get(name, name)
            if bias in constants and constants[bias].ndim == 1 and not _is_taken(f"{module}.bias", bias, arrays):
                named[f"{module}.bias"] = constants[bias]
                used[bias] = f"{module}.bias"
        if {"alpha", "beta"} & {name for name, value in settings.items() if name in ("alpha", "beta") and value.f != 1}:
            raise UserError(f"{node.name} multiplies its weights by alpha and beta, which is not known here")
    renamed = [f"{old} is {new}" for old, new in used.items() if old != new and old in arrays]
    notes = [f"called by their modules: {listed(renamed)}"] if renamed else []
    rest = {name: array for name, array in arrays.items() if name not in used and name not in named}
    return named | rest, [*notes, NO_CHECKSUM]


def _is_taken(name: str, own: str, arrays: Mapping[str, np.ndarray]) -> bool:
    return name in arrays and name != own


def _constants(graph: Any) -> Iterator[tuple[str, np.ndarray]]:
    import onnx

    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value" and attribute.t.data_location != onnx.TensorProto.EXTERNAL:
                yield node.output[0], onnx.numpy_helper.to_array(attribute.t)


def _aliases(graph: Any) -> tuple[dict[str, str], set[str]]:
    """{name: what it is a copy or a transpose of}, and the names of the transposes."""
    sources: dict[str, str] = {}
    flips: set[str] = set()
    for node in graph.node:
        permutation = [list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"]
        is_flip = node.op_type == "Transpose" and permutation in ([], [[1, 0]])
        if node.op_type == "Identity" or is_flip:
            read, made = node.input[0], node.output[0]
            sources[made] = sources.get(read, read)
            flips ^= {made} if is_flip != (read in flips) else set()
    return sources, flips


def _module_of(node: Any) -> str | None:
    """The module that a node came from, as its exporter noted it; None where it did not."""
    scopes = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
    if scopes:
        try:
            names = ast.literal_eval(scopes[0])
        except (ValueError, SyntaxError):
            return None
        return str(names[-2]) if isinstance(names, list) and len(names) > 1 and names[-2] else None
    parts: list[str] = []  # "/layer1/layer1.0/conv1/Conv" is layer1.0.conv1
    for part in node.name.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts) or None
