"""Runs of made-up networks, saved as training saves them, for what opens a run by its folder."""

import numpy as np

from zfjax.training import Annealing, Recipe, checkpoints

RECIPE = Recipe(initialization="he", batch_size=8, crops="random")
NO_OPTIMIZER = [np.zeros(1, np.float32)]  # such runs are looked at, and not gone on from


def save_run(run, architecture, steps, mean, *, class_names, recipe=RECIPE, **settings):
    """The folder `run` with a checkpoint for each of `steps`, {step: params}."""
    store = checkpoints.Checkpoints(run / "checkpoints", kept_steps=list(steps))
    settings = {"data": "tiny", "class_names": list(class_names), **settings}
    for step, params in steps.items():
        parts = (architecture, params, mean, recipe, Annealing(recipe.learning_rate), step, settings, NO_OPTIMIZER)
        store.save(checkpoints.Checkpoint(*parts))
    store.close()
    return run
