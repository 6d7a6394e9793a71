"""Figures 2 and 7 and Table 1 of SqueezeNet v1.0, a network trained on all of ImageNet.

    python -m experiments.squeezenet_figures --weights models/squeezenet_v1.0 --data DIR:256 --annotations FILE

DIR is a set of ImageNet photos prepared at 256 pixels; FILE gives the positions of the parts of some faces
(`experiments.part_correspondence`). These are the same figures as with `--net squeezenet:DIR`, with layers that suit
this network. --figure makes one of the three. The scan shows its progress, and resumes after a kill.

Expected time on two CPU cores: six minutes for the scan of 9,603 photos (28 per second), two for projections and pages,
two for Table 1, two for Figure 7. Expected figures: in Figure 2 edges and colours in pool1, letters in fire4, parts in
fire8 (faces of spaniels and people), in conv10 the photos of each class. Projections correlate with their patches
(0.56, 0.25, 0.16, 0.13 in these layers), but not with those of another map (0.05 at most). In Figure 7 the probability
falls where the square hides the object. Table 1 differs from the paper's: parts are more consistent than random places
in fire4 only (0.10 and 0.11 against 0.13), and there one place that is the same in all faces is more consistent still
(0.07). In fire8 (0.15 and 0.16 against 0.13) and conv10 they are less consistent: a square on the face changes more
features, and where few change, few can differ.

Writes pages, arrays and result.json to folders below runs/squeezenet/figures that are named by the flags, or to
<out>/deconv, <out>/correspondence and <out>/occlusion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments import deconv_figures, occlusion_maps, part_correspondence
from experiments.shell import command, figure, results
from zfjax import nets
from zfjax.data import ImageSet, sets
from zfjax.errors import NotThereError, UserError, check_name

LAYERS = ("pool1", "fire4", "fire8", "conv10")  # of Figure 2, from edges to classes
COMPARED = ("fire8", "conv10", "fire4")  # of Table 1: in the places of the paper's layers 5 and 7, and a low one
COMMANDS: dict[str, Any] = {
    "deconv": deconv_figures,
    "occlusion": occlusion_maps,
    "correspondence": part_correspondence,
}


@dataclass(frozen=True, kw_only=True)
class Config(figure.ResultConfig):
    """Draw Figure 2, Figure 7 and Table 1 of SqueezeNet."""

    weights: Path
    """Folder with architecture.json and squeezenet_v1.0.npz."""
    data: str
    """Prepared set of ImageNet's photos at 256 pixels: DIR, or DIR:256."""
    figure: Literal["all", "deconv", "occlusion", "correspondence"] = "all"
    """Which to make: Figure 2, Figure 7, Table 1."""
    annotations: Path | None = None
    """JSON file of pictures and their parts, for Table 1; without one it is left out."""
    num_maps: int = 12
    """Maps of each layer in Figure 2; of conv10 first those of the photos' classes."""
    num_images: int = 3
    """Photos in Figure 7."""
    layers: tuple[str, ...] = LAYERS
    """Layers of Figure 2."""
    batch_size: int = 64
    """Photos per step of the scan."""
    seed: int = 0
    """Seed of maps, photos, draws and random places."""


def run(config: Config, *, data: ImageSet | None = None) -> dict[str, Any]:
    """Make the figures and write each one's page, arrays and result.json.

    Args:
      config: the flags.
      data: the photos, where they are open already, in the place of those that the flags name.

    Returns:
      {figure: what its result.json holds}. UserError or OSError for weights, photos or annotations that do not fit, a
      number below 1, or an output folder that already holds a result; before any figure is begun.
    """
    figure.check_numbers(config)
    if config.annotations is None and config.figure == "correspondence":
        raise UserError("annotations=None: figure='correspondence' needs pictures whose parts are known")
    if config.annotations is not None:
        check_name("annotations", config.annotations)
    if config.annotations is not None and not config.annotations.exists():
        raise NotThereError(f"annotations={str(config.annotations)!r}: no such file")
    net, configs = nets.load_net(f"squeezenet:{config.weights}"), configs_of(config)
    for layer in config.layers:
        nets.check_layer(net, layer)
    for name, flags in configs.items():
        out = figure.folder_of(flags, nets.home_of(net) / "figures" / name)
        results.check_free(out, COMMANDS[name].COMMAND, overwrite=config.overwrite)
    photos = None if set(configs) == {"correspondence"} else open_photos(config.data, net, data)
    given = {"deconv": photos, "occlusion": photos, "correspondence": None}  # which has pictures of its own
    return {name: COMMANDS[name].run(flags, net=net, data=given[name]) for name, flags in configs.items()}


def configs_of(config: Config) -> dict[str, figure.FigureConfig]:
    """{figure: the flags of its command}, of the figures that are wanted."""
    own: dict[str, dict[str, Any]] = {
        "deconv": {"layers": config.layers, "num_maps": config.num_maps, "split": "both"},
        "occlusion": {"num_images": config.num_images},
        "correspondence": {"annotations": config.annotations, "layers": COMPARED},
    }
    own["deconv"] |= {"data": config.data, "batch_size": config.batch_size}
    own["occlusion"] |= {"data": config.data}
    wanted = own if config.figure == "all" else {config.figure: own[config.figure]}
    shared = {"net": f"squeezenet:{config.weights}", "seed": config.seed, "overwrite": config.overwrite}
    return {
        name: COMMANDS[name].Config(out=None if config.out is None else config.out / name, **shared, **flags)
        for name, flags in wanted.items()
        if name != "correspondence" or config.annotations is not None
    }


def open_photos(data: str, net: nets.Net, photos: ImageSet | None = None) -> ImageSet:
    """The photos; UserError for those of another size, of classes not ImageNet's, or without a validation split."""
    photos = sets.open_images(data, net) if photos is None else sets.check_fit(data, photos, net)
    if photos.official_labels is None:
        raise UserError(f"data={data!r}: its classes are not all among ImageNet's 1000")
    sets.validation_of(photos)
    return photos


def report(figures: dict[str, Any]) -> None:
    """Print where each figure lies."""
    for result in figures.values():
        print(f"{result.get('figure', result.get('table'))}: {result['folder']}")


def main() -> None:
    """The command line."""
    when_stopped = "the same command resumes from the last saved scan"
    command.main(Config, run, doc=__doc__, report=report, when_stopped=when_stopped)


if __name__ == "__main__":
    main()
