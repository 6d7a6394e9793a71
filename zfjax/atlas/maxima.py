"""The strongest activation of every unit in every image of a set, in one pass that goes on where it stopped.

The numbers lie in files, eight bytes for each unit and image, so that the memory does not grow with the set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from tqdm import tqdm

from zfjax import features, files, nets
from zfjax.data import Source
from zfjax.data.loader import eval_batches
from zfjax.errors import UserError
from zfjax.nets import Net
from zfjax.programs import as_partial, compiled

STATE = "state.json"
_WAY_ON = "remove the folder to scan again"


class Maxima(NamedTuple):
    """Of N images and the U units of all layers, read from files: each unit's maximum over its places."""

    values: np.ndarray  # float32 [N, U]
    places: np.ndarray  # int32 [N, U] row * width + column of the first place that holds it; 0 in a dense layer
    labels: np.ndarray  # int32 [N]
    columns: dict[str, slice]  # layer -> its units among U

    def of(self, layer: str, units: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """(values, places) [N, u] of some units of a layer, in memory."""
        start, stop, _ = units.indices(self.columns[layer].stop - self.columns[layer].start)
        chosen = slice(self.columns[layer].start + start, self.columns[layer].start + stop)
        return np.ascontiguousarray(self.values[:, chosen]), np.ascontiguousarray(self.places[:, chosen])


class _State(TypedDict):
    key: str  # what the files belong to
    done: int  # images seen


def all_maxima(
    net: Net,
    source: Source,
    *,
    layers: Sequence[str],
    folder: Path,
    key: str,
    batch_size: int = 64,
    save_every: float = 30.0,
    progress: bool = True,
) -> Maxima:
    """Look through all of `source`.

    Args:
      net: any network.
      source: what is looked through.
      layers: the layers to watch.
      folder: for the files; a scan of this `key` that was stopped goes on.
      key: what the numbers belong to, as the fingerprints of net and set.
      batch_size: images at once.
      save_every: seconds between two notes of how far the scan is.
      progress: show a bar.

    Returns:
      Maxima. UserError for activations that are not finite, or files that are damaged.
    """
    widths = {layer: shape[-1] for layer, shape in nets.shapes_of(net, layers).items()}
    ends = np.cumsum(list(widths.values())).tolist()
    columns = {layer: slice(end - width, end) for (layer, width), end in zip(widths.items(), ends, strict=True)}
    shape = (len(source), ends[-1])
    key = json.dumps([key, widths, len(source)])
    folder.mkdir(parents=True, exist_ok=True)
    done = _done(folder, key, shape)
    mode: Literal["r+", "w+"] = "r+" if done else "w+"
    values = np.memmap(folder / "values.f32", np.float32, mode, shape=shape)
    places = np.memmap(folder / "places.i32", np.int32, mode, shape=shape)
    labels = np.memmap(folder / "labels.i32", np.int32, mode, shape=shape[:1])
    if done % batch_size and done < len(source):  # it stopped at a batch of another size
        done = 0

    def note() -> None:
        for array in (values, places, labels):
            array.flush()
        files.save_json(folder / STATE, {"key": key, "done": done})

    if done < len(source):
        fn, saved = as_partial(nets.features_of_pictures(net, layers)), time.monotonic()
        with tqdm(total=len(source), initial=done, unit=" images", desc="looking", disable=not progress) as bar:
            for batch in eval_batches(source, batch_size=batch_size, first_batch=done // batch_size):
                real = batch["index"] >= 0
                rows = slice(done, done + int(real.sum()))
                for layer, (strongest, place) in maxima_of(fn, batch["image"]).items():
                    if not np.isfinite(strongest := np.asarray(strongest)[real]).all():
                        raise UserError(f"layer {layer!r} of {net.name}: activations are not finite")
                    values[rows, columns[layer]] = strongest
                    places[rows, columns[layer]] = np.asarray(place)[real]
                labels[rows] = batch["label"][real]
                done = rows.stop
                bar.update(rows.stop - rows.start)
                if time.monotonic() - saved > save_every:
                    note()
                    saved = time.monotonic()
        note()
    return Maxima(values, places, labels, columns)


def _done(folder: Path, key: str, shape: tuple[int, int]) -> int:
    """How many images the files in `folder` have seen of what `key` names."""
    if not (folder / STATE).exists():
        return 0
    state = files.read_json(folder / STATE, _State, _WAY_ON)
    sizes = {"values.f32": 4 * shape[0] * shape[1], "places.i32": 4 * shape[0] * shape[1], "labels.i32": 4 * shape[0]}
    whole = all((folder / name).exists() and (folder / name).stat().st_size == size for name, size in sizes.items())
    return int(state["done"]) if state["key"] == key and whole else 0


@compiled
def maxima_of(fn: Partial, pictures: jax.Array) -> Mapping[str, tuple[jax.Array, jax.Array]]:
    """{layer: (maximum, its first place)}, [B, C] each."""

    def of(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
        flat = features.check_places(maps).astype(jnp.float32).reshape(len(maps), -1, maps.shape[-1])
        strongest = flat.max(axis=1)
        steps = jax.lax.broadcasted_iota(jnp.int32, flat.shape, 1)
        last = jnp.int32(flat.shape[1] - 1)
        return strongest, jnp.where(flat == strongest[:, None], steps, last).min(axis=1)

    return {layer: of(maps) for layer, maps in fn(pictures).items()}
