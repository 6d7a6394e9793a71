"""Rectifiers written out: x - min(x, 0), -min(-x, 0), (x + |x|) / 2, x * heaviside(x), a case of x or zero.

A stretch of a program that makes each number of one other number, with nothing but numbers beside it, is a function of
one variable: it is worked out at many numbers, from small to large, on both sides of zero and of all that it is
compared with. Where it is c * max(x, 0) or c * max(-x, 0) with c above zero it is a rectifier as a whole, also with an
upper bound, as (|x| - |x - 1| + 1) / 2 has; where it is a straight line, as `nan_to_num` is, it keeps its derivative.
Anything else is for the verdict on its single operations.

Values may be joined along an axis of their own on the way, if it goes again: max(stack([x, 0])), its sort, jnp.select,
jnp.piecewise. A vmapped `lax.cond` chooses, for each branch, between a value and the same under `stop_gradient`: that
is the value. Any other `stop_gradient` ends a stretch, for its derivative is none of the function's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from zfjax.anymodel.constants import ELEMENTWISE, constant_of, uniform
from zfjax.anymodel.graph import Flow, Graph, Node, Value, call_of, is_inexact
from zfjax.anymodel.rectifiers import rectified_operand

_LONGEST = 64  # operations of such a stretch
_COPIES = frozenset("copy copy_p name broadcast_in_dim reshape convert_element_type reduce_precision pvary".split())
_BENT = frozenset("max min abs sign clamp select_n leaky_relu elu reduce_max reduce_min argmax argmin".split())
_BENT |= {"sort", "cummax", "cummin", "top_k"}
_ROOTS = frozenset(("sqrt", "pow"))  # bent too, but nothing ends there
_COMPARED = frozenset("gt ge lt le eq ne is_finite signbit".split())

_ARITHMETIC = "add add_any sub mul neg max min abs sign gt ge lt le eq ne is_finite clamp select_n sqrt square"
_OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: ELEMENTWISE[name] for name in _ARITHMETIC.split()},
    "div": np.divide,
    "pow": np.power,
    "and": np.logical_and,  # of numbers too, as truth values are here
    "or": np.logical_or,
    "not": np.logical_not,
    "signbit": np.signbit,
    "leaky_relu": lambda x, slope=np.nan: np.where(x >= 0, x, slope * x),  # JAX's own, where they read it
    "elu": lambda x, scale=np.nan: np.where(x > 0, x, scale * np.expm1(np.minimum(x, 0))),
}
_ACROSS: dict[str, Callable[..., Any]] = {  # of values that are joined along an axis
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_sum": np.sum,
    "reduce_and": np.all,
    "reduce_or": np.any,
    "argmax": np.argmax,
    "argmin": np.argmin,
}
_ALONG: dict[str, tuple[str, Callable[..., Any]]] = {  # (parameter that names the axis, of values that stay joined)
    "sort": ("dimension", np.sort),
    "cumsum": ("axis", np.cumsum),
    "cummax": ("axis", np.maximum.accumulate),
    "cummin": ("axis", np.minimum.accumulate),
}
_JOINS = {"stack": "axis", "concatenate": "dimension"}
_FOLLOWED = frozenset({*_OPERATIONS, *_COPIES, *_ACROSS, *_ALONG, "integer_pow", "squeeze", "slice", "top_k"})


_Shape = tuple[float, float, float]  # scale, sign, ceiling


class Written(NamedTuple):
    """A stretch of a program: scale * min(max(sign * base, 0), ceiling), or a straight line where `sign` is 0."""

    base: Value
    scale: float
    sign: float
    ceiling: float
    nodes: frozenset[Node]


def written_out(graph: Graph, flow: Flow) -> dict[Node, Written]:
    """{last operation: the stretch that ends there}"""
    order = {node: number for number, node in enumerate(graph.nodes)}
    bent: set[Value] = set()  # made with a bend, which is not accounted for
    ruled: set[Value] = set()  # of those, what is but a rectifier's result times a number, or bounded above
    rectified: set[Value] = set()  # of those, the very result, never below zero
    stretches = {}
    for node in graph.nodes:
        varying = [value for value in node.inputs if value in flow.varying]
        if not varying or node.name not in _FOLLOWED:
            continue
        is_rectifier = node.name in ("max", "select_n", "mul", "clamp") and rectified_operand(node) is not None
        if not (is_rectifier or node.name in _BENT | _ROOTS | _COMPARED or bent.intersection(varying)):
            continue
        bent.update(node.outputs)
        if is_rectifier or (len(varying) == 1 and varying[0] in ruled and node.name not in _BENT - {"min"}):
            ruled.update(node.outputs)
            rectified.update(node.outputs if is_rectifier or varying[0] in rectified and node.name in _COPIES else ())
        elif flow.passes(node) and node.name in _FOLLOWED - _COPIES - _ROOTS:
            stretch = _stretch(node, order, flow=flow, rectified=rectified)
            if stretch is not None:
                stretches[node] = stretch
                bent.difference_update(node.outputs)
                rectified.update(node.outputs if stretch.sign else ())
    return stretches


def within(stretches: dict[Node, Written]) -> set[Node]:
    """The operations that nothing but such a stretch reads."""
    inside: set[Node] = set()
    for last, stretch in stretches.items():
        own = {last}
        changed = True
        while changed:
            ready = [n for n in stretch.nodes - own if all(u in own for v in n.outputs for u in v.users)]
            own.update(ready)
            changed = bool(ready)
        inside |= own - {last}
    return inside


def _stretch(last: Node, order: dict[Node, int], *, flow: Flow, rectified: set[Value]) -> Written | None:
    shape = last.outputs[0].aval.shape
    nodes: dict[Node, None] = {last: None}
    frontier: dict[Value, None] = {}
    joined: dict[Value, int | None] = {last.outputs[0]: None}  # the axis along which values are joined

    def add(node: Node) -> bool:
        case = only_case(node)
        if case is not None:
            nodes.update(dict.fromkeys(v.maker for v in node.inputs[1:] if v is not case and v.maker is not None))
        operands = _operands(node, joined[node.outputs[0]]) if case is None else [(case, joined[node.outputs[0]])]
        for value, axis in operands or ():
            if value in flow.varying:
                frontier[value] = None
                own = value.aval.shape
                if joined.setdefault(value, axis) != axis or (own if axis is None else _without(own, axis)) != shape:
                    return False
            elif _number(value) is None:
                return False
        return operands is not None

    if not add(last):
        return None
    while frontier and len(nodes) <= _LONGEST:
        is_bent = any(node.name in _BENT | _ROOTS | _COMPARED for node in nodes)
        if is_bent and len(frontier) == 1 and is_inexact(base := next(iter(frontier))) and base in flow.carrying:
            shape_of = _shape_of(last, base, nodes, rectified=base in rectified) if joined[base] is None else None
            if shape_of is not None:
                return Written(base, *shape_of, frozenset(nodes))
        latest = max(frontier, key=lambda v: order.get(v.maker, -1) if v.maker is not None else -1)
        maker = latest.maker
        if maker is None or maker in nodes or latest is not maker.outputs[0]:
            return None
        del frontier[latest]
        nodes[maker] = None
        if not add(maker):
            return None
    return None


def only_case(node: Node) -> Value | None:
    """The value that a selection hands on, whichever case it takes: some of them are fixed by `stop_gradient`."""
    if node.name != "select_n":
        return None
    free = [v for v in node.inputs[1:] if v.maker is None or v.maker.name != "stop_gradient"]
    values = {v.maker.inputs[0] if v not in free and v.maker is not None else v for v in node.inputs[1:]}
    return free[0] if free and len(values) == 1 else None


def _operands(node: Node, axis: int | None) -> list[tuple[Value, int | None]] | None:
    """(what a node reads, the axis along which that is joined); None where it is no function of each number alone."""
    if not node.inputs:
        return None
    shape, first = node.outputs[0].aval.shape, node.inputs[0]
    if node.name in _ACROSS:
        axes = node.params["axes"]
        return [(first, axes[0])] if axis is None and len(axes) == 1 else None
    if axis is not None and node.params.get(_JOINS.get(node.name, "")) == axis:
        return [(value, None if node.name == "stack" else axis) for value in node.inputs]
    if node.name in _ALONG:
        return [(first, axis)] if node.params[_ALONG[node.name][0]] == axis and len(node.inputs) == 1 else None
    if node.name == "top_k":
        return [(first, axis)] if axis == len(shape) - 1 else None
    if node.name == "slice":
        cut = [k for k, (own, size) in enumerate(zip(first.aval.shape, shape, strict=True)) if own != size]
        return [(first, axis)] if cut in ([], [axis]) else None
    if node.name == "squeeze" and axis is None and len(node.params["dimensions"]) == 1:
        return [(first, node.params["dimensions"][0])]
    if axis is not None and _is_alone_along(axis, node):
        return [(first, None)]
    if node.name in ("leaky_relu", "elu") and not call_of(node.eqns[0]).by_jax:
        return None
    if node.name in _OPERATIONS or node.name == "integer_pow":
        return [(value, axis) for value in node.inputs]
    return [(first, axis)] if node.name in _COPIES and first.aval.shape == shape else None


def _is_alone_along(axis: int, node: Node) -> bool:
    """The node gives a value an axis of one element."""
    shape, below = node.outputs[0].aval.shape, node.inputs[0].aval.shape
    if node.name not in ("broadcast_in_dim", "reshape", "expand_dims") or shape[axis] != 1:
        return False
    return bool(below == _without(shape, axis))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _number(value: Value) -> float | None:
    """As `uniform`, of truth values too."""
    if value.aval.dtype != bool:
        return uniform(value)
    truths = constant_of(value)
    return float(truths.flat[0]) if truths is not None and truths.size and (truths == truths.flat[0]).all() else None


def _shape_of(last: Node, base: Value, nodes: dict[Node, None], *, rectified: bool) -> _Shape | None:
    """The shape of what the nodes make of base; None where it is neither a rectifier nor a straight line.

    Of what is `rectified` already, and never below zero, a straight line alone: |max(x, 0)| is no rectifier more.
    """
    numbers = [_number(v) for node in nodes for v in node.inputs]
    marks = np.array([abs(n) for n in numbers if n is not None and 0 < abs(n) < 1e30] + [1.0])
    size = np.unique(np.concatenate([np.logspace(-6, 6, 49), *(marks * f for f in (0.5, 0.99, 1.0, 1.01, 2.0))]))
    x = np.concatenate([[] if rectified else -size[::-1], [0.0], size])
    values: dict[Value, Any] = {base: x}
    with np.errstate(all="ignore"):
        y = _evaluated(last.outputs[0], values)
    y = np.broadcast_to(np.asarray(y, np.float64), x.shape)
    if not np.isfinite(y).all():
        return None
    for sign, side in () if rectified else ((1.0, slice(len(size) + 1, None)), (-1.0, slice(len(size) - 1, None, -1))):
        scale, top = float(y[side][0] / size[0]), float(y[side][-1])
        ceiling = top / scale if scale > 0 else math.inf
        ceiling = math.inf if ceiling >= 0.5 * size[-1] else ceiling
        if scale > 0 and ceiling > size[2] and _is_near(y, scale * np.clip(sign * x, 0, ceiling), x):
            return scale, sign, ceiling
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    offset = y[-1 - len(size)]
    if slope and _is_near(y, slope * x + offset, slope * x):
        return slope, 0.0, math.inf
    return None


def _is_near(y: np.ndarray, expected: np.ndarray, x: np.ndarray) -> bool:
    return bool((np.abs(y - expected) <= 1e-6 * np.abs(x)).all())


def _evaluated(value: Value, values: dict[Value, Any]) -> Any:
    """[N], or [n, N] for values that are joined along an axis; a number where it is one everywhere."""
    if value not in values:
        number, node = _number(value), value.maker
        case = None if node is None else only_case(node)
        if number is not None or node is None:
            values[value] = number
        elif case is not None:
            values[value] = _evaluated(case, values)
        else:
            values[value] = _applied(node, [_evaluated(v, values) for v in node.inputs])
    return values[value]


def _rows(node: Node) -> slice:
    """What a slice takes along the axis that values are joined along."""
    ends, sizes = node.outputs[0].aval.shape, node.inputs[0].aval.shape
    axis = next((k for k, (end, size) in enumerate(zip(ends, sizes, strict=True)) if end != size), None)
    if axis is None:
        return slice(None)
    steps = node.params["strides"]
    return slice(node.params["start_indices"][axis], node.params["limit_indices"][axis], steps[axis] if steps else 1)


def _applied(node: Node, operands: list[Any]) -> Any:
    if node.name in _ACROSS:
        return _ACROSS[node.name](operands[0], axis=0)
    if node.name in _JOINS:
        axis, size = (
            node.params[_JOINS[node.name]],
            max(np.shape(operand)[-1] for operand in operands if np.ndim(operand)),
        )
        rows = [1 if node.name == "stack" else value.aval.shape[axis] for value in node.inputs]
        return np.concatenate([np.broadcast_to(x, (n, size)) for x, n in zip(operands, rows, strict=True)])
    if node.name in _ALONG:
        step = -1 if node.params.get("reverse") else 1
        return _ALONG[node.name][1](operands[0][::step], axis=0)[::step]
    if node.name == "top_k":
        return np.sort(operands[0], axis=0)[::-1][: node.params["k"]]
    if node.name == "squeeze":
        return operands[0][0]
    if node.name == "slice":
        return operands[0][_rows(node)]
    if node.name == "integer_pow":
        return np.power(operands[0], float(node.params["y"]))
    if node.name in _OPERATIONS:
        return _OPERATIONS[node.name](*operands)
    copy = operands[0] if is_inexact(node.outputs[0]) else np.asarray(operands[0]).astype(node.outputs[0].aval.dtype)
    is_row = len(node.outputs[0].aval.shape) > len(node.inputs[0].aval.shape)
    return copy[None] if is_row else copy
