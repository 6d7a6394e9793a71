"""The nulls: how often the rule of each claim is satisfied by networks for which the claim cannot be true.

    python -m experiments.null_claims --nets runs/ONE runs/OTHER

Figures 2, 5, 7, Tables 1 and 7 use untrained networks (Fig. 3's at a quarter of its width, 64 pixels) on the demo set,
one for each seed; Figure 4 uses untrained networks whose weights do a random walk, and jumps at random; Figure 6
filters cut from white noise and from smooth noise; Tables 2 to 5 and 7 networks, arms and layers that differ by chance
alone, also of one fold, and classifiers that guess, or at the smallest difference that counts. --nets are two or more
runs with one recipe and several seeds: each pair of them stands for the different recipes of Figure 6 and, trained as
the paper's, of Table 2. Expected time: 15 minutes on two CPU cores. Expected result: no rule holds for more than a
tenth of its nulls.

Writes result.json to runs/nulls (or --out). Its "claims", with the command that made them, are kept in
experiments/report/nulls.json, which the report reads.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import deconv_figures, first_layer, invariance_curves, occlusion_maps, part_correspondence
from experiments.report import nulls
from experiments.report.figures import CLAIMS
from experiments.report.statistics import FOLD_SPREAD, SEED_SPREAD
from experiments.report.transfer import ALIKE_PERCENT, EARLIER_CALTECH256
from experiments.report.verdicts import Claim
from experiments.shell import command, figure, results, scans
from zfjax import features, nets, training
from zfjax.analyses import ablation, evolution, filters
from zfjax.architecture import ZFNET
from zfjax.data import ImageSet, Source, Subset, demo, sets
from zfjax.errors import UserError
from zfjax.transfer import linear_models, protocol

COMMAND = "null_claims"
SIDE, PICTURE = 64, 72  # pixels
ERROR = 0.6  # top-1 of networks that err alike
NUM_IMAGES = 2_000  # of validation
NUM_MOVED = 24  # pictures of Figure 5: enough to tell two draws of weights apart
POINTS = 1.0  # of accuracy: the spread of folds for what is hard in them, and as much for a classifier's own
FIELD = 32  # pixels, the side of the noise that filters are cut from
NUM_SORTED, NUM_LEARNT = 480, 20  # scenes of Table 7's untrained networks, and of each class to learn from
PENALTY = linear_models.PENALTIES[len(linear_models.PENALTIES) // 2]
FRESH = 0.5  # of the weights' size: what each step of a random walk adds
MOVING = "untrained networks whose weights walk at random"
ALIKE = "two trainings that differ by their seed alone"


@dataclass(frozen=True, kw_only=True)
class Config(figure.ResultConfig):
    """Judge nulls by the rule of every claim."""

    num_simulated: int = 100
    """Seeds of what is drawn by chance."""
    num_untrained: int = 10
    """Seeds of untrained networks."""
    num_images: int = 64
    """Validation images of the demo set."""
    nets: tuple[str, ...] = ()
    """Runs that differ by their seed alone."""


class Result(results.Written):
    """What result.json holds."""

    nulls: dict[str, int]  # seeds of each kind
    claims: dict[str, list[nulls.NullOfClaim]]  # by the name of the judge


def run(config: Config) -> Result:
    """Draw, judge, count; what result.json holds. UserError for a result already there."""
    figure.check_numbers(config)
    folder = figure.folder_of(config, nets.RUNS / "nulls")
    with results.claimed(folder, COMMAND, overwrite=config.overwrite) as out:
        counted: dict[str, list[nulls.NullOfClaim]] = {}
        for name, null in itertools.chain(alike(config), simulated(config.num_simulated), untrained(config)):
            counted.setdefault(name, []).append(null)
        result: Result = {
            "nulls": {
                "simulated": config.num_simulated,
                "untrained": config.num_untrained,
                "trained": len(config.nets),
            },
            "claims": {name: counted[name] for name in sorted(counted)},
            "config": config,
            "versions": results.versions(),
        }
        return results.write(out, result, command=COMMAND, contents={})


def simulated(num: int) -> Iterator[tuple[str, nulls.NullOfClaim]]:
    """(name of the judge, its null) of what is drawn by chance."""
    for source, words, make, names in SIMULATED:
        made = [make(seed) for seed in range(num)]
        for claim in claims_of(source):
            is_meant = not names or claim.judge.__name__ in names
            if is_meant and (null := nulls.counted([claim.judge(one) for one in made], words)):
                yield claim.judge.__name__, null


def first_layers(
    seed: int, num_filters: int = 96, *, amplitude: Callable[[np.ndarray], np.ndarray] = np.ones_like
) -> dict[str, Any]:
    """Figure 6 of filters cut from one field of noise: 7x7 with stride 2 twice, and 11x11 with stride 4.

    Args:
      seed, num_filters: of the noise, and how many fields of it.
      amplitude: of frequencies in cycles per pixel; white noise by default.
    """
    frequency = np.fft.fftfreq(FIELD)
    scale = amplitude(np.hypot(frequency[:, None], frequency[None, :]))[..., None, None]
    white = np.random.default_rng(seed).normal(size=(FIELD, FIELD, 3, num_filters))
    noise = np.fft.ifft2(scale * np.fft.fft2(white, axes=(0, 1)), axes=(0, 1)).real.astype(np.float32)
    bottoms = {}
    for role, (start, side, stride) in {"clipped": (0, 7, 2), "unclipped": (8, 7, 2), "alexnet": (16, 11, 4)}.items():
        kernel = noise[start : start + side, start : start + side]
        bottoms[role] = filters.Bottom("noise", ("conv1",), kernel, np.ones(num_filters, bool), stride, None)
    return {"nets": first_layer.numbers_of(bottoms), "renormalisation_acted": True}


def blur(frequency: np.ndarray, *, pixels: float) -> np.ndarray:
    """Amplitude of white noise that a Gaussian of this standard deviation blurs."""
    amplitude: np.ndarray = np.exp(-2 * (np.pi * pixels * frequency) ** 2)
    return amplitude


def of_photos(frequency: np.ndarray) -> np.ndarray:
    """Amplitude 1 / frequency, as photos have it."""
    amplitude: np.ndarray = 1 / np.maximum(frequency, 1 / FIELD)
    return amplitude


def evaluated(seed: int) -> dict[str, Any]:
    """Table 2 of networks that err alike."""
    rng = np.random.default_rng(seed)
    names = [ablation.folder_name(one) for one in ablation.VARIANTS if one.paper]

    def error() -> dict[str, Any]:
        return {views: {"top1": rng.binomial(NUM_IMAGES, ERROR) / NUM_IMAGES} for views in ("center", "ten")}

    members = [{"name": name, "checkpoint": {}, "error": error()} for name in names]
    return {"members": members, "num_images": NUM_IMAGES, "error": error()}


def jumps(seed: int, *, num_layers: int = 1, num_maps: int = 16, num_epochs: int = 6) -> dict[str, Any]:
    """Figure 4 of maps whose looks jump at some epochs and whose strongest image changes at others.

    Some maps, and some epochs, are quieter than others in both. In all but the last `num_layers` of five layers looks
    jump where the image changes.
    """
    rng = np.random.default_rng(seed)
    layers = {}
    for number in range(1, 6):
        quiet = rng.uniform(0, 0.5, (num_epochs, 1)) + rng.uniform(0, 0.5, num_maps)
        looks, images = rng.normal(size=(num_epochs, num_maps, 8, 8, 3)), np.zeros((num_epochs, num_maps), int)
        for epoch in range(1, num_epochs):
            stays, same_image = rng.random((2, num_maps)) < quiet[epoch]
            same_image = same_image if number > 5 - num_layers else stays
            looks[epoch, stays] = looks[epoch - 1, stays]
            images[epoch] = np.where(same_image, images[epoch - 1], epoch)
        noisy = looks + rng.normal(size=looks.shape, scale=0.3)
        layers[f"conv{number}"] = {"continuity": evolution.continuity(noisy, images)}
    return {"layers": layers}


def variants(seed: int, *, spread: float = SEED_SPREAD) -> dict[str, Any]:
    """Table 3 of networks that err alike but for their seeds, on the validation and on as many training images."""
    rng = np.random.default_rng(seed)
    rows: list[Any] = []
    for one in ablation.VARIANTS:
        chances = rng.normal(ERROR, spread, 2)
        validation, train = ({"top1": share} for share in rng.binomial(NUM_IMAGES, chances) / NUM_IMAGES)
        rows.append({"name": one.name, "paper": one.paper, "error": {"validation": validation, "train": train}})
    return {"rows": rows, "num_images": NUM_IMAGES, "rank_correlation": ablation.rank_correlation(rows)}


def arms(seed: int) -> dict[str, Any]:
    """Tables 4 and 5 of arms that are alike, and as good as earlier methods."""
    accuracies = _of_folds(seed, 2, around=EARLIER_CALTECH256)
    both_sizes = dict.fromkeys((6, 15), accuracies)
    return {**_table_4(both_sizes, earlier=EARLIER_CALTECH256), "num_classes": 257, "num_images": 30_607}


def arms_of_one_fold(
    seed: int,
    *,
    sizes: tuple[int, ...] = (15,),
    num_classes: int = 20,
    per_class: int = 15,
    spread: float = FOLD_SPREAD,
) -> dict[str, Any]:
    """The same of one fold and few test images, `per_class` of each class."""
    rng, num_test = np.random.default_rng(seed), num_classes * per_class
    accuracies = {size: _of_one_fold(rng, 2, num_test=num_test, spread=spread) for size in sizes}
    num_images = num_classes * (max(sizes) + per_class)
    return {**_table_4(accuracies, earlier=AROUND), "num_classes": num_classes, "num_images": num_images}


def never_trained(seed: int) -> dict[str, Any]:
    """Table 4 of a network with random weights, whose features beat a training from scratch that got nowhere."""
    frozen, drawn_anew = _of_folds(seed, 2)
    accuracies = {size: np.stack([frozen, frozen / 3, drawn_anew]) for size in (15, 30)}
    return {**_table_4(accuracies, earlier=AROUND), "num_classes": 102, "num_images": 9144}


def _table_4(accuracies: Mapping[int, np.ndarray], *, earlier: float) -> dict[str, Any]:
    """Of {images per class: percent [2 or 3, folds]}: pretrained, from scratch, untrained or else half as good.

    An earlier method has 15 images per class.
    """
    rows = [
        {
            "arm": arm,
            "num_train": num_train,
            "folds": of.tolist(),
            "mean": float(of.mean()),
            "records": [{"training_accuracy": 1.0}] * len(of),
        }
        for num_train, arms in accuracies.items()
        for arm, of in zip(("pretrained", "scratch", "untrained"), (*arms, arms[1] / 2)[:3], strict=True)
    ]
    return {"rows": rows, "paper": {"best earlier": {"15": {"mean": earlier}}}}


def layers(seed: int) -> dict[str, Any]:
    """Table 7 of layers and classifiers that are alike."""
    return _table_7(LAYERS, _of_folds(seed, len(LAYERS)))


def layers_of_one_fold(
    seed: int, *, num_classes: int = 20, per_class: int = 15, spread: float = FOLD_SPREAD, rise: float = 0.0
) -> dict[str, Any]:
    """The same of one fold and few test images; `rise`: percent from each layer to the next."""
    rng, num_test = np.random.default_rng(seed), num_classes * per_class
    rises = rise * np.arange(len(LAYERS))
    of_folds = _of_one_fold(rng, len(LAYERS), num_test=num_test, spread=spread, above=rises)
    facts = {"num_classes": num_classes, "num_images": num_classes * (30 + per_class)}
    return _table_7(LAYERS, of_folds) | facts


def apart(seed: int) -> dict[str, Any]:
    """Table 7 of a layer 7 as far below layer 5, and a softmax as far below the SVM on it, as is no longer alike."""
    svm, lower = _of_folds(seed, 2, around=AROUND)  # a tenth of it is more than ALIKE_PERCENT
    return _table_7(TOP, (svm, lower - ALIKE_PERCENT, svm - 2 * ALIKE_PERCENT))


def guesses(seed: int) -> dict[str, Any]:
    """Table 7 of features that say nothing, so that all classifiers guess alike."""
    hits = np.random.default_rng(seed).binomial(NUM_GUESSED, 1 / 102, (len(TOP), 5))
    return _table_7(TOP, 100 * hits / NUM_GUESSED)


AROUND = 60.0  # percent
NUM_GUESSED = 5100  # test images of Caltech-101: 50 of each of 102 classes
LAYERS: tuple[tuple[linear_models.Loss, str], ...] = (
    *(("svm", f"conv{number}") for number in range(1, 6)),
    ("svm", "fc7"),
    ("softmax", "fc7"),
)
TOP = LAYERS[-3:]


def _table_7(named: Sequence[tuple[str, str]], of_folds: Iterable[np.ndarray]) -> dict[str, Any]:
    """Of (classifier, layer) the percent of each fold of Caltech-101."""
    rows = [
        {"classifier": classifier, "layer": layer, "folds": of.tolist(), "mean": float(of.mean())}
        for (classifier, layer), of in zip(named, of_folds, strict=True)
    ]
    return {"rows": rows, "num_train": 30, "num_classes": 102, "num_images": 9144}


def _of_folds(seed: int, number: int, *, around: float = 30) -> np.ndarray:
    """Percent [number, 5]: classifiers of one quality."""
    rng = np.random.default_rng(seed)
    return np.asarray(around + rng.normal(0, POINTS, 5) + rng.normal(0, POINTS, (number, 5)))


def _of_one_fold(
    rng: np.random.Generator, number: int, *, num_test: int, spread: float, above: np.ndarray | float = 0.0
) -> np.ndarray:
    """Percent [number, 1]: what classifiers find, each of a quality drawn around AROUND, `above` it, with a spread."""
    chances = np.clip(AROUND + above + rng.normal(0, spread, number), 0, 100) / 100
    return np.asarray(100 * rng.binomial(num_test, chances)[:, None] / num_test)


four_sizes = functools.partial(arms_of_one_fold, sizes=(15, 30, 45, 60), num_classes=257, per_class=50)
BEAT_SCRATCH = ("pretrained_beats_scratch_on_101", "pretrained_beats_scratch_on_256")
SMOOTH = {
    "blurred by half a pixel": functools.partial(first_layers, amplitude=functools.partial(blur, pixels=0.5)),
    "blurred by a pixel": functools.partial(first_layers, amplitude=functools.partial(blur, pixels=1.0)),
    "whose amplitude is 1 / frequency, as that of photos": functools.partial(first_layers, amplitude=of_photos),
}
CUT = (
    "depth_matters",
    "dense_layers_cost_little",
    "middle_layers_cost_little",
    "dense_sizes_matter_little",
    "same_order",
)
# Their rules count no seeds: the paper's own differences of a point or two would be none beside the spread of ours. So
# only networks trained as the paper's decide them, whose seeds are nearer to each other, by how much is not known.
AS_THE_PAPERS = ("wide_variant_helps", "wide_dense_layers_overfit", "variant_beats_alexnet")
AS_GOOD = ("top_layer_is_as_good", "classifiers_agree")
SIMULATED: tuple[tuple[str, str, Callable[[int], dict[str, Any]], tuple[str, ...]], ...] = (
    ("Figure 6", "filters of white noise", first_layers, ()),
    *(("Figure 6", f"filters of noise {words}", make, ("less_aliasing",)) for words, make in SMOOTH.items()),
    ("Figure 4", "in a layer jumps at other epochs than the image's changes", jumps, ("jumps_come_from_other_images",)),
    ("Table 2", "networks that err alike", evaluated, ()),
    ("Table 3", "networks that err alike but for their seeds", variants, CUT),
    ("Table 3", "networks that err alike", functools.partial(variants, spread=0.0), AS_THE_PAPERS),
    ("Table 4", "arms that are alike", arms, ()),
    ("Table 5, Figure 9", "arms that are alike", arms, ()),
    ("Table 4", "arms that are alike, of one fold", arms_of_one_fold, BEAT_SCRATCH[:1]),
    ("Table 5, Figure 9", "arms that are alike, of one fold", four_sizes, BEAT_SCRATCH[1:]),
    ("Table 4", "random weights, and a training that got nowhere", never_trained, BEAT_SCRATCH[:1]),
    ("Table 5, Figure 9", "random weights, and a training that got nowhere", never_trained, BEAT_SCRATCH[1:]),
    ("Table 7", "layers that are alike", layers, ("higher_layers_are_better",)),
    ("Table 7", "layers that are alike, of one fold", layers_of_one_fold, ("higher_layers_are_better",)),
    ("Table 7", f"classifiers that are {ALIKE_PERCENT:g} points apart", apart, AS_GOOD),
    ("Table 7", "classifiers that guess", guesses, AS_GOOD),
)
"""(source, what its nulls are, how each is made of a seed, the judges that they are for; none: all of the source)."""


def alike(config: Config) -> Iterator[tuple[str, nulls.NullOfClaim]]:
    """The same of trained networks that differ by their seed alone, each two of them in both orders.

    Only of the claims whose precondition they meet: what has only begun to learn differs by its seed most of all.
    """
    findings: dict[str, list[Any]] = {}
    opened = [nets.load_net(name) for name in config.nets]
    if len(opened) == 1 or not all(isinstance(net, nets.TrainedNet) for net in opened):
        raise UserError(f"nets={config.nets}: two runs or more are needed, of one recipe and several seeds")
    trained = {"checkpoints": {n: results.checkpoint_of(net) for n, net in enumerate(opened)}}
    measured = [(filters_of(net), error_of(net)) for net in opened]
    for (first, wrong), (second, others_wrong) in itertools.permutations(measured, 2):
        for result in (
            {"figure": "Figure 6", **roles_of(first, second)},
            {"table": "Table 2", **members_of(wrong, others_wrong)},
        ):
            for claim in claims_of(result.get("figure") or result.get("table")):
                if not claim.needs.lacking(trained):
                    findings.setdefault(claim.judge.__name__, []).append(claim.judge(result))
    for name, of_pairs in findings.items():
        if null := nulls.counted(of_pairs, ALIKE):
            yield name, null


def filters_of(net: Any) -> filters.Numbers:
    """Figure 6's numbers of a run's first filters, on 256 validation images of its data."""
    source = sets.validation_of(sets.open_data(net.data))
    some = Subset(source, sets.choose(source, 256, seed=0))
    state = scans.kept_scan(
        net, some, filters.check_bottom(net), of="nulls", path=None, k=9, batch_size=64, num_workers=0
    )
    bottom = filters.look(net, source, state, num_maps=1, seed=0)
    return filters.measure(bottom, finer_stride=bottom.stride)  # another seed's stands for AlexNet


def error_of(net: Any) -> tuple[float, int]:
    """(top-1 error of the centre crop, images) on the validation images of a run's data, at most NUM_IMAGES."""
    source = sets.validation_of(sets.open_data(net.data))
    views = nets.read_views(source, range(min(NUM_IMAGES, len(source))), net)
    logits = features.in_batches(net.features(net.layers[-1:]), views.images, batch_size=64)[net.layers[-1]]
    return float((np.asarray(logits).argmax(axis=1) != views.labels).mean()), len(views.labels)


def roles_of(first: filters.Numbers, second: filters.Numbers) -> dict[str, Any]:
    """Figure 6, where the second stands for the network without renormalisation and for AlexNet."""
    roles = {"clipped": first, "unclipped": second, "alexnet": second}
    return {"nets": roles, "renormalisation_acted": True}


def members_of(first: tuple[float, int], second: tuple[float, int]) -> dict[str, Any]:
    """Table 2, where the first stands for ours and the second for AlexNet, and for ours with wide layers."""
    errors = {"zfnet": first, "alexnet": second, "zfnet-conv3+4+5-of-512+1024+512": second}
    members = [{"name": name, "checkpoint": {}, "error": {"ten": {"top1": of}}} for name, (of, _) in errors.items()]
    return {"members": members, "num_images": first[1]}


def untrained(config: Config) -> Iterator[tuple[str, nulls.NullOfClaim]]:
    """The same of untrained networks."""
    data = demo.demo_set(PICTURE, 64, config.num_images)
    scenes = sets.validation_of(demo.demo_set(PICTURE, 64, NUM_SORTED))
    findings: dict[str, list[Any]] = {}
    for seed in range(config.num_untrained):
        with tempfile.TemporaryDirectory() as folder:
            net = untrained_net(seed, data, Path(folder))
            drawings = drawn(net, data, folder=Path(folder), seed=seed)
            for result in (*drawings, walked(net, data, seed), transferred(net, scenes)):
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
    yield invariance_curves.run(
        invariance_curves.Config(out=folder / "5", num_images=NUM_MOVED, **common), net=net, data=data
    )
    yield occlusion_maps.run(
        occlusion_maps.Config(out=folder / "7", stride=8, num_scored=40, **common), net=net, data=data
    )
    yield part_correspondence.run(part_correspondence.Config(out=folder / "1", **common), net=net, data=data)


def walked(last: nets.TrainedNet, data: ImageSet, seed: int, *, num_steps: int = 6) -> dict[str, Any]:
    """Figure 4 of a network whose weights came to where they are by a walk at random, each layer's alike."""
    source = sets.validation_of(data)
    images = nets.read_views(source, range(min(32, len(source))), last).images
    params = [last.params]
    for step in range(num_steps - 1):
        fresh = untrained_net(1000 * (step + 1) + seed, data).params
        params.append(jax.tree.map(_stepped, params[-1], fresh))
    by_epoch = {epoch: last.with_params(of) for epoch, of in enumerate(reversed(params), start=1)}
    layers = last.layers[:-1]
    settling, straight = evolution.measure(by_epoch, images, layers), evolution.straight(by_epoch, images, layers)
    assert straight is not None  # their weights are at hand
    curves = [of["similarity"] for of in settling.values()]
    of_layers = {
        layer: {"similarity": settling[layer]["similarity"], "straight": way} for layer, way in straight.items()
    }
    return {"figure": "Figure 4", "lower_layers_first": evolution.lower_first(curves), "layers": of_layers}


def transferred(net: nets.TrainedNet, scenes: Source) -> dict[str, Any]:
    """Table 7 of a network that sorts demo scenes, by `NUM_LEARNT` of each class, in five folds."""
    views = nets.read_views(scenes, range(len(scenes)), net)
    labels, names = np.asarray(views.labels), net.class_names
    layers = list(dict.fromkeys(layer for _, layer in LAYERS))
    of_layers = features.in_batches(net.features(layers), views.images, batch_size=64)
    folds = protocol.folds(labels, num_train=NUM_LEARNT, num_folds=5, seed=0, class_names=names, num_test=NUM_LEARNT)

    def accuracy(loss: linear_models.Loss, layer: str, fold: protocol.Fold) -> float:
        rows = np.asarray(of_layers[layer], np.float32).reshape(len(labels), -1)
        products = rows @ rows[fold.train].T
        train, test = linear_models.kernel_coordinates(products[fold.train], products[fold.test])
        targets = linear_models.targets_of(labels[fold.train], len(names))
        model = linear_models.fit(train, targets, PENALTY, loss=loss)
        answers = linear_models.scores(model, test).argmax(axis=1)
        return 100 * protocol.mean_class_accuracy(answers, labels[fold.test])

    of_folds = np.array([[accuracy(loss, layer, fold) for fold in folds] for loss, layer in LAYERS])
    facts = {"num_train": NUM_LEARNT, "num_classes": len(names), "num_images": len(labels)}
    return {"table": "Table 7", **_table_7(LAYERS, of_folds), **facts}


def _stepped(weights: jax.Array, fresh: jax.Array) -> jax.Array:
    """Weights of the same size that share the less with those given, the larger FRESH is."""
    mixed: jax.Array = (weights + FRESH * fresh) / (1 + FRESH**2) ** 0.5
    return mixed


def claims_of(source: Any) -> list[Claim]:
    """The claims about a figure or table."""
    return [claim for claim in CLAIMS if claim.source == source]


def report(result: Result) -> None:
    """Print how often each rule is satisfied."""
    for name, null in ((name, null) for name, of in result["claims"].items() for null in of):
        counts = ", ".join(f"{verdict} {count}" for verdict, count in null["verdicts"].items())
        print(f"{name:34} {null['null']}: {counts}; {null['ours']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
