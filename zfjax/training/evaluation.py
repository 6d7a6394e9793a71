"""Top-1 and top-5 error over a whole split, from the centre crop or ten crops averaged.

Paper is silent on test crops: that the ten of training are averaged is Krizhevsky's practice.

Networks of a table are measured on all devices; any other network by `errors_of_functions`, on one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zfjax import pixels
from zfjax.architecture import Architecture
from zfjax.errors import UserError, saying_keywords
from zfjax.network import Params, forward
from zfjax.parallel import AXIS, data_parallel, replicate, split

Crops = Literal["center", "ten"]
_LEAST = float(np.finfo(np.float32).min)  # in the place of the logarithm of 0


class Shares(TypedDict):
    """Shares of the images whose class is not the first answer, not among the first five."""

    top1: float
    top5: NotRequired[float]  # left out of five classes or fewer, where nothing is beyond the fifth


class Errors(NamedTuple):
    """Counts of errors over the images so far; divided once, at the end."""

    top1: jax.Array | int = 0  # images whose true class is not the most probable one
    top5: jax.Array | int = 0  # images whose true class is not among the five most probable ones
    count: jax.Array | int = 0  # type: ignore[assignment]  # images; hides tuple.count

    def shares(self, *, num_classes: int | None = None) -> Shares:
        """{"top1": error, "top5": error}, as shares of the images; UserError if none was seen.

        Args:
          num_classes: of the network; of five or fewer "top5" is left out, which is 0 whatever it answers.
        """
        if self.count == 0:
            raise UserError("count=0: no image was evaluated")
        shares: Shares = {"top1": int(self.top1) / int(self.count)}
        if num_classes is None or num_classes > 5:
            shares["top5"] = int(self.top5) / int(self.count)
        return shares


def init() -> Errors:
    """The counts before the first image.

    Examples:
      >>> import zfjax
      >>> zfjax.evaluation.init()
      Errors(top1=0, top5=0, count=0)
    """
    return Errors()


@saying_keywords
def update(
    errors: Errors, probabilities: jax.Array, *, labels: jax.Array | np.ndarray, mask: jax.Array | np.ndarray
) -> Errors:
    """Count a batch: probabilities [B, classes], labels int [B], mask bool [B] (False is left out).

    Of equal probabilities the lower class ranks first. A row that is not finite counts as wrong, as does a label
    outside the classes; outside of jit, where it can be seen, such a label is a UserError.

    Examples:
      >>> import numpy as np, zfjax
      >>> probabilities, labels = np.array([[0.7, 0.3], [0.6, 0.4]], np.float32), np.array([0, 1])
      >>> errors, mask = zfjax.evaluation.init(), np.array([True, True])
      >>> errors = zfjax.evaluation.update(errors, probabilities, labels=labels, mask=mask)
      >>> errors.top1 / errors.count
      Array(0.5, dtype=float32)
    """
    check_labels(labels, probabilities.shape[1], mask)
    ranks = _ranks(probabilities, labels)
    return Errors(
        errors.top1 + (mask & (ranks >= 1)).sum(),
        errors.top5 + (mask & (ranks >= 5)).sum(),
        errors.count + mask.sum(),
    )


def rank_of_label(probabilities: jax.Array, labels: jax.Array | np.ndarray) -> jax.Array:
    """Number of classes ranked before the true one; at least 5 in a row that is not finite. -> int32 [B]

    A label outside the classes has no rank: a UserError, or under jit as in a row that is not finite.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.evaluation.rank_of_label(np.array([[0.1, 0.6, 0.3]]), np.array([2]))
      Array([1], dtype=int32)
    """
    check_labels(labels, probabilities.shape[1])
    return _ranks(probabilities, labels)


def check_labels(labels: jax.Array | np.ndarray, num_classes: int, mask: jax.Array | np.ndarray | None = None) -> None:
    """UserError for a label, of those where `mask` holds, that is none of 0 .. num_classes - 1.

    Under jit nothing can be seen: check there what goes in.
    """
    if any(isinstance(of, jax.core.Tracer) for of in (labels, mask)):
        return
    counted = np.asarray(labels)[... if mask is None else np.asarray(mask)]
    wrong = counted[(counted < 0) | (counted >= num_classes)]
    if wrong.size:
        raise UserError(f"labels hold {wrong[0]}: 0 to {num_classes - 1} is needed, the classes of the logits")


def _ranks(probabilities: jax.Array, labels: jax.Array | np.ndarray) -> jax.Array:
    labels = jnp.asarray(labels)
    true = jnp.take_along_axis(probabilities, labels[:, None], axis=1)
    classes = jnp.arange(probabilities.shape[1], dtype=labels.dtype)
    before = (probabilities > true) | ((probabilities == true) & (classes[None] < labels[:, None]))
    known = (labels >= 0) & (labels < probabilities.shape[1])
    finite = jnp.isfinite(probabilities).all(axis=1) & known
    return jnp.where(finite, before.sum(axis=1), max(probabilities.shape[1], 5))


def _images_of_class(labels: jax.Array | np.ndarray, mask: jax.Array | np.ndarray, *, num_classes: int) -> jax.Array:
    """int32 [classes], the images of each that the mask holds."""
    return jnp.zeros(num_classes, jnp.int32).at[labels].add(jnp.asarray(mask, jnp.int32))


def _not_finite(rows: jax.Array, mask: jax.Array | np.ndarray) -> jax.Array:
    """How many of the rows [B, classes] that the mask holds are not finite."""
    return (mask & ~jnp.isfinite(rows).all(axis=1)).sum()


def probabilities_of(
    params: Params, pictures: jax.Array, mean: jax.Array, *, architecture: Architecture, views: Crops = "center"
) -> jax.Array:
    """Softmax of each picture, averaged over its views (Paper is silent on how crops are combined).

    Args:
      params: the network's parameters.
      pictures: uint8 [B, H, W, C].
      mean: float32 [H, W, C].
      architecture: the table.
      views: "center" crop, or the "ten" crops: four corners and centre, and their mirror images.

    Returns:
      float32 [B, classes].

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> small = (zfjax.Conv("conv1", 4, kernel=3), zfjax.Dense("fc2", 2, hidden=False))
      >>> table = zfjax.Architecture("small", small, image_size=8)
      >>> params = zfjax.ConvNet(table).init(jax.random.key(0), np.ones((1, 8, 8, 3), np.float32))["params"]
      >>> pictures, mean = np.zeros((5, 10, 10, 3), np.uint8), np.zeros((10, 10, 3), np.float32)
      >>> zfjax.evaluation.probabilities_of(params, pictures, mean, architecture=table).sum(axis=1)
      Array([1., 1., 1., 1., 1.], dtype=float32)
    """
    if views == "center":
        crops = pixels.center_crop(pictures, mean, architecture.image_size)[None]
    elif views == "ten":
        crops = pixels.ten_crops(pictures, mean, architecture.image_size)
    else:
        raise UserError(f"views={views!r}: one of 'center', 'ten' is needed")

    def probabilities(images: jax.Array) -> jax.Array:
        logits, _ = forward(params, images, architecture=architecture)
        return jax.nn.softmax(logits.astype(jnp.float32))

    averaged: jax.Array = lax.map(probabilities, crops).mean(axis=0)
    return averaged


def make_evaluate(
    architecture: Architecture, mean: np.ndarray, *, views: Crops = "center"
) -> Callable[[Params, Iterable[dict[str, Any]]], Errors]:
    """evaluate(params, batches) -> Errors of one network: see `make_evaluate_ensemble`, of which it is the simplest.

    Examples:
      evaluate = zfjax.evaluation.make_evaluate(net.architecture, net.mean)
      errors = evaluate(net.params, loader.eval_batches(photos.validation, batch_size=64))
      1 - errors.top1 / errors.count  # the share that is right
    """
    evaluate = make_evaluate_ensemble([Member(architecture, mean)], views=views)
    return lambda params, batches: evaluate([params], batches).ensemble


class Member(NamedTuple):
    """One network of an ensemble, without its parameters."""

    architecture: Architecture
    mean: np.ndarray  # float32 [H, W, C], the mean training picture, of the size of those that all members see


class EnsembleErrors(NamedTuple):
    """Errors of the averaged softmax, and of each network by itself."""

    ensemble: Errors
    members: tuple[Errors, ...]
    not_finite: tuple[jax.Array | int, ...] = ()  # images whose answer, of each network, holds NaN or infinity
    of_class: jax.Array | np.ndarray | int = 0  # [classes], the images of each

    @property
    def largest_class_share(self) -> float:
        """Of the images, the share of the most frequent class: as many are right if every answer is that class."""
        return int(np.max(self.of_class)) / int(self.ensemble.count)


def make_evaluate_ensemble(
    members: Sequence[Member], *, views: Crops = "center"
) -> Callable[[Sequence[Params], Iterable[dict[str, Any]]], EnsembleErrors]:
    """evaluate(params of each member, batches) -> EnsembleErrors over all batches, on all devices (Table 2).

    The softmax is averaged over the views of each member, then over the members, which may be of different
    architectures. Compiled once for many calls; each member sees each picture once.

    The batches are {"image": uint8 [b, H, W, C], "label": int32 [b], "mask": bool [b]}; each host passes its own
    rows and gets the counts of all. UserError for no member, or members with different numbers of classes.
    """
    classes = {member.architecture.num_classes for member in members}
    if len(classes) != 1:
        raise UserError(f"members with {sorted(classes)} classes: at least one, all with the same number, are needed")
    tables = [member.architecture for member in members]

    def count(state: tuple[Sequence[Params], Sequence[jax.Array]], batch: dict[str, jax.Array]) -> EnsembleErrors:
        each = [
            probabilities_of(params, batch["image"], mean, architecture=table, views=views)
            for table, params, mean in zip(tables, *state, strict=True)
        ]
        ensemble, *alone = (
            update(init(), rows, labels=batch["label"], mask=batch["mask"])
            for rows in [jnp.stack(each).mean(axis=0), *each]
        )
        bad = tuple(_not_finite(rows, batch["mask"]) for rows in each)
        of_class = _images_of_class(batch["label"], batch["mask"], num_classes=tables[0].num_classes)
        errors: EnsembleErrors = lax.psum(EnsembleErrors(ensemble, tuple(alone), bad, of_class), AXIS)
        return errors

    counts_of = data_parallel(count)
    means = [member.mean for member in members]

    def evaluate(params: Sequence[Params], batches: Iterable[dict[str, Any]]) -> EnsembleErrors:
        state = replicate((list(params), means))
        total = EnsembleErrors(init(), tuple(init() for _ in members), (0,) * len(members))
        for batch in batches:
            check_labels(batch["label"], tables[0].num_classes, batch["mask"])
            counts = counts_of(state, split({name: batch[name] for name in ("image", "label", "mask")}))
            total = jax.tree.map(_sum, total, counts)
        return total

    return evaluate


def errors_of_functions(fns: Sequence[Callable[[Any], jax.Array]], batches: Iterable[dict[str, Any]]) -> EnsembleErrors:
    """Errors of the averaged softmax of functions, and of each by itself, on one device.

    Args:
      fns: pictures uint8 [b, H, W, C] -> logits [b, classes], of networks that no table describes.
      batches: {"image": uint8 [b, H, W, C], "label": int [b], "mask": bool [b]}.

    Examples:
      >>> import numpy as np, zfjax
      >>> fn = lambda pictures: pictures[:, 0, 0].astype(float)
      >>> pictures = np.eye(3, dtype=np.uint8)[:, None, None]  # [3, 1, 1, 3]
      >>> batch = {"image": pictures, "label": np.array([0, 1, 1]), "mask": np.ones(3, bool)}
      >>> errors = zfjax.evaluation.errors_of_functions([fn], [batch]).ensemble
      >>> round(float(errors.top1 / errors.count), 3)
      0.333
    """
    total = EnsembleErrors(init(), tuple(init() for _ in fns), (0,) * len(fns))
    for batch in batches:
        # by logarithms: of a sure network's small probabilities many would be 0, and so equal
        each = [jnp.maximum(jax.nn.log_softmax(fn(batch["image"]).astype(jnp.float32)), _LEAST) for fn in fns]
        rows = [jnp.maximum(jax.nn.logsumexp(jnp.stack(each), axis=0), _LEAST), *each]
        ensemble, *alone = (update(init(), of, labels=batch["label"], mask=batch["mask"]) for of in rows)
        bad = tuple(_not_finite(of, batch["mask"]) for of in each)
        of_class = _images_of_class(batch["label"], batch["mask"], num_classes=each[0].shape[1])
        total = jax.tree.map(_sum, total, EnsembleErrors(ensemble, tuple(alone), bad, of_class))
    return total


def _sum(before: int | np.ndarray, more: jax.Array) -> int | np.ndarray:
    """In 64 bits."""
    total = before + np.asarray(more, np.int64)
    return total if total.ndim else int(total)
