"""The strongest activations of every map over a split, shown while they are searched and kept between calls."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from zfjax import features, files, nets, parallel
from zfjax.analyses import top_activations
from zfjax.analyses.top_activations import State, TopActivations
from zfjax.data import Source, Subset
from zfjax.data.loader import eval_batches
from zfjax.errors import UserError
from zfjax.nets import Net

NUM_KEPT = 9  # images of each map, as in the paper's Figure 2


def kept_scan(
    net: Net, source: Source, layers: Sequence[str], *, of: str, path: Path | None = None, **options: Any
) -> State:
    """`scan_with` of a network, kept beside its run, wherever the figure goes that asks for it.

    Args:
      net, source, layers: the network, the split, and the layers to watch.
      of: what the state belongs to besides net, layers and k: the set's fingerprint and the split.
      path: of the state's file; None for one in <run>/scans that belongs to all of these.
      options: as for `scan_with`.
    """
    num_maps = {layer: shape[-1] for layer, shape in nets.shapes_of(net, layers).items()}
    key = json.dumps([net.fingerprint, of, list(layers), options.get("k", NUM_KEPT)])
    name = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    path = nets.home_of(net) / "scans" / f"{name}.npz" if path is None else path
    fn = nets.features_of_pictures(net, layers)
    return scan_with(
        fn, source, num_maps=num_maps, path=path, of=(net.fingerprint, of), name=f"net={net.name!r}", **options
    )


def scan_with(
    fn: features.Features,
    source: Source,
    *,
    num_maps: Mapping[str, int],
    path: Path,
    of: Sequence[str],
    k: int = NUM_KEPT,
    batch_size: int = 128,
    num_workers: int = 0,
    save_every: float = 30.0,
    name: str = "fn",
) -> State:
    """`top_activations.scan` over all of `source`, going on from `path` where that fits, and saved there.

    Args:
      fn, num_maps: pictures uint8 [B, H, W, C] -> {layer: features}, of any network, and {layer: number of its maps}.
      source: what is looked through.
      path: .npz with the state, written every `save_every` seconds and at the end, by host 0.
      of: what the state belongs to besides layers and k: the fingerprints of network and set, and the split.
      k: images to keep for each map.
      batch_size, num_workers: images per step over all devices; processes that decode, or 0 to decode on threads.
      name: what the network is called where its features are refused.

    Returns:
      {layer: TopActivations} of NumPy arrays. UserError for a file at `path` that is damaged, or activations that are
      not finite.
    """
    parallel.check_batch_size(batch_size)
    host, num_hosts = parallel.host_count()
    key = json.dumps([*of, list(num_maps), k])
    empty = top_activations.init(num_maps, k)
    state, done = load(path, key) or (empty, 0)
    if not 0 <= done <= len(source) or not _fits(state, num_maps=num_maps, k=k, source=source):
        raise UserError(f"{path} is a scan of other maps or images; remove it to scan again")
    if done < len(source) and done % batch_size:  # it stopped at a batch of another size
        state, done = empty, 0
    last_saved = time.monotonic()
    bar = tqdm(total=len(source), initial=done, unit=" images", desc="looking", disable=True if host else None)

    def on_batch(state: State) -> None:
        nonlocal done, last_saved
        done = min(done + batch_size, len(source))
        bar.update(done - bar.n)
        if host == 0 and time.monotonic() - last_saved > save_every:
            save(path, state, key=key, done=done)
            last_saved = time.monotonic()

    with bar:
        if done < len(source):
            rows = {"host": host, "num_hosts": num_hosts, "first_batch": done // batch_size, "num_workers": num_workers}
            batches = eval_batches(source, batch_size=batch_size, **rows)
            state = top_activations.scan(fn, batches, state, on_batch=on_batch, name=name)
            if host == 0:
                save(path, state, key=key, done=done)
    whole: State = jax.tree.map(np.asarray, state)
    return top_activations.check_finite(whole, name)


def _fits(state: State, *, num_maps: Mapping[str, int], k: int, source: Source) -> bool:
    """Whether a state is one of these maps, and of images that there are."""
    num_images = max(source.places, default=-1) + 1 if isinstance(source, Subset) else len(source)
    shapes = {layer: {np.shape(field) for field in top} for layer, top in state.items()}
    return shapes == {layer: {(num, k)} for layer, num in num_maps.items()} and all(
        (-1 <= np.asarray(top.images)).all() and (np.asarray(top.images) < num_images).all() for top in state.values()
    )


def save(path: Path, state: State, *, key: str, done: int) -> None:
    """Write the state of a scan, what it belongs to, how many images it has seen, and a digest of all of it."""
    fields = {
        f"{layer}/{name}": np.asarray(field) for layer, top in state.items() for name, field in top._asdict().items()
    }
    arrays = {"key": np.array(key), "done": np.array(done), **fields}
    files.save_arrays(path, {**arrays, "digest": np.array(files.digest(arrays))})


def load(path: Path, key: str) -> tuple[State, int] | None:
    """(state, images seen) from `save`; None where there is none that belongs to `key`.

    UserError for a file that is damaged, or whose numbers are not those that were saved.
    """
    if not path.exists():
        return None
    way_on = "remove it to scan again"
    arrays: dict[str, Any] = dict(files.read_npz(path, way_on))
    stored = arrays.pop("digest", None)  # scans of before have none
    if stored is not None and str(stored) != files.digest(arrays):
        raise UserError(f"{path} is damaged, it holds other numbers than were saved; {way_on}")
    if not {"key", "done"} <= arrays.keys() or str(arrays["key"]) != key:
        return None
    layers = dict.fromkeys(name.rsplit("/", 1)[0] for name in arrays if "/" in name)
    needed = {f"{layer}/{name}" for layer in layers for name in TopActivations._fields} | {"key", "done"}
    if arrays.keys() != needed or arrays["done"].dtype.kind not in "iu" or arrays["done"].ndim:
        raise UserError(f"{path} is damaged, it lacks some of its numbers; {way_on}")
    state = {layer: TopActivations(*(arrays[f"{layer}/{name}"] for name in TopActivations._fields)) for layer in layers}
    return state, int(arrays["done"])
