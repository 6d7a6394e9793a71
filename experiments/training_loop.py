"""The loop of a training run: steps, checkpoints, validation, annealing; stopped and continued at any step."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments.stopping import Stopped, StopRequest
from experiments.training_log import TrainingLog, epoch_line
from experiments.training_run import Progress, Run, Totals
from zfjax import checkpoints, evaluation, parallel, training
from zfjax.data.loader import Batches, eval_batches, train_batches
from zfjax.training import Metrics

LOG_STEPS = 20  # steps between the "step" records of metrics.jsonl


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
        assert run.images.mean is not None
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
            gc.collect()  # JAX lets go of the last batches, whose shared memory has to be gone before Python is
            self._checkpoints.close()

    def _epoch(self, batches: Iterator[dict[str, np.ndarray]], bar: tqdm) -> dict[str, Any]:
        """The rest of an epoch. It is saved before its validation, which a continued run repeats to the same end."""
        bar.set_description(f"epoch {self._annealing.epoch + 1}/{self.run.recipe.num_epochs}")
        end = (self._annealing.epoch + 1) * self.run.epoch_steps
        if self._step < end:  # else only its validation is left
            self._state = training.with_learning_rate(self._state, self._annealing.learning_rate)
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
                stay = self._checkpoints.steps()
                lower = "with a lower --learning-rate"
                advice = f"the checkpoints of steps {stay} stay: go on from the last good one {lower}"
                raise FloatingPointError(
                    f"{name}={value} at step {step}: training diverged; " + (advice if stay else f"begin anew {lower}")
                )
        self._stopping = self._stopping or bool(metrics.stop > 0)
        self._totals = self._totals.add(metrics)
        self._images += int(metrics.count)
        loss, accuracy = float(metrics.loss / metrics.count), float(metrics.correct / metrics.count)
        bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.1%}", refresh=False)
        bar.update(int(metrics.count))
        if step % LOG_STEPS == 0:
            epoch_done = step / self.run.epoch_steps
            record = {"kind": "step", "step": step, "epoch_done": epoch_done, "loss": loss, "accuracy": accuracy}
            self._record({**record, "gradient_norm": float(metrics.gradient_norm)})

    def _validate(self, bar: tqdm) -> dict[str, Any]:
        """Error on the whole validation split, the annealing that follows from it, and the epoch's record."""
        counts = self._evaluate(self._state.params, self._validation_batches())
        if self._stops_alone():
            raise self._stopped()
        errors = counts.shares()
        totals, rate = self._totals, training.learning_rate(self._state)
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
            bar.write(epoch_line(record, self.run.recipe.num_epochs))
        self._totals, self._seconds, self._images = Totals(), 0.0, 0
        return record

    def _save(self) -> None:
        settings = {**self.run.settings, "totals": list(self._totals)}
        assert self.run.images.mean is not None
        snapshot = checkpoints.to_checkpoint(
            self._state,
            architecture=self.run.architecture,
            mean=self.run.images.mean,
            recipe=self.run.recipe,
            annealing=self._annealing,
            settings=settings,
        )
        self._checkpoints.save(snapshot)

    def _stops_alone(self) -> bool:
        """Asked to stop, with no other host to agree with; several hosts agree at their next training step."""
        return self._hosts == 1 and self._stop.signal_number > 0

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
            total=total,
            initial=seen,
            unit=" images",
            bar_format="{desc}{percentage:3.0f}%|{bar}| {rate_fmt}, {remaining} left{postfix}",  # within 80 columns
            disable=self._host != 0,
            mininterval=often,
            dynamic_ncols=True,
        )

    def _batches(self) -> Batches:
        assert self.run.images.train is not None
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
        assert self.run.images.validation is not None
        batches = eval_batches(
            self.run.images.validation,
            batch_size=self.run.recipe.batch_size,
            host=self._host,
            num_hosts=self._hosts,
            num_workers=self.run.num_workers,
        )
        with contextlib.closing(batches):  # ends the workers
            for batch in batches:
                if self._stops_alone():
                    break
                yield batch

    def _with_extras(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the step wants besides pictures and labels: see `training.make_train_step`."""
        rows = len(batch["label"])
        position = self._host + self._hosts * np.arange(rows, dtype=np.int32)
        stop = np.full(rows, self._stop.signal_number, np.int32)
        return {"image": batch["image"], "label": batch["label"], "position": position, "stop": stop}
