"""Table 7: the accuracy of a linear SVM and a softmax on the features of layers 1 to 5 and 7.

    python -m experiments.layer_analysis --net runs/RUN --images 101_ObjectCategories.tar
    python -m experiments.layer_analysis --images 256_ObjectCategories --dataset caltech256

--images is the set's native folder or tar, or what TFDS prepared. Expected time: for Caltech-101, one fold and a net of
preset `reduced`, about five minutes of processor time on two CPU cores. Expected result: for a net trained on many
classes, accuracy rises with the layer, most from 1 to 2, and layers 5 and 7 are alike, as in the paper.

Both classifiers use only the inner products of a layer's features (`zfjax.linear_models`), so the 290,400 features of
layer 1 at full size are never in memory at once: features are on disk (4 bytes each, <run>/features), inner products in
memory, at most about 10 bytes for each pair of images: 1.2 GB for all of Caltech-101 (measured), 10 GB for Caltech-256
(extrapolated). The SVM is one class against the others with the squared hinge loss, as in LIBLINEAR. Penalties are
chosen on a third of the training images.

Writes result.json and layers.png to a folder below <run>/layers/<dataset> that is named by the flags (or --out), and a
small record of each fold to <run>/layers/records. An interrupted command resumes; a later one with more folds or layers
computes only those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from experiments.pages import transfer as transfer_page
from experiments.shell import command, figure, results
from zfjax import files, nets, transfer
from zfjax.data.photo_sets import PhotoSet
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.transfer import Fold, frozen_features, linear_models
from zfjax.transfer import arms as transfer_arms
from zfjax.transfer.records import OverFolds, mean_and_spread, over_folds, recorded

COMMAND = "layer_analysis"

NUM_TRAIN = {"caltech101": 30, "caltech256": 60}  # the paper's

PAPER: dict[str, dict[str, dict[str, float]]] = {  # percent
    "caltech101": {
        "svm": {"conv1": 44.8, "conv2": 66.2, "conv3": 72.3, "conv4": 76.6, "conv5": 86.2, "fc7": 85.5},
        "softmax": {"conv5": 82.9, "fc7": 85.4},
    },
    "caltech256": {
        "svm": {"conv1": 24.6, "conv2": 39.6, "conv3": 46.0, "conv4": 51.3, "conv5": 65.6, "fc7": 71.7},
        "softmax": {"conv5": 65.7, "fc7": 72.6},
    },
}


@dataclass(frozen=True, kw_only=True)
class Config(figure.NetConfig):
    """Measure a linear SVM and a softmax on the features of each layer."""

    images: Path
    """The data set: its native folder or tar, or TFDS's folder."""
    dataset: Literal["caltech101", "caltech256"] = "caltech101"
    """Which set it is."""
    svm: tuple[str, ...] = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc7")
    """Layers for the SVM."""
    softmax: tuple[str, ...] = ("conv5", "fc7")
    """Layers for the softmax."""
    num_train: int | None = None
    """Training images per class; by default the paper's: 30, of Caltech-256 60."""
    num_folds: int = 5
    """Draws of training and test images, the same as in transfer_learning."""
    remove_duplicates: float | None = None
    """Leave out pictures that the net was trained on: those with this normalised correlation, say 0.97, or more."""
    batch_size: int = 128
    """Images per step of computing features."""


class Measured(OverFolds):
    """One classifier on one layer."""

    num_features: int


class Row(Measured):
    """The same by name."""

    layer: str
    classifier: linear_models.Loss
    paper: float | None  # percent


class Result(results.Result):
    """What result.json holds."""

    table: str
    rows: list[Row]
    unit: str
    num_train: int  # per class
    num_images: int
    num_classes: int
    photos_per_class: list[int]


def run(config: Config) -> Result:
    """Measure every layer, classifier and fold that is not recorded yet, and write the result.

    Returns:
      What result.json holds, with "folder". UserError for settings or data that do not fit, before anything is
      computed.
    """
    with figure.opened(config, COMMAND, folder=f"layers/{config.dataset}", names=["layers.png"]) as (net, out):
        check(config, net)
        return measure_and_write(config, net, out=out, home=nets.home_of(net))


def measure_and_write(config: Config, net: Net, *, out: Path, home: Path) -> Result:
    """The same, in a folder that was claimed; `home` keeps features, and records of folds."""
    kept = home / "features"
    of_net: dict[str, Any] = {"net": net, "threshold": config.remove_duplicates, "folder": kept}
    photo_set = frozen_features.open_photos(config.dataset, config.images, **of_net)
    print(f"data: {photo_set.name}, {len(photo_set.class_names)} classes, {len(photo_set.photos):,} photos")
    num_train = NUM_TRAIN[config.dataset] if config.num_train is None else config.num_train
    folds = transfer.folds(
        photo_set.labels,
        num_train=num_train,
        num_folds=config.num_folds,
        seed=config.seed,
        class_names=photo_set.class_names,
    )
    measured = measure(config, net, photo_set=photo_set, folds=folds, records=home / "layers" / "records", kept=kept)
    rows: list[Row] = [
        {"layer": layer, "classifier": classifier, **facts, "paper": PAPER[config.dataset][classifier].get(layer)}
        for (layer, classifier), facts in measured.items()
    ]
    result: Result = {
        "table": "Table 7",
        "rows": rows,
        "unit": "percent",
        "num_train": num_train,
        "num_images": len(photo_set.photos),
        "num_classes": len(photo_set.class_names),
        "photos_per_class": photo_set.per_class(),
        "paper": {"num_train": NUM_TRAIN[config.dataset], **PAPER[config.dataset]},
        "seed": config.seed,
        **results.provenance(net, photo_set, config),
    }
    return results.write(out, result, command=COMMAND, contents={"layers.png": transfer_page.draw_layers(result)})


def check(config: Config, net: Net) -> None:
    """UserError where the settings make no sense for this net."""
    for layer in (*config.svm, *config.softmax):
        nets.check_layer(net, layer)
    if not config.svm and not config.softmax:
        raise UserError(f"svm={config.svm}, softmax={config.softmax}: at least one layer is needed")


def measure(
    config: Config, net: Net, *, photo_set: PhotoSet, folds: Sequence[Fold], records: Path, kept: Path
) -> dict[tuple[str, linear_models.Loss], Measured]:
    """{(layer, classifier): accuracy over the folds}; each fold is recorded, and `kept` keeps features."""
    both: tuple[linear_models.Loss, ...] = ("svm", "softmax")
    wanted = {layer: [name for name in both if layer in getattr(config, name)] for layer in net.layers}
    layers = [layer for layer in wanted if wanted[layer]]
    per_class = len(folds[0].train) // len(photo_set.class_names)
    common = {"num_train": per_class, "seed": config.seed, "num_test": transfer.NUM_TEST, **transfer_arms.MODEL}
    rows: dict[tuple[str, linear_models.Loss], Measured] = {}
    shapes = nets.shapes_of(net, layers)
    with tqdm(total=sum(map(len, wanted.values())) * len(folds), unit=" folds") as bar:
        for layer in layers:
            bar.set_description(layer)
            # all layers in one pass over the pictures, where any is missing
            features = partial(
                cached_layer, net, photo_set, layers=layers, layer=layer, batch_size=config.batch_size, kept=kept
            )
            key = {"features": frozen_features.features_key(net, photo_set, layer), **common}
            of_layer = measure_layer(
                features,
                photo_set,
                folds=folds,
                classifiers=wanted[layer],
                key=key,
                records=records / files.file_name(layer),
                on_fold=bar.update,
            )
            for name, of_folds in of_layer.items():
                num_features = math.prod(shapes[layer])
                rows[layer, name] = {"num_features": num_features, **over_folds(of_folds)}
    return rows


def cached_layer(
    net: Net, photo_set: PhotoSet, *, layers: Sequence[str], layer: str, batch_size: int, kept: Path
) -> np.ndarray:
    """One layer's features of every photo, on disk in `kept`."""
    return frozen_features.cached(net, photo_set, layers=layers, folder=kept, batch_size=batch_size)[layer]


def measure_layer(
    features: Callable[[], np.ndarray],
    photo_set: PhotoSet,
    *,
    folds: Sequence[Fold],
    classifiers: Sequence[linear_models.Loss],
    key: Mapping[str, Any],
    records: Path,
    on_fold: Callable[[], Any],
) -> dict[linear_models.Loss, list[dict[str, Any]]]:
    """{classifier: one record for each fold}; features, and their Gram matrix, only where a record is missing."""
    gram = cache(lambda: gram_matrix(features()))
    rows: dict[linear_models.Loss, list[dict[str, Any]]] = {name: [] for name in classifiers}
    for number, fold in enumerate(folds):
        coordinates = cache(partial(coordinates_of, gram, fold))
        for name in classifiers:
            measure_fold = partial(classify, coordinates, photo_set, fold=fold, loss=name)
            of_fold = {**key, "classifier": name, "fold": number}
            rows[name].append(recorded(records, f"{name}-{number}", key=of_fold, compute=measure_fold))
            on_fold()
    return rows


def gram_matrix(features: np.ndarray) -> np.ndarray:
    """`linear_models.gram_matrix` with a bar."""
    with tqdm(total=features.shape[1], desc="Gram matrix", unit=" features", leave=False, disable=None) as bar:
        return linear_models.gram_matrix(features, bar.update)


def coordinates_of(gram: Callable[[], np.ndarray], fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the fold's training and test images."""
    train, test = (gram()[np.ix_(images, fold.train)] for images in (fold.train, fold.test))
    return linear_models.kernel_coordinates(train, test)


def classify(
    coordinates: Callable[[], tuple[np.ndarray, np.ndarray]],
    photo_set: PhotoSet,
    *,
    fold: Fold,
    loss: linear_models.Loss,
) -> dict[str, Any]:
    """What is recorded of one classifier on one fold."""
    return transfer_arms.classify(*coordinates(), photo_set=photo_set, fold=fold, loss=loss)


def report(result: Result) -> None:
    """Print the table."""
    print(f"{'layer':8}{'features':>10}  {'classifier':12}{'here (%)':>14}{'paper (%)':>12}")
    for row in result["rows"]:
        here, paper = mean_and_spread(row), "-" if row["paper"] is None else f"{row['paper']:.1f}"
        print(f"{row['layer']:8}{row['num_features']:>10,}  {row['classifier']:12}{here:>14}{paper:>12}")
    for line in transfer_arms.convergence(record for row in result["rows"] for record in row["records"]):
        print(line)


def main() -> None:
    """The command line."""
    stopped = "the same command resumes after the last recorded fold"
    command.main(Config, run, doc=__doc__, report=report, when_stopped=stopped)


if __name__ == "__main__":
    main()
