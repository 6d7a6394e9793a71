"""Ready rules for activations that are no ReLU, for `on_unknown`: `{"gelu": as_relu}`, `{"*/act": silu_rule}`.

The paper has none of these. Its two reasons for relu(incoming) lead to two rules:

    as_relu       relu(incoming): what a layer hands down is not negative, as its features (nearly) are not
    NAME_rule     the activation itself, of what comes down: "pass the reconstructed signal through a relu
                  non-linearity", sec. 2.1, is the very function that was applied on the way up

Under rule="gradient" neither is used: every operation keeps its own.
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp

from zfjax.anymodel.interpreter import Backward
from zfjax.deconvnet import rectify


def as_relu(incoming: jax.Array, x: jax.Array) -> jax.Array:
    """relu(incoming): the deconvnet's rule of a ReLU, whatever the activation is.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> fn = lambda images: jax.nn.gelu(images @ jnp.ones((3, 4)))
      >>> images = jnp.ones((1, 2, 2, 3))
      >>> zfjax.project_fn(fn, images, unit=1, on_unknown={"gelu": zfjax.as_relu}).shape
      (1, 2, 2, 3)
    """
    return rectify(incoming)


def as_relu_guided(incoming: jax.Array, x: jax.Array) -> jax.Array:
    """relu(incoming) * (x > 0): guided backpropagation's rule of a ReLU, whatever the activation is.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> zfjax.as_relu_guided(jnp.array([1.0, 2.0, -3.0]), jnp.array([-1.0, 1.0, 1.0]))
      Array([0., 2., 0.], dtype=float32)
    """
    return jnp.where(x > 0, rectify(incoming), jnp.zeros((), incoming.dtype))


@lru_cache(maxsize=64)  # one rule for one slope, so that programs are found again
def leaky_relu_rule(negative_slope: float = 0.01) -> Backward:
    """incoming where it is positive, negative_slope * incoming where it is not; of a PReLU with one slope too.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> zfjax.leaky_relu_rule(0.5)(jnp.array([-2.0, 3.0]), jnp.zeros(2))
      Array([-1.,  3.], dtype=float32)
    """
    return lambda incoming, x: jnp.where(incoming > 0, incoming, jnp.asarray(negative_slope, incoming.dtype) * incoming)


def prelu_rule(negative_slopes: jax.Array) -> Backward:
    """incoming where it is positive, negative_slopes * incoming where it is not; slopes [C], or of any such shape.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> zfjax.prelu_rule(jnp.array([0.5, 0.25]))(jnp.array([-2.0, -2.0]), jnp.zeros(2))
      Array([-1. , -0.5], dtype=float32)
    """
    return lambda incoming, x: jnp.where(incoming > 0, incoming, jnp.asarray(negative_slopes, x.dtype) * incoming)


@lru_cache(maxsize=64)
def elu_rule(alpha: float = 1.0) -> Backward:
    """incoming where it is positive, alpha * (exp(incoming) - 1) where it is not.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> zfjax.elu_rule()(jnp.array([-50.0, 3.0]), jnp.zeros(2))
      Array([-1.,  3.], dtype=float32)
    """
    return lambda incoming, x: jax.nn.elu(incoming, jnp.asarray(alpha, incoming.dtype))


def silu_rule(incoming: jax.Array, x: jax.Array) -> jax.Array:
    """incoming * sigmoid(incoming).

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> zfjax.silu_rule(jnp.array([0.0, 50.0]), jnp.zeros(2))
      Array([ 0., 50.], dtype=float32)
    """
    return jax.nn.silu(incoming)


def gelu_rule(incoming: jax.Array, x: jax.Array) -> jax.Array:
    """gelu(incoming), by the error function; JAX's default is an approximation of it, at most 0.0005 away.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> zfjax.gelu_rule(jnp.array([0.0, 50.0]), jnp.zeros(2))
      Array([ 0., 50.], dtype=float32)
    """
    return jax.nn.gelu(incoming, approximate=False)
