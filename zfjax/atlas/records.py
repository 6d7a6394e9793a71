"""What the site says: of the network, of each unit, and of each image that is shown; plain values for its data."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import scipy  # its submodules load at their first use: stats alone takes half a second
from tqdm import tqdm

from zfjax import nets, pixels
from zfjax.analyses import occlusion, sanity
from zfjax.atlas import measures, sprites
from zfjax.atlas.drawing import Drawn
from zfjax.atlas.maxima import Maxima
from zfjax.atlas.measures import Measured
from zfjax.atlas.options import Options
from zfjax.data import Source, name_of
from zfjax.errors import UserError
from zfjax.features import jitted
from zfjax.nets import Net, OfTable, TrainedNet
from zfjax.programs import as_partial

STRIP = 8  # strongest units of a layer on the overview
BEST_OF_IMAGE = 6  # strongest units of each layer on the page of an image
WIRES = 6  # strongest inputs and outputs of a unit
ASKED = 8  # images on which the net's own selectivity is measured
SQUARES = 6  # squares that would stand side by side in an occluded image
EMBEDS = "The site embeds the pictures that it shows: pass it on only where those may go."


def records_of(net: Net, layer: str, *, measured: Measured, drawn: Drawn) -> list[dict[str, Any]]:
    """What the site says of each unit of a layer."""
    records = []
    for m in range(len(measured.strength)):
        there = measured.images[m] >= 0
        classes = measured.top_classes[m]
        best = np.argsort(-classes, kind="stable")[:5]
        records.append(
            {
                "name": nets.unit_name(net, layer, m),
                "strength": number_of(measured.strength[m]),
                "mean": number_of(measured.mean[m]),
                "sparsity": number_of(measured.sparsity[m]),
                "selectivity": number_of(measured.selectivity[m]),
                "resemblance": number_of(drawn["resemblance"][m]),
                "class": int(measured.best_class[m]),
                "classes": [[int(label), int(classes[label])] for label in best if classes[label] > 0],
                "images": measured.images[m][there].tolist(),
                "values": [number_of(value) for value in measured.values[m][there]],
                "boxes": drawn["boxes"][m][there].tolist(),
                "scales": [number_of(scale) for scale in drawn["scales"][m]],
                "histogram": [*measured.histogram[m].tolist(), number_of(measured.low[m]), number_of(measured.high[m])],
                "where": measured.where[m].ravel().tolist(),
                "grey": number_of(drawn["grey"][m]),
                "object": None
                if np.isnan(drawn["object"][m, 0])
                else [number_of(share) for share in drawn["object"][m]],
                "parts": [[number_of(share) for share in of_part] for of_part in drawn["parts"][m]],
            }
        )
    return records


def number_of(value: Any) -> float | None:
    """Four digits are enough for a page; None where there is no number."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def wires(net: Net, layers: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """{layer: for each unit "inputs" and "outputs", [unit, weight] each}, where the network is of a table."""
    if not isinstance(net, OfTable):
        return {}
    rows, weights = net.architecture.layers, {}
    num_below = net.channels
    for row in rows:
        weights[row.name] = measures.wiring(row, np.asarray(net.params[row.name]["kernel"], np.float32), num_below)
        num_below = row.features
    names = [row.name for row in rows]
    by_layer = {}
    for layer in layers:
        number = names.index(layer)
        below = None if number == 0 else (names[number - 1], weights[layer])
        above = None if number + 1 == len(names) else (names[number + 1], weights[names[number + 1]].T)
        by_layer[layer] = [
            {kind: _largest(of, m) for kind, of in (("inputs", below), ("outputs", above)) if of is not None}
            for m in range(rows[number].features)
        ]
    return by_layer


def _largest(of: tuple[str, np.ndarray], m: int) -> dict[str, Any]:
    layer, weights = of
    best = np.argsort(-np.abs(weights[m]), kind="stable")[:WIRES]
    return {"layer": layer, "units": [[int(n), number_of(weights[m, n])] for n in best if weights[m, n] != 0]}


def facts_of(
    net: Net,
    source: Source,
    *,
    of: Mapping[str, Any],
    classes: Sequence[str],
    measured: Mapping[str, Measured],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    options: Options,
) -> dict[str, Any]:
    """What the overview says."""
    layers = list(measured)
    shapes = nets.shapes_of(net, layers)
    height, width = nets.size_of(net.image_size)
    facts = []
    for layer in layers:
        field, of_layer = net.receptive_field(layer), measured[layer]
        whole = field is None or field.holds((height, width))
        patch = (height, width) if field is None or whole else field.sides
        order = np.argsort(-of_layer.strength, kind="stable")
        facts.append(
            {
                "name": layer,
                "shape": shapes[layer],
                "field": None if field is None else field.size,
                "sees_all": whole,
                "cells": of_layer.where.shape[1:],
                "dead": int((of_layer.images < 0).all(axis=1).sum()),
                "strongest": [
                    {"unit": int(m), **{name: records[layer][m][name] for name in ("name", "class", "images")}}
                    for m in order[:STRIP]
                    if records[layer][m]["images"]
                ],
                "tile": sprites.tile_size(*patch, options.tile),
            }
        )
    return {
        "name": net.name,
        "title": title_of(net),
        "fingerprint": net.fingerprint,
        "image_size": [height, width],
        "net_layers": net.layers,
        "data": {**of, "num_images": len(source), "classes": list(classes)},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("zfjax", "jax", "numpy")},
        },
        "ways": options.ways,
        "num_images": options.num_images,
        "columns": sprites.num_columns(options.num_images),
        "parts": list(getattr(source, "part_names", ())),
        "ascent": options.ascent,
        "layers": facts,
        "meanings": measures.MEANINGS,
        "switches": _likeness(net, source, measured),
        "filters": _filter_size(net, layers),
        "embeds": EMBEDS,
        "in_grey": " ".join(pixels.grey_projections(_channels(net), "Projections and filters")),
    }


def _channels(net: Net) -> int:
    """Of the projections, which are those of the images that the pictures become."""
    pictures = jax.ShapeDtypeStruct((1, *nets.size_of(net.picture_size), nets.num_channels(net)), np.uint8)
    return int(jax.eval_shape(net.prepare, pictures).shape[-1])


def title_of(net: Net) -> str:
    """The network's name, of a run's without the folders above it."""
    return f"{net.run.name} at step {net.path.name}" if isinstance(net, TrainedNet) else net.name


def _likeness(net: Net, source: Source, measured: Mapping[str, Measured]) -> dict[str, Any] | None:
    """How alike the pictures of two units of one place are, the strongest and the weakest active one: mean cosine."""
    hidden = [layer for layer in nets.hidden_layers(net) if layer in measured]
    if not hidden:
        return None
    layer = hidden[-1]
    chosen = np.unique(measured[layer].images[(measured[layer].images >= 0) & (measured[layer].values > 0)])
    if not len(chosen):
        return None
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(ASKED, len(chosen))).astype(int)]
    images = nets.read_views(source, chosen, net).images
    ways = sanity.ways_of(net, layer, images)
    first, second = (ways.down(top, layer) for top in sanity.neuron_tops(ways.features[layer]))
    cosines = {}
    for name, way in sanity.WAY_NAMES.items():
        if name not in first:
            continue
        values = sanity.cosine(first[name], second[name])
        if np.isfinite(values).any():
            cosines[way] = number_of(np.nanmean(values))
    return {"layer": layer, "num_images": len(images), "cosine": cosines}


def _filter_size(net: Net, layers: Sequence[str]) -> dict[str, Any] | None:
    """Where the filters of the first layer stand on their sheet."""
    kernel = nets.own_filters(net) if nets.lowest_layer(net) in layers else None
    if kernel is None:
        return None
    return {
        "layer": nets.lowest_layer(net),
        "size": kernel.shape[:2],
        "columns": sprites.num_columns(kernel.shape[3]),
        "scale": number_of(pixels.filter_pictures(kernel)[1]),
    }


def epochs_of(drawn: Mapping[str, Drawn]) -> dict[str, list[dict[str, Any]]]:
    """{layer: for each unit "epochs", its activation at each of them, and their scale}."""
    return {
        layer: [
            {"epochs": [*map(number_of, values), number_of(scale)] if scale > 0 else None}
            for values, scale in zip(of["values"], of["scales"], strict=True)
        ]
        for layer, of in drawn.items()
    }


def ascents_of(drawn: Mapping[str, Drawn]) -> dict[str, list[dict[str, Any]]]:
    """{layer: for each unit "ascent", what it reaches on each picture}."""
    return {
        layer: [{"ascent": None if np.isnan(row).any() else [*map(number_of, row)]} for row in of["reached"]]
        for layer, of in drawn.items()
    }


def images_of(
    net: Net, source: Source, *, maxima: Maxima, measured: Mapping[str, Measured]
) -> dict[int, dict[str, Any]]:
    """{index: what the site says of it} of each image that is shown."""
    indices = np.unique(np.concatenate([of.images[of.images >= 0] for of in measured.values()]))
    images: dict[int, dict[str, Any]] = {}
    logits = nets.logits_layer(net)
    for index in map(int, indices):
        best: dict[str, Any] = {}
        for number, (layer, of_layer) in enumerate(measured.items()):
            values = maxima.values[index, maxima.columns[layer]]
            share = np.divide(values, of_layer.strength, out=np.zeros_like(values), where=of_layer.strength > 0)
            order = np.argsort(-share, kind="stable")[:BEST_OF_IMAGE]
            best[str(number)] = [[int(m), number_of(values[m]), number_of(share[m])] for m in order if values[m] > 0]
        record = {"name": name_of(source, index), "label": int(maxima.labels[index]), "units": best}
        if logits is not None and logits in measured and len(net.class_names):
            record["said"] = nets.unit_name(net, logits, int(np.argmax(maxima.values[index][maxima.columns[logits]])))
        images[index] = record
    return images


def add_occlusion(net: Net, source: Source, images: Mapping[int, dict[str, Any]], *, num: int, progress: bool) -> None:
    """Add "occlusion" to the first `num` images: the probability of what the network says with a square at each place.

    The square shows the image's mean colour.
    """
    if (logits := nets.logits_layer(net)) is None:
        raise UserError(f"num_occluded={num}: nothing can be said of classes, as {nets.why_no_classes(net)}")
    fn, names = as_partial(net.features([logits])), nets.logit_names(net)
    height, width = nets.size_of(net.image_size)
    square, stride = max(1, min(height, width) // SQUARES), max(1, min(height, width) // (2 * SQUARES))
    corners = occlusion.places((height, width), square, stride)
    for index in tqdm(list(images)[:num], desc="occluding", disable=not progress):
        image = nets.read_views(source, [index], net).images[0]
        said = np.asarray(jitted(fn)(image[None])[logits])[0]
        fill = image.mean(axis=(0, 1), keepdims=True)
        best = int(said.argmax())
        hidden = np.asarray(occlusion.sweep(fn, image, corners, square=square, fill=fill)[logits])
        chance = scipy.special.softmax(hidden.astype(np.float64), axis=-1)[..., best]
        images[index]["occlusion"] = {
            "class": names[best],
            "square": square,
            "whole": number_of(scipy.special.softmax(said.astype(np.float64))[best]),
            "shape": chance.shape,
            "corners": [corners[0, 0].tolist(), corners[-1, -1].tolist()],
            "chance": [number_of(value) for value in chance.ravel()],
        }
