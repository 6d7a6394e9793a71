"""Figure 5: how features and the true label's probability change while pictures are translated, scaled and rotated.

    python -m experiments.invariance_curves --checkpoint runs/RUN

Without --checkpoint the newest run under runs/ is taken. Expected time: 17 s on two CPU cores with preset `demo`, most
of them to render its pictures. Expected figure: the first layer jumps at the smallest transform and stays there, the
last hidden layer rises two to three times less steeply; the label survives small translations and scales, and rotation
where the object is alike from every side. The paper calls the last layer's rise quasi-linear: in a line through zero
R^2 is .76 for translation and .56 for scale with preset `reduced` on ten classes of photos, .31 and .39 with `demo`.

The validation pictures are read as they are stored, so what lies around the network's crop moves in; beyond them
stands their mirror image (`zfjax.invariance.warp`). The mean is subtracted last, as from any picture. With --data a
folder of your own pictures is looked at: one inside a folder that is called as a class of the net has that class.

Writes to <run>/figures/invariance (or --out): figure5.png, curves.npz and result.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.tree_util import Partial

from experiments.pages import invariance as invariance_page
from experiments.shell import command, results
from zfjax import files, nets
from zfjax.analyses import invariance
from zfjax.analyses.invariance import TRANSFORMS, amounts_at, arrays, choose_images, numbers
from zfjax.data import sets
from zfjax.features import layers_of

BATCH_SIZE = 9  # amounts per forward pass: the tables above leave little of their last batch empty


PAPER = (
    "small transforms change layer 1 dramatically and layer 7 little, quasi-linearly for translation and scale; "
    "the output is not invariant to rotation, but for objects with rotational symmetry"
)


MEANINGS = {
    "slope": "distance over the length of the untransformed vector, per pixel, unit of scale or degree: least squares "
    "through zero over the smallest fifth of the range; mean of the images",
    "raw_slope": "the same of the Euclidean distance itself",
    "slope_ratio": "slope of the first layer over that of the last one",
    "linearity": "R^2 of the best line through zero against |pixels|, scale - 1, or degrees up to 180; mean likewise",
    "of_images": "slope and linearity of each image",
    "label_stability": "share of the amounts at which the most probable class is that of the untransformed image",
    "quarter_turn_gain": "each image: its label's probability at 90, 180, 270 degrees minus that 30 or more from them",
}


@dataclass(frozen=True)
class Config:
    """Draw Figure 5: invariance to translation, scale and rotation."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set, or folder of pictures, to look at; by default what the net was trained on."""
    out: Path | None = None
    """Folder for the results; by default <run>/figures/invariance."""
    layers: tuple[str, ...] = ()
    """Layers whose features are compared; by default the first one and the last hidden one."""
    num_images: int = 5
    """Pictures, drawn among those classified rightly, of different classes as far as there are."""
    seed: int = 0
    """Seed of the draw."""
    overwrite: bool = False
    """Replace a result that is already there."""


def run(config: Config) -> dict[str, Any]:
    """Measure and draw; returns what result.json holds. UserError for bad fields, or a result already there."""
    net = nets.load_net(config.checkpoint)
    data = sets.open_images(config.data, net)
    *below, logits = net.architecture.layer_names
    layers = tuple(dict.fromkeys(config.layers or (below[0], below[-1])))
    size, margin = net.architecture.image_size, (len(net.mean) - net.architecture.image_size) // 2
    fn = layers_of(net.params, tuple(dict.fromkeys((*layers, logits))), architecture=net.architecture)
    reads_pictures = Partial(_minus_mean, fn, net.mean[margin : margin + size, margin : margin + size])
    out = results.result_folder(config.out, net.run / "figures" / "invariance", overwrite=config.overwrite)
    chosen = choose_images(data, net, config.num_images, config.seed)
    amounts = amounts_at(size)
    options: dict[str, Any] = {"size": size, "logits": logits, "batch_size": BATCH_SIZE}
    found = {
        name: invariance.curves(reads_pictures, chosen.stored.astype(np.float32), transform, amounts[name], **options)
        for name, transform in TRANSFORMS.items()
    }
    described = zip(chosen.indices, chosen.names, chosen.known, chosen.right, strict=True)
    result = {
        "figure": "Figure 5",
        "images": [dict(zip(("index", "class", "known", "right"), image, strict=True)) for image in described],
        "layers": layers,
        "transforms": {name: numbers(name, amounts[name], found[name], layers, chosen.labels) for name in TRANSFORMS},
        "meanings": MEANINGS,
        "num_images": len(chosen.labels),
        "paper": PAPER,
        "seed": config.seed,
        "folder": out,
        **results.provenance(net, data, config),
    }
    (out / "result.json").unlink(missing_ok=True)
    files.save_arrays(out / "curves.npz", arrays(chosen, amounts, found))
    results.save_figure(out / "figure5.png", invariance_page.draw(chosen, amounts, found, layers, size))
    files.save_json(out / "result.json", result)
    return result


def report(result: dict[str, Any]) -> None:
    """Print the numbers of each transform."""
    for name, of in result["transforms"].items():
        slopes = ", ".join(f"{layer} {slope:.3g}" for layer, slope in of["slope"].items())
        print(f"{name}: slope per {of['per']} {slopes}; label kept {of['label_stability']['mean']:.0%}")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


def _minus_mean(fn: Partial, mean: Any, crops: Any) -> Any:
    return fn(crops - mean[None])


if __name__ == "__main__":
    main()
