"""Networks in Caffe's terms: a table of layers with named inputs and outputs, run by plain functions of arrays.

A row reads the maps called `bottom` and writes the map called `top`; where both have one name it works in place, so
that a name stands for what the last row made of it. Arrays are NHWC and kernels HWIO here, whatever the file held.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from zfjax import files
from zfjax.architecture import COUNT, Conv, FieldRule, ReceptiveField, Shape, Span, check_fields
from zfjax.errors import UserError
from zfjax.network import Params
from zfjax.ops import conv, max_pool

DATA = "data"  # the name that Caffe gives to the images


@dataclass(frozen=True)
class CaffeLayer:
    """One row of the table; the numbers that a type does not use are ignored."""

    name: str
    type: str  # a key of `OPERATIONS`
    bottom: tuple[str, ...]  # maps that it reads
    top: tuple[str, ...]  # the one map that it writes
    num_output: int | None = None  # filters of a Convolution
    kernel: int | None = None  # side of a filter or of a pool's window, pixels of the input
    stride: int = 1
    pad: int = 0  # on each side, pixels of the input
    pool: str | None = None  # of a Pooling: "MAX", or "AVE" together with global_pooling
    global_pooling: bool = False  # one window over the whole map


class _Row(TypedDict):
    """A `CaffeLayer` in JSON; `check_table` says, with the layer's name, what the rest has to be."""

    name: str
    type: str
    bottom: object
    top: object
    num_output: object
    kernel: object
    stride: object
    pad: object
    pool: object
    global_pooling: object


Table = tuple[CaffeLayer, ...]


def read_table(path: Path) -> Table:
    """The table in a JSON file: a list of objects with the fields of `CaffeLayer`, further ones being ignored.

    Raises:
      OSError: no such file.
      UserError: no JSON, a row without one of the fields, a type that is not known, a map that no row before has made.
    """
    way_on = "a JSON list of layers with the fields of CaffeLayer is needed"
    rows = files.parse_json(Path(path).read_bytes(), list[_Row], where=str(path), way_on=way_on)
    table = []
    for row in rows:
        named = {field.name: row[field.name] for field in dataclasses.fields(CaffeLayer)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in named.items()
        }
        table.append(CaffeLayer(**values))
    try:
        check_table(tuple(table))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return tuple(table)


def check_table(table: Table) -> None:
    """UserError naming the first row that cannot run, and why."""
    made = {DATA}
    with_filters = [row.name for row in table if row.type == "Convolution"]
    for row in table:
        if with_filters.count(row.name) > 1:
            raise UserError(f"layer {row.name!r} is a Convolution twice: each has filters of its own, so another name")
        if row.type not in OPERATIONS:
            raise UserError(f"layer {row.name!r} is of type {row.type!r}: one of {', '.join(OPERATIONS)} is known")
        check_fields(f"layer {row.name!r}: ", row, _RULES)
        if len(row.top) != 1 or (len(row.bottom) != 1 and row.type != "Concat"):
            raise UserError(f"layer {row.name!r} goes from {row.bottom} to {row.top}: from one map to one is needed")
        if row.type == "Pooling" and (row.pool, row.global_pooling) not in (("MAX", False), ("AVE", True)):
            raise UserError(
                f"layer {row.name!r} pools by {row.pool!r}, global_pooling={row.global_pooling}: MAX in windows, or "
                "AVE over the whole map, is known"
            )
        needed = {"Convolution": ("num_output", "kernel"), "Pooling": () if row.global_pooling else ("kernel",)}
        for field in needed.get(row.type, ()):
            if getattr(row, field) is None:
                raise UserError(f"layer {row.name!r}: {row.type} needs {field}")
        if unknown := set(row.bottom) - made:
            raise UserError(f"layer {row.name!r} reads {', '.join(sorted(unknown))}, which no layer before has made")
        made |= set(row.top)


def kernel_shapes(table: Table, channels: int = 3) -> dict[str, Shape]:
    """{name of each Convolution: shape of its kernel, HWIO}, for images with this many channels."""
    maps = {DATA: channels}
    shapes: dict[str, Shape] = {}
    for row in table:
        read = sum(maps[name] for name in row.bottom)
        if row.type == "Convolution":
            assert row.kernel is not None and row.num_output is not None
            shapes[row.name] = (row.kernel, row.kernel, read, row.num_output)
            read = row.num_output
        maps[row.top[0]] = read
    return shapes


def run(table: Table, params: Params, images: jax.Array) -> dict[str, jax.Array]:
    """{name: map} of every map of the network, each as the last row that works on it leaves it.

    Args:
      table: rows in the order in which they run.
      params: {name of the Convolution: {"kernel": HWIO, "bias": [out]}}.
      images: float [B, H, W, C], what the first row is to read.

    Returns:
      Maps [B, H', W', C']; [B, C'] above a global pool.
    """
    maps = {DATA: images}
    for row in table:
        maps[row.top[0]] = OPERATIONS[row.type](row, params.get(row.name, {}), [maps[name] for name in row.bottom])
    return maps


def receptive_fields(table: Table) -> dict[str, ReceptiveField]:
    """{map: the pixels that one place of it sees}; maps above a global pool see all of them and are left out.

    Where rows work in place the field is that of the last. Branches that meet see the union of their fields.
    """
    fields = {DATA: Span(size=1, stride=1, offset=0)}
    for row in table:
        if row.global_pooling or not set(row.bottom) <= set(fields):
            continue
        read = [fields[name] for name in row.bottom]
        start = min(field.offset for field in read)
        field = Span(max(field.offset + field.size for field in read) - start, read[0].stride, start)
        if row.kernel is not None and row.type in ("Convolution", "Pooling"):
            field = field.under(row.kernel, stride=row.stride, padding=row.pad)
        fields[row.top[0]] = field
    return {name: ReceptiveField(*field) for name, field in fields.items()}


Operation = Callable[[CaffeLayer, Mapping[str, jax.Array], list[jax.Array]], jax.Array]


def _convolution(row: CaffeLayer, params: Mapping[str, jax.Array], maps: list[jax.Array]) -> jax.Array:
    assert row.num_output is not None and row.kernel is not None
    filters = Conv(row.name, row.num_output, row.kernel, stride=row.stride, padding=(row.pad, row.pad))
    return conv(maps[0], params["kernel"], filters) + params["bias"][None, None, None]


def _pooling(row: CaffeLayer, params: Mapping[str, jax.Array], maps: list[jax.Array]) -> jax.Array:
    """Ceil rule: the last window may hang over the edge, but, with padding, has to begin inside the map."""
    if row.global_pooling:
        return maps[0].mean(axis=(1, 2))
    assert row.kernel is not None
    if not row.pad:
        return max_pool(maps[0], size=row.kernel, stride=row.stride).values
    frame = ((0, 0), (row.pad, row.pad), (row.pad, row.pad), (0, 0))
    pooled = max_pool(jnp.pad(maps[0], frame, constant_values=-jnp.inf), size=row.kernel, stride=row.stride).values
    rows, columns = (-(-(side + row.pad) // row.stride) for side in maps[0].shape[1:3])
    return pooled[:, :rows, :columns]


# Dropout is for training, which happens elsewhere
OPERATIONS: dict[str, Operation] = {
    "Convolution": _convolution,
    "ReLU": lambda row, params, maps: jax.nn.relu(maps[0]),
    "Pooling": _pooling,
    "Concat": lambda row, params, maps: jnp.concatenate(maps, axis=-1),
    "Dropout": lambda row, params, maps: maps[0],
    "Softmax": lambda row, params, maps: jax.nn.softmax(maps[0], axis=-1),
}

_COUNT_OR_NONE = FieldRule("a whole number of at least 1, or null", lambda value: value is None or COUNT.holds(value))

_MAPS = FieldRule(
    "a list of names", lambda value: isinstance(value, tuple) and all(isinstance(name, str) for name in value)
)

_RULES = {
    "bottom": _MAPS,
    "top": _MAPS,
    "num_output": _COUNT_OR_NONE,
    "kernel": _COUNT_OR_NONE,
    "stride": COUNT,
    "pad": FieldRule("a whole number of at least 0", lambda value: value == 0 or COUNT.holds(value)),
}
