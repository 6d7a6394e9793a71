"""What the backward pass does at each operation of a program: one table, so that nothing is missed.

An operation is looked at where a gradient passes through it on its way from the function's floating results to its
floating arguments. Every primitive that the table does not name is unclassified.

    operation                                                  verdict
    LINEAR; a product, quotient, selection or read of which    not listed
      only one part depends on the input
    a rectifier, as `relu_patterns` recognises it              rectifier: the rule
    a lower bound that guards the variance of a norm           own gradient
    a lower bound that may be either                           unclassified
    min(x, c), c > 0, next to a rectifier: relu6, clip         own gradient: what is clipped passes nothing
    POWERS, products and quotients of parts that depend on     own gradient
      the input, as in norms
    SELECTIONS (max-pooling) and READS at places that the      own gradient
      input chooses
    a mask of the input in a product (no rectifier) or a sum   unclassified
    a region marked as skipped                                 skipped: the identity
    a region marked as kept; stop_gradient                     own gradient
    anything else: exp, tanh, abs, while, jax.nn.silu, ...     unclassified

Paper is silent: its rectifiers have no upper bound. That of relu6 and clip is an operation of its own here, which keeps
its gradient under every rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from zfjax.jaxpr_flow import Flow, is_inexact
from zfjax.jaxpr_graph import KEPT, SKIPPED, Node, Place
from zfjax.jaxpr_walk import Rectify, Skip, Step
from zfjax.relu_patterns import SHAPES, is_beside_rectifier, purpose, rectified_operand, uniform

RuleName = Literal["rectifier", "own gradient", "skipped", "inlined", "unclassified"]

LINEAR = SHAPES | frozenset(
    "add add_any sub neg convert_element_type reduce_precision real imag complex conj concatenate pad split stack "
    "carry reduce_sum cumsum reduce_window_sum fft device_put optimization_barrier sharding_constraint reshard "
    "layout_constraint psum psum_invariant all_gather all_to_all ppermute reduce_scatter pvary".split()
)
PRODUCTS = ("mul", "dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general")
POWERS = ("square", "integer_pow", "pow", "sqrt", "rsqrt")
SELECTIONS = ("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin", "sort", "top_k")
READS = ("gather", "dynamic_slice", "dynamic_update_slice", "scatter", "scatter-add")

# JAX's own activations that are no rectifiers: one operation each, under the name that a person knows.
ACTIVATIONS = frozenset(
    "celu elu gelu glu hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid log_softmax logmeanexp mish selu "
    "sigmoid silu _softmax soft_sign softplus sparse_plus sparse_sigmoid squareplus".split()
)


class Verdict(NamedTuple):
    """What the backward pass does at one operation, and why."""

    rule: RuleName
    reason: str
    place: Place = ()
    step: Step | None = None  # what is to be changed at that place


def classify(node: Node, flow: Flow) -> Verdict | None:
    """The verdict on a node that a gradient passes through; None where it is linear in the input."""
    return _TABLE.get(node.name, _unknown)(node, flow)


def _own(reason: str) -> Verdict:
    return Verdict("own gradient", reason)


def _unclassified(reason: str) -> Verdict:
    return Verdict("unclassified", reason)


_SMOOTH = _own("smooth arithmetic, as norms are made of")
_SELECTED = _own("selection: goes back to where the value was read")
_PURPOSES = {
    "guard": _own("lower bound of a norm's variance"),
    "ambiguous": _unclassified("ambiguous: a rectifier, or a guard before a root or division"),
}


def _linear(node: Node, flow: Flow) -> Verdict | None:
    return _unclassified("joined with a step function of the input") if _has_step(node, flow) else None


def _has_step(node: Node, flow: Flow) -> bool:
    return any(flow.is_mask(value) and is_inexact(value) for value in node.inputs)


def _unknown(node: Node, flow: Flow) -> Verdict | None:
    return _unclassified("no rule is known for it")


def _rectifier(node: Node, flow: Flow) -> Verdict | None:
    operand = rectified_operand(node)
    if operand is None:
        return None
    found = purpose(node, operand, flow)
    if found != "rectifier":
        return _PURPOSES[found]
    ceiling = uniform(node.inputs[2]) if node.name == "clamp" else None
    reason = "lower bound at zero" if ceiling is None else f"lower bound at zero; above {ceiling:g} nothing passes"
    return Verdict("rectifier", reason, node.place, Rectify(operand, math.inf if ceiling is None else ceiling))


def _selection(node: Node, flow: Flow) -> Verdict | None:
    return _SELECTED


def _read(node: Node, flow: Flow) -> Verdict | None:
    chosen = any(flow.is_mask(value) and not is_inexact(value) for value in node.inputs)
    return _SELECTED if chosen else _linear(node, flow)


def _power(node: Node, flow: Flow) -> Verdict | None:
    if any(value in flow.varying for value in node.inputs[1:]):
        return _unclassified("its exponent depends on the input")
    return _SMOOTH


def _product(node: Node, flow: Flow) -> Verdict | None:
    if _has_step(node, flow):
        return _rectifier(node, flow) or _unclassified("multiplied by a step function of the input")
    varying = sum(value in flow.varying for value in node.inputs)
    return _own("product of values that depend on the input") if varying > 1 else None


def _quotient(node: Node, flow: Flow) -> Verdict | None:
    if _has_step(node, flow):
        return _unclassified("quotient with a step function of the input")
    return _SMOOTH if node.inputs[1] in flow.varying else None


def _select(node: Node, flow: Flow) -> Verdict | None:
    if node.inputs[0] not in flow.varying:
        return _linear(node, flow)
    return _rectifier(node, flow) or _unclassified("chosen by a condition on the input")


def _branch(node: Node, flow: Flow) -> Verdict | None:
    return _unclassified("the input chooses the branch") if node.inputs[0] in flow.varying else None


def _max(node: Node, flow: Flow) -> Verdict | None:
    varying, bound = _bounded(node, flow)
    if bound == -math.inf:
        return None
    if bound is not None and bound > 0 and purpose(node, varying, flow) == "guard":
        return _PURPOSES["guard"]
    return _rectifier(node, flow) or _unclassified(_BOUNDS[bound is None])


def _min(node: Node, flow: Flow) -> Verdict | None:
    varying, bound = _bounded(node, flow)
    if bound == math.inf:
        return None
    if bound is not None and bound > 0 and is_beside_rectifier(node, varying, flow):
        return _own(f"upper bound of a rectifier: above {bound:g} nothing passes")
    return _unclassified(_BOUNDS[bound is None])


_BOUNDS = {True: "compared with what is no constant, as in a leaky rectifier", False: "a bound that is no rectifier's"}


def _bounded(node: Node, flow: Flow) -> tuple[int, float | None]:
    """(number of an input of max or min that varies, the constant that bounds it)"""
    varying = 0 if node.inputs[0] in flow.varying else 1
    return varying, uniform(node.inputs[1 - varying])


def _clamp(node: Node, flow: Flow) -> Verdict | None:
    return _rectifier(node, flow) or _unclassified(_BOUNDS[False])


def _stop(node: Node, flow: Flow) -> Verdict | None:
    return _own("nothing passes: the program says so")


def _kept(node: Node, flow: Flow) -> Verdict | None:
    return _own("marked as kept")


def _skip(node: Node, flow: Flow) -> Verdict | None:
    before = {v: atom for v, atom in zip(node.inputs, node.params["before"], strict=True) if v in flow.carrying}
    results = zip(node.outputs, node.params["after"], strict=True)
    after = {v: made for v, made in results if v in flow.carrying and v in flow.wanted}
    kinds = [[(v.aval.dtype, v.aval.shape) for v in values] for values in (before, after)]
    if len(before) != 1 or kinds[0] != kinds[1]:
        reads, gives = (", ".join(f"{dtype}{list(shape)}" for dtype, shape in kind) for kind in kinds)
        return _unclassified(
            f"marked as skipped, but makes {gives} of {reads}: one array of one of its shape is needed"
        )
    ((place, variable),) = after.values()
    (argument,) = before.values()
    return Verdict("skipped", "marked: the identity", place, Skip(argument, variable))


_TABLE: dict[str, Callable[[Node, Flow], Verdict | None]] = {
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(POWERS, _power),
    **dict.fromkeys(SELECTIONS, _selection),
    **dict.fromkeys(READS, _read),
    "div": _quotient,
    "select_n": _select,
    "cond": _branch,
    "max": _max,
    "min": _min,
    "clamp": _clamp,
    "stop_gradient": _stop,
    KEPT: _kept,
    SKIPPED: _skip,
}
