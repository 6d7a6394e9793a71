"""Does a picture depend on what it is said to explain? The checks that came after the paper, as functions.

Pictures of different units of one place are nearly the same, and pictures of a net whose weights are drawn anew may
look as before: switches and ReLU masks carry much of them (Mahendran & Vedaldi 2016; Nie et al. 2018; Adebayo et al.
2018). Here are the signals to compare (`class_tops`, `neuron_tops`), the nets and switches to compare under
(`cascade`, `centered`, `exchanged`), what looks at the image alone (`edges`), and the two measures (`cosine`,
`spearman`). Every check works on any function that is called as `project` is: see `METHODS`. `check_all` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # its submodules load at their first use: stats alone takes half a second
from jax.tree_util import Partial

from zfjax import nets
from zfjax.anymodel import with_relu_rule
from zfjax.anymodel.choices import OnUnknown
from zfjax.architecture import Architecture, Conv
from zfjax.deconvnet import Way, gradient, guided_backprop, project
from zfjax.errors import UserError
from zfjax.features import check_places, full_batches
from zfjax.nets import FunctionNet, Net, OfTable
from zfjax.network import Params, Trace, forward
from zfjax.programs import as_partial, compiled
from zfjax.units import Unit, isolate

Pictures = dict[str, np.ndarray]  # method -> float [B, H, W, C] signed
Drawn = dict[str, dict[str, Pictures]]  # group -> what was drawn -> its pictures
Scores = dict[str, dict[str, dict[str, np.ndarray]]]  # group -> row -> method -> float [B], NaN where undefined


class Cell(TypedDict):
    """One comparison over the images whose pictures can be compared; None where there is none."""

    mean: float | None
    std: float | None
    num: int


Checks = dict[str, dict[str, dict[str, Cell]]]  # the same
UNITS = ("best class", "worst class", "strongest unit", "weakest unit")


def map_cells(fn: Callable[..., Any], *tables: Mapping[str, Any]) -> dict[str, Any]:
    """`fn` of what stands at the same place of each table {group: {row: {method: ...}}}, in the order of the first."""
    return {
        group: {
            row: {method: fn(*(table[group][row][method] for table in tables)) for method in cells}
            for row, cells in rows.items()
        }
        for group, rows in tables[0].items()
    }


METHODS = {"deconvnet": project, "guided backprop": guided_backprop, "gradient": gradient}
WAY_NAMES: dict[str, Way] = {"deconvnet": "deconvnet", "guided backprop": "guided", "gradient": "gradient"}


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of the angle between the pictures of each pair; NaN where one of them is blank.

    Args:
      first, second: [B, ...] of one shape.

    Returns:
      float64 [B].

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.sanity.cosine(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).round(3)
      array([0.707])
    """
    a, b = _unit_size(first), _unit_size(second)
    cosines: np.ndarray = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return cosines


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation of the pictures of each pair, `cosine` of their `ranks`; NaN where one of them is constant.

    Of signed pictures it is the signed one, of their absolute values the absolute one (Adebayo et al. 2018).

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.sanity.spearman(np.array([[1.0, 2.0, 3.0]]), np.array([[10.0, 20.0, 99.0]]))
      array([1.])
    """
    return cosine(ranks(first), ranks(second))


def ranks(pictures: np.ndarray) -> np.ndarray:
    """Rank of each value in its picture, less the mean rank; equal values share the mean of their ranks.

    [B, ...] -> float64 [B, N]
    """
    ranked = scipy.stats.rankdata(np.asarray(pictures).reshape(len(pictures), -1), axis=1)
    centred: np.ndarray = ranked - ranked.mean(axis=1, keepdims=True)
    return centred


@jax.jit
def class_tops(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Signals for the most and the least probable class of each image: 1 there, 0 elsewhere. [B, classes] -> two

    Both are asked with the same signal, as the worst class's own logit may be negative and would turn its picture over.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> best, worst = zfjax.sanity.class_tops(jnp.array([[1.0, 4.0, -2.0]]))
      >>> best, worst
      (Array([[0., 1., 0.]], dtype=float32), Array([[0., 0., 1.]], dtype=float32))
    """
    if logits.ndim != 2:
        raise UserError(f"logits of shape {logits.shape}: [B, classes] is needed")
    classes = (logits.argmax(axis=1), logits.argmin(axis=1))
    best, worst = (jax.nn.one_hot(chosen, logits.shape[1], dtype=logits.dtype) for chosen in classes)
    return best, worst


@jax.jit
def neuron_tops(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Signals for two units of one place: the strongest activation of the layer, and the weakest active unit beside it.

    Args:
      features: [B, H, W, C] of a convolutional layer, or [B, C] of a dense one, after its ReLU.

    Returns:
      Two of the same shape, each with one activation of each image kept. Where no other unit of the place is active
      the second is zero, and its picture blank.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> strong, weak = zfjax.sanity.neuron_tops(jnp.array([[[[1.0, 4.0, 2.0, 0.0]]]]))
      >>> strong, weak
      (Array([[[[0., 4., 0., 0.]]]], dtype=float32), Array([[[[1., 0., 0., 0.]]]], dtype=float32))
    """
    batch, *places, channels = check_places(features).shape
    place = features.reshape(batch, -1, channels).max(axis=2).argmax(axis=1)
    there = jnp.take_along_axis(features.reshape(batch, -1, channels), place[:, None, None], axis=1)[:, 0]
    strongest, weakest = there.argmax(axis=1), jnp.where(there > 0, there, jnp.inf).argmin(axis=1)
    position = (place // places[1], place % places[1]) if places else None
    first, second = (isolate(features, channel=channel, position=position) for channel in (strongest, weakest))
    alone = (strongest == weakest).reshape(-1, *(1 for _ in features.shape[1:]))
    return first, jnp.where(alone, jnp.zeros((), features.dtype), second)


def redraw(params: Params, layer: str, key: jax.Array) -> Params:
    """The parameters with one layer redrawn at random: kernel N(0, RMS of the trained one), bias 0.

    Its scale stays that of the trained layer, so that the others go on to read signals of the size that they know.

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> params = {"conv1": {"kernel": np.ones((3, 3, 3, 4), np.float32), "bias": np.ones(4, np.float32)}}
      >>> redrawn = zfjax.sanity.redraw(params, "conv1", jax.random.key(0))
      >>> redrawn["conv1"]["kernel"].shape, redrawn["conv1"]["bias"]
      ((3, 3, 3, 4), Array([0., 0., 0., 0.], dtype=float32))
    """
    return {**params, layer: _before_training(params[layer], key)}


@jax.jit  # one program for each layer instead of seven
def _before_training(weights: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    kernel = weights["kernel"]
    rms = jnp.sqrt(jnp.mean(jnp.square(kernel)))
    drawn = rms * jax.random.normal(key, kernel.shape, kernel.dtype)
    return {"kernel": drawn, "bias": jnp.zeros_like(weights["bias"])}


def cascade(params: Params, key: jax.Array, *, architecture: Architecture) -> Iterator[tuple[str, Params]]:
    """Yield (layer, parameters) from the top down, with that layer and all above redrawn (Adebayo et al. 2018).

    The last of them is an untrained net. A layer's new weights depend on the key and its depth alone.

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> small = (zfjax.Conv("conv1", 4, kernel=3), zfjax.Dense("fc2", 2, hidden=False))
      >>> table = zfjax.Architecture("small", small, image_size=8)
      >>> params = zfjax.ConvNet(table).init(jax.random.key(0), np.ones((1, 8, 8, 3), np.float32))["params"]
      >>> [layer for layer, _ in zfjax.sanity.cascade(params, jax.random.key(1), architecture=table)]
      ['fc2', 'conv1']
    """
    for depth, layer in reversed(list(enumerate(architecture.layer_names))):
        params = redraw(params, layer, jax.random.fold_in(key, depth))
        yield layer, params


def centered(trace: Trace, *, architecture: Architecture) -> Trace:
    """The trace with every switch at the middle of its window: unpooling that does not know where the maxima were.

    In a window that hangs over so far that its middle lies outside the map, at the last row (column) inside.
    """
    changed = dict(trace)
    for row in architecture.layers:
        switches = trace[row.name].switches if row.name in trace else None
        if isinstance(row, Conv) and row.pool and switches is not None:
            size, stride = row.pool.size, row.pool.stride
            rows, columns = (
                np.minimum(size // 2, side - 1 - stride * np.arange(windows)).astype(np.uint8)
                for side, windows in zip(architecture.sizes()[row.name].filtered, switches.shape[1:3], strict=False)
            )
            middle = rows[:, None] * np.uint8(size) + columns[None]
            filled = jnp.broadcast_to(jnp.asarray(middle)[None, :, :, None], switches.shape)
            changed[row.name] = trace[row.name]._replace(switches=filled)
    return changed


def exchanged(trace: Trace) -> Trace:
    """The trace in which each image has the switches of the one before it in the batch, and the first of the last.

    UserError for a batch of one image.
    """
    batch = len(next(iter(trace.values())).features)
    if batch < 2:
        raise UserError(f"trace of {batch} image: at least two are needed to exchange their switches")
    return {
        name: of if of.switches is None else of._replace(switches=jnp.roll(of.switches, 1, axis=0))
        for name, of in trace.items()
    }


def edges(images: np.ndarray) -> np.ndarray:
    """Sobel edge strength of the images' mean over channels, borders repeated: a control without a network.

    [B, H, W, C] -> float [B, H, W]

    Examples:
      >>> import numpy as np, zfjax
      >>> step = np.zeros((1, 5, 5, 3), np.float32)
      >>> step[:, :, 3:] = 1
      >>> zfjax.sanity.edges(step)[0, 2].round(2)
      array([0., 0., 4., 4., 0.], dtype=float32)
    """

    def strength(grey: np.ndarray) -> np.ndarray:
        steepness: np.ndarray = np.hypot(*(scipy.ndimage.sobel(grey, axis=axis, mode="nearest") for axis in (0, 1)))
        return steepness

    if np.ndim(images) != 4:
        raise UserError(f"images of shape {np.shape(images)}: [B, H, W, C] is needed")
    held = np.asarray(images)
    wide = held if held.dtype == np.float64 else held.astype(np.float32)  # SciPy has no smaller floats
    return np.stack([strength(grey) for grey in wide.mean(axis=-1)])


def _unit_size(pictures: np.ndarray) -> np.ndarray:
    """[B, ...] -> float64 [B, N] with a largest |value| of 1, as tiny ones square to 0; NaN where there is none."""
    rows = np.asarray(pictures, np.float64).reshape(len(pictures), -1)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(rows, largest, out=np.full_like(rows, np.nan), where=largest > 0)
    return shares


AT_ONCE = 8  # images in memory at the same time
SHOWN = 2  # images on the page of pictures
Look = Callable[[np.ndarray], np.ndarray]  # what of a picture is compared
ALL_LAYERS = "all layers"  # the one row of a network whose weights can only be drawn anew together


class Ways(NamedTuple):
    """What a network says of a batch of images, and its ways down to them."""

    features: Mapping[str, jax.Array]  # of the logits and of the layer whose units are swapped
    down: Callable[[jax.Array, str], Pictures]  # (signal, its layer) -> the picture by each of METHODS


def check_all(net: Net, images: np.ndarray, *, layer: str, seed: int, at_once: int = AT_ONCE) -> tuple[Scores, Drawn]:
    """Run all checks on the images, `at_once` together: their scores, and the pictures of the first ones.

    The last batch is filled up with the first images, so that one compiled function serves all batches, and that each
    image has another one to take switches from.

    Examples:
      scores, drawn = sanity.check_all(net, net.prepare(pictures), layer="conv5", seed=0)
      sanity.summarize(scores)
    """
    nets.check_layer(net, layer)
    parts: list[Scores] = []
    first: Drawn = {}
    for chosen in full_batches(len(images), at_once):
        rows = images[chosen]
        drawn = project_all(net, rows, layer=layer, key=jax.random.key(seed))
        parts.append(compare(drawn, rows))
        first = first or map_cells(lambda of: of[:SHOWN].copy(), drawn)
    return map_cells(lambda *batches: np.concatenate(batches)[: len(images)], *parts), first


def not_applicable(net: Net, num_images: int, *, layer: str | None = None) -> dict[str, str]:
    """{part of the checks: why it is left out} of a network, so many images, and the layer whose units are swapped."""
    left_out = {}
    if (reason := nets.why_no_way_down(net, [] if layer is None else asked_layers(net, layer))) is not None:
        left_out["deconvnet and guided backprop"] = reason
    if (reason := nets.why_no_classes(net)) is not None:
        left_out["best and worst class"] = reason
    if not isinstance(net, OfTable):
        left_out["wrong switches"] = f"{net.name} is a function, whose pools hand out no switches"
        has_weights = isinstance(net, FunctionNet) and net.params is not None
        anew = "layer by layer drawn anew" if has_weights else "weights drawn anew"
        reason = "does not say which weights are those of a layer" if has_weights else "holds its weights itself"
        left_out[anew] = f"{net.name} is a function that {reason}"
    elif num_images == 1:
        left_out["switches of another image"] = "there is one image"
    return left_out


def project_all(net: Net, images: np.ndarray, *, layer: str, key: jax.Array) -> Drawn:
    """Every picture that is compared, of a batch of images: of a network without classes or switches what it has.

    `anew` and the comparisons with the image are of the best class, or of the strongest unit where there is no class.
    """
    logits = nets.logits_layer(net)
    edge_maps = np.broadcast_to(edges(images)[..., None], images.shape)

    def explain(ways: Ways, top: jax.Array, of: str) -> Pictures:
        pictures = ways.down(top, of)
        return pictures | {"gradient x input": pictures["gradient"] * images, "edges alone": edge_maps}

    def signals_of(ways: Ways) -> dict[str, tuple[jax.Array, str]]:
        classes = [] if logits is None else [(top, logits) for top in class_tops(ways.features[logits])]
        units = [(top, layer) for top in neuron_tops(ways.features[layer])]
        return dict(zip(UNITS if classes else UNITS[2:], [*classes, *units], strict=True))

    def explain_units(ways: Ways) -> dict[str, Pictures]:
        return {unit: explain(ways, *signal) for unit, signal in signals_of(ways).items()}

    trained = ways_of(net, layer, images)
    nets.check_finite(net, {name: trained.features[name] for name in asked_layers(net, layer)})
    signals = signals_of(trained)
    drawn: Drawn = {"units": explain_units(trained), "anew": {}, "switches": {}}
    other = None
    for name, other in _redrawn(net, images, layer=layer, key=key):
        drawn["anew"][name] = explain(other, *signals[asked_of(drawn)])
    if other is not None:
        drawn["untrained"] = explain_units(other)  # the last of them
    if isinstance(net, OfTable):
        drawn["switches"] = _by_wrong_switches(net, images, {u: signals[u] for u in UNITS[:3:2] if u in signals})
    return drawn


def asked_of(drawn: Mapping[str, Mapping[str, Any]]) -> str:
    """Whose pictures are compared as weights are drawn anew, and with the image."""
    return next(unit for unit in UNITS if unit in drawn["units"])


def asked_layers(net: Net, layer: str) -> tuple[str, ...]:
    """The layers whose pictures are compared: that of the units, and that of the classes where there are some."""
    logits = nets.logits_layer(net)
    return tuple(dict.fromkeys([layer] if logits is None else [layer, logits]))


def ways_of(net: Net, layer: str, images: np.ndarray) -> Ways:
    """The ways of any network: a table's own, `Net.project` of the others, as far as `nets.ways_down` has them.

    A class of the others is asked with 1 by `zfjax.with_relu_rule`, as `Net.project` starts from its own logit.
    """
    if isinstance(net, OfTable):
        return _ways_of_table(net.params, images, architecture=net.architecture)
    logits, fed = nets.logits_layer(net), jnp.asarray(images)
    layers = asked_layers(net, layer)
    functions = {name: as_partial(net.features([name])) for name in layers}
    known = nets.ways_down(net, layers)
    ways = {name: way for name, way in WAY_NAMES.items() if way in known}

    def down(top: jax.Array, of: str) -> Pictures:
        if of == logits:
            options = {"layer": of, "on_unknown": getattr(net, "on_unknown", "error")}
            pictures = {name: _down(functions[of], fed, top, rule=way, **options) for name, way in ways.items()}
            return {name: np.asarray(picture) for name, picture in pictures.items()}
        units, is_active = _units_of(np.asarray(top))
        return {name: net.project(images, units, layer=of, way=way) * is_active for name, way in ways.items()}

    return Ways({name: _of_layer(fn, fed, layer=name) for name, fn in functions.items()}, down)


def _ways_of_table(params: Params, images: np.ndarray, *, architecture: Architecture) -> Ways:
    trace = _up(params, images, architecture=architecture)

    def down(top: jax.Array, of: str) -> Pictures:
        options: dict[str, Any] = {"layer": of, "architecture": architecture}
        return {name: np.asarray(method(params, trace, top, **options)) for name, method in METHODS.items()}

    return Ways({name: of_layer.features for name, of_layer in trace.items()}, down)


def _redrawn(net: Net, images: np.ndarray, *, layer: str, key: jax.Array) -> Iterator[tuple[str, Ways]]:
    """(name, ways) of the network as more of its weights are drawn anew; nothing where they cannot be."""
    if isinstance(net, OfTable):
        for name, params in cascade(net.params, key, architecture=net.architecture):
            yield name, _ways_of_table(params, images, architecture=net.architecture)
    elif isinstance(net, FunctionNet) and net.params is not None:
        yield ALL_LAYERS, ways_of(net.with_params(shuffled(net.params, key)), layer, images)


def untrained(net: Net, seed: int) -> Net | None:
    """The same network with all of its weights drawn anew: a control beside which a trained one has learnt something.

    Of a network of a table it is the last step of `cascade`, of another its parameters `shuffled`.

    Args:
      net: any network.
      seed: of the draw.

    Returns:
      The network; None of one whose parameters are not at hand.

    Examples:
      >>> import numpy as np, zfjax
      >>> net = zfjax.FunctionNet(lambda w, images: {"maps": images @ w}, np.eye(3, dtype=np.float32), image_size=8)
      >>> zfjax.sanity.untrained(net, seed=0).params.sum()
      Array(3., dtype=float32)
    """
    key = jax.random.key(seed)
    if isinstance(net, OfTable):
        *_, (_, params) = cascade(net.params, key, architecture=net.architecture)
        return cast(Net, net.with_params(params))
    if isinstance(net, FunctionNet) and net.params is not None:
        return net.with_params(shuffled(net.params, key))
    return None


def shuffled(params: Any, key: jax.Array) -> Any:
    """A tree of arrays with the values of each shuffled: random weights with the same distribution.

    Variances stay positive. Arrays of whole numbers, as counters are, stay as they are.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> shuffled = zfjax.sanity.shuffled({"kernel": jnp.arange(4.0)}, key=jax.random.key(0))
      >>> sorted(shuffled["kernel"].tolist())
      [0.0, 1.0, 2.0, 3.0]
    """
    leaves, tree = jax.tree.flatten(params)
    drawn = [
        jax.random.permutation(jax.random.fold_in(key, n), jnp.ravel(leaf)).reshape(jnp.shape(leaf))
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        else leaf
        for n, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, drawn)


def _by_wrong_switches(
    net: OfTable, images: np.ndarray, signals: Mapping[str, tuple[jax.Array, str]]
) -> dict[str, Pictures]:
    architecture = net.architecture
    trace = _up(net.params, images, architecture=architecture)
    changed = {"of another image": exchanged(trace)} if len(images) > 1 else {}
    changed["in the middle"] = centered(trace, architecture=architecture)
    drawn = {}
    for how, wrong in changed.items():
        for unit, (top, of) in signals.items():
            picture = project(net.params, wrong, top, layer=of, architecture=architecture)
            drawn[f"{unit}, switches {how}"] = {"deconvnet": np.asarray(picture)}
    return drawn


def _units_of(top: np.ndarray) -> tuple[Unit, np.ndarray]:
    """(the one activation that each signal of `neuron_tops` keeps, 1 or, where it keeps none, 0)."""
    *place, channel = np.unravel_index(top.reshape(len(top), -1).argmax(axis=1), top.shape[1:])
    is_active = (top.reshape(len(top), -1) != 0).any(axis=1)
    return Unit(channel, (place[0], place[1]) if place else None), is_active[:, None, None, None]


@partial(compiled, using=partial(jax.jit, static_argnames="layer"))
def _of_layer(fn: Partial, images: jax.Array, *, layer: str) -> jax.Array:
    features: jax.Array = fn(images)[layer]
    return features


@partial(compiled, using=partial(jax.jit, static_argnames=("layer", "rule", "on_unknown")))
def _down(fn: Partial, images: jax.Array, top: jax.Array, *, layer: str, rule: Way, on_unknown: OnUnknown) -> jax.Array:
    ruled = with_relu_rule(lambda images: fn(images)[layer], rule, on_unknown=on_unknown)
    pixels: jax.Array
    (pixels,) = jax.vjp(ruled, images)[1](top)
    return pixels


@partial(jax.jit, static_argnames="architecture")
def _up(params: Params, images: jax.Array, *, architecture: Architecture) -> Trace:
    return forward(params, images, architecture=architecture)[1]


def compare(drawn: Drawn, images: np.ndarray) -> Scores:
    """Every check of a batch of images, from its pictures."""
    of_nets = {"": drawn["units"], ", untrained net": drawn.get("untrained", {})}
    right = drawn["units"][asked_of(drawn)]
    views: dict[str, Look] = {"signed": lambda of: of, "absolute": np.abs}  # Adebayo et al. 2018 show both
    ranked = {view: {m: ranks(look(of)) for m, of in right.items()} for view, look in views.items()}
    edge_maps = edges(images)
    scores = {
        "units": {
            f"{first} and {second}{which}": {m: cosine(of[first][m], of[second][m]) for m in right}
            for first, second in (UNITS[:2], UNITS[2:])
            for which, of in of_nets.items()
            if first in of
        },
        "switches": {
            row: {m: cosine(drawn["units"][row.partition(",")[0]][m], of) for m, of in wrong.items()}
            for row, wrong in drawn["switches"].items()
        },
    }
    for view, look in views.items():
        scores[view] = {
            layer: {m: cosine(ranked[view][m], ranks(look(of))) for m, of in anew.items()}
            for layer, anew in drawn["anew"].items()
        }
    alone = {m: spearman(np.abs(of).sum(axis=-1), edge_maps) for m, of in right.items()}
    itself = {m: spearman(of, images) for m, of in right.items()}
    scores["image"] = {"edges of the image": alone, "the image itself": itself}
    return {group: rows for group, rows in scores.items() if rows}


def summarize(scores: Scores) -> Checks:
    """Mean and standard deviation over the images whose pictures can be compared, and their number."""

    def over_images(values: np.ndarray) -> Cell:
        values = values[np.isfinite(values)]
        is_known = len(values) > 0
        mean, std = (values.mean(), values.std()) if is_known else (None, None)
        return {"mean": mean, "std": std, "num": len(values)}

    return map_cells(over_images, scores)
