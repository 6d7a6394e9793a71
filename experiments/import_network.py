"""Import a network that was trained elsewhere as a run folder, which every figure can use.

    python -m experiments.import_network --weights alexnet.pth --table alexnet-torchvision --data data
    python -m experiments.import_network --weights zfnet.onnx --table my_nets:TABLE --outputs zfnet_outputs.npz
    python -m experiments.deconv_figures --net runs/alexnet
    python -m experiments.import_network --weights resnet18.pth --table resnet18 --outputs resnet18_outputs.npz
    python -m experiments.deconv_figures --net torchvision:resnet18:resnet18.pth

An import table supplies what a file of weights does not say: one of `zfjax.pretrained.TABLES`, or your own, a
`zfjax.pretrained.ImportTable` in an importable Python module. Nothing in the file is executed. --outputs is an .npz
with an input of the exporter's network ("inputs", [B, C, H, W], as its first layer sees them) and its activations
("conv1" and so on, after ReLU, pool and norm); the two networks are compared layer by layer, and an import that differs
is refused. Mean, std and channel order are compared only if it also has the "pictures" (uint8 RGB [B, H, W, 3]), whose
centres became the inputs. Expected time: 10 s for the 61 million parameters of torchvision's AlexNet on two CPU cores.
Expected result: differences of 1e-6 of the largest value. Writes <out>/checkpoints/0 and <out>/result.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from experiments.shell import command, results
from experiments.shell.sizes import SizeFlag
from zfjax import pretrained
from zfjax.errors import command_line
from zfjax.pretrained.importing import ImportFacts

COMMAND = "import_network"


@dataclass(frozen=True, kw_only=True)
class Config(pretrained.Import):
    """Import a network into a run folder."""

    picture_size: SizeFlag = 256
    """Size of its pictures, pixels: a side, or HEIGHTxWIDTH."""
    out: Path | None = None
    """Run folder to write; by default runs/<name of the weights>."""
    overwrite: bool = False
    """Replace an import that is already there."""


class Result(ImportFacts, results.Written):
    """What result.json holds."""

    paper: None


def run(config: Config) -> Result:
    """Import, compare and write.

    Returns:
      What result.json holds, with "folder". UserError or OSError, before anything is written, for a table, file or
      folder that does not fit, or a network that differs from the exporter's.
    """
    folder = pretrained.folder_of(config.weights, config.out)
    with results.claimed(folder, COMMAND, overwrite=config.overwrite):
        facts, checkpoint = pretrained.read_import(config)
        result = cast(Result, {"paper": None, **facts, "config": config, "versions": results.versions()})
        if checkpoint is None:
            return results.write(folder, result, command=COMMAND, contents={})
        with pretrained.replacing(folder, checkpoint):
            return results.write(folder, result, command=COMMAND, contents={})


def report(result: Result) -> None:
    """Print the parity report, and what to do next."""
    rows = [pretrained.ParityRow(row["layer"], row["difference"], row["largest"]) for row in result["parity"]]
    print("\n".join(pretrained.parity_lines(rows)) if rows else "not compared: no --outputs of the exporter were given")
    for note in result["weights"]["notes"]:
        print(f"{result['weights']['name']}: {note}")
    architecture = result["architecture"]
    net = pretrained.importing.name_of(result["config"]) if architecture is None else result["folder"]
    name = result["kind"] if architecture is None else architecture.name
    print(f"{name}, {result['num_parameters']:,} parameters: {result['folder']}")
    print(f"Look at it:\n  {command_line('python -m experiments.deconv_figures', '--net', net)}")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
