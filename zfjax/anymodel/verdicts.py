"""What the backward pass does at each operation of a program: one table, so that nothing is missed.

An operation is looked at where a gradient passes through it on its way from the function's floating results to its
floating arguments. Every primitive that the table does not name is unclassified.

    operation                                                  verdict
    LINEAR; a product, quotient, selection or read of which    not listed
      only one part depends on the input
    a rectifier, as `rectifiers` recognises it              rectifier: the rule
    a lower bound of what `norms` knows for a norm's      own gradient
      variance or length
    a lower bound that may be either                           unclassified
    min(x, c), c > 0, next to a rectifier: relu6, clip         own gradient: what is clipped passes nothing
    powers, products and quotients of parts that depend on     own gradient in a norm, or where a product's parts
      the input                                                  depend on different arguments, else unclassified
    SELECTIONS (max-pooling) and READS at places that the      own gradient, but unclassified where they may be an
      input chooses                                              activation: see `rectifiers`
    a step function of the input in a product (no rectifier),  unclassified
      in a sum, or as a result
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

from zfjax.anymodel.graph import Flow, Node, Place, is_inexact
from zfjax.anymodel.interpreter import Change, Rectify, Skip
from zfjax.anymodel.norms import POWERS, PRODUCTS, Kinds, is_guard, is_of_norm, is_of_squares
from zfjax.anymodel.rectifiers import (
    SHAPES,
    compared_axes,
    is_beside_rectifier,
    is_joined,
    is_under_root,
    rectified_operand,
    uniform,
)
from zfjax.ops import KEPT, SKIPPED

RuleName = Literal["rectifier", "own gradient", "skipped", "inlined", "unclassified"]

LINEAR = SHAPES | frozenset(
    "add add_any sub neg convert_element_type reduce_precision real imag complex conj concatenate pad split stack "
    "unstack scan_stack carry reduce_sum cumsum reduce_window_sum fft device_put optimization_barrier "
    "sharding_constraint reshard layout_constraint psum psum_invariant all_gather all_to_all ppermute "
    "reduce_scatter pvary".split()
)

SELECTIONS = ("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin", "sort", "top_k")
READS = ("gather", "dynamic_slice", "dynamic_update_slice", "scatter", "scatter-add")
_CHOICES = ("argmax", "argmin", "top_k", "sort")  # steps of the input that say where something stands
_JAX_RECTIFIERS = ("relu", "relu6")

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
    change: Change | None = None  # what is to be changed at that place


def classify(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    """The verdict on a node that a gradient passes through; None where it is linear in the input."""
    return _TABLE.get(node.name, _unknown)(node, flow, kinds)


def _own(reason: str) -> Verdict:
    return Verdict("own gradient", reason)


def _unclassified(reason: str) -> Verdict:
    return Verdict("unclassified", reason)


STEP = _unclassified("a step of the input, by which no gradient passes to the results")
_SMOOTH = _own("smooth arithmetic, as norms are made of")
_NO_NORM = _unclassified("no certain part of a norm: an activation, or a product of features")
_SELECTED = _own("selection: goes back to where the value was read")
_GUARD = _own("lower bound of a norm's variance")
_AMBIGUOUS = _unclassified("ambiguous: a rectifier, or a guard before a root or division")


def _linear(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    return _unclassified("joined with a step function of the input") if _has_step(node, flow) else None


def _has_step(node: Node, flow: Flow) -> bool:
    return any(flow.is_mask(value) and is_inexact(value) for value in node.inputs)


def _unknown(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    return _unclassified("no rule is known for it")


def _rectifier(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    operand = rectified_operand(node)
    if operand is None:
        return None
    if not any(call.by_jax and call.name in _JAX_RECTIFIERS for call in node.calls):
        if is_guard(node, operand, flow, kinds):
            return _GUARD
        if is_of_squares(node.inputs[operand], kinds) or is_under_root(node.outputs[0], flow):
            return _AMBIGUOUS
    ceiling = uniform(node.inputs[2]) if node.name == "clamp" else None
    reason = "lower bound at zero" if ceiling is None else f"lower bound at zero; above {ceiling:g} nothing passes"
    return Verdict("rectifier", reason, node.place, Rectify(operand, math.inf if ceiling is None else ceiling))


def _selection(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    compared = [value for value in node.inputs if value in flow.carrying]
    if any(is_joined(value, compared_axes(node), flow) for value in compared):
        return _unclassified("selects from a value joined to a constant, or to another function of it")
    return _SELECTED


def _read(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    steps = [step for v in node.inputs if flow.is_mask(v) and not is_inexact(v) for step in flow.steps_behind(v)]
    if _has_step(node, flow) or not steps:
        return _linear(node, flow, kinds)
    if any(step.name not in _CHOICES for step in steps):
        return _unclassified("read or written at places that a step of the input chooses")
    if node.name in ("gather", "dynamic_slice"):
        return _selection(node, flow, kinds)
    written = node.inputs[1] if node.name == "dynamic_update_slice" else node.inputs[2]
    return _SELECTED if written in flow.carrying else _unclassified("a constant is written where the input chooses")


def _power(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    if any(value in flow.varying for value in node.inputs[1:]):
        return _unclassified("its exponent depends on the input")
    return _SMOOTH if is_of_norm(node, flow, kinds) else _NO_NORM


def _product(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    if _has_step(node, flow):
        return _rectifier(node, flow, kinds) or _unclassified("multiplied by a step function of the input")
    if not all(value in flow.varying for value in node.inputs[:2]):
        return None
    if not flow.share_input(*node.inputs[:2]):
        return _own("product of values that depend on different arguments: linear in each")
    return _SMOOTH if is_of_norm(node, flow, kinds) else _NO_NORM


def _quotient(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    if _has_step(node, flow):
        return _unclassified("quotient with a step function of the input")
    if node.inputs[1] not in flow.varying:
        return None
    return _SMOOTH if is_of_norm(node, flow, kinds) else _NO_NORM


def _select(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    if node.inputs[0] not in flow.varying:
        return _linear(node, flow, kinds)
    return _rectifier(node, flow, kinds) or _unclassified("chosen by a condition on the input")


def _branch(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    chosen = node.inputs[0] in flow.varying
    return _unclassified("the input chooses the branch") if chosen else _linear(node, flow, kinds)


def _max(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    varying, bound = _bounded(node, flow)
    if bound == -math.inf:
        return None
    if bound is not None and bound > 0 and is_guard(node, varying, flow, kinds):
        return _GUARD
    return _rectifier(node, flow, kinds) or _unclassified(_BOUNDS[bound is None])


def _min(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
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


def _clamp(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    return _rectifier(node, flow, kinds) or _unclassified(_BOUNDS[False])


def _stop(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    return _own("nothing passes: the program says so")


def _kept(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    return _own("marked as kept")


def _skip(node: Node, flow: Flow, kinds: Kinds) -> Verdict | None:
    before = {v: atom for v, atom in zip(node.inputs, node.params["before"], strict=True) if v in flow.carrying}
    results = zip(node.outputs, node.params["after"], strict=True)
    after = {v: made for v, made in results if v in flow.carrying and v in flow.wanted}
    types = [[(v.aval.dtype, v.aval.shape) for v in values] for values in (before, after)]
    if len(before) != 1 or types[0] != types[1]:
        reads, gives = (", ".join(f"{dtype}{list(shape)}" for dtype, shape in some) for some in types)
        return _unclassified(
            f"marked as skipped, but makes {gives} of {reads}: one array of one of its shape is needed"
        )
    ((place, variable),) = after.values()
    (argument,) = before.values()
    return Verdict("skipped", "marked: the identity", place, Skip(argument, variable))


_TABLE: dict[str, Callable[[Node, Flow, Kinds], Verdict | None]] = {
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
