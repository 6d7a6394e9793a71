"""Networks by name: runs, checkpoints, weights of others, Python objects."""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from zfjax import schema
from zfjax.errors import NotThereError, UserError, check_name
from zfjax.files import digest
from zfjax.nets.functions import FunctionNet
from zfjax.nets.protocol import Net, Training
from zfjax.nets.questions import RUNS, width_of
from zfjax.nets.tables import TrainedNet
from zfjax.pixels import as_size, size_words

if TYPE_CHECKING:
    from zfjax.training import checkpoints

_MODULE_AND_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def newest_run() -> Path:
    """The run under `runs/` whose newest checkpoint is the youngest; FileNotFoundError naming how to make one."""

    def age(network: Path) -> float:
        try:
            return network.stat().st_mtime
        except FileNotFoundError:  # its run, which is training, has let go of it
            return 0.0

    folders = sorted(RUNS.glob("*/checkpoints/*/network"), key=age)
    if not folders:
        raise NotThereError(
            f"no trained network under {RUNS}/: make one with `python -m experiments.train_imagenet --preset demo`, "
            "or name its folder"
        )
    return folders[-1].parents[2]


def load_net(net: Path | str | None = None) -> Net:
    """Open a network by its name.

    Args:
      net: a run folder or a checkpoint; "squeezenet:DIR", the folder of SqueezeNet v1.0's weights;
        "torchvision:KIND:FILE", such as "torchvision:resnet18:resnet18.pth", or with options for the file,
        "torchvision:resnet18:checkpoint.pt?key=ema&prefix=model.&class_names=names.txt"; "module:NAME", a
        Python object that is, or returns, a `Net`, or {epoch: Net}, of which the last is taken; None for the newest
        run under `runs/`.

    Raises:
      FileNotFoundError: no such run.
      UserError: a name that is none of these, or a checkpoint that is damaged.

    Examples:
      >>> import zfjax
      >>> zfjax.load_net("runs/none")
      Traceback (most recent call last):
      ...
      zfjax.errors.NotThereError: no checkpoint at ...none: a run's folder or one of its checkpoints...
    """
    kind, _, rest = str(net).partition(":")
    check_name("net", net) if net is not None else None
    if (
        net is None
        or Path(net).exists()
        or not (kind in ("squeezenet", "torchvision") or _MODULE_AND_NAME.fullmatch(str(net)))
    ):
        return _trained(net)
    if kind == "torchvision":
        from zfjax import pretrained

        return pretrained.importing.by_name(rest).as_net()
    if kind == "squeezenet":
        from zfjax.pretrained import squeezenet

        return squeezenet(Path(rest)).as_net()
    return _of_module(kind, rest)


def load_epochs(net: Path | str | None) -> dict[int, Net] | None:
    """{epoch: net}, ascending, where `net` is "module:NAME" of what is, or returns, such a mapping; else None.

    UserError for a mapping of something else, or of nets that do not have the same layers.

    Examples:
      >>> import zfjax
      >>> epochs = zfjax.nets.load_epochs("my_nets:EPOCHS")  # doctest: +SKIP
      >>> sorted(epochs)  # doctest: +SKIP
    """
    if net is None or Path(net).exists() or not _MODULE_AND_NAME.fullmatch(str(net)):
        return None
    module, _, name = str(net).partition(":")
    value = _made(module, name)
    return _epochs_of(value, module, name) if isinstance(value, Mapping) else None


class _Settings(TypedDict):
    """What a checkpoint's settings say of a network, beside what training wants of them."""

    data: str
    class_names: list[str]
    config: NotRequired[dict[str, object]]


def _trained(net: Path | str | None) -> TrainedNet:
    from zfjax.training import checkpoints  # with Orbax, which only this needs

    path = checkpoints.find(newest_run() if net is None else Path(net))
    read = checkpoints.load(path)
    if (fault := next(schema.faults(read.settings, _Settings, "settings"), None)) is not None:
        raise UserError(f"checkpoint {path} was not written for looking at its network: {fault}; save it with that too")
    return TrainedNet(
        read.architecture,
        read.params,
        read.mean,
        path,
        path.parents[1],
        _data_of(read.settings, read.mean),
        tuple(read.settings["class_names"]),
        digest(dict(read.params)),
        _training_of(read),
    )


def _training_of(read: checkpoints.Checkpoint) -> Training:
    """What a checkpoint says of it; older ones did not write down the number of images, and count whole epochs."""
    num_images = read.settings.get("num_images")
    epochs = read.step / max(1, num_images // read.recipe.batch_size) if num_images else float(read.annealing.epoch)
    return {
        "num_classes": len(read.settings["class_names"]),
        "num_images": num_images,
        "epochs": None if "imported" in read.settings else epochs,
        "width": width_of(read.architecture),
    }


def _data_of(settings: Mapping[str, Any], mean: np.ndarray) -> str:
    """What a run was trained on; older ones did not write down the size where one was there, which the mean tells."""
    config, data = settings.get("config", {}), str(settings["data"])
    asked = config.get("data") == "imagenet" and config.get("data_size") is None
    return f"{data}:{size_words(as_size(mean.shape[:2]))}" if asked else data


def object_of(net: str) -> Any:
    """What "module:NAME" names; UserError where there is no such module or name, or with the line that asks amiss."""
    if not _MODULE_AND_NAME.fullmatch(net):
        raise UserError(f"net={net!r}: module:NAME of a Python object is needed")
    module, _, name = net.partition(":")
    try:
        room = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise UserError(
            f"net={module}:{name}: there is no module {error.name!r} here; run this in the folder that holds it, or "
            "add that to PYTHONPATH"
        ) from error
    except UserError as error:  # of what the module itself asks of zfjax
        line = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"][-1]
        raise UserError(f"net={module}:{name}: {line.filename}, line {line.lineno}: {error}") from error
    if not hasattr(room, name):
        raise UserError(f"net={module}:{name}: module {module!r} has no attribute {name!r}")
    return getattr(room, name)


def _of_module(module: str, name: str) -> Net:
    value = _made(module, name)
    if isinstance(value, Mapping):
        return list(_epochs_of(value, module, name).values())[-1]
    return _checked_net(value, module, name)


def _made(module: str, name: str) -> Any:
    """What "module:NAME" names, or what it returns where it is a function."""
    value = object_of(f"{module}:{name}")
    if not callable(value) or hasattr(value, "prepare"):
        return value
    if needed := _arguments_of(value):
        raise UserError(
            f"net={module}:{name}: a {type(value).__name__} that takes {', '.join(needed)} is no Net; make "
            "one with zfjax.FunctionNet, or a function without arguments that returns one; `zfjax layers` and `zfjax "
            "explain` take a function of images with --image-size"
        )
    return value()


def _epochs_of(value: Mapping[Any, Any], module: str, name: str) -> dict[int, Net]:
    if not value or not all(isinstance(epoch, int) and epoch >= 0 for epoch in value):
        raise UserError(
            f"net={module}:{name}: {{epoch: net}} with whole numbers as epochs is needed, not {list(value)}"
        )
    by_epoch = {epoch: _checked_net(value[epoch], module, name) for epoch in sorted(value)}
    layers = {tuple(net.layers) for net in by_epoch.values()}
    if len(layers) > 1:
        raise UserError(
            f"net={module}:{name}: its nets have different layers, {' and '.join(map(str, sorted(layers)))}"
        )
    return by_epoch


def _checked_net(net: Any, module: str, name: str) -> Net:
    if isinstance(net, FunctionNet) and net.name == FunctionNet.name:  # it was not given one
        net = replace(net, name=f"{module}.{name}")
    needed = [attribute for attribute in vars(Net) if attribute[0] != "_"]
    if missing := [attribute for attribute in needed if not hasattr(net, attribute)]:
        raise UserError(
            f"net={module}:{name}: a {type(net).__name__} is no Net, as it has no {', '.join(missing)}; make one with "
            "zfjax.nets.FunctionNet"
        )
    checked: Net = net
    return checked


def _arguments_of(function: Callable[..., Any]) -> list[str]:
    """The arguments that have to be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in
        return []
    given = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.default is p.empty]
    return [parameter.name for parameter in given]
