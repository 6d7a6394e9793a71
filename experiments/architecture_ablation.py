"""Table 3: the error of twelve architectures, and of one that is wide instead of deep, trained by one recipe.

    python -m experiments.architecture_ablation                                       demo set, quarter width
    python -m experiments.architecture_ablation --preset reduced --data-dir DIR       photos, half width, 112 pixels
    python -m experiments.architecture_ablation --preset paper --data-dir DIR         the paper's, for accelerators

Expected time on two CPU cores: half an hour for the demo set. When the command runs again, finished variants are
skipped, and an interrupted one resumes. Expected result: on ImageNet the error is by far the largest without layers 3,
4, 6 and 7. The demo set needs no such depth: there the net without these four layers errs in 4.0 %, widened in 1.1 %,
less than any other; worst is AlexNet without layers 3 and 4 (28.5 %), and ZFNet's variants (2.0 to 2.7 %) err less than
AlexNet's.

Each variant is a run of `train_imagenet` in its own folder below --out, so every figure can be drawn of it; its
measurements are kept in records/ there. A variant whose loss stops being finite is named and left out of the table.
Writes table.png and result.json: training and validation error beside the paper's, and the rank correlation of the two
orders by validation top-1 error (Spearman's rho; the p-value is the share that agree as well or better of the orders
of AlexNet's variants among themselves, and of ZFNet's).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from experiments.pages import ablation as ablation_page
from experiments.shell import command, figure, results, training_run
from experiments.shell.command import Stopped
from experiments.shell.sizes import SizeFlag
from zfjax import files, nets, training
from zfjax.analyses import ablation
from zfjax.analyses.ablation import Variant, choose_variants, folder_name
from zfjax.architecture import Architecture
from zfjax.data import ImageSet, sets
from zfjax.data.loader import eval_batches
from zfjax.errors import UserError
from zfjax.training import evaluation

COMMAND = "architecture_ablation"


# At 1e-2, which reduced nets of full depth are trained with, AlexNet without layers 3 and 4 never leaves ln(classes)
LEARNING_RATES = {"demo": 3e-3, "reduced": 3e-3, "paper": 1e-2}


@dataclass(frozen=True, kw_only=True)
class Config(figure.OutConfig):
    """Train and measure the variants of Table 3."""

    preset: Literal["demo", "reduced", "paper"] = "demo"
    """Recipe, image size and width, as in train_imagenet."""
    data_dir: Path = Path("data")
    """Where the prepared photos lie; the demo set needs none."""
    data_size: SizeFlag | None = None
    """Size of the prepared pictures in pixels, a side or HEIGHTxWIDTH; by default the only size there."""
    width: float | None = None
    """Factor on the features of every layer but the last; by default the preset's."""
    image_size: SizeFlag | None = None
    """Size of the crops that the networks see, pixels, a side or HEIGHTxWIDTH; by default the preset's."""
    batch_size: int | None = None
    """Images per step over all devices; by default the preset's."""
    num_epochs: int | None = None
    """Passes over the training set; by default the preset's."""
    learning_rate: float | None = None
    """Learning rate at the start, of every variant; by default 3e-3, with preset paper 1e-2."""
    initialization: training.InitializationName | None = None
    """How the weights begin; by default the preset's. With hundreds of classes he_even trains at 1e-2."""
    variants: tuple[str, ...] = ()
    """Names of the variants to train; by default all thirteen."""
    seed: int = 0
    """Seed of weights, order, crops and dropout."""


class Measured(TypedDict):
    """What is recorded of a trained variant."""

    parameters: int
    error: dict[str, evaluation.Shares]  # of train and validation, centre crop
    largest_class_share: NotRequired[float]  # of the validation images; earlier versions did not record it
    checkpoint: results.Checkpoint
    seconds: float


class Row(Measured):
    """One variant."""

    name: str
    paper: tuple[float, float, float] | None


class Result(results.Written):
    """What result.json holds."""

    table: str
    rows: list[Row]
    diverged: dict[str, str]  # why a variant was left out
    rank_correlation: ablation.Ranking | None  # None for fewer than three variants
    unit: str
    num_images: int  # of validation
    data: results.DataFacts
    recipe: training.Recipe
    seed: int


def run(config: Config, *, data: ImageSet | None = None) -> Result:
    """Train what is not done, measure, write the table; what result.json holds.

    Args:
      config: the flags.
      data: the pictures, where they are open already, in the place of those that the flags name.

    Raises:
      UserError: unknown variants, data that are missing, or an `out` that holds runs with other settings.
    """
    chosen = choose_variants(config.variants)
    settings = settings_of(config)
    figure.check_numbers(config)
    for variant in chosen:
        _ = table_of(variant, settings, num_classes=2).sizes()  # before any data are opened
    of_batch = "" if config.batch_size is None else f"batch-size{config.batch_size}"  # here it changes the result
    folder = figure.folder_of(config, nets.RUNS / "ablation" / of_batch)
    with results.claimed(folder, COMMAND, overwrite=True, names=["table.png"]) as out:  # it goes on where it stopped
        images = training_run.open_images(settings, data)
        return train_and_write(config, chosen, settings=settings, images=images, out=out)


def train_and_write(
    config: Config, chosen: Sequence[Variant], *, settings: training_run.Config, images: ImageSet, out: Path
) -> Result:
    """The same, in a folder that was claimed."""
    rows: list[Row] = []
    diverged = {}
    for variant in chosen:  # all of them first: what cannot be measured is refused before hours of training
        record_of(variant, settings, images=images, out=out)
    for number, variant in enumerate(chosen, start=1):
        print(f"{number} of {len(chosen)}: {variant.name}")
        try:
            row = measured(variant, settings, images=images, out=out)
        except FloatingPointError as error:
            print(error)
            diverged[variant.name] = str(error)
        else:
            rows.append({**row, "name": variant.name, "paper": variant.paper})
    result: Result = {
        "table": "Table 3",
        "rows": rows,
        "diverged": diverged,
        "rank_correlation": ablation.rank_correlation(rows),
        "unit": "shares of the images; the paper's in percent: training top-1, validation top-1, validation top-5",
        "num_images": len(sets.validation_of(images)),
        "data": {"name": images.name, "fingerprint": images.fingerprint, "num_classes": len(images.class_names)},
        "recipe": settings.recipe,
        "seed": config.seed,
        "config": config,
        "versions": results.versions(),
    }
    return results.write(out, result, command=COMMAND, contents={"table.png": ablation_page.draw(rows)} if rows else {})


def settings_of(config: Config) -> training_run.Config:
    """The settings that every variant is trained with."""
    preset = training_run.PRESETS[config.preset]
    rate = LEARNING_RATES[config.preset] if config.learning_rate is None else config.learning_rate
    recipe = dataclasses.replace(preset.recipe, seed=config.seed, learning_rate=rate)
    recipe = dataclasses.replace(recipe, **_given(config, "num_epochs", "batch_size", "initialization"))
    others: dict[str, Any] = {"recipe": recipe, "data_dir": config.data_dir, "data_size": config.data_size}
    return dataclasses.replace(preset, **others, **_given(config, "width", "image_size"))


def _given(config: Config, *names: str) -> dict[str, Any]:
    """The fields of these names that are not None."""
    return {name: value for name in names if (value := getattr(config, name)) is not None}


def table_of(variant: Variant, settings: training_run.Config, num_classes: int) -> Architecture:
    """The variant as the settings train it."""
    scale = training.INITIALIZATIONS[settings.recipe.initialization].input_scale
    return ablation.table_of(
        variant, num_classes, width=settings.width, image_size=settings.image_size, input_scale=scale
    )


def measured(variant: Variant, settings: training_run.Config, *, images: ImageSet, out: Path) -> Measured:
    """The variant's row: recorded where it is done, else trained, from where it stopped, and measured.

    UserError where `out` holds a run of it with other settings; FloatingPointError where it diverges.
    """
    folder, (path, record) = out / folder_name(variant), record_of(variant, settings, images=images, out=out)
    if record["row"] is None:
        files.save_json(path, record)  # before it begins, so that no other settings go on with it
        began = time.monotonic()
        train(dataclasses.replace(settings, out=folder), table_of(variant, settings, len(images.class_names)), images)
        row = {**errors_of(folder, images, settings.recipe.batch_size), "seconds": time.monotonic() - began}
        files.save_json(path, {**record, "row": row})
        record = _read_record(path)
    return cast(Measured, record["row"])


def record_of(
    variant: Variant, settings: training_run.Config, *, images: ImageSet, out: Path
) -> tuple[Path, dict[str, Any]]:
    """(where the variant is recorded, the record, whose "row" is None before it is measured).

    UserError where `out` holds a run of it with other settings.
    """
    table = table_of(variant, settings, len(images.class_names))
    identity = {"data": images.fingerprint, "table": str(table), "recipe": str(settings.recipe)}
    path = out / "records" / f"{folder_name(variant)}.json"
    record: dict[str, Any] = _read_record(path) if path.exists() else {"identity": identity, "row": None}
    if record["identity"] != identity:
        raise UserError(f"out={str(out)!r}: {folder_name(variant)} was begun with other settings; name another")
    return path, record


class _Record(TypedDict):
    identity: dict[str, str]
    row: dict[str, object] | None


def _read_record(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = files.read_json(path, _Record, "remove it, and the variant is trained anew")
    return record


def train(settings: training_run.Config, table: Architecture, images: ImageSet) -> None:
    """Train `table` in the folder of the settings, from where it stopped if it was begun there."""
    training_run.run(settings, table=table, data=images)


def errors_of(folder: Path, images: ImageSet, batch_size: int) -> dict[str, Any]:
    """What is recorded of a trained variant: its size, its centre-crop errors on both splits, and the largest class."""
    net = nets.load_net(folder)
    assert isinstance(net, nets.TrainedNet)  # it is a run
    evaluate = evaluation.make_evaluate_ensemble([evaluation.Member(net.architecture, net.mean)])
    assert images.train is not None and images.validation is not None
    splits = {"train": images.train, "validation": images.validation}
    errors = {
        name: evaluate([net.params], eval_batches(source, batch_size=batch_size)) for name, source in splits.items()
    }
    return {
        "parameters": net.architecture.num_parameters(),
        "error": {name: of.ensemble.shares(num_classes=len(net.class_names)) for name, of in errors.items()},
        "largest_class_share": errors["validation"].largest_class_share,
        "checkpoint": results.checkpoint_of(net),
    }


def report(result: Result) -> None:
    """Print the table."""
    for row in result["rows"]:
        name, parameters, *errors = ablation_page.cells(row)
        print(f"{name:34} {parameters:>12}  " + "  ".join(f"{error:>12}" for error in errors))
    for name, why in result["diverged"].items():
        print(f"{name:34} left out: {why}")
    correlation = result["rank_correlation"]
    if correlation is not None and correlation["rho"] is not None:
        print(f"rank correlation with the paper's order: {correlation['rho']:.2f} (p = {correlation['p_value']:.2g})")


def main() -> None:
    """The command line."""
    try:
        command.main(Config, run, doc=__doc__, report=report, when_stopped="the same command resumes")
    except Stopped as stopped:
        print("stopped; the same command resumes")
        raise SystemExit(stopped.exit_status) from None


if __name__ == "__main__":
    main()
