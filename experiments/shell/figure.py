"""What every figure's command begins with: the flags that all share, the net, its folder, and the pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from experiments.pages.lettering import counted, on_console
from experiments.shell import results
from zfjax import files, nets
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError
from zfjax.nets import Net

# What stands for a network on the command line; `--checkpoint` is what it was once called
NetFlag = Annotated[str | Path | None, tyro.conf.arg(aliases=["--checkpoint"])]

# Flags that change where or how fast a figure is made, not what it shows
_BESIDE = {
    "skip_bad",
    "net",
    "data",
    "dataset",
    "out",
    "overwrite",
    "variants",
    "architecture",
    "batch_size",
    "num_workers",
    "save_every",
    "memory",
}
# Least values of flags that count something; of those called num_... it is 1
_LEAST = {"seed": 0, "num_workers": 0, "save_every": 0, "num_scored": 0, "num_occluded": 0, "image": 0}
_LEAST |= {"batch_size": 1, "save_steps": 1, "scratch_epochs": 1, "scratch_batch_size": 1, "curve": 1}
_PLAIN = {"layer", "layers", "maps", "images"}  # flags whose value says which flag it is


@dataclass(frozen=True, kw_only=True)
class OutConfig:
    """The flag of every command that writes a result."""

    out: Path | None = None
    """Folder for the result; by default one named by the flags."""


@dataclass(frozen=True, kw_only=True)
class ResultConfig(OutConfig):
    """The flags of every command whose result replaces no other."""

    overwrite: bool = False
    """Replace this command's result that is already there."""


@dataclass(frozen=True, kw_only=True)
class NetConfig(ResultConfig):
    """The flags of every command that looks at a network, whose default folder lies below the network's run."""

    net: NetFlag = None
    """Run folder or checkpoint, squeezenet:DIR, torchvision:KIND:FILE, or module:NAME of a Net; by default the
    newest run under runs/."""
    seed: int = 0
    """Seed of all random choices."""


@dataclass(frozen=True, kw_only=True)
class FigureConfig(NetConfig):
    """The flags that every figure has."""

    data: str | None = None
    """Data set or folder of pictures to use; by default the set that the net was trained on."""
    skip_bad: bool = False
    """Leave out pictures of a folder that cannot be decoded, and name them, instead of stopping at the first."""


class Opened(NamedTuple):
    """A net, and the folder that its figure goes to."""

    net: Net
    out: Path


@contextlib.contextmanager
def opened(
    config: NetConfig, command: str, *, folder: str, net: Net | None = None, names: Iterable[str] = ()
) -> Iterator[Opened]:
    """Open the net and claim the folder of its result, before any data are opened or anything is compiled.

    Args:
      config: the flags.
      command: the name of the command, as "deconv_figures".
      folder: below the net's run, as "figures/deconv"; what differs from the flags' defaults is added to its name.
      net: the net, where it is open already.
      names: of the files that will be written, as far as they are known before; `results.check_names` checks others.

    Raises:
      UserError: no such net, one whose weights are not finite, a number out of range, or a folder that holds something
        else.
    """
    check_numbers(config)
    net = nets.load_net(config.net) if net is None else net
    print(f"net: {describe(net)}")
    nets.check_weights(net)
    results.check_apart(folder_of(config, nets.home_of(net) / folder), getattr(config, "data", None))
    with claimed(config, command, nets.home_of(net) / folder, names=names) as out:
        yield Opened(net, out)


@contextlib.contextmanager
def claimed(config: ResultConfig, command: str, folder: Path, *, names: Iterable[str] = ()) -> Iterator[Path]:
    """Check the numbers, and claim the folder of the result, which is `folder_of` these."""
    check_numbers(config)
    out = folder_of(config, folder)
    with results.claimed(out, command, overwrite=config.overwrite, names=names):
        yield out


def check_numbers(config: Any) -> None:
    """UserError for the first flag that counts something and is below what can be."""
    for field in dataclasses.fields(config):
        value, least = getattr(config, field.name), _LEAST.get(field.name, 1 if field.name.startswith("num_") else None)
        for number in value if isinstance(value, tuple) else (value,):
            if least is not None and isinstance(number, int | float) and not number >= least:
                raise UserError(f"{field.name}={number}: at least {least} is needed")


def folder_of(config: OutConfig, folder: Path) -> Path:
    """The result's folder: --out, or what was asked for below `folder`."""
    return folder / asked_for(config) if config.out is None else config.out


def open_images(config: FigureConfig, net: Net, data: ImageSet | None = None) -> ImageSet:
    """The pictures to look at, those that are open already or those that the flags name; says which they are."""
    data = sets.open_images(config.data, net, skip_bad=config.skip_bad) if data is None else data
    pictures = (
        "no validation pictures" if data.validation is None else counted(len(data.validation), "validation picture")
    )
    print(f"data: {data.name}, {counted(len(data.class_names), 'class')}, {pictures}")
    for line in files.lines_of(data.left_out):
        print(f"  left out: {line}")
    return data


def describe(net: Net) -> str:
    """A net in one line."""
    classes = counted(num, "class") if (num := nets.num_classes(net)) else "no classes"
    size = "x".join(map(str, nets.size_of(net.image_size)))
    return f"{on_console(net.name)}, {counted(len(net.layers), 'layer')}, images of {size}, {classes}"


def asked_for(config: OutConfig) -> str:
    """What differs from the defaults, as the name of a folder: "conv3-map7"; "" where nothing does."""
    words: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in _BESIDE and value != field.default:
            words += _words(field.name, value)
    net, data = getattr(config, "net", None), getattr(config, "data", None)
    if isinstance(net, tuple):  # several; the folder lies in the run of the first
        words += _words("with", tuple(map(Path, net[1:]))) if net[1:] else []
        net = next(iter(net), None)
    if net is not None and Path(net).parent.name == "checkpoints":  # one of a run's
        words += [f"step{Path(net).name}"]
    if data is not None:
        words += _words("data", Path(data))
    name = re.sub(r"[^\w.,-]+", "-", "-".join(words))
    name = f"_{name}" if name.startswith((".", "-")) else name  # neither hidden, nor a flag, nor the folder above
    return name if len(name) <= 120 else f"{name[:100]}-{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"


def _words(name: str, value: Any) -> list[str]:
    entries = value if isinstance(value, tuple) else (value,)
    values = [_end_of(entry) if isinstance(entry, Path) else str(entry) for entry in entries]
    if name in _PLAIN:
        return values
    joint = "" if all(isinstance(entry, int | float) for entry in entries) else "-"
    return [name.replace("_", "-") + joint + "-".join(values)]


def _end_of(path: Path) -> str:
    """The last two steps of a path, which tell sets of one name apart."""
    return "-".join([step for step in path.parts if step not in (path.anchor, "..", "checkpoints")][-2:])
