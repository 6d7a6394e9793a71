"""What every experiment starts from: a trained network from its run, a data set by name, and some of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from experiments import pictures
from zfjax import checkpoints
from zfjax.architecture import Architecture
from zfjax.data import ImageSet, Source, archives
from zfjax.network import Params
from zfjax.pixels import center_crop

if TYPE_CHECKING:  # these rooms are heavy
    from zfjax.data.photo_sets import PhotoSet
    from zfjax.pretrained import CaffeNet

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


def open_images(data: str | None, net: TrainedNet) -> ImageSet:
    """The pictures that a figure looks at: those that the net was trained on, another set by name, or a folder.

    Args:
      data: None for the net's own set, or as for `open_data`; or a folder of pictures, or one picture, which stand for
        both splits and are brought to the net's size (`zfjax.data.folder`).
      net: it says how large its pictures are, and what its classes are called.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: a prepared set of another size.
    """
    name = net.data if data is None else data
    path = Path(name)
    if name.split(":")[0] != "demo" and (path.is_file() or (path.is_dir() and not _is_prepared(path))):
        from zfjax.data import folder

        return folder.open_folder(path, len(net.mean), net.class_names)
    images = open_data(name)
    if images.size != len(net.mean):
        raise ValueError(f"data={name!r}: its pictures have {images.size} pixels a side, the net's {len(net.mean)}")
    return images


def validation_of(data: ImageSet) -> Source:
    """The validation split; ValueError where there is none."""
    if data.validation is None:
        raise ValueError(f"data={data.name!r} has no validation split")
    return data.validation


def choose(source: Source, num: int, seed: int) -> np.ndarray:
    """Places of at most `num` examples, drawn by the seed, ascending; ValueError for num below 1. -> int [n]"""
    if num < 1:
        raise ValueError(f"num_images={num}: at least 1 is needed")
    return np.sort(np.random.default_rng(seed).permutation(len(source))[:num])


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


def result_folder(out: Path | None, default: Path, *, overwrite: bool) -> Path:
    """Where a result goes: `out` or `default`; ValueError where one is already there and may not be replaced."""
    folder = default if out is None else out
    if (folder / "result.json").exists() and not overwrite:
        raise ValueError(f"out={str(folder)!r}: it already holds a result; give another folder, or --overwrite")
    if any(folder.glob("*.png")) and not (folder / "result.json").exists() and not overwrite:
        raise ValueError(
            f"out={str(folder)!r}: it holds pictures of something else; give another folder, or --overwrite"
        )
    return folder


def provenance(net: Pictured, data: ImageSet | PhotoSet, config: Any) -> dict[str, Any]:
    """What every result.json says about where its numbers come from."""
    return {
        "checkpoint": {"path": net.path, "fingerprint": net.fingerprint},
        "data": {"name": data.name, "fingerprint": data.fingerprint, "num_classes": len(data.class_names)},
        "config": config,
        "versions": pictures.versions(),
    }


def _is_prepared(folder: Path) -> bool:
    """Whether the folder was, or was begun to be, filled by `prepare_imagenet`."""
    from zfjax.data import imagenet

    return (folder / imagenet.NAME).is_dir()
