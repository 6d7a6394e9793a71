"""Which axis of every array of a program counts the images, and where the images look at each other.

Every axis is a product of factors, the outermost first, and some of them count images: [B, H, W, C] flattened to
[B * H * W, C] has an axis of (B, H * W), which a reshape takes apart again and a mean mixes. So batch norm on the
statistics of its batch is found however it is written, and a reshape, a transpose or an einsum of each image alone is
none. Axes are followed, not their sizes: with a single image in the batch the same lines mix.

An operation that is not known loses the images: what comes after it may mix them unseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from zfjax.anymodel.constants import constant_of
from zfjax.anymodel.graph import Graph, Node, Value, is_empty, made_of, reached


class Factor(NamedTuple):
    """A factor of an axis."""

    size: int
    stride: int = 0  # how many images further one step is; 0 where it counts no images
    start: int | None = None  # number of the first image, of some of them; None for all


Axis = tuple[Factor, ...]  # outermost first


class Images(NamedTuple):
    """Where an array has its images."""

    axes: tuple[Axis, ...]
    away: tuple[tuple[Any, Axis], ...] = ()  # {scan, axis of a mesh, or _ONE: what it has one round, device, image of}


_ONE = "image"


class Lost(NamedTuple):
    """An array that depends on the images, nobody knows where."""


State = Images | Lost | None  # None: no image is told from another in it


class Mix(NamedTuple):
    """An operation by which the images look at each other."""

    node: Node
    reason: str


class Batch(NamedTuple):
    """What `follow_batch` found."""

    states: dict[Value, State]
    mixes: list[Mix]
    losses: list[Node]  # operations by which it is lost what belongs to which image


def follow_batch(graph: Graph) -> Batch:
    """Follow axis 0 of the program's first argument to its results; what those do not need mixes nothing."""
    (images, *_) = graph.inputs
    return _follow(graph, {images: _start(images)}, size=math.prod(images.aval.shape[:1]), starts=lambda node: {})


def follow_channels(graph: Graph) -> Batch:
    """Follow the channels that convolutions make, in the same way; what sums over them mixes them."""

    def starts(node: Node) -> dict[Value, State]:
        if node.name != "conv_general_dilated":
            return {}
        (maps,), channels = node.outputs, node.params["dimension_numbers"].out_spec[1]
        shape = _shape(maps)
        return {maps: Images(tuple(_axis(Factor(n, axis == channels)) for axis, n in enumerate(shape)))}

    return _follow(graph, {}, size=math.inf, starts=starts)


def _follow(
    graph: Graph, states: dict[Value, State], *, size: float, starts: Callable[[Node], dict[Value, State]]
) -> Batch:
    wanted = reached(graph.outputs, made_of)
    mixes: list[Mix] = []
    losses: list[Node] = []
    for _ in range(_ROUNDS):  # again for scans, whose rounds feed each other
        before = dict(states)
        mixes.clear()
        losses.clear()
        for node in graph.nodes:
            inputs = [None if is_empty(value) else states.get(value) for value in node.inputs]
            if any(state is not None for state in inputs):
                try:
                    outputs = _made(node, inputs, size)
                except _Mixes as mixed:
                    outputs = [None] * len(node.outputs)
                    if wanted.intersection(node.outputs):
                        mixes.append(Mix(node, str(mixed)))
                if not any(isinstance(state, Lost) for state in inputs):
                    lost = {v for v, state in zip(node.outputs, outputs, strict=True) if isinstance(state, Lost)}
                    losses.extend([node] if wanted & lost else [])
                states.update(zip(node.outputs, outputs, strict=True))
            states.update(starts(node))
        if states == before:
            break
    return Batch(states, mixes, losses)


_ROUNDS = 8


def axis_of(batch: Batch, value: Value) -> int | None:
    """The axis of a value that counts what was followed and nothing else; None where there is none."""
    state = batch.states.get(value)
    if not isinstance(state, Images) or state.away:
        return None
    axes = [axis for axis, factors in enumerate(state.axes) if _has_images(factors)]
    return axes[0] if len(axes) == 1 and len(state.axes[axes[0]]) == 1 else None


def misplaced(batch: Batch, value: Value) -> str:
    """Where a value has the images, other than in their order along its first axis; "" where it has none elsewhere."""
    state = batch.states.get(value)
    if not isinstance(state, Images) or not _image_factors(state):
        return ""
    first, *_ = state.axes or ((),)
    if first == _axis(*(Factor(n, 1) for n in _shape(value)[:1])):
        return ""
    return "in another order along the first axis" if _has_images(first) else "on another axis than the first"


def _start(images: Value) -> State:
    shape = images.aval.shape
    return Images((_axis(Factor(shape[0], 1)), *map(_plain, shape[1:]))) if shape else None


class _Mixes(Exception):
    """What an operation does to the images."""


def _made(node: Node, inputs: Sequence[State], num_images: float) -> Sequence[State]:
    """The states of what a node makes."""
    rule = _RULES.get(node.name)
    if node.outputs and all(map(is_empty, node.outputs)):
        return [None] * len(node.outputs)
    if rule is None or any(isinstance(state, Lost) for state in inputs):
        return [Lost()] * len(node.outputs)
    made = rule(node, inputs)
    states = [made] * len(node.outputs) if made is None or isinstance(made, Images | Lost) else list(made)
    states = [_whole(state, num_images) if isinstance(state, Images) else state for state in states]
    for state in states:
        if isinstance(state, Images) and math.prod(f.size for f in _image_factors(state)) > num_images:
            raise _Mixes("combines every image with every other")
        if isinstance(state, Images) and _ONE in dict(state.away) and any(map(_has_images, state.axes)):
            raise _Mixes("combines images with one of them")
    return states


def _whole(state: Images, num_images: float) -> Images:
    """Parts that are all images again are parts no more."""
    whole = Factor(int(num_images), 1, 0) if math.isfinite(num_images) else None
    if not any(whole in axis for axis in state.axes):
        return state
    return _rebuilt(state, (_axis(*(f._replace(start=None) if f == whole else f for f in axis)) for axis in state.axes))


def _axis(*factors: Factor) -> Axis:
    """The factors, neighbours that belong together made one."""
    merged: list[Factor] = []
    for factor in factors:
        if factor.size == 1 and not factor.stride:
            continue
        last = merged[-1] if merged else None
        if last is not None and not last.stride and not factor.stride:
            merged[-1] = Factor(last.size * factor.size)
        elif last is not None and factor.stride and last.stride == factor.size * factor.stride:
            merged[-1] = Factor(last.size * factor.size, factor.stride, _added(last.start, factor.start))
        else:
            merged.append(factor)
    return tuple(merged)


def _plain(size: int) -> Axis:
    return _axis(Factor(size))


def _has_images(axis: Axis) -> bool:
    return any(factor.stride for factor in axis)


def _image_factors(state: Images) -> list[Factor]:
    axes = [*state.axes, *(axis for _, axis in state.away)]
    return [factor for axis in axes for factor in axis if factor.stride]


def _size(axis: Axis) -> int:
    return math.prod(factor.size for factor in axis)


def _joint(states: Iterable[State]) -> Images | None:
    """Of arrays of one shape, place by place."""
    of_images = [state for state in states if isinstance(state, Images)]
    if not of_images:
        return None
    axes = list(of_images[0].axes)
    away = dict(of_images[0].away)
    for state in of_images[1:]:
        for number, axis in enumerate(state.axes):
            if _has_images(axis) and _has_images(axes[number]) and axis != axes[number]:
                raise _Mixes("combines images with others")
            axes[number] = axis if _has_images(axis) else axes[number]
        for where, axis in state.away:
            if away.setdefault(where, axis) != axis:
                raise _Mixes("combines images with others")
    return Images(tuple(axes), tuple(away.items()))


def _no_images(state: State, axes: Iterable[int], does: str) -> None:
    """What is done along these axes mixes, if they have images."""
    if isinstance(state, Images) and any(_has_images(state.axes[axis]) for axis in axes):
        raise _Mixes(does)


def _shape(value: Value) -> tuple[int, ...]:
    return tuple(value.aval.shape)


def _rebuilt(state: Images, axes: Iterable[Axis]) -> Images:
    return state._replace(axes=tuple(axes))


def _first(rule: Callable[[Node, Images], Any]) -> Callable[[Node, Sequence[State]], Any]:
    """A rule of the first input alone, as the others are numbers."""

    def of_first(node: Node, inputs: Sequence[State]) -> Any:
        return rule(node, inputs[0]) if isinstance(inputs[0], Images) else Lost()

    return of_first


def _elementwise(node: Node, inputs: Sequence[State]) -> Any:
    return _joint(_spread(state, _shape(node.outputs[0])) for state in inputs) or Lost()


def _spread(state: State, shape: tuple[int, ...]) -> State:
    """A state spread over a shape: of a single number, or along axes of one element."""
    if not isinstance(state, Images):
        return state
    if len(state.axes) != len(shape):
        return _without(state, state.axes)._replace(axes=tuple(map(_plain, shape)))
    spread = [axis for axis, n in zip(state.axes, shape, strict=True) if _size(axis) != n]
    kept = (a if _size(a) == n else _plain(n) for a, n in zip(state.axes, shape, strict=True))
    return _rebuilt(_without(state, spread), kept)


def _without(state: Images, axes: Iterable[Axis]) -> Images:
    """Of one image, where an axis goes away that has one of several."""
    ones = [axis for axis in axes if _is_one(axis)]
    return state._replace(away=tuple({**dict(state.away), _ONE: ones[0]}.items())) if ones else state


def _is_one(axis: Axis) -> bool:
    return len(axis) == 1 and axis[0].size == 1 and axis[0].start is not None


def _added(start: int | None, other: int | None) -> int | None:
    return other if start is None else start + (other or 0)


def _each(node: Node, inputs: Sequence[State]) -> Any:
    """Results as many as operands, each like its operand."""
    return list(inputs)


def _collective(node: Node, inputs: Sequence[State]) -> Any:
    """Over devices, or over axes of the array, as vmap makes them of a named axis."""
    axes = node.params["axes"] if "axes" in node.params else node.params["axis_name"]
    axes = axes if isinstance(axes, tuple | list) else (axes,)
    numbers = {axis for axis in axes if isinstance(axis, int)}
    states: list[State] = []
    for state in inputs:
        if isinstance(state, Images):
            _no_images(state, numbers, "is over the images")
            if any(("mesh", axis) in dict(state.away) for axis in axes):
                raise _Mixes("is over the images of several devices")
            state = _rebuilt(state, (axis for number, axis in enumerate(state.axes) if number not in numbers))
        states.append(state)
    return states


_COLLECTIVES = ("psum", "psum_invariant", "psum2", "pmax", "pmin", "ppermute")


def _broadcast(node: Node, state: Images) -> Any:
    axes = list(map(_plain, node.params["shape"]))
    for axis, above in enumerate(node.params["broadcast_dimensions"]):
        if _size(state.axes[axis]) == node.params["shape"][above]:
            axes[above] = state.axes[axis]
        else:
            state = _without(state, [state.axes[axis]])
    return _rebuilt(state, axes)


def _tile(node: Node, state: Images) -> Any:
    return _rebuilt(state, (_axis(Factor(n), *axis) for n, axis in zip(node.params["reps"], state.axes, strict=True)))


def _matrices(node: Node, inputs: Sequence[State]) -> Any:
    """Of matrices, the last two axes, one by one; others are counted by the axes before."""
    joint = _joint(inputs)
    if joint is None:
        return Lost()
    num_counting = len(joint.axes) - 2
    if any(map(_has_images, joint.axes[num_counting:])):
        return Lost()
    return [
        _rebuilt(joint, (*joint.axes[:num_counting], *map(_plain, _shape(value)[num_counting:])))
        for value in node.outputs
    ]


def _reshape(node: Node, state: Images) -> Any:
    order = node.params["dimensions"] or range(len(state.axes))
    waiting = list(_axis(*(factor for axis in order for factor in state.axes[axis])))
    axes: list[Axis] = []
    for size in _shape(node.outputs[0]):
        taken: list[Factor] = []
        if waiting and waiting[0].size == 1:  # of a batch of one image, which may stand anywhere
            taken.append(waiting.pop(0))
        while size > 1:
            factor = waiting.pop(0)
            if size % factor.size == 0:
                taken.append(factor)
                size //= factor.size
            elif factor.size % size == 0:
                inner = factor.size // size
                taken.append(Factor(size, factor.stride * inner, factor.start))
                waiting.insert(0, Factor(inner, factor.stride))
                size = 1
            else:
                raise _Mixes("takes images apart")
        axes.append(_axis(*taken))
    if waiting and axes:
        axes[-1] = _axis(*axes[-1], *waiting)
    return _rebuilt(state, axes)


def _transpose(node: Node, state: Images) -> Any:
    return _rebuilt(state, (state.axes[axis] for axis in node.params["permutation"]))


def _squeeze(node: Node, state: Images) -> Any:
    dropped = {axis % len(state.axes) for axis in node.params["dimensions"]}
    kept = (axis for number, axis in enumerate(state.axes) if number not in dropped)
    return _rebuilt(_without(state, (state.axes[axis] for axis in dropped)), kept)


def _reverse(node: Node, state: Images) -> Any:
    _no_images(state, node.params["dimensions"], "turns the order of the images round")
    return state


def _reduced(node: Node, inputs: Sequence[State]) -> Any:
    dropped = node.params["axes"] if "axes" in node.params else node.params["dimensions"]
    states = [state for state in inputs if isinstance(state, Images) and len(state.axes) > len(_shape(node.outputs[0]))]
    for state in states:
        _no_images(state, dropped, "is over the images")
    joint = _joint(states)
    if joint is None:
        return Lost()
    return _rebuilt(joint, (axis for number, axis in enumerate(joint.axes) if number not in set(dropped)))


def _along(node: Node, inputs: Sequence[State]) -> Any:
    """Sorts, running sums and the like along one axis."""
    joint = _joint(inputs)
    if joint is None:
        return Lost()
    axis = node.params.get("axis", node.params.get("dimension", node.params.get("reduction_dimension", -1)))
    _no_images(joint, [axis], "is along the images")
    sizes = _shape(node.outputs[0])
    return _rebuilt(joint, (a if _size(a) == n else _plain(n) for a, n in zip(joint.axes, sizes, strict=True)))


def _window(node: Node, inputs: Sequence[State]) -> Any:
    joint = _joint(state for state, v in zip(inputs, node.inputs, strict=True) if _shape(v))
    if joint is None:
        return Lost()
    moved, sizes = window_axes(node.params), _shape(node.outputs[0])
    _no_images(joint, moved, "is over windows of several images")
    return _rebuilt(joint, (_plain(n) if axis in moved else joint.axes[axis] for axis, n in enumerate(sizes)))


def window_axes(params: Mapping[str, Any]) -> list[int]:
    """The axes along which a `reduce_window` does anything."""
    steps = zip(params["window_dimensions"], params["window_strides"], params["base_dilation"], strict=True)
    return [axis for axis, step in enumerate(steps) if step != (1, 1, 1) or any(params["padding"][axis])]


def _slice(node: Node, state: Images) -> Any:
    starts, limits = node.params["start_indices"], node.params["limit_indices"]
    strides = node.params["strides"] or (1,) * len(starts)
    return _rebuilt(state, map(_sliced, state.axes, starts, limits, strides))


def _sliced(axis: Axis, start: int, limit: int, stride: int) -> Axis:
    """A part of an axis; of one with images all, some one after the other, or one of several copies of all."""
    if (start, limit, stride) == (0, _size(axis), 1):
        return axis
    if not _has_images(axis):
        return _plain(-(-(limit - start) // stride))
    rest = axis[1:]
    inner = _size(rest)
    if not axis[0].stride and stride == 1 and start % inner == 0 and limit % inner == 0:
        return _axis(Factor((limit - start) // inner), *rest)
    if len(axis) == 1 and stride == 1 and limit > start:
        return (Factor(limit - start, axis[0].stride, start * axis[0].stride + (axis[0].start or 0)),)
    raise _Mixes("takes some of the images")


def _dynamic_slice(node: Node, inputs: Sequence[State]) -> Any:
    state = inputs[0]
    if not isinstance(state, Images):  # places that the images choose, one for all
        return Lost()
    sizes = node.params["slice_sizes"]
    cut = [axis for axis, size in enumerate(sizes) if size != _size(state.axes[axis])]
    _no_images(state, cut, "takes some of the images")
    return _rebuilt(state, (_plain(size) if axis in cut else state.axes[axis] for axis, size in enumerate(sizes)))


def _update_slice(node: Node, inputs: Sequence[State]) -> Any:
    whole, part = node.inputs[:2]
    cut = [axis for axis, (a, b) in enumerate(zip(_shape(whole), _shape(part), strict=True)) if a != b]
    state = inputs[1]
    _no_images(state, cut, "writes images beside others")
    if isinstance(state, Images):
        state = _rebuilt(
            state, (_plain(n) if axis in cut else state.axes[axis] for axis, n in enumerate(_shape(whole)))
        )
    return _joint([inputs[0], state]) or Lost()


def _pad(node: Node, state: Images) -> Any:
    padded = [axis for axis, sizes in enumerate(node.params["padding_config"]) if any(sizes)]
    _no_images(state, padded, "puts something between the images")
    sizes = _shape(node.outputs[0])
    return _rebuilt(state, (_plain(n) if axis in padded else state.axes[axis] for axis, n in enumerate(sizes)))


def _concatenate(node: Node, inputs: Sequence[State]) -> Any:
    along, shape = node.params["dimension"], _shape(node.outputs[0])
    # nothing comes of a part of no elements, as where jnp.pad repeats the edges of some axes only
    inputs = [state for value, state in zip(node.inputs, inputs, strict=True) if _shape(value)[along]] or inputs
    states = [_placed(state, along) for state in inputs if isinstance(state, Images)]
    ends = [state.axes[along] for state in states]
    if any(map(_has_images, ends)) and len(inputs) > 1:
        if len(states) < len(inputs):
            raise _Mixes("joins images with others")
        end = _following(ends) or _axis(Factor(len(inputs)), *ends[0])
    else:
        end = ends[0] if len(inputs) == 1 else _plain(shape[along])
    others = (_rebuilt(state, (*state.axes[:along], _plain(1), *state.axes[along + 1 :])) for state in states)
    joint = _joint(others)
    assert joint is not None
    return _rebuilt(joint, (*joint.axes[:along], end, *joint.axes[along + 1 :]))


def _placed(state: Images, along: int) -> Images:
    """The one image that an array is of counted by an axis of one element."""
    one = dict(state.away).get(_ONE)
    if one is None or _size(state.axes[along]) != 1:
        return state
    return _rebuilt(_other(state), (*state.axes[:along], one, *state.axes[along + 1 :]))


def _following(ends: Sequence[Axis]) -> Axis | None:
    """Images and those that follow them, side by side; None for copies of the same. What else there is mixes."""
    if len(set(ends)) == 1:
        return None
    if any(len(axis) != 1 or axis[0].start is None for axis in ends):
        raise _Mixes("joins images with others")
    factors = [axis[0] for axis in ends]
    for one, other in pairwise(factors):
        if one.stride != other.stride or other.start != (one.start or 0) + one.size * one.stride:
            raise _Mixes("joins images with others")
    return (Factor(sum(factor.size for factor in factors), factors[0].stride, factors[0].start),)


def _split(node: Node, state: Images) -> Any:
    along, start, parts = node.params["axis"], 0, []
    for size in node.params["sizes"]:
        part = _sliced(state.axes[along], start=start, limit=start + size, stride=1)
        parts.append(_rebuilt(state, (*state.axes[:along], part, *state.axes[along + 1 :])))
        start += size
    return parts


def _stack(node: Node, inputs: Sequence[State]) -> Any:
    along, end = node.params["axis"], _plain(len(inputs))
    ones = [dict(state.away).get(_ONE) for state in inputs if isinstance(state, Images)]
    if any(ones):
        if not all(ones) or len(ones) < len(inputs):
            raise _Mixes("joins images with others")
        following = _following([axis for axis in ones if axis is not None])
        if following is not None:
            end = following
            inputs = [_other(state) for state in inputs if isinstance(state, Images)]
    joint = _joint(inputs)
    return Lost() if joint is None else _rebuilt(joint, (*joint.axes[:along], end, *joint.axes[along:]))


def _other(state: Images) -> Images:
    """Whatever image it is of."""
    return state._replace(away=tuple((where, axis) for where, axis in state.away if where != _ONE))


def _unstack(node: Node, state: Images) -> Any:
    along = node.params["axis"]
    size, rest = _size(state.axes[along]), (*state.axes[:along], *state.axes[along + 1 :])
    parts = [_sliced(state.axes[along], start=k, limit=k + 1, stride=1) for k in range(size)]
    return [_rebuilt(_without(state, [part]), rest) for part in parts]


def _dot(node: Node, inputs: Sequence[State]) -> Any:
    (contracted, batched) = node.params["dimension_numbers"]
    sides = []
    for state, value, sums, pairs in zip(inputs, node.inputs, contracted, batched, strict=False):
        shape = _shape(value)
        free = [axis for axis in range(len(shape)) if axis not in (*sums, *pairs)]
        _no_images(state, sums, "sums over the images")
        sides.append((state, shape, list(pairs), free))
    (left, shape, pairs, free), (right, other, others, rest) = sides
    paired = _joint(
        state._replace(axes=tuple(state.axes[axis] for axis in axes))
        for state, axes in ((left, pairs), (right, others))
        if isinstance(state, Images)
    )
    assert paired is not None
    tail = [left.axes[axis] if isinstance(left, Images) else _plain(shape[axis]) for axis in free]
    tail += [right.axes[axis] if isinstance(right, Images) else _plain(other[axis]) for axis in rest]
    return _rebuilt(paired, (*paired.axes, *tail))


def _conv(node: Node, inputs: Sequence[State]) -> Any:
    numbers, params = node.params["dimension_numbers"], node.params
    batch, feature, *spatial = numbers.out_spec
    sizes = _shape(node.outputs[0])
    parts = []
    maps, kernels = inputs[:2]
    if isinstance(maps, Images):
        axes = list(map(_plain, sizes))
        axes[batch] = maps.axes[numbers.lhs_spec[0]]
        if params["batch_group_count"] > 1:
            _no_images(maps, [numbers.lhs_spec[0]], "is over groups of images")
            axes[batch] = _plain(sizes[batch])
        axes[feature] = _of_groups(maps.axes[numbers.lhs_spec[1]], params["feature_group_count"], sizes[feature])
        for below, above, window in zip(numbers.lhs_spec[2:], spatial, numbers.rhs_spec[2:], strict=True):
            if _has_images(maps.axes[below]):
                if _shape(node.inputs[1])[window] > 1 or sizes[above] != _size(maps.axes[below]):
                    raise _Mixes("is over windows of several images")
                axes[above] = maps.axes[below]
        parts.append(maps._replace(axes=tuple(axes)))
    if isinstance(kernels, Images):
        axes = list(map(_plain, sizes))
        _no_images(kernels, numbers.rhs_spec[1:], "sums over the images")
        axes[feature] = kernels.axes[numbers.rhs_spec[0]]
        parts.append(kernels._replace(axes=tuple(axes)))
    return _joint(parts)


def _of_groups(axis: Axis, groups: int, size: int) -> Axis:
    """The channels that a convolution makes of channels, some of which may be of one image and some of another."""
    if not _has_images(axis):
        return _plain(size)
    leading = axis[0]
    if not leading.stride or any(factor.stride for factor in axis[1:]) or groups % leading.size:
        raise _Mixes("sums over the images")
    return _axis(leading, Factor(size // leading.size))


def _gather(node: Node, inputs: Sequence[State]) -> Any:
    numbers, sizes = node.params["dimension_numbers"], node.params["slice_sizes"]
    operand, indices = node.inputs[:2]
    shape, out = _shape(operand), list(map(_plain, _shape(node.outputs[0])))
    outside = [axis for axis in range(len(out)) if axis not in numbers.offset_dims]  # one for each axis of the indices
    pairs = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    kept = [axis for axis in range(len(shape)) if axis not in (*numbers.collapsed_slice_dims, *pairs)]
    parts = []
    if isinstance(inputs[0], Images):
        axes = list(out)
        for axis, factors in enumerate(inputs[0].axes):
            if not _has_images(factors):
                continue
            if axis in pairs:
                axes[outside[pairs[axis]]] = factors
            elif axis in kept and sizes[axis] == shape[axis]:
                axes[numbers.offset_dims[kept.index(axis)]] = factors
            else:
                along = _counted_along(indices, list(numbers.start_index_map), axis=axis, size=shape[axis])
                if along is None or axis in kept:
                    raise _Mixes("reads images at places of its own")
                axes[outside[along]] = factors
        parts.append(inputs[0]._replace(axes=tuple(axes)))
    if isinstance(inputs[1], Images):
        axes = list(out)
        for axis, above in enumerate(outside):
            axes[above] = inputs[1].axes[axis]
        parts.append(inputs[1]._replace(axes=tuple(axes)))
    return _joint(parts)


def _scatter(node: Node, inputs: Sequence[State]) -> Any:
    numbers = node.params["dimension_numbers"]
    operand, indices, updates = node.inputs
    shape, given = _shape(operand), _shape(updates)
    pairs = dict(zip(numbers.scatter_indices_batching_dims, numbers.operand_batching_dims, strict=True))
    kept = [a for a in range(len(shape)) if a not in (*numbers.inserted_window_dims, *pairs.values())]
    outside = [axis for axis in range(len(given)) if axis not in numbers.update_window_dims]
    into = {axis: kept[place] for place, axis in enumerate(numbers.update_window_dims)}  # of updates: of the operand
    for place, axis in enumerate(outside):
        targets = [
            target
            for target in numbers.inserted_window_dims
            if _counted_along(indices, list(numbers.scatter_dims_to_operand_dims), axis=target, size=shape[target])
            == place
        ]
        into |= {axis: pairs[place]} if place in pairs else {axis: targets[0]} if targets else {}

    def written(state: State, axes: Iterable[tuple[int, int]]) -> State:
        if not isinstance(state, Images):
            return None
        laid = list(map(_plain, shape))
        for own, axis in axes:
            if _has_images(state.axes[own]):
                target = into.get(axis)
                if target is None or shape[target] != given[axis]:
                    raise _Mixes("writes images at places of its own")
                laid[target] = state.axes[own]
        return state._replace(axes=tuple(laid))

    read = written(inputs[1], enumerate(outside))
    return _joint([inputs[0], read, written(inputs[2], enumerate(range(len(given))))]) or Lost()


def _counted_along(indices: Value, components: list[int], *, axis: int, size: int) -> int | None:
    """The axis of the indices along which they count 0, 1, 2, ... for an axis of the operand, as arange(B) does."""
    if axis not in components:
        return None
    place, node = components.index(axis), indices.maker
    last = len(_shape(indices)) - 1
    if node is not None and node.name == "concatenate" and node.params["dimension"] == last:
        ends = np.cumsum([_shape(value)[last] for value in node.inputs])
        part = int(np.searchsorted(ends, place, side="right"))
        numbers, place = constant_of(node.inputs[part]), place - (int(ends[part - 1]) if part else 0)
    else:
        numbers = constant_of(indices)
    if numbers is None:
        return None
    own = np.asarray(numbers)[..., place]
    for along in range(own.ndim):
        if own.shape[along] == size:
            line = np.arange(size).reshape([-1 if n == along else 1 for n in range(own.ndim)])
            if (own == line).all():
                return along
    return None


def _fft(node: Node, state: Images) -> Any:
    sizes = _shape(node.outputs[0])
    last = range(len(sizes) - len(node.params["fft_lengths"]), len(sizes))
    _no_images(state, last, "is along the images")
    return _rebuilt(state, (_plain(n) if axis in last else state.axes[axis] for axis, n in enumerate(sizes)))


def _carried(node: Node, inputs: Sequence[State]) -> Any:
    for state in inputs:
        if isinstance(state, Images) and node.place in dict(state.away):
            raise _Mixes("hands on from image to image")
    return _joint(inputs)


def _round(node: Node, state: Images) -> Any:
    first, *axes = state.axes
    away = (*state.away, (node.place, first)) if _has_images(first) else state.away
    return Images(tuple(axes), away)


def _rounds(node: Node, state: Images) -> Any:
    away = dict(state.away)
    own = away.pop(node.place, None)
    if len(_shape(node.outputs[0])) == len(state.axes):  # what the last round hands on
        return state
    return Images((own or _plain(_shape(node.outputs[0])[0]), *state.axes), tuple(away.items()))


def _to_devices(node: Node, state: Images) -> Any:
    axes, away = list(state.axes), list(state.away)
    for axis, name, size in _sharded(node):
        first, *rest = axes[axis] or (Factor(1),)
        if any(factor.stride for factor in axes[axis]) and first.size % size:
            raise _Mixes("is taken apart between devices")
        if first.stride:
            away.append((("mesh", name), (Factor(size, first.size // size * first.stride),)))
            axes[axis] = _axis(Factor(first.size // size, first.stride), *rest)
        else:
            axes[axis] = _axis(Factor(first.size // size), *rest)
    return Images(tuple(axes), tuple(away))


def _from_devices(node: Node, state: Images) -> Any:
    axes, away = list(state.axes), dict(state.away)
    for axis, name, size in reversed(_sharded(node)):
        axes[axis] = _axis(*away.pop(("mesh", name), (Factor(size),)), *axes[axis])
    return Images(tuple(axes), tuple(away.items()))


def _sharded(node: Node) -> list[tuple[int, str, int]]:
    """(axis, axis of the mesh, devices along it), the outermost first."""
    names = [(axis, spec if isinstance(spec, tuple) else (spec,)) for axis, spec in enumerate(node.params["spec"])]
    mesh = node.params["mesh"].shape
    return [(axis, name, mesh[name]) for axis, some in names for name in some if name is not None]


def _between_devices(node: Node, inputs: Sequence[State]) -> Any:
    _collective(node, inputs)
    return Lost()


ELEMENTWISE = (
    "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj "
    "convert_element_type copy copy_p cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma "
    "igammac imag integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul name ne neg nextafter "
    "not or polygamma population_count pow pvary pbroadcast pcast real reduce_precision regularized_incomplete_beta "
    "rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh "
    "sqrt square stop_gradient sub tan tanh xor zeta sharding_constraint reshard layout_constraint"
).split()

_RULES: dict[str, Callable[[Node, Sequence[State]], Any]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("optimization_barrier", "device_put"), _each),
    **dict.fromkeys(_COLLECTIVES, _collective),
    **dict.fromkeys(
        "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin reduce".split(),
        _reduced,
    ),
    **dict.fromkeys(
        "sort top_k approx_top_k cumsum cumprod cummax cummin cumlogsumexp".split(),
        _along,
    ),
    **dict.fromkeys("reduce_window reduce_window_max reduce_window_min reduce_window_sum".split(), _window),
    **dict.fromkeys(
        "scatter scatter-add scatter_add scatter-sub scatter-mul scatter_mul scatter-min scatter-max".split(), _scatter
    ),
    "broadcast_in_dim": _first(_broadcast),
    "reshape": _first(_reshape),
    "tile": _first(_tile),
    **dict.fromkeys("cholesky eigh lu qr svd triangular_solve lu_pivots_to_permutation".split(), _matrices),
    "transpose": _first(_transpose),
    "squeeze": _first(_squeeze),
    "rev": _first(_reverse),
    "slice": _first(_slice),
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _update_slice,
    "pad": _first(_pad),
    "concatenate": _concatenate,
    "split": _first(_split),
    "stack": _stack,
    "unstack": _first(_unstack),
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "gather": _gather,
    "fft": _first(_fft),
    "cond": _elementwise,  # of the branches, and of what chooses one
    "carry": _carried,
    "scan_slice": _first(_round),
    "scan_stack": _first(_rounds),
    "shard_in": _first(_to_devices),
    "shard_out": _first(_from_devices),
    **dict.fromkeys(("all_gather", "all_to_all", "reduce_scatter"), _between_devices),
}
