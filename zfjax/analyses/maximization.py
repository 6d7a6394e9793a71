"""Activation maximisation: gradient ascent on the input, the other road that summaries of the paper take.

The deconvnet starts from an image and shows what of it excites a unit. Here the image itself climbs: from grey and
noise, along the gradient of one activation, to a picture that no camera took (Erhan et al. 2009; Simonyan et al. 2013).
Not in the paper, whose deconvnet pictures are of real images; shown beside it by `experiments/activation_maximization`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # its submodules load at their first use: stats alone takes half a second
from jax import lax
from jax.tree_util import Partial
from jax.typing import DTypeLike

from zfjax import nets
from zfjax.analyses.strongest import OUTSIDE
from zfjax.architecture import Architecture, Conv, FieldRule
from zfjax.errors import UserError
from zfjax.features import Features, in_batches
from zfjax.nets import Net
from zfjax.network import Params, forward
from zfjax.ops import conv
from zfjax.pixels import as_seen, cut
from zfjax.programs import as_partial, compiled
from zfjax.units import Index, Unit, as_unit, joined, one_layer

Bounds = tuple[Any, Any]  # (lowest, highest) value of each pixel, [H, W, C]
BLUR_REACH = 3  # the blur's filter ends after this many sigma


def _is_whole(value: float) -> bool:
    return float(value).is_integer()


_RULES = {
    "noise": FieldRule("a finite number of pixels, at least 0,", lambda value: 0 <= value < np.inf),
    "steps": FieldRule("a whole number of at least 1", lambda value: _is_whole(value) and value >= 1),
    "step_size": FieldRule("a finite number of pixels above 0", lambda value: 0 < value < np.inf),
    "jitter": FieldRule("a whole number of pixels, at least 0,", lambda value: _is_whole(value) and value >= 0),
    "blur": FieldRule("a finite number of pixels, at least 0,", lambda value: 0 <= value < np.inf),
    "decay": FieldRule("a share from 0 to below 1", lambda value: 0 <= value < 1),
}


class Ascent(NamedTuple):
    """The result of gradient ascent from B images."""

    images: jax.Array  # float [B, H, W, C]
    path: jax.Array  # float [steps + 1, B] the activation that each step looked at, and that of `images`


def maximize(
    fn: Features,
    start: Any,
    key: jax.Array,
    *,
    unit: Unit | Index | None = None,
    channel: Index | None = None,
    position: tuple[Index, Index] | None = None,
    steps: int = 40,
    step_size: float = 1.0,
    jitter: int = 0,
    blur: float = 0.0,
    decay: float = 0.0,
    bounds: Bounds | None = None,
) -> Ascent:
    """Maximise one unit, map or class by gradient ascent from each start, in one compiled loop.

    Each step: image <- clip(blur((1 - decay) * (image + step_size * g / rms(g)))), with g the activation's gradient
    and rms(g) the root of the mean of g^2 over the image: one step moves the image by `step_size` pixels RMS, however
    steep the climb is. Where g is 0 everywhere, as for a unit that its ReLU silences, the step moves nothing.

    Args:
      fn: differentiable, images -> features [B, H, W, C] or [B, C], alone or as the only array of a tree; no image
        may look at another one.
      start: float [B, H, W, C], mean-subtracted pixels, in the type that `fn` reads; see `grey_and_noise`. One start
        is that of all units.
      key: draws the jitter; the same key gives the same images.
      unit: what is climbed, in the place of `channel` and `position`; the layer is what `fn` gives.
      channel: the map, dense unit or class; one, or one for each image ([B]), or N of one start.
      position: (y, x) of the unit in its map, each like `channel`; None climbs the mean of the whole map.
      steps: number of steps.
      step_size: pixels, RMS.
      jitter: each step looks at the image rolled by up to this many pixels, each way, drawn for each image.
      blur: sigma of the Gaussian filter after each step, pixels; beyond the edge the edge goes on.
      decay: share of the image (its distance from the mean picture) that each step takes away.
      bounds: the lowest and highest value of each pixel; None lets them leave the range of pictures.

    Returns:
      Ascent; UserError naming the argument that does not fit.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> fn, start = lambda images: images.mean((1, 2)), jnp.zeros((1, 8, 8, 3))
      >>> ascent = zfjax.maximization.maximize(
      ...     fn, start, jax.random.key(0), channel=1, steps=4, step_size=0.5, jitter=0
      ... )
      >>> bool(ascent.path[-1, 0] > ascent.path[0, 0])
      True
    """
    fn = as_partial(fn)
    start = jnp.asarray(start)
    bounds = None if bounds is None else jax.tree.map(lambda bound: jnp.asarray(bound, start.dtype), bounds)
    check_climb(steps=steps, step_size=step_size, jitter=jitter, blur=blur, decay=decay)
    if start.ndim != 4 or not jnp.issubdtype(start.dtype, jnp.floating):
        raise UserError(f"start of shape {start.shape}, {start.dtype}: floating point [B, H, W, C] is needed")
    if (unit is None) == (channel is None) or (unit is not None and position is not None):
        raise UserError(
            f"unit={unit}, channel={channel}, position={position}: name what is climbed once, by unit= or by the others"
        )
    channel, position, _ = as_unit(Unit(channel, position) if unit is None else unit)
    if channel is None:
        raise UserError(f"unit={unit}: a channel is needed")
    if len(start) == 1:  # of which several units may climb
        num = max(np.size(index) for index in jax.tree.leaves((channel, position)))
        start = jnp.broadcast_to(start, (max(num, 1), *start.shape[1:]))
    place = place_of(fn, start, channel=channel, position=position)
    ascent: Ascent = _ascend(
        fn,
        start,
        key,
        place=place,
        step_size=step_size,
        decay=decay,
        bounds=bounds,
        steps=int(steps),
        jitter=int(jitter),
        blur=float(blur),
    )
    return ascent


def grey_and_noise(
    key: jax.Array, shape: tuple[int, int, int, int], noise: float = 10.0, *, dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """The start of gradient ascent: the mean picture, which is 0 here, plus Gaussian noise. -> [B, H, W, C]

    Its standard deviation is `noise`, in pixels; UserError below 0.

    Examples:
      >>> import jax, zfjax
      >>> zfjax.maximization.grey_and_noise(jax.random.key(0), (2, 8, 8, 3), noise=1.0).shape
      (2, 8, 8, 3)
    """
    check_climb(noise=noise)
    return noise * jax.random.normal(key, shape, dtype)


def picture_range(mean: np.ndarray) -> Bounds:
    """The bounds of mean-subtracted pixels: 0 and 255 less the mean picture [H, W, C].

    Examples:
      >>> import numpy as np, zfjax
      >>> low, high = zfjax.maximization.picture_range(np.full((2, 2, 3), 100.0))
      >>> float(low.min()), float(high.max())
      (-100.0, 155.0)
    """
    return np.float32(0) - mean, np.float32(255) - mean


def drives_of(params: Params, layer: str, *, architecture: Architecture) -> Partial:
    """fn(images) -> what the filters of `layer` answer, bias added, before its ReLU: [B, H, W, C] or [B, C].

    Behind its ReLU a silent unit has no slope to climb; before it, it has. UserError for an unknown layer.
    """
    architecture.layer(layer)
    return Partial(_drives_function(architecture, layer), params)


def check_climb(**options: float) -> None:
    """UserError naming the first of `maximize`'s options, or `noise`, that cannot be, for those who look before."""
    for name, value in options.items():
        if not _RULES[name].holds(value):
            raise UserError(f"{name}={value!r}: {_RULES[name].words} is needed")


@partial(compiled, using=partial(jax.jit, static_argnames=("steps", "jitter", "blur")))
def _ascend(
    fn: Partial,
    start: jax.Array,
    key: jax.Array,
    *,
    place: tuple[jax.Array, ...],
    step_size: float,
    decay: float,
    bounds: Bounds | None,
    steps: int,
    jitter: int,
    blur: float,
) -> Ascent:
    def climbed(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = at_place(fn(images), place)
        return values.sum(), values  # no image looks at another: the sum's gradient holds that of each

    def step(images: jax.Array, step_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        shifts = jax.random.randint(step_key, (images.shape[0], 2), -jitter, jitter + 1)
        gradient, values = jax.grad(climbed, has_aux=True)(_rolled(images, shifts) if jitter else images)
        gradient = _rolled(gradient, -shifts) if jitter else gradient
        images = (1 - decay) * (images + step_size * _unit_rms(gradient))
        images = _blurred(images, blur) if blur else images
        return (images if bounds is None else jnp.clip(images, *(bound[None] for bound in bounds))), values

    images, path = lax.scan(step, start, jax.random.split(key, steps))
    return Ascent(images, jnp.concatenate([path, climbed(images)[1][None]]))


def _unit_rms(gradient: jax.Array) -> jax.Array:
    """Each image's gradient with an RMS of 1, or 0; largest value 1 first, as squares of tiny ones would underflow."""
    gradient = gradient / _or_one(abs(gradient).max((1, 2, 3), keepdims=True))
    return gradient / _or_one(jnp.sqrt((gradient * gradient).mean((1, 2, 3), keepdims=True)))


def _or_one(scale: jax.Array) -> jax.Array:
    return jnp.where(scale > 0, scale, jnp.ones_like(scale))


def _rolled(images: jax.Array, shifts: jax.Array) -> jax.Array:
    """Image b moved down by shifts[b, 0] and right by shifts[b, 1]; what leaves on one side enters on the other."""
    return jax.vmap(lambda image, shift: jnp.roll(image, shift, axis=(0, 1)))(images, shifts)


def _blurred(images: jax.Array, sigma: float) -> jax.Array:
    """Rows, then columns, filtered as two matrix products."""
    rows, columns = (jnp.asarray(_blur_matrix(side, sigma), images.dtype) for side in images.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, images, precision=lax.Precision.HIGHEST)


def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    """[side, side]: row i holds what each pixel gives to pixel i; what would lie outside is the edge's."""
    matrix: np.ndarray = scipy.ndimage.gaussian_filter1d(
        np.eye(side), sigma, axis=0, mode="nearest", truncate=BLUR_REACH
    )
    return matrix


def at_place(features: Any, place: tuple[jax.Array, ...]) -> jax.Array:
    """[B]: image b's activation at its own place, or the mean of its map; `place` as of `place_of`."""
    features = _only_array(features)
    images = jnp.arange(features.shape[0])
    if len(place) == 3:
        channel, row, column = place
        activations: jax.Array = features[images, row, column, channel]
        return activations
    means: jax.Array = features[images, ..., place[0]].reshape(images.size, -1).mean(axis=1)
    return means


def _only_array(features: Any) -> Any:
    arrays = jax.tree.leaves(features)
    if len(arrays) != 1:
        raise UserError(f"fn gives {len(arrays)} arrays: one is climbed, as of layers_of(params, [layer])")
    return arrays[0]


def place_of(
    fn: Features, images: Any, *, channel: Index, position: tuple[Index, Index] | None
) -> tuple[jax.Array, ...]:
    """(channel,) or (channel, row, column), each int32 [B]; UserError where they do not fit what `fn` gives."""
    shape, batch = _only_array(jax.eval_shape(fn, images)).shape, images.shape[0]
    if len(shape) not in (2, 4) or shape[0] != batch:
        raise UserError(f"fn gives features of shape {shape}: [{batch}, H, W, C] or [{batch}, C] is needed")
    if position is not None and len(shape) == 2:
        raise UserError(f"position={position}: a dense layer has no places, only a channel")
    named = [("channel", channel, shape[-1])]
    if position is not None:
        named += [("position row", position[0], shape[1]), ("position column", position[1], shape[2])]
    place = []
    for name, value, limit in named:
        index = np.asarray(value)
        if not np.issubdtype(index.dtype, np.integer) or not np.all((index >= 0) & (index < limit)):
            raise UserError(f"{name}={value}: a whole number from 0 to {limit - 1} is needed")
        if index.shape not in ((), (batch,)):
            raise UserError(f"{name} of shape {index.shape}: one index, or one for each of the {batch} images")
        place.append(jnp.asarray(np.broadcast_to(index, (batch,)), jnp.int32))
    return tuple(place)


@cache
def _drives_function(architecture: Architecture, layer: str) -> Callable[[Params, jax.Array], jax.Array]:
    """One function object for equal arguments, so that JAX finds what it compiled."""
    place = architecture.layer_names.index(layer)
    row = architecture.layers[place]

    def drives(params: Params, images: jax.Array) -> jax.Array:
        trace = forward(params, images, architecture=architecture)[1]  # under jit what lies above is not computed
        if place:
            below = trace[architecture.layer_names[place - 1]].features
        else:
            below = images * jnp.asarray(architecture.input_scale, images.dtype)
        kernel, bias = params[layer]["kernel"], params[layer]["bias"]
        if isinstance(row, Conv):
            return conv(below, kernel, row) + bias[None, None, None]
        return below.reshape(below.shape[0], -1) @ kernel + bias[None]

    return drives


class Climbed(NamedTuple):
    """M units of one layer after gradient ascent; [s, s] is the receptive field, pixels."""

    maps: np.ndarray  # int [M]
    images: np.ndarray  # float32 [M, H, W, C] the net's input, of pictures within their range
    patches: (
        np.ndarray
    )  # uint8 [M, s, s, 3] what the unit sees of these pictures; all of them where its field is larger
    paths: np.ndarray  # float32 [M, steps + 1] the climbed value: see `climbs_before_relu`
    started: np.ndarray  # float32 [M] strongest activation of the map on the start
    reached: np.ndarray  # float32 [M] ... and on `images`
    won: np.ndarray  # bool [M] no other map of the layer is as strong on `images`


AT_ONCE = 16  # units that climb together, which bounds the memory

MEANINGS = {
    "reached": "strongest activation of the map on the picture that the climb ended with",
    "strongest": "strongest activation of the map on the validation set",
    "median_ratio": "median over the units of reached / strongest",
    "rising": "share of the steps after which the climbed value was higher",
    "won": "share of the climbed pictures on which no other map of the layer is as strong; for the classes: which the "
    "network gives the class that was climbed",
    "silent_at_start": "share of the units whose whole map is 0 or less at the start, where a climb behind the ReLU "
    "would stand still",
}


def climb(
    net: Net,
    units: Unit | Any,
    *,
    layer: str | None = None,
    key: jax.Array,
    of: Literal["unit", "map"] = "unit",
    noise: float = 10.0,
    steps: int = 40,
    step_size: float = 1.0,
    jitter: int = 0,
    blur: float = 0.0,
    decay: float = 0.0,
    at_once: int = AT_ONCE,
) -> Climbed:
    """Maximise some maps, units or classes of a layer by gradient ascent, and measure the layer's response.

    All of it is in pixels, whatever the net makes of them: its `prepare` has to be linear in each pixel (a mean taken
    away, a scale, another order of the channels), and how it is follows from what it makes of black, of white in each
    channel, and of noise. See `crop_of_mean` for the start, and `climbs_before_relu` for what is climbed.

    Examples:
      climbed = maximization.climb(net, Unit([3, 17], layer="conv5"), key=jax.random.key(0), jitter=4, blur=0.5)

    Args:
      net: any network.
      units: a `Unit` of one channel or of channels [M], each climbed in the middle of its map; or channels alone.
      layer: where the units stand, unless they say it.
      key: draws noise and jitter.
      of: the unit in the middle of each map, or the mean of the whole map; a dense unit is both.
      noise: standard deviation of the noise at the start, pixels.
      steps, step_size, jitter, blur, decay: as for `maximize`.
      at_once: units that climb together, which bounds the memory.

    Returns:
      Climbed; UserError for an unknown layer or channel, or none, options that do not fit, a `prepare` that is not
      linear, or a layer that is not finite.
    """
    options: dict[str, Any] = {"steps": steps, "step_size": step_size, "jitter": jitter, "blur": blur, "decay": decay}
    check_climb(noise=noise, **options)
    layer, channels = checked_units(net, units, layer=layer, at_once=at_once)
    position = middle(net, layer)[1] if of == "unit" else None
    mean, prepare = crop_of_mean(net), prepare_of(net)
    climbed = climbed_function(net, layer, prepare)
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    paths: list[np.ndarray] = []
    for first in range(0, len(channels), at_once):
        some = np.resize(channels[first : first + at_once], min(at_once, len(channels)))  # filled up: compiled once
        noise_key, climb_key = jax.random.split(jax.random.fold_in(key, first))
        start = grey_and_noise(noise_key, (len(some), *mean.shape), noise)
        where: dict[str, Any] = {"channel": some, "position": position, "bounds": picture_range(mean)}
        ascent = maximize(climbed, start, climb_key, **where, **options)
        for rows, new in ((starts, start), (ends, ascent.images), (paths, ascent.path.T)):
            rows.append(np.asarray(new)[: len(channels) - first])
    climbs = {name: np.concatenate(of) for name, of in (("starts", starts), ("ends", ends), ("paths", paths))}
    return climbed_to(net, layer, maps=channels, **climbs, whole=of == "map", at_once=at_once)


def checked_units(net: Net, units: Unit | Any, *, layer: str | None, at_once: int) -> tuple[str, np.ndarray]:
    """(layer, int [M]) of units that `climb` can climb; UserError otherwise."""
    units = joined(units)
    unit = units if isinstance(units, Unit) else Unit(units)
    if unit.position is not None:
        raise UserError(f"units={units}: the unit in the middle of each map is climbed; leave the position out")
    named = one_layer(unit, layer)
    if named is None:
        raise UserError("layer=None: say in which layer the units stand, by layer= or in Unit(layer=...)")
    layer = nets.check_layer(net, named)
    if at_once < 1:
        raise UserError(f"at_once={at_once}: at least 1 is needed")
    channels = np.atleast_1d(np.asarray(unit.channel))
    if channels.ndim != 1 or not len(channels):
        raise UserError(f"channels={channels.tolist()}: a list of at least one is needed")
    return layer, channels


def climbed_to(
    net: Net,
    layer: str,
    *,
    maps: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    paths: np.ndarray,
    whole: bool,
    at_once: int,
) -> Climbed:
    """What the layer answers where the climbs of M maps began and ended, [M, H, W, C] of pixels less the mean.

    `whole`: the pictures are shown whole, not what the unit in the middle sees of them.
    """
    mean, prepare, place = crop_of_mean(net), prepare_of(net), middle(net, layer)[0]
    before, after = (
        strongest_places(in_batches(net.features([layer]), np.asarray(prepare(pixels)), batch_size=at_once)[layer])
        for pixels in (starts, ends)
    )
    for answer in (before, after, paths):
        nets.check_finite(net, {layer: answer})
    field, size = net.receptive_field(layer), nets.size_of(net.image_size)
    whole = whole or place is None or field is None or field.holds(size)
    box = (0, 0, *size) if whole or field is None or place is None else field.box(place)
    pictures = as_seen(np.floor(np.clip(ends + mean, 0, 255) + 0.5).astype(np.uint8))
    rows = np.arange(len(maps))
    return Climbed(
        maps=maps,
        images=np.asarray(prepare(ends)),
        patches=np.stack([cut(picture, box, OUTSIDE) for picture in pictures]),
        paths=paths,
        started=before[rows, maps],
        reached=after[rows, maps],
        won=after.argmax(axis=1) == maps,
    )


def climbs_before_relu(net: Net) -> bool:
    """Whether what is climbed is the answer of the layer's filters, before its ReLU, as for the nets of a table.

    Of any other net the layer's own features are climbed: where it has a ReLU, a silent unit has no slope there, and
    its climb stands still.
    """
    return isinstance(net, nets.OfTable)


def middle(net: Net, layer: str) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The place in the middle of the layer's map, and the unit that is climbed there; both None if dense.

    That unit is one that the place looks at, before the layer's pool; the place itself for a net that is no table.
    """
    if not isinstance(net, nets.OfTable):
        shape = nets.shapes_of(net, [layer])[layer]
        centre = (shape[0] // 2, shape[1] // 2) if len(shape) == 3 else None
        return centre, centre
    row, sizes = net.architecture.layer(layer), net.architecture.sizes()[layer]
    if not isinstance(row, Conv):
        return None, None
    place = sizes.output[0] // 2
    unit = min(place * row.pool.stride + row.pool.size // 2, sizes.filtered[0] - 1) if row.pool else place
    return (place, place), (unit, unit)


def crop_of_mean(net: Net) -> np.ndarray:
    """The picture that climbs start from, pixels: the mean picture where the net's input lies in it; grey without one.

    -> float32 [H, W, C]. A net that is no table has no mean that it would tell; mid-grey, 127.5, stands for it.
    """
    shape = (*nets.size_of(net.image_size), nets.num_channels(net))
    if not isinstance(net, nets.OfTable):
        return np.full(shape, 127.5, np.float32)
    if net.mean.ndim == 1:
        return np.broadcast_to(net.mean, shape)
    margin = (len(net.mean) - shape[0]) // 2
    return net.mean[margin : margin + shape[0], margin : margin + shape[1]]


def strongest_places(features: np.ndarray) -> np.ndarray:
    """Each map's strongest activation on each image. [B, H, W, C] or [B, C] -> [B, C]"""
    maxima: np.ndarray = features.reshape(len(features), -1, features.shape[-1]).max(axis=1)
    return maxima


class Score(TypedDict):
    """How far the climbs of one layer's M units came: see MEANINGS."""

    maps: Any  # int [M]
    reached: Any  # float [M]
    strongest: Any  # float [M]
    median_ratio: float | None  # None where no image excites any of the units
    rising: float
    silent_at_start: float
    won: float


def score(climbed: Climbed, strongest: np.ndarray) -> Score:
    """What MEANINGS says of one layer; strongest [C] of the validation set."""
    strongest = strongest[climbed.maps]
    excited = strongest > 0  # a dead map, or a class that no image is given, has no ratio
    return {
        "maps": climbed.maps,
        "reached": climbed.reached,
        "strongest": strongest,
        "median_ratio": float(np.median(climbed.reached[excited] / strongest[excited])) if excited.any() else None,
        "rising": float((np.diff(climbed.paths, axis=1) > 0).mean()),
        "silent_at_start": float((climbed.started <= 0).mean()),
        "won": float(climbed.won.mean()),
    }


def prepare_of(net: Net) -> Partial:
    """fn(pixels [B, H, W, C] less `crop_of_mean`) -> the net's input, as `net.prepare` makes it of whole pixels.

    UserError where that is not linear in each pixel.
    """
    if isinstance(net, nets.OfTable):
        return Partial(_unchanged)
    (height, width), (high, wide) = nets.size_of(net.image_size), nets.size_of(net.picture_size)
    num = nets.num_channels(net)
    pictures = np.zeros((num + 2, high, wide, num), np.uint8)  # black, each channel alone, noise
    pictures[np.arange(num) + 1, :, :, np.arange(num)] = 255
    pictures[-1] = np.random.default_rng(0).integers(0, 256, (high, wide, num))
    black, *alone, noise = np.asarray(net.prepare(pictures), np.float32)
    matrix = (np.stack(alone, axis=2) - black[:, :, None]) / 255  # [H, W, C, channels of the input]
    top, left = (high - height) // 2, (wide - width) // 2
    crop = pictures[-1, top : top + height, left : left + width].astype(np.float32)
    made = black + np.einsum("hwc,hwcd->hwd", crop, matrix)
    if not np.allclose(made, noise, rtol=1e-3, atol=1e-3 * np.abs(noise - black).max()):
        raise UserError(
            f"net={net.name!r}: its input is not linear in each pixel of the pictures, so there is no way from a climb "
            "of the input to a picture; put what is not linear into the function itself"
        )
    return Partial(_linear, black + np.einsum("hwc,hwcd->hwd", crop_of_mean(net), matrix), matrix)


def _unchanged(pixels: Any) -> Any:
    return pixels


def _linear(offset: Any, matrix: Any, pixels: Any) -> jax.Array:
    colours: jax.Array = offset[None] + jnp.einsum("bhwc,hwcd->bhwd", pixels, matrix, precision=lax.Precision.HIGHEST)
    return colours


def climbed_function(net: Net, layer: str, prepare: Partial) -> Partial:
    """fn(pixels less the mean) -> what is climbed: [B, H, W, C] or [B, C]."""
    if isinstance(net, nets.OfTable):
        return drives_of(net.params, layer, architecture=net.architecture)
    return composed(net.features([layer]), prepare)


def composed(features: Features, prepare: Partial) -> Partial:
    """fn(pixels less the mean) -> features of the input that is prepared of them."""
    return Partial(_composed, as_partial(features), prepare)


def _composed(fn: Partial, prepare: Partial, pixels: jax.Array) -> Any:
    return fn(prepare(pixels))
