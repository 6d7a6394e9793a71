"""The rows of an architecture's table: their numbers, the rules that these keep, and the sizes that follow from them.

Nothing here imports JAX or NumPy; see `zfjax.architecture`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Pool:
    """Max-pooling; the last window may hang over the bottom and right edge ("ceil" rule), as Fig. 3's sizes need."""

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
    """

    num_maps: int = 5  # maps in the neighbourhood, odd, for the map itself stands in the middle
    k: float = 2.0  # above 0
    alpha: float = 1e-4
    beta: float = 0.75


@dataclass(frozen=True)
class Conv:
    """A convolutional layer: filters, bias, ReLU, then the stages of `after` in that order."""

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
    """A fully connected layer; `hidden` ones are followed by ReLU and dropout, the last one gives the logits."""

    name: str
    features: int
    hidden: bool = True
    dropout: float = 0.5  # share of a hidden layer's outputs set to zero in training (sec. 3), below 1

    def __post_init__(self) -> None:
        check_fields(f"layer {self.name!r}: ", self, _RULES[Dense])


Layer = Conv | Dense
Shape = tuple[int, ...]


class Sizes(NamedTuple):
    """Shapes of one layer for one image: [H, W, C] of a `Conv`, [C] of a `Dense`."""

    input: Shape  # what the layer reads; a Dense layer above a Conv reads its flattened [H, W, C]
    filtered: Shape  # right after the filters, where a pool reads
    output: Shape  # what the layer hands on, after every stage: the shape of trace[name].features
    kernel: Shape  # HWIO with I = input maps per group, or [in, out]


def sizes_of(layer: Layer, shape: Shape) -> Sizes:
    """The shapes of `layer` where it reads `shape`; ValueError for a geometry that cannot work."""
    if isinstance(layer, Dense):
        return Sizes(shape, (layer.features,), (layer.features,), (math.prod(shape), layer.features))
    if len(shape) != 3:
        raise ValueError(f"layer {layer.name!r}: a convolution cannot stand above a dense layer")
    height, _, channels = shape
    if channels % layer.groups or layer.features % layer.groups:
        raise ValueError(
            f"layer {layer.name!r}: {channels} input maps and {layer.features} filters "
            f"cannot be split into {layer.groups} groups"
        )
    side = (height + sum(layer.padding) - layer.kernel) // layer.stride + 1
    if side < 1:
        raise ValueError(
            f"layer {layer.name!r}: its input of {height}x{height}, padded by {layer.padding}, is smaller than its "
            f"{layer.kernel}x{layer.kernel} filter: the image is too small"
        )
    pooled = pooled_size(side, layer.pool) if layer.pool else side
    if layer.pool and pooled < 1:
        raise ValueError(
            f"layer {layer.name!r}: its map of {side}x{side} holds no window of {layer.pool}, which needs a side of "
            f"at least max(1, size - stride + 1) = {layer.pool.smallest}: the image is too small"
        )
    kernel = (layer.kernel, layer.kernel, channels // layer.groups, layer.features)
    return Sizes(shape, (side, side, layer.features), (pooled, pooled, layer.features), kernel)


def pooled_size(side: int, pool: Pool) -> int:
    """Places of a pooled map along one side: ceil, but every window begins inside the map; 0 if none fits."""
    windows = math.ceil((side - pool.size) / pool.stride) + 1
    return max(0, min(windows, math.ceil(side / pool.stride)))


class Rule(NamedTuple):
    """What a field may hold."""

    words: str  # completes "... is needed"
    holds: Callable[[Any], bool]


def check_fields(owner: str, row: object, rules: Mapping[str, Rule]) -> None:
    """ValueError naming `owner`, the first field that breaks its rule, its value and the rule."""
    for field, rule in rules.items():
        value = getattr(row, field)
        if not rule.holds(value):
            raise ValueError(f"{owner}{field}={value!r}: {rule.words} is needed")


def _is_int(value: Any) -> bool:
    return type(value) is int  # no bool, and no NumPy number, which JSON does not write


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_stages(value: Any) -> bool:
    kinds = [type(stage) for stage in value] if isinstance(value, tuple) else [object]
    return set(kinds) <= {Pool, ContrastNorm} and kinds.count(Pool) <= 1


def _is_padding(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_int(side) and side >= 0 for side in value)


COUNT = Rule("a Python int of at least 1", lambda value: _is_int(value) and value >= 1)
POSITIVE = Rule("a finite Python number above 0", lambda value: _is_real(value) and value > 0)
_FROM_0 = Rule("a finite Python number of at least 0", lambda value: _is_real(value) and value >= 0)

_RULES: dict[type, dict[str, Rule]] = {
    Pool: {
        "size": Rule("a Python int from 1 to 16", lambda value: _is_int(value) and 1 <= value <= 16),
        "stride": COUNT,
    },
    ContrastNorm: {
        "num_maps": Rule("an odd Python int of at least 1", lambda value: COUNT.holds(value) and value % 2 == 1),
        "k": POSITIVE,
        "alpha": _FROM_0,
        "beta": _FROM_0,
    },
    Conv: {
        "features": COUNT,
        "kernel": COUNT,
        "stride": COUNT,
        "padding": Rule("a tuple of two Python ints of at least 0", _is_padding),
        "groups": COUNT,
        "after": Rule("a tuple of ContrastNorm and at most one Pool", _are_stages),
    },
    Dense: {
        "features": COUNT,
        "hidden": Rule("True or False", lambda value: isinstance(value, bool)),
        "dropout": Rule("a Python number from 0 to below 1", lambda value: _is_real(value) and 0 <= value < 1),
    },
}
