"""What a selection compares: one map's values at several places, or an activation written as a selection.

Selections may compare what one input makes: a rectifier by max(stack([x, 0])), leaky by max(stack([x, 0.1 * x])).
Max-pooling compares one map's values at several places. Where a value was joined, by concatenation, padding or
writing, to a constant or to another function of the same value, and the join lies along an axis that the selection
compares, it may be an activation instead. Zeros beside what a rectifier gives are harmless: nothing lies below them.

A maximum of two is a selection too, and has the verdict of the same selection among a stack: where both are pieces of
one map, or maps of different weights (maxout, a pool across maps), it is a pool. Where an element may meet itself, as
in leaky or beside its own mean, with no weights between, it may be an activation.

A constant border is an activation where every window meets it. Where some window lies within the map, the selection is
a pool, as of a map padded with zeros in Keras: the border passes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from zfjax.anymodel.constants import constant_of, uniform
from zfjax.anymodel.graph import Flow, Node, Value, is_inexact, reached
from zfjax.anymodel.pointwise import adds_few
from zfjax.anymodel.rectifiers import SHAPES, rectified_operand

Axes = frozenset[int] | set[int] | None  # None: any axis, as after a reshape

_ELEMENTWISE = frozenset(
    "add add_any sub mul div neg max min clamp select_n convert_element_type reduce_precision copy copy_p name "
    "stop_gradient optimization_barrier square sqrt rsqrt integer_pow pow cond carry".split()
)

_POSITIVE = SHAPES | frozenset(
    "convert_element_type add concatenate stack pad reduce_max reduce_window_max reduce_sum "
    "reduce_window_sum min".split()
)

_JOINED_ALONG = {"concatenate": "dimension", "stack": "axis"}
_WRITES = {"dynamic_update_slice": 1, "scatter": 2}  # number of the input that is written into input 0


def compared_axes(node: Node) -> set[int]:
    """The axes along which a selection, or a read at places that the input chooses, compares."""
    last, params = len(node.inputs[0].aval.shape) - 1, node.params
    if "window_dimensions" in params:
        return {axis for axis, size in enumerate(params["window_dimensions"]) if size > 1}
    if node.name == "gather":
        return set(params["dimension_numbers"].start_index_map)
    if node.name == "dynamic_slice":
        return set(range(last + 1))
    return set(params.get("axes", [params.get("axis", params.get("dimension", last))]))


def has_window_within(node: Node, flow: Flow) -> bool:
    """Some window of a pool meets no constant border, and nothing else is joined to what it compares."""
    params, axes = node.params, compared_axes(node)
    if "window_dimensions" not in params or any(size != 1 for size in params["base_dilation"]):
        return False
    value = node.inputs[0]
    if is_joined(value, axes, flow, borders=False):
        return False
    return all(_is_free_along(axis, value, params=params, flow=flow) for axis in axes)


def _is_free_along(axis: int, value: Value, *, params: dict[str, Any], flow: Flow) -> bool:
    places = _border(value, axis, flow)
    if places is None:
        return False
    reach = params["window_dilation"][axis] * np.arange(params["window_dimensions"][axis])
    before, after = params["padding"][axis]
    starts = np.arange(-before, len(places) + after - reach[-1], params["window_strides"][axis])
    at = starts[:, None] + reach
    within = (at >= 0) & (at < len(places))
    return bool((within.any(1) & ~(within & places[np.clip(at, 0, len(places) - 1)]).any(1)).any())


def _border(value: Value, axis: int, flow: Flow) -> np.ndarray | None:
    """[size] where along an axis a value is constant, as far as padding tells; None where that is not known."""
    node, size = value.maker, value.aval.shape[axis]
    if value not in flow.varying:
        return np.ones(size, bool)
    if node is None or not (_is_followed(node) or node.name in _PARTS):
        return np.zeros(size, bool)
    if node.name in _PARTS:
        return _part(node, value, axis=axis, flow=flow)
    return _BORDERS.get(node.name, _unknown_border)(node, axis, flow)


_PARTS = ("split", "unstack", "dynamic_slice")


def _part(node: Node, value: Value, *, axis: int, flow: Flow) -> np.ndarray | None:
    """Of the part that a value is."""
    own = tuple(tuple(range(size)) for size in value.aval.shape)
    places = _PLACES[node.name](node, 0, value, own)
    below = axis + (node.name == "unstack" and axis >= node.params["axis"])
    border = _border(node.inputs[0], below, flow)
    return None if places is None or border is None else border[list(places[below])]


def _unknown_border(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    return None


def _padded(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    inner = _border(node.inputs[0], axis, flow)
    before, after, between = node.params["padding_config"][axis]
    if inner is None or node.inputs[1] in flow.varying:
        return None
    places = np.ones(len(inner) + between * max(len(inner) - 1, 0), bool)
    places[:: between + 1] = inner
    places = places[max(-before, 0) : len(places) - max(-after, 0)]
    return np.pad(places, (max(before, 0), max(after, 0)), constant_values=True)


def _concatenated(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    along = node.params["dimension"] == axis
    borders = [_border(v, axis, flow) for v in node.inputs if along or v in flow.varying]
    known = [places for places in borders if places is not None]
    if len(known) < len(borders):
        return None
    return np.concatenate(known) if along else np.logical_or.reduce(known)


def _written(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    start = constant_of(node.inputs[2 + axis])
    return (
        None if start is None else _overwritten(node.inputs[0], node.inputs[1], start=int(start), axis=axis, flow=flow)
    )


def _scattered(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    """One block written at a place that the program states, as by x.at[:, 1:-1].set."""
    indices, numbers = constant_of(node.inputs[1]), node.params["dimension_numbers"]
    if indices is None or indices.ndim != 1 or numbers.inserted_window_dims or numbers.operand_batching_dims:
        return None
    starts = dict(zip(numbers.scatter_dims_to_operand_dims, indices.tolist(), strict=True))
    return _overwritten(node.inputs[0], node.inputs[2], start=starts.get(axis, 0), axis=axis, flow=flow)


def _overwritten(value: Value, block: Value, *, start: int, axis: int, flow: Flow) -> np.ndarray | None:
    places, update = _border(value, axis, flow), _border(block, axis, flow)
    if places is None or update is None:
        return None
    first = min(max(start, 0), len(places) - len(update))
    return np.concatenate([places[:first], update, places[first + len(update) :]])


def _element_by_element(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    size = node.outputs[0].aval.shape[axis]
    varying = [v for v in node.inputs if v in flow.varying and len(v.aval.shape) > axis]
    borders = [_border(v, axis, flow) for v in varying]
    known = [np.broadcast_to(places, size) for places in borders if places is not None]
    return np.logical_and.reduce(known) if known and len(known) == len(borders) else None


def _turned(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    return _border(node.inputs[0], node.params["permutation"][axis], flow)


def _sliced(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    places, params = _border(node.inputs[0], axis, flow), node.params
    step = params["strides"][axis] if params["strides"] else 1
    return None if places is None else places[params["start_indices"][axis] : params["limit_indices"][axis] : step]


def _reversed(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    places = _border(node.inputs[0], axis, flow)
    return places[::-1] if places is not None and axis in node.params["dimensions"] else places


def _spread(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    size, below = node.outputs[0].aval.shape[axis], node.params["broadcast_dimensions"]
    if axis not in below:
        return np.zeros(size, bool)
    places = _border(node.inputs[0], below.index(axis), flow)
    return None if places is None else np.broadcast_to(places, size)


def _without_axes(node: Node, axis: int, flow: Flow) -> np.ndarray | None:
    """Axes of size one come or go."""
    below, above = ([k for k, size in enumerate(v.aval.shape) if size > 1] for v in (node.inputs[0], node.outputs[0]))
    sizes = [[v.aval.shape[k] for k in kept] for v, kept in ((node.inputs[0], below), (node.outputs[0], above))]
    if sizes[0] != sizes[1] or axis not in above:
        return None
    return _border(node.inputs[0], below[above.index(axis)], flow)


_BORDERS: dict[str, Callable[[Node, int, Flow], np.ndarray | None]] = {
    **dict.fromkeys(_ELEMENTWISE - {"carry", "cond"}, _element_by_element),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _without_axes),
    "pad": _padded,
    "concatenate": _concatenated,
    "dynamic_update_slice": _written,
    "scatter": _scattered,
    "transpose": _turned,
    "slice": _sliced,
    "rev": _reversed,
    "broadcast_in_dim": _spread,
}


def is_joined(value: Value, axes: Axes, flow: Flow, *, summed: bool = False, borders: bool = True) -> bool:
    """Along `axes` an input stands beside a constant or beside another function of itself.

    Args:
      value, axes: what is compared.
      flow: of the program.
      summed: for sums, which are over several places unless one element is stacked upon such.
      borders: constants count; else only other functions of itself.
    """
    joined = False
    followed: list[tuple[Any, ...]] = []  # without a join itself; whether one lies behind it is known when all is seen
    waiting: list[tuple[Value, Axes]] = [(value, axes)]
    while waiting and not joined:
        value, axes = waiting.pop()
        key = (summed, borders, value, None if axes is None else frozenset(axes))
        if value not in flow.varying or value.maker is None or axes == set():
            continue
        if key in flow.joined:
            joined = flow.joined[key]
            continue
        flow.joined[key] = False  # where it is asked on the way
        joined = (
            _is_stack(value.maker, axes, flow) if summed else _is_join(value.maker, axes, flow=flow, borders=borders)
        )
        flow.joined[key] = joined
        followed.append(key)
        if not joined and _is_followed(value.maker):
            waiting.extend((v, _axes_below(value.maker, axes)) for v in value.maker.inputs)
    for key in followed[1:] if joined else ():
        del flow.joined[key]
    if joined and followed:
        flow.joined[followed[0]] = True
    return joined


def _is_followed(node: Node) -> bool:
    return node.name in _ELEMENTWISE | SHAPES or node.name in (
        "concatenate",
        "pad",
        "stack",
        "scan_stack",
        "shard_out",
        *_WRITES,
    )


def _axes_below(node: Node, axes: Axes) -> Axes:
    """The same axes in the node's first input."""
    if axes is None or node.name in _ELEMENTWISE or node.name in ("concatenate", "pad", "rev", "slice", *_WRITES):
        return axes
    if node.name in ("stack", "scan_stack"):
        new = node.params.get("axis", 0) if len(node.outputs[0].aval.shape) > len(node.inputs[0].aval.shape) else None
        return axes if new is None else {axis - (axis > new) for axis in axes if axis != new}
    if node.name == "scan_slice":
        return {axis + 1 for axis in axes}
    if node.name == "transpose":
        return {node.params["permutation"][axis] for axis in axes}
    if node.name == "broadcast_in_dim":
        return {axis for axis, above in enumerate(node.params["broadcast_dimensions"]) if above in axes}
    return None


def _is_join(node: Node, axes: Axes, *, flow: Flow, borders: bool) -> bool:
    if node.name in _JOINED_ALONG:
        along = {node.params[_JOINED_ALONG[node.name]]}
        read = node.inputs
    elif node.name == "pad":
        along = {axis for axis, sizes in enumerate(node.params["padding_config"]) if any(n > 0 for n in sizes)}
        read = node.inputs
    elif node.name in _WRITES:
        along = set(range(len(node.outputs[0].aval.shape)))
        read = [node.inputs[0], node.inputs[_WRITES[node.name]]]
    else:
        return False
    return bool(along if axes is None else along.intersection(axes)) and _are_compared(read, flow, borders=borders)


def _is_stack(node: Node, axes: Axes, flow: Flow) -> bool:
    """A join of single elements, along the one axis that is summed over."""
    if node.name not in _JOINED_ALONG or (axes or set()) - {along := node.params[_JOINED_ALONG[node.name]]}:
        return False
    single = node.name == "stack" or all(value.aval.shape[along] == 1 for value in node.inputs)
    return single and _are_compared(node.inputs, flow, compared=False)


def _are_compared(values: list[Value], flow: Flow, *, borders: bool = True, compared: bool = True) -> bool:
    """Something is a constant, or another function of an element; `compared`, not summed, also where nobody knows."""
    varying = [value for value in values if value in flow.varying]
    for constant in [value for value in values if value not in flow.varying] if varying and borders else []:
        number = uniform(constant)
        harmless = number == 0 and all(map(_is_positive, varying))
        if not harmless and (number is None or math.isfinite(number)):
            return True
    counted: list[_Pieces] = []
    for value in varying:
        pieces = _pieces(value, flow, all_of_it=compared)
        if any(_meet(pieces, other, flow) or _may_meet(pieces, other) for other in counted):
            return True
        counted.append(pieces)
    return False


def objection_to_pieces(node: Node, flow: Flow) -> str | None:
    """Why a maximum of two may be an activation; None where it compares pieces of maps, as a pool does.

    max(h[:, :-1], h[:, 1:]) is a pool, as is max(h[..., ::2], h[..., 1::2]), and max(h @ v, h @ w), maxout, which pools
    across the maps of h @ [v, w]. max(x, 0.1 * x) is leaky: two functions of one element. What is not known is no pool
    for certain.
    """
    first, last = (_pieces(value, flow, all_of_it=True) for value in node.inputs[-2:])
    if _meet(first, last, flow, doubt=True):
        return "compared with what is no constant, as in a leaky rectifier"
    return "every place is compared with a constant border" if _meets_border(node, flow) else None


_Places = tuple[tuple[int, ...], ...]  # along each axis the places of what it is cut out of, -1 for others


class _Piece(NamedTuple):
    """How a value was cut out of another."""

    places: _Places | None  # None where nobody knows
    above: Value | None = None  # the value above which that was known


_Pieces = dict[Value, set[_Piece]]
_MANY = 64  # ways from a value back to one


def _pieces(value: Value, flow: Flow, *, all_of_it: bool = False) -> _Pieces:
    """{what a value is made of: as which pieces}, the first of twins each, as far as it goes place by place.

    Args:
      value: of a program.
      flow: of the program.
      all_of_it: as far as layers, places unknown where it does not go place by place.
    """
    pieces: _Pieces = {}
    visited: set[tuple[Value, _Piece]] = set()
    waiting = [(value, _Piece(tuple(tuple(range(size)) for size in value.aval.shape)))]
    while waiting:
        value, piece = waiting.pop()
        first = flow.first.get(value, value)
        known = pieces.setdefault(first, set())
        piece = _Piece(None) if len(known) >= _MANY else piece
        known.add(piece)
        if (value, piece) in visited:
            continue
        visited.add((value, piece))
        node = value.maker
        if node is None or (node.name in _OF_ROUNDS and not all_of_it):
            continue
        if node.name in _MATRICES and not _is_few(node, flow):
            continue
        start = 1 if node.name == "select_n" else 0
        for number, below in enumerate(node.inputs[start:], start):
            if below in flow.varying and is_inexact(below):
                places = None if piece.places is None else _places_below(node, number, value, piece.places)
                if places is not None or all_of_it:
                    above = None if places is not None else piece.above if piece.places is None else first
                    waiting.append((below, _Piece(places, above)))
    return pieces


def _is_few(node: Node, flow: Flow) -> bool:
    return len(flow.varying.intersection(node.inputs)) == 1 and adds_few(node)


_MATRICES = ("dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general")
_OF_ROUNDS = ("carry", "scan_slice", "scan_stack", "shard_in", "shard_out")


def _places_below(node: Node, number: int, value: Value, places: _Places) -> _Places | None:
    """The places in an operand of those in what a node makes; None where nobody knows."""
    below, rule = node.inputs[number], _PLACES.get(node.name)
    if node.name in _ELEMENTWISE:
        return places if below.aval.shape == value.aval.shape else None
    if rule is not None:
        return rule(node, number, value, places)
    if node.name in SHAPES and _sizes(below) == _sizes(value):  # axes of one element come or go
        own = iter([along for along, size in zip(places, value.aval.shape, strict=True) if size > 1])
        return tuple(next(own) if size > 1 else (0,) for size in below.aval.shape)
    return None


def _sizes(value: Value) -> list[int]:
    return [size for size in value.aval.shape if size > 1]


def _along(places: _Places, axis: int, move: Callable[[int], int]) -> _Places:
    moved = tuple(k if k < 0 else move(k) for k in places[axis])
    return (*places[:axis], moved, *places[axis + 1 :])


def _of_slice(node: Node, number: int, value: Value, places: _Places) -> _Places:
    starts, steps = node.params["start_indices"], node.params["strides"] or (1,) * len(places)
    for axis, (start, step) in enumerate(zip(starts, steps, strict=True)):
        places = _along(places, axis, lambda k, start=start, step=step: start + k * step)  # type: ignore[misc]
    return places


def _of_dynamic_slice(node: Node, number: int, value: Value, places: _Places) -> _Places | None:
    whole = node.inputs[0].aval.shape
    for axis, (index, size) in enumerate(zip(node.inputs[1:], value.aval.shape, strict=True)):
        start = constant_of(index)
        if start is None or number:
            return None
        first = min(max(int(start), 0), whole[axis] - size)
        places = _along(places, axis, lambda k, first=first: first + k)  # type: ignore[misc]
    return places


def _of_split(node: Node, number: int, value: Value, places: _Places) -> _Places:
    start = sum(node.params["sizes"][: node.outputs.index(value)])
    return _along(places, node.params["axis"], lambda k: start + k)


def _of_unstack(node: Node, number: int, value: Value, places: _Places) -> _Places:
    axis = node.params["axis"]
    return (*places[:axis], (node.outputs.index(value),), *places[axis:])


def _of_reverse(node: Node, number: int, value: Value, places: _Places) -> _Places:
    for axis in node.params["dimensions"]:
        places = _along(places, axis, lambda k, last=value.aval.shape[axis] - 1: last - k)  # type: ignore[misc]
    return places


def _of_transpose(node: Node, number: int, value: Value, places: _Places) -> _Places:
    return tuple(places[node.params["permutation"].index(axis)] for axis in range(len(places)))


def _of_concatenate(node: Node, number: int, value: Value, places: _Places) -> _Places:
    axis = node.params["dimension"]
    sizes = [v.aval.shape[axis] for v in node.inputs]
    start, end = sum(sizes[:number]), sum(sizes[: number + 1])
    return _along(places, axis, lambda k: k - start if start <= k < end else -1)


def _of_stack(node: Node, number: int, value: Value, places: _Places) -> _Places | None:
    axis = node.params["axis"]
    along = {k == number for k in places[axis]}
    return None if along == {True, False} else _only(places[:axis] + places[axis + 1 :], along == {True})


def _only(places: _Places, here: bool) -> _Places:
    return places if here else tuple((-1,) * len(along) for along in places)


def _of_pad(node: Node, number: int, value: Value, places: _Places) -> _Places | None:
    if number:
        return None
    for axis, (before, _, between) in enumerate(node.params["padding_config"]):
        size, step = node.inputs[0].aval.shape[axis], between + 1

        def move(k: int, before: int = before, size: int = size, step: int = step) -> int:
            own, rest = divmod(k - before, step)
            return own if not rest and 0 <= own < size else -1

        places = _along(places, axis, move)
    return places


def _of_gather(node: Node, number: int, value: Value, places: _Places) -> _Places | None:
    """Of whole slices at places along one axis that the program states, as h[:, [0, 2, 4]]."""
    numbers, shape = node.params["dimension_numbers"], node.inputs[0].aval.shape
    outside = [axis for axis in range(len(places)) if axis not in numbers.offset_dims]
    at = constant_of(node.inputs[1])
    if number or at is None or len(outside) != 1 or numbers.operand_batching_dims or len(numbers.start_index_map) != 1:
        return None
    (axis,) = numbers.start_index_map
    whole = all(size == shape[k] for k, size in enumerate(node.params["slice_sizes"]) if k != axis)
    if numbers.collapsed_slice_dims != (axis,) or not whole or at.min() < 0 or at.max() >= shape[axis]:
        return None
    own = at.ravel().tolist()
    others = [places[k] for k in numbers.offset_dims]
    return (*others[:axis], tuple(own[k] if k >= 0 else k for k in places[outside[0]]), *others[axis:])


_PLACES: dict[str, Callable[[Node, int, Value, _Places], _Places | None]] = {
    "slice": _of_slice,
    "dynamic_slice": _of_dynamic_slice,
    "gather": _of_gather,
    "split": _of_split,
    "unstack": _of_unstack,
    "rev": _of_reverse,
    "transpose": _of_transpose,
    "concatenate": _of_concatenate,
    "stack": _of_stack,
    "pad": _of_pad,
}


def _meet(pieces: _Pieces, others: _Pieces, flow: Flow, *, doubt: bool = False) -> bool:
    """Somewhere two values are made of one element, at one place; with `doubt` also where nobody knows."""
    return any(
        not _are_apart(base, one, other, flow=flow, doubt=doubt)
        for base in pieces.keys() & others.keys()
        for one in pieces[base]
        for other in others[base]
    )


def _may_meet(pieces: _Pieces, others: _Pieces) -> bool:
    """Two values are made of one, and where nobody knows."""
    shared = pieces.keys() & others.keys()
    return any(_is_unknown(one, other) for base in shared for one in pieces[base] for other in others[base])


def _is_unknown(one: _Piece, other: _Piece) -> bool:
    """Where they stand in what both are made of; a value that both go back to above it is looked at for itself."""
    return (one.places is None or other.places is None) and (one.above is None or one.above is not other.above)


def _are_apart(base: Value, one: _Piece, other: _Piece, *, flow: Flow, doubt: bool) -> bool:
    if one.places is None or other.places is None:
        return not doubt or not _is_unknown(one, other)
    pairs = list(zip(one.places, other.places, strict=True))
    if any(len(a) != len(b) for a, b in pairs):
        return not doubt
    apart = {axis for axis, (a, b) in enumerate(pairs) if all(k != n or k < 0 for k, n in zip(a, b, strict=True))}
    return any(not doubt or not is_joined(base, {axis}, flow, borders=False) for axis in apart)


def _meets_border(node: Node, flow: Flow) -> bool:
    """Along some axis of the result something that is compared is a constant border, at every place."""
    for axis in range(len(node.outputs[0].aval.shape)):
        borders = [_border_of_any(value, axis, flow) for value in node.inputs[-2:]]
        known = [places for places in borders if places is not None]
        if len(known) == 2 and bool(np.logical_or(*known).all()):
            return True
        if len(known) < 2 and any(is_joined(value, None, flow) for value in node.inputs[-2:]):
            return True
    return False


def _border_of_any(value: Value, axis: int, flow: Flow) -> np.ndarray | None:
    """[size] where along an axis anything that a maximum compares is constant."""
    node = value.maker
    if node is not None and node.name in ("max", "min") and all(v in flow.varying for v in node.inputs):
        borders = [_border_of_any(v, axis, flow) for v in node.inputs]
        known = [places for places in borders if places is not None]
        return np.logical_or(*known) if len(known) == 2 else None
    return _border(value, axis, flow)


def _is_positive(value: Value) -> bool:
    """Never below zero, for it comes from rectifiers."""
    made_of = reached([value], lambda v: v.maker.inputs if v.maker is not None and v.maker.name in _POSITIVE else [])
    ends = [v for v in made_of if v.maker is None or v.maker.name not in _POSITIVE]
    return all(_is_rectified(v) or (number := uniform(v)) is not None and number >= 0 for v in ends)


def _is_rectified(value: Value) -> bool:
    return value.maker is not None and rectified_operand(value.maker) is not None
