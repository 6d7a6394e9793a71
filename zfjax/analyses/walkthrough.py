"""What Figure 1 shows: every stage of one unit's way down to the pixels, and what is conserved on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from zfjax import nets
from zfjax.analyses.strongest import ByChance
from zfjax.anymodel import signals
from zfjax.architecture import Architecture, ContrastNorm, Conv, Pool
from zfjax.deconvnet import Step, Way, descend
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.network import forward
from zfjax.ops import contrast_norm, conv
from zfjax.units import Unit, isolate

THREE_WAYS: tuple[Way, ...] = ("deconvnet", "gradient", "guided")
_forward = jax.jit(forward, static_argnames="architecture")
ReadTrace = Mapping[str, Any]  # a `Trace` whose arrays are NumPy's

MEANINGS = {
    "sum_from_above": "sum of what comes from the layer above, over all maps",
    "sum_unpooled": "the same after unpooling: equal, as every value is put somewhere, and those that meet add up",
    "removed": "share of the unpooled signal, sum of |values|, that rectification removes",
    "reached": "share of the layer's places, over all maps, that carry signal after rectification",
    "silent": "share of the rectified signal in maps that the image does not excite at all: the deconvnet's ReLU looks "
    "at the signal only, where the gradient would stop",
    "map_share": "share of the rectified signal in the map that is drawn, the strongest of those that are excited",
    "strength": "of a network that is no table: the largest value of the layer's features",
    "energy_in_field": "share of the projection's energy (squares) inside the unit's receptive field: 1",
    "energy_on_object": "share of that energy on the object, where the set says where it is; 'by_chance' is the "
    "object's share of the field's pixels",
}


class Stage(NamedTuple):
    """One layer of the projection, by its strongest map; a dense layer shows all its units, in rows."""

    layer: str
    title: str  # which map of how many
    leaves: str  # what filters the signal on its way to the next stage
    handed_on: np.ndarray  # float [H, W] the map on the way up
    above: np.ndarray  # float [H, W] what came from above
    unpooled: np.ndarray  # float [H', W']
    rectified: np.ndarray  # float [H', W']
    pool: Pool | None
    switches: np.ndarray | None  # uint8 [H, W] where there is a pool
    pool_input: np.ndarray | None  # float [H', W'] what the pool read on the way up


class Conserved(TypedDict):
    """What one layer does to the signal on its way down: see MEANINGS."""

    map: int  # the one that is drawn
    sum_from_above: NotRequired[float]  # this and the next ones: where it is known what comes down
    sum_unpooled: NotRequired[float]  # of a table alone, as its stages are
    removed: NotRequired[float]
    reached: NotRequired[float]
    silent: NotRequired[float]
    map_share: NotRequired[float]
    strength: NotRequired[float]  # of a network that is no table


class Energy(TypedDict):
    """Where the energy of a projection lies: see MEANINGS."""

    energy_in_field: float
    energy_on_object: ByChance | None  # None where the set does not say where objects are


class Numbers(Energy):
    """One unit, and what is conserved on its way down."""

    layer: str
    map: int
    unit: str  # in words
    place: tuple[int, ...]  # (y, x) of the unit in its map; () in a dense layer
    activation: float
    layers: dict[str, Conserved]  # from the unit's layer down


class Walk(NamedTuple):
    """One unit's projection, stage by stage."""

    title: str
    stages: Sequence[Stage]  # from the chosen layer down
    place: tuple[int, ...]  # (y, x) of the unit in its map; () in a dense layer
    picture: np.ndarray  # uint8 [s, s, 3]
    projection: np.ndarray  # float [s, s, 3] signed, pixels
    box: tuple[int, int, int, int] | None  # (top, left, bottom, right) that the unit sees; None: the whole picture
    numbers: Numbers


def last_conv(architecture: Architecture) -> str:
    """The name of the highest convolutional layer, or of the last layer where there is none."""
    convs = [row.name for row in architecture.layers if isinstance(row, Conv)]
    return (convs or architecture.layer_names)[-1]


def walk_down(net: nets.OfTable, views: nets.Views, *, layer: str, channel: int | None = None) -> Walk:
    """Every stage of one unit's projection, and which quantities it preserves.

    Args:
      net: the network.
      views: one image.
      layer: where the unit stands.
      channel: its map; None takes the one with the strongest activation. The unit is the map's strongest place.

    Returns:
      Walk; UserError for an unknown layer or map, or one that the image does not excite.

    Examples:
      views = zfjax.nets.read_views(photos, [0], net)
      walk = walkthrough.walk_down(net, views, layer="conv3")
      walk.projection, [stage.title for stage in walk.stages]
    """
    architecture = net.architecture
    architecture.layer(layer)
    trace = jax.tree.map(np.asarray, _forward(net.params, views.images, architecture=architecture)[1])
    features = trace[layer].features
    used = architecture.layer_names[: architecture.layer_names.index(layer) + 1]
    nets.check_finite(net, {name: trace[name].features for name in used})
    channel = excited_map(features, channel, layer=layer)
    top = np.asarray(isolate(features, channel=channel))
    steps = jax.tree.map(np.asarray, descend(net.params, trace, top, layer=layer, architecture=architecture))
    signals = {layer: top}  # what comes from above, by layer
    down = architecture.layer_names[: architecture.layer_names.index(layer) + 1][::-1]
    for upper, lower in pairwise(down):
        signals[lower] = steps[upper].filtered
    projection = (steps[down[-1]].filtered * np.float32(architecture.input_scale))[0]
    place = tuple(int(index) for index in np.argwhere(top[0])[0][:-1])
    box = box_of(net, layer, place)
    numbers: Numbers = {
        "layer": layer,
        "map": channel,
        "unit": unit_of(net, layer, channel),
        "place": place,
        "activation": float(top.sum()),
        "layers": {name: conserved(trace[name].features, signals[name], steps[name]) for name in down},
        **energy(projection, box, None if views.objects is None else views.objects[0]),
    }
    stages = [
        stage_of(net, views.images, name=name, trace=trace, above=signals[name], step=steps[name]) for name in down
    ]
    name = views.names[0] if views.names else ""
    return Walk(title_of(numbers, name), stages, place, views.pictures[0], projection, box, numbers)


def excited_map(features: np.ndarray, channel: int | None, *, layer: str) -> int:
    """`channel`, or the map with the strongest activation of features [1, ..., C]; UserError where none excites it."""
    strongest = features.reshape(-1, features.shape[-1]).max(axis=0)
    channel = int(strongest.argmax()) if channel is None else channel
    if not 0 <= channel < len(strongest):
        raise UserError(f"map={channel}: a whole number from 0 to {len(strongest) - 1} is needed in {layer}")
    if not strongest.any():
        raise UserError(f"layer={layer!r}: nothing in this image excites any of its maps; take another layer or image")
    if strongest[channel] == 0:
        raise UserError(f"map={channel}: nothing in this image excites it in {layer}; take another map or image")
    return channel


def conserved(handed_on: np.ndarray, above: np.ndarray, step: Step) -> Conserved:
    """What MEANINGS says of one layer; handed_on and above [1, ..., C], on the way up and down."""
    signal, left = (np.asarray(of, np.float64) for of in (step.unpooled, step.rectified))
    before = np.abs(signal).sum() or 1.0
    return {
        "sum_from_above": float(above.astype(np.float64).sum()),
        "sum_unpooled": float(signal.sum()),
        "removed": float(np.abs(signal - left).sum() / before),
        **by_maps(handed_on, left),
    }


def by_maps(handed_on: np.ndarray, signal: np.ndarray) -> Conserved:
    """How the signal lies over a layer's maps; handed_on and signal [1, ..., C], on the way up and down."""
    of_maps = np.abs(signal.astype(np.float64)).reshape(-1, signal.shape[-1]).sum(axis=0)
    excited, whole = handed_on.reshape(-1, signal.shape[-1]).max(axis=0) > 0, of_maps.sum() or 1.0
    chosen = int(np.where(excited, of_maps, 0).argmax())
    return {
        "reached": float((signal != 0).mean()),
        "silent": float(of_maps[~excited].sum() / whole),
        "map": chosen,
        "map_share": float(of_maps[chosen] / whole),
    }


def energy(projection: np.ndarray, box: tuple[int, ...] | None, on_object: np.ndarray | None) -> Energy:
    """Where the energy of a projection [s, s, 3] lies, as MEANINGS says; on_object: bool [s, s]."""
    squares = np.square(projection, dtype=np.float64).sum(axis=-1)
    top, left, bottom, right = (0, 0, *squares.shape) if box is None else (max(edge, 0) for edge in box)
    field = np.zeros(squares.shape, bool)
    field[top:bottom, left:right] = True
    whole = squares.sum() or 1.0
    shares: Energy = {"energy_in_field": float(1 - squares[~field].sum() / whole), "energy_on_object": None}
    if on_object is not None:
        share = float(squares[on_object].sum() / whole)
        shares["energy_on_object"] = {"value": share, "by_chance": float(on_object[field].mean())}
    return shares


def stage_of(
    net: nets.OfTable, images: np.ndarray, *, name: str, trace: ReadTrace, above: np.ndarray, step: Step
) -> Stage:
    """The map of one layer that carries most of the signal; of a dense layer all units, in rows."""
    row, handed_on = net.architecture.layer(name), trace[name].features
    signals: tuple[Any, ...] = (above, step.unpooled, step.rectified)
    if not isinstance(row, Conv):
        up, down, unpooled, rectified = (in_rows(values[0]) for values in (handed_on, *signals))
        units = f"{row.features} units"
        return Stage(name, units, "transposed weights", up, down, unpooled, rectified, None, None, None)
    chosen = int(conserved(handed_on, above, step)["map"])
    up, down, unpooled, rectified = (values[0, ..., chosen] for values in (handed_on, *signals))
    title, leaves = f"map {chosen} of {row.features}", f"transposed {row.kernel}x{row.kernel} filters"
    if not row.pool:
        return Stage(name, title, leaves, up, down, unpooled, rectified, None, None, None)
    switches, read = (
        values[0, ..., chosen] for values in (trace[name].switches, pool_input(net, images, trace=trace, name=name))
    )
    return Stage(name, title, leaves, up, down, unpooled, rectified, row.pool, switches, read)


def in_rows(units: np.ndarray) -> np.ndarray:
    """[C] as the rows of a rectangle as square as C allows."""
    rows = max(side for side in range(1, int(len(units) ** 0.5) + 1) if len(units) % side == 0)
    return units.reshape(rows, -1)


def pool_input(net: nets.OfTable, images: np.ndarray, *, trace: ReadTrace, name: str) -> np.ndarray:
    """What the pool of a layer read on the way up, from what the layer below handed on: [1, H', W', C]."""
    names, row = net.architecture.layer_names, net.architecture.layer(name)
    assert isinstance(row, Conv)
    scaled = images * np.float32(net.architecture.input_scale)
    below: Any = scaled if name == names[0] else trace[names[names.index(name) - 1]].features
    maps = jax.nn.relu(conv(below, net.params[name]["kernel"], row) + net.params[name]["bias"][None, None, None])
    for stage in row.after[: row.after.index(row.pool)]:
        assert isinstance(stage, ContrastNorm)  # a layer has one pool
        maps = contrast_norm(maps, stage)
    return np.asarray(maps)


def box_of(net: Net, layer: str, place: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) that the unit sees; None where that is not known, or the whole picture."""
    field = net.receptive_field(layer) if place else None
    return None if field is None or field.holds(nets.size_of(net.image_size)) else field.box(place)


def unit_of(net: Net, layer: str, channel: int) -> str:
    """The unit in words: "class 'golf ball'", "map 7 of conv3", "unit 5 of fc6"."""
    name = nets.unit_name(net, layer, channel)
    is_class = layer == net.layers[-1] and name in nets.class_words(net)
    return f"class {name!r}" if is_class else f"{name} of {layer}"


def title_of(numbers: Numbers, picture: str) -> str:
    """Which unit, and how strongly the picture of this name excites it."""
    where = f" in picture {picture}" if picture else ""
    return (
        f"Figure 1: one unit on its way down to the pixels ({numbers['unit']}, activation "
        f"{numbers['activation']:.3g}{where})"
    )


def switch_places(switches: np.ndarray, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, in the map that was pooled, of each window's maximum. uint8 [H, W] -> two int [H, W]"""
    row, column = np.indices(switches.shape)
    return row * pool.stride + switches // pool.size, column * pool.stride + switches % pool.size


class Layer(NamedTuple):
    """One layer of a network that is no table, as its strongest map shows it; all units, in rows, of a dense one."""

    layer: str
    title: str  # which map of how many
    handed_on: np.ndarray  # float [H, W] the map on the way up
    above: np.ndarray | None  # float [H, W] what comes down there; None where that is not known


class LayerWalk(NamedTuple):
    """What the figure shows of a network that is no table."""

    title: str
    layers: Sequence[Layer]  # from the unit's down
    place: tuple[int, ...]  # (y, x) of the unit in its map; () in a dense layer
    picture: np.ndarray  # uint8 [h, w, 3]
    projections: dict[Way, np.ndarray]  # float [h, w, C] signed, by each way down
    box: tuple[int, int, int, int] | None  # (top, left, bottom, right) that the unit sees; None: not known, or all
    numbers: Numbers
    not_applicable: dict[str, str]  # {part of the figure: why it is left out}


def walk_layers(net: Net, views: nets.Views, *, layer: str, channel: int | None = None) -> LayerWalk:
    """One unit's way down, layer by layer of any network: what comes down at each of them, and the pixels.

    Args:
      net: any network.
      views, layer, channel: as for `walk_down`.

    Returns:
      LayerWalk, of the layers up to the unit's. UserError for an unknown layer or map, or one that the image does not
      excite. Where the engine cannot follow the network, `not_applicable` says why, and nothing is known to come down.

    Examples:
      views = zfjax.nets.read_views(photos, [0], net)
      walk = walkthrough.walk_layers(net, views, layer="block2")
      walk.projections["deconvnet"], [of.title for of in walk.layers]
    """
    nets.check_layer(net, layer)
    used = net.layers[: net.layers.index(layer) + 1]
    maps = {name: np.asarray(of) for name, of in net.features(used)(views.images).items()}
    nets.check_finite(net, maps)
    features = maps[layer]
    channel = excited_map(features, channel, layer=layer)
    own = features[0, ..., channel]
    place = tuple(int(index) for index in np.unravel_index(own.argmax(), own.shape))
    unit = Unit(channel, (place[0], place[1]) if place else None)
    projections = nets.project_ways(net, views.images, unit, ways=THREE_WAYS, layer=layer)
    not_applicable = {
        "switches and rectification": f"{net.name} is a program and no table of layers, whose stages are known"
    }
    try:
        down: dict[str, np.ndarray] | None
        down = _signals(net, views.images, used, unit=unit, projection=projections["deconvnet"])
    except UserError as error:
        down = None
        not_applicable["what comes down at each layer"] = str(error).split("\n")[0]
    if place and net.receptive_field(layer) is None:
        not_applicable["what the unit sees"] = f"{net.name} does not say it, and its program does not prove it"
    box = box_of(net, layer, place)
    numbers: Numbers = {
        "layer": layer,
        "map": channel,
        "unit": unit_of(net, layer, channel),
        "place": place,
        "activation": float(own[place]),
        "layers": {name: _arrived(maps[name], None if down is None else down[name]) for name in used[::-1]},
        **energy(projections["deconvnet"][0], box, None if views.objects is None else views.objects[0]),
    }
    drawn = [
        _layer_of(
            name,
            maps[name],
            signal=None if down is None else down[name],
            chosen=int(numbers["layers"][name]["map"]),
        )
        for name in used[::-1]
    ]
    pictures = {way: picture[0] for way, picture in projections.items()}
    title = title_of(numbers, views.names[0] if views.names else "")
    return LayerWalk(title, drawn, place, views.pictures[0], pictures, box, numbers, not_applicable)


def _signals(
    net: Net, images: np.ndarray, layers: Sequence[str], *, unit: Unit, projection: np.ndarray
) -> dict[str, np.ndarray]:
    """{layer: what comes down there}; UserError where the network's projection is not what comes down its program."""
    on_unknown = net.on_unknown if isinstance(net, nets.FunctionNet) else "error"
    down = signals.signals_at(net.features(layers), jnp.asarray(images), layers, unit=unit, on_unknown=on_unknown)
    pixels = np.asarray(down.pixels)
    if not np.allclose(pixels, projection, rtol=1e-2, atol=1e-3 * float(np.abs(projection).max())):
        raise UserError(f"the projection of {net.name} is not what comes down its program under the deconvnet's rule")
    return {layer: np.asarray(signal) for layer, signal in down.layers.items()}


def _arrived(handed_on: np.ndarray, signal: np.ndarray | None) -> Conserved:
    """What MEANINGS says of one layer of a network that is no table, both [1, ..., C]."""
    strength = float(handed_on.max())
    if signal is None:
        of_maps = handed_on.reshape(-1, handed_on.shape[-1]).max(axis=0)
        return {"map": int(of_maps.argmax()), "strength": strength}
    total = float(signal.astype(np.float64).sum())
    return {"sum_from_above": total, **by_maps(handed_on, signal), "strength": strength}


def _layer_of(name: str, handed_on: np.ndarray, *, signal: np.ndarray | None, chosen: int) -> Layer:
    num = handed_on.shape[-1]
    if handed_on.ndim == 2:
        return Layer(name, f"{num} units", in_rows(handed_on[0]), None if signal is None else in_rows(signal[0]))
    above = None if signal is None else signal[0, ..., chosen]
    return Layer(name, f"map {chosen} of {num}", handed_on[0, ..., chosen], above)
