"""The content of Figure 2: the strongest activations of some maps, projected to the pixels, cut out, and scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from zfjax import nets, pixels
from zfjax.analyses import top_activations
from zfjax.analyses.top_activations import TopActivations
from zfjax.architecture import ReceptiveField
from zfjax.data import Source, name_of
from zfjax.deconvnet import Unit
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.pixels import cut

NUM_IMAGES = 9  # strongest images of each map, as in the paper
FAINT = 0.05  # share of a layer's strongest activation, below which a map is drawn only where it is named


def choose_maps(top: TopActivations, num: int, seed: int | tuple[int, ...], *, first: Sequence[int] = ()) -> np.ndarray:
    """At most `num` maps: those of `first`, and then others at random, sorted.

    They are chosen among the maps whose nine places all hold at least FAINT of the layer's strongest activation
    (Paper is silent; what excites fainter ones is hard to tell from noise); where there are fewer than `num`, then
    among all that are alive; where every map is dead, the first ones.
    """
    if num < 1:
        raise UserError(f"num_maps={num}: at least 1 is needed")
    alive = top_activations.alive(top)
    values = np.asarray(top.values)
    full = alive & (values[:, -1] > FAINT * values.max())
    wanted = max(1, num - len(first))
    candidates = np.flatnonzero(full if full.sum() >= wanted else alive if alive.any() else np.ones_like(alive))
    others = np.sort(np.random.default_rng(seed).permutation(candidates)[:wanted])
    return np.array(list(dict.fromkeys([*map(int, first), *others.tolist()]))[:num])


def parse_maps(maps: Sequence[str], net: Net, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """("conv3:5,17",) -> {"conv3": [5, 17]}; UserError for what is not such a list of maps of `layers`."""
    named: dict[str, np.ndarray] = {}
    shapes = nets.shapes_of(net, layers)
    for entry in maps:
        layer, _, numbers = entry.partition(":")
        if layer not in layers:
            raise UserError(f"maps={entry!r}: {layer!r} is not among the layers drawn, {', '.join(layers)}")
        last = shapes[layer][-1] - 1
        chosen = numbers.split(",")
        if not all(number.strip().isdecimal() and int(number) <= last for number in chosen):
            raise UserError(f"maps={entry!r}: LAYER:NUMBER,NUMBER with numbers from 0 to {last} is needed")
        if layer in named:
            raise UserError(f"maps={entry!r}: {layer} is named twice; name all its maps in one entry")
        named[layer] = np.array([int(number) for number in chosen])
    return named


OUTSIDE = 224  # light grey, where a patch reaches beyond the picture

MEANINGS = {
    "resemblance": "mean Pearson correlation of a projection with the patch that its unit sees, over the pixels where "
    "the projection is not zero; 'by_chance' is the same with the patches of another map that is drawn",
    "energy_on_object": "mean share of a projection's energy (squares) that falls on the object, where the set says "
    "where objects are; 'by_chance' is the object's mean share of the patches' pixels",
}


class Strongest(NamedTuple):
    """M maps of one layer with the k images that excite each most; [s, s] is the size of the patches in pixels."""

    maps: np.ndarray  # int [M]
    values: np.ndarray  # float32 [M, k] activations, descending
    images: np.ndarray  # int32 [M, k] index in what was looked through; -1 where nothing is drawn
    boxes: np.ndarray  # int [M, k, 4] (top, left, bottom, right) in the network's input; may reach beyond it
    projections: np.ndarray  # float32 [M, k, s, s, C] signed, in the images' unit; 0 outside the picture
    patches: np.ndarray  # uint8 [M, k, s, s, 3]; OUTSIDE where there is none
    inside: np.ndarray  # bool [M, k, s, s] the pixel lies in the picture
    objects: np.ndarray | None  # bool [M, k, s, s] it lies on the object; None where the set does not say
    scales: np.ndarray  # float [M] the |value| that is drawn white, one for all projections of a map
    names: np.ndarray  # str [M, k] of the images: their files' names, or their places in the split


def project_and_cut(
    net: Net, source: Source, top: TopActivations, maps: np.ndarray, *, layer: str, way: nets.Way = "deconvnet"
) -> Strongest:
    """Project each of the strongest activations of `maps` alone, and cut out what its unit sees.

    The window of an activation is the receptive field of its place, also where that reaches beyond the picture; a
    field at least as large as the picture, or one that is not known, shows the whole picture.

    Args:
      net: any network.
      source: the split that `top` was scanned from; its examples may say where the object is: "object", bool [S, S].
      top, maps: the scan's result for the layer, and whole numbers [M].
      layer: where the maps stand.
      way: down to the pixels, as for `Net.project`.

    Returns:
      Strongest. Where there are fewer than k images, or the activation is 0, nothing is drawn.
    """
    values, images, rows, columns = (np.asarray(field)[maps] for field in top)
    drawn = (images >= 0) & (values != 0)
    images = np.where(drawn, images, -1)
    wanted, which = np.unique(images[drawn], return_inverse=True)
    views = nets.read_views(source, wanted, net)
    channels = np.broadcast_to(np.asarray(maps)[:, None], images.shape)
    has_places = len(nets.shapes_of(net, [layer])[layer]) == 3
    units = Unit(channels[drawn], (rows[drawn], columns[drawn]) if has_places else None)
    pictures = net.project(views.images, units, layer=layer, of=which, way=way)
    boxes = _boxes(net.receptive_field(layer), nets.size_of(net.image_size), rows, columns)

    def cut_all(sheets: np.ndarray, fill: float) -> np.ndarray:
        top, left, bottom, right = boxes[0, 0]
        cuts = np.full((*drawn.shape, bottom - top, right - left, sheets.shape[-1]), fill, sheets.dtype)
        for place, sheet, box in zip(np.argwhere(drawn), sheets, boxes[drawn], strict=True):
            cuts[tuple(place)] = cut(sheet, tuple(box.tolist()), fill)
        return cuts

    projections = cut_all(pictures, 0.0)
    return Strongest(
        maps=np.asarray(maps),
        values=values,
        images=images,
        boxes=boxes,
        projections=projections,
        patches=cut_all(views.pictures[which], OUTSIDE),
        inside=cut_all(np.ones((*pictures.shape[:3], 1), bool), False)[..., 0],
        objects=None if views.objects is None else cut_all(views.objects[which, ..., None], False)[..., 0],
        scales=np.array([pixels.symmetric_scale(of_map) for of_map in projections]),
        names=np.array([[name_of(source, int(index)) if index >= 0 else "" for index in row] for row in images]),
    )


def scores(strongest: Strongest) -> dict[str, Any]:
    """What MEANINGS says, each as {"value", "by_chance"}; None where it cannot be said."""
    own = [_correlation(strongest, m, m) for m in range(len(strongest.maps))]
    other = [_correlation(strongest, m, m - 1) for m in range(len(strongest.maps))] if len(strongest.maps) > 1 else []
    result = {"resemblance": {"value": _mean(own), "by_chance": _mean(other)}, "energy_on_object": None}
    if strongest.objects is not None:
        energy = np.square(strongest.projections, dtype=np.float64).sum(axis=-1)
        drawn = energy.sum(axis=(2, 3)) > 0
        on_object, inside = (
            (energy * strongest.objects)[drawn].sum(axis=(1, 2)),
            strongest.inside[drawn].sum(axis=(1, 2)),
        )
        share, area = on_object / energy[drawn].sum(axis=(1, 2)), strongest.objects[drawn].sum(axis=(1, 2)) / inside
        result["energy_on_object"] = {"value": _mean([share]), "by_chance": _mean([area])}
    return result


def arrays(strongest: Strongest) -> Iterator[tuple[str, np.ndarray]]:
    """The fields that are there, by name, to be saved."""
    return ((name, field) for name, field in zip(strongest._fields, strongest, strict=True) if field is not None)


def _boxes(field: ReceptiveField | None, size: tuple[int, int], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """int [M, k, 4]: the receptive field of each place, or the picture of `size` where that is not larger."""
    if field is None or field.size >= max(size):
        return np.broadcast_to([0, 0, *size], (*rows.shape, 4))
    return np.moveaxis(np.array(field.box((0, 0)))[:, None, None] + field.stride * np.stack([rows, columns] * 2), 0, -1)


def _correlation(strongest: Strongest, m: int, other: int) -> list[float]:
    """Of each projection of map number m with the patch of the same rank of number `other`, of another picture."""
    correlations = []
    known = (other == m) | (strongest.images[m] != strongest.images[other])  # the same picture twice is no chance
    chosen = (field[known] for field in (strongest.projections[m], strongest.patches[other], strongest.inside[other]))
    for projection, patch, inside in zip(*chosen, strict=True):
        drawn = (projection != 0).any(axis=-1) & inside
        a, b = (pixels.in_colours(of)[drawn].ravel().astype(np.float64) for of in (projection, patch))
        if a.size > 1 and a.std() > 0 and b.std() > 0:
            correlations.append(float(np.corrcoef(a, b)[0, 1]))
    return correlations


def _mean(groups: Sequence[Any]) -> float | None:
    values = np.concatenate([np.asarray(group, np.float64) for group in groups]) if len(groups) else np.zeros(0)
    return round(float(values.mean()), 4) if values.size else None
