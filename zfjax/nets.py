"""A trained network and what belongs to it, opened from its run, and the pictures that it sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from zfjax.architecture import Architecture
from zfjax.data import Source, archives
from zfjax.network import Params
from zfjax.pixels import center_crop
from zfjax.pretrained import CaffeNet
from zfjax.training import checkpoints

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

    @property
    def class_words(self) -> tuple[str, ...]:
        """The classes as people call them: "golf ball" where the class is the synset n03445777."""
        return archives.class_words(self.class_names)


class Pictured(Protocol):
    """What readers and pages ask of a network: a `TrainedNet`, or one that was trained elsewhere."""

    @property
    def architecture(self) -> Architecture | CaffeNet:
        """It knows the input's `image_size`."""
        ...

    @property
    def mean(self) -> np.ndarray:
        """The mean training picture, float32 [S, S, 3]."""
        ...

    @property
    def path(self) -> Path:
        """Where it was read from."""
        ...

    @property
    def class_words(self) -> tuple[str, ...]:
        """The classes as people call them."""
        ...

    @property
    def fingerprint(self) -> str:
        """It changes with the weights."""
        ...


def newest_run() -> Path:
    """The run under `runs/` whose newest checkpoint is the youngest; FileNotFoundError naming how to make one."""
    folders = sorted(RUNS.glob("*/checkpoints/*/network"), key=lambda found: found.stat().st_mtime)
    if not folders:
        raise FileNotFoundError(
            f"no trained network under {RUNS}/: make one with `python -m experiments.train_imagenet --preset demo`, "
            "or name its folder"
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


class Views(NamedTuple):
    """The centre crops of N examples, as the network and as a reader sees them; s is the net's image size."""

    images: np.ndarray  # float32 [N, s, s, 3] the net's input
    pictures: np.ndarray  # uint8 [N, s, s, 3]
    labels: np.ndarray  # int32 [N]; -1 where the set does not say
    objects: np.ndarray | None  # bool [N, s, s] the pixel lies on the object; None where the set does not say
    parts: np.ndarray | None  # float32 [N, P, 2] (y, x) of the parts, pixels of the crop; None likewise


def read_views(source: Source, indices: Sequence[int] | np.ndarray, net: Pictured) -> Views:
    """The examples at `indices` of a split whose pictures have the size of the net's mean."""
    size = net.architecture.image_size
    examples = [source[int(index)] for index in indices]
    stored = np.stack([example["image"] for example in examples]) if examples else np.zeros((0, *net.mean.shape), "u1")
    margin = (stored.shape[1] - size) // 2
    crop = np.s_[:, margin : margin + size, margin : margin + size]

    def told(name: str) -> np.ndarray | None:
        return np.stack([e[name] for e in examples]) if examples and all(name in e for e in examples) else None

    objects, parts = told("object"), told("parts")
    return Views(
        images=np.asarray(center_crop(stored, net.mean, size)),
        pictures=stored[crop],
        labels=np.array([example["label"] for example in examples], np.int32),
        objects=None if objects is None else objects[crop],
        parts=None if parts is None else parts - np.float32(margin),
    )
