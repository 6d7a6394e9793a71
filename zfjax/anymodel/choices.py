"""What becomes of operations that no rule covers, by their name or by the path of their module.

    on_unknown={"*/se/*": "keep", "gelu": as_relu}

A pattern with a slash is one of paths: of the named scopes around an operation, as modules leave them, joined by
slashes, and its name after them. Any other is one of names: of the operation, of a function that stands as a call in
the program around it, of JAX's own activation that it is a line of, or of a scope around it. The first fit counts.

A rule of your own is for all that a pattern finds at one place together, where that takes one array to one of its
shape: a call of `silu`, the lines of `gelu`, a module. Otherwise it is for each operation that does so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import jax
from jax.extend import core

from zfjax.anymodel.graph import INNER, OF_PARTS, Call, Flow, Graph, Node, Scope, Value, graph_of, module_of
from zfjax.anymodel.interpreter import Backward, Region
from zfjax.anymodel.ready import elu_rule, leaky_relu_rule, prelu_rule
from zfjax.anymodel.verdicts import Verdict, is_activation, region_of
from zfjax.errors import UserError
from zfjax.ops import SKIPPED

Choice = Literal["keep", "gradient", "error"] | Backward
OnUnknown = Literal["error", "keep"] | Mapping[str, Choice] | tuple[tuple[str, Choice], ...]
Pairs = list[tuple[Node, Verdict]]
_NN = os.path.join(jax.__path__[0], "_src", "nn", "functions.py")


class Choices(NamedTuple):
    """`on_unknown` as it is asked."""

    otherwise: str  # "error" or "keep", where no pattern fits
    patterns: tuple[tuple[str, Choice], ...] = ()
    checked: bool = False  # each fits something in a larger program, of which this is a part

    def is_whole(self, call: Call) -> bool:
        """A call is to be one operation, to which a rule is given as a whole."""
        return is_activation(call) or any(
            callable(choice) and "/" not in pattern and fnmatchcase(call.name, pattern)
            for pattern, choice in self.patterns
        )


def choices_of(on_unknown: OnUnknown | Choices) -> Choices:
    """Checks what is asked for; UserError for anything else."""
    if isinstance(on_unknown, Choices):
        return on_unknown
    if isinstance(on_unknown, str) and on_unknown in ("error", "keep"):
        return Choices(on_unknown)
    if not isinstance(on_unknown, Mapping | tuple):
        raise UserError(f"on_unknown={on_unknown!r}: one of 'error', 'keep' is needed, or {_MAPPING}")
    patterns: tuple[Any, ...] = tuple(on_unknown.items() if isinstance(on_unknown, Mapping) else on_unknown)
    for pair in patterns:
        pattern, choice = pair if isinstance(pair, tuple) and len(pair) == 2 else (None, pair)
        if not isinstance(pattern, str) or not (callable(choice) or choice in ("keep", "gradient", "error")):
            raise UserError(f"on_unknown={{{pattern!r}: {choice!r}}}: {_MAPPING} is needed")
        if choice in (leaky_relu_rule, prelu_rule, elu_rule):
            name = choice.__name__
            raise UserError(f"on_unknown={{{pattern!r}: {name}}}: it makes a rule, as in zfjax.{name}(0.1)")
    return Choices("error", patterns)


_MAPPING = (
    "a mapping of names or module paths to 'keep', 'gradient' (the same), 'error' or a rule (incoming, x) -> outgoing"
)


def checked_in(program: core.ClosedJaxpr, choices: Choices) -> Choices:
    """The choices for a part of a program; UserError for a pattern that nothing in the whole fits."""
    graph = graph_of(program, opaque=choices.is_whole)
    _check_patterns(choices, {pattern for node in graph.nodes for pattern in _fits(node, choices)}, graph.nodes)
    return choices._replace(checked=True)


def chosen(verdicts: Pairs, graph: Graph, *, flow: Flow, choices: Choices) -> Pairs:
    """The verdicts after the choices are made; UserError for a pattern that nothing in the program fits."""
    if not choices.patterns:
        return verdicts
    fits = {node: _fits(node, choices) for node in graph.nodes}
    if not choices.checked:
        without = [node for node, verdict in verdicts if verdict.rule == "unclassified"]
        _check_patterns(choices, {pattern for given in fits.values() for pattern in given}, without)
    given = dict(verdicts)
    unknown = [node for node, verdict in verdicts if verdict.rule == "unclassified" and node.name != SKIPPED]
    first = {node: next(((p, c) for p, c in choices.patterns if p in fits[node]), None) for node in graph.nodes}
    for node in unknown:
        pair = first[node]
        if pair is not None and pair[1] in ("keep", "gradient"):
            given[node] = Verdict("own gradient", f"on_unknown says so for {pair[0]!r}")
    for pattern, choice in choices.patterns:
        if callable(choice):
            members = {node: fits[node][pattern] for node, pair in first.items() if pair and pair[0] == pattern}
            for group in _groups(members):
                if group.intersection(unknown):
                    _give(given, group, unknown=unknown, pattern=pattern, rule=choice, flow=flow, graph=graph)
    return sorted(given.items(), key=lambda pair: pair[0].place)


def _check_patterns(choices: Choices, fitting: set[str], among: Iterable[Node]) -> None:
    for pattern, _ in choices.patterns:
        if pattern not in fitting:
            paths = sorted({f"{module_of(node)}/{node.name}".lstrip("/") for node in among})
            listed = ", ".join(paths[:20]) + (", ..." if len(paths) > 20 else "") or "none"
            raise UserError(f"on_unknown={{{pattern!r}: ...}} fits no operation of fn; it may be one of: {listed}")


def _fits(node: Node, choices: Choices) -> dict[str, object]:
    """{pattern that fits: what tells one place where it does from another}"""
    names = names_of(node)
    fitting: dict[str, object] = {}
    for pattern, _ in choices.patterns:
        if "/" not in pattern:
            if any(fnmatchcase(name, pattern) for name in names):
                fitting[pattern] = node.place if _is_call(node) else ()
            else:
                scope = next((s for s in node.scopes if fnmatchcase(s.name, pattern)), None)
                fitting.update({pattern: scope.entered} if scope is not None else {})
        else:
            entered = _entered(node.scopes, names, pattern)
            fitting.update({pattern: entered} if entered is not None else {})
    return fitting


def _is_call(node: Node) -> bool:
    return len(node.eqns) == 1 and node.eqns[0].primitive.name in INNER and node.name not in (*OF_PARTS, "cond")


def _entered(scopes: tuple[Scope, ...], names: Iterable[str], pattern: str) -> object | None:
    """What tells the module of a path that fits; None where none does."""
    path = ""
    for scope in scopes:
        path = f"{path}/{scope.name}"
        if any(fnmatchcase(text, pattern) for text in (path, path[1:], path + "/", path[1:] + "/")):
            return scope.entered
    if any(fnmatchcase(text, pattern) for name in names for text in (f"{path}/{name}", f"{path}/{name}"[1:])):
        return ()
    return None


def names_of(node: Node) -> set[str]:
    """What an operation may be called: its own name, those of the calls around it, and of JAX's activation."""
    return {node.name, *(call.name for call in node.calls), *(frame for frame, _ in _lines_in_jax(node))}


def _lines_in_jax(node: Node) -> list[tuple[str, int]]:
    """(function, line) of JAX's own activations that a node stands in."""
    frames = [f for eqn in node.eqns for f in getattr(eqn.source_info.traceback, "frames", ())]
    return [(frame.function_name.split(".")[-1], frame.line_num) for frame in frames if frame.file_name == _NN]


def _groups(members: Mapping[Node, object]) -> list[set[Node]]:
    """Those that read each other's results, at one place."""
    groups: list[set[Node]] = []
    waiting = dict(members)
    while waiting:
        start = next(iter(waiting))
        place = waiting.pop(start)
        group, open_ends = {start}, [start]
        while open_ends:
            node = open_ends.pop()
            beside = [v.maker for v in node.inputs if v.maker is not None] + [u for v in node.outputs for u in v.users]
            for other in beside:
                if other in waiting and waiting[other] == place:
                    del waiting[other]
                    group.add(other)
                    open_ends.append(other)
        groups.append(group)
    return groups


def _give(
    verdicts: dict[Node, Verdict],
    group: set[Node],
    *,
    unknown: list[Node],
    pattern: str,
    rule: Callable[..., Any],
    flow: Flow,
    graph: Graph,
) -> None:
    """Put the rule where it goes down: through the group as a whole, or through each operation without one."""
    if _is_twice(group):
        raise UserError(f"on_unknown's rule for {pattern!r}: two of them stand one above the other, and cannot be told")
    if _as_a_whole(verdicts, group, pattern=pattern, rule=rule, flow=flow, graph=graph):
        return
    for node in group.intersection(unknown):
        if not _as_a_whole(verdicts, {node}, pattern=pattern, rule=rule, flow=flow, graph=graph):
            reads = [v for v in node.inputs if v in flow.carrying]
            shapes = ", ".join(str(v.aval.str_short()) for v in reads)
            raise UserError(
                f"on_unknown's rule for {pattern!r} at {node.name}, which makes {node.outputs[0].aval.str_short()} of "
                f"{shapes}: one array of one of its shape is needed. Name the whole activation, or 'keep' this"
            )


def _as_a_whole(
    verdicts: dict[Node, Verdict], group: set[Node], *, pattern: str, rule: Backward, flow: Flow, graph: Graph
) -> bool:
    entries = dict.fromkeys(v for n in group for v in n.inputs if v in flow.carrying and v.maker not in group)
    exits = [
        v for n in group for v in n.outputs if v in flow.carrying and v in flow.wanted and _leaves(v, group, graph)
    ]
    if len(entries) != 1 or len(exits) != 1:
        return False
    ((before,), (after,)) = (tuple(entries), exits)
    ends = region_of(before, after)
    if (before.aval.shape, before.aval.dtype) != (after.aval.shape, after.aval.dtype) or ends is None:
        return False
    for node in group:
        verdicts.pop(node, None)
    place, argument, result = ends
    assert after.maker is not None
    change = Region(argument, result, backward=rule)
    verdicts[after.maker] = Verdict("given rule", f"on_unknown's rule for {pattern!r}", place, change)
    return True


def _leaves(value: Value, group: set[Node], graph: Graph) -> bool:
    return value in graph.outputs or any(user not in group for user in value.users)


def _is_twice(group: set[Node]) -> bool:
    """An activation of JAX right above itself: two are not one."""
    lines = Counter(
        (n.name, *_lines_in_jax(n)) for n in group if _lines_in_jax(n) and n.name in ("tanh", "erf", "erfc")
    )
    return any(count > 1 for count in lines.values())
