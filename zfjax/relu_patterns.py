"""Recognising rectifiers in a program's graph, in whatever way they are written.

    max(x, 0)   where(x > 0, x, 0)   where(x <= 0, 0, x)   x * (x > 0)   clamp(0, x, c)

with the operands in either order, `>=` for `>`, the zero given as a number, an array or an operand of the call, the
mask made a number by `astype` or `where`. relu6 and clip are such a lower bound with an upper bound beside it.

A lower bound is no rectifier but a guard where it keeps a sum of squares from falling below zero (or below a small
constant) before a root or a division, as norm layers do with a variance: the bounded value is made of squares, and
the result is used under a root or as a divisor. What is used so but not made of squares may be either: ambiguous.
JAX's own relu and relu6 are rectifiers whatever they are used for.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.jaxpr_flow import Flow, is_inexact, reached
from zfjax.jaxpr_graph import Node, Value

# Hand on the same numbers, in another shape or order.
SHAPES = frozenset("broadcast_in_dim reshape squeeze expand_dims transpose rev slice copy copy_p name tile".split())
_CAST = frozenset("broadcast_in_dim reshape copy copy_p name convert_element_type stop_gradient".split())
_SUMS = SHAPES | frozenset(
    "convert_element_type add sub mul div reduce_sum reduce_window_sum psum max select_n sqrt dot_general "
    "conv_general_dilated".split()
)
_JAX_RECTIFIERS = ("relu", "relu6")

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


def purpose(node: Node, operand: int, flow: Flow) -> Literal["rectifier", "guard", "ambiguous"]:
    """What the lower bound that the node puts on `operand` is for."""
    if any(call.by_jax and call.name in _JAX_RECTIFIERS for call in node.calls):
        return "rectifier"
    if not _is_under_root(node.outputs[0], flow):
        return "rectifier"
    return "guard" if _is_of_squares(node.inputs[operand]) else "ambiguous"


def uniform(value: Value) -> float | None:
    """The number that the program itself puts into every place of an array; None where it does not."""
    if value.constant is not None:
        return _uniform_constant(value.constant)
    if value.maker is not None and value.maker.name in SHAPES | _CAST:
        return uniform(value.maker.inputs[0])
    return None


def is_beside_rectifier(node: Node, operand: int, flow: Flow) -> bool:
    """The node bounds a rectifier's result, or nothing but rectifiers read the bounded value."""
    below = _origin(node.inputs[operand]).maker
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
    return kept if _origin(node.inputs[kept]) is x and uniform(node.inputs[other]) == 0 else None


def _rectified_by_mul(node: Node) -> int | None:
    for operand in (0, 1):
        if _side(node.inputs[1 - operand]) == (_origin(node.inputs[operand]), True):
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


def _side(mask: Value) -> tuple[Value, bool] | None:
    """(x, True) for a mask that holds, or is 1, where x > 0, (x, False) where it is not; None for any other."""
    node = mask.maker
    if node is None:
        return None
    if node.name in _CAST:
        return _side(node.inputs[0]) if _keeps_shape(node) else None
    if node.name == "not":
        return _flipped(_side(node.inputs[0]))
    if node.name == "select_n":
        cases, side = [uniform(value) for value in node.inputs[1:]], _side(node.inputs[0])
        return side if cases == [0, 1] else _flipped(side) if cases == [1, 0] else None
    zeros = [uniform(value) == 0 for value in node.inputs]
    positive = _SIDES.get((node.name, zeros.index(True))) if sum(zeros) == 1 else None
    return None if positive is None else (_origin(node.inputs[zeros.index(False)]), positive)


def _flipped(side: tuple[Value, bool] | None) -> tuple[Value, bool] | None:
    return None if side is None else (side[0], not side[1])


def _origin(value: Value) -> Value:
    """The value of which this one is a copy, perhaps in another floating type."""
    while (node := value.maker) is not None and node.name in _CAST and _keeps_shape(node):
        if not is_inexact(node.inputs[0]):
            break
        value = node.inputs[0]
    return value


def _keeps_shape(node: Node) -> bool:
    return node.inputs[0].aval.shape == node.outputs[0].aval.shape


def _is_under_root(value: Value, flow: Flow) -> bool:
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


def _is_of_squares(value: Value) -> bool:
    def down(value: Value) -> list[Value]:
        return value.maker.inputs if value.maker is not None and value.maker.name in _SUMS else []

    return any(v.maker is not None and _is_square(v.maker) for v in reached([value], down))


def _is_square(node: Node) -> bool:
    if node.name == "mul":
        return _origin(node.inputs[0]) is _origin(node.inputs[1])
    return node.name == "square" or (node.name == "integer_pow" and node.params["y"] == 2)


def _uniform_constant(constant: object) -> float | None:
    real = any(jnp.issubdtype(jnp.result_type(constant), kind) for kind in (np.floating, np.integer))
    if isinstance(constant, jax.core.Tracer) or not real:
        return None
    numbers = np.asarray(constant)
    return float(numbers.flat[0]) if numbers.size and bool((numbers == numbers.flat[0]).all()) else None
