"""Gradient ascent from noise, beside the deconvnet's projections of the same units.

    python -m experiments.activation_maximization --net runs/RUN
    python -m experiments.activation_maximization --maps conv5:3,17 --jitter 4 --blur 0.5
    python -m experiments.activation_maximization --robust 2 --judge runs/OTHER

Without --net the newest run under runs/ is taken. Expected time: 28 s with the demo net on two CPU cores, a
minute at half width and 112 pixels, for four units of each convolutional layer and four classes. Expected figure: in
layers 1 and 2 ascent finds the pattern of the projection; above, it finds fine waves that occur in no photo, smoother
with --jitter and --blur. With --robust it finds shapes in colour, such as eyes, stripes and limbs of the demo set's
creatures (`zfjax/analyses/robust_ascent.py`). Expected result: without these options ascent ends at one to five times
the strongest activation of the validation set, and nearly every step increases the activation.

The paper shows no such picture; some summaries of it describe this method. For a net that is no table of this library
the layer's own features are maximised, and a unit that is off behind its ReLU has no gradient.
Writes to <run>/figures/maximization (or --out): climbs.png, paths.png, result.json and <layer>.npz. The strongest
activations are kept in <run>/scans, and later calls reuse them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.pages import lettering
from experiments.pages import maximization as maximization_page
from experiments.shell import command, figure, results, scans
from zfjax import files, nets, parallel
from zfjax.analyses import maximization, robust_ascent, strongest
from zfjax.analyses.maximization import MEANINGS, Climbed
from zfjax.analyses.strongest import Strongest
from zfjax.data import ImageSet, sets
from zfjax.deconvnet import Way
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.units import Unit

COMMAND = "activation_maximization"
SAID = 4  # silent units that are named


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Gradient ascent on some units from noise, beside the deconvnet's projections of the same units."""

    layers: tuple[str, ...] = ()
    """Layers of the units; by default every one that has feature maps, and the classes."""
    maps: tuple[str, ...] = ()
    """Maps or classes to maximise, such as conv3:5,17; in other layers --seed chooses."""
    num_maps: int = 4
    """Maps to choose in each layer."""
    climb: Literal["unit", "map"] = "unit"
    """Maximise the unit in the middle of its map, or the mean of the whole map."""
    steps: int = 40
    """Steps of each ascent."""
    step_size: float = 1.0
    """RMS change of the picture per step, pixels."""
    noise: float = 10.0
    """Standard deviation of the noise at the start, pixels."""
    jitter: int = 0
    """Each step shifts the picture by up to this many pixels, cyclically."""
    blur: float = 0.0
    """Sigma of the blur after each step, pixels."""
    decay: float = 0.0
    """Share of the picture's deviation from the mean that each step removes."""
    robust: int = 0
    """Starts of a robust ascent of each unit (Fourier basis, random transforms), beside the plain one; 0: none."""
    judge: str | Path | None = None
    """A second network, as for --net, which classifies the resulting pictures of classes."""


class LayerFacts(maximization.Score):
    """What result.json says of a layer."""

    units: list[str]  # [M], what they are called
    images: list[str]  # [M], those that excite each most: their files' names, or their places in the split
    robust: maximization.Score | None  # of M * starts climbs, those of a unit one after the other
    judged: Judged | None  # of the classes, where a second network is asked


class Judged(TypedDict):
    """Share of the climbed pictures of classes that a second network gives the same class; None: it knows none."""

    net: str
    plain: float | None
    robust: float | None


class Settings(TypedDict):
    """How it was climbed."""

    climb: str  # unit or map
    noise: float
    steps: int
    step_size: float
    jitter: int
    blur: float
    decay: float
    start: str  # in words
    before_relu: bool  # whether the value before the ReLU was climbed
    robust: int  # starts of each unit


class Result(results.Result):
    """What result.json holds."""

    figure: str
    layers: dict[str, LayerFacts]
    settings: Settings
    not_applicable: dict[str, str]
    meanings: dict[str, str]


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result | None:
    """Scan the validation set for the strongest activations, climb, project, draw.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for unknown layers or maps, climbs that do not fit, a set without validation
      pictures, or an output folder that holds something else.
    """
    maximization.check_climb(**climb_of(config))
    if config.robust < 0:
        raise UserError(f"robust={config.robust}: a number of starts, at least 0, is needed")
    judge = None if config.judge is None else nets.load_net(config.judge)
    with figure.opened(config, COMMAND, folder="figures/maximization", net=net) as (net, out):
        layers = config.layers or tuple(dict.fromkeys((*nets.map_layers(net), net.layers[-1])))
        for layer in layers:
            nets.check_layer(net, layer)
        named = strongest.parse_maps(config.maps, net, layers)
        results.check_names(out, ["climbs.png", "paths.png", *map(arrays_of, layers)])
        data = figure.open_images(config, net, data)
        source = sets.validation_of(data)
        state = scans.kept_scan(net, source, layers, of=f"{data.fingerprint} validation", k=1)
        if parallel.host_count()[0] > 0:
            return None  # one host climbs and draws
        drawn, climbed, robust = {}, {}, {}
        colours = robust_ascent.colours_of(source) if config.robust else None
        for number, layer in enumerate(layers):
            chosen = strongest.choose_maps(state[layer], config.num_maps, (config.seed, number))
            maps, key = named.get(layer, chosen), jax.random.fold_in(jax.random.key(config.seed), number)
            climbed[layer] = maximization.climb(
                net, Unit(maps, layer=layer), key=key, of=config.climb, **climb_of(config)
            )
            if config.robust:
                units = Unit(maps, layer=layer)
                robust[layer] = robust_ascent.climb(net, units, key=key, starts=config.robust, colours=colours)
            way: Way | None = "deconvnet" if nets.why_no_way_down(net, [layer]) is None else None
            drawn[layer] = strongest.project_and_cut(net, source, state[layer], maps=maps, layer=layer, way=way)
        facts: dict[str, LayerFacts] = {}
        for layer, of in climbed.items():
            best = np.asarray(state[layer].values)[:, 0]
            asked = judge if layer == nets.logits_layer(net) else None
            facts[layer] = {
                **maximization.score(of, best),
                "units": [nets.unit_name(net, layer, number) for number in of.maps],
                "images": drawn[layer].names[:, 0].tolist(),
                "robust": maximization.score(robust[layer], best) if robust else None,
                "judged": judged(net, asked, layer=layer, plain=of, robust=robust.get(layer))
                if asked is not None
                else None,
            }
        result: Result = {
            "figure": "gradient ascent beside the deconvnet",
            "layers": facts,
            "settings": settings_of(config, net),
            "not_applicable": not_applicable(net, layers, silent=silent_of(facts)),
            "meanings": MEANINGS,
            "paper": None,  # it climbs nowhere
            "seed": config.seed,
            **results.provenance(net, data, config),
        }
        return results.write(
            out, result, command=COMMAND, contents=contents(climbed, robust, drawn=drawn, result=result)
        )


def judged(net: Net, judge: Net, *, layer: str, plain: Climbed, robust: Climbed | None) -> Judged:
    """What the second network says of the climbed classes."""
    of_plain, of_robust = (
        None if of is None else robust_ascent.agreement(net, of, layer=layer, judge=judge) for of in (plain, robust)
    )
    return {"net": judge.name, "plain": of_plain, "robust": of_robust}


def climb_of(config: Config) -> dict[str, Any]:
    """The options of `maximization.climb` that are numbers."""
    names = ("noise", "steps", "step_size", "jitter", "blur", "decay")
    return {name: getattr(config, name) for name in names}


def settings_of(config: Config, net: Net) -> Settings:
    """How it was climbed, for the page."""
    of_table = maximization.climbs_before_relu(net)
    start = "the mean picture" if of_table else "mid-grey"
    return {
        "climb": config.climb,
        "noise": config.noise,
        "steps": config.steps,
        "step_size": config.step_size,
        "jitter": config.jitter,
        "blur": config.blur,
        "decay": config.decay,
        "start": start,
        "before_relu": of_table,
        "robust": config.robust,
    }


def not_applicable(net: Net, layers: Sequence[str], *, silent: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """{part of the figure: why it does not apply to this net}; `silent` are the units of each layer that never fire."""
    parts = {}
    if not maximization.climbs_before_relu(net):
        parts["the value before the ReLU"] = (
            f"what stands before a ReLU of {net.name} is not known; the layer's own features are climbed instead"
        )
    without = {layer: reason for layer in layers if (reason := nets.why_no_way_down(net, [layer])) is not None}
    if without:
        parts[f"the deconvnet's pictures of {', '.join(without)}"] = next(iter(without.values()))
    if hidden := [layer for layer in nets.hidden_layers(net) if layer not in (*layers, *nets.map_layers(net))]:
        parts[", ".join(hidden)] = "dense layers below the classes are climbed where --layers names them"
    for layer in layers:
        if names := silent.get(layer):
            units = ", ".join(names[:SAID]) + (f" and {len(names) - SAID} more" if len(names) > SAID else "")
            parts[f"the ratio of {units} of {layer}"] = "no validation image excites them above 0"
    return parts


def silent_of(facts: Mapping[str, LayerFacts]) -> dict[str, list[str]]:
    """{layer: its units whose strongest activation seen is not above 0, so that no climb can be measured by it}."""
    return {
        layer: [unit for unit, value in zip(of["units"], of["strongest"], strict=True) if not value > 0]
        for layer, of in facts.items()
    }


def arrays_of(layer: str) -> str:
    """The file of a layer's arrays."""
    return f"{files.file_name(layer)}.npz"


def contents(
    climbed: Mapping[str, Climbed], robust: Mapping[str, Climbed], *, drawn: Mapping[str, Strongest], result: Result
) -> dict[str, Figure | dict[str, np.ndarray]]:
    """{file: page or arrays}: the arrays of each layer, and the two pages."""
    written: dict[str, Figure | dict[str, np.ndarray]] = {
        arrays_of(layer): {
            **of._asdict(),
            **({f"robust_{name}": field for name, field in robust[layer]._asdict().items()} if layer in robust else {}),
            **{f"deconvnet_{name}": field for name, field in strongest.arrays(drawn[layer])},
        }
        for layer, of in climbed.items()
    }
    written["climbs.png"] = maximization_page.climbs_page(climbed, robust, drawn=drawn, result=result)
    written["paths.png"] = maximization_page.paths_figure(climbed, result)
    return written


def report(result: Result) -> None:
    """Print how far each layer's climbs came."""
    for layer, facts in result["layers"].items():
        ratio = facts["median_ratio"]
        ends = (
            "no image excites its units, so that no climb can be measured"
            if ratio is None
            else f"climbs end at {ratio:.2f} times the strongest seen"
        )
        print(f"{lettering.on_console(layer)}: {ends}; {facts['rising']:.0%} of the steps rise")
        if facts["robust"] is not None and facts["robust"]["median_ratio"] is not None:
            print(f"  robust climbs end at {facts['robust']['median_ratio']:.2f} times the strongest seen")
        if (said := facts["judged"]) is not None:
            shares = {"the plain climbs": said["plain"], "the robust climbs": said["robust"]}
            same = ", ".join(f"{share:.0%} of {kind}" for kind, share in shares.items() if share is not None)
            print(f"  {said['net']} gives the same class to {same or 'none: it shares no class'}")
    command.print_left_out(result["not_applicable"])


def main() -> None:
    """The command line."""
    command.main(
        Config, run, doc=__doc__, report=report, when_stopped="the same command resumes from the last saved scan"
    )


if __name__ == "__main__":
    main()
