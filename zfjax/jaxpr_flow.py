"""What of a program depends on its input, and where a gradient passes: paths through its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp

from zfjax.jaxpr_graph import Graph, Node, Value


class Flow(NamedTuple):
    """Values of a graph by how they depend on the floating arguments and act on the floating results."""

    varying: set[Value]  # depends on a floating argument, in whatever way
    carrying: set[Value]  # has a derivative by one
    fixed: set[Value]  # had one before `stop_gradient`
    wanted: set[Value]  # some result has a derivative by it
    by_input: list[set[Value]]  # what depends on each of the floating arguments

    def passes(self, node: Node) -> bool:
        """A gradient comes down through the node, or would but for its being a `stop_gradient`."""
        above = self.fixed if node.name == "stop_gradient" else self.carrying
        passed = any(value in above and value in self.wanted for value in node.outputs)
        return passed and any(value in self.carrying for value in node.inputs)

    def is_mask(self, value: Value) -> bool:
        """It changes with the input by steps only, as what comes of a comparison does."""
        return value in self.varying and value not in self.carrying and value not in self.fixed

    def share_input(self, value: Value, other: Value) -> bool:
        """Both depend on one argument; a product of others is linear in each."""
        return any(value in dependent and other in dependent for dependent in self.by_input)

    def steps_behind(self, value: Value) -> list[Node]:
        """Where a mask, or what is made of masks, leaves the values that carry a gradient."""

        def down(value: Value) -> list[Value]:
            return [v for v in value.maker.inputs if self.is_mask(v)] if value.maker is not None else []

        makers = [v.maker for v in reached([value], down) if v.maker is not None and self.is_mask(v)]
        live = self.carrying | self.fixed
        return sorted((node for node in makers if live.intersection(node.inputs)), key=lambda node: node.place)


def flow_of(graph: Graph) -> Flow:
    """Follow the floating arguments up and the floating results down; integers and truth values carry no gradient."""
    inputs = [value for value in graph.inputs if is_inexact(value)]
    carrying = reached(inputs, _derived)
    stops = [node for node in graph.nodes if node.name == "stop_gradient" and node.inputs[0] in carrying]
    by_input = [reached([one], lambda value: [v for user in value.users for v in user.outputs]) for one in inputs]
    return Flow(
        varying=set().union(*by_input),
        carrying=carrying,
        fixed=reached([v for node in stops for v in node.outputs], _derived),
        wanted=reached([value for value in graph.outputs if is_inexact(value)], _deriving),
        by_input=by_input,
    )


def reached(starts: Iterable[Value], follow: Callable[[Value], Iterable[Value]]) -> set[Value]:
    """All values that `follow` leads to from `starts`, these included."""
    found: set[Value] = set()
    waiting = list(starts)
    while waiting:
        value = waiting.pop()
        if value not in found:
            found.add(value)
            waiting.extend(follow(value))
    return found


def is_inexact(value: Value) -> bool:
    """Floating or complex: what a derivative can be taken of."""
    return jnp.issubdtype(getattr(value.aval, "dtype", jnp.int32), jnp.inexact)


def _derived(value: Value) -> list[Value]:
    return [v for user in value.users if user.name != "stop_gradient" for v in user.outputs if is_inexact(v)]


def _deriving(value: Value) -> list[Value]:
    maker = value.maker
    return [] if maker is None or maker.name == "stop_gradient" else [v for v in maker.inputs if is_inexact(v)]
