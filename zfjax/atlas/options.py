"""The options of an atlas, and what each of them may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zfjax.atlas.sprites import QUALITY, TILE
from zfjax.deconvnet import WAYS, Way
from zfjax.errors import UserError

# The least values of what is counted
_LEAST = {"num_images": 1, "batch_size": 1, "tile": 8, "quality": 1, "ascent": 0, "num_occluded": 0}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of an atlas; UserError for impossible values."""

    layers: tuple[str, ...] = ()
    """Layers to show; by default every one that has feature maps, and the last one; all of a network without maps."""
    ways: tuple[Way, ...] = ("deconvnet", "guided", "gradient")
    """Ways down to the pixels; the first one is what the walls show."""
    num_images: int = 9
    """Strongest images of each unit; all of a set of fewer."""
    batch_size: int = 64
    """Images at once while the set is looked through."""
    grey: bool = False
    """Measure too what stays of each activation when its images, of three channels, lose their colours."""
    ascent: int = 0
    """Starts of a robust gradient ascent of each unit, whose pictures stand beside its projections."""
    num_occluded: int = 0
    """Images whose page shows where a grey square hides what the network says, from the first one on."""
    tile: int = TILE
    """Pixels of the longer side of a tile, at most."""
    quality: int = QUALITY
    """Of the pictures as WebP, 1 to 100; less makes a smaller site."""
    save_every: float = 30.0
    """Seconds between two savings of the scan."""

    def __post_init__(self) -> None:
        if isinstance(self.layers, str):
            raise UserError(f"layers={self.layers!r}: a tuple of names is needed")
        for way in self.ways:
            if way not in WAYS:
                raise UserError(f"ways={self.ways!r}: each one of {', '.join(map(repr, WAYS))} is needed")
        if not self.ways or len(set(self.ways)) != len(self.ways):
            raise UserError(f"ways={self.ways!r}: at least one is needed, each once")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise UserError(f"{name}={value!r}: a whole number of at least {least} is needed")
        if self.quality > 100:
            raise UserError(f"quality={self.quality}: 1 to 100 is needed")
