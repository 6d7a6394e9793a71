"""A net's features of another data set, computed once and kept on disk."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from zfjax import files, nets
from zfjax.architecture import Size
from zfjax.data import ImageSet, Source, photo_sets, sets, tfds_sets
from zfjax.data.loader import eval_batches
from zfjax.data.photo_sets import PhotoSet
from zfjax.data.pictures import CHANNELS
from zfjax.errors import UserError
from zfjax.nets import Net, OfTable
from zfjax.pixels import as_size, size_words
from zfjax.training import checkpoints
from zfjax.transfer import protocol
from zfjax.transfer.records import hash_of, recorded

# Enter the keys: to be raised when pictures, crops and features, or correlations, come to be computed in another way
FEATURES_VERSION, DUPLICATES_VERSION = 1, 1


def open_photos(
    dataset: str,
    images: Path | str,
    *,
    net: Net,
    threshold: float | None,
    folder: Path | str,
    trained: ImageSet | None = None,
) -> PhotoSet:
    """Open a data set; with a `threshold`, without the pictures that the net was trained on.

    Departure: the paper left such pictures out of ImageNet and trained again; here they are left out of this set.

    Args:
      dataset, images: as for `tfds_sets.open_set`.
      net: any network of pictures in colours, in grey or with transparency (RGBA).
      threshold: normalised correlation from which two pictures count as one; None keeps all.
      folder: keeps what was found, for later calls.
      trained: what the net was trained on, where it is open already.

    Examples:
      net = zfjax.load_net("runs/zfnet")
      photos = frozen_features.open_photos("caltech101", "101_ObjectCategories.tar", net=net, threshold=None,
                                           folder="features")
    """
    size_for(net)
    if threshold is not None:
        protocol.check_threshold(threshold, name="remove_duplicates")
    photo_set = tfds_sets.open_set(dataset, Path(images))
    if threshold is None:
        return photo_set
    trained = sets.open_images(None, net) if trained is None else trained
    learnt = trained.train
    if learnt is None:
        raise UserError(f"remove_duplicates={threshold}: {trained.name!r} has no training pictures to compare with")
    channels = nets.num_channels(net)
    ours = photo_sets.source_of(photo_set, size_for(net), channels=channels)

    def search() -> dict[str, Any]:
        tested, learnt_from = (_pictures(source, name) for source, name in ((ours, dataset), (learnt, trained.name)))
        return {"photos": np.flatnonzero(protocol.duplicates(tested, learnt_from, threshold)).tolist()}

    key = duplicates_key(photo_set, trained, threshold, size=ours.size)
    key |= {} if channels == 3 else {"channels": channels}
    duplicates = recorded(Path(folder), "duplicates", key=key, compute=search)["photos"]
    return photo_sets.without(photo_set, np.isin(np.arange(len(photo_set.photos)), duplicates))


def duplicates_key(photo_set: PhotoSet, trained: ImageSet, threshold: float, *, size: Size) -> dict[str, Any]:
    """All that the pictures depend on that two sets have in common."""
    return {
        "threshold": threshold,
        "data": photo_set.fingerprint,
        "trained": trained.fingerprint,
        "size": size,
        "version": DUPLICATES_VERSION,
    }


def size_for(net: Net) -> Size:
    """The size of the net's pictures; UserError where photos cannot be read as such."""
    if nets.num_channels(net) not in CHANNELS:
        raise UserError(
            f"net={net.name!r}: channels={nets.num_channels(net)}: photos have 3 of colours, 1 of grey, or 4 with "
            "transparency; another net is needed"
        )
    return as_size(nets.size_of(net.picture_size))


def cached(
    net: Net, photo_set: PhotoSet, *, layers: Sequence[str], folder: Path | str, batch_size: int
) -> dict[str, np.ndarray]:
    """Features of every photo, float32 [N, features] for each layer, read from `folder` or written there first.

    Pictures are prepared as the net's training pictures were: shortest side as the net's pictures, centre of their
    shape; the net sees the centre crop. A file's name carries a hash of all that the features depend on. Memory holds
    one batch: the arrays lie on disk (`numpy.memmap`).

    Raises:
      UserError: an unknown layer, too little space on the disk, or a damaged file, which is named.

    Examples:
      frozen_features.cached(net, photos, layers=["fc7"], folder="features", batch_size=64)["fc7"].shape
    """
    for layer in layers:
        nets.check_layer(net, layer)
    keys = {layer: features_key(net, photo_set, layer) for layer in layers}
    paths = {layer: Path(folder) / f"{files.file_name(layer)}-{hash_of(key)}.npy" for layer, key in keys.items()}
    missing = {layer: path for layer, path in paths.items() if not path.exists()}
    if missing:
        _compute(net, photo_set, paths=missing, batch_size=batch_size)
        for layer in missing:
            files.save_json(paths[layer].with_suffix(".json"), keys[layer])
    return {layer: _mapped(path) for layer, path in paths.items()}


def _compute(net: Net, photo_set: PhotoSet, *, paths: Mapping[str, Path], batch_size: int) -> None:
    """Write the features of `paths`' layers in one pass; a file gets its name when it is whole."""
    num_photos = len(photo_set.photos)
    shapes = {layer: (num_photos, math.prod(shape)) for layer, shape in nets.shapes_of(net, list(paths)).items()}
    source = photo_sets.source_of(photo_set, size_for(net), channels=nets.num_channels(net))
    batches = eval_batches(source, batch_size=batch_size)
    rows = protocol.features_of(nets.features_of_pictures(net, list(paths)), batches)
    folder = next(iter(paths.values())).parent
    with files.locked(folder):
        for rest in folder.glob("*.unfinished"):
            rest.unlink()
        _check_space(folder, 4 * sum(map(math.prod, shapes.values())))
        kept = {
            layer: np.lib.format.open_memmap(folder / f"{files.file_name(layer)}.unfinished", "w+", np.float32, shape)
            for layer, shape in shapes.items()
        }
        done = 0
        with tqdm(total=num_photos, desc=f"features of {photo_set.name}", unit=" images", disable=None) as bar:
            for of_layers in rows:
                count = len(next(iter(of_layers.values())))
                for layer, maps in of_layers.items():
                    kept[layer][done : done + count] = maps
                done += count
                bar.update(count)
        for layer, path in paths.items():
            kept[layer].flush()
            os.replace(folder / f"{files.file_name(layer)}.unfinished", path)


def _mapped(path: Path) -> np.ndarray:
    """The array in a file, which stays there."""
    try:
        features: np.ndarray = np.load(path, mmap_mode="r")
        return features
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and it is computed again") from error


def features_key(net: Net, photo_set: PhotoSet, layer: str) -> dict[str, Any]:
    """All that the features of a layer depend on."""
    if isinstance(net, OfTable):
        of_net = {"architecture": repr(net.architecture), "mean": checkpoints.digest(net.mean)}
    else:
        of_net = {"net": net.name}
    return {
        "layer": layer,
        "weights": net.fingerprint,
        **of_net,
        "data": photo_set.fingerprint,
        "pictures": f"shortest side {size_words(size_for(net))}, centre crop {size_words(net.image_size)}",
        "version": FEATURES_VERSION,
    }


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder}: the features take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there")


def _pictures(source: Source, name: str) -> Iterator[np.ndarray]:
    """Batches of a source's pictures, with a bar."""
    with tqdm(total=len(source), desc=f"comparing {name}", unit=" images", disable=None) as bar:
        for batch in eval_batches(source, batch_size=256):
            yield batch["image"][batch["mask"]]
            bar.update(int(batch["mask"].sum()))
