"""The strongest activations of every map over a split, shown while they are searched and kept between calls."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from experiments import pictures
from experiments.inputs import TrainedNet
from zfjax import features, parallel, top_activations
from zfjax.data import Source
from zfjax.data.loader import eval_batches
from zfjax.top_activations import State, TopActivations


def scan(
    net: TrainedNet,
    source: Source,
    layers: Sequence[str],
    path: Path,
    *,
    of: str,
    k: int = 9,
    batch_size: int = 128,
    num_workers: int = 0,
    save_every: float = 30.0,
) -> State:
    """`top_activations.scan` over all of `source`, going on from `path` where that fits, and saved there.

    Args:
      net, source, layers: the network, the split, and the layers to watch.
      path: .npz with the state, written every `save_every` seconds and at the end, by host 0.
      of: what the state belongs to besides net, layers and k: the set's fingerprint and the split.
      k: images to keep for each map.
      batch_size: images per step over all devices.
      num_workers: processes that decode; 0 decodes on threads.
    Returns:
      {layer: TopActivations} of NumPy arrays. ValueError for a file at `path` that is damaged.
    """
    parallel.check_batch_size(batch_size)
    host, num_hosts = parallel.host_count()
    key = json.dumps([net.fingerprint, of, list(layers), k])
    empty = top_activations.init({layer: net.architecture.layer(layer).features for layer in layers}, k)
    state, done = load(path, key) or (empty, 0)
    if done < len(source) and done % batch_size:  # it stopped at a batch of another size
        state, done = empty, 0
    last_saved = time.monotonic()
    bar = tqdm(total=len(source), initial=done, unit=" images", desc="looking", disable=True if host else None)

    def on_batch(state: State) -> None:
        nonlocal done, last_saved
        done = min(done + batch_size, len(source))
        bar.update(done - bar.n)
        if host == 0 and time.monotonic() - last_saved > save_every:
            save(path, key, state, done)
            last_saved = time.monotonic()

    with bar:
        if done < len(source):
            rows = {"host": host, "num_hosts": num_hosts, "first_batch": done // batch_size, "num_workers": num_workers}
            batches = eval_batches(source, batch_size=batch_size, **rows)
            fn = features.layers_of_pictures(net.params, net.mean, layers, architecture=net.architecture)
            state = top_activations.scan(fn, batches, state, on_batch=on_batch)
            if host == 0:
                save(path, key, state, done)
    return jax.tree.map(np.asarray, state)


def save(path: Path, key: str, state: State, done: int) -> None:
    """Write the state of a scan, what it belongs to, and how many images it has seen."""
    fields = {
        f"{layer}/{name}": np.asarray(field) for layer, top in state.items() for name, field in top._asdict().items()
    }
    pictures.save_arrays(path, {"key": np.array(key), "done": np.array(done), **fields})


def load(path: Path, key: str) -> tuple[State, int] | None:
    """(state, images seen) from `save`; None where there is none that belongs to `key`."""
    if not path.exists():
        return None
    try:
        with np.load(path) as saved:
            arrays = dict(saved)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged; remove it, and the scan begins anew: {error}") from error
    if str(arrays["key"]) != key or "done" not in arrays:
        return None
    layers = dict.fromkeys(name.split("/")[0] for name in arrays if "/" in name)
    state = {layer: TopActivations(*(arrays[f"{layer}/{name}"] for name in TopActivations._fields)) for layer in layers}
    return state, int(arrays["done"])
