"""Table 1 and Figure 8: does masking the same part change the features of different pictures in the same way?

    python -m experiments.part_correspondence --checkpoint runs/RUN [--annotations FILE]

Without --checkpoint the newest run under runs/ is taken, without --annotations the creatures of the demo set. Expected
time: 16 s on two CPU cores with preset `demo`, most of them to render its pictures. Expected result: parts are more
consistent (a lower Delta) than random places, by less than in the paper; the demo set's eyes by 5 to 10 %.

FILE is JSON, {"faces": [{"file": "dog.jpg", "nose": [x, y], "left_eye": [x, y]}, ...]}: pictures, by their path from
FILE's folder, and places in pixels of the picture (x right, y down). A part is a key of the first picture with two
numbers; every picture has it, inside the centre, which the network sees. Left and right are as FILE says. Paper is
silent: whose right its right eye is. In the demo set it is the creature's own, which is on the picture's left.

Two controls: a random place of each picture beside its parts (the paper's), and one random place, the same in all
pictures: where faces are aligned, parts are consistent by their place alone, and this shows how much.

Writes to <run>/figures/correspondence (or --out): table1.png with Figure 8 below it, signs.npz and result.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages import canvas
from experiments.pages.correspondence import CONTROLS, MEANINGS, PAPER, caption, draw_masks, draw_table, told
from experiments.shell import command, results
from zfjax import files, nets
from zfjax.analyses.correspondence import check_draw, random_places, sign_changes, table
from zfjax.architecture import Conv
from zfjax.data import ImageSet, sets
from zfjax.data.annotations import open_annotations
from zfjax.data.demo import PART_NAMES
from zfjax.errors import UserError
from zfjax.features import Features, layers_of

NUM_PERMUTATIONS = 9999


TITLE = "Table 1: correspondence of parts"


@dataclass(frozen=True)
class Config:
    """Make Table 1: correspondence of parts."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set that knows parts (the demo set); by default what the net was trained on."""
    out: Path | None = None
    """Folder for the results; by default <run>/figures/correspondence."""
    annotations: Path | None = None
    """JSON file of pictures and their parts, in the place of a data set."""
    class_name: str | None = None
    """Only the data set's pictures of this class; by default of any."""
    num_pictures: int = 24
    """Pictures of the data set, chosen by seed; of an annotations file all are taken."""
    layers: tuple[str, ...] = ()
    """Layers to compare; by default the last convolutional one and the last hidden one."""
    mask_size: float = 0.25
    """Side of the grey square, as a share of the picture's (Paper is silent; as in Figure 7)."""
    num_images: int = 5
    """Pictures in a draw."""
    num_draws: int = 100
    """Draws whose mean and spread are told."""
    num_random: int = 10
    """Masks of each picture at random places of its own."""
    num_aligned: int = 39
    """Masks at one random place in all pictures; p_aligned is 1 / (1 + this) at least."""
    seed: int = 0
    """Seed of pictures, draws, random places and permutations."""
    overwrite: bool = False
    """Replace a result that is already there."""


def run(config: Config) -> dict[str, Any]:
    """Mask, compare and draw; returns what result.json holds. UserError for bad fields, or a result already there."""
    net = nets.load_net(config.checkpoint)
    names = net.architecture.layer_names
    mask_side(config, net.architecture.image_size)
    convs = [row.name for row in net.architecture.layers if isinstance(row, Conv)]
    fn = layers_of(net.params, config.layers or ((convs or names)[-1], names[-2]), architecture=net.architecture)
    out = results.result_folder(config.out, net.run / "figures" / "correspondence", overwrite=config.overwrite)
    data, parts, views = read_parts(config, net)
    return make_table(config, fn, views, parts, net.mean, out, results.provenance(net, data, config))


def mask_side(config: Config, size: int) -> int:
    """Side of the grey square in pictures of `size` pixels; UserError for no such square, or no mask or picture."""
    side = round(config.mask_size * size)
    if not 1 <= side <= size or min(config.num_random, config.num_aligned, config.num_pictures) < 1:
        named = ("mask_size", "num_random", "num_aligned", "num_pictures")
        given = ", ".join(f"{name}={getattr(config, name)}" for name in named)
        raise UserError(f"{given}: a square of 1 to {size} pixels, and at least 1 of each, are needed")
    return side


def make_table(
    config: Config,
    fn: Features,
    views: nets.Views,
    parts: Sequence[str],
    mean: np.ndarray,
    out: Path,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Table 1 of any network, written to `out`.

    Args:
      config: sizes, numbers and seed; what names network and pictures is not read.
      fn: images -> {layer: features}, of the layers in `config`.
      views, parts: the pictures with the places of their parts, and the parts' names.
      mean: float32 [S, S, 3], what was subtracted from the pictures.
      out: folder.
      provenance: what the result says of where it comes from.
    """
    side = mask_side(config, size := views.images.shape[1])
    check_draw(config.num_images, len(views.images))  # before the work, as `table` comes after it
    assert views.parts is not None  # the pictures were read for them
    places, masks = place_masks(config, views.parts, parts, size, side)
    signs = sign_changes(fn, views.images, places, side=side)
    options = {"num_images": config.num_images, "num_draws": config.num_draws, "num_permutations": NUM_PERMUTATIONS}
    layers: dict[str, dict[str, dict[str, Any]]] = {}
    for layer in config.layers or signs:
        scores = table(signs[layer], masks, controls=CONTROLS, aligned=CONTROLS[1], seed=config.seed, **options)
        layers[layer] = {row: score._asdict() for row, score in scores.items()}
    result = {
        "table": "Table 1",
        "layers": layers,
        "num_pictures": len(views.images),
        "mask_pixels": side,
        "meanings": MEANINGS,
        "paper": PAPER,
        "seed": config.seed,
        "folder": out,
        **provenance,
    }
    sections = [draw_table(layers), draw_masks(views, mean, places, masks, side, config.num_images)]
    (out / "result.json").unlink(missing_ok=True)
    files.save_arrays(out / "signs.npz", {"places": places, **signs})
    results.save_figure(out / "table1.png", canvas.page(TITLE, sections, [caption(config, result, size)]))
    files.save_json(out / "result.json", result)
    return result


def read_parts(config: Config, net: nets.TrainedNet) -> tuple[ImageSet, Sequence[str], nets.Views]:
    """(data set, names of the parts, pictures with parts); UserError where the parts are not known."""
    if config.annotations is not None:
        if config.data is not None or config.class_name is not None:
            raise UserError("annotations name their own pictures: no data and no class_name can go with them")
        return open_annotations(config.annotations, net)
    data = sets.open_images(config.data, net)
    source = sets.validation_of(data)
    if "parts" not in source[0]:
        raise UserError(f"data={data.name!r} does not say where parts are: take the demo set, or give --annotations")
    names = [data.class_names[source[index]["label"]] for index in range(len(source))]
    of_class = [index for index, name in enumerate(names) if config.class_name in (None, name)]
    if not of_class:
        raise UserError(f"class_name={config.class_name!r}: one of {', '.join(sorted(set(names)))} is needed")
    chosen = np.random.default_rng(config.seed).permutation(of_class)[: config.num_pictures]
    return data, PART_NAMES, nets.read_views(source, chosen, net)


def place_masks(
    config: Config, parts: np.ndarray, names: Sequence[str], size: int, side: int
) -> tuple[np.ndarray, dict[str, Sequence[int]]]:
    """(places [M, N, 2] of all masks, {row of the table: its masks among the M})."""
    rng = np.random.default_rng(config.seed)
    apart = random_places(parts, size, side=side, num=config.num_random, rng=rng)
    aligned = random_places(parts[:1, :0], size, side=side, num=config.num_aligned, rng=rng)  # no part to avoid
    aligned = np.broadcast_to(aligned, (config.num_aligned, *apart.shape[1:]))
    places = np.concatenate([np.moveaxis(parts, 1, 0), apart, aligned])
    first, last = len(names), len(names) + config.num_random
    masks = {name: [part] for part, name in enumerate(names)}
    return places, {**masks, CONTROLS[0]: range(first, last), CONTROLS[1]: range(last, len(places))}


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    for layer, rows in result["layers"].items():
        for row, score in rows.items():
            print(f"{layer:6} {row:18} {told(layer, row, score)}; {score['changed']:.0%} of the features changed")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
