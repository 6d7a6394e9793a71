"""The coverage report: every operation that is not linear in a program's input, and what the way back does there."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.extend import core

from zfjax.jaxpr_flow import flow_of, is_inexact
from zfjax.jaxpr_graph import Graph, Node
from zfjax.relu_norms import kinds_of
from zfjax.relu_table import STEP, Verdict, classify

# Their files are passed over on the way from an operation to the line of the model that asked for it.
_FRAMEWORKS = ("jax", "flax", "haiku", "equinox", "jaxtyping")
_DECORATORS = (contextlib.__file__, functools.__file__)  # likewise: what wraps a call in others
_MARKS = str(pathlib.Path(__file__).with_name("relu_rules.py"))
TRACED = "_model"  # the function in it that calls the model


class Operation(NamedTuple):
    """One operation, and what the way back does there."""

    operation: str  # the primitive, and the function that it stands in
    shape: str  # type and shape of what it gives, "float32[2,12,12,8]"
    source: str  # "file:line"
    rule: str  # "rectifier" for the rule itself, "own gradient", "skipped", "inlined" or "unclassified"
    reason: str


class Report(tuple[Operation, ...]):
    """The operations in the order of the program; prints as a table."""

    def __str__(self) -> str:
        lines = [Operation(*Operation._fields), *self]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def verdicts_of(graph: Graph) -> list[tuple[Node, Verdict]]:
    """Every operation that is not linear in the input, and every function with a derivative of its own."""
    flow = flow_of(graph)
    kinds = kinds_of(graph, flow)
    found: dict[object, tuple[Node, Verdict]] = {}
    for node in graph.nodes:
        verdict = classify(node, flow, kinds) if flow.passes(node) else None
        if verdict is not None:
            found.setdefault((node.place, verdict.rule), (node, verdict))  # the results of one cond are one operation
    steps = [step for v in graph.outputs if is_inexact(v) and flow.is_mask(v) for step in flow.steps_behind(v)]
    found.update({step.place: (step, STEP) for step in steps})
    touched = [verdict.place for _, verdict in found.values() if verdict.step is not None]
    custom = []
    for node in graph.custom:
        if flow.passes(node) and not node.calls[-1].by_jax:  # of JAX's own it goes without saying
            inlined = any(place[: len(node.place)] == node.place for place in touched)
            custom.append((node, _INLINED if inlined else _UNTOUCHED))
    return sorted([*found.values(), *custom], key=lambda pair: pair[0].place)


_INLINED = Verdict("inlined", "its own derivative gives way to the rules of what it computes")
_UNTOUCHED = Verdict("own gradient", "its own derivative: nothing in it follows the rule")


def report_of(verdicts: Iterable[tuple[Node, Verdict]]) -> Report:
    """The verdicts as lines for a person."""
    return Report(
        Operation(_operation(node), _shape(node), source_line(node.sources), verdict.rule, verdict.reason)
        for node, verdict in verdicts
    )


def source_line(sources: Sequence[core.JaxprEqn]) -> str:
    """The model's line that asked for an equation, "file:line": the innermost outside JAX and the frameworks on top.

    Where the model is made of a framework's parts alone it is the framework's line; "unknown" where there is none.

    Args:
      sources: the equation, and the calls that it stands in from the inside out, which have lines of their own.
    """
    frames = [frame for eqn in sources for frame in _frames_in_model(eqn)]
    for frameworks in (_FRAMEWORKS, _FRAMEWORKS[:1]):
        paths = [path for name in frameworks for path in getattr(sys.modules.get(name), "__path__", ())]
        folders = (*(path + os.sep for path in paths), *_DECORATORS, _MARKS)
        for frame in frames:
            if not frame.file_name.startswith(folders):
                return f"{_short(frame.file_name)}:{frame.line_num}"
    return "unknown"


def _frames_in_model(eqn: core.JaxprEqn) -> Iterator[Any]:
    """The frames of an equation from the inside out, up to where `relu_rules` traces the model."""
    for frame in getattr(eqn.source_info.traceback, "frames", ()):
        if frame.file_name == _MARKS and TRACED in frame.function_name:
            return
        yield frame


def _short(file: str) -> str:
    path, here = pathlib.Path(file), pathlib.Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _operation(node: Node) -> str:
    call = next((call.name for call in reversed(node.calls) if call.name.isidentifier()), None)
    return node.name if call in (None, node.name) else f"{node.name} in {call}"


def _shape(node: Node) -> str:
    aval = ([value for value in node.outputs if is_inexact(value)] or node.outputs)[-1].aval
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]"
