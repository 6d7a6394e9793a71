"""Figure 7 of SqueezeNet: occlusion maps of validation photos, the most probable class being one of ImageNet's 1000."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from tqdm import tqdm

from experiments import squeezenet_photos
from experiments.occlusion_maps import NUM_OTHERS, PAPER, Config
from experiments.pages import occlusion as occlusion_page
from experiments.shell import results
from experiments.squeezenet_photos import SqueezeNet
from zfjax import features, files, nets
from zfjax.analyses import occlusion
from zfjax.analyses.occlusion import SPARE, Look, Projected, Scenes, Swept, take
from zfjax.analyses.top_activations import TopActivations
from zfjax.data import ImageSet, sets

WATCHED = "fire9"  # the last layer whose maps are features, as the paper's layer 5; those of conv10 are classes


BATCH = 25  # occluded images per forward pass


def run(
    net: SqueezeNet, photos: ImageSet, out: Path, *, num_images: int, seed: int, told: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose photos, slide the square, project; write page, arrays and result.json.

    Args:
      net, photos: the network and the set, whose validation split is looked at.
      out: folder of the results.
      num_images: photos to draw, chosen by the seed, those that are classified correctly first.
      seed: of the choice.
      told: what the result says of where it comes from.

    Returns:
      What result.json holds.
    """
    source, size = sets.validation_of(photos), net.architecture.image_size
    square, stride = size // 4, size // 32
    options = Config(layer=WATCHED, square=square, stride=stride, num_images=num_images, seed=seed)
    corners = occlusion.places(size, square, stride)
    of = f"{photos.fingerprint} validation"
    strongest = squeezenet_photos.scan(net, source, (WATCHED,), out / "scan.npz", of=of, k=1 + NUM_OTHERS)[WATCHED]
    drawn = choose_scenes(net, photos, num_images, seed)
    swept = sweep_all(net, options, drawn, corners)
    projected = [project_map(net, photos, drawn, n, strongest) for n in range(len(drawn.labels))]
    result = {
        "figure": "Figure 7",
        "places": corners.shape[:2],
        "images": occlusion_page.describe(net, drawn, swept),
        "score": None,  # the photos do not say where objects are
        "square": options.square,
        "stride": options.stride,
        "layer": WATCHED,
        "paper": PAPER,
        "folder": out,
        "seed": seed,
        **told,
    }
    page = occlusion_page.draw(net, drawn, swept, projected, corners, {**result, "config": options})
    (out / "result.json").unlink(missing_ok=True)  # written last, it says that all is there
    files.save_arrays(out / "maps.npz", {"corners": corners, "images": drawn.indices, **swept._asdict()})
    results.save_figure(out / "maps.png", page)
    files.save_json(out / "result.json", result)
    return result


def look(fn: Partial, images: jax.Array) -> Look:
    """Each image without a square; without its saliency, which only a score of outlined objects reads."""
    found = fn(images)
    watched = found[WATCHED]
    batch, _, width, channels = watched.shape
    strongest = watched.reshape(batch, -1).argmax(axis=1).astype(jnp.int32)
    place, channel = strongest // channels, strongest % channels
    no_saliency = jnp.zeros((batch, 0, 0), watched.dtype)
    return Look(jax.nn.softmax(found["logits"]), channel, place // width, place % width, no_saliency)


def watch(fn: Partial, channel: jax.Array, label: jax.Array, images: jax.Array) -> Swept:
    """What the maps of the figure show of each occluded image: [B] each."""
    found = fn(images)
    activity = jnp.take(found[WATCHED], channel, axis=3).sum(axis=(1, 2))
    probability = jnp.take(jax.nn.softmax(found["logits"]), label, axis=1)
    return Swept(activity, probability, found["logits"].argmax(axis=1).astype(jnp.int32))


def choose_scenes(net: SqueezeNet, photos: ImageSet, num: int, seed: int) -> Scenes:
    """At most `num` validation photos drawn by the seed, first those that are classified correctly of 1000 classes."""
    source = sets.validation_of(photos)
    order = np.random.default_rng(seed).permutation(len(source))[: 2 * num + SPARE]
    views = nets.read_views(source, order, net)
    labels = np.array(photos.official_labels, np.int32)[views.labels]
    views = views._replace(labels=labels)
    fn = Partial(look, net.architecture.layers_of([WATCHED, "logits"]))
    looks = features.in_batches(fn, views.images, batch_size=BATCH)
    correct = labels == looks.probabilities.argmax(axis=1)
    return take(Scenes(order, views, looks, labels, correct), np.argsort(~correct, kind="stable")[:num])


def sweep_all(net: SqueezeNet, options: Config, drawn: Scenes, corners: np.ndarray) -> Swept:
    """Slide the square over each image: one forward pass for each of its places."""
    fn, found = net.architecture.layers_of([WATCHED, "logits"]), []
    with tqdm(total=len(drawn.labels) * corners[..., 0].size, desc="sliding the square", unit=" places") as bar:
        for n, (channel, label) in enumerate(zip(drawn.looks.channel, drawn.labels, strict=True)):
            fill = occlusion_page.fill_of(drawn, n, options)
            shown = {"square": options.square, "fill": fill, "batch_size": BATCH, "on_batch": bar.update}
            found.append(occlusion.sweep(Partial(watch, fn, channel, label), drawn.views.images[n], corners, **shown))
    return jax.tree.map(lambda *maps: np.stack(maps), *found)


def project_map(net: SqueezeNet, photos: ImageSet, drawn: Scenes, n: int, strongest: TopActivations) -> Projected:
    """The map that is strongest in drawn image `n`, projected there and in the others that excite it most."""
    looks, own = drawn.looks, drawn.indices[n]
    channel = looks.channel[n]
    values, images, rows, columns = (np.asarray(field)[channel] for field in strongest)
    others = np.flatnonzero((images >= 0) & (values > 0) & (images != own))[:NUM_OTHERS]
    indices = np.array([own, *images[others]])
    places = {
        "image": np.arange(len(indices)),
        "channel": np.full(len(indices), channel),
        "row": np.array([looks.row[n], *rows[others]]),
        "column": np.array([looks.column[n], *columns[others]]),
    }
    views = nets.read_views(sets.validation_of(photos), indices, net)
    return Projected(indices, squeezenet_photos.project_places(net, views.images, places, layer=WATCHED))
