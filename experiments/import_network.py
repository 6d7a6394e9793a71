"""A network that was trained elsewhere, as a run folder that every experiment here can load.

    python -m experiments.import_network --weights alexnet.pth --table alexnet-torchvision --data data
    python -m experiments.import_network --weights zfnet.onnx --table my_nets:TABLE --outputs zfnet_outputs.npz
    python -m experiments.deconv_figures --net runs/alexnet
    python -m experiments.import_network --weights resnet18.pth --table resnet18 --outputs resnet18_outputs.npz
    python -m experiments.deconv_figures --net torchvision:resnet18:resnet18.pth

What a file of weights does not say itself stands in a table: one of `zfjax.pretrained.TABLES`, or one of your own, a
`zfjax.pretrained.ImportTable` in a Python module on the path. Nothing in the file is executed. Given an .npz with what
the exporter's network read ("inputs", [B, C, H, W], as its first layer sees them) and handed on ("conv1" and so on,
after ReLU, pool and norm), the two networks are compared layer by layer, and an import that differs is refused. Only
with the "pictures" too (uint8 RGB [B, S, S, 3], whose centres became the inputs) are mean, std and channels compared.
Expected time: 10 s for the 61 million parameters of torchvision's AlexNet on two CPU cores. Expected result:
differences of 1e-6 of the largest value. Writes <out>/checkpoints/0 and <out>/result.json.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shell import command, results
from zfjax import files, nets, pretrained
from zfjax.data.archives import official_synsets
from zfjax.errors import UserError, check_name, naming
from zfjax.features import layers_of
from zfjax.training import Annealing, Recipe, TrainState, checkpoints, make_optimizer

COMMAND = "import_network"


@dataclass(frozen=True)
class Config:
    """Import a network into a run folder."""

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
    """Prepared set, or folder of pictures, that the experiments are to look at by default."""
    picture_size: int = 256
    """Side of its pictures, pixels."""
    outputs: Path | None = None
    """An .npz of the exporter's inputs and outputs, and better its pictures too, to compare with."""
    out: Path | None = None
    """Run folder to write; by default runs/<name of the weights>."""
    overwrite: bool = False
    """Replace an import that is already there."""


def run(config: Config) -> dict[str, Any]:
    """Import, compare and write.

    Returns:
      What result.json holds, with "folder". UserError or OSError, before anything is written, for a table, file or
      folder that does not fit, or a network that differs from the exporter's.
    """
    folder = run_folder(config)
    with results.claimed(folder, COMMAND, overwrite=config.overwrite):
        return import_and_write(config, folder)


def import_and_write(config: Config, folder: Path) -> dict[str, Any]:
    """The same, in a folder that was claimed."""
    if config.table in pretrained.TORCHVISION:
        return compare_and_write(config, folder)
    table = table_of(config.table)
    names = names_of(config, table)
    net = pretrained.from_file(config.weights, table.with_classes(len(names)), **chosen(config))
    size = net.architecture.image_size
    if config.picture_size < size:
        raise UserError(f"picture_size={config.picture_size}: at least {size}, the side of the net's input, is needed")
    rows = [] if config.outputs is None else compared(net, config.outputs, table)
    pretrained.check_parity(rows)
    weights = identity(config.weights, net.params, net.notes)
    recipe = Recipe()  # how it was trained is not known
    state = TrainState(np.zeros((), np.int32), net.params, make_optimizer(recipe).init(net.params))
    checkpoint = checkpoints.to_checkpoint(
        state,
        architecture=net.architecture,
        mean=np.broadcast_to(net.mean, (config.picture_size, config.picture_size, 3)).copy(),
        recipe=recipe,
        annealing=Annealing.start(recipe),
        settings={"data": config.data, "class_names": list(names), "imported": weights},
    )
    result = {
        "paper": None,
        "architecture": net.architecture,
        "num_parameters": net.architecture.num_parameters(),
        "parity": [row._asdict() | {"relative": row.relative} for row in rows],
        "weights": weights,
        "config": config,
        "versions": results.versions(),
    }
    return write(folder, checkpoint, result)


def compare_and_write(config: Config, folder: Path) -> dict[str, Any]:
    """The parity report of a network of torchvision's, which `--net torchvision:KIND:FILE` opens as it is."""
    names = None if config.class_names is None else names_in(config.class_names)
    net = pretrained.torchvision(config.table, config.weights, class_names=names, **chosen(config))
    rows = [] if config.outputs is None else net.parity(config.outputs)
    pretrained.check_parity(rows)
    result = {
        "paper": None,
        "architecture": None,
        "kind": config.table,
        "num_parameters": sum(array.size for layer in net.params.values() for array in layer.values()),
        "parity": [row._asdict() | {"relative": row.relative} for row in rows],
        "weights": identity(config.weights, net.params, net.notes),
        "config": config,
        "versions": results.versions(),
    }
    return results.write(folder, COMMAND, result, {})


def chosen(config: Config) -> dict[str, Any]:
    """What of the file is asked for."""
    return {"key": config.key, "prefix": config.prefix, "sha256": config.sha256}


def identity(path: Path, params: Any, notes: tuple[str, ...]) -> dict[str, Any]:
    """What tells these weights from others, and what was chosen of the file."""
    digest = files.digest(params) if path.is_dir() else hashlib.blake2b(path.read_bytes()).hexdigest()[:32]
    return {"name": path.name, "blake2b": digest, "notes": list(notes)}


def run_folder(config: Config) -> Path:
    """Where the import goes; UserError where a trained run lies."""
    folder = nets.RUNS / config.weights.stem if config.out is None else config.out
    check_name("out", folder)
    if (folder / "checkpoints").exists() and not (folder / "result.json").exists():
        raise UserError(f"out={str(folder)!r}: a run that was trained lies there; give another folder")
    return folder


def table_of(name: str) -> pretrained.ImportTable:
    """A table by its name, or module:NAME; UserError where there is none."""
    module, colon, attribute = name.partition(":")
    if not colon:
        if name not in pretrained.TABLES:
            raise UserError(
                f"table={name!r}: one of {', '.join(pretrained.TABLES)}, module:NAME, or of "
                f"torchvision's {', '.join(pretrained.TORCHVISION)}, is needed"
            )
        return pretrained.TABLES[name]
    try:
        table = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"table={name!r}: {error}") from error
    if not isinstance(table, pretrained.ImportTable):
        raise UserError(f"table={name!r} is of type {type(table).__name__}, not zfjax.pretrained.ImportTable")
    return table


def names_of(config: Config, table: pretrained.ImportTable) -> tuple[str, ...]:
    """The classes of the logits, in their order."""
    if config.class_names is not None:
        return names_in(config.class_names)
    official = official_synsets()
    if table.architecture.num_classes != len(official):
        raise UserError(f"class_names=None: the table has {table.architecture.num_classes} classes; name them")
    return official


def names_in(path: Path) -> tuple[str, ...]:
    """The lines of a file; UserError where there are none."""
    with naming("class_names", path, "a text file with one name in each line is needed"):
        text = path.read_text()
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names:
        raise UserError(f"class_names={str(path)!r}: one name in each line is needed")
    return names


def compared(net: pretrained.ImportedNet, outputs: Path, table: pretrained.ImportTable) -> list[pretrained.ParityRow]:
    """The parity report of the layers in the exporter's .npz."""
    exporter = pretrained.read_exporter_run(outputs)
    fn = layers_of(net.params, list(exporter.outputs), architecture=net.architecture)
    as_images = partial(pretrained.as_images, table=table)
    return pretrained.exporter_parity(fn, exporter, as_images=as_images, preprocess=net.preprocess)


def write(folder: Path, checkpoint: checkpoints.Checkpoint, result: dict[str, Any]) -> dict[str, Any]:
    """result.json and the checkpoint, in place of those that may be there; nothing changes until it is whole.

    Returns:
      What result.json holds.
    """
    fresh, old = folder / ".checkpoints.new", folder / ".checkpoints.old"
    for rest in (fresh, old):
        shutil.rmtree(rest, ignore_errors=True)
    store = checkpoints.Checkpoints(fresh)
    store.save(checkpoint)
    store.close()
    whole = results.write(folder, COMMAND, result, {})
    if (folder / "checkpoints").exists():
        (folder / "checkpoints").rename(old)
    fresh.rename(folder / "checkpoints")
    shutil.rmtree(old, ignore_errors=True)
    return whole


def report(result: dict[str, Any]) -> None:
    """Print the parity report, and what to do next."""
    rows = [pretrained.ParityRow(row["layer"], row["difference"], row["largest"]) for row in result["parity"]]
    print("\n".join(pretrained.parity_lines(rows)) if rows else "not compared: no --outputs of the exporter were given")
    for note in result["weights"]["notes"]:
        print(f"{result['weights']['name']}: {note}")
    kind = result.get("kind")
    net = f"torchvision:{kind}:{result['config'].weights}" if kind else result["folder"]
    print(f"{kind or result['architecture'].name}, {result['num_parameters']:,} parameters: {result['folder']}")
    print(f"Look at it:\n  python -m experiments.deconv_figures --net {net}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
