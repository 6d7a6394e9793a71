"""Random weights under which every part of a net matters: its norms' statistics too."""

import jax.numpy as jnp
import numpy as np

KERNELS = ("kernel", "w", "pointwise_kernel", "depthwise_kernel")
SPREADS = ("gamma", "scale", "moving_variance", "variance", "var", "var_ema")


def draw(rng, path, shape):
    """Random numbers for one array by its path, "block1/conv/kernel": kernels keep the size of what passes them."""
    names = path.split("/")
    if names[-1] in KERNELS:
        read = shape[:2] if shape[-1] == 1 else shape[:-1]  # a depthwise one [H, W, C, 1] reads one channel
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(read))
    if any(name in SPREADS for name in names[-2:]):
        return rng.uniform(0.5, 1.5, shape)
    return 0.1 * rng.normal(size=shape)  # biases, offsets, means, tokens


def images_for(size):
    """Two images [2, size, size, 3]."""
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, size, size, 3)), jnp.float32)
