"""Figure 6: the first layer with and without renormalisation, and against AlexNet's; aliasing in the second.

    python -m experiments.first_layer --checkpoint runs/RUN --alexnet runs/RUN-alexnet --unclipped runs/RUN-unclipped

RUN is the paper's net, RUN-alexnet AlexNet and RUN-unclipped the paper's net without renormalisation, all trained on
the same data; where one of the two is not given, its panels are left out, and result.json names the command that
trains it. Without --checkpoint the newest run under runs/ is taken. Expected time: one pass over the validation set
for each net and 15 s for pictures; 20 s on two CPU cores for three nets of preset `demo`. Expected figure: without
renormalisation a few filters dominate, unless none ever reached the radius (so with the weight decay of preset
`demo`); AlexNet's second layer shows blocks and repeated dots where ZFNet's shows edges and colours. Expected result,
nets of half width on photos of ten classes: too fine for its own grid is 44 % of the energy of AlexNet's filters, 20 %
of ZFNet's; 15 % and 25 % of the filters peak at middle frequencies.

Writes to <run>/figures/first_layer (or --out): first_layer.png, numbers.png, result.json, and for each net <net>.npz
with filters and projections, and <net>_scan.npz with the strongest activations, which later calls start from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import (
    command,
    deconv_figures,
    deconv_pages,
    first_layer_pages,
    inputs,
    pictures,
    scans,
    train_imagenet,
)
from experiments.first_layer_pages import Seen
from zfjax import checkpoints, filters, parallel, top_activations
from zfjax.data import Source
from zfjax.layers import Conv
from zfjax.renormalize import filter_rms

NUM_IMAGES = 9  # strongest images of each map, as in the paper
CHANGES: dict[str, dict[str, Any]] = {  # of the settings that the net was trained with, to train the other two
    "unclipped": {"recipe.renormalize_radius": None},
    "alexnet": {"architecture": "alexnet"},
}
PAPER = {
    "unclipped": "one feature dominates",
    "alexnet": "more dead features, little of the middle frequencies, aliasing in layer 2",
}


@dataclass(frozen=True)
class Config:
    """Draw Figure 6: first-layer filters and second-layer projections of up to three nets."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set, or folder of pictures, to look at; by default what the net was trained on."""
    out: Path | None = None
    """Folder for the results; by default <run>/figures/first_layer."""
    alexnet: Path | None = None
    """Run or checkpoint of AlexNet, trained on the same data."""
    unclipped: Path | None = None
    """Run or checkpoint of the same net, trained without renormalisation on the same data."""
    num_maps: int = 6
    """Maps of layer 2 to draw of each net."""
    batch_size: int = 128
    """Images per step over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""
    seed: int = 0
    """Seed of the choice among the maps that at least nine images excite."""
    overwrite: bool = False
    """Replace the results that are already there."""


def run(config: Config) -> dict[str, Any]:
    """Scan the validation set with each net, draw, measure, and write pages, arrays and result.json.

    Returns:
      What result.json holds. ValueError for nets that were trained on other data or do not fit their role, a set
      without validation pictures, or an output folder that already holds a result.
    """
    nets = load_nets(config)
    net = nets["clipped"]
    if config.num_maps < 1:
        raise ValueError(f"num_maps={config.num_maps}: at least 1 is needed")
    data = inputs.open_images(config.data, net)
    source = inputs.validation_of(data)
    out = inputs.result_folder(config.out, net.run / "figures" / "first_layer", overwrite=config.overwrite)
    seen = {}
    for role, one in nets.items():
        layers = one.architecture.layer_names[:2]
        options = {"k": NUM_IMAGES, "batch_size": config.batch_size, "num_workers": config.num_workers}
        top = scans.scan(one, source, layers, out / f"{role}_scan.npz", of=f"{data.fingerprint} validation", **options)
        if parallel.host_count()[0] == 0:  # one host draws
            seen[role] = look(config, one, source, top)
    if not seen:
        return {}
    result = {
        "figure": "Figure 6",
        "nets": {role: measure(one) for role, one in seen.items()},
        "renormalisation_acted": first_layer_pages.renormalisation_acted(seen),
        "meanings": first_layer_pages.MEANINGS,
        "missing": {role: train_command(net, role) for role in CHANGES if role not in nets},
        "paper": PAPER,
        "num_images": len(source),
        "folder": out,
        "seed": config.seed,
        **inputs.provenance(net, data, config),
        "checkpoints": {role: {"path": one.path, "fingerprint": one.fingerprint} for role, one in nets.items()},
    }
    write_all(out, seen, result)
    return result


def load_nets(config: Config) -> dict[str, inputs.TrainedNet]:
    """{"clipped": ..., and "unclipped" and "alexnet" where they are given}; ValueError for one that does not fit."""
    named = {"clipped": config.checkpoint, "unclipped": config.unclipped, "alexnet": config.alexnet}
    nets = {role: inputs.load_net(path) for role, path in named.items() if path is not None or role == "clipped"}
    data = data_of(checkpoints.load(nets["clipped"].path))
    for role, net in nets.items():
        named_net = f"{'checkpoint' if role == 'clipped' else role}={str(net.path)!r}"
        stored = checkpoints.load(net.path)
        if not all(isinstance(layer, Conv) for layer in net.architecture.layers[:2]):
            raise ValueError(f"{named_net}: two convolutional layers are needed at its bottom")
        if data_of(stored) != data:
            raise ValueError(f"{named_net}: it was not trained on the data of {nets['clipped'].path}")
        if (stored.recipe.renormalize_radius is None) != (role == "unclipped"):
            wanted = "a net trained without" if role == "unclipped" else "a net trained with"
            raise ValueError(f"{named_net}: {wanted} renormalisation (--renormalize-radius) is needed")
    ours = nets["clipped"].architecture
    if "unclipped" in nets and nets["unclipped"].architecture != ours:
        raise ValueError(f"unclipped={str(config.unclipped)!r}: the architecture of {nets['clipped'].path} is needed")
    strides = {role: first_row(net).stride for role, net in nets.items()}
    if "alexnet" in nets and strides["alexnet"] <= strides["clipped"]:
        raise ValueError(
            f"alexnet={str(config.alexnet)!r}: a first layer of a stride above {strides['clipped']} is needed"
        )
    return nets


def first_row(net: inputs.TrainedNet) -> Conv:
    """The first layer of a net that `load_nets` let pass."""
    row = net.architecture.layers[0]
    assert isinstance(row, Conv)
    return row


def data_of(checkpoint: checkpoints.Checkpoint) -> str:
    """What tells its training data from others: their fingerprint, or of an imported net their name."""
    return checkpoint.settings.get("data_fingerprint", checkpoint.settings["data"])


def train_command(net: inputs.TrainedNet, role: str) -> str:
    """The command that trains the net of a role as `net` was trained, in a folder beside it."""
    checkpoint = checkpoints.load(net.path)
    if "config" not in checkpoint.settings:
        return "python -m experiments.train_imagenet; how to set it is unknown, as the net was imported"
    stored = dataclasses.replace(train_imagenet.stored_config(checkpoint), recipe=checkpoint.recipe)
    wanted = settings_of(stored) | CHANGES[role] | {"out": net.run.with_name(f"{net.run.name}-{role}")}
    flags = {
        preset: {name: value for name, value in wanted.items() if value != settings_of(config)[name]}
        for preset, config in train_imagenet.PRESETS.items()
    }
    preset = min(flags, key=lambda name: len(flags[name]))
    words = ["python -m experiments.train_imagenet --preset", preset]
    for name, value in flags[preset].items():
        words += ["--" + name.removeprefix("recipe.").replace("_", "-")]
        words += [str(part) for part in (value if isinstance(value, tuple) else (value,))]
    return " ".join(words)


def settings_of(config: train_imagenet.Config) -> dict[str, Any]:
    """The fields of a training configuration, those of its recipe as recipe.NAME."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "recipe"}
    return fields | {f"recipe.{name}": value for name, value in dataclasses.asdict(config.recipe).items()}


def look(config: Config, net: inputs.TrainedNet, source: Source, top: top_activations.State) -> Seen:
    """The net's filters, which of them are alive, and some maps of its second layer, projected."""
    first, second = net.architecture.layer_names[:2]
    if not top_activations.alive(top[second]).any():
        raise ValueError(f"{net.path}: no validation image excites any map of {second}, so there is nothing to draw")
    maps = deconv_figures.choose_maps(top[second], config.num_maps, config.seed)
    drawn = deconv_pages.draw(net, source, top[second], maps, layer=second)
    kernel = np.asarray(net.params[first]["kernel"], np.float32)
    return Seen(net, kernel, top_activations.alive(top[first]), drawn)


def measure(seen: Seen) -> dict[str, Any]:
    """The numbers of one net: see `first_layer_pages.MEANINGS`."""
    row, weak, dominance = first_row(seen.net), filters.weak(seen.kernel), filters.dominance(seen.kernel)
    peaks = filters.peak_frequency(seen.kernel[..., ~weak])
    in_band = {band: (low <= peaks) & (peaks < high) for band, (low, high) in filters.BANDS.items()}
    energy = filters.band_energy(seen.kernel[..., ~weak])
    return {
        "architecture": seen.net.architecture.name,
        "num_filters": row.features,
        "size": row.kernel,
        "stride": row.stride,
        "dominance": dominance._asdict(),
        "largest_rms": float(np.max(filter_rms(seen.kernel))),
        "dead_by_weight": {"count": int(weak.sum()), "share": float(weak.mean())},
        "dead_by_activity": {"count": int((~seen.alive).sum()), "share": float((~seen.alive).mean())},
        "band_energy": {band: float(share.mean()) for band, share in energy.items()},
        "band_peaks": {band: float(inside.mean()) for band, inside in in_band.items()},
        "aliased_energy": float(filters.aliased_energy(seen.kernel[..., ~weak], row.stride).mean()),
        "maps_of_layer_2": seen.second.maps,
    }


def write_all(out: Path, seen: Mapping[str, Seen], result: Mapping[str, Any]) -> None:
    """Write arrays, pictures, and last the result, which says that all is there."""
    (out / "result.json").unlink(missing_ok=True)
    for role in ("clipped", *CHANGES):
        (out / f"{role}.npz").unlink(missing_ok=True)
    for role, one in seen.items():
        arrays = {"kernel": one.kernel, "alive": one.alive}
        arrays |= dict(deconv_pages.arrays(one.second))
        pictures.save_arrays(out / f"{role}.npz", arrays)
    pictures.save_figure(out / "first_layer.png", first_layer_pages.filters_page(seen, result))
    pictures.save_figure(out / "numbers.png", first_layer_pages.numbers_figure(seen, result))
    pictures.save_result(out / "result.json", result)


def report(result: dict[str, Any]) -> None:
    """Print the numbers of each net, and how to make those that are missing."""
    for role, facts in result["nets"].items():
        bands = ", ".join(f"{band} {share:.0%}" for band, share in facts["band_energy"].items())
        ratio = facts["dominance"]["largest_over_median"]
        print(f"{role}: strongest filter {ratio:.2g} x median; {first_layer_pages.summary_line(facts)}")
        print(f"  energy of the filters: {bands}; too fine for their grid: {facts['aliased_energy']:.0%}")
    for role, line in result["missing"].items():
        print(f"left out: {role}; make it with `{line}`, then add --{role}")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report, when_stopped="the same command goes on where the scan was last saved")


if __name__ == "__main__":
    main()
