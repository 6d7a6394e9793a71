"""What a program does from one of its layers to the next: its operations in words, and how many weights they have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import numpy as np

from zfjax.anymodel.constants import uniform
from zfjax.anymodel.graph import Call, Node, Place, Value, first_of_equals, graph_of, made_of, makes, reached
from zfjax.anymodel.tracing import in_order, traced
from zfjax.anymodel.weights import OF_EACH

_NAMED = frozenset(  # functions of jax.nn and jax.numpy that are one step, whatever they are made of
    "relu relu6 leaky_relu elu celu selu gelu silu swish mish glu hard_tanh hard_sigmoid hard_silu hard_swish sigmoid "
    "log_sigmoid softplus soft_sign squareplus softmax log_softmax logsumexp tanh".split()
)
_CALLED = {"silu": "SiLU", "swish": "SiLU", "relu": "ReLU", "relu6": "ReLU6", "gelu": "GELU", "elu": "ELU"}


class Between(NamedTuple):
    """What makes a layer of those below it."""

    reads: tuple[str, ...]  # the layers that it is made of; () where it is made of the images
    steps: tuple[str, ...]  # in the order of the program: "conv 3x3, stride 2", "ReLU", "2 x matrix"
    num_weights: int  # numbers in the arrays that they take beside the layers; those of other layers may be among them


def between_layers(
    fn: Callable[[jax.Array], Mapping[str, jax.Array]], layers: Sequence[str], *, shape: tuple[int, ...], dtype: Any
) -> tuple[dict[str, Between], int]:
    """({layer: what makes it}, numbers in all arrays that the layers take).

    Args:
      fn: images [B, H, W, C] -> {layer: features}; the parameters are inside.
      layers: from the image up.
      shape: (H, W, C).
      dtype: of the images.
    """
    images = jax.ShapeDtypeStruct((1, *shape), dtype)

    program, _ = traced(in_order(fn, layers), (images,), {})
    graph = graph_of(program, marks=False)
    same = first_of_equals(graph)
    varying = reached(graph.inputs, makes)

    def below_of(value: Value, stops: Mapping[Value, str]) -> list[Value]:
        if value.maker is None or value in stops:
            return []
        return [same[operand] for operand in value.maker.inputs if operand in varying and operand in same]

    made, every = {}, {}
    below: dict[Value, str] = {}
    for layer, value in zip(layers, (same[value] for value in graph.outputs), strict=True):
        stops = {other: name for other, name in below.items() if other is not value}
        inside = reached([value], partial(below_of, stops=stops))
        makers = {v.maker for v in inside if v not in stops}
        nodes = [node for node in graph.nodes if node in makers]
        weights = _weights_of(nodes, varying)
        every.update(weights)
        reads = tuple(dict.fromkeys(name for v, name in stops.items() if v in inside))
        made[layer] = Between(reads, _steps_of(nodes, varying), sum(weights.values()))
        while value not in below:  # what the layer's axes were turned of is the layer, too
            below[value] = layer
            if value.maker is None or value.maker.name not in _MOVES or value.maker.inputs[0] in graph.inputs:
                break
            value = same[value.maker.inputs[0]]
    return made, sum(every.values())


def in_program_order(
    fn: Callable[[jax.Array], Mapping[str, jax.Array]], layers: Sequence[str], *, shape: tuple[int, ...], dtype: Any
) -> tuple[str, ...]:
    """The layers in the order in which the program makes them: the arguments are those of `between_layers`."""
    program, _ = traced(in_order(fn, layers), (jax.ShapeDtypeStruct((1, *shape), dtype),), {})
    places = dict(zip(layers, map(_place_of, graph_of(program, marks=False).outputs), strict=True))
    return tuple(sorted(layers, key=places.__getitem__))


def _place_of(value: Value) -> Place:
    """Where the program makes a value, not where it turns its axes."""
    while value.maker is not None and value.maker.name in _MOVES:
        value = value.maker.inputs[0]
    return () if value.maker is None else value.maker.place


_MOVES = ("transpose", "reshape", "squeeze", "broadcast_in_dim", "convert_element_type", "copy", "copy_p")


def _weights_of(nodes: Sequence[Node], varying: set[Value]) -> dict[int, int]:
    """{what tells an array of the model from others: its numbers} of those that the nodes take."""
    taken = [value for node in nodes for value in node.inputs if value not in varying]
    beneath = reached(taken, made_of)
    return {
        id(value.constant): int(np.size(value.constant))
        for value in beneath
        if value.maker is None and np.size(value.constant) > 1
    }


def _steps_of(nodes: Sequence[Node], varying: set[Value]) -> tuple[str, ...]:
    """The operations in words, those that follow each other counted."""
    words: dict[Any, str] = {}
    for node in nodes:
        depth, call = _named_call(node)
        if call is not None:
            words.setdefault(node.place[: 2 * depth + 1], _CALLED.get(_plain(call), _plain(call).replace("_", " ")))
        elif (word := _word_of(node, varying)) is not None:
            words[node.place] = word
    groups = [(word, len(list(some))) for word, some in groupby(words.values())]
    return tuple(word if num == 1 else f"{num} x {word}" for word, num in groups)


def _named_call(node: Node) -> tuple[int, Call | None]:
    """(how deep, the outermost call around a node of a function of JAX's that is one step)."""
    return next(
        ((depth, call) for depth, call in enumerate(node.calls) if call.by_jax and _plain(call) in _NAMED), (0, None)
    )


def _plain(call: Call) -> str:
    return call.name.lstrip("_")


def _word_of(node: Node, varying: set[Value]) -> str | None:
    """An operation in words; None of what only prepares others."""
    word = _WORDS.get(node.name)
    return None if word is None or varying.isdisjoint(node.inputs) else word(node, varying)


def _conv(node: Node, varying: set[Value]) -> str:
    given = node.params
    kernel = [node.inputs[1].aval.shape[axis] for axis in given["dimension_numbers"].rhs_spec[2:]]
    groups = given["feature_group_count"]
    words = ["conv " + _by(kernel), _stride(given["window_strides"])]
    words += [f"{groups} groups"] if groups > 1 else []
    words += [f"dilated by {_by(given['rhs_dilation'])}"] if set(given["rhs_dilation"]) != {1} else []
    words += ["transposed"] if set(given["lhs_dilation"]) != {1} else []
    return ", ".join(filter(None, words))


def _dot(node: Node, varying: set[Value]) -> str:
    return "matrix" if len(varying.intersection(node.inputs)) == 1 else "product"


def _pool(kind: str) -> Callable[[Node, set[Value]], str | None]:
    def words(node: Node, varying: set[Value]) -> str | None:
        sides = [k for k, size in enumerate(node.params["window_dimensions"]) if size > 1]
        if len(sides) < 2:  # along the channels: part of a norm
            return "norm over neighbouring maps" if sides else None
        size, stride = ([node.params[name][k] for k in sides] for name in ("window_dimensions", "window_strides"))
        return ", ".join(filter(None, (f"{kind} {_by(size)}", _stride(stride))))

    return words


def _reduced(kind: str) -> Callable[[Node, set[Value]], str | None]:
    def words(node: Node, varying: set[Value]) -> str | None:
        sides = [axis for axis in node.params["axes"] if node.inputs[0].aval.shape[axis] > 1]
        return f"{kind} over places" if len(sides) == 2 and len(node.inputs[0].aval.shape) == 4 else None

    return words


def _larger(node: Node, varying: set[Value]) -> str | None:
    """A maximum: with zero it is a ReLU."""
    others = [value for value in node.inputs if value not in varying]
    near = set(node.outputs)
    for _ in range(5):  # turned, spread, a small number added
        users = [user for value in near for user in value.users]
        if any(user.name in ("rsqrt", "sqrt") for user in users):
            return None  # a variance that is kept from falling below zero, in a norm
        near = {value for user in users if user.name in (*_MOVES, "add") for value in user.outputs}
    return "ReLU" if others and uniform(others[0]) == 0 else "maximum of features" if not others else None


def _sum(node: Node, varying: set[Value]) -> str | None:
    """A sum of what was made in different ways; x + x ** 3, as in a GELU, is none."""
    inputs = [value for value in node.inputs if value in varying]
    alike = len({value.aval.shape for value in inputs}) == 1 and math.prod(node.outputs[0].aval.shape) > 1
    is_sum = len(set(inputs)) == 2 and alike and _roots(inputs[0], varying) != _roots(inputs[1], varying)
    return "sum of branches" if is_sum else None


def _beside(node: Node, varying: set[Value]) -> str | None:
    return "side by side" if len({value for value in node.inputs if value in varying}) > 1 else None


def _gate(alone: str, gating: str) -> Callable[[Node, set[Value]], str]:
    """A function that bends: alone, or multiplied with what it is made of."""

    def words(node: Node, varying: set[Value]) -> str:
        roots, value = _roots(node.inputs[0], varying), node.outputs[0]
        for _ in range(4):  # 0.5 * x * (1 + tanh(...)) in any order
            users = [user for user in value.users if user.name in OF_EACH]
            if len(users) != 1:
                break
            others = [other for other in users[0].inputs if other is not value and other in varying]
            if users[0].name == "mul" and others and _roots(others[0], varying) == roots:
                return gating
            value = users[0].outputs[0]
        return alone

    return words


def _share(node: Node, varying: set[Value]) -> str | None:
    """exp(x) over its own sum."""
    numerator, denominator = node.inputs
    above = numerator.maker
    sums = {value.maker.name for value in reached([denominator], _copied) if value.maker is not None}
    return "softmax" if above is not None and above.name == "exp" and "reduce_sum" in sums else None


def _copied(value: Value) -> list[Value]:
    moved = value.maker is not None and value.maker.name in _MOVES
    return list(value.maker.inputs) if moved and value.maker is not None else []


def _log(node: Node, varying: set[Value]) -> str | None:
    """The logarithm of a sum of exp(x)."""
    summed = node.inputs[0].maker
    of = summed.inputs[0].maker if summed is not None and summed.name == "reduce_sum" else None
    return "log softmax" if of is not None and of.name == "exp" else None


def _roots(value: Value, varying: set[Value]) -> set[Value]:
    """What a value is made of, number by number."""

    def below(value: Value) -> list[Value]:
        if value.maker is None or value.maker.name not in OF_EACH:
            return []
        return [operand for operand in value.maker.inputs if operand in varying]

    return {of for of in reached([value], below) if not below(of)}


def _stride(strides: Sequence[int]) -> str:
    return "" if set(strides) <= {1} else f"stride {strides[0] if len(set(strides)) == 1 else _by(strides)}"


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


_WORDS: dict[str, Callable[[Node, set[Value]], str | None]] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "reduce_window_max": _pool("max"),
    "reduce_window_sum": _pool("mean"),
    "reduce_sum": _reduced("mean"),
    "reduce_max": _reduced("max"),
    "max": _larger,
    "tanh": _gate("tanh", "GELU"),
    "erf": _gate("erf", "GELU"),
    "erfc": _gate("erfc", "GELU"),
    "logistic": _gate("sigmoid", "SiLU"),
    "div": _share,
    "log": _log,
    "add": _sum,
    "concatenate": _beside,
    "scan": lambda node, varying: "loop",
    "while": lambda node, varying: "loop",
}
