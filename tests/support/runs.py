"""Training runs of a few steps on pictures made up here, in this process or in one of their own.

`python tests/runs.py MOMENT FLAGS` is the training command with FLAGS; MOMENT, a key of `MOMENTS`, is what befalls it.
"""

import atexit
import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from pathlib import Path

import numpy as np

from experiments import train_imagenet
from zfjax import parallel
from zfjax.data import ArraySource, ImageSet
from zfjax.training import checkpoints, loop

SIDE, NUM_TRAIN, NUM_VALIDATION, BATCH = 40, 50, 19, 8  # neither split is a whole number of batches
EPOCH_STEPS, NUM_EPOCHS, SAVE_STEPS = 6, 3, 4  # so checkpoints come after the steps 4, 6, 8, 12, 16, 18

FLAGS = (
    *("--preset", "demo", "--architecture", "alexnet", "--image-size", "36", "--width", "0.04"),
    *("--demo-sizes", str(SIDE), str(NUM_TRAIN), str(NUM_VALIDATION), "--batch-size", str(BATCH)),
    *("--num-epochs", str(NUM_EPOCHS), "--save-steps", str(SAVE_STEPS), "--learning-rate", "0.03"),
    *("--annealing", "plateau", "--patience", "1"),
)


@functools.lru_cache
def tiny_set(seed=0):
    """Noise of ten brightnesses: enough for a gradient."""
    rng = np.random.default_rng(seed)

    def source(count):
        labels = rng.integers(0, 10, count)
        noise = rng.integers(0, 120, (count, SIDE, SIDE, 3))
        return ArraySource((noise + 13 * labels[:, None, None, None]).astype(np.uint8), labels)

    train, validation = source(NUM_TRAIN), source(NUM_VALIDATION)
    mean = np.mean([train[i]["image"] for i in range(NUM_TRAIN)], axis=0, dtype=np.float32)
    names = tuple(f"class {label}" for label in range(10))
    return ImageSet("demo", SIDE, names, train, validation, mean, None, f"made up from {seed}")


def train(monkeypatch, *flags, images=None):
    """The training command in this process, with its four devices."""
    monkeypatch.setattr(sys, "argv", ["train_imagenet", *map(str, flags)])
    monkeypatch.setattr(parallel, "connect_hosts", lambda **_: None)  # JAX runs already, alone
    train_imagenet.main(images or tiny_set())


@functools.cache
def cache():
    """A folder of compiled programs, shared by the processes; it changes no number and saves most of their time."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def start(*flags, moment="none", devices=4, environment=(), **popen):
    """The training command in a process of its own, which leads its own group as under a shell or Slurm."""
    xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"  # the last one counts
    paths = {"PYTHONPATH": str(Path(__file__).parents[2]), "XLA_FLAGS": xla}
    return subprocess.Popen(
        [sys.executable, __file__, moment, *map(str, flags)],
        env={**os.environ, **paths, **cache(), **dict(environment)},
        start_new_session=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **popen},
    )


def finish(*processes, timeout=500):
    """(exit status, output) of each; none is left running."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


@functools.cache
def whole():
    """(folder, output, terminal) of an uninterrupted run whose standard error is a terminal of 80 columns."""
    folder, pieces = Path(tempfile.mkdtemp(dir=cache()["JAX_COMPILATION_CACHE_DIR"])) / "run", []
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = start(*FLAGS, "--out", folder, stderr=theirs)
    os.close(theirs)

    def read_all():
        with contextlib.suppress(OSError):  # how Linux reports that the other side of a terminal is closed
            while piece := os.read(ours, 4096):
                pieces.append(piece)

    reader = threading.Thread(target=read_all)
    reader.start()
    ((status, output),) = finish(process)
    reader.join()
    os.close(ours)
    terminal = b"".join(pieces).decode()
    assert status == 0, output + terminal
    return folder, output, terminal


def records(folder):
    """metrics.jsonl but for the speeds, which differ from run to run."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def steps(folder):
    """Steps of a run's checkpoints."""
    return sorted(int(entry.name) for entry in (folder / "checkpoints").iterdir() if entry.is_dir())


def last(folder):
    """The newest checkpoint of a run, without the settings, which name its folder."""
    return checkpoints.load(folder, with_optimizer=True)._replace(settings={})


def fingerprint(folder):
    """Changes with any bit of what a run goes on from."""
    checkpoint = last(folder)
    arrays = checkpoints.digest((dict(checkpoint.params), checkpoint.optimizer))
    return arrays, checkpoint.step, checkpoint.annealing, checkpoint.recipe


# What befalls a run: each patches a public name of the program -------------------------------------------------------


def end_by(number):
    """Ctrl-C in a terminal and Slurm reach the workers too; a process that was killed alone must not leave them."""
    (os.kill if number == signal.SIGKILL else os.killpg)(os.getpid(), number)


def at_batch(count, number):
    """A signal when the loop asks for its batch `count` (from 0) of this process."""
    batches_of = loop.train_batches

    def batches(*args, **kwargs):
        for index, batch in enumerate(batches_of(*args, **kwargs)):
            if index == count:
                end_by(number)
            yield batch

    loop.train_batches = batches


def in_validation(epoch, number):
    """A signal between two batches of the validation after the epoch `epoch` (from 1) of this process."""
    batches_of, calls = loop.eval_batches, []

    def batches(*args, **kwargs):
        calls.append(args)
        for index, batch in enumerate(batches_of(*args, **kwargs)):
            if index == 1 and len(calls) == epoch:
                end_by(number)
            yield batch

    loop.eval_batches = batches


def in_save(step):
    """A kill where the checkpoint of `step` is written, before it gets its name."""
    rename = os.rename

    def killing_rename(source, target, **kwargs):
        if Path(target).name == str(step):
            end_by(signal.SIGKILL)
        rename(source, target, **kwargs)

    os.rename = killing_rename


MOMENTS = {
    "none": lambda: None,
    "killed in an epoch": lambda: at_batch(10, signal.SIGKILL),
    "killed in a save": lambda: in_save(8),
    "killed in a validation": lambda: in_validation(2, signal.SIGKILL),
    "terminated": lambda: at_batch(7, signal.SIGTERM),
    "interrupted in a validation": lambda: in_validation(1, signal.SIGINT),
}


if __name__ == "__main__":
    MOMENTS[sys.argv.pop(1)]()
    train_imagenet.main(tiny_set())
