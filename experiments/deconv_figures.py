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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.pages import deconv as deconv_page
from experiments.shell import command, results, scans
from zfjax import files, nets, parallel
from zfjax.analyses import strongest, top_activations
from zfjax.analyses.strongest import NUM_IMAGES, choose_maps, parse_maps
from zfjax.analyses.top_activations import State
from zfjax.architecture import Conv, receptive_field
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError

NUM_MAPS = {"conv1": 16, "conv2": 16, "conv3": 12, "conv4": 10, "conv5": 11}  # Paper is silent; counted in its figure


OTHER_NUM_MAPS = 9


Drawn = Mapping[str, strongest.Strongest]  # by layer


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
      What result.json holds. UserError for unknown layers or maps, a set without validation pictures, or an output
      folder that already holds a result.
    """
    net = nets.load_net(config.checkpoint)
    data = sets.open_images(config.data, net)
    source = sets.validation_of(data)
    if config.num_maps is not None and config.num_maps < 1:
        raise UserError(f"num_maps={config.num_maps}: at least 1 is needed")
    if config.seed < 0:
        raise UserError(f"seed={config.seed}: 0 or more is needed")
    out = results.result_folder(config.out, net.run / "figures" / "deconv", overwrite=config.overwrite)
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
        drawn[layer] = strongest.project_and_cut(net, source, state[layer], maps, layer=layer)
    result = summarize(config, net, data, state, drawn, out)
    write_all(out, net, drawn, result)
    return result


def summarize(
    config: Config, net: nets.TrainedNet, data: ImageSet, state: State, drawn: Drawn, out: Path
) -> dict[str, Any]:
    """What result.json holds."""
    layers = {
        layer: {
            "maps": seen.maps,
            "num_maps": len(state[layer].values),
            "num_dead": int((~top_activations.alive(state[layer])).sum()),
            "receptive_field": receptive_field(net.architecture, layer).size,
            "image_size": net.architecture.image_size,
            "num_images": len(sets.validation_of(data)),
            "strongest": seen.values[:, 0],
            "scales": seen.scales,
            **strongest.scores(seen),
        }
        for layer, seen in drawn.items()
    }
    return {
        "figure": "Figure 2",
        "num_images": len(sets.validation_of(data)),
        "layers": layers,
        "meanings": strongest.MEANINGS,
        "paper": None,  # its figure gives no number
        "folder": out,
        "seed": config.seed,
        **results.provenance(net, data, config),
    }


def write_all(out: Path, net: nets.TrainedNet, drawn: Drawn, result: Mapping[str, Any]) -> None:
    """Write arrays, one page per layer, the overview, and last the result, which says that all is there."""
    path = out / "result.json"
    earlier = json.loads(path.read_text())["layers"] if path.exists() else {}
    path.unlink(missing_ok=True)
    for layer in set(earlier) - set(drawn):  # pages that this result will not name
        (out / f"{layer}.png").unlink(missing_ok=True)
        (out / f"{layer}.npz").unlink(missing_ok=True)
    facts = result["layers"]
    for layer, seen in drawn.items():
        files.save_arrays(out / f"{layer}.npz", dict(strongest.arrays(seen)))
        page = deconv_page.layer_page(net.params, net.architecture, layer, seen, facts[layer])
        results.save_figure(out / f"{layer}.png", page)
    overview = deconv_page.overview_page(net.params, net.architecture, drawn, facts)
    results.save_figure(out / "overview.png", overview)
    files.save_json(out / "result.json", result)


def report(result: dict[str, Any]) -> None:
    """Print what was found in each layer."""
    for layer, facts in result["layers"].items():
        print(f"{deconv_page.summary_line(layer, facts)}; resemblance {facts['resemblance']}")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    when_stopped = "the same command goes on where the scan was last saved"
    command.main(Config, run, __doc__, report, when_stopped=when_stopped)


if __name__ == "__main__":
    main()
