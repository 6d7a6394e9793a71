"""What a norm is made of: every value of a program by what it can be in one, and the arithmetic that this explains.

    kind       what it is                                                       may be
    feature    anything else: an activation
    sum        features summed over several places, as a mean                   squared, beside an energy
    squares    x * x, |x| or a higher power, element by element
    part       squares that count beside others only: a slice, a mean's square
    energy     squares summed over several places, as a variance                guarded, under a root, a divisor
    weighted   energy or squares under weights or with an offset                under a root, a divisor
    length     root of an energy                                                guarded, a divisor
    scale      reciprocal of a length or an energy, one length over another     a factor

A root, a quotient or a product of values that depend on the input belongs to a norm where the table says so, a square
where all that is made of it ends under such roots and in such divisors, and a scale where it is but a factor. So is the
largest |x| of several places, and a pool by powers, as GeM: (mean x^p)^(1/p), of what a small number bounds below.
Without a sum over several places between the square and the root, it is an activation that somebody wrote by hand:
x / sqrt(1 + x^2), or |x|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Literal

from zfjax.anymodel.constants import lower_bound, uniform
from zfjax.anymodel.graph import Flow, Graph, Node, Value, is_inexact, reached
from zfjax.anymodel.joins import is_joined
from zfjax.anymodel.rectifiers import MOVES, SHAPES, is_square, origin, origin_of_mask

Kind = Literal["feature", "sum", "squares", "part", "energy", "weighted", "length", "scale"]
Kinds = Mapping[Value, Kind]
POWERS = ("square", "integer_pow", "pow", "sqrt", "rsqrt")
PRODUCTS = ("mul", "dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general")
_SUMS = ("reduce_sum", "reduce_window_sum", "psum")
_SQUARES = frozenset(("squares", "part", "energy", "weighted"))
_GUARDED = frozenset(("energy", "length"))
_DIVISORS = frozenset(("energy", "weighted", "length"))
_NORMALISED = frozenset(("feature", "sum"))


def kinds_of(graph: Graph, flow: Flow) -> Kinds:
    """The kind of every floating value that depends on the input by more than steps."""
    live = flow.carrying | flow.fixed
    kinds: dict[Value, Kind] = dict.fromkeys(live.intersection(graph.inputs), "feature")
    changed = True
    while changed:  # again for scans, whose rounds feed each other
        changed = False
        for node in graph.nodes:
            kind = _kind(node, kinds, flow)
            for value in live.intersection(node.outputs):
                joint = _joint([kinds[value], kind]) if node.name == "carry" and value in kinds else kind
                changed = changed or kinds.get(value) != joint
                kinds[value] = joint
    return kinds


def is_of_squares(value: Value, kinds: Kinds) -> bool:
    """A norm's variance or length may be this: no rectifier for certain."""
    return kinds.get(value, "feature") not in _NORMALISED


def is_divisor(value: Value, *, kinds: Kinds) -> bool:
    """A norm's length or variance may be this, or a sum that shares are of."""
    return kinds.get(value) in _DIVISORS | {"sum"}


def is_guard(node: Node, operand: int, *, flow: Flow, kinds: Kinds) -> bool:
    """What the node bounds is a norm's variance or length for certain."""
    return kinds.get(node.inputs[operand]) in _GUARDED and _ends_in_norms(node.outputs[0], flow, kinds)


def is_bounded_scale(node: Node, operand: int, *, flow: Flow, kinds: Kinds) -> bool:
    """What the node bounds is what a norm's features are multiplied with, as in h * min(1, c / norm(h))."""
    return kinds.get(node.inputs[operand]) == "scale" and _ends_in_norms(node.outputs[0], flow, kinds)


def is_larger_length(node: Node, flow: Flow, kinds: Kinds) -> bool:
    """Of two lengths of norms the larger, or smaller: of each place and of the image, as in a contrast norm."""
    return all(kinds.get(v) in _GUARDED for v in node.inputs) and _ends_in_norms(node.outputs[0], flow, kinds)


def is_guarded_choice(node: Node, flow: Flow, kinds: Kinds) -> bool:
    """A selection by the size of a norm's variance or length, so that nothing is divided by zero, for certain.

    where(length > c, length, d)       d not below zero; also of another length of the same features, or its root
    where(length > 0, x / length, d)   also x itself for d
    norm(where(length > c, x, d))      what is squared for the length that is divided by
    """
    measured = _compared(node.inputs[0], flow, kinds)
    if not measured:
        return False
    cases = [value for value in node.inputs[1:] if value in flow.varying]
    others = [lower_bound(value) for value in node.inputs[1:] if value not in flow.varying]
    if len(cases) == 2:  # what is not scaled where there is nothing to scale with
        return any(
            _is_scaled(case, measured, kinds=kinds, scaled=origin(other)) for case, other in (cases, cases[::-1])
        )
    if len(cases) != 1 or others[0] is None:
        return False
    (case,) = cases
    if kinds.get(case) in _DIVISORS | {"scale"} and measured & _measured(case, kinds):
        return others[0] >= 0 and _ends_in_norms(node.outputs[0], flow, kinds)
    if _is_scaled(case, measured, kinds=kinds):
        return True
    squared = [user for value in _copies(node.outputs[0]) for user in value.users if flow.passes(user)]
    squared = [user for user in squared if not _moves_alone(user)]
    return (
        origin(case)[0] in measured
        and bool(squared)
        and all(is_raised(user) and is_of_norm(user, flow, kinds) for user in squared)
    )


def _copies(value: Value) -> set[Value]:
    return reached([value], lambda v: [w for user in v.users if _moves_alone(user) for w in user.outputs])


def _moves_alone(node: Node) -> bool:
    return node.name in MOVES


def _is_scaled(value: Value, measured: set[Value], *, kinds: Kinds, scaled: object = None) -> bool:
    """The value is another, or the one of this origin, over a length or variance of the measured features."""
    maker = origin(value)[0].maker
    if maker is None or maker.name not in ("div", "mul"):
        return False
    divides = maker.name == "div"
    scales = maker.inputs[1:] if divides else maker.inputs
    fits = scaled is None or any(origin(v) == scaled for v in (maker.inputs[:1] if divides else maker.inputs))
    return fits and any(measured & _measured(v, kinds) for v in scales)


def _compared(mask: Value, flow: Flow, kinds: Kinds) -> set[Value]:
    """The features whose length a mask compares with a number, or all of which it compares with zero."""
    node = origin_of_mask(mask).maker
    if node is not None and node.name in ("reduce_and", "reduce_or"):
        below = origin_of_mask(node.inputs[0]).maker
        zeros = [] if below is None or below.name not in ("eq", "ne") else [uniform(v) == 0 for v in below.inputs]
        return {origin(below.inputs[zeros.index(False)])[0]} if below is not None and sum(zeros) == 1 else set()
    if node is None or node.name not in ("gt", "ge", "lt", "le", "eq", "ne"):
        return set()
    varying = [value for value in node.inputs if value in flow.varying]
    return _measured(varying[0], kinds) if len(varying) == 1 else set()


def _measured(value: Value, kinds: Kinds) -> set[Value]:
    """The features whose squares a norm's length, variance or scale is made of."""
    value = _unspread(value)
    if kinds.get(value) not in _DIVISORS | {"scale"}:
        return set()

    def down(value: Value) -> list[Value]:
        node = value.maker
        if node is None or is_raised(node):
            return []
        return [v for v in node.inputs if kinds.get(v) in _SQUARES | _DIVISORS | {"scale"}]

    makers = [v.maker for v in reached([value], down) if v.maker is not None and is_raised(v.maker)]
    return {base for node in makers for base in _unguarded(node.inputs[0], kinds)}


def _unguarded(value: Value, kinds: Kinds) -> list[Value]:
    """What is squared, and what it is where it is not replaced by a number."""
    base = origin(value)[0]
    node = base.maker
    cases = [] if node is None or node.name != "select_n" else [v for v in node.inputs[1:] if v in kinds]
    return [base, *(origin(case)[0] for case in cases)] if len(cases) == 1 else [base]


def _unspread(value: Value) -> Value:
    """The value of which this one is made of copies."""
    value = origin(value)[0]
    while value.maker is not None and value.maker.name == "broadcast_in_dim" and value.maker.inputs:
        value = origin(value.maker.inputs[0])[0]
    return value


def is_of_norm(node: Node, flow: Flow, kinds: Kinds) -> bool:
    """A power, quotient or product is part of a norm for certain."""
    if is_raised(node) or (kinds.get(node.outputs[0]) == "scale" and _explains(node, kinds)):
        return _ends_in_norms(node.outputs[0], flow, kinds)
    return _explains(node, kinds)


def is_raised(node: Node) -> bool:
    """A square, another power above one, or the size of a number: what a length sums."""
    exponent = uniform(node.inputs[1]) if node.name == "pow" else node.params.get("y", 0)
    is_power = node.name in ("pow", "integer_pow") and exponent is not None and exponent > 1
    return is_power or node.name == "abs" or is_square(node)


def is_floor_of_powers(node: Node, flow: Flow, kinds: Kinds) -> bool:
    """The node bounds, by a small number, what a pool by powers or a norm is made of, and nothing else reads it."""
    readers = [user for value in _copies(node.outputs[0]) for user in value.users if flow.passes(user)]
    readers = [user for user in readers if not _moves_alone(user)]
    return bool(readers) and all(is_raised(user) and is_of_norm(user, flow, kinds) for user in readers)


def _explains(node: Node, kinds: Kinds) -> bool:
    if node.name in POWERS:
        return _power_of(node, kinds) != "feature"
    own = [kinds.get(value) for value in node.inputs]
    if node.name == "div":
        above, below = own
        if below == "sum":
            return _is_summed_in(node.inputs[0], node.inputs[1], kinds)
        return below in _DIVISORS and (above is None or above in _NORMALISED or above == below == "length")
    return node.name == "mul" and "scale" in own and all(kind in _NORMALISED | {"scale"} for kind in own)


def _ends_in_norms(value: Value, flow: Flow, kinds: Kinds) -> bool:
    """All that is made of it on the way to the results stays such a statistic until it is part of a norm."""
    same = _SQUARES | {kinds.get(value, "feature")}

    def up(value: Value) -> list[Value]:
        return [v for user in value.users for v in user.outputs if kinds.get(v) in same]

    family = reached([value], up)
    ends = [(user, v) for v in family for user in v.users if flow.passes(user) and not _stays(user, family)]
    return bool(ends) and all(is_of_norm(user, flow, kinds) and _scales(user, v, kinds) for user, v in ends)


def _stays(node: Node, family: set[Value]) -> bool:
    return family.issuperset(v for v in node.outputs if is_inexact(v))


def _scales(node: Node, value: Value, kinds: Kinds) -> bool:
    """In a norm's operation this is what the features are scaled with."""
    return node.name in POWERS or (node.name == "div" and node.inputs[1] is value) or kinds[value] == "scale"


def _is_summed_in(value: Value, total: Value, kinds: Kinds) -> bool:
    """`total` is made of the sum of this very value."""

    def down(value: Value) -> list[Value]:
        return value.maker.inputs if value.maker is not None and kinds.get(value) == "sum" else []

    makers = [v.maker for v in reached([total], down) if v.maker is not None]
    return any(node.name in _SUMS and origin(node.inputs[0]) == origin(value) for node in makers)


def _joint(kinds: Iterable[Kind]) -> Kind:
    """The kind of values of these kinds side by side, or added."""
    distinct = set(kinds)
    if len(distinct) == 1:
        return distinct.pop()
    if not distinct <= _SQUARES:
        return "feature"
    return "squares" if "squares" in distinct else "weighted" if "weighted" in distinct else "energy"


def _kind(node: Node, kinds: Kinds, flow: Flow) -> Kind:
    """What a node makes, of what its inputs are."""
    own = [kinds[value] for value in node.inputs if value in kinds]
    if own and is_raised(node):
        return _square_of(node, own[0])
    return _KINDS[node.name](node, own, kinds, flow) if node.name in _KINDS and own else "feature"


def _square_of(node: Node, kind: Kind) -> Kind:
    if node.name == "abs" and kind in _SQUARES:
        return kind
    if node.name == "dot_general":
        contracted = node.params["dimension_numbers"][0][0]
        return "energy" if math.prod(node.inputs[0].aval.shape[axis] for axis in contracted) > 1 else "squares"
    return "part" if kind == "sum" else "squares"


def _same(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    return _joint(own)


def _piece(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    kind = _joint(own)
    return "part" if kind == "squares" else kind


def _added(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    if len(own) > 1:
        parts = own == ["part", "part"] and node.inputs[0] is not node.inputs[1]
        return "energy" if parts else _joint(own)
    place = 0 if node.inputs[0] in kinds else 1
    offset, sign = uniform(node.inputs[1 - place]), -1 if node.name == "sub" else 1
    grows = offset is not None and sign * offset >= 0 and (place == 0 or sign == 1)
    return own[0] if grows else _changed(own[0])


def _negative(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    return _changed(own[0])


def _changed(kind: Kind) -> Kind:
    """With another sign or an offset a statistic may be below zero, a length none."""
    changed: dict[Kind, Kind] = {"energy": "weighted", "length": "feature", "scale": "feature"}
    return changed.get(kind, kind)


def _multiplied(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    if len(own) == 1:
        factor = next(uniform(value) for value in node.inputs if value not in kinds)
        return _changed(own[0]) if factor is not None and factor < 0 else own[0]
    if not flow.share_input(*node.inputs):  # of a parameter that is an argument
        return next((kind for kind in own if kind != "feature"), "feature")
    return "scale" if own == ["scale", "scale"] else "feature"


def _divided(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    if node.inputs[1] not in kinds:
        return _multiplied(node, own, kinds, flow)
    is_scale = len(own) == 1 and own[0] in _DIVISORS or own == ["length", "length"]
    return "scale" if is_scale else "feature"


def _largest(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    return _summed(node, own, kinds, flow) if own[0] in ("squares", "part") else "feature"


def _summed(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    shape, window = node.inputs[0].aval.shape, node.params.get("window_dimensions")
    axes = range(len(window)) if window else node.params["axes"]
    sizes = {int(axis): (window or shape)[int(axis)] for axis in axes if isinstance(axis, Integral)}
    spread = {axis for axis, size in sizes.items() if size > 1}
    if len(sizes) == len(axes) and (not spread or is_joined(node.inputs[0], spread, flow, summed=True)):
        return own[0]  # over one place; a named axis is one of devices
    several: dict[Kind, Kind] = {"feature": "sum", "squares": "energy", "part": "energy"}
    return several.get(own[0], own[0])


def _weighted(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    return "weighted" if len(own) == 1 and own[0] in ("squares", "part", "energy") else "feature"


def _powered(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    return _power_of(node, kinds)


def _power_of(node: Node, kinds: Kinds) -> Kind:
    """length, scale; feature for a power that no norm takes."""
    exponents = {"sqrt": 0.5, "rsqrt": -0.5, "integer_pow": node.params.get("y")}
    exponent = uniform(node.inputs[1]) if node.name == "pow" else exponents.get(node.name)
    kind = kinds.get(node.inputs[0])
    if exponent is None or exponent >= 1 or exponent == 0:
        return "feature"
    if kind in _DIVISORS:
        return "length" if exponent > 0 else "scale"
    return "scale" if kind == "scale" and exponent > 0 else "feature"


def _bounded(node: Node, own: list[Kind], kinds: Kinds, flow: Flow) -> Kind:
    """Bounded by a constant, or by another of its kind; for a selection, where a constant chooses, what it is among."""
    if node.name == "select_n" and node.inputs[0] not in flow.varying:
        return _joint(own)
    if len(own) == 2 and node.name in ("max", "min"):
        kind = _joint(own)
        return kind if kind in _GUARDED else "feature"
    if len(own) != 1:
        return "feature"
    if own[0] == "scale" or node.name == "min":
        bounds = [lower_bound(value) for value in node.inputs[node.name == "select_n" :] if value not in kinds]
        if any(bound is None or bound < 0 for bound in bounds):
            return "feature"
    return own[0] if own[0] in _DIVISORS | {"scale"} else "feature"


_LIKE = SHAPES - {"slice", "scan_slice", "shard_in"} | frozenset(
    "convert_element_type reduce_precision stop_gradient concatenate pad stack scan_stack shard_out carry "
    "cond device_put optimization_barrier sharding_constraint reshard layout_constraint psum_invariant all_gather "
    "gather".split()
)

_KINDS: dict[str, Callable[[Node, list[Kind], Kinds, Flow], Kind]] = {
    **dict.fromkeys(_LIKE, _same),
    **dict.fromkeys(("slice", "scan_slice", "shard_in", "dynamic_slice", "split", "unstack"), _piece),
    **dict.fromkeys(("add", "sub", "add_any"), _added),
    **dict.fromkeys(_SUMS, _summed),
    **dict.fromkeys(("reduce_max", "reduce_window_max", "pmax"), _largest),
    **dict.fromkeys(("dot_general", "conv_general_dilated"), _weighted),
    **dict.fromkeys(POWERS, _powered),
    **dict.fromkeys(("max", "min", "clamp", "select_n"), _bounded),
    "neg": _negative,
    "mul": _multiplied,
    "div": _divided,
}
