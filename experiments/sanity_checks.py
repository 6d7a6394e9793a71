"""Sanity checks: do projections depend on the unit, the weights and the switches, or on the image alone?

    python -m experiments.sanity_checks --net runs/RUN

Without --net the newest run under runs/ is taken. Expected time: 24 s with the demo net on two CPU cores. Expected
result: the deconvnet's projections of the best and the worst class of an untrained net are nearly alike (cosine about
0.9), the gradient's are not (about 0); with another image's switches almost nothing of a projection remains. The paper
has no such checks; they are from Mahendran & Vedaldi 2016 (other units), Nie et al. 2018 (switches) and Adebayo et al.
2018 (weights redrawn from the top layer down).

For a network that is a function, checks that need the switches or layers of a table are left out; for one without
classes, those of classes. "not_applicable" in result.json lists them with the reason.

Writes table.png, pictures.png, scores.npz and result.json to <run>/figures/sanity (or --out). "sentence" in result.json
is a caveat to print beside a gallery of this net's projections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.pages import sanity as sanity_page
from experiments.shell import command, figure, results
from zfjax import nets, parallel
from zfjax.analyses import sanity
from zfjax.analyses.occlusion import watched_layer
from zfjax.data import ImageSet, name_of, sets
from zfjax.nets import Net

COMMAND = "sanity_checks"


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Measure what the pictures of a network depend on."""

    num_images: int = 16
    """Validation images, chosen by --seed, that the numbers are means of."""
    layer: str | None = None
    """Layer whose units are swapped; by default the last one with feature maps."""


class Result(results.Result):
    """What result.json holds."""

    table: str
    checks: sanity.Checks
    meanings: dict[str, str]  # of each group of checks
    sentence: str
    not_applicable: dict[str, str]
    layer: str
    asked: str  # whose pictures are compared as weights are drawn anew
    images: list[str]  # their files' names, or their places in the split
    indices: Any  # int [N], these places


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result | None:
    """Explain, disturb, compare; write table, pictures, arrays and result.json.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for an unknown layer, a set without validation pictures, less than one image,
      or an output folder that already holds a result.
    """
    names = ("scores.npz", "table.png", "pictures.png")
    with figure.opened(config, COMMAND, folder="figures/sanity", net=net, names=names) as (net, out):
        layer = watched_layer(net) if config.layer is None else nets.check_layer(net, config.layer)
        data = figure.open_images(config, net, data)
        source = sets.validation_of(data)
        chosen = sets.choose(source, config.num_images, config.seed)
        if parallel.host_count()[0] > 0:
            return None  # one host draws
        views = nets.read_views(source, chosen, net)
        scores, drawn = sanity.check_all(net, views.images, layer=layer, seed=config.seed)
        checks = sanity.summarize(scores)
        result: Result = {
            "table": "sanity checks",
            "checks": checks,
            "meanings": {group: sanity_page.GROUPS[group] for group in checks},
            "sentence": sanity_page.sentence(checks),
            "not_applicable": sanity.not_applicable(net, len(chosen), layer=layer),
            "layer": layer,
            "asked": sanity.asked_of(drawn),
            "images": [name_of(source, int(index)) for index in chosen],
            "indices": chosen,
            "paper": None,  # these checks are younger than the paper
            "seed": config.seed,
            **results.provenance(net, data, config),
        }
        arrays = {
            f"{group} / {row} / {method}": values
            for group, rows in scores.items()
            for row, cells in rows.items()
            for method, values in cells.items()
        }
        arrays |= {"names": np.array(result["images"]), "indices": np.asarray(chosen)}
        pages = {
            "table.png": sanity_page.table_page(result),
            "pictures.png": sanity_page.pictures_page(drawn, views.pictures[: sanity.SHOWN], result),
        }
        return results.write(out, result, command=COMMAND, contents={"scores.npz": arrays, **pages})


def report(result: Result) -> None:
    """Print the table, its sentence, and what is left out."""
    print("\n".join(sanity_page.table_lines(result["checks"])))
    print(result["sentence"])
    command.print_left_out(result["not_applicable"])


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
