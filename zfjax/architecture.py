"""The convnets of the paper as frozen tables, and every size that follows from them.

Nothing here imports JAX: a table is a hashable value that can be a static argument of `jax.jit`, a line in a
checkpoint, or a row in a report. Fig. 3 of the paper is `ZFNET`; the network it is compared with is `ALEXNET`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from zfjax.layers import (
    COUNT,
    POSITIVE,
    ContrastNorm,
    Conv,
    Dense,
    Layer,
    Pool,
    Rule,
    Shape,
    Sizes,
    check_fields,
    sizes_of,
)


class ReceptiveField(NamedTuple):
    """Place (y, x) of a map sees image rows offset + y * stride up to, not including, that + size; columns alike."""

    size: int  # pixels
    stride: int  # pixels between the fields of neighbouring places
    offset: int  # first row (column) of the field of place 0; negative where it begins in the padding

    def box(self, position: Sequence[int]) -> tuple[int, int, int, int]:
        """Rows and columns (top, left, bottom, right) that `position` sees; may reach beyond the image."""
        top, left = (self.offset + int(place) * self.stride for place in position)
        return top, left, top + self.size, left + self.size


@dataclass(frozen=True)
class Architecture:
    """A convnet as a table: convolutional layers, then dense ones. Hashable; variants by the methods below."""

    name: str
    layers: tuple[Layer, ...]
    image_size: int = 224  # side of the square input, pixels
    channels: int = 3
    input_scale: float = 1.0  # images are multiplied by this inside the network, so that outside they stay in pixels

    def __post_init__(self) -> None:
        _check_table(self)
        self.sizes()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers from the image up."""
        return tuple(layer.name for layer in self.layers)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.layers[-1].features

    def layer(self, name: str) -> Layer:
        """The row called `name`; an unknown name is a ValueError."""
        _check_names(self, [name])
        return self.layers[self.layer_names.index(name)]

    def sizes(self) -> dict[str, Sizes]:
        """Shapes of every layer, by rule from the image up; a geometry that cannot work is a ValueError."""
        sizes: dict[str, Sizes] = {}
        shape: Shape = (self.image_size, self.image_size, self.channels)
        for layer in self.layers:
            sizes[layer.name] = sizes_of(layer, shape)
            shape = sizes[layer.name].output
        return sizes

    def num_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(math.prod(size.kernel) + size.kernel[-1] for size in self.sizes().values())

    def with_sizes(self, image: int | None = None, **features: int) -> Architecture:
        """The same table with another image size and other widths: `with_sizes(image=112, conv3=512, fc8=10)`."""
        _check_names(self, features)
        layers = tuple(
            dataclasses.replace(layer, features=features.get(layer.name, layer.features)) for layer in self.layers
        )
        return dataclasses.replace(self, layers=layers, image_size=self.image_size if image is None else image)

    def scaled(self, width: float) -> Architecture:
        """Every layer but the last with `width` times its features, rounded to a multiple of its groups."""
        if not 0 < width < math.inf:
            raise ValueError(f"width={width!r}: a finite factor above 0 is needed")
        step = math.lcm(*(layer.groups for layer in self.layers if isinstance(layer, Conv)))
        widths = {layer.name: max(1, round(layer.features * width / step)) * step for layer in self.layers[:-1]}
        return self.with_sizes(**widths)

    def without(self, *names: str) -> Architecture:
        """The table with these layers, and the pools and norms inside them, left out (Table 3's ablations)."""
        _check_names(self, names)
        if self.layer_names[-1] in names:
            raise ValueError(f"without({self.layer_names[-1]!r}): the last layer gives the logits and has to stay")
        return dataclasses.replace(self, layers=tuple(layer for layer in self.layers if layer.name not in names))


def receptive_field(
    architecture: Architecture, layer: str, *, stage: Literal["output", "filtered"] = "output"
) -> ReceptiveField:
    """The image region that one place of a layer sees, derived from the table.

    Going up, each filter or pool widens the field by (size - 1) * stride so far, and multiplies the stride.
    A dense layer above a convolution is a filter as large as the map. The contrast norm does not look sideways.

    Args:
      architecture: the table.
      layer: name of a layer.
      stage: "output" for what the layer hands on (trace[layer].features); "filtered" for its map before the pool:
        Fig. 3's conv1 gives 11 pixels (stride 4) and 7 (2).

    Returns:
      ReceptiveField in pixels; ValueError for an unknown layer or stage.
    """
    architecture.layer(layer)
    if stage not in ("output", "filtered"):
        raise ValueError(f"stage={stage!r}: one of 'output', 'filtered' is needed")
    field = ReceptiveField(size=1, stride=1, offset=0)
    for row in architecture.layers:
        if isinstance(row, Conv):
            field = _widen(field, row.kernel, row.stride, row.padding[0])
            last = row.name == layer and stage == "filtered"
            if row.pool and not last:
                field = _widen(field, row.pool.size, row.pool.stride, 0)
        else:
            shape = architecture.sizes()[row.name].input
            field = _widen(field, shape[0] if len(shape) == 3 else 1, 1, 0)
        if row.name == layer:
            break
    return field


def _widen(field: ReceptiveField, size: int, stride: int, padding: int) -> ReceptiveField:
    return ReceptiveField(
        size=field.size + (size - 1) * field.stride,
        stride=field.stride * stride,
        offset=field.offset - padding * field.stride,
    )


def _check_names(architecture: Architecture, names: Iterable[str]) -> None:
    for name in names:
        if name not in architecture.layer_names:
            raise ValueError(f"unknown layer {name!r}: {architecture.name} has {', '.join(architecture.layer_names)}")


def _check_table(architecture: Architecture) -> None:
    """ValueError naming the field, or the layers, and the rule."""
    check_fields(f"architecture {architecture.name!r}: ", architecture, _RULES)
    if len(set(architecture.layer_names)) != len(architecture.layers):
        raise ValueError(f"layers {architecture.layer_names}: each name may stand once")
    last = architecture.layers[-1] if architecture.layers else None
    if not isinstance(last, Dense) or last.hidden:
        raise ValueError(f"architecture {architecture.name!r}: the last layer has to be Dense with hidden=False")


def _are_layers(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(layer, Conv | Dense) for layer in value)


_RULES = {
    "layers": Rule("a tuple of Conv and Dense", _are_layers),
    "image_size": COUNT,
    "channels": COUNT,
    "input_scale": POSITIVE,
}
_POOL_NORM = (Pool(), ContrastNorm())  # Fig. 3: normalised after pooling
_NORM_POOL = (ContrastNorm(), Pool())  # Krizhevsky et al. 2012: normalised before pooling

# Fig. 3. Paper is silent on the paddings: these give its map sizes 110-55-26-13-13-13-13-6.
ZFNET = Architecture(
    name="zfnet",
    layers=(
        Conv("conv1", 96, kernel=7, stride=2, padding=(1, 0), after=_POOL_NORM),
        Conv("conv2", 256, kernel=5, stride=2, after=_POOL_NORM),
        Conv("conv3", 384, kernel=3, padding=(1, 1)),
        Conv("conv4", 384, kernel=3, padding=(1, 1)),
        Conv("conv5", 256, kernel=3, padding=(1, 1), after=(Pool(),)),
        Dense("fc6", 4096),
        Dense("fc7", 4096),
        Dense("fc8", 1000, hidden=False),
    ),
)

# Krizhevsky et al. 2012, fig. 2: the network that the paper replicates and improves on (sec. 4.1, Table 3).
ALEXNET = Architecture(
    name="alexnet",
    layers=(
        Conv("conv1", 96, kernel=11, stride=4, padding=(2, 2), after=_NORM_POOL),
        Conv("conv2", 256, kernel=5, padding=(2, 2), groups=2, after=_NORM_POOL),
        Conv("conv3", 384, kernel=3, padding=(1, 1)),
        Conv("conv4", 384, kernel=3, padding=(1, 1), groups=2),
        Conv("conv5", 256, kernel=3, padding=(1, 1), groups=2, after=(Pool(),)),
        Dense("fc6", 4096),
        Dense("fc7", 4096),
        Dense("fc8", 1000, hidden=False),
    ),
)
