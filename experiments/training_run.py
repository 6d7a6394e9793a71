"""One training run as data: what stays, what changes from step to step, and its description on one screen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from zfjax import checkpoints, training
from zfjax.architecture import Architecture
from zfjax.data import ImageSet
from zfjax.data.loader import steps_per_epoch
from zfjax.training import Annealing, Metrics, Recipe, TrainState

# What may differ between a run and its continuation: where it runs, how long, and the rate annealed by hand
FREE_ON_RESUME = {
    *("data_dir", "num_workers", "save_steps"),
    *("recipe.learning_rate", "recipe.num_epochs", "recipe.patience"),
}


@dataclass(frozen=True, eq=False)
class Run:
    """What does not change while a run trains; ValueError for parts that do not fit together."""

    folder: Path
    images: ImageSet
    architecture: Architecture
    recipe: Recipe
    settings: dict[str, Any]  # stored with every checkpoint
    save_steps: int  # steps between checkpoints inside an epoch
    num_workers: int

    def __post_init__(self) -> None:
        for name, least in (("save_steps", 1), ("num_workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: at least {least} is needed")
        if self.architecture.image_size > self.images.size:
            raise ValueError(
                f"image_size={self.architecture.image_size}: crops of at most {self.images.size} pixels, "
                f"the size of the pictures, are needed"
            )
        assert self.images.train is not None
        steps_per_epoch(self.images.train, self.recipe.batch_size)

    @property
    def epoch_steps(self) -> int:
        """Steps of one epoch."""
        assert self.images.train is not None
        return steps_per_epoch(self.images.train, self.recipe.batch_size)


class Totals(NamedTuple):
    """Training metrics summed over the epoch so far."""

    loss: float = 0.0
    correct: float = 0.0
    count: float = 0.0  # type: ignore[assignment]  # hides tuple.count

    def add(self, metrics: Metrics) -> Totals:
        """With one more step."""
        sums = (float(metrics.loss), float(metrics.correct), float(metrics.count))
        return Totals(*(total + more for total, more in zip(self, sums, strict=True)))


class Progress(NamedTuple):
    """What changes, between two steps."""

    state: TrainState
    annealing: Annealing
    totals: Totals


def begin(run: Run, annealing: Annealing, checkpoint: checkpoints.Checkpoint | None) -> Progress:
    """A run before its first step, or where `checkpoint` left it; ValueError where no epoch is left to train."""
    done = annealing.epoch if checkpoint is None else checkpoint.step // run.epoch_steps
    if done > run.recipe.num_epochs or annealing.epoch >= run.recipe.num_epochs:
        raise ValueError(f"num_epochs={run.recipe.num_epochs}: the run has done {done} already")
    if checkpoint is not None and done == run.recipe.num_epochs and run.recipe != checkpoint.recipe:
        raise ValueError(f"num_epochs={done}: all of them are trained; a larger one is needed to train on differently")
    fresh = training.init_state(run.recipe, run.architecture)
    if checkpoint is None:
        return Progress(fresh, annealing, Totals())
    return Progress(checkpoints.to_state(checkpoint, fresh), annealing, Totals(*checkpoint.settings["totals"]))


def summary(run: Run, progress: Progress) -> str:
    """One screen: the network, the data, the recipe, the devices, the folder."""
    architecture, recipe, images = run.architecture, run.recipe, run.images
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
    """ValueError naming a setting of two configurations that a continued run cannot change."""
    before, after = (
        {**dataclasses.asdict(c), **{f"recipe.{k}": v for k, v in dataclasses.asdict(c.recipe).items()}}
        for c in (stored, config)
    )
    for name in before:
        if name != "recipe" and name not in FREE_ON_RESUME and before[name] != after[name]:
            raise ValueError(
                f"{name}={after[name]!r}: the run was started with {before[name]!r}; a continued run may change "
                f"{', '.join(sorted(FREE_ON_RESUME))}"
            )
