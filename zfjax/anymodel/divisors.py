"""Norms that divide by next to nothing, as below ReLUs that are all off: their pictures are huge there.

h / max(norm(h), 1e-6) of features that are all 0 multiplies what comes down by 1e6. On the way up nothing comes of it.
JAX's gradient and guided backpropagation pass nothing through a ReLU that is off, but the deconvnet does: so a few dead
places may be all that is visible of a picture. The numbers are the model's own; nothing is changed, and it is said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.anymodel.graph import ROUNDS_AND_BRANCHES, Graph, Node, Value, graph_of
from zfjax.anymodel.names import Target, values_at
from zfjax.anymodel.norms import is_divisor
from zfjax.anymodel.tracing import source_line, traced
from zfjax.anymodel.verdicts import facts_of, is_activation
from zfjax.errors import warn

_LARGE = 100.0  # times what a picture starts from, from where on its model is looked at
_NEXT_TO_NOTHING = 1e-3  # of the largest divisor of its norm, or of 1


def warn_of_small_divisors(
    fn: Callable[[jax.Array], Any], images: jax.Array, *, pixels: jax.Array, top: jax.Array
) -> None:
    """Warns where pictures are huge and a norm divides by next to nothing; says nothing of traced arrays.

    Args:
      fn: images -> features, as `project_fn` looks at them.
      images: what it reads.
      pixels: the pictures.
      top: what they start from.
    """
    if any(isinstance(array, jax.core.Tracer) for array in (images, pixels, top)) or not pixels.size or not top.size:
        return
    size = float(jnp.abs(pixels).max()) / (float(jnp.abs(top).max()) or 1.0)
    if not size > _LARGE:
        return
    program, _ = traced(fn, (images,), {})
    divisors = _divisors(graph_of(program, opaque=is_activation))
    if not divisors:
        return
    values = values_at(program, jax.tree.leaves(images), {target for target, _ in divisors.values()})
    lines = []
    for node, (target, is_squared) in divisors.items():
        divisor = np.abs(np.asarray(values[target], np.float64))
        divisor = np.sqrt(divisor) if is_squared else divisor
        smallest = float(divisor.min(initial=np.inf))
        if smallest < 1.01 * _NEXT_TO_NOTHING * max(divisor.max(initial=0.0), 1.0):
            places = f"{int((divisor < 2 * smallest).sum())} of {divisor.size} places"
            lines.append(f"{node.name} at {source_line(node.sources)}: by {smallest:.2g} at {places}")
    if lines:
        warn(
            f"a picture is up to {size:.2g} times what it starts from: a norm of fn divides by next to nothing\n  "
            + "\n  ".join(dict.fromkeys(lines))
            + "\nThere nearly nothing came up, as from ReLUs that are all off, and what comes down is multiplied all "
            "the same. zfjax.skipped_on_the_way_down(norm) hands it on as it is"
        )


def _divisors(graph: Graph) -> dict[Node, tuple[Target, bool]]:
    """{quotient or reciprocal root of a norm: (what it divides by, whether that is to be under a root)}"""
    facts = facts_of(graph)
    divisors: dict[Node, tuple[Target, bool]] = {}
    for node in graph.nodes:
        operand = _OPERANDS.get(node.name)
        if operand is None or not facts.flow.passes(node) or not is_divisor(node.inputs[operand], kinds=facts.kinds):
            continue
        target = _target_of(node.inputs[operand])
        if target is not None:
            divisors[node] = target, node.name == "rsqrt"
    return divisors


_OPERANDS = {"div": 1, "rsqrt": 0}


def _target_of(value: Value) -> Target | None:
    """Where a program makes a value; None in loops and branches."""
    node = value.maker
    if node is None or len(node.eqns) != 1 or node.eqns[0].primitive.name != node.name:
        return None
    if any(call.name in ROUNDS_AND_BRANCHES and not call.by_jax for call in node.calls):
        return None
    return node.place, node.outputs.index(value)
