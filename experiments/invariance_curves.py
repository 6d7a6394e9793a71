"""Figure 5: how features and the true label's probability change under translation, scaling and rotation.

    python -m experiments.invariance_curves --net runs/RUN

Without --net the newest run under runs/ is taken. Expected time: 17 s on two CPU cores with preset `demo`, most of it
to render its pictures. Expected figure: the distance in the first layer jumps at the smallest transform and stays
there; in the last hidden layer it rises two to three times less steeply. The label survives small translations and
scalings, and rotations where the object is symmetric. The paper calls the rise of the last layer quasi-linear: a line
through zero has R^2 .76 for translation and .56 for scale with preset `reduced` on ten classes of photos, .31 and .39
with `demo`.

The validation pictures are used as stored, so what surrounds the network's crop moves into view; beyond the picture is
its mirror image (`zfjax.invariance.warp`). The mean is subtracted last, as from any picture. With --data a folder of
your own pictures is used; a picture inside a folder with the name of a class of the net has that class.

Writes to <run>/figures/invariance (or --out): figure5.png, curves.npz and result.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from experiments.pages import invariance as invariance_page
from experiments.pages import lettering
from experiments.shell import command, figure, results
from zfjax import nets
from zfjax.analyses import invariance, sanity
from zfjax.analyses.invariance import TRANSFORMS, Chosen
from zfjax.data import ImageSet
from zfjax.errors import UserError
from zfjax.nets import Net

COMMAND = "invariance_curves"
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
    "label_stability": "share of the amounts at which the most probable class is that of the untransformed image; mean "
    "and images leave out the amount that changes nothing, and num_amounts are left; amounts are all",
    "untrained": "transforms of the same pictures by the same network with its weights drawn anew; null where they are "
    "not at hand",
    "quarter_turn_gain": "each image: its label's probability at 90, 180, 270 degrees minus that 30 or more from them",
}


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Draw Figure 5: invariance to translation, scale and rotation."""

    layers: tuple[str, ...] = ()
    """Layers whose features are compared; by default the first one and the last hidden one."""
    num_images: int = 5
    """Pictures, drawn among those classified rightly, of different classes as far as there are."""


Named = TypedDict("Named", {"class": str | None})  # the name of its class; None without classes


class PictureFacts(Named):
    """What result.json says of a picture."""

    image: str  # its file's name, or its place in the split
    index: int
    known: bool  # whether its class is
    right: bool | None  # classified; None without classes


class Result(results.Result):
    """What result.json holds."""

    figure: str
    images: list[PictureFacts]
    layers: tuple[str, ...]
    transforms: dict[str, invariance.Numbers]  # translation, scale, rotation
    untrained: dict[str, invariance.Numbers] | None  # the same transforms; None where no weights are at hand
    meanings: dict[str, str]
    num_images: int
    not_applicable: dict[str, str]


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result:
    """Measure and draw.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for bad fields, or a result already there.
    """
    names = ("curves.npz", "figure5.png")
    with figure.opened(config, COMMAND, folder="figures/invariance", net=net, names=names) as (net, out):
        layers = tuple(dict.fromkeys(config.layers)) or invariance.compared_layers(net)
        for layer in layers:
            nets.check_layer(net, layer)
        logits, size = nets.logits_layer(net), net.image_size
        data = figure.open_images(config, net, data)
        chosen = invariance.choose_images(net, data, num=config.num_images, seed=config.seed)
        amounts = invariance.amounts_at(size)
        stored = chosen.stored.astype(np.float32)

        def curves_of(some: Net) -> dict[str, invariance.Curves]:
            read = tuple(dict.fromkeys((*layers, *((logits,) if logits else ()))))
            options: dict[str, Any] = {
                "size": size,
                "logits": logits,
                "batch_size": BATCH_SIZE,
                "name": f"net={some.name!r}",
            }
            fn = invariance.features_of_crops(some, read)
            return {
                name: invariance.curves(fn, stored, transform=transform, amounts=amounts[name], **options)
                for name, transform in TRANSFORMS.items()
            }

        def numbers_of(measured: dict[str, invariance.Curves]) -> dict[str, invariance.Numbers]:
            return {
                name: invariance.numbers(of, transform=name, amounts=amounts[name], layers=layers, labels=chosen.labels)
                for name, of in measured.items()
            }

        def numbers_of_untrained() -> dict[str, invariance.Numbers] | None:
            if (twin := sanity.untrained(net, config.seed)) is None:
                return None
            try:
                return numbers_of(curves_of(twin))
            except UserError:  # such weights may answer nothing, which is no fault of the network's
                return None

        measured = curves_of(net)
        result: Result = {
            "figure": "Figure 5",
            "images": [facts_of(chosen, n) for n in range(len(chosen.indices))],
            "layers": layers,
            "transforms": numbers_of(measured),
            "untrained": numbers_of_untrained(),
            "meanings": MEANINGS,
            "num_images": len(chosen.labels),
            "not_applicable": without_classes(net),
            "paper": PAPER,
            "seed": config.seed,
            **results.provenance(net, data, config),
        }
        page = invariance_page.draw(chosen, measured, amounts=amounts, layers=layers, size=size)
        arrays = invariance.arrays(chosen, amounts, measured)
        return results.write(out, result, command=COMMAND, contents={"curves.npz": arrays, "figure5.png": page})


def facts_of(chosen: Chosen, n: int) -> PictureFacts:
    """What result.json says of picture number n; its class is None without classes."""
    return {
        "image": chosen.pictures[n],
        "index": chosen.indices[n],
        "class": chosen.names[n] if chosen.names else None,
        "known": chosen.known[n],
        "right": chosen.right[n] if chosen.names else None,
    }


def without_classes(net: nets.Net) -> dict[str, str]:
    """{part of the figure: why it is left out} of a network without logits."""
    reason = nets.why_no_classes(net)
    return {} if reason is None else {"probability of the label": reason}


def report(result: Result) -> None:
    """Print the numbers of each transform."""
    for name, of in result["transforms"].items():
        slopes = ", ".join(f"{slope:.3g} in {lettering.on_console(layer)}" for layer, slope in of["slope"].items())
        print(f"A small {name} moves features, per {of['per']}, by this share of their length: {slopes}.")
        if (kept := of["label_stability"]) is not None:
            print(f"  The most probable class stays the same at {kept['mean']:.0%} of the amounts.")
    command.print_left_out(result["not_applicable"])


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
