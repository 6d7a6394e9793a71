"""The operations of the convnet and, derived from them, their ways back: filters, pools, contrast norm.

Arrays are NHWC, kernels HWIO. The way back of a filter or a pool is its transpose as JAX derives it, so strides,
groups and padding are written once, on the way up.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zfjax.architecture import ContrastNorm, Conv, Pool, Shape, pooled_size
from zfjax.errors import UserError, saying_keywords

# Names of `jax.named_scope`s. A scope is a note on an equation and changes nothing of the program that runs.
SKIPPED = "skipped_on_the_way_down"
KEPT = "kept_on_the_way_down"


class Pooled(NamedTuple):
    """Result of `max_pool`.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> pooled = zfjax.max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), size=2, stride=2)
      >>> pooled.values[0, :, :, 0]
      Array([[ 5.,  7.],
             [13., 15.]], dtype=float32)
      >>> pooled.switches[0, :, :, 0]
      Array([[3, 3],
             [3, 3]], dtype=uint8)
    """

    values: jax.Array  # [B, H', W', C] the maximum of each window
    switches: jax.Array  # uint8 [B, H', W', C] its place in the window, dy * size + dx


def conv(images: jax.Array, kernel: jax.Array, layer: Conv) -> jax.Array:
    """Filter [B, H, W, C] with `layer`'s stride, padding and groups; no bias. -> [B, H', W', layer.features]"""
    padding = layer.padding
    if max(padding) >= layer.kernel:  # its transpose cuts one border; where it pads the other, XLA on CPU reads amiss
        images, padding = jnp.pad(images, ((0, 0), padding, padding, (0, 0))), (0, 0)
    filter_group = partial(
        lax.conv_general_dilated,
        window_strides=(layer.stride, layer.stride),
        padding=(padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    # One convolution for each group, as XLA takes ten times as long on CPU for the kernel's gradient of a grouped one
    groups = (jnp.split(array, layer.groups, axis=-1) for array in (images, kernel))
    return jnp.concatenate([filter_group(*group) for group in zip(*groups, strict=True)], axis=-1)


@saying_keywords
def conv_transpose(maps: jax.Array, kernel: jax.Array, *, layer: Conv, input_shape: Shape) -> jax.Array:
    """The transpose of `conv`: <conv(x), maps> = <x, conv_transpose(maps)>; "filtering" of sec. 2.1.

    Args:
      maps: [B, H', W', layer.features].
      kernel: the kernel used going up, HWIO.
      layer: row of the architecture.
      input_shape: (H, W, C) that `conv` read.

    Returns:
      [B, H, W, C].
    """
    below = jax.ShapeDtypeStruct((maps.shape[0], *input_shape), maps.dtype)
    signal: jax.Array
    (signal,) = jax.linear_transpose(lambda x: conv(x, kernel, layer), below)(maps)
    return signal


@saying_keywords
def max_pool(maps: jax.Array, *, size: int = 3, stride: int = 2) -> Pooled:
    """Max-pooling that also returns the position of each maximum (the switches of sec. 2.1).

    The last window may hang over the bottom and right edge; what hangs over never wins. Of equal values the first
    in row-major order wins (Paper is silent). A NaN in a window comes out as NaN. Reverse and forward derivative
    are the linear read at the switches, so the backward pass is `unpool` and windows that share a maximum add up.

    Args:
      maps: float [B, H, W, C].
      size: side of the window, 1 to 16.
      stride: distance between windows.

    Returns:
      Pooled(values [B, H', W', C], switches uint8 [B, H', W', C]); UserError for a window that does not fit.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> maps = jnp.array([[1.0, 9.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 2.0]])[None, :, :, None]
      >>> values, switches = zfjax.max_pool(maps)
      >>> values.ravel(), switches.ravel()  # the second of the window's nine places
      (Array([9.], dtype=float32), Array([1], dtype=uint8))
    """
    if not 1 <= size <= 16 or stride < 1:
        raise UserError(f"size={size}, stride={stride}: a size of 1 to 16 and a stride of at least 1 are needed")
    if not jnp.issubdtype(maps.dtype, jnp.floating):
        raise UserError(f"maps of type {maps.dtype}: floating point is needed")
    pool = Pool(size, stride)
    if maps.ndim != 4 or min(_pooled_shape(maps.shape, pool)[1:3]) < 1:
        raise UserError(
            f"maps of shape {maps.shape}: [B, H, W, C] is needed, with H and W of at least "
            f"max(1, size - stride + 1) = {pool.smallest} for {pool}"
        )
    with jax.named_scope("kept_on_the_way_down"):  # for zfjax.anymodel: a note, which changes no program
        return Pooled(*_max_pool(maps, pool))


@saying_keywords
def unpool(values: jax.Array, switches: jax.Array, *, shape: Shape, size: int = 3, stride: int = 2) -> jax.Array:
    """Put each value at its switch and zeros elsewhere: the transpose of pooling (sec. 2.1, "Unpooling").

    Paper is silent on overlapping windows that share a maximum: their values add, as in the adjoint of pooling.

    Args:
      values: [B, H', W', C].
      switches: uint8 [B, H', W', C] from `max_pool`.
      shape: (H, W) or (H, W, C) of the map that was pooled.
      size: side of the window that was pooled.
      stride: distance of the windows.

    Returns:
      [B, H, W, C]; UserError for shapes that do not fit.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> maps = jnp.array([[1.0, 9.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 2.0]])[None, :, :, None]
      >>> values, switches = zfjax.max_pool(maps)
      >>> zfjax.unpool(values, switches, shape=(3, 3))[0, :, :, 0]
      Array([[0., 9., 0.],
             [0., 0., 0.],
             [0., 0., 0.]], dtype=float32)
    """
    if values.ndim != 4 or not jnp.issubdtype(values.dtype, jnp.floating):
        raise UserError(f"values of shape {values.shape}, {values.dtype}: floating point [B, H', W', C] is needed")
    below = (values.shape[0], shape[0], shape[1], values.shape[-1])
    if values.shape != switches.shape or values.shape != _pooled_shape(below, Pool(size, stride)):
        raise UserError(
            f"values {values.shape}, switches {switches.shape}, shape={shape}: pooling {below[1:]} with "
            f"size={size}, stride={stride} gives {_pooled_shape(below, Pool(size, stride))}"
        )
    return _unpool(values, switches, shape=below, pool=Pool(size, stride))


@jax.named_scope("skipped_on_the_way_down")  # for zfjax.anymodel: a note, which changes no program
def contrast_norm(maps: jax.Array, norm: ContrastNorm) -> jax.Array:
    """Divide each value by a power of the energy of its neighbouring maps: see `ContrastNorm`. -> same shape"""
    energy = norm.k + norm.alpha * _sum_of_neighbours(maps * maps, norm.num_maps)
    if norm.beta == 0.75:  # the paper's exponent without `pow`, which takes two thirds more time on CPU
        root = lax.rsqrt(energy)
        return maps * (root * jnp.sqrt(root))
    return maps * energy**-norm.beta


def _sum_of_neighbours(maps: jax.Array, num_maps: int) -> jax.Array:
    """Sum over `num_maps` maps around each, as a banded matrix: its derivative is as fast as itself."""
    place = np.arange(maps.shape[-1])
    band = abs(place[None] - place[:, None]) <= num_maps // 2
    return jnp.matmul(maps, jnp.asarray(band, maps.dtype), precision=lax.Precision.HIGHEST)


def _pooled_shape(shape: Shape, pool: Pool) -> Shape:
    return (shape[0], pooled_size(shape[1], pool), pooled_size(shape[2], pool), shape[3])


def _hang(shape: Shape, pool: Pool) -> list[tuple[int, int]]:
    """By how much the last windows hang over, (before, after) the rows and the columns."""
    reach = [(places - 1) * pool.stride + pool.size for places in _pooled_shape(shape, pool)[1:3]]
    return [(0, max(0, far - side)) for far, side in zip(reach, shape[1:3], strict=True)]


def _windows(maps: jax.Array, pool: Pool, fill: float) -> list[jax.Array]:
    """One [B, H', W', C] view for each place of the window, in row-major order."""
    batch, rows, columns, channels = _pooled_shape(maps.shape, pool)
    hang = [(*sides, 0) for sides in _hang(maps.shape, pool)]
    padded = lax.pad(maps, jnp.asarray(fill, maps.dtype), ((0, 0, 0), *hang, (0, 0, 0)))
    return [
        lax.slice(
            padded,
            (0, dy, dx, 0),
            (batch, dy + (rows - 1) * pool.stride + 1, dx + (columns - 1) * pool.stride + 1, channels),
            (1, pool.stride, pool.stride, 1),
        )
        for dy in range(pool.size)
        for dx in range(pool.size)
    ]


# Switches are compared, place by place, out of nine views of the maps. CPUs and GPUs fuse that into one pass; a TPU
# moves every view through its memory. There XLA's own reduction and its derivative do the same in half the traffic.
@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool(maps: jax.Array, pool: Pool) -> tuple[jax.Array, jax.Array]:
    values, switches = pool_by_comparison(maps, pool)
    values = lax.platform_dependent(
        maps, values, tpu=lambda maps, _: pool_by_reduction(maps, pool), default=lambda _, values: values
    )
    return values, switches


@_max_pool.defjvp
def _max_pool_jvp(
    pool: Pool, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, Any]]:  # switches have a tangent of type float0
    values, switches = _max_pool(*primals, pool)
    tangent = lax.platform_dependent(
        *primals,
        *tangents,
        switches,
        tpu=lambda maps, tangent, _: read_by_reduction(maps, tangent, pool),
        default=lambda _, tangent, switches: read_by_comparison(tangent, switches, pool),
    )
    return (values, switches), (tangent, np.zeros(switches.shape, jax.dtypes.float0))


def pool_by_comparison(maps: jax.Array, pool: Pool) -> tuple[jax.Array, jax.Array]:
    """(values, switches) by comparing the places of each window in turn."""
    views = _windows(maps, pool, fill=-jnp.inf)
    values, switches = views[0], jnp.zeros(views[0].shape, jnp.uint8)
    for place, view in enumerate(views[1:], start=1):
        wins = (view > values) | (jnp.isnan(view) & ~jnp.isnan(values))
        values = jnp.where(wins, view, values)
        switches = jnp.where(wins, jnp.uint8(place), switches)
    return values, switches


def pool_by_reduction(maps: jax.Array, pool: Pool) -> jax.Array:
    """The values alone, by XLA's reduction over windows."""
    sides, steps = (1, pool.size, pool.size, 1), (1, pool.stride, pool.stride, 1)
    maxima: jax.Array = lax.reduce_window(
        maps, -np.inf, lax.max, sides, steps, ((0, 0), *_hang(maps.shape, pool), (0, 0))
    )
    return maxima


def read_by_reduction(maps: jax.Array, tangent: jax.Array, pool: Pool) -> jax.Array:
    """`read_by_comparison` at the switches of `maps`, by the derivative of XLA's reduction.

    Its transpose, which training uses, gives to the first of equal values, as that of `read_by_comparison` does; the
    forward derivative may read another of them. It passes by NaN and windows of nothing but -inf: here the one is the
    largest of all numbers, the other a number.
    """
    largest = jnp.asarray(jnp.finfo(maps.dtype).max, maps.dtype)  # type: ignore[no-untyped-call]
    ranked = jnp.where(jnp.isnan(maps), jnp.inf, jnp.clip(maps, -largest, largest))
    tangents: jax.Array = jax.jvp(lambda maps: pool_by_reduction(maps, pool), (ranked,), (tangent,))[1]
    return tangents


def read_by_comparison(maps: jax.Array, switches: jax.Array, pool: Pool) -> jax.Array:
    """The value at each window's switch: pooling as the linear map that it is once the switches are given."""
    zero = jnp.zeros((), maps.dtype)
    views = _windows(maps, pool, fill=0.0)
    return sum(
        (jnp.where(switches == place, view, zero) for place, view in enumerate(views[1:], start=1)),
        start=jnp.where(switches == 0, views[0], zero),
    )


def _unpool(values: jax.Array, switches: jax.Array, *, shape: Shape, pool: Pool) -> jax.Array:
    below = jax.ShapeDtypeStruct(shape, values.dtype)
    maps: jax.Array
    (maps,) = jax.linear_transpose(lambda x: read_by_comparison(x, switches, pool), below)(values)
    return maps
