"""What Tables 4 to 6 compare, each as a key that says what its number depends on and a function that measures it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import frozen_features, scratch_training
from experiments.inputs import TrainedNet
from zfjax import checkpoints, linear_models, parallel, transfer
from zfjax.data.photo_sets import PhotoSet
from zfjax.training import Recipe
from zfjax.transfer import Fold

# Enter the keys of records: to be raised when linear models or nets trained from scratch come to be measured otherwise
MODEL_VERSION, SCRATCH_VERSION = 1, 1
# What the linear models are fitted by
MODEL = {
    "penalties": linear_models.PENALTIES,
    "tolerance": linear_models.TOLERANCE,
    "iterations": linear_models.MAX_ITERATIONS,
    "held_out": transfer.HELD_OUT,
    "version": MODEL_VERSION,
}


class Arm(NamedTuple):
    """One measurement."""

    key: dict[str, Any]  # all that its result depends on besides the fold
    measure: Callable[[], dict[str, Any]]  # -> what is recorded, "accuracy" among it


def pretrained(net: TrainedNet, photo_set: PhotoSet, fold: Fold, *, layer: str, folder: Path, batch_size: int) -> Arm:
    """Softmax regression on the frozen features of one layer, which `folder` keeps."""

    def measure() -> dict[str, Any]:
        features = frozen_features.cached(net, photo_set, [layer], folder, batch_size=batch_size)[layer]
        train, test = linear_models.normalized(features[fold.train], features[fold.test])
        return classify(train, test, photo_set, fold, "softmax")

    return Arm({"features": frozen_features.features_key(net, photo_set, layer), **MODEL}, measure)


def scratch(net: TrainedNet, photo_set: PhotoSet, fold: Fold, *, recipe: Recipe, folder: Path) -> Arm:
    """The same net trained on the fold's training images alone; ValueError where they do not fill a batch.

    `folder` keeps a training that is not done in a folder of its own, named by all that it depends on.
    """
    parallel.check_batch_size(recipe.batch_size)
    if recipe.batch_size > len(fold.train):
        raise ValueError(
            f"arms='scratch': {len(fold.train)} training images do not fill the net's batches of {recipe.batch_size}"
        )
    table = net.architecture
    table = table.with_sizes(**{table.layer_names[-1]: len(photo_set.class_names)})
    size = len(net.mean)

    key = {"architecture": repr(table), "size": size, "recipe": dataclasses.asdict(recipe), "version": SCRATCH_VERSION}

    def measure() -> dict[str, Any]:
        name = checkpoints.digest((np.asarray(json.dumps(key)), np.asarray(photo_set.fingerprint), fold.train))
        accuracy = scratch_training.accuracy(photo_set, fold, size, table, recipe, folder / name)
        shutil.rmtree(folder / name)
        with contextlib.suppress(OSError):  # others stand there
            folder.rmdir()
        return {"accuracy": accuracy}

    return Arm(key, measure)


def voc(net: TrainedNet, photo_set: PhotoSet, *, layer: str, folder: Path, batch_size: int) -> Arm:
    """A logistic regression of each class, train to val, by average precision; ValueError where one shows none."""
    for split, chosen in photo_set.splits.items():
        if not (photo_set.labels[chosen] > 0).any():
            raise ValueError(f"{photo_set.name}: no photo of {split} shows a class: of {len(chosen)} photos")

    def measure() -> dict[str, Any]:
        features = frozen_features.cached(net, photo_set, [layer], folder, batch_size=batch_size)[layer]
        splits, shown = photo_set.splits, photo_set.labels.astype(np.float32)
        train, val = linear_models.normalized(features[splits["train"]], features[splits["val"]])
        held = np.arange(len(train)) % transfer.HELD_OUT == 0
        quality = transfer.mean_average_precision
        model, penalty = linear_models.fit_chosen(train, shown[splits["train"]], held, loss="logistic", quality=quality)
        scores = linear_models.scores(model, val)
        of_class = transfer.average_precisions(scores, shown[splits["val"]])
        named = zip(photo_set.class_names, of_class.tolist(), strict=True)
        return {
            "average_precision": {name: None if np.isnan(value) else 100 * value for name, value in named},
            "mean_average_precision": 100 * quality(scores, shown[splits["val"]]),
            **_facts(model, penalty),
        }

    key = {"features": frozen_features.features_key(net, photo_set, layer), **MODEL}
    return Arm({**key, "splits": {split: len(chosen) for split, chosen in photo_set.splits.items()}}, measure)


def classify(
    train: np.ndarray, test: np.ndarray, photo_set: PhotoSet, fold: Fold, loss: linear_models.Loss
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
        return transfer.mean_class_accuracy(scores.argmax(axis=1), targets.argmax(axis=1))

    model, penalty = linear_models.fit_chosen(train, targets, transfer.held_out(labels), loss=loss, quality=quality)
    predicted = linear_models.scores(model, test).argmax(axis=1)
    return {
        "accuracy": transfer.mean_class_accuracy(predicted, photo_set.labels[fold.test]),
        **_facts(model, penalty),
    }


def convergence(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line of warning where linear models among the records had not converged when their fit ended; else none."""
    converged = [record["converged"] for record in records if "converged" in record]
    if all(converged):
        return []
    few = f"{converged.count(False)} of {len(converged)} linear models had not converged"
    return [f"warning: {few} after {linear_models.MAX_ITERATIONS} steps; see their gradient_norm in result.json"]


def _facts(model: linear_models.LinearModel, penalty: float) -> dict[str, Any]:
    """How a fit ended."""
    return {
        "penalty": penalty,
        "iterations": int(model.iterations),
        "gradient_norm": float(model.gradient_norm),
        "converged": linear_models.converged(model),
    }
