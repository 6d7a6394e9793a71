"""The content of Figure 2: the strongest activations of some maps, projected to the pixels, cut out, and scored."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import numpy as np

from zfjax import features, nets, pixels
from zfjax.analyses import top_activations
from zfjax.analyses.top_activations import TopActivations
from zfjax.architecture import ReceptiveField
from zfjax.data import Source, name_of
from zfjax.deconvnet import Way
from zfjax.errors import UserError, saying_keywords
from zfjax.nets import Net
from zfjax.pixels import cut
from zfjax.units import Unit
from zfjax.windows import Windows

NUM_IMAGES = 9  # strongest images of each map, as in the paper
FAINT = 0.05  # share of a layer's strongest activation, below which a map is drawn only where it is named


def choose_maps(top: TopActivations, num: int, seed: int | tuple[int, ...], *, first: Sequence[int] = ()) -> np.ndarray:
    """At most `num` maps: those of `first`, and then others at random, sorted.

    They are chosen among the maps whose nine places all hold at least FAINT of the layer's strongest activation
    (Paper is silent; what excites fainter ones is hard to tell from noise); where there are fewer than `num`, then
    among all that are alive; where every map is dead, the first ones.

    Examples:
      >>> import numpy as np, zfjax
      >>> features = np.array([[3.0, 0.0, 1.0, 2.0]], np.float32)
      >>> top = zfjax.top_activations.update(zfjax.top_activations.init(4, k=1), features, np.array([0]))
      >>> zfjax.strongest.choose_maps(top, 3, seed=0)  # map 1 is dead
      array([0, 2, 3])
    """
    if num < 1:
        raise UserError(f"num_maps={num}: at least 1 is needed")
    values = np.asarray(top.values)
    free = ~np.isin(np.arange(len(values)), first)
    alive = top_activations.alive(top) & free
    full = alive & (values[:, -1] > FAINT * values.max())
    wanted = max(1, num - len(first))
    candidates = np.flatnonzero(full if full.sum() >= wanted else alive if alive.any() else free)
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
    "the projection is not zero; 'by_chance' is the same with the patches of another map that is drawn; 'untrained' "
    "that of the same places by the network with its weights drawn anew, of the strongest images",
    "energy_on_object": "mean share of a projection's energy (squares) that falls on the object, where the set says "
    "where objects are; 'by_chance' is the object's mean share of the patches' pixels",
    "seed": "where each projection starts: from the activation's own 'value'",
    "num_below_zero": "drawn activations below 0, whose projections show what speaks against the unit",
    "rounding": "maps whose projections are nothing but rounding: they change when each pixel changes by its last "
    "digits; drawn as grey",
    "tied": "drawn images in which the map's maximum stands at several places; the first of them is projected",
}
ROUNDING = 0.1  # share of itself by which a picture may change with the last digits of its pixels
AT_ONCE = 16  # images in memory at the same time, to count ties
NUDGES = (5.3, -3.7)  # steps of the images' type by which each pixel is moved then


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
    scales: np.ndarray  # float [M] the |value| that is drawn white, one for all projections of a map; inf: all is grey
    names: np.ndarray  # str [M, k] of the images: their files' names, or their places in the split
    rounding: np.ndarray = np.zeros(0, bool)  # [M] the projections are nothing but rounding: see `is_rounding`
    tied: np.ndarray = np.zeros(0, int)  # [M, k] places with the image's maximum, the first of which is projected


@saying_keywords
def project_and_cut(
    net: Net, source: Source, top: TopActivations, *, maps: np.ndarray, layer: str, way: Way | None = "deconvnet"
) -> Strongest:
    """Project each of the strongest activations of `maps` alone, and cut out its receptive field.

    The window of an activation is the receptive field of its place, also where that reaches beyond the picture; a
    field at least as large as the picture, or one that is not known, shows the whole picture.

    Where several places of a map hold its maximum, the first is projected, as `max_pool` and Flax's `nn.max_pool` take
    one place of several; `jnp.max` in a model shares what comes down among all of them. `tied` counts the places, and
    `notes` the activations below 0, whose pictures show what speaks against the unit.

    Args:
      net: any network.
      source: the split that `top` was scanned from; its examples may say where the object is: "object", bool [H, W].
      top, maps: the scan's result for the layer, and whole numbers [M].
      layer: where the maps stand.
      way: down to the pixels, as for `Net.project`; None: the patches alone, and projections of no pixels.

    Returns:
      Strongest. Where there are fewer than k images, or the activation is 0, nothing is drawn.

    Examples:
      >>> import numpy as np, zfjax
      >>> from zfjax.data import demo
      >>> net = zfjax.FunctionNet(lambda images: {"mean": images.mean((1, 2))}, image_size=64, name="mean")
      >>> scenes = demo.DemoSource(1, 8, 64)
      >>> batch = {"image": np.stack([scenes[index]["image"] for index in range(8)]), "index": np.arange(8)}
      >>> fn, state = zfjax.nets.features_of_pictures(net, ["mean"]), zfjax.top_activations.init({"mean": 3}, k=2)
      >>> top = zfjax.top_activations.scan(fn, [batch], state)
      >>> shown = zfjax.strongest.project_and_cut(net, scenes, top["mean"], maps=np.array([0]), layer="mean")
      >>> shown.patches[0][0].shape, shown.projections[0][0].shape
      ((64, 64, 3), (64, 64, 3))
    """
    values, images, rows, columns = (np.asarray(field)[maps] for field in top)
    drawn = (images >= 0) & (values != 0)
    images = np.where(drawn, images, -1)
    wanted, which = np.unique(images[drawn], return_inverse=True)
    views = nets.read_views(source, wanted, net)
    channels = np.broadcast_to(np.asarray(maps)[:, None], images.shape)
    has_places = len(nets.shapes_of(net, [layer])[layer]) == 3
    units = Unit(channels[drawn], (rows[drawn], columns[drawn]) if has_places else None)
    windows = Windows(np.zeros((len(which), 0, 0, views.images.shape[-1]), np.float32), *np.zeros((2, len(which)), int))
    if way is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "seed='value'")  # `notes` count them
            windows = nets.project_windows(net, views.images, units, ways=(way,), layer=layer, of=which)[way]
        nets.check_finite(net, {layer: windows.pixels})
    largest = np.full(drawn.shape, -1.0)
    largest[drawn] = np.abs(windows.pixels).max(axis=(1, 2, 3), initial=0)
    tied, rounding = np.zeros(drawn.shape, int), np.zeros(len(drawn), bool)
    if drawn.any():
        tied[drawn] = _ties(net.features([layer]), views.images, layer=layer, which=which, channels=channels[drawn])
    if drawn.any() and way is not None:
        first = np.flatnonzero((largest > 0).any(axis=1))  # of these maps the largest picture is looked at again
        chosen = (np.cumsum(drawn).reshape(drawn.shape) - 1)[first, largest[first].argmax(axis=1)]
        chosen = np.resize(chosen, max(len(chosen), min(len(which), getattr(net, "units_at_once", 1))))  # one program
        some = Unit(*jax.tree.map(lambda index: index[chosen], (units.channel, units.position)))
        options: dict[str, Any] = {"layer": layer, "of": which[chosen], "way": way}
        pictures = Windows(*(field[chosen] for field in windows)).paste(views.images.shape[1:3])
        again = is_rounding(net, views.images, units=some, pictures=pictures, values=values[drawn][chosen], **options)
        rounding[first] = again[: len(first)]
    boxes = boxes_of(net.receptive_field(layer), nets.size_of(net.image_size), rows=rows, columns=columns)

    cut_all = partial(cut_boxes, of=which, boxes=boxes, drawn=drawn)
    projections = (
        np.zeros((*drawn.shape, *windows.pixels.shape[1:]), np.float32)
        if way is None
        else cut_windows(windows, boxes=boxes, drawn=drawn)
    )
    return Strongest(
        maps=np.asarray(maps),
        values=values,
        images=images,
        boxes=boxes,
        projections=projections,
        patches=cut_all(views.pictures, fill=OUTSIDE),
        inside=cut_all(np.ones((*views.pictures.shape[:3], 1), bool), fill=False)[..., 0],
        objects=None if views.objects is None else cut_all(views.objects[..., None], fill=False)[..., 0],
        scales=np.where(rounding, np.inf, [pixels.symmetric_scale(of) if of.size else np.inf for of in projections]),
        names=np.array([[name_of(source, int(index)) if index >= 0 else "" for index in row] for row in images]),
        rounding=rounding,
        tied=tied,
    )


def cut_boxes(sheets: np.ndarray, *, of: np.ndarray, boxes: np.ndarray, drawn: np.ndarray, fill: float) -> np.ndarray:
    """What each unit sees of its sheet.

    Args:
      sheets: [I, H, W, C].
      of: int [N], the sheet of each unit that is drawn.
      boxes: int [M, k, 4] of one size, from `boxes_of`.
      drawn: bool [M, k], N of them true.
      fill: what lies outside a sheet, and where nothing is drawn.

    Returns:
      [M, k, h, w, C].
    """
    cuts = np.full((*drawn.shape, *(boxes[0, 0, 2:] - boxes[0, 0, :2]), sheets.shape[-1]), fill, sheets.dtype)
    for place, number, box in zip(np.argwhere(drawn), of, boxes[drawn], strict=True):
        cuts[tuple(place)] = cut(sheets[number], tuple(box.tolist()), fill)
    return cuts


def cut_windows(windows: Windows, *, boxes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The same of each unit's own projection, without its whole picture: zero outside its window. -> [M, k, h, w, C]"""
    top, left = np.moveaxis(boxes[drawn], -1, 0)[:2]
    size = boxes[0, 0, 2:] - boxes[0, 0, :2]
    cuts = np.zeros((*drawn.shape, *size, windows.pixels.shape[-1]), windows.pixels.dtype)
    cuts[drawn] = windows.paste(size.tolist(), rows=top, columns=left)
    return cuts


def is_rounding(
    net: Net, images: np.ndarray, *, units: Unit, pictures: np.ndarray, values: np.ndarray, **options: Any
) -> np.ndarray:
    """Whether pictures are nothing but rounding, as those of a mean over what a norm gave a fixed mean.

    Each is made again, from 1 instead of the activation's value, of images whose pixels are NUDGES steps of their type
    larger. Times the value, that is the same picture but for rounding; where the difference is more than ROUNDING of
    it, root mean square, nothing else is left of it.

    Args:
      net: any network; one of a table has no such norm, and one whose `project` takes no `seed` cannot be asked.
      images, units, options: as `net.project` was called for them.
      pictures: [N, H, W, C], what it gave.
      values: [N] the units' activations; from those below 0 the way is gone again as it is.

    Returns:
      bool [N]; False for types shorter than float32, whose rounding is coarser than that.
    """
    is_known = "seed" in inspect.signature(net.project).parameters and not isinstance(net, nets.OfTable)
    step = float(np.finfo(images.dtype).eps) if images.dtype in (np.float32, np.float64) else 1.0
    if not len(pictures) or not is_known or step > ROUNDING:
        return np.zeros(len(pictures), bool)
    rounding = np.zeros(len(pictures), bool)
    for nudge in NUDGES:
        nudged = (images * (1 + nudge * step)).astype(images.dtype)
        others = net.project(nudged, units, seed="one", **options) * values.reshape(-1, 1, 1, 1)
        if (values < 0).any():  # a rectified way from below 0 is not the value times that from 1
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "seed='value'")
                below = net.project(nudged, units, **options)
            others = np.where((values < 0).reshape(-1, 1, 1, 1), below, others)
        difference, size = (np.square(of, dtype=np.float64).sum(axis=(1, 2, 3)) for of in (pictures - others, pictures))
        rounding |= difference > ROUNDING**2 * size
    return rounding


def _ties(
    fn: features.Features, images: np.ndarray, *, layer: str, which: np.ndarray, channels: np.ndarray
) -> np.ndarray:
    """In how many places of its map of its image each maximum stands. `which`, `channels` [N] -> int [N]"""
    ties, answer = np.zeros(len(which), int), features.jitted(fn)
    for rows in features.full_batches(len(images), AT_ONCE):
        maps = np.asarray(answer(images[rows])[layer])
        maps = maps.reshape(len(rows), -1, maps.shape[-1])
        own = np.flatnonzero((which >= rows[0]) & (which < rows[0] + len(rows)))
        places = maps[which[own] - rows[0], :, channels[own]]
        ties[own] = (places == places.max(axis=1, keepdims=True)).sum(axis=1)
    return ties


class Notes(TypedDict):
    """How M projections were made: see MEANINGS."""

    seed: str
    num_below_zero: int
    rounding: Any  # bool [M]
    tied: Any  # int [M], images


class ByChance(TypedDict):
    """A number of projections, and the same where they have nothing to do with it; None where it cannot be said."""

    value: float | None
    by_chance: float | None
    untrained: NotRequired[float | None]  # of the same units, were the weights drawn anew


class Scores(TypedDict):
    """How good projections are: see MEANINGS."""

    resemblance: ByChance
    energy_on_object: ByChance | None  # None where the set does not say where objects are


def notes(strongest: Strongest) -> Notes:
    """What MEANINGS says of how the projections were made, and of those that are not what they look like."""
    drawn = strongest.images >= 0
    return {
        "seed": "value",
        "num_below_zero": int((strongest.values[drawn] < 0).sum()),
        "rounding": strongest.rounding,
        "tied": (strongest.tied > 1).sum(axis=1),
    }


def warnings_of(facts: Mapping[str, Any]) -> list[str]:
    """A line for each of `notes` that a reader has to know."""
    lines = (
        (
            facts["num_below_zero"],
            "projection starts from an activation below 0: what speaks against the unit",
            "projections start from an activation below 0: what speaks against the unit",
        ),
        (
            int(np.sum(facts["rounding"])),
            "map is nothing but rounding, and drawn as grey",
            "maps are nothing but rounding, and drawn as grey",
        ),
        (
            int(np.sum(facts["tied"])),
            "projection stands for one of several places that share the maximum",
            "projections stand for one of several places that share the maximum",
        ),
    )
    return [f"{num} {one if num == 1 else several}" for num, one, several in lines if num]


def scores(strongest: Strongest) -> Scores:
    """What MEANINGS says, each as {"value", "by_chance"}; None where it cannot be said."""
    own = [correlations(strongest, m, m) for m in range(len(strongest.maps))]
    other = [correlations(strongest, m, m - 1) for m in range(len(strongest.maps))] if len(strongest.maps) > 1 else []
    result: Scores = {"resemblance": {"value": _mean(own), "by_chance": _mean(other)}, "energy_on_object": None}
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


def resemblance(strongest: Strongest) -> float | None:
    """Mean correlation of each projection with its own patch; None where nothing is drawn."""
    return _mean([correlations(strongest, m, m) for m in range(len(strongest.maps))])


def arrays(strongest: Strongest) -> Iterator[tuple[str, np.ndarray]]:
    """The fields that are there, by name, to be saved."""
    left_out = () if strongest.projections.size else ("projections", "scales", "rounding")
    fields = zip(strongest._fields, strongest, strict=True)
    return ((name, field) for name, field in fields if field is not None and name not in left_out)


def boxes_of(
    field: ReceptiveField | None, size: tuple[int, int], *, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """int [M, k, 4]: the receptive field of each place, or the picture of `size` where that is not larger."""
    if field is None or field.holds(size):
        return np.broadcast_to([0, 0, *size], (*rows.shape, 4))
    along = zip(field.spans, (rows, columns), strict=True)
    corners = np.stack([span.offset + span.stride * place for span, place in along], axis=-1)
    return np.concatenate([corners, corners + field.sides], axis=-1)


def correlations(strongest: Strongest, m: int, other: int) -> list[float]:
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
