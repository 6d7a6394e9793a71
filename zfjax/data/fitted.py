"""A set's pictures in colours, as a network takes them that looks at others: grey, of another size, not square.

They are brought there as photos are: the centre is cut out, resized, and its channels are converted; with it go the
places of its parts and the mask of its object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from zfjax.data import ImageSet, Source, Viewer, name_of, num_channels, pictures
from zfjax.pixels import size_of


class FittedSource:
    """The pictures of another source, brought to a size and number of channels as `pictures.fitted` does."""

    def __init__(self, source: Source, size: tuple[int, int], channels: int):
        self._source, self._size, self._channels = source, size, channels
        self.part_names = tuple(getattr(source, "part_names", ()))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        example = dict(self._source[index])
        image = Image.fromarray(example["image"])
        if "parts" in example:
            left, top, right, _ = pictures.centre_of(image.size, self._size)
            scale = self._size[1] / (right - left)
            example["parts"] = ((example["parts"] - (top, left)) * scale).astype(example["parts"].dtype)
        if "object" in example:
            mask = pictures.fitted(Image.fromarray(example["object"].astype(np.uint8) * 255), self._size, 1)
            example["object"] = mask[..., 0] >= 128
        return {**example, "image": pictures.fitted(image, self._size, self._channels)}

    def name(self, index: int) -> str:
        """What the example is called: see `name_of`."""
        return name_of(self._source, index)


def fitted(images: ImageSet, net: Viewer) -> ImageSet:
    """The set as the network takes its pictures; itself, where it takes them as they are.

    Examples:
      >>> import jax.numpy as jnp, zfjax
      >>> from zfjax.data import demo, fitted
      >>> net = zfjax.FunctionNet(lambda images: {"a": images}, image_size=(16, 24), channels=1)
      >>> grey = fitted.fitted(demo.demo_set(24, 4, 4, with_mean=False), net)
      >>> grey.size, grey.validation[0]["image"].shape
      ((16, 24), (16, 24, 1))
    """
    size, channels = size_of(net.picture_size), num_channels(net)
    if size == size_of(images.size) and channels == 3:
        return images

    def split(source: Source | None) -> Source | None:
        return None if source is None else FittedSource(source, size, channels)

    return replace(
        images,
        size=net.picture_size,
        train=split(images.train),
        validation=split(images.validation),
        mean=None,
        fingerprint=f"{images.fingerprint}-{size[0]}x{size[1]}x{channels}",
    )
