"""Figure 2: the images that excite some maps of each layer most, projected to pixels, beside their patches.

    python -m experiments.deconv_figures --net runs/RUN

Without --net the newest run under runs/ is taken. Expected time: one forward pass over the validation set (about a
minute for 10,000 pictures of 112 pixels on two CPU cores; it shows its rate, and resumes after a kill), then half a
minute for projections and pages; 26 s in all with the demo net. Expected figure: the filters of layer 1, edges and
colours; corners and textures in layer 2; larger structures above; projections that resemble parts of their patches.

Writes to <run>/figures/deconv (or --out): one page per layer, overview.png, result.json, and <layer>.npz with the
arrays of the page. The strongest activations of all maps are kept in <run>/scans, and later calls reuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from matplotlib.figure import Figure

from experiments.pages import deconv as deconv_page
from experiments.pages import lettering
from experiments.shell import command, figure, results, scans
from zfjax import files, nets, parallel
from zfjax.analyses import sanity, strongest, top_activations
from zfjax.analyses.strongest import NUM_IMAGES, choose_maps, parse_maps
from zfjax.analyses.top_activations import State
from zfjax.data import Concatenated, ImageSet, Source, sets
from zfjax.nets import Net

COMMAND = "deconv_figures"
NUM_MAPS = {"conv1": 16, "conv2": 16, "conv3": 12, "conv4": 10, "conv5": 11}  # Paper is silent; counted in its figure
OTHER_NUM_MAPS = 9
SPLITS = {"validation": "validation", "both": "train and validation"}  # as a scan is called

Drawn = Mapping[str, strongest.Strongest]  # by layer


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Draw Figure 2: the strongest activations of every layer, projected to the pixels."""

    layers: tuple[str, ...] = ()
    """Layers to draw; by default every one that has feature maps, or the hidden ones where none has."""
    maps: tuple[str, ...] = ()
    """Maps to draw, such as conv3:5,17; in other layers --seed chooses."""
    split: Literal["validation", "both"] = "validation"
    """Pictures to look through: the validation split, or the training pictures too."""
    num_maps: int | None = None
    """Maps to choose in each layer; by default 16, 16, 12, 10 and 11 in layers 1 to 5, 9 in others."""
    batch_size: int = 128
    """Images per batch, over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""
    save_every: float = 30.0
    """Seconds between saves of the scan's state."""


class LayerFacts(TypedDict):
    """What result.json says of a layer."""

    maps: Any  # int [M]
    units: list[str]  # [M], what they are called
    kind: str  # map or unit
    num_maps: int
    num_dead: int
    receptive_field: nets.Size | None  # pixels; None where it is not known
    image_size: nets.Size
    num_images: int
    strongest: Any  # float [M]
    scales: Any  # float [M]
    seed: str  # where the projections start: "value"
    num_below_zero: int  # activations drawn that are below 0
    rounding: Any  # bool [M]: nothing but rounding
    tied: Any  # int [M]: images whose maximum stands at several places
    images: list[list[str]]  # [M, k], their files' names, or their places in the split
    resemblance: strongest.ByChance
    energy_on_object: strongest.ByChance | None


class Result(results.Result):
    """What result.json holds."""

    figure: str
    num_images: int  # looked through
    layers: dict[str, LayerFacts]
    meanings: dict[str, str]


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result | None:
    """Scan the validation set, project the strongest activations, write pages, arrays and result.json.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for unknown layers or maps, a set without validation pictures, or an output
      folder that holds something else.
    """
    with figure.opened(config, COMMAND, folder="figures/deconv", net=net) as (net, out):
        with_maps = nets.map_layers(net)
        layers = config.layers or with_maps or nets.hidden_layers(net)
        for layer in layers:
            nets.check_layer(net, layer)
        nets.check_way_down(net, layers)
        named = parse_maps(config.maps, net, layers)
        results.check_names(out, ["overview.png", *(name for layer in layers for name in names_of(layer))])
        data = figure.open_images(config, net, data)
        source = source_of(config, data)
        # every layer with maps, whichever are drawn now, so that later calls for other layers find them
        scanned = [layer for layer in net.layers if layer in with_maps or layer in layers]
        state = scans.kept_scan(
            net,
            source,
            scanned,
            of=f"{data.fingerprint} {SPLITS[config.split]}",
            k=NUM_IMAGES,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            save_every=config.save_every,
        )
        if parallel.host_count()[0] > 0:
            return None  # one host draws
        drawn, untrained = {}, {}
        twin = sanity.untrained(net, config.seed)
        for number, layer in enumerate(layers):
            wanted = NUM_MAPS.get(layer, OTHER_NUM_MAPS) if config.num_maps is None else config.num_maps
            seed, first = (config.seed, number), own_classes(net, layer, data)
            maps = named[layer] if layer in named else choose_maps(state[layer], wanted, seed, first=first)
            drawn[layer] = strongest.project_and_cut(net, source, state[layer], maps=maps, layer=layer)
            if twin is not None:
                untrained[layer] = strongest.project_and_cut(twin, source, state[layer], maps=maps, layer=layer)
        result = summarize(config, net, data=data, state=state, drawn=drawn, untrained=untrained)
        return results.write(out, result, command=COMMAND, contents=contents(net, drawn, result))


def source_of(config: Config, data: ImageSet) -> Source:
    """What is looked through; UserError for a set without validation pictures."""
    validation = sets.validation_of(data)
    return Concatenated(data) if config.split == "both" and data.train is not validation else validation


def own_classes(net: nets.Net, layer: str, data: ImageSet) -> list[int]:
    """The maps that are the pictures' classes, where a layer's maps are classes and the pictures have some of them."""
    if layer not in getattr(net, "class_maps", ()) or data.class_names == net.class_names:
        return []
    return [int(label) for label in sets.labels_for(data, net) if label >= 0]


def summarize(config: Config, net: nets.Net, *, data: ImageSet, state: State, drawn: Drawn, untrained: Drawn) -> Result:
    """What result.json says; `untrained` is what the same units draw with other weights."""
    num_images = len(source_of(config, data))
    return {
        "figure": "Figure 2",
        "num_images": num_images,
        "layers": {
            layer: facts_of(net, layer, state=state, drawn=of, num_images=num_images, untrained=untrained.get(layer))
            for layer, of in drawn.items()
        },
        "meanings": strongest.MEANINGS,
        "paper": None,  # its figure gives no number
        "seed": config.seed,
        **results.provenance(net, data, config),
    }


def facts_of(
    net: nets.Net,
    layer: str,
    *,
    state: State,
    drawn: strongest.Strongest,
    num_images: int,
    untrained: strongest.Strongest | None,
) -> LayerFacts:
    """What result.json says of one layer."""
    field = net.receptive_field(layer)
    scores, notes = strongest.scores(drawn), strongest.notes(drawn)
    other_weights = None if untrained is None else strongest.resemblance(untrained)
    return {
        "maps": drawn.maps,
        "units": [nets.unit_name(net, layer, number) for number in drawn.maps],
        "kind": "map" if layer in nets.map_layers(net) else "unit",
        "num_maps": len(state[layer].values),
        "num_dead": int((~top_activations.alive(state[layer])).sum()),
        "receptive_field": None if field is None else field.size,
        "image_size": net.image_size,
        "num_images": num_images,
        "strongest": drawn.values[:, 0],
        "scales": drawn.scales,
        "seed": notes["seed"],
        "num_below_zero": notes["num_below_zero"],
        "rounding": notes["rounding"],
        "tied": notes["tied"],
        "images": drawn.names.tolist(),
        "resemblance": {**scores["resemblance"], "untrained": other_weights},
        "energy_on_object": scores["energy_on_object"],
    }


def names_of(layer: str) -> tuple[str, str]:
    """The files of a layer: its arrays, its page."""
    return f"{files.file_name(layer)}.npz", f"{files.file_name(layer)}.png"


def contents(net: nets.Net, drawn: Drawn, result: Result) -> dict[str, Figure | dict[str, Any]]:
    """{file: page or arrays}: two for each layer, and the overview."""
    facts, first = result["layers"], nets.own_filters(net)
    written: dict[str, Figure | dict[str, Any]] = {}
    for layer, of in drawn.items():
        filters = first if layer == nets.lowest_layer(net) else None
        arrays, page = names_of(layer)
        written[arrays] = dict(strongest.arrays(of))
        written[page] = deconv_page.layer_page(layer, of, filters=filters, facts=facts[layer])
    written["overview.png"] = deconv_page.overview_page(
        None if first is None else (nets.lowest_layer(net), first), drawn, facts
    )
    return written


def report(result: Result) -> None:
    """Print a line for each layer."""
    for layer, facts in result["layers"].items():
        value, chance = facts["resemblance"]["value"], facts["resemblance"]["by_chance"]
        print(f"{deconv_page.summary_line(lettering.on_console(layer), facts)}")
        print("".join(f"  {line}\n" for line in strongest.warnings_of(facts)), end="")
        if value is not None:
            beside = "" if chance is None else f", by chance {chance:.2f}"
            print(f"  a projection correlates with its patch by {value:.2f}{beside}")


def main() -> None:
    """The command line."""
    command.main(
        Config, run, doc=__doc__, report=report, when_stopped="the same command resumes from the last saved scan"
    )


if __name__ == "__main__":
    main()
