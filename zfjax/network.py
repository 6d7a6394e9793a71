"""The convnet's forward pass as one pure function that returns what every layer handed on, and its Flax module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from zfjax.architecture import Architecture, ContrastNorm, Conv, Dense
from zfjax.errors import UserError, saying_keywords
from zfjax.ops import contrast_norm, conv, max_pool

Params = Mapping[str, Mapping[str, jax.Array]]  # params[layer]["kernel" | "bias"]


class LayerTrace(NamedTuple):
    """One layer's features and switches, for the deconvnet and the analyses.

    Examples:
      >>> import jax, numpy as np, zfjax
      >>> table = zfjax.Architecture("small", (zfjax.Conv("conv1", 4, kernel=3, after=(zfjax.Pool(),)),), image_size=9)
      >>> net = zfjax.ConvNet(table)
      >>> images = np.ones((1, 9, 9, 3), np.float32)
      >>> _, trace = net.apply(net.init(jax.random.key(0), images), images)
      >>> trace["conv1"].features.shape, trace["conv1"].switches.dtype
      ((1, 3, 3, 4), dtype('uint8'))
    """

    features: jax.Array  # [B, H, W, C] after ReLU, pool and norm; [B, C] of a dense layer; logits of the last one
    switches: jax.Array | None = None  # uint8 [B, H, W, C], dy * size + dx in the pool's window; None without pool
    norm_inputs: tuple[jax.Array, ...] = ()  # [B, H', W', C] what each contrast norm read; only gradients need it


Trace = dict[str, LayerTrace]


@saying_keywords
def forward(
    params: Params,
    images: jax.Array,
    *,
    architecture: Architecture,
    dropout_key: jax.Array | None = None,
    compute_dtype: DTypeLike | None = None,
) -> tuple[jax.Array, Trace]:
    """The network of Fig. 3 (or any other table): images in, logits and the trace of every layer out.

    A convolutional layer filters, adds its bias, applies a ReLU, then the stages of the table in their order; a hidden
    dense layer ends with a ReLU. Pure; works under jit, vmap, grad, jvp and pmap. Under jit, parts of the trace that
    the caller does not use cost nothing.

    Args:
      params: {layer: {"kernel": HWIO, or [in, out] with `in` flattened from NHWC, "bias": [out]}}.
      images: float [B, H, W, C], mean-subtracted raw pixels, [H, W, C] = architecture.image_shape.
      architecture: the table.
      dropout_key: if given, dropout after the hidden dense layers, as in training. One key, or one per image ([B]), so
        that the mask of an image does not depend on its place in the batch.
      compute_dtype: cast images and parameters to this at the top; None computes in their own.

    Returns:
      (logits [B, classes], {layer: LayerTrace}); of a table without dense layers, the last one's features in the
      place of logits. UserError for images of another size or parameters of another architecture.

    Examples:
      >>> import jax, zfjax
      >>> table = zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64, fc8=10)
      >>> images = 50 * jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
      >>> params = zfjax.ConvNet(table).init(jax.random.key(1), images)["params"]
      >>> logits, trace = zfjax.forward(params, images, architecture=table)
      >>> logits.shape, trace["conv1"].features.shape, trace["conv1"].switches.shape
      ((2, 10), (2, 15, 15, 6), (2, 15, 15, 6))
    """
    _check(params, images, architecture)
    if compute_dtype is not None:
        params, images = jax.tree.map(lambda x: x.astype(compute_dtype), (params, images))
    keys = None if dropout_key is None else _key_per_image(dropout_key, images.shape[0])
    maps = images * jnp.asarray(architecture.input_scale, images.dtype)
    trace: Trace = {}
    for depth, layer in enumerate(architecture.layers):
        if isinstance(layer, Conv):
            trace[layer.name] = _conv_layer(layer, params[layer.name], maps)
        else:
            layer_keys = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, depth)
            trace[layer.name] = _dense_layer(maps, layer=layer, params=params[layer.name], keys=layer_keys)
        maps = trace[layer.name].features
    return maps, trace


class ConvNet(nn.Module):
    """`forward` as a Flax module: `net.init(key, images)["params"]`, `net.apply({"params": params}, images)`.

    Examples:
      >>> import jax, zfjax
      >>> net = zfjax.ConvNet(zfjax.ZFNET.scaled(1 / 16).with_sizes(image=64, fc8=10))
      >>> images = 50 * jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
      >>> params = net.init(jax.random.key(1), images)["params"]
      >>> logits, trace = net.apply({"params": params}, images)
      >>> logits, _ = net.apply({"params": params}, images, train=True, rngs={"dropout": jax.random.key(2)})
      >>> params["conv1"]["kernel"].shape  # HWIO
      (7, 7, 3, 6)
    """

    architecture: Architecture
    # "initialised to 1e-2" (sec. 3): read as the standard deviation, since a constant never breaks symmetry
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(1e-2)
    compute_dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> tuple[jax.Array, Trace]:
        """Logits [B, classes] and trace of `images` [B, H, W, C]; `train=True` needs rngs={"dropout": key}."""
        params = {
            name: self.param(name, self._init_layer, size.kernel) for name, size in self.architecture.sizes().items()
        }
        return forward(
            params,
            images,
            architecture=self.architecture,
            dropout_key=self.make_rng("dropout") if train else None,
            compute_dtype=self.compute_dtype,
        )

    def _init_layer(self, key: jax.Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"kernel": self.kernel_init(key, shape, jnp.float32), "bias": jnp.zeros(shape[-1], jnp.float32)}


@partial(jax.jit, static_argnames="layer")  # the programs of one process, of which there are many, trace it once
def _conv_layer(layer: Conv, params: Mapping[str, jax.Array], maps: jax.Array) -> LayerTrace:
    maps = jax.nn.relu(conv(maps, params["kernel"], layer) + params["bias"][None, None, None])
    switches, norm_inputs = None, []
    for stage in layer.after:
        if isinstance(stage, ContrastNorm):
            norm_inputs.append(maps)
            maps = contrast_norm(maps, stage)
        else:
            maps, switches = max_pool(maps, size=stage.size, stride=stage.stride)
    return LayerTrace(maps, switches, tuple(norm_inputs))


def _dense_layer(
    maps: jax.Array, *, layer: Dense, params: Mapping[str, jax.Array], keys: jax.Array | None
) -> LayerTrace:
    outputs = maps.reshape(maps.shape[0], math.prod(maps.shape[1:])) @ params["kernel"] + params["bias"][None]
    if not layer.hidden:
        return LayerTrace(outputs)
    outputs = jax.nn.relu(outputs)
    return LayerTrace(outputs if keys is None else _dropout(outputs, layer.dropout, keys))


def _dropout(outputs: jax.Array, rate: float, keys: jax.Array) -> jax.Array:
    """Paper is silent: what is kept is scaled by 1 / (1 - rate) in training, so that nothing changes at test time."""
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, outputs.shape[1:]))(keys)
    return jnp.where(keep, outputs / (1 - rate), jnp.zeros((), outputs.dtype))


def _key_per_image(key: jax.Array, batch: int) -> jax.Array:
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    if key.shape != (batch,):
        raise UserError(f"dropout_key of shape {key.shape}: one key, or one for each of the {batch} images")
    return key


def _check(params: Params, images: jax.Array, architecture: Architecture) -> None:
    shape = architecture.image_shape
    if images.ndim != 4 or images.shape[1:] != shape:
        raise UserError(f"images of shape {images.shape}: {architecture.name} reads [B, {', '.join(map(str, shape))}]")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images of type {images.dtype}: floating point, with the mean subtracted, is needed")
    for name in architecture.layer_names:
        check_params(params, architecture, name)


def check_params(params: Params, architecture: Architecture, layer: str) -> None:
    """UserError unless `params` holds the kernel and bias of `layer` in the shapes of the table."""
    kernel = architecture.sizes()[layer].kernel
    for part, expected in (("kernel", kernel), ("bias", kernel[-1:])):
        shape = params[layer][part].shape if part in params.get(layer, ()) else None
        if shape != expected:
            raise UserError(f"params[{layer!r}][{part!r}] of shape {shape}: {architecture.name} has {expected}")
