"""The nulls: how often the rule of each claim of the paper is satisfied by networks that can bear none out.

    python -m experiments.null_claims

Figures 2, 5, 7 and Table 1 are made of untrained networks (Fig. 3's at a quarter of its width, 64 pixels) on the demo
set, one for each seed; Figure 4 of one whose weights go from one random draw to another in equal steps; Figure 6 of
white noise; Tables 2 to 5 and 7 of networks, arms and layers that differ by chance alone. Expected time: 3 minutes on
two CPU cores. Expected result: a rule that nulls often satisfy, as that of Figure 2, needs its precondition, a trained
network; every other holds for 5 % of them or so. Lower layers are nearer to their end in 95 % of the pairs.

Writes result.json to runs/nulls (or --out); experiments/report/nulls.json, which the report reads, holds its "claims"
beside the command that made them.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import deconv_figures, invariance_curves, occlusion_maps, part_correspondence
from experiments.report import nulls
from experiments.report.figures import CLAIMS
from experiments.report.verdicts import Claim
from experiments.shell import command, figure, results
from zfjax import nets, training
from zfjax.analyses import ablation, evolution, filters
from zfjax.architecture import ZFNET
from zfjax.data import ImageSet, demo, sets

COMMAND = "null_claims"
SIDE, PICTURE = 64, 72  # pixels
GUESSING = 0.9  # top-1 error among ten classes
NUM_IMAGES = 2_000  # of validation
POINTS = 1.0  # of accuracy: the spread of folds for what is hard in them, and as much for a classifier's own
MOVING = "an untrained network whose weights go to another draw in equal steps"


@dataclass(frozen=True, kw_only=True)
class Config(figure.ResultConfig):
    """Judge nulls by the rule of every claim."""

    num_simulated: int = 100
    """Seeds of what is drawn by chance."""
    num_untrained: int = 3
    """Seeds of untrained networks."""
    num_images: int = 64
    """Validation images of the demo set."""


class Result(results.Written):
    """What result.json holds."""

    nulls: dict[str, int]  # seeds of each kind
    claims: dict[str, nulls.NullOfClaim]  # by the name of the judge


def run(config: Config) -> Result:
    """Draw, judge, count; what result.json holds. UserError for a result already there."""
    figure.check_numbers(config)
    folder = figure.folder_of(config, nets.RUNS / "nulls")
    with results.claimed(folder, COMMAND, overwrite=config.overwrite) as out:
        counted = dict(simulated(config.num_simulated)) | dict(untrained(config))
        result: Result = {
            "nulls": {"simulated": config.num_simulated, "untrained": config.num_untrained},
            "claims": {name: counted[name] for name in sorted(counted)},
            "config": config,
            "versions": results.versions(),
        }
        return results.write(out, result, command=COMMAND, contents={})


def simulated(num: int) -> Iterator[tuple[str, nulls.NullOfClaim]]:
    """(name of the judge, its null) of what is drawn by chance."""
    for source, (words, make) in SIMULATED.items():
        made = [make(seed) for seed in range(num)]
        for claim in claims_of(source):
            if null := nulls.counted([claim.judge(one) for one in made], words):
                yield claim.judge.__name__, null


def first_layers(seed: int, num_filters: int = 96) -> dict[str, Any]:
    """Figure 6 of white noise: 7x7 with stride 2 twice, and 11x11 with stride 4."""
    rng = np.random.default_rng(seed)
    measured = {}
    for role, (side, stride) in {"clipped": (7, 2), "unclipped": (7, 2), "alexnet": (11, 4)}.items():
        kernel = rng.normal(size=(side, side, 3, num_filters)).astype(np.float32)
        bottom = filters.Bottom("noise", ("conv1",), kernel, np.ones(num_filters, bool), stride, None)
        measured[role] = filters.measure(bottom)
    return {"nets": measured, "renormalisation_acted": True}


def evaluated(seed: int) -> dict[str, Any]:
    """Table 2 of networks that all guess."""
    rng = np.random.default_rng(seed)
    names = [ablation.folder_name(one) for one in ablation.VARIANTS if one.paper]

    def error() -> dict[str, Any]:
        return {views: {"top1": rng.binomial(NUM_IMAGES, GUESSING) / NUM_IMAGES} for views in ("center", "ten")}

    members = [{"name": name, "checkpoint": {}, "error": error()} for name in names]
    return {"members": members, "num_images": NUM_IMAGES, "error": error()}


def variants(seed: int) -> dict[str, Any]:
    """Table 3 of networks that all guess."""
    rng = np.random.default_rng(seed)
    rows: list[Any] = [
        {"name": one.name, "paper": one.paper, "error": {"validation": {"top1": share}}}
        for one, share in zip(
            ablation.VARIANTS,
            rng.binomial(NUM_IMAGES, GUESSING, len(ablation.VARIANTS)) / NUM_IMAGES,
            strict=True,
        )
    ]
    return {"rows": rows, "num_images": NUM_IMAGES, "rank_correlation": ablation.rank_correlation(rows)}


def arms(seed: int) -> dict[str, Any]:
    """Tables 4 and 5 of arms that are alike."""
    accuracies = _of_folds(seed, 2)
    rows = [
        {"arm": arm, "num_train": num_train, "folds": of.tolist(), "mean": float(of.mean())}
        for num_train in (6, 15)
        for arm, of in zip(("pretrained", "scratch"), accuracies, strict=True)
    ]
    earlier = {"best earlier": {"15": {"mean": 30.0}}}  # as good as they are
    return {"rows": rows, "paper": earlier, "num_classes": 257, "num_images": 30_607}


def layers(seed: int) -> dict[str, Any]:
    """Table 7 of layers and classifiers that are alike."""
    named = [("svm", f"conv{number}") for number in range(1, 6)] + [("svm", "fc7"), ("softmax", "fc7")]
    rows = [
        {"classifier": classifier, "layer": layer, "folds": of.tolist(), "mean": float(of.mean())}
        for (classifier, layer), of in zip(named, _of_folds(seed, len(named)), strict=True)
    ]
    return {"rows": rows, "num_train": 30, "num_classes": 102, "num_images": 9144}


def _of_folds(seed: int, number: int) -> np.ndarray:
    """Percent [number, 5]: classifiers of one quality, around 30."""
    rng = np.random.default_rng(seed)
    return np.asarray(30 + rng.normal(0, POINTS, 5) + rng.normal(0, POINTS, (number, 5)))


SIMULATED = {
    "Figure 6": ("filters of white noise", first_layers),
    "Table 2": ("networks that guess", evaluated),
    "Table 3": ("networks that guess", variants),
    "Table 4": ("arms that are alike", arms),
    "Table 5, Figure 9": ("arms that are alike", arms),
    "Table 7": ("layers that are alike", layers),
}


def untrained(config: Config) -> Iterator[tuple[str, nulls.NullOfClaim]]:
    """The same of untrained networks."""
    data = demo.demo_set(PICTURE, 64, config.num_images)
    findings: dict[str, list[Any]] = {}
    for seed in range(config.num_untrained):
        with tempfile.TemporaryDirectory() as folder:
            net = untrained_net(seed, data, Path(folder))
            for result in (
                *drawn(net, data, folder=Path(folder), seed=seed),
                moved(net, untrained_net(seed + 1000, data), data),
            ):
                for claim in claims_of(result.get("figure") or result.get("table")):
                    findings.setdefault(claim.judge.__name__, []).append(claim.judge(result))
    for name, of_seeds in findings.items():
        words = MOVING if name == "lower_layers_settle_first" else "untrained networks"
        if null := nulls.counted(of_seeds, words):
            yield name, null


def untrained_net(seed: int, data: ImageSet, folder: Path = Path()) -> nets.TrainedNet:
    """Fig. 3's network at a quarter of its width, as it begins."""
    rule = training.INITIALIZATIONS["he"]
    table = ZFNET.scaled(0.25).with_sizes(image=SIDE, fc8=len(data.class_names))
    table = dataclasses.replace(table, input_scale=rule.input_scale)
    params = training.init_params(jax.random.key(seed), architecture=table, initialization="he")
    assert data.mean is not None  # it was asked for
    known: nets.Training = {"num_classes": len(data.class_names), "num_images": 0, "epochs": 0.0, "width": 0.25}
    path = folder / "checkpoints/0"
    return nets.TrainedNet(table, params, data.mean, path, folder, data.name, data.class_names, f"{seed}", known)


def drawn(net: nets.TrainedNet, data: ImageSet, *, folder: Path, seed: int) -> Iterator[Any]:
    """The results of Figures 2, 5, 7 and Table 1."""
    common: dict[str, Any] = {"seed": seed}
    yield deconv_figures.run(
        deconv_figures.Config(out=folder / "2", num_maps=4, batch_size=32, **common), net=net, data=data
    )
    yield invariance_curves.run(invariance_curves.Config(out=folder / "5", **common), net=net, data=data)
    yield occlusion_maps.run(
        occlusion_maps.Config(out=folder / "7", stride=8, num_scored=40, **common), net=net, data=data
    )
    yield part_correspondence.run(part_correspondence.Config(out=folder / "1", **common), net=net, data=data)


def moved(first: nets.TrainedNet, last: nets.TrainedNet, data: ImageSet, *, num_steps: int = 8) -> dict[str, Any]:
    """Figure 4's similarities of a network whose weights go from one draw to another in equal steps."""
    source = sets.validation_of(data)
    views = nets.read_views(source, range(min(32, len(source))), first)
    layers = first.layers[:-1]
    steps = []
    for share in np.linspace(0, 1, num_steps + 1)[1:]:
        params = jax.tree.map(lambda a, b, share=share: a + share * (b - a), first.params, last.params)
        net = dataclasses.replace(first, params=params)
        steps.append({name: np.asarray(of) for name, of in net.features(layers)(views.images).items()})
    curves = {layer: [evolution.similarity(step[layer], steps[-1][layer]) for step in steps] for layer in layers}
    share = evolution.lower_first(list(curves.values()))
    of_layers = {layer: {"similarity": curve} for layer, curve in curves.items()}
    return {"figure": "Figure 4", "lower_layers_first": share, "layers": of_layers}


def claims_of(source: Any) -> list[Claim]:
    """The claims about a figure or table."""
    return [claim for claim in CLAIMS if claim.source == source]


def report(result: Result) -> None:
    """Print how often each rule is satisfied."""
    for name, null in result["claims"].items():
        counts = ", ".join(f"{verdict} {count}" for verdict, count in null["verdicts"].items())
        print(f"{name:34} {null['null']}: {counts}; {null['ours']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
