"""Where the layers of a program stand, and which of its bounds therefore bound the input.

A bound of the input, as max(images, 0) or clip((images - mean) / std, 0, 1), has certainly no layer beneath it and
certainly one above. What is certainly no layer is a list:

    of each number alone      casts, arithmetic with constants, powers, bounds; also of a value and its own mean
    moves                     turns, reshapes, pieces, borders, copies side by side; reads at places that are constants;
                              products with a constant matrix that holds one number for each result
    equal weights             sums, means, maxima, pools, and `jax.image.resize`

unless it adds up what was multiplied by different numbers, or makes several channels of one by such. That is a layer
for certain, as are convolutions and products of matrices. All the rest may be one: sums of shifted copies, Fourier
transforms, what a loop hands on. A ReLU stands above a layer for certain. A bound from both sides, as of pixels, may
also stand above one that mixes the image's few colours (grey, YUV) or filters each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from zfjax.anymodel.constants import constant_of, uniform
from zfjax.anymodel.graph import Flow, Graph, Node, Value, made_of, makes, reached
from zfjax.anymodel.rectifiers import SHAPES, is_square

# Make each number of the number that stands there, of one input or of several.
_OF_SEVERAL = frozenset(
    "add add_any sub mul div max min select_n clamp pow atan2 rem nextafter and or xor complex".split()
)
_OF_ONE = frozenset(
    "neg abs sign exp exp2 log log1p expm1 tanh logistic sqrt rsqrt cbrt square integer_pow sin cos erf erfc floor "
    "ceil round is_finite not convert_element_type reduce_precision stop_gradient optimization_barrier gt ge lt le "
    "eq ne celu elu gelu hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid mish selu sigmoid silu soft_sign "
    "signbit softplus sparse_plus sparse_sigmoid squareplus device_put real imag conj".split()
)
OF_EACH = _OF_SEVERAL | _OF_ONE | {"copy", "copy_p", "name", "pvary", "pcast"}

_COLOURS = 4  # at most, of pictures
_MATRICES = frozenset("dot_general conv_general_dilated ragged_dot ragged_dot_general while pallas_call".split())
_RESIZES = ("_resize", "_scale_and_translate", "_resize_nearest")
_MOVES = SHAPES - OF_EACH | frozenset(
    "pad concatenate split stack unstack scan_stack shard_out gather dynamic_slice dynamic_update_slice scatter".split()
)
_IN_PLACE = frozenset("rev slice pad concatenate gather dynamic_slice".split())  # axes stay, if they are as many
_RESTORED = frozenset("broadcast_in_dim reshape squeeze expand_dims".split())  # a mean, to stand beside what it is of
_POOLS = frozenset("reduce_window_sum reduce_window_max reduce_window_min".split())
_SUMS = frozenset("reduce_sum reduce_max reduce_min".split()) | _POOLS


class Layers(NamedTuple):
    """Where the layers of a program stand."""

    above: set[Value]  # what may be made with some
    surely: set[Value]  # what is certainly made with some
    features: set[Value]  # what is made with products that are more than mixtures of a few colours
    beneath: set[Value]  # which some are certainly applied to later
    size: int  # how many numbers the program is given


class _Made(NamedTuple):
    """What a value is made of, at least since the last layer."""

    base: Value | None = None  # the same places, or what was summed over some of them; None: it is the first itself
    axes: frozenset[int] = frozenset()  # along which it may be multiplied by different numbers
    summed: bool = False


class _Layer(NamedTuple):
    """A layer, or what may be one."""

    certain: bool


def layers_of(graph: Graph, flow: Flow) -> Layers:
    """Values by whether layers stand between the input and them, and between them and some result."""
    made = {value: _Made(value) for value in flow.varying.intersection(graph.inputs)}
    doubtful: list[Node] = []
    certain: list[Node] = []
    for node in graph.nodes:
        if not flow.varying.intersection(node.inputs):
            continue
        result = _made(node, made, flow)
        if isinstance(result, _Layer):
            doubtful.append(node)
            certain.extend([node] if result.certain else [])
            result = _Made()
        for value in node.outputs:
            made[value] = result if result.base is not None else result._replace(base=flow.first.get(value, value))
    return Layers(
        above=reached([v for n in doubtful for v in n.outputs], makes),
        surely=reached([v for n in certain for v in n.outputs], makes),
        features=reached([v for n in doubtful if _makes_features(n, flow) for v in n.outputs], makes),
        beneath=reached([v for node in certain for v in node.inputs if v in flow.varying], made_of),
        size=sum(value.aval.size for value in flow.varying.intersection(graph.inputs)),
    )


def bounds_the_input(value: Value, result: Value, layers: Layers) -> bool:
    """A layer is applied to the result, and none to what it is made of."""
    return value not in layers.above and result in layers.beneath


def may_bound_the_input(value: Value, result: Value, layers: Layers, *, from_both_sides: bool) -> bool:
    """A layer is applied to the result; what it is made of is a picture, by colours mixed or filtered at most."""
    is_picture = len(value.aval.shape) > 2 and value.aval.size <= layers.size
    made = layers.features if from_both_sides else layers.surely
    return is_picture and value not in made and result in layers.beneath


def _makes_features(node: Node, flow: Flow) -> bool:
    """A product that makes more than a few maps, or more than it reads."""
    if node.name not in _MATRICES:
        return False
    if node.name not in ("dot_general", "conv_general_dilated") or flow.varying.issuperset(node.inputs):
        return True
    read, maps = _maps_of(node, 0 if node.inputs[0] in flow.varying else 1)
    return maps > min(read, _COLOURS)


def _maps_of(node: Node, images: int) -> tuple[int, int]:
    """(colours that a product reads, maps that it makes)"""
    numbers = node.params["dimension_numbers"]
    if node.name == "conv_general_dilated":
        return node.inputs[0].aval.shape[numbers.lhs_spec[1]], node.outputs[0].aval.shape[numbers.out_spec[1]]
    contracted, batched = numbers
    read = math.prod(node.inputs[images].aval.shape[axis] for axis in contracted[images])
    weights = node.inputs[1 - images].aval
    return read, weights.size // math.prod(weights.shape[k] for k in (*contracted[1 - images], *batched[1 - images]))


def _made(node: Node, made: dict[Value, _Made], flow: Flow) -> _Made | _Layer:
    """What the results of a node are made of."""
    parts = [made[value] for value in node.inputs if value in made]
    if any(call.by_jax and call.name in _RESIZES for call in node.calls):
        return _Made(axes=_all_axes(node) if any(part.axes for part in parts) else frozenset())
    rule = _RULES.get(node.name)
    return _Layer(node.name in _MATRICES) if rule is None else rule(node, parts, flow)


def _each(node: Node, parts: list[_Made], flow: Flow) -> _Made | _Layer:
    if len({part.base for part in parts}) > 1:
        return _Layer(certain=False)
    uneven = _uneven_axes(node, flow)
    spread = {axis for value in node.inputs if value in flow.varying for axis in _copied_along(value, node)}
    if uneven & spread:
        return _Layer(certain=True)  # several channels of one
    return _Made(parts[0].base, uneven.union(*(part.axes for part in parts)), all(part.summed for part in parts))


def _uneven_axes(node: Node, flow: Flow) -> frozenset[int]:
    """The axes along which an operation multiplies by different numbers."""
    factors = {"mul": node.inputs, "div": node.inputs[1:], "select_n": node.inputs[:1]}.get(node.name, ())
    return frozenset(axis for value in factors if value not in flow.varying for axis in _axes_of_change(value))


def _axes_of_change(value: Value) -> set[int]:
    """The axes along which an array may hold different numbers."""
    if value.maker is not None and value.maker.name == "broadcast_in_dim":
        (below,), axes = value.maker.inputs[:1], value.maker.params["broadcast_dimensions"]
        return {axes[axis] for axis in _axes_of_change(below)}
    return set() if uniform(value) is not None else {k for k, size in enumerate(value.aval.shape) if size > 1}


def _copied_along(value: Value, node: Node) -> set[int]:
    """The axes along which an operation reads copies of one number of a value."""
    shape, given = node.outputs[0].aval.shape, value.aval.shape
    if value.maker is not None and value.maker.name == "broadcast_in_dim":
        below, axes = value.maker.inputs[0].aval.shape, value.maker.params["broadcast_dimensions"]
        given = [below[axes.index(axis)] if axis in axes else 1 for axis in range(len(given))]
    return {axis for axis, (own, size) in enumerate(zip(given, shape, strict=False)) if own < size}


def _moved(node: Node, parts: list[_Made], flow: Flow) -> _Made | _Layer:
    places = node.inputs[2 if node.name == "dynamic_update_slice" else 1 :]
    if node.name in ("gather", "dynamic_slice") and flow.varying.intersection(places):
        return _Layer(certain=False)
    (first, *others) = parts
    axes = _axes_above(node, first.axes.union(*(part.axes for part in others)), several=bool(others))
    if node.name in _RESTORED and first.summed:
        return first._replace(axes=axes)
    return _Made(axes=axes)


def _axes_above(node: Node, axes: frozenset[int], *, several: bool) -> frozenset[int]:
    """The axes of an input in the result of a move; all, where they may be any."""
    if node.name == "scan_stack":
        return frozenset({0, *(axis + 1 for axis in axes)})  # each round may multiply by a number of its own
    if not axes and not several:
        return axes
    if node.name == "transpose":
        return frozenset(node.params["permutation"].index(axis) for axis in axes)
    if node.name == "broadcast_in_dim":
        return frozenset(node.params["broadcast_dimensions"][axis] for axis in axes)
    if node.name in _IN_PLACE and len(node.inputs[0].aval.shape) == len(node.outputs[0].aval.shape):
        return axes | ({node.params["dimension"]} if several and node.name == "concatenate" else set())
    return _all_axes(node)


def _all_axes(node: Node) -> frozenset[int]:
    return frozenset(range(len(node.outputs[0].aval.shape)))


def _summed(node: Node, parts: list[_Made], flow: Flow) -> _Made | _Layer:
    (part, *_), windows = parts, node.params.get("window_dimensions")
    over = {axis for axis, size in enumerate(windows) if size > 1} if windows else set(node.params["axes"])
    if part.axes & over:
        return _Layer(certain=True)
    if windows:
        return _Made(axes=part.axes)
    kept = [axis for axis in range(len(node.inputs[0].aval.shape)) if axis not in over]
    return _Made(part.base, frozenset(kept.index(axis) for axis in part.axes), summed=True)


def _product(node: Node, parts: list[_Made], flow: Flow) -> _Made | _Layer:
    if is_square(node) and not parts[0].axes:
        return _Made(parts[0].base, summed=True)
    return _Made(axes=_all_axes(node)) if _reads_one(node, flow) else _Layer(certain=True)


def _reads_one(node: Node, flow: Flow) -> bool:
    """Every result is another number times a constant: a matrix that changes the order of channels, or scales each."""
    place = 1 if node.inputs[0] in flow.varying else 0
    numbers, (added, batched) = constant_of(node.inputs[place]), node.params["dimension_numbers"]
    if numbers is None or any(batched):
        return False
    own = tuple(added[place])
    holds = numbers != 0
    others = tuple(axis for axis in range(holds.ndim) if axis not in own)
    return bool((holds.sum(own) == 1).all() and (holds.sum(others) <= 1).all())


_RULES: dict[str, Callable[[Node, list[_Made], Flow], _Made | _Layer]] = {
    **dict.fromkeys(OF_EACH, _each),
    **dict.fromkeys(_MOVES, _moved),
    **dict.fromkeys(_SUMS, _summed),
    "dot_general": _product,
}
