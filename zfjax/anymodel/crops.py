"""What one place of a map sees of the images, proved from the program, and the crop of them that does as well.

A map that is made of the images by convolutions, pools and what looks at each place by itself has places that stand in
rows and columns as the pixels do: place i of it sees `size` pixels from offset + i * stride on. The program of a
smaller image is then the same program with shorter rows, so a unit is the same in a crop that holds its field, and so
is all that comes down from it. What is not listed here proves nothing, and the whole image is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from zfjax import ops
from zfjax.anymodel.graph import Graph, Node, Value, graph_of, programs_of
from zfjax.anymodel.tracing import traced
from zfjax.architecture import ReceptiveField, Span

WORTH = 0.9  # side of a crop, as a share of the image's, from which on it saves too little


class Crop(NamedTuple):
    """A part of the image, of `size`, which holds all that a unit looks at.

    A unit inside stands at `place` of the crop's map; one whose field reaches over a border of the image stands nearer
    to that border of a crop that ends there too, and what hangs over is the same.
    """

    size: tuple[int, int]  # pixels
    place: tuple[int, int]  # of a unit inside, in the crop's map
    stride: tuple[int, int]  # pixels between places
    steps: tuple[int, int]  # of `stride` from the first crop of the image to the last

    def around(self, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(pixel at which the crop of each unit begins, the unit's place in the crop's map), int [N, 2] each."""
        places = np.stack([row, column], axis=1)
        first = np.clip(places - self.place, 0, self.steps)
        return first * self.stride, places - first


class _Map(NamedTuple):
    """An array of the images' rows and columns."""

    axes: tuple[int, int]
    fields: tuple[Span, Span]


State = _Map | frozenset[int]  # of what does not come from the images: the axes along which it is the same everywhere


class _UnprovenError(Exception):
    """An operation that is not known to look at places alike."""


def crop_of(fn: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: Any) -> Crop | None:
    """The crop that stands for images of `shape` where a unit of fn(images) is looked at; None where none is proved.

    Args:
      fn: images [B, H, W, C] -> a map [B, h, w, C'].
      shape: (H, W, C).
      dtype: of the images.
    """
    whole = _proof_of(fn, shape, dtype)
    if whole is None or whole.map.axes != (1, 2):
        return None
    fields = whole.map.fields
    first = [max(0, math.ceil(-field.offset / field.stride)) for field in fields]
    least = [field.offset + n * field.stride + field.size for n, field in zip(first, fields, strict=True)]
    strides, sides = np.array([field.stride for field in fields]), np.array(shape[:2])
    more = 0  # strides, where a model has layers above that need larger images
    while True:
        size = np.minimum(least + (sides - least) % strides + more * strides, sides)  # padded as whole images are
        if size.prod() > WORTH**2 * sides.prod():
            return None
        part = _proof_of(fn, (*size.tolist(), *shape[2:]), dtype)
        if part is not None:
            break
        more = 2 * more + 1
    steps = (sides - size) // strides
    alike = _is_same_program(whole, part) and (np.array(part.sides) + steps == whole.sides).all()
    if not alike or (np.array(part.sides) <= first).any():
        return None
    return Crop(*(tuple(map(int, of)) for of in (size, first, strides, steps)))  # type: ignore[arg-type]


def field_of(fn: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: Any) -> ReceptiveField | None:
    """What one place of the map fn(images) sees of images of `shape`; None where the program does not prove it.

    Args as of `crop_of`.
    """
    proof = _proof_of(fn, shape, dtype)
    return ReceptiveField.of(*proof.map.fields) if proof is not None and proof.map.axes == (1, 2) else None


class _Proof(NamedTuple):
    nodes: list[Node]  # that the map is made by, in their order
    states: dict[Value, State]
    map: _Map
    sides: tuple[int, ...]  # of the map


def _proof_of(fn: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: Any) -> _Proof | None:
    try:
        program, _ = traced(fn, (jax.ShapeDtypeStruct((1, *shape), dtype),), {})
    except Exception:  # noqa: BLE001 - whatever a model says of images of another size than its own
        return None
    graph = graph_of(program, marks=False)
    nodes, values = _makers_of(graph)
    if any(not _is_known(node) for node in graph.custom if not values.isdisjoint(node.outputs)):
        return None  # nobody knows what its derivative looks at
    one = Span(1, 1, 0)
    states: dict[Value, State] = {graph.inputs[0]: _Map((1, 2), (one, one))}
    try:
        for node in nodes:
            inputs = [states.get(value, frozenset[int]()) for value in node.inputs]
            states.update(zip(node.outputs, _step(node, inputs, shape), strict=True))
    except _UnprovenError:
        return None
    last = states.get(graph.outputs[0])
    return _Proof(nodes, states, last, graph.outputs[0].aval.shape[1:3]) if isinstance(last, _Map) else None


def _is_known(node: Node) -> bool:
    """Its derivative looks at no more than the call itself: calls of JAX, and pooling with switches."""
    (program,) = programs_of(node.eqns[0])
    _, _, place = str(program.jaxpr.debug_info.func_src_info).partition(" at ")
    return node.calls[-1].by_jax or place.startswith(f"{ops.__file__}:")


def _makers_of(graph: Graph) -> tuple[list[Node], set[Value]]:
    """(nodes, values) that the first result is made of."""
    values, nodes = {graph.outputs[0]}, []
    for node in reversed(graph.nodes):
        if not values.isdisjoint(node.outputs):
            nodes.append(node)
            values.update(node.inputs)
    return nodes[::-1], values


_SIDES = frozenset("shape new_sizes limit_indices lhs_shape rhs_shape sharding out_sharding branches".split())


def _is_same_program(whole: _Proof, part: _Proof) -> bool:
    """The two differ in the lengths of rows and columns alone."""
    return len(whole.nodes) == len(part.nodes) and all(
        _is_same_node(*pair, of_a=whole.states, of_b=part.states) for pair in zip(whole.nodes, part.nodes, strict=True)
    )


def _is_same_node(a: Node, b: Node, *, of_a: dict[Value, State], of_b: dict[Value, State]) -> bool:
    def params(node: Node) -> str:
        return str(sorted((name, value) for name, value in node.params.items() if name not in _SIDES))

    if a.name != b.name or params(a) != params(b) or len(a.inputs) != len(b.inputs):
        return False
    if not any(isinstance(of_a.get(value), _Map) for value in a.inputs) and a.name not in _KEEP_PLACES:
        of_a = of_b = {}  # as a sum of ones, which counts them: all that goes in has to be as long
    for value, other in (*zip(a.inputs, b.inputs, strict=True), *zip(a.outputs, b.outputs, strict=True)):
        state = of_a.get(value, frozenset())
        if state != of_b.get(other, frozenset()) or len(value.aval.shape) != len(other.aval.shape):
            return False
        free = set(state.axes if isinstance(state, _Map) else state)
        sides = zip(value.aval.shape, other.aval.shape, strict=True)
        if any(side != length for axis, (side, length) in enumerate(sides) if axis not in free):
            return False
        if value.maker is None and not isinstance(state, _Map) and not _is_equal(value.constant, other.constant):
            return False
    return True


def _is_equal(a: Any, b: Any) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True))


def _step(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> list[State]:
    if not any(isinstance(state, _Map) for state in inputs):
        return [_step_aside(node, inputs)] * len(node.outputs)
    if node.name not in _RULES:
        raise _UnprovenError(node.name)
    return [_RULES[node.name](node, inputs, shape)] * len(node.outputs)


def _step_aside(node: Node, inputs: Sequence[State]) -> frozenset[int]:
    """Of what does not come from the images."""
    if node.name == "broadcast_in_dim":
        (value, *_), (state, *_) = node.inputs, inputs
        kept = node.params["broadcast_dimensions"]
        sides = node.outputs[0].aval.shape
        grown = {axis for axis, side in zip(kept, value.aval.shape, strict=True) if side == 1 and sides[axis] != 1}
        assert not isinstance(state, _Map)
        return frozenset((set(range(len(sides))) - set(kept)) | grown | {kept[axis] for axis in state})
    if node.name in _ELEMENTWISE:
        return _same_along(node, inputs)
    return frozenset()


def _same_along(node: Node, inputs: Sequence[State]) -> frozenset[int]:
    """Axes along which each input is the same that does not come from the images; a number is so along all."""
    every = frozenset(range(len(node.outputs[0].aval.shape)))
    others = [(v, s) for v, s in zip(node.inputs, inputs, strict=True) if v.aval.shape and not isinstance(s, _Map)]
    of_each = (state | {axis for axis, side in enumerate(value.aval.shape) if side == 1} for value, state in others)
    return every.intersection(*of_each)


def _elementwise(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    maps = [state for state in inputs if isinstance(state, _Map)]
    axes = maps[0].axes
    sides = {tuple(v.aval.shape[a] for a in axes) for v, s in zip(node.inputs, inputs, strict=True) if s in maps}
    if any(of.axes != axes for of in maps) or len(sides) > 1 or not set(axes) <= _same_along(node, inputs):
        raise _UnprovenError(node.name)
    rows, columns = zip(*(of.fields for of in maps), strict=True)
    return _Map(axes, (_joined(rows), _joined(columns)))


def _joined(fields: Sequence[Span]) -> Span:
    if len({field.stride for field in fields}) > 1:
        raise _UnprovenError("places that do not stand on one another")
    first = min(field.offset for field in fields)
    return Span(max(field.offset + field.size for field in fields) - first, fields[0].stride, first)


def _of_one(inputs: Sequence[State], index: int = 0) -> _Map:
    """The state of the one input that may come from the images."""
    state = inputs[index]
    if not isinstance(state, _Map) or sum(isinstance(other, _Map) for other in inputs) > 1:
        raise _UnprovenError("places of an operand beside the map")
    return state


def _slid(field: Span, length: int, side: int, *, size: int = 1, stride: int = 1, dilation: int = 1, pad: Any) -> Span:
    """Of windows along an axis of `length` places; what they see of the padding has to lie outside the image."""
    before, after = map(int, pad)
    if (before > 0 and field.offset >= field.stride) or (
        after > 0 and field.offset + length * field.stride + field.size <= side
    ):
        raise _UnprovenError("padding inside the image")
    return field.under((size - 1) * dilation + 1, stride=stride, padding=before)


def _moved(of: _Map, node: Node, *, shape: tuple[int, ...], options: Callable[[int], dict[str, Any]]) -> _Map:
    """The fields of windows along both axes of the first input; options(axis) says which."""
    sides = node.inputs[0].aval.shape
    rows, columns = (
        _slid(field, sides[axis], side, **options(axis))
        for axis, field, side in zip(of.axes, of.fields, shape, strict=False)
    )
    return of._replace(fields=(rows, columns))


def _conv(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, given = _of_one(inputs), node.params
    numbers = given["dimension_numbers"]
    spatial = list(numbers.lhs_spec[2:])
    if not set(of.axes) <= set(spatial) or given["batch_group_count"] != 1 or set(given["lhs_dilation"]) != {1}:
        raise _UnprovenError(node.name)
    kernel = node.inputs[1].aval.shape

    def options(axis: int) -> dict[str, Any]:
        k = spatial.index(axis)
        return {
            "size": kernel[numbers.rhs_spec[2 + k]],
            "stride": given["window_strides"][k],
            "dilation": given["rhs_dilation"][k],
            "pad": given["padding"][k],
        }

    rows, columns = (numbers.out_spec[2 + spatial.index(axis)] for axis in of.axes)
    return _moved(of, node, shape=shape, options=options)._replace(axes=(rows, columns))


def _window(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, given = _of_one(inputs), node.params
    if set(given["base_dilation"]) != {1}:
        raise _UnprovenError(node.name)
    names = {
        "size": "window_dimensions",
        "stride": "window_strides",
        "dilation": "window_dilation",
        "pad": "padding",
    }
    return _moved(
        of, node, shape=shape, options=lambda axis: {name: given[of_jax][axis] for name, of_jax in names.items()}
    )


def _pad(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, config = _of_one(inputs), node.params["padding_config"]
    if any(config[axis][2] for axis in of.axes):
        raise _UnprovenError(node.name)
    return _moved(of, node, shape=shape, options=lambda axis: {"pad": config[axis][:2]})


def _slice(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, given = _of_one(inputs), node.params
    strides = given["strides"] or (1,) * len(given["start_indices"])
    return _moved(
        of, node, shape=shape, options=lambda axis: {"stride": strides[axis], "pad": (-given["start_indices"][axis], 0)}
    )


def _transpose(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, order = _of_one(inputs), list(node.params["permutation"])
    return of._replace(axes=(order.index(of.axes[0]), order.index(of.axes[1])))


def _broadcast(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, kept = _of_one(inputs), node.params["broadcast_dimensions"]
    before, after = node.inputs[0].aval.shape, node.outputs[0].aval.shape
    if any(before[axis] != after[kept[axis]] for axis in of.axes):
        raise _UnprovenError(node.name)
    return of._replace(axes=(kept[of.axes[0]], kept[of.axes[1]]))


def _reshape(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, before, after = _of_one(inputs), node.inputs[0].aval.shape, node.outputs[0].aval.shape
    if node.params.get("dimensions") is not None:
        raise _UnprovenError(node.name)

    def place(axis: int) -> int:
        """The axis of the result that counts what `axis` counted, with as much before it."""
        for other, side in enumerate(after):
            if side == before[axis] and math.prod(after[:other]) == math.prod(before[:axis]) and side > 1:
                return other
        raise _UnprovenError(node.name)

    return of._replace(axes=(place(of.axes[0]), place(of.axes[1])))


def _reduce(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, gone = _of_one(inputs), node.params["axes"]
    if set(of.axes) & set(gone):
        raise _UnprovenError(node.name)
    rows, columns = (axis - sum(other < axis for other in gone) for axis in of.axes)
    return of._replace(axes=(rows, columns))


def _squeeze(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    of, gone = _of_one(inputs), node.params["dimensions"]
    if set(of.axes) & set(gone):
        raise _UnprovenError(node.name)
    rows, columns = (axis - sum(other < axis for other in gone) for axis in of.axes)
    return of._replace(axes=(rows, columns))


def _beside(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    """What takes apart, or turns round, an axis that counts no places."""
    of = _of_one(inputs)
    if set(of.axes) & set(np.atleast_1d(node.params["axis" if node.name == "split" else "dimensions"]).tolist()):
        raise _UnprovenError(node.name)
    return of


def _concatenate(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    maps = [state for state in inputs if isinstance(state, _Map)]
    if len(maps) < len(inputs) or node.params["dimension"] in maps[0].axes:
        raise _UnprovenError(node.name)
    return _elementwise(node, inputs, shape)


def _dot(node: Node, inputs: Sequence[State], shape: tuple[int, ...]) -> _Map:
    side = 0 if isinstance(inputs[0], _Map) else 1
    of = _of_one(inputs, side)
    contracted, batched = node.params["dimension_numbers"]
    if set(of.axes) & {*contracted[side], *batched[side]}:
        raise _UnprovenError(node.name)
    ranks = [len(value.aval.shape) for value in node.inputs]
    own, other = (
        [axis for axis in range(ranks[k]) if axis not in (*contracted[k], *batched[k])] for k in (side, 1 - side)
    )
    first = len(batched[side]) + (len(other) if side else 0)
    return of._replace(axes=(first + own.index(of.axes[0]), first + own.index(of.axes[1])))


_ELEMENTWISE = frozenset(
    "abs add add_any and atan2 cbrt ceil clamp convert_element_type copy cos div eq erf erf_inv erfc exp exp2 expm1 "
    "floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow reduce_precision rem "
    "round rsqrt select_n sign sin sqrt square stop_gradient sub tan tanh xor name".split()
)
_KEEP_PLACES = _ELEMENTWISE | {"broadcast_in_dim"}
_RULES: dict[str, Callable[[Node, Sequence[State], tuple[int, ...]], _Map]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum", "reduce_window"), _window),
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "concatenate": _concatenate,
    "cond": _elementwise,  # of what its branches gave
    "rev": _beside,
    "split": _beside,
}
# Operations that leave each channel by itself, or look at several without making others of them.
KEEP_CHANNELS = frozenset(_RULES) - {"conv_general_dilated", "dot_general", "cond"} | {"reduce_precision", "copy_p"}
