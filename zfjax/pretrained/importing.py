"""A network that was trained elsewhere, read, compared with its exporter, and kept as a run folder like any other."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict
from urllib.parse import parse_qsl, urlencode

import numpy as np

from zfjax import files, nets
from zfjax.architecture import Architecture, Size
from zfjax.data.archives import official_synsets
from zfjax.errors import UserError, check_name, naming
from zfjax.features import layers_of
from zfjax.pixels import size_of, size_words
from zfjax.pretrained.parity_report import (
    ParityFacts,
    ParityRow,
    check_parity,
    exporter_parity,
    parity_facts,
    read_exporter_run,
)
from zfjax.pretrained.tables import TABLES, ImportedNet, ImportTable, as_images, from_file
from zfjax.pretrained.torchvision_nets import TORCHVISION, TorchvisionNet, torchvision
from zfjax.results import RESULT
from zfjax.training import Annealing, Recipe, TrainState, checkpoints, make_optimizer


@dataclass(frozen=True, kw_only=True)
class Import:
    """Options of an import."""

    weights: Path
    """File of weights: of PyTorch (.pt, .pth, .bin, TorchScript), .safetensors, .onnx, .npz, Keras, Flax, or Orbax."""
    table: str = "zfnet"
    """alexnet-torchvision, zfnet or zfnet-512; module:NAME of an ImportTable of your own; or one of torchvision's,
    as resnet18, which is compared and needs no run folder afterwards."""
    key: str | None = None
    """Entry of the file to take, as "ema"; by default the weights as trained."""
    prefix: str = ""
    """What the names of the network's weights begin with, as "model."; it is left out, and so are all others."""
    sha256: str | None = None
    """What the file's SHA-256 has to begin with."""
    class_names: Path | None = None
    """Text file with the name of a class in each line, in the order of the logits; by default ImageNet's 1000."""
    data: str = "data"
    """Prepared set, or folder of pictures, that is looked at by default."""
    picture_size: Size = 256
    """Side of its pictures, or their (height, width), pixels."""
    outputs: Path | None = None
    """An .npz of the exporter's inputs and outputs, and better its pictures too, to compare with."""


class WeightFacts(TypedDict):
    """What tells weights from others, and what was chosen of their file."""

    name: str
    blake2b: str
    notes: list[str]


class ImportFacts(TypedDict):
    """What a result says of an imported network."""

    architecture: Architecture | None  # None of torchvision's
    kind: NotRequired[str]  # of torchvision's, as resnet18
    num_parameters: int
    parity: list[ParityFacts]  # empty without outputs to compare with
    weights: WeightFacts


class Imported(NamedTuple):
    """An imported network, with its comparison if outputs were given."""

    facts: ImportFacts
    checkpoint: checkpoints.Checkpoint | None  # None of torchvision's, which `load_net` opens from their file


def read_import(asked: Import) -> Imported:
    """Read the weights and compare the network with its exporter's; nothing is written.

    Raises:
      UserError: a table, file or class names that do not fit, or a network that differs from the exporter's.

    Examples:
      imported = read_import(Import(weights=Path("alexnet.pth"), table="alexnet-torchvision"))
      imported.checkpoint.architecture
    """
    if asked.table in TORCHVISION:
        return _torchvision(asked)
    table = table_of(asked.table)
    names = _class_names(asked, table)
    net = from_file(asked.weights, table.with_classes(len(names)), **_chosen(asked))
    least, channels = net.architecture.image_size, net.architecture.channels
    if any(own < side for own, side in zip(size_of(asked.picture_size), size_of(least), strict=True)):
        needed = "the side of the net's input" if isinstance(least, int) else "the size of the net's input"
        raise UserError(f"picture_size={asked.picture_size}: at least {size_words(least)}, {needed}, is needed")
    rows = [] if asked.outputs is None else compared(net, asked.outputs, table)
    check_parity(rows)
    weights = _identity(asked.weights, net.params, net.notes)
    recipe = Recipe()  # how it was trained is not known
    checkpoint = checkpoints.to_checkpoint(
        TrainState(np.zeros((), np.int32), net.params, make_optimizer(recipe).init(net.params)),
        architecture=net.architecture,
        mean=np.broadcast_to(net.mean, (*size_of(asked.picture_size), channels)).copy(),
        recipe=recipe,
        annealing=Annealing.start(recipe),
        settings={"data": asked.data, "class_names": list(names), "imported": weights},
    )
    facts: ImportFacts = {
        "architecture": net.architecture,
        "num_parameters": net.architecture.num_parameters(),
        "parity": parity_facts(rows),
        "weights": weights,
    }
    return Imported(facts, checkpoint)


def compared(net: ImportedNet, outputs: Path, table: ImportTable) -> list[ParityRow]:
    """How far an imported network is from its exporter, layer by layer.

    Args:
      net: the network.
      outputs: .npz of the exporter's run, as `read_exporter_run` reads it.
      table: what the network was imported by.
    """
    exporter = read_exporter_run(outputs)
    fn = layers_of(net.params, list(exporter.outputs), architecture=net.architecture)
    return exporter_parity(fn, exporter, as_images=partial(as_images, table=table), preprocess=net.preprocess)


def _torchvision(asked: Import) -> Imported:
    net = _net_of(asked)
    rows = [] if asked.outputs is None else net.parity(asked.outputs)
    check_parity(rows)
    facts: ImportFacts = {
        "architecture": None,
        "kind": asked.table,
        "num_parameters": sum(array.size for layer in net.params.values() for array in layer.values()),
        "parity": parity_facts(rows),
        "weights": _identity(asked.weights, net.params, net.notes),
    }
    return Imported(facts, None)


def _net_of(asked: Import) -> TorchvisionNet:
    names = None if asked.class_names is None else _names_in(asked.class_names)
    return torchvision(asked.table, asked.weights, class_names=names, **_chosen(asked))


_CHOICES = ("key", "prefix", "sha256", "class_names")  # what the name of a net may say of a file


def name_of(asked: Import) -> str:
    """What `zfjax.load_net` opens one of torchvision's by, with all that was asked of its file.

    Examples:
      >>> from zfjax.pretrained import importing
      >>> importing.name_of(importing.Import(weights="c.pt", table="resnet18", key="run/ema"))
      'torchvision:resnet18:c.pt?key=run/ema'
    """
    chosen = {name: str(value) for name in _CHOICES if (value := getattr(asked, name))}
    return f"torchvision:{asked.table}:{asked.weights}{'?' if chosen else ''}{urlencode(chosen, safe='/')}"


def by_name(name: str) -> TorchvisionNet:
    """The network of "KIND:FILE", or "KIND:FILE?key=ema&prefix=model.": what `name_of` writes behind "torchvision:".

    UserError for what `torchvision` refuses, or a choice that is not known.
    """
    kind, _, file = name.partition(":")
    chosen: dict[str, Any] = {}
    if "?" in file and not Path(file).exists():
        file, _, query = file.rpartition("?")
        chosen = dict(parse_qsl(query, keep_blank_values=True))
        if not chosen or not chosen.keys() <= set(_CHOICES):
            raise UserError(f"net='torchvision:{name}': no file, and behind ? {'=, '.join(_CHOICES)}= are known")
    if "class_names" in chosen:
        chosen["class_names"] = Path(chosen["class_names"])
    return _net_of(Import(weights=Path(file), table=kind, **chosen))


def folder_of(weights: Path, out: Path | None) -> Path:
    """Where an import goes: `out`, or runs/<name of the weights>; UserError where a run that was trained lies."""
    folder = nets.RUNS / weights.stem if out is None else out
    check_name("out", folder)
    if (folder / "checkpoints").exists() and not (folder / RESULT).exists():
        raise UserError(f"out={str(folder)!r}: a run that was trained lies there; give another folder")
    return folder


@contextlib.contextmanager
def replacing(folder: Path, checkpoint: checkpoints.Checkpoint) -> Iterator[None]:
    """Put the checkpoint into a run folder, in place of one that may be there; nothing changes until it is whole.

    What is done meanwhile, as writing what the folder says of itself, is done when it is, and before it is in place.
    """
    fresh, old = folder / ".checkpoints.new", folder / ".checkpoints.old"
    for rest in (fresh, old):
        shutil.rmtree(rest, ignore_errors=True)
    store = checkpoints.Checkpoints(fresh)
    store.save(checkpoint)
    store.close()
    yield
    if (folder / "checkpoints").exists():
        (folder / "checkpoints").rename(old)
    fresh.rename(folder / "checkpoints")
    shutil.rmtree(old, ignore_errors=True)


def table_of(name: str) -> ImportTable:
    """A table by its name, or module:NAME; UserError where there is none."""
    module, colon, attribute = name.partition(":")
    if not colon:
        if name not in TABLES:
            raise UserError(
                f"table={name!r}: one of {', '.join(TABLES)}, module:NAME, or of "
                f"torchvision's {', '.join(TORCHVISION)}, is needed"
            )
        return TABLES[name]
    try:
        table = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"table={name!r}: {error}") from error
    if not isinstance(table, ImportTable):
        raise UserError(f"table={name!r} is of type {type(table).__name__}, not zfjax.pretrained.ImportTable")
    return table


def _class_names(asked: Import, table: ImportTable) -> tuple[str, ...]:
    """The classes of the logits, in their order."""
    if asked.class_names is not None:
        return _names_in(asked.class_names)
    official = official_synsets()
    if table.architecture.num_classes != len(official):
        raise UserError(f"class_names=None: the table has {table.architecture.num_classes} classes; name them")
    return official


def _names_in(path: Path) -> tuple[str, ...]:
    """The lines of a file; UserError where there are none."""
    with naming("class_names", path, "a text file with one name in each line is needed"):
        text = path.read_text()
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names:
        raise UserError(f"class_names={str(path)!r}: one name in each line is needed")
    return names


def _chosen(asked: Import) -> dict[str, Any]:
    """What of the file is asked for."""
    return {"key": asked.key, "prefix": asked.prefix, "sha256": asked.sha256}


def _identity(path: Path, params: Any, notes: tuple[str, ...]) -> WeightFacts:
    digest = files.digest(params) if path.is_dir() else hashlib.blake2b(path.read_bytes()).hexdigest()[:32]
    return {"name": path.name, "blake2b": digest, "notes": list(notes)}
