"""Networks of another framework as ours, by a table of what a file of weights does not say about itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from zfjax.architecture import (
    ALEXNET,
    ZFNET,
    Architecture,
    ContrastNorm,
    Conv,
    FieldRule,
    Layer,
    Pool,
    Shape,
    check_fields,
    pooled_size,
)
from zfjax.errors import UserError
from zfjax.files import digest
from zfjax.nets import OfTable
from zfjax.network import Params
from zfjax.pixels import center_crop
from zfjax.pretrained.weights import read_weights, take, with_zero_biases


class Names(NamedTuple):
    """The names of one layer's weights in a file."""

    layer: str  # of the architecture
    kernel: str  # in the table's layout
    bias: str  # [out]


@dataclass(frozen=True)
class ImportTable:
    """What a file of weights does not say about its network; nothing is guessed from sizes.

    For a network of your own write one, or take the nearest of `TABLES` and `dataclasses.replace`.

    Examples:
      >>> import dataclasses, zfjax
      >>> table = dataclasses.replace(zfjax.pretrained.TABLES["zfnet"], channels="BGR")
      >>> table.architecture.name, table.channels
      ('zfnet', 'BGR')
    """

    architecture: Architecture  # with the exporter's paddings, order of stages and constants of the contrast norm
    names: tuple[Names, ...]  # one for each layer
    # What the norm's alpha multiplies: the "sum" of the squares, or their "mean" (PyTorch, ONNX, Caffe)
    norm: Literal["sum", "mean"] = "mean"
    pools: Literal["ceil", "floor"] = "ceil"  # the rule that counts windows; ours is ceil
    # OIHW, and [out, in] with `in` flattened from CHW, as PyTorch and ONNX keep kernels; or HWIO, and [in, out] with
    # `in` flattened from HWC, as Keras and Flax do
    layout: Literal["OIHW", "HWIO"] = "OIHW"
    channels: Literal["RGB", "BGR"] = "RGB"  # the order of colours that the exporter's network reads
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)  # RGB, in pixels of 0..255; subtracted before the network
    std: tuple[float, ...] = (1.0, 1.0, 1.0)  # RGB, in pixels; the exporter divides by it, here it goes into conv1
    ignored: tuple[str, ...] = ()  # further arrays of the file, which belong to no layer

    def __post_init__(self) -> None:
        check_fields(f"import table of {self.architecture.name!r}: ", self, _RULES)
        if tuple(row.layer for row in self.names) != self.architecture.layer_names:
            raise UserError(
                f"names for {', '.join(row.layer for row in self.names)}: {self.architecture.name} has "
                f"{', '.join(self.architecture.layer_names)}, in this order"
            )
        first = self.architecture.layers[0]
        if not isinstance(first, Conv) or first.groups > 1:
            raise UserError(f"layer {first.name!r}: the first has to be a Conv without groups, which sees all colours")
        if {len(self.mean), len(self.std)} != {self.architecture.channels}:
            raise UserError(f"mean={self.mean}, std={self.std}: {self.architecture.channels} numbers each are needed")
        for layer in self.architecture.layers if self.pools == "floor" else ():
            _check_floor(layer, self.architecture)

    def with_classes(self, num_classes: int) -> ImportTable:
        """The same table for a network with another number of classes."""
        last = self.architecture.layer_names[-1]
        return dataclasses.replace(self, architecture=self.architecture.with_sizes(**{last: num_classes}))


@dataclass(frozen=True, eq=False, repr=False)
class ImportedNet(OfTable):
    """A network as one of ours, for `zfjax.forward` and everything built on it: a `zfjax.nets.Net`."""

    architecture: Architecture  # in this library's conventions
    params: Params  # NumPy arrays
    mean: np.ndarray  # float32 [3], RGB: images are pixels minus this
    class_names: tuple[str, ...] = ()  # of the logits, where they are known
    notes: tuple[str, ...] = ()  # of `read_weights`: what was chosen of the file, and what cannot be checked

    @property
    def name(self) -> str:
        """The architecture's name."""
        return f"imported {self.architecture.name}"

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the weights."""
        return digest(dict(self.params))

    def preprocess(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures, uint8 [B, H, W, C], as images: their centre, minus the mean.

        -> float32 [B, *image_size, C]; UserError for pictures smaller than the images.
        """
        mean = np.broadcast_to(self.mean, pictures.shape[1:])
        return np.asarray(center_crop(jnp.asarray(pictures), jnp.asarray(mean), self.architecture.image_size))


def from_file(
    path: Path | str, table: ImportTable, *, key: str | None = None, prefix: str = "", sha256: str | None = None
) -> ImportedNet:
    """Read weights from `path` as a network in this library's conventions.

    Kernels become HWIO; the first dense one reads its maps flattened from HWC; the first kernel takes in the order of
    colours and the division by `std`, so that images are RGB pixels minus the mean; the norm's alpha multiplies a sum.

    Args:
      path: a file in any format of `read_weights`; nothing in it is executed.
      table: what the file does not say; where it does hold constants of the norm, as ONNX may, they have to agree.
      key, prefix, sha256: as for `read_weights`.

    Raises:
      FileNotFoundError, UserError: from `read_weights` and `take`: what was expected, and what was found.

    Examples:
      net = from_file("alexnet.pth", TABLES["alexnet-torchvision"])
      logits, trace = zfjax.forward(net.params, images, architecture=net.architecture)
    """
    path, sizes = Path(path), table.architecture.sizes()
    shapes: dict[str, Shape] = {}
    for row in table.names:
        kernel = sizes[row.layer].kernel
        theirs = (*kernel[:1:-1], *kernel[:2]) if len(kernel) == 4 else kernel[::-1]
        shapes |= {row.kernel: theirs if table.layout == "OIHW" else kernel}
        shapes |= {row.bias: kernel[-1:]}
    read = read_weights(path, key=key, prefix=prefix, sha256=sha256)
    read = with_zero_biases(read, [(row.kernel, row.bias) for row in table.names])
    ignored = (*table.ignored, *_constants_of_norms(read.arrays, table.architecture))
    weights = take(path, read.arrays, shapes, ignored=ignored, notes=read.notes)
    params: dict[str, Any] = {
        row.layer: {"kernel": _as_ours(weights[row.kernel], sizes[row.layer].input, table), "bias": weights[row.bias]}
        for row in table.names
    }
    first = table.names[0].layer
    params[first]["kernel"] = _reading_pixels(params[first]["kernel"], table)
    return ImportedNet(_in_our_convention(table), params, np.asarray(table.mean, np.float32), notes=read.notes)


def as_images(inputs: np.ndarray, table: ImportTable) -> np.ndarray:
    """Convert the exporter's input [B, C, H, W] to ours: RGB pixels minus the mean, [B, H, W, C].

    Examples:
      >>> import numpy as np
      >>> from zfjax import pretrained
      >>> pretrained.as_images(np.zeros((2, 3, 8, 8), np.float32), pretrained.TABLES["zfnet"]).shape
      (2, 8, 8, 3)
    """
    images = np.moveaxis(inputs, 1, 3)[..., _order(table)]
    return np.asarray(images * np.asarray(table.std), np.float32)


def _constants_of_norms(arrays: Mapping[str, np.ndarray], architecture: Architecture) -> list[str]:
    """The scalars that are k, alpha or beta of a contrast norm, which ONNX keeps among the weights."""
    stages = [stage for layer in architecture.layers if isinstance(layer, Conv) for stage in layer.after]
    norms = [stage for stage in stages if isinstance(stage, ContrastNorm)]
    constants = np.array([value for norm in norms for value in (norm.k, norm.alpha, norm.beta)], np.float32)
    return [name for name, array in arrays.items() if array.shape == () and (constants == np.float32(array)).any()]


def _as_ours(kernel: np.ndarray, shape: Shape, table: ImportTable) -> np.ndarray:
    """A kernel of the file, whose layer reads `shape`, as HWIO or [in, out] with `in` flattened from HWC."""
    if table.layout == "HWIO":
        return kernel
    if kernel.ndim == 4:
        return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
    if len(shape) == 3:
        height, width, channels = shape
        kernel = kernel.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(kernel.shape)
    return np.ascontiguousarray(kernel.T)


def _reading_pixels(kernel: np.ndarray, table: ImportTable) -> np.ndarray:
    """The first kernel, HWIO, for RGB pixels, where the exporter's read `channels` divided by `std`."""
    scale = np.asarray(table.std)[:, None] * table.architecture.input_scale
    return np.asarray(kernel[:, :, _order(table)] / scale, np.float32)


def _order(table: ImportTable) -> list[int]:
    """Where red, green and blue (or whatever the channels are) stand among the exporter's."""
    order = list(range(table.architecture.channels))
    return order if table.channels == "RGB" else order[::-1]


def _in_our_convention(table: ImportTable) -> Architecture:
    if table.norm == "sum":
        return table.architecture
    return dataclasses.replace(table.architecture, layers=tuple(map(_with_sum, table.architecture.layers)))


def _with_sum(layer: Layer) -> Layer:
    """The layer, whose norm's alpha multiplied a mean, with an alpha that multiplies the sum."""
    if not isinstance(layer, Conv):
        return layer
    after = (
        dataclasses.replace(stage, alpha=stage.alpha / stage.num_maps) if isinstance(stage, ContrastNorm) else stage
        for stage in layer.after
    )
    return dataclasses.replace(layer, after=tuple(after))


def _check_floor(layer: Layer, architecture: Architecture) -> None:
    """UserError where the floor rule counts other windows than ours: that network is none of ours."""
    if not isinstance(layer, Conv) or layer.pool is None:
        return
    for side in architecture.sizes()[layer.name].filtered[:2]:
        floor, ceil = (side - layer.pool.size) // layer.pool.stride + 1, pooled_size(side, layer.pool)
        if floor != ceil:
            raise UserError(
                f"pools='floor': layer {layer.name!r} pools its map of {side} to {floor}, the ceil rule to {ceil}; "
                "only where both agree can the network be imported"
            )


def _is_one_of(*values: str) -> FieldRule:
    return FieldRule(f"one of {', '.join(map(repr, values))}", lambda value: value in values)


_RULES: Mapping[str, FieldRule] = {
    "norm": _is_one_of("sum", "mean"),
    "pools": _is_one_of("ceil", "floor"),
    "channels": _is_one_of("RGB", "BGR"),
    "layout": _is_one_of("OIHW", "HWIO"),
    "mean": FieldRule("a tuple of finite numbers", lambda value: all(map(math.isfinite, value))),
    "std": FieldRule("a tuple of finite numbers above 0", lambda value: all(0 < x < math.inf for x in value)),
}


def by_prefix(**prefixes: str) -> tuple[Names, ...]:
    """Names as PyTorch gives them: by_prefix(conv1="features.0") -> features.0.weight, features.0.bias.

    Examples:
      >>> from zfjax import pretrained
      >>> pretrained.by_prefix(conv1="features.0")
      (Names(layer='conv1', kernel='features.0.weight', bias='features.0.bias'),)
    """
    return tuple(Names(layer, f"{prefix}.weight", f"{prefix}.bias") for layer, prefix in prefixes.items())


_OWN_NAMES = by_prefix(**{name: name for name in ZFNET.layer_names})

# ImageNet's mean and standard deviation as PyTorch users write them (for pixels of 0..1), here in pixels
_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
_STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)

# Krizhevsky 2014 ("one weird trick") as torchvision has it: other widths than ALEXNET, no groups, no norm
_ALEXNET_TORCHVISION = dataclasses.replace(
    ALEXNET,
    name="alexnet-torchvision",
    layers=(
        Conv("conv1", 64, kernel=11, stride=4, padding=(2, 2), after=(Pool(),)),
        Conv("conv2", 192, kernel=5, padding=(2, 2), after=(Pool(),)),
        Conv("conv3", 384, kernel=3, padding=(1, 1)),
        Conv("conv4", 256, kernel=3, padding=(1, 1)),
        Conv("conv5", 256, kernel=3, padding=(1, 1), after=(Pool(),)),
        *ALEXNET.layers[-3:],
    ),
)

_ZFNET_512 = dataclasses.replace(ZFNET.with_sizes(conv3=512, conv4=1024, conv5=512), name="zfnet-512")

TABLES: dict[str, ImportTable] = {
    # its pools count by floor, which at 224 pixels is the same; its adaptive average pool does nothing there
    "alexnet-torchvision": ImportTable(
        _ALEXNET_TORCHVISION,
        by_prefix(
            conv1="features.0",
            conv2="features.3",
            conv3="features.6",
            conv4="features.8",
            conv5="features.10",
            fc6="classifier.1",
            fc7="classifier.4",
            fc8="classifier.6",
        ),
        pools="floor",
        mean=_MEAN,
        std=_STD,
    ),
    # Fig. 3 with LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2) and MaxPool2d(3, 2, ceil_mode=True), modules called
    # as the layers, trained on pixels as torchvision's networks
    "zfnet": ImportTable(ZFNET, _OWN_NAMES, mean=_MEAN, std=_STD),
    "zfnet-512": ImportTable(_ZFNET_512, _OWN_NAMES, mean=_MEAN, std=_STD),
}
