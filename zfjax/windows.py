"""Single units carried down in windows: at each layer only what the unit sees, in the place where it sees it.

One activation touches its receptive field and nothing else. Its signal is therefore a window [h, w, C] of a map, and a
row and a column, the place of the window's first corner in that map. What was seen on the way up is looked up there,
pools and filters are undone there as `zfjax.deconvnet` undoes them on whole maps, and what hangs over the map's border
is zero. A window that would be no smaller than its map becomes the map.

The sides of a window follow from the table alone, so that all units of a layer go down together as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.architecture import Architecture, ContrastNorm, Conv, Dense, Layer, Pool, Shape
from zfjax.network import LayerTrace, Params, Trace
from zfjax.ops import contrast_norm

AT_ONCE = 2**23  # bytes of products that are added up together, of as many units as that holds: what a cache keeps


class Windows(NamedTuple):
    """Projections of N units as windows of one size, each with the place of its corner in the image.

    Examples:
      >>> import numpy as np, zfjax
      >>> windows = zfjax.Windows(np.ones((1, 2, 2, 1)), rows=np.array([-1]), columns=np.array([1]))
      >>> windows.paste((3, 3))[0, :, :, 0]
      array([[0., 1., 1.],
             [0., 0., 0.],
             [0., 0., 0.]])
    """

    pixels: jax.Array | np.ndarray  # [N, h, w, C] signed, in the images' unit; 0 where a window hangs over the border
    rows: jax.Array | np.ndarray  # int32 [N] the image's row at which each window begins; negative where it hangs over
    columns: jax.Array | np.ndarray  # int32 [N] likewise

    def paste(self, size: Sequence[int], *, rows: Any = 0, columns: Any = 0) -> Any:
        """The windows in their places, on sheets that are zero elsewhere.

        Args:
          size: (height, width) of the sheets, pixels.
          rows, columns: the image's row and column where each sheet begins, [N] or one for all.

        Returns:
          [N, height, width, C]; on sheets of the images' size, what `zfjax.project` gives. A NumPy array where the
          windows are such arrays.
        """
        if isinstance(self.pixels, np.ndarray):
            return _paste_on_host(self.pixels, rows=self.rows - rows, columns=self.columns - columns, size=size)
        return _paste(self.pixels, row=self.rows - rows, column=self.columns - columns, size=tuple(size))


class Place(NamedTuple):
    """Where N units stand, int32 [N] each."""

    image: jax.Array  # in the trace
    channel: jax.Array | None  # None: all maps at the place
    row: jax.Array  # 0 in a dense layer, as the column
    column: jax.Array


class _Signal(NamedTuple):
    """What has come down of N units to one layer."""

    values: jax.Array  # [N, h, w, C] in a map, zero outside it; [N, C] in a dense layer
    row: jax.Array  # int32 [N] the map's row at which the window begins
    column: jax.Array
    image: jax.Array  # int32 [N] in the trace
    channel: jax.Array | None  # int32 [N] the one map that is not zero; None where there may be several


def carry_down(
    params: Params, trace: Trace, place: Place, *, layer: str, architecture: Architecture, way: str, seed: str
) -> Windows:
    """The way down of each unit by itself, from its own activation.

    Args:
      params, trace, layer, architecture: as for `zfjax.project`, and checked as there.
      place: of the units.
      way: "deconvnet", "gradient" or "guided".
      seed: "value", each unit's own activation, or "one".
    """
    image, channel, row, column = place
    values = _at_places(trace[layer].features, place)
    values = values if seed == "value" else jnp.ones_like(values)
    values = _where(_is_there(place, trace[layer].features).reshape(-1, *(1,) * (values.ndim - 1)), values)
    if channel is not None:
        values = _where(jax.nn.one_hot(channel, values.shape[-1], dtype=bool).reshape(-1, *values.shape[1:]), values)
    signal, sizes = _Signal(values, row, column, image, channel), architecture.sizes()
    for layer_row in reversed(architecture.layers[: architecture.layer_names.index(layer) + 1]):
        undo: Callable[..., _Signal] = _undo_conv if isinstance(layer_row, Conv) else _undo_dense
        below, kernel = sizes[layer_row.name].input, params[layer_row.name]["kernel"].astype(values.dtype)
        signal = _in_turns(
            partial(undo, row=layer_row, kernel=kernel, layer=trace[layer_row.name], way=way, below=below),
            signal,
            at_once=AT_ONCE // (_num_products(layer_row, signal.values, kernel) * values.dtype.itemsize),
        )
    return Windows(signal.values * jnp.asarray(architecture.input_scale, values.dtype), signal.row, signal.column)


@jax.jit
def activations_at(features: jax.Array, place: Place) -> jax.Array:
    """[N] of the units, or [N, 1, 1, C] of places where every map is meant."""
    values = _at_places(features, place)
    if place.channel is None:
        return values
    return values.reshape(-1, values.shape[-1])[jnp.arange(len(values)), place.channel]


def _at_places(features: jax.Array, place: Place) -> jax.Array:
    """Every map at each place, [N, 1, 1, C]; [N, C] of a dense layer."""
    if features.ndim == 2:
        return features[place.image]
    return features[place.image, place.row, place.column][:, None, None]


def _is_there(place: Place, features: jax.Array) -> jax.Array:
    """bool [N]: false of a traced place outside the map or the images, from which nothing comes down."""
    indices = zip((place.image, place.row, place.column), (*features.shape[:-1], 1, 1), strict=False)
    return jnp.all(jnp.stack([(0 <= index) & (index < limit) for index, limit in indices]), axis=0)


def _undo_dense(
    signal: _Signal, *, row: Dense, kernel: jax.Array, layer: LayerTrace, way: str, below: Shape
) -> _Signal:
    values = signal.values
    if row.hidden:
        if way != "deconvnet":
            values = _where(layer.features[signal.image] > 0, values)
        values = values if way == "gradient" else jax.nn.relu(values)
    start = jnp.zeros_like(signal.row)
    return _Signal((values @ kernel.T).reshape(len(values), *below), start, start, signal.image, None)


def _undo_conv(signal: _Signal, *, row: Conv, kernel: jax.Array, layer: LayerTrace, way: str, below: Shape) -> _Signal:
    if way != "deconvnet":  # before the stages, as none of them makes an active unit of another
        signal = signal._replace(values=_where(_look(layer.features, signal) > 0, signal.values))
    norm_inputs = list(layer.norm_inputs)
    for stage in reversed(row.after):
        if isinstance(stage, Pool):
            assert layer.switches is not None  # whoever calls has looked
            signal = _unpool(stage, layer.switches, signal)
        elif way != "deconvnet":
            signal = _undo_norm(stage, norm_inputs.pop(), signal)
    values = signal.values if way == "gradient" else jax.nn.relu(signal.values)
    signal = signal._replace(
        values=_unfilter(row, kernel, values),
        row=signal.row * row.stride - row.padding[0],
        column=signal.column * row.stride - row.padding[0],
        channel=None,
    )
    return _within(below, signal)


def _undo_norm(norm: ContrastNorm, maps: jax.Array, signal: _Signal) -> _Signal:
    """By its derivative, which spreads to other maps and not to other places."""
    (values,) = jax.vjp(partial(contrast_norm, norm=norm), _look(maps, signal))[1](signal.values)
    return signal._replace(values=values, channel=None)


def _unpool(pool: Pool, switches: jax.Array, signal: _Signal) -> _Signal:
    if signal.channel is not None:  # one activation: its place is under its switch
        switch = switches[signal.image, signal.row, signal.column, signal.channel]
        dy, dx = jnp.divmod(switch.astype(signal.row.dtype), pool.size)
        return signal._replace(row=signal.row * pool.stride + dy, column=signal.column * pool.stride + dx)
    pointed = _look(switches, signal)
    parts = [
        _fold([_where(pointed == dy * pool.size + dx, signal.values) for dy in range(pool.size)], pool.stride, axis=1)
        for dx in range(pool.size)
    ]
    return signal._replace(
        values=_fold(parts, pool.stride, axis=2), row=signal.row * pool.stride, column=signal.column * pool.stride
    )


def _unfilter(row: Conv, kernel: jax.Array, values: jax.Array) -> jax.Array:
    """The transpose of `zfjax.ops.conv` without padding: products with every filter, added up where they meet."""
    groups = zip(*(jnp.split(array, row.groups, axis=-1) for array in (values, kernel)), strict=True)
    products = [jnp.einsum("nhwf,yxcf->nhwyxc", *group) for group in groups]  # as one matrix product
    of_all = jnp.concatenate(products, axis=-1)
    by_column = _fold([of_all[:, :, :, y] for y in range(row.kernel)], row.stride, axis=1)
    return _fold([by_column[:, :, :, x] for x in range(row.kernel)], row.stride, axis=2)


def _fold(parts: Sequence[jax.Array], stride: int, *, axis: int) -> jax.Array:
    """The transpose of taking windows along `axis`: place i of part k is added at i * stride + k.

    Each phase of the stride is a sum of shifted parts; then the phases are laid one beside the other.
    """
    length, reach = parts[0].shape[axis], -(-len(parts) // stride)

    def shifted(part: jax.Array, by: int) -> jax.Array:
        return jnp.pad(part, [(by, reach - 1 - by) if a == axis else (0, 0) for a in range(part.ndim)])

    phases = []
    for phase in range(stride):
        shifts = [shifted(part, by) for by, part in enumerate(parts[phase::stride])]
        phases.append(sum(shifts[1:], shifts[0]) if shifts else shifted(jnp.zeros_like(parts[0]), 0))
    shape = (*phases[0].shape[:axis], -1, *phases[0].shape[axis + 1 :])
    return jax.lax.slice_in_dim(
        jnp.stack(phases, axis + 1).reshape(shape), 0, (length - 1) * stride + len(parts), axis=axis
    )


def _num_products(row: Layer, values: jax.Array, kernel: jax.Array) -> int:
    """How many products are added up for each unit, at most."""
    if not isinstance(row, Conv):
        return len(kernel)
    sides = values.shape[1:3]
    sides = tuple((side - 1) * row.pool.stride + row.pool.size for side in sides) if row.pool else sides
    return math.prod(sides) * math.prod(kernel.shape[:3]) * row.groups


Tree = TypeVar("Tree")


def _in_turns(fn: Callable[[Tree], Tree], tree: Tree, *, at_once: int) -> Tree:
    """`fn` of arrays [N, ...], some of the N at a time."""
    num = len(jax.tree.leaves(tree)[0])
    turns = -(-num // max(1, at_once))
    if turns <= 1:
        return fn(tree)
    each = -(-num // turns)
    filled = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[:1], turns * each - num, axis=0)]), tree)
    done = jax.lax.map(fn, jax.tree.map(lambda x: x.reshape(turns, each, *x.shape[1:]), filled))
    joined: Tree = jax.tree.map(lambda x: x.reshape(turns * each, *x.shape[2:])[:num], done)
    return joined


def _where(keep: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.where(keep, values, jnp.zeros((), values.dtype))


def _steps(start: jax.Array, length: int) -> jax.Array:
    """int [N, length], counted from each start."""
    return start[:, None] + jnp.arange(length, dtype=start.dtype)[None]


def _look(maps: jax.Array, signal: _Signal) -> jax.Array:
    """What the maps [B, H, W, C] of the whole images hold in the windows; outside, something."""
    sides = signal.values.shape[1:3]
    rows, columns = (_steps(start, side) for start, side in zip((signal.row, signal.column), sides, strict=True))
    rows, columns = jnp.clip(rows, 0, maps.shape[1] - 1), jnp.clip(columns, 0, maps.shape[2] - 1)
    return maps[signal.image[:, None, None], rows[:, :, None], columns[:, None, :]]


def _within(shape: Shape, signal: _Signal) -> _Signal:
    """Zero outside the map; all of the map where the window is no smaller."""
    height, width = shape[:2]
    high, wide = signal.values.shape[1:3]
    if high >= height and wide >= width:
        start = jnp.zeros_like(signal.row)
        return signal._replace(
            values=_paste(signal.values, row=signal.row, column=signal.column, size=(height, width)),
            row=start,
            column=start,
        )
    rows, columns = _steps(signal.row, high), _steps(signal.column, wide)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return signal._replace(values=_where(inside[..., None], signal.values))


@partial(jax.jit, static_argnames="size")
def _paste(values: jax.Array, *, row: jax.Array, column: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[N, h, w, C], each at its place on a sheet of `size` that is zero elsewhere."""
    rows, columns = (_steps(-start, side) for start, side in zip((row, column), size, strict=True))
    inside = ((rows >= 0) & (rows < values.shape[1]))[:, :, None] & ((columns >= 0) & (columns < values.shape[2]))[
        :, None
    ]
    rows, columns = jnp.clip(rows, 0, values.shape[1] - 1), jnp.clip(columns, 0, values.shape[2] - 1)
    return _where(inside[..., None], values[jnp.arange(len(values))[:, None, None], rows[:, :, None], columns[:, None]])


def _paste_on_host(windows: np.ndarray, *, rows: np.ndarray, columns: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """`_paste` without a compilation for every number of windows."""
    sheets = np.zeros((len(windows), *size, windows.shape[3]), windows.dtype)
    for sheet, window, *corner in zip(sheets, windows, rows, columns, strict=True):
        from_, to = [], []
        for start, side, length in zip(corner, size, window.shape, strict=False):
            first, last = max(0, int(start)), max(0, min(side, int(start) + length))
            to.append(slice(first, max(first, last)))
            from_.append(slice(first - int(start), max(first, last) - int(start)))
        sheet[tuple(to)] = window[tuple(from_)]
    return sheets
