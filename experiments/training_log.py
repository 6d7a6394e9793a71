"""The record of a training run: `metrics.jsonl`, one JSON object a line, and the picture of its curves."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from experiments import pictures
from zfjax.training import Recipe


class TrainingLog:
    """Appends records to `metrics.jsonl`: "kind": "step" every so many steps, "kind": "epoch" after each validation."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._path = folder / "metrics.jsonl"

    def records(self) -> list[dict[str, Any]]:
        """All records so far; a line cut short by a kill is left out."""
        if not self._path.exists():
            return []
        records = []
        for line in self._path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; it is on disk when this returns."""
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def rewind(self, step: int, epochs: int) -> None:
        """Drop what was recorded after `step`, or for an epoch after `epochs`: a continued run records it again."""
        kept = [
            record
            for record in self.records()
            if record["step"] <= step and (record["kind"] != "epoch" or record["epoch"] <= epochs)
        ]
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(partial, self._path)

    def draw(self) -> None:
        """Write `curves.png` from the records so far."""
        partial = self.folder / "curves.partial.png"
        draw_curves(self.records()).savefig(partial, dpi=110)
        os.replace(partial, self.folder / "curves.png")


def draw_curves(records: list[dict[str, Any]]) -> Figure:
    """Loss, error and learning rate against epochs, from the records of a run."""
    epochs = [record for record in records if record["kind"] == "epoch"]
    steps = [record for record in records if record["kind"] == "step"]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, error, rate = figure.subplots(1, 3)
    loss.plot([r["epoch_done"] for r in steps], [r["loss"] for r in steps], color="0.75", label="one batch")
    seen = [record["epoch"] for record in epochs]
    loss.plot(seen, [r["train_loss"] for r in epochs], color="C0", label="training, mean of the epoch")
    error.plot(seen, [100 * r["train_top1_error"] for r in epochs], "C0", label="training top-1 (with dropout)")
    error.plot(seen, [100 * r["validation_top1_error"] for r in epochs], "C1", label="validation top-1")
    error.plot(seen, [100 * r["validation_top5_error"] for r in epochs], "C1--", label="validation top-5")
    rate.plot(seen, [r["learning_rate"] for r in epochs], "C2", drawstyle="steps-mid")
    rate.set_yscale("log")
    error.set_ylim(0, 100)
    for axes, title in ((loss, "Cross-entropy (nats)"), (error, "Error (%)"), (rate, "Learning rate")):
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    loss.legend(fontsize=8)
    error.legend(fontsize=8)
    return figure


def epoch_line(record: dict[str, Any], num_epochs: int) -> str:
    """An "epoch" record in one line."""
    speed = record["images_per_second"]
    return (
        f"epoch {record['epoch']}/{num_epochs}: training loss {record['train_loss']:.3f}, "
        f"validation error top-1 {record['validation_top1_error']:.1%}, top-5 {record['validation_top5_error']:.1%}, "
        f"learning rate {record['learning_rate']:.2g}" + (f", {speed:.0f} images/s" if speed else "")
    )


def write_config(folder: Path, config: dict[str, Any], recipe: Recipe) -> None:
    """Write `config.json`: the settings of a run, and what it ran with."""
    versions = {name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")}
    machine = {"python": platform.python_version(), "devices": [str(device) for device in jax.devices()]}
    described = {"config": config, "recipe": dataclasses.asdict(recipe), "versions": versions, "machine": machine}
    pictures.save_result(folder / "config.json", described)
