"""Sanity checks of the pictures: do they depend on the unit, the weights and the switches, or on the image alone?

    python -m experiments.sanity_checks --checkpoint runs/RUN

Without --checkpoint the newest run under runs/ is taken. Expected time: 24 s with the demo net on two CPU
cores. Expected result: the deconvnet draws best and worst class of an untrained net nearly alike (cosine about 0.9),
the gradient does not (about 0); with another image's switches next to nothing of a deconvnet picture is left. The paper
has no such checks; they are those of Mahendran & Vedaldi 2016 (other units), Nie et al. 2018 (switches) and Adebayo et
al. 2018 (weights drawn anew from the top layer down).

Writes table.png, pictures.png, scores.npz and result.json to <run>/figures/sanity (or --out). result.json holds
"sentence", what a gallery of this net's pictures should say of itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command, inputs, pictures, sanity_pages
from experiments.sanity_pages import UNITS, Checks, Drawn, Pictures, Scores
from zfjax import parallel, sanity
from zfjax.architecture import Architecture
from zfjax.deconvnet import project
from zfjax.layers import Conv
from zfjax.network import Params, Trace, forward

CHUNK = 8  # images in memory at the same time
SHOWN = 2  # images on the page of pictures
Look = Callable[[np.ndarray], np.ndarray]  # what of a picture is compared


@dataclass(frozen=True)
class Config:
    """Measure what the pictures of a network depend on."""

    checkpoint: Path | None = None
    """Run folder or checkpoint; by default the newest run under runs/."""
    data: str | None = None
    """Data set, or folder of pictures, to look at; by default what the net was trained on."""
    out: Path | None = None
    """Folder for the results; by default <run>/figures/sanity."""
    num_images: int = 16
    """Validation images, chosen by --seed, that the numbers are means of."""
    layer: str | None = None
    """Layer whose units are swapped; by default the last convolutional one."""
    seed: int = 0
    """Seed of the choice of the images and of the weights that are drawn anew."""
    overwrite: bool = False
    """Replace the results that are already there."""


def run(config: Config) -> dict[str, Any]:
    """Explain, disturb, compare; write table, pictures, arrays and result.json.

    Returns:
      What result.json holds. ValueError for an unknown layer, a set without validation pictures, less than one image,
      or an output folder that already holds a result.
    """
    net = inputs.load_net(config.checkpoint)
    data = inputs.open_images(config.data, net)
    source = inputs.validation_of(data)
    chosen = inputs.choose(source, config.num_images, config.seed)
    convs = [row.name for row in net.architecture.layers if isinstance(row, Conv)]
    layer = (convs or net.architecture.layer_names)[-1] if config.layer is None else config.layer
    net.architecture.layer(layer)
    out = inputs.result_folder(config.out, net.run / "figures" / "sanity", overwrite=config.overwrite)
    if parallel.host_count()[0] > 0:
        return {}  # one host draws
    views = inputs.read_views(source, chosen, net)
    scores, drawn = check_all(net, layer, views.images, config.seed)
    checks = summarize(scores)
    result = {
        "table": "sanity checks",
        "checks": checks,
        "meanings": sanity_pages.GROUPS,
        "sentence": sanity_pages.sentence(checks),
        "layer": layer,
        "images": chosen,
        "paper": None,  # these checks are younger than the paper
        "folder": out,
        "seed": config.seed,
        **inputs.provenance(net, data, config),
    }
    arrays = {
        f"{group} / {row} / {method}": values
        for group, rows in scores.items()
        for row, cells in rows.items()
        for method, values in cells.items()
    }
    (out / "result.json").unlink(missing_ok=True)  # written last, it says that all is there
    pictures.save_arrays(out / "scores.npz", arrays)
    pictures.save_figure(out / "table.png", sanity_pages.table_page(result))
    pictures.save_figure(out / "pictures.png", sanity_pages.pictures_page(drawn, views.pictures[:SHOWN], result))
    pictures.save_result(out / "result.json", result)
    return result


def check_all(net: inputs.TrainedNet, layer: str, images: np.ndarray, seed: int) -> tuple[Scores, Drawn]:
    """Scores of all images, a chunk at a time, and the pictures of the first ones.

    The last chunk is filled up with the first images, so that one compiled function serves all chunks, and that each
    image has another one to take switches from.
    """
    size = min(CHUNK, len(images))
    found = []
    for start in range(0, len(images), size):
        rows = images[np.arange(start, start + size) % len(images)]
        drawn = draw_all(net, layer, rows, jax.random.key(seed))
        found.append(compare(drawn, rows))
        if start == 0:
            shown = sanity_pages.map_cells(lambda of: of[:SHOWN].copy(), drawn)
    return sanity_pages.map_cells(lambda *parts: np.concatenate(parts)[: len(images)], *found), shown


def draw_all(net: inputs.TrainedNet, layer: str, images: np.ndarray, key: jax.Array) -> Drawn:
    """Every picture that is compared, of a batch of images."""
    architecture, last = net.architecture, net.architecture.layer_names[-1]
    edges = np.broadcast_to(sanity.edges(images)[..., None], images.shape)

    def explain(params: Params, trace: Trace, top: jax.Array, of: str) -> Pictures:
        options = {"layer": of, "architecture": architecture}
        found = {name: np.asarray(method(params, trace, top, **options)) for name, method in sanity.METHODS.items()}
        return found | {"gradient x input": found["gradient"] * images, "edges alone": edges}

    def explain_units(params: Params, trace: Trace) -> dict[str, Pictures]:
        tops = sanity.class_tops(trace[last].features), sanity.neuron_tops(trace[layer].features)
        signals = [(top, of) for pair, of in zip(tops, (last, layer), strict=True) for top in pair]
        return {unit: explain(params, trace, *signal) for unit, signal in zip(UNITS, signals, strict=True)}

    trace = _up(net.params, images, architecture=architecture)
    best, strongest = sanity.class_tops(trace[last].features)[0], sanity.neuron_tops(trace[layer].features)[0]
    drawn: Drawn = {"units": explain_units(net.params, trace), "anew": {}, "switches": {}}
    for name, params in sanity.cascade(net.params, key, architecture=architecture):
        other = _up(params, images, architecture=architecture)
        drawn["anew"][name] = explain(params, other, best, last)
    drawn["untrained"] = explain_units(params, other)  # the last of the cascade
    changed = {"of another image": sanity.exchanged(trace)} if len(images) > 1 else {}
    changed["in the middle"] = sanity.centered(trace, architecture=architecture)
    for how, wrong in changed.items():
        for unit, top, of in (("best class", best, last), ("strongest unit", strongest, layer)):
            picture = project(net.params, wrong, top, layer=of, architecture=architecture)
            drawn["switches"][f"{unit}, switches {how}"] = {"deconvnet": np.asarray(picture)}
    return drawn


@partial(jax.jit, static_argnames="architecture")
def _up(params: Params, images: jax.Array, *, architecture: Architecture) -> Trace:
    return forward(params, images, architecture=architecture)[1]


def compare(drawn: Drawn, images: np.ndarray) -> Scores:
    """Every check of a batch of images, from its pictures."""
    nets = {"": drawn["units"], ", untrained net": drawn["untrained"]}
    right = drawn["units"]["best class"]
    views: dict[str, Look] = {"signed": lambda of: of, "absolute": np.abs}  # Adebayo et al. 2018 show both
    ranked = {view: {m: sanity.ranks(look(of)) for m, of in right.items()} for view, look in views.items()}
    edges = sanity.edges(images)
    scores = {
        "units": {
            f"{first} and {second}{which}": {m: sanity.cosine(of[first][m], of[second][m]) for m in right}
            for first, second in (UNITS[:2], UNITS[2:])
            for which, of in nets.items()
        },
        "switches": {
            row: {m: sanity.cosine(drawn["units"][row.partition(",")[0]][m], of) for m, of in wrong.items()}
            for row, wrong in drawn["switches"].items()
        },
    }
    for view, look in views.items():
        scores[view] = {
            layer: {m: sanity.cosine(ranked[view][m], sanity.ranks(look(of))) for m, of in anew.items()}
            for layer, anew in drawn["anew"].items()
        }
    alone = {m: sanity.spearman(np.abs(of).sum(axis=-1), edges) for m, of in right.items()}
    itself = {m: sanity.spearman(of, images) for m, of in right.items()}
    return {**scores, "image": {"edges of the image": alone, "the image itself": itself}}


def summarize(scores: Scores) -> Checks:
    """Mean and standard deviation over the images whose pictures can be compared, and their number."""

    def over_images(values: np.ndarray) -> dict[str, Any]:
        values = values[np.isfinite(values)]
        told = len(values) > 0
        return {"mean": values.mean() if told else None, "std": values.std() if told else None, "num": len(values)}

    return sanity_pages.map_cells(over_images, scores)


def report(result: dict[str, Any]) -> None:
    """Print the table and its sentence."""
    print("\n".join(sanity_pages.table_lines(result["checks"])))
    print(result["sentence"])
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
