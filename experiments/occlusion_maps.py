"""Figure 7: a square slides over some images; what a map, the true class and the most probable class make of it.

    python -m experiments.occlusion_maps --checkpoint runs/RUN

Without --checkpoint the newest run under runs/ is taken. Expected time: 28 s with the demo net on two CPU
cores. Expected figure: for each image (a) the square where it harms most, (b) the summed activity of the strongest
layer-5 map for every place of the square, (c) that map's projection in this image and in the three images that excite
it most, (d) the probability of the true class, (e) the most probable class. Where the square hides the object, (b) and
(d) fall and (e) changes. One forward pass per place gives (b), (d) and (e). Expected score on the demo set: the largest
drop lies on the object in 93 % of the images, the largest |gradient| in 98 %; objects cover 26 % of the pixels, but
another image's object, as it stands in the middle too, would hold these points in 80 % and 89 %.

Writes maps.png, maps.npz, result.json and scan.npz (the strongest images of every map) to <run>/figures/occlusion
(or --out).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.tree_util import Partial
from tqdm import tqdm

from experiments.pages import occlusion as occlusion_page
from experiments.shell import command, results, scans
from zfjax import files, nets, parallel
from zfjax.analyses import occlusion, top_activations
from zfjax.analyses.occlusion import Projected, Scenes, Swept, bound, choose_scenes, images_within, score, take, watch
from zfjax.analyses.top_activations import TopActivations
from zfjax.architecture import Architecture, Conv
from zfjax.data import Source, sets
from zfjax.errors import UserError

NUM_OTHERS = 3  # other images in which the map is projected, as in the paper


PAPER = "when the object is occluded, the strongest map's activity and the probability of the class drop"


SCORE_STEP = 3  # the score takes every third place of the square, and so many more images


LOOKING, SCANNING = 16, 128  # images per pass of `look` and of the scan, or what the budget holds


@dataclass(frozen=True)
class Config:
    """Draw Figure 7: occlusion maps of some images; on the demo set, score them."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set, or folder of pictures, to look at; by default what the net was trained on."""
    out: Path | None = None
    """Folder for the results; by default <run>/figures/occlusion."""
    num_images: int = 3
    """Images to draw, chosen by --seed; those that are classified correctly, or whose class is unknown, come first."""
    layer: str | None = None
    """Layer whose strongest map is watched; by default the last convolutional one."""
    square: int | None = None
    """Side of the square in pixels; by default a quarter of the image's."""
    stride: int | None = None
    """Pixels between two places of the square; by default a 32nd of the image's side."""
    fill: Literal["mean", "grey", "blur"] = "mean"
    """What the square shows: the mean training image, mid-grey, or the image itself, blurred."""
    memory: int = 1024
    """Budget of a batch in MiB, parameters aside."""
    num_scored: int = 100
    """Images, classified correctly, that the score counts where the set says where objects are; 0 for no score."""
    seed: int = 0
    """Seed of the choice of the images."""
    overwrite: bool = False
    """Replace the results that are already there."""


def run(config: Config) -> dict[str, Any]:
    """Choose images, slide the square, project, score; write page, arrays and result.json.

    Returns:
      What result.json holds. UserError for a square larger than the image, another bad number, an unknown layer or
      fill, a set without validation pictures, or an output folder that already holds a result.
    """
    net = nets.load_net(config.checkpoint)
    data = sets.open_images(config.data, net)
    source = sets.validation_of(data)
    config = complete(config, net.architecture)
    assert config.layer is not None and config.square is not None and config.stride is not None
    size, square, stride = net.architecture.image_size, config.square, config.stride
    corners, coarse = (occlusion.places(size, square, step) for step in (stride, SCORE_STEP * stride))
    out = results.result_folder(config.out, net.run / "figures" / "occlusion", overwrite=config.overwrite)
    num_scored = config.num_scored if "object" in source[0] else 0
    at_once = images_within(net, config.layer, config.memory, most=SCANNING)
    options: dict[str, Any] = {"of": f"{data.fingerprint} validation", "k": 1 + NUM_OTHERS, "batch_size": at_once}
    strongest = scans.scan(net, source, (config.layer,), out / "scan.npz", **options)[config.layer]
    if parallel.host_count()[0] > 0:
        return {}  # one host draws
    num, at_once = max(config.num_images, num_scored), min(LOOKING, at_once)
    scenes = choose_scenes(net, data, config.layer, num, config.seed, batch_size=at_once)
    drawn = take(scenes, np.arange(len(scenes.labels))[: config.num_images])
    scored = take(scenes, np.flatnonzero(scenes.correct)[:num_scored])
    swept, coarsely = sweep_all(net, config, [(drawn, corners), (scored, coarse)])
    assert swept is not None  # an image is drawn
    projected = project_maps(net, source, config.layer, drawn, strongest, batch_size=at_once)
    result = {
        "figure": "Figure 7",
        "places": corners.shape[:2],
        "images": occlusion_page.describe(net, drawn, swept),
        "score": score(scored, coarsely, coarse, square) if coarsely is not None and len(scored.labels) > 1 else None,
        "num_images": len(drawn.labels),
        "paper": PAPER,
        "folder": out,
        "seed": config.seed,
        **results.provenance(net, data, config),
    }
    (out / "result.json").unlink(missing_ok=True)  # written last, it says that all is there
    files.save_arrays(out / "maps.npz", {"corners": corners, "images": drawn.indices, **swept._asdict()})
    results.save_figure(out / "maps.png", occlusion_page.draw(net, drawn, swept, projected, corners, result))
    files.save_json(out / "result.json", result)
    return result


def complete(config: Config, architecture: Architecture) -> Config:
    """The configuration with its defaults filled in; UserError for a value out of range."""
    for name, least in (("num_images", 1), ("num_scored", 0)):
        if getattr(config, name) < least:
            raise UserError(f"{name}={getattr(config, name)}: at least {least} is needed")
    if config.fill not in occlusion.FILLS:
        raise UserError(f"fill={config.fill!r}: one of {', '.join(occlusion.FILLS)} is needed")
    size = architecture.image_size
    convs = [row.name for row in architecture.layers if isinstance(row, Conv)]
    chosen: dict[str, Any] = {
        "layer": (convs or architecture.layer_names)[-1] if config.layer is None else config.layer,
        "square": max(1, size // 4) if config.square is None else config.square,
        "stride": max(1, size // 32) if config.stride is None else config.stride,
    }
    architecture.layer(chosen["layer"])
    return dataclasses.replace(config, **chosen)


def sweep_all(net: nets.TrainedNet, config: Config, jobs: Sequence[tuple[Scenes, np.ndarray]]) -> list[Swept | None]:
    """Slide the square over the images of each job (images, places); None where it has none. `config` is complete."""
    fn = bound(watch, layer=config.layer, architecture=net.architecture)
    any_map = Partial(fn, net.params, np.int32(0), np.int32(0))  # all need the same memory
    batch_size = occlusion.batch_size_within(any_map, jobs[0][0].views.images[0], memory=config.memory)
    total = sum(len(scenes.labels) * corners[..., 0].size for scenes, corners in jobs)
    swept = []
    with tqdm(total=total, desc="sliding the square", unit=" places", disable=None) as bar:
        for scenes, corners in jobs:
            found = []
            for n, (channel, label) in enumerate(zip(scenes.looks.channel, scenes.labels, strict=True)):
                fill = occlusion_page.fill_of(scenes, n, config)
                options: dict[str, Any] = {
                    "square": config.square,
                    "fill": fill,
                    "batch_size": batch_size,
                    "on_batch": bar.update,
                }
                watched = Partial(fn, net.params, channel, label)
                found.append(occlusion.sweep(watched, scenes.views.images[n], corners, **options))
            swept.append(jax.tree.map(lambda *maps: np.stack(maps), *found) if found else None)
    return swept


def project_maps(
    net: nets.TrainedNet, source: Source, layer: str, drawn: Scenes, strongest: TopActivations, *, batch_size: int
) -> list[Projected]:
    """For each image its strongest map, projected there and in the images that `strongest`, the scan, found for it."""
    places, looks = [], drawn.looks  # (number of the drawn image, image in the split, map, row, column)
    for n, (index, channel) in enumerate(zip(drawn.indices, looks.channel, strict=True)):
        values, images, rows, columns = (field[channel] for field in strongest)
        others = np.flatnonzero((images >= 0) & (values > 0) & (images != index))[:NUM_OTHERS]
        places.append((n, index, channel, looks.row[n], looks.column[n]))  # as `strongest` need not hold the image
        places += [(n, images[other], channel, rows[other], columns[other]) for other in others]
    number, images, channels, rows, columns = np.array(places).T
    wanted, which = np.unique(images, return_inverse=True)
    views = nets.read_views(source, wanted, net)
    chosen = {"image": which, "channel": channels, "row": rows, "column": columns}
    options: dict[str, Any] = {"layer": layer, "architecture": net.architecture, "batch_size": batch_size}
    found = top_activations.project_strongest(net.params, views.images, chosen, **options)
    return [Projected(images[number == n], found[number == n]) for n in range(len(drawn.labels))]


def report(result: dict[str, Any]) -> None:
    """Print the images and the score."""
    for facts in result["images"]:
        print(occlusion_page.heading(facts))
    if (found := result["score"]) is not None:
        print(f"on the object in {found['num_images']} images (its share of the pixels: {found['area']:.1%}):")
        for name in ("occlusion", "gradient"):
            share = found[name]
            print(f"  {name}: {share['object']:.1%} (another image's object: {share['other_object']:.1%})")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
