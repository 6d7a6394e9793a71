"""Training: the step and its recipe here; `loop`, `checkpoints` and `evaluation` beside it."""

from zfjax.training.step import (
    INITIALIZATIONS,
    Annealing,
    Initialization,
    Metrics,
    Recipe,
    TrainState,
    anneal,
    filter_rms,
    init_params,
    init_state,
    learning_rate,
    make_optimizer,
    make_train_step,
    renormalize,
    replanned,
    with_learning_rate,
)

__all__ = [
    "INITIALIZATIONS",
    "Annealing",
    "Initialization",
    "Metrics",
    "Recipe",
    "TrainState",
    "anneal",
    "filter_rms",
    "init_params",
    "init_state",
    "learning_rate",
    "make_optimizer",
    "make_train_step",
    "renormalize",
    "replanned",
    "with_learning_rate",
]
