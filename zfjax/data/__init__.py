"""Pictures with labels: the little that the rest of the library knows about a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from zfjax.errors import UserError


class Source(Protocol):
    """Random access to the examples of one split; a source pickles, because worker processes read it too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """The example at `index`: image uint8 [H, W, C], label np.int32, index np.int32 (place in the split)."""
        ...


class Viewer(Protocol):
    """What decides how pictures are opened for a network; every `zfjax.Net` is one."""

    @property
    def name(self) -> str:
        """What it is called in errors."""

    @property
    def image_size(self) -> int | tuple[int, int]:
        """Side, or (height, width), of what it sees of a picture, pixels."""

    @property
    def picture_size(self) -> int | tuple[int, int]:
        """Side, or (height, width), of the pictures."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of its logits; empty where it has no classes."""


def num_channels(viewer: Viewer) -> int:
    """Channels of the pictures: 3 of colours, unless the network says another number."""
    return int(getattr(viewer, "channels", 3))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled pictures of one size.

    Attributes:
      name: "imagenet", "demo", ...
      size: side of the stored pictures, or their (height, width), in pixels.
      class_names: dense label -> synset or folder name.
      train, validation: the splits; None where the set has no such split.
      mean: float32 [H, W, C], mean of the training pictures (the demo set: of 512); None without them.
      official_labels: dense label -> ImageNet's own index (0..999); None unless every class is one of ImageNet's.
      fingerprint: short hash of every stored picture and label, so it changes when the data do.
      left_out: what lies there and is no part of the set: {reason: {"count", "first": names}}.
    """

    name: str
    size: int | tuple[int, int]
    class_names: tuple[str, ...]
    train: Source | None
    validation: Source | None
    mean: np.ndarray | None
    official_labels: tuple[int, ...] | None
    fingerprint: str
    left_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ArraySource:
    """A source over arrays in memory.

    Args:
      images: uint8 [N, H, W, C].
      labels: whole numbers [N], 0 or more.

    Raises:
      UserError: where the arrays do not have these shapes and types.

    Examples:
      >>> import numpy as np
      >>> from zfjax.data import ArraySource
      >>> source = ArraySource(np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1]))
      >>> len(source), source[3]["label"]
      (4, np.int32(1))
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"images must be uint8 [N, H, W, C], not {images.dtype} {list(images.shape)}")
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(
                f"labels must be whole numbers [{len(images)}], one per image, not {labels.dtype} {list(labels.shape)}"
            )
        self._images, self._labels = images, labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._images[index], "label": self._labels[index], "index": np.int32(index)}


class Subset:
    """Some examples of a split, which keep their place in it as their index: a `Source`."""

    def __init__(self, source: Source, places: np.ndarray):
        self._source, self.places = source, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._source[int(self.places[index])]

    def name(self, index: int) -> str:
        """What the example is called: see `name_of`."""
        return name_of(self._source, int(self.places[index]))


class Concatenated:
    """The training photos and after them the validation photos, as one source."""

    def __init__(self, photos: ImageSet):
        self._splits = [split for split in (photos.train, photos.validation) if split is not None]

    def __len__(self) -> int:
        return sum(len(split) for split in self._splits)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        split, place = self._place(index)
        return {**split[place], "index": np.int32(index)}

    def name(self, index: int) -> str:
        """What the example is called: see `name_of`."""
        return name_of(*self._place(index))

    def _place(self, index: int) -> tuple[Source, int]:
        place = index
        for split in self._splits:
            if place < len(split):
                return split, place
            place -= len(split)
        raise IndexError(f"index={index}: 0 to {len(self) - 1} is needed")


def name_of(source: Source, index: int) -> str:
    """What an example is called: its file's name where the source knows it, else its place in the split."""
    name = getattr(source, "name", None)
    return str(name(index)) if callable(name) else f"{index}"
