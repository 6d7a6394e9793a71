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

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.pages import sanity as sanity_page
from experiments.shell import command, results
from zfjax import files, nets, parallel
from zfjax.analyses.sanity import SHOWN, check_all, summarize
from zfjax.architecture import Conv
from zfjax.data import sets


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
      What result.json holds. UserError for an unknown layer, a set without validation pictures, less than one image,
      or an output folder that already holds a result.
    """
    net = nets.load_net(config.checkpoint)
    data = sets.open_images(config.data, net)
    source = sets.validation_of(data)
    chosen = sets.choose(source, config.num_images, config.seed)
    convs = [row.name for row in net.architecture.layers if isinstance(row, Conv)]
    layer = (convs or net.architecture.layer_names)[-1] if config.layer is None else config.layer
    net.architecture.layer(layer)
    out = results.result_folder(config.out, net.run / "figures" / "sanity", overwrite=config.overwrite)
    if parallel.host_count()[0] > 0:
        return {}  # one host draws
    views = nets.read_views(source, chosen, net)
    scores, drawn = check_all(net, layer, views.images, config.seed)
    checks = summarize(scores)
    result = {
        "table": "sanity checks",
        "checks": checks,
        "meanings": sanity_page.GROUPS,
        "sentence": sanity_page.sentence(checks),
        "layer": layer,
        "images": chosen,
        "paper": None,  # these checks are younger than the paper
        "folder": out,
        "seed": config.seed,
        **results.provenance(net, data, config),
    }
    arrays = {
        f"{group} / {row} / {method}": values
        for group, rows in scores.items()
        for row, cells in rows.items()
        for method, values in cells.items()
    }
    (out / "result.json").unlink(missing_ok=True)  # written last, it says that all is there
    files.save_arrays(out / "scores.npz", arrays)
    results.save_figure(out / "table.png", sanity_page.table_page(result))
    results.save_figure(out / "pictures.png", sanity_page.pictures_page(drawn, views.pictures[:SHOWN], result))
    files.save_json(out / "result.json", result)
    return result


def report(result: dict[str, Any]) -> None:
    """Print the table and its sentence."""
    print("\n".join(sanity_page.table_lines(result["checks"])))
    print(result["sentence"])
    print(f"written to {result['folder']}")


def main() -> None:
    """The command line."""
    command.main(Config, run, __doc__, report)


if __name__ == "__main__":
    main()
