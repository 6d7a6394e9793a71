"""Figure 4: how what excites a map changes while the network trains, and how early each layer settles.

    python -m experiments.feature_evolution --checkpoint runs/RUN

Without --checkpoint the newest run under runs/ is taken. It looks at the run's checkpoints of epochs 1, 2, 5, 10, 20,
30, 40, 64 and 70, as far as there are, and at its last one. Expected time: one pass over at most 8,192 training
pictures for each epoch (a killed one goes on where it stopped), then a few seconds per epoch; 39 s on two CPU cores for
the net of preset `demo`, half of it to render its pictures. Expected figure: lower layers look final early, upper ones
later; a sudden change of appearance where another training image became the strongest one (orange bar). Expected
result: with a net of half width on photos of ten classes conv1 settles by epoch 10 of 40, conv5 only at the end, and
the lower of two layers is nearer to its end in 76 % of the pairs; on the demo set, which is learnt in a few epochs, in
62 %: there conv2 is the last to settle.

Writes to <run>/figures/evolution (or --out): evolution.png, curves.png, result.json, <layer>.npz with what the figure
shows, and scans/, the strongest activations of all maps, which later calls for other maps start from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages import evolution as evolution_page
from experiments.shell import command, results, scans
from experiments.shell.training_log import TrainingLog
from zfjax import features, files, nets, parallel
from zfjax.analyses import evolution, strongest
from zfjax.analyses.evolution import THRESHOLD, Drawn
from zfjax.analyses.strongest import Strongest
from zfjax.analyses.top_activations import State
from zfjax.architecture import Conv
from zfjax.data import ImageSet, Source, Subset, sets
from zfjax.errors import UserError
from zfjax.training import checkpoints

PAPER = {"settled": {"lower layers": "within a few epochs", "upper layers": "after 40 to 50 epochs"}}


@dataclass(frozen=True)
class Config:
    """Draw Figure 4: the strongest activations of some maps at several epochs, projected to the pixels."""

    checkpoint: Path | None = None
    """Run folder, or the checkpoint to end at; by default the newest run under runs/."""
    data: str | None = None
    """Data set, or folder of pictures, to look at; by default what the net was trained on."""
    out: Path | None = None
    """Folder for the results; by default <run>/figures/evolution."""
    epochs: tuple[int, ...] = ()
    """Epochs to show; by default those of the paper's figure whose checkpoints are there, and the last one."""
    layers: tuple[str, ...] = ()
    """Layers to draw; by default every convolutional layer."""
    maps: tuple[str, ...] = ()
    """Maps to draw, as conv3:5,17; of layers that are not named here, maps are chosen by --seed."""
    num_maps: int | None = None
    """Maps to choose in each layer; by default as many as fill two rows, 6 for up to six epochs and else 4."""
    num_images: int = 8192
    """Training images to search, a fixed sample where there are more; the paper takes all."""
    num_probes: int = 128
    """Validation images whose features are compared, chosen by --seed."""
    patches: bool = False
    """Show below each projection what its unit sees."""
    batch_size: int = 128
    """Images per step over all devices."""
    num_workers: int = 0
    """Processes that decode pictures; 0 decodes on threads."""
    seed: int = 0
    """Seed of the choice among the maps that are alive at the end."""
    overwrite: bool = False
    """Replace the results that are already there."""


def run(config: Config) -> dict[str, Any]:
    """Scan the training set at every epoch, project, compare, and write pages, arrays and result.json.

    Returns:
      What result.json holds. UserError for a run with fewer than two checkpoints at the end of an epoch, an epoch
      that is not kept, unknown layers or maps, or an output folder that already holds a result.
    """
    net = nets.load_net(config.checkpoint)
    paths = epoch_checkpoints(net.path, config.epochs)
    data = sets.open_images(config.data, net)
    if data.train is None:
        raise UserError(f"data={data.name!r} has no training split")
    num_maps = 2 * evolution_page.strips_per_row(len(paths)) if config.num_maps is None else config.num_maps
    for name, value in {"num_maps": num_maps, "num_images": config.num_images, "num_probes": config.num_probes}.items():
        if value < 1:
            raise UserError(f"{name}={value}: at least 1 is needed")
    out = results.result_folder(config.out, net.run / "figures" / "evolution", overwrite=config.overwrite)
    convs = tuple(row.name for row in net.architecture.layers if isinstance(row, Conv))
    layers = config.layers or convs
    for layer in layers:
        net.architecture.layer(layer)  # raises for an unknown one
    maps = strongest.parse_maps(config.maps, net.architecture, layers)
    probes = data.train if data.validation is None else data.validation
    images = nets.read_views(probes, sets.choose(probes, config.num_probes, config.seed), net).images
    sample = Subset(data.train, sets.choose(data.train, config.num_images, seed=0))  # whatever maps are chosen
    watched = [name for name in net.architecture.layer_names if name in convs or name in layers]
    options = {"k": 1, "batch_size": config.batch_size, "num_workers": config.num_workers}
    tops = {}
    for epoch, path in paths.items():
        saved, of = out / "scans" / f"epoch_{epoch}.npz", f"{data.fingerprint} training {len(sample)}"
        tops[epoch] = scans.scan(nets.load_net(path), sample, watched, saved, of=of, **options)
    if parallel.host_count()[0] > 0:
        return {}  # one host draws
    for number, layer in enumerate(layers):
        if layer not in maps:
            maps[layer] = strongest.choose_maps(tops[max(tops)][layer], num_maps, (config.seed, number))
    drawn = draw(paths, data.train, tops, {layer: maps[layer] for layer in layers})
    hidden = net.architecture.layer_names[:-1]
    settling = similarities(paths, images, [*hidden, *(layer for layer in layers if layer not in hidden)])
    last = nets.load_net(paths[max(paths)])
    result = {"folder": out, **summarize(config, last, data, tops, drawn, settling)}
    write_all(out, drawn, result, config.patches)
    return result


def epoch_checkpoints(path: Path, epochs: Sequence[int]) -> dict[int, Path]:
    """{epoch: checkpoint at its end}, ascending, of the run of checkpoint `path`, up to that one.

    Args:
      path: <run>/checkpoints/<step>; the run's metrics.jsonl says which step ended which epoch.
      epochs: those that are wanted; none: those of Fig. 4 that are there, and the last.

    Returns:
      Two or more; UserError where an epoch is not kept or fewer than two are.
    """
    run = path.parents[1]
    ends = {record["epoch"]: record["step"] for record in TrainingLog(run).records() if record["kind"] == "epoch"}
    found = {epoch: path.parent / str(step) for epoch, step in sorted(ends.items()) if step <= int(path.name)}
    found = {epoch: checkpoint for epoch, checkpoint in found.items() if checkpoint.is_dir()}
    if missing := sorted(set(epochs) - set(found)):
        raise UserError(f"epochs={missing}: {run} holds the checkpoints after the epochs {list(found)}")
    wanted = set(epochs) or set(checkpoints.EVOLUTION_EPOCHS) | set(list(found)[-1:])
    chosen = {epoch: checkpoint for epoch, checkpoint in found.items() if epoch in wanted}
    if len(chosen) < 2:
        raise UserError(
            f"epochs={list(chosen)}: two or more are needed; training keeps the checkpoints after the epochs "
            f"{', '.join(map(str, checkpoints.EVOLUTION_EPOCHS))} and the latest {checkpoints.LATEST}: train for "
            f"longer with `python -m experiments.train_imagenet --resume {run} --num-epochs N`"
        )
    return chosen


def draw(paths: Mapping[int, Path], source: Source, tops: Mapping[int, State], maps: Mapping[str, Any]) -> Drawn:
    """Project the strongest activation of each of `maps` {layer: [M]} at every epoch."""
    drawn: dict[str, dict[int, Strongest]] = {layer: {} for layer in maps}
    for epoch, path in paths.items():
        net = nets.load_net(path)
        for layer, chosen in maps.items():
            drawn[layer][epoch] = strongest.project_and_cut(net, source, tops[epoch][layer], chosen, layer=layer)
    return drawn


def similarities(paths: Mapping[int, Path], images: np.ndarray, layers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By layer: the first three of MEANINGS of the page."""

    def look(path: Path) -> dict[str, np.ndarray]:
        net = nets.load_net(path)
        fn = features.layers_of(net.params, layers, architecture=net.architecture)
        return features.in_batches(fn, images)

    *earlier, last = paths
    final = look(paths[last])
    found: dict[str, dict[str, Any]] = {layer: {"similarity": []} for layer in layers}
    for epoch, path in paths.items():
        for layer, rows in (final if epoch == last else look(path)).items():
            found[layer]["similarity"].append(evolution.similarity(rows, final[layer]))
    for layer, facts in found.items():
        curve = facts["similarity"]
        facts["similarity_by_chance"] = evolution.similarity_by_chance(final[layer])
        facts["settling_epoch"] = None
        if curve[-1] is not None:  # some map is alive at the end
            facts["settling_epoch"] = evolution.settling_epoch(curve[:-1], earlier, THRESHOLD)
    return found


def summarize(
    config: Config,
    net: nets.TrainedNet,
    data: ImageSet,
    tops: Mapping[int, State],
    drawn: Drawn,
    layers: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What result.json holds; `layers` from `similarities`."""
    for layer in tops[max(tops)]:
        values = np.stack([top[layer].values[:, 0] for top in tops.values()])
        images = np.stack([top[layer].images[:, 0] for top in tops.values()])
        layers[layer] |= {"growth": evolution.growth(values), "changed": evolution.changed(values, images)}
    for layer, at in drawn.items():
        projections = np.stack([seen.projections[:, 0] for seen in at.values()])
        images = np.stack([seen.images[:, 0] for seen in at.values()])
        continuity = evolution.continuity(projections, images)
        layers[layer] |= {"maps": at[max(at)].maps, "continuity": continuity._asdict()}
    assert data.train is not None
    hidden = [layers[layer]["similarity"] for layer in net.architecture.layer_names[:-1]]
    return {
        "figure": "Figure 4",
        "epochs": list(tops),
        "layers": layers,
        "lower_layers_first": evolution.lower_first([curve for curve in hidden if curve[-1] is not None]),
        "threshold": THRESHOLD,
        "meanings": evolution_page.MEANINGS,
        "paper": PAPER,
        "num_images": min(config.num_images, len(data.train)),
        "seed": config.seed,
        **results.provenance(net, data, config),
    }


def write_all(out: Path, drawn: Drawn, result: Mapping[str, Any], patches: bool) -> None:
    """Write arrays, pictures, and last the result, which says that all is there."""
    (out / "result.json").unlink(missing_ok=True)
    for path in out.glob("*.npz"):  # of layers that this result does not name
        path.unlink()
    for layer, at in drawn.items():
        fields = {
            f"epoch_{epoch}/{name}": field for epoch, seen in at.items() for name, field in strongest.arrays(seen)
        }
        files.save_arrays(out / f"{layer}.npz", fields)
    results.save_figure(out / "evolution.png", evolution_page.evolution_page(drawn, result, patches=patches))
    results.save_figure(out / "curves.png", evolution_page.curves_figure(result))
    files.save_json(out / "result.json", result)


def report(result: dict[str, Any]) -> None:
    """Print how early each layer settled."""
    for layer, facts in result["layers"].items():
        curve = ", ".join("none" if value is None else f"{value:.2f}" for value in facts["similarity"])
        print(f"{evolution_page.heading(layer, result)}: {curve} at {result['epochs']}")
    share = result["lower_layers_first"]
    print(f"lower layers first: {'unknown' if share is None else f'{share:.0%} of the pairs of layers'}")
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report, when_stopped="the same command goes on where the scan was last saved")


if __name__ == "__main__":
    main()
