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

from experiments import train_imagenet
from experiments.pages import first_layer as first_layer_page
from experiments.shell import command, results, scans
from zfjax import files, nets, parallel
from zfjax.analyses import strongest, top_activations
from zfjax.analyses.filters import Seen, first_row, measure
from zfjax.architecture import Conv
from zfjax.data import Source, sets
from zfjax.errors import UserError
from zfjax.training import checkpoints

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
      What result.json holds. UserError for nets that were trained on other data or do not fit their role, a set
      without validation pictures, or an output folder that already holds a result.
    """
    by_role = load_nets(config)
    net = by_role["clipped"]
    if config.num_maps < 1:
        raise UserError(f"num_maps={config.num_maps}: at least 1 is needed")
    data = sets.open_images(config.data, net)
    source = sets.validation_of(data)
    out = results.result_folder(config.out, net.run / "figures" / "first_layer", overwrite=config.overwrite)
    seen = {}
    for role, one in by_role.items():
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
        "renormalisation_acted": first_layer_page.renormalisation_acted(seen),
        "meanings": first_layer_page.MEANINGS,
        "missing": {role: train_command(net, role) for role in CHANGES if role not in by_role},
        "paper": PAPER,
        "num_images": len(source),
        "folder": out,
        "seed": config.seed,
        **results.provenance(net, data, config),
        "checkpoints": {role: {"path": one.path, "fingerprint": one.fingerprint} for role, one in by_role.items()},
    }
    write_all(out, seen, result)
    return result


def load_nets(config: Config) -> dict[str, nets.TrainedNet]:
    """{"clipped": ..., and "unclipped" and "alexnet" where they are given}; UserError for one that does not fit."""
    named = {"clipped": config.checkpoint, "unclipped": config.unclipped, "alexnet": config.alexnet}
    by_role = {role: nets.load_net(path) for role, path in named.items() if path is not None or role == "clipped"}
    data = data_of(checkpoints.load(by_role["clipped"].path))
    for role, net in by_role.items():
        named_net = f"{'checkpoint' if role == 'clipped' else role}={str(net.path)!r}"
        stored = checkpoints.load(net.path)
        if not all(isinstance(layer, Conv) for layer in net.architecture.layers[:2]):
            raise UserError(f"{named_net}: two convolutional layers are needed at its bottom")
        if data_of(stored) != data:
            raise UserError(f"{named_net}: it was not trained on the data of {by_role['clipped'].path}")
        if (stored.recipe.renormalize_radius is None) != (role == "unclipped"):
            wanted = "a net trained without" if role == "unclipped" else "a net trained with"
            raise UserError(f"{named_net}: {wanted} renormalisation (--renormalize-radius) is needed")
    ours = by_role["clipped"].architecture
    if "unclipped" in by_role and by_role["unclipped"].architecture != ours:
        raise UserError(f"unclipped={str(config.unclipped)!r}: the architecture of {by_role['clipped'].path} is needed")
    strides = {role: first_row(net).stride for role, net in by_role.items()}
    if "alexnet" in by_role and strides["alexnet"] <= strides["clipped"]:
        raise UserError(
            f"alexnet={str(config.alexnet)!r}: a first layer of a stride above {strides['clipped']} is needed"
        )
    return by_role


def data_of(checkpoint: checkpoints.Checkpoint) -> str:
    """What tells its training data from others: their fingerprint, or of an imported net their name."""
    return checkpoint.settings.get("data_fingerprint", checkpoint.settings["data"])


def train_command(net: nets.TrainedNet, role: str) -> str:
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


def look(config: Config, net: nets.TrainedNet, source: Source, top: top_activations.State) -> Seen:
    """The net's filters, which of them are alive, and some maps of its second layer, projected."""
    first, second = net.architecture.layer_names[:2]
    if not top_activations.alive(top[second]).any():
        raise UserError(f"{net.path}: no validation image excites any map of {second}, so there is nothing to draw")
    maps = strongest.choose_maps(top[second], config.num_maps, config.seed)
    drawn = strongest.project_and_cut(net, source, top[second], maps, layer=second)
    kernel = np.asarray(net.params[first]["kernel"], np.float32)
    return Seen(net, kernel, top_activations.alive(top[first]), drawn)


def write_all(out: Path, seen: Mapping[str, Seen], result: Mapping[str, Any]) -> None:
    """Write arrays, pictures, and last the result, which says that all is there."""
    (out / "result.json").unlink(missing_ok=True)
    for role in ("clipped", *CHANGES):
        (out / f"{role}.npz").unlink(missing_ok=True)
    for role, one in seen.items():
        arrays = {"kernel": one.kernel, "alive": one.alive}
        arrays |= dict(strongest.arrays(one.second))
        files.save_arrays(out / f"{role}.npz", arrays)
    results.save_figure(out / "first_layer.png", first_layer_page.filters_page(seen, result))
    results.save_figure(out / "numbers.png", first_layer_page.numbers_figure(seen, result))
    files.save_json(out / "result.json", result)


def report(result: dict[str, Any]) -> None:
    """Print the numbers of each net, and how to make those that are missing."""
    for role, facts in result["nets"].items():
        bands = ", ".join(f"{band} {share:.0%}" for band, share in facts["band_energy"].items())
        ratio = facts["dominance"]["largest_over_median"]
        print(f"{role}: strongest filter {ratio:.2g} x median; {first_layer_page.summary_line(facts)}")
        print(f"  energy of the filters: {bands}; too fine for their grid: {facts['aliased_energy']:.0%}")
    for role, line in result["missing"].items():
        print(f"left out: {role}; make it with `{line}`, then add --{role}")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report, when_stopped="the same command goes on where the scan was last saved")


if __name__ == "__main__":
    main()
