"""What a network says of an image while a square slides over it (sec. 4.2 "Occlusion Sensitivity", Fig. 7).

The squares of a sweep lie wholly inside the image, so that each hides as many pixels as any other. A value found with a
square belongs to the square's centre: `centers` says which pixel that is, `on_image` draws a grid of values over the
image. Paper is silent on the square's size, its stride and its grey.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from zfjax.features import Features

GREY = 128.0  # of a stored picture
MIB = 2**20


def places(size: int, square: int, stride: int) -> np.ndarray:
    """Every `stride`-th place of the square; what the stride leaves over is shared by both edges.

    Args:
      size: side of the image, pixels.
      square: side of the square, pixels, from 1 to `size`.
      stride: pixels between two places, at least 1.

    Returns:
      int32 [R, R, 2], (top, left) of the square; ValueError for a square larger than the image or no such stride.
    """
    if not 1 <= square <= size:
        raise ValueError(f"square={square}: 1 to {size} pixels are needed, the image has {size} a side")
    if stride < 1:
        raise ValueError(f"stride={stride}: at least 1 pixel is needed")
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
      The tree of `fn` as NumPy arrays [..., *its own shape for one image]. ValueError for a square that reaches beyond
      the image, no place at all, or a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1 is needed")
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
      int of at least 1; ValueError where a single image needs more.
    """
    corner = np.zeros((1, 2), np.int32)
    planned = _answer.lower(*_arguments(fn, image, 0.0, 1), corner).compile().memory_analysis()
    assert planned is not None  # all of JAX's own backends tell
    needed = max(1, planned.temp_size_in_bytes + planned.output_size_in_bytes)
    if needed > memory * MIB:
        raise ValueError(f"memory={memory}: at least {-(-needed // MIB)} MiB are needed, for a batch of one image")
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
      (bool [N], float [N]); ValueError for fewer than two images.
    """
    if len(masks) < 2:
        raise ValueError(f"masks of shape {masks.shape}: at least two images are needed")
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
        raise ValueError(f"corners of shape {corners.shape}: at least one place is needed")
    last = np.array(shape[:2]) - square
    if square < 1 or (corners < 0).any() or (corners > last[None]).any():
        raise ValueError(
            f"square={square} at (top, left) from {corners.min(axis=0).tolist()} to {corners.max(axis=0).tolist()}: "
            f"squares inside the image of {shape[0]}x{shape[1]} pixels are needed"
        )
