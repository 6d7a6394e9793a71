"""How early features settle, and how they change until then, over the epochs of one run (Fig. 4).

A map keeps its number, and so its identity, while a run trains. So each map is compared with itself, by the Pearson
correlation over all pictures and places: blind to the size of the activations, which grows, and to their offset.
Below, E epochs are in their order, the last one is the end of the run, and C maps belong to one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from zfjax import features as layer_features
from zfjax import nets
from zfjax.analyses import strongest
from zfjax.analyses.strongest import Strongest
from zfjax.analyses.top_activations import State
from zfjax.data import Source
from zfjax.errors import UserError
from zfjax.nets import Net

LINE = 17  # places on the straight way between the weights of two epochs, both among them
THRESHOLD = 0.9  # similarity to the final features from which a layer counts as settled

MEANINGS = {
    "similarity": "of the features of fixed validation images to the last epoch's: Pearson correlation of each map "
    "with its final self over all images and places, mean over the maps that are alive at the end; for each epoch",
    "similarity_by_chance": "the same of each final map with the next one",
    "straight": "the similarity, were all weights on the straight line from those of the first of these epochs to the "
    "last ones, each time where the mean over the layers is that of the epoch: what layers owe to those below them",
    "settling_epoch": f"first epoch from which the similarity stays at or above {THRESHOLD}; null: none before the "
    "last, which is like itself",
    "lower_layers_first": "share of the pairs of layers whose lower one has the larger mean similarity; 0.5: no order",
    "growth": "strongest activation as a multiple of the last epoch's, median over the maps alive then",
    "changed": "share of the maps whose strongest image is not the one of the epoch before, from the second epoch on",
    "projections": "as of Figure 2, for each epoch: where they start, how many from below 0, maps that are nothing but "
    "rounding, images tied at the maximum",
    "continuity": "mean Pearson correlation of a drawn map's projections at one epoch and the next, where the "
    "strongest image stayed and where it changed; of_pairs: by pair of epochs and map, null: no projection",
}


class Settling(TypedDict):
    """When the features of one layer become similar to their final ones: see MEANINGS."""

    similarity: list[float | None]  # at each epoch
    similarity_by_chance: float | None
    settling_epoch: int | None


class Followed(TypedDict):
    """The strongest activations of one layer over the epochs: see MEANINGS."""

    growth: list[float | None]  # at each epoch
    changed: list[float | None]  # from the second epoch on


class OfPairs(TypedDict):
    """By pair of neighbouring epochs and map, [E - 1][M]."""

    correlation: list[list[float | None]]  # None where there is no projection at one of the two
    image_stayed: list[list[bool]]  # the strongest image is the same


class Continuity(TypedDict):
    """Mean Pearson correlation of a map's projections at one epoch and the next; None where there was none."""

    image_stayed: float | None  # where the strongest image is the same
    image_changed: float | None
    of_pairs: NotRequired[OfPairs]  # what the means are of; earlier versions did not write it


Drawn = Mapping[str, Mapping[int, Strongest]]  # by layer and epoch: M maps, one image each


def measure(
    by_epoch: Mapping[int, Net], images: np.ndarray, layers: Sequence[str], *, batch_size: int = 64
) -> dict[str, Settling]:
    """Similarity of each layer's features to those of the last epoch, and the epoch from which it stays high (Fig. 4).

    Examples:
      by_epoch = {step: zfjax.load_net(f"runs/zfnet/checkpoints/{step}") for step in (1000, 7000)}
      evolution.measure(by_epoch, net.prepare(pictures), net.layers)

    Args:
      by_epoch: {epoch: the network then}, two or more with the same layers; each is asked for once.
      images: float [N, H, W, C], the networks' input.
      layers: whose features are compared.
      batch_size: images that are looked at together.

    Returns:
      {layer: the first three of MEANINGS}, one similarity for each epoch in ascending order. UserError for fewer than
      two epochs, an unknown layer, or one that is not finite.
    """
    *earlier, last = _epochs(by_epoch)

    def look(net: Net) -> dict[str, np.ndarray]:
        features: dict[str, np.ndarray] = nets.check_finite(
            net, layer_features.in_batches(net.features(layers), images, batch_size=batch_size)
        )
        return features

    final = look(by_epoch[last])
    curves: dict[str, list[float | None]] = {layer: [] for layer in layers}
    for epoch in (*earlier, last):
        for layer, rows in (final if epoch == last else look(by_epoch[epoch])).items():
            curves[layer].append(similarity(rows, final[layer]))
    return {layer: _settling(curve, final[layer], earlier) for layer, curve in curves.items()}


def straight(
    by_epoch: Mapping[int, Net], images: np.ndarray, layers: Sequence[str], *, batch_size: int = 64
) -> dict[str, list[float]] | None:
    """The similarities of `measure`, were all weights to go one straight way: the null beside which layers settle.

    What changes below changes what is above, so lower layers are nearer to their end also where all weights move alike.
    Here they go from those of the first epoch to the last ones in LINE steps; each epoch is held against the place
    between two of these where the layers are as far from their end as then, in the mean.

    Args:
      by_epoch, images, layers, batch_size: as for `measure`.

    Returns:
      {layer: one for each epoch} of the layers that are alive at the end; None for networks whose parameters are not at
      hand or of other shapes, or where none is alive.
    """
    epochs = _epochs(by_epoch)
    first, last = by_epoch[epochs[0]], by_epoch[epochs[-1]]
    if not isinstance(first, nets.OfTable | nets.FunctionNet) or type(first) is not type(last):
        return None
    trees = [jax.tree.flatten(of.params) for of in (first, last)]
    kinds = [(str(tree), [np.shape(leaf) for leaf in leaves]) for leaves, tree in trees]
    if kinds[0] != kinds[1] or not kinds[0][1]:
        return None

    def look(net: Net) -> dict[str, np.ndarray]:
        return dict(layer_features.in_batches(net.features(layers), images, batch_size=batch_size))

    final = look(last)
    alive = [layer for layer in layers if similarity(final[layer], final[layer]) is not None]

    def similarities(net: Net) -> list[float]:
        rows = look(net)
        return [np.nan if (of := similarity(rows[layer], final[layer])) is None else of for layer in alive]

    line = np.array([similarities(_between(first, last, share)) for share in np.linspace(0, 1, LINE)])
    measured = np.array([similarities(by_epoch[epoch]) for epoch in epochs])
    if not alive or not (np.isfinite(line).all() and np.isfinite(measured).all()):
        return None
    so_far = np.maximum.accumulate(line.mean(axis=1))  # a similarity may fall on the way
    return {
        layer: [float(np.interp(mean, so_far, line[:, number])) for mean in measured.mean(axis=1)]
        for number, layer in enumerate(alive)
    }


def _between(first: Any, last: Any, share: float) -> Any:
    """The last network with weights on the way to it; whole numbers stay its own."""

    def mixed(a: Any, b: Any) -> Any:
        return a + share * (b - a) if jnp.issubdtype(jnp.result_type(b), jnp.inexact) else b

    params = jax.tree.map(mixed, first.params, last.params)
    return last.with_params(params)


def project(
    by_epoch: Mapping[int, Net], source: Source, *, tops: Mapping[int, State], maps: Mapping[str, Any]
) -> Drawn:
    """Project the strongest activation of each of `maps` at every epoch.

    Args:
      by_epoch: {epoch: the network then}.
      source: the split that `tops` were scanned from.
      tops: {epoch: {layer: TopActivations}}; of the images that they hold the strongest one is drawn, or all.
      maps: {layer: int [M]}.

    Returns:
      {layer: {epoch: Strongest}}, epochs ascending. UserError for fewer than two epochs.
    """
    drawn: dict[str, dict[int, Strongest]] = {layer: {} for layer in maps}
    for epoch in _epochs(by_epoch):
        net = by_epoch[epoch]
        for layer, chosen in maps.items():
            drawn[layer][epoch] = strongest.project_and_cut(net, source, tops[epoch][layer], maps=chosen, layer=layer)
    return drawn


def follow(tops: Mapping[int, State]) -> dict[str, Followed]:
    """`growth` and `changed` of each layer's strongest activations; {epoch: {layer: TopActivations}} -> by layer."""
    states = [tops[epoch] for epoch in _epochs(tops)]
    facts: dict[str, Followed] = {}
    for layer in states[-1]:
        values, images = (
            np.stack([np.asarray(getattr(state[layer], name))[:, 0] for state in states])
            for name in ("values", "images")
        )
        facts[layer] = {"growth": growth(values), "changed": changed(values, images)}
    return facts


def continuities(drawn: Drawn) -> dict[str, Continuity]:
    """`continuity` of the maps of each layer that are drawn."""
    return {
        layer: continuity(
            np.stack([of.projections[:, 0] for of in at.values()]), np.stack([of.images[:, 0] for of in at.values()])
        )
        for layer, at in drawn.items()
    }


def correlations(features: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Pearson correlation of each map with its final self, over all pictures and places.

    Args:
      features: float [N, H, W, C] or [N, C], features of N pictures at some epoch.
      final: the same pictures' features at the last one.

    Returns:
      float64 [C], -1 to 1. A map that does not vary yet (a dead one) has 0: nothing of what it will be is there. One
      whose final self does not vary has NaN: there is nothing to be like. UserError for features of two shapes.

    Examples:
      >>> import numpy as np, zfjax
      >>> features = np.random.default_rng(0).normal(size=(4, 3, 3, 2))
      >>> zfjax.evolution.correlations(features, 5 * features + 1).round(3)
      array([1., 1.])
    """
    features, final = np.asarray(features), np.asarray(final)
    if features.shape != final.shape or features.ndim < 2:
        raise UserError(f"features of shape {features.shape}: final has {final.shape}; both are [N, ..., C]")
    each = np.einsum("nc,nc->c", _standard_scores(features), _standard_scores(final), dtype=np.float64)
    return np.where(_varies(final), np.clip(each, -1.0, 1.0), np.nan)


def similarity(features: np.ndarray, final: np.ndarray) -> float | None:
    """Mean of `correlations` over the maps whose final self varies; None where none does.

    Examples:
      >>> import numpy as np, zfjax
      >>> features = np.random.default_rng(0).normal(size=(4, 3, 3, 2))
      >>> round(zfjax.evolution.similarity(features, 5 * features + 1), 3)
      1.0
    """
    return _mean(correlations(features, final))


def similarity_by_chance(final: np.ndarray) -> float | None:
    """`similarity` of maps that are not each other's: of each final map and the next one that varies, in a circle.

    None where fewer than two maps vary.
    """
    maps = np.asarray(final)[..., _varies(final)]
    return similarity(np.roll(maps, 1, axis=-1), maps) if maps.shape[-1] > 1 else None


def settling_epoch(similarities: Sequence[float], epochs: Sequence[int], threshold: float = 0.9) -> int | None:
    """The first epoch from which the similarity to the final features stays at or above the threshold.

    Args:
      similarities: one for each epoch; leave out the last epoch of a run, which is like itself.
      epochs: ascending.
      threshold: above 0, at most 1.

    Returns:
      The epoch; None where the last of these similarities is below the threshold. UserError for another number of
      similarities than epochs, none at all, epochs that do not ascend or a threshold out of range.

    Examples:
      >>> import zfjax
      >>> zfjax.evolution.settling_epoch([0.1, 0.95, 0.97, 1.0], [1, 5, 10, 20])
      5
    """
    if len(similarities) != len(epochs) or not epochs:
        raise UserError(f"similarities={list(similarities)}: one for each of the epochs {list(epochs)} is needed")
    if not np.all(np.diff(epochs) > 0):
        raise UserError(f"epochs={list(epochs)}: ascending ones are needed")
    if not 0 < threshold <= 1:
        raise UserError(f"threshold={threshold!r}: above 0 and at most 1 is needed")
    settled = None
    for value, epoch in zip(reversed(similarities), reversed(epochs), strict=True):
        if value < threshold:
            break
        settled = epoch
    return settled


def lower_first(similarities: Sequence[Sequence[float | None]]) -> float | None:
    """How far lower layers settle before upper ones: 1 wherever two are compared, 0.5 in no order, 0 nowhere.

    The share of the pairs of layers whose lower one has the larger mean similarity over the epochs; equal ones count
    half. Unlike settling epochs it needs no threshold and is not bound to the epochs that were kept.

    Args:
      similarities: [layers, E], from the image up.

    Returns:
      The share; None for fewer than two layers.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.evolution.lower_first([[0.2, 0.9, 1.0], [0.1, 0.3, 1.0]])
      1.0
    """
    means = [float(np.mean(np.asarray(row, np.float64))) for row in similarities]
    pairs = [(low, high) for n, low in enumerate(means) for high in means[n + 1 :]]
    return _mean([(low > high) + (low == high) / 2 for low, high in pairs])


def growth(values: np.ndarray) -> list[float | None]:
    """Strongest activations as multiples of the last epoch's: median over the maps that are alive then.

    Args:
      values: float [E, C], strongest activation of each map over the same images.

    Returns:
      One for each epoch, 1 for the last; None where no map is alive at the end.
    """
    values = np.asarray(values, np.float64)
    alive = values[-1] > 0
    if not alive.any():
        return [None] * len(values)
    medians: list[float | None] = np.median(values[:, alive] / values[-1, alive][None], axis=1).tolist()
    return medians


def changed(values: np.ndarray, images: np.ndarray) -> list[float | None]:
    """Share of the maps whose strongest image is another one than at the epoch before.

    Args:
      values: float [E, C], strongest activations; a map counts where it is alive at both epochs.
      images: int [E, C], the images that they stand in.

    Returns:
      One for each epoch but the first; None where no map is alive at both.
    """
    alive = np.asarray(values) > 0
    moved = np.diff(images, axis=0) != 0
    both = alive[1:] & alive[:-1]
    return [_mean(new[kept]) for new, kept in zip(moved, both, strict=True)]


def continuity(projections: np.ndarray, images: np.ndarray) -> Continuity:
    """Whether sudden jumps in appearance come from a change of the strongest image, as the paper says of Fig. 4.

    Args:
      projections: float [E, C, H, W, 3], each map's strongest activation, projected; all zero where there is none.
      images: int [E, C], the image that it stands in.
    """
    flat = np.asarray(projections).reshape(*np.shape(images), -1)
    varies = np.ptp(flat, axis=2) > 0  # else there is none, or it is one grey
    correlation = np.full((len(flat) - 1, flat.shape[1]), np.nan)
    for epoch, m in np.argwhere(varies[1:] & varies[:-1]):
        correlation[epoch, m] = np.corrcoef(flat[epoch + 1, m], flat[epoch, m])[0, 1]
    stayed = np.diff(images, axis=0) == 0
    return {
        "image_stayed": _mean(correlation[stayed]),
        "image_changed": _mean(correlation[~stayed]),
        "of_pairs": {
            "correlation": [[None if np.isnan(value) else value for value in row] for row in correlation.tolist()],
            "image_stayed": stayed.tolist(),
        },
    }


def _epochs(by_epoch: Mapping[int, Any]) -> list[int]:
    epochs = sorted(by_epoch)
    if len(epochs) < 2:
        raise UserError(
            f"by_epoch of the epochs {epochs}: two or more are needed, to compare the earlier with the last"
        )
    return epochs


def _settling(curve: Sequence[float | None], final: np.ndarray, earlier: Sequence[int]) -> Settling:
    known = [
        value for value in curve[:-1] if value is not None
    ]  # all of them, or none where no map is alive at the end
    return {
        "similarity": list(curve),
        "similarity_by_chance": similarity_by_chance(final),
        "settling_epoch": settling_epoch(known, earlier, THRESHOLD) if known else None,
    }


def _standard_scores(features: np.ndarray) -> np.ndarray:
    """[..., C] -> [N, C]: each map with mean 0 and sum of squares 1; zeros for a map that does not vary."""
    rows = features.reshape(-1, features.shape[-1])
    rows = rows if np.issubdtype(rows.dtype, np.floating) and rows.dtype != np.float16 else rows.astype(np.float32)
    rows = rows - rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    norms = np.sqrt(np.einsum("nc,nc->c", rows, rows, dtype=np.float64))
    unit_rows: np.ndarray = rows / np.where(_varies(features), norms, np.inf).astype(rows.dtype)
    return unit_rows


def _varies(features: np.ndarray) -> np.ndarray:
    """bool [C]: the map is not the same number everywhere."""
    rows = np.asarray(features).reshape(-1, np.shape(features)[-1])
    varies: np.ndarray = np.any(rows != rows[:1], axis=0)
    return varies


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    """Of those that are not NaN."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None
