"""Which unit is meant: a map or dense unit, its place, its layer, and the features in which only it is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zfjax.errors import UserError, saying_keywords, warn
from zfjax.windows import Place

Seed = Literal["value", "one"]  # where a way down starts: an activation's own value (sec. 2.1), or 1
Index = int | np.integer | np.ndarray | jax.Array  # an int, traced or not, or one for each of N units ([N])


class Unit(NamedTuple):
    """One unit of a network, or N units: a feature map or dense unit, a position in the map, and the layer.

    `isolate`, `project`, `gradient`, `guided_backprop` and `project_fn` take a Unit. Arrays [N] name N units: with one
    image, each unit gives a picture; with N images, unit n belongs to image n. A number is the same for all images. A
    list of Units of one layer is equivalent to arrays; of several layers, `project`, `gradient`, `guided_backprop`,
    `project_fn` and `Net.project` give a picture of each too. A Unit can be an argument under `jax.jit` and `jax.vmap`;
    `layer` is static there.

    Examples:
      >>> import numpy as np, zfjax
      >>> zfjax.Unit(7)  # the strongest place of map 7
      Unit(channel=7, position=None, layer=None)
      >>> zfjax.Unit(7, (2, 3), "conv5").layer
      'conv5'
      >>> all_of_fc8 = zfjax.Unit(np.arange(1000), layer="fc8")
      >>> everything_there = zfjax.Unit(position=(2, 3), layer="conv5")
    """

    channel: Index | None = None  # the feature map or dense unit; None: all maps at `position`
    position: tuple[Index, Index] | None = None  # (y, x) in the map; None: the strongest activation in each image
    layer: str | None = None  # None if the layer is given separately


jax.tree_util.register_pytree_node(
    Unit, lambda unit: ((unit.channel, unit.position), unit.layer), lambda layer, indices: Unit(*indices, layer)
)


Top = jax.Array | np.ndarray | Unit  # where a way down starts: the features to be seen, zero elsewhere, or a unit


@saying_keywords
def isolate(
    features: jax.Array,
    unit: Unit | Index | None = None,
    *,
    channel: Index | None = None,
    position: tuple[Index, Index] | None = None,
    seed: Seed = "value",
) -> jax.Array:
    """Keep one activation of each image and set all others of the layer to zero (sec. 2.1).

    Args:
      features: [B, H, W, C] of a convolutional layer, or [B, C] of a dense one.
      unit: the unit to keep, instead of the two arguments below; a number is its channel. Its `layer` is ignored.
      channel: the feature map or dense unit to keep; None keeps every map at `position`.
      position: (y, x) in the map; None keeps the map's strongest place in each image, the first of equal ones. A
        dense unit has none.
      seed: "value" keeps the activation's value, "one" replaces it by 1. A projection of a negative activation shows
        evidence against the unit as if it were evidence for it, so "value" warns of one, outside jit.

    Returns:
      Array of the shape of `features`, 0 except for the kept activations; for N units of one image [N, ...].

    Raises:
      UserError: a channel or position outside the features, or a number of them that is not that of the images. Under
        jit an index outside keeps nothing instead.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, zfjax
      >>> features = jnp.arange(8.0).reshape(1, 2, 2, 2)
      >>> zfjax.isolate(features, channel=1)[0, :, :, 1]
      Array([[0., 0.],
             [0., 7.]], dtype=float32)
      >>> zfjax.isolate(features, zfjax.Unit(0, position=(1, 0)))[0, :, :, 0]
      Array([[0., 0.],
             [4., 0.]], dtype=float32)
      >>> zfjax.isolate(features, zfjax.Unit(np.array([0, 1, 1]))).shape  # three units of one image
      (3, 2, 2, 2)
    """
    check_seed(seed)
    if unit is not None and (channel is not None or position is not None):
        raise UserError(
            f"unit={unit}, channel={channel}, position={position}: name the unit once, by unit= or the others"
        )
    unit = as_unit(Unit(channel, position) if unit is None else unit)
    indices = _indices_of(unit, features)
    num, axes = _num_units(indices, len(features)), _axes_of(features)
    features = jnp.broadcast_to(features, (num, *features.shape[1:]))
    keep = jnp.ones((num, *(1 for _ in features.shape[1:])), bool)
    for name, index in indices.items():
        keep = keep & _is_at(index, features, axis=axes[name])
    if features.ndim == 4 and unit.position is None:
        strongest = jnp.where(keep, features, -jnp.inf).max(axis=3).reshape(num, -1).argmax(axis=1)
        row, column = strongest // features.shape[2], strongest % features.shape[2]
        keep = keep & _is_at(row, features, axis=1) & _is_at(column, features, axis=2)
    kept = jnp.where(keep, features if seed == "value" else jnp.ones((), features.dtype), jnp.zeros((), features.dtype))
    warn_below_zero(kept.reshape(num, -1), seed=seed)
    return kept


def check_seed(seed: str) -> None:
    """UserError unless it is a `Seed`."""
    if seed not in ("value", "one"):
        raise UserError(f"seed={seed!r}: one of 'value', 'one' is needed")


def warn_below_zero(starts: Any, *, seed: str) -> None:
    """Warn of ways down that start below 0, for these [N, ...] units; says nothing of traced ones."""
    if seed != "value" or isinstance(starts, jax.core.Tracer):
        return
    lowest = np.asarray(starts).reshape(len(starts), -1).min(axis=1) if np.size(starts) else np.zeros(0)
    if (below := np.flatnonzero(lowest < 0)).size:
        listed = ", ".join(map(str, below[:10])) + (", ..." if below.size > 10 else "")
        warn(
            f"seed='value': {below.size} of {len(lowest)} activations are below 0 (number {listed}; the lowest "
            f"{lowest.min():.3g}), and their pictures show what speaks against the unit as what speaks for it; "
            "seed='one' starts from 1"
        )


def as_unit(unit: Unit | Index | tuple[Index | None, ...] | Sequence[Unit]) -> Unit:
    """What names a unit, as a Unit: a number is its channel, a plain tuple (channel, position); a list as `joined`.

    UserError for a position that is no pair.
    """
    named = joined(unit)
    if not isinstance(named, Unit):
        fields = named if isinstance(named, tuple) else (named,)
        if len(fields) > len(Unit._fields):
            raise UserError(f"unit={named}: (channel, position, layer) at most is needed, or a list of Units")
        named = Unit(*fields)
    if named.position is None:
        return named
    try:
        row, column = named.position
    except (TypeError, ValueError) as error:  # a number, or more than two
        raise UserError(
            f"position={named.position!r}: (y, x) in the map is needed; a layer is named by layer="
        ) from error
    return named._replace(position=(row, column))


def joined(units: Any) -> Any:
    """A list of Units, each of one channel of one layer, as the one Unit of all of them; what is none, as it is."""
    if isinstance(units, Unit) or not isinstance(units, (list, tuple)):
        return units
    if not any(isinstance(unit, Unit) for unit in units):
        return units
    layers = {unit.layer if isinstance(unit, Unit) else None for unit in units}
    rows = [jax.tree.leaves(unit) for unit in units]  # channel, and row and column where they are named
    alike = len({jax.tree.structure(unit) for unit in units}) == 1 and all(np.ndim(n) == 0 for row in rows for n in row)
    if not alike or len(layers) > 1 or units[0].channel is None:
        raise UserError(
            f"units={units}: of a list each needs to be a Unit of one channel, all of one layer and all with a place "
            "or none; Unit([1, 2], layer=...) is two units"
        )
    stack = jnp.stack if any(isinstance(n, jax.core.Tracer) for row in rows for n in row) else np.stack
    channels, *places = (stack(column) for column in zip(*rows, strict=True))
    return Unit(channels, (places[0], places[1]) if places else None, *layers)


def by_layer(units: Any) -> dict[str, np.ndarray]:
    """{layer: which of the units} of a list of Units that name several layers; {} of all else."""
    if not isinstance(units, (list, tuple)) or not all(isinstance(unit, Unit) and unit.layer for unit in units):
        return {}
    rows: dict[str, list[int]] = {}
    for n, unit in enumerate(units):
        rows.setdefault(unit.layer, []).append(n)
    return {layer: np.array(of) for layer, of in rows.items()} if len(rows) > 1 else {}


def of_layers(units: Any, num_images: int, project: Callable[[Any, np.ndarray | None], Any]) -> Any:
    """Pictures of a list of Units of several layers, in its order; `project` is called once for each layer.

    Args:
      units: of which `by_layer` is not empty.
      num_images: 1, of which every unit gives a picture, or one for each unit.
      project: fn(the list's Units of one layer, their places in the list; None of the one image) -> arrays [n, ...].
    """
    if num_images not in (1, len(units)):
        raise UserError(f"{len(units)} units of several layers on {num_images} images: one image, or one for each unit")
    rows = by_layer(units)
    parts = [project([units[n] for n in of], None if num_images == 1 else of) for of in rows.values()]
    order = np.argsort(np.concatenate(list(rows.values())))

    def stacked(*pictures: Any) -> Any:
        together = np.concatenate if all(isinstance(of, np.ndarray) for of in pictures) else jnp.concatenate
        return together(pictures)[order]

    return jax.tree.map(stacked, *parts)


def one_layer(unit: Unit, layer: str | None) -> str | None:
    """The layer that a unit or `layer` names; None where neither does, UserError where they disagree."""
    if unit.layer is not None and layer is not None and unit.layer != layer:
        raise UserError(f"layer={layer!r} and Unit(layer={unit.layer!r}): name one layer; one of them may be left out")
    return unit.layer if layer is None else layer


def _axes_of(features: jax.Array) -> dict[str, int]:
    return {"channel": features.ndim - 1, "position row": 1, "position column": 2}


def _indices_of(unit: Unit, features: jax.Array) -> dict[str, jax.Array]:
    """What the unit says, by the names of `_axes_of`; UserError for one that is not in the features."""
    channel, position, _ = unit
    if features.ndim not in (2, 4):
        raise UserError(f"features of shape {features.shape}: [B, H, W, C] or [B, C] is needed")
    if channel is None and position is None:
        raise UserError("channel=None, position=None: say which activation to keep, by channel, position or both")
    if features.ndim == 2 and position is not None:
        raise UserError(f"position={position}: a dense layer has no places, only a channel")
    given = {} if channel is None else {"channel": channel}
    given |= {} if position is None else {"position row": position[0], "position column": position[1]}
    return {name: _index(index, features.shape[_axes_of(features)[name]], name) for name, index in given.items()}


def place_of(unit: Unit, features: jax.Array, of: Index | None) -> Place:
    """Where each unit stands, its strongest place where it says none; UserError as for `isolate`."""
    indices = _indices_of(unit, features)
    if of is None:
        num = _num_units(indices, len(features))
        image = jnp.arange(num) if len(features) == num else jnp.zeros(num, int)
    else:
        indices["of"] = _index(of, len(features), "of")
        num = _num_units(indices, 1)
        image = indices["of"]
    places = {name: jnp.broadcast_to(index.astype(np.int32), num) for name, index in indices.items()}
    image = jnp.broadcast_to(image.astype(np.int32), num)
    row, column = (places.get(f"position {side}", jnp.zeros(num, np.int32)) for side in ("row", "column"))
    if features.ndim == 4 and unit.position is None:
        maps = features[image, :, :, places["channel"]]
        row, column = jnp.divmod(maps.reshape(num, -1).argmax(axis=1).astype(np.int32), features.shape[2])
    return Place(image, places.get("channel"), row, column)


def _index(index: Index, limit: int, name: str) -> jax.Array:
    """The index as an array; UserError for one outside, where it is known."""
    if not isinstance(index, jax.core.Tracer):
        index = np.asarray(index)
        if not np.issubdtype(index.dtype, np.integer) or not np.all((0 <= index) & (index < limit)):
            raise UserError(f"{name}={index}: a whole number from 0 to {limit - 1} is needed")
    return jnp.asarray(index)


def _num_units(indices: Mapping[str, jax.Array], batch: int) -> int:
    """How many activations are kept: one of each image, or all units of one image."""
    several = {name: index.shape for name, index in indices.items() if index.shape != ()}
    for name, shape in several.items():
        if len(shape) != 1 or (batch != 1 and shape != (batch,)):
            raise UserError(f"{name} of shape {shape}: one index, or one for each of the {batch} images")
    if len(set(several.values())) > 1:
        listed = ", ".join(f"{name} of shape {shape}" for name, shape in several.items())
        raise UserError(f"{listed}: one index each, or the same number of them")
    return next(iter(several.values()))[0] if several else batch


def _is_at(index: jax.Array, features: jax.Array, *, axis: int) -> jax.Array:
    """bool, true where `axis` counts to `index`; [N] indices go along the batch."""
    counted = jnp.expand_dims(jnp.arange(features.shape[axis]), [a for a in range(features.ndim) if a != axis])
    return counted == index.reshape(-1, *(1,) * (features.ndim - 1)).astype(counted.dtype)
