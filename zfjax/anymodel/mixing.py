"""A model whose images look at each other is refused, with the lines where they do.

`batch` follows the axis of the images and names the lines. It knows images by axes only; where it has a doubt,
`origins` looks at every image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.extend import core

from zfjax.anymodel.batch import follow_batch, misplaced
from zfjax.anymodel.graph import Graph, Node, graph_of, is_inexact, module_of
from zfjax.anymodel.origins import are_alone
from zfjax.anymodel.tracing import source_line
from zfjax.errors import UserError


def check_alone(program: core.ClosedJaxpr, *, retraced: Callable[[Any], core.ClosedJaxpr]) -> None:
    """UserError where the images of a traced program look at each other, or may do so, naming the lines.

    Args:
      program: of images [B, ...].
      retraced: the shape and dtype of images -> the program for those. A batch of one image is judged as two are.
    """
    graph = graph_of(program, marks=False)
    if any(value.aval.shape[:1] != graph.inputs[0].aval.shape[:1] for value in graph.outputs):
        return  # no features of each image
    words = _doubt(graph)
    if words and not _is_proven(program, retraced):
        raise UserError(words)


def _is_proven(program: core.ClosedJaxpr, retraced: Callable[[Any], core.ClosedJaxpr]) -> bool:
    images = program.in_avals[0]
    if images.shape[0] > 1:
        return are_alone(program)
    try:
        return are_alone(retraced(jax.ShapeDtypeStruct((2, *images.shape[1:]), images.dtype)))
    except Exception:  # noqa: BLE001 - whatever a model says of two images
        return False


def _doubt(graph: Graph) -> str:
    """Words for what the axes of the images leave open; none where they leave nothing."""
    batch = follow_batch(graph)
    if batch.mixes:
        return (
            "on_mixing='error': images look at each other, so the picture of one would be made of others' units too\n"
            + _listed(_line(node) + f": {reason}" for node, reason in batch.mixes)
            + "".join(dict.fromkeys(words for node, _ in batch.mixes for words in _advice(node)))
            + "\nOr project one image at a time, or allow it with on_mixing='keep'"
        )
    if batch.losses:
        return (
            "on_mixing='error': the batch cannot be followed, so that images may look at each other unseen, through\n"
            + _listed(map(_line, batch.losses))
            + ("\n" + _WHILE) * any(node.name == "while" for node in batch.losses)
            + "\nWhere each image is looked at by itself, on_mixing='keep' allows it"
        )
    for value in graph.outputs:
        where = misplaced(batch, value)
        if where:
            shape = tuple(value.aval.shape)
            return f"fn returns {shape} with the images {where}: features [B, ...] are needed"
    return ""


_TRAINED = (
    "\nBatch norm in training mode? Let it use its running averages (model.eval() of NNX, use_running_average=True of "
    "Linen, training=False of Keras, is_training=False of Haiku, eqx.nn.inference_mode)"
)
_COUNTED = (
    "\nA loop over the images? The round that writes an image must read that image alone, at places that the program "
    "itself counts; jax.vmap and jax.lax.map take the images one by one"
)
_WHILE = "A while loop has no derivative going down; lax.fori_loop with bounds that are numbers, or lax.scan, has one"


def _advice(node: Node) -> tuple[str, ...]:
    """Words for one that mixes: a loop's round that reads or writes some of the images, or hands on what it made."""
    in_loop = any(call.name == "scan" and not call.by_jax for call in node.calls)
    if in_loop and node.name in _AT_PLACES:
        return (_COUNTED,)
    return (_TRAINED, _COUNTED) if node.name == "carry" else (_TRAINED,)


_AT_PLACES = ("dynamic_slice", "dynamic_update_slice", "gather", "scatter", "scatter-add")


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(dict.fromkeys(lines))


def _line(node: Node) -> str:
    aval = next((value for value in node.inputs if is_inexact(value)), node.inputs[0]).aval
    module = module_of(node)
    place = f"{module}, " * bool(module) + source_line(node.sources)
    return f"  {node.name} of {aval.dtype}{list(aval.shape)} at {place}"
