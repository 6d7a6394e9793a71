"""What every analysis, figure and page asks of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypedDict

import jax
import numpy as np

from zfjax.architecture import ReceptiveField, Size
from zfjax.deconvnet import Way
from zfjax.errors import UserError
from zfjax.features import Features
from zfjax.units import Seed, Unit


class Net(Protocol):
    """A network, as the analyses and figures use it.

    Images are its input, float [B, H, W, C]; pictures are uint8, as they are stored.

    Examples:
      >>> import zfjax
      >>> net: zfjax.Net = zfjax.FunctionNet(lambda images: {"mean": images.mean((1, 2))}, image_size=8, name="mean")
      >>> net.name, net.layers, net.image_size
      ('mean', ('mean',), 8)
    """

    @property
    def name(self) -> str:
        """What it is called on pages and in results."""

    @property
    def image_size(self) -> Size:
        """Size of the images."""

    @property
    def picture_size(self) -> Size:
        """Size of the pictures that `prepare` takes, whose centre the images are."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be looked at, from the image up; where there are classes, the last one is the logits."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the logits; empty where there are no classes, or they have no names (then a `num_classes` counts them)."""

    @property
    def fingerprint(self) -> str:
        """Changes with the weights."""

    def prepare(self, pictures: Any) -> jax.Array:
        """Pictures uint8 [B, *picture_size, C] -> images [B, *image_size, C]."""

    def features(self, layers: Sequence[str]) -> Features:
        """fn(images) -> {layer: [B, H, W, C] or [B, C]}; UserError for an unknown layer, or none at all."""

    def project(
        self,
        images: Any,
        units: Unit,
        *,
        layer: str | None = None,
        of: Any = None,
        way: Way = "deconvnet",
        seed: Seed = "value",
    ) -> np.ndarray:
        """One signed picture for each unit, each projected alone, from its own activation.

        Args:
          images: float [U, H, W, C], the network's input.
          units: a `Unit` whose channel, and place (y, x) or None for the strongest one, are numbers or [N].
          layer: where they stand, unless the units say it.
          of: int [N], the image of each unit; by default the one image, or unit n in image n.
          way: "deconvnet", or to compare "gradient" or "guided" backpropagation.
          seed: start from the activation's "value", which warns below 0, or from "one".

        Returns:
          [N, H, W, C], in the unit and type of the images. UserError for an unknown layer, or a unit that is not there.
        """

    def receptive_field(self, layer: str) -> ReceptiveField | None:
        """What one place of a layer sees of the images; None where that cannot be known."""


class Training(TypedDict):
    """What a network was trained on, and how long; None where that is not known."""

    num_classes: int | None
    num_images: int | None
    epochs: float | None  # 0 of one that is not trained
    width: float | None  # maps of its first layer over the paper's 96; None where that says nothing


def check_layer(net: Net, layer: str) -> str:
    """`layer`; UserError where the network has none of this name."""
    if layer not in net.layers:
        raise UserError(f"layer={layer!r}: one of {', '.join(net.layers)} of {net.name} is needed")
    return layer
