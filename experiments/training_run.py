"""What the training command says of a run before it begins, and what a continued run may change."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from zfjax.data import ImageSet
from zfjax.training_loop import Progress, Run

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
