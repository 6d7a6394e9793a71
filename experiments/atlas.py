"""The atlas: a static site with a page for each unit of a network.

    python -m experiments.atlas --net runs/RUN

Without --net the newest run under runs/ is taken. Open index.html in the folder that is printed: the site needs no
server and loads nothing from other hosts. It contains the pictures that it shows; share it only if you may share them.

Expected time: one forward pass over the validation set, then a few seconds for every hundred units. If it is stopped,
the same command resumes. It shows layers with feature maps and the last one; --dense adds the dense ones between.
--grey, --ascent N, --epochs, --num-occluded N and --compare NET add parts that take longer.

Writes to <run>/atlas (or --out): index.html with its script, style, data and pictures, arrays/ with the numbers
of each layer, manifest.json, result.json. The scan of the set is kept in <run>/scans, and later calls reuse it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.shell import command, figure, results
from experiments.shell.kept_epochs import KeptNets, epoch_checkpoints
from zfjax import atlas, nets
from zfjax.atlas import site
from zfjax.data import ImageSet
from zfjax.deconvnet import Way
from zfjax.nets import Net

COMMAND = "atlas"


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Make a static site of every unit of a network."""

    layers: tuple[str, ...] = ()
    """Layers to show; by default every one that has feature maps, and the last one; all of a network without maps."""
    dense: bool = False
    """Show the fully connected layers below the last one too."""
    ways: tuple[Way, ...] = atlas.Options.ways
    """How activations are carried to pixels; overviews show the first one."""
    num_images: int = atlas.Options.num_images
    """Strongest images of each unit; all of a set of fewer."""
    grey: bool = False
    """Measure each activation on its images without colour."""
    ascent: int = 0
    """Starts of a robust gradient ascent for each unit, shown beside its projections; 0: none."""
    epochs: bool = False
    """Show each unit's strongest image at the kept epochs of the run."""
    compare: figure.NetFlag | None = None
    """A second network, as for --net; units in layers of the same name are matched."""
    num_occluded: int = 0
    """Images with occlusion maps on their page."""
    tile: int = atlas.Options.tile
    """Longest side of a tile, pixels."""
    quality: int = atlas.Options.quality
    """WebP quality of the pictures, 1 to 100; lower: a smaller site."""
    batch_size: int = atlas.Options.batch_size
    """Images per batch of the scan."""
    save_every: float = atlas.Options.save_every
    """Seconds between saves of the scan."""


class Result(results.Provenance):
    """What result.json holds."""

    page: Path  # the one to open
    num_units: dict[str, int]  # by layer
    num_dead: dict[str, int]
    num_images: int  # looked through
    num_files: int
    bytes: int
    compare: Any  # what the overview says of the second network; None without one
    not_applicable: dict[str, str]  # {part that is left out: why}
    switches: Any
    seconds: dict[str, float]  # by step
    seed: int


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result:
    """Look, measure, draw, and write the site.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for unknown layers, a set without validation pictures, or a folder that holds
      something else.
    """
    other = None if config.compare is None else nets.load_net(config.compare)
    with figure.opened(config, COMMAND, folder=COMMAND, net=net) as (net, out):
        layers = tuple(nets.check_layer(net, layer) for layer in config.layers)
        epochs = KeptNets(epoch_checkpoints(net, ())) if config.epochs else {}
        options = atlas.Options(
            layers=net.layers if config.dense and not layers else layers,
            ways=config.ways,
            num_images=config.num_images,
            batch_size=config.batch_size,
            grey=config.grey,
            ascent=config.ascent,
            tile=config.tile,
            quality=config.quality,
            num_occluded=config.num_occluded,
            save_every=config.save_every,
        )
        data = figure.open_images(config, net, data)
        made = atlas.build(
            net,
            data,
            out,
            compare=other,
            compare_images=None
            if other is None
            else figure.open_images(replace(config, data=data_of(config, net)), other),
            epochs=dict(epochs),
            options=options,
            work=nets.home_of(net) / "scans",
        )
        return results.write(out, summarize(config, net, data=data, made=made), command=COMMAND, contents={})


def data_of(config: Config, net: Net) -> str | None:
    """The name of the pictures, which the second network looks at too."""
    return getattr(net, "data", None) if config.data is None else config.data


def summarize(config: Config, net: Net, *, data: ImageSet, made: atlas.Atlas) -> Result:
    """What result.json says."""
    written = list(site.read(made.folder)["files"].values())
    if made.facts["compare"] is not None:
        written += site.read(made.folder / made.facts["compare"]["folder"])["files"].values()
    return {
        "page": made.page,
        "num_units": {layer: len(units) for layer, units in made.layers.items()},
        "num_dead": {facts["name"]: facts["dead"] for facts in made.facts["layers"]},
        "num_images": made.facts["data"]["num_images"],
        "num_files": len(written),
        "bytes": sum(facts["bytes"] for facts in written),
        "compare": made.facts["compare"],
        "not_applicable": made.facts["not_applicable"],
        "switches": made.facts["switches"],
        "seconds": dict(made.seconds),
        "seed": config.seed,
        **results.provenance(net, data, config),
    }


def report(result: Result) -> None:
    """Print where to look, and what it took."""
    units = ", ".join(f"{layer} {num}" for layer, num in result["num_units"].items())
    print(f"{sum(result['num_units'].values()):,} units ({units})")
    print(f"{result['num_files']:,} files, {result['bytes'] / 1e6:.1f} MB")
    command.print_left_out(result["not_applicable"])
    print("seconds: " + ", ".join(f"{step} {seconds:.1f}" for step, seconds in result["seconds"].items()))
    print(atlas.EMBEDS)
    print(f"open {result['page']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report, when_stopped="the same command resumes")


if __name__ == "__main__":
    main()
