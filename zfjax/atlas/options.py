"""How an atlas is made."""

from __future__ import annotations

from dataclasses import dataclass

from zfjax.atlas.sprites import QUALITY, TILE
from zfjax.deconvnet import Way


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an atlas is made."""

    layers: tuple[str, ...] = ()
    """Layers to show; by default every one that has feature maps, and the logits."""
    ways: tuple[Way, ...] = ("deconvnet", "guided", "gradient")
    """Ways down to the pixels; the first one is what the walls show."""
    num_images: int = 9
    """Strongest images of each unit."""
    batch_size: int = 64
    """Images at once while the set is looked through."""
    grey: bool = False
    """Measure too what stays of each activation when its images lose their colours."""
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
