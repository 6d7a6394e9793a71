"""What a selection compares: one map's values at several places, or an activation written as a selection.

Selections may compare what one input makes: a rectifier by max(stack([x, 0])), leaky by max(stack([x, 0.1 * x])).
Max-pooling compares one map's values at several places. Where a value was joined, by concatenation, padding or
writing, to a constant or to another function of the same value, and the join lies along an axis that the selection
compares, it may be an activation instead. Zeros beside what a rectifier gives are harmless: nothing lies below them.

A constant border is an activation where every window meets it. Where some window lies within the map, the selection is
a pool, as of a map padded with zeros in Keras: the border passes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from zfjax.anymodel.constants import constant_of, uniform
from zfjax.anymodel.graph import Flow, Node, Value, reached
from zfjax.anymodel.rectifiers import SHAPES, rectified_operand

Axes = frozenset[int] | set[int] | None  # None: any axis, as after a reshape

_ELEMENTWISE = frozenset(
    "add add_any sub mul div neg max min clamp select_n convert_element_type reduce_precision copy copy_p name "
    "stop_gradient optimization_barrier square sqrt rsqrt integer_pow pow cond carry".split()
)

_POSITIVE = SHAPES | frozenset(
    "convert_element_type add concatenate stack pad reduce_max reduce_window_max reduce_sum "
    "reduce_window_sum min".split()
)

_JOINED_ALONG = {"concatenate": "dimension", "stack": "axis"}
_WRITES = {"dynamic_update_slice": 1, "scatter": 2}  # number of the input that is written into input 0


def compared_axes(node: Node) -> set[int]:
    """The axes along which a selection, or a read at places that the input chooses, compares."""
    last, params = len(node.inputs[0].aval.shape) - 1, node.params
    if "window_dimensions" in params:
        return {axis for axis, size in enumerate(params["window_dimensions"]) if size > 1}
    if node.name == "gather":
        return set(params["dimension_numbers"].start_index_map)
    if node.name == "dynamic_slice":
        return set(range(last + 1))
    return set(params.get("axes", [params.get("axis", params.get("dimension", last))]))


def has_window_within(node: Node, flow: Flow) -> bool:
    """Some window of a pool meets no constant border, and nothing else is joined to what it compares."""
    params, axes = node.params, compared_axes(node)
    if "window_dimensions" not in params or any(size != 1 for size in params["base_dilation"]):
        return False
    value = node.inputs[0]
    if is_joined(value, axes, flow, borders=False):
        return False
    return all(_is_free_along(axis, value, params, flow) for axis in axes)


def _is_free_along(axis: int, value: Value, params: dict[str, Any], flow: Flow) -> bool:
    places = _border(value, axis, flow)
    if places is None:
        return False
    reach = params["window_dilation"][axis] * np.arange(params["window_dimensions"][axis])
    before, after = params["padding"][axis]
    starts = np.arange(-before, len(places) + after - reach[-1], params["window_strides"][axis])
    at = starts[:, None] + reach
    within = (at >= 0) & (at < len(places))
    return bool((within.any(1) & ~(within & places[np.clip(at, 0, len(places) - 1)]).any(1)).any())


def _border(value: Value, axis: int, flow: Flow) -> np.ndarray | None:
    """[size] where along an axis a value is constant, as far as padding tells; None where that is not known."""
    node, size = value.maker, value.aval.shape[axis]
    if value not in flow.varying:
        return np.ones(size, bool)
    if node is None or not _is_followed(node):
        return np.zeros(size, bool)
    return _BORDERS.get(node.name, _unknown_border)(node, axis, flow)


def _unknown_border(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    return None


def _padded(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    inner = _border(node.inputs[0], axis, flow)
    before, after, between = node.params["padding_config"][axis]
    if inner is None or node.inputs[1] in flow.varying:
        return None
    places = np.ones(len(inner) + between * max(len(inner) - 1, 0), bool)
    places[:: between + 1] = inner
    places = places[max(-before, 0) : len(places) - max(-after, 0)]
    return np.pad(places, (max(before, 0), max(after, 0)), constant_values=True)


def _concatenated(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    along = node.params["dimension"] == axis
    borders = [_border(v, axis, flow) for v in node.inputs if along or v in flow.varying]
    known = [places for places in borders if places is not None]
    if len(known) < len(borders):
        return None
    return np.concatenate(known) if along else np.logical_or.reduce(known)


def _written(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    start = constant_of(node.inputs[2 + axis])
    return None if start is None else _overwritten(node.inputs[0], node.inputs[1], int(start), axis, flow)


def _scattered(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    """One block written at a place that the program states, as by x.at[:, 1:-1].set."""
    indices, numbers = constant_of(node.inputs[1]), node.params["dimension_numbers"]
    if indices is None or indices.ndim != 1 or numbers.inserted_window_dims or numbers.operand_batching_dims:
        return None
    starts = dict(zip(numbers.scatter_dims_to_operand_dims, indices.tolist(), strict=True))
    return _overwritten(node.inputs[0], node.inputs[2], starts.get(axis, 0), axis, flow)


def _overwritten(value: Value, block: Value, start: int, axis: int, flow: Flow) -> np.ndarray | None:
    places, update = _border(value, axis, flow), _border(block, axis, flow)
    if places is None or update is None:
        return None
    first = min(max(start, 0), len(places) - len(update))
    return np.concatenate([places[:first], update, places[first + len(update) :]])


def _element_by_element(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    size = node.outputs[0].aval.shape[axis]
    varying = [v for v in node.inputs if v in flow.varying and len(v.aval.shape) > axis]
    borders = [_border(v, axis, flow) for v in varying]
    known = [np.broadcast_to(places, size) for places in borders if places is not None]
    return np.logical_and.reduce(known) if known and len(known) == len(borders) else None


def _turned(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    return _border(node.inputs[0], node.params["permutation"][axis], flow)


def _sliced(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    places, params = _border(node.inputs[0], axis, flow), node.params
    step = params["strides"][axis] if params["strides"] else 1
    return None if places is None else places[params["start_indices"][axis] : params["limit_indices"][axis] : step]


def _reversed(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    places = _border(node.inputs[0], axis, flow)
    return places[::-1] if places is not None and axis in node.params["dimensions"] else places


def _spread(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    size, below = node.outputs[0].aval.shape[axis], node.params["broadcast_dimensions"]
    if axis not in below:
        return np.zeros(size, bool)
    places = _border(node.inputs[0], below.index(axis), flow)
    return None if places is None else np.broadcast_to(places, size)


def _without_axes(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    """Axes of size one come or go."""
    below, above = ([k for k, size in enumerate(v.aval.shape) if size > 1] for v in (node.inputs[0], node.outputs[0]))
    sizes = [[v.aval.shape[k] for k in kept] for v, kept in ((node.inputs[0], below), (node.outputs[0], above))]
    if sizes[0] != sizes[1] or axis not in above:
        return None
    return _border(node.inputs[0], below[above.index(axis)], flow)


_BORDERS: dict[str, Callable[[Node, int, Flow], np.ndarray | None]] = {
    **dict.fromkeys(_ELEMENTWISE - {"carry", "cond"}, _element_by_element),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _without_axes),
    "pad": _padded,
    "concatenate": _concatenated,
    "dynamic_update_slice": _written,
    "scatter": _scattered,
    "transpose": _turned,
    "slice": _sliced,
    "rev": _reversed,
    "broadcast_in_dim": _spread,
}


def is_joined(value: Value, axes: Axes, flow: Flow, *, summed: bool = False, borders: bool = True) -> bool:
    """Along `axes` an input stands beside a constant or beside another function of itself.

    Args:
      value, axes: what is compared.
      flow: of the program.
      summed: for sums, which are over several places unless one element is stacked upon such.
      borders: constants count; else only other functions of itself.
    """
    joined = False
    followed: list[tuple[Any, ...]] = []  # without a join itself; whether one lies behind it is known when all is seen
    waiting: list[tuple[Value, Axes]] = [(value, axes)]
    while waiting and not joined:
        value, axes = waiting.pop()
        key = (summed, borders, value, None if axes is None else frozenset(axes))
        if value not in flow.varying or value.maker is None or axes == set():
            continue
        if key in flow.joined:
            joined = flow.joined[key]
            continue
        joined = _is_stack(value.maker, axes, flow) if summed else _is_join(value.maker, axes, flow, borders)
        flow.joined[key] = joined
        followed.append(key)
        if not joined and _is_followed(value.maker):
            waiting.extend((v, _axes_below(value.maker, axes)) for v in value.maker.inputs)
    for key in followed[1:] if joined else ():
        del flow.joined[key]
    if joined and followed:
        flow.joined[followed[0]] = True
    return joined


def _is_followed(node: Node) -> bool:
    return node.name in _ELEMENTWISE | SHAPES or node.name in (
        "concatenate",
        "pad",
        "stack",
        "scan_stack",
        "shard_out",
        *_WRITES,
    )


def _axes_below(node: Node, axes: Axes) -> Axes:
    """The same axes in the node's first input."""
    if axes is None or node.name in _ELEMENTWISE or node.name in ("concatenate", "pad", "rev", "slice", *_WRITES):
        return axes
    if node.name in ("stack", "scan_stack"):
        new = node.params.get("axis", 0) if len(node.outputs[0].aval.shape) > len(node.inputs[0].aval.shape) else None
        return axes if new is None else {axis - (axis > new) for axis in axes if axis != new}
    if node.name == "scan_slice":
        return {axis + 1 for axis in axes}
    if node.name == "transpose":
        return {node.params["permutation"][axis] for axis in axes}
    if node.name == "broadcast_in_dim":
        return {axis for axis, above in enumerate(node.params["broadcast_dimensions"]) if above in axes}
    return None


def _is_join(node: Node, axes: Axes, flow: Flow, borders: bool) -> bool:
    if node.name in _JOINED_ALONG:
        along = {node.params[_JOINED_ALONG[node.name]]}
        read = node.inputs
    elif node.name == "pad":
        along = {axis for axis, sizes in enumerate(node.params["padding_config"]) if any(n > 0 for n in sizes)}
        read = node.inputs
    elif node.name in _WRITES:
        along = set(range(len(node.outputs[0].aval.shape)))
        read = [node.inputs[0], node.inputs[_WRITES[node.name]]]
    else:
        return False
    return bool(along if axes is None else along.intersection(axes)) and _are_compared(read, flow, borders)


def _is_stack(node: Node, axes: Axes, flow: Flow) -> bool:
    """A join of single elements, along the one axis that is summed over."""
    if node.name not in _JOINED_ALONG or (axes or set()) - {along := node.params[_JOINED_ALONG[node.name]]}:
        return False
    single = node.name == "stack" or all(value.aval.shape[along] == 1 for value in node.inputs)
    return single and _are_compared(node.inputs, flow)


def _are_compared(values: list[Value], flow: Flow, borders: bool = True) -> bool:
    varying = [value for value in values if value in flow.varying]
    for constant in [value for value in values if value not in flow.varying] if varying and borders else []:
        number = uniform(constant)
        harmless = number == 0 and all(map(_is_positive, varying))
        if not harmless and (number is None or math.isfinite(number)):
            return True
    counted: set[Value] = set()
    for value in varying:
        made_of = {flow.first.get(v, v) for v in reached([value], lambda v: _same_places(v, flow))}
        if counted & made_of:
            return True
        counted |= made_of
    return False


def _same_places(value: Value, flow: Flow) -> list[Value]:
    """What a value is made of element by element."""
    node = value.maker
    if node is None or node.name not in (_ELEMENTWISE | SHAPES) - {"slice", "scan_slice", "shard_in", "rev", "carry"}:
        return []
    return [v for v in node.inputs if v in flow.varying and v.aval.size == value.aval.size]


def _is_positive(value: Value) -> bool:
    """Never below zero, for it comes from rectifiers."""
    made_of = reached([value], lambda v: v.maker.inputs if v.maker is not None and v.maker.name in _POSITIVE else [])
    ends = [v for v in made_of if v.maker is None or v.maker.name not in _POSITIVE]
    return all(_is_rectified(v) or (number := uniform(v)) is not None and number >= 0 for v in ends)


def _is_rectified(value: Value) -> bool:
    return value.maker is not None and rectified_operand(value.maker) is not None
