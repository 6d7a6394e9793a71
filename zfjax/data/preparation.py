"""Photos turned into stored pictures on all cores, in order, with little in memory at any time."""

import collections
import hashlib
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from zfjax.architecture import Size
from zfjax.data import pictures
from zfjax.data.archives import AnyPhoto
from zfjax.data.processes import deaf, held_back, start_worker

_CHUNK = 32  # photos per task: 1 MB of JPEG, large beside what a task costs, small beside memory
_CHUNKS_PER_WORKER = 2  # in flight at once: one at work, one waiting


class Chunk(NamedTuple):
    """What became of some consecutive photos."""

    stored: list[tuple[AnyPhoto, bytes]]  # each photo's JPEG
    bad: list[tuple[AnyPhoto, str]]  # photos that cannot be decoded, and why
    total: np.ndarray  # uint32 [H, W, 3], sum over `stored` of the pixels as they will be read back
    digests: list[int]  # of the bytes of each photo's own file, 64 bits


def convert(photos: Iterable[AnyPhoto], size: Size, *, workers: int) -> Iterator[Chunk]:
    """`photos` as stored pictures, in the order given whatever the number of workers.

    Args:
      photos: listed lazily; at most a few hundred per worker are held.
      size: side of the stored pictures, or their (height, width), pixels.
      workers: processes; 1 works in this one.
    """
    chunks = _batched(photos, _CHUNK)  # itertools.batched comes with Python 3.12
    if workers == 1:
        yield from (_convert_chunk(chunk, size) for chunk in chunks)
        return
    # spawn, not fork: the caller may hold threads (JAX, TFDS), and a forked child may inherit their locks locked
    context = multiprocessing.get_context("spawn")
    with held_back():  # Python's tracker may start now
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)
    try:
        waiting: collections.deque[Future[Chunk]] = collections.deque()
        for chunk in chunks:
            with held_back():  # a worker may start now
                waiting.append(executor.submit(_convert_chunk, chunk, size))
            if len(waiting) >= workers * _CHUNKS_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        with deaf():  # a second Ctrl-C here would leave workers that nobody ends
            executor.shutdown(wait=True, cancel_futures=True)


def _batched(photos: Iterable[AnyPhoto], count: int) -> Iterator[tuple[AnyPhoto, ...]]:
    photos = iter(photos)
    while chunk := tuple(itertools.islice(photos, count)):
        yield chunk


def _convert_chunk(photos: tuple[AnyPhoto, ...], size: Size) -> Chunk:
    height, width = (size, size) if isinstance(size, int) else size
    stored, bad, total, digests = [], [], np.zeros((height, width, 3), np.uint32), []
    for photo in photos:
        try:
            data = photo.read()
            jpeg = pictures.encode(pictures.preprocess(data, size))
        except ValueError as error:
            bad.append((photo, str(error)))
            continue
        total += pictures.decode(jpeg)
        stored.append((photo, jpeg))
        digests.append(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))
    return Chunk(stored, bad, total, digests)
