"""Figure 4: how the strongest activation of some maps changes during training, and when each layer settles.

    python -m experiments.feature_evolution --net runs/RUN

Without --net the newest run under runs/ is taken. The epochs are those of 1, 2, 5, 10, 20, 30, 40, 64 and 70 whose
checkpoints exist, and the last one. Expected time: one pass over at most 8,192 training pictures for each epoch (it
resumes after a kill), then a few seconds per epoch; 39 s on two CPU cores for the demo net, half of it to render its
pictures. Expected figure: lower layers look final early, upper ones later; an orange bar marks a change of the
strongest training image. Expected result: with a net of half width on photos of ten classes conv1 settles by epoch 10
of 40, conv5 only at the end, and in 76 % of the pairs of layers the lower one is nearer to its final state. On the demo
set, which is learnt in a few epochs, it is 62 %, and conv2 settles last. Chance is not one half, because a change in a
lower layer changes the layers above: on a straight line between the weights of the demo net's first and last epoch it
is 76 % (`zfjax.analyses.evolution.straight`). The dashed lines in curves.png belong to this straight line.

Writes to <run>/figures/evolution (or --out): evolution.png, curves.png, result.json, and <layer>.npz with the arrays of
the figure. The strongest activations of all maps are kept in <run>/scans, and later calls reuse them. For epochs of
another training program use `--net module:NAME`, a Python object that is, or returns, {epoch: net}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import evolution as evolution_page
from experiments.pages import lettering
from experiments.shell import command, figure, results, scans
from experiments.shell.kept_epochs import KeptNets, nets_of_epochs
from zfjax import files, nets, parallel
from zfjax.analyses import evolution, strongest
from zfjax.analyses.evolution import THRESHOLD, Drawn
from zfjax.analyses.top_activations import State
from zfjax.data import ImageSet, Subset, sets
from zfjax.errors import UserError
from zfjax.nets import Net

COMMAND = "feature_evolution"
PAPER = {"settled": {"lower layers": "within a few epochs", "upper layers": "after 40 to 50 epochs"}}


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Draw Figure 4: the strongest activations of some maps at several epochs, projected to the pixels."""

    epochs: tuple[int, ...] = ()
    """Epochs to show; by default those of the paper's figure whose checkpoints exist, and the last one."""
    layers: tuple[str, ...] = ()
    """Layers to draw; by default every one that has feature maps."""
    maps: tuple[str, ...] = ()
    """Maps to draw, such as conv3:5,17; in other layers --seed chooses."""
    num_maps: int | None = None
    """Maps to choose in each layer; by default as many as fill two rows, 6 for up to six epochs and else 4."""
    num_images: int = 8192
    """Training images to search, a fixed sample where there are more; the paper takes all."""
    num_probes: int = 128
    """Validation images whose features are compared, chosen by --seed."""
    patches: bool = False
    """Show the image patch below each projection."""
    batch_size: int = 128
    """Images per batch, over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""


class LayerFacts(evolution.Settling):
    """What result.json says of a layer; where its strongest images were followed, and where it is drawn, more."""

    straight: NotRequired[list[float]]  # by epoch, were all weights to go one straight way
    growth: NotRequired[list[float | None]]  # by epoch
    changed: NotRequired[list[float | None]]  # from the second epoch on
    maps: NotRequired[Any]  # int [M]
    units: NotRequired[list[str]]  # [M], what they are called
    images: NotRequired[dict[int, list[str]]]  # by epoch [M], their files' names, or their places in the split
    continuity: NotRequired[evolution.Continuity]
    projections: NotRequired[dict[int, strongest.Notes]]  # by epoch


class Result(results.Result):
    """What result.json holds."""

    figure: str
    epochs: list[int]
    layers: dict[str, LayerFacts]
    lower_layers_first: float | None  # share of the pairs of layers
    threshold: float
    meanings: dict[str, str]
    num_images: int  # looked through at each epoch


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result | None:
    """Scan the training set at every epoch, project, compare, and write pages, arrays and result.json.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for a net without epochs, a run with fewer than two checkpoints at the end of
      an epoch, an epoch that is not kept, unknown layers or maps, or an output folder that holds something else.
    """
    figure.check_numbers(config)
    opened = nets.load_net(config.net) if net is None else net
    by_epoch = nets_of_epochs(config.net if net is None else None, opened, config.epochs)
    net = opened if isinstance(by_epoch, KeptNets) else by_epoch[max(by_epoch)]
    with figure.opened(config, COMMAND, folder="figures/evolution", net=net) as (_, out):
        with_maps = nets.map_layers(net)
        layers = config.layers or with_maps
        for layer in layers:
            nets.check_layer(net, layer)
        nets.check_way_down(net, layers)
        named = strongest.parse_maps(config.maps, net, layers)
        results.check_names(out, ["evolution.png", "curves.png", *map(arrays_of, layers)])
        data = figure.open_images(config, net, data)
        if data.train is None:
            raise UserError(f"data={data.name!r} has no training split")
        sample = Subset(data.train, sets.choose(data.train, config.num_images, seed=0))  # whatever maps are chosen
        watched = [layer for layer in net.layers if layer in with_maps or layer in layers]
        options: dict[str, Any] = {"k": 1, "batch_size": config.batch_size, "num_workers": config.num_workers}
        of = f"{data.fingerprint} training {len(sample)}"
        tops = {epoch: scans.kept_scan(by_epoch[epoch], sample, watched, of=of, **options) for epoch in by_epoch}
        if parallel.host_count()[0] > 0:
            return None  # one host draws
        num_maps = config.num_maps or 2 * evolution_page.strips_per_row(len(by_epoch))
        last = tops[max(tops)]
        maps = {
            layer: named[layer]
            if layer in named
            else strongest.choose_maps(last[layer], num_maps, (config.seed, number))
            for number, layer in enumerate(layers)
        }
        drawn = evolution.project(by_epoch, data.train, tops=tops, maps=maps)
        probes = data.train if data.validation is None else data.validation
        images = nets.read_views(probes, sets.choose(probes, config.num_probes, config.seed), net).images
        hidden = net.layers[:-1]
        settling = evolution.measure(by_epoch, images, [*hidden, *(layer for layer in layers if layer not in hidden)])
        straight = evolution.straight(by_epoch, images, hidden)
        result = summarize(
            config,
            by_epoch[max(by_epoch)],
            data=data,
            tops=tops,
            drawn=drawn,
            layers=settling,
            straight=straight,
        )
        return results.write(out, result, command=COMMAND, contents=contents(drawn, result, config.patches))


def summarize(
    config: Config,
    net: Net,
    *,
    data: ImageSet,
    tops: Mapping[int, State],
    drawn: Drawn,
    layers: Mapping[str, evolution.Settling],
    straight: Mapping[str, list[float]] | None,
) -> Result:
    """What result.json holds; `layers` from `evolution.measure`, `straight` from the function of that name."""
    facts: dict[str, LayerFacts] = {
        layer: {
            "similarity": settling["similarity"],
            "similarity_by_chance": settling["similarity_by_chance"],
            "settling_epoch": settling["settling_epoch"],
        }
        for layer, settling in layers.items()
    }
    for layer, values in (straight or {}).items():
        facts[layer]["straight"] = values
    for layer, followed in evolution.follow(tops).items():
        facts[layer].update({"growth": followed["growth"], "changed": followed["changed"]})
    for layer, continuity in evolution.continuities(drawn).items():
        maps = drawn[layer][max(tops)].maps
        facts[layer].update(
            {
                "maps": maps,
                "units": [nets.unit_name(net, layer, number) for number in maps],
                "images": {epoch: of.names[:, 0].tolist() for epoch, of in drawn[layer].items()},
                "continuity": continuity,
                "projections": {epoch: strongest.notes(of) for epoch, of in drawn[layer].items()},
            }
        )
    hidden = [facts[layer]["similarity"] for layer in net.layers[:-1]]
    return {
        "figure": "Figure 4",
        "epochs": list(tops),
        "layers": facts,
        "lower_layers_first": evolution.lower_first([curve for curve in hidden if curve[-1] is not None]),
        "threshold": THRESHOLD,
        "meanings": evolution.MEANINGS,
        "paper": PAPER,
        "num_images": min(config.num_images, len(data.train or ())),
        "seed": config.seed,
        **results.provenance(net, data, config),
    }


def arrays_of(layer: str) -> str:
    """The file of a layer's arrays."""
    return f"{files.file_name(layer)}.npz"


def contents(drawn: Drawn, result: Result, patches: bool) -> dict[str, Figure | dict[str, np.ndarray]]:
    """{file: page or arrays}: the two pages, and the arrays of each layer."""
    written: dict[str, Figure | dict[str, np.ndarray]] = {
        arrays_of(layer): {
            f"epoch_{epoch}/{name}": field for epoch, of in at.items() for name, field in strongest.arrays(of)
        }
        for layer, at in drawn.items()
    }
    written["evolution.png"] = evolution_page.evolution_page(drawn, result, patches=patches)
    written["curves.png"] = evolution_page.curves_figure(result)
    return written


def report(result: Result) -> None:
    """Print how early each layer settled."""
    print(f"similarity to the final features after the epochs {', '.join(map(str, result['epochs']))}:")
    for layer, facts in result["layers"].items():
        curve = ", ".join("none" if value is None else f"{value:.2f}" for value in facts["similarity"])
        print(f"{evolution_page.heading(layer, result, named=lettering.on_console(layer))}: {curve}")
    share = result["lower_layers_first"]
    print(f"lower layers first: {'unknown' if share is None else f'{share:.0%} of the pairs of layers'}")


def main() -> None:
    """The command line."""
    command.main(
        Config, run, doc=__doc__, report=report, when_stopped="the same command resumes from the last saved scan"
    )


if __name__ == "__main__":
    main()
