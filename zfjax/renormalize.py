"""The renormalisation of sec. 3, without which a few first-layer filters dominate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.network import Params


def renormalize(params: Params, radius: float = 0.1) -> Params:
    """Scale each convolutional filter whose RMS exceeds `radius` back to it (sec. 3), leaving all else as it is.

    The RMS of a filter is taken over its height, width and input maps. Biases and dense layers are not touched.

    Args:
      params: any tree; its 4-D leaves are HWIO kernels.
      radius: above 0, in units of the weights.

    Returns:
      The same tree. ValueError for a radius that is not above 0.
    """
    if not radius > 0:
        raise ValueError(f"radius={radius!r}: a number above 0 is needed")
    return jax.tree.map(lambda leaf: _renormalize_kernel(leaf, radius) if leaf.ndim == 4 else leaf, params)


def filter_rms(kernel: jax.Array | np.ndarray) -> jax.Array:
    """Root mean square of each filter of an HWIO kernel. -> [O]"""
    return jnp.sqrt(jnp.mean(kernel * kernel, axis=(0, 1, 2)))


def _renormalize_kernel(kernel: jax.Array, radius: float) -> jax.Array:
    rms = filter_rms(kernel)
    scale = jnp.where(rms > radius, radius / jnp.maximum(rms, radius), 1.0)
    return kernel * scale.astype(kernel.dtype)[None, None, None]
