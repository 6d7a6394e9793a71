"""Figure 1: one unit of one image on its way down to the pixels, every stage of it.

    python -m experiments.deconvnet_walkthrough --checkpoint runs/RUN
    python -m experiments.deconvnet_walkthrough --layer conv3 --map 7 --image 12

Without --checkpoint the newest run under runs/ is taken. Expected time: 18 s on two CPU cores. Expected figure: one
column for each layer, from the chosen one on the left down to the pixels on the right: the map on the way up, the
switches of its pool in colours, what came from above, unpooled, rectified; below, a few windows of the lowest pool with
the switches as arrows. Expected result: unpooling keeps the sum; below the first layer rectification removes half of
the signal or more; all of the projection's energy lies inside what the unit sees, most of it on the object.

Writes to <run>/figures/walkthrough (or --out): walkthrough.png, walkthrough.npz with every map shown, result.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages import walkthrough as walkthrough_page
from experiments.shell import command, results
from zfjax import files, nets
from zfjax.analyses import walkthrough
from zfjax.analyses.walkthrough import Walk
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError


@dataclass(frozen=True)
class Config:
    """Draw Figure 1: one unit of one image on its way down, stage by stage."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set, or folder of pictures, to look at; by default what the net was trained on."""
    out: Path | None = None
    """Folder for the results; by default <run>/figures/walkthrough."""
    layer: str | None = None
    """Layer to start from; by default the last convolutional one."""
    map: int | None = None
    """Its map, dense unit or class to start from; by default the one that the image excites most."""
    image: int | None = None
    """Place of the image in the validation split; by default drawn by --seed."""
    seed: int = 0
    """Seed of the choice of the image."""
    overwrite: bool = False
    """Replace a result that is already there."""


def run(config: Config) -> dict[str, Any]:
    """Project one unit, keep every stage, measure and draw.

    Returns:
      What result.json holds. UserError for an unknown layer, map or image, a map that the image does not excite, a
      set without validation pictures, or an output folder that already holds a result.
    """
    net = nets.load_net(config.checkpoint)
    data = sets.open_images(config.data, net)
    source = sets.validation_of(data)
    out = results.result_folder(config.out, net.run / "figures" / "walkthrough", overwrite=config.overwrite)
    image = int(sets.choose(source, 1, config.seed)[0]) if config.image is None else config.image
    if not 0 <= image < len(source):
        raise UserError(f"image={image}: the validation split of {data.name!r} has {len(source)}, counted from 0")
    layer = config.layer or walkthrough.last_conv(net.architecture)
    views = nets.read_views(source, [image], net)
    walk = walkthrough.walk_down(net, views, layer, config.map)
    result = summarize(config, net, data, image, walk, out)
    write_all(out, walk, result)
    return result


def summarize(
    config: Config, net: nets.TrainedNet, data: ImageSet, image: int, walk: Walk, out: Path
) -> dict[str, Any]:
    """What result.json holds."""
    return {
        "figure": "Figure 1",
        "image": image,
        **walk.numbers,
        "meanings": walkthrough.MEANINGS,
        "paper": None,  # its figure is a drawing
        "folder": out,
        "seed": config.seed,
        **results.provenance(net, data, config),
    }


def write_all(out: Path, walk: Walk, result: Mapping[str, Any]) -> None:
    """Write arrays, the picture, and last the result, which says that all is there."""
    (out / "result.json").unlink(missing_ok=True)
    maps = {
        f"{stage.layer}/{name}": field
        for stage in walk.stages
        for name, field in stage._asdict().items()
        if isinstance(field, np.ndarray)
    }
    files.save_arrays(out / "walkthrough.npz", {**maps, "picture": walk.picture, "projection": walk.projection})
    results.save_figure(out / "walkthrough.png", walkthrough_page.draw(walk))
    files.save_json(out / "result.json", result)


def report(result: dict[str, Any]) -> None:
    """Print what was conserved."""
    for layer, facts in result["layers"].items():
        print(
            f"{layer}: rectification removes {facts['removed']:.0%}; {facts['reached']:.1%} of its places are reached"
        )
    print(f"in the field {result['energy_in_field']:.6f}, on the object {result['energy_on_object']}")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
