"""Features carried to another data set (sec. 4.2, 5.1): folds, features of frozen layers, scores, duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.architecture import Size
from zfjax.errors import UserError
from zfjax.features import Features, jitted
from zfjax.pixels import center_crop

NUM_TEST = 50  # test images per class at most, as in the paper
HELD_OUT = 3  # one of so many training images per class is held out to choose the regularisation
THUMBNAIL = 32  # side at which pictures are compared, pixels


class Fold(NamedTuple):
    """One draw of training and test images, class after class."""

    train: np.ndarray  # int [classes * num_train] indices
    test: np.ndarray  # int [T] indices, none of them in `train`


def folds(
    labels: np.ndarray,
    *,
    num_train: int,
    num_folds: int,
    seed: int,
    class_names: Sequence[str],
    num_test: int = NUM_TEST,
) -> list[Fold]:
    """Draws `num_train` images of each class for training and up to `num_test` of the others for testing.

    Each class of each fold is shuffled once, by (seed, fold, class): the first images train, the last ones test. So
    the training images of a smaller `num_train` are among those of a larger one, and a class that has enough images
    is tested on the same ones at every `num_train`.

    Args:
      labels: int [N].
      num_train: training images per class.
      num_folds: draws.
      seed: of the draws, 0 or more.
      class_names: dense label -> name.
      num_test: test images per class at most (the paper's 50).

    Raises:
      UserError: a class that has no image left to test on, by name; a number below 1; a label without a name.

    Examples:
      >>> import numpy as np, zfjax
      >>> labels, names = np.repeat([0, 1], 5), ("cat", "dog")
      >>> (fold,) = zfjax.transfer.protocol.folds(labels, num_train=3, num_folds=1, seed=0, class_names=names)
      >>> len(fold.train), len(fold.test)
      (6, 4)
    """
    for name, value in (("num_train", num_train), ("num_folds", num_folds), ("num_test", num_test)):
        if value < 1:
            raise UserError(f"{name}={value}: at least 1 is needed")
    if seed < 0:
        raise UserError(f"seed={seed}: 0 or more is needed")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise UserError(f"labels {labels.min()}..{labels.max()}: those of {len(class_names)} classes are needed")
    members = [np.flatnonzero(labels == label) for label in range(len(class_names))]
    for name, images in zip(class_names, members, strict=True):
        if len(images) <= num_train:
            raise UserError(
                f"num_train={num_train}: class {name!r} has {len(images)} images, and at least one is to be tested on"
            )
    drawn = []
    for fold in range(num_folds):
        shuffled = [
            np.random.default_rng((seed, fold, label)).permutation(images) for label, images in enumerate(members)
        ]
        test = [images[-min(num_test, len(images) - num_train) :] for images in shuffled]
        drawn.append(Fold(np.concatenate([images[:num_train] for images in shuffled]), np.concatenate(test)))
    return drawn


def held_out(labels: np.ndarray) -> np.ndarray:
    """bool [N]: the last third of each class's images, at least one; none of a class that has but one.

    Paper is silent: how the regularisation was chosen.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.transfer.protocol.held_out(np.array([0, 0, 0, 1]))
      array([False, False,  True, False])
    """
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        if len(images) > 1:
            held[images[-max(1, len(images) // HELD_OUT) :]] = True
    return held


def mean_class_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes in `labels` of the share of their images that were recognised; ints [N].

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.transfer.protocol.mean_class_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
      0.5
    """
    if len(labels) == 0 or predicted.shape != labels.shape:
        raise UserError(f"predicted of shape {predicted.shape}: one for each of the {len(labels)} labels is needed")
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Area under precision against recall at every recall level, as in PASCAL VOC from 2010 on.

    Precision at a recall is the highest one at that recall or beyond. Images of one score are found together, so
    neither order nor ties can be played with: all scores equal give the share of relevant images.

    Args:
      scores: float [N].
      relevant: bool [N].

    Returns:
      The area; nan where nothing is relevant. UserError for a score that is not finite or another number of them, or
      for numbers where True and False are needed.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.transfer.protocol.average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]))
      0.8333333333333333
    """
    if relevant.dtype != bool:
        raise UserError(f"relevant of type {relevant.dtype}: bool is needed")
    if scores.shape != relevant.shape or not np.isfinite(scores).all():
        raise UserError(f"scores of shape {scores.shape}: finite ones for each of {len(relevant)} images are needed")
    if not relevant.any():
        return float("nan")
    order = np.argsort(-scores)
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(relevant[order])[last_of_tie]
    ranked = (np.arange(len(scores)) + 1)[last_of_tie]
    recall, precision = hits / relevant.sum(), hits / ranked
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best_beyond))


def average_precisions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`average_precision` of each class; images where it is shown by difficult objects alone are left out of it.

    Args:
      scores: float [N, classes].
      targets: [N, classes], 1 shown, -1 not shown, 0 difficult.

    Returns:
      float [classes]. UserError for other shapes or values.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.transfer.protocol.average_precisions(np.array([[0.9], [0.8], [0.1]]), np.array([[1], [0], [-1]]))
      array([1.])
    """
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise UserError(f"targets of shape {targets.shape}: one for each of scores {scores.shape}, images by classes")
    if targets.dtype == bool or not np.isin(targets, (-1, 0, 1)).all():
        raise UserError(f"targets of type {targets.dtype}: 1 (shown), -1 (not shown) and 0 (difficult) are needed")
    clear = targets != 0
    return np.array(
        [average_precision(scores[clear[:, c], c], targets[clear[:, c], c] > 0) for c in range(targets.shape[1])]
    )


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean of `average_precisions` over the classes that some image shows; nan where there is none.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.transfer.protocol.mean_average_precision(np.array([[0.9], [0.8]]), np.array([[-1], [1]]))
      0.5
    """
    precisions = average_precisions(scores, targets)
    precisions = precisions[~np.isnan(precisions)]
    return float(precisions.mean()) if len(precisions) else float("nan")


def features_of(
    fn: Features,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    mean: np.ndarray | None = None,
    size: Size | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The features of pictures, or of their centre crops, batch by batch, in one pass for all layers.

    Args:
      fn: images [b, H, W, C] -> {name: features [b, ...]}, such as `features.layers_of` makes; without a mean
        and a size, a function of the pictures themselves, such as `nets.features_of_pictures` makes.
      batches: {"image": uint8 [b, H, W, C], "mask": bool [b]}, False for rows that only fill the batch.
      mean: float32 [H, W, C].
      size: side of the crop, or its (height, width), pixels.

    Yields:
      {name: float32 [rows of the mask, features]}, maps flattened.
    """
    compiled = jitted(fn)
    running = None  # is computed while the batch before it is used
    for batch in batches:
        pictures = batch["image"]
        images = pictures if mean is None or size is None else _center_crop(pictures, mean, size)
        following = compiled(images), batch["mask"]
        if running is not None:
            yield _rows(*running)
        running = following
    if running is not None:
        yield _rows(*running)


def thumbnails(pictures: jax.Array) -> jax.Array:
    """Pictures as unit vectors whose inner product is their normalised correlation.

    Resized to 32 x 32, each colour's mean subtracted, all divided by the norm; brightness, contrast and a cast of
    colour so drop out (with one mean for all colours any two blue pictures look alike). A picture of one colour gives
    zeros. uint8 [B, H, W, 3] -> float32 [B, 3072]
    """
    shape = (pictures.shape[0], THUMBNAIL, THUMBNAIL, 3)
    small = jax.image.resize(pictures.astype(jnp.float32), shape, "linear")
    small = (small - small.mean(axis=(1, 2), keepdims=True)).reshape(shape[0], -1)
    norm = jnp.sqrt((small**2).sum(axis=1, keepdims=True))
    return jnp.where(norm > 1e-3 * THUMBNAIL, small / jnp.maximum(norm, 1.0), 0.0)


def highest_correlations(tested: Iterable[np.ndarray], trained: Iterable[np.ndarray]) -> np.ndarray:
    """For each tested picture its highest normalised correlation with any training picture.

    The tested pictures are held as thumbnails, 12 kB each; the training pictures pass by.

    Args:
      tested, trained: batches of pictures, uint8 [b, H, W, 3]; the two may differ in size.

    Returns:
      float32 [tested pictures], -1 to 1; -1 where nothing was trained on.

    Examples:
      >>> import numpy as np, zfjax
      >>> pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
      >>> zfjax.transfer.protocol.highest_correlations([pictures], [pictures[:1]]).round(1)
      array([1., 0.], dtype=float32)
    """
    ours = jnp.concatenate([_thumbnails(pictures) for pictures in tested])
    best = jnp.full(len(ours), -1.0)
    for pictures in trained:
        best = _better(best, ours, _thumbnails(pictures))
    return np.asarray(best)


def duplicates(tested: Iterable[np.ndarray], trained: Iterable[np.ndarray], threshold: float) -> np.ndarray:
    """bool [tested pictures]: those that were in the training set, by a normalised correlation of `threshold` or more.

    The paper found 44 images of Caltech-101 and 243 of Caltech-256 in ImageNet so. Paper is silent: the threshold.
    Of 9,144 photos of Caltech-101 and 9,103 of ImageNet no two different ones reached 0.95.

    Examples:
      >>> import numpy as np, zfjax
      >>> pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
      >>> zfjax.transfer.protocol.duplicates([pictures], [pictures[:1]], threshold=0.95)
      array([ True, False])
    """
    check_threshold(threshold)
    return highest_correlations(tested, trained) >= threshold


def check_threshold(threshold: float, *, name: str = "threshold") -> None:
    """UserError for what is no correlation to call two pictures one by; `name` is what the caller calls it."""
    if not 0 < threshold <= 1:
        raise UserError(f"{name}={threshold}: a correlation above 0 and at most 1 is needed")


def _rows(features: dict[str, jax.Array], mask: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(maps).reshape(len(mask), -1)[mask] for name, maps in features.items()}


_center_crop = jax.jit(center_crop, static_argnames="size")
_thumbnails = jax.jit(thumbnails)


@jax.jit
def _better(best: jax.Array, ours: jax.Array, theirs: jax.Array) -> jax.Array:
    return jnp.maximum(best, jnp.matmul(ours, theirs.T, precision="highest").max(axis=1))
