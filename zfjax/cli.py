"""The command `zfjax`: an atlas of any network, imported weights, and what the deconvnet makes of a model."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

import zfjax
from zfjax import files, nets, results, shell
from zfjax.anymodel.tracing import KEEP_STATE, changes_state
from zfjax.architecture import Size
from zfjax.deconvnet import WAYS
from zfjax.errors import UserError, command_line, naming
from zfjax.pixels import size_of_words

IMPORT = "import_network"  # the command that a run folder of imported weights is a result of, in a checkout too
_NET = "run folder or checkpoint, squeezenet:DIR, torchvision:KIND:FILE, or module:NAME of a zfjax.Net"
_FUNCTION = f"{_NET}, or, with --image-size, of a function of images"


@shell.ending_with_reader()
def main(words: list[str] | None = None) -> None:
    """The command line.

    Args:
      words: what stands behind `zfjax`; None for what this process was called with.
    """
    shell.check_words(sys.argv[1:] if words is None else words)
    chosen = _parser().parse_args(words)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a module that is named is looked for here first, as by `python -m`
    shell.use_quick_kernels()
    shell.keep_freed_memory()
    with shell.in_one_line(chosen.when_stopped):
        shell.use_compilation_cache()
        if not shell.is_idle(alone=chosen.alone):
            chosen.run(chosen)


def atlas(chosen: argparse.Namespace) -> None:
    """Make a static site with a page for each unit of a network."""
    from zfjax.atlas import EMBEDS, Options, build
    from zfjax.data import sets

    net = nets.load_net(chosen.net)
    other = None if chosen.compare is None else nets.load_net(chosen.compare)
    layers = tuple(nets.check_layer(net, layer) for layer in chosen.layers)
    results.check_apart(chosen.out, chosen.data)
    given = ("num_images", "batch_size", "grey", "ascent", "num_occluded", "tile", "quality")
    options = Options(layers=layers, ways=tuple(chosen.ways), **{name: getattr(chosen, name) for name in given})
    pictures = {"skip_bad": chosen.skip_bad}
    images = sets.open_images(chosen.data, net, **pictures)
    for line in files.lines_of(images.left_out):
        print(f"left out: {line}")
    with _claimed(chosen.out):
        made = build(
            net,
            images,
            chosen.out,
            compare=other,
            compare_images=None
            if other is None
            else sets.open_images(chosen.data or getattr(net, "data", None), other, **pictures),
            options=options,
        )
    units = ", ".join(f"{layer} {len(records):,}" for layer, records in made.layers.items())
    print(f"units: {units}\n{EMBEDS}\nopen {made.page}")


def import_weights(chosen: argparse.Namespace) -> None:
    """Import weights that were trained elsewhere as a run folder, and compare them with outputs of their exporter."""
    from zfjax import pretrained

    given = {name: value for name, value in vars(chosen).items() if name in pretrained.Import.__dataclass_fields__}
    asked = pretrained.Import(**given)
    folder = pretrained.folder_of(asked.weights, chosen.out)
    is_kept = asked.table not in pretrained.TORCHVISION  # those are opened from their own file
    with results.claimed(folder, IMPORT, overwrite=chosen.overwrite) if is_kept else contextlib.nullcontext():
        facts, checkpoint = pretrained.read_import(asked)
        if checkpoint is not None:
            versions = {"python": platform.python_version(), "jax": version("jax"), "numpy": version("numpy")}
            result = {"paper": None, **facts, "config": asked, "versions": versions}
            with pretrained.replacing(folder, checkpoint):
                results.write(folder, result, command=IMPORT, contents={})
    rows = [pretrained.ParityRow(row["layer"], row["difference"], row["largest"]) for row in facts["parity"]]
    print("\n".join(pretrained.parity_lines(rows)) if rows else "not compared: no --outputs of the exporter were given")
    for note in facts["weights"]["notes"]:
        print(f"{facts['weights']['name']}: {note}")
    net = str(folder) if is_kept else pretrained.importing.name_of(asked)
    look = command_line("zfjax atlas", net, "--data", "PICTURES")
    print(f"{facts['num_parameters']:,} parameters\nlook at it: {look}")


def layers(chosen: argparse.Namespace) -> None:
    """List the layers of a network, or the modules inside a function of images."""
    net = _opened(chosen)
    if not callable(net):
        print(f"{net.name}, images of {'x'.join(map(str, nets.size_of(net.image_size)))}")
        for layer, shape in nets.shapes_of(net).items():
            print(f"  {layer:<20} {' x '.join(map(str, shape))}")
    if callable(net) or isinstance(net, nets.FunctionNet):
        fn, images = _function(net, chosen)
        inside = zfjax.layers(fn, images)
        print(inside)
        if chosen.all:
            print("\n".join(f"{path:<40} {list(layer.shape)}" for path, layer in inside.items()))


def explain(chosen: argparse.Namespace) -> None:
    """List every non-linear operation of a network, its source line, and its backward rule."""
    fn, images = _function(_opened(chosen), chosen)
    print(zfjax.explain_rules(fn, images))


def _opened(chosen: argparse.Namespace) -> Any:
    """A Net, or with --image-size the function of images that a module holds."""
    return nets.load_net(chosen.net) if chosen.image_size is None else nets.object_of(chosen.net)


def _function(net: Any, chosen: argparse.Namespace) -> tuple[Callable[[Any], Any], jax.ShapeDtypeStruct]:
    """The function of images that a network is, and the shape of one image."""
    if chosen.image_size is not None and callable(net):
        images = jax.ShapeDtypeStruct((1, *nets.size_of(chosen.image_size), chosen.channels), np.float32)
        try:
            jax.eval_shape(net, images)
        except Exception as error:  # of the user's function; two flags say what it reads
            kind, words = type(error).__name__, str(error).split("\n")[0]
            way_on = KEEP_STATE if changes_state(error) else "--image-size and --channels say what it reads"
            raise UserError(
                f"net={chosen.net}: it does not take images {list(images.shape)}, {kind}: {words}; {way_on}"
            ) from error
        return net, images
    picture = jax.ShapeDtypeStruct((1, *nets.size_of(net.picture_size), nets.num_channels(net)), np.uint8)
    images = jax.eval_shape(net.prepare, picture)
    if isinstance(net, nets.FunctionNet):
        return (net.fn if net.params is None else partial(net.fn, net.params)), images
    return net.features(net.layers), images


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Of one process alone meanwhile; UserError where another one writes or wrote there, or no folder can be."""
    with contextlib.ExitStack() as held:
        with naming("out", folder, "name another folder"):
            held.enter_context(files.claimed(folder))
        if result := results.read(folder):  # which would say something else than the site beside it
            owner = result.get("command", "a command")
            raise UserError(f"out={str(folder)!r}: it holds a result of {owner}; give another folder")
        yield


def _size(words: str) -> Size:
    """64, or 48x64 for height and width."""
    try:
        return size_of_words(words)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("zfjax", description=__doc__)
    parser.add_argument("--version", action="version", version=f"zfjax {zfjax.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], when_stopped: str) -> Callable[..., Any]:
        added = commands.add_parser(
            name, help=run.__doc__, description=run.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        added.set_defaults(run=run, when_stopped=when_stopped)
        added.add_argument("--alone", action="store_true", help=shell.ALONE)
        return added.add_argument

    add = command("atlas", atlas, "the same command resumes")
    add("net", metavar="NET", help=_NET)
    add("--data", help="folder of pictures, prepared set, or demo; by default what the network was trained on")
    add("--out", type=Path, default=Path("atlas"), help="folder of the site")
    add(
        "--layers",
        nargs="+",
        default=[],
        help="layers to show; by default all with feature maps, and the last one; all of a network without maps",
    )
    add(
        "--ways",
        nargs="+",
        choices=WAYS,
        default=["deconvnet", "guided", "gradient"],
        help="how activations are carried to pixels; overviews show the first",
    )
    add("--num-images", type=int, default=9, help="strongest images per unit")
    add("--batch-size", type=int, default=64, help="images per batch of the scan")
    add("--grey", action="store_true", help="measure each activation on its images without colour")
    add("--num-occluded", type=int, default=0, help="images with occlusion maps on their page")
    add("--ascent", type=int, default=0, help="starts of a robust gradient ascent for each unit; 0: none")
    add("--tile", type=int, default=88, help="longest side of a tile, pixels")
    add("--quality", type=int, default=80, help="WebP quality of the pictures, 1 to 100; lower: a smaller site")
    add("--compare", metavar="NET", help="a second network, whose units are matched with those of the first")
    add("--skip-bad", action="store_true", help="leave out pictures that cannot be decoded, and name them")

    add = command("import", import_weights, "nothing was written")
    add(
        "weights",
        type=Path,
        help="file in a format of PyTorch, safetensors, ONNX, NumPy, Keras, Flax, or Orbax",
    )
    add("--table", default="zfnet", help="import table: alexnet-torchvision, zfnet, resnet18 and so on, or module:NAME")
    add("--key", help="entry of the file with the weights, such as ema")
    add("--prefix", default="", help="take only weights whose names begin with this, such as model.")
    add("--sha256", help="SHA-256 of the file, or its first digits, to check")
    add("--class-names", type=Path, help="text file with one class per line; by default ImageNet's 1000")
    add("--data", default="data", help="prepared set or folder of pictures that figures of the run use by default")
    add("--picture-size", type=_size, default=256, help="size of its pictures: a side in pixels, or HEIGHTxWIDTH")
    add("--outputs", type=Path, help=".npz with an input and the exporter's activations, to compare with")
    add("--out", type=Path, help="run folder to write; by default runs/NAME OF THE WEIGHTS")
    add("--overwrite", action="store_true", help="replace an import that is already there")

    for name, run in (("layers", layers), ("explain", explain)):
        add = command(name, run, "nothing was computed")
        add("net", metavar="NET", help=_FUNCTION)
        add("--image-size", type=_size, help="size of the images of a function: a side in pixels, or HEIGHTxWIDTH")
        add("--channels", type=int, default=3, help="channels of the images of a function")
        if run is layers:
            add("--all", action="store_true", help="list every operation between the modules too")
    return parser


if __name__ == "__main__":
    main()
