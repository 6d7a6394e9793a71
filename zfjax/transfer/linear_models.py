"""Linear classifiers on frozen features (sec. 5.1, 5.2): softmax, SVM and logistic regression, by one solver.

All three minimise

    mean over examples of loss(scores, targets) + penalty / 2 * |W|^2,    scores = features @ W + b,

which is smooth and convex, from W = b = 0 by L-BFGS (optax), on all examples at once. Features are centred and scaled
to a mean square norm of 1 first, so that one list of penalties serves every layer.

A fit ends by what is left of its objective. With a penalty the objective is strongly convex in the weights, so for the
same biases it lies at most |g|^2 / (2 penalty) above its minimum where its gradient is g. That is compared with the
objective itself, the free biases' gradient counted in: a bound on the gradient alone stops weak penalties far too early
(softmax on digits at 1e-6: 53 % above the minimum).

A layer with more features than there are images (Fig. 3's layer 1 has 290,400) is never held as a whole: linear
models see features only through their inner products. `gram_matrix` adds these up over blocks of features, and
`kernel_coordinates` gives each image as many coordinates as there are training images, with the same inner products
and therefore the same classifier (Table 7).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
from jax import lax

from zfjax.errors import UserError

Loss = Literal["softmax", "svm", "logistic"]
PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # strongest first; each fit starts where the one before ended
TOLERANCE = 1e-3  # share of the objective at which a fit ends; reached at each of these penalties, on digits
MAX_ITERATIONS = 5000
AT_ONCE = 10  # iterations, between which Ctrl-C can stop a fit: seconds on all of Caltech-256


class LinearModel(NamedTuple):
    """scores = features @ weights + bias."""

    weights: jax.Array  # float32 [features, classes]
    bias: jax.Array  # float32 [classes]
    left: jax.Array  # of the objective, a share, where the fit ended; above TOLERANCE only after MAX_ITERATIONS
    iterations: jax.Array


class Chosen(NamedTuple):
    """A model with the penalty that did best on held-out examples."""

    model: LinearModel
    penalty: float


def targets_of(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [N, classes]: 1 for an example's class, -1 for all others. labels: int [N]

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.linear_models.targets_of(np.array([0, 2]), 3)
      array([[ 1., -1., -1.],
             [-1., -1.,  1.]], dtype=float32)
    """
    return np.where(np.arange(num_classes)[None] == labels[:, None], 1, -1).astype(np.float32)


def scores(model: LinearModel, features: np.ndarray) -> np.ndarray:
    """float32 [N, classes] of features [N, D]; UserError where they are not finite, and so have no order.

    Examples:
      >>> import numpy as np, zfjax
      >>> weights, bias = np.array([[1.0, -1.0]]), np.array([0.0, 0.5])
      >>> model = zfjax.linear_models.LinearModel(weights, bias, left=0.0, iterations=0)
      >>> zfjax.linear_models.scores(model, np.array([[2.0]]))
      array([[ 2. , -1.5]], dtype=float32)
    """
    logits = np.asarray(jnp.matmul(features, model.weights, precision="highest") + model.bias[None])
    if not np.isfinite(logits).all():
        raise UserError("features: their scores are not finite; check that the features are")
    return logits


def converged(model: LinearModel) -> bool:
    """Whether the fit ended at TOLERANCE, not only after MAX_ITERATIONS."""
    return bool(model.left <= TOLERANCE)


def fit(
    features: np.ndarray,
    targets: np.ndarray,
    penalty: float,
    *,
    loss: Loss,
    start: LinearModel | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> LinearModel:
    """The linear model that minimises loss and penalty.

    Args:
      features: float32 [N, D], normalised.
      targets: float32 [N, C], 1 and -1; 0 leaves an example out of a class ("logistic" alone).
      penalty: of the squared weights; biases are free. Without one (0) nothing bounds what is left, and a fit ends
        where the gradient is 0 or after `max_iterations`.
      loss: "softmax": cross-entropy of the class; "svm": squared hinge of each class against the others, summed;
        "logistic": cross-entropy of each class by itself, summed.
      start: where to begin.
      tolerance: the share of the objective that may be left.
      max_iterations: steps after which to end in any case.

    Raises:
      UserError: a penalty below 0, another loss, shapes that do not fit, or a fit that ended in numbers that are not
        finite, as NaN in the features gives.

    Examples:
      >>> import numpy as np, zfjax
      >>> features = np.array([[-1.0], [-1.0], [1.0]], np.float32)
      >>> targets = zfjax.linear_models.targets_of(np.array([0, 0, 1]), 2)
      >>> model = zfjax.linear_models.fit(features, targets, 1e-3, loss="softmax")
      >>> zfjax.linear_models.scores(model, features).argmax(axis=1)
      array([0, 0, 1])
    """
    if not (np.isfinite(penalty) and penalty >= 0):
        raise UserError(f"penalty={penalty}: a finite number, 0 or more, is needed")
    if loss not in _LOSSES:
        raise UserError(f"loss={loss!r}: one of {', '.join(map(repr, _LOSSES))} is needed")
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets):
        raise UserError(f"features {features.shape}, targets {targets.shape}: [N, D] and [N, C] are needed")
    shape = features.shape[1], targets.shape[1]
    weights = (jnp.zeros(shape), jnp.zeros(shape[1])) if start is None else (start.weights, start.bias)
    examples = jnp.asarray(features), jnp.asarray(targets)
    model = _minimize(weights, examples, penalty, loss=loss, tolerance=tolerance, max_iterations=max_iterations)
    if not all(np.isfinite(part).all() for part in (model.weights, model.bias)) or np.isnan(model.left):
        raise UserError(
            f"penalty={penalty}: the {loss} is not finite after {model.iterations} steps; check the features"
        )
    return model


def fit_chosen(
    features: np.ndarray,
    targets: np.ndarray,
    held: np.ndarray,
    *,
    loss: Loss,
    quality: Callable[[np.ndarray, np.ndarray], float],
    penalties: Sequence[float] = PENALTIES,
) -> Chosen:
    """Chooses the penalty by the held-out examples, then fits all of them with it.

    Of penalties that do equally well the strongest is taken; where nothing is held out, the middle one of the list.

    Args:
      features: float32 [N, D], normalised.
      targets: float32 [N, C], as for `fit`.
      held: bool [N], the examples to choose by.
      loss: as for `fit`.
      quality: (scores, targets) of the held-out examples -> what should be high.
      penalties: those to try, strongest first; at least one.

    Examples:
      >>> import numpy as np, zfjax
      >>> features = np.array([[-1.0], [-1.0], [1.0], [1.0]], np.float32)
      >>> targets = zfjax.linear_models.targets_of(np.array([0, 0, 1, 1]), 2)
      >>> right = lambda scores, targets: float((scores.argmax(axis=1) == targets.argmax(axis=1)).mean())
      >>> held = np.array([False, True, False, True])
      >>> chosen = zfjax.linear_models.fit_chosen(features, targets, held, loss="softmax", quality=right)
      >>> chosen.penalty
      0.01
    """
    if not len(penalties):
        raise UserError("penalties=(): at least one is needed")
    penalty = penalties[len(penalties) // 2]
    if held.any():
        reached, model = [], None
        for tried in penalties:
            model = fit(features[~held], targets[~held], tried, loss=loss, start=model)
            reached.append(quality(scores(model, features[held]), targets[held]))
        if np.isnan(reached).any():
            raise UserError(f"quality={reached} of the held-out examples: numbers are needed to choose a penalty by")
        penalty = penalties[int(np.argmax(reached))]
    return Chosen(fit(features, targets, penalty, loss=loss), penalty)


def normalized(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets of features [N, D] less the training mean, divided by the training images' root mean square norm.

    Examples:
      >>> import numpy as np, zfjax
      >>> train, test = zfjax.linear_models.normalized(np.array([[1.0, 1.0], [3.0, 1.0]]), np.array([[2.0, 1.0]]))
      >>> train, test
      (array([[-1.,  0.],
             [ 1.,  0.]]), array([[0., 0.]]))
    """
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = train - mean
    scale = np.float32(np.sqrt((centred.astype(np.float64) ** 2).sum(axis=1).mean())) or np.float32(1)
    return centred / scale, (test - mean) / scale


def _minimize(
    weights: tuple[jax.Array, jax.Array],
    examples: tuple[jax.Array, jax.Array],
    penalty: float,
    *,
    loss: Loss,
    tolerance: float,
    max_iterations: int,
) -> LinearModel:
    """L-BFGS from `weights` on (features, targets), as `fit` says."""
    carry = _begin(weights, examples, penalty, loss=loss)
    iterations = 0
    while carry.left > tolerance and iterations < max_iterations:
        until = min(iterations + AT_ONCE, max_iterations)
        carry = _iterate(carry, examples, penalty, loss=loss, tolerance=tolerance, until=until)
        iterations = int(carry.iterations)
    kernel, bias = carry.weights
    return LinearModel(kernel, bias, carry.left, carry.iterations)


class _Carry(NamedTuple):
    weights: tuple[jax.Array, jax.Array]  # and bias
    state: Any  # the optimizer's
    left: jax.Array  # of the objective
    iterations: jax.Array


def _objective(weights: tuple[jax.Array, jax.Array], examples: Any, penalty: jax.Array, *, loss: Loss) -> jax.Array:
    kernel, bias = weights
    features, targets = examples
    logits = jnp.matmul(features, kernel, precision="highest") + bias[None]
    return _LOSSES[loss](logits, targets).mean() + penalty / 2 * (kernel**2).sum()


def _left(value: jax.Array, gradient: Any, penalty: jax.Array) -> jax.Array:
    norm = optax.tree.norm(gradient)
    return jnp.where(norm == 0, 0.0, norm / (2 * penalty) * (norm / value))  # a square of it would underflow


@partial(jax.jit, static_argnames="loss")
def _begin(weights: tuple[jax.Array, jax.Array], examples: Any, penalty: jax.Array, *, loss: Loss) -> _Carry:
    value, gradient = jax.value_and_grad(_objective)(weights, examples, penalty, loss=loss)
    state = jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), optax.lbfgs().init(weights))  # weak types compile twice
    return _Carry(weights, state, _left(value, gradient, penalty), jnp.asarray(0))


@partial(jax.jit, static_argnames="loss")
def _iterate(
    carry: _Carry, examples: Any, penalty: jax.Array, *, loss: Loss, tolerance: jax.Array, until: jax.Array
) -> _Carry:
    """Iterations to the tolerance, or to the one of number `until`."""
    optimizer = optax.lbfgs()
    objective = partial(_objective, examples=examples, penalty=penalty, loss=loss)
    value_and_gradient = optax.value_and_grad_from_state(objective)

    def goes_on(carry: _Carry) -> jax.Array:
        goes_on: jax.Array = (carry.left > tolerance) & (carry.iterations < until)
        return goes_on

    def step(carry: _Carry) -> _Carry:
        weights, state = carry.weights, carry.state
        value, gradient = value_and_gradient(weights, state=state)  # the line search has left them in the state
        updates, state = optimizer.update(gradient, state, weights, value=value, grad=gradient, value_fn=objective)
        weights = optax.apply_updates(weights, updates)
        left = _left(optax.tree.get(state, "value"), optax.tree.get(state, "grad"), penalty)
        return _Carry(weights, state, left, carry.iterations + 1)

    ended: _Carry = lax.while_loop(goes_on, step, carry)
    return ended


def _softmax(logits: jax.Array, targets: jax.Array) -> jax.Array:
    losses: jax.Array = optax.softmax_cross_entropy(logits, (targets > 0).astype(logits.dtype))
    return losses


def _squared_hinge(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return (jnp.maximum(0.0, 1.0 - targets * logits) ** 2).sum(axis=1)


def _logistic(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return jax.nn.softplus(-targets * logits).sum(axis=1)  # a target of 0 gives a constant, and so no gradient


_LOSSES = {"softmax": _softmax, "svm": _squared_hinge, "logistic": _logistic}
BLOCK_BYTES = 1 << 28  # of a block of features, in `gram_matrix`
ROWS = 2048  # of a matrix of all images at a time: a second one would double the memory

# On the diagonal, relative to the mean square norm: above what float32 leaves of a zero eigenvalue, as duplicates and
# fewer features than images give them; as if each image had one more feature, of its own, of a hundredth of the norm
_JITTER = 1e-4


def gram_matrix(
    features: np.ndarray,
    on_block: Callable[[int], None] = lambda _: None,
    *,
    block_bytes: int = BLOCK_BYTES,
    rows: int = ROWS,
) -> np.ndarray:
    """Inner products of all images' features less their mean, float32 [N, N].

    They are added up over blocks of features, of which three are held beside the matrix. Without
    the mean, which no classifier with a bias sees, less is lost to rounding.

    Args:
      features: float32 [N, D], in memory or a `numpy.memmap`.
      on_block: called with the number of features after each block, to show progress.
      block_bytes: of a block of features, 256 MB by default.
      rows: of the matrix that are computed together.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.linear_models.gram_matrix(np.array([[1.0, 0.0], [3.0, 0.0]], np.float32))
      array([[ 1., -1.],
             [-1.,  1.]], dtype=float32)
    """
    num_images, num_features = features.shape
    width = max(1, block_bytes // (4 * num_images))
    gram = np.zeros((num_images, num_images), np.float32)
    for first in range(0, num_features, width):
        block = jnp.asarray(_asked_for(features[:, first : first + width]))
        block = block - block.mean(axis=0)[None]
        for top in range(0, num_images, rows):  # the lower half, some rows at a time
            end = top + rows
            gram[top:end, :end] += _inner_products(block[top:end], block[:end])
        on_block(block.shape[1])
    for top in range(0, num_images, rows):
        gram[:top, top : top + rows] = gram[top : top + rows, :top].T
    return gram


def kernel_coordinates(train: np.ndarray, test: np.ndarray, *, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of images whose inner products are those of their `linear_models.normalized` features.

    The centred Gram matrix of the training images is L L^T (Cholesky): row i of L is training image i, and
    L^-1 k stands for an image whose inner products with the training images are k.

    Args:
      train: [n, n] inner products of the training images' features.
      test: [m, n] inner products of test and training images.
      rows: of `test` that are computed together.

    Returns:
      float32 [n, n] and [m, n]. Beside these and the arguments memory holds one matrix of float64 [n, n].
      UserError where one is not finite, or `train` no matrix of inner products.

    Examples:
      >>> import numpy as np, zfjax
      >>> features = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
      >>> gram = zfjax.linear_models.gram_matrix(features)
      >>> train, test = zfjax.linear_models.kernel_coordinates(gram[:4, :4], gram[4:, :4])
      >>> train.shape, test.shape
      ((4, 4), (1, 4))
    """
    if not np.isfinite(test).all():
        raise UserError("test: inner products of finite features are needed")
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
        raise UserError(f"train: inner products of finite features are needed ({error})") from error
    coordinates = np.empty(test.shape, np.float32)
    for top in range(0, len(test), rows):
        crossed = test[top : top + rows].astype(np.float64)
        crossed -= crossed.mean(axis=1, keepdims=True) + of_image[None] - overall
        crossed /= scale
        solved = scipy.linalg.solve_triangular(lower, crossed.T, lower=True, overwrite_b=True, check_finite=False)
        coordinates[top : top + rows] = solved.T
    return lower.astype(np.float32, order="C"), coordinates


def _asked_for(block: np.ndarray) -> np.ndarray:
    """The same; of a file that is mapped, its part of each row is asked for first.

    Else the system reads as far ahead in each row as it does in files that are read from end to end: of one that is
    larger than memory the whole for each block.
    """
    pages = getattr(block, "_mmap", None)
    if isinstance(pages, mmap.mmap) and hasattr(pages, "madvise") and block.strides[1] == block.itemsize:
        origin = np.frombuffer(pages, np.uint8).ctypes.data
        for row in block:
            first = row.ctypes.data - origin
            page = first - first % mmap.PAGESIZE
            pages.madvise(mmap.MADV_WILLNEED, page, first - page + row.nbytes)
    return block


@jax.jit
def _inner_products(rows: jax.Array, block: jax.Array) -> jax.Array:
    return jnp.matmul(rows, block.T, precision="highest")
