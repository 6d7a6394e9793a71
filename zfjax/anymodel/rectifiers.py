"""Recognising rectifiers in a program's graph, in whatever way they are written.

    max(x, 0)   where(x > 0, x, 0)   where(x <= 0, 0, x)   x * (x > 0)   clamp(0, x, c)
    where(signbit(x), 0, x)   select([x > 0], [x], 0)

with the operands in either order, `>=` for `>`, the zero given as a number, an array or an operand of the call, the
mask made a number by `astype` or `where`. relu6 and clip are such a lower bound with an upper bound beside it.

The mask may be made of x in another shape or order of axes, if it comes back to that of x.

Whether a lower bound at zero is a rectifier, or guards the variance of a norm, is for `norms` to say.
"""

from __future__ import annotations

from zfjax.anymodel.constants import constant_of, uniform
from zfjax.anymodel.graph import SIGNBIT, Flow, Node, Value, is_inexact, reached

# Hand on the same numbers, in another shape or order.
SHAPES = frozenset(
    "broadcast_in_dim reshape squeeze expand_dims transpose rev slice copy copy_p name tile scan_slice shard_in "
    "pvary pcast".split()
)

_CAST = frozenset("broadcast_in_dim reshape copy copy_p name convert_element_type stop_gradient pvary pcast".split())
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
    if is_above_rectifier(node, operand):
        return True
    readers = [user for user in _readers(node.outputs[0]) if flow.passes(user)]
    return bool(readers) and all(rectified_operand(user) is not None for user in readers)


def is_above_rectifier(node: Node, operand: int) -> bool:
    """The node reads a rectifier's result."""
    below = origin(node.inputs[operand])[0].maker
    return below is not None and rectified_operand(below) is not None


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
    if node.name == SIGNBIT:
        return origin(node.inputs[0]), False
    if node.name == "argmax":
        return _first_of_two(node)
    if node.name == "select_n":
        cases, side = [uniform(value) for value in node.inputs[1:]], _side(node.inputs[0])
        return side if cases == [0, 1] else _flipped(side) if cases == [1, 0] else None
    zeros = [uniform(value) == 0 for value in node.inputs]
    positive = _SIDES.get((node.name, zeros.index(True))) if sum(zeros) == 1 else None
    return None if positive is None else (origin(node.inputs[zeros.index(False)]), positive)


def _first_of_two(node: Node) -> tuple[tuple[Value, Moves], bool] | None:
    mask = _only_choice(node)
    return None if mask is None else _side(mask)


def _only_choice(node: Node) -> Value | None:
    """The mask that an argmax is 1 for: the place of the largest of [False, mask], by which `jnp.select` chooses."""
    pair = _stacked(node.inputs[0], tuple(node.params["axes"]))
    if pair is None:
        return None
    never = constant_of(pair[0])
    return None if never is None or never.any() else pair[1]


def _stacked(value: Value, axes: tuple[int, ...]) -> tuple[Value, Value] | None:
    """The two values that a value is the stack of along an axis; older JAX joins copies of one more axis."""
    node = value.maker
    if (
        node is None
        or len(node.inputs) != 2
        or axes not in ((node.params.get("axis"),), (node.params.get("dimension"),))
    ):
        return None
    first, last = node.inputs
    if node.name == "stack":
        return first, last
    copied = last.maker
    if node.name != "concatenate" or value.aval.shape[axes[0]] != 2 or copied is None or copied.name not in _RESHAPES:
        return None
    shape = value.aval.shape[: axes[0]] + value.aval.shape[axes[0] + 1 :]
    return (first, copied.inputs[0]) if copied.inputs[0].aval.shape == shape else None


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
    """The comparison of which this is a copy, the opposite, or the only case of `jnp.select`."""
    while (below := _mask_below(mask)) is not None:
        mask = below
    return mask


def _mask_below(mask: Value) -> Value | None:
    node = mask.maker
    if node is None or not node.inputs:
        return None
    return _only_choice(node) if node.name == "argmax" else node.inputs[0] if node.name in MOVES | {"not"} else None


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
        is_negative: bool = node.params["y"] < 0
        return is_negative
    return node.name in ("sqrt", "rsqrt") or (node.name == "div" and node.inputs[1] is value)
