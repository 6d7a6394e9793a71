"""Figure 6: first-layer filters with and without renormalisation and of AlexNet, and aliasing in layer 2.

    python -m experiments.first_layer --net runs/RUN --alexnet runs/RUN-alexnet --unclipped runs/RUN-unclipped

RUN is the paper's net, RUN-alexnet AlexNet and RUN-unclipped the paper's net without renormalisation, all trained on
the same data. If one of the two is not given, its panels are left out, and result.json has the command that trains it.
Without --net the newest run under runs/ is taken. Expected time: one pass over the validation set for each net and 15 s
for pictures; 20 s on two CPU cores for three nets of preset `demo`. Expected figure: without renormalisation the
strongest filters stand out more, if they end above the radius (not so with the weight decay of preset `demo`);
AlexNet's second layer shows blocks and repeated dots where ZFNet's shows edges and colours. Expected result for nets of
half width on photos of ten classes: 44 % of the energy of AlexNet's filters is too fine for their grid, 21 % of
ZFNet's; 21 % and 29 % of the filters peak at middle frequencies.

Any net can be drawn alone; its first filters are read from its program, or given by `FunctionNet(...,
first_filters=)`. Only runs can be compared, because only their training is known.
Writes to <run>/figures/first_layer (or --out): first_layer.png, numbers.png, result.json, and for each net <net>.npz
with filters and projections. The strongest activations are kept in <run>/scans, and later calls reuse them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pages import first_layer as first_layer_page
from experiments.shell import command, figure, results, scans, training_run
from zfjax import nets, parallel
from zfjax.analyses import filters, strongest
from zfjax.analyses.filters import Bottom
from zfjax.architecture import Conv
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError, command_line
from zfjax.nets import Net, TrainedNet
from zfjax.pixels import size_words
from zfjax.training import checkpoints

COMMAND = "first_layer"
NUM_IMAGES = 9  # strongest images of each map, as in the paper

CHANGES: dict[str, dict[str, Any]] = {  # of the settings that the net was trained with, to train the other two
    "unclipped": {"recipe.renormalize_radius": None},
    "alexnet": {"architecture": "alexnet"},
}

MAY_DIFFER = {"renormalize_radius", "num_epochs", "seed"}  # in the recipes of a net and of its like without clipping

PAPER = {
    "unclipped": "one feature dominates",
    "alexnet": "more dead features, little of the middle frequencies, aliasing in layer 2",
}


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Draw Figure 6: first-layer filters and second-layer projections of up to three nets."""

    alexnet: Path | None = None
    """Run or checkpoint of AlexNet, trained on the same data."""
    unclipped: Path | None = None
    """Run or checkpoint of the same net, trained without renormalisation on the same data."""
    num_maps: int = 6
    """Maps of layer 2 to draw of each net."""
    batch_size: int = 128
    """Images per batch, over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""


class Result(results.Result):
    """What result.json holds; by role: clipped, and unclipped and alexnet where they are given."""

    figure: str
    nets: dict[str, filters.Numbers]
    renormalisation_acted: bool | None  # None where there is no network without it
    meanings: dict[str, str]
    missing: dict[str, str]  # the command that trains the net
    not_applicable: dict[str, str]
    num_images: int
    checkpoints: dict[str, results.Checkpoint]


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result | None:
    """Scan the validation set with each net, draw, measure, and write pages, arrays and result.json.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds; the filters alone of a net that does not say what it was trained on, where no data are
      named. UserError for nets that were trained on other data or do not fit their role, a net that does not show its
      first filters, a set without validation pictures, or an output folder that holds something else.
    """
    figure.check_numbers(config)
    by_role = load_nets(config, net)
    net = by_role["clipped"]
    names = ["first_layer.png", "numbers.png", *(f"{role}.npz" for role in by_role)]
    with figure.opened(config, COMMAND, folder="figures/first_layer", net=net, names=names) as (_, out):
        has_pictures = config.data is not None or data is not None or getattr(net, "data", None) is not None
        data = figure.open_images(config, net, data) if has_pictures else nothing_for(net)
        source = sets.validation_of(data) if has_pictures else None
        options = {"k": NUM_IMAGES, "batch_size": config.batch_size, "num_workers": config.num_workers}
        bottoms = {}
        for role, one in by_role.items():
            layers, of = filters.check_bottom(one), f"{data.fingerprint} validation"
            state = {} if source is None else scans.kept_scan(one, source, layers, of=of, path=None, **options)
            if parallel.host_count()[0] == 0:  # one host draws
                bottoms[role] = filters.look(one, source, state, num_maps=config.num_maps, seed=config.seed)
        if not bottoms:
            return None
        others = {role: of for role, of in bottoms.items() if role != "clipped"}
        numbers = numbers_of(bottoms)
        result: Result = {
            "figure": "Figure 6",
            "nets": numbers,
            "renormalisation_acted": renormalisation_acted(numbers, net),
            "meanings": filters.MEANINGS,
            "missing": missing(by_role),
            "not_applicable": not_applicable(net, bottoms["clipped"])
            | {f"the second layer of {role}": of.no_second for role, of in others.items() if of.no_second},
            "paper": PAPER,
            "num_images": 0 if source is None else len(source),
            "seed": config.seed,
            **results.provenance(net, data, config),
            "checkpoints": {role: results.checkpoint_of(one) for role, one in by_role.items()},
        }
        return results.write(out, result, command=COMMAND, contents=contents(bottoms, result))


def nothing_for(net: Net) -> ImageSet:
    """What is looked at of a net that does not say what it was trained on, where no pictures are named: none."""
    print("data: none, so that the filters alone are drawn")
    return ImageSet(
        "none", net.picture_size, (), train=None, validation=None, mean=None, official_labels=None, fingerprint=""
    )


def load_nets(config: Config, net: Net | None = None) -> dict[str, Net]:
    """{role: net} of those that are given, of which `net` is open already; UserError for one that does not fit."""
    named = {"unclipped": config.unclipped, "alexnet": config.alexnet}
    others = {role: nets.load_net(path) for role, path in named.items() if path is not None}
    by_role = {"clipped": nets.load_net(config.net) if net is None else net, **others}
    trained = {role: net for role, net in by_role.items() if isinstance(net, TrainedNet)}
    if len(by_role) > 1:
        for role in sorted(by_role.keys() - trained.keys()):
            raise UserError(
                f"{flag(role)}={by_role[role].name!r}: only trained runs are compared, as only of them the data and "
                "the renormalisation are known; draw this net alone"
            )
    if "clipped" in trained:
        check_roles(config, trained)
    for one in by_role.values():
        filters.check_bottom(one)
    return by_role


def check_roles(config: Config, by_role: Mapping[str, TrainedNet]) -> None:
    """UserError for a trained net that does not fit its role."""
    ours = by_role["clipped"]
    data = data_of(checkpoints.load(ours.path))
    for role, net in by_role.items():
        named_net = f"{flag(role)}={str(net.path)!r}"
        stored = checkpoints.load(net.path)
        if not all(isinstance(layer, Conv) for layer in net.architecture.layers[:2]):
            raise UserError(f"{named_net}: two convolutional layers are needed at its bottom")
        if data_of(stored) != data:
            raise UserError(f"{named_net}: it was not trained on the data of {ours.path}")
        if (stored.recipe.renormalize_radius is None) != (role == "unclipped"):
            wanted = "a net trained without" if role == "unclipped" else "a net trained with"
            raise UserError(f"{named_net}: {wanted} renormalisation (--renormalize-radius) is needed")
    if "unclipped" in by_role:
        named_net = f"unclipped={str(config.unclipped)!r}"
        if by_role["unclipped"].architecture != ours.architecture:
            raise UserError(f"{named_net}: the architecture of {ours.path} is needed")
        recipe, other = (dataclasses.asdict(checkpoints.load(net.path).recipe) for net in (ours, by_role["unclipped"]))
        for name in sorted(recipe.keys() - MAY_DIFFER):
            if other[name] != recipe[name]:
                raise UserError(
                    f"{named_net}: it has {name}={other[name]!r}; {recipe[name]!r} as {ours.path} is needed"
                )
    strides = {role: nets.size_of(filters.stride_of(net) or 0) for role, net in by_role.items()}
    if "alexnet" in by_role and min(strides["alexnet"]) <= min(strides["clipped"]):
        raise UserError(
            f"alexnet={str(config.alexnet)!r}: a first layer of a stride above {min(strides['clipped'])} is needed"
        )


def numbers_of(bottoms: Mapping[str, Bottom]) -> dict[str, filters.Numbers]:
    """{role: its numbers}, AlexNet's also at the stride of the network that it is compared with."""
    finer = {"alexnet": bottoms["clipped"].stride}
    return {role: filters.measure(one, finer_stride=finer.get(role)) for role, one in bottoms.items()}


def flag(role: str) -> str:
    """The flag that names the net of a role."""
    return "net" if role == "clipped" else role


def renormalisation_acted(numbers: Mapping[str, filters.Numbers], clipped: Net) -> bool | None:
    """Whether filters end above `clipped`'s radius without it; None where only one of the two trainings is there."""
    if "unclipped" not in numbers:
        return None
    assert isinstance(clipped, TrainedNet)
    radius = checkpoints.load(clipped.path).recipe.renormalize_radius
    assert radius is not None
    return numbers["unclipped"]["largest_rms"] > radius


def missing(by_role: Mapping[str, Net]) -> dict[str, str]:
    """{role: the command that trains its net} of the nets that are not given; none beside a net that is no run's."""
    net = by_role["clipped"]
    if not isinstance(net, TrainedNet):
        return {}
    return {role: train_command(net, role) for role in CHANGES if role not in by_role}


def not_applicable(net: Net, bottom: Bottom) -> dict[str, str]:
    """{part of the figure: why it does not apply to this net}."""
    parts = {}
    if not isinstance(net, TrainedNet):
        parts["renormalisation"] = f"{net.name} is no training run, so that its recipe and its data are not known"
        parts["the comparison with AlexNet"] = "only runs that were trained on the same data are compared"
    if bottom.stride is None:
        whole = bottom.kernel.shape[:2] == nets.size_of(net.image_size)
        sees = "each of the first filters is as large as the image, so that they stand on no grid"
        parts["aliasing"] = sees if whole else "the stride of the first filters is not known"
    if bottom.alive is None:
        parts["filters that no image excites"] = (
            filters.NO_PICTURES
            if nets.first_filters(net).is_own
            else f"{nets.lowest_layer(net)}, the lowest layer of {net.name}, is not made of the first filters alone"
        )
    if bottom.second is None:
        parts["the second layer"] = bottom.no_second
    return parts


def data_of(checkpoint: checkpoints.Checkpoint) -> str:
    """What tells its training data from others: their fingerprint, or of an imported net their name."""
    fingerprint: str = checkpoint.settings.get("data_fingerprint", checkpoint.settings["data"])
    return fingerprint


def train_command(net: TrainedNet, role: str) -> str:
    """The command that trains the net of a role as `net` was trained, in a folder beside it."""
    checkpoint = checkpoints.load(net.path)
    if "config" not in checkpoint.settings:
        return "python -m experiments.train_imagenet; how to set it is unknown, as the net was imported"
    stored = dataclasses.replace(training_run.stored_config(checkpoint), recipe=checkpoint.recipe)
    wanted = settings_of(stored) | CHANGES[role] | {"out": net.run.with_name(f"{net.run.name}-{role}")}
    if stored.data == "demo":
        del wanted["data_dir"]  # of this machine, and not read
    flags = {
        preset: {name: value for name, value in wanted.items() if value != settings_of(config)[name]}
        for preset, config in training_run.PRESETS.items()
    }
    preset = min(flags, key=lambda name: len(flags[name]))
    words = ["--preset", preset]
    for name, value in flags[preset].items():
        words += ["--" + name.removeprefix("recipe.").replace("_", "-")]
        words += flag_words(name, value)
    return command_line("python -m experiments.train_imagenet", *words)


def flag_words(name: str, value: Any) -> list[str]:
    """What stands behind the flag of a setting."""
    if name == "demo_sizes":
        return [size_words(value[0]), *map(str, value[1:])]
    if name in ("image_size", "data_size") and value is not None:
        return [size_words(value)]
    return [str(part) for part in (value if isinstance(value, tuple) else (value,))]


def settings_of(config: training_run.Config) -> dict[str, Any]:
    """The fields of a training configuration, those of its recipe as recipe.NAME."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "recipe"}
    return fields | {f"recipe.{name}": value for name, value in dataclasses.asdict(config.recipe).items()}


def contents(bottoms: Mapping[str, Bottom], result: Result) -> dict[str, Figure | dict[str, np.ndarray]]:
    """{file: page or arrays}: the two pages, and the arrays of each net."""
    files: dict[str, Figure | dict[str, np.ndarray]] = {}
    for role, one in bottoms.items():
        second = {} if one.second is None else dict(strongest.arrays(one.second))
        alive = {} if one.alive is None else {"alive": one.alive}
        files[f"{role}.npz"] = {"kernel": one.kernel, **alive, **second}
    files["first_layer.png"] = first_layer_page.filters_page(bottoms, result)
    files["numbers.png"] = first_layer_page.numbers_figure(bottoms, result)
    return files


def report(result: Result) -> None:
    """Print the numbers of each net, and how to make those that are missing."""
    for role, facts in result["nets"].items():
        bands = ", ".join(f"{share:.0%} at {band}" for band, share in facts["band_energy"].items())
        ratio = facts["dominance"]["largest_over_median"]
        print(
            f"{role}: the strongest filter is {ratio:.2g} times the median one; {first_layer_page.summary_line(facts)}"
        )
        print(f"  Of the filters' energy {bands} frequencies.")
        if "aliased_energy" in facts:
            finer = facts.get("on_finer_grid")
            at_finer = f"; at stride {size_words(finer['stride'])} {finer['aliased_energy']:.0%}" if finer else ""
            print(f"  {facts['aliased_energy']:.0%} of it is too fine for their grid{at_finer}.")
    command.print_left_out(result["not_applicable"])
    for role, line in result["missing"].items():
        print(f"left out: {role}; make it with `{line}`, then add --{role}")


def main() -> None:
    """The command line."""
    command.main(
        Config, run, doc=__doc__, report=report, when_stopped="the same command resumes from the last saved scan"
    )


if __name__ == "__main__":
    main()
