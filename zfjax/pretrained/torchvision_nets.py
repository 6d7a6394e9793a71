r"""AlexNet, VGG, SqueezeNet and ResNet as torchvision has them: their files of weights into JAX functions.

net = torchvision("resnet18", "resnet18-f37072fd.pth")
net.fn(net.preprocess(pictures))["layer1.0"]            # every layer, of pictures uint8 [B, S, S, 3]
print("\n".join(parity_lines(net.parity("outputs.npz"))))  # beside what PyTorch computed
net.as_net().project(images, Unit(channel=7), layer="layer4.1")

A network is a table of rows from the image up. A layer is called after the module of torchvision whose output it is:
those of rectifiers, pools, blocks and dense layers, as these are features; "features.1" is what features.0 filtered,
after its ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from zfjax.architecture import Conv, ReceptiveField, Shape, Span
from zfjax.data.archives import official_synsets
from zfjax.errors import UserError
from zfjax.nets import FunctionNet, size_of
from zfjax.network import Params
from zfjax.ops import conv, max_pool
from zfjax.pretrained.parity_report import ParityRow, exporter_parity, read_exporter_run
from zfjax.pretrained.pictures import resized
from zfjax.pretrained.weights import Weights, read_weights, take, with_zero_biases

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, of pixels of 0 to 1, with which all were trained
_NORM = ("weight", "bias", "running_mean", "running_var")
_EPSILON = 1e-5  # of a batch norm
Shapes = dict[str, Shape]  # {array of the file: its shape}
Arrays = dict[str, dict[str, np.ndarray]]  # {module: parameters}


class Filters(NamedTuple):
    """A convolution; with its batch norm and its ReLU, where it has them."""

    layer: str  # whose output it is; "" inside a block
    module: str  # of the weights
    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    norm: str = ""  # module of the batch norm
    bias: bool = True
    relu: bool = True

    def shapes(self, channels: int) -> tuple[Shapes, int]:
        """Arrays of the file, OIHW, for maps of so many channels, and the channels above."""
        shapes: Shapes = {f"{self.module}.weight": (self.features, channels, self.kernel, self.kernel)}
        vectors = [f"{self.norm}.{part}" for part in _NORM if self.norm]
        vectors += [f"{self.module}.bias" for _ in range(self.bias)]
        return shapes | dict.fromkeys(vectors, (self.features,)), self.features

    def params(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays of the file as parameters; a batch norm is one scale and one shift of each map."""
        made = {"kernel": np.ascontiguousarray(arrays[f"{self.module}.weight"].transpose(2, 3, 1, 0))}
        if self.bias:
            made["bias"] = arrays[f"{self.module}.bias"]
        if not self.norm:
            return {self.module: made}
        weight, bias, mean, variance = (arrays[f"{self.norm}.{part}"].astype(np.float64) for part in _NORM)
        scale = weight / np.sqrt(variance + _EPSILON)
        vectors = {"scale": scale.astype(np.float32), "shift": (bias - mean * scale).astype(np.float32)}
        return {self.module: made, self.norm: vectors}

    def run(self, params: Params, maps: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] -> [B, H', W', features]."""
        row = Conv(self.module, self.features, self.kernel, stride=self.stride, padding=(self.padding, self.padding))
        maps = conv(maps, params[self.module]["kernel"], row)
        if self.bias:
            maps = maps + params[self.module]["bias"][None, None, None]
        if self.norm:
            norm = {name: of[None, None, None] for name, of in params[self.norm].items()}
            maps = maps * norm["scale"] + norm["shift"]
        return jax.nn.relu(maps) if self.relu else maps

    def field(self, below: Span) -> Span:
        """What one place sees of the image."""
        return below.under(self.kernel, stride=self.stride, padding=self.padding)


class MaxPool(NamedTuple):
    """Max-pooling of square windows."""

    layer: str
    size: int
    stride: int = 2
    padding: int = 0
    ceil: bool = False  # a last window may hang over the edge

    def shapes(self, channels: int) -> tuple[Shapes, int]:
        """It has no weights."""
        return {}, channels

    def params(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """It has none."""
        return {}

    def run(self, params: Params, maps: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] -> [B, H', W', C]; what hangs over, or is padding, never wins."""
        if self.padding:
            frame = (self.padding, self.padding)
            maps = jnp.pad(maps, ((0, 0), frame, frame, (0, 0)), constant_values=-jnp.inf)
        if not self.ceil:
            rows, columns = (side - (side - self.size) % self.stride for side in maps.shape[1:3])
            maps = maps[:, :rows, :columns]
        return max_pool(maps, size=self.size, stride=self.stride).values

    def field(self, below: Span) -> Span:
        """What one place sees of the image."""
        return below.under(self.size, stride=self.stride, padding=self.padding)


class AveragePool(NamedTuple):
    """The mean over `size` x `size` windows that share the map among them; with 1, over all places."""

    layer: str
    size: int = 1

    def shapes(self, channels: int) -> tuple[Shapes, int]:
        """It has no weights."""
        return {}, channels

    def params(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """It has none."""
        return {}

    def run(self, params: Params, maps: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] -> [B, size, size, C]; [B, C] where size is 1."""
        if self.size == 1:
            return maps.mean(axis=(1, 2))
        for axis in (1, 2):
            if maps.shape[axis] != self.size:  # else each window is a place
                maps = jnp.moveaxis(jnp.tensordot(maps, _shares(maps.shape[axis], self.size), (axis, 0)), -1, axis)
        return maps

    def field(self, below: Span) -> Span | None:
        """Not known where it is not the same for all places."""
        return None


class Dense(NamedTuple):
    """A dense layer, of maps flattened from CHW in the file and from HWC here."""

    layer: str
    module: str
    features: int
    side: int = 0  # of the maps that it reads; 0: it reads vectors
    relu: bool = True

    def shapes(self, channels: int) -> tuple[Shapes, int]:
        """Arrays of the file, [out, in]."""
        inputs = channels * max(1, self.side) ** 2
        return {
            f"{self.module}.weight": (self.features, inputs),
            f"{self.module}.bias": (self.features,),
        }, self.features

    def params(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays of the file as parameters."""
        weight = arrays[f"{self.module}.weight"]
        if self.side:
            maps = weight.reshape(self.features, -1, self.side, self.side)
            weight = maps.transpose(0, 2, 3, 1).reshape(weight.shape)
        return {self.module: {"kernel": np.ascontiguousarray(weight.T), "bias": arrays[f"{self.module}.bias"]}}

    def run(self, params: Params, maps: jax.Array) -> jax.Array:
        """[B, H, W, C] or [B, C] -> [B, features]."""
        outputs = maps.reshape(len(maps), -1) @ params[self.module]["kernel"] + params[self.module]["bias"][None]
        return jax.nn.relu(outputs) if self.relu else outputs

    def field(self, below: Span) -> Span | None:
        """It sees all places."""
        return None


class Branches(NamedTuple):
    """Rows that read the same maps, whose outputs are joined: added and rectified, or put one behind another."""

    layer: str
    branches: tuple[tuple[Filters, ...], ...]  # an empty one hands on what it reads
    added: bool

    def shapes(self, channels: int) -> tuple[Shapes, int]:
        """Arrays of the file, of all branches."""
        shapes: Shapes = {}
        ends = []
        for branch in self.branches:
            end = channels
            for row in branch:
                more, end = row.shapes(end)
                shapes |= more
            ends.append(end)
        return shapes, ends[0] if self.added else sum(ends)

    def params(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays of the file as parameters."""
        return {name: of for branch in self.branches for row in branch for name, of in row.params(arrays).items()}

    def run(self, params: Params, maps: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] -> [B, H', W', C']."""
        outputs = []
        for branch in self.branches:
            end = maps
            for row in branch:
                end = row.run(params, end)
            outputs.append(end)
        return jax.nn.relu(outputs[0] + outputs[1]) if self.added else jnp.concatenate(outputs, axis=-1)

    def field(self, below: Span) -> Span:
        """The union of the branches'."""
        ends = []
        for branch in self.branches:
            end = below
            for row in branch:
                end = row.field(end)
            ends.append(end)
        start = min(end.offset for end in ends)
        return Span(max(end.offset + end.size for end in ends) - start, ends[0].stride, start)


Row = Filters | MaxPool | AveragePool | Dense | Branches
Table = tuple[Row, ...]


@dataclass(frozen=True, eq=False)
class TorchvisionNet:
    """One of torchvision's networks with its weights, for the analyses that take any function of images."""

    kind: str  # what torchvision calls it, "resnet18"
    table: Table
    params: Params  # {module: {"kernel" (HWIO or [in, out]) | "bias", or a norm's "scale" | "shift"}}, NumPy arrays
    image_size: int | tuple[int, int]  # of the input, pixels
    picture_size: int  # side of the pictures whose centre the input is, pixels
    class_names: tuple[str, ...]  # of the logits
    weights: Weights | None = None  # the file that was read

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be looked at, from the image up; the last one is the logits."""
        return tuple(row.layer for row in self.table)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen of the file, and what cannot be checked."""
        return () if self.weights is None else self.weights.notes

    @property
    def fn(self) -> Partial:
        """fn(images) -> {layer: features} of every layer."""
        return Partial(_function_of(self.table, self.layers), self.params)

    def layers_of(self, layers: Sequence[str]) -> Partial:
        """fn(images) -> {layer: features} of these layers."""
        return self.as_net().features(layers)

    def preprocess(self, pictures: np.ndarray) -> np.ndarray:
        """Square pictures, uint8 [B, S, S, 3], as images: resized to `picture_size`, centre crop, normalised.

        -> float32 [B, *image_size, 3], (pixels / 255 - MEAN) / STD
        """
        return np.asarray(self.as_net().prepare(resized(pictures, self.picture_size)))

    def parity(self, outputs: Path) -> list[ParityRow]:
        """The report beside what PyTorch computed, an .npz: see `read_exporter_run`.

        Its "inputs" are what the network reads, [B, 3, H, W], normalised; the others are called as `layers`, outputs
        of modules as they are hooked there, [B, C, H, W] (or [B, C, 1, 1] of the last pool) or [B, C].
        """
        exporter = read_exporter_run(outputs)
        flat = {
            name: of[:, 0, 0] if of.ndim == 4 and len(self._shapes.get(name, ())) == 1 else of
            for name, of in exporter.outputs.items()
        }
        return exporter_parity(
            self.layers_of(tuple(flat)) if set(flat) <= set(self.layers) else self.fn,
            exporter._replace(outputs=flat),
            as_images=lambda inputs: np.moveaxis(inputs, 1, 3).astype(np.float32),
            preprocess=self.preprocess,
        )

    def as_net(self) -> FunctionNet:
        """The network as a `zfjax.nets.Net`, for every figure: its way down is that of `zfjax.project_fn`."""
        return self._net

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return self.as_net().shapes

    @cached_property
    def _net(self) -> FunctionNet:
        first, last = self.table[0], [row for row in self.table if isinstance(row, Filters | Dense)][-1]
        assert isinstance(first, Filters)
        return FunctionNet(
            _function_of(self.table, self.layers),
            self.params,
            image_size=self.image_size,
            picture_size=self.picture_size,
            preprocess=normalised,
            class_names=self.class_names,
            num_classes=last.features,
            class_maps=tuple(row.layer for row in self.table[-2:] if row.layer == "classifier.2"),
            name=self.kind,
            mean_colour=tuple(255 * mean for mean in MEAN),
            receptive_fields={layer: ReceptiveField(*field) for layer, field in _fields(self.table)},
            first_filters=np.asarray(self.params[first.module]["kernel"]),
        )


def torchvision(
    kind: str,
    path: Path | str,
    *,
    class_names: Sequence[str] | None = None,
    image_size: int | tuple[int, int] = 224,
    picture_size: int | None = None,
    key: str | None = None,
    prefix: str = "",
    sha256: str | None = None,
) -> TorchvisionNet:
    """Open a torchvision network with weights from a file in any format of `read_weights`.

    Args:
      kind: one of `TORCHVISION`: alexnet, vgg11 to vgg19 (and with _bn), squeezenet1_0 and squeezenet1_1, resnet18,
        34, 50, 101 and 152.
      path: of a state dict with torchvision's names; nothing in it is executed. The number of classes is the file's.
      class_names: of the logits; by default ImageNet's where there are 1000.
      image_size: of the input, pixels, or (height, width).
      picture_size: side of the pictures whose centre it is; by default 8/7 of it, as 256 of 224.
      key, prefix, sha256: as for `read_weights`.

    Examples:
      net = torchvision("resnet18", "resnet18-f37072fd.pth")
      net.fn(net.preprocess(pictures))["fc"]  # logits, of pictures uint8 [B, S, S, 3]

    Raises:
      FileNotFoundError: no such file.
      UserError: an unknown kind; a file that is damaged or holds another network, saying what was expected and found.
    """
    if kind not in TORCHVISION:
        raise UserError(f"kind={kind!r}: one of {', '.join(TORCHVISION)} is needed")
    weights = read_weights(path, key=key, prefix=prefix, sha256=sha256)
    modules = list(_with_bias(TORCHVISION[kind](1000)))  # the last one gives the logits
    weights = with_zero_biases(weights, [(f"{module}.weight", f"{module}.bias") for module in modules])
    last = f"{modules[-1]}.bias"
    num_classes = len(weights.arrays[last]) if last in weights.arrays and weights.arrays[last].ndim == 1 else 1000
    table = TORCHVISION[kind](num_classes)
    if weights.format == "ONNX":
        table, weights = _folded(table, weights)
    shapes: Shapes = {}
    channels = 3
    for row in table:
        more, channels = row.shapes(channels)
        shapes |= more
    arrays = take(weights.path, weights.arrays, shapes, notes=weights.notes)
    params: dict[str, Any] = {name: of for row in table for name, of in row.params(arrays).items()}
    imagenet = official_synsets()
    names = tuple(class_names) if class_names is not None else imagenet if num_classes == len(imagenet) else ()
    if names and len(names) != num_classes:
        raise UserError(f"class_names of {len(names)} classes: {weights.path} has {num_classes}")
    side = max(size_of(image_size))
    return TorchvisionNet(kind, table, params, image_size, picture_size or -(-side * 8 // 7), names, weights)


def normalised(crops: jax.Array) -> jax.Array:
    """Crops of pictures, float32 [B, H, W, 3] with values 0 to 255, as torchvision's networks read them."""
    return (crops / 255 - jnp.asarray(MEAN)[None, None, None]) / jnp.asarray(STD)[None, None, None]


# Tables


def _alexnet(num_classes: int) -> Table:
    return (
        Filters("features.1", "features.0", 64, 11, stride=4, padding=2),
        MaxPool("features.2", 3),
        Filters("features.4", "features.3", 192, 5, padding=2),
        MaxPool("features.5", 3),
        Filters("features.7", "features.6", 384, 3, padding=1),
        Filters("features.9", "features.8", 256, 3, padding=1),
        Filters("features.11", "features.10", 256, 3, padding=1),
        MaxPool("features.12", 3),
        AveragePool("avgpool", 6),
        Dense("classifier.2", "classifier.1", 4096, side=6),
        Dense("classifier.5", "classifier.4", 4096),
        Dense("classifier.6", "classifier.6", num_classes, relu=False),
    )


def _vgg(num_classes: int, *, depths: tuple[int, ...], norm: bool) -> Table:
    """`depths`: convolutions before each of the five pools."""
    rows: list[Row] = []
    place = 0  # of the next module
    for depth, features in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            relu = place + (2 if norm else 1)
            name = f"features.{place + 1}" if norm else ""
            rows.append(Filters(f"features.{relu}", f"features.{place}", features, 3, padding=1, norm=name))
            place = relu + 1
        rows.append(MaxPool(f"features.{place}", 2))
        place += 1
    return (
        *rows,
        AveragePool("avgpool", 7),
        Dense("classifier.1", "classifier.0", 4096, side=7),
        Dense("classifier.4", "classifier.3", 4096),
        Dense("classifier.6", "classifier.6", num_classes, relu=False),
    )


def _squeezenet(num_classes: int, *, first: tuple[int, int], pools: tuple[int, ...]) -> Table:
    """`first`: filters of conv1 and their side; `pools`: places of the pools among the modules."""
    widths = iter((16, 64) * 2 + (32, 128) * 2 + (48, 192) * 2 + (64, 256) * 2)
    rows: list[Row] = [Filters("features.1", "features.0", first[0], first[1], stride=2)]
    for place in range(2, 13):
        name = f"features.{place}"
        if place in pools:
            rows.append(MaxPool(name, 3, ceil=True))
            continue
        squeezed, expanded = next(widths), next(widths)
        rows.append(Filters(f"{name}.squeeze_activation", f"{name}.squeeze", squeezed, 1))
        sides = (
            (Filters("", f"{name}.expand1x1", expanded, 1),),
            (Filters("", f"{name}.expand3x3", expanded, 3, padding=1),),
        )
        rows.append(Branches(name, sides, added=False))
    return (*rows, Filters("classifier.2", "classifier.1", num_classes, 1), AveragePool("classifier.3"))


def _resnet(num_classes: int, *, depths: tuple[int, ...], bottleneck: bool) -> Table:
    """`depths`: blocks of each of the four stages."""
    rows: list[Row] = [
        Filters("relu", "conv1", 64, 7, stride=2, padding=3, norm="bn1", bias=False),
        MaxPool("maxpool", 3, padding=1),
    ]
    channels = 64
    for stage, depth in enumerate(depths):
        for number in range(depth):
            name, width = f"layer{stage + 1}.{number}", 64 * 2**stage
            stride, end = (2 if stage and not number else 1), width * (4 if bottleneck else 1)
            shapes = (
                [(width, 1, 1), (width, 3, stride), (end, 1, 1)] if bottleneck else [(width, 3, stride), (end, 3, 1)]
            )
            inside = tuple(
                Filters(
                    "",
                    f"{name}.conv{k}",
                    features,
                    side,
                    stride=step,
                    padding=side // 2,
                    norm=f"{name}.bn{k}",
                    bias=False,
                    relu=k < len(shapes),
                )
                for k, (features, side, step) in enumerate(shapes, 1)
            )
            shortcut = f"{name}.downsample"
            down = Filters("", f"{shortcut}.0", end, 1, stride=stride, norm=f"{shortcut}.1", bias=False, relu=False)
            rows.append(Branches(name, (inside, (down,) if (channels, 1) != (end, stride) else ()), added=True))
            channels = end
    return (*rows, AveragePool("avgpool"), Dense("fc", "fc", num_classes, relu=False))


def _with(make: Callable[..., Table], **settings: Any) -> Callable[[int], Table]:
    return lambda num_classes: make(num_classes, **settings)


_VGG = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2,) * 5, "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_RESNET = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}

# What torchvision calls a network -> its table for a number of classes
TORCHVISION: Mapping[str, Callable[[int], Table]] = {
    "alexnet": _alexnet,
    **{
        f"{name}{ending}": _with(_vgg, depths=depths, norm=bool(ending))
        for name, depths in _VGG.items()
        for ending in ("", "_bn")
    },
    "squeezenet1_0": _with(_squeezenet, first=(96, 7), pools=(2, 6, 11)),
    "squeezenet1_1": _with(_squeezenet, first=(64, 3), pools=(2, 5, 8)),
    **{name: _with(_resnet, depths=depths, bottleneck=wide) for name, (depths, wide) in _RESNET.items()},
}


def _filters(table: Table) -> Iterator[Filters]:
    for row in table:
        if isinstance(row, Filters):
            yield row
        elif isinstance(row, Branches):
            for branch in row.branches:
                yield from branch


def _with_bias(table: Table) -> Iterator[str]:
    """The modules that have a bias, from the image up."""
    for row in table:
        if isinstance(row, Dense):
            yield row.module
        else:
            yield from (filters.module for filters in _filters((row,)) if filters.bias)


def _folded(table: Table, weights: Weights) -> tuple[Table, Weights]:
    """The table and arrays of a model whose exporter folded batch norms into the filters below them, as ONNX's do."""
    arrays = dict(weights.arrays)
    gone = {
        row.norm for row in _filters(table) if row.norm and not any(f"{row.norm}.{part}" in arrays for part in _NORM)
    }
    for filters in _filters(table):
        if filters.norm in gone and f"{filters.module}.weight" in arrays:
            arrays.setdefault(
                f"{filters.module}.bias", np.zeros(filters.features, np.float32)
            )  # where all of them were 0

    def without(row: Filters) -> Filters:
        return row._replace(norm="", bias=True) if row.norm in gone else row

    rows: list[Row] = []
    for row in table:
        if isinstance(row, Branches):
            row = row._replace(branches=tuple(tuple(map(without, branch)) for branch in row.branches))
        rows.append(without(row) if isinstance(row, Filters) else row)
    notes = (f"{len(gone)} batch norms were folded into their filters by the exporter",) if gone else ()
    return tuple(rows), weights._replace(arrays=arrays, notes=(*weights.notes, *notes))


def _fields(table: Table) -> Iterator[tuple[str, Span]]:
    field: Span | None = Span(size=1, stride=1, offset=0)
    for row in table:
        field = row.field(field) if field is not None else None
        if field is None:
            return
        yield row.layer, field


def _shares(side: int, windows: int) -> np.ndarray:
    """float32 [side, windows]: the share of each place in the mean of each window, as PyTorch cuts them."""
    place, number = np.arange(side)[:, None], np.arange(windows)[None]
    start, end = number * side // windows, -(-(number + 1) * side // windows)
    return np.asarray(((start <= place) & (place < end)) / (end - start), np.float32)


@cache
def _function_of(table: Table, layers: tuple[str, ...]) -> Callable[[Params, jax.Array], dict[str, jax.Array]]:
    """One function object for equal tables, so that JAX finds what it compiled."""

    def features(params: Params, images: jax.Array) -> dict[str, jax.Array]:
        if images.ndim != 4 or images.shape[3] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise UserError(
                f"images of {images.dtype} {images.shape}: floating point [B, H, W, 3], normalised, is needed"
            )
        maps, by_layer = images, {}
        for row in table:
            maps = row.run(params, maps)
            if row.layer in layers:
                by_layer[row.layer] = maps
        return by_layer

    return features
