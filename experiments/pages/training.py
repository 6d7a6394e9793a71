"""The curves of a training run."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure


def draw_curves(records: list[dict[str, Any]]) -> Figure:
    """Loss, error and learning rate against epochs, from the records of a run."""
    epochs = [record for record in records if record["kind"] == "epoch"]
    steps = [record for record in records if record["kind"] == "step"]
    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    loss, error, rate = figure.subplots(1, 3)
    loss.plot([r["epoch_done"] for r in steps], [r["loss"] for r in steps], color="0.75", label="one batch")
    numbers = [record["epoch"] for record in epochs]
    loss.plot(numbers, [r["train_loss"] for r in epochs], color="C0", label="training, mean of the epoch")
    error.plot(numbers, _percent(epochs, "train_top1_error"), "C0", label="training top-1 (with dropout)")
    error.plot(numbers, _percent(epochs, "validation_top1_error"), "C1", label="validation top-1")
    if any(r.get("validation_top5_error") for r in epochs):  # of five classes or fewer it is none, or always 0
        error.plot(numbers, _percent(epochs, "validation_top5_error"), "C1--", label="validation top-5")
    rate.plot(numbers, [r["learning_rate"] for r in epochs], "C2", drawstyle="steps-mid")
    rate.set_yscale("log")
    error.set_ylim(0, 100)
    for axes, title in ((loss, "Cross-entropy (nats)"), (error, "Error (%)"), (rate, "Learning rate")):
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    loss.legend(fontsize=8)
    error.legend(fontsize=8)
    return figure


def _percent(epochs: list[dict[str, Any]], name: str) -> list[float]:
    """Of each epoch; NaN, where the curve has a gap, of one that has none."""
    return [math.nan if record.get(name) is None else 100 * record[name] for record in epochs]
