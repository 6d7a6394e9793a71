"""A network that knows ImageNet, seen through the paper's eyes: Figures 2 and 7 and Table 1 of SqueezeNet v1.0.

    python -m experiments.squeezenet_figures --weights models/squeezenet_v1.0 --data DIR:256 --annotations FILE

DIR is a set of ImageNet photos prepared at 256 pixels, FILE says where the parts of some faces are
(`experiments.part_correspondence`). The network is none of ours: `zfjax.project_fn` looks at it, and the analyses that
take any function of images. --figure makes one of the three. The scan shows its progress; a killed one goes on.

Expected time on two CPU cores: six minutes for the scan of 9,603 photos (28 a second), two for projections and pages,
two for Table 1, two for Figure 7. Expected figures: in Figure 2 edges and colours in pool1, letters in fire4,
parts in fire8 (spaniels' faces, people's), in conv10 the photos of each class; a projection correlates with its patch
(0.56, 0.25, 0.16, 0.13 in these layers), with another map's not (0.05 at most). In Figure 7 the probability falls where
the square hides the object. Table 1 is not the paper's: parts are more consistent than random places in fire4 only
(0.10 and 0.11 against 0.13), and there less so than a place that is the same in all faces (0.07). In fire8 (0.15 and
0.16 against 0.13) and conv10 they are less so: a square on the face changes more features, and where few change, few
can be unequal.

Writes to <out>/deconv, <out>/correspondence and <out>/occlusion: pages, arrays, result.json and the scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import part_correspondence, squeezenet_occlusion, squeezenet_photos
from experiments.pages import canvas
from experiments.pages import deconv as deconv_page
from experiments.pages.canvas import Section
from experiments.shell import command, results
from experiments.squeezenet_photos import SqueezeNet
from zfjax import data, files, nets
from zfjax.analyses import strongest, top_activations
from zfjax.analyses.strongest import Strongest
from zfjax.analyses.top_activations import State
from zfjax.data import ImageSet
from zfjax.data.annotations import open_annotations
from zfjax.errors import UserError

FIGURES = ("deconv", "correspondence", "occlusion")


LAYERS = ("pool1", "fire4", "fire8", "conv10")  # of Figure 2, from edges to classes


CLASSES = "conv10"  # its maps are the classes: the logits are their means


COMPARED = ("fire8", "conv10", "fire4")  # of Table 1: in the places of the paper's layers 5 and 7, and a low one


COLUMNS, OVERVIEW_MAPS = 3, 3  # maps beside each other


@dataclass(frozen=True)
class Config:
    """Draw Figure 2, Figure 7 and Table 1 of SqueezeNet."""

    weights: Path
    """Folder with architecture.json and squeezenet_v1.0.npz."""
    data: str
    """Prepared set of ImageNet's photos at 256 pixels: DIR, or DIR:256."""
    figure: Literal["all", "deconv", "occlusion", "correspondence"] = "all"
    """Which to make: Figure 2, Figure 7, Table 1."""
    annotations: Path | None = None
    """JSON file of pictures and their parts, for Table 1; without one it is left out."""
    out: Path | None = None
    """Folder for the results, one below it for each figure; by default runs/squeezenet/figures."""
    num_maps: int = 12
    """Maps of each layer in Figure 2; of conv10 first those of the photos' classes."""
    num_images: int = 3
    """Photos in Figure 7."""
    seed: int = 0
    """Seed of maps, photos, draws and random places."""
    overwrite: bool = False
    """Replace results that are already there."""


def run(config: Config) -> dict[str, Any]:
    """Make the figures and write each one's page, arrays and result.json.

    Returns:
      {figure: what its result.json holds}. UserError or OSError for weights, photos or annotations that do not fit, a
      number below 1, or an output folder that already holds a result.
    """
    wanted = FIGURES if config.figure == "all" else (config.figure,)
    if config.annotations is None and config.figure == "correspondence":
        raise UserError("annotations=None: figure='correspondence' needs pictures whose parts are known")
    for name in ("num_maps", "num_images"):
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)}: at least 1 is needed")
    root = nets.RUNS / "squeezenet" / "figures" if config.out is None else config.out
    folders = {name: results.result_folder(None, root / name, overwrite=config.overwrite) for name in wanted}
    net = squeezenet_photos.load_net(config.weights)
    photos = squeezenet_photos.open_photos(config.data, net)
    makers = {"deconv": partial(deconv, config, net, photos), "occlusion": partial(occlusion, config, net, photos)}
    if config.annotations is not None:
        makers["correspondence"] = partial(correspondence, config, net, open_annotations(config.annotations, net))
    return {name: makers[name](out) for name, out in folders.items() if name in makers}


def deconv(config: Config, net: SqueezeNet, photos: ImageSet, out: Path) -> dict[str, Any]:
    """Figure 2 over all photos of both splits."""
    source = data.Concatenated(photos)
    of = f"{photos.fingerprint} train and validation"
    state = squeezenet_photos.scan(net, source, LAYERS, out / "scan.npz", of=of, k=strongest.NUM_IMAGES)
    drawn = {}
    for number, layer in enumerate(LAYERS):
        maps = choose_maps(photos, layer, state, config.num_maps, (config.seed, number))
        drawn[layer] = strongest.project_and_cut_with(
            partial(squeezenet_photos.project_places, net, layer=layer),
            lambda indices: nets.read_views(source, indices, net),
            net.architecture.receptive_field(layer),
            state[layer],
            maps,
        )
    result = {
        "figure": "Figure 2",
        "layers": {layer: facts_of(net, layer, seen, state, len(source)) for layer, seen in drawn.items()},
        "meanings": strongest.MEANINGS,
        "num_images": len(source),
        "paper": None,  # its figure gives no number
        "folder": out,
        "seed": config.seed,
        **squeezenet_photos.provenance(net, photos, config),
    }
    write_deconv(out, net, drawn, result)
    return result


def choose_maps(photos: ImageSet, layer: str, state: State, num: int, seed: tuple[int, ...]) -> np.ndarray:
    """`num` maps of a layer by chance, as `deconv_figures.choose_maps`; of CLASSES the photos' own classes first."""
    first = photos.official_labels if layer == CLASSES else ()
    assert first is not None  # `open_photos` saw to it
    others = strongest.choose_maps(state[layer], max(1, num - len(first)), seed)
    return np.array(list(dict.fromkeys([*first, *others.tolist()]))[:num])


def facts_of(net: SqueezeNet, layer: str, seen: Strongest, state: State, num_images: int) -> dict[str, Any]:
    """What result.json says of a layer of Figure 2, in the words of `deconv_figures`."""
    return {
        "maps": seen.maps,
        "num_maps": len(state[layer].values),
        "num_dead": int((~top_activations.alive(state[layer])).sum()),
        "receptive_field": net.architecture.receptive_field(layer).size,
        "image_size": net.architecture.image_size,
        "num_images": num_images,
        "strongest": seen.values[:, 0],
        "scales": seen.scales,
        **strongest.scores(seen),
    }


def write_deconv(out: Path, net: SqueezeNet, drawn: Mapping[str, Strongest], result: Mapping[str, Any]) -> None:
    """Write arrays, one page per layer, the overview, and last the result, which says that all is there."""
    (out / "result.json").unlink(missing_ok=True)
    caption = deconv_page.caption(result["num_images"], "ImageNet photos")
    title = "the nine photos that excite a map of SqueezeNet most, projected to the pixels"

    def section(layer: str, num: int, columns: int) -> Section:
        seen = Strongest._make(field if field is None else field[:num] for field in drawn[layer])
        words = net.class_words if layer == CLASSES else ()
        heading = deconv_page.summary_line(layer, result["layers"][layer])
        return Section(heading, deconv_page.map_panels(seen, columns, words), columns)

    for layer, seen in drawn.items():
        files.save_arrays(out / f"{layer}.npz", dict(strongest.arrays(seen)))
        page = canvas.page(f"Figure 2, {layer}: {title}", [section(layer, len(seen.maps), COLUMNS)], caption)
        results.save_figure(out / f"{layer}.png", page)
    sections = [section(layer, OVERVIEW_MAPS, OVERVIEW_MAPS) for layer in drawn]
    results.save_figure(out / "overview.png", canvas.page(f"Figure 2: {title}", sections, caption))
    files.save_json(out / "result.json", result)


def correspondence(
    config: Config, net: SqueezeNet, faces: tuple[ImageSet, Sequence[str], nets.Views], out: Path
) -> dict[str, Any]:
    """Table 1 of the annotated pictures, `faces` from `open_annotations`."""
    data, parts, views = faces
    options = part_correspondence.Config(layers=COMPARED, seed=config.seed)
    told = squeezenet_photos.provenance(net, data, config)
    fn = net.architecture.layers_of(COMPARED)
    return part_correspondence.make_table(options, fn, views, parts, net.mean, out, told)


def occlusion(config: Config, net: SqueezeNet, photos: ImageSet, out: Path) -> dict[str, Any]:
    """Figure 7 of some validation photos."""
    told = squeezenet_photos.provenance(net, photos, config)
    return squeezenet_occlusion.run(net, photos, out, num_images=config.num_images, seed=config.seed, told=told)


def report(results: dict[str, Any]) -> None:
    """Print where each figure lies."""
    for result in results.values():
        print(f"{result.get('figure', result.get('table'))}: {result['folder']}")


def main() -> None:
    """The command line."""
    when_stopped = "the same command goes on where the scan was last saved"
    command.main(Config, run, __doc__, report, when_stopped=when_stopped)


if __name__ == "__main__":
    main()
