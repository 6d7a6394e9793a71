"""Layers with more features than there are images, by their inner products alone (Table 7).

A layer with more features than there are images (Fig. 3's layer 1 has 290,400) is never held as a whole: linear
models see features only through their inner products. `gram_matrix` adds these up over blocks of features, and
`kernel_coordinates` gives each image as many coordinates as there are training images, with the same inner products
and therefore the same classifier.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

_BLOCK_BYTES = 1 << 28  # of a block of features, in `gram_matrix`
_ROWS = 2048  # of a matrix of all images at a time: a second one would double the memory
# On the diagonal, relative to the mean square norm: above what float32 leaves of a zero eigenvalue, as duplicates and
# fewer features than images give them; as if each image had one more feature, of its own, of a hundredth of the norm
_JITTER = 1e-4


def gram_matrix(features: np.ndarray, on_block: Callable[[int], None] = lambda features: None) -> np.ndarray:
    """Inner products of all images' features less their mean, float32 [N, N].

    They are added up over blocks of features that take 256 MB each, of which three are held beside the matrix. Without
    the mean, which no classifier with a bias sees, less is lost to rounding.

    Args:
      features: float32 [N, D], in memory or a `numpy.memmap`.
      on_block: called with the number of features after each block, to show progress.
    """
    num_images, num_features = features.shape
    width = max(1, _BLOCK_BYTES // (4 * num_images))
    gram = np.zeros((num_images, num_images), np.float32)
    for first in range(0, num_features, width):
        block = jnp.asarray(features[:, first : first + width])
        block = block - block.mean(axis=0)[None]
        for top in range(0, num_images, _ROWS):  # the lower half, some rows at a time
            end = top + _ROWS
            gram[top:end, :end] += _inner_products(block[top:end], block[:end])
        on_block(block.shape[1])
    for top in range(0, num_images, _ROWS):
        gram[:top, top : top + _ROWS] = gram[top : top + _ROWS, :top].T
    return gram


def kernel_coordinates(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of images whose inner products are those of their `linear_models.normalized` features.

    The centred Gram matrix of the training images is L L^T (Cholesky): row i of L is training image i, and
    L^-1 k stands for an image whose inner products with the training images are k.

    Args:
      train: [n, n] inner products of the training images' features.
      test: [m, n] inner products of test and training images.
    Returns:
      float32 [n, n] and [m, n]. Beside these and the arguments memory holds one matrix of float64 [n, n].
      ValueError where one is not finite, or `train` no matrix of inner products.
    """
    if not np.isfinite(test).all():
        raise ValueError("test: inner products of finite features are needed")
    centred = train.astype(np.float64)  # becomes L in its place
    of_image, overall = centred.mean(axis=1), centred.mean()
    centred -= of_image[:, None]
    centred -= of_image[None] - overall
    scale = np.trace(centred) / len(centred) or 1.0  # the mean square norm
    centred /= scale
    centred[np.diag_indices_from(centred)] += _JITTER
    try:  # LAPACK works in place on columns, and the transpose of a symmetric matrix is itself
        lower = scipy.linalg.cholesky(centred.T, lower=True, overwrite_a=True)
    except ValueError as error:  # LinAlgError is one
        raise ValueError(f"train: inner products of finite features are needed ({error})") from error
    coordinates = np.empty(test.shape, np.float32)
    for top in range(0, len(test), _ROWS):
        crossed = test[top : top + _ROWS].astype(np.float64)
        crossed -= crossed.mean(axis=1, keepdims=True) + of_image[None] - overall
        crossed /= scale
        solved = scipy.linalg.solve_triangular(lower, crossed.T, lower=True, overwrite_b=True, check_finite=False)
        coordinates[top : top + _ROWS] = solved.T
    return lower.astype(np.float32, order="C"), coordinates


@jax.jit
def _inner_products(rows: jax.Array, block: jax.Array) -> jax.Array:
    return jnp.matmul(rows, block.T, precision="highest")
