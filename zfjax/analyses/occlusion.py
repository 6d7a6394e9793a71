"""What a network says of an image while a square slides over it (sec. 4.2 "Occlusion Sensitivity", Fig. 7).

The squares of a sweep lie wholly inside the image, so that each hides as many pixels as any other. A value found with a
square belongs to the square's centre: `centers` says which pixel that is, `on_image` draws a grid of values over the
image. Paper is silent on the square's size, its stride and its grey.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from zfjax import deconvnet, features, nets
from zfjax.architecture import Architecture
from zfjax.data import ImageSet, sets
from zfjax.errors import UserError
from zfjax.features import Features
from zfjax.nets import Views
from zfjax.network import Params, forward

GREY = 128.0  # of a stored picture


MIB = 2**20


def places(size: int, square: int, stride: int) -> np.ndarray:
    """Every `stride`-th place of the square; what the stride leaves over is shared by both edges.

    Args:
      size: side of the image, pixels.
      square: side of the square, pixels, from 1 to `size`.
      stride: pixels between two places, at least 1.

    Returns:
      int32 [R, R, 2], (top, left) of the square; UserError for a square larger than the image or no such stride.
    """
    if not 1 <= square <= size:
        raise UserError(f"square={square}: 1 to {size} pixels are needed, the image has {size} a side")
    if stride < 1:
        raise UserError(f"stride={stride}: at least 1 pixel is needed")
    line = np.arange((size - square) % stride // 2, size - square + 1, stride, dtype=np.int32)
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)


def centers(corners: np.ndarray, square: int) -> np.ndarray:
    """(y, x) of the pixel in the middle of each square, of an even one the lower right of the four. [..., 2] -> int"""
    return corners + square // 2


def occlude(
    image: jax.Array | np.ndarray,
    corners: jax.Array | np.ndarray,
    *,
    square: int | jax.Array,
    fill: jax.Array | np.ndarray,
) -> jax.Array:
    """One copy of `image` for each place, in which the square shows `fill`.

    Args:
      image: float [H, W, C].
      corners: int32 [B, 2], (top, left) of each square.
      square: side of the square, pixels.
      fill: [H, W, C], what stands where the image is hidden.

    Returns:
      [B, H, W, C].
    """
    rows, columns = (
        (first[:, None] <= line[None]) & (line[None] < first[:, None] + square)
        for first, line in zip(corners.T, (jnp.arange(side, dtype=jnp.int32) for side in image.shape), strict=False)
    )
    hidden = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(hidden, fill[None], image[None])


def sweep(
    fn: Features,
    image: np.ndarray,
    corners: np.ndarray,
    *,
    square: int,
    fill: np.ndarray,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> Any:
    """fn of the image with the square at each place, one forward pass per place.

    The occluded images are made on the device from the one image, a batch at a time. Compiled once for equal numbers
    of places, whatever the image, the fill or the values inside a `Partial`.

    Args:
      fn: images [B, H, W, C] -> array, or tree of arrays, each with B rows.
      image: float32 [H, W, C], as `fn` reads it.
      corners: int [..., 2] from `places`.
      square: side of the square, pixels.
      fill: [H, W, C], or what broadcasts to it; see `FILLS`.
      batch_size: images in memory at the same time, at most; `batch_size_within` derives it from a budget.
      on_batch: called after each batch with the number of places done in it.

    Returns:
      The tree of `fn` as NumPy arrays [..., *its own shape for one image]. UserError for a square that reaches beyond
      the image, no place at all, or a batch size below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: at least 1 is needed")
    flat = np.asarray(corners, np.int32).reshape(-1, 2)
    _check_inside(flat, image.shape, square)
    num_batches = -(-len(flat) // batch_size)
    batch_size = -(-len(flat) // num_batches)  # equal batches, so that little of the last one is filling
    arguments = _arguments(fn, image, fill, square)
    found = []
    for start in range(0, len(flat), batch_size):
        rows = flat[start : start + batch_size]
        filled = np.concatenate([rows, np.repeat(rows[:1], batch_size - len(rows), axis=0)])
        found.append(jax.tree.map(np.asarray, _answer(*arguments, filled)))
        if on_batch is not None:
            on_batch(len(rows))

    def whole(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts)[: len(flat)].reshape(*np.shape(corners)[:-1], *parts[0].shape[1:])

    return jax.tree.map(whole, *found)


def batch_size_within(fn: Features, image: np.ndarray, *, memory: int) -> int:
    """Images that a batch of `sweep` may hold: the budget over what XLA plans for one image, parameters aside.

    Args:
      fn, image: as for `sweep`.
      memory: budget in MiB.

    Returns:
      int of at least 1; UserError where a single image needs more.
    """
    corner = np.zeros((1, 2), np.int32)
    planned = _answer.lower(*_arguments(fn, image, 0.0, 1), corner).compile().memory_analysis()
    assert planned is not None  # all of JAX's own backends tell
    needed = max(1, planned.temp_size_in_bytes + planned.output_size_in_bytes)
    if needed > memory * MIB:
        raise UserError(f"memory={memory}: at least {-(-needed // MIB)} MiB are needed, for a batch of one image")
    return memory * MIB // needed


def square_sums(maps: jax.Array | np.ndarray, corners: np.ndarray, *, square: int) -> np.ndarray:
    """Sum of `maps` [..., H, W] over the square at each place. -> float64 [..., *corners.shape[:-1]]"""
    table = np.zeros((*maps.shape[:-2], maps.shape[-2] + 1, maps.shape[-1] + 1))
    table[..., 1:, 1:] = np.asarray(maps, np.float64).cumsum(axis=-2).cumsum(axis=-1)
    top, left = np.moveaxis(corners, -1, 0)
    bottom, right = top + square, left + square
    return table[..., bottom, right] - table[..., top, right] - table[..., bottom, left] + table[..., top, left]


def on_image(
    values: jax.Array | np.ndarray, corners: np.ndarray, *, square: int, size: int, outside: float
) -> np.ndarray:
    """A grid of values over the image: each pixel takes the value of the nearest centre, of two as near the first.

    Pixels further than half a stride from every centre, along the image's frame, where no square could stand, are
    `outside`.

    Args:
      values: [R, R], one for each of `corners`.
      corners: int [R, R, 2] from `places`.
      square: side of the square, pixels.
      size: side of the image, pixels.
      outside: of the values' own kind.

    Returns:
      [size, size].
    """
    middles = corners[:, 0, 0] + square / 2
    reach = (middles[1] - middles[0]) / 2 if len(middles) > 1 else square / 2
    distance = np.abs(np.arange(size)[:, None] + 0.5 - middles[None])
    nearest, within = distance.argmin(axis=1), distance.min(axis=1) <= reach
    drawn = values[nearest[:, None], nearest[None]]
    return np.where(within[:, None] & within[None], drawn, np.asarray(outside, values.dtype))


def pointing(points: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image's point lies on its object, and on what share of the other images' objects.

    The share allows for objects that stand in the middle: a fixed point has the same chance as a point that was found.

    Args:
      points: int [N, 2], (y, x) in pixels.
      masks: bool [N, H, W], the pixel lies on the object.

    Returns:
      (bool [N], float [N]); UserError for fewer than two images.
    """
    if len(masks) < 2:
        raise UserError(f"masks of shape {masks.shape}: at least two images are needed")
    on = masks[:, points[:, 0], points[:, 1]]  # [object, point]
    own = np.diag(on)
    return own, (on.sum(axis=0) - own) / (len(masks) - 1)


def mean_fill(image: np.ndarray, mean: np.ndarray, square: int) -> np.ndarray:
    """The mean training image: 0 in the network's pixels."""
    return np.zeros_like(image)


def grey_fill(image: np.ndarray, mean: np.ndarray, square: int) -> np.ndarray:
    """Mid-grey of a stored picture: 128 - mean in the network's pixels."""
    return np.float32(GREY) - mean


def blurred_fill(image: np.ndarray, mean: np.ndarray, square: int) -> np.ndarray:
    """The image itself under a Gaussian, whose standard deviation is a quarter of the square.

    Paper is silent. At the edges the Gaussian's weights are divided by their sum, so what is constant stays so.
    """
    line = np.arange(len(image))
    weights = np.exp(-((line[:, None] - line[None]) ** 2) / (2 * (square / 4) ** 2))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("yi,xj,ijc->yxc", weights, weights, image, optimize=True).astype(np.float32)


# What may stand in the square: (image [s, s, C], mean training image [s, s, C], square) -> [s, s, C], network pixels
FILLS = {"mean": mean_fill, "grey": grey_fill, "blur": blurred_fill}


def _arguments(fn: Features, image: np.ndarray, fill: Any, square: int) -> tuple[Any, ...]:
    image = np.asarray(image, np.float32)
    filled = np.broadcast_to(np.asarray(fill, np.float32), image.shape)
    return fn if isinstance(fn, Partial) else Partial(fn), image, filled, np.int32(square)


@jax.jit
def _answer(fn: Partial, image: jax.Array, fill: jax.Array, square: jax.Array, corners: jax.Array) -> Any:
    return fn(occlude(image, corners, square=square, fill=fill))


def _check_inside(corners: np.ndarray, shape: tuple[int, ...], square: int) -> None:
    if not len(corners):
        raise UserError(f"corners of shape {corners.shape}: at least one place is needed")
    last = np.array(shape[:2]) - square
    if square < 1 or (corners < 0).any() or (corners > last[None]).any():
        raise UserError(
            f"square={square} at (top, left) from {corners.min(axis=0).tolist()} to {corners.max(axis=0).tolist()}: "
            f"squares inside the image of {shape[0]}x{shape[1]} pixels are needed"
        )


class Look(NamedTuple):
    """What one pass up and one pass back say of each image without a square."""

    probabilities: jax.Array  # float32 [N, classes]
    channel: jax.Array  # int32 [N] the watched layer's map with the strongest single activation
    row: jax.Array  # int32 [N] its place in the map; 0 in a dense layer
    column: jax.Array  # int32 [N]
    saliency: jax.Array  # float32 [N, s, s] |gradient| of the most probable class's logit, summed over the colours


class Scenes(NamedTuple):
    """Images of the figure, in the order of their choice."""

    indices: np.ndarray  # int [N] in the validation split
    views: Views
    looks: Look
    labels: np.ndarray  # int [N] class whose probability is watched: the true one, or else the most probable one
    correct: np.ndarray  # bool [N] it is the most probable one


class Swept(NamedTuple):
    """What the net says of N images for each place of the square."""

    activity: jax.Array | np.ndarray  # float32 [N, R, R] sum of the watched map
    probability: jax.Array | np.ndarray  # float32 [N, R, R] of the watched class
    predicted: jax.Array | np.ndarray  # int32 [N, R, R] most probable class


class Projected(NamedTuple):
    """One map projected in the image itself and in the M - 1 others that excite it most."""

    images: np.ndarray  # int [M] in the validation split; the image itself first
    projections: np.ndarray  # float32 [M, s, s, 3] signed, pixels


SPARE = 16  # images looked at beyond twice those that are needed, to find enough that are classified correctly


bound = cache(partial)  # one function for equal arguments, so that JAX finds what it compiled


def look(params: Params, images: jax.Array, *, layer: str, architecture: Architecture) -> Look:
    """Each image without a square: its class, its strongest map of `layer`, and the plain gradient of the class."""
    logits, trace = forward(params, images, architecture=architecture)
    watched = trace[layer].features
    batch, *places, channels = watched.shape
    strongest = watched.reshape(batch, -1).argmax(axis=1).astype(jnp.int32)
    place, width = strongest // channels, places[1] if places else 1
    last = architecture.layer_names[-1]
    top = jax.nn.one_hot(logits.argmax(axis=1), architecture.num_classes, dtype=logits.dtype)
    slope = deconvnet.gradient(params, trace, top, layer=last, architecture=architecture)
    where = strongest % channels, place // width, place % width
    return Look(jax.nn.softmax(logits), *where, jnp.abs(slope).sum(axis=-1))


def choose_scenes(net: nets.TrainedNet, data: ImageSet, layer: str, num: int, seed: int, *, batch_size: int) -> Scenes:
    """At most `num` images drawn by the seed: first those that are classified correctly or have no label."""
    source = sets.validation_of(data)
    order = np.random.default_rng(seed).permutation(len(source))[: 2 * num + SPARE]
    views = nets.read_views(source, order, net)
    fn = Partial(bound(look, layer=layer, architecture=net.architecture), net.params)
    looks = features.in_batches(fn, views.images, batch_size=batch_size)
    predicted = looks.probabilities.argmax(axis=1).astype(np.int32)
    if data.class_names != net.class_names:  # the labels are those of other classes
        views = views._replace(labels=np.full_like(views.labels, -1))
    labels = np.where(views.labels < 0, predicted, views.labels)
    correct = labels == predicted
    return take(Scenes(order, views, looks, labels, correct), np.argsort(~correct, kind="stable")[:num])


def take(scenes: Scenes, rows: np.ndarray) -> Scenes:
    """The images at `rows`."""
    return jax.tree.map(lambda field: field[rows], scenes)


def images_within(net: nets.TrainedNet, layer: str, memory: int, *, most: int) -> int:
    """Images of a pass up and back that `memory` MiB hold: `most` at most, and as many on each device."""
    fn = Partial(bound(look, layer=layer, architecture=net.architecture), net.params)
    size, devices = net.architecture.image_size, jax.device_count()
    image = np.zeros((size, size, net.architecture.channels), np.float32)
    fitting = min(most, batch_size_within(fn, image, memory=memory))
    return max(devices, fitting - fitting % devices)


def watch(
    params: Params, channel: jax.Array, label: jax.Array, images: jax.Array, *, layer: str, architecture: Architecture
) -> Swept:
    """What the maps show of each occluded image, in N places."""
    logits, trace = forward(params, images, architecture=architecture)
    watched = trace[layer].features.reshape(len(images), -1, architecture.layer(layer).features)
    activity = jnp.take(watched, channel, axis=2).sum(axis=1)
    return Swept(activity, jnp.take(jax.nn.softmax(logits), label, axis=1), logits.argmax(axis=1).astype(jnp.int32))


def score(scenes: Scenes, swept: Swept, corners: np.ndarray, square: int) -> dict[str, Any]:
    """How often the place of the largest drop, and that of the largest |gradient|, lies on the object.

    Each is the centre of the best square among the same places: where the probability is lowest, and where the sum of
    |gradient| over the square is highest. By chance: "area", the objects' share of the pixels, and "other_object", how
    often the point lies on the object of another of the images.
    """
    masks = scenes.views.objects
    assert masks is not None  # only images of a set that says where its objects are are scored
    sums = square_sums(scenes.looks.saliency, corners, square=square)
    middles = centers(corners, square).reshape(-1, 2)
    found: dict[str, Any] = {"num_images": len(masks), "area": masks.mean()}
    for name, harm in {"occlusion": -swept.probability, "gradient": sums}.items():
        own, others = pointing(middles[harm.reshape(len(masks), -1).argmax(axis=1)], masks)
        error = own.std() / len(masks) ** 0.5
        found[name] = {"object": own.mean(), "standard_error": error, "other_object": others.mean()}
    return found
