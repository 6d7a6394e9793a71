"""Photos turned into stored pictures on all cores, in order, with little in memory at any time."""

import collections
import contextlib
import hashlib
import itertools
import multiprocessing
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from zfjax.architecture import Size
from zfjax.data import pictures
from zfjax.data.archives import AnyPhoto
from zfjax.data.processes import end_with_parent

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
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        waiting: collections.deque[Future[Chunk]] = collections.deque()
        for chunk in chunks:
            with _deaf():  # a worker that is started here is deaf from its first moment on
                waiting.append(executor.submit(_convert_chunk, chunk, size))
            if len(waiting) >= workers * _CHUNKS_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        with _deaf():  # a second Ctrl-C here would leave workers that nobody ends
            executor.shutdown(wait=True, cancel_futures=True)


def _batched(photos: Iterable[AnyPhoto], count: int) -> Iterator[tuple[AnyPhoto, ...]]:
    photos = iter(photos)
    while chunk := tuple(itertools.islice(photos, count)):
        yield chunk


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C does nothing meanwhile, here and in processes that are started; only the main thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        # None: the interpreter is ending, and has taken its handlers away, or one was not installed from Python
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)


def _start_worker() -> None:
    """A worker leaves Ctrl-C to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


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
