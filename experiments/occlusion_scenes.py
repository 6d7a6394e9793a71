"""The images of Figure 7: which, and what the network says of each before a square hides anything."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments import inputs
from experiments.occlusion_pages import Look, Scenes
from zfjax import features, gradients, occlusion
from zfjax.architecture import Architecture
from zfjax.data import ImageSet
from zfjax.network import Params, forward

SPARE = 16  # images looked at beyond twice those that are needed, to find enough that are classified correctly
bound = cache(partial)  # one function for equal arguments, so that JAX finds what it compiled


def look(params: Params, images: jax.Array, *, layer: str, architecture: Architecture) -> Look:
    """Each image without a square: its class, its strongest map of `layer`, and the plain gradient of the class."""
    logits, trace = forward(params, images, architecture=architecture)
    watched = trace[layer].features
    batch, *places, channels = watched.shape
    strongest = watched.reshape(batch, -1).argmax(axis=1).astype(jnp.int32)
    place, width = strongest // channels, places[1] if places else 1
    last = architecture.layer_names[-1]
    top = jax.nn.one_hot(logits.argmax(axis=1), architecture.num_classes, dtype=logits.dtype)
    slope = gradients.gradient(params, trace, top, layer=last, architecture=architecture)
    where = strongest % channels, place // width, place % width
    return Look(jax.nn.softmax(logits), *where, jnp.abs(slope).sum(axis=-1))


def choose_scenes(
    net: inputs.TrainedNet, data: ImageSet, layer: str, num: int, seed: int, *, batch_size: int
) -> Scenes:
    """At most `num` images drawn by the seed: first those that are classified correctly or have no label."""
    source = inputs.validation_of(data)
    order = np.random.default_rng(seed).permutation(len(source))[: 2 * num + SPARE]
    views = inputs.read_views(source, order, net)
    fn = Partial(bound(look, layer=layer, architecture=net.architecture), net.params)
    looks = features.in_batches(fn, views.images, batch_size=batch_size)
    predicted = looks.probabilities.argmax(axis=1).astype(np.int32)
    if data.class_names != net.class_names:  # the labels are those of other classes
        views = views._replace(labels=np.full_like(views.labels, -1))
    labels = np.where(views.labels < 0, predicted, views.labels)
    correct = labels == predicted
    return take(Scenes(order, views, looks, labels, correct), np.argsort(~correct, kind="stable")[:num])


def take(scenes: Scenes, rows: np.ndarray) -> Scenes:
    """The images at `rows`."""
    return jax.tree.map(lambda field: field[rows], scenes)


def images_within(net: inputs.TrainedNet, layer: str, memory: int, *, most: int) -> int:
    """Images of a pass up and back that `memory` MiB hold: `most` at most, and as many on each device."""
    fn = Partial(bound(look, layer=layer, architecture=net.architecture), net.params)
    size, devices = net.architecture.image_size, jax.device_count()
    image = np.zeros((size, size, net.architecture.channels), np.float32)
    fitting = min(most, occlusion.batch_size_within(fn, image, memory=memory))
    return max(devices, fitting - fitting % devices)
