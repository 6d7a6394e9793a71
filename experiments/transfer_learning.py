"""Tables 4 to 6 and Figure 9: a frozen net with a new softmax, and the same net trained from scratch.

    python -m experiments.transfer_learning --net runs/RUN --images 101_ObjectCategories.tar
    python -m experiments.transfer_learning --images 256_ObjectCategories --dataset caltech256
    python -m experiments.transfer_learning --images VOCdevkit --dataset voc2012

--images is the set's native folder or tar, or what TFDS prepared. Expected time: the features of all pictures once
(like a validation of as many), seconds for each frozen fold; from scratch, a whole training for each fold. Expected
result: a net trained as the paper's is better at every number of training images than one from scratch, by most where
there are few; one that has seen few photos only there.

The frozen arm uses --layer's features of the centre crop and a softmax regression on all training images of the fold
(`zfjax.linear_models`), with a penalty chosen on a third of them. The untrained one does so with the same net's weights
drawn anew: features of random weights tell classes apart too, and may beat a training from scratch. VOC's photos show
several classes: each class has its own logistic regression, trained on train and scored on val by average precision
(the paper: one softmax over the 20 classes, scored on the test set, whose labels are not public). Photos that show a
class only by difficult objects are left out of it.

Writes result.json and curve.png to a folder below <run>/transfer/<dataset> that is named by the flags (or --out), and a
small record of each fold to <run>/transfer/records. An interrupted command resumes, from scratch after the last whole
epoch; a later one with more folds or sizes computes only those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from tqdm import tqdm

from experiments.pages import transfer as transfer_page
from experiments.shell import command, figure, results
from zfjax import nets, transfer
from zfjax.analyses import sanity
from zfjax.data.photo_sets import PhotoSet
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.training import InitializationName, Recipe, checkpoints
from zfjax.transfer import Fold, frozen_features
from zfjax.transfer import arms as transfer_arms
from zfjax.transfer.arms import Arm
from zfjax.transfer.records import OverFolds, mean_and_spread, over_folds, recorded

COMMAND = "transfer_learning"

ArmName = Literal["pretrained", "untrained", "scratch"]
ARMS: tuple[ArmName, ...] = ("pretrained", "untrained", "scratch")


def _paper(*rows: tuple[int, float, float | None]) -> dict[int, dict[str, float | None]]:
    """Rows of (training images per class, mean, spread)."""
    return {num_train: {"mean": mean, "spread": spread} for num_train, mean, spread in rows}


PAPER: dict[str, dict[str, Any]] = {  # percent
    "caltech101": {
        "table": "Table 4",
        "pretrained": _paper((15, 83.8, 0.5), (30, 86.5, 0.5)),
        "scratch": _paper((15, 22.8, 1.5), (30, 46.5, 1.7)),
        "best earlier": _paper((15, 81.4, None), (30, 84.3, None)),  # Bo et al.; Jianchao et al.
    },
    "caltech256": {
        "table": "Table 5, Figure 9",
        "pretrained": _paper((15, 65.7, None), (30, 70.6, None), (45, 72.7, None), (60, 74.2, None)),
        "scratch": _paper((15, 9.0, None), (30, 22.5, None), (45, 31.2, None), (60, 38.8, None)),
        "best earlier": _paper((15, 40.5, None), (30, 48.0, None), (45, 51.9, None), (60, 55.2, None)),  # Bo et al.
    },
    "voc2012": {"table": "Table 6", "pretrained": 79.0, "best earlier": {"Sande et al.": 74.3, "Yan et al.": 82.2}},
}

NUM_TRAIN = {"caltech101": (15, 30), "caltech256": (15, 30, 45, 60)}


@dataclass(frozen=True, kw_only=True)
class Config(figure.NetConfig):
    """Measure how far a net's features carry to another data set."""

    images: Path
    """The data set: its native folder or tar, or TFDS's folder."""
    dataset: Literal["caltech101", "caltech256", "voc2012"] = "caltech101"
    """Which set it is."""
    arms: tuple[ArmName, ...] | None = None
    """What is measured; by default all, of VOC the pretrained net alone, as in the paper."""
    layer: str = "fc7"
    """Layer whose frozen features are used."""
    num_train: tuple[int, ...] | None = None
    """Training images per class; by default the paper's: 15 30, of Caltech-256 15 30 45 60."""
    curve: tuple[int, ...] = (1, 2, 4, 6, 10)
    """Further numbers of training images per class for the curve, pretrained alone: a net from scratch takes long."""
    num_folds: int = 5
    """Draws of training and test images."""
    scratch_epochs: int = 60
    """Epochs of training from scratch."""
    scratch_batch_size: int = 64
    """Its images per step over all devices."""
    scratch_learning_rate: float = 5e-3
    """Its learning rate at the start."""
    scratch_weight_decay: float = 5e-4
    """Its weight decay: with 3e-3, preset `reduced`'s, the net of half width never leaves ln(classes) of 102."""
    scratch_initialization: InitializationName = "he_even"
    """How it begins: with `he` the net of half width does not leave it in every fold either."""
    remove_duplicates: float | None = None
    """Leave out pictures that the net was trained on: those with this normalised correlation, say 0.97, or more."""
    batch_size: int = 128
    """Images per step of computing features."""


class Spread(TypedDict):
    """Percent."""

    mean: float
    spread: float | None


class Row(OverFolds):
    """One arm, taught with so many images per class."""

    arm: ArmName
    num_train: int
    paper: Spread | None


class Setting(results.Result):
    """What was measured on, and beside which numbers."""

    unit: str
    num_images: int
    num_classes: int
    photos_per_class: list[int]


class Result(Setting):
    """What result.json holds: of Caltech rows, of VOC what one linear model for each class reached."""

    table: str
    rows: NotRequired[list[Row]]
    average_precision: NotRequired[dict[str, float | None]]  # percent by class; None where there is none of it
    mean_average_precision: NotRequired[float]
    penalty: NotRequired[float]
    iterations: NotRequired[int]
    left: NotRequired[float]
    converged: NotRequired[bool]
    seconds: NotRequired[float]


def run(config: Config) -> Result:
    """Measure every arm, number of training images and fold that is not recorded yet, and write the result.

    Returns:
      What result.json holds, with "folder". UserError for settings or data that do not fit, before anything is
      computed.
    """
    sizes = planned(config)
    with figure.opened(config, COMMAND, folder=f"transfer/{config.dataset}", names=["curve.png"]) as (net, out):
        nets.check_layer(net, config.layer)
        if any(arm == "scratch" for arm, _ in sizes) and not isinstance(net, nets.TrainedNet):
            raise UserError(
                f"arms='scratch': {net.name} is no run of train_imagenet, and its training is not known; "
                "--arms pretrained untrained measures its features"
            )
        # both before any data are opened
        if isinstance(net, nets.TrainedNet):
            scratch_recipes(config, net)
        twin = drawn_anew(net, config.seed) if any(arm == "untrained" for arm, _ in sizes) else None
        return measure_and_write(config, net, twin, sizes=sizes, out=out, home=nets.home_of(net))


def measure_and_write(
    config: Config, net: Net, twin: Net | None, *, sizes: Sequence[tuple[ArmName, int]], out: Path, home: Path
) -> Result:
    """The same, in a folder that was claimed; `home` keeps features and records of folds, `twin` has random weights."""
    kept, records = home / "features", home / "transfer" / "records"
    of_net: dict[str, Any] = {"net": net, "threshold": config.remove_duplicates, "folder": kept}
    photo_set = frozen_features.open_photos(config.dataset, config.images, **of_net)
    print(f"data: {photo_set.name}, {len(photo_set.class_names)} classes, {len(photo_set.photos):,} photos")
    frozen: dict[str, Any] = {"layer": config.layer, "folder": kept, "batch_size": config.batch_size}
    if config.dataset == "voc2012":
        arm = transfer_arms.voc(net, photo_set, **frozen)
        record = recorded(records, "pretrained", key=arm.key, compute=arm.measure)
        measured: dict[str, Any] = {name: value for name, value in record.items() if name != "key"}
    else:
        arms = {"pretrained": lambda _, fold: transfer_arms.pretrained(net, photo_set, fold, **frozen)}
        if twin is not None:
            arms["untrained"] = lambda _, fold: transfer_arms.pretrained(twin, photo_set, fold, **frozen)
        if isinstance(net, nets.TrainedNet):
            arms["scratch"] = scratch_arm(config, net, photo_set=photo_set, folder=out / "unfinished")
        measured = {"rows": measure_folds(config, photo_set, sizes=sizes, arms=arms, records=records)}
    setting: Setting = {
        "unit": "percent",
        "num_images": len(photo_set.photos),
        "num_classes": len(photo_set.class_names),
        "photos_per_class": photo_set.per_class(),
        "paper": PAPER[config.dataset],
        "seed": config.seed,
        **results.provenance(net, photo_set, config),
    }
    result = cast(Result, {"table": PAPER[config.dataset]["table"], **measured, **setting})
    return results.write(
        out,
        result,
        command=COMMAND,
        contents={"curve.png": transfer_page.draw_curve(result)} if "rows" in result else {},
    )


def drawn_anew(net: Net, seed: int) -> Net:
    """The same net with random weights; UserError where they are not at hand."""
    if (twin := sanity.untrained(net, seed)) is None:
        raise UserError(
            f"arms='untrained': {net.name} is a function whose weights are not at hand; leave it out of --arms"
        )
    return twin


def scratch_arm(
    config: Config, net: nets.TrainedNet, *, photo_set: PhotoSet, folder: Path
) -> Callable[[int, Fold], Arm]:
    """(number, fold) -> the arm that trains from scratch, in `folder`."""
    recipes = scratch_recipes(config, net)
    return lambda number, fold: transfer_arms.scratch(net, photo_set, fold, recipe=recipes[number], folder=folder)


def scratch_recipes(config: Config, net: nets.TrainedNet) -> list[Recipe]:
    """How each fold is trained from scratch, each with a seed of its own; UserError for what is no recipe."""
    recipe = transfer_arms.scratch_recipe(
        checkpoints.load(net.path).recipe,
        num_epochs=config.scratch_epochs,
        batch_size=config.scratch_batch_size,
        learning_rate=config.scratch_learning_rate,
        weight_decay=config.scratch_weight_decay,
        initialization=config.scratch_initialization,
    )
    return [dataclasses.replace(recipe, seed=config.seed + n) for n in range(config.num_folds)]


def planned(config: Config) -> list[tuple[ArmName, int]]:
    """The (arm, training images per class) to measure, frozen features first; UserError where they make no sense."""
    voc = config.dataset == "voc2012"
    arms = (("pretrained",) if voc else ARMS) if config.arms is None else config.arms
    if not arms or (voc and arms != ("pretrained",)):
        raise UserError(f"arms={arms!r}: at least one is needed; of voc2012 pretrained alone")
    if voc and config.num_train is not None:
        raise UserError(f"num_train={config.num_train!r}: voc2012 is trained on the whole of its split train")
    figure.check_numbers(config)
    both = NUM_TRAIN.get(config.dataset, ()) if config.num_train is None else config.num_train
    sizes = {arm: sorted({*both, *(config.curve if arm == "pretrained" else ())}) for arm in ARMS}
    return [(arm, num_train) for arm in ARMS if arm in arms for num_train in sizes[arm]]


def measure_folds(
    config: Config,
    photo_set: PhotoSet,
    *,
    sizes: Sequence[tuple[ArmName, int]],
    arms: Mapping[str, Callable[[int, Fold], Arm]],
    records: Path,
) -> list[Row]:
    """One row for each arm and number of training images per class, over all folds; each fold is recorded."""
    draw_of: dict[str, Any] = {"num_folds": config.num_folds, "seed": config.seed, "class_names": photo_set.class_names}
    folds = {size: transfer.folds(photo_set.labels, num_train=size, **draw_of) for _, size in sizes}
    # all of them first: what cannot be measured is refused before hours of measuring
    made = {(name, size): [arms[name](*numbered) for numbered in enumerate(folds[size])] for name, size in sizes}
    common = {"data": photo_set.fingerprint, "seed": config.seed, "num_test": transfer.NUM_TEST}
    rows: list[Row] = []
    # smoothing=1: what is left is told from the last fold, as from scratch one takes a thousand times as long as frozen
    with tqdm(total=len(sizes) * config.num_folds, desc=photo_set.name, unit=" folds", smoothing=1) as bar:
        for (name, num_train), of_folds in made.items():
            of_arm = []
            for number, arm in enumerate(of_folds):
                bar.set_postfix_str(f"{name}, {num_train} per class")
                key = {"arm": name, "num_train": num_train, "fold": number, **common, **arm.key}
                of_arm.append(recorded(records, f"{name}-{num_train:03d}-{number}", key=key, compute=arm.measure))
                bar.update()
            paper = PAPER[photo_set.name].get(name, {}).get(num_train)
            rows.append({"arm": name, "num_train": num_train, **over_folds(of_arm), "paper": paper})
    return rows


def report(result: Result) -> None:
    """Print the table."""
    if "rows" in result:
        print(f"{'arm':12}{'per class':>10}{'here (%)':>14}{'paper (%)':>14}")
        for row in result["rows"]:
            here, paper = mean_and_spread(row), mean_and_spread(row["paper"])
            print(f"{row['arm']:12}{row['num_train']:>10}{here:>14}{paper:>14}")
    else:
        for name, value in result["average_precision"].items():
            print(f"{name:16}{'-' if value is None else f'{value:.1f}':>6}")
        paper = result["paper"]["pretrained"]
        print(f"mean average precision {result['mean_average_precision']:.1f} % (paper, on the test set: {paper})")
    records = [record for row in result["rows"] for record in row["records"]] if "rows" in result else [result]
    for line in transfer_arms.convergence(records):
        print(line)


def main() -> None:
    """The command line."""
    stopped = "the same command resumes after the last recorded fold or saved epoch"
    command.main(Config, run, doc=__doc__, report=report, when_stopped=stopped)


if __name__ == "__main__":
    main()
