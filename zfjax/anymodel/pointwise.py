"""Which elements of a program's arrays are made of one and the same element, whatever moved them and wherever.

A leaky rectifier is max(z, 0) - 0.1 * max(-z, 0), and just as well a product of concatenate([max(z, 0), max(-z, 0)])
with a matrix that holds two numbers in a column, a sum over stack, or one max of [z, -z] whose halves meet again. So
every array is followed back, element by element, to its roots: what layers make, and what rectifiers make on the way.

    of each element alone                       the elements of its operands meet
    moves: turns, pieces, joins, copies         the elements are found again at other places
    sums of a few, products with constants      the elements that are added meet, if some are made of one
      that hold a few numbers in a column
    moves to places that nobody states: reads     its results may be made of any element
      where the input or a loop's counter says,
      Fourier transforms, running sums; all
      moves of large arrays
    anything else                               a layer: its results are roots

Two elements that are made of one element of a root meet. A rectifier that stands on the way to one of them, and not at
the same element on the way to the other, is part of another activation. Dense weights between them are a layer. Two
elements of one rectifier that share but a mean, or a factor, with many others are two features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import combinations, starmap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zfjax.anymodel.constants import constant_of
from zfjax.anymodel.graph import Flow, Graph, Node, Value, is_inexact
from zfjax.anymodel.rectifiers import MOVES
from zfjax.anymodel.twins import Twins
from zfjax.anymodel.weights import OF_EACH
from zfjax.anymodel.written import Written

_FEW = 4  # elements that a sum adds, numbers in a column of a matrix, ways back to one root
_ROOTS = 64  # of one value, the latest
_STACKED = 16  # arrays in a stack that is summed
_LARGEST = 1 << 23  # elements of an array that is followed through moves
_ANYWHERE = (1 << 24) - 2  # the number of an element that may be any: as the others, exact in float32 with 1 added

_STATIC_MOVES = frozenset("rev slice split concatenate stack unstack pad tile".split()) | MOVES - {"stop_gradient"}
_READS = frozenset(("gather", "dynamic_slice"))
_WRITES = {"scatter": slice(1, 2), "dynamic_update_slice": slice(2, None)}  # which operands say where
_SCATTERS = frozenset((*_READS, *_WRITES, "scatter-add", "fft", "cumsum"))  # read anywhere, if nobody knows where
_REPEATING = frozenset(("broadcast_in_dim", "tile", "gather"))  # read an element several times
_PARTS = {"scan_stack": "scan_slice", "shard_out": "shard_in"}  # what leaves a loop, or devices, and what enters


class Labels:
    """For each element of a value the element of a root that it is made of, -1 for none; worked out when asked for."""

    def __init__(
        self, shape: Sequence[int], made: Callable[[], np.ndarray] | None = None, *, is_any: bool = False
    ) -> None:
        self.shape = tuple(shape)
        self.is_any = is_any  # each may be made of any: nobody knows
        self.made = made  # None: each element is made of that at its own place
        self.array: np.ndarray | None = None

    def numbers(self) -> np.ndarray:
        """int32, of the value's shape."""
        if self.array is None:
            own = np.arange(math.prod(self.shape), dtype=np.int32).reshape(self.shape)
            self.array = own if self.made is None else np.maximum(self.made(), -1).astype(np.int32)
        return self.array

    def is_like(self, other: Labels, *, somewhere: bool = False) -> bool:
        """The same elements; with `somewhere`, wherever both are made of any."""
        if self is other or (self.made is None and other.made is None and self.shape == other.shape):
            return True
        if self.is_any or other.is_any:
            return True
        a, b = np.broadcast_arrays(self.numbers(), other.numbers())
        alike = (a == b) | ((a == _ANYWHERE) & (b >= 0)) | ((b == _ANYWHERE) & (a >= 0))
        both = (a >= 0) & (b >= 0) if somewhere else np.ones((), bool)
        return bool(both.any() and (alike | ~both).all())

    def is_somewhere(self) -> bool:
        """Some element is made of one."""
        return self.is_any or self.made is None or bool((self.numbers() >= 0).any())

    def is_anywhere(self) -> bool:
        """Nowhere is it known which element."""
        return self.is_any or (self.made is not None and bool(np.isin(self.numbers(), (-1, _ANYWHERE)).all()))


_Made = dict[Value, list[Labels]]  # {root: the ways back to it}


def _anywhere(shape: Sequence[int]) -> Labels:
    return Labels(shape, lambda: np.broadcast_to(np.int32(_ANYWHERE), shape), is_any=True)


def met_rectifiers(
    graph: Graph, flow: Flow, *, twins: Twins, rectifiers: Collection[Node], written: Mapping[Node, Written]
) -> set[Value]:
    """The results of rectifiers, each the first of its twins, that meet what they are made of on another way.

    Args:
      graph, flow, twins: of the program.
      rectifiers: its operations that are some, or the last of what is written out.
      written: {last operation: a stretch that makes each number of one other}.
    """
    return _Follow(flow, twins, rectifiers, {node: stretch.base for node, stretch in written.items()}).run(graph)


class _Follow:
    def __init__(self, flow: Flow, twins: Twins, rectifiers: Collection[Node], bases: Mapping[Node, Value]) -> None:
        self.flow, self.twins, self.rectifiers, self.bases = flow, twins, set(rectifiers), bases
        self.made: dict[Value, _Made] = {}
        self.kinks: dict[Value, tuple[Node, _Made]] = {}  # of a rectifier's result: the rectifier, what it reads
        self.order: dict[Value, int] = {}  # of the roots
        self.met: set[Value] = set()
        self.mixed: set[Value] = set()  # in a large array some elements are made of it, others of what it reads alone
        self.repeated: set[Value] = set()  # in a large array several elements may be made of one element of it

    def run(self, graph: Graph) -> set[Value]:
        for value in graph.inputs:
            self.made[value] = {value: [Labels(value.aval.shape)]}
        carries = []
        for node in graph.nodes:
            if not any(value in self.flow.varying for value in node.outputs):
                continue
            carries.extend([node] if node.name == "carry" else [])
            results = self.of_node(node)
            for number, value in enumerate(node.outputs):
                made = results[number] if results is not None else self.root(node, value)
                if node in self.rectifiers:
                    first = self.twins.of(value)
                    self.kinks.setdefault(first, (node, made))
                    made = made | {first: [Labels(value.aval.shape)]}
                for root in made:
                    self.order.setdefault(root, len(self.order))
                latest = sorted(made, key=self.order.__getitem__)[-_ROOTS:]
                self.made[value] = {root: made[root] for root in latest}
        for node in carries:
            self.check_rounds(node)
        return self.met

    def root(self, node: Node, value: Value) -> _Made:
        mirrored = _mirrored(node) if node.name in ("dot_general", "conv_general_dilated") else None
        return {self.twins.of(value): [Labels(value.aval.shape, mirrored)]}

    def of_node(self, node: Node) -> list[_Made] | None:
        """What each result is made of; None where they are roots."""
        if node in self.bases:
            return [self.made[self.bases[node]]]
        varying = [value for value in node.inputs if value in self.flow.varying]
        shape = node.outputs[0].aval.shape
        if node.name in OF_EACH and len(node.outputs) == 1:
            return [self.joined([_spread(self.made[value], value.aval.shape, shape) for value in varying])]
        if node.name in _PARTS:
            return self.stacked(node) if node.name == "scan_stack" else self.gathered(node)
        if node.name == "cond":
            return self.branched(node)
        largest = max(math.prod(value.aval.shape) for value in (*varying, *node.outputs))
        places = node.inputs[1:] if node.name in _READS else node.inputs[_WRITES.get(node.name, slice(0))]
        is_static = node.name in _STATIC_MOVES or (
            bool(places) and all(constant_of(value) is not None for value in places)
        )
        if len(node.eqns) != 1:
            return None
        if is_static:
            return self.moved(node) if largest <= _LARGEST else self.anywhere(node)
        added = self.added(node, varying, is_large=largest > _LARGEST)
        return self.anywhere(node) if added is None and node.name in _SCATTERS else added

    def added(self, node: Node, varying: Sequence[Value], *, is_large: bool) -> list[_Made] | None:
        """Of a few elements, some of which are made of one; None where they are not. Of large arrays of any."""
        terms: list[_Made] = []
        shape = node.outputs[0].aval.shape
        for value in varying:
            pick = _SUMS[node.name](node, value) if node.name in _SUMS else None
            if pick is None:
                return None
            number, picked = pick
            made = self.made[value]
            if number > 1 and all(way.made is None for ways in made.values() for way in ways):
                return None  # elements that all are different
            if is_large and number > 1:
                self.meet_unseen(made)
            terms.extend(
                {root: [Labels(shape, partial(picked, way, k)) for way in ways] for root, ways in made.items()}
                for k in range(number)
            )
        if is_large:
            return self.anywhere(node)
        shared = len(terms) == 1 or any(starmap(_share, combinations(terms, 2)))
        return [self.joined(terms)] if shared else None

    def anywhere(self, node: Node) -> list[_Made] | None:
        """Of any element of what is read or written; beside that, of the same element of what is written into."""
        own = node.inputs[0]
        into = self.made.get(own, {}) if node.name in (*_WRITES, "scatter-add") else {}
        read = [v for v in node.inputs if is_inexact(v) and not (into and v is own)]
        parts = [dict.fromkeys(self.made.get(v, ()), [_anywhere(())]) for v in [*read, *([own] if into else [])]]
        roots = {root for value in read for root in self.made.get(value, {})}
        if not roots and not into:
            return None
        for one, other in combinations(parts, 2):
            self.mixed |= self.apart(one, other)
            self.repeated |= one.keys() & other.keys()
        self.repeated |= roots if node.name in _REPEATING else set()
        return [
            into | {root: [*into.get(root, []), _anywhere(result.aval.shape)] for root in roots}
            for result in node.outputs
        ]

    def meet_unseen(self, made: _Made) -> None:
        """Where elements of one large array are added, a rectifier may meet what it reads, or itself."""
        self.met.update(kink for kink in made.keys() & self.kinks.keys() if self.may_meet(kink, made))

    def may_meet(self, kink: Value, made: Collection[Value]) -> bool:
        """Elements of a large array that is made so may be made of a rectifier and of what it reads, or twice of it."""
        below = self.kinks[kink][1].keys() & made
        return kink in self.mixed or (bool(below) and below <= self.repeated)

    def joined(self, terms: list[_Made]) -> _Made:
        """Of values that meet element by element."""
        for number, one in enumerate(terms):
            for other in terms[:number]:
                self.meet(one, other)
        joint: _Made = {}
        for term in terms:
            for root, ways in term.items():
                known = joint.setdefault(root, [])
                for way in ways:
                    if len(known) < _FEW and not any(way.is_like(other) for other in known):
                        known.append(way)
        return joint

    def meet(self, one: _Made, other: _Made) -> None:
        self.met |= self.apart(one, other)

    def apart(self, one: _Made, other: _Made) -> set[Value]:
        """Rectifiers on one way alone, or at other elements on the other, of two values that meet."""
        shared = {root for root in one.keys() & other.keys() if _have_like(one[root], other[root], somewhere=True)}
        apart: set[Value] = set()
        for kink in (one.keys() | other.keys()) & self.kinks.keys() - self.met if shared else ():
            ways, others = ([way for way in made.get(kink, ()) if way.is_somewhere()] for made in (one, other))
            read = self.kinks[kink][1].keys() & one.keys() & other.keys() - {kink}
            unseen = any(way.is_anywhere() for way in (*ways, *others)) and self.may_meet(kink, read)
            same = read & shared
            if not same or not (ways or others) or (_have_like(ways, others) and not unseen):
                continue
            two = ways and others and not unseen  # elements of it, which may share the mean of a norm and no more
            if not two or same == read or any(root.aval.size * _FEW >= kink.aval.size for root in same):
                apart.add(kink)
        return apart

    def branched(self, node: Node) -> list[_Made]:
        """Of what any of the branches makes; they do not meet."""
        joint: _Made = {}
        for value in node.inputs[1:]:
            for root, ways in self.made.get(value, {}).items():
                joint.setdefault(root, []).extend(ways)
        return [joint]

    def moved(self, node: Node) -> list[_Made] | None:
        """The elements at their new places."""
        (eqn,) = node.eqns
        roots = dict.fromkeys(root for value in node.inputs for root in self.made.get(value, ()))
        results: list[_Made] = [{} for _ in node.outputs]
        for root in roots:
            for number in range(max(len(self.made.get(value, {}).get(root, ())) for value in node.inputs)):
                ways = [(self.made.get(value, {}).get(root, ()))[number : number + 1] for value in node.inputs]
                kept = _Once(partial(_evaluated, node, eqn, ways=ways, flow=self.flow))
                for k, value in enumerate(node.outputs):
                    results[k].setdefault(root, []).append(Labels(value.aval.shape, partial(kept, k)))
        return results

    def stacked(self, node: Node) -> list[_Made] | None:
        """What the rounds of a scan make, each of what stands outside it and of its own."""
        (value,), (result,) = node.inputs, node.outputs
        made = self.made.get(value, {})
        if len(result.aval.shape) == len(value.aval.shape):
            outside = {root: ways for root, ways in made.items() if not _is_in(root, node)}
            outside |= {
                root: [_anywhere(result.aval.shape)] for root in (made.keys() - outside.keys()) & self.kinks.keys()
            }
            return [outside] if outside else None
        is_small = math.prod(result.aval.shape) <= _LARGEST and result.aval.shape[0] <= _FEW
        stacked: _Made = {}
        for root, ways in made.items():
            inside = _is_in(root, node)
            step = math.prod(root.aval.shape) if inside else 0
            kept = [
                Labels(result.aval.shape)
                if inside and _is_whole(way, root, value)
                else Labels(result.aval.shape, partial(_of_rounds, way, result.aval.shape[0], step))
                for way in ways
                if is_small or (inside and _is_whole(way, root, value)) or way.is_anywhere()
            ]
            stacked.update({root: kept} if kept else {})
        return [self.left(node, stacked)] if stacked else None

    def gathered(self, node: Node) -> list[_Made] | None:
        """What every device makes of its part."""
        (value,), (result,) = node.inputs, node.outputs
        whole = {
            root: [Labels(result.aval.shape)]
            for root, ways in self.made.get(value, {}).items()
            if _is_in(root, node) and any(_is_whole(way, root, value) for way in ways)
        }
        return [self.left(node, whole)] if whole else None

    def left(self, node: Node, made: _Made) -> _Made:
        """What a loop or the devices hand out, made also of what stands outside, of which they had parts."""
        for kink in made.keys() & self.kinks.keys():
            rectifier, below = self.kinks[kink]
            self.kinks[kink] = rectifier, below | self.outside(node, dict.fromkeys(below, []))
        return made | self.outside(node, made)

    def outside(self, node: Node, made: _Made) -> _Made:
        """{root outside: ways} for each root that is the part of a value that one round, or device, has."""
        ways_outside: _Made = {}
        for root, ways in made.items():
            maker, shape = root.maker, node.outputs[0].aval.shape
            if maker is None or maker.name != _PARTS[node.name] or maker.eqns[0] is not node.eqns[0]:
                continue
            (whole, *_) = maker.inputs
            if whole.aval.shape == shape and maker.params.get("spec") == node.params.get("spec"):
                for other, own in self.made.get(whole, {}).items():
                    ways_outside.setdefault(other, []).extend(
                        new if way.made is None else _through(new, way) for new in own for way in ways
                    )
        return ways_outside

    def check_rounds(self, node: Node) -> None:
        """What a scan adds to in every round meets what the other rounds make."""
        (start, end), (own,) = node.inputs, node.outputs
        made = self.made.get(end, {})
        if start in self.made:
            self.meet(self.made[start], {root: ways for root, ways in made.items() if not _is_in(root, node)} | made)
        if self.twins.of(own) not in made:
            return
        for kink in made.keys() & self.kinks.keys():
            rectifier, below = self.kinks[kink]
            if rectifier.place[: len(node.place)] == node.place and any(
                not _is_in(root, node) and root in made and not all(way.is_anywhere() for way in ways)
                for root, ways in below.items()
            ):
                self.met.add(kink)


def _spread(made: _Made, shape: tuple[int, ...], above: tuple[int, ...]) -> _Made:
    """Of an operand that lax spreads along its axes of size one; a single number is not followed."""
    if shape == above or not shape:
        return made if shape == above else {}
    return {
        root: [
            Labels(above, lambda way=way: np.broadcast_to(way.numbers(), above), is_any=way.is_any)  # type: ignore[misc]
            for way in ways
        ]
        for root, ways in made.items()
    }


def _share(one: _Made, other: _Made) -> bool:
    """Somewhere they are made of one element."""
    return any(_have_like(one[root], other[root], somewhere=True) for root in one.keys() & other.keys())


def _have_like(ways: Sequence[Labels], others: Sequence[Labels], *, somewhere: bool = False) -> bool:
    return any(way.is_like(other, somewhere=somewhere) for way in ways for other in others)


def _is_in(value: Value, scan: Node) -> bool:
    """A value of a scan's rounds."""
    maker = value.maker
    return maker is not None and maker.name not in _PARTS and maker.place[: len(scan.place)] == scan.place


def _is_whole(way: Labels, root: Value, value: Value) -> bool:
    """Each element of the value is made of that of the root at its own place."""
    return way.made is None and root.aval.shape == value.aval.shape


def _through(labels: Labels, way: Labels) -> Labels:
    """What is made of places of a value, itself made so of a root."""

    def made() -> np.ndarray:
        numbers = way.numbers()
        known = (numbers >= 0) & (numbers < _ANYWHERE)
        return np.where(known, labels.numbers().ravel()[np.where(known, numbers, 0)], numbers)

    return Labels(way.shape, made)


class _Once:
    """One of several results that are worked out together."""

    def __init__(self, make: Callable[[], Sequence[np.ndarray]]) -> None:
        self.make = make
        self.results: Sequence[np.ndarray] | None = None

    def __call__(self, number: int) -> np.ndarray:
        if self.results is None:
            self.results = self.make()
        return self.results[number]


def _evaluated(node: Node, eqn: Any, *, ways: Sequence[Sequence[Labels]], flow: Flow) -> list[np.ndarray]:
    """The move itself, of numbers of elements."""
    operands: list[Any] = []
    for value, way in zip(node.inputs, ways, strict=True):
        if way:
            operands.append(way[0].numbers())
        elif (node.name in _READS and value is not node.inputs[0]) or (
            node.name in _WRITES and value in node.inputs[_WRITES[node.name]]
        ):
            operands.append(constant_of(value))
        else:
            operands.append(np.full(value.aval.shape, -1, np.int32))
    if node.name in ("convert_element_type", "copy", "copy_p", "name", "pvary", "pcast"):
        return operands[:1]
    params = {key: None if key == "sharding" else setting for key, setting in eqn.params.items()}
    with jax.ensure_compile_time_eval():
        if node.name == "scatter":  # whose parameters hold a program for its own type
            operand, indices, updates = operands
            made = lax.scatter(operand, indices, updates, eqn.params["dimension_numbers"], mode=eqn.params["mode"])
            return [np.asarray(made)]
        made = eqn.primitive.bind(*operands, **params)
    return [np.asarray(array) for array in (made if eqn.primitive.multiple_results else [made])]


def _of_rounds(way: Labels, length: int, step: int) -> np.ndarray:
    own = way.numbers()
    rounds = np.arange(length, dtype=np.int32).reshape(-1, *[1] * own.ndim)
    return np.where((own >= 0) & (own < _ANYWHERE), own + step * rounds, own)


_Pick = tuple[int, Callable[[Labels, int], np.ndarray]]  # (how many are added, the labels of the k-th of them)


def _sum(node: Node, value: Value) -> _Pick | None:
    shape, axes = value.aval.shape, tuple(node.params["axes"])
    number = math.prod(shape[axis] for axis in axes)
    if number > (_STACKED if _is_stack(value) else _FEW) or any(not isinstance(axis, int) for axis in axes):
        return None
    kept = [axis for axis in range(len(shape)) if axis not in axes]

    def picked(way: Labels, k: int) -> np.ndarray:
        return way.numbers().transpose(*kept, *axes).reshape(*(shape[axis] for axis in kept), number)[..., k]

    return number, picked


def _is_stack(value: Value) -> bool:
    """Arrays side by side, perhaps times numbers."""
    node = value.maker
    while node is not None and node.name in ("mul", "div", "convert_element_type"):
        node = next((v.maker for v in node.inputs if not v.known), None)
    return node is not None and node.name in ("stack", "concatenate")


def _running_sum(node: Node, value: Value) -> _Pick | None:
    axis, shape = node.params["axis"], value.aval.shape
    if shape[axis] > _FEW:
        return None

    def picked(way: Labels, k: int) -> np.ndarray:
        own = np.flip(way.numbers(), axis) if node.params["reverse"] else way.numbers()
        within = np.arange(shape[axis]).reshape([-1 if n == axis else 1 for n in range(len(shape))]) >= k
        shifted = np.where(within, np.take(own, [k], axis), -1)
        return np.flip(shifted, axis) if node.params["reverse"] else shifted

    return shape[axis], picked


def _window(node: Node, value: Value) -> _Pick | None:
    params, sizes = node.params, node.outputs[0].aval.shape
    windows = params["window_dimensions"]
    number = math.prod(windows)
    if number > _FEW or any(size != 1 for size in params["base_dilation"]):
        return None
    offsets = list(np.ndindex(*windows))

    def picked(way: Labels, k: int) -> np.ndarray:
        padded = np.pad(way.numbers(), params["padding"], constant_values=-1)
        places = [
            np.arange(size) * stride + offset * dilation
            for size, stride, offset, dilation in zip(
                sizes, params["window_strides"], offsets[k], params["window_dilation"], strict=True
            )
        ]
        return padded[np.ix_(*places)]

    return number, picked


def _weighted(node: Node, value: Value) -> _Pick | None:
    """Of products with a constant matrix or filter that holds a few numbers for each result: the operation itself."""
    place = node.inputs.index(value)
    numbers = constant_of(node.inputs[1 - place])
    if numbers is None or node.inputs[0] is node.inputs[1] or node.params.get("batch_group_count", 1) > 1:
        return None
    if node.name == "dot_general":
        added: Sequence[int] = node.params["dimension_numbers"][0][1 - place]
    elif place:
        return None
    else:
        added = node.params["dimension_numbers"].rhs_spec[1:]
    holds = np.moveaxis(numbers != 0, added, range(len(added)))
    ranks = holds.reshape(-1, *holds.shape[len(added) :]).cumsum(0)  # of the numbers that one result takes
    number, most = int(ranks.max(initial=0)), min(_FEW, max(2, len(ranks) // 2))
    if not 0 < number <= most:
        return None
    order = np.moveaxis(ranks.reshape(holds.shape), range(len(added)), added) * (numbers != 0)
    (eqn,) = node.eqns
    params = eqn.params | {"precision": lax.Precision.HIGHEST, "preferred_element_type": jnp.dtype(np.float32)}
    params |= {"out_sharding": None} if "out_sharding" in params else {}

    def picked(way: Labels, k: int) -> np.ndarray:
        operands = [way.numbers().astype(np.float32) + 1, (order == k + 1).astype(np.float32)]
        with jax.ensure_compile_time_eval():  # whole numbers below 2 ** 24 are exact
            made = eqn.primitive.bind(*(operands[::-1] if place else operands), **params)
        return np.asarray(made).astype(np.int32) - 1

    return number, picked


def _scattered(node: Node, value: Value) -> _Pick | None:
    """Each operand and, at most a few to a place, what is added to it."""
    operand, indices, updates = node.inputs
    if value is operand:
        return 1, lambda way, k: way.numbers()
    numbers = node.params["dimension_numbers"]
    places, shape, given = constant_of(indices), operand.aval.shape, updates.aval.shape
    if value is not updates or places is None or math.prod(given) > _LARGEST:
        return None
    outside = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    windows = iter(numbers.update_window_dims)
    reads = lax.GatherDimensionNumbers(
        offset_dims=numbers.update_window_dims,
        collapsed_slice_dims=numbers.inserted_window_dims,
        start_index_map=numbers.scatter_dims_to_operand_dims,
        operand_batching_dims=numbers.operand_batching_dims,
        start_indices_batching_dims=numbers.scatter_indices_batching_dims,
    )
    sizes = tuple(1 if axis in outside else given[next(windows)] for axis in range(len(shape)))
    own = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    with jax.ensure_compile_time_eval():
        targets = np.asarray(lax.gather(own, places, reads, sizes, mode="fill", fill_value=-1)).ravel()
    order = np.argsort(targets, kind="stable")
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - np.searchsorted(targets[order], targets[order])
    number = int(ranks[targets >= 0].max(initial=0)) + 1

    def picked(way: Labels, k: int) -> np.ndarray:
        some = (ranks == k) & (targets >= 0)
        made = np.full(math.prod(shape), -1, np.int32)
        made[targets[some]] = way.numbers().ravel()[some]
        return made.reshape(shape)

    return (number, picked) if number <= _FEW else None


def _mirrored(node: Node) -> Callable[[], np.ndarray] | None:
    """Labels of a layer's results, of which some channels are others times a number below zero; None where none is."""
    kernel, (result,) = node.inputs[1], node.outputs
    if node.name == "dot_general":
        (_, contracted), batched = node.params["dimension_numbers"]
        free = [axis for axis in range(len(kernel.aval.shape)) if axis not in contracted]
        axis = len(result.aval.shape) - 1
        if any(batched) or len(free) != 1:
            return None
        (channels,) = free
    else:
        _, rhs, out = node.params["dimension_numbers"]
        channels, axis = rhs[0], out[1]
        if node.params["feature_group_count"] > 1:
            return None
    numbers = constant_of(kernel)
    if numbers is None or not np.issubdtype(numbers.dtype, np.floating):
        return None
    matrix = np.moveaxis(numbers, channels, 0).reshape(numbers.shape[channels], -1).astype(np.float64)
    largest = np.take_along_axis(matrix, np.abs(matrix).argmax(1)[:, None], 1)
    if not (largest > 0).any() or not (largest < 0).any() or not np.isfinite(largest).all():
        return None
    scaled, signs = matrix / np.where(largest, largest, 1), np.sign(largest.ravel())
    some: dict[tuple[float, ...], int] = {}
    first = np.arange(len(matrix))
    for k, row in enumerate(map(tuple, np.round(scaled[:, :8], 4))):
        other = some.setdefault(row, k)
        if signs[k] * signs[other] < 0 and np.allclose(scaled[k], scaled[other]):
            first[k] = other
    if (first == np.arange(len(first))).all():
        return None
    shape = result.aval.shape
    own = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    return lambda: np.take(own, first, axis)


def _alone(sum_of: Callable[[Node, Value], _Pick | None]) -> Callable[[Node, Value], _Pick | None]:
    """The largest of one element is that element."""

    def pick(node: Node, value: Value) -> _Pick | None:
        picked = sum_of(node, value)
        return picked if picked is not None and picked[0] == 1 else None

    return pick


def _sorted(node: Node, value: Value) -> _Pick | None:
    alone = len(node.inputs) == 1 and value.aval.shape[node.params["dimension"]] == 1
    return (1, lambda way, k: way.numbers()) if alone else None


_SUMS: dict[str, Callable[[Node, Value], _Pick | None]] = {
    "reduce_sum": _sum,
    "cumsum": _running_sum,
    "scatter-add": _scattered,
    "reduce_window_sum": _window,
    **dict.fromkeys(("dot_general", "conv_general_dilated"), _weighted),
    **dict.fromkeys(("reduce_max", "reduce_min"), _alone(_sum)),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _alone(_window)),
    **dict.fromkeys(("cummax", "cummin"), _alone(_running_sum)),
    "sort": _sorted,
}


def adds_few(node: Node) -> bool:
    """A product with a constant matrix or filter that makes each number of a few, as an identity does: no layer."""
    pick = _SUMS.get(node.name)
    return pick is not None and any(pick(node, value) is not None for value in node.inputs)
