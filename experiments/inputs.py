"""What every experiment starts from: a data set by name, and a trained network from its run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from zfjax import checkpoints
from zfjax.architecture import Architecture
from zfjax.data import ImageSet
from zfjax.network import Params

RUNS = Path("runs")  # where runs are written and looked for, below the current directory


class TrainedNet(NamedTuple):
    """A network, and what belongs to it."""

    architecture: Architecture
    params: Params
    mean: np.ndarray  # float32 [S, S, 3], mean training picture
    path: Path  # of the checkpoint
    run: Path  # folder of the run
    data: str  # what it was trained on, for `open_data`
    class_names: tuple[str, ...]  # of its logits
    fingerprint: str  # changes with the weights


def newest_run() -> Path:
    """The run under `runs/` whose newest checkpoint is the youngest; FileNotFoundError naming how to make one."""
    folders = sorted(RUNS.glob("*/checkpoints/*/network"), key=lambda found: found.stat().st_mtime)
    if not folders:
        raise FileNotFoundError(
            f"no trained network under {RUNS}/: make one with `python -m experiments.train_imagenet --preset demo`, "
            "or name one with --checkpoint"
        )
    return folders[-1].parents[2]


def load_net(checkpoint: Path | None) -> TrainedNet:
    """The network of a checkpoint or run folder; of the newest run where none is named."""
    path = checkpoints.find(newest_run() if checkpoint is None else checkpoint)
    read = checkpoints.load(path)
    run = path.parents[1]
    data, class_names = read.settings["data"], tuple(read.settings["class_names"])
    fingerprint = checkpoints.digest(dict(read.params))
    return TrainedNet(read.architecture, read.params, read.mean, path, run, data, class_names, fingerprint)


def open_data(data: str) -> ImageSet:
    """A data set by name.

    Args:
      data: "demo"; or "demo:SIZE:TRAIN:VALIDATION" with the side of its pictures and the sizes of its splits; or the
        folder of a prepared set, "DIR", or "DIR:SIZE" where it holds several sizes.

    Raises:
      FileNotFoundError: no prepared set there; the message says how to make one.
      ValueError: a name that is none of these.
    """
    name, *numbers = data.split(":")
    if name == "demo":
        from zfjax.data import demo

        if len(numbers) not in (0, 3) or not all(number.isdigit() for number in numbers):
            raise ValueError(f"data={data!r}: 'demo', 'demo:SIZE:TRAIN:VALIDATION', 'DIR' or 'DIR:SIZE' is needed")
        return demo.demo_set(*(int(number) for number in numbers))
    from zfjax.data import imagenet

    folder, _, size = data.rpartition(":")
    return imagenet.open_imagenet(folder, int(size)) if folder and size.isdigit() else imagenet.open_imagenet(data)


def check_validation(data: ImageSet, net: TrainedNet) -> None:
    """ValueError where the set has no validation pictures of the net's size."""
    if data.validation is None:
        raise ValueError(f"data={data.name!r} has no validation split")
    if data.size != len(net.mean):
        raise ValueError(f"data={data.name!r}: its pictures have {data.size} pixels a side, the net's {len(net.mean)}")
