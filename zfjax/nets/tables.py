"""Networks described by an `Architecture`: trained runs and imports, by the explicit forward pass and deconvnet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from zfjax import features as layer_features
from zfjax.architecture import Architecture, Conv, ReceptiveField, Size, receptive_field
from zfjax.data import archives
from zfjax.deconvnet import Way, windows_of_ways
from zfjax.errors import UserError
from zfjax.files import digest
from zfjax.nets.places import check_way, layer_of, places_of
from zfjax.nets.protocol import Training
from zfjax.nets.windowed import ByWindows
from zfjax.network import Params
from zfjax.pixels import as_size, center_crop
from zfjax.units import Seed, Unit
from zfjax.windows import Windows


class OfTable(ByWindows):
    """The methods of a network that is an `Architecture` with parameters: its explicit forward pass and deconvnet."""

    architecture: Architecture
    params: Params
    mean: np.ndarray  # float32 [H, W, C], or [C] of one colour

    if TYPE_CHECKING:  # what each kind of such a network says itself

        @property
        def class_names(self) -> tuple[str, ...]: ...  # noqa: D102
        @property
        def fingerprint(self) -> str: ...  # noqa: D102

    def with_params(self, params: Params) -> Any:
        """The same network with other weights: another epoch, weights drawn anew. Their training is not known."""
        other: Any = self  # each kind of such a network is a dataclass
        return replace(other, params=params)

    @property
    def image_size(self) -> Size:
        """Side of the images, or their (height, width)."""
        return self.architecture.image_size

    @property
    def picture_size(self) -> Size:
        """Side of the pictures, or their (height, width): those of the mean."""
        return as_size(self.mean.shape[:2]) if self.mean.ndim == 3 else self.architecture.image_size

    @property
    def channels(self) -> int:
        """Channels of images and pictures."""
        return self.architecture.channels

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers from the image up; the last one is the logits."""
        return self.architecture.layer_names

    @property
    def num_classes(self) -> int:
        """Units of the last layer, the logits; 0 of a table that ends with a convolutional layer."""
        return self.architecture.num_classes

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{layer: shape of its features of one image}."""
        return {layer: size.output for layer, size in self.architecture.sizes().items()}

    def prepare(self, pictures: Any) -> jax.Array:
        """The centre of pictures uint8 [B, H, W, C], minus the mean."""
        if self.mean.ndim == 3 and pictures.shape[1:] != self.mean.shape:
            raise UserError(
                f"pictures of shape {pictures.shape}: [B, {', '.join(map(str, self.mean.shape))}] is needed, "
                "the size of the mean picture"
            )
        mean = np.broadcast_to(self.mean, pictures.shape[1:])
        if isinstance(pictures, np.ndarray):  # which compiles nothing for each number of pictures
            images: jax.Array = jax.device_put(center_crop(pictures, mean, self.architecture.image_size))
            return images
        return center_crop(jnp.asarray(pictures), jnp.asarray(mean), self.architecture.image_size)

    def features(self, layers: Sequence[str]) -> Partial:
        """fn(images) -> {layer: features}."""
        return layer_features.layers_of(self.params, layers, architecture=self.architecture)

    def project_windows(
        self,
        images: Any,
        units: Unit,
        *,
        ways: Sequence[Way],
        layer: str | None = None,
        of: Any = None,
        seed: Seed = "value",
    ) -> dict[Way, Windows]:
        """{way: what each unit's picture is where it is not zero}: see `project_windows`."""
        layer = layer_of(units, layer)
        self.architecture.layer(layer)
        images = np.asarray(images)
        places = places_of(units, images, of=of, fn=self.features([layer]), layer=layer)
        windows = windows_of_ways(
            self.params,
            images,
            {layer: places},
            architecture=self.architecture,
            ways=tuple(map(check_way, ways)),
            seed=seed,
        )
        return {way: windows[way][layer] for way in ways}

    def receptive_field(self, layer: str) -> ReceptiveField:
        """What one place of a layer sees of the images, by the table."""
        return receptive_field(self.architecture, layer)

    @property
    def first_filters(self) -> np.ndarray | None:
        """float32 [h, w, C, N], the filters of the first layer; None where it has none."""
        row = self.architecture.layers[0]
        return np.asarray(self.params[row.name]["kernel"], np.float32) if isinstance(row, Conv) else None


@dataclass(frozen=True, eq=False, repr=False)
class TrainedNet(OfTable):
    """The network of a run's checkpoint, with its data set and settings.

    Examples:
      >>> import zfjax
      >>> net = zfjax.load_net("runs/zfnet")  # doctest: +SKIP
      >>> net.architecture.name, net.layers[-1], net.params["conv1"]["kernel"].shape  # doctest: +SKIP
    """

    architecture: Architecture
    params: Params
    mean: np.ndarray  # float32 [H, W, C], mean training picture
    path: Path  # of the checkpoint
    run: Path  # folder of the run
    data: str  # what it was trained on, for `zfjax.open_data`
    class_names: tuple[str, ...]  # of its logits
    fingerprint: str  # changes with the weights
    training: Training | None = None  # None where it is not known

    @property
    def name(self) -> str:
        """The run's folder and the checkpoint's step."""
        run = self.run.relative_to(Path.cwd()) if self.run.is_relative_to(Path.cwd()) else self.run
        return f"{run} at step {self.path.name}"

    @property
    def class_words(self) -> tuple[str, ...]:
        """The classes as people call them."""
        return archives.class_words(self.class_names)

    def with_params(self, params: Params) -> TrainedNet:
        """The same network with other weights: another epoch, weights drawn anew. Their training is not known."""
        return replace(self, params=params, fingerprint=digest(params), training=None)
