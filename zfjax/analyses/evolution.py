"""How early features settle, and how they change until then, over the epochs of one run (Fig. 4).

A map keeps its number, and so its identity, while a run trains. So each map is compared with itself, by the Pearson
correlation over all pictures and places: blind to the size of the activations, which grows, and to their offset.
Below, E epochs are in their order, the last one is the end of the run, and C maps belong to one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from zfjax.analyses.strongest import Strongest
from zfjax.errors import UserError


def correlations(features: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Pearson correlation of each map with its final self, over all pictures and places.

    Args:
      features: float [N, H, W, C] or [N, C], features of N pictures at some epoch.
      final: the same pictures' features at the last one.

    Returns:
      float64 [C], -1 to 1. A map that does not vary yet (a dead one) has 0: nothing of what it will be is there. One
      whose final self does not vary has NaN: there is nothing to be like. UserError for features of two shapes.
    """
    features, final = np.asarray(features), np.asarray(final)
    if features.shape != final.shape:
        raise UserError(f"features of shape {features.shape}: final has {final.shape}")
    found = np.einsum("nc,nc->c", _standard_scores(features), _standard_scores(final), dtype=np.float64)
    return np.where(_varies(final), np.clip(found, -1.0, 1.0), np.nan)


def similarity(features: np.ndarray, final: np.ndarray) -> float | None:
    """Mean of `correlations` over the maps whose final self varies; None where none does."""
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


def lower_first(similarities: Sequence[Sequence[float]]) -> float | None:
    """How far lower layers settle before upper ones: 1 wherever two are compared, 0.5 in no order, 0 nowhere.

    The share of the pairs of layers whose lower one has the larger mean similarity over the epochs; equal ones count
    half. Unlike settling epochs it needs no threshold and is not bound to the epochs that were kept.

    Args:
      similarities: [layers, E], from the image up.

    Returns:
      The share; None for fewer than two layers.
    """
    means = [float(np.mean(row)) for row in similarities]
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
    return np.median(values[:, alive] / values[-1, alive][None], axis=1).tolist()


def changed(values: np.ndarray, images: np.ndarray) -> list[float | None]:
    """Share of the maps whose strongest image is another one than at the epoch before.

    Args:
      values: float [E, C], strongest activations; a map counts where it is alive at both epochs.
      images: int [E, C], where they were found.

    Returns:
      One for each epoch but the first; None where no map is alive at both.
    """
    alive = np.asarray(values) > 0
    moved = np.diff(images, axis=0) != 0
    both = alive[1:] & alive[:-1]
    return [_mean(new[kept]) for new, kept in zip(moved, both, strict=True)]


class Continuity(NamedTuple):
    """Mean Pearson correlation of a map's projections at one epoch and the next; None where there was none."""

    image_stayed: float | None  # where the strongest image is the same
    image_changed: float | None


def continuity(projections: np.ndarray, images: np.ndarray) -> Continuity:
    """Whether sudden jumps in appearance come from a change of the strongest image, as the paper says of Fig. 4.

    Args:
      projections: float [E, C, H, W, 3], each map's strongest activation, projected; all zero where there is none.
      images: int [E, C], where it was found.
    """
    flat = np.asarray(projections).reshape(*np.shape(images), -1)
    drawn = np.any(flat != 0, axis=2)
    found: tuple[list[float], list[float]] = ([], [])
    for epoch, m in np.argwhere(drawn[1:] & drawn[:-1]):
        other_image = images[epoch + 1, m] != images[epoch, m]
        found[int(other_image)].append(float(np.corrcoef(flat[epoch + 1, m], flat[epoch, m])[0, 1]))
    return Continuity(*(_mean(values) for values in found))


def _standard_scores(features: np.ndarray) -> np.ndarray:
    """[..., C] -> [N, C]: each map with mean 0 and sum of squares 1; zeros for a map that does not vary."""
    rows = features.reshape(-1, features.shape[-1])
    rows = rows - rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    norms = np.sqrt(np.einsum("nc,nc->c", rows, rows, dtype=np.float64))
    return rows / np.where(_varies(features), norms, np.inf).astype(rows.dtype)


def _varies(features: np.ndarray) -> np.ndarray:
    """bool [C]: the map is not the same number everywhere."""
    rows = np.asarray(features).reshape(-1, np.shape(features)[-1])
    return np.any(rows != rows[:1], axis=0)


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    """Of those that are not NaN."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None


THRESHOLD = 0.9  # similarity to the final features from which a layer counts as settled


Drawn = Mapping[str, Mapping[int, Strongest]]  # by layer and epoch: M maps, one image each
