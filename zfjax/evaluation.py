"""Top-1 and top-5 error over a whole split, from the centre crop or the paper's ten crops (sec. 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zfjax import pixels
from zfjax.architecture import Architecture
from zfjax.network import Params, forward
from zfjax.parallel import AXIS, data_parallel, split

Views = Literal["center", "ten"]


class Errors(NamedTuple):
    """Counts over the images seen so far; divided once, at the end."""

    top1: jax.Array | int = 0  # images whose true class is not the most probable one
    top5: jax.Array | int = 0  # images whose true class is not among the five most probable ones
    count: jax.Array | int = 0  # type: ignore[assignment]  # images; hides tuple.count

    def shares(self) -> dict[str, float]:
        """{"top1": error, "top5": error}, as shares of the images; ValueError if none was seen."""
        if self.count == 0:
            raise ValueError("count=0: no image was evaluated")
        return {"top1": int(self.top1) / int(self.count), "top5": int(self.top5) / int(self.count)}


def init() -> Errors:
    """Nothing seen yet."""
    return Errors()


def update(errors: Errors, probabilities: jax.Array, labels: jax.Array, mask: jax.Array) -> Errors:
    """Count a batch: probabilities [B, classes], labels int [B], mask bool [B] (False is left out).

    Of equal probabilities the lower class ranks first. A row that is not finite counts as wrong.
    """
    ranks = rank_of_label(probabilities, labels)
    return Errors(
        errors.top1 + (mask & (ranks >= 1)).sum(),
        errors.top5 + (mask & (ranks >= 5)).sum(),
        errors.count + mask.sum(),
    )


def rank_of_label(probabilities: jax.Array, labels: jax.Array) -> jax.Array:
    """Number of classes ranked before the true one; at least 5 in a row that is not finite. -> int32 [B]"""
    true = jnp.take_along_axis(probabilities, labels[:, None], axis=1)
    classes = jnp.arange(probabilities.shape[1], dtype=labels.dtype)
    before = (probabilities > true) | ((probabilities == true) & (classes[None] < labels[:, None]))
    finite = jnp.isfinite(probabilities).all(axis=1)
    return jnp.where(finite, before.sum(axis=1), max(probabilities.shape[1], 5))


def probabilities_of(
    params: Params, pictures: jax.Array, mean: jax.Array, *, architecture: Architecture, views: Views = "center"
) -> jax.Array:
    """Softmax of each picture, averaged over its views (Paper is silent on how crops are combined).

    Args:
      params: the network's parameters.
      pictures: uint8 [B, S, S, 3].
      mean: float32 [S, S, 3].
      architecture: the table.
      views: "center" crop, or the "ten" crops: four corners and centre, and their mirror images.

    Returns:
      float32 [B, classes].
    """
    if views == "center":
        crops = pixels.center_crop(pictures, mean, architecture.image_size)[None]
    elif views == "ten":
        crops = pixels.ten_crops(pictures, mean, architecture.image_size)
    else:
        raise ValueError(f"views={views!r}: one of 'center', 'ten' is needed")

    def probabilities(images: jax.Array) -> jax.Array:
        logits, _ = forward(params, images, architecture=architecture)
        return jax.nn.softmax(logits.astype(jnp.float32))

    return lax.map(probabilities, crops).mean(axis=0)


def make_evaluate(
    architecture: Architecture, mean: np.ndarray, *, views: Views = "center"
) -> Callable[[Params, Iterable[dict[str, Any]]], Errors]:
    """evaluate(params, batches) -> Errors over all batches, on all devices; compiled once for many calls.

    The batches are {"image": uint8 [b, S, S, 3], "label": int32 [b], "mask": bool [b]}; each host passes its own
    rows and gets the counts of all.
    """

    def count(params: Params, batch: dict[str, jax.Array]) -> Errors:
        probabilities = probabilities_of(
            params, batch["image"], jnp.asarray(mean), architecture=architecture, views=views
        )
        return lax.psum(update(init(), probabilities, batch["label"], batch["mask"]), AXIS)

    counts_of = data_parallel(count)

    def evaluate(params: Params, batches: Iterable[dict[str, Any]]) -> Errors:
        errors = init()
        for batch in batches:
            counts = counts_of(params, split({name: batch[name] for name in ("image", "label", "mask")}))
            errors = Errors(*(int(total) + int(more) for total, more in zip(errors, counts, strict=True)))
        return errors

    return evaluate
