"""What the result.json of a command holds, and the one writer with what experiments write: figures and arrays."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import canvas
from zfjax import files
from zfjax import results as plain
from zfjax.data import ImageSet
from zfjax.data.photo_sets import PhotoSet
from zfjax.nets import Net, Training, training_of
from zfjax.results import FileFacts
from zfjax.results import check_apart as check_apart
from zfjax.results import check_free as check_free
from zfjax.results import check_names as check_names
from zfjax.results import claimed as claimed


class NetFacts(TypedDict):
    """A network as a result names it."""

    name: str
    fingerprint: str


class Checkpoint(TypedDict):
    """Where a network comes from."""

    path: Path | str  # its name where it comes from no file
    fingerprint: str
    training: NotRequired[Training]  # earlier versions did not write it


class DataFacts(TypedDict):
    """The pictures that were looked at."""

    name: str
    fingerprint: str
    num_classes: int
    left_out: NotRequired[Any]  # pictures that cannot be decoded, where there are any


class Written(TypedDict):
    """What every result.json holds."""

    config: Any  # the command's flags
    versions: dict[str, str]
    # `write` adds these
    folder: NotRequired[Path]
    command: NotRequired[str]
    files: NotRequired[dict[str, FileFacts]]


class Provenance(Written):
    """Where the numbers of a result come from."""

    net: NetFacts
    checkpoint: Checkpoint
    data: DataFacts


class Result(Provenance):
    """What the result.json of a figure or table holds whose numbers are those of a network."""

    paper: Any  # what the paper says, None where it says nothing
    seed: int


Whole = TypeVar("Whole", bound=Mapping[str, Any])


def write(
    folder: Path,
    result: Whole,
    *,
    command: str,
    contents: Mapping[str, Figure | Mapping[str, np.ndarray] | bytes],
) -> Whole:
    """`zfjax.results.write`; a figure is a .png, arrays are an .npz."""
    return plain.write(folder, result, command=command, contents=contents, encode=_encoded)


def _encoded(content: Figure | Mapping[str, np.ndarray] | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    return canvas.png(content) if isinstance(content, Figure) else files.npz(content)


def provenance(net: Net, data: ImageSet | PhotoSet, config: Any) -> Provenance:
    """What every result.json says about where its numbers come from."""
    facts: DataFacts = {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_classes": len(data.class_names),
    }
    if isinstance(data, ImageSet) and data.left_out:
        facts["left_out"] = data.left_out
    return {
        "net": {"name": net.name, "fingerprint": net.fingerprint},
        "checkpoint": checkpoint_of(net),
        "data": facts,
        "config": config,
        "versions": versions(),
    }


def checkpoint_of(net: Net) -> Checkpoint:
    """Where a network comes from, and what it was trained on."""
    path = getattr(net, "path", net.name)
    return {"path": path, "fingerprint": net.fingerprint, "training": training_of(net)}


def versions() -> dict[str, str]:
    """Versions of what computed and drew a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("jax", "numpy", "matplotlib")}
