"""Checkpoints of a run: written atomically by Orbax, read back whole or refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from zfjax import files, parallel, schema
from zfjax.architecture import Architecture, ContrastNorm, Conv, Dense, Pool
from zfjax.errors import FailedError, NotThereError, UserError, check_name, check_utf8
from zfjax.files import digest as digest
from zfjax.network import Params
from zfjax.training.step import Annealing, Recipe, TrainState

EVOLUTION_EPOCHS = (1, 2, 5, 10, 20, 30, 40, 64, 70)  # Fig. 4's, and the last
FORMAT = 2  # the newest of what is written; 0, before there were numbers, differs by nothing but the number itself
_OF_SQUARES = 1  # that of networks of square images, which versions before format 2 read too
_PARTS = ("network", "optimizer", "meta")
_UNFINISHED = "orbax-checkpoint-tmp"  # in the name of one that is being written
_UNFIT = (LookupError, TypeError, ValueError, AttributeError)  # of reading what holds something else than was written
_JUMP = 60.0  # seconds by which a clock is put, not corrected; Orbax waits by it
LATEST = 3  # newest checkpoints that are kept besides
RECORD = "digests.json"  # beside the checkpoints: {step: digest of all that its meta says, so of its arrays too}
_STORED_TYPES = {kind.__name__: kind for kind in (Architecture, Conv, Dense, Pool, ContrastNorm, Recipe, Annealing)}
_TOLD = (Architecture, Recipe, Annealing)  # what a meta says, each by its type's name


class _Meta(TypedDict):
    """What stands beside a checkpoint's arrays."""

    format: NotRequired[int]
    architecture: dict[str, object]
    recipe: dict[str, object]
    annealing: dict[str, object]
    step: int
    settings: dict[str, object]
    digests: dict[str, str]


class Checkpoint(NamedTuple):
    """Everything needed to resume a run, and to use its network."""

    architecture: Architecture
    params: Params  # NumPy arrays
    mean: np.ndarray  # float32 [H, W, C], mean training picture
    recipe: Recipe
    annealing: Annealing
    step: int  # steps done; with the recipe and the data it says which images come next
    settings: dict[str, Any]  # what else the program that trains wants back, as JSON
    optimizer: list[np.ndarray] | None  # leaves of the optimizer's state; None where only the network was asked for


class Checkpoints:
    """The checkpoints of one run, `<folder>/<step>/`.

    Saving goes on in the background while training continues; a checkpoint appears under its name when it is whole.
    The latest few stay, and those of `kept_steps`. `digests.json` beside them says what each one was when it was saved,
    so that no other one takes its place. Every host calls every method; host 0 writes. UserError where something else
    lies in the folder; FailedError, from `save` or `close`, where a checkpoint was not written.
    """

    def __init__(self, folder: Path, *, kept_steps: Sequence[int] = ()):
        check_utf8("folder", folder)
        check_names(folder)
        files.sweep(folder, [RECORD])
        policies = checkpoint_managers
        keep = policies.AnyPreservationPolicy([policies.LatestN(LATEST), policies.CustomSteps(list(kept_steps))])
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, cleanup_tmp_directories=True)
        self.folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._last: int | None = None  # the step that was handed over last
        self._clock = _clock()
        _without_echoes()

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, checkpoint: Checkpoint) -> None:
        """Write `checkpoint` under its step, unless that step is already there.

        UserError where its settings hold what JSON has not, as NaN.
        """
        if checkpoint.step in self._manager.all_steps():
            return
        network = {"params": dict(checkpoint.params), "mean": checkpoint.mean}
        meta = {
            "format": _OF_SQUARES if isinstance(checkpoint.architecture.image_size, int) else FORMAT,
            "architecture": _encode(checkpoint.architecture),
            "recipe": _encode(checkpoint.recipe),
            "annealing": _encode(checkpoint.annealing),
            "step": checkpoint.step,
            "settings": checkpoint.settings,
        }
        meta["digests"] = {"network": digest(network), "optimizer": digest(checkpoint.optimizer), "meta": _digest(meta)}
        items = {
            "network": ocp.args.StandardSave(network),
            "optimizer": ocp.args.StandardSave(checkpoint.optimizer),
            "meta": ocp.args.JsonSave(meta),
        }
        with self._failing():  # of this one, or of the one before, which is written by now
            self._clock = _clock()
            self._record(checkpoint.step, _digest(meta))
            begun = self._manager.save(checkpoint.step, args=ocp.args.Composite(**items))
        if not begun:  # Orbax passes over a step that is below another
            raise FailedError(
                f"{self.folder} holds a later step than {checkpoint.step}, so that none is saved: {self.steps()}"
            )
        self._last = checkpoint.step

    def close(self) -> None:
        """Wait until what was saved is whole, and let go of the folder."""
        with self._failing():
            self._manager.wait_until_finished()
            self._manager.close()
        if self._last is not None and parallel.host_count()[0] == 0 and self._last not in steps_in(self.folder):
            raise FailedError(f"the checkpoint of step {self._last} is not in {self.folder}, though it was saved")

    def _record(self, step: int, digest: str) -> None:
        """Write down what the checkpoint of `step` will be, before it appears: what is there was recorded."""
        if parallel.host_count()[0] != 0:
            return
        record = _read_record(self.folder)
        if record is None:  # saved by a version that wrote none
            there = {str(before): _digest_there(self.folder, before) for before in self.steps()}
            record = {name: known for name, known in there.items() if known is not None}
        kept = {*map(str, self.steps()), str(self._last)}
        record = {name: known for name, known in record.items() if name in kept}
        files.save_json(self.folder / RECORD, {**record, str(step): digest})

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What Orbax and its stores raise, as an error that names the folder; they raise many kinds."""
        try:
            yield
        except Exception as error:
            self._last = None  # told here
            why, way_on = _first_line(error), "go on from there"
            if "No space left" in str(error):
                why, way_on = "no space is left there (No space left on device)", "make room to go on"
            elif abs(jump := _clock() - self._clock) > _JUMP:
                why = f"the machine's clock jumped by {jump:+,.0f} s while it was written ({why})"
            raise FailedError(
                f"a checkpoint could not be written to {self.folder}: {why}; what was saved before stays, {way_on}"
            ) from error


def _clock() -> float:
    """How far the machine's clock is ahead of the one that never jumps, in seconds."""
    return time.time() - time.monotonic()


@functools.cache
def _without_echoes() -> None:
    """From now on a failed save is told once, by `Checkpoints`; the threads of Orbax and TensorStore say it 20 times.

    They still do so after the folder is let go of, so this is not taken back.
    """
    logging.getLogger("absl").addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))
    loud = sys.unraisablehook

    def show(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":  # of TensorStore's callbacks
            loud(unraisable)

    sys.unraisablehook = show


def to_checkpoint(
    state: TrainState,
    *,
    architecture: Architecture,
    mean: np.ndarray,
    recipe: Recipe,
    annealing: Annealing,
    settings: dict[str, Any],
) -> Checkpoint:
    """A snapshot of `state` in host memory, and what belongs to it."""
    host = jax.tree.map(np.array, jax.device_get(state))
    leaves = jax.tree.leaves(host.optimizer)
    return Checkpoint(architecture, host.params, mean, recipe, annealing, int(host.step), settings, leaves)


def to_state(checkpoint: Checkpoint, like: TrainState) -> TrainState:
    """The training state of `checkpoint`, in the structure of `like`, a state of the same network and recipe."""
    leaves, treedef = jax.tree.flatten(like.optimizer)
    stored = checkpoint.optimizer
    if stored is None or [leaf.shape for leaf in stored] != [leaf.shape for leaf in leaves]:
        raise UserError("checkpoint.optimizer: it was left out, or belongs to another network or optimizer")
    optimizer = jax.tree.unflatten(treedef, stored)
    return TrainState(np.asarray(checkpoint.step, np.int32), checkpoint.params, optimizer)


def find(path: Path | str) -> Path:
    """The checkpoint `<run>/checkpoints/<step>` that `path` means: itself, or the newest in a run's folder.

    Raises:
      NotThereError: where there is none, naming the path.
      UserError: a checkpoint that is not called by its step.

    Examples:
      zfjax.checkpoints.find("runs/zfnet")  # runs/zfnet/checkpoints/7000
    """
    check_name("checkpoint", path)
    check_utf8("checkpoint", path)
    path = Path(path).absolute()
    if any((path / part).is_dir() for part in _PARTS):
        if step_of(path.name) is None:
            raise UserError(f"checkpoint {path}: {path.name!r} is no step; call its folder by the step that it is of")
        return path
    for folder in (path / "checkpoints", path):
        if steps := steps_in(folder):
            return folder / str(steps[-1])
    is_of_a_run = path.parent.name == "checkpoints" and os.path.lexists(path)
    way_on = "take it away, to have the newest one taken" if is_of_a_run else "name a folder that holds one"
    raise NotThereError(f"no checkpoint at {path}: a run's folder or one of its checkpoints/<step> is needed; {way_on}")


def step_of(name: str) -> int | None:
    """The step that a checkpoint's folder is called by, a number as Python writes it; None for any other name."""
    return int(name) if name.isascii() and name.isdigit() and str(int(name)) == name else None


def check_names(folder: Path) -> None:
    """UserError where something else than checkpoints, and what a kill left of one, lies in a run's `checkpoints`."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (
            entry.is_dir()
            and step_of(entry.name) is None
            and not (_UNFINISHED in entry.name or files.is_hidden(entry.name))
        ):
            raise UserError(f"{folder} holds {entry.name!r}, which is no step: move it away, or call it by its step")


def check_newest(path: Path) -> None:
    """UserError where the run of checkpoint `path` has later ones: what goes on from it would mix with them."""
    later = [step for step in steps_in(path.parent) if step > int(path.name)]
    if later:
        raise UserError(f"checkpoint {path} has later ones beside it, {later}: remove them to resume from this one")


def load(path: Path | str, *, with_optimizer: bool = False) -> Checkpoint:
    """Read a checkpoint.

    Args:
      path: as for `find`.
      with_optimizer: also what is needed to go on training.

    Raises:
      FileNotFoundError: no checkpoint there.
      UserError: it is damaged, it is not the one that its run saved, its arrays are not those of the architecture that
        it names, or a newer version of zfjax wrote it.

    Examples:
      checkpoint = zfjax.checkpoints.load("runs/zfnet")
      checkpoint.architecture, checkpoint.step
    """
    path = find(path)
    parts = ["network", "optimizer"] if with_optimizer else ["network"]
    _check_format(path)
    read = _read(path, parts)
    try:
        schema.check(read.meta, _Meta)
        whole = _digest(read.meta)
        meta = dict(read.meta)
        digests = meta.pop("digests")
        actual = {name: digest(read[name]) for name in parts}
        actual["meta"] = _digest(meta)
        damaged = [name for name, value in actual.items() if value != digests[name]]
        if damaged:
            raise UserError(f"the contents of {', '.join(damaged)} are not those that were written")
        architecture, recipe, annealing = (_decode(meta[kind.__name__.lower()], kind) for kind in _TOLD)
        params, mean = read.network["params"], read.network["mean"]
        _check_shapes(params, architecture)
    except _UNFIT as error:
        raise _damaged(path, error) from error
    if meta["step"] != int(path.name):
        raise UserError(f"checkpoint {path} is of step {meta['step']}: call its folder by its step, {meta['step']}")
    _check_recorded(path, whole)
    optimizer = read.optimizer if with_optimizer else None
    return Checkpoint(architecture, params, mean, recipe, annealing, meta["step"], meta["settings"], optimizer)


def _check_format(path: Path) -> None:
    """UserError where a newer version wrote the checkpoint, whatever else that version does differently."""
    read = _read(path, [])
    try:
        schema.check(read.meta, dict[str, object])
        stored = read.meta.get("format", 0)
        if not isinstance(stored, int) or stored < 0:
            raise UserError(f"format={stored!r}: a whole number of 0 or more is needed")
    except _UNFIT as error:
        raise _damaged(path, error) from error
    if stored > FORMAT:
        raise UserError(
            f"checkpoint {path} is of format {stored}: it was written by a newer version of zfjax, and this one reads "
            f"formats 0 to {FORMAT}; update zfjax to read it"
        )


def _damaged(path: Path, error: Exception) -> UserError:
    others = [step for step in steps_in(path.parent) if str(step) != path.name]
    way_on = f"take it away, to go on from another: beside it stand {others}" if others else "no other one is beside it"
    return UserError(f"checkpoint {path} is damaged ({_first_line(error)}); {way_on}")


def _read(path: Path, parts: Sequence[str]) -> Any:
    items = {"meta": ocp.args.JsonRestore(), **{name: ocp.args.StandardRestore() for name in parts}}
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(path, ocp.args.Composite(**items))
    except Exception as error:  # Orbax and its stores raise many kinds; whatever it is, the file is no use
        raise _damaged(path, error) from error


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run's `checkpoints`, ascending; one appears under its name when it is whole."""
    return sorted(step for entry in folder.glob("*") if (step := step_of(entry.name)) is not None)


def _digest(meta: dict[str, Any]) -> str:
    """A hash of JSON; UserError where it has no such, as of NaN."""
    try:
        text = json.dumps(meta, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise UserError(f"settings: {error}; give values that JSON has") from error
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _read_record(folder: Path) -> dict[str, str] | None:
    """{step: digest} of the checkpoints in `folder` as they were saved; None where no such record lies there."""
    path = folder / RECORD
    if not path.exists():
        return None
    record: dict[str, str] = files.read_json(
        path, dict[str, str], "remove it to have its checkpoints opened by their own digests alone"
    )
    return record


def _digest_there(folder: Path, step: int) -> str | None:
    """What `RECORD` would say of the checkpoint that lies there; None for a damaged one."""
    try:
        return _digest(_read(folder / str(step), []).meta)
    except UserError:
        return None


def _check_recorded(path: Path, digest: str) -> None:
    """UserError where a checkpoint in a run's folder is whole, but not the one that was saved there."""
    record = _read_record(path.parent)
    if record is not None and record.get(path.name) != digest:
        raise UserError(
            f"checkpoint {path} is not the one that was saved there: it is another run's, or was changed. Put the "
            f"run's own back, or take this one out of the run; by itself, without {RECORD} beside it, it can be opened"
        )


def _check_shapes(params: Params, architecture: Architecture) -> None:
    expected = {name: (size.kernel, size.kernel[-1:]) for name, size in architecture.sizes().items()}
    stored = {name: (tuple(layer["kernel"].shape), tuple(layer["bias"].shape)) for name, layer in params.items()}
    if expected != stored:
        raise UserError(f"its kernels and biases {stored} are not those of {architecture.name}, {expected}")


def _encode(value: Any) -> Any:
    """A frozen dataclass as JSON, each with the name of its type."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    return [_encode(entry) for entry in value] if isinstance(value, tuple) else _json_number(value)


def _decode(value: Any, kind: type) -> Any:
    """What `_encode` wrote; UserError where it is no `kind`."""
    decoded = _value_of(value)
    if not isinstance(decoded, kind):
        raise UserError(f"a {type(decoded).__name__} stands in the place of the {kind.__name__}")
    if not isinstance(decoded, Architecture):  # which checks its rows itself
        schema.check(vars(decoded), kind)
    return decoded


def _value_of(value: Any) -> Any:
    if isinstance(value, dict):
        fields = {name: _value_of(entry) for name, entry in value.items() if name != "type"}
        return _STORED_TYPES[value["type"]](**fields)
    if isinstance(value, list):
        return tuple(_value_of(entry) for entry in value)
    return float(value) if value == "Infinity" else value


def _json_number(value: Any) -> Any:
    return "Infinity" if value == float("inf") else value  # JSON has no infinity


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
