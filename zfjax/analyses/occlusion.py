"""What a network says of an image while a square slides over it (sec. 4.2 "Occlusion Sensitivity", Fig. 7).

The squares of a sweep lie wholly inside the image, so that each hides as many pixels as any other. A value found with a
square belongs to the square's centre: `centers` says which pixel that is, `on_image` draws a grid of values over the
image. Paper is silent on the square's size, its stride and its grey.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial, reduce
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # its submodules load at their first use: stats alone takes half a second
from jax.tree_util import Partial

from zfjax import features, nets
from zfjax.analyses import changed_parts
from zfjax.analyses.top_activations import TopActivations
from zfjax.data import ImageSet, Source, sets
from zfjax.errors import UserError
from zfjax.features import Features
from zfjax.nets import Net, Views
from zfjax.pixels import as_seen
from zfjax.programs import as_partial, compiled
from zfjax.schema import Count, Share
from zfjax.units import Unit

GREY = 128  # of a stored picture
MIB = 2**20


Sides = int | Sequence[int] | np.ndarray  # pixels: one length for every axis, or one for each, (height, width)


def places(size: Sides, square: Sides, stride: Sides) -> np.ndarray:
    """Every `stride`-th place of the square; what the stride leaves over is shared by both edges.

    Args:
      size: side of the image, or its (height, width), or all sides of a volume; the image's, as no other is looked at.
      square: side of the square, or (height, width) of a rectangle, pixels, from 1 to the image's own.
      stride: pixels between two places, at least 1, or one for each axis.

    Returns:
      int32 [R, C, 2], the corner (top, left) of each square; [*grid, n] of n sides. UserError for a square larger than
      the image or no such stride.

    Examples:
      >>> import zfjax
      >>> zfjax.occlusion.places(8, 4, 2)[:, 0].tolist()
      [[0, 0], [2, 0], [4, 0]]
    """
    num = max([np.size(given) for given in (size, square, stride) if np.ndim(given)], default=2)
    sides, squares, strides = _each("size", size, num), _each("square", square, num), _each("stride", stride, num)
    if not all(1 <= own <= side for own, side in zip(squares, sides, strict=True)):
        has = f"{sides[0]} a side" if len(set(sides)) == 1 else "x".join(map(str, sides))
        raise UserError(f"square={square}: 1 to {min(sides)} pixels are needed, the image has {has}")
    if min(strides) < 1:
        raise UserError(f"stride={stride}: at least 1 pixel is needed")
    lines = (
        np.arange((side - own) % step // 2, side - own + 1, step, dtype=np.int32)
        for side, own, step in zip(sides, squares, strides, strict=True)
    )
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)


def _each(name: str, value: Sides, num: int) -> tuple[int, ...]:
    """One whole number for each of `num` axes; UserError where that is none."""
    given = np.asarray(value)
    if not np.issubdtype(given.dtype, np.integer) or given.shape not in ((), (num,)):
        raise UserError(f"{name}={value!r}: a whole number of pixels, or one for each of the {num} axes, is needed")
    return tuple(np.broadcast_to(given, (num,)).tolist())


def centers(corners: np.ndarray, square: Sides) -> np.ndarray:
    """(y, x) of the pixel in the middle of each square, of an even one the lower right of the four. [..., 2] -> int

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.occlusion.centers(np.array([[0, 0], [2, 4]]), 4)
      array([[2, 2],
             [4, 6]])
    """
    middles: np.ndarray = corners + np.array(_each("square", square, corners.shape[-1]), corners.dtype) // 2
    return middles


def occlude(
    image: jax.Array | np.ndarray,
    corners: jax.Array | np.ndarray,
    *,
    square: Sides | jax.Array,
    fill: jax.Array | np.ndarray,
) -> jax.Array:
    """One copy of `image` for each place, in which the square shows `fill`.

    Args:
      image: [H, W, C], or [*sides, C] of any number of sides.
      corners: int32 [B, 2], the corner (top, left) of each square, or [B, number of sides].
      square: side of the square, pixels, or one for each axis.
      fill: what stands where the image is hidden; of the image's shape and type.

    Returns:
      [B, H, W, C], of the image's type; UserError for corners of another number of sides.

    Examples:
      >>> import numpy as np, zfjax
      >>> hidden = zfjax.occlusion.occlude(np.ones((3, 3, 1)), np.array([[0, 1]]), square=2, fill=np.zeros((3, 3, 1)))
      >>> hidden[0, :, :, 0]
      Array([[1., 0., 0.],
             [1., 0., 0.],
             [1., 1., 1.]], dtype=float32)
    """
    if corners.ndim != 2 or corners.shape[-1] != image.ndim - 1:
        raise UserError(f"corners of shape {corners.shape}: [B, {image.ndim - 1}] for the image of {image.shape}")
    lengths = jnp.broadcast_to(jnp.asarray(square, jnp.int32), corners.shape[-1:])
    firsts, hidden = jnp.asarray(corners, jnp.int32), jnp.ones((1,) * (image.ndim + 1), bool)
    for axis, side in enumerate(image.shape[:-1]):
        line, first = jnp.arange(side, dtype=jnp.int32)[None], firsts[:, axis, None]
        inside = (first <= line) & (line < first + lengths[axis])
        hidden = hidden & jnp.expand_dims(inside, [k for k in range(1, image.ndim + 1) if k != axis + 1])
    return jnp.where(hidden, fill[None], image[None])


def sweep(
    fn: Features,
    image: np.ndarray,
    corners: np.ndarray,
    *,
    square: Sides,
    fill: Any,
    then: Callable[[Any], Any] | None = None,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> Any:
    """Evaluate fn on the image with the square at each place, one forward pass per place (Fig. 7).

    The occluded images are made on the device from the one image, a batch at a time. Compiled once for equal numbers
    of places, whatever the image, the fill or the values inside a `Partial`. Of a table, as `features.layers_of` and
    the nets of tables give it, only what a square changes is computed where that saves work: the same up to rounding,
    compiled once for each size of the square.

    Args:
      fn: images [B, H, W, C] -> array, or tree of arrays, each with B rows.
      image: [H, W, C], as `fn` reads it, in the type that `fn` reads; [*sides, C] of any number of sides.
      corners: int [..., 2] from `places`: a grid [R, C, 2] that spans the image, or a list [N, 2] of any places.
      square: side of the square, pixels, or (height, width) of a rectangle.
      fill: [H, W, C], or what broadcasts to it; see `filler`.
      then: what `fn` gives -> what is kept of it, where that is less; a row for each image too.
      batch_size: images in memory at the same time, at most; `batch_size_within` derives it from a budget.
      on_batch: called after each batch with the number of places done in it.

    Returns:
      The tree of `fn`, or of `then`, as NumPy arrays [..., *its own shape for one image]. UserError for a square that
      reaches beyond the image, a grid of another image's, no place at all, a fill that the image's type cannot hold,
      features without a row for each image, or a batch size below 1.

    Examples:
      >>> import numpy as np, zfjax
      >>> fn = lambda images: images[:, :2, :2].sum((1, 2, 3))  # looks at the upper left
      >>> corners = zfjax.occlusion.places(6, 2, 2)
      >>> zfjax.occlusion.sweep(fn, np.ones((6, 6, 1), np.float32), corners, square=2, fill=0.0)
      array([[0., 4., 4.],
             [4., 4., 4.],
             [4., 4., 4.]], dtype=float32)
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: at least 1 is needed")
    corners = _checked(corners, np.shape(image)[:-1], square)
    flat = corners.reshape(-1, corners.shape[-1])
    num_batches = -(-len(flat) // batch_size)
    batch_size = -(-len(flat) // num_batches)  # equal batches, so that little of the last one is filling
    answer, answers = _answer_to(fn, then, image, fill=fill, square=square), []
    for start in range(0, len(flat), batch_size):
        rows = flat[start : start + batch_size]
        filled = np.concatenate([rows, np.repeat(rows[:1], batch_size - len(rows), axis=0)])
        answers.append(features.rows_of(answer(filled), batch_size))
        if on_batch is not None:
            on_batch(len(rows))

    def whole(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts)[: len(flat)].reshape(*np.shape(corners)[:-1], *parts[0].shape[1:])

    return jax.tree.map(whole, *answers)


def batch_size_within(fn: Features, image: np.ndarray, *, memory: int, then: Callable[[Any], Any] | None = None) -> int:
    """Batch size of `sweep` within a memory budget: the budget over XLA's estimate for one image, without parameters.

    Args:
      fn, image, then: as for `sweep`.
      memory: budget in MiB.

    Returns:
      int of at least 1; UserError where a single image needs more.

    Examples:
      >>> import numpy as np, zfjax
      >>> image = np.ones((64, 64, 3), np.float32)
      >>> zfjax.occlusion.batch_size_within(lambda images: images.mean((1, 2)), image, memory=64) > 1
      True
    """
    corner = np.zeros((1, np.ndim(image) - 1), np.int32)
    planned = _answer.lower(*_arguments(fn, then, image, fill=0.0, square=1), corner).compile().memory_analysis()
    assert planned is not None  # all of JAX's own backends tell
    needed = max(1, planned.temp_size_in_bytes + planned.output_size_in_bytes)
    if needed > memory * MIB:
        raise UserError(f"memory={memory}: at least {-(-needed // MIB)} MiB are needed, for a batch of one image")
    num_images: int = memory * MIB // needed
    return num_images


def square_sums(maps: jax.Array | np.ndarray, corners: np.ndarray, *, square: Sides) -> np.ndarray:
    """Sum of `maps` [..., H, W] over the square at each place. -> float64 [..., *corners.shape[:-1]]

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.occlusion.square_sums(np.ones((4, 4)), np.array([[0, 0], [2, 1]]), square=2)
      array([4., 4.])
    """
    num = np.shape(corners)[-1]
    corners = _checked(corners, maps.shape[-num:], square, whole=False)
    table = np.pad(np.asarray(maps, np.float64), [(0, 0)] * (maps.ndim - num) + [(1, 0)] * num)
    for axis, own in zip(range(-num, 0), _each("square", square, num), strict=True):
        upto = np.moveaxis(table, axis, 0).cumsum(axis=0)
        table = np.moveaxis(upto[own:] - upto[:-own], 0, axis)
    return table[(..., *np.moveaxis(corners, -1, 0))]


def on_image(
    values: jax.Array | np.ndarray, corners: np.ndarray, *, square: Sides, size: Sides, outside: float
) -> np.ndarray:
    """A grid of values over the image: each pixel takes the value of the nearest centre, of two as near the first.

    Pixels further than half a stride from every centre, along the image's frame, where no square could stand, are
    `outside`.

    Args:
      values: [R, C], one for each of `corners`.
      corners: int [R, C, 2] from `places`.
      square: side of the square, pixels, or one for each axis.
      size: side of the image, or its (height, width), pixels.
      outside: of the values' own kind.

    Returns:
      [H, W]; UserError for values of another shape than the grid, or squares outside an image of this size.

    Examples:
      >>> import numpy as np, zfjax
      >>> corners = zfjax.occlusion.places(4, 2, 2)
      >>> zfjax.occlusion.on_image(np.array([[1.0, 2.0], [3.0, 4.0]]), corners, square=2, size=4, outside=0.0)
      array([[1., 1., 2., 2.],
             [1., 1., 2., 2.],
             [3., 3., 4., 4.],
             [3., 3., 4., 4.]])
    """
    num = np.shape(corners)[-1]
    sides, squares = _each("size", size, num), _each("square", square, num)
    if np.ndim(corners) != num + 1 or values.shape != np.shape(corners)[:-1]:
        raise UserError(
            f"values of shape {values.shape}, corners {np.shape(corners)}: a grid of {num} axes, and a value for each"
        )
    corners = _checked(corners, sides, square, whole=False)
    nearest, within = [], []
    for axis, (side, own) in enumerate(zip(sides, squares, strict=True)):
        line = np.moveaxis(corners[..., axis], axis, 0).reshape(values.shape[axis], -1)[:, 0]
        middles = line + own / 2
        reach = (middles[1] - middles[0]) / 2 if len(middles) > 1 else own / 2
        distance = np.abs(np.arange(side)[:, None] + 0.5 - middles[None])
        nearest.append(distance.argmin(axis=1))
        within.append(distance.min(axis=1) <= reach)
    drawn = values[np.ix_(*nearest)]
    return np.where(reduce(np.logical_and.outer, within), drawn, np.asarray(outside, values.dtype))


def pointing(points: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image's point lies on its object, and on what share of the other images' objects.

    The share allows for objects that stand in the middle: a fixed point has the same chance as one that was looked for.

    Args:
      points: int [N, 2], (y, x) in pixels.
      masks: bool [N, H, W], the pixel lies on the object.

    Returns:
      (bool [N], float [N]); UserError for fewer than two images.

    Examples:
      >>> import numpy as np, zfjax
      >>> masks = np.zeros((2, 4, 4), bool)
      >>> masks[:, 1:3, 1:3] = True
      >>> zfjax.occlusion.pointing(np.array([[1, 1], [0, 0]]), masks)
      (array([ True, False]), array([1., 0.]))
    """
    if len(masks) < 2:
        raise UserError(f"masks of shape {masks.shape}: at least two images are needed")
    on = masks[(slice(None), *points.T)]  # [object, point]
    own = np.diag(on)
    return own, (on.sum(axis=0) - own) / (len(masks) - 1)


def pointing_p_values(points: np.ndarray, masks: np.ndarray, *, num_permutations: int = 9999) -> tuple[float, float]:
    """Whether points lie on their own objects more often than where objects are exchanged between images, and less.

    Args:
      points, masks: as for `pointing`.
      num_permutations: of the objects. Each p-value is the share of permutations, the images as they are counted with
        them, in which as many points or more (fewer) lie on an object.

    Examples:
      >>> import numpy as np, zfjax
      >>> masks = np.eye(2, dtype=bool)[:, :, None]  # two images of two rows, an object in one of them
      >>> p, contrary = zfjax.occlusion.pointing_p_values(np.array([[0, 0], [1, 0]]), masks)
      >>> round(p, 1), contrary  # of two images one exchange is possible: nothing is shown
      (0.5, 1.0)
    """
    on = masks[(slice(None), *points.T)]
    rng, images = np.random.default_rng(0), np.arange(len(on))
    hits = np.array([on[rng.permutation(images), images].sum() for _ in range(num_permutations)])
    own = np.trace(on)
    as_many, as_few = int((hits >= own).sum()), int((hits <= own).sum())
    return (1 + as_many) / (1 + num_permutations), (1 + as_few) / (1 + num_permutations)


def mean_fill(image: np.ndarray, mean: np.ndarray, square: Sides) -> np.ndarray:
    """The mean training image: 0 in the network's pixels."""
    return np.zeros_like(image)


def grey_fill(image: np.ndarray, mean: np.ndarray, square: Sides) -> np.ndarray:
    """Mid-grey of a stored picture: 128 - mean in the network's pixels."""
    return np.asarray(GREY - mean, mean.dtype)


def blurred_fill(image: np.ndarray, mean: np.ndarray, square: Sides) -> np.ndarray:
    """The image itself, `blurred`."""
    return blurred(image, square)


# What may stand in the square: (image [H, W, C], mean training image [H, W, C], square) -> [H, W, C], network pixels
FILLS = {"mean": mean_fill, "grey": grey_fill, "blur": blurred_fill}


def fill_words(net: Net, fill: str) -> str:
    """What the square shows, in words."""
    if fill == "mean":
        if getattr(net, "mean_colour", None) is not None:
            return "the mean colour of the training pictures"
        return "the mean image" if isinstance(net, nets.OfTable) else "the mean colour of the pictures of this figure"
    return {"grey": "mid-grey", "blur": "the image itself, blurred"}[fill]


class Filling(NamedTuple):
    """What the square shows in one image."""

    image: np.ndarray  # [H, W, C] as the network reads it
    picture: np.ndarray  # uint8 [H, W, 3] as a reader sees it


def filler(net: Net, views: Views, fill: str, *, square: Sides) -> Callable[[Views, int], Filling]:
    """What the square shows: a function of (views, number of the image) -> Filling.

    Args:
      net: any network.
      views: the pictures of the figure: where the network knows no mean, their mean colour is taken.
      fill: "mean", the mean training picture; "grey", mid-grey; "blur", the picture itself under a Gaussian, whose
        standard deviation is a quarter of the square. Paper is silent on its grey.
      square: side of the square, pixels.

    Examples:
      >>> import numpy as np, zfjax
      >>> from zfjax.data import demo
      >>> net = zfjax.FunctionNet(lambda images: {"mean": images.mean((1, 2))}, image_size=64, name="mean")
      >>> views = zfjax.nets.read_views(demo.DemoSource(1, 1, 64), [0], net)
      >>> grey = zfjax.occlusion.filler(net, views, "grey", square=16)(views, 0)
      >>> grey.image.shape, np.unique(grey.picture)
      ((64, 64, 3), array([128], dtype=uint8))

    Raises:
      UserError: no such fill.
    """
    if fill not in FILLS:
        raise UserError(f"fill={fill!r}: one of {', '.join(FILLS)} is needed")
    if fill == "blur":
        return partial(_blurring, square=square, has_mean=isinstance(net, nets.OfTable))
    shape = views.images.shape[1:]
    colour = (GREY,) * nets.num_channels(net) if fill == "grey" else getattr(net, "mean_colour", None)
    if colour is not None:
        stored = np.broadcast_to(
            np.asarray(colour, np.uint8), (1, *nets.size_of(net.picture_size), nets.num_channels(net))
        )
        prepared = np.asarray(net.prepare(stored))[0]
        picture = as_seen(stored[0, : shape[0], : shape[1]])
        return lambda *_: Filling(prepared, picture)
    if isinstance(net, nets.OfTable):
        zero = np.zeros(shape, views.images.dtype)  # the mean is subtracted
        return lambda of, n: Filling(zero, _as_picture(of.pictures[n] - of.images[n]))
    average = np.broadcast_to(views.images.mean(axis=(0, 1, 2), dtype=np.float64).astype(views.images.dtype), shape)
    flat = _as_picture(views.pictures.mean(axis=(0, 1, 2)))
    return lambda of, n: Filling(average, np.broadcast_to(flat, of.pictures[n].shape))


def blurred(image: np.ndarray, square: Sides) -> np.ndarray:
    """[H, W, C] under a Gaussian, whose standard deviation is a quarter of the square. -> the same type, or float32

    At the edges the Gaussian's weights are divided by their sum, so what is constant stays so.
    """
    smooth = np.asarray(image, np.float64)
    for axis, side in enumerate(_each("square", square, smooth.ndim - 1)):
        options: dict[str, Any] = {"sigma": side / 4, "axis": axis, "mode": "constant", "truncate": 9.0}
        shares, sums = (scipy.ndimage.gaussian_filter1d(of, **options) for of in (smooth, np.ones_like(smooth)))
        smooth = shares / sums
    return smooth.astype(image.dtype if jnp.issubdtype(image.dtype, jnp.floating) else np.float32)


def _blurring(views: Views, n: int, *, square: Sides, has_mean: bool) -> Filling:
    image = blurred(views.images[n], square)
    if has_mean:
        return Filling(image, _as_picture(image + (views.pictures[n] - views.images[n])))
    return Filling(image, _as_picture(blurred(views.pictures[n], square)))


def _as_picture(values: np.ndarray) -> np.ndarray:
    picture: np.ndarray = np.clip(values.round(), 0, 255).astype(np.uint8)
    return picture


def _arguments(
    fn: Features, then: Callable[[Any], Any] | None, image: np.ndarray, *, fill: Any, square: Sides
) -> tuple[Any, ...]:
    image, squares = np.asarray(image), _each("square", square, np.ndim(image) - 1)
    functions = as_partial(fn), as_partial(_as_it_is if then is None else then)
    return *functions, image, in_type_of(image, fill), np.array(squares, np.int32)


def _as_it_is(answer: Any) -> Any:
    return answer


SAVING = 1.2  # times the work that has to be saved, before parts of maps are computed and not all of them


def _answer_to(
    fn: Features, then: Callable[[Any], Any] | None, image: np.ndarray, *, fill: Any, square: Sides
) -> Callable[[np.ndarray], Any]:
    """What `fn` and `then` give of the image with the square at corners int32 [B, n], by the way that takes less."""
    *arguments, squares = _arguments(fn, then, image, fill=fill, square=square)
    table = arguments[0].func
    if isinstance(table, features.LayersOfTable) and len(squares) == 2:
        sides = tuple(squares.tolist())
        if changed_parts.times_saved(table.architecture, sides) >= SAVING:
            return lambda corners: _answer_of_parts(*arguments, corners, square=sides)
    return lambda corners: _answer(*arguments, squares, corners)


def in_type_of(image: np.ndarray, fill: Any, *, name: str = "fill") -> np.ndarray:
    """`fill` broadcast to the image, in its type; UserError for one of another shape, or that its type cannot hold."""
    held = np.asarray(fill).astype(image.dtype)
    sides = image.shape[image.ndim - held.ndim :] if held.ndim <= image.ndim else ()
    if len(sides) != held.ndim or any(n not in (1, side) for n, side in zip(held.shape, sides, strict=True)):
        raise UserError(
            f"{name} of shape {held.shape}: the image's, {image.shape}, is needed, or what broadcasts to it"
        )
    if not jnp.issubdtype(image.dtype, jnp.floating) and (held != fill).any():
        raise UserError(
            f"{name}={fill!r}: values of the image's type, {image.dtype}, or an image of floats, are needed"
        )
    return np.broadcast_to(held, image.shape)


@compiled
def _answer(  # noqa: PLR0917  its arguments are made, kept and handed on as one tuple
    fn: Partial, then: Partial, image: jax.Array, fill: jax.Array, square: jax.Array, corners: jax.Array
) -> Any:
    return then(fn(occlude(image, corners, square=square, fill=fill)))


def _of_parts(  # noqa: PLR0917  likewise
    fn: Partial, then: Partial, image: jax.Array, fill: jax.Array, corners: jax.Array, *, square: tuple[int, int]
) -> Any:
    """`_answer` of a function that `features.layers_of` made, for one size of the square."""
    table: Any = fn.func  # a LayersOfTable
    patches = jax.vmap(lambda corner: jax.lax.dynamic_slice(fill, (*corner, 0), (*square, fill.shape[2])))(corners)
    (params,), options = fn.args, {"layers": table.layers, "architecture": table.architecture}
    return then(changed_parts.layers_where_changed(params, image, patches, corners=corners, **options))


_answer_of_parts = compiled(_of_parts, partial(jax.jit, static_argnames="square"))


def _checked(corners: Any, sides: tuple[int, ...], square: Sides, *, whole: bool = True) -> np.ndarray:
    """The corners, int32; UserError unless each square lies inside the image and a `whole` grid spans it."""
    corners, size = np.asarray(corners), "x".join(map(str, sides))
    if corners.ndim < 1 or corners.shape[-1] != len(sides) or not np.issubdtype(corners.dtype, np.integer):
        raise UserError(
            f"corners of shape {corners.shape}, {corners.dtype}: whole numbers [..., {len(sides)}] are needed, "
            f"a corner in the image's {size} pixels"
        )
    if not corners.size:
        raise UserError(f"corners of shape {corners.shape}: at least one place is needed")
    squares, flat = np.array(_each("square", square, len(sides))), corners.reshape(-1, len(sides)).astype(np.int64)
    before, after = flat.min(axis=0), np.array(sides) - flat.max(axis=0) - squares
    if min(squares) < 1 or (before < 0).any() or (after < 0).any():
        raise UserError(
            f"square={square} at (top, left) from {flat.min(axis=0).tolist()} to {flat.max(axis=0).tolist()}: "
            f"squares inside the image of {size} pixels are needed"
        )
    if whole and corners.ndim == len(sides) + 1 and (np.abs(after - before) > 1).any():
        raise UserError(
            f"corners from {before.tolist()} to {flat.max(axis=0).tolist()}: a grid over all of the image's {size} "
            f"pixels, as `places({sides}, ...)` makes it, is needed; some places alone come as a list, "
            f"corners.reshape(-1, {len(sides)})"
        )
    checked: np.ndarray = corners.astype(np.int32)
    return checked


class Look(NamedTuple):
    """What one pass up and one pass back say of each image without a square."""

    probabilities: jax.Array  # float32 [N, classes]; [N, 0] of a network without logits
    channel: jax.Array  # int32 [N] the watched layer's map with the strongest single activation
    row: jax.Array  # int32 [N] its place in the map; 0 in a dense layer
    column: jax.Array  # int32 [N]
    saliency: jax.Array  # float32 [N, H, W] |gradient| of what is watched, summed over the colours: see `look`
    strongest: jax.Array | None = None  # [N] the strongest activation of the watched layer; NaN where one is NaN


class Scenes(NamedTuple):
    """Images of the figure, in the order of their choice."""

    indices: np.ndarray  # int [N] in the validation split
    views: Views
    looks: Look
    labels: np.ndarray  # int [N] class whose probability is watched: the true one, or else the most probable one
    correct: np.ndarray  # bool [N] it is the most probable one


class Swept(NamedTuple):
    """What the net says of N images for each place of the square."""

    activity: jax.Array | np.ndarray  # float32 [N, R, C] sum of the watched map
    probability: jax.Array | np.ndarray | None  # float32 [N, R, C] of the watched class; None without logits
    predicted: jax.Array | np.ndarray | None  # int32 [N, R, C] most probable class; None likewise


class Projected(NamedTuple):
    """One map projected in the image itself and in the M - 1 others that excite it most."""

    images: np.ndarray  # int [M] in the validation split; the image itself first
    projections: np.ndarray  # float32 [M, H, W, C] signed, in the images' unit


NUM_OTHERS = 3  # other images in which the map is projected, as in the paper
SPARE = 16  # images looked at beyond twice those that are needed, to find enough that are classified correctly
bound = cache(partial)  # one function for equal arguments, so that JAX finds what it compiled


def watched_layer(net: Net) -> str:
    """The layer whose strongest map is watched: the last one whose maps are no classes, as the paper's layer 5."""
    with_maps = [layer for layer in nets.hidden_layers(net) if layer in nets.map_layers(net)]
    return (with_maps or net.layers)[-1]


def look(fn: Features, images: jax.Array, *, layer: str, logits: str | None) -> Look:
    """Each image without a square: its class, its strongest map of `layer`, and the plain gradient of the class.

    Args:
      fn: images -> {layer: features} of `layer` and `logits`, as `Net.features` gives it.
      images: float [N, H, W, C], the network's input.
      layer: whose strongest map is looked for.
      logits: the layer of the logits; None where there is none: then the gradient is that of the strongest activation.
    """

    def watched(images: jax.Array) -> tuple[jax.Array, Any]:
        every = fn(images)
        scores = every[layer if logits is None else logits]
        return scores.reshape(len(images), -1).max(axis=1).sum(), every

    slope, every = jax.grad(watched, has_aux=True)(images)
    maps = features.check_places(every[layer], layer)
    batch, *sides, channels = maps.shape
    strongest = maps.reshape(batch, -1).argmax(axis=1).astype(jnp.int32)
    value = jnp.take_along_axis(maps.reshape(batch, -1), strongest[:, None], axis=1)[:, 0]
    place, width = strongest // channels, sides[1] if sides else 1
    where = strongest % channels, place // width, place % width
    scores = jnp.zeros((batch, 0), maps.dtype) if logits is None else every[logits]
    return Look(jax.nn.softmax(_wide(scores)), *where, jnp.abs(slope).sum(axis=-1), _wide(value))


def watch(channel: jax.Array, label: jax.Array, every: Any, *, layer: str, logits: str | None) -> Swept:
    """What occluded images show in their features {layer: [N, ...]}; `layer` and `logits` as for `look`."""
    maps = _wide(every[layer]).reshape(len(every[layer]), -1, every[layer].shape[-1])
    activity = jnp.take(maps, channel, axis=2).sum(axis=1)
    if logits is None:
        return Swept(activity, None, None)
    scores = _wide(every[logits])
    return Swept(activity, jnp.take(jax.nn.softmax(scores), label, axis=1), scores.argmax(axis=1).astype(jnp.int32))


def _wide(features: jax.Array) -> jax.Array:
    """float32 at least: a sum of bfloat16 would keep three digits."""
    return features.astype(jnp.float32) if features.dtype.itemsize < 4 else features


def choose_scenes(net: Net, data: ImageSet, *, layer: str, num: int, seed: int, batch_size: int) -> Scenes:
    """At most `num` images drawn by the seed: first those that are classified correctly or have no label."""
    source = sets.validation_of(data)
    order = np.random.default_rng(seed).permutation(len(source))[: 2 * num + SPARE]
    views = nets.read_views(source, order, net)
    looks = features.in_batches(_looking(net, layer), views.images, batch_size=batch_size)
    logits = nets.logits_layer(net)
    nets.check_finite(net, {layer: looks.strongest} | ({} if logits is None else {logits: looks.probabilities}))
    has_classes = looks.probabilities.shape[1] > 0
    own = np.append(sets.labels_for(data, net), np.int32(-1))[views.labels]  # the last for -1 itself
    views = views._replace(labels=own if has_classes else np.full_like(views.labels, -1))
    no_class = np.full(len(order), -1, np.int32)
    predicted = looks.probabilities.argmax(axis=1).astype(np.int32) if looks.probabilities.shape[1] else no_class
    labels = np.where(views.labels < 0, predicted, views.labels)
    correct = labels == predicted
    return take(Scenes(order, views, looks, labels, correct), np.argsort(~correct, kind="stable")[:num])


def take(scenes: Scenes, rows: np.ndarray) -> Scenes:
    """The images at `rows`."""
    names = tuple(scenes.views.names[row] for row in rows) if scenes.views.names else ()
    without_names = scenes._replace(views=scenes.views._replace(names=()))
    taken: Scenes = jax.tree.map(lambda field: field[rows], without_names)
    return taken._replace(views=taken.views._replace(names=names))


def images_within(net: Net, layer: str, memory: int, *, most: int) -> int:
    """Images of a pass up and back that `memory` MiB hold: `most` at most, and as many on each device."""
    devices = jax.device_count()
    fitting = min(most, batch_size_within(_looking(net, layer), _empty_image(net), memory=memory))
    return max(devices, fitting - fitting % devices)


def places_within(net: Net, layer: str, memory: int) -> int:
    """Places of the square that a batch of `sweep_all` may hold within `memory` MiB; UserError where it is not one."""
    number = np.int32(0)  # all maps and classes need the same memory
    watched = _watching(net, layer=layer, channel=number, label=number)
    return batch_size_within(_answers(net, layer), _empty_image(net), memory=memory, then=watched)


def sweep_all(
    net: Net,
    scenes: Scenes,
    corners: np.ndarray,
    *,
    layer: str,
    square: Sides,
    fill: Callable[[Views, int], Filling],
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> Swept | None:
    """Slide the square over each image: one forward pass for each of its places.

    Args:
      net: any network.
      scenes: the images, from `choose_scenes`.
      corners: int [R, C, 2] from `places`.
      layer: whose map `scenes.looks.channel` is watched.
      square: side of the square, pixels.
      fill: what it shows, from `filler`.
      batch_size: occluded images in memory at the same time, at most; `places_within` derives it from a budget.
      on_batch: called after each batch with the number of places done in it.

    Returns:
      Swept; None where there is no image.
    """
    if not len(scenes.labels):
        return None
    swept, fn = [], _answers(net, layer)
    for n, (channel, label) in enumerate(zip(scenes.looks.channel, scenes.labels, strict=True)):
        options: dict[str, Any] = {"square": square, "batch_size": batch_size, "on_batch": on_batch}
        options |= {
            "fill": fill(scenes.views, n).image,
            "then": _watching(net, layer=layer, channel=channel, label=label),
        }
        swept.append(sweep(fn, scenes.views.images[n], corners, **options))
    whole: Swept = jax.tree.map(lambda *maps: np.stack(maps), *swept)
    logits = nets.logits_layer(net)
    nets.check_finite(net, {layer: whole.activity} | ({} if logits is None else {logits: whole.probability}))
    return whole


def project_maps(
    net: Net,
    source: Source,
    scenes: Scenes,
    *,
    strongest: TopActivations,
    layer: str,
    num_others: int = NUM_OTHERS,
    batch_size: int = 16,
) -> list[Projected]:
    """For each image its strongest map, projected there and in the other images that excite it most.

    Args:
      net: any network.
      source: the split.
      scenes: the images, from `choose_scenes` of this layer.
      strongest: the layer's strongest activations in the split, from `top_activations.scan`.
      layer: where the maps stand.
      num_others: other images for each map, at most.
      batch_size: images that are projected together, at most.
    """
    places, looks = [], scenes.looks  # (number of the scene, image in the split, map, row, column)
    for n, (index, channel) in enumerate(zip(scenes.indices, looks.channel, strict=True)):
        values, images, rows, columns = (np.asarray(field)[channel] for field in strongest)
        others = np.flatnonzero((images >= 0) & (values > 0) & (images != index))[:num_others]
        places.append((n, index, channel, looks.row[n], looks.column[n]))  # as `strongest` need not hold the image
        places += [(n, images[other], channel, rows[other], columns[other]) for other in others]
    number, images, channels, rows, columns = np.array(places).T
    wanted, which = np.unique(images, return_inverse=True)
    views = nets.read_views(source, wanted, net)
    has_places = len(nets.shapes_of(net, [layer])[layer]) == 3
    projections = np.zeros((len(places), *views.images.shape[1:]), np.float32)
    batch_size = min(batch_size, len(places))
    for start in range(0, len(places), batch_size):
        some = np.minimum(np.arange(start, start + batch_size), len(places) - 1)  # filled up: one program for all
        units = Unit(channels[some], (rows[some], columns[some]) if has_places else None)
        projections[some] = net.project(views.images[which[some]], units, layer=layer)
    return [Projected(images[number == n], projections[number == n]) for n in range(len(scenes.labels))]


class Pointing(TypedDict):
    """How often a place lies on the image's object, and on that of another image."""

    object: Share
    interval: tuple[Share, Share]  # Wilson's, of 95 %: all of ten images are 72 to 100 %
    other_object: Share
    p: Share  # one-sided, that it lies on its own more often: permutation test of which image has which object
    p_contrary: Share


class Score(TypedDict):
    """Of the place of the largest drop, and of that of the largest gradient."""

    num_images: Count
    area: float  # the objects' share of the pixels
    occlusion: Pointing
    gradient: Pointing


def score(scenes: Scenes, swept: Swept, corners: np.ndarray, *, square: Sides) -> Score | None:
    """How often the place of the largest drop, and that of the largest |gradient|, lies on the object.

    Each is the centre of the best square among the same places: where the probability (without classes: the activity)
    is lowest, and where the sum of |gradient| over the square is highest. By chance: "area", the objects' share of the
    pixels, and "other_object", how often the point lies on the object of another of the images.

    Returns:
      The numbers; None where the set does not say where its objects are, or there are fewer than two images.
    """
    masks = scenes.views.objects
    if masks is None or len(masks) < 2:
        return None
    sums = square_sums(scenes.looks.saliency, corners, square=square)
    middles = centers(corners, square).reshape(-1, 2)

    def best(harm: np.ndarray) -> Pointing:
        points = middles[harm.reshape(len(masks), -1).argmax(axis=1)]
        own, others = pointing(points, masks)
        low, high = scipy.stats.binomtest(int(own.sum()), len(own)).proportion_ci(0.95, method="wilson")
        p, contrary = pointing_p_values(points, masks)
        return {
            "object": own.mean(),
            "interval": (float(low), float(high)),
            "other_object": others.mean(),
            "p": p,
            "p_contrary": contrary,
        }

    area = masks.mean()
    return {"num_images": len(masks), "area": area, "occlusion": best(-harmed(swept)), "gradient": best(sums)}


def harmed(swept: Swept) -> np.ndarray:
    """float32 [N, R, C], what falls where the square harms: the probability; the activity where there is none."""
    return np.asarray(swept.activity if swept.probability is None else swept.probability)


def _looking(net: Net, layer: str) -> Partial:
    """`look` of a network as a function of images, whose parameters stay arguments of the program."""
    return Partial(bound(look, layer=layer, logits=nets.logits_layer(net)), _answers(net, layer))


def _watching(net: Net, *, layer: str, channel: Any, label: Any) -> Partial:
    """`watch` of what the network's features are."""
    return Partial(bound(watch, layer=layer, logits=nets.logits_layer(net)), channel, label)


def _answers(net: Net, layer: str) -> Partial:
    """images -> features of the layer and the logits."""
    return as_partial(net.features(tuple(dict.fromkeys((layer, nets.logits_layer(net) or layer)))))


def _empty_image(net: Net) -> np.ndarray:
    return np.zeros((*nets.size_of(net.image_size), nets.num_channels(net)), np.float32)
