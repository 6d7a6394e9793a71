"""What the backward pass does at each operation of a program: one table, so that nothing is missed.

An operation is looked at where a gradient passes through it on its way from the function's floating results to its
floating arguments. Every primitive that the table does not name is unclassified.

    operation                                                  verdict
    LINEAR; a product, quotient, selection or read of which    not listed
      only one part depends on the input
    a rectifier, as `rectifiers` recognises it              rectifier: the rule, but unclassified where `compositions`
                                                               says that it is part of another activation
    several operations that are a rectifier together,       rectifier: the rule; a straight line keeps its derivative
      as `written` recognises them
    a bound beneath which certainly no layer stands, and    own gradient: it bounds the input, see `weights`
      above which one does
    a bound of what `norms` knows for a norm's variance,  own gradient
      length or scale; a choice by whether it is zero
    a lower bound that may be either; a clip beneath which     unclassified
      the image's few colours are mixed or filtered alone
    min(x, c), c > 0, next to a rectifier: relu6, clip         own gradient: what is clipped passes nothing
    powers, products and quotients of parts that depend on     own gradient in a norm, or where a product's parts
      the input                                                  depend on different arguments, else unclassified
    SELECTIONS (max-pooling) and READS at places that the      own gradient, but unclassified where they may be an
      input chooses                                              activation: see `joins`
    the larger of two pieces of a map, as max(h[:, :-1],       likewise
      h[:, 1:]), also by where
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

import numpy as np
from jax.extend import core

from zfjax.anymodel.compositions import is_bounded_above, is_shifted, objection_to
from zfjax.anymodel.constants import constant_of, lower_bound, simplify, uniform
from zfjax.anymodel.graph import Call, Flow, Graph, Node, Place, Value, flow_of, is_inexact
from zfjax.anymodel.interpreter import Change, Rectify, Region, Skip
from zfjax.anymodel.joins import compared_axes, has_window_within, is_joined, objection_to_pieces
from zfjax.anymodel.norms import (
    POWERS,
    PRODUCTS,
    Kinds,
    is_bounded_scale,
    is_floor_of_powers,
    is_guard,
    is_guarded_choice,
    is_larger_length,
    is_of_norm,
    is_of_squares,
    kinds_of,
)
from zfjax.anymodel.pointwise import met_rectifiers
from zfjax.anymodel.rectifiers import (
    SHAPES,
    is_above_rectifier,
    is_beside_rectifier,
    is_under_root,
    origin,
    origin_of_mask,
    rectified_operand,
)
from zfjax.anymodel.twins import Twins, twins_of
from zfjax.anymodel.weights import Layers, bounds_the_input, layers_of, may_bound_the_input
from zfjax.anymodel.written import Written, only_case, within, written_out
from zfjax.ops import KEPT, SKIPPED

RuleName = Literal["rectifier", "own gradient", "skipped", "inlined", "given rule", "unclassified"]

LINEAR = SHAPES | frozenset(
    "add add_any sub neg convert_element_type reduce_precision real imag complex conj concatenate pad split stack "
    "unstack scan_stack carry reduce_sum cumsum reduce_window_sum fft device_put optimization_barrier "
    "sharding_constraint reshard layout_constraint psum psum_invariant all_gather all_to_all ppermute "
    "reduce_scatter shard_out".split()
)

SELECTIONS = ("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin", "sort", "top_k")
READS = ("gather", "dynamic_slice", "dynamic_update_slice", "scatter", "scatter-add")
_CHOICES = ("argmax", "argmin", "top_k", "sort")  # steps of the input that say where something stands
JAX_RECTIFIERS = ("relu", "relu6")

# JAX's own activations that are no rectifiers: one operation each, under the name that a person knows.
ACTIVATIONS = frozenset(
    "celu elu gelu glu hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid log_softmax logmeanexp mish selu "
    "sigmoid silu _softmax soft_sign softplus sparse_plus sparse_sigmoid squareplus".split()
)


def is_activation(call: Call) -> bool:
    """One of JAX's own activations that are no rectifiers."""
    return call.by_jax and call.name in ACTIVATIONS


class Verdict(NamedTuple):
    """What the backward pass does at one operation, and why."""

    rule: RuleName
    reason: str
    place: Place = ()
    change: Change | None = None  # what is to be changed at that place


class Facts(NamedTuple):
    """What is known of a program as a whole."""

    flow: Flow  # what is zero times anything is a constant
    derived: Flow  # it is none, as for JAX, which takes its derivative: infinity times 0 is NaN
    kinds: Kinds
    layers: Layers
    twins: Twins
    met: set[Value]  # results of rectifiers, or of such stretches, that meet what they are made of on another way
    written: dict[Node, Written]
    within: set[Node]  # what such a stretch accounts for


def facts_of(graph: Graph) -> Facts:
    """All that the verdict on a node may depend on, beside the node."""
    derived = flow_of(graph)
    simplify(graph)
    twins = twins_of(graph)
    flow = flow_of(graph)._replace(first=twins.first)
    written = written_out(graph, flow)
    bent = {node for node, stretch in written.items() if stretch.sign}
    single = {node for node in graph.nodes if rectified_operand(node) is not None} - within(written)
    met = met_rectifiers(graph, flow, twins=twins, rectifiers=bent | single, written=written)
    refuted = [node for node, stretch in written.items() if stretch.sign and twins.of(node.outputs[0]) in met]
    parts = {part for node in refuted for part in written.pop(node).nodes}
    met |= {twins.of(value) for part in parts for value in part.outputs}
    return Facts(flow, derived, kinds_of(graph, flow), layers_of(graph, flow), twins, met, written, within(written))


def classify(node: Node, facts: Facts) -> Verdict | None:
    """The verdict on a node that a gradient passes through; None where it is linear in the input."""
    if node in facts.within:
        return None
    if node in facts.written:
        verdict = _written(node, facts.written[node], facts)
        if verdict is not None:
            return verdict
    return _TABLE.get(node.name, _unknown)(node, facts)


def _written(node: Node, written: Written, facts: Facts) -> Verdict | None:
    if not written.sign:
        alone = node.name in ("max", "min") and _TABLE[node.name](node, facts) is None  # a bound without effect
        return None if alone else _own("a straight line in its input, whatever its operations are")
    base, result, ceiling = written.base, node.outputs[0], written.ceiling
    if bounds_the_input(base, result, facts.layers):
        return _INPUT
    both = is_bounded_above(base, result, ceiling)
    if may_bound_the_input(base, result, facts.layers, from_both_sides=both):
        return _OF_COLOURS
    if is_of_squares(base, facts.kinds) or is_under_root(result, facts.flow):
        return _AMBIGUOUS
    ends = region_of(base, result)
    if ends is None:
        return None
    objection = objection_to(base, result, ceiling=ceiling, twins=facts.twins, met=facts.met)
    if objection is not None:
        return _unclassified(objection)
    place, before, after = ends
    change = Region(before, after, written.scale, written.sign, ceiling)
    return Verdict("rectifier", "lower bound at zero, written out" + _above(ceiling), place, change)


def _above(ceiling: float) -> str:
    return f"; above {ceiling:g} nothing passes" if ceiling < math.inf else ""


def region_of(before: Value, after: Value) -> tuple[Place, core.Var, core.Var] | None:
    """(place of the equation that binds `after`, both variables) in the innermost program that knows both."""
    ends = sorted(((p, v) for p, v in after.bound if p[-1] >= 0), key=lambda end: -len(end[0]))
    for place, variable in ends:
        for other, argument in before.bound:
            if other[:-1] == place[:-1]:
                return place, argument, variable
    return None


def _own(reason: str) -> Verdict:
    return Verdict("own gradient", reason)


def _unclassified(reason: str) -> Verdict:
    return Verdict("unclassified", reason)


STEP = _unclassified("a step of the input, by which no gradient passes to the results")
_SMOOTH = _own("smooth arithmetic, as norms are made of")
_NO_NORM = _unclassified("no certain part of a norm: an activation, or a product of features")
_SELECTED = _own("selection: goes back to where the value was read")
_POOLED = _own("selection among pieces of a map, or among maps: goes back to where the value was read")
_INPUT = _own(
    "bounds the input: no weights stand beneath it (scales and offsets, also for each channel or pixel, are none)"
)
_OF_COLOURS = _unclassified(
    "ambiguous: a rectifier of a few maps, or a bound of the image, of which colours are mixed or filtered beneath: "
    "say 'keep' of a bound, zfjax.as_relu of a rectifier"
)
_GUARD = _own("lower bound of a norm's variance")
_FLOOR = _own("lower bound above zero of what a pool by powers, or a norm, is made of")
_CEILING = _own("upper bound of a norm's variance, length or scale")
_AMBIGUOUS = _unclassified("ambiguous: a rectifier, or a guard before a root or division")


def _linear(node: Node, facts: Facts) -> Verdict | None:
    return _unclassified("joined with a step function of the input") if _has_step(node, facts.flow) else None


def _has_step(node: Node, flow: Flow) -> bool:
    return any(flow.is_mask(value) and is_inexact(value) for value in node.inputs)


def _unknown(node: Node, facts: Facts) -> Verdict | None:
    softmax = node.name in ("_softmax", "softmax", "log_softmax") or is_shifted(node)
    return _unclassified("no rule is known for it" + (_SOFTMAX if softmax else ""))


_SOFTMAX = ": a softmax. At a model's end start below it, from the logits: let fn return what the last activation reads"


def _rectifier(node: Node, facts: Facts) -> Verdict | None:
    operand = rectified_operand(node)
    if operand is None:
        return None
    value, result = node.inputs[operand], node.outputs[0]
    ceiling = uniform(node.inputs[2]) if node.name == "clamp" else None
    ceiling = math.inf if ceiling is None else ceiling
    beneath = not bounds_the_input(value, result, facts.layers)
    if not any(call.by_jax and call.name in JAX_RECTIFIERS for call in node.calls):
        if is_guard(node, operand, flow=facts.flow, kinds=facts.kinds):
            return _GUARD
        if beneath and (is_of_squares(value, facts.kinds) or is_under_root(result, facts.flow)):
            return _AMBIGUOUS
        both = is_bounded_above(value, result, ceiling)
        if beneath and may_bound_the_input(value, result, facts.layers, from_both_sides=both):
            return _OF_COLOURS
    if not beneath:
        return _INPUT
    objection = objection_to(value, result, ceiling=ceiling, twins=facts.twins, met=facts.met)
    if objection is not None:
        return _unclassified(objection)
    return Verdict("rectifier", "lower bound at zero" + _above(ceiling), node.place, Rectify(operand, ceiling))


def _selection(node: Node, facts: Facts) -> Verdict | None:
    compared = [value for value in node.inputs if value in facts.flow.carrying]
    if any(is_joined(value, compared_axes(node), facts.flow) for value in compared):
        if has_window_within(node, facts.flow):
            return _own("selection: goes back to where the value was read; a constant border passes nothing")
        return _unclassified("selects from a value joined to a constant, or to another function of it")
    return _SELECTED


def _read(node: Node, facts: Facts) -> Verdict | None:
    steps = [
        step for v in node.inputs if facts.flow.is_mask(v) and not is_inexact(v) for step in facts.flow.steps_behind(v)
    ]
    if _has_step(node, facts.flow) or not steps:
        return _linear(node, facts)
    if any(step.name not in _CHOICES for step in steps):
        return _unclassified("read or written at places that a step of the input chooses")
    if node.name in ("gather", "dynamic_slice"):
        return _selection(node, facts)
    written = node.inputs[1] if node.name == "dynamic_update_slice" else node.inputs[2]
    return (
        _SELECTED if written in facts.flow.carrying else _unclassified("a constant is written where the input chooses")
    )


def _power(node: Node, facts: Facts) -> Verdict | None:
    if any(value in facts.flow.varying for value in node.inputs[1:]):
        return _unclassified("its exponent depends on the input")
    return _SMOOTH if is_of_norm(node, facts.flow, facts.kinds) else _NO_NORM


def _product(node: Node, facts: Facts) -> Verdict | None:
    if _has_step(node, facts.flow):
        return _rectifier(node, facts) or _unclassified("multiplied by a step function of the input")
    if not all(value in facts.flow.varying for value in node.inputs[:2]):
        return None
    if not facts.flow.share_input(*node.inputs[:2]):
        return _own("product of values that depend on different arguments: linear in each")
    return _SMOOTH if is_of_norm(node, facts.flow, facts.kinds) else _NO_NORM


def _absolute(node: Node, facts: Facts) -> Verdict | None:
    return _SMOOTH if is_of_norm(node, facts.flow, facts.kinds) else _unknown(node, facts)


def _quotient(node: Node, facts: Facts) -> Verdict | None:
    if _has_step(node, facts.flow):
        return _unclassified("quotient with a step function of the input")
    if node.inputs[1] not in facts.flow.varying:
        return None
    return _SMOOTH if is_of_norm(node, facts.flow, facts.kinds) else _NO_NORM


def _select(node: Node, facts: Facts) -> Verdict | None:
    if node.inputs[0] not in facts.flow.varying:
        return _linear(node, facts)
    if is_guarded_choice(node, facts.flow, facts.kinds):
        return _GUARD
    if any(map(_is_nan, node.inputs[1:])) and _tells_nan(node.inputs[0]):
        return _own("chosen where it is a number; elsewhere the result is none")
    if only_case(node) is not None:
        return _own("the same value, whichever case is chosen")
    if _is_larger(node) and objection_to_pieces(node, facts.flow) is None:
        return _POOLED
    return _rectifier(node, facts) or _unclassified("chosen by a condition on the input")


def _is_larger(node: Node) -> bool:
    """where(a > b, a, b): the larger of two, or the smaller; as fmax writes it, also where one is no number."""
    mask = origin_of_mask(node.inputs[0]).maker
    if mask is not None and mask.name == "or":
        (mask,) = [v.maker for v in mask.inputs if not _tells_nan(v)][:1] or [None]
    if mask is None or mask.name not in ("gt", "ge", "lt", "le") or len(node.inputs) != 3:
        return False
    cases = [only_case(v.maker) if v.maker is not None else None for v in node.inputs[1:]]
    chosen = {origin(v if case is None else case) for v, case in zip(node.inputs[1:], cases, strict=True)}
    return {origin(value) for value in mask.inputs} == chosen


def _tells_nan(mask: Value) -> bool:
    """A mask of what is no number, as of any in a median."""
    node = origin_of_mask(mask).maker
    if node is None:
        return False
    if node.name in ("reduce_or", "reduce_and", "or", "and"):
        return all(map(_tells_nan, node.inputs))
    return node.name == "ne" and node.inputs[0] is node.inputs[1]


def _is_nan(value: Value) -> bool:
    numbers = constant_of(value)
    return numbers is not None and is_inexact(value) and bool(numbers.size) and bool(np.isnan(numbers).all())


def _branch(node: Node, facts: Facts) -> Verdict | None:
    chosen = node.inputs[0] in facts.flow.varying
    return _unclassified("the input chooses the branch") if chosen else _linear(node, facts)


def _max(node: Node, facts: Facts) -> Verdict | None:
    varying, bound = _bounded(node, facts.flow)
    if bound == -math.inf:
        return None
    smallest = lower_bound(node.inputs[1 - varying])
    if smallest is not None and smallest > 0:
        if _is_of_norm(node, varying, facts):
            return _GUARD
        if is_floor_of_powers(node, facts.flow, facts.kinds):
            return _FLOOR
    return _rectifier(node, facts) or _bound(node, varying, facts)


def _is_of_norm(node: Node, operand: int, facts: Facts) -> bool:
    """What is bounded is a norm's variance or length, or the scale that it makes."""
    flow, kinds = facts.flow, facts.kinds
    return is_guard(node, operand, flow=flow, kinds=kinds) or is_bounded_scale(node, operand, flow=flow, kinds=kinds)


def _min(node: Node, facts: Facts) -> Verdict | None:
    varying, bound = _bounded(node, facts.flow)
    if bound == math.inf:
        return None
    smallest = lower_bound(node.inputs[1 - varying])
    if bound is not None and bound > 0 and is_beside_rectifier(node, varying, facts.flow):
        return _own(f"upper bound of a rectifier: above {bound:g} nothing passes")
    if bound is None and _is_learned_ceiling(node, varying, facts.flow):
        return _own("upper bound of a rectifier, of each map or place: above it nothing passes")
    if smallest is not None and smallest > 0 and _is_of_norm(node, varying, facts):
        return _CEILING
    return _bound(node, varying, facts)


def _is_learned_ceiling(node: Node, varying: int, flow: Flow) -> bool:
    """An array above zero bounds a rectifier; one that nobody knows, as of parameters in jit, bounds its result."""
    ceiling = node.inputs[1 - varying]
    if ceiling in flow.varying:
        return False
    smallest = lower_bound(ceiling)
    if smallest is None:
        return is_above_rectifier(node, varying)
    return smallest > 0 and is_beside_rectifier(node, varying, flow)


def _bound(node: Node, varying: int, facts: Facts) -> Verdict:
    """A bound that is no rectifier's."""
    if any(value in facts.flow.varying for k, value in enumerate(node.inputs) if k != varying):
        if is_larger_length(node, facts.flow, facts.kinds):
            return _GUARD
        objection = objection_to_pieces(node, facts.flow)
        return _POOLED if objection is None else _unclassified(objection)
    if bounds_the_input(node.inputs[varying], node.outputs[0], facts.layers):
        return _INPUT
    return _unclassified("a bound that is no rectifier's")


def _bounded(node: Node, flow: Flow) -> tuple[int, float | None]:
    """(number of an input of max or min that varies, the constant that bounds it)"""
    varying = 0 if node.inputs[0] in flow.varying else 1
    return varying, uniform(node.inputs[1 - varying])


def _clamp(node: Node, facts: Facts) -> Verdict | None:
    smallest = lower_bound(node.inputs[0])
    if smallest is not None and smallest > 0:
        if _is_of_norm(node, 1, facts):
            return _GUARD
        if is_floor_of_powers(node, facts.flow, facts.kinds):
            return _FLOOR
    return _rectifier(node, facts) or _bound(node, 1, facts)


def _stop(node: Node, facts: Facts) -> Verdict | None:
    return _own("nothing passes: the program says so")


def _kept(node: Node, facts: Facts) -> Verdict | None:
    return _own("marked as kept")


def _skip(node: Node, facts: Facts) -> Verdict | None:
    before = {v: atom for v, atom in zip(node.inputs, node.params["before"], strict=True) if v in facts.flow.carrying}
    results = zip(node.outputs, node.params["after"], strict=True)
    after = {v: made for v, made in results if v in facts.flow.carrying and v in facts.flow.wanted}
    types = [[(v.aval.dtype, v.aval.shape) for v in values] for values in (before, after)]
    if len(before) != 1 or types[0] != types[1]:
        reads, gives = (", ".join(f"{dtype}{list(shape)}" for dtype, shape in some) for some in types)
        return _unclassified(
            f"marked as skipped, but makes {gives} of {reads}: one array of one of its shape is needed"
        )
    ((place, variable),) = after.values()
    (argument,) = before.values()
    return Verdict("skipped", "marked: the identity", place, Skip(argument, variable))


_TABLE: dict[str, Callable[[Node, Facts], Verdict | None]] = {
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(POWERS, _power),
    **dict.fromkeys(SELECTIONS, _selection),
    **dict.fromkeys(READS, _read),
    "div": _quotient,
    "abs": _absolute,
    "select_n": _select,
    "cond": _branch,
    "max": _max,
    "min": _min,
    "clamp": _clamp,
    "stop_gradient": _stop,
    KEPT: _kept,
    SKIPPED: _skip,
}
