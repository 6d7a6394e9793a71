"""Examples as a network and as a reader see them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from zfjax.data import Source, name_of, num_channels
from zfjax.nets.protocol import Net
from zfjax.pixels import as_seen, size_of


class Views(NamedTuple):
    """The centre crops of N examples, as the network and as a reader sees them; [h, w] is the net's image size."""

    images: np.ndarray  # float32 [N, h, w, C] the net's input
    pictures: np.ndarray  # uint8 [N, h, w, 3]
    labels: np.ndarray  # int32 [N]; -1 where the set does not say
    objects: np.ndarray | None  # bool [N, h, w] the pixel lies on the object; None where the set does not say
    parts: np.ndarray | None  # float32 [N, P, 2] (y, x) of the parts, pixels of the crop; None likewise
    names: tuple[str, ...] = ()  # [N] what each is called: its file's name, or its place in the split


def read_views(source: Source, indices: Sequence[int] | np.ndarray, net: Net) -> Views:
    """The examples at `indices` of a split whose pictures have the net's picture size.

    Examples:
      >>> import numpy as np, zfjax
      >>> from zfjax.data import demo
      >>> net = zfjax.FunctionNet(lambda images: {"mean": images.mean((1, 2))}, image_size=64, name="mean")
      >>> views = zfjax.nets.read_views(demo.DemoSource(1, 4, 64), np.array([0, 3]), net)
      >>> views.pictures.shape, views.labels.shape
      ((2, 64, 64, 3), (2,))
    """
    (height, width), stored_size = size_of(net.image_size), size_of(net.picture_size)
    with ThreadPoolExecutor() as pool:  # Pillow and JAX work without the interpreter's lock
        examples = list(pool.map(source.__getitem__, map(int, indices)))
    empty = np.zeros((0, *stored_size, num_channels(net)), np.uint8)
    stored = np.stack([example["image"] for example in examples]) if examples else empty
    top, left = (stored.shape[1] - height) // 2, (stored.shape[2] - width) // 2
    crop = np.s_[:, top : top + height, left : left + width]

    def known(name: str) -> np.ndarray | None:
        return np.stack([e[name] for e in examples]) if examples and all(name in e for e in examples) else None

    objects, parts = known("object"), known("parts")
    return Views(
        images=np.asarray(net.prepare(stored)),
        pictures=as_seen(stored[crop]),
        labels=np.array([example["label"] for example in examples], np.int32),
        objects=None if objects is None else objects[crop],
        parts=None if parts is None else parts - np.array([top, left], np.float32),
        names=tuple(name_of(source, int(index)) for index in indices),
    )
