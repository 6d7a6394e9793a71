"""Figure 3: the architecture as a picture, with sizes, receptive fields and parameter counts.

    python -m experiments.architecture_diagram
    python -m experiments.architecture_diagram --architecture alexnet
    python -m experiments.architecture_diagram --net runs/RUN
    python -m experiments.architecture_diagram --image-size 112 --width 0.5

Expected time: 3 s. Expected figure: the paper's Fig. 3, drawn from the table alone. Expected result: 62,357,608
parameters and maps with sides of 110-55-26-13-13-13-13-6. A net that is no table is drawn by its layers: their shapes,
receptive fields, and the operations of its program between them, as far as these are known.

Writes architecture.png and result.json to runs/architecture/NAME or <run>/figures/architecture, named by the flags, or
to --out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from experiments.pages import architecture as architecture_page
from experiments.pages import lettering
from experiments.pages.lettering import counted
from experiments.shell import command, figure, results
from experiments.shell.figure import NetFlag
from experiments.shell.sizes import SizeFlag
from zfjax import nets
from zfjax.architecture import ALEXNET, ZFNET, Architecture, Conv, Dense, Layer, Pool, receptive_field
from zfjax.errors import UserError
from zfjax.pixels import as_size, size_words

COMMAND = "architecture_diagram"

# Fig. 3 prints its maps' sizes. The paper prints no number of parameters: these follow from the sizes.
PAPER = {
    ZFNET: {"map_sides": (110, 55, 26, 13, 13, 13, 13, 6), "num_parameters": 62_357_608},
    ALEXNET: {"map_sides": (55, 27, 27, 13, 13, 13, 13, 6), "num_parameters": 60_965_224},
}

STAGES: tuple[Literal["filtered", "output"], ...] = ("filtered", "output")  # before the pool, after it
MOST_SIDES = 16  # that a line names
CONV_ONLY = ("stride", "padding", "groups")


@dataclass(frozen=True, kw_only=True)
class Config(figure.ResultConfig):
    """Draw Figure 3, or the table of another network."""

    architecture: Literal["zfnet", "alexnet"] | None = None
    """The paper's network (Fig. 3), or the one that it is compared with; by default zfnet."""
    net: NetFlag = None
    """Run folder or checkpoint, squeezenet:DIR, or module:NAME of a Net, to draw instead."""
    image_size: SizeFlag | None = None
    """Size of the images, pixels, a side or HEIGHTxWIDTH; by default that of the table."""
    width: float = 1.0
    """Factor on the features of every layer but the last."""


class Facts(TypedDict):
    """What the figure says of a network."""

    architecture: str  # its name
    image_size: nets.Size
    layers: list[dict[str, Any]]  # see `table`, or `of_layers` where the net is no table
    map_sides: list[nets.Size]
    num_parameters: int
    not_applicable: dict[str, str]  # {part: why it is left out}
    paper: dict[str, Any] | None  # the paper's values of some of these


class Result(Facts, results.Written):
    """What result.json holds."""

    figure: str
    checkpoint: results.Checkpoint | None  # None where no network was named


def run(config: Config, *, net: nets.Net | None = None) -> Result:
    """Draw the table and write it.

    Args:
      config: the flags.
      net: the network, where it is open already.

    Returns:
      What result.json holds. UserError for two networks, sizes that cannot work, or an output folder that already
      holds a result.
    """
    if config.architecture is not None and config.net is not None:
        raise UserError(f"architecture={config.architecture!r}, net={str(config.net)!r}: name one")
    if config.net is not None and net is None:
        net = nets.load_net(config.net)
    own = nets.RUNS / "architecture" / (config.architecture or "zfnet")
    folder = own if net is None else nets.home_of(net) / "figures" / "architecture"
    if net is None or isinstance(net, nets.OfTable):
        named = {"zfnet": ZFNET, "alexnet": ALEXNET}[config.architecture or "zfnet"]
        table = resized(named if net is None else net.architecture, config.image_size, config.width)
    elif config.image_size is not None or config.width != 1:
        raise UserError(
            f"image_size={config.image_size}, width={config.width:g}: {net.name} is no table of layers "
            "(zfjax.Architecture), and has the sizes that it has"
        )
    with figure.claimed(config, COMMAND, folder, names=["architecture.png"]) as out:
        facts = of_table(table) if net is None or isinstance(net, nets.OfTable) else of_layers(net)
        result: Result = {
            "figure": "Figure 3",
            "architecture": facts["architecture"],
            "image_size": facts["image_size"],
            "layers": facts["layers"],
            "map_sides": facts["map_sides"],
            "num_parameters": facts["num_parameters"],
            "not_applicable": facts["not_applicable"],
            "paper": facts["paper"],
            "checkpoint": None if net is None else results.checkpoint_of(net),
            "config": config,
            "versions": results.versions(),
        }
        is_table = net is None or isinstance(net, nets.OfTable)
        page = architecture_page.draw(result) if is_table else architecture_page.draw_layers(result)
        return results.write(out, result, command=COMMAND, contents={"architecture.png": page})


def of_table(architecture: Architecture) -> Facts:
    """Of a table everything follows from it."""
    return {
        "architecture": architecture.name,
        "image_size": architecture.image_size,
        "layers": table(architecture),
        "map_sides": map_sides(architecture),
        "num_parameters": architecture.num_parameters(),
        "not_applicable": {},
        "paper": PAPER.get(architecture),
    }


def of_layers(net: nets.Net) -> Facts:
    """Of any other net: its layers, and what its program does from one to the next (`zfjax.nets.between_layers`)."""
    made, num_parameters = nets.between_layers(net)
    rows: list[dict[str, Any]] = []
    for layer, shape in nets.shapes_of(net).items():
        field, between = net.receptive_field(layer), made[layer]
        rows.append(
            {
                "layer": layer,
                "reads": between.reads or ("image",),
                "steps": between.steps,
                "output": shape,  # [H, W, C] or [C]
                "sees": None if field is None else {"pixels": field.size, "every": field.stride},
                "parameters": between.num_weights,
            }
        )
    not_applicable = {"filters, padding and dropout of each layer": f"{net.name} is a program and no table of layers"}
    if unknown := [row["layer"] for row in rows if row["sees"] is None and len(row["output"]) == 3]:
        not_applicable["what a place sees"] = (
            f"of {counted(len(unknown), 'layer')} with maps it is neither said nor proved by the program: "
            f"{', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''}"
        )
    return {
        "architecture": net.name,
        "image_size": net.image_size,
        "layers": rows,
        "map_sides": [as_size(row["output"][:2]) for row in rows if len(row["output"]) == 3],
        "num_parameters": num_parameters,
        "not_applicable": not_applicable,
        "paper": None,
    }


def resized(architecture: Architecture, image_size: nets.Size | None, width: float) -> Architecture:
    """The table with images of another size and its hidden layers `width` times as wide."""
    scaled = architecture if width == 1 else architecture.scaled(width)
    return scaled.with_sizes(image=image_size)


def table(architecture: Architecture) -> list[dict[str, Any]]:
    """One row for each layer: what it does, the shapes of its maps, what a place sees, how many parameters."""
    rows = []
    for row in architecture.layers:
        size = architecture.sizes()[row.name]
        fields = {stage: receptive_field(architecture, row.name, stage=stage) for stage in STAGES}
        rows.append(
            {
                "layer": row.name,
                "input": size.input,  # [H, W, C] or [C]
                "kernel": size.kernel,  # HWIO, or [in, out]
                **({name: getattr(row, name) for name in CONV_ONLY} if isinstance(row, Conv) else {}),
                "then": then(row),
                "filtered": size.filtered,  # [H, W, C] where the pool reads, or [C]
                "output": size.output,
                "sees": {stage: {"pixels": field.size, "every": field.stride} for stage, field in fields.items()},
                "parameters": math.prod(size.kernel) + size.kernel[-1],
            }
        )
    return rows


def then(row: Layer) -> list[str]:
    """What follows the filters of a layer, in order, in words."""
    if isinstance(row, Dense):
        return ["ReLU", f"dropout {row.dropout:g}"] if row.hidden else ["softmax"]
    return [
        "ReLU",
        *(
            f"max {stage.size}x{stage.size}, stride {stage.stride}"
            if isinstance(stage, Pool)
            else f"norm over {stage.num_maps} maps"
            for stage in row.after
        ),
    ]


def map_sides(architecture: Architecture) -> list[nets.Size]:
    """Sizes of the maps from the image up, before and after each pool: Fig. 3's 110, 55, 26, ..."""
    sides: list[nets.Size] = []
    for row in architecture.layers:
        if isinstance(row, Conv):
            size = architecture.sizes()[row.name]
            shapes = [size.filtered, size.output] if row.pool else [size.output]
            sides += [as_size(shape[:2]) for shape in shapes]
    return sides


def report(result: Result) -> None:
    """Print the sizes."""
    first = map(size_words, result["map_sides"][:MOST_SIDES])
    sides = "-".join(first) + "-..." * (len(result["map_sides"]) > MOST_SIDES)
    maps = f", maps of {sides} places a side" if sides else ""
    print(f"{lettering.on_console(result['architecture'])}: {result['num_parameters']:,} parameters{maps}")
    command.print_left_out(result["not_applicable"])


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
