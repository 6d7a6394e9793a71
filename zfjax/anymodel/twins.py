"""Values of a program that are computed in the same way, but for a number: z @ w, (-z) @ w and z @ (2 * w).

What is linear hands the number on; any other operation makes a value of its own, and twins of equal numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import NamedTuple

import jax
import numpy as np

from zfjax.anymodel.constants import constant_of, uniform
from zfjax.anymodel.graph import Graph, Node, Value, is_inexact

_LARGEST = 1 << 16  # elements of a constant that is compared with others
_OF_ROUNDS = ("carry", "scan_slice", "shard_in", "shard_out")

_LINEAR_IN_FIRST = frozenset(
    "broadcast_in_dim reshape squeeze expand_dims transpose rev slice copy copy_p name tile pvary pcast reduce_sum "
    "cumsum reduce_window_sum convert_element_type reduce_precision gather dynamic_slice split unstack".split()
)


class Twins(NamedTuple):
    """Each value is a number times the first of its twins."""

    first: dict[Value, Value]
    factors: dict[Value, float]

    def of(self, value: Value) -> Value:
        """The first of those that are computed in the same way."""
        return self.first.get(value, value)

    def factor(self, value: Value) -> float:
        """The number by which it differs from that."""
        return self.factors.get(value, 1.0)


class _Term(NamedTuple):
    """factor * name"""

    name: Hashable
    factor: float = 1.0


class _Named(NamedTuple):
    """factor * what these words and values tell"""

    name: tuple[Hashable, ...]
    factor: float


def twins_of(graph: Graph) -> Twins:
    """Which values of a program are computed in the same way from the same values, times numbers."""
    twins = Twins({}, {})
    known: dict[Hashable, tuple[list[Value], float]] = {}
    constants: dict[Hashable, list[tuple[Hashable, np.ndarray]]] = {}

    def term(value: Value) -> _Term:
        if value.maker is None and value.constant is not None:
            return _constant(value, constants)
        return multiples.get(value) or _Term(twins.of(value), twins.factor(value))

    multiples: dict[Value, _Term] = {}  # of constants too, which are no values of the program
    for node in graph.nodes:
        terms = [term(value) for value in node.inputs]
        multiple = _multiple(node, terms)
        if multiple is not None:
            multiples[node.outputs[0]] = multiple
            if isinstance(multiple.name, Value):
                twins.first[node.outputs[0]], twins.factors[node.outputs[0]] = multiple.name, multiple.factor
            continue
        firsts, ratio = node.outputs, 1.0
        if node.name not in _OF_ROUNDS:
            try:
                made = _made(node, terms)
                firsts, factor = known.setdefault(
                    (*made.name, tuple(sorted(node.params.items()))), (firsts, made.factor)
                )
                ratio = made.factor / factor
            except TypeError:  # parameters that cannot be compared
                pass
        twins.first.update(zip(node.outputs, firsts, strict=False))
        twins.factors.update(dict.fromkeys(node.outputs, ratio))
    return twins


def _multiple(node: Node, terms: list[_Term]) -> _Term | None:
    """What is a number times one value, element by element."""
    (result,) = node.outputs if len(node.outputs) == 1 else (None,)
    if result is None or not is_inexact(result):
        return None
    place, number = 0, 1.0
    if node.name == "neg":
        number = -1.0
    elif node.name in ("mul", "div"):
        numbers = [uniform(value) for value in node.inputs]
        place = 1 if numbers[1] is None and node.name == "mul" else 0
        other = numbers[1 - place]
        if other is None or other == 0 or not math.isfinite(other):
            return None
        number = 1 / other if node.name == "div" else other
    else:
        return None
    below = node.inputs[place]
    if below.aval.shape != result.aval.shape:
        return None
    return _Term(terms[place].name, terms[place].factor * number)


def _made(node: Node, terms: list[_Term]) -> _Named:
    """What tells a node's results from others, and the number before it."""
    names = tuple(term.name for term in terms)
    factors = [term.factor for term in terms]
    if not all(map(is_inexact, (*node.inputs[:1], *node.outputs))):
        return _Named((node.name, *zip(names, factors, strict=True)), 1.0)
    if node.name in ("add", "add_any", "sub"):
        if node.name == "sub":
            factors[1] = -factors[1]
        (one, first), (other, second) = sorted(zip(names, factors, strict=True), key=lambda term: hash(term[0]))
        return _Named(("add", one, other, _rounded(second / first)), first)
    if node.name in ("dot_general", "conv_general_dilated", "mul"):
        return _Named((node.name, *names), math.prod(factors))
    if node.name == "div":
        return _Named((node.name, *names), factors[0] / factors[1])
    if node.name in _LINEAR_IN_FIRST:
        return _Named((node.name, names[0], *zip(names[1:], factors[1:], strict=True)), factors[0])
    if node.name in ("concatenate", "stack", "pad"):
        return _Named((node.name, *names, *(_rounded(factor / factors[0]) for factor in factors)), factors[0])
    return _Named((node.name, *zip(names, map(_rounded, factors), strict=True)), 1.0)


def _rounded(number: float) -> float:
    return float(f"{number:.5g}")


def _constant(value: Value, constants: dict[Hashable, list[tuple[Hashable, np.ndarray]]]) -> _Term:
    """A constant by its numbers, as far as these are few, over the largest of some of them."""
    own = _Term(id(value.constant))
    if isinstance(value.constant, jax.core.Tracer) or not is_inexact(value):
        return own
    shape, number = value.aval.shape, uniform(value)
    if number is not None:
        usable = number != 0 and math.isfinite(number)
        return _Term((shape, 1.0), number) if usable else _Term((shape, str(number)))
    numbers = constant_of(value)
    if numbers is None or numbers.size > _LARGEST or not np.issubdtype(numbers.dtype, np.floating):
        return own
    some = numbers.ravel()[:: max(1, numbers.size // 16)][:16].astype(np.float64)
    largest = float(some[np.abs(some).argmax()])
    if not largest or not math.isfinite(largest):
        return own
    alike = constants.setdefault((shape, tuple(np.round(some / largest, 3))), [])
    for name, others in alike:
        if np.allclose(numbers / largest, others, rtol=1e-5, atol=1e-7):
            return _Term(name, largest)
    alike.append((own.name, numbers / largest))
    return _Term(own.name, largest)
