"""SqueezeNet in the words of our own nets, and the photos that it looks at: what its figures share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from experiments.shell import results, scans
from zfjax import pretrained
from zfjax.analyses import top_activations
from zfjax.anymodel import Unit, project_fn
from zfjax.data import ImageSet, Source, archives, sets
from zfjax.errors import UserError
from zfjax.pixels import center_crop
from zfjax.pretrained.squeezenet_v1 import WEIGHTS
from zfjax.training import checkpoints

CHUNK = 9  # activations per projection: the images of one map


BATCH = 64  # photos per step of a scan


class SqueezeNet(NamedTuple):
    """The network, and what belongs to it; the fields are called as in `inputs.TrainedNet`, for readers and pages."""

    architecture: pretrained.CaffeNet  # readers and pages ask it for its image_size
    mean: np.ndarray  # float32 [S, S, 3], the mean colour as a picture
    path: Path  # of the file of weights
    class_words: tuple[str, ...]  # of the logits and of conv10's maps, as people call them: "golf ball"
    fingerprint: str  # changes with the weights


def load_net(weights: Path) -> SqueezeNet:
    """The network in a folder; OSError or UserError as from `pretrained.squeezenet`."""
    net = pretrained.squeezenet(weights)
    mean = np.broadcast_to(net.mean, (net.picture_size, net.picture_size, 3))
    words = archives.class_words(net.class_names)
    return SqueezeNet(net, mean, weights / WEIGHTS, words, checkpoints.digest(dict(net.params)))


def open_photos(data: str, net: SqueezeNet) -> ImageSet:
    """A prepared set of ImageNet's photos.

    UserError for another size, classes that are not ImageNet's, or no validation split.
    """
    photos = sets.open_data(data)
    if photos.size != len(net.mean):
        raise UserError(f"data={data!r}: its pictures have {photos.size} pixels a side, the net's {len(net.mean)}")
    if photos.official_labels is None:
        raise UserError(f"data={data!r}: its classes are not all among ImageNet's 1000")
    sets.validation_of(photos)
    return photos


def provenance(net: SqueezeNet, data: ImageSet, config: Any) -> dict[str, Any]:
    """What every result.json says about where its numbers come from."""
    return {"network": "SqueezeNet v1.0", **results.provenance(net, data, config)}


def scan(
    net: SqueezeNet, source: Source, layers: Sequence[str], path: Path, *, of: str, k: int
) -> top_activations.State:
    """The k strongest images of every map of some layers; see `scans.scan_with`."""
    fn = Partial(_of_pictures(net.architecture.image_size), net.architecture.layers_of(layers), net.mean)
    found = jax.eval_shape(fn, jax.ShapeDtypeStruct((1, *net.mean.shape), np.uint8))
    num_maps = {layer: found[layer].shape[-1] for layer in layers}
    batch_size = BATCH * jax.device_count()
    return scans.scan_with(fn, num_maps, source, path, of=(net.fingerprint, of), k=k, batch_size=batch_size)


def project_places(net: SqueezeNet, images: np.ndarray, places: Mapping[str, np.ndarray], *, layer: str) -> np.ndarray:
    """Project many single activations of one layer, each alone, as `top_activations.project_strongest` does.

    Args:
      net: the network.
      images: float32 [U, s, s, 3], its input.
      places: integers [N] under "image" (row of `images`), "channel", "row", "column".
      layer: where the activations stand: one with places, so not the logits.

    Returns:
      float32 [N, s, s, 3], signed, in pixels: `zfjax.project_fn` of each.
    """
    fn, num = net.architecture.layers_of([layer]), len(places["image"])
    found = np.zeros((num, *images.shape[1:]), np.float32)
    for rows in np.resize(np.arange(num), (-(-num // CHUNK), CHUNK)):  # the last is filled up with the first
        some = {name: np.asarray(place[rows], np.int32) for name, place in places.items()}
        found[rows] = _project(fn, images[some["image"]], some["channel"], some["row"], some["column"], layer=layer)
    return found


@partial(jax.jit, static_argnames="layer")
def _project(fn: Partial, images: jax.Array, channel: Any, row: Any, column: Any, *, layer: str) -> jax.Array:
    return project_fn(lambda images: fn(images)[layer], images, unit=Unit(channel, (row, column)))


@cache
def _of_pictures(size: int) -> Callable[[Partial, jax.Array, jax.Array], Any]:
    """One function object for equal arguments, so that JAX finds what it compiled."""

    def features(fn: Partial, mean: jax.Array, pictures: jax.Array) -> Any:
        return fn(center_crop(pictures, mean, size))

    return features
