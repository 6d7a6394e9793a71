"""Gradient ascent held to what pictures are: in waves of weighed frequency, in their colours, moved at every step.

The plain ascent of `maximization` ends in fine noise that no photo holds. Three habits of the field keep a climb from
it (Olah et al. 2017, "Feature Visualization"; Mordvintsev et al. 2018). What climbs are not pixels but the waves that
they are made of, weighed as in photos (1 / f). Their colours are those in which photos vary, decorrelated. And each
step looks at the picture moved, turned and scaled a little, so that only what survives this is worth a step.
Not in the paper.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial
from PIL import Image

from zfjax import nets
from zfjax.analyses import maximization
from zfjax.analyses.maximization import AT_ONCE, Climbed
from zfjax.architecture import FieldRule
from zfjax.data import Source
from zfjax.errors import UserError
from zfjax.features import in_batches
from zfjax.nets import Net
from zfjax.programs import compiled
from zfjax.units import Unit

COLOURS = np.array(
    [[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]], np.float32
)  # of ImageNet's photos: [red, green, blue] of three axes; in Lucid's `color.py`
NOISE = 0.05  # standard deviation of the waves at the start, which is almost grey
ASKED = 64  # pictures whose colours are looked at
REDIRECTED = 16  # first steps, in which rectifiers let through what would wake the silent

_RULES = {
    "steps": FieldRule("a whole number of at least 1", lambda value: float(value).is_integer() and value >= 1),
    "starts": FieldRule("a whole number of at least 1", lambda value: float(value).is_integer() and value >= 1),
    "rate": FieldRule("a finite number above 0", lambda value: 0 < value < np.inf),
    "jitter": FieldRule("a finite number of pixels, at least 0,", lambda value: 0 <= value < np.inf),
    "turn": FieldRule("degrees from 0 to 180", lambda value: 0 <= value <= 180),
    "scaling": FieldRule("a share from 0 to below 1", lambda value: 0 <= value < 1),
}


class Options(NamedTuple):
    """Options of robust gradient ascent; `check` refuses impossible ones."""

    steps: int = 64
    """Steps of each climb."""
    rate: float = 0.015
    """Of Adam, in the units of the waves."""
    jitter: float = 4.0
    """Each step looks at the picture moved by up to this many pixels, each way."""
    turn: float = 8.0
    """... turned about its middle by up to this many degrees, each way."""
    scaling: float = 0.1
    """... and larger or smaller by up to this share."""

    def check(self) -> Options:
        """Itself; UserError naming the first option that cannot be."""
        for name, value in self._asdict().items():
            if not _RULES[name].holds(value):
                raise UserError(f"{name}={value!r}: {_RULES[name].words} is needed")
        return self


def colours_of(source: Source) -> np.ndarray:
    """The axes in which the colours of a set's pictures vary: the root of their covariance, whose longest axis is 1.

    float32 [C, C], of pictures that stand evenly in the set; the identity where they do not vary.

    Examples:
      >>> from zfjax.analyses import robust_ascent
      >>> from zfjax.data import demo
      >>> robust_ascent.colours_of(demo.DemoSource(1, 8, 64)).shape
      (3, 3)
    """
    places = np.unique(np.linspace(0, len(source) - 1, ASKED).astype(int))
    colours = np.concatenate(
        [source[int(place)]["image"].reshape(-1, source[0]["image"].shape[-1]) for place in places]
    )
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(colours.T.astype(np.float64))))
    axes = vectors * np.sqrt(np.maximum(values, 0))
    longest = np.linalg.norm(axes, axis=0).max()
    return (axes / longest if longest > 0 else np.eye(len(axes))).astype(np.float32)


def climb(
    net: Net,
    units: Unit | Any,
    *,
    layer: str | None = None,
    key: jax.Array,
    starts: int = 2,
    options: Options | None = None,
    colours: np.ndarray | None = None,
    at_once: int = AT_ONCE,
) -> Climbed:
    """Maximise the unit in the middle of each map, or each dense unit or class, from several starts.

    The climbed value is the one of `maximization.climb`. A net that is no table has rectifiers before it: in the first
    steps they let through whatever would wake a silent unit (redirected ReLU gradients, as in Lucid).

    Examples:
      climbed = robust_ascent.climb(net, Unit([3, 17], layer="conv5"), key=jax.random.key(0), starts=3)

    Args:
      net: any network whose `prepare` is linear in each pixel.
      units, layer: as for `maximization.climb`.
      key: draws the starts and the moves; a unit's pictures do not depend on the other units.
      starts: of each unit.
      options: of the climb.
      colours: float [C, C], axes of the pictures' colours, as of `colours_of`; by default those of photos.
      at_once: pictures that climb together, which bounds the memory.

    Returns:
      Climbed of M * starts rows, those of a unit one after the other; UserError as for `maximization.climb`.
    """
    options = (options or Options()).check()
    if not _RULES["starts"].holds(starts):
        raise UserError(f"starts={starts!r}: {_RULES['starts'].words} is needed")
    layer, channels = maximization.checked_units(net, units, layer=layer, at_once=at_once)
    maps = np.repeat(channels, starts)
    mean, prepare = maximization.crop_of_mean(net), maximization.prepare_of(net)
    position = maximization.middle(net, layer)[1]
    fns = _climbed_functions(net, layer, prepare)
    axes = _checked_colours(colours, mean.shape[-1])
    keys = jax.vmap(partial(_key_of, key))(jnp.asarray(maps), jnp.tile(jnp.arange(starts), len(channels)))
    ends: list[np.ndarray] = []
    begun: list[np.ndarray] = []
    paths: list[np.ndarray] = []
    num = min(at_once, len(maps))
    moves = Moves(options.jitter, np.deg2rad(options.turn), options.scaling)
    for first in range(0, len(maps), num):
        chosen = np.resize(np.arange(first, min(first + num, len(maps))), num)  # filled up: compiled once
        start = jax.ShapeDtypeStruct((num, *mean.shape), mean.dtype)
        place = maximization.place_of(fns[-1], start, channel=maps[chosen], position=position)
        ascent = _ascend(
            fns,
            keys[chosen],
            place=place,
            mean=mean,
            colours=axes,
            rate=options.rate,
            moves=moves,
            steps=int(options.steps),
        )
        for rows, new in ((begun, ascent.starts), (ends, ascent.ends), (paths, ascent.path.T)):
            rows.append(np.asarray(new)[: len(maps) - first])
    climbs = {name: np.concatenate(of) for name, of in (("starts", begun), ("ends", ends), ("paths", paths))}
    return maximization.climbed_to(net, layer, maps=maps, **climbs, whole=position is None, at_once=at_once)


def agreement(net: Net, climbed: Climbed, *, layer: str, judge: Net) -> float | None:
    """The share of the classes whose optimised picture a second network assigns to the same class.

    Args:
      net: whose classes were climbed.
      climbed: in `layer`.
      layer: the logits of `net`.
      judge: the second network; pictures of another size are resized, and beyond their edge the edge goes on.

    Returns:
      From 0 to 1; None where the two networks share none of the classes.

    Examples:
      climbed = robust_ascent.climb(net, range(10), layer="fc8", key=jax.random.key(0))
      robust_ascent.agreement(net, climbed, layer="fc8", judge=zfjax.load_net("runs/other"))
    """
    names, own = nets.class_words(judge), [nets.unit_name(net, layer, m) for m in climbed.maps]
    shared = [m for m, name in enumerate(own) if name in names]
    logits = nets.logits_layer(judge)
    if not shared or logits is None:
        return None
    (height, width), (high, wide) = nets.size_of(judge.image_size), nets.size_of(judge.picture_size)
    top, left = (high - height) // 2, (wide - width) // 2
    edges = ((top, high - height - top), (left, wide - width - left), (0, 0))
    pictures = [Image.fromarray(climbed.patches[m]).resize((width, height)) for m in shared]
    given = np.stack([np.pad(np.asarray(picture), edges, mode="edge") for picture in pictures])
    said = in_batches(judge.features([logits]), np.asarray(judge.prepare(given)), batch_size=AT_ONCE)[logits]
    return float(np.mean([names[best] == own[m] for best, m in zip(said.argmax(axis=-1), shared, strict=True)]))


class Moves(NamedTuple):
    """Largest moves of a step, each way."""

    jitter: Any  # pixels
    turn: Any  # radians
    scaling: Any  # share


class _Ascent(NamedTuple):
    starts: jax.Array  # [B, H, W, C] pixels less the mean
    ends: jax.Array
    path: jax.Array  # [steps + 1, B]


def _key_of(key: jax.Array, channel: jax.Array, start: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, channel), start)


@partial(compiled, using=partial(jax.jit, static_argnames=("steps",)))
def _ascend(
    fns: tuple[Partial, ...],
    keys: jax.Array,
    *,
    place: tuple[jax.Array, ...],
    mean: jax.Array,
    colours: jax.Array,
    rate: float,
    moves: Moves,
    steps: int,
) -> _Ascent:
    """All together; `fns` are what the first steps climb, and then the others; or one for all."""
    height, width, channels = mean.shape
    optimizer, folded = optax.adam(rate), jax.vmap(jax.random.fold_in, in_axes=(0, None))

    def pixels(waves: jax.Array) -> jax.Array:
        return 255 * jax.nn.sigmoid(picture_of(waves, (height, width), colours)) - mean[None]

    def step(fn: Partial, state: Any, number: jax.Array) -> Any:
        waves, memory = state

        def climbed(waves: jax.Array) -> tuple[jax.Array, jax.Array]:
            images = jax.vmap(partial(moved, moves))(pixels(waves), folded(keys, 1 + number))
            values = maximization.at_place(fn(images), place)
            return values.sum(), values  # no image looks at another: the sum's gradient holds that of each

        gradient, values = jax.grad(climbed, has_aux=True)(waves)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in whole numbers
            descent, memory = optimizer.update(gradient, memory)
        return (waves - descent, memory), values

    shape = (height, width // 2 + 1, channels, 2)
    start = NOISE * jax.vmap(lambda key: jax.random.normal(key, shape, mean.dtype))(folded(keys, 0))
    state, done = (start, optimizer.init(start)), 0
    paths: list[jax.Array] = []
    for fn, until in zip(fns, [min(REDIRECTED, steps), steps][-len(fns) :], strict=True):
        state, path = lax.scan(partial(step, fn), state, jnp.arange(done, until))
        paths, done = [*paths, path], until
    ends = pixels(state[0])
    last = maximization.at_place(fns[-1](ends), place)
    return _Ascent(pixels(start), ends, jnp.concatenate([*paths, last[None]]))


def picture_of(waves: jax.Array, size: tuple[int, int], colours: jax.Array) -> jax.Array:
    """The pictures that waves add up to, before they are squeezed into the range of pixels.

    Args:
      waves: float [B, H, W // 2 + 1, C, 2], real and imaginary part of each frequency, as of `numpy.fft.rfft2`; each is
        weighed by 1 / f, so that all matter alike to a step.
      size: (H, W).
      colours: float [C, C], the column of each axis.

    Returns:
      float [B, H, W, C].
    """
    height, width = size
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    weights = np.sqrt(height * width) / np.maximum(frequencies, 1 / max(height, width))
    weighed = waves * jnp.asarray(weights, waves.dtype)[None, :, :, None, None]
    picture = jnp.fft.irfft2(lax.complex(weighed[..., 0], weighed[..., 1]), s=size, axes=(1, 2))
    return jnp.einsum("bhwc,dc->bhwd", picture, colours, precision=lax.Precision.HIGHEST)


def moved(moves: Moves, image: jax.Array, key: jax.Array) -> jax.Array:
    """The picture [H, W, C] scaled and turned about its middle, and moved, by draws of `key`; it goes on like a tile.

    A picture made of waves is periodic, so that no seam shows.
    """
    height, width = image.shape[:2]
    draws = jax.random.uniform(key, (4,), image.dtype, -1, 1)
    angle, larger, shift = moves.turn * draws[0], 1 + moves.scaling * draws[1], moves.jitter * draws[2:]
    middle = jnp.array([height - 1, width - 1], image.dtype) / 2
    rows, columns = jnp.mgrid[:height, :width].astype(image.dtype) - middle[:, None, None]
    cosine, sine = jnp.cos(angle) / larger, jnp.sin(angle) / larger
    y = cosine * rows - sine * columns + middle[0] + shift[0]
    x = sine * rows + cosine * columns + middle[1] + shift[1]
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    down, right = (y - jnp.floor(y))[..., None], (x - jnp.floor(x))[..., None]

    def at(row: jax.Array, column: jax.Array) -> jax.Array:
        return image[row % height, column % width]

    above = (1 - right) * at(top, left) + right * at(top, left + 1)
    below = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
    between: jax.Array = (1 - down) * above + down * below
    return between


def _checked_colours(colours: np.ndarray | None, channels: int) -> np.ndarray:
    if colours is None:
        return COLOURS / np.linalg.norm(COLOURS, axis=0).max() if channels == 3 else np.eye(channels, dtype=np.float32)
    if np.shape(colours) != (channels, channels) or not np.isfinite(colours).all():
        raise UserError(f"colours of shape {np.shape(colours)}: finite numbers [{channels}, {channels}] are needed")
    return np.asarray(colours, np.float32)


def _climbed_functions(net: Net, layer: str, prepare: Partial) -> tuple[Partial, ...]:
    """What the first steps climb, and then the others; one for both, where the net's value has a slope anyhow."""
    own = maximization.climbed_function(net, layer, prepare)
    if not isinstance(net, nets.FunctionNet):
        return (own,)
    return maximization.composed(net.features([layer], rule=_redirected), prepare), own


def _redirected(incoming: jax.Array, x: jax.Array) -> jax.Array:
    """The way back through a rectifier that also lets through what would push a silent unit up."""
    return jnp.where((x > 0) | (incoming > 0), incoming, 0)
