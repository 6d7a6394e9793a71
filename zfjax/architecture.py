"""The convnets of the paper as frozen tables: their rows, the rules that these keep, and every size that follows.

Nothing here imports JAX or NumPy: a table is a hashable value that can be a static argument of `jax.jit`, a line in a
checkpoint, or a row in a report. Fig. 3 of the paper is `ZFNET`; the network it is compared with is `ALEXNET`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from zfjax.errors import UserError, saying_keywords


@dataclass(frozen=True)
class Pool:
    """Max-pooling; the last window may hang over the bottom and right edge ("ceil" rule), as Fig. 3's sizes need.

    Examples:
      >>> import zfjax
      >>> zfjax.Pool(size=2, stride=2)
      Pool(size=2, stride=2)
    """

    size: int = 3  # side of the window, pixels, 1 to 16: a switch, dy * size + dx, is a uint8
    stride: int = 2  # pixels

    @property
    def smallest(self) -> int:
        """Least side of a map, pixels, for which the ceil rule counts a window; that one may hang over."""
        return max(1, self.size - self.stride + 1)


@dataclass(frozen=True)
class ContrastNorm:
    """a / (k + alpha * sum of a^2 over `num_maps` neighbouring maps) ** beta, at each place.

    Paper is silent on the constants: these are Krizhevsky et al. 2012, section 3.3, where the sum is not divided
    by its number of terms. PyTorch and Caffe divide, so a network imported from them has alpha / num_maps here.

    Examples:
      >>> import zfjax
      >>> zfjax.ContrastNorm(alpha=1e-4 / 5)  # what PyTorch calls LocalResponseNorm(5, alpha=1e-4, k=2)
      ContrastNorm(num_maps=5, k=2.0, alpha=2e-05, beta=0.75)
    """

    num_maps: int = 5  # maps in the neighbourhood, odd, for the map itself stands in the middle
    k: float = 2.0  # above 0
    alpha: float = 1e-4
    beta: float = 0.75


@dataclass(frozen=True)
class Conv:
    """A convolutional layer: filters, bias, ReLU, then the stages of `after` in that order.

    Examples:
      >>> import zfjax
      >>> zfjax.Conv("conv1", 96, kernel=7, stride=2, padding=(1, 1), after=(zfjax.Pool(), zfjax.ContrastNorm())).pool
      Pool(size=3, stride=2)
    """

    name: str
    features: int  # number of filters
    kernel: int  # side of the filter, pixels of the layer's input
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # zeros (before, after) the rows, and the columns
    groups: int = 1  # filters and input maps are split into this many groups that do not mix
    after: tuple[Pool | ContrastNorm, ...] = ()

    def __post_init__(self) -> None:
        check_fields(f"layer {self.name!r}: ", self, _RULES[Conv])
        for stage in self.after:
            check_fields(f"layer {self.name!r}: {type(stage).__name__}.", stage, _RULES[type(stage)])

    @property
    def pool(self) -> Pool | None:
        """The layer's pooling stage, if it has one."""
        return next((stage for stage in self.after if isinstance(stage, Pool)), None)


@dataclass(frozen=True)
class Dense:
    """A fully connected layer; `hidden` ones are followed by ReLU and dropout, the last one gives the logits.

    Examples:
      >>> import zfjax
      >>> zfjax.ZFNET.layers[-1] == zfjax.Dense("fc8", 1000, hidden=False)
      True
    """

    name: str
    features: int
    hidden: bool = True
    dropout: float = 0.5  # share of a hidden layer's outputs set to zero in training (sec. 3), below 1

    def __post_init__(self) -> None:
        check_fields(f"layer {self.name!r}: ", self, _RULES[Dense])


Layer = Conv | Dense
Shape = tuple[int, ...]
Size = int | tuple[int, int]  # a side of squares, or (height, width), pixels


class Sizes(NamedTuple):
    """Shapes of one layer for one image: [H, W, C] of a `Conv`, [C] of a `Dense`.

    Examples:
      >>> import zfjax
      >>> zfjax.ZFNET.sizes()["conv2"]
      Sizes(input=(55, 55, 96), filtered=(26, 26, 256), output=(13, 13, 256), kernel=(5, 5, 96, 256))
    """

    input: Shape  # what the layer reads; a Dense layer above a Conv reads its flattened [H, W, C]
    filtered: Shape  # right after the filters, where a pool reads
    output: Shape  # what the layer hands on, after every stage: the shape of trace[name].features
    kernel: Shape  # HWIO with I = input maps per group, or [in, out]


def sizes_of(layer: Layer, shape: Shape) -> Sizes:
    """The shapes of `layer` where it reads `shape`; UserError for a geometry that cannot work."""
    if isinstance(layer, Dense):
        return Sizes(shape, (layer.features,), (layer.features,), (math.prod(shape), layer.features))
    if len(shape) != 3:
        raise UserError(f"layer {layer.name!r}: a convolution cannot stand above a dense layer")
    channels = shape[2]
    if channels % layer.groups or layer.features % layer.groups:
        raise UserError(
            f"layer {layer.name!r}: {channels} input maps and {layer.features} filters "
            f"cannot be split into {layer.groups} groups"
        )
    filtered = [(side + sum(layer.padding) - layer.kernel) // layer.stride + 1 for side in shape[:2]]
    if min(filtered) < 1:
        raise UserError(
            f"layer {layer.name!r}: its input of {shape[0]}x{shape[1]}, padded by {layer.padding}, is smaller than its "
            f"{layer.kernel}x{layer.kernel} filter: the image is too small"
        )
    pooled = [pooled_size(side, layer.pool) if layer.pool else side for side in filtered]
    if layer.pool and min(pooled) < 1:
        raise UserError(
            f"layer {layer.name!r}: its map of {filtered[0]}x{filtered[1]} holds no window of {layer.pool}, which "
            f"needs a side of at least max(1, size - stride + 1) = {layer.pool.smallest}: the image is too small"
        )
    kernel = (layer.kernel, layer.kernel, channels // layer.groups, layer.features)
    return Sizes(shape, (*filtered, layer.features), (*pooled, layer.features), kernel)


def pooled_size(side: int, pool: Pool) -> int:
    """Places of a pooled map along one side: ceil, but every window begins inside the map; 0 if none fits."""
    windows = math.ceil((side - pool.size) / pool.stride) + 1
    return max(0, min(windows, math.ceil(side / pool.stride)))


class FieldRule(NamedTuple):
    """What a field may hold."""

    words: str  # completes "... is needed"
    holds: Callable[[Any], bool]


def check_fields(owner: str, row: object, rules: Mapping[str, FieldRule]) -> None:
    """UserError naming `owner`, the first field that breaks its rule, its value and the rule.

    A list is kept as a tuple, and a number or array of NumPy as Python's numbers, which JSON can write and hash alike.
    """
    for field, rule in rules.items():
        value = getattr(row, field)
        plain = _as_python(value)
        if not rule.holds(plain):
            raise UserError(f"{owner}{field}={value!r}: {rule.words} is needed")
        if plain is not value:
            object.__setattr__(row, field, plain)


def _as_python(value: Any) -> Any:
    """Lists as tuples, and NumPy's numbers as Python's; all else, strings too, as it is."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_as_python, value)) if isinstance(value, list | tuple) else value


def _is_int(value: Any) -> bool:
    return type(value) is int  # no bool


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_stages(value: Any) -> bool:
    kinds = [type(stage) for stage in value] if isinstance(value, tuple) else [object]
    return set(kinds) <= {Pool, ContrastNorm} and kinds.count(Pool) <= 1


def _is_padding(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_int(side) and side >= 0 for side in value)


def _is_size(value: Any) -> bool:
    return COUNT.holds(value) or (isinstance(value, tuple) and len(value) == 2 and all(map(COUNT.holds, value)))


COUNT = FieldRule("a Python int of at least 1", lambda value: _is_int(value) and value >= 1)
SIZE = FieldRule("a Python int of at least 1, or a tuple (height, width) of two of them,", _is_size)
POSITIVE = FieldRule("a finite Python number above 0", lambda value: _is_real(value) and value > 0)
_FROM_0 = FieldRule("a finite Python number of at least 0", lambda value: _is_real(value) and value >= 0)

_RULES: dict[type, dict[str, FieldRule]] = {
    Pool: {
        "size": FieldRule("a Python int from 1 to 16", lambda value: _is_int(value) and 1 <= value <= 16),
        "stride": COUNT,
    },
    ContrastNorm: {
        "num_maps": FieldRule("an odd Python int of at least 1", lambda value: COUNT.holds(value) and value % 2 == 1),
        "k": POSITIVE,
        "alpha": _FROM_0,
        "beta": _FROM_0,
    },
    Conv: {
        "features": COUNT,
        "kernel": COUNT,
        "stride": COUNT,
        "padding": FieldRule("a tuple of two Python ints of at least 0", _is_padding),
        "groups": COUNT,
        "after": FieldRule("a tuple of ContrastNorm and at most one Pool", _are_stages),
    },
    Dense: {
        "features": COUNT,
        "hidden": FieldRule("True or False", lambda value: isinstance(value, bool)),
        "dropout": FieldRule("a Python number from 0 to below 1", lambda value: _is_real(value) and 0 <= value < 1),
    },
}


class Span(NamedTuple):
    """What the places of a map see along one axis: place n the pixels offset + n * stride up to that + size."""

    size: int
    stride: int
    offset: int

    def under(self, size: int, *, stride: int = 1, padding: int = 0) -> Span:
        """What windows of `size` places of this map see, which stand `stride` places apart."""
        return Span(self.size + (size - 1) * self.stride, self.stride * stride, self.offset - padding * self.stride)


class ReceptiveField(NamedTuple):
    """Place (y, x) of a map sees image rows offset + y * stride up to, not including, that + size; columns alike.

    Each is one number where it is that of rows and of columns, and else (of rows, of columns): a dense layer sees an
    image that is no square as (height, width).

    Examples:
      >>> import zfjax
      >>> field = zfjax.receptive_field(zfjax.ZFNET, "conv2")
      >>> field
      ReceptiveField(size=43, stride=16, offset=-1)
      >>> field.box((0, 1))
      (-1, 15, 42, 58)
    """

    size: Size  # pixels
    stride: Size  # pixels between the fields of neighbouring places
    offset: Size  # first row (column) of the field of place 0; negative where it begins in the padding

    @classmethod
    def of(cls, rows: Span, columns: Span) -> ReceptiveField:
        """The field of places that see these rows and these columns."""
        return cls(*(own if own == other else (own, other) for own, other in zip(rows, columns, strict=True)))

    @property
    def spans(self) -> tuple[Span, Span]:
        """What the places see along the rows and along the columns."""
        rows, columns = zip(*(of if isinstance(of, tuple) else (of, of) for of in self), strict=True)
        return Span(*rows), Span(*columns)

    def box(self, position: Sequence[int]) -> tuple[int, int, int, int]:
        """Rows and columns (top, left, bottom, right) that `position` sees; may reach beyond the image."""
        top, left = (span.offset + int(place) * span.stride for span, place in zip(self.spans, position, strict=True))
        height, width = self.sides
        return top, left, top + height, left + width

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width), pixels."""
        rows, columns = self.spans
        return rows.size, columns.size

    def holds(self, size: Sequence[int]) -> bool:
        """Whether it is no smaller than images of this (height, width), along either side."""
        return all(own >= side for own, side in zip(self.sides, size, strict=True))


@dataclass(frozen=True)
class Architecture:
    """A convnet as a table: convolutional layers, then dense ones. Hashable; variants by the methods below.

    Examples:
      >>> import zfjax
      >>> zfjax.ZFNET.num_parameters()
      62357608
      >>> narrow = zfjax.ZFNET.scaled(1 / 4).with_sizes(image=112, fc8=10)
      >>> narrow.sizes()["conv5"].output
      (3, 3, 64)
      >>> zfjax.ALEXNET.without("conv3", "conv4").layer_names
      ('conv1', 'conv2', 'conv5', 'fc6', 'fc7', 'fc8')
      >>> zfjax.ZFNET.upto("conv5").layer_names
      ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
      >>> zfjax.ZFNET.with_sizes(image=(224, 160)).sizes()["conv5"].output
      (6, 4, 256)
    """

    name: str
    layers: tuple[Layer, ...]
    image_size: Size = 224  # side of the square input, or its (height, width), pixels; (224, 224) is kept as 224
    channels: int = 3
    input_scale: float = 1.0  # images are multiplied by this inside the network, so that outside they stay in pixels

    def __post_init__(self) -> None:
        _check_table(self)
        if isinstance(self.image_size, tuple) and len(set(self.image_size)) == 1:
            object.__setattr__(self, "image_size", self.image_size[0])  # equal tables are equal, and hash alike
        self.sizes()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[H, W, C] of an image."""
        height, width = self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)
        return height, width, self.channels

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers from the image up."""
        return tuple(layer.name for layer in self.layers)

    @property
    def num_classes(self) -> int:
        """Number of logits; 0 of a table that ends with a convolutional layer, as a part of a network does."""
        last = self.layers[-1]
        return last.features if isinstance(last, Dense) else 0

    def layer(self, name: str) -> Layer:
        """The row called `name`; an unknown name is a UserError."""
        _check_names(self, [name])
        return self.layers[self.layer_names.index(name)]

    def sizes(self) -> dict[str, Sizes]:
        """Shapes of every layer, by rule from the image up; a geometry that cannot work is a UserError."""
        sizes: dict[str, Sizes] = {}
        shape: Shape = self.image_shape
        for layer in self.layers:
            sizes[layer.name] = sizes_of(layer, shape)
            shape = sizes[layer.name].output
        return sizes

    def num_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(math.prod(size.kernel) + size.kernel[-1] for size in self.sizes().values())

    def with_sizes(self, image: Size | None = None, **features: int) -> Architecture:
        """The same table with another image size and other widths: `with_sizes(image=112, conv3=512, fc8=10)`.

        Images that are no squares are `image=(height, width)`.
        """
        _check_names(self, features)
        layers = tuple(
            dataclasses.replace(layer, features=features.get(layer.name, layer.features)) for layer in self.layers
        )
        return dataclasses.replace(self, layers=layers, image_size=self.image_size if image is None else image)

    def scaled(self, width: float) -> Architecture:
        """Every layer but the last with `width` times its features, rounded to a multiple of its groups."""
        if not 0 < width < math.inf:
            raise UserError(f"width={width!r}: a finite factor above 0 is needed")
        step = math.lcm(*(layer.groups for layer in self.layers if isinstance(layer, Conv)))
        widths = {layer.name: max(1, round(layer.features * width / step)) * step for layer in self.layers[:-1]}
        return self.with_sizes(**widths)

    def without(self, *names: str) -> Architecture:
        """The table with these layers, and the pools and norms inside them, left out (Table 3's ablations)."""
        _check_names(self, names)
        if self.layer_names[-1] in names:
            raise UserError(
                f"without({self.layer_names[-1]!r}): the last layer gives the result and has to stay; a table that "
                "ends with a layer below is made by upto(layer)"
            )
        return dataclasses.replace(self, layers=tuple(layer for layer in self.layers if layer.name not in names))

    def upto(self, name: str) -> Architecture:
        """The table up to and with this convolutional layer: `upto("conv5")` has no dense layers, and no classes."""
        row = self.layer(name)
        if isinstance(row, Dense) and row.hidden:
            ends = [layer.name for layer in self.layers if isinstance(layer, Conv)]
            raise UserError(
                f"upto({name!r}): a hidden dense layer cannot be the last; one of {', '.join(ends)} is needed"
                if ends
                else f"upto({name!r}): a hidden dense layer cannot be the last"
            )
        return dataclasses.replace(self, layers=self.layers[: self.layers.index(row) + 1])


@saying_keywords
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
      ReceptiveField in pixels; UserError for an unknown layer or stage.

    Examples:
      >>> import zfjax
      >>> field = zfjax.receptive_field(zfjax.ZFNET, "conv3")
      >>> field.size, field.stride
      (75, 16)
    """
    architecture.layer(layer)
    if stage not in ("output", "filtered"):
        raise UserError(f"stage={stage!r}: one of 'output', 'filtered' is needed")
    rows = columns = Span(size=1, stride=1, offset=0)
    for row in architecture.layers:
        if isinstance(row, Conv):
            rows, columns = (of.under(row.kernel, stride=row.stride, padding=row.padding[0]) for of in (rows, columns))
            last = row.name == layer and stage == "filtered"
            if row.pool and not last:
                rows, columns = (of.under(row.pool.size, stride=row.pool.stride) for of in (rows, columns))
        elif len(shape := architecture.sizes()[row.name].input) == 3:
            rows, columns = rows.under(shape[0]), columns.under(shape[1])
        if row.name == layer:
            break
    return ReceptiveField.of(rows, columns)


def _check_names(architecture: Architecture, names: Iterable[str]) -> None:
    for name in names:
        if name not in architecture.layer_names:
            raise UserError(f"unknown layer {name!r}: {architecture.name} has {', '.join(architecture.layer_names)}")


def _check_table(architecture: Architecture) -> None:
    """UserError naming the field, or the layers, and the rule."""
    check_fields(f"architecture {architecture.name!r}: ", architecture, _TABLE_RULES)
    if len(set(architecture.layer_names)) != len(architecture.layers):
        raise UserError(f"layers {architecture.layer_names}: each name may stand once")
    last = architecture.layers[-1] if architecture.layers else None
    if last is None or (isinstance(last, Dense) and last.hidden):
        raise UserError(
            f"architecture {architecture.name!r}: the last layer has to be a Conv, or a Dense with hidden=False"
        )


def _are_layers(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(layer, Conv | Dense) for layer in value)


_TABLE_RULES = {
    "layers": FieldRule("a tuple of Conv and Dense", _are_layers),
    "image_size": SIZE,
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
