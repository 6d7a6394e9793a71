"""The deconvnet by another road: the same program, whose `jax.nn.relu` carries the paper's rule as its own derivative.

Every framework calls `jax.nn.relu`; while a model is traced, that name stands for a `jax.custom_vjp` of three lines.
Nothing here knows the engine of `zfjax.anymodel`, its graph or its interpreter.
"""

import contextlib
import sys
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp

MODULES = ("jax.nn", "flax.linen", "flax.nnx")  # where models find `relu`


def with_rule(function, ceiling=jnp.inf):
    """`function`, whose way back is relu(incoming); above the ceiling nothing passes."""
    ruled = jax.custom_vjp(lambda x: function(x))
    ruled.defvjp(lambda x: (function(x), x), lambda x, incoming: (jnp.where(x < ceiling, jnp.maximum(incoming, 0), 0),))
    return ruled


RELUS = {"relu": with_rule(jax.nn.relu), "relu6": with_rule(jax.nn.relu6, 6)}
AS_RELU = {  # activations that are none, with the rule of one
    "silu": with_rule(jax.nn.silu),
    "hard_silu": with_rule(jax.nn.hard_silu),
    "gelu": lambda x, approximate=True, gelu=jax.nn.gelu: with_rule(partial(gelu, approximate=approximate))(x),
}


@contextlib.contextmanager
def replaced(functions):
    """While it lasts, {name: function} stand for the activations of these names."""
    with contextlib.ExitStack() as stack:
        for module in [sys.modules[name] for name in MODULES if name in sys.modules]:
            for name, function in functions.items():
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, function))
        yield


def picture(fn, images, channel, functions):
    """What comes down from a channel of fn's result [B, C], beginning with its own value, at the images."""
    with replaced(functions):
        features, down = jax.vjp(lambda images: fn(images), images)
    return down(features * jax.nn.one_hot(channel, features.shape[1], dtype=features.dtype))[0]
