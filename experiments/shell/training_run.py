"""A training run of the paper's recipe: its settings, its folder, where it begins and what it goes on from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.pages.lettering import counted
from experiments.shell import figure, hosts, run_folders, training_log
from experiments.shell.sizes import SizeFlag
from experiments.shell.stopping import StopRequest
from zfjax import extras, files, parallel, training
from zfjax.architecture import ALEXNET, ZFNET, Architecture
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError, command_line
from zfjax.pixels import as_size, size_words
from zfjax.training import Annealing, Recipe, checkpoints, loop
from zfjax.training.loop import Progress, Run

# What may differ between a run and its continuation: where it runs, how long, and the rate annealed by hand
FREE_ON_RESUME = {
    *("data_dir", "num_workers", "save_steps"),
    *("recipe.learning_rate", "recipe.num_epochs", "recipe.patience"),
}


@dataclass(frozen=True)
class Config:
    """What is trained, on what, how, and where it is written; the defaults are the paper's."""

    data: Literal["imagenet", "demo"] = "imagenet"
    data_dir: Path = Path("data")  # where the prepared set lies
    data_size: SizeFlag | None = None  # of its pictures, a side or HEIGHTxWIDTH; None: the only size there
    architecture: Literal["zfnet", "alexnet"] = "zfnet"
    image_size: SizeFlag = 224  # of the crops that the network sees: a side, or HEIGHTxWIDTH, as 96x128, pixels
    width: float = 1.0  # factor on the features of every layer but the last
    recipe: Recipe = Recipe()
    demo_sizes: tuple[SizeFlag, int, int] = (80, 6144, 1024)  # demo set: size, training and validation images
    out: Path | None = None  # the run's folder; where a run of these settings is there, it goes on
    num_workers: int = 2  # processes per host that read and decode; the order of images does not depend on it
    save_steps: int = 1000  # steps between checkpoints inside an epoch; one is always written after each epoch


# Departure: the paper's initialisation does not leave ln(classes) at reduced width, and a short run ends with much of
# the noise that its filters began with, which shows in every projection: weight decay takes it away. Small sets are
# learnt by heart from ten fixed crops, so crops are random.
_REDUCED = Recipe(initialization="he", crops="random", annealing="cosine", batch_size=64)

PRESETS = {
    "paper": Config(),
    "reduced": Config(
        image_size=112,
        width=0.5,
        recipe=dataclasses.replace(_REDUCED, num_epochs=40, weight_decay=3e-3),
        num_workers=0,
    ),
    "demo": Config(
        data="demo",
        image_size=72,
        width=0.25,
        recipe=dataclasses.replace(_REDUCED, num_epochs=16, weight_decay=1e-2),
        num_workers=0,
    ),
}


def data_name(config: Config) -> str:
    """The configured data set as `sets.open_data` names it."""
    if config.data == "demo":
        size, *counts = config.demo_sizes
        return ":".join(["demo", size_words(size), *map(str, counts)])
    folder = config.data_dir.absolute()  # a folder called demo is still a folder
    return str(folder) if config.data_size is None else f"{folder}:{size_words(config.data_size)}"


def check_sizes(config: Config, table: Architecture | None = None) -> None:
    """UserError, before any data are opened, for numbers of a configuration that no training can have."""
    figure.check_numbers(config)
    _ = (table or build_architecture(config, num_classes=2)).sizes()


def build_architecture(config: Config, num_classes: int) -> Architecture:
    """The configured table with one logit per class."""
    table = {"zfnet": ZFNET, "alexnet": ALEXNET}[config.architecture].scaled(config.width)
    table = table.with_sizes(image=config.image_size, **{table.layer_names[-1]: num_classes})
    return dataclasses.replace(table, input_scale=training.INITIALIZATIONS[config.recipe.initialization].input_scale)


def run(
    config: Config | Callable[[Config], Config],
    resume: Path | None = None,
    *,
    table: Architecture | None = None,
    data: ImageSet | None = None,
) -> dict[str, Any]:
    """Train, from the start or from the newest checkpoint: of the run `resume`, or of the one in the folder config.out.

    The run's folder is this process's alone meanwhile; a process that is still saving there is waited for.

    Args:
      config: the settings; with `resume` also a function that makes them of those that the run was started with.
      resume: folder of a run, or one of its checkpoints.
      table: another architecture than the configured one, for a new run; its input_scale is to suit the recipe.
      data: the pictures, where they are open already, in the place of the configured ones.

    Returns:
      The last epoch's record of `metrics.jsonl`, with "folder".

    Raises:
      UserError, FileNotFoundError: settings, data or checkpoint that do not fit, or another process is training there;
        nothing was written.
      FailedError: a checkpoint could not be written.
      FloatingPointError: the loss or gradient is not finite; the checkpoints are kept.
      Stopped: a signal asked to leave; everything is saved.
    """
    out, name = (None, "") if callable(config) else (config.out, config.data)
    extras.check("train")
    with run_folders.claimed(resume, out, name) as place:
        prepared = parallel.of_every_host(
            lambda: prepare(config, place, table=table, data=data, resumed=resume is not None)
        )
        parallel.check_agreement({"folder": place.asked, **prepared.facts})
        if jax.process_index() == 0:
            training_log.write_config(place.folder, config_to_json(prepared.config), prepared.run.recipe)
            print(summary(prepared.images, prepared.run, prepared.progress))
        hosts.note(folder=place.folder, go_on=training_log.resume_command(place.folder))
        with StopRequest() as stop:
            record = training_log.train(prepared.run, prepared.progress, stop=stop, folder=place.folder)
    return {**record, "folder": str(place.folder)}


class Prepared(NamedTuple):
    """All that a training needs, before it begins."""

    config: Config
    images: ImageSet
    run: Run
    progress: Progress
    facts: dict[str, Any]  # what all hosts have to agree on


def prepare(
    config: Config | Callable[[Config], Config],
    place: run_folders.Place,
    *,
    table: Architecture | None,
    data: ImageSet | None,
    resumed: bool,
) -> Prepared:
    """Open what a run needs and check it, on this host; arguments as for `run`, `resumed` where it was asked for."""
    checkpoint = None if place.checkpoint is None else checkpoints.load(place.checkpoint, with_optimizer=True)
    if checkpoint is not None:
        stored = dataclasses.replace(stored_config(checkpoint), out=place.folder)
        config = config(stored) if callable(config) else config
        config = config if resumed else going_on(config, checkpoint)
        if config.data_size is None:
            config = dataclasses.replace(config, data_size=stored.data_size)
        check_resumable(stored, config)
    assert not callable(config)
    parallel.check_batch_size(config.recipe.batch_size)
    check_sizes(config, table if checkpoint is None else checkpoint.architecture)
    images = open_images(config, data)
    if config.data == "imagenet":  # the answer, not the question: another size may come to lie beside it
        config = dataclasses.replace(config, data_size=images.size)
    recipe, annealing = config.recipe, Annealing.start(config.recipe)
    if checkpoint is None:
        architecture = table or build_architecture(config, len(images.class_names))
    else:
        architecture = checkpoint.architecture
        if checkpoint.settings["data_fingerprint"] != images.fingerprint:
            raise UserError(f"data={data_name(config)!r}: not the pictures that {place.folder} was trained on")
        recipe, annealing = continued(config.recipe, checkpoint)
    assert images.train is not None and images.mean is not None  # else `open_images` raised
    prepared = Run(
        architecture=architecture,
        recipe=recipe,
        train=images.train,
        mean=images.mean,
        validation=images.validation,
        folder=place.folder,
        settings={
            "data": data_name(config),
            "data_fingerprint": images.fingerprint,
            "num_images": len(images.train),
            "class_names": list(images.class_names),
            "config": config_to_json(config),
        },
        save_steps=config.save_steps,
        num_workers=config.num_workers,
    )
    progress = loop.begin(prepared, checkpoint, annealing=annealing)
    facts = facts_of(config, prepared, progress) if parallel.host_count()[1] > 1 else {}
    return Prepared(config, images, prepared, progress, facts)


def summary(images: ImageSet, run: Run, progress: Progress) -> str:
    """One screen: the network, the data, the recipe, the devices, the folder."""
    architecture, recipe = run.architecture, run.recipe
    assert images.train is not None and images.validation is not None
    step = int(progress.state.step)
    rows = [f"{'layer':8}{'output':>16}{'kernel':>20}{'parameters':>14}"]
    for name, size in architecture.sizes().items():
        output, kernel = ("x".join(map(str, shape)) for shape in (size.output, size.kernel))
        rows.append(f"{name:8}{output:>16}{kernel:>20}{np.prod(size.kernel) + size.kernel[-1]:>14,}")
    rows.append(f"{architecture.name}: {architecture.num_parameters():,} parameters")
    rows.append(
        f"data: {images.name}, {len(images.class_names)} classes, {len(images.train):,} training and "
        f"{len(images.validation):,} validation images of {size_words(images.size)} pixels, crops of "
        f"{size_words(architecture.image_size)}"
    )
    rows.append(
        f"recipe: {recipe.num_epochs} epochs of {run.epoch_steps:,} steps of {recipe.batch_size} images, "
        f"SGD {progress.annealing.learning_rate:g} ({recipe.annealing}), momentum {recipe.momentum:g}, "
        f"weight decay {recipe.weight_decay:g}, {recipe.initialization} initialisation, {recipe.crops} crops, "
        f"{recipe.compute_dtype}"
    )
    rows.append(
        f"devices: {jax.device_count()} x {jax.devices()[0].device_kind} on {counted(jax.process_count(), 'host')}"
    )
    rows.append(f"folder: {run.folder}" + (f" (going on after step {step:,})" if step else ""))
    return "\n".join(rows)


def check_resumable(stored: Config, config: Config) -> None:
    """UserError naming a setting of two configurations that a continued run cannot change."""
    before, after = (
        {**dataclasses.asdict(c), **{f"recipe.{k}": v for k, v in dataclasses.asdict(c.recipe).items()}}
        for c in (stored, config)
    )
    for name in before:
        if name in ("recipe", "out") or name in FREE_ON_RESUME:
            continue
        if before[name] != after[name]:
            raise UserError(
                f"{name}={after[name]!r}: the run was started with {before[name]!r}; a continued run may change "
                f"{', '.join(sorted(FREE_ON_RESUME))}"
            )
    if stored.out is not None and config.out is not None and config.out.resolve() != stored.out.resolve():
        raise UserError(f"out={str(config.out)!r}: the resumed run is in {stored.out}; omit --out")


def facts_of(config: Config, run: Run, progress: Progress) -> dict[str, Any]:
    """What every host has to hold before the first step: settings, pictures, software, and the state to go on from."""
    mine = ("recipe", "data_dir", "num_workers", "out")  # the recipe by itself; where files lie is a host's own matter
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in mine}
    return {
        **settings,
        **dataclasses.asdict(run.recipe),
        **hosts.software(),
        "architecture": str(run.architecture),
        "data fingerprint": run.settings["data_fingerprint"],
        "class names": run.settings["class_names"],
        "mean picture": files.digest(run.mean),
        "step": int(progress.state.step),
        "annealing": dataclasses.asdict(progress.annealing),
        "parameters": files.digest(jax.tree.map(np.asarray, progress.state.params)),
    }


def going_on(config: Config, checkpoint: checkpoints.Checkpoint) -> Config:
    """The settings of a run that --out found begun, as `--resume` would have them: the learning rate is the run's."""
    stored, asked = stored_config(checkpoint), config.recipe.learning_rate
    if asked not in (checkpoint.recipe.learning_rate, stored.recipe.learning_rate):
        other = command_line("python -m experiments.train_imagenet", "--resume", config.out, "--learning-rate", asked)
        raise UserError(
            f"learning_rate={asked}: the run in {config.out} was started with {checkpoint.recipe.learning_rate}; "
            f"{other} changes it"
        )
    recipe = dataclasses.replace(config.recipe, learning_rate=stored.recipe.learning_rate)
    return dataclasses.replace(config, recipe=recipe)


def continued(recipe: Recipe, checkpoint: checkpoints.Checkpoint) -> tuple[Recipe, Annealing]:
    """The recipe and annealing of a run that goes on with `recipe`, as `stored_config` offered it to be changed.

    Its learning rate is the current one, unless it was given by hand: then the annealing goes on from that, on a
    plateau with the best error counted anew. A cosine of another number of epochs is planned anew: the run goes on
    where that curve stands by now.
    """
    annealing = checkpoint.annealing
    if recipe.learning_rate == annealing.learning_rate:
        annealing = training.replanned(annealing, checkpoint.recipe, recipe.num_epochs)
        return dataclasses.replace(recipe, learning_rate=checkpoint.recipe.learning_rate), annealing
    return recipe, Annealing(recipe.learning_rate, epoch=annealing.epoch)


def open_images(config: Config, data: ImageSet | None = None) -> ImageSet:
    """The data set, the configured one or one that is open already; a split that is missing is a UserError."""
    images = sets.open_data(data_name(config)) if data is None else data
    for split in ("train", "validation"):
        if getattr(images, split) is None:
            raise UserError(f"data={data_name(config)!r} has no {split} split: training needs one")
    return images


def config_to_json(config: Config) -> dict[str, Any]:
    """The configuration without its recipe, which a checkpoint holds itself."""
    config = dataclasses.replace(config, data_dir=config.data_dir.absolute())  # so that it is found from elsewhere
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "recipe"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def stored_config(checkpoint: checkpoints.Checkpoint) -> Config:
    """The configuration that a run was started with, but for the learning rate, which is the current one."""
    if "config" not in checkpoint.settings:
        raise UserError("an imported network has no training to resume")
    values = dict(checkpoint.settings["config"])
    values["data_dir"] = Path(values["data_dir"])
    values["out"] = None if values["out"] is None else Path(values["out"])
    if values["data"] == "imagenet":  # older versions left it open where one size was there
        values["data_size"] = as_size(checkpoint.mean.shape[:2])
    values["image_size"] = _of_json(values["image_size"])
    values["demo_sizes"] = tuple(map(_of_json, values["demo_sizes"]))
    recipe = dataclasses.replace(checkpoint.recipe, learning_rate=checkpoint.annealing.learning_rate)
    return Config(**values, recipe=recipe)


def _of_json(value: Any) -> Any:
    """A size as it was: JSON has lists in the place of tuples."""
    return tuple(value) if isinstance(value, list) else value
