"""The first filters of any model, read from its program: the weights that the images meet first.

The first convolution or matrix product is looked for of which one side is made of the images and the other of weights.
The derivative of one of its places by the pixels are its filters as the images meet them: in rows, columns and channels
of the image, however the model turns, pads, cuts and casts its images before. So the projection of a vision
transformer's patches has filters too. Where each channel has a factor of its own before them, that is taken out again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.anymodel.crops import KEEP_CHANNELS
from zfjax.anymodel.graph import (
    OF_PARTS,
    ROUNDS_AND_BRANCHES,
    Graph,
    Node,
    Value,
    graph_of,
    made_of,
    makes,
    module_of,
    reached,
)
from zfjax.anymodel.names import values_at
from zfjax.anymodel.tracing import traced
from zfjax.errors import UserError

_PRODUCTS = ("conv_general_dilated", "dot_general")
_SAMPLE = 32  # numbers that a place reads, of each of which it is looked up which pixels it is made of
_AT_ONCE = 1 << 24  # derivatives that are held at once
_MOST = 1 << 26  # weights of all filters: more are no picture


class FirstFilters(NamedTuple):
    """The weights that a model's images meet first."""

    kernel: np.ndarray  # float32 [h, w, C, N]
    stride: tuple[int, int] | None  # pixels between two of their places, down and across; None where it is not known
    module: str  # path of the module that they stand in, "ResNet/stem"; "" where it has no name
    is_own: bool  # the layer has one map, or unit, for each of them, and no other weights come between


def first_filters_of(fn: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: Any) -> FirstFilters:
    """The first filters of the model that gives a layer.

    Args:
      fn: images [B, H, W, C] -> the layer's features [B, ..., C']; the parameters are inside.
      shape: (H, W, C).
      dtype: of the images.

    Raises:
      UserError: no weights meet the pixels by themselves; it says what stands between.
    """
    program, _ = traced(fn, (jax.ShapeDtypeStruct((1, *shape), dtype),), {})
    graph = graph_of(program, marks=False)
    (images, layer), (node, side) = (graph.inputs[0], graph.outputs[0]), _first_product(graph)
    places = {value: _place_of(value, graph) for value in node.inputs if value.maker is not None}

    def read(pixels: jax.Array) -> list[jax.Array]:
        values = values_at(program, [pixels], set(places.values())) if places else {}
        given = {value: pixels if value is images else value.constant for value in node.inputs}
        return [values[places[value]] if value in places else given[value] for value in node.inputs]

    product = _Product(node, side=side, read=read, shape=(1, *shape), dtype=dtype)
    return FirstFilters(product.kernel(), product.stride(), module_of(node), _is_own(node, side, layer))


def _first_product(graph: Graph) -> tuple[Node, int]:
    """(the first product of images and weights, which of its sides are the images); of several the layer's own."""
    varying = reached([graph.inputs[0]], makes)
    behind: set[Value] = set()  # some weights
    first: list[tuple[Node, int]] = []
    for node in graph.nodes:
        is_behind = not behind.isdisjoint(node.inputs)
        if not is_behind and (side := _side_of_images(node, varying)) is not None:
            first.append((node, side))
            is_behind = True
        if is_behind:
            behind.update(node.outputs)
    first = [(node, side) for node, side in first if not any(call.name in ROUNDS_AND_BRANCHES for call in node.calls)]
    if not first:
        raise UserError("its images meet no convolution and no matrix of weights outside loops")
    return next((pair for pair in first if _is_own(*pair, graph.outputs[0])), first[0])


def _side_of_images(node: Node, varying: set[Value]) -> int | None:
    """Which side of a product the images are on, where the other is made of arrays that the model has."""
    of_images = [value in varying for value in node.inputs]
    if node.name not in _PRODUCTS or sum(of_images) != 1:
        return None
    weights = node.inputs[of_images.index(False)]
    arrays = (v for v in reached([weights], made_of) if v.maker is None and np.size(v.constant) > 1)
    return of_images.index(True) if weights.known and any(True for _ in arrays) else None


def _is_own(node: Node, side: int, layer: Value) -> bool:
    """Between the product and the layer each map, or unit, stays one."""
    shape = node.outputs[0].aval.shape
    if math.prod(shape[axis] for axis in _filter_axes(node, side)) != layer.aval.shape[-1]:
        return False
    above, beneath = reached(node.outputs, makes), reached([layer], made_of)
    between = {user for value in above & beneath for user in value.users if not beneath.isdisjoint(user.outputs)}
    return layer in above and all(user.name in KEEP_CHANNELS for user in between)


def _filter_axes(node: Node, side: int) -> tuple[int, ...]:
    """The axes of a product's result that count its filters: those that its weights have, too."""
    numbers = node.params["dimension_numbers"]
    if node.name == "conv_general_dilated":
        return (numbers.out_spec[1],)
    contracted, batched = numbers
    num_batched = len(batched[0])
    num_free = [len(value.aval.shape) - len(contracted[k]) - num_batched for k, value in enumerate(node.inputs)]
    first = num_batched + (num_free[0] if side == 0 else 0)
    return (*range(num_batched), *range(first, first + num_free[1 - side]))


def _place_of(value: Value, graph: Graph) -> tuple[tuple[int, ...], int]:
    """Where the program makes a value, and which result of the operation it is."""
    node = value.maker
    if node is None or node.name in OF_PARTS or any(call.name in ROUNDS_AND_BRANCHES for call in node.calls):
        raise UserError("its images meet their first weights inside a loop")
    results = [result for other in graph.nodes if other.place == node.place for result in other.outputs]
    return node.place, next(number for number, result in enumerate(results) if result is value)


class _Window(NamedTuple):
    """What a place sees, pixels."""

    top: int
    left: int
    bottom: int
    right: int


class _Product:
    """A product of images and weights, and its derivatives by the pixels."""

    def __init__(
        self, node: Node, *, side: int, read: Callable[[jax.Array], list[jax.Array]], shape: tuple[int, ...], dtype: Any
    ):
        rng = np.random.default_rng(0)
        self._node, self._side, self._read = node, side, read
        # inside any range that they are clipped to; alike, as slopes then are
        self._pixels = jnp.full(shape, 0.5, dtype)
        weights = node.inputs[1 - side].aval
        self._positive = jnp.asarray(rng.uniform(0.5, 1.5, weights.shape), weights.dtype)  # none hides a pixel
        kept = _filter_axes(node, side)
        others = [axis for axis in range(len(node.outputs[0].aval.shape)) if axis not in kept]
        self._order, sides = (*others, *kept), node.outputs[0].aval.shape
        self._sides = tuple(sides[axis] for axis in others)
        self._num = math.prod(sides[axis] for axis in kept)
        self._middle = tuple(length // 2 for length in self._sides)

    def kernel(self) -> np.ndarray:
        """float32 [h, w, C, N]; UserError where the product reads no single pixels."""
        window, shape = self._window_at(self._middle), self._pixels.shape[1:]
        self._check_pixels()
        side = (window.bottom - window.top) * (window.right - window.left) * shape[-1]
        if side * self._num > _MOST:
            raise UserError(f"its {self._num:,} first filters have {side:,} weights each, too many for pictures")
        rows, columns = np.s_[window.top : window.bottom], np.s_[window.left : window.right]

        @jax.jit
        def derivatives(some: jax.Array) -> jax.Array:
            _, back = jax.vjp(lambda pixels: self._at(self._middle, *self._read(pixels)), self._pixels)
            weights: jax.Array = jax.vmap(lambda one: back(one)[0][0, rows, columns])(some)
            return weights

        chosen, size = np.eye(self._num, dtype=self._node.outputs[0].aval.dtype), max(1, _AT_ONCE // math.prod(shape))
        chunks = [np.asarray(derivatives(chosen[n : n + size]), np.float32) for n in range(0, self._num, size)]
        return np.ascontiguousarray(np.moveaxis(np.concatenate(chunks), 0, -1) / self._scales()[:, None])

    def stride(self) -> tuple[int, int] | None:
        """(down, across) between neighbours of the middle place; None where it has none."""
        steps = [self._step(axis) for axis, length in enumerate(self._sides) if length > 1]
        down, across = (next((step[k] for step in steps if step[k] and not step[1 - k]), 0) for k in (0, 1))
        if across and not down and len(steps) == 1:  # places in one row, as patches are: the next row of them
            down = self._step(max(range(len(self._sides)), key=self._sides.__getitem__), self._columns(across))[0]
        return (down, across) if down and across else None

    def _columns(self, across: int) -> int:
        """How many places `across` pixels apart the image is wide."""
        width: int = self._pixels.shape[2] // across
        return width

    def _step(self, axis: int, by: int = 1) -> tuple[int, int]:
        """Pixels (down, across) to the place `by` further, or before, along an axis; (0, 0) where neither is there."""
        steps = []
        for other in (self._middle[axis] - by, self._middle[axis] + by):
            if 0 <= other < self._sides[axis]:
                place = (*self._middle[:axis], other, *self._middle[axis + 1 :])
                steps.append(self._apart(self._window_at(place), self._window_at(self._middle)))
        return min(steps, key=lambda step: (step[0] > 0) + (step[1] > 0) or 2, default=(0, 0))

    def _apart(self, one: _Window, other: _Window) -> tuple[int, int]:
        """Pixels (down, across) between two windows, by those of their edges that no border of the image cuts off."""
        down = one.bottom - other.bottom if 0 in (one.top, other.top) else one.top - other.top
        across = one.right - other.right if 0 in (one.left, other.left) else one.left - other.left
        return abs(down), abs(across)

    def _window_at(self, place: tuple[int, ...]) -> _Window:
        sees = np.asarray(self._seen_from(place))
        rows, columns = (np.flatnonzero(sees.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            raise UserError("its first weights see no pixel of the image's middle")
        return _Window(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)

    @cached_property
    def _seen_from(self) -> Callable[[tuple[int, ...]], jax.Array]:
        @jax.jit
        def seen(place: tuple[int, ...]) -> jax.Array:
            def total(pixels: jax.Array) -> jax.Array:
                return self._at(place, *self._with_positive(self._images(pixels))).sum()

            is_met: jax.Array = (jax.grad(total)(self._pixels)[0] != 0).any(axis=-1)
            return is_met

        return seen

    def _images(self, pixels: jax.Array) -> jax.Array:
        """The side of the product that is made of the images."""
        return self._read(pixels)[self._side]

    def _with_positive(self, images: jax.Array) -> Sequence[jax.Array]:
        return (images, self._positive) if self._side == 0 else (self._positive, images)

    def _at(self, place: tuple[int, ...], *operands: jax.Array) -> jax.Array:
        """The filters' answers at a place, [N]."""
        (eqn,) = self._node.eqns
        result = eqn.primitive.bind(*operands, **eqn.params).transpose(self._order)
        answers: jax.Array = result.reshape(*self._sides, self._num)[place]
        return answers

    @cached_property
    def _window_of_images(self) -> np.ndarray:
        """bool, of the numbers that the product reads: the middle place does."""
        images = self._images(self._pixels)
        signal = jax.grad(lambda images: self._at(self._middle, *self._with_positive(images)).sum())(images)
        return np.asarray(signal != 0)

    def _check_pixels(self) -> None:
        """UserError where a number that the filters read is made of several pixels."""
        numbers = np.flatnonzero(self._window_of_images)
        some = np.random.default_rng(0).permutation(numbers)[:_SAMPLE]
        images, back = jax.vjp(self._images, self._pixels)
        for number in some:
            one = np.zeros(images.size, images.dtype)
            one[number] = 1
            (by_pixel,) = back(jnp.asarray(one.reshape(images.shape)))
            if not np.isfinite(by_pixel).all() or int((np.asarray(by_pixel) != 0).any(axis=-1).sum()) > 1:
                raise UserError(
                    "its first weights meet what is made of several pixels each, as images are that were resized, "
                    "blurred or normalised by their own mean inside the model"
                )

    def _scales(self) -> np.ndarray:
        """float32 [C], the factor of each channel before the product; ones where there is no such factor."""
        shape, inside = self._pixels.shape, self._window_of_images
        channels = [jnp.zeros_like(self._pixels).at[..., channel].set(1) for channel in range(shape[-1])]
        factors = [np.asarray(jax.jvp(self._images, (self._pixels,), (one,))[1])[inside] for one in channels]
        if np.sum([factor != 0 for factor in factors], axis=0).max() > 1:
            return np.ones(shape[-1], np.float32)  # colours are mixed, and the filters are those of the mixtures
        own = [factor[factor != 0] for factor in factors]
        even = all(np.allclose(factor, factor[:1], rtol=1e-3) for factor in own)
        return np.array([factor[0] if even and len(factor) else 1 for factor in own], np.float32)
