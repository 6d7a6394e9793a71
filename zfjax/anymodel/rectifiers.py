"""Recognising rectifiers in a program's graph, in whatever way they are written.

    max(x, 0)   where(x > 0, x, 0)   where(x <= 0, 0, x)   x * (x > 0)   clamp(0, x, c)

with the operands in either order, `>=` for `>`, the zero given as a number, an array or an operand of the call, the
mask made a number by `astype` or `where`. relu6 and clip are such a lower bound with an upper bound beside it.

The mask may be made of x in another shape or order of axes, if it comes back to that of x.

Whether a lower bound at zero is a rectifier, or guards the variance of a norm, is for `norms` to say.

Selections may compare what one input makes: a rectifier by max(stack([x, 0])), leaky by max(stack([x, 0.1 * x])).
Max-pooling compares one map's values at several places. Where a value was joined, by concatenation, padding or
writing, to a constant or to another function of the same value, and the join lies along an axis that the selection
compares, it may be an activation instead. Zeros beside what a rectifier gives are harmless: nothing lies below them.
"""

from __future__ import annotations

import math
from typing import Any

from zfjax.anymodel.constants import uniform
from zfjax.anymodel.graph import Flow, Node, Value, is_inexact, reached

# Hand on the same numbers, in another shape or order.
SHAPES = frozenset(
    "broadcast_in_dim reshape squeeze expand_dims transpose rev slice copy copy_p name tile scan_slice".split()
)

_CAST = frozenset("broadcast_in_dim reshape copy copy_p name convert_element_type stop_gradient".split())
MOVES = _CAST | {"squeeze", "expand_dims", "transpose"}  # the same numbers, each at one place
_ARITHMETIC = ("add", "sub", "mul", "div", "neg", "broadcast_in_dim", "reduce_sum")
_RESHAPES = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims")
Moves = tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]  # ("transpose", axes, sorted) or ("reshape", from, to)

# (comparison, place of the zero) -> it holds where the other operand is positive, or where it is not
_SIDES = {
    ("gt", 1): True,
    ("ge", 1): True,
    ("lt", 1): False,
    ("le", 1): False,
    ("gt", 0): False,
    ("ge", 0): False,
    ("lt", 0): True,
    ("le", 0): True,
}


def rectified_operand(node: Node) -> int | None:
    """Which input the node rectifies; None for any other operation."""
    operand = _PATTERNS[node.name](node) if node.name in _PATTERNS else None
    if operand is None or node.inputs[operand].aval.shape != node.outputs[0].aval.shape:
        return None
    return operand


def is_beside_rectifier(node: Node, operand: int, flow: Flow) -> bool:
    """The node bounds a rectifier's result, or nothing but rectifiers read the bounded value."""
    below = origin(node.inputs[operand])[0].maker
    if below is not None and rectified_operand(below) is not None:
        return True
    readers = [user for user in _readers(node.outputs[0]) if flow.passes(user)]
    return bool(readers) and all(rectified_operand(user) is not None for user in readers)


def _readers(value: Value) -> list[Node]:
    same = reached([value], lambda v: [w for user in v.users if user.name in _CAST for w in user.outputs])
    return [user for v in same for user in v.users if user.name not in _CAST]


def _rectified_by_max(node: Node) -> int | None:
    zeros = [uniform(value) == 0 for value in node.inputs]
    return zeros.index(False) if sum(zeros) == 1 else None


def _rectified_by_select(node: Node) -> int | None:
    """select_n(mask, where false, where true)"""
    side = _side(node.inputs[0])
    if side is None:
        return None
    x, positive = side
    kept, other = (2, 1) if positive else (1, 2)
    return kept if origin(node.inputs[kept]) == x and uniform(node.inputs[other]) == 0 else None


def _rectified_by_mul(node: Node) -> int | None:
    for operand in (0, 1):
        if _side(node.inputs[1 - operand]) == (origin(node.inputs[operand]), True):
            return operand
    return None


def _rectified_by_clamp(node: Node) -> int | None:
    """clamp(lower bound, x, upper bound)"""
    lower, upper = uniform(node.inputs[0]), uniform(node.inputs[2])
    return 1 if lower == 0 and upper is not None and upper > 0 else None


_PATTERNS = {
    "max": _rectified_by_max,
    "select_n": _rectified_by_select,
    "mul": _rectified_by_mul,
    "clamp": _rectified_by_clamp,
}


def _side(mask: Value) -> tuple[tuple[Value, Moves], bool] | None:
    """(origin of x, True) for a mask that holds, or is 1, where x > 0, False where it is not; None for any other."""
    node = mask.maker
    if node is None:
        return None
    moves = _moves(node)
    if moves is not None:
        side = _side(node.inputs[0])
        return None if side is None else ((side[0][0], _after(side[0][1], moves)), side[1])
    if node.name == "not":
        return _flipped(_side(node.inputs[0]))
    if node.name == "select_n":
        cases, side = [uniform(value) for value in node.inputs[1:]], _side(node.inputs[0])
        return side if cases == [0, 1] else _flipped(side) if cases == [1, 0] else None
    zeros = [uniform(value) == 0 for value in node.inputs]
    positive = _SIDES.get((node.name, zeros.index(True))) if sum(zeros) == 1 else None
    return None if positive is None else (origin(node.inputs[zeros.index(False)]), positive)


def _flipped(side: tuple[tuple[Value, Moves], bool] | None) -> tuple[tuple[Value, Moves], bool] | None:
    return None if side is None else (side[0], not side[1])


def origin(value: Value) -> tuple[Value, Moves]:
    """The value of which this one is a copy, perhaps in another floating type, and how its places were moved."""
    node = value.maker
    moves = None if node is None else _moves(node)
    if node is None or moves is None or not is_inexact(node.inputs[0]):
        return value, ()
    base, before = origin(node.inputs[0])
    return base, _after(before, moves)


def origin_of_mask(mask: Value) -> Value:
    """The comparison of which this is a copy, or the opposite."""
    while mask.maker is not None and mask.maker.inputs and mask.maker.name in MOVES | {"not"}:
        mask = mask.maker.inputs[0]
    return mask


def _moves(node: Node) -> Moves | None:
    """How a node moves the places of its input; None where it is no copy."""
    if node.name == "transpose":
        axes = tuple(node.params["permutation"])
        return (("transpose", axes, tuple(sorted(axes))),)
    if node.name not in _CAST and node.name not in _RESHAPES:
        return None
    below, above = node.inputs[0].aval, node.outputs[0].aval
    if below.shape == above.shape:
        return ()
    return (("reshape", below.shape, above.shape),) if below.size == above.size else None


def _after(before: Moves, moves: Moves) -> Moves:
    """The moves one after the other, without what undoes itself."""
    for kind, start, end in moves:
        if before and before[-1][0] == kind:
            earlier, before = before[-1], before[:-1]
            start = tuple(earlier[1][axis] for axis in start) if kind == "transpose" else earlier[1]
        if start != end:
            before = (*before, (kind, start, end))
    return before


def is_square(node: Node) -> bool:
    """x * x, or its sum over places, of one value."""
    if node.name == "mul":
        return _is_same(node.inputs[0], node.inputs[1])
    if node.name == "dot_general":
        (contracted, others), (batch, others_batch) = node.params["dimension_numbers"]
        whole = len(contracted) + len(batch) == len(node.inputs[0].aval.shape)
        return whole and (contracted, batch) == (others, others_batch) and _is_same(node.inputs[0], node.inputs[1])
    if node.name == "pow":
        return uniform(node.inputs[1]) == 2
    return node.name == "square" or (node.name == "integer_pow" and node.params["y"] == 2)


def _is_same(value: Value, other: Value, depth: int = 8) -> bool:
    """One value, or made by the same arithmetic of the same values, as in (x - mean) * (x - mean)."""
    (base, moves), (twin, others) = origin(value), origin(other)
    if base is twin or moves != others:
        return base is twin and moves == others
    if base.maker is None or twin.maker is None or base.aval.shape != twin.aval.shape:
        return base.aval.shape == twin.aval.shape and uniform(base) is not None and uniform(base) == uniform(twin)
    name, params = base.maker.name, base.maker.params
    if depth == 0 or name not in _ARITHMETIC or name != twin.maker.name or params != twin.maker.params:
        return False
    return all(_is_same(a, b, depth - 1) for a, b in zip(base.maker.inputs, twin.maker.inputs, strict=True))


def is_under_root(value: Value, flow: Flow) -> bool:
    """A root or a divisor is made of it, by no more than arithmetic with constants."""

    def up(value: Value) -> list[Value]:
        return [v for user in value.users if _is_affine_in(user, value, flow) for v in user.outputs]

    same = reached([value], up)
    return any(_is_root_of(user, v) for v in same for user in v.users if flow.passes(user))


def _is_affine_in(node: Node, value: Value, flow: Flow) -> bool:
    if node.name in SHAPES | _CAST:
        return True
    others = [v for v in node.inputs if v is not value]
    divides = node.name == "div" and node.inputs[1] is value
    return node.name in ("add", "sub", "mul", "div", "max") and not divides and not flow.varying.intersection(others)


def _is_root_of(node: Node, value: Value) -> bool:
    if node.name == "pow":
        exponent = uniform(node.inputs[1])
        return exponent is not None and exponent < 1
    if node.name == "integer_pow":
        return node.params["y"] < 0
    return node.name in ("sqrt", "rsqrt") or (node.name == "div" and node.inputs[1] is value)


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
    found = False
    seen: list[tuple[Any, ...]] = []  # without a join itself; whether one lies behind it is known when all is seen
    waiting: list[tuple[Value, Axes]] = [(value, axes)]
    while waiting and not found:
        value, axes = waiting.pop()
        key = (summed, value, None if axes is None else frozenset(axes))
        if value not in flow.varying or value.maker is None or axes == set():
            continue
        if key in flow.joined:
            found = flow.joined[key]
            continue
        found = (_is_stack if summed else _is_join)(value.maker, axes, flow)
        flow.joined[key] = found
        seen.append(key)
        if not found and _is_followed(value.maker):
            waiting.extend((v, _axes_below(value.maker, axes)) for v in value.maker.inputs)
    for key in seen[1:] if found else ():
        del flow.joined[key]
    if found and seen:
        flow.joined[seen[0]] = True
    return found


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
