"""Table 2: top-1 and top-5 error on the validation set, of one network or the average of several.

    python -m experiments.evaluate_imagenet --net runs/RUN
    python -m experiments.evaluate_imagenet --net runs/A runs/B runs/C

Without --net the newest run under runs/ is taken. Several networks, of any architectures but with the same classes and
size of pictures, average their softmax; each is also measured alone, in the same pass. Expected time: eleven forward
passes per network over the set; 6 s for 500 pictures with the net of preset `reduced` on two CPU cores. Expected
result: ten crops have a slightly lower error than one, several networks a lower one than each of them. A net that is no
table of layers (squeezenet:DIR, module:NAME) is measured from its centre crop only.
Writes result.json to <run>/evaluation; for several networks, to a folder in the first run's that is named by the others
(or to --out).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import jax
import numpy as np
import tyro

from experiments.pages.lettering import counted
from experiments.shell import command, figure, hosts, results
from experiments.shell.scoring import CROPS, Scored, check_classes, score
from zfjax import files, nets, parallel
from zfjax.data import ImageSet, Source, sets
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.training import evaluation

COMMAND = "evaluate_imagenet"

# Table 2: error in percent on ImageNet 2012 (validation top-1, top-5, test top-5)
PAPER = {
    "Krizhevsky et al. 2012, 1 net": (40.7, 18.2, None),
    "Krizhevsky et al. 2012, 5 nets": (38.1, 16.4, 16.4),
    "replication of Krizhevsky et al. 2012, 1 net": (40.5, 18.1, None),
    "1 net as per Fig. 3": (38.4, 16.5, None),
    "5 nets as per Fig. 3 (a)": (36.7, 15.3, 15.3),
    "1 net as per Fig. 3 with layers 3, 4, 5 of 512, 1024, 512 maps (b)": (37.5, 16.0, 16.1),
    "6 nets, (a) and (b) combined": (36.0, 14.7, 14.8),
}


@dataclass(frozen=True, kw_only=True)
class Config(figure.ResultConfig):
    """Measure the error of a network, or of the average of several, on the validation set."""

    net: Annotated[tuple[str | Path, ...], tyro.conf.arg(aliases=["--checkpoint"])] = ()
    """Run folders or checkpoints, squeezenet:DIR, module:NAME of a Net; by default the newest run under runs/."""
    data: str | None = None
    """Data set to measure on; by default the one that the first net was trained on."""
    skip_bad: bool = False
    """Leave out pictures of a folder that cannot be decoded, and name them, instead of stopping at the first."""
    batch_size: int = 128
    """Images per batch, over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""


class MemberFacts(TypedDict):
    """What result.json says of one network."""

    name: str  # of its architecture, or its own
    parameters: int
    checkpoint: results.Checkpoint
    error: dict[str, evaluation.Shares]  # by crops: center, and ten
    not_finite: dict[str, int]  # likewise: images whose answer holds NaN or infinity, which counts as wrong


class Result(results.Provenance):
    """What result.json holds."""

    table: str
    error: dict[str, evaluation.Shares]  # of the average of all, by crops
    members: list[MemberFacts]
    not_applicable: dict[str, str]
    num_images: int
    num_classes: int
    largest_class_share: float  # of the images, those of the most frequent class
    paper: dict[str, tuple[float, float, float | None]]
    paper_data: str
    seconds: float


def run(config: Config) -> Result:
    """Measure and write result.json.

    Returns:
      What result.json holds. UserError for a net without named classes, a set without validation pictures, of another
      size or with other classes than the nets', or for an output folder that holds something else.
    """
    parallel.check_batch_size(config.batch_size)
    networks = parallel.of_every_host(lambda: opened_nets(config))
    with figure.claimed(config, COMMAND, nets.home_of(networks[0]) / "evaluation") as out:
        data, source, logits = parallel.of_every_host(lambda: opened_data(config, networks))
        parallel.check_agreement(facts_of_hosts(config, networks, data))
        began = time.monotonic()
        options = {"batch_size": config.batch_size, "num_workers": config.num_workers}
        scored = score(networks, source, logits, **options)
        num_classes = len(networks[0].class_names)
        result: Result = {
            "table": "Table 2",
            # shares of the images
            "error": {
                views: errors.ensemble.shares(num_classes=num_classes) for views, errors in scored.errors.items()
            },
            "members": [facts_of(net, n, scored, num_classes=num_classes) for n, net in enumerate(networks)],
            "not_applicable": scored.not_applicable,
            "num_images": len(source),
            "num_classes": num_classes,
            "largest_class_share": scored.errors["center"].largest_class_share,
            "paper": PAPER,
            "paper_data": "ImageNet 2012, 1,000 classes, full width; percent: validation top-1, top-5, test top-5",
            "seconds": time.monotonic() - began,
            **results.provenance(networks[0], data, config),
        }
        if parallel.host_count()[0] > 0:
            return result
        return results.write(out, result, command=COMMAND, contents={})


def opened_nets(config: Config) -> list[Net]:
    """The networks, which fit together."""
    networks = [nets.load_net(name) for name in config.net or (None,)]
    for net in networks:
        print(f"net: {figure.describe(net)}")
        nets.check_weights(net)
    check_different(networks)
    return networks


def opened_data(config: Config, networks: Sequence[Net]) -> tuple[ImageSet, Source, np.ndarray]:
    """(the set, its validation split, the logit of each of its classes); all of its pictures have one."""
    data = sets.open_images(config.data, networks[0], skip_bad=config.skip_bad)
    print(f"data: {data.name}, {counted(len(data.class_names), 'class')}")
    for line in files.lines_of(data.left_out):
        print(f"  left out: {line}")
    source = sets.validation_of(data)
    logits = logits_of(data, networks)
    check_classes(source, data.name, networks[0])
    return data, source, logits


def facts_of_hosts(config: Config, networks: Sequence[Net], data: ImageSet) -> dict[str, Any]:
    """What every host has to hold before the first picture: each one measures its share of them."""
    return {
        "networks": [net.fingerprint for net in networks],
        "data fingerprint": data.fingerprint,
        "batch_size": config.batch_size,
        **hosts.software(),
    }


def check_different(networks: Sequence[Net]) -> None:
    """UserError where one network is named twice, or networks have other classes or sizes of pictures than the first.

    A network without named classes is refused too.
    """
    for before, net in itertools.pairwise(sorted(networks, key=lambda net: net.fingerprint)):
        if before.fingerprint == net.fingerprint:
            raise UserError(f"net: {before.name} and {net.name} are one network; different ones are needed")
    first = networks[0]
    for net in networks:
        if (reason := nets.why_no_classes(net)) is not None:
            raise UserError(f"net={net.name!r}: there are no classes to compare with the labels, as {reason}")
        if not net.class_names:
            raise UserError(f"net={net.name!r}: its classes have no names to compare with the labels of pictures")
        if net.class_names != first.class_names:
            raise UserError(f"net={net.name!r}: its classes are not those of {first.name}")
        if nets.size_of(net.picture_size) != nets.size_of(first.picture_size):
            sizes = ["x".join(map(str, nets.size_of(of.picture_size))) for of in (net, first)]
            raise UserError(f"net={net.name!r}: it sees pictures of {sizes[0]} pixels, {first.name} of {sizes[1]}")


def logits_of(data: ImageSet, networks: Sequence[Net]) -> np.ndarray:
    """int32 [classes of the set], the logit of each; UserError where the nets do not know a class of the set."""
    known = {name: logit for logit, name in enumerate(networks[0].class_names)}
    missing = [name for name in data.class_names if name not in known]
    if missing:
        raise UserError(
            f"data={data.name!r}: its classes are not those that {networks[0].name} was trained on: {missing[0]!r} is "
            "none of them"
        )
    return np.array([known[name] for name in data.class_names], np.int32)


def facts_of(net: Net, number: int, scored: Scored, *, num_classes: int) -> MemberFacts:
    """What result.json says of one network."""
    table = net.architecture if isinstance(net, nets.OfTable) else None
    arrays = jax.tree.leaves(getattr(net, "params", None))
    return {
        "name": net.name if table is None else table.name,
        "parameters": sum(np.size(array) for array in arrays) if table is None else table.num_parameters(),
        "checkpoint": results.checkpoint_of(net),
        "error": {
            views: errors.members[number].shares(num_classes=num_classes) for views, errors in scored.errors.items()
        },
        "not_finite": {views: int(errors.not_finite[number]) for views, errors in scored.errors.items()},
    }


def report(result: Result) -> None:
    """Print the errors."""
    images = f"{counted(result['num_images'], 'image')} of {counted(result['num_classes'], 'class')}"
    several = len(result["members"]) > 1
    for views, error in result["error"].items():
        words = ", ".join(f"top-{rank[3:]} error {share:.1%}" for rank, share in _shares(error))
        print(f"{CROPS[views]}: {words} on {images}")
        for member in result["members"] if several else []:
            alone = ", ".join(f"{share:.1%}" for _, share in _shares(member["error"][views]))
            print(f"    alone: {alone}  {member['checkpoint']['path']}")
        for member in result["members"]:
            if bad := member["not_finite"][views]:
                answers = f"{bad:,} of {result['num_images']:,} answers of {member['name']}"
                print(f"{CROPS[views]}: {answers} are not finite (NaN or infinite), and count as wrong")
    for views, why in result["not_applicable"].items():
        print(f"{CROPS[views]}: not measured, as {why}")


def _shares(error: evaluation.Shares) -> list[tuple[str, float]]:
    """(name, share) of those that were measured."""
    ranks: tuple[Literal["top1", "top5"], ...] = ("top1", "top5")
    return [(rank, error[rank]) for rank in ranks if rank in error]


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report, joins=True)


if __name__ == "__main__":
    main()
