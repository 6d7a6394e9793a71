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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from zfjax import nets
from zfjax.architecture import Architecture, Conv
from zfjax.deconvnet import gradient, guided_backprop, isolate, project
from zfjax.errors import UserError
from zfjax.network import Params, Trace, forward

Pictures = dict[str, np.ndarray]  # method -> float [B, s, s, 3] signed


Drawn = dict[str, dict[str, Pictures]]  # group -> what was drawn -> its pictures


Scores = dict[str, dict[str, dict[str, np.ndarray]]]  # group -> row -> method -> float [B], NaN where undefined


Checks = dict[str, dict[str, dict[str, dict[str, Any]]]]  # the same, each {"mean", "std", "num"} over the images


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


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of the angle between the pictures of each pair; NaN where one of them is blank.

    Args:
      first, second: [B, ...] of one shape.

    Returns:
      float64 [B].
    """
    a, b = _unit_size(first), _unit_size(second)
    return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation of the pictures of each pair, `cosine` of their `ranks`; NaN where one of them is constant.

    Of signed pictures it is the signed one, of their absolute values the absolute one (Adebayo et al. 2018).
    """
    return cosine(ranks(first), ranks(second))


def ranks(pictures: np.ndarray) -> np.ndarray:
    """Rank of each value in its picture, less the mean rank; equal values share the mean of their ranks.

    [B, ...] -> float64 [B, N]
    """
    ranked = rankdata(np.asarray(pictures).reshape(len(pictures), -1), axis=1)
    return ranked - ranked.mean(axis=1, keepdims=True)


def class_tops(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Signals for the most and the least probable class of each image: 1 there, 0 elsewhere. [B, classes] -> two

    Both are asked with the same signal, as the worst class's own logit may be negative and would turn its picture over.
    """
    classes = (logits.argmax(axis=1), logits.argmin(axis=1))
    best, worst = (jax.nn.one_hot(chosen, logits.shape[1], dtype=logits.dtype) for chosen in classes)
    return best, worst


def neuron_tops(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Signals for two units of one place: the strongest activation of the layer, and the weakest active unit beside it.

    Args:
      features: [B, H, W, C] of a convolutional layer, or [B, C] of a dense one, after its ReLU.

    Returns:
      Two of the same shape, each with one activation of each image kept. Where no other unit of the place is active
      the second is zero, and its picture blank.
    """
    batch, *places, channels = features.shape
    place = features.reshape(batch, -1, channels).max(axis=2).argmax(axis=1)
    there = jnp.take_along_axis(features.reshape(batch, -1, channels), place[:, None, None], axis=1)[:, 0]
    strongest, weakest = there.argmax(axis=1), jnp.where(there > 0, there, jnp.inf).argmin(axis=1)
    position = (place // places[1], place % places[1]) if places else None
    first, second = (isolate(features, channel=channel, position=position) for channel in (strongest, weakest))
    alone = (strongest == weakest).reshape(-1, *(1 for _ in features.shape[1:]))
    return first, jnp.where(alone, jnp.zeros((), features.dtype), second)


def redraw(params: Params, layer: str, key: jax.Array) -> Params:
    """The parameters with one layer as before training: kernel N(0, RMS of the trained one), bias 0.

    Its scale stays that of the trained layer, so that the others go on to read signals of the size that they know.
    """
    kernel, bias = params[layer]["kernel"], params[layer]["bias"]
    rms = jnp.sqrt(jnp.mean(jnp.square(kernel)))
    drawn = rms * jax.random.normal(key, kernel.shape, kernel.dtype)
    return {**params, layer: {"kernel": drawn, "bias": jnp.zeros_like(bias)}}


def cascade(params: Params, key: jax.Array, *, architecture: Architecture) -> Iterator[tuple[str, Params]]:
    """(layer, parameters) from the top down: that layer and all above it are as before training (Adebayo et al. 2018).

    The last of them is an untrained net. A layer's new weights depend on the key and its depth alone.
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
            size, stride, side = row.pool.size, row.pool.stride, architecture.sizes()[row.name].filtered[0]
            inside = np.minimum(size // 2, side - 1 - stride * np.arange(switches.shape[1])).astype(np.uint8)
            middle = inside[:, None] * np.uint8(size) + inside[None]
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
        name: seen if seen.switches is None else seen._replace(switches=jnp.roll(seen.switches, 1, axis=0))
        for name, seen in trace.items()
    }


def edges(images: np.ndarray) -> np.ndarray:
    """Sobel's edge strength of the images' mean over the colours, borders repeated: a picture that knows no net.

    [B, H, W, C] -> float [B, H, W]
    """
    padded = np.pad(np.asarray(images).mean(axis=-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    smooth_across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    smooth_down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return np.hypot(smooth_across, smooth_down)


def _unit_size(pictures: np.ndarray) -> np.ndarray:
    """[B, ...] -> float64 [B, N] with a largest |value| of 1, as tiny ones square to 0; NaN where there is none."""
    rows = np.asarray(pictures, np.float64).reshape(len(pictures), -1)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    return np.divide(rows, largest, out=np.full_like(rows, np.nan), where=largest > 0)


CHUNK = 8  # images in memory at the same time


SHOWN = 2  # images on the page of pictures


Look = Callable[[np.ndarray], np.ndarray]  # what of a picture is compared


def check_all(net: nets.TrainedNet, layer: str, images: np.ndarray, seed: int) -> tuple[Scores, Drawn]:
    """Scores of all images, a chunk at a time, and the pictures of the first ones.

    The last chunk is filled up with the first images, so that one compiled function serves all chunks, and that each
    image has another one to take switches from.
    """
    size = min(CHUNK, len(images))
    found = []
    for start in range(0, len(images), size):
        rows = images[np.arange(start, start + size) % len(images)]
        drawn = draw_all(net, layer, rows, jax.random.key(seed))
        found.append(compare(drawn, rows))
        if start == 0:
            shown = map_cells(lambda of: of[:SHOWN].copy(), drawn)
    return map_cells(lambda *parts: np.concatenate(parts)[: len(images)], *found), shown


def draw_all(net: nets.TrainedNet, layer: str, images: np.ndarray, key: jax.Array) -> Drawn:
    """Every picture that is compared, of a batch of images."""
    architecture, last = net.architecture, net.architecture.layer_names[-1]
    edge_maps = np.broadcast_to(edges(images)[..., None], images.shape)

    def explain(params: Params, trace: Trace, top: jax.Array, of: str) -> Pictures:
        options: dict[str, Any] = {"layer": of, "architecture": architecture}
        found = {name: np.asarray(method(params, trace, top, **options)) for name, method in METHODS.items()}
        return found | {"gradient x input": found["gradient"] * images, "edges alone": edge_maps}

    def explain_units(params: Params, trace: Trace) -> dict[str, Pictures]:
        tops = class_tops(trace[last].features), neuron_tops(trace[layer].features)
        signals = [(top, of) for pair, of in zip(tops, (last, layer), strict=True) for top in pair]
        return {unit: explain(params, trace, *signal) for unit, signal in zip(UNITS, signals, strict=True)}

    trace = _up(net.params, images, architecture=architecture)
    best, strongest = class_tops(trace[last].features)[0], neuron_tops(trace[layer].features)[0]
    drawn: Drawn = {"units": explain_units(net.params, trace), "anew": {}, "switches": {}}
    for name, params in cascade(net.params, key, architecture=architecture):
        other = _up(params, images, architecture=architecture)
        drawn["anew"][name] = explain(params, other, best, last)
    drawn["untrained"] = explain_units(params, other)  # the last of the cascade
    changed = {"of another image": exchanged(trace)} if len(images) > 1 else {}
    changed["in the middle"] = centered(trace, architecture=architecture)
    for how, wrong in changed.items():
        for unit, top, of in (("best class", best, last), ("strongest unit", strongest, layer)):
            picture = project(net.params, wrong, top, layer=of, architecture=architecture)
            drawn["switches"][f"{unit}, switches {how}"] = {"deconvnet": np.asarray(picture)}
    return drawn


@partial(jax.jit, static_argnames="architecture")
def _up(params: Params, images: jax.Array, *, architecture: Architecture) -> Trace:
    return forward(params, images, architecture=architecture)[1]


def compare(drawn: Drawn, images: np.ndarray) -> Scores:
    """Every check of a batch of images, from its pictures."""
    nets = {"": drawn["units"], ", untrained net": drawn["untrained"]}
    right = drawn["units"]["best class"]
    views: dict[str, Look] = {"signed": lambda of: of, "absolute": np.abs}  # Adebayo et al. 2018 show both
    ranked = {view: {m: ranks(look(of)) for m, of in right.items()} for view, look in views.items()}
    edge_maps = edges(images)
    scores = {
        "units": {
            f"{first} and {second}{which}": {m: cosine(of[first][m], of[second][m]) for m in right}
            for first, second in (UNITS[:2], UNITS[2:])
            for which, of in nets.items()
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
    return {**scores, "image": {"edges of the image": alone, "the image itself": itself}}


def summarize(scores: Scores) -> Checks:
    """Mean and standard deviation over the images whose pictures can be compared, and their number."""

    def over_images(values: np.ndarray) -> dict[str, Any]:
        values = values[np.isfinite(values)]
        told = len(values) > 0
        return {"mean": values.mean() if told else None, "std": values.std() if told else None, "num": len(values)}

    return map_cells(over_images, scores)
