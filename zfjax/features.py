"""What an analysis looks at: any function of images, and how it is run over many of them.

The analyses (occlusion, invariance, ...) take `fn: images [B, H, W, C] -> features`, whatever network stands behind it.
Features are one array or a tree of arrays, such as {layer: array}; what is found of them comes as the same tree.
`layers_of` makes one of the networks of this library; for another model any callable will do. As a
`jax.tree_util.Partial` its parameters stay arguments of the compiled program, so that another checkpoint of the same
network compiles nothing anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial, keystr, tree_leaves_with_path

from zfjax.architecture import Architecture
from zfjax.errors import UserError
from zfjax.network import Params, forward
from zfjax.pixels import center_crop
from zfjax.programs import as_partial, compiled

Features = Callable[[Any], Any]  # float [B, H, W, C] -> array, or tree of arrays, each with B rows


def layers_of(params: Params, layers: Sequence[str], *, architecture: Architecture) -> Partial:
    """fn(images) -> {layer: features}: what these layers of the network hand on; logits for the last one.

    UserError for an unknown layer, or none at all.
    """
    layers = listed(layers, architecture.layer_names)
    for layer in layers:
        architecture.layer(layer)
    return Partial(_function_of(architecture, layers), params)


def listed(layers: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The layers; UserError for none, or for a name that stands by itself and not in a list."""
    if not layers or isinstance(layers, str):
        raise UserError(f"layers={layers!r}: a list of at least one of {', '.join(known)} is needed")
    return tuple(layers)


def layers_of_pictures(
    params: Params, mean: np.ndarray, layers: Sequence[str], *, architecture: Architecture
) -> Partial:
    """fn(pictures uint8 [B, H, W, C]) -> {layer: features} of their centre crops; `mean` is float32 [H, W, C]."""
    return Partial(_function_of_pictures(architecture), layers_of(params, layers, architecture=architecture), mean)


def in_batches(fn: Features, images: np.ndarray, *, batch_size: int = 64) -> Any:
    """fn(images) as NumPy arrays, `batch_size` images at a time, the last batch filled up: compiled once.

    UserError for no image, a batch size below 1, or features without a row for each image.

    Examples:
      >>> import numpy as np, zfjax
      >>> images = np.ones((5, 2, 2, 1), np.float32)
      >>> zfjax.features.in_batches(lambda images: images.sum((1, 2, 3)), images, batch_size=2)
      array([4., 4., 4., 4., 4.], dtype=float32)
    """
    images = np.asarray(images)
    if not np.ndim(images) or not len(images):
        raise UserError(f"images of shape {np.shape(images)}: at least one image is needed")
    answer = jitted(fn)
    parts = [rows_of(answer(images[batch]), len(batch)) for batch in full_batches(len(images), batch_size)]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(images)], *parts)


def rows_of(answer: Any, num: int) -> Any:
    """What a function gave for `num` images, as NumPy arrays; UserError unless each has a row for each image."""
    for path, array in tree_leaves_with_path(answer):
        if np.shape(array)[:1] != (num,):
            raise UserError(
                f"fn gives {np.shape(array)}{keystr(path)} for {num} images: features [{num}, ...] are needed"
            )
    return jax.tree.map(np.asarray, answer)


def check_finite(answer: Any, name: str = "fn") -> Any:
    """The answer; UserError that names its first layer with values that are not finite, and in how many images.

    Args:
      answer: array [N, ...], or a tree of them, such as {layer: array}.
      name: what gave it, as "net='small'".
    """
    for path, array in tree_leaves_with_path(answer):
        rows = np.asarray(array)
        is_whole = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
        if not is_whole.all():
            bad = f"{np.sum(~is_whole)} of {len(rows)} images"
            raise UserError(f"{name}: {layer_words(path)} is not finite (NaN or infinite) for {bad}; {WHY_NOT_FINITE}")
    return answer


def layer_words(path: Sequence[Any]) -> str:
    """The layer that a path in a tree of features leads to: "layer 'conv3'"."""
    return f"layer {getattr(path[-1], 'key', keystr(tuple(path[-1:])))!r}" if path else "its answer"


WHY_NOT_FINITE = (
    "a training that diverged leaves such weights, and too large a scale of the images, or half precision, overflows"
)


def check_places(features: Any, name: str = "features") -> Any:
    """The features; UserError unless they are maps [B, H, W, C] or units [B, C], in which a place is (y, x) or none."""
    if features.ndim not in (2, 4):
        raise UserError(
            f"{name} of shape {features.shape}: [B, H, W, C] or [B, C] is needed; put all places into two axes first, "
            "such as [B, D, H, W, C] into [B, D * H, W, C], or tokens [B, T, C] into [B, T, 1, C]"
        )
    return features


def full_batches(num: int, batch_size: int) -> np.ndarray:
    """Which of `num` rows each batch takes, int [batches, min(batch_size, num)]: the last is filled up by the first.

    UserError for a batch size below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size!r}: at least 1 is needed")
    return np.resize(np.arange(num), (-(-num // batch_size), min(batch_size, num)))


def jitted(fn: Features) -> Features:
    """`fn` compiled, as long as its function lives; the parameters inside a `Partial` stay arguments of the program."""
    fn = as_partial(fn)
    return lambda images: _call(fn, images)


@compiled
def _call(fn: Partial, images: jax.Array) -> Any:
    return fn(images)


@dataclass(frozen=True)
class LayersOfTable:
    """The function that `layers_of` makes a `Partial` of."""

    architecture: Architecture
    layers: tuple[str, ...]

    def __call__(self, params: Params, images: jax.Array) -> dict[str, jax.Array]:
        """{layer: features} of images float [B, H, W, C]."""
        trace = forward(params, images, architecture=self.architecture)[1]
        return {layer: trace[layer].features for layer in self.layers}


_function_of = cache(LayersOfTable)  # one object for equal arguments, so that JAX finds what it compiled


@cache
def _function_of_pictures(architecture: Architecture) -> Callable[[Partial, jax.Array, jax.Array], Any]:
    def features(fn: Partial, mean: jax.Array, pictures: jax.Array) -> dict[str, jax.Array]:
        answers: dict[str, jax.Array] = fn(center_crop(pictures, mean, architecture.image_size))
        return answers

    return features
