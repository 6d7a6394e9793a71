"""Table 1 and Figure 8: does masking the same part change the features of different pictures in the same way?

    python -m experiments.part_correspondence --checkpoint runs/RUN [--annotations FILE]

Without --checkpoint the newest run under runs/ is taken, without --annotations the creatures of the demo set. Expected
time: 16 s of processor time with preset `demo`, most of them to render its pictures. Expected result: parts are more
consistent (a lower Delta) than random places, by less than in the paper; the demo set's eyes by 5 to 10 %.

FILE is JSON, {"faces": [{"file": "dog.jpg", "nose": [x, y], "left_eye": [x, y]}, ...]}: pictures, by their path from
FILE's folder, and places in pixels of the picture (x right, y down). A part is a key of the first picture with two
numbers; every picture has it, inside the centre, which the network sees. Left and right are as FILE says. Paper is
silent: whose right its right eye is. In the demo set it is the creature's own, which is on the picture's left.

Two controls: a random place of each picture beside its parts (the paper's), and one random place, anywhere, the same
in all pictures of a draw: where faces are aligned, parts are consistent by their place alone, and this shows how much.

Writes to <run>/figures/correspondence (or --out): table1.png with Figure 8 below it, signs.npz and result.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import command, inputs, pictures
from experiments.part_annotations import open_annotations
from experiments.pictures import Panel, Section
from zfjax.correspondence import mask_squares, random_places, sign_changes, table
from zfjax.data import ImageSet
from zfjax.data.demo import PART_NAMES
from zfjax.features import Features, layers_of
from zfjax.layers import Conv

CONTROLS = ("random", "one random place")
ROWS = ("right eye", "left eye", "nose", "random")
PAPER = {  # Table 1: mean and spread
    "conv5": dict(zip(ROWS, [(0.067, 0.007), (0.069, 0.007), (0.079, 0.017), (0.107, 0.017)], strict=True)),
    "fc7": dict(zip(ROWS, [(0.069, 0.015), (0.068, 0.013), (0.069, 0.011), (0.073, 0.014)], strict=True)),
}
NUM_PERMUTATIONS = 9999
WIDTH, RANDOM_SHOWN = 1460, 3  # pixels of a page, masks of a control in Figure 8
MEANINGS = {
    "delta": "normalised Hamming distance of sign(x - masked x), mean over pairs, and over draws of pictures",
    "std": "standard deviation over the draws, which share pictures: their spread, no standard error",
    "all": "the same distance over all pictures together; of a control the mean over its masks",
    "changed": "share of the features that a mask changes at all: where few change, few can be unequal",
    "p": "one-sided: share of permutations, where each picture takes its part or one of its random places by chance, "
    "whose distance over all pictures is at most the part's",
}


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
    """Masks of each control."""
    seed: int = 0
    """Seed of pictures, draws, random places and permutations."""
    overwrite: bool = False
    """Replace a result that is already there."""


def run(config: Config) -> dict[str, Any]:
    """Mask, compare and draw; returns what result.json holds. ValueError for bad fields, or a result already there."""
    net = inputs.load_net(config.checkpoint)
    names = net.architecture.layer_names
    mask_side(config, net.architecture.image_size)
    convs = [row.name for row in net.architecture.layers if isinstance(row, Conv)]
    fn = layers_of(net.params, config.layers or ((convs or names)[-1], names[-2]), architecture=net.architecture)
    out = inputs.result_folder(config.out, net.run / "figures" / "correspondence", overwrite=config.overwrite)
    data, parts, views = read_parts(config, net)
    return make_table(config, fn, views, parts, net.mean, out, inputs.provenance(net, data, config))


def mask_side(config: Config, size: int) -> int:
    """Side of the grey square in pictures of `size` pixels; ValueError for no such square, or no mask or picture."""
    side = round(config.mask_size * size)
    if not 1 <= side <= size or min(config.num_random, config.num_pictures) < 1:
        given = f"mask_size={config.mask_size}, num_random={config.num_random}, num_pictures={config.num_pictures}"
        raise ValueError(f"{given}: a square of 1 to {size} pixels, and at least 1 of each, are needed")
    return side


def make_table(
    config: Config,
    fn: Features,
    views: inputs.Views,
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
    places, masks = place_masks(views.parts, parts, size, side, config.num_random, config.seed)
    signs = sign_changes(fn, views.images, places, side=side)
    options = {"num_images": config.num_images, "num_draws": config.num_draws, "num_permutations": NUM_PERMUTATIONS}
    layers: dict[str, dict[str, dict]] = {}
    for layer in config.layers or signs:
        scores = table(signs[layer], masks, controls=CONTROLS, seed=config.seed, **options)
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
    paper = "hollow: the paper's, of 5 dogs. " if set(layers) & set(PAPER) else ""
    caption = (
        f"Filled: mean ± spread over {config.num_draws} draws of {config.num_images} of {len(views.images)} pictures; "
        f"{paper}p: whether the part is more consistent than random places, one-sided. "
        f"Squares of {side} of {size} pixels show the mean picture, which is 0 to the network."
    )
    (out / "result.json").unlink(missing_ok=True)
    pictures.save_arrays(out / "signs.npz", {"places": places, **signs})
    pictures.save_figure(out / "table1.png", pictures.page("Table 1: correspondence of parts", sections, [caption]))
    pictures.save_result(out / "result.json", result)
    return result


def read_parts(config: Config, net: inputs.TrainedNet) -> tuple[ImageSet, Sequence[str], inputs.Views]:
    """(data set, names of the parts, pictures with parts); ValueError where the parts are not known."""
    if config.annotations is not None:
        if config.data is not None or config.class_name is not None:
            raise ValueError("annotations name their own pictures: no data and no class_name can go with them")
        return open_annotations(config.annotations, net)
    data = inputs.open_images(config.data, net)
    source = inputs.validation_of(data)
    if "parts" not in source[0]:
        raise ValueError(f"data={data.name!r} does not say where parts are: take the demo set, or give --annotations")
    names = [data.class_names[source[index]["label"]] for index in range(len(source))]
    of_class = [index for index, name in enumerate(names) if config.class_name in (None, name)]
    if not of_class:
        raise ValueError(f"class_name={config.class_name!r}: one of {', '.join(sorted(set(names)))} is needed")
    chosen = np.random.default_rng(config.seed).permutation(of_class)[: config.num_pictures]
    return data, PART_NAMES, inputs.read_views(source, chosen, net)


def place_masks(parts: np.ndarray, names: Sequence[str], size: int, side: int, num: int, seed: int) -> tuple:
    """(places [M, N, 2] of all masks, {row of the table: its masks among the M})."""
    rng = np.random.default_rng(seed)
    apart = random_places(parts, size, side=side, num=num, rng=rng)
    shared = random_places(parts[:1, :0], size, side=side, num=num, rng=rng)  # no part to stay away from
    places = np.concatenate([np.moveaxis(parts, 1, 0), apart, np.broadcast_to(shared, apart.shape)])
    masks = {name: [part] for part, name in enumerate(names)}
    masks |= {name: range(len(names) + n * num, len(names) + (n + 1) * num) for n, name in enumerate(CONTROLS)}
    return places, masks


def draw_table(layers: Mapping[str, Mapping[str, Mapping]]) -> Section:
    """A plot for each layer: scores over that of random places, ours and the paper's, and the numbers themselves."""
    figure = Figure(figsize=(WIDTH / pictures.DPI, 2.4 * len(layers)), dpi=pictures.DPI, layout="constrained")
    plots = figure.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
    for plot, (layer, rows) in zip(plots, layers.items(), strict=True):
        ours = {row: (score["delta"], score["std"]) for row, score in rows.items()}
        paper = {row: told for row, told in PAPER.get(layer, {}).items() if row in rows}
        for told, offset, look in ((ours, 0.0, {"color": "C0"}), (paper, 0.3, {"color": "0.5", "mfc": "w"})):
            for row, cell in told.items():
                mean, std = np.array(cell) / (told[CONTROLS[0]][0] or 1.0)
                plot.errorbar(mean, list(rows).index(row) + offset, xerr=std, fmt="o", capsize=3, **look)
        words = [_words(layer, row, score) for row, score in rows.items()]
        plot.set(ylim=(len(rows) - 0.3, -0.7), yticks=range(len(rows)), yticklabels=rows)
        plot.set_title(layer, fontsize=pictures.SIZES["heading"])
        plot.tick_params(labelsize=pictures.SIZES["label"], labelbottom=True)
        plot.secondary_yaxis("right").set_yticks(range(len(rows)), words, fontsize=pictures.SIZES["label"])
        plot.axvline(1, color="0.8", zorder=0)
    heading = "Delta over that of random places: left of 1 is more consistent. Beside it, Delta itself"
    return Section(heading, [Panel(pictures.pixels_of(figure))], 1)


def draw_masks(views: inputs.Views, mean: np.ndarray, places: Any, masks: Mapping, side: int, num: int) -> Section:
    """Figure 8: what the network sees of `num` pictures, whole and under the masks of each row."""
    seen, size, named = [views.images], views.images.shape[1], ["original"]
    for row, own in masks.items():
        for mask in own[:RANDOM_SHOWN]:
            seen.append(np.asarray(mask_squares(views.images, places[mask], side=side)))
            named.append(row)
    margin, wide = (len(mean) - size) // 2, WIDTH // len(named) - pictures.GAP
    shown = np.stack(seen, axis=1)[:num] + mean[margin : margin + size, margin : margin + size]
    looks = pictures.resized(shown.round().astype(np.uint8).reshape(-1, size, size, 3), wide)
    panels = [Panel(look, named[n] if n < len(named) else "") for n, look in enumerate(looks)]
    return Section("Figure 8: what the network sees", panels, len(named))


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    for layer, rows in result["layers"].items():
        for row, score in rows.items():
            print(f"{layer:6} {row:18} {_words(layer, row, score)}; {score['changed']:.0%} of the features changed")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


def _words(layer: str, row: str, score: Mapping[str, Any]) -> str:
    told = f"{score['delta']:.3f} ± {score['std']:.3f}" + ("" if score["p"] is None else f", p = {score['p']:.2g}")
    return told + ("; paper {:.3f} ± {:.3f}".format(*PAPER[layer][row]) if row in PAPER.get(layer, ()) else "")


if __name__ == "__main__":
    main()
