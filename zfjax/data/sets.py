"""Data sets by name, as commands and notebooks open them, and the choice of some of their pictures."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from zfjax.architecture import Size
from zfjax.data import ImageSet, Source, Viewer, archives, num_channels, pictures
from zfjax.errors import NotThereError, UserError, check_name, saying_keywords
from zfjax.pixels import as_size, is_size, size_of, size_of_words, size_words


@saying_keywords
def open_data(data: str | Path, *, with_mean: bool = True) -> ImageSet:
    """Open a data set by its name.

    Args:
      data: "demo"; or "demo:SIZE:TRAIN:VALIDATION" with the size of its pictures and of its splits; or the folder of a
        prepared set, "DIR", or "DIR:SIZE" where it holds several sizes. SIZE is a side, 80, or HEIGHTxWIDTH, 60x80.
      with_mean: whether the demo set's mean picture is rendered too, which takes seconds and only training needs.

    Raises:
      FileNotFoundError: no prepared set there; the message says how to make one.
      UserError: a name that is none of these.

    Examples:
      >>> import zfjax
      >>> scenes = zfjax.open_data("demo:16:8:4", with_mean=False)
      >>> len(scenes.train), len(scenes.class_names), scenes.validation[0]["image"].shape
      (8, 10, (16, 16, 3))
    """
    check_name("data", data)
    name, *numbers = (data := str(data)).split(":")
    if name == "demo":
        from zfjax.data import demo

        if len(numbers) not in (0, 3) or not all(map(is_size, numbers[:1])) or not all(map(str.isdigit, numbers[1:])):
            raise UserError(f"data={data!r}: 'demo', 'demo:SIZE:TRAIN:VALIDATION', 'DIR' or 'DIR:SIZE' is needed")
        try:
            return demo.demo_set(*map(size_of_words, numbers[:1]), *map(int, numbers[1:]), with_mean=with_mean)
        except UserError as error:
            raise UserError(f"data={data!r}: {error}") from error
    from zfjax.data import imagenet

    return imagenet.open_imagenet(*_folder_and_size(data))


def is_demo(data: str) -> bool:
    """Whether the name of a set is that of the demo set, which knows the parts of its creatures."""
    return data.split(":")[0] == "demo"


def _folder_and_size(data: str) -> tuple[str, Size | None]:
    """The two parts of "DIR:SIZE", or "DIR" alone; UserError where a folder is called so too."""
    from zfjax.data import imagenet

    folder, _, size = data.rpartition(":")
    if not (folder and is_size(size)):
        return data, None
    if not Path(data).is_dir():
        return folder, size_of_words(size)
    if size_of_words(size) in imagenet.sizes_in(folder):
        raise UserError(
            f"data={data!r}: a folder is called so, and {folder} holds pictures of {size} pixels; write "
            f"'{data}:SIZE' for the one, '{folder}/:{size}' for the other"
        )
    return data, None


@saying_keywords
def open_images(data: str | Path | None, net: Viewer, *, skip_bad: bool = False) -> ImageSet:
    """Open pictures for a net: the set that it was trained on, another set by name, or a folder.

    Args:
      data: None for the net's own set, or as for `open_data`, where "demo" is rendered at the net's size; or a folder
        of pictures, or one picture, which stand for both splits and are brought to the net's size
        (`zfjax.data.folder`). A set's pictures in colours are converted for a net of others as photos are.
      net: it says how large its pictures are, and what its classes are called.
      skip_bad: leave out pictures of a folder that cannot be decoded; they are counted in the set's `left_out`.

    Raises:
      FileNotFoundError: nothing there.
      UserError: a prepared set of another size, a net of images with another number of channels than 1, 3 or 4, or
        one that does not say what it was trained on, and no `data`.

    Examples:
      >>> import numpy as np, zfjax
      >>> net = zfjax.FunctionNet(lambda images: images.mean((1, 2)), image_size=64, layers=("logits",), name="a")
      >>> scenes = zfjax.data.sets.open_images("demo", net)
      >>> scenes.validation[0]["image"].shape
      (64, 64, 3)
    """
    name = getattr(net, "data", None) if data is None else data
    if name is None:
        raise UserError(
            f"data=None: {net.name} does not say what it was trained on; name a set, or a folder of pictures"
        )
    check_name("data", name)
    name = str(name)
    path, (folder_named, size) = Path(name), (name, None) if is_demo(name) else _folder_and_size(name)
    if data is not None and not is_demo(name) and not Path(folder_named).exists():
        raise NotThereError(f"data={name!r}: no such folder; name one of pictures, a prepared set, or demo")
    check_channels(net)
    if not is_demo(name) and size is None and (path.is_file() or (path.is_dir() and not _is_prepared(path))):
        from zfjax.data import folder

        channels = num_channels(net)
        return folder.open_folder(path, net.picture_size, net.class_names, channels=channels, skip_bad=skip_bad)
    from zfjax.data import fitted

    if name == "demo":
        from zfjax.data import demo

        needed = size_of(net.picture_size)
        size = as_size(needed) if min(needed) >= demo.MIN_SIZE else max(demo.MIN_SIZE, *needed)
        return fitted.fitted(demo.demo_set(size, with_mean=False), net)
    return fitted.fitted(check_fit(name, open_data(name, with_mean=False), net), net)


def check_channels(net: Viewer) -> None:
    """UserError for a network of images with another number of channels than pictures have."""
    channels = num_channels(net)
    if channels not in pictures.CHANNELS:
        raise UserError(
            f"{net.name} takes images of {channels} channels: figures by command need pictures of 1, 3 or 4 "
            "channels; from Python, `run(config, net=..., data=...)` takes a set of arrays (zfjax.data.ArraySource)"
        )


def check_fit(name: str, images: ImageSet, net: Viewer) -> ImageSet:
    """The set `name`; UserError where its pictures are of another size than the net's, whose centre may be narrower."""
    needed = size_of(net.picture_size)
    if size_of(images.size) not in (needed, (max(needed),) * 2):
        stored, sides = size_words(images.size), size_words(needed)
        raise UserError(f"data={name!r}: its pictures have {stored} pixels a side, the net's {sides}")
    return images


def official_validation(data: str, size: Size, resample: Image.Resampling) -> ImageSet:
    """ImageNet's validation photos, from where they lie, as a set whose labels are ImageNet's own 0 .. 999.

    Args:
      data: a folder with the official tar or class folders, as for `prepare_imagenet`, or a prepared set.
      size: side of the pictures, pixels.
      resample: the filter that brings them to it.

    Raises:
      UserError: a class that is not one of ImageNet's, or a set without validation pictures.
      OSError: nothing there.
    """
    from zfjax.data import photo_sets

    check_name("data", data)
    folder, synsets = Path(data), archives.official_synsets()
    if not archives.has_validation(folder):
        images = open_data(data)
        if images.official_labels is None:
            raise UserError(f"data={data!r}: its classes are not all among ImageNet's 1000")
        resized = photo_sets.ResizedSource(validation_of(images), size, resample)
        return replace(images, size=size, train=None, validation=resized, mean=None)
    photos, label = list(archives.find_splits(folder)["validation"]()), {name: n for n, name in enumerate(synsets)}
    for photo in photos:
        if photo.folder not in label:
            raise UserError(f"data={data!r}: {photo.folder!r} is not one of ImageNet's 1000 synsets")
    facts = " ".join(f"{photo.folder} {photo.name} {getattr(photo, 'size', 0)}" for photo in photos)
    source = photo_sets.PhotoSource(
        photos, np.array([label[photo.folder] for photo in photos]), size=size, resample=resample
    )
    digest = hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()
    return ImageSet(data, size, synsets, None, source, None, tuple(range(len(synsets))), digest)


def labels_for(data: ImageSet, net: Viewer) -> np.ndarray:
    """The net's class of each of the set's, by its name; -1 where the net has none of that name. -> int32 [classes]"""
    number = {name: label for label, name in enumerate(net.class_names)}
    return np.array([number.get(name, -1) for name in data.class_names], np.int32)


def validation_of(data: ImageSet) -> Source:
    """The validation split; UserError where there is none."""
    if data.validation is None:
        raise UserError(f"data={data.name!r} has no validation split")
    return data.validation


def choose(source: Source, num: int, seed: int) -> np.ndarray:
    """Places of at most `num` examples, drawn by the seed, ascending; UserError for num below 1. -> int [n]"""
    if num < 1:
        raise UserError(f"num_images={num}: at least 1 is needed")
    return np.sort(np.random.default_rng(seed).permutation(len(source))[:num])


def _is_prepared(folder: Path) -> bool:
    """Whether the folder was, or was begun to be, filled by `prepare_imagenet`."""
    from zfjax.data import imagenet

    return (folder / imagenet.NAME).is_dir()
