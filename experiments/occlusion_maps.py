"""Figure 7: slide a square over some images, and record a map's activity and the network's answer at every place.

    python -m experiments.occlusion_maps --net runs/RUN

Without --net the newest run under runs/ is taken. Expected time: 28 s with the demo net on two CPU cores. Expected
figure: for each image (a) the square where it has the largest effect, (b) the summed activity of the strongest layer-5
map for every place of the square, (c) the projection of that map in this image and in the three images that excite it
most, (d) the probability of the true class, (e) the most probable class. Where the square hides the object, (b) and (d)
fall and (e) changes. One forward pass per place gives (b), (d) and (e). Expected score on the demo set: the largest
drop is on the object in 93 % of the images, the largest |gradient| in 98 %. Objects cover 26 % of the pixels; because
objects are near the middle, another image's object would contain these points in 80 % and 89 %.

For a network without classes (a), (b) and (c) are drawn.

Writes maps.png, maps.npz and result.json to <run>/figures/occlusion (or --out). The strongest images of every map are
kept in <run>/scans.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from tqdm import tqdm

from experiments.pages import occlusion as occlusion_page
from experiments.pages.lettering import counted
from experiments.shell import command, figure, results, scans
from zfjax import nets, parallel
from zfjax.analyses import occlusion
from zfjax.analyses.occlusion import NUM_OTHERS, Scenes, Swept
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError
from zfjax.nets import Net

COMMAND = "occlusion_maps"
PAPER = "when the object is occluded, the strongest map's activity and the probability of the class drop"
PROJECTION = "projection (c)"  # the panel that needs the way down
SCORE_STEP = 3  # the score takes every third place of the square, and so many more images
LOOKING, SCANNING = 16, 128  # images per pass of `look` and of the scan, or what the budget holds


@dataclass(frozen=True, kw_only=True)
class Config(figure.FigureConfig):
    """Draw Figure 7: occlusion maps of some images; on the demo set, score them."""

    num_images: int = 3
    """Images to draw, chosen by --seed; correctly classified ones, or ones of unknown class, first."""
    layer: str | None = None
    """Layer of the map in (b) and (c); by default the last one with feature maps."""
    square: int | None = None
    """Side of the square in pixels; by default a quarter of the image's shorter side."""
    stride: int | None = None
    """Distance between places of the square, pixels; by default a 32nd of the image's shorter side."""
    fill: Literal["mean", "grey", "blur"] = "mean"
    """What the square shows: the mean training image, mid-grey, or the image itself, blurred."""
    memory: int = 1024
    """Budget of a batch in MiB, parameters aside."""
    num_scored: int = 100
    """Correctly classified images in the score, for a set with object masks; 0 for no score."""


Named = TypedDict("Named", {"class": str | None})  # the name of its class; None without classes


class ImageFacts(Named):
    """What result.json says of an image; what needs classes is None without them."""

    image: str  # its file's name, or its place in the split
    index: int
    class_is_known: bool
    predicted: str | None
    probability: float | None
    lowest_probability: float | None
    other_class: float | None  # share of the places
    map: int
    unit: str
    lowest_activity: float
    highest_activity: float


class Projected(TypedDict):
    """How projections were made."""

    seed: str  # where they start: "value"


class Result(results.Result):
    """What result.json holds."""

    figure: str
    projections: Projected
    places: tuple[int, ...]  # rows and columns of the grid
    layer: str
    square: int  # pixels
    stride: int
    fill: str  # in words
    images: list[ImageFacts]
    score: occlusion.Score | None  # None where the set does not say where objects are
    num_images: int
    not_applicable: dict[str, str]
    meanings: dict[str, str]


def run(config: Config, *, net: Net | None = None, data: ImageSet | None = None) -> Result | None:
    """Choose images, slide the square, project, score; write page, arrays and result.json.

    Args:
      config: the flags.
      net, data: the network and the pictures, where they are open already, in the place of those that the flags name.

    Returns:
      What result.json holds. UserError for a square larger than the image, another bad number, an unknown layer or
      fill, a set without validation pictures, or an output folder that already holds a result.
    """
    if config.fill not in occlusion.FILLS:
        raise UserError(f"fill={config.fill!r}: one of {', '.join(occlusion.FILLS)} is needed")
    names = ("maps.npz", "maps.png")
    with figure.opened(config, COMMAND, folder="figures/occlusion", net=net, names=names) as (net, out):
        config = complete(config, net)
        assert config.layer is not None and config.square is not None and config.stride is not None
        layer, square, stride = config.layer, config.square, config.stride
        left_out = not_applicable(net, layer)
        corners, coarse = (occlusion.places(net.image_size, square, step) for step in (stride, SCORE_STEP * stride))
        at_once = occlusion.images_within(net, layer, config.memory, most=SCANNING)
        data = figure.open_images(config, net, data)
        source = sets.validation_of(data)
        options: dict[str, Any] = {"of": f"{data.fingerprint} validation", "k": 1 + NUM_OTHERS, "batch_size": at_once}
        strongest = scans.kept_scan(net, source, (layer,), **options)[layer]
        if parallel.host_count()[0] > 0:
            return None  # one host draws
        num_scored, at_once = config.num_scored if "object" in source[0] else 0, min(LOOKING, at_once)
        num = max(config.num_images, num_scored)
        scenes = occlusion.choose_scenes(net, data, layer=layer, num=num, seed=config.seed, batch_size=at_once)
        drawn = occlusion.take(scenes, np.arange(len(scenes.labels))[: config.num_images])
        scored = occlusion.take(scenes, np.flatnonzero(scenes.correct)[:num_scored])
        fill = occlusion.filler(net, scenes.views, config.fill, square=square)
        jobs = ((drawn, corners), (scored, coarse))
        with tqdm(total=num_places(jobs), desc="sliding the square", unit=" places", disable=None) as bar:
            options = {"batch_size": occlusion.places_within(net, layer, config.memory), "on_batch": bar.update}
            options |= {"layer": layer, "square": square, "fill": fill}
            swept, coarsely = (occlusion.sweep_all(net, of, places, **options) for of, places in jobs)
        assert swept is not None  # an image is drawn
        projected = (
            occlusion.project_maps(net, source, drawn, strongest=strongest, layer=layer, batch_size=at_once)
            if PROJECTION not in left_out
            else None
        )
        result: Result = {
            "figure": "Figure 7",
            "projections": {"seed": "value"},
            "places": corners.shape[:2],
            "layer": layer,
            "square": square,
            "stride": stride,
            "fill": occlusion.fill_words(net, config.fill),
            "images": [facts_of(net, layer, drawn=drawn, swept=swept, n=n) for n in range(len(drawn.labels))],
            "score": None if coarsely is None else occlusion.score(scored, coarsely, coarse, square=square),
            "num_images": len(drawn.labels),
            "not_applicable": left_out,
            "meanings": {"fill": f"the square shows {occlusion.fill_words(net, config.fill)}"},
            "paper": PAPER,
            "seed": config.seed,
            **results.provenance(net, data, config),
        }
        fills = np.stack([fill(drawn.views, n).picture for n in range(len(drawn.labels))])
        page = occlusion_page.draw(
            drawn.views,
            swept,
            fills=fills,
            projected=projected,
            corners=corners,
            class_names=nets.logit_names(net),
            result=result,
        )
        arrays = {"corners": corners, "images": drawn.indices, "names": np.array(drawn.views.names)}
        arrays |= {name: field for name, field in swept._asdict().items() if field is not None}
        return results.write(out, result, command=COMMAND, contents={"maps.npz": arrays, "maps.png": page})


def complete(config: Config, net: nets.Net) -> Config:
    """The configuration with its defaults filled in; UserError for an unknown layer."""
    side = min(nets.size_of(net.image_size))
    layer = occlusion.watched_layer(net) if config.layer is None else nets.check_layer(net, config.layer)
    square = max(1, side // 4) if config.square is None else config.square
    stride = max(1, side // 32) if config.stride is None else config.stride
    return dataclasses.replace(config, layer=layer, square=square, stride=stride)


def num_places(jobs: tuple[tuple[Scenes, np.ndarray], ...]) -> int:
    """Forward passes that (images, places) need."""
    return sum(len(scenes.labels) * corners[..., 0].size for scenes, corners in jobs)


def not_applicable(net: nets.Net, layer: str) -> dict[str, str]:
    """{part of the figure: why it is left out} of a network without a way down from the layer, or without logits."""
    no_way, no_classes = nets.why_no_way_down(net, [layer]), nets.why_no_classes(net)
    parts = {} if no_way is None else {PROJECTION: no_way}
    return parts | (
        {} if no_classes is None else dict.fromkeys(("probability (d)", "most probable class (e)"), no_classes)
    )


def facts_of(net: nets.Net, layer: str, *, drawn: Scenes, swept: Swept, n: int) -> ImageFacts:
    """What result.json says of image number n; what needs classes is None without them."""
    label, names, probabilities = drawn.labels[n], nets.logit_names(net), drawn.looks.probabilities[n]
    has_classes = swept.probability is not None and swept.predicted is not None
    return {
        "image": drawn.views.names[n],
        "index": drawn.indices[n],
        "class": names[label] if has_classes else None,
        "class_is_known": drawn.views.labels[n] >= 0,
        "predicted": names[probabilities.argmax()] if has_classes else None,
        "probability": float(probabilities[label]) if has_classes else None,
        "lowest_probability": None if swept.probability is None else float(swept.probability[n].min()),
        "other_class": None
        if swept.predicted is None
        else float((swept.predicted[n] != label).mean()),  # share of places
        "map": int(drawn.looks.channel[n]),
        "unit": nets.unit_name(net, layer, int(drawn.looks.channel[n])),
        "lowest_activity": float(swept.activity[n].min()),
        "highest_activity": float(swept.activity[n].max()),
    }


def report(result: Result) -> None:
    """Print the images and the score."""
    for facts in result["images"]:
        print(occlusion_page.heading(facts))
    command.print_left_out(result["not_applicable"])
    if (score := result["score"]) is not None:
        print(
            f"on the object in {counted(score['num_images'], 'image')} (its share of the pixels: {score['area']:.1%}):"
        )
        for name, share in (("occlusion", score["occlusion"]), ("gradient", score["gradient"])):
            print(f"  {name}: {share['object']:.1%} (another image's object: {share['other_object']:.1%})")


def main() -> None:
    """The command line."""
    command.main(Config, run, doc=__doc__, report=report)


if __name__ == "__main__":
    main()
