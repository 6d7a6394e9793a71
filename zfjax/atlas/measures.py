"""What the atlas says of a unit in numbers, from its strongest activation in each image of the set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zfjax.architecture import Conv, Layer
from zfjax.errors import UserError

MEANINGS = {
    "strength": "the unit's strongest activation over the set",
    "mean": "mean over the images of the strongest activation in each, those below 0 as 0",
    "sparsity": "lifetime sparseness of the same activations (Vinje & Gallant 2000): 0 where all images excite the "
    "unit alike, 1 where one alone does",
    "selectivity": "of classes (Morcos et al. 2018): (a - b) / (a + b), with a the mean activation in the class that "
    "excites the unit most, and b that in all other images",
    "resemblance": "mean Pearson correlation of its projections with the patches that it sees, over the pixels where "
    "the projection is not zero",
    "grey": "activation in its strongest images without their colours, as a share of that with them",
    "object": "share of its projections' energy (squares) that falls on the object; in brackets the object's share of "
    "the patches' pixels, which is chance",
    "part": "share of its projections' energy that falls near a part, within a twelfth of the picture's side; in "
    "brackets the share of the patches' pixels there, which is chance",
    "ascent": "robust gradient ascent: pictures made of waves that excite the unit, each step moved, turned and scaled",
}
BINS = 24  # of the histogram
PLACES = 7  # cells along a side of the histogram of places, at most
BEST = 50  # strongest images whose classes are counted


class Measured(NamedTuple):
    """Of u units of one layer."""

    images: np.ndarray  # int32 [u, k], strongest first, of equal ones that of lower index; -1, behind all: none
    values: np.ndarray  # float32 [u, k] the unit's activations there; 0 where there is none
    places: np.ndarray  # int32 [u, k]
    strength: np.ndarray  # float32 [u]
    mean: np.ndarray  # float32 [u]
    sparsity: np.ndarray  # float32 [u]; NaN where the unit is dead
    selectivity: np.ndarray  # float32 [u]; NaN where the unit is dead or the set has no two classes
    best_class: np.ndarray  # int32 [u]; -1 likewise
    top_classes: np.ndarray  # int32 [u, classes] how many of the BEST strongest images are of each
    histogram: np.ndarray  # int32 [u, BINS] images by activation, from `low` to `high`
    low: np.ndarray  # float32 [u]
    high: np.ndarray  # float32 [u]
    where: (
        np.ndarray
    )  # int32 [u, h, w] images that excite the unit, by the place of its maximum in at most PLACES cells


def measure(
    values: np.ndarray, places: np.ndarray, labels: np.ndarray, *, k: int, num_classes: int, size: tuple[int, int]
) -> Measured:
    """Measure u units.

    Args:
      values, places: [N, u], as `Maxima.of` gives them.
      labels: int [N]; -1 where the set does not say.
      k: strongest images to keep of each.
      num_classes: of the labels.
      size: (height, width) of the layer's maps, (1, 1) of a dense layer.
    """
    num = len(values)
    rectified = np.maximum(values, 0).astype(np.float64)
    order = np.argsort(-values, axis=0, kind="stable")[: max(BEST, k)].T
    columns = np.arange(values.shape[1])[:, None]
    kept, of_kept = np.full((values.shape[1], k), -1, np.int32), np.zeros((values.shape[1], k), values.dtype)
    kept[:, : min(k, num)], of_kept[:, : min(k, num)] = order[:, :k], values[order[:, :k], columns]
    kept = np.where(of_kept != 0, kept, -1)
    drawn_first = np.argsort(kept < 0, axis=1, kind="stable")  # an activation of 0 may stand before those below it
    kept, of_kept = (np.take_along_axis(field, drawn_first, axis=1) for field in (kept, of_kept))
    strength, mean = values.max(axis=0), rectified.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = mean**2 / np.square(rectified).mean(axis=0)
        sparsity = (1 - share) / (1 - 1 / num) if num > 1 else np.full(len(mean), np.nan)
    selectivity, best_class = _selectivity(rectified, labels, num_classes)
    low = np.minimum(values.min(axis=0), 0)
    return Measured(
        images=kept,
        values=of_kept,
        places=np.where(kept < 0, 0, places[kept, columns]),
        strength=strength,
        mean=mean.astype(np.float32),
        sparsity=sparsity.astype(np.float32),
        selectivity=selectivity.astype(np.float32),
        best_class=best_class,
        top_classes=_counts(labels[order[:, :BEST]], values[order[:, :BEST], columns] > 0, num_classes),
        histogram=_histograms(values, low, strength),
        low=low,
        high=strength,
        where=_where(places, rectified > 0, size),
    )


def _selectivity(rectified: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """([u], the class whose images excite each unit most [u])."""
    known = labels >= 0
    if num_classes < 2 or len(np.unique(labels[known])) < 2:
        return np.full(rectified.shape[1], np.nan), np.full(rectified.shape[1], -1, np.int32)
    sums, counts = np.zeros((num_classes, rectified.shape[1])), np.bincount(labels[known], minlength=num_classes)
    np.add.at(sums, labels[known], rectified[known])
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], -np.inf)
    best = means.argmax(axis=0)
    others = (sums.sum(axis=0) - sums[best, np.arange(len(best))]) / (counts.sum() - counts[best])
    strongest = means.max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        selectivity = (strongest - others) / (strongest + others)
    return selectivity, np.where(strongest > 0, best, -1).astype(np.int32)


def _counts(labels: np.ndarray, counted: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each class stands in a row of `labels` [u, n], where it is counted. -> int32 [u, classes]"""
    counts = np.zeros((len(labels), num_classes), np.int32)
    rows, columns = np.nonzero(counted & (labels >= 0))
    np.add.at(counts, (rows, labels[rows, columns]), 1)
    return counts


def _histograms(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    span = np.where(high > low, high - low, 1)
    bins = np.clip(((values - low) / span * BINS).astype(int), 0, BINS - 1)
    return np.stack([np.bincount(of_unit, minlength=BINS) for of_unit in bins.T]).astype(np.int32)


def _where(places: np.ndarray, excited: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = np.divmod(places, size[1])
    height, width = (min(PLACES, side) for side in size)
    cells = rows * height // size[0] * width + columns * width // size[1]
    counts = [
        np.bincount(of_unit[on], minlength=height * width) for of_unit, on in zip(cells.T, excited.T, strict=True)
    ]
    return np.stack(counts).reshape(-1, height, width).astype(np.int32)


def wiring(row: Layer, kernel: np.ndarray, num_below: int) -> np.ndarray:
    """How much each unit reads of each unit below: the norm of its weights there, with the sign of their sum.

    Args:
      row: of the table.
      kernel: HWIO, with I the maps of one group; or [in, out], whose flattened [H, W, C] has C = `num_below`.
      num_below: units of the layer below; the channels of the image, below the first layer.

    Returns:
      float32 [units, num_below]; 0 where a group does not read a map.
    """
    if not isinstance(row, Conv):
        if len(kernel) % num_below:
            raise UserError(f"kernel of shape {kernel.shape}: it reads whole maps of {num_below} channels")
        kernel = kernel.reshape(-1, num_below, kernel.shape[-1])
    weights = kernel.reshape(-1, *kernel.shape[-2:])
    own = np.sqrt(np.square(weights).sum(axis=0)) * np.where(weights.sum(axis=0) < 0, -1, 1)
    groups = row.groups if isinstance(row, Conv) else 1
    full = np.zeros((kernel.shape[-1], num_below), np.float32)
    reads, gives = num_below // groups, kernel.shape[-1] // groups
    for g in range(groups):
        full[g * gives : (g + 1) * gives, g * reads : (g + 1) * reads] = own[:, g * gives : (g + 1) * gives].T
    return full


def matches(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each unit the one whose activations over the same images go most with its own.

    Args:
      first, second: [N, u] and [N, v], activations of the units of two networks in N images.

    Returns:
      (int32 [u], Pearson correlation float32 [u]); -1 and NaN for a unit that never changes, and where none does.
    """

    def standard(values: np.ndarray) -> np.ndarray:
        centred = values - values.mean(axis=0, dtype=np.float64).astype(np.float32)
        norm = np.sqrt(np.square(centred).sum(axis=0))
        unit_rows: np.ndarray = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
        return unit_rows

    correlation = np.where(second.std(axis=0) > 0, standard(first).T @ standard(second), -np.inf)
    best = correlation.argmax(axis=1)
    value = correlation[np.arange(len(best)), best]
    changes = (first.std(axis=0) > 0) & np.isfinite(value)
    return np.where(changes, best, -1).astype(np.int32), np.where(changes, value, np.nan).astype(np.float32)
