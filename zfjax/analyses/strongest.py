"""The content of Figure 2: the strongest activations of some maps, projected to the pixels, cut out, and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zfjax import nets, pixels
from zfjax.analyses import top_activations
from zfjax.analyses.top_activations import TopActivations, project_strongest
from zfjax.architecture import Architecture, ReceptiveField, receptive_field
from zfjax.data import Source
from zfjax.errors import UserError
from zfjax.pixels import cut

NUM_IMAGES = 9  # strongest images of each map, as in the paper


FAINT = 0.05  # share of a layer's strongest activation, below which a map is drawn only where it is named


def choose_maps(top: TopActivations, num: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """At most `num` maps at random, sorted.

    They are chosen among the maps whose nine places all hold at least FAINT of the layer's strongest activation
    (Paper is silent; what excites fainter ones is hard to tell from noise); where there are fewer than `num`, then
    among all that are alive; where every map is dead, the first ones.
    """
    if num < 1:
        raise UserError(f"num_maps={num}: at least 1 is needed")
    alive = top_activations.alive(top)
    values = np.asarray(top.values)
    full = alive & (values[:, -1] > FAINT * values.max())
    candidates = np.flatnonzero(full if full.sum() >= num else alive if alive.any() else np.ones_like(alive))
    return np.sort(np.random.default_rng(seed).permutation(candidates)[:num])


def parse_maps(maps: Sequence[str], architecture: Architecture, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """("conv3:5,17",) -> {"conv3": [5, 17]}; UserError for what is not such a list of maps of `layers`."""
    named = {}
    for entry in maps:
        layer, _, numbers = entry.partition(":")
        if layer not in layers:
            raise UserError(f"maps={entry!r}: {layer!r} is not among the layers drawn, {', '.join(layers)}")
        last = architecture.layer(layer).features - 1
        chosen = numbers.split(",")
        if not all(number.strip().isdecimal() and int(number) <= last for number in chosen):
            raise UserError(f"maps={entry!r}: LAYER:NUMBER,NUMBER with numbers from 0 to {last} is needed")
        if layer in named:
            raise UserError(f"maps={entry!r}: {layer} is named twice; name all its maps in one entry")
        named[layer] = np.array([int(number) for number in chosen])
    return named


OUTSIDE = 224  # light grey, where a patch reaches beyond the picture


# (images [U, s, s, 3], places: see `project_strongest`) -> [N, s, s, 3], each of N activations projected alone
Project = Callable[[np.ndarray, Mapping[str, np.ndarray]], np.ndarray]


MEANINGS = {
    "resemblance": "mean Pearson correlation of a projection with the patch that its unit sees, over the pixels where "
    "the projection is not zero; 'by_chance' is the same with the patches of another map that is drawn",
    "energy_on_object": "mean share of a projection's energy (squares) that falls on the object, where the set says "
    "where objects are; 'by_chance' is the object's mean share of the patches' pixels",
}


class Strongest(NamedTuple):
    """M maps of one layer with the k images that excite each most; s is the side of the patches in pixels."""

    maps: np.ndarray  # int [M]
    values: np.ndarray  # float32 [M, k] activations, descending
    images: np.ndarray  # int32 [M, k] index in what was looked through; -1 where nothing is drawn
    boxes: np.ndarray  # int [M, k, 4] (top, left, bottom, right) in the network's input; may reach beyond it
    projections: np.ndarray  # float32 [M, k, s, s, 3] signed, pixels; 0 outside the picture
    patches: np.ndarray  # uint8 [M, k, s, s, 3]; OUTSIDE where there is none
    inside: np.ndarray  # bool [M, k, s, s] the pixel lies in the picture
    objects: np.ndarray | None  # bool [M, k, s, s] it lies on the object; None where the set does not say
    scales: np.ndarray  # float [M] the |value| that is drawn white, one for all projections of a map


def project_and_cut(
    net: nets.TrainedNet, source: Source, top: TopActivations, maps: np.ndarray, *, layer: str
) -> Strongest:
    """`draw_with` of a network of ours.

    Args:
      net: the network.
      source: the split that `top` was found in; its examples may say where the object is: "object", bool [S, S].
      top, maps: as for `draw_with`.
      layer: where the maps stand.
    """

    def project(images: np.ndarray, places: Mapping[str, np.ndarray]) -> np.ndarray:
        return project_strongest(net.params, images, places, layer=layer, architecture=net.architecture)

    field = receptive_field(net.architecture, layer)
    return project_and_cut_with(project, lambda indices: nets.read_views(source, indices, net), field, top, maps)


def project_and_cut_with(
    project: Project,
    read: Callable[[np.ndarray], nets.Views],
    field: ReceptiveField,
    top: TopActivations,
    maps: np.ndarray,
) -> Strongest:
    """Project each of the strongest activations of `maps` alone, and cut out what its unit sees.

    The window of an activation is the receptive field of its place, also where that reaches beyond the picture; a
    field at least as large as the picture shows the whole picture.

    Args:
      project: the way down of any network, as `project_strongest`.
      read: indices -> views of these examples of what `top` was found in.
      field: of the layer.
      top, maps: the scan's result for the layer, and whole numbers [M].

    Returns:
      Strongest. Where there are fewer than k images, or the activation is 0, nothing is drawn.
    """
    values, images, rows, columns = (np.asarray(found)[maps] for found in top)
    shown = (images >= 0) & (values != 0)
    images = np.where(shown, images, -1)
    wanted, which = np.unique(images[shown], return_inverse=True)
    views = read(wanted)
    channels = np.broadcast_to(np.asarray(maps)[:, None], images.shape)
    places = {"image": which, "channel": channels[shown], "row": rows[shown], "column": columns[shown]}
    found = project(views.images, places)
    boxes = _boxes(field, views.images.shape[1], rows, columns)

    def cut_all(sheets: np.ndarray, fill: float) -> np.ndarray:
        side = boxes[0, 0, 2] - boxes[0, 0, 0]
        cuts = np.full((*shown.shape, side, side, sheets.shape[-1]), fill, sheets.dtype)
        for place, sheet, box in zip(np.argwhere(shown), sheets, boxes[shown], strict=True):
            cuts[tuple(place)] = cut(sheet, tuple(box.tolist()), fill)
        return cuts

    projections = cut_all(found, 0.0)
    return Strongest(
        maps=np.asarray(maps),
        values=values,
        images=images,
        boxes=boxes,
        projections=projections,
        patches=cut_all(views.pictures[which], OUTSIDE),
        inside=cut_all(np.ones((*found.shape[:3], 1), bool), False)[..., 0],
        objects=None if views.objects is None else cut_all(views.objects[which, ..., None], False)[..., 0],
        scales=np.array([pixels.symmetric_scale(of_map) for of_map in projections]),
    )


def scores(seen: Strongest) -> dict[str, Any]:
    """What MEANINGS says, each as {"value", "by_chance"}; None where it cannot be said."""
    own = [_correlation(seen, m, m) for m in range(len(seen.maps))]
    other = [_correlation(seen, m, m - 1) for m in range(len(seen.maps))] if len(seen.maps) > 1 else []
    result = {"resemblance": {"value": _mean(own), "by_chance": _mean(other)}, "energy_on_object": None}
    if seen.objects is not None:
        energy = np.square(seen.projections, dtype=np.float64).sum(axis=-1)
        drawn = energy.sum(axis=(2, 3)) > 0
        on_object, inside = (energy * seen.objects)[drawn].sum(axis=(1, 2)), seen.inside[drawn].sum(axis=(1, 2))
        share, area = on_object / energy[drawn].sum(axis=(1, 2)), seen.objects[drawn].sum(axis=(1, 2)) / inside
        result["energy_on_object"] = {"value": _mean([share]), "by_chance": _mean([area])}
    return result


def arrays(seen: Strongest) -> Iterator[tuple[str, np.ndarray]]:
    """The fields that are there, by name, to be saved."""
    return ((name, field) for name, field in zip(seen._fields, seen, strict=True) if field is not None)


def _boxes(field: ReceptiveField, size: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """int [M, k, 4]: the receptive field of each place, or the picture of `size` pixels where that is not larger."""
    if field.size >= size:
        return np.broadcast_to([0, 0, size, size], (*rows.shape, 4))
    return np.moveaxis(np.array(field.box((0, 0)))[:, None, None] + field.stride * np.stack([rows, columns] * 2), 0, -1)


def _correlation(seen: Strongest, m: int, other: int) -> list[float]:
    """Of each projection of map number m with the patch of the same rank of number `other`, of another picture."""
    found = []
    known = (other == m) | (seen.images[m] != seen.images[other])  # the same picture twice is no chance
    chosen = (field[known] for field in (seen.projections[m], seen.patches[other], seen.inside[other]))
    for projection, patch, inside in zip(*chosen, strict=True):
        drawn = (projection != 0).any(axis=-1) & inside
        a, b = projection[drawn].ravel().astype(np.float64), patch[drawn].ravel().astype(np.float64)
        if a.size > 1 and a.std() > 0 and b.std() > 0:
            found.append(float(np.corrcoef(a, b)[0, 1]))
    return found


def _mean(groups: Sequence[Any]) -> float | None:
    values = np.concatenate([np.asarray(group, np.float64) for group in groups]) if len(groups) else np.zeros(0)
    return round(float(values.mean()), 4) if values.size else None
