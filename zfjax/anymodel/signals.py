"""What comes down at the layers of any model on a unit's way to the pixels, under a rule.

A zero is added to each layer, in the program with the rule on its way back: the derivative by it is what comes down
there. The program is run as it stands, but for calls that hold a layer, which are run equation by equation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from zfjax.anymodel.choices import OnUnknown
from zfjax.anymodel.graph import Node, Place, Value, first_of_equals, graph_of, programs_of
from zfjax.anymodel.interpreter import run_alone
from zfjax.anymodel.rules import Rule, with_relu_rule
from zfjax.anymodel.tracing import in_order, traced
from zfjax.errors import UserError
from zfjax.units import Unit, isolate

_RUN_THROUGH = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint")  # calls that are their program
_TURNS = ("transpose", "reshape", "squeeze", "convert_element_type", "slice")  # make the same numbers, if as many


class Signals(NamedTuple):
    """What comes down from one unit of one image."""

    layers: dict[str, jax.Array]  # [1, ...], of the shape of each layer
    pixels: jax.Array  # [1, H, W, C]


class _Tap(NamedTuple):
    """Where a zero is added."""

    place: Place
    variable: core.Var
    number: int  # of the layer


def signals_at(
    fn: Callable[[jax.Array], Mapping[str, jax.Array]],
    images: jax.Array,
    layers: Sequence[str],
    *,
    unit: Unit,
    rule: Rule = "deconvnet",
    on_unknown: OnUnknown = "error",
) -> Signals:
    """What comes down at some layers, and at the pixels, from a unit of another.

    Args:
      fn: images -> {layer: features}, all layers and the unit's among them; the parameters are inside.
      images: float [1, H, W, C].
      layers: the unit's layer last.
      unit: a channel and its position, None for the strongest.
      rule, on_unknown: as for `zfjax.with_relu_rule`.

    Returns:
      Signals; UserError as of `zfjax.with_relu_rule`, and for a layer that is the image itself.
    """
    program, _ = traced(with_relu_rule(in_order(fn, layers), rule, on_unknown=on_unknown), (images,), {})
    graph = graph_of(program, marks=False)
    same = first_of_equals(graph)
    taps: list[_Tap] = []
    turns: list[list[Node]] = []
    shapes = []
    for number, (layer, value) in enumerate(zip(layers, graph.outputs, strict=True)):
        own, above = _tapped(value, program.jaxpr)
        equals = [other for other, first in same.items() if first is same[own]]
        bindings = [place for other in equals if (place := _bound_at(other, program.jaxpr)) is not None]
        if not bindings:
            raise UserError(f"layer {layer!r} is what the model is given, or stands where nothing can be added to it")
        taps += [_Tap(*place, number) for place in bindings]
        turns.append(above)
        shapes.append(own.aval)

    @jax.jit
    def down(images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        zeros = [jnp.zeros(aval.shape, aval.dtype) for aval in shapes]
        up = lambda images, zeros: _run(program, [images], taps=taps, zeros=zeros)[-1]  # noqa: E731
        features, back = jax.vjp(up, images, zeros)
        pixels, signals = back(isolate(features, unit))
        return pixels, [_turned(signal, nodes) for signal, nodes in zip(signals, turns, strict=True)]

    pixels, signals = down(images)
    return Signals(dict(zip(layers, signals, strict=True)), pixels)


def _tapped(value: Value, jaxpr: core.Jaxpr) -> tuple[Value, list[Node]]:
    """(what a layer's axes were turned of, how they were), as what is above may read it so."""
    turns: list[Node] = []
    lowest = value
    while (node := lowest.maker) is not None and node.name in _TURNS and node.inputs[0].maker is not None:
        if node.inputs[0].aval.size != lowest.aval.size:
            break
        turns.insert(0, node)
        lowest = node.inputs[0]
    return (lowest, turns) if _bound_at(lowest, jaxpr) is not None else (value, [])


def _bound_at(value: Value, jaxpr: core.Jaxpr) -> tuple[Place, core.Var] | None:
    """Where the program binds a value first, outside loops, branches and functions with derivatives of their own."""
    return next(((place, variable) for place, variable in value.bound if _is_run(place, jaxpr)), None)


def _is_run(place: Place, jaxpr: core.Jaxpr) -> bool:
    if place[0] < 0:
        return False  # an argument
    if len(place) == 1:
        return True
    eqn = jaxpr.eqns[place[0]]
    return eqn.primitive.name in _RUN_THROUGH and _is_run(place[2:], programs_of(eqn)[place[1]].jaxpr)


def _run(
    program: core.ClosedJaxpr, operands: Sequence[Any], *, taps: Sequence[_Tap], zeros: Sequence[jax.Array]
) -> list[Any]:
    """The program's results, with the zeros added at the taps."""
    jaxpr = program.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *operands], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for index, eqn in enumerate(jaxpr.eqns):
        inside = [tap for tap in taps if len(tap.place) > 1 and tap.place[0] == index]
        if inside:
            below = [tap._replace(place=tap.place[2:]) for tap in inside]
            results: Sequence[Any] = _run(
                programs_of(eqn)[0], [read(atom) for atom in eqn.invars], taps=below, zeros=zeros
            )
        else:
            results = run_alone(eqn, jaxpr, values)
        values.update(zip(eqn.outvars, results, strict=True))
        for tap in taps:
            if tap.place == (index,):
                values[tap.variable] = values[tap.variable] + zeros[tap.number]
    return [read(atom) for atom in jaxpr.outvars]


def _turned(signal: jax.Array, nodes: Sequence[Node]) -> jax.Array:
    """What comes down, with its axes turned as the layer's were."""
    for node in nodes:
        (eqn,) = node.eqns
        signal = eqn.primitive.bind(signal, **eqn.params)
    return signal
