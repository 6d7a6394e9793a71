"""What a network's program does from one of its layers to the next."""

from __future__ import annotations

import jax
import numpy as np

from zfjax.anymodel import between
from zfjax.anymodel.between import Between
from zfjax.data import num_channels
from zfjax.nets.protocol import Net
from zfjax.pixels import size_of


def between_layers(net: Net) -> tuple[dict[str, Between], int]:
    """({layer: what makes it of those below}, numbers in all the arrays that its program takes).

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> def fn(images):
      ...     maps = jax.nn.relu(images @ jnp.ones((3, 5)))
      ...     return {"maps": maps, "mean": maps.mean((1, 2))}
      >>> made, num_weights = zfjax.nets.between_layers(zfjax.FunctionNet(fn, image_size=8, name="a"))
      >>> made["maps"].steps, made["mean"].reads
      (('matrix', 'ReLU'), ('maps',))
    """
    pictures = jax.ShapeDtypeStruct((1, *size_of(net.picture_size), num_channels(net)), np.uint8)
    images = jax.eval_shape(net.prepare, pictures)
    fn = net.features(net.layers)
    return between.between_layers(fn, net.layers, shape=images.shape[1:], dtype=images.dtype)
