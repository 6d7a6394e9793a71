"""The loop of a training run: steps, checkpoints, validation, annealing; stopped and continued at any step."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from experiments.stopping import Stopped, StopRequest
from experiments.training_log import TrainingLog
from zfjax import checkpoints, evaluation, parallel, training
from zfjax.architecture import Architecture
from zfjax.data import ImageSet
from zfjax.data.loader import eval_batches, steps_per_epoch, train_batches
from zfjax.training import Annealing, Metrics, Recipe, TrainState

LOG_STEPS = 20  # steps between the "step" records of metrics.jsonl


class Run(NamedTuple):
    """What does not change while a run trains."""

    folder: Path
    images: ImageSet
    architecture: Architecture
    recipe: Recipe
    settings: dict[str, Any]  # stored with every checkpoint
    save_steps: int  # steps between checkpoints inside an epoch
    num_workers: int

    @property
    def epoch_steps(self) -> int:
        """Steps of one epoch."""
        return steps_per_epoch(self.images.train, self.recipe.batch_size)


class Totals(NamedTuple):
    """Training metrics summed over the epoch so far."""

    loss: float = 0.0
    correct: float = 0.0
    count: float = 0.0

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
    """A run before its first step, or where `checkpoint` left it."""
    fresh = training.init_state(run.recipe, run.architecture)
    if checkpoint is None:
        return Progress(fresh, annealing, Totals())
    return Progress(checkpoints.to_state(checkpoint, fresh), annealing, Totals(*checkpoint.settings["totals"]))


def summary(run: Run, progress: Progress) -> str:
    """One screen: the network, the data, the recipe, the devices, the folder."""
    architecture, recipe, images = run.architecture, run.recipe, run.images
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
        f"SGD {recipe.learning_rate:g} ({recipe.annealing}), momentum {recipe.momentum:g}, "
        f"weight decay {recipe.weight_decay:g}, {recipe.initialization} initialisation, {recipe.crops} crops, "
        f"{recipe.compute_dtype}"
    )
    rows.append(f"devices: {jax.device_count()} x {jax.devices()[0].device_kind} on {jax.process_count()} host(s)")
    rows.append(f"folder: {run.folder}" + (f" (going on after step {step:,})" if step else ""))
    return "\n".join(rows)


class Loop:
    """Trains a run from a `Progress` to its last epoch; raises `Stopped` where a signal asked it to leave."""

    def __init__(self, run: Run, progress: Progress, stop: StopRequest):
        self.run, self._stop = run, stop
        self._host, self._hosts = parallel.host_count()
        self._state = parallel.replicate(progress.state)
        self._annealing, self._totals = progress.annealing, progress.totals
        self._step = int(progress.state.step)
        self._stopping = False  # every host has seen, at the same step, that one of them was asked to stop
        self._seconds, self._images = 0.0, 0  # of this epoch's steps in this process
        train_step = training.make_train_step(run.recipe, run.architecture, run.images.mean)
        self._train_step = parallel.data_parallel(train_step, donate_state=True)
        self._evaluate = evaluation.make_evaluate(run.architecture, run.images.mean)
        kept = [epoch * run.epoch_steps for epoch in checkpoints.EVOLUTION_EPOCHS]
        self._checkpoints = checkpoints.Checkpoints(run.folder / "checkpoints", kept_steps=kept)
        self._log = TrainingLog(run.folder)

    def __call__(self) -> dict[str, Any]:
        """Train to the end; the record of the last epoch."""
        if self._host == 0:
            self._log.rewind(self._step, self._annealing.epoch)
        batches = self._batches()
        try:
            with self._bar() as bar:
                while self._annealing.epoch < self.run.recipe.num_epochs:
                    record = self._epoch(batches, bar)
                return record
        finally:
            batches.close()  # ends the workers
            self._checkpoints.close()

    def _epoch(self, batches: Iterator[dict[str, np.ndarray]], bar: tqdm) -> dict[str, Any]:
        """The rest of an epoch. It is saved before its validation, which a continued run repeats to the same end."""
        bar.set_description(f"epoch {self._annealing.epoch + 1}/{self.run.recipe.num_epochs}")
        self._state = training.with_learning_rate(self._state, self._annealing.learning_rate)
        end = (self._annealing.epoch + 1) * self.run.epoch_steps
        every = self.run.save_steps
        while self._step < end:
            self._steps(batches, min(end, self._step - self._step % every + every), bar)
            self._save()
            if self._stopping:
                raise self._stopped()
        return self._validate(bar)

    def _steps(self, batches: Iterator[dict[str, np.ndarray]], until: int, bar: tqdm) -> None:
        """Steps up to `until` or a stop. Metrics are read while the next step runs, so the device never waits."""
        began, running = time.monotonic(), None
        while self._step < until and not self._stopping:
            batch = parallel.split(self._with_extras(next(batches)))
            self._state, metrics = self._train_step(self._state, batch)
            self._step += 1
            if running is not None:
                self._read(running, self._step - 1, bar)
            running = metrics
        if running is not None:
            self._read(running, self._step, bar)
        self._seconds += time.monotonic() - began

    def _read(self, metrics: Metrics, step: int, bar: tqdm) -> None:
        """Wait for a step's metrics, judge them, show them."""
        metrics = jax.device_get(metrics)
        for name, value in (("loss", metrics.loss), ("gradient norm", metrics.gradient_norm)):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{name}={value} at step {step}: training diverged; the checkpoints of steps "
                    f"{self._checkpoints.steps()} are good: go on from them with a lower --learning-rate"
                )
        self._stopping = self._stopping or metrics.stop > 0
        self._totals = self._totals.add(metrics)
        self._images += int(metrics.count)
        loss, accuracy = float(metrics.loss / metrics.count), float(metrics.correct / metrics.count)
        bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}", refresh=False)
        bar.update(int(metrics.count))
        if step % LOG_STEPS == 0:
            epoch_done = step / self.run.epoch_steps
            record = {"kind": "step", "step": step, "epoch_done": epoch_done, "loss": loss, "accuracy": accuracy}
            self._record({**record, "gradient_norm": float(metrics.gradient_norm)})

    def _validate(self, bar: tqdm) -> dict[str, Any]:
        """Error on the whole validation split, the annealing that follows from it, and the epoch's record."""
        errors = self._evaluate(self._state.params, self._validation_batches()).shares()
        totals, rate = self._totals, self._annealing.learning_rate
        self._annealing = training.anneal(self._annealing, errors["top1"], self.run.recipe)
        record = {
            "kind": "epoch",
            "step": self._step,
            "epoch": self._annealing.epoch,
            "learning_rate": rate,
            "train_loss": totals.loss / totals.count,
            "train_top1_error": 1 - totals.correct / totals.count,
            "validation_top1_error": errors["top1"],
            "validation_top5_error": errors["top5"],
            "images_per_second": self._images / self._seconds if self._images else None,
        }
        self._record(record)
        if self._host == 0:
            self._log.draw()
            bar.write(_epoch_line(record, self.run.recipe.num_epochs))
        self._totals, self._seconds, self._images = Totals(), 0.0, 0
        return record

    def _save(self) -> None:
        settings = {**self.run.settings, "totals": list(self._totals)}
        snapshot = checkpoints.to_checkpoint(
            self._state,
            architecture=self.run.architecture,
            mean=self.run.images.mean,
            recipe=self.run.recipe,
            annealing=self._annealing,
            settings=settings,
        )
        self._checkpoints.save(snapshot)

    def _stopped(self) -> Stopped:
        go_on = f"python -m experiments.train_imagenet --resume {self.run.folder}"
        return Stopped(f"stopped; saved after step {self._step}; go on with: {go_on}", self._stop.signal_number)

    def _record(self, record: dict[str, Any]) -> None:
        if self._host == 0:
            self._log.append(record)

    def _bar(self) -> tqdm:
        seen = self._step * self.run.recipe.batch_size
        total = self.run.recipe.num_epochs * self.run.epoch_steps * self.run.recipe.batch_size
        often = 0.5 if sys.stderr.isatty() else 30.0  # seconds; a log file wants few lines
        return tqdm(
            total=total, initial=seen, unit="img", disable=self._host != 0, mininterval=often, dynamic_ncols=True
        )

    def _batches(self) -> Iterator[dict[str, np.ndarray]]:
        recipe = self.run.recipe
        return train_batches(
            self.run.images.train,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            num_epochs=recipe.num_epochs,
            first_step=self._step,
            host=self._host,
            num_hosts=self._hosts,
            num_workers=self.run.num_workers,
        )

    def _validation_batches(self) -> Iterator[dict[str, np.ndarray]]:
        batches = eval_batches(
            self.run.images.validation,
            batch_size=self.run.recipe.batch_size,
            host=self._host,
            num_hosts=self._hosts,
            num_workers=self.run.num_workers,
        )
        for batch in batches:
            if self._stop.signal_number and self._hosts == 1:  # several hosts agree at their next training step
                raise self._stopped()
            yield batch

    def _with_extras(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the step wants besides pictures and labels: see `training.make_train_step`."""
        rows = len(batch["label"])
        position = self._host + self._hosts * np.arange(rows, dtype=np.int32)
        stop = np.full(rows, self._stop.signal_number, np.int32)
        return {"image": batch["image"], "label": batch["label"], "position": position, "stop": stop}


def _epoch_line(record: dict[str, Any], num_epochs: int) -> str:
    speed = record["images_per_second"]
    return (
        f"epoch {record['epoch']}/{num_epochs}: training loss {record['train_loss']:.3f}, "
        f"validation error top-1 {record['validation_top1_error']:.1%}, top-5 {record['validation_top5_error']:.1%}, "
        f"learning rate {record['learning_rate']:.2g}" + (f", {speed:.0f} images/s" if speed else "")
    )
