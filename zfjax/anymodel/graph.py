"""A traced program as one graph: the equations of a jaxpr and of the calls inside it, joined by arrays.

A rectifier can be spread over several calls: in `jnp.where(x > 0, x, 0)` the comparison stands outside, the selection
inside `jit(_where)`, and the zero is an operand of that call. In the graph an array that enters a call is the same
`Value` inside as outside, so a pattern is followed from value to node to value wherever the calls' borders lie.

`Flow` says what of a program depends on its input, and where a gradient passes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from zfjax.ops import KEPT, SKIPPED

# Operations that hold a program inside, and the parameter it is in.
INNER = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "scan": "jaxpr",
    "cond": "branches",
    "shard_map": "jaxpr",
}

_CONTROL = ("scan", "cond")
ROUNDS_AND_BRANCHES = (*_CONTROL, "shard_map")  # calls whose program is run many times, in parts, or never
OF_PARTS = ("carry", "scan_slice", "scan_stack", "shard_in", "shard_out")  # one round, or device, stands for all
SIGNBIT = "signbit"  # JAX's own function, one operation here, whatever it is made of
CUSTOM = ("custom_jvp_call", "custom_vjp_call")
_JAX = jax.__path__[0] + os.sep
Place = tuple[int, ...]  # number of an equation, of a program in it, of an equation in that, ... from the outermost


class Call(NamedTuple):
    """A function that stands as a call in the program."""

    name: str
    by_jax: bool  # defined in JAX's own files


class Scope(NamedTuple):
    """A named scope that an operation stands in: a module's, or one of `jax.named_scope`."""

    name: str
    entered: tuple[Place, int]  # where in the program, and a number that tells one entry from the next


Opaque = Callable[[Call], bool]  # a call becomes one node


@dataclass(eq=False, slots=True)
class Value:
    """One array of the program."""

    aval: Any  # its shape and dtype
    constant: Any = None  # its numbers, where the program states them
    maker: Node | None = None  # None for inputs and constants
    users: list[Node] = field(default_factory=list)
    known: bool = False  # its numbers depend on no argument of the program
    in_vain: bool = False  # they were asked for and could not be told, as of an array of a trace around it
    bound: list[tuple[Place, core.Var]] = field(default_factory=list)  # where the program binds it, and under what name


@dataclass(eq=False, slots=True)
class Node:
    """One operation; also what joins the rounds of a scan or the branches of a cond, and a marked region as a whole."""

    name: str  # of the primitive, of the mark, or "carry", "scan_slice", "scan_stack", ...
    params: dict[str, Any]
    place: Place
    calls: tuple[Call, ...]  # the calls around it, outermost first
    sources: tuple[core.JaxprEqn, ...]  # the equation, and the calls around it, whose lines a person may know
    eqns: list[core.JaxprEqn]  # its equation; of a marked region all of them
    scopes: tuple[Scope, ...] = ()  # the named scopes around it, outermost first
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)


def module_of(node: Node) -> str:
    """The path of the module that an operation stands in, "Net/Block_0/Conv_0"; "" outside all named scopes."""
    return "/".join(scope.name for scope in node.scopes if scope.name not in (SKIPPED, KEPT))


class Graph(NamedTuple):
    """A program as `graph_of` reads it."""

    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node]  # in the order of the program
    custom: list[Node]  # calls with a derivative of their own, beside the nodes of what they compute
    marks: bool = True  # a marked region is one node


class _Where(NamedTuple):
    place: Place = ()
    calls: tuple[Call, ...] = ()
    sources: tuple[core.JaxprEqn, ...] = ()  # of the calls, from the inside out
    in_jax: bool = False  # one of JAX's own functions, the equations of which nobody knows
    scopes: tuple[Scope, ...] = ()  # of the calls, outermost first

    def of(self, eqn: core.JaxprEqn) -> tuple[core.JaxprEqn, ...]:
        return self.sources if self.in_jax else (eqn, *self.sources)


def graph_of(program: core.ClosedJaxpr, *, opaque: Opaque = lambda call: False, marks: bool = True) -> Graph:
    """The graph of a program; calls that are `opaque` become one node each, under their name.

    So do marked regions, unless `marks` are to be passed over.
    """

    def is_whole(call: Call) -> bool:
        return call == (SIGNBIT, True) or opaque(call)

    inputs = [Value(v.aval) for v in program.jaxpr.invars]
    graph = Graph(inputs, [], [], [], marks)
    graph.outputs.extend(_add_program(graph, program, operands=inputs, where=_Where(), opaque=is_whole))
    return graph


def programs_of(eqn: core.JaxprEqn) -> tuple[core.ClosedJaxpr, ...]:
    """The programs inside an equation, constants beside them; none for an operation that is not listed in INNER."""
    inner = eqn.params[INNER[eqn.primitive.name]] if eqn.primitive.name in INNER else ()
    inner = inner if isinstance(inner, tuple) else (inner,)
    return tuple(p if isinstance(p, core.ClosedJaxpr) else core.ClosedJaxpr(p, ()) for p in inner)


def all_programs_of(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """Every program among the parameters of an equation, of whatever operation."""
    held = [part for given in eqn.params.values() for part in (given if isinstance(given, tuple | list) else (given,))]
    return [
        part.jaxpr if isinstance(part, core.ClosedJaxpr) else part
        for part in held
        if isinstance(part, core.ClosedJaxpr | core.Jaxpr)
    ]


class ScanOperands(NamedTuple):
    """How many operands of a scan are what; the rest are sliced, one slice to a round."""

    num_consts: int  # the same in every round; they come first
    num_carry: int  # handed from round to round; they come next


def scan_operands(eqn: core.JaxprEqn) -> ScanOperands:
    """What the operands of a scan are, read from shapes: its parameters say it in other words from version to version.

    What is sliced or stacked has an axis more outside the rounds than inside.
    """
    (body,) = programs_of(eqn)
    sliced = sum(map(_has_axis_more, eqn.invars, body.jaxpr.invars))
    stacked = sum(map(_has_axis_more, eqn.outvars, body.jaxpr.outvars))
    num_carry = len(eqn.outvars) - stacked
    return ScanOperands(len(eqn.invars) - sliced - num_carry, num_carry)


def _has_axis_more(outside: Any, inside: Any) -> bool:
    return len(outside.aval.shape) > len(inside.aval.shape)


def _add_program(
    graph: Graph, program: core.ClosedJaxpr, *, operands: Sequence[Value], where: _Where, opaque: Opaque
) -> list[Value]:
    """Add the equations of a program that reads `operands`; the values that it returns."""
    jaxpr = program.jaxpr
    known = dict(zip(jaxpr.invars, operands, strict=True))
    known |= {v: Value(v.aval, const, known=True) for v, const in zip(jaxpr.constvars, program.consts, strict=True)}
    for variable, value in known.items():
        value.bound.append(((*where.place, -1), variable))  # before its first equation
    regions = marked_regions(jaxpr) if graph.marks else {}

    def read(atom: Any) -> Value:
        return Value(atom.aval, atom.val, known=True) if isinstance(atom, core.Literal) else known[atom]

    for index, eqn in enumerate(jaxpr.eqns):
        here = where._replace(place=(*where.place, index), scopes=where.scopes + scopes_of(eqn, where.place))
        inputs = [read(atom) for atom in eqn.invars]
        if index in regions:
            outputs = _add_to_region(graph, regions[index], eqn=eqn, inputs=inputs, here=here)
        else:
            outputs = _add_equation(graph, eqn, inputs=inputs, here=here, opaque=opaque)
        known.update(zip(eqn.outvars, outputs, strict=True))
        for variable, value in zip(eqn.outvars, outputs, strict=True):
            value.bound.append((here.place, variable))
    return [read(atom) for atom in jaxpr.outvars]


def _add_equation(
    graph: Graph, eqn: core.JaxprEqn, *, inputs: list[Value], here: _Where, opaque: Opaque
) -> list[Value]:
    programs = programs_of(eqn)
    call = call_of(eqn)
    if eqn.primitive.name in _CONTROL and all(value.known for value in inputs):  # worked out as a whole, or not at all
        programs = ()
    if not programs or (eqn.primitive.name not in _CONTROL and opaque(call)):
        name = call.name if programs else eqn.primitive.name
        return _add_node(graph, name, eqn=eqn, inputs=inputs, avals=[v.aval for v in eqn.outvars], here=here)
    calls, in_jax = (*here.calls, call), here.in_jax or call.by_jax
    inside = [_Where((*here.place, k), calls, here.of(eqn), in_jax, here.scopes) for k in range(len(programs))]

    def run(k: int, operands: Sequence[Value]) -> list[Value]:
        return _add_program(graph, programs[k], operands=operands, where=inside[k], opaque=opaque)

    if eqn.primitive.name == "cond":
        branches = [run(k, inputs[1:]) for k in range(len(programs))]
        merged = zip(eqn.outvars, *branches, strict=True)
        return [
            _add_node(graph, "cond", eqn=eqn, inputs=[inputs[0], *ends], avals=[v.aval], here=here)[0]
            for v, *ends in merged
        ]
    if eqn.primitive.name == "scan":
        return _add_scan(graph, eqn, body=programs[0], inputs=inputs, here=here, run=run)
    if eqn.primitive.name == "shard_map":
        return _add_shards(graph, eqn, body=programs[0], inputs=inputs, here=here, run=run)
    outputs = run(0, inputs)
    if eqn.primitive.name in CUSTOM:
        node = Node(call.name, eqn.params, here.place, calls, here.of(eqn), [eqn], here.scopes, inputs, outputs)
        graph.custom.append(node)
    return outputs


def _add_scan(
    graph: Graph, eqn: core.JaxprEqn, *, body: core.ClosedJaxpr, inputs: list[Value], here: _Where, run: Any
) -> list[Value]:
    """One round stands for all: what it carries comes from the start and from the round itself."""
    num_consts, num_carry = scan_operands(eqn)
    avals = [v.aval for v in body.jaxpr.invars]
    names = ["carry"] * num_carry + ["scan_slice"] * (len(inputs) - num_consts - num_carry)
    fed = [
        _add_node(graph, name, eqn=eqn, inputs=[value], avals=[aval], here=here)[0]
        for name, value, aval in zip(names, inputs[num_consts:], avals[num_consts:], strict=True)
    ]
    ends = run(0, [*inputs[:num_consts], *fed])
    for value, end in zip(fed, ends[:num_carry], strict=False):
        assert value.maker is not None
        value.maker.inputs.append(end)
        end.users.append(value.maker)
    return [
        _add_node(graph, "scan_stack", eqn=eqn, inputs=[end], avals=[v.aval], here=here)[0]
        for end, v in zip(ends, eqn.outvars, strict=True)
    ]


def _add_shards(
    graph: Graph, eqn: core.JaxprEqn, *, body: core.ClosedJaxpr, inputs: list[Value], here: _Where, run: Any
) -> list[Value]:
    """One device stands for all: it has its part of what is sharded, and all of the rest."""

    def crossed(name: str, values: list[Value], *, specs: Sequence[Any], variables: Sequence[Any]) -> list[Value]:
        return [
            _add_node(
                graph,
                name,
                eqn=eqn,
                inputs=[value],
                avals=[variable.aval],
                here=here,
                params={"spec": tuple(spec), "mesh": mesh},
            )[0]
            if any(spec)
            else value
            for value, spec, variable in zip(values, specs, variables, strict=True)
        ]

    mesh = eqn.params["mesh"]
    parts = crossed("shard_in", inputs, specs=eqn.params["in_specs"], variables=body.jaxpr.invars)
    return crossed("shard_out", run(0, parts), specs=eqn.params["out_specs"], variables=eqn.outvars)


def _add_node(
    graph: Graph,
    name: str,
    *,
    eqn: core.JaxprEqn,
    inputs: list[Value],
    avals: list[Any],
    here: _Where,
    params: Any = None,
) -> list[Value]:
    node = Node(name, params or eqn.params, here.place, here.calls, here.of(eqn), [eqn], here.scopes)
    graph.nodes.append(node)
    known = all(value.known for value in inputs) and name not in OF_PARTS and not eqn.effects
    _join(node, inputs, [Value(aval, known=known) for aval in avals])
    return node.outputs


def _join(node: Node, inputs: list[Value], outputs: list[Value]) -> None:
    node.inputs.extend(inputs)
    node.outputs.extend(outputs)
    for value in inputs:
        value.users.append(node)
    for value in outputs:
        value.maker = node


def _add_to_region(graph: Graph, region: Node, *, eqn: core.JaxprEqn, inputs: list[Value], here: _Where) -> list[Value]:
    """Add one of its equations to a marked region, which is one node for them all."""
    if not region.outputs:
        region.place, region.calls, region.sources, region.scopes = here.place, here.calls, here.of(eqn), here.scopes
        graph.nodes.append(region)
    pairs = [(a, v) for a, v in zip(eqn.invars, inputs, strict=True) if v.maker is not region]
    region.eqns.append(eqn)
    region.params["places"].append(here.place)
    region.params["before"].extend(atom for atom, _ in pairs)
    region.params["after"].extend((here.place, variable) for variable in eqn.outvars)
    outputs = [Value(v.aval) for v in eqn.outvars]
    _join(region, [value for _, value in pairs], outputs)
    return outputs


def marked_regions(jaxpr: core.Jaxpr) -> dict[int, Node]:
    """{number of a marked equation: its region}; equations that feed each other under one mark are one region."""
    regions: dict[int, Node] = {}
    made_in: dict[core.Var, Node] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        name, scope = _mark_of(eqn)
        if name is None:
            continue
        fed_by = {made_in[a] for a in eqn.invars if not isinstance(a, core.Literal) and a in made_in}
        joined = [region for region in fed_by if region.params["scope"] == scope]
        region = (
            joined[0]
            if joined
            else Node(name, {"before": [], "after": [], "places": [], "scope": scope}, (), (), (eqn,), [])
        )
        regions[index] = region
        for other in joined[1:]:
            regions = {i: region if r is other else r for i, r in regions.items()}
            made_in = {v: region if r is other else r for v, r in made_in.items()}
        made_in.update(dict.fromkeys(eqn.outvars, region))
    return regions


def _mark_of(eqn: core.JaxprEqn) -> tuple[str | None, str]:
    """(the outermost mark around an equation, its scope, numbered by the call of the marked function)

    A transformation writes itself around a scope, as in vmap(scope).
    """
    scopes = re.findall(r"[\w.\-]+", str(eqn.source_info.name_stack))
    marks = [(re.sub(r"-\d+$", "", scope), scope) for scope in scopes]
    return next((mark for mark in marks if mark[0] in (SKIPPED, KEPT)), (None, ""))


def scopes_of(eqn: core.JaxprEqn, place: Place) -> tuple[Scope, ...]:
    """The scopes of an equation of the program at `place`; what a transformation writes, as vmap(), is none."""
    stack = getattr(eqn.source_info.name_stack, "stack", ())  # an object for each time a scope is entered
    return tuple(
        Scope(re.sub(_NUMBERED, r"\1", scope.name), (place, id(scope)))
        for scope in stack
        if type(scope).__name__ == "Scope"
    )


_NUMBERED = re.compile(rf"^({re.escape(SKIPPED)}|{re.escape(KEPT)})-\d+$")


def call_of(eqn: core.JaxprEqn) -> Call:
    """The function behind a call, and whether its file is one of JAX's ("relu at .../jax/_src/nn/functions.py:71")."""
    programs = programs_of(eqn)
    if not programs or eqn.primitive.name in ROUNDS_AND_BRANCHES:
        return Call(eqn.primitive.name, False)
    name, _, place = str(programs[0].jaxpr.debug_info.func_src_info).partition(" at ")
    name = eqn.params.get("name", name.split(".")[-1])
    return Call(str(name), place.startswith(_JAX))


class Flow(NamedTuple):
    """Values of a graph by how they depend on the floating arguments and act on the floating results."""

    varying: set[Value]  # depends on a floating argument, in whatever way
    carrying: set[Value]  # has a derivative by one
    fixed: set[Value]  # had one before `stop_gradient`
    wanted: set[Value]  # some result has a derivative by it
    arguments: dict[Value, int]  # the floating arguments that a value depends on, a bit for each
    joined: dict[tuple[Any, ...], bool]  # what `joins.is_joined` found, so that nothing is walked twice
    first: dict[Value, Value]  # of values that are computed in the same way the first, where `compositions` knows it

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
        return bool(self.arguments.get(value, 0) & self.arguments.get(other, 0))

    def steps_behind(self, value: Value) -> list[Node]:
        """Where a mask, or what is made of masks, leaves the values that carry a gradient."""

        def down(value: Value) -> list[Value]:
            return [v for v in value.maker.inputs if self.is_mask(v)] if value.maker is not None else []

        makers = [v.maker for v in reached([value], down) if v.maker is not None and self.is_mask(v)]
        steps = (node for node in makers if any(v in self.carrying or v in self.fixed for v in node.inputs))
        return sorted(steps, key=lambda node: node.place)


def flow_of(graph: Graph) -> Flow:
    """Follow the floating arguments up and the floating results down; integers and truth values carry no gradient."""
    inputs = [value for value in graph.inputs if is_inexact(value)]
    carrying = reached(inputs, _derived)
    stops = [node for node in graph.nodes if node.name == "stop_gradient" and node.inputs[0] in carrying]
    arguments = _arguments_of(graph, inputs)
    return Flow(
        varying=set(arguments),
        carrying=carrying,
        fixed=reached([v for node in stops for v in node.outputs], _derived),
        wanted=reached([value for value in graph.outputs if is_inexact(value)], _deriving),
        arguments=arguments,
        joined={},
        first={},
    )


def _arguments_of(graph: Graph, inputs: Sequence[Value]) -> dict[Value, int]:
    """{value: its arguments}, of what depends on any; once through the program, and again for scans."""
    arguments = {value: 1 << number for number, value in enumerate(inputs)}

    def bits_of(node: Node) -> int:
        return reduce(or_, (arguments.get(value, 0) for value in node.inputs), 0)

    carries = [node for node in graph.nodes if node.name == "carry"]
    changed = True
    while changed:
        for node in graph.nodes:
            bits = bits_of(node)
            arguments.update((value, bits) for value in node.outputs if bits and not value.known)
        changed = any(arguments.get(node.outputs[0], 0) != bits_of(node) for node in carries)
    return arguments


def reached(starts: Iterable[Value], follow: Callable[[Value], Iterable[Value]]) -> set[Value]:
    """All values that `follow` leads to from `starts`, these included."""
    values: set[Value] = set()
    waiting = list(starts)
    while waiting:
        value = waiting.pop()
        if value not in values:
            values.add(value)
            waiting.extend(follow(value))
    return values


def is_empty(value: Value) -> bool:
    """An array of no elements."""
    return 0 in getattr(value.aval, "shape", ())


def made_of(value: Value) -> list[Value]:
    """What a value is made of, without the empty arrays that `jnp.pad` joins along axes that it does not pad."""
    below = value.maker.inputs if value.maker is not None else []
    return below if is_empty(value) else [v for v in below if not is_empty(v)]


def makes(value: Value) -> list[Value]:
    """What is made of a value: the results of the operations that use it."""
    return [result for user in value.users for result in user.outputs]


def is_inexact(value: Value) -> bool:
    """Floating or complex: what a derivative can be taken of."""
    return jnp.issubdtype(getattr(value.aval, "dtype", jnp.int32), jnp.inexact)


def _derived(value: Value) -> list[Value]:
    made = [v for user in value.users if user.name != "stop_gradient" for v in user.outputs]
    return [v for v in made if is_inexact(v) and not v.known]


def _deriving(value: Value) -> list[Value]:
    maker = value.maker
    if maker is None or maker.name == "stop_gradient" or value.known:
        return []
    return [v for v in made_of(value) if is_inexact(v)]


def first_of_equals(graph: Graph) -> dict[Value, Value]:
    """{value: the first that the program computes in the same way}: what is asked for twice is written down twice."""
    keys: dict[Any, Value] = {value: value for value in graph.inputs}
    same = {value: value for value in graph.inputs}

    def of(value: Value) -> Any:
        if value in same:
            return same[value]
        if np.size(value.constant) == 1 and not isinstance(value.constant, jax.core.Tracer):
            return str(value.constant), str(value.aval)
        return id(value.constant) if value.constant is not None else value

    for node in graph.nodes:
        is_plain = node.name not in (*OF_PARTS, "cond", "while")
        key = (node.name, str(node.params), tuple(map(of, node.inputs))) if is_plain else (node,)
        for number, value in enumerate(node.outputs):
            same[value] = keys.setdefault((key, number), value)
    return same
