"""The intermediates of any model by name: the paths of its modules, read from its program.

Linen, Haiku and Keras write a module's path into every operation (`jax.named_scope`), those of `eqx.nn` their class;
paths of NNX, classes of a user's modules of Equinox and name scopes of Haiku are written by `modules`.
An operation of its own is named by its module and by JAX's word for it:

    "Net/Block_0/Conv_0"       what this module gives
    "Net/Block_0/relu"         what jax.nn.relu gives inside the block, and in no module below it
    "Net/Block_0/Conv_0:2"     what the module gives when it is called for the second time

What a module gives is the last of its floating results that anything outside it reads. In the rounds of a scan each
round is a call. What stands in the branches of a cond, or in a while loop, has no name: it may never come about. Such
modules are listed in `Layers.unnamed`, with the reason, which a layer of their name is refused with.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from zfjax.anymodel.batch import axis_of, follow_batch, follow_channels
from zfjax.anymodel.graph import (
    INNER,
    Graph,
    Node,
    Place,
    Scope,
    Value,
    all_programs_of,
    graph_of,
    is_inexact,
    makes,
    programs_of,
    reached,
    scan_operands,
    scopes_of,
)
from zfjax.anymodel.interpreter import run_alone
from zfjax.anymodel.tracing import source_line, traced
from zfjax.errors import UserError

_JOINS = ("carry", "scan_slice", "shard_in")  # nodes that stand for no result of their call
_UNNAMED = ("cond", "shard_in", "shard_out")
_MANY = 4096  # rounds of scans inside each other whose results have names of their own


class Layer(NamedTuple):
    """An intermediate of a program.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> def fn(images):
      ...     with jax.named_scope("stem"):
      ...         return jax.nn.relu(images @ jnp.ones((3, 4)))
      >>> layer = zfjax.layers(fn, jnp.ones((1, 2, 2, 3)))["stem"]
      >>> layer.shape, layer.is_module
      ((1, 2, 2, 4), True)
    """

    shape: tuple[int, ...]  # the images come first
    dtype: Any
    source: str  # "file:line" of the operation that makes it
    operation: str  # its primitive
    is_module: bool  # what a module gives, rather than an operation of its own
    place: tuple[int, ...]  # of that operation: number of the equation, of the program (or round) in it, ...
    result: int  # number of the operation's result
    batch_axis: int | None  # of the images, before they come first
    channel_axis: int | None  # of a convolution's channels, as far as they are known


class Layers(dict[str, Layer]):
    """{path: Layer} in the order of the program; prints the modules as a table, and what has no name of its own.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> def fn(images):
      ...     with jax.named_scope("stem"):
      ...         return jax.nn.relu(images @ jnp.ones((3, 4)))
      >>> [path for path, layer in zfjax.layers(fn, jnp.ones((1, 2, 2, 3))).items() if layer.is_module]
      ['stem']
    """

    def __init__(self, unnamed: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.unnamed = dict(unnamed or {})  # {module inside a loop or branch: why its results have no name}

    def __str__(self) -> str:
        paths = [path for path, layer in self.items() if layer.is_module] or list(self)
        lines = [("layer", "shape", "source")]
        lines += [(path, f"{self[path].dtype}{list(self[path].shape)}", self[path].source) for path in paths]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        others = len(self) - len(paths)
        table += f"\nand {others} operations of their own, such as {_example(self)!r}" * bool(others)
        return "\n".join([table, *(f"no layer: {path} stands in {why}" for path, why in self.unnamed.items())])


def _example(layers: Layers) -> str:
    return next(path for path, layer in layers.items() if not layer.is_module)


def layers(fn: Callable[[jax.Array], Any], images: Any) -> Layers:
    """List every floating intermediate of a model that depends on the images, by the path of its module.

    Nothing is computed. A path is a layer for `project_fn(fn, images, layer=path, ...)` and for
    `FunctionNet(..., layers=[path])`, where channels come last, also for a model that has them first.

    Args:
      fn: images -> anything, with the parameters bound inside; it must work under jit.
      images: float [B, ...], or their `jax.ShapeDtypeStruct`.

    Returns:
      {path: Layer} with shape, dtype and the place of the operation, in the order of the program. Printed, a table
      of the modules.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> def model(images):
      ...     with jax.named_scope("stem"):
      ...         hidden = jax.nn.relu(images @ jnp.ones((3, 4)))
      ...     with jax.named_scope("head"):
      ...         return hidden.sum(axis=-1, keepdims=True)
      >>> inner = zfjax.layers(model, jnp.ones((2, 3)))
      >>> {path: layer.shape for path, layer in inner.items() if layer.is_module}
      {'stem': (2, 4), 'head': (2, 1)}
      >>> [path for path in inner if path.startswith("stem")]
      ['stem/dot_general', 'stem/relu', 'stem']
    """
    program, _ = traced(fn, (images,), {})
    return layers_of(program)


def layers_of(program: core.ClosedJaxpr) -> Layers:
    """The intermediates of a traced program of images."""
    graph = graph_of(program, marks=False)
    batched, channels = follow_batch(graph), follow_channels(graph)
    named = _named(graph)
    inside = _inside(program.jaxpr, (), ())
    layers = Layers({path: why for path, why in inside.items() if path not in named})
    for path, result in named.items():
        aval, axis = result.value.aval, axis_of(batched, result.value)
        order = list(range(len(aval.shape)))
        if axis is not None:
            order.insert(0, order.pop(axis))
        channel = axis_of(channels, result.value)
        layers[path] = Layer(
            tuple(aval.shape[n] for n in order),
            aval.dtype,
            source_line(result.node.sources),
            result.node.name,
            result.is_module,
            result.place,
            result.number,
            axis,
            None if channel is None else order.index(channel),
        )
    return layers


def features_of(fn: Callable[[jax.Array], Any], chosen: Sequence[str], images: Any) -> dict[str, jax.Array]:
    """{layer: features}: keys of what `fn` gives, or paths inside it; "logits" is all that `fn` gives, if one array.

    UserError with the nearest names for another.
    """
    program, shapes = traced(fn, (images,), {})
    layers = layers_of(program)
    own = shapes if isinstance(shapes, Mapping) else {} if "logits" in layers else {"logits": shapes}
    for layer in chosen:
        if layer not in own and layer not in layers:
            module = re.sub(r":\d+(?=/|$)", "", layer)
            inside = layers.unnamed.get(module) or layers.unnamed.get(module.rpartition("/")[0])
            raise UserError(
                f"layer={layer!r}: it stands in {inside}; let fn return what is looked at, as {{{layer!r}: features}}"
                if inside
                else f"layer={layer!r}: fn has none of this name ({_nearest(layer, [*own, *layers])}); "
                "zfjax.layers(fn, images) lists all inside it"
            )
    features = features_at(program, images, paths=[layer for layer in chosen if layer not in own], layers=layers)
    for layer, value in features.items():
        axis = layers[layer].channel_axis
        features[layer] = value if axis is None else jnp.moveaxis(value, axis, -1)
    if own.keys() & set(chosen):
        results = core.jaxpr_as_fun(program)(*jax.tree.leaves(images))
        given = jax.tree.unflatten(jax.tree.structure(shapes), results)
        features |= {layer: given[layer] if isinstance(given, Mapping) else given for layer in own}
    return {layer: features[layer] for layer in chosen}


def _nearest(path: str, paths: Sequence[str]) -> str:
    whole = difflib.get_close_matches(path, paths, n=3)
    ends: dict[str, list[str]] = {}
    for other in paths:
        ends.setdefault(other.split("/")[-1], []).append(other)
    alike = difflib.get_close_matches(path.split("/")[-1], ends, n=3)
    near = [*whole, *(other for end in alike for other in ends[end][:2])]
    listed = ", ".join(map(repr, dict.fromkeys(near)))
    return f"near: {listed}" if listed else f"of {len(paths)}, as {', '.join(map(repr, paths[-3:]))}"


def features_at(
    program: core.ClosedJaxpr, images: Any, *, paths: Sequence[str], layers: Layers | None = None
) -> dict[str, jax.Array]:
    """{path: [B, ...]}, intermediates of a traced program of images, each computed as in it; nothing beyond them is.

    Args:
      program: of one argument.
      paths: of intermediates that it has.
      images: what it is run on.
      layers: `layers_of(program)`, where that is known.
    """
    layers = layers_of(program) if layers is None else layers
    places = {(layers[path].place, layers[path].result) for path in paths}
    values = values_at(program, jax.tree.leaves(images), places) if places else {}
    features = {}
    for path in paths:
        value, axis = values[layers[path].place, layers[path].result], layers[path].batch_axis
        features[path] = value if axis in (None, 0) else jnp.moveaxis(value, axis, 0)
    return features


_IN_WORDS = {
    "while": "a while loop, which may make no round",
    "cond": "a branch of lax.cond or lax.switch, which may not be taken",
    "shard_map": "shard_map, where each device has a part of it",
    "scan": f"loops of more than {_MANY} rounds",
}


def _inside(jaxpr: core.Jaxpr, scopes: tuple[str, ...], around: tuple[core.JaxprEqn, ...]) -> dict[str, str]:
    """{path of a module: why its results have no name}, of those in loops and branches that may not run."""
    reasons: dict[str, str] = {}
    for eqn in jaxpr.eqns:
        own = (*scopes, *(scope.name for scope in scopes_of(eqn, ())))
        kept = [outer for outer in around if outer.primitive.name not in INNER or outer.primitive.name in _IN_WORDS]
        kept = [outer for outer in kept if outer.primitive.name != "scan" or not _is_named(around)]
        if own and kept:
            name = kept[0].primitive.name
            words = f"{_IN_WORDS.get(name, f'the operation {name}')}, at {source_line(kept[:1])}"
            reasons |= {path: words for end in range(1, len(own) + 1) if (path := "/".join(own[:end])) not in reasons}
        for program in all_programs_of(eqn):
            reasons |= {path: why for path, why in _inside(program, own, (*around, eqn)).items() if path not in reasons}
    return reasons


def _is_named(around: Sequence[core.JaxprEqn]) -> bool:
    """The rounds of scans are few enough to have names."""
    return math.prod(int(eqn.params["length"]) for eqn in around if eqn.primitive.name == "scan") <= _MANY


class _Result(NamedTuple):
    node: Node
    value: Value
    place: Place  # with the numbers of rounds
    number: int
    is_module: bool


_Path = tuple[Scope, ...]


def _named(graph: Graph) -> dict[str, _Result]:
    varying = reached(graph.inputs, makes)
    scans = {node.place: int(node.params["length"]) for node in graph.nodes if node.name in _SCAN}
    unnamed = {node.place for node in graph.nodes if node.name in _UNNAMED}
    paths = {node: _path_of(node) for node in graph.nodes}
    final = set(graph.outputs)
    results: dict[_Path, _Result] = {}
    numbers: dict[Place, int] = {}
    for node in graph.nodes:
        if node.name in _JOINS or any(node.place[:end] in unnamed for end in range(1, len(node.place), 2)):
            continue
        path = paths[node]
        for value in node.outputs:
            number = numbers[node.place] = numbers.get(node.place, -1) + 1
            if value in varying and is_inexact(value):
                leaf = path[-1] if path[-1].entered[0] != node.place else Scope(path[-1].name, (node.place, -number))
                inside = min((_shared(path, paths[user]) for user in value.users), default=len(path))
                for depth in range(0 if value in final else inside, len(path)):
                    region = (*path[:-1], leaf) if depth == len(path) - 1 else path[: depth + 1]
                    results[region] = _Result(node, value, node.place, number, depth < len(path) - 1)
    return _numbered(results, scans)


_SCAN = ("scan_stack", "scan_slice", "carry")


def _path_of(node: Node) -> _Path:
    """The scopes of a node and, last, its own operation: one of JAX's functions where it stands in one."""
    outermost = next((depth for depth, call in enumerate(node.calls) if call.by_jax), None)
    if outermost is None:
        return (*node.scopes, Scope(_OPERATIONS.get(node.name, node.name), (node.place, 0)))
    place = node.place[: 2 * outermost + 1]
    around = [scope for scope in node.scopes if len(scope.entered[0]) < len(place)]
    return (*around, Scope(node.calls[outermost].name.lstrip("_"), (place, 1)))


_OPERATIONS = {"scan_stack": "scan", "shard_out": "shard_map"}


def _shared(path: _Path, other: _Path) -> int:
    """How many scopes two paths have in common."""
    return next((n for n, (a, b) in enumerate(zip(path, other, strict=False)) if a != b), min(len(path), len(other)))


def _numbered(results: Mapping[_Path, _Result], scans: Mapping[Place, int]) -> dict[str, _Result]:
    """The results by their names, in the order of the program; what has one name is numbered from 2 on."""
    placed = [
        (tuple(Scope(scope.name, (_in_round(scope.entered[0], rounds), scope.entered[1])) for scope in path), result)
        for path, one in results.items()
        for rounds in _rounds_around(one.place, scans)
        for result in [one._replace(place=_in_round(one.place, rounds))]
    ]
    placed.sort(key=lambda pair: (pair[1].place, pair[1].number, -len(pair[0])))
    names: dict[_Path, str] = {(): ""}
    entries: dict[str, int] = {}
    taken: set[str] = set()  # a scope may be called "conv:2" itself

    def name_of(path: _Path) -> str:
        if path not in names:
            name = numbered = f"{name_of(path[:-1])}/{path[-1].name}".removeprefix("/")
            while numbered in taken:
                entries[name] = entries.get(name, 1) + 1
                numbered = f"{name}:{entries[name]}"
            taken.add(numbered)
            names[path] = numbered
        return names[path]

    for path, result in placed:  # modules first, so that no operation takes the name of one
        if result.is_module:
            name_of(path)
    return {name_of(path): result for path, result in placed}


def _rounds_around(place: Place, scans: Mapping[Place, int]) -> Iterator[dict[int, int]]:
    """{where in the place a scan's round stands: its number}, for every round of every scan around."""
    around = {len(scan): length for scan in _above(place) if (length := scans.get(scan)) is not None}
    if math.prod(around.values()) <= _MANY:
        for numbers in itertools.product(*map(range, around.values())):
            yield dict(zip(around, numbers, strict=True))


def _above(place: Place) -> list[Place]:
    return [place[:end] for end in range(1, len(place), 2)]


def _in_round(place: Place, rounds: Mapping[int, int]) -> Place:
    return tuple(rounds.get(index, number) for index, number in enumerate(place))


Target = tuple[Place, int]  # place of an operation with the numbers of rounds, number of its result


def values_at(
    program: core.ClosedJaxpr, operands: Sequence[Any], targets: Collection[Target]
) -> dict[Target, jax.Array]:
    """The results of operations anywhere in a program; of the rest only what they need is run."""
    jaxpr = program.jaxpr
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *operands], strict=True))
    direct = {place[0] for place, _ in targets if len(place) == 1}
    inner: dict[int, list[Target]] = {place[0]: [] for place, _ in targets if len(place) > 1}
    for place, number in targets:
        if len(place) > 1:
            inner[place[0]].append((place[1:], number))
    needed = _needed_for(jaxpr, direct, inner)
    values: dict[Target, jax.Array] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for index in sorted({*needed, *inner}):
        eqn = jaxpr.eqns[index]
        inputs = [read(atom) for atom in eqn.invars] if index in inner or index in needed else []
        for (place, number), value in _values_in(eqn, inputs, inner.get(index, ())).items():
            values[(index, *place), number] = value
        if index in needed:
            known.update(zip(eqn.outvars, run_alone(eqn, jaxpr, known), strict=True))
    return values | {
        ((place[0],), n): known[jaxpr.eqns[place[0]].outvars[n]] for place, n in targets if len(place) == 1
    }


def _needed_for(jaxpr: core.Jaxpr, direct: Collection[int], inner: Collection[int]) -> set[int]:
    """The equations that have to be run for these, and for the operands of those."""
    variables: set[Any] = set()
    needed = set()
    for index in reversed(range(1 + max([*direct, *inner]))):
        eqn = jaxpr.eqns[index]
        if index in direct or not variables.isdisjoint(eqn.outvars):
            needed.add(index)
        if index in needed or index in inner:
            variables.update(atom for atom in eqn.invars if not isinstance(atom, core.Literal))
    return needed


def _values_in(eqn: core.JaxprEqn, operands: Sequence[Any], targets: Collection[Target]) -> dict[Target, jax.Array]:
    """The results of operations inside a call, `targets` counted from it; those of a scan round by round."""
    results: dict[Target, jax.Array] = {}
    programs = programs_of(eqn)
    for number in sorted({place[0] for place, _ in targets}):
        some = [(place[1:], result) for place, result in targets if place[0] == number]
        is_scan = eqn.primitive.name == "scan"
        inputs = _operands_of_round(eqn, operands, number) if is_scan else operands
        values = values_at(programs[0 if is_scan else number], inputs, some)
        results |= {((number, *place), result): value for (place, result), value in values.items()}
    return results


def _operands_of_round(eqn: core.JaxprEqn, operands: Sequence[Any], number: int) -> list[Any]:
    """What a round of a scan reads, the rounds before it run."""
    (body,) = programs_of(eqn)
    num_consts, num_carry = scan_operands(eqn)
    fixed, carry, sliced = (
        operands[:num_consts],
        operands[num_consts : num_consts + num_carry],
        operands[num_consts + num_carry :],
    )
    length = eqn.params["length"]
    order = [length - 1 - k if eqn.params["reverse"] else k for k in range(number + 1)]
    if number:
        before = [jnp.asarray(value)[np.array(order[:-1])] for value in sliced]

        def step(carry: Any, slices: Any) -> tuple[Any, None]:
            return core.jaxpr_as_fun(body)(*fixed, *carry, *slices)[:num_carry], None

        carry, _ = lax.scan(step, list(carry), before, length=number)
    return [*fixed, *carry, *(jnp.asarray(value)[order[-1]] for value in sliced)]
