"""The folder of a training run: one process at a time writes into it, begins there, or goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.shell import hosts
from experiments.shell.training_log import TrainingLog
from zfjax import files, nets, parallel
from zfjax.errors import HeldError, UserError, check_utf8, naming
from zfjax.training import checkpoints

PATIENCE = 10.0  # seconds that a run waits for an earlier process of its folder, which may still be saving

# What a run that was killed before its first checkpoint leaves; it is begun anew in place
_BEGUN = {files.LOCK, "config.json", "metrics.jsonl", "metrics.jsonl.strange", "curves.png", "curves.partial.png"}
_WRITTEN = ("config.json", "metrics.jsonl", "curves.png")  # of which a kill may leave half


class Place(NamedTuple):
    """Where a run writes, and what it goes on from."""

    folder: Path
    checkpoint: Path | None  # the newest one; None: it begins
    asked: str  # the folder as this host was told it, which all hosts should be told alike


@contextlib.contextmanager
def claimed(resume: Path | None, out: Path | None, data: str) -> Iterator[Place]:
    """The place of a run, which host 0 keeps for itself while entered; the same on every host.

    Args:
      resume: the run to go on with, or one of its checkpoints.
      out: else the run's folder, where it begins or goes on; None: a new one under runs/, named by `data` and the time.
      data: what the run is trained on, in a word.

    Raises:
      UserError, FileNotFoundError: another process is training there, something else lies there, or there is no such
        run; nothing was written.
    """
    with contextlib.ExitStack() as held:

        def claim() -> tuple[str, str | None]:
            folder, checkpoint = _claim(held, resume=resume, out=out, data=data)
            return str(folder), None if checkpoint is None else checkpoint.name

        name, step = parallel.of_host_0(claim)
        folder = Path(name)
        asked = parallel.of_every_host(lambda: folder if resume is None and out is None else _asked(resume, out))
        place = Place(folder, None if step is None else folder / "checkpoints" / step, os.path.realpath(asked))
        if place.checkpoint is not None:  # hosts that read different ones would wait for each other for ever
            newest = parallel.of_every_host(lambda: checkpoints.find(asked).name)
            parallel.check_agreement({"folder": place.asked, "newest checkpoint": newest})
        yield place


def _claim(held: contextlib.ExitStack, *, resume: Path | None, out: Path | None, data: str) -> tuple[Path, Path | None]:
    """(the folder, locked, the newest checkpoint in it or None)."""
    if resume is None and out is None:
        check_utf8("out", nets.RUNS)
        return _claim_new(held, nets.RUNS / f"{data}-{time.strftime('%Y%m%d-%H%M%S')}"), None
    folder = _asked(resume, out)
    check_utf8("out", folder)
    with naming("out" if resume is None else "resume", folder, "name another folder"):
        held.enter_context(files.claimed(folder, patience=PATIENCE))
    files.sweep(folder, _WRITTEN)
    checkpoints.check_names(folder / "checkpoints")
    if resume is not None:
        newest = checkpoints.find(resume)  # again: the process that was waited for has saved
        checkpoints.check_newest(newest)
        return folder, newest
    if steps := checkpoints.steps_in(folder / "checkpoints"):
        return folder, folder / "checkpoints" / str(steps[-1])
    for entry in folder.iterdir():
        if entry.name not in {*_BEGUN, "checkpoints"} and not re.fullmatch(hosts.LOG.format("[0-9]+"), entry.name):
            raise UserError(
                f"out={str(folder)!r} is not empty and holds no run: {entry.name!r} is there; name another folder"
            )
    _check_begun(folder)
    return folder, None


def _check_begun(folder: Path) -> None:
    """UserError where a run without a checkpoint had some: an epoch later than the first is recorded after one."""
    last = max((record["epoch"] for record in TrainingLog(folder).records() if record["kind"] == "epoch"), default=0)
    if last > 1:
        raise UserError(
            f"out={str(folder)!r} records {last} epochs and holds no checkpoint, so that it would begin anew: put "
            "checkpoints/ back, or name another folder"
        )


def _asked(resume: Path | None, out: Path | None) -> Path:
    """The folder that was named."""
    if resume is not None:
        return checkpoints.find(resume).parents[1]
    assert out is not None
    return out


def _claim_new(held: contextlib.ExitStack, first: Path) -> Path:
    """A folder that nobody has: `first`, or the same name with a number where another run began in the same second."""
    folder, number = first, 1
    while True:
        with contextlib.suppress(HeldError), contextlib.ExitStack() as attempt:
            with naming("out", folder, "name another folder, by --out"):
                attempt.enter_context(files.claimed(folder))
            if os.listdir(folder) == [files.LOCK]:
                held.enter_context(attempt.pop_all())
                return folder
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
