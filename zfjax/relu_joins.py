"""Selections that compare what one input makes: a rectifier by max(stack([x, 0])), leaky by max(stack([x, 0.1 * x])).

Max-pooling compares one map's values at several places. Where a value was joined, by concatenation, padding or
writing, to a constant or to another function of the same value, and the join lies along an axis that the selection
compares, it may be an activation instead. Zeros beside what a rectifier gives are harmless: nothing lies below them.
"""

from __future__ import annotations

import math

from zfjax.jaxpr_flow import Flow, reached
from zfjax.jaxpr_graph import Node, Value
from zfjax.relu_patterns import SHAPES, rectified_operand, uniform

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


def is_joined(value: Value, axes: Axes, flow: Flow, *, summed: bool = False) -> bool:
    """Along `axes` an input stands beside a constant or beside another function of itself.

    `summed`: for sums, which are over several places unless one element is stacked upon such.
    """
    seen: set[tuple[Value, frozenset[int] | None]] = set()
    waiting: list[tuple[Value, Axes]] = [(value, axes)]
    while waiting:
        value, axes = waiting.pop()
        key = (value, None if axes is None else frozenset(axes))
        if value not in flow.varying or value.maker is None or key in seen or axes == set():
            continue
        seen.add(key)
        if (_is_stack if summed else _is_join)(value.maker, axes, flow):
            return True
        waiting.extend((v, _axes_below(value.maker, axes)) for v in value.maker.inputs if _is_followed(value.maker))
    return False


def _is_followed(node: Node) -> bool:
    return node.name in _ELEMENTWISE | SHAPES or node.name in ("concatenate", "pad", "stack", "scan_stack", *_WRITES)


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


def _is_join(node: Node, axes: Axes, flow: Flow) -> bool:
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
    return bool(along if axes is None else along.intersection(axes)) and _are_compared(read, flow)


def _is_stack(node: Node, axes: Axes, flow: Flow) -> bool:
    """A join of single elements, along the one axis that is summed over."""
    if node.name not in _JOINED_ALONG or (axes or set()) - {along := node.params[_JOINED_ALONG[node.name]]}:
        return False
    single = node.name == "stack" or all(value.aval.shape[along] == 1 for value in node.inputs)
    return single and _are_compared(node.inputs, flow)


def _are_compared(values: list[Value], flow: Flow) -> bool:
    varying = [value for value in values if value in flow.varying]
    for constant in [value for value in values if value not in flow.varying] if varying else []:
        number = uniform(constant)
        harmless = number == 0 and all(map(_is_positive, varying))
        if not harmless and (number is None or math.isfinite(number)):
            return True
    seen: set[Value] = set()
    for value in varying:
        made_of = reached([value], lambda v: _same_places(v, flow))
        if seen & made_of:
            return True
        seen |= made_of
    return False


def _same_places(value: Value, flow: Flow) -> list[Value]:
    """What a value is made of element by element."""
    node = value.maker
    if node is None or node.name not in (_ELEMENTWISE | SHAPES) - {"slice", "scan_slice", "rev", "carry"}:
        return []
    return [v for v in node.inputs if v in flow.varying and v.aval.size == value.aval.size]


def _is_positive(value: Value) -> bool:
    """Never below zero, for it comes from rectifiers."""
    made_of = reached([value], lambda v: v.maker.inputs if v.maker is not None and v.maker.name in _POSITIVE else [])
    ends = [v for v in made_of if v.maker is None or v.maker.name not in _POSITIVE]
    return all(_is_rectified(v) or (number := uniform(v)) is not None and number >= 0 for v in ends)


def _is_rectified(value: Value) -> bool:
    return value.maker is not None and rectified_operand(value.maker) is not None
