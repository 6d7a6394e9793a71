"""The deconvnet of sec. 2.1, the gradient and guided backpropagation: three ways from an activation to pixels.

All three go backward through the same layers, and differ in what the ReLU does to the signal and in the contrast norm:

    project          relu(signal)               the norm is skipped
    gradient         signal * active            the norm's own derivative
    guided_backprop  relu(signal) * active      the norm's own derivative

with `active` true where the ReLU was positive in the forward pass. `descend` is their common loop. `project_windows`
projects single units inside their receptive fields, `project_places` many units of many images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.architecture import Architecture, ContrastNorm, Conv, Layer, Pool, Sizes
from zfjax.errors import UserError, saying_keywords
from zfjax.network import LayerTrace, Params, Trace, check_params, forward
from zfjax.ops import contrast_norm, conv_transpose, unpool
from zfjax.units import (
    Index,
    Seed,
    Top,
    as_unit,
    by_layer,
    check_seed,
    joined,
    of_layers,
    one_layer,
    place_of,
    warn_below_zero,
)
from zfjax.units import Unit as Unit  # said here too: a way down begins with them
from zfjax.units import isolate as isolate
from zfjax.windows import Place, Windows, activations_at, carry_down


@saying_keywords
def project(
    params: Params,
    trace: Trace,
    top: Top,
    *,
    layer: str | None = None,
    architecture: Architecture,
    seed: Seed = "value",
) -> jax.Array:
    """Project the activations `top` of `layer` to pixels with the deconvnet (sec. 2.1, Fig. 1).

    For each convolutional layer, from `layer` down: (i) unpool with the switches, (ii) apply a ReLU, (iii) apply the
    transposed filters; for a hidden dense layer (ii) and (iii). Biases are not used and the contrast norm is skipped.
    The pixels get no ReLU, and the logits, which have none in the forward pass, get none here.

    Args:
      params: the network's parameters.
      trace: from `forward` for the same images; only its switches are used, and the features of a Unit's layer.
      top: a Unit; or an array of the shape of trace[layer].features, zero except for the activations to project, as
        from `isolate`. [N, ...] with the trace of one image gives N projections for it.
      layer: the layer of `top`, any of the architecture, such as "conv5" or "fc7"; optional if a Unit names it.
      architecture: the table.
      seed: start a Unit from its "value" or from "one", as for `isolate`; an array starts from its values.

    Returns:
      [B, H, W, C], signed, in pixels. UserError for an unknown layer, or two of them, another
      shape, parameters of another architecture, or a trace without the switches of a pool.

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64)
      >>> images = 50 * jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
      >>> params = zfjax.ConvNet(table).init(jax.random.key(1), images)["params"]
      >>> trace = zfjax.forward(params, images, architecture=table)[1]
      >>> top = zfjax.isolate(trace["conv5"].features, channel=7)
      >>> pixels = zfjax.project(params, trace, top, layer="conv5", architecture=table)
      >>> pixels.shape
      (1, 64, 64, 3)
      >>> units = zfjax.Unit(np.array([7, 3]), layer="conv5")  # two pictures of the one image, the first the same
      >>> others = zfjax.project(params, trace, units, architecture=table)
      >>> others.shape, np.allclose(others[0], pixels[0])
      ((2, 64, 64, 3), True)
      >>> zfjax.project(params, trace, zfjax.Unit(3, layer="fc7"), architecture=table).shape  # a dense unit
      (1, 64, 64, 3)
    """
    return _pixels(params, trace, top, layer=layer, architecture=architecture, way="deconvnet", seed=seed)


@saying_keywords
def gradient(
    params: Params,
    trace: Trace,
    top: Top,
    *,
    layer: str | None = None,
    architecture: Architecture,
    seed: Seed = "value",
) -> jax.Array:
    """The derivative of sum(top * features of `layer`) with respect to the images, exactly as `jax.grad` gives it.

    With a Unit, or `top` from `isolate`, this is an activation times its gradient; with seed="one" the gradient itself
    (Simonyan et al. 2013, "saliency").

    Args:
      params, trace, top, layer, architecture, seed: as for `project`; of the trace, features, switches and norm_inputs
        of a pass without dropout are used.

    Returns:
      [B, H, W, C], signed; UserError as for `project`, or for a trace without the features
      of a layer or the inputs of a norm.

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64)
      >>> images = 50 * jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
      >>> params = zfjax.ConvNet(table).init(jax.random.key(1), images)["params"]
      >>> trace = zfjax.forward(params, images, architecture=table)[1]
      >>> def logit(images):
      ...     return zfjax.forward(params, images, architecture=table)[0][0, 7]
      >>> top = jax.nn.one_hot(np.array([7]), 1000)
      >>> others = zfjax.gradient(params, trace, top, layer="fc8", architecture=table)
      >>> np.allclose(others, jax.grad(logit)(images), rtol=1e-4, atol=1e-6 * abs(others).max())
      True
    """
    return _pixels(params, trace, top, layer=layer, architecture=architecture, way="gradient", seed=seed)


@saying_keywords
def guided_backprop(
    params: Params,
    trace: Trace,
    top: Top,
    *,
    layer: str | None = None,
    architecture: Architecture,
    seed: Seed = "value",
) -> jax.Array:
    """`gradient` with every ReLU also rectifying the signal (Springenberg et al. 2014).

    Args:
      params, trace, top, layer, architecture, seed: as for `gradient`.

    Returns:
      [B, H, W, C], signed; UserError as for `gradient`.

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64)
      >>> images = 50 * jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
      >>> params = zfjax.ConvNet(table).init(jax.random.key(1), images)["params"]
      >>> trace = zfjax.forward(params, images, architecture=table)[1]
      >>> zfjax.guided_backprop(params, trace, zfjax.Unit(7, layer="conv5"), architecture=table).shape
      (1, 64, 64, 3)
    """
    return _pixels(params, trace, top, layer=layer, architecture=architecture, way="guided", seed=seed)


Way = Literal["deconvnet", "gradient", "guided"]
WayDown = Callable[..., jax.Array]  # called as `project` is
WAYS: dict[str, WayDown] = {"deconvnet": project, "gradient": gradient, "guided": guided_backprop}


class Step(NamedTuple):
    """One layer on the way down, in the order of Fig. 1."""

    unpooled: jax.Array  # [B, H, W, C] what came from above, right above the ReLU: below pools and norms; dense: [B, C]
    rectified: jax.Array  # same shape, below the ReLU; of the logits, which have none, as it came
    filtered: jax.Array  # the shape that the layer reads: what comes to the layer below, or, unscaled, the pixels


@saying_keywords
def descend(
    params: Params,
    trace: Trace,
    top: Top,
    *,
    layer: str | None = None,
    architecture: Architecture,
    way: str = "deconvnet",
    seed: Seed = "value",
) -> dict[str, Step]:
    """Every step of a way down, for those who want to watch it.

    Args:
      params, trace, top, layer, architecture, seed: as for `project`, and as for `gradient` on the two other ways.
      way: a name of `WAYS`.

    Returns:
      {layer: Step} from the top down; UserError as for that way, or for another name.
    """
    top, layer = _standing(trace, top, layer=layer, architecture=architecture, seed=seed)
    steps = _descend(params, trace, top, layer=layer, architecture=architecture, way=_name_of(way))
    return {name: steps[name] for name in reversed(architecture.layer_names) if name in steps}  # jit sorts by name


@saying_keywords
def project_windows(
    params: Params,
    trace: Trace,
    units: Unit | Index,
    *,
    layer: str | None = None,
    architecture: Architecture,
    way: WayDown | str = project,
    seed: Seed = "value",
    of: Index | None = None,
) -> Windows:
    """Project single units inside their receptive fields only: windows, each with its place in the image.

    Equal to `project` up to rounding, about 1e-6 of the largest value, because sums have another order.

    Args:
      params, trace, layer, architecture: as for `project`, and on the two other ways as for `gradient`.
      units: a Unit, or a channel; N of them by arrays [N].
      way: `project`, `gradient` or `guided_backprop`, or its name in `WAYS`.
      seed: where each unit starts, as for `isolate`.
      of: int [N], the image of each unit in the trace; None: unit n belongs to image n, or all to the one image.

    Returns:
      Windows with pixels [N, h, w, channels]; h and w follow from the architecture and the layer, and are those of the
      image for a dense layer or a receptive field that covers the image. UserError as for `project`, or for a number
      of units that does not fit the images; under jit an index outside gives zeros.

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64)
      >>> images = 50 * jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
      >>> params = zfjax.ConvNet(table).init(jax.random.key(1), images)["params"]
      >>> trace = zfjax.forward(params, images, architecture=table)[1]
      >>> units = zfjax.Unit(np.array([0, 3, 5]), (4, 4), layer="conv1")
      >>> windows = zfjax.project_windows(params, trace, units, architecture=table, of=np.array([0, 0, 1]))
      >>> windows.pixels.shape, windows.paste((64, 64)).shape
      ((3, 7, 7, 3), (3, 64, 64, 3))
    """
    name, units = _name_of(way), as_unit(units)
    layer = _layer_of(units, layer, architecture)
    check_seed(seed)
    place = place_of(units, _features(trace.get(layer), layer), of)
    check_trace(params, trace, layer=layer, architecture=architecture, way=name)
    warn_below_zero(activations_at(trace[layer].features, place), seed=seed)
    carried: Windows = _project_windows(
        params, trace, place, layer=layer, architecture=architecture, way=name, seed=seed
    )
    return carried


def project_places(
    params: Params,
    images: np.ndarray,
    units: Unit | Mapping[str, np.ndarray],
    *,
    layer: str | None = None,
    of: Any = None,
    architecture: Architecture,
    way: WayDown | str = project,
    seed: Seed = "value",
    batch_size: int = 16,
) -> np.ndarray:
    """Project many activations of one layer, each alone; each image has one forward pass, however many units it has.

    Args:
      params: the network's parameters.
      images: float32 [U, H, W, C], network input, each picture once.
      units: a `Unit` whose channel and place (y, x), None in a dense layer, are numbers or [N]; or
        {"image", "channel", "row", "column"}, integers [N] each.
      layer: where the activations stand, unless the units say it.
      of: int [N], the row of `images` that each unit stands in; by default the one image, or unit n in image n.
      architecture: the table.
      way: `project`, `gradient` or `guided_backprop`, or its name in `WAYS`.
      seed: where they start, as for `isolate`.
      batch_size: images per forward pass.

    Returns:
      float32 [N, H, W, C], signed, in pixels: `way` of each activation by itself. UserError for a place
      outside `images` or the layer, or another way.

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> table = zfjax.Architecture("small", (zfjax.Conv("conv1", 4, kernel=3),), image_size=8)
      >>> images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
      >>> params = zfjax.ConvNet(table).init(jax.random.key(0), images)["params"]
      >>> units = zfjax.Unit(np.array([0, 1, 2]), (np.array([0, 3, 5]), np.array([0, 3, 5])), "conv1")
      >>> zfjax.deconvnet.project_places(params, images, units, of=np.array([0, 0, 1]), architecture=table).shape
      (3, 8, 8, 3)
    """
    places = units = joined(units)
    if isinstance(units, Unit):
        units = as_unit(units)
        layer = _layer_of(units, layer, architecture)
        places = _places_of(units, of=of, num_images=len(images), layer=layer, architecture=architecture)
    if layer is None or isinstance(places, Unit):
        raise UserError("layer=None: name the layer that the units stand in, by layer= or in Unit(layer=...)")
    windows = windows_of_places(
        params, images, places, layer=layer, architecture=architecture, way=way, seed=seed, batch_size=batch_size
    )
    pictures: np.ndarray = windows.paste(images.shape[1:3])
    return pictures


def _places_of(
    units: Unit, *, of: Any, num_images: int, layer: str, architecture: Architecture
) -> dict[str, np.ndarray]:
    """{"image", "channel", "row", "column"}, [N] each, of units that say where they stand."""
    has_places = len(architecture.sizes()[layer].output) == 3
    if units.channel is None or (units.position is None) == has_places:
        wanted = "a channel, and a place (y, x) in its map," if has_places else "a channel, and no place,"
        raise UserError(f"units={units}: {wanted} is needed in layer {layer!r}")
    row, column = (0, 0) if units.position is None else units.position
    named = {"channel": np.asarray(units.channel), "row": np.asarray(row), "column": np.asarray(column)}
    lengths = [np.size(index) for index in named.values() if np.ndim(index)]
    num = max(lengths, default=num_images if of is None else np.size(of))
    if of is None and num_images not in (1, num):
        raise UserError(f"images of {num_images}, for {num} units: one image, {num}, or `of` is needed")
    image = np.arange(num) if of is None and num_images == num else np.asarray(0 if of is None else of)
    num = max(num, np.size(image))
    if others := {np.shape(index) for index in (image, *named.values())} - {(), (num,)}:
        raise UserError(f"units={units}, of={of}: one number each, or [{num}] of each, are needed, not {others}")
    return {name: np.broadcast_to(index, (num,)) for name, index in {"image": image, **named}.items()}


def windows_of_places(
    params: Params, images: np.ndarray, places: Mapping[str, np.ndarray], *, layer: str, **options: Any
) -> Windows:
    """`project_places` as Windows of NumPy arrays, which are as small as what the units see; same options."""
    return windows_of_layers(params, images, {layer: places}, **options)[layer]


def windows_of_layers(
    params: Params,
    images: np.ndarray,
    places: Mapping[str, Mapping[str, np.ndarray]],
    *,
    way: WayDown | str = project,
    **options: Any,
) -> dict[str, Windows]:
    """Units of several layers carried down, each alone; every image goes up once, for all of them.

    Args:
      params, images, way: as for `project_places`.
      places: {layer: places}, those of each layer as for `project_places`.
      options: as for `windows_of_ways`.

    Returns:
      {layer: Windows} of NumPy arrays; UserError as for `project_places`.
    """
    (by_layer,) = windows_of_ways(params, images, places, ways=(way,), **options).values()
    return by_layer


def windows_of_ways(
    params: Params,
    images: np.ndarray,
    places: Mapping[str, Mapping[str, np.ndarray]],
    *,
    architecture: Architecture,
    ways: Sequence[WayDown | str],
    seed: Seed = "value",
    batch_size: int = 16,
    units_at_once: int = 16,
) -> dict[str, dict[str, Windows]]:
    """`windows_of_layers` by several ways down; every image goes up once, for all of them.

    Args:
      params, images, places, architecture, seed: as for `windows_of_layers`.
      ways: each as for `project_places`.
      batch_size: images per forward pass, of those that units stand in.
      units_at_once: units of one layer per way down.

    Returns:
      {way: {layer: Windows}} of NumPy arrays; UserError as for `project_places`.
    """
    for layer in places:
        _check_places(places[layer], num_images=len(images), layer=layer, architecture=architecture)
    check_seed(seed)
    names = tuple(map(_name_of, ways))
    trace_of = partial(_trace_below, architecture=architecture, with_norms=any(way != "deconvnet" for way in names))
    indices = {
        layer: {name: np.asarray(index, np.int32) for name, index in of_layer.items()}
        for layer, of_layer in places.items()
    }
    asked = np.unique(np.concatenate([of_layer["image"] for of_layer in indices.values()]))  # no other goes up
    for of_layer in indices.values():
        of_layer["image"] = np.searchsorted(asked, of_layer["image"]).astype(np.int32)
    drawn: dict[str, dict[str, Windows]] = {way: {} for way in names}
    starts = {layer: np.zeros(len(of_layer["image"]), np.float32) for layer, of_layer in indices.items()}
    top = max(places, key=architecture.layer_names.index)
    for start in range(0, len(asked), batch_size):
        wanted = {
            layer: np.flatnonzero((of_layer["image"] >= start) & (of_layer["image"] < start + batch_size))
            for layer, of_layer in indices.items()
        }
        trace = trace_of(params, _fill(images[asked[start : start + batch_size]], batch_size), layer=top)
        for layer, numbers in wanted.items():
            for first in range(0, len(numbers), units_at_once):
                chosen = numbers[first : first + units_at_once]
                some = {name: _fill(place[chosen], units_at_once) for name, place in indices[layer].items()}
                some["image"] = some["image"] - np.int32(start)
                place = Place(*(jnp.asarray(some[name]) for name in ("image", "channel", "row", "column")))
                below = {name: trace[name] for name in _names_up_to(layer, architecture)}
                starts[layer][chosen] = np.asarray(activations_at(trace[layer].features, place))[: len(chosen)]
                for way in names:
                    fed = below if way != "deconvnet" else _without_norms(below)
                    windows = _project_windows(
                        params, fed, place, layer=layer, seed=seed, architecture=architecture, way=way
                    )
                    if layer not in drawn[way]:
                        drawn[way][layer] = _empty_windows(windows, len(starts[layer]))
                    for field, some_rows in zip(drawn[way][layer], windows, strict=True):
                        field[chosen] = np.asarray(some_rows)[: len(chosen)]
    for values in starts.values():
        warn_below_zero(values, seed=seed)
    for way, of_way in drawn.items():
        for layer in places.keys() - of_way.keys():
            of_way[layer] = _no_windows(params, images, layer=layer, architecture=architecture, way=way)
    return {way: {layer: of_way[layer] for layer in places} for way, of_way in drawn.items()}


def _pixels(
    params: Params, trace: Trace, top: Top, *, layer: str | None, architecture: Architecture, way: str, seed: Seed
) -> jax.Array:
    if by_layer(top):

        def of_one_layer(units: Top, rows: np.ndarray | None) -> jax.Array:
            own = trace if rows is None else jax.tree.map(lambda of: of[rows], trace)
            return _pixels(params, own, units, layer=layer, architecture=architecture, way=way, seed=seed)

        together: jax.Array = of_layers(top, len(jax.tree.leaves(trace)[0]), of_one_layer)
        return together
    top, layer = _standing(trace, top, layer=layer, architecture=architecture, seed=seed)
    pixels: jax.Array = _descend_to_pixels(params, trace, top, layer=layer, architecture=architecture, way=way)
    return pixels


def _standing(
    trace: Trace, top: Top, *, layer: str | None, architecture: Architecture, seed: Seed
) -> tuple[jax.Array, str]:
    """(top, layer), both known: outside jit, where a Unit's numbers can be looked at."""
    check_seed(seed)
    top = joined(top)
    layer = _layer_of(top, layer, architecture)
    if isinstance(top, Unit):
        return isolate(_features(trace.get(layer), layer), top, seed=seed), layer
    if not hasattr(top, "shape"):
        raise UserError(f"top={top!r}: an array of the shape of trace[{layer!r}].features, or a Unit, is needed")
    if seed != "value":
        raise UserError(
            f"seed={seed!r}: top is an array and holds what it starts from; a Unit, or isolate(seed=), does not"
        )
    return jnp.asarray(top), layer


def _layer_of(top: Top, layer: str | None, architecture: Architecture) -> str:
    layer = one_layer(top, layer) if isinstance(top, Unit) else layer
    if layer is None:
        raise UserError("layer=None: name the layer that top stands in, by layer= or in Unit(layer=...)")
    return architecture.layer(layer).name


def _features(way_up: LayerTrace | None, layer: str) -> jax.Array:
    if way_up is None or way_up.features is None:
        raise UserError(f"trace[{layer!r}].features is missing: hand on what `forward` gave")
    return way_up.features


@partial(jax.jit, static_argnames=("layer", "architecture", "way"))
def _descend_to_pixels(
    params: Params, trace: Trace, top: jax.Array, *, layer: str, architecture: Architecture, way: str
) -> jax.Array:
    steps = _descend(params, trace, top, layer=layer, architecture=architecture, way=way)
    pixels = steps[architecture.layer_names[0]].filtered
    scaled: jax.Array = pixels * jnp.asarray(architecture.input_scale, pixels.dtype)
    return scaled


@partial(jax.jit, static_argnames=("layer", "architecture", "way"))
def _descend(
    params: Params, trace: Trace, top: jax.Array, *, layer: str, architecture: Architecture, way: str
) -> dict[str, Step]:
    steps = {}
    signal, sizes = top, architecture.sizes()
    for row in reversed(rows_below(params, trace, top, layer=layer, architecture=architecture)):
        kernel = params[row.name]["kernel"].astype(signal.dtype)
        way_up = _of_each(trace, row.name, len(signal))
        steps[row.name] = _undo(signal, row=row, kernel=kernel, way_up=way_up, size=sizes[row.name], way=way)
        signal = steps[row.name].filtered
    return steps


def rows_below(
    params: Params, trace: Trace, top: jax.Array, *, layer: str, architecture: Architecture
) -> tuple[Layer, ...]:
    """The rows of the table from the image up to `layer`; UserError where something that undoes them is missing."""
    rows = architecture.layers[: architecture.layer_names.index(architecture.layer(layer).name) + 1]
    expected = architecture.sizes()[layer].output
    if top.shape[1:] != expected:
        raise UserError(f"top of shape {top.shape}: layer {layer!r} hands on [B, {', '.join(map(str, expected))}]")
    for row in reversed(rows):
        check_params(params, architecture, row.name)
        _check_switches(row, trace)
    return rows


def _check_switches(row: Layer, trace: Trace) -> None:
    if isinstance(row, Conv) and row.pool and (row.name not in trace or trace[row.name].switches is None):
        raise UserError(f"trace[{row.name!r}].switches is missing: the layer has a pool, which they undo")


def check_trace(params: Params, trace: Trace, *, layer: str, architecture: Architecture, way: str) -> None:
    """UserError where the parameters or the trace lack what a way down from `layer` needs."""
    num = len(_features(trace.get(layer), layer))
    for row in reversed(architecture.layers[: architecture.layer_names.index(layer) + 1]):
        check_params(params, architecture, row.name)
        _check_switches(row, trace)
        _of_each(trace, row.name, num)
        if way != "deconvnet" and (isinstance(row, Conv) or row.hidden):
            _features(trace.get(row.name), row.name)
            _norm_inputs(row, trace[row.name])


def _of_each(trace: Trace, layer: str, num: int) -> LayerTrace | None:
    """What was seen of a layer, for each of `num` signals: one for each image, or all of one image."""
    if layer not in trace:
        return None
    for array in jax.tree.leaves(trace[layer]):
        if len(array) not in (1, num):
            raise UserError(
                f"top of {num} signals, trace[{layer!r}] of {len(array)} images: one signal for each image, or all of "
                "one image, is needed"
            )
    for_each: LayerTrace | None = jax.tree.map(
        lambda array: jnp.broadcast_to(array, (num, *array.shape[1:])), trace[layer]
    )
    return for_each


def _undo(
    signal: jax.Array, *, row: Layer, kernel: jax.Array, way_up: LayerTrace | None, size: Sizes, way: str
) -> Step:
    """One layer undone: (i) its stages, (ii) its ReLU, (iii) its filters."""
    if not isinstance(row, Conv) and not row.hidden:
        return Step(signal, signal, _undo_filters(signal, row=row, kernel=kernel, size=size))
    active = None if way == "deconvnet" else _features(way_up, row.name) > 0
    if isinstance(row, Conv):
        signal, active = _undo_stages(signal, row=row, way_up=way_up, active=active, size=size)
    rectified = signal if way == "gradient" else rectify(signal)
    if active is not None:
        rectified = jnp.where(active, rectified, jnp.zeros((), signal.dtype))
    return Step(signal, rectified, _undo_filters(rectified, row=row, kernel=kernel, size=size))


def rectify(signal: jax.Array) -> jax.Array:
    """ReLU of the reconstruction itself, whatever was active going up (sec. 2.1, "Rectification")."""
    return jax.nn.relu(signal)


def _undo_stages(
    signal: jax.Array, *, row: Conv, way_up: LayerTrace | None, active: jax.Array | None, size: Sizes
) -> tuple[jax.Array, jax.Array | None]:
    """(signal, active) right above the ReLU of a convolutional layer; without `active` its norms are skipped.

    Where no switch points the signal is 0, so what `active` says there does not matter, until a norm spreads it.
    """
    norm_inputs = [] if active is None else _norm_inputs(row, way_up)
    for stage in reversed(row.after):
        if isinstance(stage, Pool):
            assert way_up is not None and way_up.switches is not None  # rows_below has looked
            strew = partial(unpool, switches=way_up.switches, shape=size.filtered, size=stage.size, stride=stage.stride)
            signal, active = strew(signal), None if active is None else strew(active.astype(signal.dtype)) > 0
        elif active is not None:
            below = norm_inputs.pop()
            (signal,) = jax.vjp(partial(contrast_norm, norm=stage), below)[1](signal)
            active = below > 0
    return signal, active


def _norm_inputs(row: Layer, way_up: LayerTrace | None) -> list[jax.Array]:
    """What each norm of the layer read, in their order; UserError where that is missing."""
    norms = [stage for stage in row.after if isinstance(stage, ContrastNorm)] if isinstance(row, Conv) else []
    if norms and (way_up is None or len(way_up.norm_inputs) != len(norms)):
        raise UserError(f"trace[{row.name!r}].norm_inputs is missing: the layer's norm is differentiated there")
    return list(way_up.norm_inputs) if way_up is not None else []


def _undo_filters(signal: jax.Array, *, row: Layer, kernel: jax.Array, size: Sizes) -> jax.Array:
    if isinstance(row, Conv):
        return conv_transpose(signal, kernel, layer=row, input_shape=size.input)
    return (signal @ kernel.T).reshape(len(signal), *size.input)


def _name_of(way: WayDown | str) -> str:
    for name, function in WAYS.items():
        if way in (name, function):
            return name
    raise UserError(f"way={way!r}: one of {', '.join(map(repr, WAYS))} is needed")


@partial(jax.jit, static_argnames=("layer", "architecture", "with_norms"))
def _trace_below(
    params: Params, images: jax.Array, *, layer: str, architecture: Architecture, with_norms: bool
) -> Trace:
    """The trace up to the layer; what norms read only where a way down needs it."""
    trace = forward(params, images, architecture=architecture)[1]
    below = {name: trace[name] for name in _names_up_to(layer, architecture)}
    return below if with_norms else _without_norms(below)


def _without_norms(trace: Trace) -> Trace:
    """What the deconvnet needs of a trace."""
    return {name: LayerTrace(of.features, of.switches) for name, of in trace.items()}


def _names_up_to(layer: str, architecture: Architecture) -> tuple[str, ...]:
    return architecture.layer_names[: architecture.layer_names.index(layer) + 1]


_project_windows = partial(jax.jit, static_argnames=("layer", "architecture", "way", "seed"))(carry_down)


def _empty_windows(like: Any, num: int) -> Windows:
    """Of `num` units, as NumPy arrays to be filled."""
    return Windows(*(np.zeros((num, *field.shape[1:]), field.dtype) for field in like))


def _no_windows(params: Params, images: np.ndarray, **options: Any) -> Windows:
    """Of no unit."""

    def windows_of(params: Params, images: jax.Array, index: jax.Array) -> Windows:
        of_layer = {name: options[name] for name in ("layer", "architecture")}
        trace = _trace_below(params, images, with_norms=options["way"] != "deconvnet", **of_layer)
        return carry_down(params, trace, Place(*[index] * 4), seed="value", **options)

    dtype = jax.dtypes.canonicalize_dtype(images.dtype)
    image, index = jax.ShapeDtypeStruct((1, *images.shape[1:]), dtype), jax.ShapeDtypeStruct((1,), np.int32)
    return _empty_windows(jax.eval_shape(windows_of, params, image, index), 0)


def _fill(rows: np.ndarray, num: int) -> np.ndarray:
    """Repeat the first row until there are `num`, so that one compiled function also serves the last batch."""
    return np.concatenate([rows, np.repeat(rows[:1], num - len(rows), axis=0)])


def _check_places(places: Mapping[str, np.ndarray], *, num_images: int, layer: str, architecture: Architecture) -> None:
    architecture.layer(layer)
    *sides, channels = architecture.sizes()[layer].output
    height, width = sides or (1, 1)
    for name, limit in {"image": num_images, "channel": channels, "row": height, "column": width}.items():
        place = np.asarray(places[name])
        if place.size and not (0 <= place.min() and place.max() < limit):
            raise UserError(f"places[{name!r}] from {place.min()} to {place.max()}: 0 to {limit - 1} is needed")
