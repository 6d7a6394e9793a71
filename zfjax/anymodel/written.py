"""Rectifiers written out by arithmetic: x - min(x, 0), -min(-x, 0), (x + |x|) / 2, x * heaviside(x).

A stretch of a program that makes each number of one other number, with nothing but numbers beside it, is a function of
one variable: it is worked out at many numbers, from small to large, on both sides of zero and of all that it is
compared with. Where it is c * max(x, 0) or c * max(-x, 0) with c above zero it is a rectifier as a whole; where it is
a straight line, as `nan_to_num` is, it keeps its derivative. Anything else is for the verdict on its single operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from zfjax.anymodel.constants import ELEMENTWISE, constant_of, uniform
from zfjax.anymodel.graph import Flow, Graph, Node, Value, is_inexact
from zfjax.anymodel.rectifiers import rectified_operand

_LONGEST = 24  # operations of such a stretch
_COPIES = frozenset("copy copy_p name broadcast_in_dim reshape convert_element_type reduce_precision pvary".split())
_BENT = frozenset("max min abs sign clamp select_n".split())
_COMPARED = frozenset("gt ge lt le eq ne is_finite".split())

_ARITHMETIC = "add add_any sub mul neg max min abs sign gt ge lt le eq ne is_finite clamp select_n"
_OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: ELEMENTWISE[name] for name in _ARITHMETIC.split()},
    "div": np.divide,
    "and": np.logical_and,  # of numbers too, as truth values are here
    "or": np.logical_or,
    "not": np.logical_not,
}


class Written(NamedTuple):
    """A stretch of a program: scale * max(sign * base, 0), or a straight line where `sign` is 0."""

    base: Value
    scale: float
    sign: float
    nodes: frozenset[Node]


def written_out(graph: Graph, flow: Flow) -> dict[Node, Written]:
    """{last operation: the stretch that ends there}"""
    order = {node: number for number, node in enumerate(graph.nodes)}
    bent: set[Value] = set()  # made with a bend, which is not accounted for
    ruled: set[Value] = set()  # of those, what is but a rectifier's result times a number
    stretches = {}
    for node in graph.nodes:
        varying = [value for value in node.inputs if value in flow.varying]
        if not varying or (node.name not in _OPERATIONS and node.name not in _COPIES):
            continue
        is_rectifier = node.name in ("max", "select_n", "mul", "clamp") and rectified_operand(node) is not None
        if not (is_rectifier or node.name in _BENT | _COMPARED or bent.intersection(varying)):
            continue
        bent.update(node.outputs)
        if is_rectifier or (len(varying) == 1 and varying[0] in ruled and node.name not in _BENT):
            ruled.update(node.outputs)
        elif flow.passes(node) and node.name in _OPERATIONS:
            stretch = _stretch(node, order, flow)
            if stretch is not None:
                stretches[node] = stretch
                bent.difference_update(node.outputs)
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


def _stretch(last: Node, order: dict[Node, int], flow: Flow) -> Written | None:
    shape = last.outputs[0].aval.shape
    nodes: dict[Node, None] = {last: None}
    frontier: dict[Value, None] = {}

    def add(node: Node) -> bool:
        for value in node.inputs:
            if value in flow.varying:
                frontier[value] = None
                if value.aval.shape != shape:
                    return False
            elif _number(value) is None:
                return False
        return True

    if not add(last):
        return None
    while frontier and len(nodes) <= _LONGEST:
        is_bent = any(node.name in _BENT | _COMPARED for node in nodes)
        if is_bent and len(frontier) == 1 and is_inexact(base := next(iter(frontier))) and base in flow.carrying:
            shape_of = _shape_of(last, base, nodes)
            if shape_of is not None:
                return Written(base, *shape_of, frozenset(nodes))
        latest = max(frontier, key=lambda v: order.get(v.maker, -1) if v.maker is not None else -1)
        maker = latest.maker
        if maker is None or (maker.name not in _OPERATIONS and maker.name not in _COPIES) or maker in nodes:
            return None
        del frontier[latest]
        nodes[maker] = None
        if not add(maker):
            return None
    return None


def _number(value: Value) -> float | None:
    """As `uniform`, of truth values too."""
    if value.aval.dtype != bool:
        return uniform(value)
    truths = constant_of(value)
    return float(truths.flat[0]) if truths is not None and truths.size and (truths == truths.flat[0]).all() else None


def _shape_of(last: Node, base: Value, nodes: dict[Node, None]) -> tuple[float, float] | None:
    """(scale, sign) of what the nodes make of base; None where it is neither a rectifier nor a straight line."""
    numbers = [_number(v) for node in nodes for v in node.inputs]
    marks = np.array([abs(n) for n in numbers if n is not None and 0 < abs(n) < 1e30] + [1.0])
    size = np.unique(np.concatenate([np.logspace(-6, 6, 49), *(marks * f for f in (0.5, 0.99, 1.0, 1.01, 2.0))]))
    x = np.concatenate([-size[::-1], [0.0], size])
    values: dict[Value, Any] = {base: x}
    with np.errstate(all="ignore"):
        y = _evaluated(last.outputs[0], values)
    y = np.broadcast_to(np.asarray(y, np.float64), x.shape)
    if not np.isfinite(y).all():
        return None
    scale = float(max(y[-1], y[0], key=abs) / x[-1])
    for sign in (1.0, -1.0):
        if scale > 0 and _is_near(y, scale * np.maximum(sign * x, 0), x):
            return scale, sign
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    offset = y[len(size)]
    if slope and _is_near(y, slope * x + offset, slope * x):
        return slope, 0.0
    return None


def _is_near(y: np.ndarray, expected: np.ndarray, x: np.ndarray) -> bool:
    return bool((np.abs(y - expected) <= 1e-6 * np.abs(x)).all())


def _evaluated(value: Value, values: dict[Value, Any]) -> Any:
    if value not in values:
        number = _number(value)
        node = value.maker
        if number is not None or node is None:
            values[value] = number
        else:
            operands = [_evaluated(v, values) for v in node.inputs]
            values[value] = _OPERATIONS[node.name](*operands) if node.name in _OPERATIONS else _copied(node, operands)
    return values[value]


def _copied(node: Node, operands: list[Any]) -> Any:
    kind = node.outputs[0].aval.dtype
    return operands[0] if is_inexact(node.outputs[0]) else np.asarray(operands[0]).astype(kind)
