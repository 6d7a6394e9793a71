"""Batches of a source in an order that depends on the seed and the step alone."""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from zfjax.data import Source
from zfjax.data.processes import held_back, start_worker
from zfjax.errors import FailedError, UserError
from zfjax.extras import extra

if TYPE_CHECKING:
    import grain

Batches = Generator[dict[str, np.ndarray], None, None]  # closing it ends the workers
_AHEAD = 2  # batches waiting per thread or process: 25 MB each at 128 pictures of 256 pixels


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Whole batches in one epoch; the rest of its shuffle is dropped, another rest in every epoch.

    Raises:
      UserError: where `source` does not fill one batch.
    """
    if not 1 <= batch_size <= len(source):
        raise UserError(f"batch_size must lie between 1 and the {len(source)} examples of the split, not {batch_size}")
    return len(source) // batch_size


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    num_epochs: int,
    first_step: int = 0,
    host: int = 0,
    num_hosts: int = 1,
    num_workers: int = 0,
) -> Batches:
    """One host's rows of the training batches from `first_step` on.

    Each epoch has its own shuffle s, by (seed, epoch). Global batch t of the epoch is s[t * B : (t + 1) * B] with
    B = batch_size, whatever the number of hosts and workers; row i on host h is its example h + num_hosts * i, the
    position that random draws should be keyed by. No state is kept: a run goes on at any step by `first_step`.

    Args:
      source: the training split.
      batch_size: examples per step over all hosts.
      seed: of the shuffles, any whole number from 0 on.
      num_epochs: passes over the source, counted from step 0.
      first_step: steps to leave out, counted over all epochs.
      host, num_hosts: which of how many processes of the run this is.
      num_workers: processes that decode; 0 decodes on threads of this one.

    Returns:
      Generator of image uint8 [B / num_hosts, H, W, C], label int32 and index int32 [B / num_hosts]; closing or
      dropping it ends the workers.

    Raises:
      UserError: where an argument is out of its range.

    Examples:
      >>> import numpy as np
      >>> from zfjax.data import ArraySource, loader
      >>> source = ArraySource(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))
      >>> batches = loader.train_batches(source, batch_size=2, seed=0, num_epochs=1)
      >>> sorted(index for batch in batches for index in batch["index"].tolist())
      [0, 1, 2, 3]
    """
    steps = steps_per_epoch(source, batch_size)
    _check(batch_size, host=host, num_hosts=num_hosts, num_workers=num_workers, first_step=first_step)
    if num_epochs < 1:
        raise UserError(f"num_epochs must be at least 1, not {num_epochs}")
    with extra("train"):
        import grain
    # Grain shuffles epoch e of seed n as epoch 0 of seed n + e; spread out, neighbouring seeds share no shuffle
    spread = int(np.random.SeedSequence(seed).generate_state(1)[0])
    places = grain.MapDataset.range(len(source)).shuffle(spread)[: steps * batch_size][host::num_hosts]
    batches = places.batch(batch_size // num_hosts).repeat(num_epochs)[first_step:]
    return _iterate(batches.map(partial(_batch, source)), num_workers)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    host: int = 0,
    num_hosts: int = 1,
    num_workers: int = 0,
    first_batch: int = 0,
) -> Batches:
    """One host's rows of the source in order, each example once, the last batch filled up.

    Global batch t holds the examples t * B to (t + 1) * B - 1; row i on host h is the (h + num_hosts * i)th of them.
    Every host gets the same number of batches. Rows beyond the source have mask False, index -1 and 0 elsewhere.

    Args: as for `train_batches`; `first_batch` leaves out the batches before it.

    Returns:
      Generator of image uint8 [B / num_hosts, H, W, C], label, index int32 and mask bool [B / num_hosts].

    Raises:
      UserError: where an argument is out of its range.

    Examples:
      >>> import numpy as np
      >>> from zfjax.data import ArraySource, loader
      >>> source = ArraySource(np.zeros((3, 8, 8, 3), np.uint8), np.arange(3))
      >>> [batch["index"].tolist() for batch in loader.eval_batches(source, batch_size=2)]
      [[0, 1], [2, -1]]
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    _check(batch_size, host=host, num_hosts=num_hosts, num_workers=num_workers, first_batch=first_batch)
    filled = _Filled(source, batch_size)
    if not num_workers:
        return _on_threads(
            filled, range(host, len(filled), num_hosts), rows=batch_size // num_hosts, first_batch=first_batch
        )
    with extra("train"):
        import grain
    places = grain.MapDataset.range(host, len(filled), num_hosts).batch(batch_size // num_hosts)[first_batch:]
    return _iterate(places.map(partial(_batch, filled)), num_workers)


class _Filled:
    """A source made a whole number of batches long by rows that the mask leaves out."""

    def __init__(self, source: Source, batch_size: int):
        self._source = source
        self._length = -(-len(source) // batch_size) * batch_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < len(self._source):
            return {**self._source[index], "mask": np.bool_(True)}
        blank = {name: np.zeros_like(value) for name, value in self._source[0].items()}
        return {**blank, "index": np.int32(-1), "mask": np.bool_(False)}


def _check(batch_size: int, *, host: int, num_hosts: int, num_workers: int, **first: int) -> None:
    """UserError where the arguments shared by both kinds of batches do not fit together."""
    if num_hosts < 1 or batch_size % num_hosts:
        raise UserError(f"batch_size {batch_size} must be a multiple of num_hosts, which is {num_hosts}")
    if not 0 <= host < num_hosts:
        raise UserError(f"host must lie between 0 and num_hosts - 1 = {num_hosts - 1}, not {host}")
    for name, value in [("num_workers", num_workers), *first.items()]:
        if value < 0:
            raise UserError(f"{name} must be 0 or more, not {value}")


def _batch(source: Source | _Filled, places: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """The examples at `places`, stacked; each is copied as it comes, while it is still near the processor."""
    examples = (source[int(place)] for place in places)
    first = next(examples)
    batch = {name: np.empty((len(places), *np.shape(value)), np.asarray(value).dtype) for name, value in first.items()}
    for row, example in enumerate(itertools.chain([first], examples)):
        for name, rows in batch.items():
            if np.shape(example[name]) != rows.shape[1:]:
                shapes = f"{np.shape(example[name])}, not {rows.shape[1:]} as example {places[0]}"
                raise UserError(f"example {places[row]} of the source: {name} has the shape {shapes}")
            rows[row] = example[name]
    return batch


def _on_threads(source: _Filled, places: Sequence[int], *, rows: int, first_batch: int) -> Batches:
    """Batches of the examples at `places`, in order, made ahead of time on threads; of a batch one thread makes all."""

    def batch(start: int) -> dict[str, np.ndarray]:
        return _batch(source, places[start : start + rows])

    threads = min(os.cpu_count() or 1, 16)
    starts = iter(range(first_batch * rows, len(places), rows))
    pool = ThreadPoolExecutor(threads)
    try:
        ahead = deque(pool.submit(batch, start) for start in itertools.islice(starts, _AHEAD * threads))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(batch, start) for start in itertools.islice(starts, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _iterate(batches: grain.MapDataset, num_workers: int) -> Batches:
    """The batches in order, made ahead of time on threads, or in `num_workers` processes with one thread each."""
    with extra("train"):
        import grain
    threads = 1 if num_workers else min(os.cpu_count() or 1, 16)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD * threads)
    dataset = batches.to_iter_dataset(ahead)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which only absl's own main would parse
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=_AHEAD)
        dataset = dataset.mp_prefetch(options, start_worker)
    iterator = iter(dataset)
    try:
        with held_back():  # the workers start now
            batch = next(iterator, None)
        if batch is not None:
            yield batch
            del batch  # its shared memory goes with it
            yield from iterator
    except (RuntimeError, OSError) as error:
        raise _in_words(error, num_workers) from error
    finally:
        iterator.close()


def _in_words(error: Exception, num_workers: int) -> Exception:
    """What befell a worker, and the way on; any other error as it is."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return FailedError(f"the shared memory /dev/shm is full ({error}); {_SMALL_SHM}")
    ended = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
    if not isinstance(error, RuntimeError) or ended is None:
        return error
    code = int(ended[1])
    if code == -signal.SIGBUS:  # what a write beyond the end of shared memory ends with
        return FailedError(f"a process that decodes pictures had no shared memory left in /dev/shm; {_SMALL_SHM}")
    way_on = f"fewer than {num_workers} --num-workers take less memory, and 0 decode on threads"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return FailedError(f"a process that decodes pictures {how}, as one does where memory runs out; {way_on}")


_SMALL_SHM = "make it larger (docker run --shm-size 2g), or decode on threads with --num-workers 0"
