"""Which image each number of a program's arrays is made of, followed number by number.

The program is run on the numbers of the images in place of their pixels: what is made of several images gets the
highest of their numbers, what is made of none gets -1. It is run with the images numbered upwards, and downwards: where
row r of the result has no higher number than image r either way, it is made of image r alone.

What depends on no argument has its own numbers. So the places of a loop that counts the images are known, round by
round, as are permutations and masks, and what is multiplied by 0 counts for nothing. Of an operation that is not listed
every result is made of all that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.extend import core

from zfjax.anymodel.batch import ELEMENTWISE, window_axes
from zfjax.anymodel.constants import constant_of, numbers_of
from zfjax.anymodel.graph import INNER, ROUNDS_AND_BRANCHES, Node, Value, marked_regions, programs_of, scan_operands
from zfjax.ops import SKIPPED

_NO_IMAGE = np.int32(-1)
_LONGEST = 1 << 16  # operations of a loop, in all its rounds
_LARGEST = 1 << 24  # elements of an array that are followed one by one


class _Array(NamedTuple):
    """An array of the program."""

    image: np.ndarray  # the highest image that an element is made of; of size 1 along axes where it is the same
    numbers: Any = None  # its elements, where they depend on no argument and are few


def are_alone(program: core.ClosedJaxpr) -> bool:
    """Whether row r of each result is made of row r alone of the program's first argument, as far as is known.

    All have as many rows. Of a single row this says nothing.
    """
    images, *others = program.in_avals
    upwards = np.arange(images.shape[0], dtype=np.int32)
    try:
        for numbered in (upwards, upwards[::-1]):
            inputs = [_Array(_rows(numbered, len(images.shape))), *map(_of_none, others)]
            with jax.ensure_compile_time_eval():
                results = _run(program, inputs)
            if any((result.image > _rows(numbered, result.image.ndim)).any() for result in results):
                return False
    except _TooLarge:
        return False
    return True


def _rows(numbered: np.ndarray, rank: int) -> np.ndarray:
    return numbered.reshape(-1, *(1,) * (rank - 1))


def _of_none(aval: Any, numbers: Any = None) -> _Array:
    return _Array(_even(aval, _NO_IMAGE), numbers)


def _even(aval: Any, image: np.int32) -> np.ndarray:
    return np.full((1,) * len(aval.shape), image, np.int32)


def _run(program: core.ClosedJaxpr, inputs: Sequence[_Array]) -> list[_Array]:
    jaxpr = program.jaxpr
    constants = [_constant(v, numbers) for v, numbers in zip(jaxpr.constvars, program.consts, strict=True)]
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(atom: Any) -> _Array:
        return _constant(atom, atom.val) if isinstance(atom, core.Literal) else known[atom]

    skipped = _skipped(jaxpr)
    for index, eqn in enumerate(jaxpr.eqns):
        known.update(zip(eqn.outvars, _made(eqn, list(map(read, eqn.invars))), strict=True))
        for below, above in skipped.get(index, ()):
            known[above] = known[above]._replace(image=np.maximum(known[above].image, known[below].image))
    return list(map(read, jaxpr.outvars))


def _skipped(jaxpr: core.Jaxpr) -> dict[int, list[tuple[core.Var, core.Var]]]:
    """{equation of a region that the way down skips: what the region may hand on as it is, and as what}."""
    regions = {index: region for index, region in marked_regions(jaxpr).items() if region.name == SKIPPED}
    pairs: dict[int, list[tuple[core.Var, core.Var]]] = {}
    read: dict[Node, list[core.Var]] = {}
    for index, region in regions.items():
        eqn = jaxpr.eqns[index]
        inputs = read.setdefault(region, [])
        inner = {v for other, same in regions.items() if same is region for v in jaxpr.eqns[other].outvars}
        inputs += [v for v in eqn.invars if not isinstance(v, core.Literal) and v not in inner]
        pairs[index] = [(v, own) for v in inputs for own in eqn.outvars if _shape(v) == _shape(own)]
    return pairs


def _constant(atom: Any, numbers: Any) -> _Array:
    return _of_none(atom.aval, constant_of(Value(atom.aval, numbers)))


def _made(eqn: core.JaxprEqn, inputs: list[_Array]) -> list[_Array]:
    name = eqn.primitive.name
    avals: list[Any] = [v.aval for v in eqn.outvars]
    if name in INNER and name not in ROUNDS_AND_BRANCHES:
        return _run(programs_of(eqn)[0], inputs)
    if all(array.numbers is not None for array in inputs) and not eqn.effects:
        numbers = numbers_of(eqn, [array.numbers for array in inputs])
        if numbers is not None:
            return list(map(_of_none, avals, numbers))
    if name == "cond":
        return _branch(eqn, inputs)
    if name == "scan" and 0 < eqn.params["length"] and _num_steps([eqn]) <= _LONGEST:
        return _rounds(eqn, inputs)
    highest = max((array.image.max() for array in inputs), default=_NO_IMAGE)
    made = _RULES[name](eqn, inputs) if name in _RULES and highest != _NO_IMAGE else None
    images = made if isinstance(made, list) else [made] * len(avals)
    return [
        _of_none(aval) if 0 in aval.shape else _Array(_even(aval, highest) if image is None else _short(image))
        for aval, image in zip(avals, images, strict=True)
    ]


def _branch(eqn: core.JaxprEqn, inputs: list[_Array]) -> list[_Array]:
    (which, *operands), programs = inputs, programs_of(eqn)
    if which.numbers is not None:
        return _run(programs[int(np.clip(which.numbers, 0, len(programs) - 1))], operands)
    ends = [_run(program, operands) for program in programs]
    return [_Array(_highest([which.image, *(array.image for array in arrays)])) for arrays in zip(*ends, strict=True)]


def _rounds(eqn: core.JaxprEqn, inputs: list[_Array]) -> list[_Array]:
    (body,), length = programs_of(eqn), eqn.params["length"]
    num_consts, num_carry = scan_operands(eqn)
    fixed, carry, sliced = inputs[:num_consts], inputs[num_consts:][:num_carry], inputs[num_consts + num_carry :]
    stacked = []
    for k in range(length)[:: -1 if eqn.params["reverse"] else 1]:
        ends = _run(body, [*fixed, *carry, *(_slice_of(array, k) for array in sliced)])
        carry = ends[:num_carry]
        stacked.append(ends[num_carry:])
    return [*carry, *map(_stack_of, zip(*stacked[:: -1 if eqn.params["reverse"] else 1], strict=True))]


def _slice_of(array: _Array, k: int) -> _Array:
    numbers = None if array.numbers is None else np.asarray(array.numbers)[k]
    return _Array(np.asarray(array.image[k if len(array.image) > 1 else 0]), numbers)


def _stack_of(rounds: Sequence[_Array]) -> _Array:
    numbers = None if any(array.numbers is None for array in rounds) else np.stack([array.numbers for array in rounds])
    return _Array(_short(np.stack(np.broadcast_arrays(*(array.image for array in rounds)))), numbers)


def _num_steps(eqns: Iterable[core.JaxprEqn]) -> int:
    """Operations, in all rounds of their loops."""
    return sum(
        (eqn.params["length"] if eqn.primitive.name == "scan" else 1)
        * (1 + sum(_num_steps(program.jaxpr.eqns) for program in programs_of(eqn)))
        for eqn in eqns
    )


class _TooLarge(Exception):
    """An array of more elements than are followed one by one."""


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)


def _highest(images: Iterable[np.ndarray]) -> np.ndarray:
    return reduce(np.maximum, images)


def _joint(inputs: Iterable[_Array], rank: int) -> np.ndarray:
    """Of arrays of one shape, place by place, and of single numbers, which are spread."""
    return _highest(a.image if a.image.ndim == rank else a.image.reshape((1,) * rank) for a in inputs)


def _over(image: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    """The highest along some axes."""
    highest: np.ndarray = image.max(tuple(axes), keepdims=True)
    return highest


def _full(image: np.ndarray, shape: Sequence[int], axes: Iterable[int]) -> np.ndarray:
    """Element by element along some axes."""
    some = set(axes)
    sizes = [n if axis in some else own for axis, (n, own) in enumerate(zip(shape, image.shape, strict=True))]
    if math.prod(sizes) > _LARGEST:
        raise _TooLarge
    return np.broadcast_to(image, sizes)


def _short(image: np.ndarray) -> np.ndarray:
    """Of size 1 along axes where it is the same."""
    for axis, n in enumerate(image.shape):
        first = image.take([0], axis) if n > 1 else image
        image = first if n > 1 and (image == first).all() else image
    return image


def _placed(image: np.ndarray, targets: Mapping[int, int], rank: int) -> np.ndarray:
    """With its axes in other places, {axis: place}; the others have size 1."""
    order = sorted(range(image.ndim), key=lambda axis: targets.get(axis, rank))
    sizes = {place: image.shape[axis] for axis, place in targets.items()}
    return image.transpose(order).reshape([sizes.get(place, 1) for place in range(rank)])


# Rules: the images of an operation's results, or of each; None where they are made of all that it reads.


def _elementwise(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    return _joint(inputs, len(_shape(eqn.outvars[0])))


def _product(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    image = _elementwise(eqn, inputs)
    for factor in inputs:
        image = image if factor.numbers is None else np.where(_distinct(factor.numbers) == 0, _NO_IMAGE, image)
    return image


def _distinct(numbers: Any) -> np.ndarray:
    """Of size 1 along axes along which it is spread."""
    array = np.asarray(numbers)
    return array[tuple(slice(None if stride else 1) for stride in array.strides)]


def _selected(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    which, *cases = inputs
    if which.numbers is None:
        return _elementwise(eqn, inputs)
    choice = _distinct(which.numbers)
    return _highest(np.where(choice == number, case.image, _NO_IMAGE) for number, case in enumerate(cases))


def _each(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    return [array.image for array in inputs]


def _reduced(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    axes = tuple(eqn.params["axes"] if "axes" in eqn.params else eqn.params["dimensions"])
    return _joint(inputs, len(_shape(eqn.invars[0]))).max(axes)


def _along(axes_of: Callable[[core.JaxprEqn], Iterable[int]]) -> Callable[[core.JaxprEqn, list[_Array]], Any]:
    """The rule of what mixes along some axes; those that it drops are among them, and the last."""

    def rule(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
        joint = _over(_joint(inputs, len(_shape(eqn.invars[0]))), axes_of(eqn))
        return [joint.reshape(joint.shape[: len(_shape(v))]) for v in eqn.outvars]

    return rule


def _own_axis(eqn: core.JaxprEqn) -> list[int]:
    return [eqn.params.get("axis", eqn.params.get("dimension", -1))]


def _dot(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    sums, pairs = eqn.params["dimension_numbers"]
    ranks = [len(_shape(v)) for v in eqn.invars]
    free = [[a for a in range(n) if a not in (*s, *p)] for n, s, p in zip(ranks, sums, pairs, strict=True)]
    rank = len(pairs[0]) + len(free[0]) + len(free[1])  # of the result; behind its axes stand those of the sum
    starts = (len(pairs[0]), len(pairs[0]) + len(free[0]))
    places = [
        {axis: place for axes, start in ((p, 0), (f, first), (s, rank)) for place, axis in enumerate(axes, start)}
        for p, f, s, first in zip(pairs, free, sums, starts, strict=True)
    ]
    total = rank + len(sums[0])
    images = []
    for side, other in ((0, 1), (1, 0)):
        image = _placed(inputs[side].image, places[side], total)
        if inputs[other].numbers is not None and math.prod(image.shape[rank:]) > 1:
            factors = _placed(_distinct(inputs[other].numbers), places[other], total)
            if math.prod(np.broadcast_shapes(image.shape, factors.shape)) > _LARGEST:
                raise _TooLarge
            image = np.where(factors == 0, _NO_IMAGE, image)
        images.append(image.max(tuple(range(rank, total))))
    return _highest(images)


def _conv(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    if eqn.params["batch_group_count"] > 1:
        return None
    batch, feature, *_ = numbers.out_spec
    rank, num_features = len(numbers.out_spec), _shape(eqn.outvars[0])[feature]
    maps = _over(inputs[0].image, numbers.lhs_spec[2:])
    kernels = _over(inputs[1].image, numbers.rhs_spec[1:])
    along = numbers.lhs_spec[1]
    if maps.shape[along] > 1:  # of each group, for the features made of it
        parts = np.moveaxis(maps, along, 0).reshape(groups, -1, *np.delete(maps.shape, along)).max(1)
        maps = np.moveaxis(parts.repeat(num_features // groups, axis=0), 0, along)
    return np.maximum(
        _placed(maps, {numbers.lhs_spec[0]: batch, along: feature}, rank),
        _placed(kernels, {numbers.rhs_spec[0]: feature}, rank),
    )


def _broadcast(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    return _placed(inputs[0].image, dict(enumerate(eqn.params["broadcast_dimensions"])), len(_shape(eqn.outvars[0])))


def _reshaped(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    image, old, new = inputs[0].image, _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    if eqn.params["dimensions"] is not None:
        return None
    sizes: list[int] = []
    split: list[int] = []
    for (start, first), (end, last) in pairwise(_common_ends(old, new)):
        is_even = math.prod(image.shape[start:end]) == 1
        split += [] if is_even else range(start, end)
        sizes += [1] * (last - first) if is_even else new[first:last]
    return _full(image, old, split).reshape(sizes)


def _common_ends(old: Sequence[int], new: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers of axes of two shapes of as many elements that themselves have as many elements, from 0 to all."""
    counts = {math.prod(old[:n]): n for n in range(1, len(old))}
    ends = {counts.get(math.prod(new[:n]), 0): n for n in range(1, len(new))}
    return [(0, 0), *((n, k) for n, k in ends.items() if n), (len(old), len(new))]


def _transposed(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    return inputs[0].image.transpose(eqn.params["permutation"])


def _squeezed(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    return np.squeeze(inputs[0].image, tuple(eqn.params["dimensions"]))


def _reversed(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    return np.flip(inputs[0].image, eqn.params["dimensions"])


def _cut(image: np.ndarray, places: Iterable[slice]) -> np.ndarray:
    return image[tuple(slice(None) if n == 1 else place for n, place in zip(image.shape, places, strict=True))]


def _sliced(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    return _cut(inputs[0].image, map(slice, starts, limits, eqn.params["strides"] or (1,) * len(starts)))


def _split(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    image, axis = inputs[0].image, eqn.params["axis"]
    ends = np.cumsum(eqn.params["sizes"])[:-1]
    return [image] * len(eqn.outvars) if image.shape[axis] == 1 else np.split(image, ends, axis)


def _places(shape: Sequence[int], sizes: Sequence[int], starts: Sequence[_Array]) -> list[slice | None]:
    """What lax.dynamic_slice cuts, along every axis; None where that is not known."""
    places: list[slice | None] = []
    for n, size, start in zip(shape, sizes, starts, strict=True):
        first = 0 if n == size else None if start.numbers is None else int(np.clip(start.numbers, 0, n - size))
        places.append(None if first is None else slice(first, first + size))
    return places


def _dynamic_slice(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    operand, *starts = inputs
    places = _places(_shape(eqn.invars[0]), eqn.params["slice_sizes"], starts)
    image = _over(operand.image, [axis for axis, place in enumerate(places) if place is None])
    return _highest([_cut(image, [place or slice(None) for place in places]), *(start.image for start in starts)])


def _update_slice(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    operand, part, *starts = inputs
    shape, sizes = _shape(eqn.invars[0]), _shape(eqn.invars[1])
    places = _places(shape, sizes, starts)
    cut = [axis for axis, n in enumerate(shape) if n != sizes[axis]]
    if None in places:
        return _highest([operand.image, _over(part.image, cut), *(start.image for start in starts)])
    image = _full(operand.image, shape, [*cut, *(axis for axis, n in enumerate(part.image.shape) if n > 1)]).copy()
    image[tuple(place if axis in cut else slice(None) for axis, place in enumerate(places))] = part.image
    return image


def _padded(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    (operand, edge), widths = inputs, eqn.params["padding_config"]
    image = _full(operand.image, _shape(eqn.invars[0]), [axis for axis, some in enumerate(widths) if any(some)])
    return np.asarray(lax.pad(image, edge.image, widths))


def _concatenated(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    along = eqn.params["dimension"]
    parts = [np.moveaxis(_full(a.image, _shape(v), [along]), along, 0) for a, v in zip(inputs, eqn.invars, strict=True)]
    rest = np.broadcast_shapes(*(part.shape[1:] for part in parts))
    return np.moveaxis(np.concatenate([np.broadcast_to(part, (len(part), *rest)) for part in parts]), 0, along)


def _stacked(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    return np.stack(np.broadcast_arrays(*(array.image for array in inputs)), eqn.params["axis"])


def _unstacked(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    axis = eqn.params["axis"]
    return list(np.moveaxis(_full(inputs[0].image, _shape(eqn.invars[0]), [axis]), axis, 0))


def _tiled(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    image = inputs[0].image
    return np.tile(image, [1 if n == 1 else k for n, k in zip(image.shape, eqn.params["reps"], strict=True)])


def _gather(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    (operand, indices), numbers, sizes = inputs, eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape, rank = _shape(eqn.invars[0]), len(_shape(eqn.outvars[0]))
    if indices.numbers is not None:
        even = {axis for axis, n in enumerate(operand.image.shape) if n == 1 and sizes[axis] == shape[axis]}
        image = _full(operand.image, shape, set(range(len(shape))) - even)
        sizes = tuple(1 if axis in even else size for axis, size in enumerate(sizes))
        return np.asarray(
            lax.gather(image, indices.numbers, numbers, sizes, mode=eqn.params["mode"], fill_value=_NO_IMAGE)
        )
    outside = [axis for axis in range(rank) if axis not in numbers.offset_dims]  # one for each axis of the indices
    paired = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    kept = [a for a in range(len(shape)) if a not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)]
    places = {axis: outside[other] for axis, other in paired}
    places |= {axis: place for axis, place in zip(kept, numbers.offset_dims, strict=True) if sizes[axis] == shape[axis]}
    read = _over(operand.image, set(range(len(shape))) - set(places))
    return np.maximum(_placed(read, places, rank), _placed(_over(indices.image, [-1]), dict(enumerate(outside)), rank))


def _scatter(eqn: core.JaxprEqn, inputs: list[_Array]) -> Any:
    (operand, indices, updates), numbers = inputs, eqn.params["dimension_numbers"]
    shape, given = _shape(eqn.invars[0]), _shape(eqn.invars[2])
    kept = [a for a in range(len(shape)) if a not in (*numbers.inserted_window_dims, *numbers.operand_batching_dims)]
    windows = {
        other: axis for axis, other in zip(kept, numbers.update_window_dims, strict=True) if shape[axis] == given[other]
    }
    if indices.numbers is None:
        outside = [axis for axis in range(len(given)) if axis not in numbers.update_window_dims]
        pairs = dict(zip(numbers.scatter_indices_batching_dims, numbers.operand_batching_dims, strict=True))
        places = windows | {outside[other]: axis for other, axis in pairs.items()}
        update = _over(updates.image, set(range(len(given))) - set(places))
        index = _over(indices.image, set(range(indices.image.ndim)) - set(pairs))
        return _highest([operand.image, _placed(update, places, len(shape)), _placed(index, pairs, len(shape))])
    even = {other: a for other, a in windows.items() if operand.image.shape[a] == updates.image.shape[other] == 1}
    image = _full(operand.image, shape, set(range(len(shape))) - set(even.values()))
    update = _full(updates.image, given, set(range(len(given))) - set(even))
    nowhere = np.full(image.shape, _NO_IMAGE - 1, np.int32)
    written = np.asarray(lax.scatter_max(nowhere, indices.numbers, update, numbers, mode=eqn.params["mode"]))
    return np.where(
        written < _NO_IMAGE, image, written if eqn.primitive.name == "scatter" else np.maximum(image, written)
    )


_RULES: dict[str, Callable[[core.JaxprEqn, list[_Array]], Any]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("optimization_barrier", "device_put"), _each),
    **dict.fromkeys(
        "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin reduce".split(),
        _reduced,
    ),
    **dict.fromkeys("sort top_k cumsum cumprod cummax cummin cumlogsumexp".split(), _along(_own_axis)),
    **dict.fromkeys(
        "reduce_window reduce_window_max reduce_window_min reduce_window_sum".split(),
        _along(lambda eqn: window_axes(eqn.params)),
    ),
    **dict.fromkeys("cholesky eigh lu qr svd triangular_solve".split(), _along(lambda eqn: (-2, -1))),
    "fft": _along(lambda eqn: range(-len(eqn.params["fft_lengths"]), 0)),
    **dict.fromkeys(
        "scatter scatter-add scatter_add scatter-sub scatter-mul scatter_mul scatter-min scatter-max".split(), _scatter
    ),
    "mul": _product,
    "select_n": _selected,
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    "transpose": _transposed,
    "squeeze": _squeezed,
    "rev": _reversed,
    "slice": _sliced,
    "split": _split,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _update_slice,
    "pad": _padded,
    "concatenate": _concatenated,
    "stack": _stacked,
    "unstack": _unstacked,
    "tile": _tiled,
    "gather": _gather,
}
