"""Figure 1: the projection of one unit of one image, stage by stage.

    python -m experiments.deconvnet_walkthrough --net runs/RUN
    python -m experiments.deconvnet_walkthrough --layer conv3 --map 7 --image 12

Without --net the newest run under runs/ is taken. Expected time: 18 s on two CPU cores. Expected figure: one column for
each layer, from the chosen one on the left to the pixels on the right: the feature map, the switches of its pool in
colours, the signal from the layer above, unpooled, and rectified; below, a few windows of the lowest pool with the
switches as arrows. Expected result: unpooling preserves the sum; below the first layer rectification removes half of
the signal or more; all of the projection's energy is inside the unit's receptive field, most of it on the object.

Only a table of layers (a run, or an imported network) has all these stages. For any other net the figure shows, layer
by layer, the feature map and the projected signal, and the unit's projection by three ways.

Writes to <run>/figures/walkthrough, to walkthrough/conv3-map7-image12 below it for such flags, or to --out:
walkthrough.png, walkthrough.npz with every map that is drawn, result.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import lettering
from experiments.pages import walkthrough as walkthrough_page
from experiments.shell import command, figure, results
from zfjax import nets
from zfjax.analyses import walkthrough
from zfjax.analyses.walkthrough import LayerWalk, Numbers, Walk
from zfjax.data import ImageSet, name_of, sets
from zfjax.errors import UserError
from zfjax.nets import Net

COMMAND = "deconvnet_walkthrough"


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Draw Figure 1: one unit of one image on its way down, stage by stage."""

    layer: str | None = None
    """Layer to start from; by default the last convolutional one, or the highest hidden one with maps."""
    map: int | None = None
    """Its map, dense unit or class to start from; by default the one that the image excites most."""
    image: int | None = None
    """Place of the image in the validation split; by default drawn by --seed."""


class Projected(TypedDict):
    """How projections were made."""

    seed: str  # where they start: "value"


class Result(results.Result, Numbers):
    """What result.json holds."""

    figure: str
    projections: Projected
    image: int  # its place in the validation split
    picture: str  # its file's name, or its place
    meanings: dict[str, str]
    not_applicable: dict[str, str]  # {part of the figure: why it is left out}


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result:
    """Project one unit, keep every stage, measure and draw.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for an unknown layer, map or image, a map that the image does not excite, a set
      without validation pictures, or an output folder that holds something else.
    """
    net = nets.load_net(config.net) if net is None else net
    names = ("walkthrough.npz", "walkthrough.png")
    with figure.opened(config, COMMAND, folder="figures/walkthrough", net=net, names=names) as (_, out):
        layer = default_layer(net) if config.layer is None else config.layer
        nets.check_layer(net, layer)
        nets.check_way_down(net, [layer])
        num_units = nets.shapes_of(net, [layer])[layer][-1]
        if config.map is not None and not 0 <= config.map < num_units:
            raise UserError(f"map={config.map}: a whole number from 0 to {num_units - 1} is needed in {layer}")
        data = figure.open_images(config, net, data)
        source = sets.validation_of(data)
        image = int(sets.choose(source, 1, config.seed)[0]) if config.image is None else config.image
        if not 0 <= image < len(source):
            raise UserError(f"image={image}: the validation split of {data.name!r} has {len(source)}, counted from 0")
        views = nets.read_views(source, [image], net)
        walk: Walk | LayerWalk
        if isinstance(net, nets.OfTable):
            walk = walkthrough.walk_down(net, views, layer=layer, channel=config.map)
        else:
            walk = walkthrough.walk_layers(net, views, layer=layer, channel=config.map)
        result = summarize(config, net, data=data, image=image, walk=walk)
        return results.write(out, result, command=COMMAND, contents=contents(walk, result))


def default_layer(net: nets.Net) -> str:
    """The last convolutional layer of a table; of any other net the highest hidden one with maps, or the highest."""
    if isinstance(net, nets.OfTable):
        return walkthrough.last_conv(net.architecture)
    hidden, maps = nets.hidden_layers(net), nets.map_layers(net)
    return ([layer for layer in hidden if layer in maps] or hidden)[-1]


def summarize(config: Config, net: nets.Net, *, data: ImageSet, image: int, walk: Walk | LayerWalk) -> Result:
    """What result.json says."""
    return {
        "figure": "Figure 1",
        "projections": {"seed": "value"},
        "image": image,
        "picture": name_of(sets.validation_of(data), image),
        **walk.numbers,
        "meanings": walkthrough.MEANINGS,
        "not_applicable": walk.not_applicable if isinstance(walk, LayerWalk) else {},
        "paper": None,  # its figure is a drawing
        "seed": config.seed,
        **results.provenance(net, data, config),
    }


def contents(walk: Walk | LayerWalk, result: Result) -> dict[str, Figure | dict[str, np.ndarray]]:
    """{file: picture or arrays}."""
    stages = walk.layers if isinstance(walk, LayerWalk) else walk.stages
    maps = {
        f"{stage.layer}/{name}": field
        for stage in stages
        for name, field in stage._asdict().items()
        if isinstance(field, np.ndarray)
    }
    arrays = {**maps, "name": np.array(result["picture"]), "index": np.array(result["image"]), "picture": walk.picture}
    if isinstance(walk, LayerWalk):
        arrays |= {"projection" if way == "deconvnet" else way: of for way, of in walk.projections.items()}
        return {"walkthrough.npz": arrays, "walkthrough.png": walkthrough_page.draw_layers(walk)}
    return {
        "walkthrough.npz": {**arrays, "projection": walk.projection},
        "walkthrough.png": walkthrough_page.draw(walk),
    }


def report(result: Result) -> None:
    """Print what was conserved."""
    print(f"{result['unit']}, activation {result['activation']:.3g}, in picture {result['picture']}")
    for layer, facts in result["layers"].items():
        words = [f"rectification removes {lettering.percent(facts['removed'])}"] if "removed" in facts else []
        words += [f"{lettering.percent(facts['reached'])} of its places are reached"] if "reached" in facts else []
        print(f"{lettering.on_console(layer)}: {'; '.join(words) or 'what comes down there is not known'}")
    if "what the unit sees" not in result["not_applicable"]:
        print(walkthrough_page.where(result))
    command.print_left_out(result["not_applicable"])


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
