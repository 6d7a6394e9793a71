"""Table 1 and Figure 8: does masking the same part change the features of different pictures in the same way?

    python -m experiments.part_correspondence --net runs/RUN [--annotations FILE]

Without --net the newest run under runs/ is taken, without --annotations the creatures of the demo set. Expected
time: 16 s on two CPU cores with preset `demo`, most of it to render its pictures. Expected result: parts are more
consistent (a lower Delta) than random places, by less than in the paper; the demo set's eyes by 5 to 10 %.

FILE is JSON, {"faces": [{"file": "dog.jpg", "nose": [x, y], "left_eye": [x, y]}, ...]}: pictures, with paths relative
to FILE's folder, and positions in pixels of the picture (x right, y down). Every key of the first picture with two
numbers is a part; every picture has it, inside the centre, which the network sees. Left and right are as FILE says.
Paper is silent: whose right its right eye is. In the demo set it is the creature's own, on the left of the picture.

Two controls: a random place in each picture (the paper's), and one random place that is the same in all pictures. In
aligned faces parts are consistent by their place alone, and the second control measures how much.

Writes to <run>/figures/correspondence (or --out): table1.png with Figure 8 below it, signs.npz and result.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.pages import correspondence as correspondence_page
from experiments.pages import lettering
from experiments.pages.correspondence import PAPER, score_words
from experiments.shell import command, figure, results
from zfjax import nets
from zfjax.analyses import correspondence
from zfjax.analyses.correspondence import MEANINGS
from zfjax.data import ImageSet, sets
from zfjax.data.annotations import open_annotations
from zfjax.data.demo import CLASS_NAMES, PART_NAMES
from zfjax.errors import UserError
from zfjax.nets import Net

COMMAND = "part_correspondence"
WITHOUT_PARTS = "data={!r} does not say where parts are: take the demo set, or give --annotations"


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Make Table 1: correspondence of parts."""

    annotations: Path | None = None
    """JSON file of pictures and their parts, instead of a data set."""
    class_name: str | None = None
    """Only the data set's pictures of this class; by default of any."""
    num_pictures: int = 24
    """Pictures of the data set, chosen by seed; of an annotations file all are taken."""
    layers: tuple[str, ...] = ()
    """Layers to compare; by default the last hidden one with feature maps and the last hidden one."""
    mask_size: float = 0.25
    """Side of the grey square, as a share of the picture's shorter one (Paper is silent; as in Figure 7)."""
    num_images: int = 5
    """Pictures in a draw."""
    num_draws: int = 100
    """Draws for the mean and spread."""
    num_random: int = 10
    """Masks at random places, different in each picture."""
    num_aligned: int = 39
    """Masks at a random place that is the same in all pictures; the smallest p_aligned is 1 / (1 + this)."""
    num_permutations: int = 9999
    """Permutations of the test; the smallest p is 1 / (1 + this)."""


class Result(results.Result):
    """What result.json holds."""

    table: str
    layers: dict[str, dict[str, correspondence.ScoreFacts]]  # by part or control
    num_pictures: int
    num_images: int  # in a draw
    num_draws: int
    num_aligned: int
    pictures: Sequence[str]  # their files' names
    mask_pixels: int
    mask_shows: str
    image_size: nets.Size
    meanings: dict[str, str]


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result:
    """Mask, compare and draw.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for bad fields, or a result already there.
    """
    if config.annotations is not None and (config.data is not None or config.class_name is not None):
        raise UserError("annotations name their own pictures: no data and no class_name can go with them")
    figure.check_numbers(config)
    correspondence.check_draw(config.num_images, None if config.annotations is not None else config.num_pictures)
    names = ("signs.npz", "table1.png")
    with figure.opened(config, COMMAND, folder="figures/correspondence", net=net, names=names) as (net, out):
        side = mask_side(config, min(nets.size_of(net.image_size)))
        layers = tuple(nets.check_layer(net, layer) for layer in config.layers) or correspondence.compared_layers(net)
        data, parts, views = read_parts(config, net, data)
        compared = correspondence.compare_parts(
            net,
            views,
            parts,
            side=side,
            layers=layers,
            num_images=config.num_images,
            num_draws=config.num_draws,
            num_random=config.num_random,
            num_aligned=config.num_aligned,
            num_permutations=config.num_permutations,
            seed=config.seed,
        )
        result: Result = {
            "table": "Table 1",
            "layers": {
                layer: {row: correspondence.facts_of(score) for row, score in scores.items()}
                for layer, scores in compared.scores.items()
            },
            "num_pictures": len(views.images),
            "num_images": config.num_images,
            "num_draws": config.num_draws,
            "num_aligned": config.num_aligned,
            "pictures": views.names,
            "mask_pixels": side,
            "mask_shows": mask_words(net),
            "image_size": net.image_size,
            "meanings": MEANINGS,
            "paper": PAPER,
            "seed": config.seed,
            **results.provenance(net, data, config),
        }
        page = correspondence_page.draw(views, compared, side=side, result=result)
        arrays = {"places": compared.places, "pictures": np.array(views.names), **compared.signs}
        return results.write(out, result, command=COMMAND, contents={"signs.npz": arrays, "table1.png": page})


def mask_side(config: Config, size: int) -> int:
    """Side of the grey square in pictures whose shorter side is `size`; UserError for no such square."""
    side = round(config.mask_size * size) if 0 < config.mask_size <= 1 else 0
    if side < 1:
        raise UserError(
            f"mask_size={config.mask_size}: a share of the picture's shorter side, {size} pixels, is needed that makes "
            "a square of 1 pixel at least and of the whole side at most"
        )
    return side


def mask_words(net: nets.Net) -> str:
    """What the grey squares show."""
    of_table = "the mean picture, which is 0 to the network"
    return of_table if isinstance(net, nets.OfTable) else "the mean colour of the pictures"


def read_parts(config: Config, net: Net, data: ImageSet | None = None) -> tuple[ImageSet, Sequence[str], nets.Views]:
    """(data set, names of the parts, pictures with parts); UserError where the parts are not known."""
    if config.annotations is not None:
        data, names = open_annotations(config.annotations, net)
        source = sets.validation_of(data)
        return data, names, in_single_precision(nets.read_views(source, range(len(source)), net))
    name = config.data or getattr(net, "data", None) if data is None else data.name
    if data is None and name is not None and not sets.is_demo(name) and Path(name).exists():
        raise UserError(WITHOUT_PARTS.format(name))  # before a long folder is read
    if data is None and name is not None and sets.is_demo(name):
        check_class(config.class_name, CLASS_NAMES)  # before its pictures are drawn
    data = figure.open_images(config, net, data)
    source = sets.validation_of(data)
    if "parts" not in source[0]:
        raise UserError(WITHOUT_PARTS.format(name))
    classes = [data.class_names[source[index]["label"]] for index in range(len(source))]
    check_class(config.class_name, classes)
    of_class = [index for index, name in enumerate(classes) if config.class_name in (None, name)]
    chosen = np.random.default_rng(config.seed).permutation(of_class)[: config.num_pictures]
    return data, PART_NAMES, in_single_precision(nets.read_views(source, chosen, net))


def check_class(name: str | None, classes: Sequence[str]) -> None:
    """UserError for a name that is none of the classes; None is any."""
    if name is not None and name not in classes:
        raise UserError(f"class_name={name!r}: one of {', '.join(sorted(set(classes)))} is needed")


def in_single_precision(views: nets.Views) -> nets.Views:
    """The places of the parts as float32."""
    return views if views.parts is None else views._replace(parts=views.parts.astype(np.float32))


def report(result: Result) -> None:
    """Print the table."""
    for layer, rows in result["layers"].items():
        for row, score in rows.items():
            named = f"{lettering.on_console(layer):6} {lettering.on_console(row):18}"
            print(f"{named} {score_words(layer, row, score)}; {score['changed']:.0%} of the features changed")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
