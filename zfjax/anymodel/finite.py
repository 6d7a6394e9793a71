"""Where the way back would make NaN of numbers that are none, it passes nothing.

The root in h / max(norm(h), 1e-6) has an infinite derivative at 0, by which JAX multiplies the 0 that the guard lets
through. Rules that pass only what a rectifier passed on the way up hide the NaN of this; the deconvnet does not. So an
operation whose derivative is not finite everywhere passes nothing where nothing comes in, and where numbers come in
but none would come out: the subgradient of a norm at 0 is 0. Everywhere else it keeps its own derivative. A function
with a derivative of its own, and one of whole matrices, passes nothing where it would pass NaN. Where the result going
up is no number, what comes down is none either, and nothing is hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from zfjax.anymodel.compositions import is_shifted
from zfjax.anymodel.constants import constant_of, lower_bound, uniform
from zfjax.anymodel.graph import Flow, Graph, Node, Place, Value, flow_of, graph_of, is_inexact
from zfjax.anymodel.interpreter import Finite, Guard
from zfjax.anymodel.rectifiers import SHAPES, is_square, origin
from zfjax.anymodel.verdicts import ACTIVATIONS, JAX_RECTIFIERS, is_activation
from zfjax.ops import KEPT, SKIPPED

# Operations on single elements, the derivative of which is not finite everywhere: at zero, of the input that is
# numbered here, and elsewhere.
_AT_ZERO = {"sqrt": 0, "rsqrt": 0, "cbrt": 0, "log": 0, "pow": 0, "div": 1}
_ELSEWHERE = frozenset(
    "log1p atan2 asin acos atanh acosh exp exp2 expm1 sinh cosh tan lgamma digamma polygamma erf_inv igamma igammac "
    "regularized_incomplete_beta bessel_i0e bessel_i1e zeta".split()
)
_UNBOUNDED = frozenset(_AT_ZERO) | _ELSEWHERE | {"integer_pow"}
_MAKES_INFINITE = _UNBOUNDED - {"sqrt", "cbrt", "asin", "acos", "atan2"}


# Derivatives of whole arrays that are not finite everywhere.
_OF_ARRAYS = frozenset(
    "cholesky eigh eig svd qr lu triangular_solve custom_linear_solve reduce_prod cumprod cumlogsumexp log_softmax "
    "logmeanexp".split()
)


def poles_of(
    program: core.ClosedJaxpr, graph: Graph, *, flow: Flow, changes: Iterable[Place]
) -> dict[Place, Finite | Guard]:
    """{place: change} of the operations on the way down whose derivative is not finite everywhere.

    Args:
      program: the traced function.
      graph: of the program.
      flow: of the program, as JAX takes its derivative.
      changes: places where the rule or the identity goes down: what holds one has no derivative of its own any more.
    """
    inlined = {place[:length] for place in changes for length in range(1, len(place) + 1)}
    custom = {node.place: node for node in graph.custom}
    marked = [node.params["places"] for node in graph.nodes if node.name in (KEPT, SKIPPED)]
    skipped = {place for places in marked if not inlined.isdisjoint(places) for place in places}
    if any(inlined.isdisjoint(places) for places in marked):  # look into what is kept
        graph = graph_of(program, opaque=is_activation, marks=False)
        flow = flow_of(graph)
        custom |= {node.place: node for node in graph.custom}
    own = {place: node for place, node in custom.items() if place not in inlined}
    leaving = skipped | set(changes)
    poles: dict[Place, Finite | Guard] = {}
    for node in graph.nodes:
        around = [node.place[:length] for length in range(1, len(node.place) + 1)]
        if flow.passes(node) and own.keys().isdisjoint(around) and leaving.isdisjoint(around):
            if _has_pole(node, flow):
                poles[node.place] = Finite()
            elif node.name in _OF_ARRAYS:
                poles[node.place] = Guard()
    for place, node in own.items():  # what states its own derivative may state any
        around = [place[:length] for length in range(1, len(place) + 1)]
        is_safe = node.calls[-1].by_jax and node.calls[-1].name in _SAFE
        if flow.passes(node) and not is_safe and own.keys().isdisjoint(around[:-1]) and leaving.isdisjoint(around):
            poles[place] = Guard()
    return poles


_SAFE = ACTIVATIONS | {*JAX_RECTIFIERS, "softmax"}


def _has_pole(node: Node, flow: Flow) -> bool:
    if node.name == "integer_pow":
        return node.params["y"] < 0 and _is_near_zero(node.inputs[0])
    if node.name in _AT_ZERO:
        return _is_near_zero(node.inputs[_AT_ZERO[node.name]])
    if node.name == "mul":
        return any(_may_be_infinite(value, flow) for value in node.inputs)
    return node.name in _ELSEWHERE and not is_shifted(node)


def _is_near_zero(value: Value) -> bool:
    """So near that a derivative by it may be too large for its type, which for float16 begins early."""
    largest = jnp.finfo(value.aval.dtype).max  # type: ignore[no-untyped-call]
    is_tiny: bool = smallest(value) < float(largest) ** -0.5
    return is_tiny


def _may_be_infinite(value: Value, flow: Flow) -> bool:
    maker = origin(value)[0].maker
    if value in flow.varying:
        return maker is not None and maker.name in _MAKES_INFINITE and _has_pole(maker, flow)
    numbers = constant_of(value)
    return numbers is not None and is_inexact(value) and not np.all(np.isfinite(numbers))


def smallest(value: Value, depth: int = 24) -> float:
    """A number that no element of a value lies below, as far as the arithmetic that makes it tells."""
    node = value.maker
    if value.known or node is None or depth == 0:  # an argument may be anything
        number = lower_bound(value)
        return -math.inf if number is None or math.isnan(number) else number
    if node.name in _NOT_NEGATIVE or is_square(node) or value.aval.dtype == bool:
        return 0.0
    if node.name not in _SMALLEST:
        return -math.inf
    least = _SMALLEST[node.name](node, lambda value: smallest(value, depth - 1))
    return -math.inf if math.isnan(least) else least


def _of_all(node: Node, of: _Of) -> float:
    return min(map(of, node.inputs))


def _of_sum(node: Node, of: _Of) -> float:
    if is_shifted(node.inputs[0].maker):
        return 1.0  # the largest of what softmax adds
    return 0.0 if of(node.inputs[0]) >= 0 else -math.inf


def _of_product(node: Node, of: _Of) -> float:
    ends = [of(value) for value in node.inputs]
    return (ends[0] * ends[1] if node.name == "mul" else 0.0) if min(ends) >= 0 else -math.inf


def _of_quotient(node: Node, of: _Of) -> float:
    divisor = uniform(node.inputs[1])
    if divisor is not None and divisor > 0:
        return of(node.inputs[0]) / divisor
    return 0.0 if min(map(of, node.inputs)) >= 0 else -math.inf


def _of_choice(node: Node, of: _Of) -> float:
    which = constant_of(node.inputs[0])
    cases = node.inputs[1:] if which is None else [node.inputs[1 + int(k)] for k in np.unique(which)]
    return min(map(of, cases))


def _of_difference(node: Node, of: _Of) -> float:
    taken = uniform(node.inputs[1])
    return -math.inf if taken is None else of(node.inputs[0]) - taken


def _of_root(node: Node, of: _Of) -> float:
    return math.sqrt(max(of(node.inputs[0]), 0.0))


def _of_power(node: Node, of: _Of) -> float:
    if node.name == "integer_pow":
        return 0.0 if node.params["y"] % 2 == 0 or of(node.inputs[0]) >= 0 else -math.inf
    return 0.0 if of(node.inputs[0]) >= 0 else -math.inf


_Of = Callable[[Value], float]
_NOT_NEGATIVE = ("abs", "exp", "exp2", "logistic", "square", "rsqrt")
_SMALLEST: dict[str, Callable[[Node, _Of], float]] = {
    **dict.fromkeys(
        SHAPES
        | {"convert_element_type", "reduce_precision", "concatenate", "pad", "stack", "scan_stack", "stop_gradient"}
        | {
            "reduce_max",
            "reduce_min",
            "reduce_window_max",
            "gather",
            "optimization_barrier",
            "psum_invariant",
            "pvary",
        },
        _of_all,
    ),
    **dict.fromkeys(("add", "add_any"), lambda node, of: sum(map(of, node.inputs))),
    **dict.fromkeys(("reduce_sum", "reduce_window_sum", "psum", "cumsum"), _of_sum),
    **dict.fromkeys(("integer_pow", "pow"), _of_power),
    "max": lambda node, of: max(map(of, node.inputs)),
    "min": _of_all,
    "clamp": lambda node, of: of(node.inputs[0]),
    "select_n": _of_choice,
    "sub": _of_difference,
    "mul": _of_product,
    "dot_general": _of_product,
    "conv_general_dilated": _of_product,
    "div": _of_quotient,
    "sqrt": _of_root,
}
