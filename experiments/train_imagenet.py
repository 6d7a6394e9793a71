"""Train the paper's network (sec. 3) on ImageNet, or a narrow one on the embedded demo set.

    python -m experiments.train_imagenet --preset demo                   about 3 minutes on two CPU cores
    python -m experiments.train_imagenet --data-dir DIR                  the paper: 70 epochs of 1.28 M photos
    python -m experiments.train_imagenet --preset reduced --data-dir DIR half width at 112 pixels, for CPUs
    python -m experiments.train_imagenet --resume [RUN]                  go on where RUN, or the newest run, stopped

DIR is what `python -m experiments.prepare_imagenet` made. On several hosts run the same command on each; a cluster
that announces itself (Slurm, MPI, TPU pods) is found, else add `--coordinator HOST:PORT --num-hosts N --host I`.

A run's folder (`--out`, default runs/DATA-TIME) holds `config.json`, `metrics.jsonl`, `curves.png` and
`checkpoints/`: the latest three, and those of epochs 1, 2, 5, 10, 20, 30, 40, 64 and 70. Ctrl-C and SIGTERM save and
leave. The paper annealed by hand: `--resume RUN --learning-rate 1e-3` goes on with another rate.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils

from experiments.shell import training_log
from experiments.shell.command import Stopped, StopRequest, in_one_line, use_compilation_cache
from zfjax import nets, parallel, training
from zfjax.architecture import ALEXNET, ZFNET, Architecture
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError
from zfjax.training import Annealing, Recipe, checkpoints, loop
from zfjax.training.loop import Progress, Run

# What may differ between a run and its continuation: where it runs, how long, and the rate annealed by hand
FREE_ON_RESUME = {
    *("data_dir", "num_workers", "save_steps"),
    *("recipe.learning_rate", "recipe.num_epochs", "recipe.patience"),
}


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
        f"{len(images.validation):,} validation images of {images.size} pixels, crops of {architecture.image_size}"
    )
    rows.append(
        f"recipe: {recipe.num_epochs} epochs of {run.epoch_steps:,} steps of {recipe.batch_size} images, "
        f"SGD {progress.annealing.learning_rate:g} ({recipe.annealing}), momentum {recipe.momentum:g}, "
        f"weight decay {recipe.weight_decay:g}, {recipe.initialization} initialisation, {recipe.crops} crops, "
        f"{recipe.compute_dtype}"
    )
    rows.append(f"devices: {jax.device_count()} x {jax.devices()[0].device_kind} on {jax.process_count()} host(s)")
    rows.append(f"folder: {run.folder}" + (f" (going on after step {step:,})" if step else ""))
    return "\n".join(rows)


def check_resumable(stored: Any, config: Any) -> None:
    """UserError naming a setting of two configurations that a continued run cannot change."""
    before, after = (
        {**dataclasses.asdict(c), **{f"recipe.{k}": v for k, v in dataclasses.asdict(c.recipe).items()}}
        for c in (stored, config)
    )
    for name in before:
        if name != "recipe" and name not in FREE_ON_RESUME and before[name] != after[name]:
            raise UserError(
                f"{name}={after[name]!r}: the run was started with {before[name]!r}; a continued run may change "
                f"{', '.join(sorted(FREE_ON_RESUME))}"
            )


@dataclass(frozen=True)
class Config:
    """What is trained, on what, how, and where it is written; the defaults are the paper's."""

    data: Literal["imagenet", "demo"] = "imagenet"
    data_dir: Path = Path("data")  # where the prepared set lies
    data_size: int | None = None  # side of its pictures, pixels; None: the only size there
    architecture: Literal["zfnet", "alexnet"] = "zfnet"
    image_size: int = 224  # side of the crops that the network sees, pixels
    width: float = 1.0  # factor on the features of every layer but the last
    recipe: Recipe = Recipe()
    demo_sizes: tuple[int, int, int] = (80, 6144, 1024)  # demo set: side in pixels, training and validation images
    out: Path | None = None  # the run's folder
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
        return ":".join(["demo", *map(str, config.demo_sizes)])
    folder = config.data_dir.absolute()  # a folder called demo is still a folder
    return str(folder) if config.data_size is None else f"{folder}:{config.data_size}"


def build_architecture(config: Config, num_classes: int) -> Architecture:
    """The configured table with one logit per class."""
    table = {"zfnet": ZFNET, "alexnet": ALEXNET}[config.architecture].scaled(config.width)
    table = table.with_sizes(image=config.image_size, **{table.layer_names[-1]: num_classes})
    return dataclasses.replace(table, input_scale=training.INITIALIZATIONS[config.recipe.initialization].input_scale)


def run(
    config: Config, resume: Path | None = None, *, table: Architecture | None = None, data: ImageSet | None = None
) -> dict[str, Any]:
    """Train, from the start or from the newest checkpoint of the run `resume`.

    Args:
      config: the settings.
      resume: folder of a run, or one of its checkpoints.
      table: another architecture than the configured one, for a new run; its input_scale is to suit the recipe.
      data: the pictures, where they are open already, in the place of the configured ones.

    Returns:
      The last epoch's record of `metrics.jsonl`, with "folder".

    Raises:
      UserError, FileNotFoundError: settings, data or checkpoint that do not fit; nothing was written.
      FloatingPointError: the loss or gradient is not finite; the checkpoints are kept.
      Stopped: a signal asked to leave; everything is saved.
    """
    parallel.check_batch_size(config.recipe.batch_size)
    if resume is not None:
        resume = checkpoints.find(resume)
        checkpoints.check_newest(resume)
    checkpoint = None if resume is None else checkpoints.load(resume, with_optimizer=True)
    images = open_images(config, data)
    architecture = table or build_architecture(config, len(images.class_names))
    if checkpoint is not None:
        architecture = checkpoint.architecture
    folder = resume.parents[1] if resume else new_folder(config)
    settings = {
        "data": data_name(config),
        "data_fingerprint": images.fingerprint,
        "class_names": list(images.class_names),
        "config": config_to_json(config),
    }
    if checkpoint is not None and checkpoint.settings["data_fingerprint"] != images.fingerprint:
        raise UserError(f"data={data_name(config)!r}: not the pictures that {folder} was trained on")
    recipe, annealing = config.recipe, Annealing.start(config.recipe)
    if checkpoint is not None:
        recipe, annealing = continued(config.recipe, checkpoint)
    assert images.train is not None and images.mean is not None  # else `open_images` raised
    loop_run = loop.Run(
        architecture=architecture,
        recipe=recipe,
        train=images.train,
        mean=images.mean,
        validation=images.validation,
        folder=folder,
        settings=settings,
        save_steps=config.save_steps,
        num_workers=config.num_workers,
    )
    progress = loop.begin(loop_run, checkpoint, annealing=annealing)
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        training_log.write_config(folder, config_to_json(config), recipe)
        print(summary(images, loop_run, progress))
    with StopRequest() as stop:
        record = training_log.train(loop_run, progress, stop, folder)
    return {**record, "folder": str(folder)}


def continued(recipe: Recipe, checkpoint: checkpoints.Checkpoint) -> tuple[Recipe, Annealing]:
    """The recipe and annealing of a run that goes on with `recipe`, as `stored_config` offered it to be changed.

    Its learning rate is the current one, unless it was given by hand: then the annealing goes on from that, on a
    plateau with the best error counted anew.
    """
    annealing = checkpoint.annealing
    if recipe.learning_rate == annealing.learning_rate:
        return dataclasses.replace(recipe, learning_rate=checkpoint.recipe.learning_rate), annealing
    return recipe, Annealing(recipe.learning_rate, epoch=annealing.epoch)


def open_images(config: Config, data: ImageSet | None = None) -> ImageSet:
    """The data set, the configured one or one that is open already; a split that is missing is a UserError."""
    images = sets.open_data(data_name(config)) if data is None else data
    for split in ("train", "validation"):
        if getattr(images, split) is None:
            raise UserError(f"data={data_name(config)!r} has no {split} split: training needs one")
    return images


def new_folder(config: Config) -> Path:
    """The folder of a new run, the same on every host; one that already holds something is a UserError."""
    name = f"{config.data}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(_of_host_0(int(time.time()))))}"
    folder = nets.RUNS / name if config.out is None else config.out
    if _of_host_0(folder.exists() and any(folder.iterdir())):
        begun = any(folder.glob("checkpoints/*/network"))
        what = f"go on with --resume {folder}" if begun else "remove it, as it holds no checkpoint"
        raise UserError(f"out={str(folder)!r} is not empty: name another, or {what}")
    return folder


def _of_host_0(value: int) -> int:
    """Host 0's value, on every host."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def config_to_json(config: Config) -> dict[str, Any]:
    """The configuration without its recipe, which a checkpoint holds itself."""
    config = dataclasses.replace(config, data_dir=config.data_dir.absolute())  # so that it is found from elsewhere
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "recipe"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def stored_config(checkpoint: checkpoints.Checkpoint) -> Config:
    """The configuration that a run was started with, but for the learning rate, which is the current one."""
    if "config" not in checkpoint.settings:
        raise UserError("an imported network has no training to go on with")
    values = dict(checkpoint.settings["config"])
    values["data_dir"] = Path(values["data_dir"])
    values["out"] = None if values["out"] is None else Path(values["out"])
    values["demo_sizes"] = tuple(values["demo_sizes"])
    recipe = dataclasses.replace(checkpoint.recipe, learning_rate=checkpoint.annealing.learning_rate)
    return Config(**values, recipe=recipe)


def main(data: ImageSet | None = None) -> None:
    """Command line: --preset or --resume choose the settings that the other flags start from. `data` as for `run`."""
    first = first_flags()
    chosen, rest = first.parse_known_args()
    if {"-h", "--help"} & set(rest):
        print(first.format_help())
    try:
        with in_one_line():
            use_compilation_cache(chosen.compilation_cache)
            parallel.connect_hosts(chosen.coordinator, chosen.num_hosts, chosen.host)
            if chosen.resume is None:
                folder = None
                config = parse(PRESETS[chosen.preset or "paper"], rest)
            else:
                if chosen.preset:
                    raise UserError(f"preset={chosen.preset!r}: a continued run keeps its own settings")
                folder = Path(chosen.resume) if chosen.resume else nets.newest_run()
                stored = stored_config(checkpoints.load(folder))
                config = parse(stored, rest)
                check_resumable(stored, config)
            record = run(config, folder, data=data)
    except Stopped as stopped:
        print(stopped)
        raise SystemExit(stopped.exit_status) from None
    except KeyboardInterrupt:
        raise SystemExit("stopped; what was saved before stays") from None
    top1 = record["validation_top1_error"]
    print(f"done: validation top-1 error {top1:.1%} (accuracy {1 - top1:.1%}); the run is in {record['folder']}")
    print(f"look at it: python -m experiments.deconv_figures --checkpoint {record['folder']}")


def first_flags() -> argparse.ArgumentParser:
    """The flags that are read before the settings: where these start from, and the other hosts."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage="train_imagenet [first] [settings]")
    group = first.add_argument_group("first")
    group.add_argument("--preset", choices=sorted(PRESETS), help="settings to start from (paper)")
    group.add_argument("--resume", nargs="?", const="", metavar="RUN", help="go on with a run; alone: the newest")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of host 0, where no cluster announces it")
    group.add_argument("--num-hosts", type=int, metavar="N", help="number of hosts, with --coordinator")
    group.add_argument("--host", type=int, metavar="I", help="number of this host, from 0, with --coordinator")
    group.add_argument("--compilation-cache", metavar="DIR", help="where compiled programs are kept, or off")
    return first


def parse(default: Config, arguments: list[str]) -> Config:
    """`default` with the flags in `arguments`."""
    return tyro.cli(Config, default=default, args=arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))


if __name__ == "__main__":
    main()
