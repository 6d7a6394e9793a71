"""Gradient ascent from noise beside the deconvnet: two answers to what a unit wants to see.

    python -m experiments.activation_maximization --checkpoint runs/RUN
    python -m experiments.activation_maximization --maps conv5:3,17 --jitter 4 --blur 0.5

Without --checkpoint the newest run under runs/ is taken. Expected time: 28 s with the demo net on two CPU cores, a
minute at half width and 112 pixels, for four units of each convolutional layer and four classes. Expected figure: in
layers 1 and 2 the climb finds the pattern of the deconvnet's projection; above, it finds fine waves that no photo has,
smoother with --jitter and --blur. Expected result: without these, climbs end at one to five times the strongest
activation of the validation set, and nearly every step rises.

The other road some summaries of the paper take; the paper itself shows no such picture.
Writes to <run>/figures/maximization (or --out): climbs.png, paths.png, result.json, <layer>.npz and scan.npz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments.pages import maximization as maximization_page
from experiments.shell import command, results, scans
from zfjax import files, nets, parallel
from zfjax.analyses import maximization, strongest
from zfjax.analyses.maximization import AT_ONCE, MEANINGS, Climbed, crop_of_mean, middle, score, strongest_places
from zfjax.architecture import Conv, receptive_field
from zfjax.data import sets
from zfjax.errors import UserError
from zfjax.features import in_batches, layers_of
from zfjax.pixels import cut


@dataclass(frozen=True)
class Config:
    """Climb the activation of some units from noise, and show the deconvnet's pictures of the same units."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set, or folder of pictures, to look at; by default what the net was trained on."""
    out: Path | None = None
    """Folder for the results; by default <run>/figures/maximization."""
    layers: tuple[str, ...] = ()
    """Layers to climb in; by default every convolutional layer and the classes."""
    maps: tuple[str, ...] = ()
    """Maps, or classes, to climb, as conv3:5,17; of layers that are not named here, --seed chooses."""
    num_maps: int = 4
    """Maps to choose in each layer."""
    climb: Literal["unit", "map"] = "unit"
    """The unit in the middle of its map, or the mean of the whole map; before the ReLU."""
    steps: int = 40
    """Steps of each climb."""
    step_size: float = 1.0
    """Pixels, RMS, that a step moves the picture by."""
    noise: float = 10.0
    """Standard deviation of the noise at the start, pixels."""
    jitter: int = 0
    """Each step looks at the picture rolled by up to this many pixels."""
    blur: float = 0.0
    """Sigma of the blur after each step, pixels."""
    decay: float = 0.0
    """Share of the picture's distance from the mean that each step takes away."""
    seed: int = 0
    """Seed of the noise, the jitter and the choice of maps."""
    overwrite: bool = False
    """Replace a result that is already there."""


def run(config: Config) -> dict[str, Any]:
    """Scan the validation set for the strongest activations, climb, project, draw.

    Returns:
      What result.json holds. UserError for unknown layers or maps, climbs that do not fit, a set without validation
      pictures, or an output folder that already holds a result.
    """
    maximization.check_climb(**climb_of(config), noise=config.noise)
    if config.num_maps < 1:
        raise UserError(f"num_maps={config.num_maps}: at least 1 is needed")
    net = nets.load_net(config.checkpoint)
    data = sets.open_images(config.data, net)
    source = sets.validation_of(data)
    convs = tuple(row.name for row in net.architecture.layers if isinstance(row, Conv))
    layers = config.layers or (*convs, net.architecture.layer_names[-1])
    named = strongest.parse_maps(config.maps, net.architecture, layers)
    out = results.result_folder(config.out, net.run / "figures" / "maximization", overwrite=config.overwrite)
    state = scans.scan(net, source, layers, out / "scan.npz", of=f"{data.fingerprint} validation", k=1)
    if parallel.host_count()[0] > 0:
        return {}  # one host climbs and draws
    drawn, climbed = {}, {}
    for number, layer in enumerate(layers):
        chosen = strongest.choose_maps(state[layer], config.num_maps, (config.seed, number))
        maps = named.get(layer, chosen)
        climbed[layer] = climb(config, net, layer, maps, jax.random.fold_in(jax.random.key(config.seed), number))
        drawn[layer] = strongest.project_and_cut(net, source, state[layer], maps, layer=layer)
    result = {
        "figure": "gradient ascent beside the deconvnet",
        "layers": {layer: score(seen, np.asarray(state[layer].values)[:, 0]) for layer, seen in climbed.items()},
        "meanings": MEANINGS,
        "paper": None,  # it climbs nowhere
        "folder": out,
        "seed": config.seed,
        **results.provenance(net, data, config),
    }
    write_all(out, net, climbed, drawn, result)
    return result


def climb_of(config: Config) -> dict[str, Any]:
    """The options of `maximize`."""
    return {name: getattr(config, name) for name in ("steps", "step_size", "jitter", "blur", "decay")}


def climb(config: Config, net: nets.TrainedNet, layer: str, maps: np.ndarray, key: jax.Array) -> Climbed:
    """Climb every map of `maps`, AT_ONCE together, and measure what the layer then answers."""
    architecture, size = net.architecture, net.architecture.image_size
    place, unit = middle(architecture, layer)
    options = {"position": unit if config.climb == "unit" else None, **climb_of(config)}
    mean = crop_of_mean(net)
    drives = maximization.drives_of(net.params, layer, architecture=architecture)
    starts: list[np.ndarray] = []
    images: list[np.ndarray] = []
    paths: list[np.ndarray] = []
    for first in range(0, len(maps), AT_ONCE):
        channel = np.resize(maps[first : first + AT_ONCE], min(AT_ONCE, len(maps)))  # filled up: compiled once
        noise_key, climb_key = jax.random.split(jax.random.fold_in(key, first))
        start = maximization.grey_and_noise(noise_key, (len(channel), size, size, 3), config.noise)
        bounds = maximization.picture_range(mean)
        found = maximization.maximize(drives, start, climb_key, channel=channel, bounds=bounds, **options)
        for rows, new in ((starts, start), (images, found.images), (paths, found.path.T)):
            rows.append(np.asarray(new)[: len(maps) - first])
    answers = layers_of(net.params, [layer], architecture=architecture)
    before, after = (
        strongest_places(in_batches(answers, np.concatenate(rows), batch_size=AT_ONCE)[layer])
        for rows in (starts, images)
    )
    ended = np.concatenate(images)
    field = receptive_field(architecture, layer)
    whole = field.size >= size or config.climb == "map"
    box = (0, 0, size, size) if place is None or whole else field.box(place)
    shown = np.floor(np.clip(ended + mean, 0, 255) + 0.5).astype(np.uint8)
    return Climbed(
        maps=np.asarray(maps),
        images=ended,
        patches=np.stack([cut(picture, box, strongest.OUTSIDE) for picture in shown]),
        paths=np.concatenate(paths),
        started=before[np.arange(len(maps)), maps],
        reached=after[np.arange(len(maps)), maps],
        won=after.argmax(axis=1) == maps,
    )


def write_all(
    out: Path,
    net: nets.TrainedNet,
    climbed: Mapping[str, Climbed],
    drawn: Mapping[str, Any],
    result: Mapping[str, Any],
) -> None:
    """Write arrays, the two pictures, and last the result, which says that all is there."""
    (out / "result.json").unlink(missing_ok=True)
    for layer in set(net.architecture.layer_names) - set(climbed):
        (out / f"{layer}.npz").unlink(missing_ok=True)  # of an earlier call, which this result would not name
    for layer, seen in climbed.items():
        shown = {f"deconvnet_{name}": field for name, field in strongest.arrays(drawn[layer])}
        files.save_arrays(out / f"{layer}.npz", {**seen._asdict(), **shown})
    results.save_figure(out / "climbs.png", maximization_page.climbs_page(net, climbed, drawn, result))
    results.save_figure(out / "paths.png", maximization_page.paths_figure(net, climbed))
    files.save_json(out / "result.json", result)


def report(result: dict[str, Any]) -> None:
    """Print how far each layer's climbs came."""
    for layer, facts in result["layers"].items():
        ratio = "-" if facts["median_ratio"] is None else f"{facts['median_ratio']:.2f}"
        print(f"{layer}: climbs end at {ratio} times the strongest seen; {facts['rising']:.0%} of the steps rise")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report, when_stopped="the same command goes on where the scan was last saved")


if __name__ == "__main__":
    main()
