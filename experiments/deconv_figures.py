"""Figure 2: what excites the maps of each layer most, projected to the pixels, beside the patches that they see.

    python -m experiments.deconv_figures --checkpoint runs/RUN

Without --checkpoint the newest run under runs/ is taken. Expected time: one forward pass over the validation set (about
a minute for 10,000 pictures of 112 pixels on two CPU cores; it shows its rate, and a killed scan goes on where it
stopped), then half a minute for projections and pages; 26 s in all with the demo net. Expected figure: edges and
colours in layer 1 and its filters; corners and textures in layer 2, growing structure above; projections that resemble
parts of their patches.

Writes to <run>/figures/deconv (or --out): one page per layer, overview.png, result.json, <layer>.npz with what the
page shows, and scan.npz, the strongest activations of all maps, which later calls with --overwrite start from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, deconv_pages, inputs, pictures, scans
from zfjax import parallel, top_activations
from zfjax.architecture import Architecture, receptive_field
from zfjax.data import ImageSet
from zfjax.layers import Conv
from zfjax.top_activations import State, TopActivations

NUM_IMAGES = 9  # strongest images of each map, as in the paper
NUM_MAPS = {"conv1": 16, "conv2": 16, "conv3": 12, "conv4": 10, "conv5": 11}  # Paper is silent; counted in its figure
OTHER_NUM_MAPS = 9
FAINT = 0.05  # share of a layer's strongest activation, below which a map is drawn only where it is named

Drawn = Mapping[str, deconv_pages.Strongest]  # by layer


@dataclass(frozen=True)
class Config:
    """Draw Figure 2: the strongest activations of every layer, projected to the pixels."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set to search; by default the one that the net was trained on."""
    out: Path | None = None
    """Folder for the figures; by default <run>/figures/deconv."""
    layers: tuple[str, ...] = ()
    """Layers to draw; by default every convolutional layer."""
    maps: tuple[str, ...] = ()
    """Maps to draw, as conv3:5,17; of layers that are not named here, maps are chosen by --seed."""
    num_maps: int | None = None
    """Maps to choose in each layer; by default 16, 16, 12, 10 and 11 in layers 1 to 5."""
    seed: int = 0
    """Seed of the choice among the maps that at least nine images excite."""
    batch_size: int = 128
    """Images per step over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""
    save_every: float = 30.0
    """Seconds between two savings of the scan's state."""
    overwrite: bool = False
    """Replace the figures that are already there."""


def run(config: Config) -> dict[str, Any]:
    """Scan the validation set, project the strongest activations, write pages, arrays and result.json.

    Returns:
      What result.json holds. ValueError for unknown layers or maps, a set without validation pictures, or an output
      folder that already holds a result.
    """
    net = inputs.load_net(config.checkpoint)
    data = inputs.open_images(config.data, net)
    source = inputs.validation_of(data)
    if config.num_maps is not None and config.num_maps < 1:
        raise ValueError(f"num_maps={config.num_maps}: at least 1 is needed")
    if config.seed < 0:
        raise ValueError(f"seed={config.seed}: 0 or more is needed")
    out = inputs.result_folder(config.out, net.run / "figures" / "deconv", overwrite=config.overwrite)
    layers = config.layers or tuple(row.name for row in net.architecture.layers if isinstance(row, Conv))
    for layer in layers:
        net.architecture.layer(layer)  # an unknown one is named
    named = parse_maps(config.maps, net.architecture, layers)
    # every convolutional layer, whichever are drawn now, so that later calls for other layers find them
    convs = {row.name for row in net.architecture.layers if isinstance(row, Conv)}
    scanned = [name for name in net.architecture.layer_names if name in convs or name in layers]
    options = {"batch_size": config.batch_size, "num_workers": config.num_workers, "save_every": config.save_every}
    of = f"{data.fingerprint} validation"
    state = scans.scan(net, source, scanned, out / "scan.npz", of=of, k=NUM_IMAGES, **options)
    if parallel.host_count()[0] > 0:
        return {}  # one host draws
    drawn = {}
    for number, layer in enumerate(layers):
        wanted = NUM_MAPS.get(layer, OTHER_NUM_MAPS) if config.num_maps is None else config.num_maps
        maps = named[layer] if layer in named else choose_maps(state[layer], wanted, (config.seed, number))
        drawn[layer] = deconv_pages.draw(net, source, state[layer], maps, layer=layer)
    result = summarize(config, net, data, state, drawn, out)
    write_all(out, net, drawn, result)
    return result


def choose_maps(top: TopActivations, num: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """At most `num` maps at random, sorted.

    They are chosen among the maps whose nine places all hold at least FAINT of the layer's strongest activation
    (Paper is silent; what excites fainter ones is hard to tell from noise); where there are fewer than `num`, then
    among all that are alive; where every map is dead, the first ones.
    """
    if num < 1:
        raise ValueError(f"num_maps={num}: at least 1 is needed")
    alive = top_activations.alive(top)
    values = np.asarray(top.values)
    full = alive & (values[:, -1] > FAINT * values.max())
    candidates = np.flatnonzero(full if full.sum() >= num else alive if alive.any() else np.ones_like(alive))
    return np.sort(np.random.default_rng(seed).permutation(candidates)[:num])


def parse_maps(maps: Sequence[str], architecture: Architecture, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """("conv3:5,17",) -> {"conv3": [5, 17]}; ValueError for what is not such a list of maps of `layers`."""
    named = {}
    for entry in maps:
        layer, _, numbers = entry.partition(":")
        if layer not in layers:
            raise ValueError(f"maps={entry!r}: {layer!r} is not among the layers drawn, {', '.join(layers)}")
        last = architecture.layer(layer).features - 1
        chosen = numbers.split(",")
        if not all(number.strip().isdecimal() and int(number) <= last for number in chosen):
            raise ValueError(f"maps={entry!r}: LAYER:NUMBER,NUMBER with numbers from 0 to {last} is needed")
        if layer in named:
            raise ValueError(f"maps={entry!r}: {layer} is named twice; name all its maps in one entry")
        named[layer] = np.array([int(number) for number in chosen])
    return named


def summarize(
    config: Config, net: inputs.TrainedNet, data: ImageSet, state: State, drawn: Drawn, out: Path
) -> dict[str, Any]:
    """What result.json holds."""
    layers = {
        layer: {
            "maps": seen.maps,
            "num_maps": len(state[layer].values),
            "num_dead": int((~top_activations.alive(state[layer])).sum()),
            "receptive_field": receptive_field(net.architecture, layer).size,
            "image_size": net.architecture.image_size,
            "num_images": len(inputs.validation_of(data)),
            "strongest": seen.values[:, 0],
            "scales": seen.scales,
            **deconv_pages.scores(seen),
        }
        for layer, seen in drawn.items()
    }
    return {
        "figure": "Figure 2",
        "num_images": len(inputs.validation_of(data)),
        "layers": layers,
        "meanings": deconv_pages.MEANINGS,
        "paper": None,  # its figure gives no number
        "folder": out,
        "seed": config.seed,
        **inputs.provenance(net, data, config),
    }


def write_all(out: Path, net: inputs.TrainedNet, drawn: Drawn, result: Mapping[str, Any]) -> None:
    """Write arrays, one page per layer, the overview, and last the result, which says that all is there."""
    path = out / "result.json"
    earlier = json.loads(path.read_text())["layers"] if path.exists() else {}
    path.unlink(missing_ok=True)
    for layer in set(earlier) - set(drawn):  # pages that this result will not name
        (out / f"{layer}.png").unlink(missing_ok=True)
        (out / f"{layer}.npz").unlink(missing_ok=True)
    facts = result["layers"]
    for layer, seen in drawn.items():
        pictures.save_arrays(out / f"{layer}.npz", dict(deconv_pages.arrays(seen)))
        page = deconv_pages.layer_page(net.params, net.architecture, layer, seen, facts[layer])
        pictures.save_figure(out / f"{layer}.png", page)
    overview = deconv_pages.overview_page(net.params, net.architecture, drawn, facts)
    pictures.save_figure(out / "overview.png", overview)
    pictures.save_result(out / "result.json", result)


def report(result: dict[str, Any]) -> None:
    """Print what was found in each layer."""
    for layer, facts in result["layers"].items():
        print(f"{deconv_pages.summary_line(layer, facts)}; resemblance {facts['resemblance']}")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    when_stopped = "the same command goes on where the scan was last saved"
    command.main(Config, run, __doc__, report, when_stopped=when_stopped)


if __name__ == "__main__":
    main()
