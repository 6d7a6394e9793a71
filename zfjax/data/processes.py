"""Worker processes: they leave signals to the process that started them, and end when that one does."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

from zfjax.leaving import STOPPING


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Processes and threads that start within do not die of the signals that are for the first one.

    Ctrl-C, a closed terminal and Slurm reach every process; the first one decides. Those that start within begin with
    what this thread holds back, Python's own tracker of what they share too. The first process takes the signals on
    any of its other threads, or afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        resource_tracker.ensure_running()  # starting, it lets SIGINT and SIGTERM through again
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Those signals do nothing meanwhile: workers are being ended. Only the main thread can say so."""
    is_main = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (STOPPING if is_main else ())}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: the interpreter is ending, and has taken its handlers away, or one was not installed from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def start_worker(*_: object) -> None:
    """In a worker, first: it leaves those signals to its parent, and ends as soon as that is gone, even by kill -9."""
    threading.Thread(target=_wait_and_end, daemon=True).start()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
