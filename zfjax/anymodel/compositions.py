"""What stands around a lower bound at zero, and makes of it something else than a ReLU of a feature.

    its result meets what it read, place by place   leaky by max(x, 0) - a * max(-x, 0), absolute value, hard tanh,
                                                  shrinkage, maxout by max(a - b, 0) + b
    the offset before it is taken back after it   a bound at another number: max(x + 1, 0) - 1
    an upper bound, and an offset between the two   a hard sigmoid: relu6(x + 3) / 6, clip(0.2 * x + 0.5, 0, 1)
    two with nothing but numbers in between       a bound from above, or two: max(1 - max(1 - x, 0), 0)

Negative and positive parts side by side, as in concatenate([max(x, 0), max(-x, 0)]), are two rectifiers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterator
from typing import NamedTuple

import numpy as np

from zfjax.anymodel.constants import constant_of, uniform
from zfjax.anymodel.graph import Node, Value, is_inexact
from zfjax.anymodel.rectifiers import MOVES, origin, rectified_operand
from zfjax.anymodel.twins import Twins

_UNKNOWN = 1e30  # a bound of parameters in jit
_NEAR = 128  # values that are looked at on each side of a lower bound
ONE_ABOVE_ANOTHER = "a lower bound of another with an offset between them: a bound from above, no ReLU"
MEETS_ITSELF = (
    "meets what it was made of: leaky, absolute value, hard tanh, shrinkage or maxout (jnp.maximum says it), no ReLU"
)


def objection_to(value: Value, result: Value, *, ceiling: float, twins: Twins, met: Container[Value]) -> str | None:
    """Why a lower bound at zero may be part of another activation; None where nothing speaks against a rectifier.

    Args:
      value: what is bounded.
      result: of the lower bound.
      ceiling: its own upper bound.
      twins: of the program.
      met: results that meet what they are made of, the first of their twins.
    """
    below = affine_below(value)
    if twins.of(result) in met:
        return MEETS_ITSELF
    if below.by_number and below.base.maker is not None and rectified_operand(below.base.maker) is not None:
        return ONE_ABOVE_ANOTHER
    for step in affine_above(result):
        if below.offset and math.isclose(step.scale * below.offset, -step.offset, rel_tol=1e-3):
            return "its offset is taken back: a bound at another number than zero, no ReLU"
        if _is_taken_back(below, step, twins):
            return "its offset is taken back: a bound at other numbers than zero, no ReLU"
        for user in step.value.users:
            if step.offset and step.by_number and rectified_operand(user) is not None:
                return ONE_ABOVE_ANOTHER
            bound = _ceiling(user, step.value)
            if bound is not None and math.isfinite(bound) and step.scale > 0:
                ceiling = min(ceiling, (bound - step.offset) / step.scale)
    if below.bound is not None:
        ceiling = min(ceiling, below.bound)
    middle = math.isclose(below.offset, ceiling / 2, rel_tol=1e-2)
    if ceiling < math.inf and (middle or (below.by_number and 0 < below.offset < ceiling)):
        above = f"at {ceiling:g}" if ceiling < _UNKNOWN else "by an array"
        return f"bounded at 0 and {above} with an offset of {below.offset:g}: a hard sigmoid, no ReLU"
    return None


class _Offset(NamedTuple):
    """factor * value, an array."""

    factor: float
    value: Value


def _is_taken_back(below: Affine, step: _Step, twins: Twins) -> bool:
    """The arrays that are added before a bound, with the numbers or without, are what is taken away after it."""
    if not below.constants or not step.constants:
        return False
    (before, terms), (after, others) = (_total(offsets, twins) for offsets in (below.constants, step.constants))
    if terms.keys() != others.keys() or before.shape != after.shape:
        return False
    if not all(math.isclose(step.scale * terms[key], -others[key], rel_tol=1e-3) for key in terms):
        return False

    def cancel(number: float, other: float) -> bool:
        left, right = step.scale * (before + number), -(after + other)
        return np.allclose(left, right, rtol=1e-3, atol=1e-6 * float(np.abs(right).max(initial=0)))

    return cancel(0, 0) or cancel(below.offset, step.offset)


def _total(offsets: list[_Offset], twins: Twins) -> tuple[np.ndarray, dict[Value, float]]:
    """The sum of offsets: of those whose numbers are known, and how often it has which of the others."""
    known, others = np.zeros(()), defaultdict[Value, float](float)
    for offset in offsets:
        factor, value = _plain(*offset)
        numbers = constant_of(value)
        if numbers is None:
            others[twins.of(value)] += factor * twins.factor(value)
        else:
            numbers = np.squeeze(numbers).astype(float)
            known = known + factor * numbers if known.shape in ((), numbers.shape) else known
    return known, others


def _plain(factor: float, value: Value) -> _Offset:
    """An offset without the moves, signs and numbers of its own."""
    while value.maker is not None:
        node = value.maker
        place = next((k for k, v in enumerate(node.inputs) if uniform(v) is None), 0)
        if node.name in MOVES and node.inputs:
            value = node.inputs[0]
        elif node.name == "neg":
            factor, value = -factor, node.inputs[0]
        elif node.name == "mul" and (number := uniform(node.inputs[1 - place])) is not None:
            factor, value = factor * number, node.inputs[place]
        elif node.name == "div" and (number := uniform(node.inputs[1])):
            factor, value = factor / number, node.inputs[0]
        else:
            break
    return _Offset(factor, value)


class Affine(NamedTuple):
    """scale * base + offset, at every place."""

    base: Value
    scale: float
    offset: float
    by_number: bool  # the offset is made of single numbers, not of arrays that happen to hold one
    constants: list[_Offset]  # offsets that differ from place to place
    bound: float | None  # an upper bound of it on the way


def affine_below(value: Value) -> Affine:
    """A value as numbers times another value plus numbers, as far down as the program says so."""
    scale, offset, by_number, bound = 1.0, 0.0, True, None
    constants: list[_Offset] = []
    for _ in range(_NEAR):
        node = value.maker
        step = None if node is None else _affine_step(node)
        if node is None or step is None:
            if node is not None and bound is None and scale > 0:
                below = next((v for v in node.inputs if not v.known), value)
                number = _ceiling(node, below)
                if number is not None:
                    bound, value = scale * number + offset, below
                    continue
            break
        under, factor, shift, given = step
        offset += scale * (shift or 0.0)
        if given is not None and (shift is None or shift):
            by_number = by_number and _is_number(given.value)
            constants.extend([_Offset(scale * given.factor, given.value)] if shift is None else [])
        scale *= factor
        value = under
        if shift is None:  # offsets of their own at every place: nothing is known below them
            break
    return Affine(value, scale, offset, by_number and offset != 0, constants, bound)


def _ceiling(node: Node, value: Value) -> float | None:
    """The largest number that bounds a value from above; of numbers that nobody knows a very large one."""
    others = [v for v in node.inputs if v is not value] if node.name == "min" else []
    if not others or not others[0].known:
        return None
    numbers = constant_of(others[0])
    return _UNKNOWN if numbers is None or not numbers.size else float(numbers.max())


def is_bounded_above(value: Value, result: Value, ceiling: float) -> bool:
    """A constant bounds from above what a lower bound reads, or its result; or the lower bound has its own ceiling."""
    return (
        ceiling < math.inf
        or affine_below(value).bound is not None
        or any(_ceiling(user, step.value) is not None for step in affine_above(result) for user in step.value.users)
    )


class _Step(NamedTuple):
    value: Value
    scale: float
    offset: float
    constants: list[_Offset]
    by_number: bool = True


def affine_above(value: Value) -> Iterator[_Step]:
    """All that is made of a value by numbers alone: scale * value + offset, as far as no upper bound cuts it."""
    waiting, count = [_Step(value, 1.0, 0.0, [])], 0
    while waiting and count < _NEAR:
        step = waiting.pop(0)
        count += 1
        yield step
        for user in step.value.users:
            affine = _affine_step(user)
            if affine is not None and affine[0] is step.value:
                _, factor, shift, given = affine
                constants = [_Offset(factor * own, array) for own, array in step.constants]
                constants.extend([given] if shift is None and given is not None else [])
                offset = factor * step.offset + (shift or 0.0)
                by_number = step.by_number and (given is None or _is_number(given.value))
                waiting.append(_Step(user.outputs[0], factor * step.scale, offset, constants, by_number))
            elif _ceiling(user, step.value) is not None:
                waiting.append(step._replace(value=user.outputs[0]))


def _affine_step(node: Node) -> tuple[Value, float, float | None, _Offset | None] | None:
    """(input, scale, offset, the offset as an array); an offset of None differs from place to place."""
    if node.name in MOVES and node.inputs[0].aval.size == node.outputs[0].aval.size and is_inexact(node.inputs[0]):
        return node.inputs[0], 1.0, 0.0, None
    if node.name == "neg":
        return node.inputs[0], -1.0, 0.0, None
    if node.name not in ("add", "add_any", "sub", "mul", "div") or node.inputs[0].known == node.inputs[1].known:
        return None
    place = 1 if node.inputs[0].known else 0
    value, given = node.inputs[place], node.inputs[1 - place]
    number = uniform(given)
    if node.name in ("mul", "div"):
        if number is None or number == 0 or not math.isfinite(number) or (node.name == "div" and place == 1):
            return None
        return value, number if node.name == "mul" else 1 / number, 0.0, None
    sign = -1.0 if node.name == "sub" and place == 0 else 1.0
    scale = -1.0 if node.name == "sub" and place == 1 else 1.0
    return value, scale, None if number is None else sign * number, _Offset(sign, given)


def _is_number(value: Value) -> bool:
    while value.maker is not None and value.maker.inputs:
        value = value.maker.inputs[0]
    return not value.aval.shape


def is_shifted(node: Node | None) -> bool:
    """exp(x - max(x)), as in a softmax: never infinite, and 1 somewhere."""
    below = None if node is None or node.name != "exp" else node.inputs[0].maker
    if below is None or below.name != "sub":
        return False
    largest = below.inputs[1]
    while largest.maker is not None and (largest.maker.name in MOVES or _is_without_bound(largest.maker)):
        largest = next(value for value in largest.maker.inputs if not value.known)
    maker = largest.maker
    return maker is not None and maker.name == "reduce_max" and origin(maker.inputs[0]) == origin(below.inputs[0])


def _is_without_bound(node: Node) -> bool:
    return node.name == "max" and any(uniform(value) == -math.inf for value in node.inputs)
