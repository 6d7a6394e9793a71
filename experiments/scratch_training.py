"""The other arm of Tables 4 and 5: the same net trained from scratch on one fold's training images."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zfjax import checkpoints, features, training_loop, transfer
from zfjax.architecture import Architecture
from zfjax.data import ArraySource, Source, photo_sets
from zfjax.data.loader import eval_batches
from zfjax.data.photo_sets import PhotoSet
from zfjax.network import Params
from zfjax.training import Recipe
from zfjax.training_loop import Run, Stepped
from zfjax.transfer import Fold

MAX_BYTES = 2 << 30  # of decoded pictures in memory; where there are more they are decoded in every epoch


def scratch_recipe(
    recipe: Recipe, *, num_epochs: int, batch_size: int, learning_rate: float, weight_decay: float
) -> Recipe:
    """The net's own recipe, but for what a set of a few thousand images needs.

    Departure: the rate falls along a cosine, as there are no validation images to see a plateau on. Paper is silent:
    the number of epochs, the batch, the rate and the decay.
    """
    return dataclasses.replace(
        recipe,
        num_epochs=num_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        annealing="cosine",
    )


def accuracy(
    photo_set: PhotoSet, fold: Fold, size: int, architecture: Architecture, recipe: Recipe, folder: Path | None = None
) -> float:
    """Mean per-class accuracy on the fold's test images of a net trained on nothing but its training images.

    Args:
      photo_set: the photos.
      fold: which to train on and which to test on.
      size: side of the pictures, pixels; the net sees crops of them.
      architecture: the table, with one logit per class of the set.
      recipe: how it is trained.
      folder: where the training is kept, to go on when it was stopped; None: in memory alone.
    """
    source: Source = photo_sets.source_of(photo_set, size, fold.train)
    if 3 * size**2 * len(source) <= MAX_BYTES:
        source = photo_sets.decoded(source)
    mean = mean_picture(source, size)
    params = train(recipe, architecture, source, mean, folder)
    logits = architecture.layer_names[-1]
    rows = features.layers_of(params, [logits], architecture=architecture)
    batches = eval_batches(photo_sets.source_of(photo_set, size, fold.test), batch_size=recipe.batch_size)
    found = [rows[logits] for rows in transfer.features_of(rows, batches, mean=mean, size=architecture.image_size)]
    scores = np.concatenate(found)
    if not np.isfinite(scores).all():
        raise FloatingPointError("logits are not finite: training from scratch diverged")
    return transfer.mean_class_accuracy(scores.argmax(axis=1), photo_set.labels[fold.test])


def mean_picture(source: Source, size: int) -> np.ndarray:
    """The per-pixel mean of a source's pictures. -> float32 [size, size, 3]"""
    total = np.zeros((size, size, 3), np.int64)
    for batch in eval_batches(source, batch_size=256):
        total += batch["image"][batch["mask"]].sum(axis=0, dtype=np.int64)
    return (total / len(source)).astype(np.float32)


def train(
    recipe: Recipe,
    architecture: Architecture,
    source: Source | ArraySource,
    mean: np.ndarray,
    folder: Path | None = None,
) -> Params:
    """The parameters after the recipe's epochs, NumPy arrays; FloatingPointError where the loss is not finite.

    With a `folder` each epoch is saved there, and the training goes on from the last one that is.
    """
    run = Run(architecture=architecture, recipe=recipe, train=source, mean=mean, folder=folder, kept_epochs=())
    checkpoint = None
    if folder is not None:
        with contextlib.suppress(FileNotFoundError):
            checkpoint = checkpoints.load(folder, with_optimizer=True)
    done = 0 if checkpoint is None else checkpoint.step * recipe.batch_size
    total = recipe.num_epochs * run.epoch_steps * recipe.batch_size
    bar = tqdm(total=total, initial=done, unit=" images", leave=False, disable=None)
    with bar, contextlib.closing(training_loop.train(run, training_loop.begin(run, checkpoint))) as events:
        try:
            for event in events:
                if isinstance(event, Stepped):
                    bar.set_postfix_str(f"loss {event.loss:.2f}", refresh=False)
                    bar.update(event.num_images)
        except training_loop.Diverged as error:
            where = f"{error.quantity}={error.value} at step {error.step}"
            raise FloatingPointError(f"{where}: training from scratch diverged") from error
    assert isinstance(event, training_loop.Finished)
    return event.progress.state.params
