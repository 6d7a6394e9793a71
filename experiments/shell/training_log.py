"""What is shown and kept of a training run: a progress bar, `metrics.jsonl` with one JSON object a line, its curves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import jax
from tqdm import tqdm

from experiments.pages import canvas
from experiments.pages.training import draw_curves
from experiments.shell.command import Stopped, StopRequest
from zfjax import files, parallel, schema
from zfjax.errors import DivergedError, UserError, command_line
from zfjax.training import Recipe, loop
from zfjax.training.loop import EpochDone, Halted, Progress, Run, Stepped

_log = logging.getLogger(__name__)
LOG_STEPS = 20  # steps between the "step" records of metrics.jsonl
DRAW_SECONDS = 30.0  # at least, from one drawing of curves.png to the next


def train(run: Run, progress: Progress, *, stop: StopRequest, folder: Path) -> dict[str, Any]:
    """Train to the end, showing and recording what happens; host 0 does that for all.

    Returns:
      The record of the last epoch.

    Raises:
      FloatingPointError: the loss or gradient is not finite; the checkpoints stay.
      Stopped: a signal asked to leave; everything is saved.
    """
    first = parallel.host_count()[0] == 0
    log, record, begun = TrainingLog(folder), {}, int(progress.state.step)
    if first:
        log.rewind(begun, progress.annealing.epoch)
    events = loop.train(run, progress, should_stop=lambda: stop.signal_number > 0)
    with progress_bar(run, progress, is_drawn=first) as bar, log.curves() as redraw, contextlib.closing(events):
        try:
            for event in events:
                if isinstance(event, Stepped):
                    show_step(bar, event, is_first=event.step == begun + 1)
                    if first and event.step % LOG_STEPS == 0:
                        log.append(step_record(event, run.epoch_steps))
                elif isinstance(event, EpochDone):
                    record = epoch_record(event, num_classes=run.architecture.num_classes)
                    if first:
                        log.append(record)
                        redraw()
                        bar.write(epoch_line(record, run.recipe.num_epochs))
                    if event.epoch < run.recipe.num_epochs:
                        bar.set_description(f"epoch {event.epoch + 1}/{run.recipe.num_epochs}")
                elif isinstance(event, Halted):
                    message = f"stopped; saved after step {event.step}; go on with: {resume_command(folder)}"
                    raise Stopped(message, stop.signal_number or signal.SIGTERM)  # none: another host was asked
        except loop.Diverged as error:
            lower, stay = "with a lower --learning-rate", error.saved_steps
            advice = f"the checkpoints of steps {stay} stay: go on from the last good one {lower}"
            raise DivergedError(f"{error}; " + (advice if stay else f"begin anew {lower}")) from error
    return record


def progress_bar(run: Run, progress: Progress, *, is_drawn: bool) -> tqdm:
    """A bar over the images of the whole run, which stands where the run does."""
    recipe = run.recipe
    return tqdm(
        desc=f"epoch {progress.annealing.epoch + 1}/{recipe.num_epochs}",
        total=recipe.num_epochs * run.epoch_steps * recipe.batch_size,
        initial=int(progress.state.step) * recipe.batch_size,
        unit=" images",
        bar_format="{desc}{percentage:3.0f}%|{bar}| {rate_fmt}, {remaining} left{postfix}",  # within 80 columns
        disable=not is_drawn,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,  # seconds; a log file wants few lines
        dynamic_ncols=True,
        smoothing=0,  # the mean pace: a log file shows the bar too seldom for a recent one
    )


def show_step(bar: tqdm, event: Stepped, *, is_first: bool = False) -> None:
    """Advance a bar over images by a step; its pace is that of the steps after the first, which compiles."""
    if is_first:
        bar.initial, bar.start_t = bar.n + event.num_images, time.time()
        bar.last_print_t = bar.start_t  # it has been drawn: a bar that seems not to have been is not cleared at the end
    bar.set_postfix_str(f"loss {event.loss:.3f}, accuracy {event.accuracy:.1%}", refresh=False)
    bar.update(event.num_images)


def step_record(event: Stepped, epoch_steps: int) -> dict[str, Any]:
    """The "step" record of `metrics.jsonl`."""
    return {
        "kind": "step",
        "step": event.step,
        "epoch_done": event.step / epoch_steps,
        "loss": event.loss,
        "accuracy": event.accuracy,
        "gradient_norm": event.gradient_norm,
    }


def epoch_record(event: EpochDone, *, num_classes: int) -> dict[str, Any]:
    """The "epoch" record of `metrics.jsonl`; of five classes or fewer without a top-5 error."""
    record = {"kind": "epoch", **event._asdict()}
    if num_classes <= 5:
        del record["validation_top5_error"]
    return record


class _Step(TypedDict):
    step: int
    epoch_done: float
    loss: float


class _Epoch(TypedDict):
    step: int
    epoch: int
    learning_rate: float
    train_loss: float
    train_top1_error: float
    validation_top1_error: float | None
    validation_top5_error: NotRequired[float | None]  # not of five classes or fewer


KINDS: dict[str, Any] = {"step": _Step, "epoch": _Epoch}  # what is read of a record
_WAY_ON = "mend that line, or take it away, and go on"


class TrainingLog:
    """Appends records to `metrics.jsonl`: "kind": "step" every so many steps, "kind": "epoch" after each validation."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._path = folder / "metrics.jsonl"

    def records(self) -> list[dict[str, Any]]:
        """All records so far, each once; a last line cut short by a kill, and lines of something else, are left out.

        UserError, naming the line, for a record that is damaged.
        """
        return self._read()[0]

    def _read(self) -> tuple[list[dict[str, Any]], list[bytes]]:
        """(the records, the lines that never were any)."""
        if not self._path.exists():
            return [], []
        records: dict[tuple[Any, ...], dict[str, Any]] = {}  # of one that was recorded twice the last
        strange = []
        with files.naming(self._path):
            lines = self._path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            where = f"{self._path}: line {number}"
            try:
                record = files.parse_json(line, dict[str, object], where=where, way_on=_WAY_ON)
                kind = record.get("kind")
                problem = f"no kind {kind!r}" if kind not in KINDS else next(schema.faults(record, KINDS[kind]), "")
                if problem:
                    raise UserError(f"{where} is damaged ({problem}); {_WAY_ON}")
            except UserError:
                if number == len(lines):  # without its end: cut, or nothing
                    continue
                if b'"step"' in line:  # it was a record
                    raise
                strange += [line] if line.strip() else []
            else:
                records[kind, record["step"], record.get("epoch")] = record
        return list(records.values()), strange

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; it is on disk when this returns."""
        with files.naming(self._path), self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def rewind(self, step: int, epochs: int) -> None:
        """Drop what was recorded after `step`, or for an epoch after `epochs`: a continued run records it again.

        Lines of something else are kept aside, in `metrics.jsonl.strange`.
        """
        records, strange = self._read()
        if strange:
            aside = self._path.with_name(f"{self._path.name}.strange")
            with files.naming(aside), aside.open("ab") as file:
                file.writelines(line + b"\n" for line in strange)
            _log.warning("%s: %d lines are no records; they are kept in %s", self._path, len(strange), aside.name)
        kept = [
            record
            for record in records
            if record["step"] <= step and (record["kind"] != "epoch" or record["epoch"] <= epochs)
        ]
        files.write_atomically(self._path, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def draw(self) -> None:
        """Write `curves.png` from the records so far."""
        files.write_atomically(self.folder / "curves.png", canvas.png(draw_curves(self.records())))

    @contextlib.contextmanager
    def curves(self) -> Iterator[Callable[[], None]]:
        """A function that redraws `curves.png`: at most every `DRAW_SECONDS`, and what it put off at the end."""
        drawn, is_due = -math.inf, False

        def redraw() -> None:
            nonlocal drawn, is_due
            is_due = time.monotonic() - drawn < DRAW_SECONDS
            if not is_due:
                self.draw()
                drawn = time.monotonic()

        try:
            yield redraw
        finally:
            if is_due:
                self.draw()


def resume_command(folder: Path) -> str:
    """The command that goes on with the run in `folder`, as a shell reads it."""
    return command_line("python -m experiments.train_imagenet", "--resume", folder)


def epoch_line(record: dict[str, Any], num_epochs: int) -> str:
    """An "epoch" record in one line."""
    speed, top5 = record["images_per_second"], record.get("validation_top5_error")
    return (
        f"epoch {record['epoch']}/{num_epochs}: training loss {record['train_loss']:.3f}, "
        f"validation error top-1 {record['validation_top1_error']:.1%}, "
        + ("" if top5 is None else f"top-5 {top5:.1%}, ")
        + f"learning rate {record['learning_rate']:.2g}"
        + (f", {speed:.0f} images/s" if speed else "")
    )


def write_config(folder: Path, config: dict[str, Any], recipe: Recipe) -> None:
    """Write `config.json`: the settings of a run, and what it ran with."""
    versions = {name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")}
    machine = {"python": platform.python_version(), "devices": [str(device) for device in jax.devices()]}
    described = {"config": config, "recipe": dataclasses.asdict(recipe), "versions": versions, "machine": machine}
    files.save_json(folder / "config.json", described)
