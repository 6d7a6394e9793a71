"""The nets of `keras.applications` on JAX, small images, ten classes, random weights."""

import os
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import weights


def build(name, size=64, **options):
    """Function of images [B, size, size, 3]: the net in evaluation, up to its logits unless the options say more."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # read when keras is imported
    import keras

    if keras.backend.backend() != "jax":
        raise RuntimeError(f"keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax before it is imported")
    make = getattr(keras.applications, name)
    with mock.patch.multiple(jax.random, uniform=zeros, truncated_normal=zeros):  # compiled for every shape
        model = make(
            weights=None, input_shape=(size, size, 3), classes=10, **{"classifier_activation": None, **options}
        )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weights.draw(rng, weight.path, weight.shape))
    return partial(model, training=False)


def below(fn, layer):
    """The sub-model of a net that `build` made, up to a layer of this name."""
    import keras

    model = fn.func
    return partial(keras.Model(model.inputs, model.get_layer(layer).output), training=False)


def zeros(*args, shape, dtype, **bounds):
    return jnp.zeros(shape, dtype)
