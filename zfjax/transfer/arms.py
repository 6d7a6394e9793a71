"""What Tables 4 to 6 compare, each as a key that says what its number depends on and a function that measures it.

One arm is softmax regression on frozen features, the other the same net trained from scratch on one fold's images.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from zfjax import features, parallel
from zfjax.architecture import Architecture, Size
from zfjax.data import ArraySource, Source, photo_sets
from zfjax.data.loader import eval_batches
from zfjax.data.photo_sets import PhotoSet
from zfjax.errors import DivergedError, UserError, saying_keywords
from zfjax.nets import Net, TrainedNet
from zfjax.network import Params
from zfjax.pixels import size_of
from zfjax.training import INITIALIZATIONS, InitializationName, Recipe, checkpoints, loop
from zfjax.training.loop import Run, Stepped
from zfjax.transfer import frozen_features, linear_models, protocol
from zfjax.transfer.protocol import Fold

# Enter the keys of records: to be raised when linear models or nets trained from scratch come to be measured otherwise
MODEL_VERSION, SCRATCH_VERSION = 2, 2

# What the linear models are fitted by
MODEL = {
    "penalties": linear_models.PENALTIES,
    "tolerance": linear_models.TOLERANCE,
    "iterations": linear_models.MAX_ITERATIONS,
    "held_out": protocol.HELD_OUT,
    "version": MODEL_VERSION,
}


class Arm(NamedTuple):
    """One measurement."""

    key: dict[str, Any]  # all that its result depends on besides the fold
    measure: Callable[[], dict[str, Any]]  # -> what is recorded, "accuracy" among it


def pretrained(net: Net, photo_set: PhotoSet, fold: Fold, *, layer: str, folder: Path, batch_size: int) -> Arm:
    """Softmax regression on the frozen features of one layer, which `folder` keeps."""

    def measure() -> dict[str, Any]:
        features = frozen_features.cached(net, photo_set, layers=[layer], folder=folder, batch_size=batch_size)[layer]
        train, test = linear_models.normalized(features[fold.train], features[fold.test])
        return classify(train, test, photo_set=photo_set, fold=fold, loss="softmax")

    return Arm({"features": frozen_features.features_key(net, photo_set, layer), **MODEL}, measure)


def scratch(net: TrainedNet, photo_set: PhotoSet, fold: Fold, *, recipe: Recipe, folder: Path) -> Arm:
    """The same net trained on the fold's training images alone; UserError where they do not fill a batch.

    `folder` keeps a training that is not done in a folder of its own, named by all that it depends on.
    """
    parallel.check_batch_size(recipe.batch_size)
    if recipe.batch_size > len(fold.train):
        raise UserError(
            f"arms='scratch': {len(fold.train)} training images do not fill the net's batches of {recipe.batch_size}; "
            "a smaller scratch_batch_size is needed"
        )
    table = net.architecture
    table = table.with_sizes(**{table.layer_names[-1]: len(photo_set.class_names)})
    table = dataclasses.replace(table, input_scale=INITIALIZATIONS[recipe.initialization].input_scale)
    size = net.picture_size

    key = {"architecture": repr(table), "size": size, "recipe": dataclasses.asdict(recipe), "version": SCRATCH_VERSION}

    def measure() -> dict[str, Any]:
        name = checkpoints.digest((np.asarray(json.dumps(key)), np.asarray(photo_set.fingerprint), fold.train))
        both = accuracies(photo_set, fold, size=size, architecture=table, recipe=recipe, folder=folder / name)
        shutil.rmtree(folder / name)
        with contextlib.suppress(OSError):  # others stand there
            folder.rmdir()
        return {"accuracy": both.test, "training_accuracy": both.training}

    return Arm(key, measure)


def voc(net: Net, photo_set: PhotoSet, *, layer: str, folder: Path, batch_size: int) -> Arm:
    """A logistic regression of each class, train to val, by average precision; UserError where one shows none.

    Departure: the paper has a 20-way softmax, which knows one class to a photo; many of VOC's show several.
    """
    for split, chosen in photo_set.splits.items():
        if not (photo_set.labels[chosen] > 0).any():
            raise UserError(f"{photo_set.name}: no photo of {split} shows a class: of {len(chosen)} photos")

    def measure() -> dict[str, Any]:
        features = frozen_features.cached(net, photo_set, layers=[layer], folder=folder, batch_size=batch_size)[layer]
        splits, targets = photo_set.splits, photo_set.labels.astype(np.float32)
        train, val = linear_models.normalized(features[splits["train"]], features[splits["val"]])
        held = np.arange(len(train)) % protocol.HELD_OUT == 0
        quality = protocol.mean_average_precision
        model, penalty = linear_models.fit_chosen(
            train, targets[splits["train"]], held, loss="logistic", quality=quality
        )
        scores = linear_models.scores(model, val)
        of_class = protocol.average_precisions(scores, targets[splits["val"]])
        named = zip(photo_set.class_names, of_class.tolist(), strict=True)
        return {
            "average_precision": {name: None if np.isnan(value) else 100 * value for name, value in named},
            "mean_average_precision": 100 * quality(scores, targets[splits["val"]]),
            **_facts(model, penalty),
        }

    key = {"features": frozen_features.features_key(net, photo_set, layer), **MODEL}
    return Arm({**key, "splits": {split: len(chosen) for split, chosen in photo_set.splits.items()}}, measure)


def classify(
    train: np.ndarray, test: np.ndarray, *, photo_set: PhotoSet, fold: Fold, loss: linear_models.Loss
) -> dict[str, Any]:
    """Mean per-class accuracy of a linear classifier, with the penalty that the held-out training images chose.

    Args:
      train, test: normalised features (or coordinates) of the fold's images.
      photo_set, fold: their labels.
      loss: "softmax" or "svm".
    """
    labels = photo_set.labels[fold.train]
    targets = linear_models.targets_of(labels, len(photo_set.class_names))

    def quality(scores: np.ndarray, targets: np.ndarray) -> float:
        return protocol.mean_class_accuracy(scores.argmax(axis=1), targets.argmax(axis=1))

    model, penalty = linear_models.fit_chosen(train, targets, protocol.held_out(labels), loss=loss, quality=quality)
    predicted = linear_models.scores(model, test).argmax(axis=1)
    return {
        "accuracy": protocol.mean_class_accuracy(predicted, photo_set.labels[fold.test]),
        **_facts(model, penalty),
    }


def convergence(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line of warning where linear models among the records had not converged when their fit ended; else none."""
    converged = [record["converged"] for record in records if "converged" in record]
    if all(converged):
        return []
    few = f"{converged.count(False)} of {len(converged)} linear models had not converged"
    return [f"warning: {few} after {linear_models.MAX_ITERATIONS} steps; see what was `left` in result.json"]


def _facts(model: linear_models.LinearModel, penalty: float) -> dict[str, Any]:
    """How a fit ended."""
    return {
        "penalty": penalty,
        "iterations": int(model.iterations),
        "left": float(model.left),
        "converged": linear_models.converged(model),
    }


MAX_BYTES = 2 << 30  # of decoded pictures in memory; where there are more they are decoded in every epoch


def scratch_recipe(
    recipe: Recipe,
    *,
    num_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    initialization: InitializationName,
) -> Recipe:
    """The recipe of the net, adapted to a set of a few thousand images.

    Departure: the rate falls along a cosine, as there are no validation images to see a plateau on. Paper is silent:
    the number of epochs, the batch, the rate, the decay and how the weights begin.

    Examples:
      >>> from zfjax.training import Recipe
      >>> from zfjax.transfer import arms
      >>> size = {"num_epochs": 60, "batch_size": 64}
      >>> rates = {"learning_rate": 5e-3, "weight_decay": 5e-4}
      >>> arms.scratch_recipe(Recipe(), **size, **rates, initialization="he_even").annealing
      'cosine'
    """
    return dataclasses.replace(
        recipe,
        num_epochs=num_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        initialization=initialization,
        annealing="cosine",
    )


class Accuracies(NamedTuple):
    """Mean per-class shares of a fold's images that are recognised, from 0 to 1."""

    test: float
    training: float  # of the images that were learnt: little of them where the training has not got anywhere


@saying_keywords
def accuracies(
    photo_set: PhotoSet,
    fold: Fold,
    *,
    size: Size,
    architecture: Architecture,
    recipe: Recipe,
    folder: Path | None = None,
) -> Accuracies:
    """How well a net trained from scratch on the fold's training images recognises them and the test images.

    Args:
      photo_set: the photos.
      fold: which to train on and which to test on.
      size: side of the pictures, or their (height, width), pixels; the net sees crops of them.
      architecture: the table, with one logit per class of the set.
      recipe: how it is trained.
      folder: where the training is kept, to go on when it was stopped; None: in memory alone.

    Examples:
      (fold,) = protocol.folds(photos.labels, num_train=15, num_folds=1, seed=0, class_names=photos.class_names)
      arms.accuracies(photos, fold, size=128, architecture=architecture, recipe=recipe).test
    """
    pictures_of = partial(photo_sets.source_of, photo_set, size, channels=architecture.channels)
    source: Source = pictures_of(fold.train)
    if architecture.channels * math.prod(size_of(size)) * len(source) <= MAX_BYTES:
        source = photo_sets.decoded(source)
    mean = mean_picture(source, size)
    params = train(recipe, architecture, source=source, mean=mean, folder=folder)
    logits = architecture.layer_names[-1]
    rows = features.layers_of(params, [logits], architecture=architecture)

    def accuracy(images: np.ndarray) -> float:
        batches = eval_batches(pictures_of(images), batch_size=recipe.batch_size)
        answers = protocol.features_of(rows, batches, mean=mean, size=architecture.image_size)
        scores = np.concatenate([some[logits] for some in answers])
        if not np.isfinite(scores).all():
            raise DivergedError("logits are not finite: training from scratch diverged")
        return protocol.mean_class_accuracy(scores.argmax(axis=1), photo_set.labels[images])

    return Accuracies(accuracy(fold.test), accuracy(fold.train))


def mean_picture(source: Source, size: Size) -> np.ndarray:
    """The per-pixel mean of a source's pictures. -> float32 [H, W, C]"""
    total = np.zeros((*size_of(size), source[0]["image"].shape[-1]), np.int64)
    for batch in eval_batches(source, batch_size=256):
        total += batch["image"][batch["mask"]].sum(axis=0, dtype=np.int64)
    return (total / len(source)).astype(np.float32)


def train(
    recipe: Recipe,
    architecture: Architecture,
    *,
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
    with bar, contextlib.closing(loop.train(run, loop.begin(run, checkpoint))) as events:
        try:
            for event in events:
                if isinstance(event, Stepped):
                    bar.set_postfix_str(f"loss {event.loss:.2f}", refresh=False)
                    bar.update(event.num_images)
        except loop.Diverged as error:
            where = f"{error.quantity}={error.value} at step {error.step}"
            raise DivergedError(f"{where}: training from scratch diverged") from error
    assert isinstance(event, loop.Finished)
    return event.progress.state.params
