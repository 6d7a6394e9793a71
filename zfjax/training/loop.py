"""The loop of training: steps, checkpoints, validation and annealing, as a generator of what happens.

`train` does the work and tells of it by events; it draws nothing, prints nothing, and writes nothing but checkpoints.
What to do about an event is the caller's: a progress bar, a log, a plot. It can be stopped and continued after any
step, and no bit of what comes out depends on that.

Examples:
  A table of two layers, trained for one epoch on pictures in memory:

    >>> import numpy as np
    >>> from zfjax import Architecture, Conv, Dense
    >>> from zfjax.data import ArraySource
    >>> from zfjax.training import Recipe
    >>> from zfjax.training.loop import EpochDone, Run, Stepped, train
    >>> layers = (Conv("conv1", 4, kernel=3, stride=2), Dense("fc2", 3, hidden=False))
    >>> table = Architecture("small", layers, image_size=9, input_scale=7 / 58)
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 10, 10, 3), np.uint8)
    >>> run = Run(
    ...     architecture=table,
    ...     recipe=Recipe(batch_size=8, num_epochs=1, initialization="he", annealing="cosine"),
    ...     train=ArraySource(images, np.arange(40) % 3),
    ...     mean=images.mean(axis=0, dtype=np.float32),
    ... )
    >>> losses = []
    >>> for event in train(run):
    ...     if isinstance(event, Stepped):
    ...         losses.append(event.loss)
    ...     elif isinstance(event, EpochDone):
    ...         print(f"epoch {event.epoch} after step {event.step}, {len(losses)} losses")
    epoch 1 after step 5, 5 losses
    >>> sorted(event.progress.state.params)  # the last event holds the parameters
    ['conv1', 'fc2']

  With `folder=` checkpoints are written there, and a run goes on from the newest:

    run = Run(..., folder=folder)
    for event in train(run, begin(run, checkpoints.load(folder, with_optimizer=True))): ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from zfjax import parallel
from zfjax.architecture import Architecture
from zfjax.data import Source
from zfjax.data.loader import eval_batches, steps_per_epoch, train_batches
from zfjax.errors import DivergedError, UserError
from zfjax.pixels import as_size, size_words
from zfjax.training import checkpoints, evaluation, step
from zfjax.training.step import Annealing, Metrics, Recipe, TrainState

ASK_STEPS = 8  # steps, or batches of a validation, between two times that several hosts agree on whether to stop


@dataclass(frozen=True, eq=False)
class Run:
    """The fixed parts of a training; UserError for parts that do not fit together."""

    architecture: Architecture
    recipe: Recipe
    train: Source  # pictures of one size, at least a batch of them
    mean: np.ndarray  # float32 [H, W, C], mean training picture
    validation: Source | None = None  # pictures of the same size; None: no error is measured
    folder: Path | None = None  # its folder `checkpoints` gets the checkpoints; None: none are written
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # JSON that every checkpoint keeps for you
    save_steps: int | None = None  # steps between checkpoints inside an epoch; None: only after each epoch
    kept_epochs: tuple[int, ...] = checkpoints.EVOLUTION_EPOCHS  # whose checkpoints stay; else the latest few do
    num_workers: int = 0  # processes that read and decode; the order of images does not depend on it

    def __post_init__(self) -> None:
        for name, least in (("save_steps", 1), ("num_workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name}={value}: at least {least} is needed")
        height, width, channels = self.architecture.image_shape
        if self.mean.ndim != 3 or self.mean.shape[2] != channels:
            raise UserError(
                f"mean of shape {self.mean.shape}: {self.architecture.name} has {channels} channels, so pictures of "
                f"[H, W, {channels}] are needed"
            )
        if height > self.mean.shape[0] or width > self.mean.shape[1]:
            raise UserError(
                f"image_size={self.architecture.image_size}: crops of at most "
                f"{size_words(as_size(self.mean.shape[:2]))} pixels, the size of the pictures, are needed"
            )
        if self.validation is None and self.recipe.annealing == "plateau":
            raise UserError("validation=None: annealing='plateau' watches its error; give one, or annealing='cosine'")
        steps_per_epoch(self.train, self.recipe.batch_size)

    @property
    def epoch_steps(self) -> int:
        """Steps of one epoch."""
        return steps_per_epoch(self.train, self.recipe.batch_size)

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """`training.make_train_step` on all devices; compiled once, however often the run goes on."""
        train_step = step.make_train_step(self.recipe, self.architecture, self.mean)
        return parallel.data_parallel(train_step, donate_state=True)

    @functools.cached_property
    def evaluate(self) -> Callable[..., evaluation.Errors]:
        """`evaluation.make_evaluate` of the network; compiled once too."""
        return evaluation.make_evaluate(self.architecture, self.mean)


class Totals(NamedTuple):
    """Training metrics summed over the epoch so far."""

    loss: float = 0.0
    correct: float = 0.0
    count: float = 0.0  # type: ignore[assignment]  # images; hides tuple.count

    def add(self, metrics: Metrics) -> Totals:
        """With one more step."""
        sums = (float(metrics.loss), float(metrics.correct), float(metrics.count))
        return Totals(*(total + more for total, more in zip(self, sums, strict=True)))


class Progress(NamedTuple):
    """The changing parts of a training, between two steps."""

    state: TrainState
    annealing: Annealing
    totals: Totals


class Stepped(NamedTuple):
    """A step is done; the next one runs already."""

    step: int  # steps done, counted over all epochs
    loss: float  # mean cross-entropy of its batch, nats
    accuracy: float  # share of its batch whose most probable class is the true one
    gradient_norm: float  # Euclidean norm of the mean gradient, before the update
    num_images: int  # in its batch, over all hosts


class Saved(NamedTuple):
    """A checkpoint is being written; it appears under its step when it is complete."""

    step: int


class EpochDone(NamedTuple):
    """An epoch is trained and validated."""

    step: int
    epoch: int  # epochs done
    learning_rate: float  # of its steps
    train_loss: float  # mean over its images, nats, with dropout
    train_top1_error: float  # share of its images, with dropout
    validation_top1_error: float | None  # share of all validation images; None without any
    validation_top5_error: float | None  # None of five classes or fewer, too
    images_per_second: float | None  # of its steps in this process; None where all were done before


class Halted(NamedTuple):
    """The last event of a run that was asked to stop, after it was saved."""

    step: int
    progress: Progress  # in NumPy arrays; `train` goes on from it


class Finished(NamedTuple):
    """The last event of a run that has done all its epochs."""

    step: int
    progress: Progress  # in NumPy arrays; its state holds the parameters


Event = Stepped | Saved | EpochDone | Halted | Finished


class Diverged(DivergedError):
    """The loss or the gradient of a step is not finite."""

    def __init__(self, quantity: str, value: float, *, step: int, saved_steps: list[int]):
        super().__init__(f"{quantity}={value} at step {step}: training diverged")
        self.quantity, self.value, self.step = quantity, value, step
        self.saved_steps = saved_steps  # steps of the checkpoints that stay


def begin(
    run: Run, checkpoint: checkpoints.Checkpoint | None = None, *, annealing: Annealing | None = None
) -> Progress:
    """The progress of a run before its first step, or from a checkpoint.

    Args:
      run: the run.
      checkpoint: read `with_optimizer`; None starts afresh.
      annealing: where it stands, where that is not what the checkpoint, or a fresh start, says.

    Raises:
      UserError: no epoch is left to train, or the checkpoint is of another network or has no optimizer.

    Examples:
      checkpoint = zfjax.checkpoints.load("runs/zfnet", with_optimizer=True)
      for event in loop.train(run, loop.begin(run, checkpoint)): ...  # goes on where it stopped
    """
    if annealing is None:
        annealing = Annealing.start(run.recipe) if checkpoint is None else checkpoint.annealing
    done = annealing.epoch if checkpoint is None else checkpoint.step // run.epoch_steps
    if done > run.recipe.num_epochs or annealing.epoch >= run.recipe.num_epochs:
        raise UserError(f"num_epochs={run.recipe.num_epochs}: the run has done {done} already")
    if checkpoint is not None and done == run.recipe.num_epochs and run.recipe != checkpoint.recipe:
        raise UserError(f"num_epochs={done}: all of them are trained; give a larger number to continue")
    fresh = step.init_state(run.recipe, run.architecture)
    if checkpoint is None:
        return Progress(fresh, annealing, Totals())
    return Progress(checkpoints.to_state(checkpoint, fresh), annealing, Totals(*checkpoint.settings["totals"]))


def train(
    run: Run, progress: Progress | None = None, *, should_stop: Callable[[], bool] = lambda: False
) -> Generator[Event, None, None]:
    """Train for all epochs of the recipe; a generator of events.

    Of each step comes `Stepped`; after every `save_steps` and each epoch `Saved`, where there is a folder; then the
    validation and `EpochDone`. The last event is `Finished` or `Halted`. An epoch is saved before its validation,
    which a continued run repeats to the same end. The work goes on only while events are asked for; closing the
    generator ends the workers and waits for what is being saved.

    Args:
      run: what is trained.
      progress: where to go on, from `begin` or an earlier last event; None begins afresh. It stays as it was.
      should_stop: asked after each step and between the batches of a validation; where it says True the run saves and
        ends with `Halted`. Of several hosts one is enough: all stop after the same step, at most `ASK_STEPS` later.

    Raises:
      Diverged: the loss or gradient of a step is not finite; the checkpoints stay.

    Examples:
      for event in loop.train(run):
          if isinstance(event, loop.EpochDone):
              print(event.epoch, event.validation_top1_error)
    """
    loop = _Loop(run, begin(run) if progress is None else progress, should_stop)
    try:
        yield from loop.events()
    finally:
        loop.close()


class _Loop:
    """`train` at work."""

    def __init__(self, run: Run, progress: Progress, should_stop: Callable[[], bool]):
        self._run, self._should_stop = run, should_stop
        self._host, self._hosts = parallel.host_count()
        own = jax.tree.map(np.array, jax.device_get(progress.state))  # a step reuses the memory of its state
        self._state = parallel.replicate(own)
        self._annealing, self._totals = progress.annealing, progress.totals
        self._step = int(own.step)
        self._stopping = False  # the same on every host
        self._seconds, self._images = 0.0, 0  # of this epoch's steps in this process
        self._batches = self._train_batches()
        self._checkpoints = None
        if run.folder is not None:
            kept = [epoch * run.epoch_steps for epoch in run.kept_epochs]
            self._checkpoints = checkpoints.Checkpoints(run.folder / "checkpoints", kept_steps=kept)

    def events(self) -> Iterator[Event]:
        """All that happens."""
        while self._annealing.epoch < self._run.recipe.num_epochs:
            yield from self._steps_of_epoch()
            done = None if self._stopping else self._validate()
            if done is None:
                yield Halted(self._step, self._progress())
                return
            yield done
        yield Finished(self._step, self._progress())

    def close(self) -> None:
        """End the workers, and wait for what is being saved."""
        self._batches.close()
        gc.collect()  # JAX lets go of the last batches, whose shared memory has to be gone before Python is
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _steps_of_epoch(self) -> Iterator[Event]:
        """The rest of an epoch's steps and their checkpoints, or those before a stop."""
        end = (self._annealing.epoch + 1) * self._run.epoch_steps
        every = self._run.save_steps or end
        if self._step < end:  # else only its validation is left
            self._state = step.with_learning_rate(self._state, self._annealing.learning_rate)
        while self._step < end and not self._stopping:
            yield from self._steps(min(end, self._step - self._step % every + every))
            if self._checkpoints is not None:
                self._save(self._checkpoints)
                yield Saved(self._step)
            self._stopping = self._stopping or parallel.any_host(self._should_stop())

    def _steps(self, until: int) -> Iterator[Event]:
        """Steps up to `until` or a stop. Metrics are read while the next step runs, so the device never waits."""
        began, running = time.monotonic(), None
        while self._step < until and not self._stopping:
            batch = parallel.split(self._with_positions(next(self._batches)))
            self._state, metrics = self._run.train_step(self._state, batch)
            self._step += 1
            if running is not None:
                yield self._read(running, self._step - 1)
            running = metrics
            self._stopping = self._asked_to_stop(self._step)
        if running is not None:
            yield self._read(running, self._step)
        self._seconds += time.monotonic() - began

    def _read(self, metrics: Metrics, step: int) -> Stepped:
        """Wait for a step's metrics, judge and add them."""
        metrics = jax.device_get(metrics)
        for quantity, value in (("loss", float(metrics.loss)), ("gradient norm", float(metrics.gradient_norm))):
            if not math.isfinite(value):
                saved_steps = [] if self._checkpoints is None else self._checkpoints.steps()
                raise Diverged(quantity, value, step=step, saved_steps=saved_steps)
        self._totals = self._totals.add(metrics)
        num_images = int(metrics.count)
        self._images += num_images
        loss, accuracy = float(metrics.loss / metrics.count), float(metrics.correct / metrics.count)
        return Stepped(step, loss, accuracy, float(metrics.gradient_norm), num_images)

    def _validate(self) -> EpochDone | None:
        """The epoch, with its error on the whole validation split, and the annealing after it; None after a stop."""
        errors: evaluation.Shares | dict[str, float] = {}
        if self._run.validation is not None:
            counts = self._run.evaluate(self._state.params, self._validation_batches(self._run.validation))
            if self._stopping:
                return None
            errors = counts.shares(num_classes=self._run.architecture.num_classes)
        totals, rate = self._totals, step.learning_rate(self._state)
        self._annealing = step.anneal(self._annealing, errors.get("top1", math.inf), self._run.recipe)
        speed = self._images / self._seconds if self._images else None
        self._totals, self._seconds, self._images = Totals(), 0.0, 0
        return EpochDone(
            step=self._step,
            epoch=self._annealing.epoch,
            learning_rate=rate,
            train_loss=totals.loss / totals.count,
            train_top1_error=1 - totals.correct / totals.count,
            validation_top1_error=errors.get("top1"),
            validation_top5_error=errors.get("top5"),
            images_per_second=speed,
        )

    def _asked_to_stop(self, count: int) -> bool:
        """Whether a host was asked to stop; several of them agree at every `ASK_STEPS`th count alone."""
        return (self._hosts == 1 or count % ASK_STEPS == 0) and parallel.any_host(self._should_stop())

    def _progress(self) -> Progress:
        return Progress(jax.tree.map(np.array, jax.device_get(self._state)), self._annealing, self._totals)

    def _save(self, store: checkpoints.Checkpoints) -> None:
        snapshot = checkpoints.to_checkpoint(
            self._state,
            architecture=self._run.architecture,
            mean=self._run.mean,
            recipe=self._run.recipe,
            annealing=self._annealing,
            settings={**self._run.settings, "totals": list(self._totals)},
        )
        store.save(snapshot)

    def _train_batches(self) -> Generator[dict[str, np.ndarray], None, None]:
        recipe = self._run.recipe
        return train_batches(
            self._run.train,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            num_epochs=recipe.num_epochs,
            first_step=self._step,
            host=self._host,
            num_hosts=self._hosts,
            num_workers=self._run.num_workers,
        )

    def _validation_batches(self, source: Source) -> Iterator[dict[str, np.ndarray]]:
        """The validation split, or its batches before a stop."""
        batches = eval_batches(
            source,
            batch_size=self._run.recipe.batch_size,
            host=self._host,
            num_hosts=self._hosts,
            num_workers=self._run.num_workers,
        )
        with contextlib.closing(batches):  # ends the workers
            for count, batch in enumerate(batches):
                self._stopping = self._asked_to_stop(count)
                if self._stopping:
                    break
                yield batch

    def _with_positions(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the step wants: see `training.make_train_step`."""
        evaluation.check_labels(batch["label"], self._run.architecture.num_classes)
        position = self._host + self._hosts * np.arange(len(batch["label"]), dtype=np.int32)
        return {"image": batch["image"], "label": batch["label"], "position": position}
