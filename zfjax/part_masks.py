"""Squares painted over parts of pictures, and where those of Table 1's control stand (Fig. 8)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def mask_squares(images: ArrayLike, places: ArrayLike, *, side: int, fill: float = 0.0) -> jax.Array:
    """A square of `side` pixels around a place of each image, painted over.

    Of the squares of whole pixels it is the one whose centre is nearest to the place; what would hang over the border
    is left out. Paper is silent: the size of the square, and its grey (0 here, the mean of mean-subtracted pixels).

    Args:
      images: float [N, H, W, C].
      places: [N, 2], (y, x) in pixels; pixel (i, j) covers [i, i + 1) x [j, j + 1).
      side: pixels, 1 to the smaller of H and W.
      fill: the value painted.

    Returns:
      [N, H, W, C]; ValueError for a place outside its image, or a side that is none of these.
    """
    images, places = jnp.asarray(images), np.asarray(places, np.float64)
    height, width = images.shape[1:3]
    if not 1 <= side <= min(height, width):
        raise ValueError(f"side={side}: a square of 1 to {min(height, width)} pixels is needed")
    outside = ~((places >= 0) & (places < [height, width])).all(axis=1)
    if outside.any():
        y, x = places[outside][0].tolist()
        place = f"places[{outside.argmax()}]=({y:g}, {x:g})"
        raise ValueError(f"{place}: (y, x) inside the image of {height}x{width} pixels is needed")
    return _paint(images, jnp.asarray(_first_pixels(places, side)), side, fill)


def random_places(parts: np.ndarray, size: int, *, side: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """The control: places whose square lies inside the image and, where that is possible, on none of its parts.

    Drawn evenly among those whose square covers the least of the parts' squares: nothing, save where there is no room.

    Args:
      parts: [N, P, 2] (y, x) in pixels.
      size, side: of the images and of the squares, pixels.
      num, rng: places for each image, and their draw.

    Returns:
      float [num, N, 2], (y, x) in pixels.
    """
    first = np.arange(size - side + 1)
    drawn = []
    for squares in _first_pixels(np.asarray(parts), side):
        rows, columns = (np.maximum(0, side - np.abs(first[None] - squares[:, axis, None])) for axis in (0, 1))
        covered = np.einsum("pr,pc->rc", rows, columns)
        free = np.argwhere(covered == covered.min())
        drawn.append(free[rng.integers(len(free), size=num)] + side / 2)
    return np.stack(drawn, axis=1)


def _first_pixels(places: np.ndarray, side: int) -> np.ndarray:
    """Top row and left column, int32 [..., 2], of the squares of `side` pixels around `places` [..., 2]."""
    return np.ceil(places - side / 2 - 0.5).astype(np.int32)


@partial(jax.jit, static_argnames="side")
def _paint(images: jax.Array, first: jax.Array, side: int, fill: float) -> jax.Array:
    def covered(axis: int) -> jax.Array:
        pixel = jnp.arange(images.shape[1 + axis])[None]
        return (first[:, axis, None] <= pixel) & (pixel < first[:, axis, None] + side)

    square = covered(0)[:, :, None, None] & covered(1)[:, None, :, None]
    return jnp.where(square, jnp.asarray(fill, images.dtype), images)
